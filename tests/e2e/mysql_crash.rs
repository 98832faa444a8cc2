//! A server killed with SIGKILL in the middle of commits, again and again: nothing is lost, nothing is doubled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tagflow::config::MysqlAddress;
use super::tagflow::delta::Delta;
use super::tagflow::sink::collapse::PendingChanges;
use super::tagflow::sink::mysql::MysqlSink;
use super::tagflow::sink::{Sink, SinkColumn, SinkError, TagChanges, TagTable, shadow_table};
use super::{ZONE, contract};
use crate::mariadb::Server;

fn sink(server: &Server) -> MysqlSink {
    MysqlSink::new(&MysqlAddress::plain(server.url("crash")), ZONE).unwrap()
}

/// Calls until it succeeds; only passing errors may come in between.
fn insist<T>(mut call: impl FnMut() -> Result<T, SinkError>) -> T {
    let since = Instant::now();
    loop {
        match call() {
            Ok(value) => return value,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                assert!(since.elapsed() < Duration::from_secs(120), "{error}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn server_killed_in_the_middle_of_commits_loses_and_doubles_nothing() {
    let mut server = Server::install();
    let schema = Arc::new(Schema::new(vec![
        Field::new("user_id", DataType::Int64, true),
        Field::new("visits", DataType::Int64, true),
    ]));
    let column = |name: &str| SinkColumn { name: name.to_string(), data_type: DataType::Int64 };
    let table = Arc::new(TagTable {
        table: "visits".to_string(),
        key: vec![column("user_id")],
        columns: vec![column("visits")],
    });
    let mut sink = sink(&server);
    insist(|| sink.open(&contract::claim()));
    sink.create_table(&table).unwrap();

    // One thread kills and starts the server at random moments while this one commits.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let killer = std::thread::spawn(move || {
        let mut rng = StdRng::seed_from_u64(3);
        let mut kills = 0;
        while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
            stopped.recv_timeout(Duration::from_millis(rng.random_range(50..600)))
        {
            server.kill();
            server.start();
            kills += 1;
        }
        (server, kills)
    });

    let mut rng = StdRng::seed_from_u64(4);
    let mut relation: BTreeMap<i64, i64> = BTreeMap::new();
    let mut pending = PendingChanges::new("visits", schema.clone(), &[0]).unwrap();
    let since = Instant::now();
    let mut epoch = 0;
    while since.elapsed() < Duration::from_secs(12) {
        epoch += 1;
        let mut lines: Vec<(i64, i64, i64)> = Vec::new();
        let count = if epoch % 3 == 0 { 5_000 } else { 200 };
        for _ in 0..count {
            let user = rng.random_range(0..6_000);
            if let Some(old) = relation.remove(&user) {
                lines.push((user, old, -1));
            }
            if rng.random_bool(0.7) {
                let visits = rng.random_range(0..50);
                relation.insert(user, visits);
                lines.push((user, visits, 1));
            }
        }
        let users: ArrayRef = Arc::new(Int64Array::from_iter_values(lines.iter().map(|line| line.0)));
        let visits: ArrayRef = Arc::new(Int64Array::from_iter_values(lines.iter().map(|line| line.1)));
        let batch = RecordBatch::try_new(schema.clone(), vec![users, visits]).unwrap();
        pending.add_epoch(&[Delta::weighted(batch, lines.iter().map(|line| line.2).collect())]).unwrap();
        let net = pending.drain().unwrap();
        let change = TagChanges {
            table: table.clone(),
            upserts: net.upserts,
            deletes: net.deletes,
            progress: contract::progress("visits", epoch, relation.len() as u64),
        };
        insist(|| sink.commit(std::slice::from_ref(&change)));
        if epoch % 20 == 0 {
            swap_in(&mut sink, &table, epoch, &relation);
        }
        // What is committed is what is read, at every epoch, however often the server has died since.
        if epoch % 5 == 0 {
            check(&mut sink, &table, epoch, &relation);
        }
    }
    assert!(epoch >= 20, "{epoch} epochs only, not one swap");
    stop.send(()).unwrap();
    let (server, kills) = killer.join().unwrap();
    check(&mut sink, &table, epoch, &relation);
    assert!(kills >= 3, "the server was killed {kills} times only");
    eprintln!("{epoch} epochs, {kills} kills");
    drop((sink, server));
}

#[test]
fn bulk_load_that_is_switched_off_while_running_gives_way_to_inserts() {
    let server = Server::install();
    let rows = super::levels(0..3_000, "gold");
    let table = contract::table_of("level", 1, &rows);
    let mut sink = sink(&server);
    insist(|| sink.open(&contract::claim()));
    assert!(sink.bulk_loads());
    sink.create_table(&table).unwrap();
    server.run("SET GLOBAL local_infile = 0");
    let change = contract::changes(&table, &rows, &contract::none(&table, &rows), 1);
    let error = sink.commit(std::slice::from_ref(&change)).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("LOAD DATA LOCAL is switched off"), "{error}");
    assert_eq!(sink.commit(&[change]).unwrap().upserted, 3_000);
    contract::assert_rows(&sink.read_table(&table).unwrap(), &rows);
}

/// Fills a second table with the same rows and swaps it in, while the server goes on dying.
fn swap_in(sink: &mut MysqlSink, table: &Arc<TagTable>, epoch: u64, relation: &BTreeMap<i64, i64>) {
    let filled = Arc::new(TagTable { table: shadow_table(&table.table), ..(**table).clone() });
    let users: ArrayRef = Arc::new(Int64Array::from_iter_values(relation.keys().copied()));
    let visits: ArrayRef = Arc::new(Int64Array::from_iter_values(relation.values().copied()));
    let rows = RecordBatch::try_from_iter_with_nullable([("user_id", users, false), ("visits", visits, true)]).unwrap();
    let progress = contract::progress("visits", epoch, relation.len() as u64);
    let fill = TagChanges {
        progress: progress.clone(),
        ..contract::changes(&filled, &rows, &contract::none(table, &rows), epoch)
    };
    insist(|| sink.create_table(&filled));
    insist(|| sink.commit(std::slice::from_ref(&fill)));
    insist(|| {
        sink.swap_table(
            &filled.table,
            &table.table,
            &progress,
            &contract::register("visits", epoch),
            &contract::origin(),
        )
    });
    assert_eq!(insist(|| sink.registrations())[0].version, epoch);
    check(sink, table, epoch, relation);
    insist(|| sink.drop_retired(Duration::ZERO));
}

fn check(sink: &mut MysqlSink, table: &TagTable, epoch: u64, relation: &BTreeMap<i64, i64>) {
    assert_eq!(insist(|| sink.progress()), [contract::progress("visits", epoch, relation.len() as u64)]);
    let there = insist(|| sink.read_table(table));
    let cells = |index: usize| there.column(index).as_primitive::<Int64Type>().values().to_vec();
    let there: BTreeMap<i64, i64> = cells(0).into_iter().zip(cells(1)).collect();
    assert!(there == *relation, "epoch {epoch}: {} rows in the table, {} in the relation", there.len(), relation.len());
}

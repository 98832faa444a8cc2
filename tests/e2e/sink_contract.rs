//! What every store must do: run against SQLite by the unit tests and against a real MariaDB or MySQL by the e2e tests.
//!
//! Whoever includes this file has `tagflow` in scope and gives a [`Fixture`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::tagflow::delta::{Offsets, Partition, Watermarks};
use super::tagflow::sink::lease::{Claim, Ends, Owner};
use super::tagflow::sink::versions::{Origin, Version};
use super::tagflow::sink::{
    Sink, SinkColumn, SinkError, TagChanges, TagProgress, TagRegistration, TagTable, shadow_table,
};
use arrow::array::*;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::*;

pub use self::samples::{difficult_texts, every_type, register};

#[path = "sink_samples.rs"]
mod samples;

/// One empty store.
pub trait Fixture {
    /// Another connection to the same store, opened for writing.
    fn open(&self) -> Box<dyn Sink> {
        let mut sink = self.closed();
        sink.open(&claim()).unwrap();
        sink
    }

    /// The same, not opened yet.
    fn closed(&self) -> Box<dyn Sink>;
}

/// Declares one test for each fact of the contract.
#[macro_export]
macro_rules! sink_contract {
    ($fixture:expr) => {
        $crate::sink_contract!(
            $fixture;
            every_type_round_trips,
            keys_are_compared_by_bytes,
            deletes_meet_composite_keys_of_every_type,
            commit_replaces_inserts_and_deletes_with_its_progress,
            large_commits_and_small_ones_write_the_same,
            values_that_no_store_has_become_null_and_are_counted,
            key_without_an_exact_value_is_rejected_and_counted,
            older_writer_is_fenced,
            claim_that_ends_no_lease_waits_until_it_is_given_back,
            failed_commit_leaves_nothing_behind,
            filled_table_is_swapped_in_with_progress_and_registration,
            first_table_of_a_tag_is_swapped_in,
            repeated_swap_is_refused_or_done_but_never_undoes,
            retired_tables_go_after_their_grace_period,
            version_before_is_written_on_and_swapped_back,
            table_matches_its_own_shape_only,
            registrations_round_trip,
            rows_of_one_user_are_found_by_text,
            values_of_a_column_are_counted,
            types_that_cannot_be_stored_are_refused,
            segment_without_columns_is_stored
        );
    };
    ($fixture:expr; $($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                contract::$name(&$fixture);
            }
        )*
    };
}

/// 2024-03-01 12:00:00 UTC.
const CLOCK: i64 = 1_709_294_400_000_000_000;

fn column(name: &str, data_type: DataType) -> SinkColumn {
    SinkColumn { name: name.to_string(), data_type }
}

/// The table's shape out of a batch whose first `keys` columns are the key.
pub fn table_of(name: &str, keys: usize, batch: &RecordBatch) -> Arc<TagTable> {
    let mut columns: Vec<SinkColumn> =
        batch.schema().fields().iter().map(|field| column(field.name(), field.data_type().clone())).collect();
    let values = columns.split_off(keys);
    Arc::new(TagTable { table: name.to_string(), key: columns, columns: values })
}

/// Ends anybody's lease.
pub fn claim() -> Claim {
    Claim { owner: Owner::new(), length: Duration::from_secs(60), ends: Ends::Anybody }
}

pub fn progress(tag: &str, epoch: u64, rows: u64) -> TagProgress {
    let mut offsets = Offsets::default();
    offsets.advance(&Partition { stream: "orders".to_string(), number: 3 }, epoch as i64 * 10);
    let watermarks = Watermarks::from([("orders".to_string(), -(epoch as i64))]);
    TagProgress {
        tag: tag.to_string(),
        fingerprint: "f1".to_string(),
        epoch,
        offsets,
        clock: CLOCK,
        watermarks,
        event_time: None,
        rows,
    }
}

/// Why a version goes live.
pub fn origin() -> Origin {
    let files = BTreeMap::from([(PathBuf::from("tags/level.sql"), "SELECT 1".to_string())]);
    Origin { author: Some("Ann <ann@example.com>".to_string()), reason: "it's \\ better".to_string(), files }
}

/// Upserts and deletes of `table` at an epoch.
pub fn changes(table: &Arc<TagTable>, upserts: &RecordBatch, deletes: &RecordBatch, epoch: u64) -> TagChanges {
    TagChanges {
        table: table.clone(),
        upserts: upserts.clone(),
        deletes: deletes.clone(),
        progress: progress(&table.table, epoch, upserts.num_rows() as u64),
    }
}

/// No deletes for a table of that shape.
pub fn none(table: &TagTable, batch: &RecordBatch) -> RecordBatch {
    keys_of(table, &batch.slice(0, 0))
}

fn keys_of(table: &TagTable, batch: &RecordBatch) -> RecordBatch {
    batch.project(&(0..table.key.len()).collect::<Vec<_>>()).unwrap()
}

pub fn assert_rows(there: &RecordBatch, expected: &RecordBatch) {
    assert_eq!(there.num_rows(), expected.num_rows());
    for (index, field) in expected.schema().fields().iter().enumerate() {
        assert_eq!(there.schema().field(index).name(), field.name());
        assert_eq!(there.column(index).as_ref(), expected.column(index).as_ref(), "column {}", field.name());
    }
}

fn users(range: std::ops::Range<i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(range))
}

fn spend(lines: &[(i64, Option<&str>)]) -> RecordBatch {
    let users: ArrayRef = Arc::new(Int64Array::from_iter_values(lines.iter().map(|line| line.0)));
    let levels: ArrayRef = Arc::new(StringArray::from_iter(lines.iter().map(|line| line.1)));
    RecordBatch::try_from_iter_with_nullable([("user_id", users, false), ("level", levels, true)]).unwrap()
}

pub fn every_type_round_trips(fixture: &impl Fixture) {
    let rows = every_type();
    let table = table_of("every_type", 1, &rows);
    let mut sink = fixture.open();
    sink.create_table(&table).unwrap();
    let stats = sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    assert_eq!((stats.upserted, stats.deleted, stats.nulled, stats.rejected_keys), (8, 0, 0, 0), "{stats:?}");
    assert_rows(&sink.read_table(&table).unwrap(), &rows);
    assert_eq!(sink.column_types(&table).unwrap().len(), rows.num_columns());
}

pub fn keys_are_compared_by_bytes(fixture: &impl Fixture) {
    let texts = difficult_texts();
    let names: ArrayRef = Arc::new(StringArray::from(texts.clone()));
    let numbers = users(0..texts.len() as i64);
    let rows = RecordBatch::try_from_iter_with_nullable([("name", names, false), ("n", numbers, true)]).unwrap();
    let table = table_of("by_name", 1, &rows);
    let mut sink = fixture.open();
    sink.create_table(&table).unwrap();
    sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    assert_rows(&sink.read_table(&table).unwrap(), &rows);
    // One after the other goes, and only that one.
    for gone in 0..texts.len() {
        let key = keys_of(&table, &rows.slice(gone, 1));
        sink.commit(&[changes(&table, &rows.slice(0, 0), &key, 2 + gone as u64)]).unwrap();
        assert_rows(&sink.read_table(&table).unwrap(), &rows.slice(gone + 1, texts.len() - gone - 1));
    }
}

pub fn deletes_meet_composite_keys_of_every_type(fixture: &impl Fixture) {
    let all = every_type();
    let keys =
        ["user_id", "flag", "int8", "uint64", "decimal_38_10", "day", "at_millis", "at_micros", "instant", "time"];
    let count = 700;
    let pick = UInt32Array::from_iter_values((0..count).map(|row| [0, 3, 4, 5, 6, 7][row as usize % 6]));
    let all = take_record_batch(&all, &pick).unwrap();
    let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("part", users(0..i64::from(count)), false),
        (
            "name",
            Arc::new(StringArray::from_iter_values((0..count).map(|row| difficult_texts()[row as usize % 30]))),
            false,
        ),
        ("raw", Arc::new(BinaryArray::from_iter_values((0..count).map(|row| [0u8, 0xFF, row as u8]))), false),
    ];
    columns.extend(keys.map(|name| (name, all.column_by_name(name).unwrap().clone(), false)));
    columns.push(("level", users(0..i64::from(count)), true));
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let table = table_of("detail", rows.num_columns() - 1, &rows);
    let mut sink = fixture.open();
    sink.create_table(&table).unwrap();
    sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    assert_rows(&sink.read_table(&table).unwrap(), &rows);
    let gone = keys_of(&table, &rows.slice(50, 600));
    let stats = sink.commit(&[changes(&table, &rows.slice(0, 0), &gone, 2)]).unwrap();
    assert_eq!(stats.deleted, 600);
    let left = concat_batches(&rows.schema(), [&rows.slice(0, 50), &rows.slice(650, 50)]).unwrap();
    assert_rows(&sink.read_table(&table).unwrap(), &left);
}

pub fn commit_replaces_inserts_and_deletes_with_its_progress(fixture: &impl Fixture) {
    let first = spend(&[(1, Some("gold")), (2, Some("silver")), (3, None)]);
    let table = table_of("level", 1, &first);
    let mut sink = fixture.open();
    assert_eq!(sink.progress().unwrap(), []);
    sink.create_table(&table).unwrap();
    sink.commit(&[changes(&table, &first, &none(&table, &first), 7)]).unwrap();
    assert_eq!(sink.progress().unwrap(), [progress("level", 7, 3)]);

    let second = spend(&[(2, None), (4, Some("金卡"))]);
    let stats =
        sink.commit(&[changes(&table, &second, &keys_of(&table, &spend(&[(1, None), (99, None)])), 8)]).unwrap();
    assert_eq!((stats.upserted, stats.deleted), (2, 2));
    let expected = spend(&[(2, None), (3, None), (4, Some("金卡"))]);
    assert_rows(&sink.read_table(&table).unwrap(), &expected);
    drop(sink);
    let mut again = fixture.open();
    assert_rows(&again.read_table(&table).unwrap(), &expected);
    assert_eq!(again.progress().unwrap(), [progress("level", 8, 2)]);
    // Trying the same again changes nothing.
    again.commit(&[changes(&table, &second, &none(&table, &second), 8)]).unwrap();
    assert_rows(&again.read_table(&table).unwrap(), &expected);
}

pub fn large_commits_and_small_ones_write_the_same(fixture: &impl Fixture) {
    let every = every_type();
    let copies = 400;
    let pick = UInt32Array::from_iter_values((0..copies * 8).map(|row| row % 8));
    let many = take_record_batch(&every, &pick).unwrap();
    let mut columns = many.columns().to_vec();
    columns[0] = users(0..i64::from(copies) * 8);
    // A few megabytes are enough: the long text is in other tests.
    for name in ["text", "large_text", "text_view", "names", "place"] {
        let index = many.schema().index_of(name).unwrap();
        let short = UInt32Array::from_iter_values((0..copies * 8).map(|row| if row % 8 > 5 { 2 } else { row % 8 }));
        columns[index] = arrow::compute::take(every.column(index), &short, None).unwrap();
    }
    let many = RecordBatch::try_new(many.schema(), columns).unwrap();
    let large = table_of("large", 1, &many);
    let small = table_of("small", 1, &many);
    let mut sink = fixture.open();
    sink.create_table(&large).unwrap();
    sink.create_table(&small).unwrap();
    sink.commit(&[changes(&large, &many, &none(&large, &many), 1)]).unwrap();
    for start in (0..many.num_rows()).step_by(800) {
        let part = many.slice(start, 800);
        sink.commit(&[changes(&small, &part, &none(&small, &many), 1)]).unwrap();
    }
    assert_rows(&sink.read_table(&large).unwrap(), &many);
    assert_rows(&sink.read_table(&small).unwrap(), &many);
    // Over rows that are there, in another order, with other values.
    let mut columns = many.columns().to_vec();
    columns[1..].iter_mut().for_each(|column| {
        let turned = UInt32Array::from_iter_values((0..copies * 8).map(|row| (row + 1) % (copies * 8)));
        *column = arrow::compute::take(column, &turned, None).unwrap();
    });
    let turned = RecordBatch::try_new(many.schema(), columns).unwrap();
    sink.commit(&[changes(&large, &turned, &none(&large, &many), 2)]).unwrap();
    assert_rows(&sink.read_table(&large).unwrap(), &turned);
}

pub fn values_that_no_store_has_become_null_and_are_counted(fixture: &impl Fixture) {
    let reals: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.5]));
    let times: ArrayRef =
        Arc::new(TimestampMillisecondArray::from(vec![253_402_300_800_000, -62_135_596_800_001, 0, i64::MAX]));
    let rows =
        RecordBatch::try_from_iter_with_nullable([("id", users(0..4), false), ("x", reals, true), ("at", times, true)])
            .unwrap();
    let table = table_of("unfit", 1, &rows);
    let mut sink = fixture.open();
    sink.create_table(&table).unwrap();
    let stats = sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    assert_eq!((stats.upserted, stats.nulled), (4, 6));
    let there = sink.read_table(&table).unwrap();
    assert_eq!(there.column(1).as_primitive::<Float64Type>(), &Float64Array::from(vec![None, None, None, Some(1.5)]));
    assert_eq!(
        there.column(2).as_primitive::<TimestampMillisecondType>(),
        &TimestampMillisecondArray::from(vec![None, None, Some(0), None])
    );
}

pub fn key_without_an_exact_value_is_rejected_and_counted(fixture: &impl Fixture) {
    let at: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_000, 1_001]));
    let rows = RecordBatch::try_from_iter_with_nullable([("at", at, false), ("n", users(0..2), true)]).unwrap();
    let table = table_of("by_moment", 1, &rows);
    let mut sink = fixture.open();
    sink.create_table(&table).unwrap();
    let stats = sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    assert_eq!((stats.upserted, stats.rejected_keys), (1, 1));
    assert_eq!(
        stats.rejected_sample.as_deref(),
        Some("table `by_moment`: key column `at` has no exact value in the database: 1970-01-01T00:00:00.000001001")
    );
    // Its delete is no trouble, and takes no other row with it.
    sink.commit(&[changes(&table, &rows.slice(0, 0), &keys_of(&table, &rows.slice(1, 1)), 2)]).unwrap();
    assert_rows(&sink.read_table(&table).unwrap(), &rows.slice(0, 1));
}

pub fn older_writer_is_fenced(fixture: &impl Fixture) {
    let rows = spend(&[(1, Some("gold"))]);
    let table = table_of("level", 1, &rows);
    let mut older = fixture.open();
    older.create_table(&table).unwrap();
    older.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    let mut newer = fixture.open();
    let fenced = |result: Result<(), SinkError>| match result.unwrap_err() {
        SinkError::Fenced { generation, .. } => assert_eq!(generation, 2),
        other => panic!("{other}"),
    };
    fenced(older.commit(&[changes(&table, &rows, &none(&table, &rows), 2)]).map(|_| ()));
    fenced(older.create_table(&table));
    fenced(older.register(&[register("level", 1)]));
    fenced(older.swap_table("a", "level", &progress("level", 2, 1), &register("level", 1), &origin()));
    fenced(older.retire_table("level"));
    fenced(older.drop_retired(Duration::ZERO).map(|_| ()));
    fenced(older.renew());
    newer.renew().unwrap();
    assert_eq!(newer.progress().unwrap(), [progress("level", 1, 1)]);
    newer.commit(&[changes(&table, &rows, &none(&table, &rows), 3)]).unwrap();
    assert_rows(&newer.read_table(&table).unwrap(), &rows);
}

pub fn claim_that_ends_no_lease_waits_until_it_is_given_back(fixture: &impl Fixture) {
    let mut active = fixture.open();
    let mut standby = fixture.closed();
    let patient = Claim { ends: Ends::Nobody, ..claim() };
    for _ in 0..2 {
        match standby.open(&patient).unwrap_err() {
            SinkError::Held { holder, .. } => assert_eq!(holder.owner.pid, std::process::id()),
            other => panic!("{other}"),
        }
        // Asking changes nothing for the one who writes.
        active.renew().unwrap();
        active.register(&[register("level", 1)]).unwrap();
    }
    active.release().unwrap();
    let opened = standby.open(&patient).unwrap();
    assert_eq!(opened.generation, 2);
    assert_eq!(opened.before.unwrap().pid, std::process::id());
    // A claim that is made twice, as after a lost answer, is not kept out by itself.
    assert!(standby.open(&patient).unwrap().generation >= 2);
    standby.register(&[register("level", 1)]).unwrap();
    let error = active.register(&[register("level", 1)]).unwrap_err();
    assert!(matches!(error, SinkError::Fenced { .. }), "{error}");
}

pub fn failed_commit_leaves_nothing_behind(fixture: &impl Fixture) {
    let rows = spend(&[(1, Some("gold"))]);
    let good = table_of("good", 1, &rows);
    let missing = table_of("missing", 1, &rows);
    let mut sink = fixture.open();
    sink.create_table(&good).unwrap();
    let both = [changes(&good, &rows, &none(&good, &rows), 1), changes(&missing, &rows, &none(&good, &rows), 1)];
    match sink.commit(&both).unwrap_err() {
        SinkError::Table { table, .. } => assert_eq!(table, "missing"),
        other => panic!("{other}"),
    }
    assert_eq!(sink.read_table(&good).unwrap().num_rows(), 0);
    assert_eq!(sink.progress().unwrap(), []);
    sink.commit(&both[..1]).unwrap();
    assert_rows(&sink.read_table(&good).unwrap(), &rows);
}

pub fn filled_table_is_swapped_in_with_progress_and_registration(fixture: &impl Fixture) {
    let old = spend(&[(1, Some("old")), (2, Some("old"))]);
    let live = table_of("level", 1, &old);
    let mut sink = fixture.open();
    sink.create_table(&live).unwrap();
    sink.register(&[register("level", 1)]).unwrap();
    sink.commit(&[changes(&live, &old, &none(&live, &old), 5)]).unwrap();

    let new = spend(&[(2, Some("new"))]);
    let filled = Arc::new(TagTable { table: shadow_table("level"), ..(*live).clone() });
    sink.create_table(&filled).unwrap();
    let fill = TagChanges { progress: progress("level", 3, 1), ..changes(&filled, &new, &none(&filled, &new), 3) };
    sink.commit(&[fill]).unwrap();
    // The tag's own progress is not touched by the fill.
    assert_eq!(sink.progress().unwrap(), [progress("level", 5, 2)]);

    let then = TagProgress { fingerprint: "f2".to_string(), ..progress("level", 6, 1) };
    sink.swap_table(&filled.table, "level", &then, &register("level", 2), &origin()).unwrap();
    assert_rows(&sink.read_table(&live).unwrap(), &new);
    assert_eq!(sink.progress().unwrap(), [then]);
    assert_eq!(sink.registrations().unwrap(), [register("level", 2)]);
    assert!(sink.table_matches(&live).unwrap());
    assert!(!sink.table_matches(&filled).unwrap());
    assert_eq!(sink.drop_retired(Duration::from_secs(3600)).unwrap(), Vec::<String>::new());
    let retired = TagTable { table: "_tagflow_old_level_1".to_string(), ..(*live).clone() };
    assert_rows(&sink.read_table(&retired).unwrap(), &old);
    assert_eq!(sink.drop_retired(Duration::ZERO).unwrap(), ["_tagflow_old_level_1"]);
    assert!(!sink.table_matches(&retired).unwrap());
}

pub fn first_table_of_a_tag_is_swapped_in(fixture: &impl Fixture) {
    let rows = spend(&[(1, None)]);
    let name = "a".repeat(48);
    let live = table_of(&name, 1, &rows);
    let filled = Arc::new(TagTable { table: shadow_table(&name), ..(*live).clone() });
    let mut sink = fixture.open();
    for version in 1..=3 {
        sink.create_table(&filled).unwrap();
        sink.commit(&[TagChanges {
            progress: progress(&name, 1, 1),
            ..changes(&filled, &rows, &none(&live, &rows), 1)
        }])
        .unwrap();
        sink.swap_table(&filled.table, &name, &progress(&name, version, 1), &register(&name, version), &origin())
            .unwrap();
        assert_rows(&sink.read_table(&live).unwrap(), &rows);
        assert_eq!(sink.progress().unwrap(), [progress(&name, version, 1)]);
    }
    assert_eq!(sink.drop_retired(Duration::ZERO).unwrap().len(), 2);
}

pub fn repeated_swap_is_refused_or_done_but_never_undoes(fixture: &impl Fixture) {
    let rows = spend(&[(1, None)]);
    let live = table_of("level", 1, &rows);
    let filled = Arc::new(TagTable { table: shadow_table("level"), ..(*live).clone() });
    let mut sink = fixture.open();
    sink.create_table(&filled).unwrap();
    sink.commit(&[TagChanges { progress: progress("level", 1, 1), ..changes(&filled, &rows, &none(&live, &rows), 1) }])
        .unwrap();
    sink.swap_table(&filled.table, "level", &progress("level", 2, 1), &register("level", 1), &origin()).unwrap();
    // The caller did not hear of its success and asks again.
    sink.swap_table(&filled.table, "level", &progress("level", 2, 1), &register("level", 1), &origin()).unwrap();
    let other = TagProgress { fingerprint: "f9".to_string(), ..progress("level", 2, 1) };
    let error = sink.swap_table(&filled.table, "level", &other, &register("level", 1), &origin()).unwrap_err();
    assert_eq!(error.to_string(), "table `_tagflow_new_level`: the filled table is gone; it has to be filled again");
    assert_rows(&sink.read_table(&live).unwrap(), &rows);
    assert_eq!(sink.progress().unwrap(), [progress("level", 2, 1)]);
}

pub fn retired_tables_go_after_their_grace_period(fixture: &impl Fixture) {
    let rows = spend(&[(1, None)]);
    let table = table_of("level", 1, &rows);
    let mut sink = fixture.open();
    sink.create_table(&table).unwrap();
    sink.register(&[register("level", 1)]).unwrap();
    sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    sink.retire_table("level").unwrap();
    sink.retire_table("level").unwrap();
    assert_eq!(sink.progress().unwrap(), []);
    assert_eq!(sink.registrations().unwrap(), []);
    assert!(!sink.table_matches(&table).unwrap());
    assert_eq!(sink.drop_retired(Duration::from_secs(3600)).unwrap(), Vec::<String>::new());
    // The name is free again.
    sink.create_table(&table).unwrap();
    sink.retire_table("level").unwrap();
    assert_eq!(sink.drop_retired(Duration::ZERO).unwrap(), ["_tagflow_old_level_1", "_tagflow_old_level_2"]);
}

pub fn version_before_is_written_on_and_swapped_back(fixture: &impl Fixture) {
    let (old, new) = (spend(&[(1, Some("old"))]), spend(&[(1, Some("new"))]));
    let live = table_of("level", 1, &old);
    let filled = Arc::new(TagTable { table: shadow_table("level"), ..(*live).clone() });
    let mut sink = fixture.open();
    let fill = |sink: &mut dyn Sink, rows: &RecordBatch, version: u64| {
        sink.create_table(&filled).unwrap();
        sink.commit(&[changes(&filled, rows, &none(&live, rows), version)]).unwrap();
        let then = TagProgress { fingerprint: format!("f{version}"), ..progress("level", version, 1) };
        sink.swap_table(&filled.table, "level", &then, &register("level", version), &origin()).unwrap();
    };
    fill(sink.as_mut(), &old, 1);
    fill(sink.as_mut(), &new, 2);
    // How retired tables are counted is the store's own affair.
    let aside_now = |sink: &mut dyn Sink| sink.versions_aside().unwrap().remove(0).0;
    let kept = Arc::new(TagTable { table: aside_now(sink.as_mut()), ..(*live).clone() });
    let at = |epoch| TagProgress { tag: "level@1".to_string(), ..progress("level", epoch, 1) };
    assert_eq!(sink.versions_aside().unwrap(), [(kept.table.clone(), at(1))]);

    // Both are written in one transaction, and only one is everybody's.
    let change = |table, rows, progress| TagChanges { progress, ..changes(table, rows, &none(&live, rows), 0) };
    let both = [spend(&[(1, Some("new")), (2, Some("new"))]), spend(&[(1, Some("old")), (2, Some("old"))])];
    sink.commit(&[change(&live, &both[0], progress("level", 3, 2)), change(&kept, &both[1], at(3))]).unwrap();
    assert_rows(&sink.read_table(&live).unwrap(), &both[0]);
    assert_eq!(sink.progress().unwrap(), [progress("level", 3, 2)]);

    // Asked for twice it is done once.
    for _ in 0..2 {
        sink.swap_table(&kept.table, "level", &progress("level", 4, 2), &register("level", 1), &origin()).unwrap();
        assert_rows(&sink.read_table(&live).unwrap(), &both[1]);
    }
    let aside = TagTable { table: aside_now(sink.as_mut()), ..(*live).clone() };
    assert!(aside.table != kept.table);
    assert_rows(&sink.read_table(&aside).unwrap(), &both[0]);
    let beside = TagProgress { tag: "level@2".to_string(), ..progress("level", 3, 2) };
    assert_eq!(sink.versions_aside().unwrap(), [(aside.table.clone(), beside)]);
    let told = |versions: &[Version]| -> Vec<(u64, String, bool, Option<String>)> {
        let of = |version: &Version| {
            (version.version, version.fingerprint.clone(), version.live_until.is_none(), version.table.clone())
        };
        versions.iter().map(of).collect()
    };
    let versions = sink.versions().unwrap();
    let table = Some(aside.table.clone());
    let (first, second, third) =
        ((1, "f1".to_string(), false, None), (2, "f2".to_string(), false, table), (1, "f1".to_string(), true, None));
    assert_eq!(told(&versions), [first, second, third]);
    assert!(versions[1].live_until.unwrap() <= versions[2].live_from, "{versions:?}");
    assert_eq!((&versions[0].origin.files, &versions[2].origin), (&BTreeMap::new(), &origin()));
    assert!(versions[1].is_kept() && !versions[0].is_kept() && !versions[2].is_kept());

    sink.give_version_up("level", 2, "it's over").unwrap();
    assert_eq!(sink.versions_aside().unwrap(), []);
    assert_eq!(sink.versions().unwrap()[1].ended.as_deref(), Some("it's over"));
    assert_rows(&sink.read_table(&aside).unwrap(), &both[0]);
    assert_eq!(sink.drop_retired(Duration::ZERO).unwrap(), std::slice::from_ref(&aside.table));
    let dropped = sink.versions().unwrap().remove(1);
    assert_eq!((dropped.table, dropped.origin.files), (None, BTreeMap::new()));
    sink.retire_table("level").unwrap();
    let last = sink.versions().unwrap().pop().unwrap();
    assert!(last.is_kept() && last.table == Some(aside_now(sink.as_mut())), "{last:?}");
}

pub fn table_matches_its_own_shape_only(fixture: &impl Fixture) {
    let rows = every_type();
    let table = table_of("every_type", 1, &rows);
    let mut sink = fixture.open();
    assert!(!sink.table_matches(&table).unwrap());
    sink.create_table(&table).unwrap();
    assert!(sink.table_matches(&table).unwrap());
    let mut wider = (*table).clone();
    wider.columns.push(column("more", DataType::Int64));
    assert!(!sink.table_matches(&wider).unwrap());
    let mut other = (*table).clone();
    other.columns[3].data_type = DataType::Utf8;
    assert!(!sink.table_matches(&other).unwrap());
    let mut keyed = (*table).clone();
    keyed.key.push(keyed.columns.remove(0));
    assert!(!sink.table_matches(&keyed).unwrap());
}

pub fn registrations_round_trip(fixture: &impl Fixture) {
    let mut sink = fixture.open();
    let mut second = TagRegistration { complete_from: None, ..register("vip", 1) };
    sink.register(&[register("level", 1), second.clone()]).unwrap();
    assert_eq!(sink.registrations().unwrap(), [register("level", 1), second.clone()]);
    second.columns.pop();
    second.version = 2;
    second.title = None;
    sink.register(std::slice::from_ref(&second)).unwrap();
    assert_eq!(sink.registrations().unwrap(), [register("level", 1), second]);
}

pub fn rows_of_one_user_are_found_by_text(fixture: &impl Fixture) {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![0, 1, 1]));
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![42, 42, 0]));
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("user_id", ids, false),
        ("day", days, false),
        ("seen", flags, true),
    ])
    .unwrap();
    let table = table_of("seen", 2, &rows);
    let mut sink = fixture.open();
    sink.create_table(&table).unwrap();
    sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    let row = |day: &str, seen: Option<&str>| {
        vec![
            ("user_id".to_string(), Some("42".to_string())),
            ("day".to_string(), Some(day.to_string())),
            ("seen".to_string(), seen.map(str::to_string)),
        ]
    };
    let mut found = sink.rows_of(&table, "42").unwrap();
    found.sort();
    assert_eq!(found, [row("1970-01-01", Some("true")), row("1970-01-02", None)]);
    assert!(sink.rows_of(&table, "abc' OR 1=1 -- ").unwrap().is_empty());

    let names = spend(&[(1, None)]);
    let names = RecordBatch::try_from_iter_with_nullable([
        ("name", Arc::new(StringArray::from(vec!["A'\\"])) as ArrayRef, false),
        ("n", names.column(0).clone(), true),
    ])
    .unwrap();
    let table = table_of("by_name", 1, &names);
    sink.create_table(&table).unwrap();
    sink.commit(&[changes(&table, &names, &none(&table, &names), 1)]).unwrap();
    assert_eq!(sink.rows_of(&table, "A'\\").unwrap().len(), 1);
    assert_eq!(sink.rows_of(&table, "a'\\").unwrap().len(), 0);
}

pub fn values_of_a_column_are_counted(fixture: &impl Fixture) {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..7));
    let levels = vec![Some("gold"), Some("gold"), Some("Gold"), Some("gold "), Some(""), None, None];
    let levels: ArrayRef = Arc::new(StringArray::from(levels));
    let flags: Vec<Option<bool>> = [Some(true), None, Some(false), Some(true)].into_iter().cycle().take(7).collect();
    let flags: ArrayRef = Arc::new(BooleanArray::from(flags));
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("user_id", ids, false),
        ("level", levels, true),
        ("vip", flags, true),
    ])
    .unwrap();
    let table = table_of("level", 1, &rows);
    let mut sink = fixture.open();
    sink.create_table(&table).unwrap();
    sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    let counts = |sink: &mut dyn Sink, column: usize| {
        let mut counts = sink.value_counts(&table, &table.columns[column]).unwrap();
        counts.sort();
        counts.into_iter().map(|(value, rows)| format!("{value:?} {rows}")).collect::<Vec<_>>()
    };
    assert_eq!(
        counts(sink.as_mut(), 0),
        ["None 2", "Some(\"\") 1", "Some(\"Gold\") 1", "Some(\"gold\") 2", "Some(\"gold \") 1"]
    );
    assert_eq!(counts(sink.as_mut(), 1), ["None 2", "Some(\"false\") 2", "Some(\"true\") 3"]);
}

pub fn types_that_cannot_be_stored_are_refused(fixture: &impl Fixture) {
    let mut sink = fixture.open();
    let mut refusal = |key: DataType, value: DataType| {
        let table = TagTable { table: "t".to_string(), key: vec![column("k", key)], columns: vec![column("v", value)] };
        let error = sink.create_table(&table).unwrap_err();
        assert_eq!(sink.column_types(&table).unwrap_err().to_string(), error.to_string());
        error.to_string()
    };
    assert_eq!(
        refusal(DataType::Int64, DataType::Decimal128(10, -2)),
        "table `t`: column `v`: DECIMAL(10, -2) has a negative scale, which no database takes; \
         cast it, for example to DECIMAL(38, 10)"
    );
    assert_eq!(
        refusal(DataType::Int64, DataType::Decimal128(38, 31)),
        "table `t`: column `v`: DECIMAL(38, 31) is wider than MySQL's DECIMAL(65, 30); \
         cast it, for example to DECIMAL(38, 10)"
    );
    assert_eq!(
        refusal(DataType::Int64, DataType::Duration(TimeUnit::Second)),
        "table `t`: column `v`: a length of time has no column type in a database; \
         write `EXTRACT(EPOCH FROM (a - b))` for its seconds, or `CAST(a AS DATE) - CAST(b AS DATE)` for days"
    );
    let list = DataType::new_list(DataType::Int64, true);
    assert_eq!(
        refusal(list.clone(), DataType::Int64),
        format!("table `t`: column `k`: a value of type {list} cannot be a key; take a column of plain values")
    );
}

pub fn segment_without_columns_is_stored(fixture: &impl Fixture) {
    let rows = RecordBatch::try_from_iter_with_nullable([("user_id", users(0..2500), false)]).unwrap();
    let table = table_of("segment", 1, &rows);
    let mut sink = fixture.open();
    sink.create_table(&table).unwrap();
    for (epoch, part) in [rows.slice(0, 3), rows.clone()].into_iter().enumerate() {
        sink.commit(&[changes(&table, &part, &none(&table, &part), epoch as u64)]).unwrap();
        assert_rows(&sink.read_table(&table).unwrap(), &part);
    }
}

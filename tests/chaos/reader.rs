//! A reader of the database beside the daemon: every snapshot of every table must be what plain Rust makes of exactly
//! the events that its progress names, and progress never goes back.
//!
//! As any reader does that wants to be sure of it, it takes rows and progress out of one transaction. A table is renamed
//! outside of transactions, so a tag whose version changes meanwhile, or that is just being renamed, is read again.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use serde_json::Value;

use crate::events::{Held, Order};
use crate::expected::{Moment, Rows, Tag, tags};

/// Next records by stream and partition.
pub type Offsets = BTreeMap<(String, i32), i64>;

/// How long the reader waits to read back itself what the daemon has read.
const READ_BACK: Duration = Duration::from_secs(60);
/// Between two snapshots.
const PAUSE: Duration = Duration::from_millis(100);
/// A server that is frozen does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
const SHOWN: usize = 5;

/// Up to where a table is true.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub epoch: i64,
    pub offsets: Offsets,
    pub moment: Moment,
    rows: i64,
    version: i64,
}

/// What the reader has found so far.
#[derive(Debug, Default)]
pub struct Found {
    /// By tag, as last seen and checked.
    pub progress: BTreeMap<String, Progress>,
    /// The version of the file of factors that the tag `worth` shows.
    pub factors: usize,
    pub snapshots: u64,
    pub rows_checked: u64,
    /// What kept the last snapshot from being read.
    pub trouble: Option<String>,
    /// Why the run has failed.
    pub violation: Option<String>,
}

/// What the run knows, and the reader compares with.
pub struct Truth<'a> {
    pub held: &'a Mutex<Held>,
    /// Versions of the file of factors, oldest first.
    pub factors: &'a Mutex<Vec<BTreeMap<String, i64>>>,
}

struct Follower {
    tag: Tag,
    taken: BTreeMap<(String, i32), usize>,
    progress: Progress,
}

/// One table with what it says of itself.
struct Table {
    progress: Progress,
    rows: Rows,
}

/// Reads until `stop`, and once more after it.
pub fn follow(url: &str, truth: &Truth<'_>, found: &Mutex<Found>, stop: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut followers: Vec<Follower> = tags().into_iter().map(Follower::new).collect();
    let mut connection: Option<Conn> = None;
    let mut lowest = 0;
    loop {
        let is_last = stop.load(Ordering::SeqCst);
        let read = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, async {
                if connection.is_none() {
                    connection = Some(Conn::from_url(url).await?);
                }
                read_all(connection.as_mut().expect("connected above"), &followers).await
            })
            .await
        });
        match read.map_err(|timeout| timeout.to_string()).and_then(|read| read.map_err(|error| error.to_string())) {
            Ok(tables) => {
                let checked = check_all(&mut followers, tables, truth, &mut lowest);
                let mut found = found.lock().expect("no thread panics with it");
                found.snapshots += 1;
                found.trouble = None;
                found.factors = lowest;
                match checked {
                    Ok(rows) => found.rows_checked += rows,
                    Err(violation) => {
                        found.violation.get_or_insert(violation);
                        return;
                    }
                }
                let seen = followers.iter().filter(|follower| follower.progress.epoch > 0);
                found.progress =
                    seen.map(|follower| (follower.tag.name.to_string(), follower.progress.clone())).collect();
                if is_last {
                    return;
                }
            }
            // The server is away, or has no tables yet.
            Err(error) => {
                connection = None;
                let mut found = found.lock().expect("no thread panics with it");
                if is_last {
                    found.violation.get_or_insert(format!("the tables cannot be read in the end: {error}"));
                    return;
                }
                found.trouble = Some(error);
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Tag, epoch, clock, offsets, watermarks, rows, version, query.
type ProgressRow = (String, i64, i64, String, Option<String>, i64, i64, String);

/// Takes the tables of a run away that nobody needs any more.
pub fn drop_database(url: &str, database: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let dropped = runtime.block_on(async {
        let mut connection = Conn::from_url(url).await?;
        connection.query_drop(format!("DROP DATABASE `{database}`")).await?;
        connection.disconnect().await
    });
    dropped.expect("the server answers");
}

async fn read_all(connection: &mut Conn, followers: &[Follower]) -> Result<BTreeMap<String, Table>, Error> {
    connection.query_drop("SET time_zone = '+08:00'").await?;
    connection.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let known: Vec<ProgressRow> = connection
        .query(
            "SELECT p.tag, p.epoch, p.clock_ns, p.offsets, p.watermarks, p.row_count, t.version, t.sql_text \
             FROM _tagflow_progress p JOIN _tagflow_tags t ON t.tag = p.tag WHERE p.table_name = p.tag",
        )
        .await?;
    let mut tables = BTreeMap::new();
    for (tag, epoch, clock, offsets, watermarks, rows, version, sql) in known {
        let Some(follower) = followers.iter().find(|follower| follower.tag.name == tag) else { continue };
        let watermark = watermarks.and_then(|text| parse(&text)["orders"].as_i64());
        let moment = Moment { clock, watermark, sql };
        let progress = Progress { epoch, offsets: offsets_of(&offsets), moment, rows, version };
        let select = format!(
            "SELECT CONCAT_WS('|', {}), CONCAT_WS('|', {}) FROM `{tag}`",
            follower.tag.key, follower.tag.values
        );
        let rows: Result<Vec<(String, String)>, Error> = connection.query(select).await;
        let rows = match rows {
            Ok(rows) => rows.into_iter().collect(),
            // No such table, or another one than the snapshot knows: its version must tell.
            Err(Error::Server(error)) if [1146, 1412].contains(&error.code) => Rows::new(),
            Err(error) => return Err(error),
        };
        tables.insert(tag, Table { progress, rows });
    }
    connection.query_drop("COMMIT").await?;
    let unmoved: Vec<(String, i64)> = connection
        .query("SELECT tag, version FROM _tagflow_tags WHERE tag NOT IN (SELECT tag FROM _tagflow_pending)")
        .await?;
    let unmoved: BTreeMap<String, i64> = unmoved.into_iter().collect();
    tables.retain(|tag, table| unmoved.get(tag) == Some(&table.progress.version));
    Ok(tables)
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("the registry holds JSON")
}

fn offsets_of(text: &str) -> Offsets {
    let mut offsets = Offsets::new();
    for (stream, partitions) in parse(text).as_object().expect("streams") {
        for (partition, next) in partitions.as_object().expect("partitions") {
            let partition = partition.parse().expect("a number");
            offsets.insert((stream.clone(), partition), next.as_i64().expect("an offset"));
        }
    }
    offsets
}

fn check_all(
    followers: &mut [Follower],
    mut tables: BTreeMap<String, Table>,
    truth: &Truth<'_>,
    lowest: &mut usize,
) -> Result<u64, String> {
    let mut rows = 0;
    for follower in followers {
        let Some(table) = tables.remove(follower.tag.name) else { continue };
        rows += table.rows.len() as u64;
        let at = format!("tag {}, epoch {}", follower.tag.name, table.progress.epoch);
        follower.advance(&table, truth, lowest).map_err(|reason| format!("{at}: {reason}"))?;
    }
    Ok(rows)
}

impl Follower {
    fn new(tag: Tag) -> Self {
        Follower { tag, taken: BTreeMap::new(), progress: Progress::default() }
    }

    fn advance(&mut self, table: &Table, truth: &Truth<'_>, lowest: &mut usize) -> Result<(), String> {
        self.forbid_going_back(&table.progress)?;
        self.take(&table.progress.offsets, truth.held)?;
        if table.progress.rows != table.rows.len() as i64 {
            return Err(format!("{} rows by its progress, {} in the table", table.progress.rows, table.rows.len()));
        }
        let expected = self.tag.expected.rows(&table.progress.moment);
        let factors = truth.factors.lock().expect("no thread panics with it");
        if self.tag.expected.rows_with(&factors[*lowest]).is_some() {
            // Of a file it is not known when the daemon looked; an older version may not come back.
            let agrees = |version: &BTreeMap<_, _>| self.tag.expected.rows_with(version).as_ref() == Some(&table.rows);
            let newer = factors[*lowest..].iter().position(agrees);
            *lowest += newer.ok_or_else(|| format!("the rows are those of no version of the file from {lowest} on"))?;
        } else if expected != table.rows {
            return Err(difference(&expected, &table.rows) + &format!("; {:?}", table.progress));
        }
        self.progress = table.progress.clone();
        Ok(())
    }

    fn forbid_going_back(&self, next: &Progress) -> Result<(), String> {
        let back = |what: &str| Err(format!("{what} went back: from {:?} to {next:?}", self.progress));
        if next.epoch < self.progress.epoch {
            return back("the epoch");
        }
        if next.moment.clock < self.progress.moment.clock {
            return back("the clock");
        }
        if next.moment.watermark < self.progress.moment.watermark {
            return back("the watermark");
        }
        let is_back =
            |(partition, known): (&(String, i32), &i64)| next.offsets.get(partition).is_none_or(|next| next < known);
        if self.progress.offsets.iter().any(is_back) {
            return back("an offset");
        }
        Ok(())
    }

    /// Gives the plain Rust the events up to `offsets`.
    fn take(&mut self, offsets: &Offsets, held: &Mutex<Held>) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let guard = held.lock().expect("no thread panics with it");
            let ends = guard.ends();
            let is_held = |((stream, partition), next): (&(String, i32), &i64)| {
                let end = ends.get(&(stream.as_str(), *partition)).copied().unwrap_or_default();
                stream == "factors" || *next as usize <= end
            };
            if offsets.iter().all(is_held) {
                self.take_held(offsets, &guard);
                return Ok(());
            }
            drop(guard);
            if begun.elapsed() > READ_BACK {
                return Err(format!("the broker does not give what the progress names: {offsets:?}, {ends:?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn take_held(&mut self, offsets: &Offsets, held: &Held) {
        for ((stream, partition), next) in offsets {
            let taken = self.taken.entry((stream.clone(), *partition)).or_default();
            let new = *taken..*next as usize;
            match stream.as_str() {
                "orders" => {
                    let orders = held.orders.get(partition).map_or(&[][..], Vec::as_slice);
                    orders[new].iter().for_each(|order| self.tag.expected.order(*partition, order));
                }
                "refunds" => {
                    let refunds = held.refunds.get(partition).map_or(&[][..], Vec::as_slice);
                    refunds[new].iter().for_each(|refund| self.tag.expected.refund(refund));
                }
                _ => {}
            }
            *taken = *next as usize;
        }
    }
}

fn difference(expected: &Rows, found: &Rows) -> String {
    let keys = expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key)));
    let wrong: Vec<String> = keys
        .filter(|key| expected.get(*key) != found.get(*key))
        .map(|key| format!("{key} is {:?}, expected {:?}", found.get(key), expected.get(key)))
        .collect();
    format!("{} wrong rows of {}: {}", wrong.len(), expected.len(), wrong[..wrong.len().min(SHOWN)].join("; "))
}

#[test]
fn wrong_rows_and_steps_back_are_noticed() {
    let order = |order_id, amount| Order {
        order_id,
        user_id: 7,
        amount,
        points: 1,
        category: "books".to_string(),
        order_time: 1_000,
    };
    let orders = BTreeMap::from([(0, vec![order(1, 250), order(2, 1_005)])]);
    let held = Mutex::new(Held { orders, refunds: BTreeMap::new() });
    let versions = [1, 2, 3].map(|factor| BTreeMap::from([("books".to_string(), factor)]));
    let factors = Mutex::new(versions.to_vec());
    let truth = Truth { held: &held, factors: &factors };
    let table = |epoch, next, row: &str| Table {
        progress: Progress {
            epoch,
            offsets: Offsets::from([(("orders".to_string(), 0), next)]),
            rows: 1,
            ..Progress::default()
        },
        rows: Rows::from([("7".to_string(), row.to_string())]),
    };
    let follower = |name| Follower::new(tags().into_iter().find(|tag| tag.name == name).expect("a tag"));
    let mut lowest = 0;

    let mut spend = follower("spend");
    assert_eq!(spend.advance(&table(1, 1, "2.50|1"), &truth, &mut lowest), Ok(()));
    let wrong = spend.advance(&table(2, 2, "12.54|2"), &truth, &mut lowest).unwrap_err();
    assert!(wrong.starts_with("1 wrong rows of 1: 7 is Some(\"12.54|2\"), expected Some(\"12.55|2\")"), "{wrong}");
    assert_eq!(spend.advance(&table(2, 2, "12.55|2"), &truth, &mut lowest), Ok(()));
    let back = spend.advance(&table(3, 1, "2.50|1"), &truth, &mut lowest).unwrap_err();
    assert!(back.starts_with("an offset went back"), "{back}");
    let back = spend.advance(&table(1, 2, "12.55|2"), &truth, &mut lowest).unwrap_err();
    assert!(back.starts_with("the epoch went back"), "{back}");

    let mut worth = follower("worth");
    assert_eq!(worth.advance(&table(1, 2, "4"), &truth, &mut lowest), Ok(()));
    assert_eq!(lowest, 1);
    let back = worth.advance(&table(2, 2, "2"), &truth, &mut lowest).unwrap_err();
    assert_eq!(back, "the rows are those of no version of the file from 1 on");
}

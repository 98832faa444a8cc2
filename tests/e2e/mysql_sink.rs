//! The MySQL store against a real server: the contract of all stores, both ways of writing, renames that were cut off
//! at every step, lost connections, and a server killed in the middle of commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::tagflow;
use arrow::array::*;
use arrow::datatypes::DataType;
use chrono_tz::Tz;
use mysql_async::prelude::Queryable;
use tagflow::config::MysqlAddress;
use tagflow::sink::mysql::MysqlSink;
use tagflow::sink::{Sink, SinkError, TagChanges, TagTable, shadow_table};

use self::contract::{Fixture, assert_rows, changes, none, progress, table_of};

#[path = "sink_contract.rs"]
pub(crate) mod contract;

#[path = "mysql_crash.rs"]
mod crash;

const ZONE: Tz = chrono_tz::Asia::Shanghai;

/// A database of its own on the server that `TAGFLOW_TEST_MYSQL` names; it is dropped at the end.
struct Database {
    url: String,
    name: String,
}

impl Database {
    fn new() -> Database {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let server = std::env::var("TAGFLOW_TEST_MYSQL").unwrap_or_else(|_| {
            panic!(
                "TAGFLOW_TEST_MYSQL is not set: give it the url of a MariaDB or MySQL server for tests, \
                 mysql://root@127.0.0.1:3306, or run `make test`, which starts one"
            )
        });
        let mut url = url::Url::parse(&server).expect("TAGFLOW_TEST_MYSQL is a url");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tagflow_sink_{}_{number}`x", std::process::id());
        url.set_path(&name);
        Database { url: url.to_string(), name }
    }

    fn sink(&self) -> MysqlSink {
        MysqlSink::new(&MysqlAddress::plain(&self.url), ZONE).unwrap()
    }

    fn opened(&self) -> MysqlSink {
        let mut sink = self.sink();
        sink.open(&contract::claim()).unwrap();
        sink
    }

    /// Runs statements beside the sink and returns the last one's rows, cells behind `|`.
    fn run(&self, statements: &[&str]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let opts = mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(&self.url).unwrap());
            let mut conn = mysql_async::Conn::new(opts.prefer_socket(false)).await.unwrap();
            let mut lines = Vec::new();
            for statement in statements {
                let rows: Vec<mysql_async::Row> = conn.query(*statement).await.unwrap();
                let text = |value| match value {
                    mysql_async::Value::NULL => "NULL".to_string(),
                    mysql_async::Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                    other => other.as_sql(true),
                };
                lines = rows
                    .into_iter()
                    .map(|row| row.unwrap().into_iter().map(text).collect::<Vec<_>>().join("|"))
                    .collect();
            }
            conn.disconnect().await.unwrap();
            lines
        })
    }
}

impl Fixture for Database {
    fn closed(&self) -> Box<dyn Sink> {
        Box::new(self.sink())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.run(&[&format!("DROP DATABASE IF EXISTS `{}`", self.name.replace('`', "``"))]);
        }
    }
}

crate::sink_contract!(Database::new());

fn levels(rows: std::ops::Range<i64>, level: &str) -> RecordBatch {
    let users: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone()));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.map(|row| format!("{level}{}", row % 7))));
    RecordBatch::try_from_iter_with_nullable([("user_id", users, false), ("level", texts, true)]).unwrap()
}

#[test]
fn without_bulk_load_large_commits_write_the_same() {
    struct Plain(Database);
    impl Fixture for Plain {
        fn closed(&self) -> Box<dyn Sink> {
            Box::new(self.0.sink().without_bulk_load())
        }
    }
    assert!(Database::new().opened().bulk_loads(), "start the test server with --local-infile=1");
    contract::large_commits_and_small_ones_write_the_same(&Plain(Database::new()));
}

#[test]
fn statements_longer_than_the_servers_packet_are_split() {
    let database = Database::new();
    let long: ArrayRef = Arc::new(StringArray::from_iter_values((0..300).map(|row| "'\\长".repeat(20_000 + row))));
    let users: ArrayRef = Arc::new(Int64Array::from_iter_values(0..300));
    let rows = RecordBatch::try_from_iter_with_nullable([("user_id", users, false), ("text", long, true)]).unwrap();
    let table = table_of("long", 1, &rows);
    let mut sink = database.opened();
    sink.create_table(&table).unwrap();
    sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    assert_rows(&sink.read_table(&table).unwrap(), &rows);
}

#[test]
fn key_longer_than_the_index_is_rejected_and_the_longest_is_kept() {
    let database = Database::new();
    let names = ["长".repeat(767), "长".repeat(768), "x".repeat(4000)];
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3));
    let rows = RecordBatch::try_from_iter_with_nullable([("name", names, false), ("n", numbers, true)]).unwrap();
    let table = table_of("by_name", 1, &rows);
    let mut sink = database.opened();
    sink.create_table(&table).unwrap();
    assert_eq!(sink.column_types(&table).unwrap(), ["VARCHAR(767)", "BIGINT"]);
    let stats = sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    assert_eq!((stats.upserted, stats.rejected_keys), (1, 2));
    let sample = stats.rejected_sample.unwrap();
    assert!(
        sample.starts_with("table `by_name`: key column `name` has 768 characters, its index takes 767"),
        "{sample}"
    );
    assert_rows(&sink.read_table(&table).unwrap(), &rows.slice(0, 1));
}

#[test]
fn several_text_keys_share_the_index() {
    let database = Database::new();
    let text = |byte: &str, length: usize| -> ArrayRef { Arc::new(StringArray::from(vec![byte.repeat(length)])) };
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("a", text("👩", 254), false),
        ("b", text("👩", 254), false),
        ("c", text("👩", 254), false),
        ("id", one.clone(), false),
        ("n", one, true),
    ])
    .unwrap();
    let table = table_of("texts", 4, &rows);
    let mut sink = database.opened();
    sink.create_table(&table).unwrap();
    let stats = sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    assert_eq!(stats.rejected_keys, 0, "{stats:?} of {:?}", sink.column_types(&table));
    assert_rows(&sink.read_table(&table).unwrap(), &rows);
}

#[test]
fn other_programs_read_types_counts_and_wall_time() {
    let database = Database::new();
    let rows = levels(0..3, "gold");
    let table = table_of("level", 1, &rows);
    let mut sink = database.opened();
    sink.create_table(&table).unwrap();
    let mut registration = contract::register("level", 1);
    registration.complete_from = Some(0);
    sink.register(std::slice::from_ref(&registration)).unwrap();
    let mut change = changes(&table, &rows, &none(&table, &rows), 3);
    change.progress.event_time = Some(3_600_000);
    sink.commit(&[change]).unwrap();
    // A daemon that has read no event since its start does not know better.
    sink.commit(&[changes(&table, &rows, &none(&table, &rows), 4)]).unwrap();
    // Registering anew keeps what commits have written.
    registration.version = 2;
    sink.register(&[registration]).unwrap();
    let tag = "SELECT version, table_name, row_count, true_at, complete_from, title FROM _tagflow_tags";
    assert_eq!(database.run(&[tag]), ["2|level|3|2024-03-01 20:00:00.000|1970-01-01 08:00:00.000|近30天消费"]);
    let truth = "SELECT true_offsets, event_time FROM _tagflow_tags";
    assert_eq!(database.run(&[truth]), ["{\"orders\":{\"3\":40}}|1970-01-01 09:00:00.000"]);
    assert_eq!(database.run(&["SELECT DISTINCT _updated_at FROM level"]), ["2024-03-01 20:00:00.000"]);
    let offsets = "SELECT tag, table_name, epoch, clock_ns, offsets, row_count FROM _tagflow_progress";
    assert_eq!(database.run(&[offsets]), ["level|level|4|1709294400000000000|{\"orders\":{\"3\":40}}|3"]);
}

#[test]
fn tables_of_an_older_layout_are_brought_up_to_date() {
    let database = Database::new();
    let rows = levels(0..3, "gold");
    let table = table_of("level", 1, &rows);
    let mut sink = database.opened();
    sink.create_table(&table).unwrap();
    sink.register(&[contract::register("level", 1)]).unwrap();
    drop(sink);
    // As a daemon of the first layout had made them, and one that was stopped while it brought them up to date.
    database.run(&[
        "ALTER TABLE _tagflow_tags DROP COLUMN event_time, DROP COLUMN lost_records",
        "ALTER TABLE _tagflow_progress DROP COLUMN watermarks",
        "ALTER TABLE _tagflow_pending DROP COLUMN origin",
        "DROP TABLE _tagflow_lease, _tagflow_versions",
        "UPDATE _tagflow_meta SET layout = 1",
    ]);
    let mut sink = database.opened();
    let mut change = changes(&table, &rows, &none(&table, &rows), 1);
    change.progress.event_time = Some(0);
    sink.commit(&[change]).unwrap();
    assert_eq!(sink.progress().unwrap(), [progress("level", 1, 3)]);
    assert_eq!(database.run(&["SELECT layout FROM _tagflow_meta"]), ["7"]);
    assert_eq!(database.run(&["SELECT event_time FROM _tagflow_tags"]), ["1970-01-01 08:00:00.000"]);
    sink.renew().unwrap();
}

#[test]
fn altered_and_dropped_tables_are_errors_of_their_table() {
    let database = Database::new();
    let rows = levels(0..3, "gold");
    let table = table_of("level", 1, &rows);
    let mut sink = database.opened();
    sink.create_table(&table).unwrap();
    database.run(&["ALTER TABLE level DROP COLUMN level"]);
    assert!(!sink.table_matches(&table).unwrap());
    for rows in [rows.clone(), levels(0..2500, "gold")] {
        let error = sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap_err();
        assert!(matches!(&error, SinkError::Table { table, .. } if table == "level"), "{error}");
        assert!(error.to_string().contains("the table was altered by someone else; it is filled again"), "{error}");
    }
    database.run(&["ALTER TABLE level ADD COLUMN level VARCHAR(3)"]);
    for rows in [rows.clone(), levels(0..2500, "gold")] {
        let error = sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap_err();
        assert!(error.to_string().contains("Data too long for column 'level'"), "{error}");
        assert!(matches!(&error, SinkError::Table { table, .. } if table == "level"), "{error}");
    }
    assert_eq!(database.run(&["SELECT COUNT(*) FROM level"]), ["0"], "a cut value was written");
    database.run(&["DROP TABLE level"]);
    let error = sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap_err();
    assert!(error.to_string().contains("the table was dropped by someone else"), "{error}");
    assert_eq!(sink.progress().unwrap(), []);
}

#[test]
fn digits_that_an_altered_column_would_cut_are_an_error() {
    let database = Database::new();
    let many = 0..2_500;
    let users: ArrayRef = Arc::new(Int64Array::from_iter_values(many.clone()));
    let spend = Decimal128Array::from_iter_values(many.map(i128::from)).with_precision_and_scale(12, 2).unwrap();
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("user_id", users, false),
        ("spend", Arc::new(spend) as ArrayRef, true),
    ])
    .unwrap();
    let table = table_of("spend", 1, &rows);
    let mut sink = database.opened();
    sink.create_table(&table).unwrap();
    database.run(&["ALTER TABLE spend MODIFY spend DECIMAL(12,1)"]);
    for rows in [rows.slice(0, 100), rows.clone()] {
        let error = sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap_err();
        assert!(matches!(&error, SinkError::Table { table, .. } if table == "spend"), "{error}");
        assert!(error.to_string().contains("Data truncated for column 'spend'"), "{error}");
    }
    assert_eq!(database.run(&["SELECT COUNT(*) FROM spend"]), ["0"]);
}

#[test]
fn refused_accounts_and_servers_are_told_without_the_password() {
    let database = Database::new();
    database.opened();
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username("nobody").unwrap();
    url.set_password(Some("sEcReT%40x")).unwrap();
    let error = MysqlSink::new(&MysqlAddress::plain(url.as_str()), ZONE).unwrap().open(&contract::claim()).unwrap_err();
    assert!(matches!(error, SinkError::Setup { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("sEcReT"), "{error:?}");
    assert!(error.to_string().contains("Access denied for user 'nobody'"), "{error}");

    // A port that nobody listens on: bound and let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    url.set_port(Some(port)).unwrap();
    let error = MysqlSink::new(&MysqlAddress::plain(url.as_str()), ZONE).unwrap().open(&contract::claim()).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(!format!("{error} {error:?}").contains("sEcReT"), "{error:?}");

    let error = MysqlSink::new(&MysqlAddress::plain("mysql://u:sEcReT@h:1/"), ZONE).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "store mysql://u@h:1/: the url names no database: mysql://user:password@host:port/database"
    );
    for wrong in ["mysql://u:sEcReT@h:port/db", "postgres://u:sEcReT@h/db", "mysql://u:sEcReT@h/db?what=1", "sEcReT"] {
        let error = MysqlSink::new(&MysqlAddress::plain(wrong), ZONE).map(|_| ()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("sEcReT"), "{error:?}");
    }
}

#[test]
fn killed_connection_is_replaced_and_the_commit_done() {
    let database = Database::new();
    let rows = levels(0..10, "gold");
    let table = table_of("level", 1, &rows);
    let mut sink = database.opened();
    sink.create_table(&table).unwrap();
    for epoch in 1..4 {
        for id in database
            .run(&["SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()"])
        {
            database.run(&[&format!("KILL {id}")]);
        }
        sink.commit(&[changes(&table, &rows, &none(&table, &rows), epoch)]).unwrap();
    }
    assert_rows(&sink.read_table(&table).unwrap(), &rows);
    assert_eq!(sink.progress().unwrap(), [progress("level", 3, 10)]);
}

#[test]
fn row_lock_held_by_another_program_is_retryable() {
    let database = Database::new();
    let rows = levels(0..3, "gold");
    let table = table_of("level", 1, &rows);
    let mut sink = database.opened();
    sink.create_table(&table).unwrap();
    sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut other = runtime.block_on(async {
        let mut conn = mysql_async::Conn::from_url(&database.url).await.unwrap();
        conn.query_drop("START TRANSACTION").await.unwrap();
        conn.query_drop("SELECT * FROM level FOR UPDATE").await.unwrap();
        conn
    });
    let newer = levels(0..3, "silver");
    let error = sink.commit(&[changes(&table, &newer, &none(&table, &rows), 2)]).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("Lock wait timeout"), "{error}");
    runtime.block_on(async { other.query_drop("ROLLBACK").await }).unwrap();
    sink.commit(&[changes(&table, &newer, &none(&table, &rows), 2)]).unwrap();
    assert_rows(&sink.read_table(&table).unwrap(), &newer);
    runtime.block_on(async { other.disconnect().await }).unwrap();
}

/// A live table with `old` rows and a filled one with `new` rows, the swap begun as the protocol's first step does.
fn begun_swap(database: &Database, old: &RecordBatch, new: &RecordBatch) -> Arc<TagTable> {
    let live = table_of("level", 1, old);
    let filled = Arc::new(TagTable { table: shadow_table("level"), ..(*live).clone() });
    let mut sink = database.opened();
    sink.create_table(&live).unwrap();
    sink.create_table(&filled).unwrap();
    sink.commit(&[changes(&live, old, &none(&live, old), 5)]).unwrap();
    sink.commit(&[TagChanges { progress: progress("level", 4, 1), ..changes(&filled, new, &none(&live, new), 4) }])
        .unwrap();
    let then = serde_json::to_string(&progress("level", 6, 1)).unwrap();
    database.run(&[
        "UPDATE _tagflow_meta SET next_retired = 2",
        &format!(
            "INSERT INTO _tagflow_pending VALUES \
             ('level', '_tagflow_new_level', '_tagflow_old_level_1', 'level', '{then}', NULL, NULL)"
        ),
    ]);
    live
}

#[test]
fn swap_cut_off_before_the_rename_is_undone_and_can_be_done_again() {
    let database = Database::new();
    let (old, new) = (levels(0..5, "old"), levels(3..4, "new"));
    let live = begun_swap(&database, &old, &new);
    let mut sink = database.opened();
    assert_rows(&sink.read_table(&live).unwrap(), &old);
    assert_eq!(sink.progress().unwrap(), [progress("level", 5, 5)]);
    assert_eq!(database.run(&["SELECT COUNT(*) FROM _tagflow_pending"]), ["0"]);
    assert_eq!(sink.drop_retired(Duration::ZERO).unwrap(), Vec::<String>::new());
}

#[test]
fn swap_cut_off_after_the_rename_is_finished_by_open() {
    let database = Database::new();
    let (old, new) = (levels(0..5, "old"), levels(3..4, "new"));
    let live = begun_swap(&database, &old, &new);
    database.run(&["RENAME TABLE level TO _tagflow_old_level_1, _tagflow_new_level TO level"]);
    let mut sink = database.opened();
    assert_rows(&sink.read_table(&live).unwrap(), &new);
    assert_eq!(sink.progress().unwrap(), [progress("level", 6, 1)]);
    assert_eq!(database.run(&["SELECT COUNT(*) FROM _tagflow_pending"]), ["0"]);
    let tables = "SELECT tag, table_name FROM _tagflow_progress ORDER BY tag";
    assert_eq!(database.run(&[tables]), ["level|level", "level@0|_tagflow_old_level_1"]);
    assert_eq!(sink.drop_retired(Duration::ZERO).unwrap(), ["_tagflow_old_level_1"]);
}

#[test]
fn swap_of_which_nothing_can_be_made_out_keeps_no_store_closed() {
    let database = Database::new();
    let (old, new) = (levels(0..5, "old"), levels(3..4, "new"));
    let live = begun_swap(&database, &old, &new);
    database.run(&["UPDATE _tagflow_pending SET progress = '', registration = '{', origin = ''"]);
    // Nothing of it is asked for while the rename has not happened.
    let mut sink = database.opened();
    assert_rows(&sink.read_table(&live).unwrap(), &old);
    assert_eq!(sink.progress().unwrap(), [progress("level", 5, 5)]);
    drop(sink);

    let database = Database::new();
    let live = begun_swap(&database, &old, &new);
    database.run(&[
        "UPDATE _tagflow_pending SET progress = '', registration = '{', origin = ''",
        "RENAME TABLE level TO _tagflow_old_level_1, _tagflow_new_level TO level",
    ]);
    let mut sink = database.opened();
    // Without progress the tag is one that is filled again.
    assert_rows(&sink.read_table(&live).unwrap(), &new);
    assert_eq!(sink.progress().unwrap(), []);
    assert_eq!(database.run(&["SELECT COUNT(*) FROM _tagflow_pending"]), ["0"]);
    assert_eq!(sink.drop_retired(Duration::ZERO).unwrap(), ["_tagflow_old_level_1"]);
}

#[test]
fn swap_whose_origin_alone_cannot_be_made_out_is_finished_without_it() {
    let database = Database::new();
    let (old, new) = (levels(0..5, "old"), levels(3..4, "new"));
    let live = begun_swap(&database, &old, &new);
    database.run(&[
        "UPDATE _tagflow_pending SET origin = ''",
        "RENAME TABLE level TO _tagflow_old_level_1, _tagflow_new_level TO level",
    ]);
    let mut sink = database.opened();
    assert_rows(&sink.read_table(&live).unwrap(), &new);
    assert_eq!(sink.progress().unwrap(), [progress("level", 6, 1)]);
    assert_eq!(sink.versions().unwrap(), []);
}

#[test]
fn retirement_cut_off_after_the_rename_is_finished_by_open() {
    let database = Database::new();
    let rows = levels(0..5, "old");
    let live = table_of("level", 1, &rows);
    let mut sink = database.opened();
    sink.create_table(&live).unwrap();
    sink.commit(&[changes(&live, &rows, &none(&live, &rows), 5)]).unwrap();
    database.run(&[
        "INSERT INTO _tagflow_pending VALUES ('level', NULL, '_tagflow_old_level_1', 'level', NULL, NULL, NULL)",
        "RENAME TABLE level TO _tagflow_old_level_1",
    ]);
    let mut sink = database.opened();
    assert_eq!(sink.progress().unwrap(), []);
    assert_eq!(sink.drop_retired(Duration::ZERO).unwrap(), ["_tagflow_old_level_1"]);
}

#[test]
fn deletes_of_composite_keys_go_by_the_primary_key() {
    let database = Database::new();
    let rows = levels(0..20_000, "gold");
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("user_id", rows.column(0).clone(), false),
        ("level", rows.column(1).clone(), false),
        ("n", rows.column(0).clone(), true),
    ])
    .unwrap();
    let table = table_of("detail", 2, &rows);
    assert_eq!(table.key[1].data_type, DataType::Utf8);
    let mut sink = database.opened();
    sink.create_table(&table).unwrap();
    sink.commit(&[changes(&table, &rows, &none(&table, &rows), 1)]).unwrap();
    let gone = rows.project(&[0, 1]).unwrap().slice(100, 15_000);
    sink.commit(&[changes(&table, &rows.slice(0, 0), &gone, 2)]).unwrap();
    assert_eq!(database.run(&["SELECT COUNT(*), MIN(user_id), MAX(user_id) FROM detail"]), ["5000|0|19999"]);
    let keys: Vec<String> = (0..500).map(|row| format!("(user_id={row} AND level='gold{}')", row % 7)).collect();
    let explain = format!("EXPLAIN DELETE FROM detail WHERE {}", keys.join(" OR "));
    let plan = database.run(&["ANALYZE TABLE detail", &explain]);
    assert!(plan[0].contains("|range|PRIMARY|"), "{plan:?}");
}

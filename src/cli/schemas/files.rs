//! The keys of schema files, headers, folders and tests.

use super::shape::{Key, Object, Shape, key, lints, object, open, required, table};
use crate::tag_test::MARKS;

/// `schemas/NAME.toml`.
pub(crate) fn stream() -> Object {
    let formats: &[&str] =
        &["json", "csv", "debezium-json", "canal-json", "maxwell-json", "avro", "protobuf", "parquet"];
    let time = vec![
        required("column", Shape::Text, "a TIMESTAMP among the columns"),
        key("lateness", Shape::Duration, "how far behind the newest of its partition another may come (0s)"),
        key("idle", Shape::Duration, "after how long without records a partition holds no window open (1m)"),
    ];
    let unique = vec![
        required("columns", Shape::Texts, "what events that are one have alike"),
        required("within", Shape::Duration, "how far apart in event time they lie at most"),
    ];
    let changes = vec![
        required("column", Shape::Text, "the DATETIME or TIMESTAMP that says when a row was written"),
        key("every", Shape::Duration, "how often it is asked for (5s)"),
    ];
    let archive = vec![
        required("path", Shape::Text, "the folder, below the project's"),
        key("every", Shape::Duration, "how long records wait at most before a file counts (10m)"),
        key("size", Shape::Bytes, "bytes at which a file ends (64MiB)"),
    ];
    let column = vec![
        required("type", Shape::Text, "the SQL type, and NOT NULL where a record without it is a dead letter"),
        key("path", Shape::Text, "where it is in the record: \"$.item.category\""),
        key("format", Shape::Word(&["iso", "epoch_s", "epoch_ms", "epoch_us"]), "how a TIMESTAMP is written (iso)"),
        key("on_error", Shape::Word(MISFITS), "what becomes of a value that does not fit"),
    ];
    object(vec![
        key("title", Shape::Text, "for people"),
        key("kind", Shape::Word(&["kafka-upsert", "file", "mysql"]), "a table; without it the records are events"),
        required("connection", Shape::Text, "a [connection.NAME] of tagflow.toml"),
        key("topic", Shape::Text, "the topic, or a file or folder of a file connection"),
        key("path", Shape::Text, "kind = \"file\": the file that is read as a whole"),
        key("table", Shape::Text, "kind = \"mysql\": the table, or database.table"),
        key("format", Shape::Word(formats), "how a record's bytes are read"),
        key("schema", Shape::Text, "avro: the file with the schema of every record; without it, the registry"),
        key("descriptor", Shape::Text, "protobuf: the file of protoc --include_imports --descriptor_set_out"),
        key("message", Shape::Text, "protobuf: the message, such as \"shop.Order\""),
        key("framing", Shape::Word(&["none", "confluent"]), "protobuf: what is before the message"),
        key("time", table(time), "when an event happened, and how late one may come"),
        key("start", Shape::Anything, "\"earliest\" (what it is without), \"latest\", or a moment"),
        key("key", Shape::Texts, "the primary key of the table that the records describe"),
        key("truncates", Shape::Flag, "a TRUNCATE among the changes empties the table"),
        key("unique", table(unique), "drops what a producer sent again"),
        key("changes", table(changes), "kind = \"mysql\": asks for changed rows between two looks at all of it"),
        key("resync", Shape::Duration, "kind = \"mysql\": how often the whole table is read (10m)"),
        key("on_error", Shape::Word(MISFITS), "what becomes of values that do not fit (dead_letter)"),
        key(
            "history",
            Shape::Text,
            "Parquet files with what the topic may not have any more: archive/orders/*.parquet",
        ),
        key(
            "archive",
            Shape::Either(vec![Shape::Text, table(archive)]),
            "a folder in which the daemon keeps all records, as the stream's history: archive/orders",
        ),
        key("on_lost", Shape::Word(&["stop", "skip"]), "when retention took records that were not read yet (stop)"),
        required(
            "columns",
            Shape::Named(Box::new(Shape::Either(vec![Shape::Text, table(column)]))),
            "the columns by name: a SQL type each, or a table with more to say",
        ),
    ])
}

const MISFITS: &[&str] = &["dead_letter", "null"];

/// The header of a tag.
pub(crate) fn tag() -> Object {
    let labels = Shape::Named(Box::new(Shape::Scalar));
    let column = vec![
        key("title", Shape::Text, "for people"),
        key("unit", Shape::Text, "for people: CNY, days …"),
        key("default", Shape::Scalar, "what readers take when a user has no row"),
        key("labels", labels, "display names of the values; values outside are counted"),
    ];
    let mut keys = vec![key("title", Shape::Text, "for people")];
    keys.extend(said_of_queries());
    keys.extend([
        key("entity", Shape::Text, "what it describes, where the project has several entities"),
        key("method", Shape::Word(&["stat", "rule", "mining", "manual"]), "how the value comes about"),
        key("status", Shape::Word(&["planned", "draft", "live", "deprecated"]), "where it is in its life (live)"),
        key("on_error", Shape::Word(&["stop", "skip", "null"]), "what a row does of which an expression fails (stop)"),
        key("state_limit", Shape::Bytes, "with more state the tag is set aside"),
        key("emit", Shape::Word(&["on_change", "on_close"]), "when the rows of windows are shown (on_change)"),
        key("allowed_lateness", Shape::Duration, "how much later than the stream's lateness events count"),
        key("early", Shape::Duration, "with emit = \"on_close\": show windows before they close, every so often"),
        key("recompute_every", Shape::Duration, "how often values of the whole population may change"),
        key("readers", Shape::Texts, "who reads its table"),
        lints(),
        key("columns", Shape::Named(Box::new(table(column))), "more to say of single columns"),
    ]);
    object(keys)
}

/// The header of a view.
pub(crate) fn view() -> Object {
    let mut keys = vec![key("title", Shape::Text, "for people")];
    keys.extend(said_of_queries());
    keys.push(lints());
    object(keys)
}

fn said_of_queries() -> [Key; 2] {
    [key("description", Shape::Text, "what it means, for people"), key("owner", Shape::Text, "who answers for it")]
}

/// `_folder.toml`.
pub(crate) fn folder() -> Object {
    object(vec![
        key("title", Shape::Text, "for people; the folder's name where it is missing"),
        key("order", Shape::Whole(i64::MIN, i64::MAX), "its place among its siblings; smaller comes first"),
        key("owner", Shape::Text, "who answers for the branch"),
    ])
}

/// `NAME.test.toml`.
pub(crate) fn tag_tests() -> Object {
    let list = |of: Shape, least: usize| Shape::List(Box::new(of), least);
    let [partition, timestamp, record_key, raw, delete] = MARKS;
    let deleted = || key(delete, Shape::Flag, "the row is gone; its key alone is written");
    // Beside these a row has the columns of its stream.
    let event = open(vec![
        key(partition, Shape::Whole(0, 9999), "the partition that it comes in (0)"),
        key(timestamp, Shape::Moment, "the broker's time of it (the clock of the moment)"),
        key(record_key, Shape::Text, "the record's key"),
        key(raw, Shape::Text, "the record as the topic has it, in place of columns"),
        deleted(),
    ]);
    let events = Shape::Either(vec![Shape::Text, list(Shape::Either(vec![Shape::Text, event]), 0)]);
    let letter = table(vec![
        key("stream", Shape::Text, "the stream that it came in"),
        key("kind", Shape::Word(&["decode", "late", "skip"]), "why it is put aside"),
        key("error", Shape::Text, "a part of what is said of it"),
        key("partition", Shape::Whole(0, i64::MAX), "its partition"),
        key("offset", Shape::Whole(0, i64::MAX), "its place there"),
    ]);
    let moment = table(vec![
        required("at", Shape::Moment, "where the clock stands, in the project's zone unless it has an offset"),
        key(
            "given",
            Shape::Named(Box::new(events)),
            "by stream, what has come since the moment before: rows, records, a CSV file",
        ),
        key(
            "rows",
            Shape::Either(vec![Shape::Text, list(open(Vec::new()), 0)]),
            "the whole table, in any order, or a CSV file",
        ),
        key("changes", list(open(vec![deleted()]), 0), "what was written or deleted since the moment before"),
        key("dead_letters", list(letter, 0), "the records that are put aside"),
        key("fails", Shape::Text, "a part of the reason for which the tag is set aside"),
    ]);
    let test = table(vec![
        required("name", Shape::Text, "what it is about"),
        key("columns", Shape::Texts, "the columns that are looked at (all)"),
        required("moment", list(moment, 1), "the clock moves, events come, and the table is looked at"),
    ]);
    object(vec![
        key(
            "defaults",
            Shape::Named(Box::new(open(Vec::new()))),
            "by stream, what its rows hold where they say nothing",
        ),
        key("test", list(test, 0), "the tests"),
    ])
}

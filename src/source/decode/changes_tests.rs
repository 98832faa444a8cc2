//! Changes of tables: envelopes, moved keys, and records that delete.

use arrow::datatypes::DataType;

use super::tests::{column, record, rows, stream};
use super::*;
use crate::catalog::{Column, Kind};

/// A table of that key, as records of that format describe it; its columns and whether a row is deleted.
pub(super) fn table(format: Format, kind: Kind, key: &[&str], columns: Vec<Column>) -> (Stream, Decoder) {
    let is_key = |name: &str| key.contains(&name);
    let columns = columns.into_iter().map(|column| Column { nullable: !is_key(&column.name), ..column }).collect();
    let key = key.iter().map(ToString::to_string).collect();
    let stream = Stream { kind, key, ..stream(format, columns) };
    let deleted = stream.schema().index_of(DELETED).unwrap();
    let wanted: Vec<usize> = (0..stream.columns.len()).chain([deleted]).collect();
    let decoder = Decoder::new(&stream, &wanted).unwrap();
    (stream, decoder)
}

#[test]
fn tombstone_deletes_the_row_of_its_key() {
    let upserts = |key: &[&str]| {
        let columns = vec![column("id", DataType::Int64), column("site", DataType::Utf8), column("n", DataType::Int64)];
        table(Format::Json, Kind::Upserts, key, columns).1
    };
    let tombstone = |decoder: &mut Decoder, key: Option<&str>| {
        let key = key.map(str::as_bytes);
        decoder.decode(&RawRecord { key, payload: None, ..record(b"") }).map_err(|error| error.to_string())
    };
    let mut decoder = upserts(&["id"]);
    decoder.decode(&record(br#"{"id":7,"site":"a","n":1}"#)).unwrap();
    for key in ["7", "\"7\"", r#"{"id":7,"n":5}"#, r#" {"id":"7"}"#] {
        tombstone(&mut decoder, Some(key)).unwrap();
    }
    decoder.decode(&record(br#"{"id":7,"site":"b","n":2}"#)).unwrap();
    assert_eq!(
        rows(&decoder.finish()),
        ["7|a|1|false", "7|-|-|true", "7|-|-|true", "7|-|-|true", "7|-|-|true", "7|b|2|false"]
    );
    for (key, error) in [
        (None, "the record is empty and has no key: it tells no row to delete"),
        (Some("x"), "column \"id\": expected BIGINT NOT NULL, found \"x\""),
        (Some(""), "column \"id\": expected BIGINT NOT NULL, found \"\""),
        (Some("{\"n\":7}"), "column \"id\": expected BIGINT NOT NULL, found no such field"),
        (Some("{\"id\":"), "the record's key: not valid JSON: expected a value at byte 6"),
    ] {
        assert_eq!(tombstone(&mut decoder, key), Err(error.to_string()), "{key:?}");
    }

    let mut decoder = upserts(&["id", "site"]);
    tombstone(&mut decoder, Some(r#"{"id":7,"site":"a"}"#)).unwrap();
    assert_eq!(rows(&decoder.finish()), ["7|a|-|true"]);
    let error = "the record's key is no JSON object of the columns id, site";
    assert_eq!(tombstone(&mut decoder, Some("7")), Err(error.to_string()));

    let columns = vec![column("id", DataType::Utf8), column("n", DataType::Int64)];
    let (_, mut decoder) = table(Format::Csv, Kind::Upserts, &["id"], columns);
    decoder.decode(&record(b"a b,1")).unwrap();
    tombstone(&mut decoder, Some("a b")).unwrap();
    tombstone(&mut decoder, Some("")).unwrap();
    assert_eq!(rows(&decoder.finish()), ["a b|1|false", "a b|-|true", "|-|true"]);
}

#[test]
fn truncate_is_a_dead_letter_unless_the_schema_lets_it_empty_the_table() {
    let truncates = [
        (Format::Debezium, r#"{"op":"t"}"#),
        (Format::Canal, r#"{"type":"TRUNCATE","isDdl":true}"#),
        (Format::Maxwell, r#"{"type":"truncate"}"#),
    ];
    for (format, payload) in truncates {
        let (stream, mut decoder) = table(format, Kind::Records, &["id"], vec![column("id", DataType::Int64)]);
        let error = decoder.decode(&record(payload.as_bytes())).unwrap_err().to_string();
        assert!(error.starts_with("TRUNCATE is not followed: write `truncates = true`"), "{error}");
        let stream = Stream { truncates: true, ..stream };
        let wanted: Vec<usize> = (0..stream.schema().fields().len()).collect();
        let mut decoder = Decoder::new(&stream, &wanted).unwrap();
        decoder.decode(&record(payload.as_bytes())).unwrap();
        assert_eq!(rows(&decoder.finish()), ["0|shop.orders|3|41|2023-11-15T06:13:20+08:00|k\u{fffd}|false|true"]);
    }
}

#[test]
fn what_debezium_writes_beside_changes_is_no_dead_letter() {
    let (_, mut decoder) = table(Format::Debezium, Kind::Records, &["id"], vec![column("id", DataType::Int64)]);
    for payload in [
        r#"{"ts_ms":1}"#,
        r#"{"status":"END","id":"1","event_count":2,"data_collections":[]}"#,
        r#"{"schema":{},"payload":{"databaseName":"shop","ddl":"DROP TABLE x","tableChanges":[]}}"#,
    ] {
        decoder.decode(&record(payload.as_bytes())).unwrap();
    }
    assert_eq!(decoder.rows(), 0);
    // A row without its envelope may well have such columns.
    for payload in [r#"{"id":1,"status":"paid"}"#, r#"{"id":1,"ts_ms":1}"#] {
        assert!(decoder.decode(&record(payload.as_bytes())).is_err());
    }
}

#[test]
fn record_of_an_unknown_type_is_a_dead_letter_where_it_has_rows() {
    let table = |format| table(format, Kind::Records, &["id"], vec![column("id", DataType::Int64)]).1;
    for (format, payload) in [
        (Format::Canal, r#"{"type":"INSRT","data":[{"id":"2"}]}"#),
        (Format::Maxwell, r#"{"type":"insrt","data":{"id":2}}"#),
    ] {
        let error = table(format).decode(&record(payload.as_bytes())).unwrap_err().to_string();
        assert_eq!(error, "type \"insrt\" with rows: nobody knows what becomes of them");
    }
    for (format, payload) in [
        (Format::Canal, r#"{"type":"ALTER","isDdl":true,"data":null,"old":null,"sql":"ALTER TABLE x"}"#),
        (Format::Canal, r#"{"type":"QUERY","data":[]}"#),
        (Format::Maxwell, r#"{"type":"bootstrap-start","data":{}}"#),
        (Format::Maxwell, r#"{"type":"table-create","def":{"columns":[]}}"#),
    ] {
        let mut decoder = table(format);
        decoder.decode(&record(payload.as_bytes())).unwrap();
        assert_eq!(decoder.rows(), 0, "{payload}");
    }
    let mut decoder = table(Format::Canal);
    decoder.decode(&record(br#"{"type":"UPDATE","data":[{"id":"2"}],"old":[null]}"#)).unwrap();
    assert_eq!(rows(&decoder.finish()), ["2|false"], "an old row that is not told");
}

#[test]
fn moved_key_is_found_in_any_case_and_below_any_path() {
    let paths = |id: &[&str]| {
        let path = id.iter().map(ToString::to_string).collect();
        vec![Column { path, ..column("id", DataType::Int64) }, column("n", DataType::Int64)]
    };
    let cases = [
        (Format::Maxwell, r#"{"type":"update","data":{"ID":2,"n":5},"old":{"ID":1}}"#, &["id"][..]),
        (Format::Canal, r#"{"type":"UPDATE","data":[{"Id":"2","n":"5"}],"old":[{"Id":"1"}]}"#, &["id"]),
        (Format::Debezium, r#"{"op":"u","before":{"ID":1,"n":4},"after":{"ID":2,"n":5}}"#, &["id"]),
        (Format::Debezium, r#"{"op":"u","before":{"of":{"id":1}},"after":{"of":{"id":2},"n":5}}"#, &["of", "id"]),
    ];
    for (format, payload, path) in cases {
        let (_, mut decoder) = table(format, Kind::Records, &["id"], paths(path));
        decoder.decode(&record(payload.as_bytes())).unwrap();
        assert_eq!(rows(&decoder.finish()), ["1|-|true", "2|5|false"], "{payload}");
    }
    let same = r#"{"type":"update","data":{"ID":2,"n":5},"old":{"n":4}}"#;
    let (_, mut decoder) = table(Format::Maxwell, Kind::Records, &["id"], paths(&["id"]));
    decoder.decode(&record(same.as_bytes())).unwrap();
    assert_eq!(rows(&decoder.finish()), ["2|5|false"]);
}

#[test]
fn empty_text_is_a_value_of_no_type_but_text() {
    let columns = || {
        let types = [DataType::Int64, DataType::Utf8, DataType::Date32, DataType::Boolean];
        ["id", "name", "day", "paid"].into_iter().zip(types).map(|(name, data_type)| column(name, data_type)).collect()
    };
    let (_, mut decoder) = table(Format::Canal, Kind::Records, &["id"], columns());
    let change = |row: &str| format!(r#"{{"type":"INSERT","data":[{row}]}}"#);
    decoder.decode(&record(change(r#"{"id":"1","name":"","day":null,"paid":"1"}"#).as_bytes())).unwrap();
    assert_eq!(rows(&decoder.finish()), ["1||-|true|false"]);
    for (row, column) in [(r#"{"id":"1","day":""}"#, "day"), (r#"{"id":"1","paid":""}"#, "paid")] {
        let error = decoder.decode(&record(change(row).as_bytes())).unwrap_err().to_string();
        assert!(error.contains(&format!("{column:?}")) && error.ends_with("found \"\""), "{error}");
    }
}

#[test]
fn words_that_nobody_knows_are_told_in_short() {
    let (_, mut decoder) = table(Format::Debezium, Kind::Records, &["id"], vec![column("id", DataType::Int64)]);
    let payload = format!("{{\"op\":\"{}\"}}", "x".repeat(100_000));
    let error = decoder.decode(&record(payload.as_bytes())).unwrap_err().to_string();
    assert!(error.starts_with("op \"xxx") && error.len() < 200, "{error}");
}

#[test]
fn row_of_a_change_that_is_no_object_is_told_of_as_such() {
    let changes = [
        (Format::Debezium, r#"{"op":"u","before":42,"after":{"id":1}}"#),
        (Format::Debezium, r#"{"op":"c","after":42}"#),
        (Format::Canal, r#"{"type":"INSERT","data":[42]}"#),
        (Format::Maxwell, r#"{"type":"insert","data":42}"#),
    ];
    for (format, payload) in changes {
        let (_, mut decoder) = table(format, Kind::Records, &["id"], vec![column("id", DataType::Int64)]);
        let error = decoder.decode(&record(payload.as_bytes())).unwrap_err().to_string();
        assert_eq!(error, "a row of the change: expected a JSON object, found 42", "{payload}");
    }
}

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, TimeUnit, TimestampMillisecondType};
use arrow::util::display::array_value_to_string;
use chrono_tz::Tz;

use super::changes_tests::table;
use super::*;
use crate::catalog::{Column, Start};

const ZONE: Tz = chrono_tz::Asia::Shanghai;

pub(super) fn column(name: &str, data_type: DataType) -> Column {
    Column {
        name: name.into(),
        data_type,
        nullable: true,
        path: vec![name.into()],
        timestamp_format: TimestampFormat::Iso,
        misfits: Default::default(),
    }
}

pub(super) fn stream(format: Format, columns: Vec<Column>) -> Stream {
    Stream {
        name: "orders".into(),
        file: "schemas/orders.toml".into(),
        title: None,
        connection: "shop".into(),
        topic: "shop.orders".into(),
        format,
        timezone: ZONE,
        start: Start::Earliest,
        time: None,
        kind: Default::default(),
        key: vec![],
        truncates: false,
        on_lost: Default::default(),
        history: None,
        archive: None,
        unique: None,
        columns,
    }
}

fn orders() -> Stream {
    let decimal = DataType::Decimal128(12, 2);
    stream(
        Format::Json,
        vec![
            Column { nullable: false, ..column("order_id", DataType::Int64) },
            column("user_id", DataType::Int64),
            column("amount", decimal),
            Column { path: vec!["item".into(), "category".into()], ..column("category", DataType::Utf8) },
            Column {
                timestamp_format: TimestampFormat::EpochMillis,
                ..column("order_time", DataType::Timestamp(TimeUnit::Millisecond, None))
            },
            column("paid", DataType::Boolean),
            column("day", DataType::Date32),
            column("score", DataType::Float64),
            column("note", DataType::Utf8),
            column("item", DataType::Utf8),
            column("tiny", DataType::Int8),
        ],
    )
}

pub(super) fn record(payload: &[u8]) -> RawRecord<'_> {
    RawRecord {
        topic: "shop.orders",
        partition: 3,
        offset: 41,
        timestamp: Some(1_700_000_000_000),
        key: Some(b"k\xff"),
        payload: Some(payload),
    }
}

pub(super) fn all_of(stream: &Stream) -> Decoder {
    let columns: Vec<usize> = (0..stream.columns.len()).collect();
    Decoder::new(stream, &columns).unwrap()
}

/// The rows of a batch, each value as text and NULL as `-`.
pub(super) fn rows(batch: &RecordBatch) -> Vec<String> {
    let text = |array: &ArrayRef, row| match array.is_null(row) {
        true => "-".to_string(),
        false => array_value_to_string(array, row).unwrap(),
    };
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|column| text(column, row)).collect::<Vec<_>>().join("|"))
        .collect()
}

/// What one JSON text becomes in a column of that type.
fn read(data_type: DataType, json: &str) -> Result<String, String> {
    let stream = stream(Format::Json, vec![column("c", data_type)]);
    let mut decoder = all_of(&stream);
    decoder.decode(&record(format!("{{\"c\":{json}}}").as_bytes())).map_err(|error| error.to_string())?;
    Ok(rows(&decoder.finish()).remove(0))
}

#[test]
fn whole_order_becomes_one_typed_row() {
    let stream = orders();
    let mut decoder = all_of(&stream);
    let json = r#"{"order_id":1,"unknown":{"a":[1,{"b":"}"}]},"user_id":"42","amount":12.30,
        "item":{"category":"手机","price":1e2},"order_time":1769818500789,"paid":true,"day":"2026-01-31",
        "score":0.5,"note":"a\"b\u4e2d","tiny":-128}"#;
    decoder.decode(&record(json.as_bytes())).unwrap();
    assert_eq!(decoder.rows(), 1);
    let batch = decoder.finish();
    assert_eq!(
        rows(&batch),
        [
            "1|42|12.30|手机|2026-01-31T08:15:00.789|true|2026-01-31|0.5|a\"b中|{\"category\":\"手机\",\"price\":1e2}|-128"
        ]
    );
    assert_eq!(decoder.rows(), 0);
}

#[test]
fn only_requested_columns_are_built_in_requested_order() {
    let stream = orders();
    let mut decoder = Decoder::new(&stream, &[2, 0]).unwrap();
    decoder.decode(&record(br#"{"order_id":1,"amount":5,"note":"not looked at"}"#)).unwrap();
    let batch = decoder.finish();
    assert_eq!(rows(&batch), ["5.00|1"]);
    assert_eq!(batch.schema().field(0), &Field::new("amount", DataType::Decimal128(12, 2), true));
}

#[test]
fn columns_are_checked_even_when_nobody_asks_for_them() {
    let mut decoder = Decoder::new(&orders(), &[1]).unwrap();
    for (json, message) in [
        (r#"{"order_id":1,"paid":"yes"}"#, r#"column "paid": expected BOOLEAN, found "yes""#),
        (r#"{"user_id":1}"#, r#"column "order_id": expected BIGINT NOT NULL, found no such field"#),
        (r#"{"user_id":1,"order_id":null}"#, r#"column "order_id": expected BIGINT NOT NULL, found null"#),
        (r#"{"user_id":1,"order_id":"x"}"#, r#"column "order_id": expected BIGINT NOT NULL, found "x""#),
    ] {
        assert_eq!(decoder.decode(&record(json.as_bytes())), Err(DecodeError(message.into())));
    }
    assert_eq!(decoder.finish().num_rows(), 0);
    // What would be NULL anyway is not looked at.
    let stream = Stream { columns: lenient(orders().columns), ..orders() };
    let mut decoder = Decoder::new(&stream, &[1]).unwrap();
    decoder.decode(&record(br#"{"user_id":1,"order_id":1,"paid":"yes"}"#)).unwrap();
    assert_eq!((decoder.values_as_null(), rows(&decoder.finish())), (0, vec!["1".to_string()]));
}

#[test]
fn refused_record_leaves_no_trace_in_any_column() {
    let stream = orders();
    let mut decoder = all_of(&stream);
    let good = |id: i64| format!(r#"{{"order_id":{id},"note":"n{id}","paid":true,"score":1,"day":"2026-01-01"}}"#);
    decoder.decode(&record(good(1).as_bytes())).unwrap();
    let bad = r#"{"order_id":2,"user_id":7,"amount":1,"item":{"category":"x"},"paid":false,"note":"gone","tiny":128}"#;
    assert_eq!(
        decoder.decode(&record(bad.as_bytes())),
        Err(DecodeError(r#"column "tiny": expected TINYINT, found 128"#.into()))
    );
    decoder.decode(&record(good(3).as_bytes())).unwrap();
    assert_eq!(
        rows(&decoder.finish()),
        ["1|-|-|-|-|true|2026-01-01|1.0|n1|-|-", "3|-|-|-|-|true|2026-01-01|1.0|n3|-|-"]
    );
}

#[test]
fn last_of_a_duplicate_field_holds() {
    let stream = orders();
    let mut decoder = Decoder::new(&stream, &[1, 3]).unwrap();
    for json in [
        r#"{"order_id":1,"user_id":1,"user_id":2,"item":{"category":"a"},"item":{"category":"b"}}"#,
        r#"{"order_id":1,"user_id":1,"user_id":null,"item":{"category":"a"},"item":{}}"#,
        r#"{"order_id":1,"user_id":"abc","user_id":3,"item":5,"item":null}"#,
    ] {
        decoder.decode(&record(json.as_bytes())).unwrap();
    }
    assert_eq!(rows(&decoder.finish()), ["2|b", "-|-", "3|-"]);
}

#[test]
fn exact_field_name_wins_over_another_case() {
    let stream = orders();
    let mut decoder = Decoder::new(&stream, &[1, 3]).unwrap();
    for json in [
        r#"{"ORDER_ID":1,"User_Id":5,"ITEM":{"Category":"a"}}"#,
        r#"{"order_id":1,"user_id":6,"USER_ID":7}"#,
        r#"{"order_id":1,"USER_ID":7,"user_id":6}"#,
        r#"{"order_id":1,"item":{"category":"a"},"item":{"CATEGORY":"b"}}"#,
        r#"{"order_id":1,"us\u0065r_id":8}"#,
    ] {
        decoder.decode(&record(json.as_bytes())).unwrap();
    }
    assert_eq!(rows(&decoder.finish()), ["5|a", "6|-", "6|-", "-|b", "8|-"]);
}

#[test]
fn values_of_a_wrong_type_are_errors_never_null() {
    use DataType::*;
    for (data_type, json, found) in [
        (Int64, "1.5", "expected BIGINT, found 1.5"),
        (Int64, "true", "expected BIGINT, found true"),
        (Int64, "\"\"", "expected BIGINT, found \"\""),
        (Int64, "9223372036854775808", "expected BIGINT, found 9223372036854775808"),
        (Int64, "[1]", "expected BIGINT, found [1]"),
        (Int32, "2147483648", "expected INT, found 2147483648"),
        (Decimal128(12, 2), "\"abc\"", "expected DECIMAL(12,2), found \"abc\""),
        (Decimal128(12, 2), "12.345", "expected DECIMAL(12,2), found 12.345"),
        (Decimal128(4, 2), "100", "expected DECIMAL(4,2), found 100"),
        (Float64, "1e999", "expected DOUBLE, found 1e999"),
        (Float64, "\"NaN\"", "expected DOUBLE, found \"NaN\""),
        (Boolean, "1", "expected BOOLEAN, found 1"),
        (Boolean, "\"true\"", "expected BOOLEAN, found \"true\""),
        (Date32, "\"2026-02-30\"", "expected DATE as \"YYYY-MM-DD\", found \"2026-02-30\""),
        (Date32, "20260101", "expected DATE as \"YYYY-MM-DD\", found 20260101"),
        (
            Timestamp(TimeUnit::Millisecond, None),
            "1700000000000",
            "expected ISO 8601 text (for numbers, the column needs a format such as \"epoch_ms\"), found 1700000000000",
        ),
    ] {
        assert_eq!(read(data_type, json), Err(format!("column \"c\": {found}")), "{json}");
    }
}

/// The columns with what does not fit as NULL.
fn lenient(columns: Vec<Column>) -> Vec<Column> {
    columns.into_iter().map(|column| Column { misfits: Misfits::Null, ..column }).collect()
}

#[test]
fn values_that_do_not_fit_are_null_and_counted_where_the_schema_says_so() {
    let columns = lenient(orders().columns);
    let mut decoder = all_of(&stream(Format::Json, columns));
    let json = r#"{"order_id":1,"user_id":"x","amount":1.234,"item":{"category":"c"},"order_time":"soon","paid":"yes",
        "day":7,"score":true,"note":"n","tiny":300}"#;
    decoder.decode(&record(json.as_bytes())).unwrap();
    assert_eq!(decoder.values_as_null(), 7);
    decoder.decode(&record(br#"{"order_id":2,"user_id":5,"item":7}"#)).unwrap();
    assert_eq!(decoder.values_as_null(), 1);
    // Where NULL may not be, and where the record is none, it is a dead letter still.
    for (json, message) in [
        (r#"{"order_id":"x","user_id":"y"}"#, "column \"order_id\": expected BIGINT NOT NULL, found \"x\""),
        ("{", "not valid JSON: expected a key in quotes at byte 1"),
    ] {
        assert_eq!(decoder.decode(&record(json.as_bytes())).unwrap_err().to_string(), message);
    }
    decoder.decode(&record(br#"{"order_id":3}"#)).unwrap();
    assert_eq!(decoder.values_as_null(), 0);
    let expected = ["1|-|-|c|-|-|-|-|n|{\"category\":\"c\"}|-", "2|5|-|-|-|-|-|-|-|7|-", "3|-|-|-|-|-|-|-|-|-|-"];
    assert_eq!(rows(&decoder.finish()), expected);
}

#[test]
fn list_with_one_element_that_does_not_fit_is_null_as_a_whole() {
    let mut decoder = all_of(&stream(Format::Json, lenient(vec![column("c", list_of(DataType::Int64))])));
    for json in ["[1,2]", "[3,\"x\"]", "[4]"] {
        decoder.decode(&record(format!("{{\"c\":{json}}}").as_bytes())).unwrap();
    }
    assert_eq!(rows(&decoder.finish()), ["[1, 2]", "-", "[4]"]);
}

#[test]
fn csv_and_changes_read_misfits_as_null_too() {
    let columns = || lenient(vec![column("id", DataType::Int64), column("amount", DataType::Decimal128(12, 2))]);
    let mut csv = all_of(&stream(Format::Csv, columns()));
    csv.decode(&record(b"1,1.5")).unwrap();
    csv.decode(&record(b"2,much")).unwrap();
    assert_eq!((csv.values_as_null(), rows(&csv.finish())), (1, vec!["1|1.50".to_string(), "2|-".to_string()]));
    let (_, mut changes) = table(Format::Maxwell, Kind::default(), &["id"], columns());
    changes.decode(&record(br#"{"type":"insert","data":{"id":1,"amount":"much"}}"#)).unwrap();
    assert_eq!(changes.values_as_null(), 1);
    changes.decode(&record(br#"{"type":"insert","data":{"id":"x","amount":1}}"#)).unwrap_err();
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

#[test]
fn arrays_become_lists_and_objects_in_them_structs() {
    let read = |item, json| read(list_of(item), json);
    assert_eq!(
        read(DataType::Utf8, r#"["a", null, "b\"中", 1.50, {"k": [1, 2]}]"#).unwrap(),
        r#"[a, , b"中, 1.50, {"k":[1,2]}]"#
    );
    assert_eq!(read(DataType::Int64, r#"[1, "2"]"#).unwrap(), "[1, 2]");
    assert_eq!(read(DataType::Int64, "[]").unwrap(), "[]");
    assert_eq!(read(DataType::Int64, "null").unwrap(), "-");
    assert_eq!(read(list_of(DataType::Int64), "[[1], [], null, [2, 3]]").unwrap(), "[[1], [], , [2, 3]]");
    let line =
        DataType::Struct(vec![Field::new("sku", DataType::Utf8, true), Field::new("n", DataType::Int32, true)].into());
    let json = r#"[{"sku": "a", "n": 2, "more": {}}, {"N": 3, "sku": "x", "sku": "b"}, null, {}]"#;
    assert_eq!(read(line, json).unwrap(), "[{sku: a, n: 2}, {sku: b, n: 3}, , {sku: , n: }]");
}

#[test]
fn element_of_a_wrong_type_refuses_the_record_and_leaves_no_trace() {
    let line =
        DataType::Struct(vec![Field::new("sku", DataType::Utf8, true), Field::new("n", DataType::Int32, true)].into());
    for (data_type, json, expected) in [
        (list_of(DataType::Int64), r#"[1, "x"]"#, "column \"c\": expected BIGINT ARRAY, found [1, \"x\"]"),
        (list_of(DataType::Utf8), r#"{"a": 1}"#, "column \"c\": expected VARCHAR ARRAY, found {\"a\": 1}"),
        (list_of(DataType::Utf8), "5", "column \"c\": expected VARCHAR ARRAY, found 5"),
        (
            list_of(line.clone()),
            r#"[{"n": 1.5}]"#,
            "column \"c\": expected STRUCT<sku VARCHAR, n INT> ARRAY, found [{\"n\": 1.5}]",
        ),
        (list_of(DataType::Date32), "[7]", "column \"c\": expected DATE as \"YYYY-MM-DD\", found [7]"),
    ] {
        let stream = stream(Format::Json, vec![column("c", data_type)]);
        let mut decoder = all_of(&stream);
        decoder.decode(&record(br#"{"c": null}"#)).unwrap();
        let error = decoder.decode(&record(format!("{{\"c\":{json}}}").as_bytes())).unwrap_err();
        assert_eq!(error.to_string(), expected);
        decoder.decode(&record(br#"{"c": []}"#)).unwrap();
        assert_eq!(rows(&decoder.finish()), ["-", "[]"]);
    }
    let stream = stream(Format::Json, vec![column("c", list_of(line))]);
    let mut decoder = all_of(&stream);
    decoder.decode(&record(br#"{"c": [{"sku": "a", "n": 1}]}"#)).unwrap();
    decoder.decode(&record(br#"{"c": [{"sku": "b", "n": 2}, {"sku": "c", "n": "x"}]}"#)).unwrap_err();
    decoder.decode(&record(br#"{"c": [{"sku": "d", "n": 4}]}"#)).unwrap();
    assert_eq!(rows(&decoder.finish()), ["[{sku: a, n: 1}]", "[{sku: d, n: 4}]"]);
}

#[test]
fn exact_values_are_taken_from_numbers_and_quoted_numbers() {
    use DataType::*;
    for (data_type, json, value) in [
        (Int64, "1.0", "1"),
        (Int64, "\"-12\"", "-12"),
        (Int64, "1e3", "1000"),
        (Decimal128(12, 2), "12.3", "12.30"),
        (Decimal128(12, 2), "\"12.300\"", "12.30"),
        (Decimal128(20, 0), "12345678901234567890", "12345678901234567890"),
        (Float64, "\"1.5\"", "1.5"),
        (Utf8, "12.30", "12.30"),
        (Utf8, "false", "false"),
        (Utf8, "[1, {\"a\" : \"b c\"}]", "[1,{\"a\":\"b c\"}]"),
        (Utf8, "\"\"", ""),
        (Utf8, "null", "-"),
    ] {
        assert_eq!(read(data_type, json), Ok(value.into()), "{json}");
    }
}

#[test]
fn records_that_are_no_single_json_object_are_refused() {
    let stream = orders();
    let mut decoder = all_of(&stream);
    let deep = format!("{{\"order_id\":1,\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    for (payload, message) in [
        (&b""[..], "the record is empty"),
        (b"[1]", "expected a JSON object, found [1]"),
        (b"{\"order_id\":1", "not valid JSON: expected `,` or the closing bracket at byte 13"),
        (b"{\"order_id\":1}{}", "not valid JSON: bytes after the end of the object at byte 14"),
        (b"{\"order_id\":1,}", "not valid JSON: expected a key in quotes at byte 14"),
        (b"{\"note\":\"\xff\"}", "invalid UTF-8 at byte 9"),
        (b"{\"note\":\"\\ud800\"}", "not valid JSON: half a surrogate pair in a string at byte 9"),
        (b"{\"order_id\":1,\"item\":5}", "column \"category\": expected an object on its path, found 5"),
        (deep.as_bytes(), "not valid JSON: nested too deeply at byte 145"),
    ] {
        assert_eq!(decoder.decode(&record(payload)), Err(DecodeError(message.into())));
    }
    let tombstone = RawRecord { payload: None, ..record(b"") };
    assert_eq!(decoder.decode(&tombstone), Err(DecodeError("the record is empty (a tombstone)".into())));
    assert_eq!(decoder.rows(), 0);
}

#[test]
fn system_columns_show_where_a_record_is_from() {
    let stream = orders();
    let first = stream.columns.len();
    let mut decoder = Decoder::new(&stream, &[first, first + 1, first + 2, first + 3, first + 4, 0]).unwrap();
    decoder.decode(&record(br#"{"order_id":9}"#)).unwrap();
    decoder.decode(&RawRecord { key: None, timestamp: None, ..record(br#"{"order_id":8}"#) }).unwrap();
    assert_eq!(
        rows(&decoder.finish()),
        ["shop.orders|3|41|2023-11-15T06:13:20+08:00|k\u{fffd}|9", "shop.orders|3|41|-|-|8"]
    );
}

#[test]
fn batch_without_columns_still_counts_its_rows() {
    let stream = stream(Format::Json, vec![column("a", DataType::Int64)]);
    let mut decoder = Decoder::new(&stream, &[]).unwrap();
    decoder.decode(&record(b"{}")).unwrap();
    decoder.decode(&record(b"{\"a\":1}")).unwrap();
    assert_eq!(decoder.finish().num_rows(), 2);
}

#[test]
fn csv_fields_follow_the_columns_or_the_header() {
    let stream = stream(
        Format::Csv,
        vec![
            column("id", DataType::Int64),
            column("name", DataType::Utf8),
            column("amount", DataType::Decimal128(8, 2)),
            column("paid", DataType::Boolean),
        ],
    );
    let mut decoder = all_of(&stream);
    for line in ["1,张三,12.5,true\n", "2,\"a,\"\"b\"\"\",,\r\n", ",\"\",1,FALSE"] {
        decoder.decode(&record(line.as_bytes())).unwrap();
    }
    assert_eq!(rows(&decoder.finish()), ["1|张三|12.50|true", "2|a,\"b\"|-|-", "-||1.00|false"]);
    decoder.set_csv_header("\u{feff}Name, ID ,other\n".as_bytes()).unwrap();
    decoder.decode(&record(b"x,5,y")).unwrap();
    assert_eq!(rows(&decoder.finish()), ["5|x|-|-"]);
    for (line, message) in [
        ("x,5", "expected 3 fields, found 2"),
        ("x,five,y", "column \"id\": expected BIGINT, found \"five\""),
        ("\"x,5,y", "quote at byte 0 is never closed"),
        ("\"x\"z,5,y", "text after a closing quote at byte 3"),
        ("x,\"\",y", "column \"id\": expected BIGINT, found \"\""),
    ] {
        assert_eq!(decoder.decode(&record(line.as_bytes())), Err(DecodeError(message.into())));
    }
}

#[test]
fn type_that_no_record_can_hold_is_refused_with_its_column() {
    let stream = stream(Format::Json, vec![column("blob", DataType::Binary)]);
    let error = Decoder::new(&stream, &[0]).err();
    assert_eq!(error, Some(DecodeError("column \"blob\": no record can be read as Binary".into())));
}

/// Our rows must be what serde_json's own reading of the same text says, for any mix of good and bad records.
#[test]
fn random_records_decode_as_serde_json_reads_them() {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    let stream = orders();
    let mut decoder = Decoder::new(&stream, &[0, 1, 2, 4, 8]).unwrap();
    let mut random = StdRng::seed_from_u64(11);
    let mut expected: Vec<(i64, Option<i64>, Option<String>)> = Vec::new();
    for id in 0..5_000i64 {
        let user = match random.random_range(0..5) {
            0 => "null".to_string(),
            1 => format!("\"{}\"", random.random::<i64>()),
            2 => "false".to_string(),
            _ => random.random::<i64>().to_string(),
        };
        let note: String = (0..random.random_range(0..20)).map(|_| random.random::<char>()).collect();
        let mut fields = [
            format!("\"order_id\":{id}"),
            format!("\"user_id\":{user}"),
            format!("\"note\":{}", serde_json::to_string(&note).unwrap()),
            "\"extra\":{\"x\":[1,2,3]}".to_string(),
        ];
        fields.rotate_left(random.random_range(0..4));
        let json = format!("{{{}}}", fields.join(", "));
        let outcome = decoder.decode(&record(json.as_bytes()));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(outcome.is_err(), value["user_id"].is_boolean(), "{json}");
        if outcome.is_ok() {
            let user =
                value["user_id"].as_i64().or_else(|| value["user_id"].as_str().map(|text| text.parse().unwrap()));
            expected.push((id, user, value["note"].as_str().map(Into::into)));
        }
    }
    let batch = decoder.finish();
    assert_eq!(batch.num_rows(), expected.len());
    let (ids, users) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
    let notes = batch.column(4).as_string::<i32>();
    for (row, (id, user, note)) in expected.iter().enumerate() {
        assert_eq!(ids.value(row), *id);
        assert_eq!(users.is_valid(row).then(|| users.value(row)), *user);
        assert_eq!(Some(notes.value(row)), note.as_deref());
    }
    assert_eq!(batch.column(2).as_primitive::<Decimal128Type>().null_count(), expected.len());
    assert_eq!(batch.column(3).as_primitive::<TimestampMillisecondType>().null_count(), expected.len());
    assert!(Arc::ptr_eq(&batch.schema(), &decoder.finish().schema()));
}

#[test]
#[ignore = "prints rows/s; worth running in release only"]
fn speed_of_json() {
    let stream = orders();
    let mut decoder = Decoder::new(&stream, &[0, 1, 2, 4]).unwrap();
    let records: Vec<String> = (0..10_000)
        .map(|id: i64| {
            format!(
                r#"{{"order_id":{},"user_id":{},"amount":{}.{:02},"status":"paid","category":"手机","city":"上海","channel":"app_store","order_time":{},"note":"ok {:020}"}}"#,
                1_000_000 + id, id * 7919 % 1_000_000, id % 500, id % 100, 1_769_818_500_000 + id * 13, id
            )
        })
        .collect();
    let bytes: usize = records.iter().map(String::len).sum();
    let started = Instant::now();
    let rounds = 200;
    for _ in 0..rounds {
        for json in &records {
            decoder.decode(&record(json.as_bytes())).unwrap();
        }
        assert_eq!(decoder.finish().num_rows(), records.len());
    }
    let rows = (rounds * records.len()) as f64;
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.2} M rows/s of {} B", rows / seconds / 1e6, bytes / records.len());
}

//! Plain readers of the formats that have one, `serde_json` and `csv`: what they make of a record is what must be in its row.
//!
//! Says nothing where two readings are right: numbers that no double holds, names that differ in case alone, text that
//! stands for another type in a spelling of its own.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use serde_json::Value as Json;

use crate::catalog::{Column, DELETED, Stream, TRUNCATED, TimestampFormat};

/// The line of a header and the record behind it.
pub(super) fn cut_header(payload: &[u8]) -> (&[u8], &[u8]) {
    match payload.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&payload[..end], &payload[end + 1..]),
        None => (payload, b""),
    }
}

/// True where a record is refused as no text of its format, and is one.
pub(super) fn is_refused_wrongly(format: &str, payload: &[u8], reason: &str) -> bool {
    let is_json = matches!(format, "json" | "debezium" | "canal" | "maxwell" | "upsert" | "table");
    // Deeper than serde_json would go, or with half a pair of surrogates in a name, is refused by ours alone.
    is_json
        && (reason.starts_with("not valid JSON") || reason.starts_with("expected a JSON object"))
        && !reason.contains("nested too deeply")
        && serde_json::from_slice::<serde_json::Map<String, Json>>(payload).is_ok()
}

/// Looks whether the rows of a record are what a plain reader makes of it.
pub(super) fn agrees(format: &str, stream: &Stream, payload: &[u8], batch: &RecordBatch) {
    match format {
        "json" | "upsert" | "table" => {
            assert_eq!(batch.num_rows(), 1, "{format}: a row a record");
            if let Some(record) = json(payload) {
                agrees_with_object(stream, &record, batch, 0);
            }
        }
        "debezium" | "canal" | "maxwell" => {
            if let Some(record) = json(payload) {
                agrees_with_change(format, stream, &record, batch);
            }
        }
        "csv" => agrees_with_line(stream, payload, batch),
        _ => {}
    }
}

/// The record as serde_json reads it; `None` where it reads less than ours.
fn json(payload: &[u8]) -> Option<Json> {
    match serde_json::from_slice(payload) {
        Ok(record) => Some(record),
        Err(error) => {
            let told = error.to_string();
            let is_narrower =
                ["recursion limit", "out of range", "surrogate", "escape"].iter().any(|word| told.contains(word));
            assert!(is_narrower, "a row of what is no JSON: {told}");
            None
        }
    }
}

fn agrees_with_change(format: &str, stream: &Stream, record: &Json, batch: &RecordBatch) {
    let flags = |name: &str| batch.column_by_name(name).and_then(|flags| flags.as_boolean_opt()).cloned();
    let (Some(deleted), Some(truncated)) = (flags(DELETED), flags(TRUNCATED)) else { panic!("{format}: no marks") };
    let written = (0..batch.num_rows()).filter(|row| !deleted.value(*row) && !truncated.value(*row));
    let written: Vec<usize> = written.collect();
    let is_within = record.get("payload").is_some_and(|payload| payload.get("op").is_some());
    let rows = match format {
        "debezium" if is_within => record.get("payload").and_then(|payload| payload.get("after")),
        "debezium" => record.get("after"),
        _ => record.get("data"),
    };
    let rows: &[Json] = match rows {
        Some(Json::Array(rows)) => rows,
        Some(row) => std::slice::from_ref(row),
        None => return,
    };
    // A row may stand for its old key and its new one.
    if written.len() == rows.len() {
        for (row, index) in rows.iter().zip(written) {
            agrees_with_object(stream, row, batch, index);
        }
    }
}

fn agrees_with_object(stream: &Stream, object: &Json, batch: &RecordBatch, row: usize) {
    for (index, column) in stream.columns.iter().enumerate() {
        if let Some(found) = at_path(object, &column.path) {
            agrees_with_value(column, found, batch.column(index), row);
        }
    }
}

/// What a path leads to, NULL where it leads nowhere; `None` where that is said by the case of letters.
fn at_path<'a>(mut at: &'a Json, path: &[String]) -> Option<&'a Json> {
    for name in path {
        let Json::Object(object) = at else { return Some(&Json::Null) };
        let lower = name.to_lowercase();
        let mut alike = object.iter().filter(|(key, _)| key.to_lowercase() == lower);
        let found = alike.next();
        if alike.next().is_some() {
            return None;
        }
        at = found.map_or(&Json::Null, |(_, value)| value);
    }
    Some(at)
}

/// Equal, but for the last digits of numbers: long ones are read less exactly than short ones.
fn is_same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(one), Json::Number(other)) => {
            let of = |number: &serde_json::Number| number.as_f64().unwrap_or(f64::NAN);
            one == other || (of(one) - of(other)).abs() <= 1e-12 * of(other).abs()
        }
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            let has = |(key, value): (&String, &Json)| other.get(key).is_some_and(|other| is_same(value, other));
            one.len() == other.len() && one.iter().all(has)
        }
        _ => left == right,
    }
}

fn agrees_with_value(column: &Column, json: &Json, found: &ArrayRef, row: usize) {
    let told = || format!("column {:?}: {json} became {:?} in row {row}", column.name, found.slice(row, 1));
    if found.is_null(row) {
        let is_narrow = column.data_type == DataType::Float32;
        let is_empty_text = json.as_str() == Some("");
        assert!(json.is_null() || is_narrow || is_empty_text, "{}", told());
        return;
    }
    assert!(!json.is_null(), "{}", told());
    match (&column.data_type, json) {
        (DataType::Utf8, json) => {
            let text = found.as_string::<i32>().value(row);
            let is_same = match json {
                Json::String(json) => text == json,
                // Kept as it was written.
                other => serde_json::from_str::<Json>(text).is_ok_and(|text| is_same(&text, other)),
            };
            assert!(is_same, "{}", told());
        }
        (DataType::Boolean, Json::Bool(json)) => assert!(found.as_boolean().value(row) == *json, "{}", told()),
        (DataType::Int8 | DataType::Int32 | DataType::Int64, Json::Number(json)) => {
            let value = as_type(found, &DataType::Int64);
            let value = value.as_primitive::<Int64Type>().value(row);
            let is_same = match json.as_i64() {
                Some(json) => json == value,
                None => json.as_f64().is_some_and(|json| is_close(json, value as f64)),
            };
            assert!(is_same, "{}", told());
        }
        (DataType::Float32 | DataType::Float64 | DataType::Decimal128(..), Json::Number(json)) => {
            let value = as_type(found, &DataType::Float64).as_primitive::<Float64Type>().value(row);
            assert!(json.as_f64().is_some_and(|json| is_close(json, value)), "{}", told());
        }
        (DataType::Timestamp(..), Json::Number(json)) if column.timestamp_format == TimestampFormat::EpochMillis => {
            let instant = as_type(found, &DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None));
            let value = as_type(&instant, &DataType::Int64).as_primitive::<Int64Type>().value(row);
            // Wall time in the project's zone, which has no summer time since 1991.
            let is_recent = (700_000_000_000..250_000_000_000_000).contains(&value);
            let is_same = json.as_i64().is_none_or(|json| json + 8 * 3_600_000 == value);
            assert!(!is_recent || is_same, "{}", told());
        }
        (DataType::Date32, Json::String(json)) if json.len() == 10 => {
            let value = as_type(found, &DataType::Utf8);
            assert!(value.as_string::<i32>().value(row) == json, "{}", told());
        }
        (DataType::List(_), Json::Array(json)) => {
            assert!(found.as_list::<i32>().value_length(row) as usize == json.len(), "{}", told());
        }
        (_, Json::Array(_) | Json::Object(_)) => panic!("{}", told()),
        _ => {}
    }
}

fn as_type(found: &ArrayRef, data_type: &DataType) -> ArrayRef {
    cast(found, data_type).expect("arrow casts numbers, dates and times")
}

fn is_close(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-6 * left.abs().max(right.abs()) + 1e-12
}

fn agrees_with_line(stream: &Stream, payload: &[u8], batch: &RecordBatch) {
    let line = payload.strip_suffix(b"\n").unwrap_or(payload);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // The csv crate takes several lines for several records, and passes over a mark of the byte order.
    if line.iter().any(|byte| b"\r\n".contains(byte)) || line.starts_with(b"\xef\xbb\xbf") {
        return;
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line);
    let mut record = csv::StringRecord::new();
    let is_read = reader.read_record(&mut record).expect("a row of what is no line of CSV");
    assert!(is_read && record.len() == stream.columns.len(), "{} fields became a row", record.len());
    for ((column, field), found) in stream.columns.iter().zip(&record).zip(batch.columns()) {
        let told = || format!("column {:?}: {field:?} became {:?}", column.name, found.slice(0, 1));
        match (&column.data_type, found.is_null(0)) {
            (_, true) => assert!(field.is_empty(), "{}", told()),
            (DataType::Utf8, false) => assert!(found.as_string::<i32>().value(0) == field, "{}", told()),
            (
                DataType::Int8 | DataType::Int32 | DataType::Int64 | DataType::Float64 | DataType::Decimal128(..),
                false,
            ) => {
                let value = as_type(found, &DataType::Float64).as_primitive::<Float64Type>().value(0);
                assert!(field.trim().parse().is_ok_and(|field: f64| is_close(field, value)), "{}", told());
            }
            (_, false) => {}
        }
    }
}

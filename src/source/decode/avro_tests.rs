//! Avro, from bytes that fastavro wrote and from bytes that are made here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::datatypes::{DataType, Field, TimeUnit};

use super::tests::{all_of, column, record, rows, stream};
use super::*;
use crate::catalog::{AvroSchema, Column};

/// The schema of [`FULL`] and [`SPARSE`], with every type and logical type.
const ORDER: &str = include_str!("../../../tests/avro/order.avsc");

/// As fastavro 1.13 writes an order with everything in it.
const FULL: &str = "\
    0e0254020ce4b88ae6b5b70601e23affffffffff8302eabab99682670280c9bee9ffe8a4068aa4fcf9d5eaa40688c002b4c2a91cfeffba\
    dd83054831323365343536372d653839622d313264332d613435362d343236363134313734303030cdcccc3dae47e17a14ae2840010206\
    6122620a706c61696e04026104009604026204f8300200060863697479020a50617269730a677261646500087261746504000000000000\
    e03f00";

/// An order with nothing where nothing may be, and bytes that are no text.
const SPARSE: &str = "\
    0e000601e23affffffffff8302eabab9968267008aa4fcf9d5eaa40688c002b4c2a91cfeffbadd83054831323365343536372d65383962\
    2d313264332d613435362d343236363134313734303030cdcccc3dae47e17a14ae284000040a04fffe0000";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn schema(text: &str) -> Arc<AvroSchema> {
    Arc::new(AvroSchema::parse(&[text]).unwrap())
}

fn avro(schema_text: &str, columns: Vec<Column>) -> Decoder {
    all_of(&stream(Format::Avro(Some(schema(schema_text))), columns))
}

fn at(path: &[&str], column: Column) -> Column {
    Column { path: path.iter().map(ToString::to_string).collect(), ..column }
}

const WALL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("Asia/Shanghai".into()))
}

fn line() -> DataType {
    let fields = vec![Field::new("SKU", DataType::Utf8, true), Field::new("price", DataType::Decimal128(9, 2), true)];
    DataType::Struct(fields.into())
}

fn order_columns() -> Vec<Column> {
    vec![
        Column { nullable: false, ..column("order_id", DataType::Int64) },
        at(&["user", "id"], column("user_id", DataType::Int32)),
        at(&["User", "CITY"], column("city", DataType::Utf8)),
        column("amount", DataType::Decimal128(12, 2)),
        column("fee", DataType::Decimal128(9, 4)),
        column("state", DataType::Utf8),
        column("ordered", WALL),
        at(&["ordered"], column("ordered_at", instant())),
        column("sent", instant()),
        column("local", WALL),
        column("day", DataType::Date32),
        column("at", DataType::Utf8),
        column("at_us", DataType::Utf8),
        column("trace", DataType::Utf8),
        column("score", DataType::Float32),
        column("weight", DataType::Float64),
        column("paid", DataType::Boolean),
        column("note", DataType::Utf8),
        at(&["props", "city"], column("place", DataType::Utf8)),
        at(&["props", "rate"], column("rate", DataType::Float64)),
        column("lines", DataType::List(Arc::new(Field::new_list_field(line(), true)))),
        column("gone", DataType::Int64),
    ]
}

#[test]
fn order_with_every_logical_type_becomes_one_typed_row() {
    let mut decoder = avro(ORDER, order_columns());
    decoder.decode(&record(&bytes(FULL))).unwrap();
    assert_eq!(
        rows(&decoder.finish()),
        ["7|42|上海|1234.50|-0.1250|PAID|2026-01-31T08:15:00.789|2026-01-31T08:15:00.789+08:00|\
          2026-01-31T08:16:00.123+08:00|2026-01-31T08:15:00.000005|2026-01-31|08:15:00.250|23:59:59.999999|\
          123e4567-e89b-12d3-a456-426614174000|0.1|12.34|true|a\"b|Paris|0.5|\
          [{SKU: a, price: 1.50}, {SKU: b, price: -20.00}]|-"]
    );
    decoder.decode(&record(&bytes(SPARSE))).unwrap();
    assert_eq!(
        rows(&decoder.finish()),
        ["7|-|-|1234.50|-0.1250|PAID|2026-01-31T08:15:00.789|2026-01-31T08:15:00.789+08:00|-|\
          2026-01-31T08:15:00.000005|2026-01-31|08:15:00.250|23:59:59.999999|\
          123e4567-e89b-12d3-a456-426614174000|0.1|12.34|false|5|-|-|[]|-"]
    );
}

#[test]
fn varchar_keeps_records_arrays_and_maps_as_json_and_values_as_text() {
    let names = ["user", "lines", "props", "amount", "ordered", "local", "day", "score", "weight", "raw"];
    let mut decoder = avro(ORDER, names.iter().map(|name| column(name, DataType::Utf8)).collect());
    decoder.decode(&record(&bytes(FULL))).unwrap();
    assert_eq!(
        rows(&decoder.finish()),
        [r#"{"id":42,"city":"上海"}|[{"sku":"a","price":1.50,"count":2},{"sku":"b","price":-20.00,"count":1}]|"#
            .to_owned()
            + r#"{"city":"Paris","grade":null,"rate":0.5}|1234.50|2026-01-31T00:15:00.789Z|2026-01-31T08:15:00.000005|"#
            + "2026-01-31|0.1|12.34|plain"]
    );
}

#[test]
fn whole_object_and_its_parts_can_both_be_columns() {
    let columns = vec![column("user", DataType::Utf8), at(&["user", "id"], column("user_id", DataType::Int64))];
    let mut decoder = avro(ORDER, columns);
    decoder.decode(&record(&bytes(FULL))).unwrap();
    decoder.decode(&record(&bytes(SPARSE))).unwrap();
    assert_eq!(rows(&decoder.finish()), [r#"{"id":42,"city":"上海"}|42"#, "-|-"]);
}

#[test]
fn value_that_does_not_fit_is_refused_with_its_column() {
    for (column, message) in [
        (column("user", DataType::Int64), r#"column "user": expected BIGINT, found {"id":42,"city":"上海"}"#),
        (column("weight", DataType::Int64), "column \"weight\": expected BIGINT, found 12.34"),
        (column("amount", DataType::Int64), "column \"amount\": expected BIGINT, found 1234.50"),
        (column("amount", DataType::Decimal128(5, 2)), "column \"amount\": expected DECIMAL(5,2), found 1234.50"),
        (column("fee", DataType::Decimal128(9, 2)), "column \"fee\": expected DECIMAL(9,2), found -0.125"),
        (column("state", DataType::Int32), "column \"state\": expected INT, found \"PAID\""),
        (column("ordered", DataType::Int64), "column \"ordered\": expected BIGINT, found 2026-01-31T00:15:00.789Z"),
        (column("day", instant()), "column \"day\": expected TIMESTAMP(3) WITH TIME ZONE, found 2026-01-31"),
        (column("ordered", DataType::Date32), "column \"ordered\": expected DATE, found 2026-01-31T00:15:00.789Z"),
        (
            column("order_id", WALL),
            "column \"order_id\": expected ISO 8601 text (for numbers, the column needs a format such as \"epoch_ms\"), \
             found 7",
        ),
        (column("order_id", DataType::Boolean), "column \"order_id\": expected BOOLEAN, found 7"),
        (column("paid", DataType::Int64), "column \"paid\": expected BIGINT, found true"),
        (column("raw", DataType::Int64), "column \"raw\": expected BIGINT, found \"plain\""),
        (
            at(&["order_id", "x"], column("x", DataType::Int64)),
            "column \"x\": expected an object on its path, found an Avro long",
        ),
        (
            Column { nullable: false, ..column("gone", DataType::Int64) },
            "column \"gone\": expected BIGINT NOT NULL, found no such field",
        ),
    ] {
        let mut decoder = avro(ORDER, vec![column]);
        assert_eq!(decoder.decode(&record(&bytes(FULL))), Err(DecodeError(message.into())));
        assert_eq!(decoder.finish().num_rows(), 0);
    }
    let mut decoder = avro(ORDER, vec![column("raw", DataType::Utf8)]);
    let message = "column \"raw\": expected bytes that are UTF-8 text, found 2 bytes that are no text";
    assert_eq!(decoder.decode(&record(&bytes(SPARSE))), Err(DecodeError(message.into())));
    let mut decoder = Decoder::new(
        &stream(
            Format::Avro(Some(schema(ORDER))),
            vec![
                column("order_id", DataType::Int64),
                Column { nullable: false, ..at(&["user", "id"], column("user_id", DataType::Int64)) },
            ],
        ),
        &[0],
    )
    .unwrap();
    decoder.decode(&record(&bytes(FULL))).unwrap();
    let message = "column \"user_id\": expected BIGINT NOT NULL, found null";
    assert_eq!(decoder.decode(&record(&bytes(SPARSE))), Err(DecodeError(message.into())), "though nobody reads it");
}

/// Writes values in Avro's binary encoding.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn long(mut self, value: i64) -> Self {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
        self
    }

    fn sized(self, bytes: &[u8]) -> Self {
        self.long(bytes.len() as i64).raw(bytes)
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// What one value of an Avro type becomes in a column.
fn read(avro_type: &str, value: Writer, data_type: DataType, format: TimestampFormat) -> Result<String, String> {
    let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"c","type":{avro_type}}}]}}"#);
    let mut decoder = avro(&text, vec![Column { timestamp_format: format, ..column("c", data_type) }]);
    decoder.decode(&record(&value.0)).map_err(|error| error.to_string())?;
    Ok(rows(&decoder.finish()).remove(0))
}

#[test]
fn numbers_are_promoted_where_they_fit() {
    let long = |value: i64| Writer::default().long(value);
    let double = |value: f64| Writer::default().raw(&value.to_le_bytes());
    let iso = TimestampFormat::Iso;
    for (avro_type, value, data_type, expected) in [
        ("\"int\"", long(-5), DataType::Int64, "-5"),
        ("\"int\"", long(127), DataType::Int8, "127"),
        ("\"long\"", long(5), DataType::Float64, "5.0"),
        ("\"long\"", long(5), DataType::Float32, "5.0"),
        ("\"long\"", long(5), DataType::Decimal128(9, 2), "5.00"),
        ("\"long\"", long(i64::MIN), DataType::Utf8, "-9223372036854775808"),
        ("\"float\"", Writer::default().raw(&0.1f32.to_le_bytes()), DataType::Decimal128(9, 2), "0.10"),
        ("\"float\"", Writer::default().raw(&0.5f32.to_le_bytes()), DataType::Float64, "0.5"),
        ("\"double\"", double(12.34), DataType::Decimal128(9, 2), "12.34"),
        ("\"double\"", double(3.0), DataType::Int16, "3"),
        ("\"double\"", double(0.1), DataType::Float32, "0.1"),
        ("\"string\"", Writer::default().sized(b"12.5"), DataType::Decimal128(9, 2), "12.50"),
        ("\"bytes\"", Writer::default().sized("中".as_bytes()), DataType::Utf8, "中"),
        (
            r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#,
            Writer::default().raw(&0x123e_4567_e89b_12d3_a456_4266_1417_4000u128.to_be_bytes()),
            DataType::Utf8,
            "123e4567-e89b-12d3-a456-426614174000",
        ),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":20,"scale":1}"#,
            Writer::default().sized(&[0xff, 0xf6]),
            DataType::Int64,
            "-1",
        ),
    ] {
        assert_eq!(read(avro_type, value, data_type, iso), Ok(expected.into()), "{avro_type}");
    }
    for (avro_type, value, data_type) in [
        ("\"long\"", long(128), DataType::Int8),
        ("\"double\"", double(f64::NAN), DataType::Float64),
        ("\"double\"", double(f64::INFINITY), DataType::Utf8),
        ("\"double\"", double(1e300), DataType::Float32),
        ("\"double\"", double(0.125), DataType::Decimal128(9, 2)),
        ("{\"type\":\"array\",\"items\":\"double\"}", long(1).raw(&f64::NAN.to_le_bytes()).long(0), DataType::Utf8),
        ("\"int\"", long(i64::from(i32::MAX) + 1), DataType::Int64),
    ] {
        assert!(read(avro_type, value, data_type, iso).is_err(), "{avro_type}");
    }
}

#[test]
fn timestamps_keep_their_meaning_whatever_their_unit() {
    let micros = 1_769_818_500_789_123i64;
    let long = |value: i64| Writer::default().long(value);
    let of = |logical: &str| format!(r#"{{"type":"long","logicalType":"{logical}"}}"#);
    let (iso, epoch_us) = (TimestampFormat::Iso, TimestampFormat::EpochMicros);
    let (wall, zoned) = ("2026-01-31T08:15:00.789123", "2026-01-31T08:15:00.789+08:00");
    for (avro_type, value, data_type, format, expected) in [
        (of("timestamp-micros"), micros, WALL, iso, wall),
        (of("timestamp-nanos"), micros * 1000 + 7, WALL, iso, wall),
        (of("timestamp-nanos"), micros * 1000, instant(), epoch_us, zoned),
        (of("local-timestamp-micros"), micros + 8 * 3_600_000_000, WALL, iso, wall),
        (of("local-timestamp-micros"), micros + 8 * 3_600_000_000, instant(), iso, zoned),
        ("\"long\"".to_owned(), micros, WALL, epoch_us, wall),
        ("\"long\"".to_owned(), micros, instant(), epoch_us, zoned),
    ] {
        assert_eq!(read(&avro_type, long(value), data_type, format), Ok(expected.into()), "{avro_type}");
    }
    let written = Writer::default().sized(b"2026-01-31 00:15:00.789Z");
    assert_eq!(read("\"string\"", written, instant(), iso), Ok(zoned.into()));
    for (avro_type, value) in
        [(of("timestamp-millis"), i64::MAX), (of("timestamp-millis"), i64::MIN), ("\"long\"".into(), i64::MAX)]
    {
        let error = read(&avro_type, long(value), instant(), TimestampFormat::EpochMillis).unwrap_err();
        assert!(error.contains("between the years 1 and 9999"), "{error}");
    }
}

#[test]
fn every_union_branch_is_read_by_its_own_type() {
    let union =
        r#"["null","long","string",{"type":"record","name":"Money","fields":[{"name":"cents","type":"long"}]}]"#;
    let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"c","type":{union}}}]}}"#);
    let mut decoder =
        avro(&text, vec![column("c", DataType::Utf8), at(&["c", "cents"], column("cents", DataType::Int64))]);
    decoder.decode(&record(&Writer::default().long(0).0)).unwrap();
    decoder.decode(&record(&Writer::default().long(3).long(250).0)).unwrap();
    assert_eq!(rows(&decoder.finish()), ["-|-", "{\"cents\":250}|250"]);
    let error = decoder.decode(&record(&Writer::default().long(2).sized(b"x").0)).unwrap_err();
    assert_eq!(error.to_string(), "column \"cents\": expected an object on its path, found an Avro string");
    for branch in [4, -1, i64::MAX] {
        let error = decoder.decode(&record(&Writer::default().long(branch).0)).unwrap_err();
        assert!(
            error.to_string().starts_with("not Avro of its schema: a branch that the union does not have"),
            "{error}"
        );
    }
}

#[test]
fn blocks_with_their_size_before_them_are_read_as_well() {
    let written = Writer::default().long(-2).long(2).long(1).long(2).long(1).long(3).long(0);
    let items = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    assert_eq!(read(r#"{"type":"array","items":"int"}"#, written, items, TimestampFormat::Iso), Ok("[1, 2, 3]".into()));
}

/// A registry of the test: what it knows, and whether it answers.
#[derive(Default)]
struct FakeRegistry {
    known: Mutex<BTreeMap<u32, Lookup>>,
    is_away: Mutex<bool>,
    asked: Mutex<Vec<u32>>,
}

impl FakeRegistry {
    fn add(&self, id: u32, text: &str) {
        let lookup = match AvroSchema::parse(&[text]) {
            Ok(schema) => Lookup::Schema(Arc::new(schema)),
            Err(reason) => Lookup::Unusable(reason),
        };
        self.known.lock().unwrap().insert(id, lookup);
    }
}

impl Schemas for FakeRegistry {
    fn look_up(&self, id: u32) -> Result<Arc<Lookup>, Unavailable> {
        if *self.is_away.lock().unwrap() {
            return Err(Unavailable("the registry is away".into()));
        }
        self.asked.lock().unwrap().push(id);
        Ok(Arc::new(self.known.lock().unwrap().get(&id).cloned().unwrap_or(Lookup::Unknown)))
    }
}

/// A record in Confluent's wire format.
fn framed(id: u32, value: Writer) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], &value.0].concat()
}

fn take(decoder: &mut Decoder, payload: &[u8]) -> Result<Result<(), DecodeError>, Unavailable> {
    decoder.prepare(Some(payload))?;
    Ok(decoder.decode(&record(payload)))
}

#[test]
fn writers_schemas_change_from_record_to_record() {
    let registry = Arc::new(FakeRegistry::default());
    registry
        .add(1, r#"{"type":"record","name":"O","fields":[{"name":"id","type":"int"},{"name":"amount","type":"int"}]}"#);
    registry.add(
        2,
        r#"{"type":"record","name":"O","fields":[{"name":"city","type":"string"},{"name":"ID","type":["null","long"]},
            {"name":"amount","type":"double"}]}"#,
    );
    registry.add(3, r#"{"type":"record","name":"O","fields":[{"name":"id","type":"string"}]}"#);
    registry.add(4, r#"{"type":"enum","name":"E","symbols":["A"]}"#);
    registry.add(5, "no schema");
    let columns = vec![
        column("id", DataType::Int64),
        column("amount", DataType::Decimal128(9, 2)),
        column("city", DataType::Utf8),
    ];
    let mut decoder = all_of(&stream(Format::Avro(None), columns));
    decoder.set_schemas(registry.clone());
    let written = || Writer::default();
    let second = framed(2, written().sized(b"Paris").long(1).long(8).raw(&2.5f64.to_le_bytes()));
    for payload in [framed(1, written().long(7).long(3)), second.clone(), framed(1, written().long(9).long(-3))] {
        assert_eq!(take(&mut decoder, &payload), Ok(Ok(())));
    }
    assert_eq!(take(&mut decoder, &framed(3, written().sized(b"10"))), Ok(Ok(())));
    assert_eq!(rows(&decoder.finish()), ["7|3.00|-", "8|2.50|Paris", "9|-3.00|-", "10|-|-"]);
    for (payload, message) in [
        (framed(3, written().sized(b"ten")), "column \"id\": expected BIGINT, found \"ten\""),
        (framed(4, written().long(0)), "column \"id\": expected an object on its path, found an Avro enum"),
        (framed(5, written()), "schema 5 of the registry: not JSON: expected ident at line 1 column 2"),
        (framed(6, written()), "the registry knows no schema 6"),
        (b"{\"id\":7}".to_vec(), "not in Confluent's wire format: a zero byte, and four of the schema's id"),
        (vec![0, 0, 0, 1], "not in Confluent's wire format: a zero byte, and four of the schema's id"),
    ] {
        assert_eq!(take(&mut decoder, &payload), Ok(Err(DecodeError(message.into()))));
    }
    assert_eq!(*registry.asked.lock().unwrap(), [1, 2, 3, 4, 5, 6], "each once");
    // What was unknown may be told later.
    registry.add(6, r#"{"type":"record","name":"O","fields":[{"name":"id","type":"int"}]}"#);
    assert_eq!(take(&mut decoder, &framed(6, written().long(11))), Ok(Ok(())));
    assert_eq!(rows(&decoder.finish()), ["11|-|-"]);
}

#[test]
fn registry_that_is_away_makes_no_dead_letter() {
    let registry = Arc::new(FakeRegistry::default());
    let text = r#"{"type":"record","name":"O","fields":[{"name":"id","type":"int"}]}"#;
    registry.add(1, text);
    registry.add(2, text);
    let mut decoder = all_of(&stream(Format::Avro(None), vec![column("id", DataType::Int64)]));
    decoder.set_schemas(registry.clone());
    assert_eq!(take(&mut decoder, &framed(1, Writer::default().long(1))), Ok(Ok(())));
    *registry.is_away.lock().unwrap() = true;
    assert_eq!(take(&mut decoder, &framed(1, Writer::default().long(2))), Ok(Ok(())), "a known id asks nobody");
    let held = framed(2, Writer::default().long(3));
    assert_eq!(take(&mut decoder, &held), Err(Unavailable("the registry is away".into())));
    *registry.is_away.lock().unwrap() = false;
    assert_eq!(take(&mut decoder, &held), Ok(Ok(())));
    assert_eq!(rows(&decoder.finish()), ["1", "2", "3"]);
}

#[test]
fn every_truncation_and_every_byte_too_many_is_refused() {
    for hex in [FULL, SPARSE] {
        let whole = bytes(hex);
        let mut decoder = avro(ORDER, order_columns());
        for length in 1..whole.len() {
            let error = decoder.decode(&record(&whole[..length])).unwrap_err().to_string();
            assert!(error.starts_with("not Avro of its schema: too few bytes at byte"), "{length}: {error}");
        }
        let longer = [&whole[..], b"x"].concat();
        let error = decoder.decode(&record(&longer)).unwrap_err().to_string();
        assert_eq!(error, format!("not Avro of its schema: bytes after the end of the record at byte {}", whole.len()));
        assert_eq!(decoder.finish().num_rows(), 0);
    }
}

#[test]
fn counts_and_lengths_are_not_believed() {
    let nothing = r#"{"type":"array","items":"null"}"#;
    let hollow = r#"{"type":"array","items":{"type":"record","name":"H","fields":[{"name":"a","type":"null"}]}}"#;
    let items = || DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    for avro_type in [nothing, hollow] {
        for count in [i64::MAX, i64::MIN, 1 << 40, -(1 << 40)] {
            let written = || Writer::default().long(count).long(0).long(0);
            for data_type in [items(), DataType::Utf8] {
                let error = read(avro_type, written(), data_type, TimestampFormat::Iso).unwrap_err();
                assert!(error.contains("too many values for so few bytes"), "{error}");
            }
            // The same where nobody wants it.
            let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"c","type":{avro_type}}}]}}"#);
            let mut decoder = avro(&text, vec![column("other", DataType::Int64)]);
            assert!(decoder.decode(&record(&written().0)).is_err());
        }
    }
    for length in [i64::MAX, 1 << 40, -1, i64::MIN] {
        assert!(read("\"string\"", Writer::default().long(length), DataType::Utf8, TimestampFormat::Iso).is_err());
        let map = Writer::default().long(1).long(length);
        assert!(read(r#"{"type":"map","values":"int"}"#, map, DataType::Utf8, TimestampFormat::Iso).is_err());
    }
    // A list whose records hold themselves, and a record that holds itself without end.
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    let endless = r#"{"type":"record","name":"E","fields":[{"name":"e","type":"E"}]}"#;
    for text in [list, endless] {
        for wanted in ["next", "e", "other"] {
            let mut decoder = avro(text, vec![column(wanted, DataType::Utf8)]);
            let error = decoder.decode(&record(&[2; 5_000])).unwrap_err().to_string();
            assert!(error.starts_with("not Avro of its schema: nested too deeply"), "{error}");
        }
    }
    // Sixteen fields in sixteen fields and so on, and not one byte.
    let mut bomb = "\"null\"".to_owned();
    for depth in 0..12 {
        let first = format!(r#"{{"name":"f0","type":{bomb}}}"#);
        let name = if depth == 0 { "null".to_owned() } else { format!("B{}", depth - 1) };
        let others: String = (1..16).map(|at| format!(r#",{{"name":"f{at}","type":"{name}"}}"#)).collect();
        bomb = format!(r#"{{"type":"record","name":"B{depth}","fields":[{first}{others}]}}"#);
    }
    for wanted in ["f0", "other"] {
        let mut decoder = avro(&bomb, vec![column(wanted, DataType::Utf8)]);
        let error = decoder.decode(&record(&[0])).unwrap_err().to_string();
        assert!(error.contains("too many values for so few bytes"), "{error}");
    }
}

#[test]
#[ignore = "prints rows/s; worth running in release only"]
fn speed_of_avro() {
    let text = r#"{"type":"record","name":"O","fields":[
        {"name":"order_id","type":"long"},{"name":"user_id","type":["null","long"]},
        {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
        {"name":"status","type":"string"},{"name":"category","type":["null","string"]},{"name":"city","type":"string"},
        {"name":"channel","type":"string"},{"name":"order_time","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"note","type":["null","string"]}]}"#;
    let wall = DataType::Timestamp(TimeUnit::Millisecond, None);
    let columns = vec![
        column("order_id", DataType::Int64),
        column("user_id", DataType::Int64),
        column("amount", DataType::Decimal128(12, 2)),
        column("status", DataType::Utf8),
        column("category", DataType::Utf8),
        column("city", DataType::Utf8),
        column("channel", DataType::Utf8),
        column("order_time", wall),
        column("note", DataType::Utf8),
    ];
    let records: Vec<Vec<u8>> = (0..10_000i64)
        .map(|id| {
            let note = format!("ok {id:020}");
            let amount = (id % 50_000).to_be_bytes();
            let written =
                Writer::default().long(1_000_000 + id).long(1).long(id * 7919 % 1_000_000).sized(&amount[5..]);
            let written = written.sized(b"paid").long(1).sized("手机".as_bytes()).sized("上海".as_bytes());
            framed(1, written.sized(b"app_store").long(1_769_818_500_000 + id * 13).long(1).sized(note.as_bytes()))
        })
        .collect();
    let registry = Arc::new(FakeRegistry::default());
    registry.add(1, text);
    for wanted in [&[0, 1, 2, 3, 4, 5, 6, 7, 8][..], &[0, 1, 2, 7]] {
        let mut decoder = Decoder::new(&stream(Format::Avro(None), columns.clone()), wanted).unwrap();
        decoder.set_schemas(registry.clone());
        let started = std::time::Instant::now();
        let rounds = 200;
        for _ in 0..rounds {
            for payload in &records {
                assert_eq!(take(&mut decoder, payload), Ok(Ok(())));
            }
            assert_eq!(decoder.finish().num_rows(), records.len());
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{} columns: {:.2} M rows/s", wanted.len(), (rounds * records.len()) as f64 / seconds / 1e6);
    }
}

//! Protobuf, from bytes that Google's library wrote and from bytes that are made here. The descriptor set is
//! `protoc --include_imports --descriptor_set_out=all.desc shop.proto old.proto edition.proto` in tests/protobuf.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::tests::{all_of, column, record, rows, stream};
use super::*;
use crate::catalog::{Column, Descriptor, Framing, ProtobufFormat};

const DESCRIPTORS: &[u8] = include_bytes!("../../../tests/protobuf/all.desc");

/// An order with something in almost every field.
const FULL: &str = "\
    080710531a0908bac4071203434e5920012a0c088493f5cb061080a3a4f80230b5dd9c8bc1333a0e0a016111000000000000f83f18023a\
    030a016242040102ac024a0d0a0463697479120550617269734a090a056772616465120052060803120208055a03313338690000000000\
    00e03f75cdcccc3d7801820105706c61696e8a01009001ffffffffffffffffff019d01ffffffffa1010000000000000080ad01ffffffff\
    b101feffffffffffffffba01020002c2010161c2010162ca01020806";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn format(message: &str, framing: Framing) -> Format {
    let descriptor = Arc::new(Descriptor::parse(DESCRIPTORS).unwrap());
    let message = descriptor.message(message).unwrap();
    Format::Protobuf(Arc::new(ProtobufFormat { descriptor, message, framing }))
}

fn protobuf(message: &str, columns: Vec<Column>) -> Decoder {
    all_of(&stream(format(message, Framing::None), columns))
}

fn at(path: &[&str], column: Column) -> Column {
    Column { path: path.iter().map(ToString::to_string).collect(), ..column }
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

const WALL: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn order_columns() -> Vec<Column> {
    let line = vec![
        Field::new("sku", DataType::Utf8, true),
        Field::new("price", DataType::Decimal128(9, 2), true),
        Field::new("count", DataType::Int64, true),
    ];
    vec![
        Column { nullable: false, ..column("order_id", DataType::Int64) },
        column("userId", DataType::Int32),
        at(&["amount", "cents"], column("cents", DataType::Int64)),
        at(&["amount", "currency"], column("currency", DataType::Utf8)),
        column("state", DataType::Utf8),
        at(&["state"], column("state_number", DataType::Int8)),
        column("ordered_at", DataType::Timestamp(TimeUnit::Microsecond, Some("Asia/Shanghai".into()))),
        at(&["ordered_at", "seconds"], column("seconds", DataType::Int64)),
        Column { timestamp_format: TimestampFormat::EpochMillis, ..column("sent_ms", WALL) },
        column("lines", list_of(DataType::Struct(line.into()))),
        column("points", list_of(DataType::Int32)),
        at(&["props", "city"], column("city", DataType::Utf8)),
        at(&["refunds", "3", "cents"], column("refund", DataType::Int64)),
        column("phone", DataType::Utf8),
        column("mail", DataType::Utf8),
        column("score", DataType::Float64),
        column("weight", DataType::Float32),
        column("paid", DataType::Boolean),
        column("raw", DataType::Utf8),
        column("shop_id", DataType::Int64),
        column("big", DataType::Decimal128(20, 0)),
        column("f32", DataType::Int64),
        at(&["f64"], column("f64_text", DataType::Utf8)),
        column("s32", DataType::Int32),
        column("s64", DataType::Int64),
        column("states", list_of(DataType::Utf8)),
        at(&["before", "order_id"], column("before", DataType::Int64)),
        at(&["before", "state"], column("state_before", DataType::Utf8)),
    ]
}

#[test]
fn order_of_every_type_becomes_one_typed_row() {
    let mut decoder = protobuf("shop.Order", order_columns());
    decoder.decode(&record(&bytes(FULL))).unwrap();
    assert_eq!(
        rows(&decoder.finish()),
        ["7|-42|123450|CNY|PAID|1|2026-01-31T08:15:00.789123+08:00|1769818500|2026-01-31T08:15:00.789|\
          [{sku: a, price: 1.50, count: 2}, {sku: b, price: 0.00, count: 0}]|[1, 2, 300]|Paris|5|138|-|0.5|0.1|true|plain|0|\
          18446744073709551615|4294967295|9223372036854775808|-1|-2|[NEW, SENT]|6|NEW"]
    );
}

#[test]
fn what_is_not_written_is_its_default_or_null_as_the_message_says() {
    let mut decoder = protobuf("shop.Order", order_columns());
    // A message of nothing but defaults has no bytes.
    decoder.decode(&record(b"")).unwrap();
    assert_eq!(
        rows(&decoder.finish()),
        ["0|0|-|-|NEW|0|-|-|1970-01-01T08:00:00|[]|[]|-|-|-|-|-|0.0|false||-|0|0|0|0|0|[]|-|-"]
    );
    // A message that is there has its defaults: amount = {}, before = {}.
    decoder.decode(&record(&[0x1a, 0x00, 0xca, 0x01, 0x00])).unwrap();
    let row = rows(&decoder.finish()).remove(0);
    assert!(row.starts_with("0|0|0|-|NEW|") && row.ends_with("|[]|0|NEW"), "{row}");
}

#[test]
fn varchar_keeps_messages_lists_and_maps_as_json() {
    let names = ["amount", "lines", "points", "props", "refunds", "ordered_at", "shop_id", "names", "big"];
    let mut decoder = protobuf("shop.Order", names.iter().map(|name| column(name, DataType::Utf8)).collect());
    decoder.decode(&record(&bytes(FULL))).unwrap();
    assert_eq!(
        rows(&decoder.finish()),
        [r#"{"cents":123450,"currency":"CNY"}|[{"sku":"a","price":1.5,"count":2},{"sku":"b","price":0,"count":0}]|"#
            .to_owned()
            + r#"[1,2,300]|{"city":"Paris","grade":""}|{"3":{"cents":5,"currency":null}}|2026-01-31T00:15:00.789123456Z|"#
            + r#"0|["a","b"]|18446744073709551615"#]
    );
}

#[test]
fn last_value_holds_lists_grow_and_messages_are_merged() {
    let columns = vec![
        column("order_id", DataType::Int64),
        at(&["amount", "cents"], column("cents", DataType::Int64)),
        at(&["amount", "currency"], column("currency", DataType::Utf8)),
        column("amount", DataType::Utf8),
        column("points", list_of(DataType::Int64)),
    ];
    let mut decoder = protobuf("shop.Order", columns);
    let twice = [
        &[0x08, 1, 0x1a, 2, 0x08, 9, 0x42, 2, 1, 2][..],
        // points not packed, an amount without cents, the order again, and a field of nobody's.
        &[0x40, 3, 0x1a, 3, 0x12, 1, b'X', 0x08, 2, 0xf8, 0x7f, 1],
    ];
    decoder.decode(&record(&twice.concat())).unwrap();
    assert_eq!(rows(&decoder.finish()), [r#"2|9|X|{"cents":9,"currency":"X"}|[1, 2, 3]"#]);
}

#[test]
fn proto2_groups_presence_and_editions_are_read() {
    let mut decoder = protobuf(
        "old.Event",
        vec![
            Column { nullable: false, ..column("id", DataType::Int64) },
            column("kind", DataType::Int32),
            at(&["place", "city"], column("city", DataType::Utf8)),
            column("place", DataType::Utf8),
            column("loose", list_of(DataType::Int32)),
            column("tight", list_of(DataType::Int32)),
        ],
    );
    decoder.decode(&record(&bytes("080510031b2206e4b88ae6b5b71c280128feffffffffffffffff0132020304"))).unwrap();
    decoder.decode(&record(&[8, 6])).unwrap();
    assert_eq!(rows(&decoder.finish()), [r#"5|3|上海|{"city":"上海"}|[1, -2]|[3, 4]"#, "6|-|-|-|[]|[]"]);
    let message = "column \"id\": expected BIGINT NOT NULL, found no such field";
    assert_eq!(decoder.decode(&record(&[16, 1])), Err(DecodeError(message.into())));

    let names = ["explicit", "implicit"].map(|name| column(name, DataType::Int64));
    let marked = at(&["marked", "s"], column("marked", DataType::Utf8));
    let mut decoder = protobuf("ed.E", names.into_iter().chain([marked]).collect());
    decoder.decode(&record(&bytes("08001b0a02696e1c"))).unwrap();
    decoder.decode(&record(b"")).unwrap();
    assert_eq!(rows(&decoder.finish()), ["0|0|in", "-|0|-"]);
}

#[test]
fn value_that_does_not_fit_is_refused_with_its_column() {
    let full = bytes(FULL);
    for (column, payload, message) in [
        (
            column("state", DataType::Utf8),
            &[0x20, 9][..],
            "column \"state\": expected a number of which the enum has a name, found 9",
        ),
        (
            column("amount", DataType::Int64),
            &full,
            r#"column "amount": expected BIGINT, found {"cents":123450,"currency":"CNY"}"#,
        ),
        (column("points", DataType::Int64), &full, "column \"points\": expected BIGINT, found [1,2,300]"),
        (
            column("points", list_of(DataType::Int8)),
            &full,
            "column \"points\": expected TINYINT ARRAY, found [1,2,300]",
        ),
        (column("big", DataType::Int64), &full, "column \"big\": expected BIGINT, found 18446744073709551615"),
        (
            column("ordered_at", DataType::Int64),
            &full,
            "column \"ordered_at\": expected BIGINT, found 2026-01-31T00:15:00.789123456Z",
        ),
        (
            at(&["phone", "x"], column("x", DataType::Int64)),
            &full,
            "column \"x\": expected an object on its path, found a Protobuf field that is no message",
        ),
        (
            column("order_id", DataType::Int64),
            &[0x0a, 1, b'7'],
            "not Protobuf of its message: a field that is written otherwise than its descriptor says at byte 1",
        ),
        (
            column("phone", DataType::Utf8),
            &[0x5a, 2, b'a', 0xff],
            "not Protobuf of its message: invalid UTF-8 at byte 3",
        ),
    ] {
        let mut decoder = protobuf("shop.Order", vec![column]);
        assert_eq!(decoder.decode(&record(payload)), Err(DecodeError(message.into())));
        assert_eq!(decoder.finish().num_rows(), 0);
    }
    // An enum's number is there even where its name is not.
    let mut decoder = protobuf("shop.Order", vec![column("state", DataType::Int32)]);
    decoder.decode(&record(&[0x20, 9])).unwrap();
    assert_eq!(rows(&decoder.finish()), ["9"]);
}

#[test]
fn confluents_frame_names_the_message_and_is_only_taken_off_when_told() {
    let framed = |place: &[u8]| [&[0, 0, 0, 0, 7][..], place, &[8, 5]].concat();
    let columns = || vec![column("x", DataType::Int64)];
    let mut other = all_of(&stream(format("shop.Other", Framing::Confluent), columns()));
    other.decode(&record(&framed(&[2, 2]))).unwrap();
    assert_eq!(rows(&other.finish()), ["5"]);
    for (payload, message) in [
        (framed(&[0]), "the record is the message at [0] of its file; shop.Other is at [1]"),
        (framed(&[4, 0, 2]), "the record is the message at [0, 1] of its file; shop.Other is at [1]"),
        (vec![8, 5], "not in Confluent's wire format: a zero byte, and four of the schema's id"),
        (
            framed(&[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            "not Protobuf of its message: a place of the message in its file that none can have at byte 5",
        ),
    ] {
        assert_eq!(other.decode(&record(&payload)), Err(DecodeError(message.into())));
    }
    let money = vec![column("cents", DataType::Int64)];
    let mut inner = all_of(&stream(format("shop.Order.Money", Framing::Confluent), money));
    inner.decode(&record(&framed(&[4, 0, 2]))).unwrap();
    let mut first =
        all_of(&stream(format("shop.Order", Framing::Confluent), vec![column("order_id", DataType::Int64)]));
    first.decode(&record(&framed(&[0]))).unwrap();
    first.decode(&record(&framed(&[2, 0]))).unwrap();
    assert_eq!([rows(&inner.finish()), rows(&first.finish())], [vec!["5"], vec!["5", "5"]]);
    assert!(protobuf("shop.Other", columns()).decode(&record(&framed(&[2, 2]))).is_err(), "a frame is not guessed");
}

#[test]
fn truncated_messages_and_lengths_that_lie_are_refused() {
    let whole = bytes(FULL);
    let mut decoder = protobuf("shop.Order", order_columns());
    let mut refused = 0;
    for length in 0..whole.len() {
        // Cut between two fields it is another message, and a whole one.
        match decoder.decode(&record(&whole[..length])) {
            Ok(()) => {}
            Err(error) => {
                refused += 1;
                assert!(
                    error.to_string().starts_with("not Protobuf of its message: too few bytes"),
                    "{length}: {error}"
                );
            }
        }
    }
    assert!(refused > whole.len() / 2, "{refused} of {}", whole.len());
    // Groups in groups, and orders before orders, without end; fields that do not exist; a length of 2^64.
    let lengths: Vec<u8> = (0..2_000).flat_map(|_| [0xca, 0x01, 0xff, 0x7f]).collect();
    let deep = vec![0x1b; 5_000];
    for (message, payload) in [
        ("shop.Order", &deep[..]),
        ("old.Event", &deep),
        ("shop.Order", &lengths),
        ("shop.Order", &[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("shop.Order", &[0x0c]),
        ("shop.Order", &[0x0e]),
        ("shop.Order", &[0x00, 0x01]),
    ] {
        for wanted in ["before", "lines", "place", "order_id"] {
            let error = protobuf(message, vec![column(wanted, DataType::Utf8)]).decode(&record(payload)).unwrap_err();
            assert!(error.to_string().starts_with("not Protobuf of its message: "), "{error}");
        }
    }
    // Every empty message has all its fields.
    let many: Vec<u8> = (0..200_000).flat_map(|_| [0x3a, 0x00]).collect();
    assert!(protobuf("shop.Order", vec![column("lines", DataType::Utf8)]).decode(&record(&many)).is_ok());
}

#[test]
fn mutated_descriptors_are_refused_and_do_not_panic() {
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..5_000 {
        let mut set = DESCRIPTORS.to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..set.len());
            set[at] = random.random();
        }
        let _ = Descriptor::parse(&set);
    }
    for length in [1, 100, DESCRIPTORS.len() - 1] {
        assert!(Descriptor::parse(&DESCRIPTORS[..length]).is_err());
    }
    assert_eq!(Descriptor::parse(b"").unwrap().messages, []);
}

#[test]
#[ignore = "prints rows/s; worth running in release only"]
fn speed_of_protobuf() {
    let columns = [
        ("order_id", DataType::Int64),
        ("user_id", DataType::Int32),
        ("state", DataType::Utf8),
        ("phone", DataType::Utf8),
        ("weight", DataType::Float32),
        ("paid", DataType::Boolean),
        ("score", DataType::Float64),
        ("s64", DataType::Int64),
    ];
    let columns = columns.into_iter().map(|(name, data_type)| column(name, data_type));
    let sent = Column { timestamp_format: TimestampFormat::EpochMillis, ..column("sent_ms", WALL) };
    let mut decoder = protobuf("shop.Order", columns.chain([sent]).collect());
    let payload = bytes(FULL);
    let started = std::time::Instant::now();
    for _ in 0..200 {
        for _ in 0..10_000 {
            decoder.decode(&record(&payload)).unwrap();
        }
        assert_eq!(decoder.finish().num_rows(), 10_000);
    }
    println!("{:.2} M rows/s", 2.0 / started.elapsed().as_secs_f64());
}

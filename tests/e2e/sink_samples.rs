//! Rows, keys and registrations that are hard on a store.

use std::sync::Arc;

use super::super::tagflow::delta::Lost;
use super::super::tagflow::sink::{ColumnRegistration, TagRegistration};
use arrow::array::*;
use arrow::datatypes::*;

/// A registration with everything in it that needs care.
pub fn register(tag: &str, version: u64) -> TagRegistration {
    let column = |name: &str, is_key| ColumnRegistration {
        name: name.to_string(),
        sql_type: "BIGINT".to_string(),
        is_key,
        title: (!is_key).then(|| "近30天'消费\\".to_string()),
        unit: (!is_key).then(|| "CNY".to_string()),
        default: None,
        labels: [("gold".to_string(), "金卡".to_string())].into(),
    };
    TagRegistration {
        tag: tag.to_string(),
        folder: "consumption/money".to_string(),
        folder_titles: vec!["消费".to_string(), "Money \"quoted\"".to_string()],
        entity: "user".to_string(),
        version,
        git_commit: Some("0123456789abcdef".to_string()),
        file: format!("tags/consumption/{tag}.sql"),
        title: Some("近30天消费".to_string()),
        description: None,
        owner: Some("growth".to_string()),
        method: Some("stat".to_string()),
        status: "live".to_string(),
        sql: "SELECT user_id,\n\t'\\' AS x -- it's\nFROM orders".to_string(),
        timezone: "Asia/Shanghai".to_string(),
        complete_from: Some(1_700_000_000_123),
        lost: vec![Lost { stream: "orders".to_string(), partition: 3, first: 7, next: 9 }],
        columns: vec![column("user_id", true), column("level", false)],
    }
}

/// Rows of every type, extremes and NULLs among them; the first column is the key.
pub fn every_type() -> RecordBatch {
    let texts: Vec<Option<String>> = vec![
        Some(String::new()),
        None,
        Some("emoji 👩‍👩‍👧 and 中文".to_string()),
        Some("tab\tline\nreturn\rnul\0back\\slash 'single' \"double\" `back` %_".to_string()),
        Some("trailing  ".to_string()),
        Some("\\N".to_string()),
        Some("长".repeat(30_000)),
        Some("NULL".to_string()),
    ];
    let rows = texts.len();
    let ints = |least: i64, most: i64| -> Vec<Option<i64>> {
        vec![Some(least), None, Some(most), Some(0), Some(1), Some(most - 1), Some(least + 1), Some(7)]
    };
    let uints = |most: u64| vec![Some(most), None, Some(0), Some(1), Some(most - 1), Some(most / 2), Some(2), Some(3)];
    let reals = vec![
        Some(f64::MAX),
        None,
        Some(f64::MIN),
        Some(0.1),
        Some(f64::MIN_POSITIVE),
        Some(1.0 / 3.0),
        Some(-1e-300),
        Some(123456789.125),
    ];
    let decimal = |values: Vec<Option<i128>>, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    };
    let top = 10i128.pow(38) - 1;
    let decimals = vec![Some(-top), None, Some(top), Some(-1), Some(0), Some(1), Some(-12345), Some(10i128.pow(10))];
    let bytes: Vec<Option<&[u8]>> = vec![
        Some(&[0, 1, 2, 255, 254, 9, 10, 13, 92, 39, 34]),
        None,
        Some(&[]),
        Some(b"\\N"),
        Some(b"text"),
        Some(&[0xC3]),
        Some(&[0xF0, 0x9F]),
        Some(&[0]),
    ];
    // 0001-01-01, NULL, 9999-12-31, the epoch and around it.
    let days = vec![Some(-719_162), None, Some(2_932_896), Some(0), Some(-1), Some(19_782), Some(1), Some(2)];
    let first: i64 = -62_135_596_800_000;
    let last: i64 = 253_402_300_799_999;
    let millis = vec![Some(first), None, Some(last), Some(0), Some(-1), Some(1_709_294_400_123), Some(1), Some(999)];
    let micros: Vec<Option<i64>> = millis.iter().map(|value| value.map(|value| value * 1000 + 1)).collect();
    let nanos = vec![
        Some(0),
        None,
        Some(-1_000),
        Some(1_000),
        Some(4_102_444_800_000_001_000),
        Some(5_000),
        Some(6_000),
        Some(7_000),
    ];
    // Instants with room for any zone.
    let instants: Vec<Option<i64>> = vec![
        Some(first + 86_400_000),
        None,
        Some(last - 86_400_000),
        Some(0),
        Some(-1),
        Some(1_709_294_400_123),
        Some(1),
        Some(999),
    ];
    let mut lists = ListBuilder::new(Decimal128Builder::new().with_data_type(DataType::Decimal128(38, 10)));
    let mut names = ListBuilder::new(StringBuilder::new());
    for row in 0..rows {
        for item in 0..row {
            lists.values().append_option((item != 2).then_some(decimals[item].unwrap_or(3)));
            names.values().append_option(texts[item].as_deref());
        }
        lists.append(row != 1);
        names.append(row != 3);
    }
    let places = StructArray::from(vec![
        (
            Arc::new(Field::new("ci,ty\"}", DataType::Utf8, true)),
            Arc::new(StringArray::from(texts.clone())) as ArrayRef,
        ),
        (Arc::new(Field::new("seen", DataType::Date32, true)), Arc::new(Date32Array::from(days.clone())) as ArrayRef),
        (
            Arc::new(Field::new("vip", DataType::Boolean, true)),
            Arc::new(BooleanArray::from_iter((0..rows).map(|row| Some(row % 2 == 0)))) as ArrayRef,
        ),
    ]);
    let narrow = |values: Vec<Option<i64>>, data_type: DataType| -> ArrayRef {
        arrow::compute::cast(&(Arc::new(Int64Array::from(values)) as ArrayRef), &data_type).unwrap()
    };
    let narrow_uint = |values: Vec<Option<u64>>, data_type: DataType| -> ArrayRef {
        arrow::compute::cast(&(Arc::new(UInt64Array::from(values)) as ArrayRef), &data_type).unwrap()
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("user_id", Arc::new(Int64Array::from_iter_values([i64::MIN, -3, -2, -1, 0, 1, 2, i64::MAX]))),
        ("flag", Arc::new(BooleanArray::from_iter((0..rows).map(|row| (row != 2).then_some(row % 2 == 1))))),
        ("int8", narrow(ints(i8::MIN.into(), i8::MAX.into()), DataType::Int8)),
        ("int16", narrow(ints(i16::MIN.into(), i16::MAX.into()), DataType::Int16)),
        ("int32", narrow(ints(i32::MIN.into(), i32::MAX.into()), DataType::Int32)),
        ("int64", narrow(ints(i64::MIN, i64::MAX), DataType::Int64)),
        ("uint8", narrow_uint(uints(u8::MAX.into()), DataType::UInt8)),
        ("uint16", narrow_uint(uints(u16::MAX.into()), DataType::UInt16)),
        ("uint32", narrow_uint(uints(u32::MAX.into()), DataType::UInt32)),
        ("uint64", narrow_uint(uints(u64::MAX), DataType::UInt64)),
        (
            "float32",
            Arc::new(Float32Array::from_iter(
                [0.1, f32::MAX, f32::MIN_POSITIVE, 1.0 / 3.0, 16_777_217.0, -0.7, 3e-41, 0.0].map(Some),
            )),
        ),
        ("float64", Arc::new(Float64Array::from(reals))),
        ("decimal_38_10", decimal(decimals.clone(), 38, 10)),
        (
            "decimal_12_2",
            decimal(vec![Some(-999_999_999_999), None, Some(5), Some(-5), Some(0), Some(1), Some(2), Some(3)], 12, 2),
        ),
        (
            "decimal_20_0",
            decimal(
                vec![Some(99_999_999_999_999_999_999), None, Some(5), Some(-5), Some(0), Some(1), Some(2), Some(3)],
                20,
                0,
            ),
        ),
        ("text", Arc::new(StringArray::from(texts.clone()))),
        ("large_text", Arc::new(LargeStringArray::from(texts.clone()))),
        ("text_view", Arc::new(StringViewArray::from_iter(texts.iter().map(Option::as_deref)))),
        ("bytes", Arc::new(BinaryArray::from(bytes))),
        ("day", Arc::new(Date32Array::from(days))),
        (
            "at_seconds",
            Arc::new(TimestampSecondArray::from_iter(
                millis.iter().map(|value| value.map(|value| value.div_euclid(1000))),
            )),
        ),
        ("at_millis", Arc::new(TimestampMillisecondArray::from(millis))),
        ("at_micros", Arc::new(TimestampMicrosecondArray::from(micros))),
        ("at_nanos", Arc::new(TimestampNanosecondArray::from(nanos))),
        ("instant", Arc::new(TimestampMillisecondArray::from(instants).with_timezone("UTC"))),
        (
            "time",
            Arc::new(Time64MicrosecondArray::from(vec![
                Some(0),
                None,
                Some(86_399_999_999),
                Some(1),
                Some(2),
                Some(3),
                Some(4),
                Some(5),
            ])),
        ),
        ("amounts", Arc::new(lists.finish())),
        ("names", Arc::new(names.finish())),
        ("place", Arc::new(places)),
        ("or`der \"by\" ✓", Arc::new(Int64Array::from_iter((0..rows as i64).map(Some)))),
    ];
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().enumerate().map(|(at, (name, array))| (name, array, at > 0)),
    )
    .unwrap()
}

/// Texts that a careless comparison or escape makes equal or breaks, in byte order.
pub fn difficult_texts() -> Vec<&'static str> {
    let mut texts = vec![
        "",
        " ",
        "  ",
        "a",
        "A",
        "á",
        "a\u{301}",
        "a ",
        " a",
        "a\t",
        "a\n",
        "a\r",
        "a\0",
        "\0",
        "a\\",
        "\\N",
        "'",
        "\"",
        "ß",
        "ss",
        "İ",
        "i",
        "👩‍👧",
        "👩",
        "中文",
        "%",
        "_",
        "NULL",
        "0",
        "00",
    ];
    texts.sort_unstable();
    texts
}

//! Random events: skewed keys, NULLs, ties, out-of-order times, Chinese text.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, TimestampMillisecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use chrono_tz::Tz;
use rand::Rng;
use rand::rngs::StdRng;
use tagflow::catalog::{Catalog, Column, EventTime, Format, Start, Stream, TimestampFormat, Unique};
use tagflow::delta::Partition;

pub const DAY: i64 = 86_400_000;

fn column(name: &str, data_type: DataType) -> Column {
    Column {
        name: name.to_string(),
        data_type,
        nullable: true,
        path: vec![name.to_string()],
        timestamp_format: TimestampFormat::EpochMillis,
        misfits: Default::default(),
    }
}

fn stream(name: &str, time: &str, lateness: u64, timezone: Tz, columns: Vec<Column>) -> Arc<Stream> {
    Arc::new(Stream {
        name: name.to_string(),
        file: format!("schemas/{name}.toml").into(),
        title: None,
        connection: "shop".to_string(),
        topic: format!("shop.{name}"),
        format: Format::Json,
        timezone,
        start: Start::Earliest,
        time: Some(EventTime {
            column: time.to_string(),
            lateness: Duration::from_secs(lateness),
            idle: Duration::MAX,
        }),
        kind: Default::default(),
        key: vec![],
        truncates: false,
        on_lost: Default::default(),
        history: None,
        archive: None,
        unique: None,
        columns,
    })
}

/// The streams of a project in `timezone`.
pub fn catalog(timezone: Tz) -> Catalog {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let orders = stream(
        "orders",
        "order_time",
        86_400,
        timezone,
        vec![
            column("order_id", DataType::Int64),
            column("user_id", DataType::Int64),
            column("amount", DataType::Decimal128(12, 2)),
            column("weight", DataType::Float64),
            column("quantity", DataType::Int32),
            column("category", DataType::Utf8),
            column("status", DataType::Utf8),
            column("order_time", time.clone()),
        ],
    );
    let views = stream(
        "page_views",
        "view_time",
        0,
        timezone,
        vec![
            column("user_id", DataType::Int64),
            column("page", DataType::Utf8),
            column("device", DataType::Utf8),
            column("duration_ms", DataType::Int64),
            column("view_time", time),
        ],
    );
    let fields = vec![Field::new("sku", DataType::Utf8, true), Field::new("pieces", DataType::Int32, true)];
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let carts = stream(
        "carts",
        "cart_time",
        3_600,
        timezone,
        vec![
            column("cart_id", DataType::Int64),
            column("user_id", DataType::Int64),
            column("items", list(DataType::Utf8)),
            column("lines", list(DataType::Struct(fields.into()))),
            column("payload", DataType::Utf8),
            column("cart_time", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ],
    );
    let streams = [orders, views, carts, payments(timezone)].map(|stream| (stream.name.clone(), stream));
    Catalog { streams: streams.into_iter().collect(), ..Catalog::default() }
}

/// The partitions of every stream.
pub const PARTITIONS: i32 = 3;

/// All partitions of all streams.
pub fn partitions(catalog: &Catalog) -> Vec<Partition> {
    let of_stream = |stream: &String| {
        (0..PARTITIONS).map(|number| Partition { stream: stream.clone(), number }).collect::<Vec<_>>()
    };
    catalog.streams.keys().flat_map(of_stream).collect()
}

/// A stream that drops what was sent again within two hours, and takes events that are an hour late.
fn payments(timezone: Tz) -> Arc<Stream> {
    let columns = vec![
        column("payment_id", DataType::Int64),
        column("user_id", DataType::Int64),
        column("amount", DataType::Int64),
        column("method", DataType::Utf8),
        column("pay_time", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ];
    let stream = Stream::clone(&stream("payments", "pay_time", 3_600, timezone, columns));
    Arc::new(Stream {
        unique: Some(Unique {
            columns: vec!["payment_id".to_string(), "method".to_string()],
            within: Duration::from_secs(2 * 3_600),
        }),
        ..stream
    })
}

/// Payments every ten minutes, each about twice: exact copies, copies that differ, close and far ones, at the edge of
/// two hours and behind it, in any partition and out of order; some are too late to tell, and some lie so far ahead of
/// their records that they must not make others late.
fn payment_batch(stream: &Stream, rows: usize, first_offset: i64, random: &mut StdRng) -> RecordBatch {
    const MINUTE: i64 = 60_000;
    let ids: Vec<i64> =
        (0..rows as i64).map(|row| (first_offset + row) / 2 - (random.random::<f64>().powi(4) * 60.0) as i64).collect();
    let sent = |id: i64| 1_790_000_000_000 + id * 10 * MINUTE;
    let time = |id: i64, random: &mut StdRng| {
        let sent = sent(id);
        if random.random_bool(0.02) {
            return Some(sent + [DAY, DAY + 1, 40 * DAY][random.random_range(0..3)]);
        }
        match random.random_range(0..20) {
            0 => None,
            1 | 2 => Some(sent + 120 * MINUTE),
            3 => Some(sent + 120 * MINUTE + 1),
            4 => Some(sent - random.random_range(0..150) * MINUTE),
            _ => Some(sent),
        }
    };
    let seldom = |random: &mut StdRng| random.random_bool(0.04);
    let times: Vec<Option<i64>> = ids.iter().map(|id| time(*id, random)).collect();
    let amounts = ids.iter().map(|id| if seldom(random) { random.random_range(0..100) } else { id * 37 % 100 });
    let amounts: Int64Array = amounts.collect::<Vec<_>>().into();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids.iter().map(|id| (!seldom(random)).then_some(*id)).collect::<Int64Array>()),
        Arc::new(ids.iter().map(|id| Some(id % 7)).collect::<Int64Array>()),
        Arc::new(amounts),
        Arc::new(
            ids.iter()
                .map(|id| (!seldom(random)).then_some(["card", "微信"][(id % 2).unsigned_abs() as usize]))
                .collect::<StringArray>(),
        ),
        Arc::new(times.iter().copied().collect::<TimestampMillisecondArray>()),
        Arc::new(StringArray::from(vec![stream.topic.as_str(); rows])),
        Arc::new(Int32Array::from_iter_values((0..rows).map(|_| random.random_range(0..PARTITIONS)))),
        Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| first_offset + row))),
        Arc::new(
            TimestampMillisecondArray::from_iter_values(ids.iter().map(|id| sent(*id)))
                .with_timezone(stream.timezone.name()),
        ),
        Arc::new(StringArray::from(vec![Some("key"); rows])),
    ];
    RecordBatch::try_new(stream.schema(), columns).unwrap()
}

/// Events of one stream; times are milliseconds of wall time around `now`.
pub fn batch(stream: &Stream, rows: usize, now: i64, first_offset: i64, random: &mut StdRng) -> RecordBatch {
    if stream.unique.is_some() {
        return payment_batch(stream, rows, first_offset, random);
    }
    let mut columns: Vec<ArrayRef> = stream.columns.iter().map(|column| values(column, rows, now, random)).collect();
    columns.push(Arc::new(StringArray::from(vec![stream.topic.as_str(); rows])));
    columns.push(Arc::new(Int32Array::from_iter_values((0..rows).map(|_| random.random_range(0..3)))));
    columns.push(Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| first_offset + row))));
    let arrived = (0..rows).map(|_| now - (random.random::<f64>().powi(3) * 9.0 * DAY as f64) as i64);
    columns.push(Arc::new(TimestampMillisecondArray::from_iter_values(arrived).with_timezone(stream.timezone.name())));
    columns.push(Arc::new(StringArray::from(vec![None::<&str>; rows])));
    RecordBatch::try_new(stream.schema(), columns).unwrap()
}

/// Lists of up to three elements, some of them NULL.
fn lists(item: &FieldRef, rows: usize, now: i64, random: &mut StdRng) -> ArrayRef {
    let lengths: Vec<usize> = (0..rows).map(|_| random.random_range(0..4)).collect();
    let nulls = NullBuffer::from_iter((0..rows).map(|_| random.random_bool(0.9)));
    let elements = lengths.iter().sum();
    let items: ArrayRef = match item.data_type() {
        DataType::Struct(fields) => {
            let field =
                |field: &FieldRef| values(&column(field.name(), field.data_type().clone()), elements, now, random);
            let columns: Vec<ArrayRef> = fields.iter().map(field).collect();
            let present = NullBuffer::from_iter((0..elements).map(|_| random.random_bool(0.9)));
            // As they are decoded: no value hides below a NULL.
            let absent = BooleanArray::new(!present.inner(), None);
            let columns = columns.iter().map(|column| nullif(column, &absent).unwrap()).collect();
            Arc::new(StructArray::new(fields.clone(), columns, Some(present)))
        }
        other => values(&column("category", other.clone()), elements, now, random),
    };
    Arc::new(ListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), items, Some(nulls)))
}

fn values(column: &Column, rows: usize, now: i64, random: &mut StdRng) -> ArrayRef {
    let missing = |random: &mut StdRng| random.random_bool(0.06);
    let text = |choices: &[&str], random: &mut StdRng| -> ArrayRef {
        let pick = |random: &mut StdRng| {
            // Squaring skews towards the first choices.
            let at = random.random::<f64>().powi(2) * choices.len() as f64;
            (!missing(random)).then(|| choices[at as usize].to_string())
        };
        Arc::new((0..rows).map(|_| pick(random)).collect::<StringArray>())
    };
    match column.name.as_str() {
        "user_id" => Arc::new(
            (0..rows)
                .map(|_| {
                    (!column.nullable || !missing(random)).then(|| (random.random::<f64>().powi(3) * 25.0) as i64 - 3)
                })
                .collect::<Int64Array>(),
        ),
        "amount" => Arc::new(
            (0..rows)
                .map(|_| (!missing(random)).then(|| i128::from(random.random_range(-2_000..50_000))))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        "weight" => Arc::new(
            (0..rows)
                .map(|_| {
                    (!missing(random)).then(|| random.random_range(-1.0..1.0) * 10_f64.powi(random.random_range(-3..6)))
                })
                .collect::<Float64Array>(),
        ),
        "category" => text(&["手机", "食品", "books", "美妆", "Toys ", "toys", ""], random),
        "status" => text(&["paid", "refunded", "open"], random),
        "page" => text(&["home", "cart", "item", "search"], random),
        "payload" => {
            let n = random.random_range(0..9);
            let first = format!(
                "{{\"a\": {{\"b\": \"x{n}\"}}, \"n\": {n}, \"f\": {n}.5, \"ok\": true, \"l\": [1, \"书\", null]}}"
            );
            text(
                &[
                    &first,
                    "{\"a\": {\"b\": \"书\"}, \"n\": \"7\", \"l\": []}",
                    "{\"n\": 3, \"ok\": false}",
                    "{\"a\": [1, 2]}",
                    "no json",
                    "{",
                    "null",
                ],
                random,
            )
        }
        "device" => text(&["ios", "android", "web"], random),
        _ => match &column.data_type {
            DataType::List(item) => lists(item, rows, now, random),
            DataType::Timestamp(..) => Arc::new(
                (0..rows)
                    .map(|_| {
                        // Most are recent, some are old, some lie ahead; coarse steps make ties.
                        let back = (random.random::<f64>().powi(3) * 60.0 * DAY as f64) as i64 - DAY / 4;
                        // The year 9999 stands for "never" in many a database.
                        let never = 253_402_214_400_000;
                        let time = if random.random_bool(0.01) { never } else { (now - back) / 60_000 * 60_000 };
                        (!missing(random)).then_some(time)
                    })
                    .collect::<TimestampMillisecondArray>(),
            ),
            DataType::Int32 => Arc::new(
                (0..rows).map(|_| (!missing(random)).then(|| random.random_range(0..6))).collect::<Int32Array>(),
            ),
            DataType::Date32 => Arc::new(
                (0..rows)
                    .map(|_| (!missing(random)).then(|| random.random_range(-9_000..12_000)))
                    .collect::<Date32Array>(),
            ),
            DataType::Utf8 => text(&["上海", "app", "北京", "web", "male", "female", "x"], random),
            _ => Arc::new(
                (0..rows)
                    .map(|_| (!column.nullable || !missing(random)).then(|| random.random_range(-5..200)))
                    .collect::<Int64Array>(),
            ),
        },
    }
}

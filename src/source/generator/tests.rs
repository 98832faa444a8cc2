use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::*;
use crate::source::emit::StopFlag;
use crate::source::{DeadLetters, ReadRoom, SourceHandle, Tables};

const EPOCH: i64 = 1_769_818_500_000;

fn config() -> GeneratorConfig {
    GeneratorConfig { rate: 1_000, seed: 42, users: 2_000, history_days: 45, history_events: 42_000 }
}

fn shop() -> Shop {
    Shop::new(&config(), EPOCH)
}

fn json(record: &[u8]) -> serde_json::Value {
    serde_json::from_slice(record).unwrap()
}

#[test]
fn same_seed_gives_the_same_bytes_at_every_offset() {
    let (one, other) = (shop(), shop());
    let different = Shop::new(&GeneratorConfig { seed: 43, ..config() }, EPOCH);
    for stream in ShopStream::ALL {
        for (offset, record) in one.records(stream).take(500) {
            assert_eq!(record, other.generate(stream, offset));
        }
        assert_ne!(one.generate(stream, 7), different.generate(stream, 7));
    }
}

#[test]
fn history_ends_and_live_records_begin_at_the_epoch() {
    let shop = shop();
    for stream in ShopStream::ALL {
        let history = shop.history_len(stream);
        assert!(shop.arrival_ms(stream, 0) == EPOCH - 45 * 86_400_000);
        assert!(shop.arrival_ms(stream, history - 1) < EPOCH);
        assert_eq!(shop.arrival_ms(stream, history), EPOCH);
        assert_eq!(shop.available(stream, EPOCH - 1), history);
        assert_eq!(shop.available(stream, EPOCH), history + 1);
        for offset in [1, history / 2, history, history + 1, history + 999] {
            let at = shop.arrival_ms(stream, offset);
            assert!(shop.arrival_ms(stream, offset - 1) <= at);
            assert_eq!(shop.arrival_ms(stream, shop.first_at(stream, at)), at);
        }
    }
    let live: i64 = ShopStream::ALL
        .map(|stream| shop.available(stream, EPOCH + 10_000) - shop.available(stream, EPOCH))
        .iter()
        .sum();
    assert_eq!(live, 10_000);
}

#[test]
fn orders_have_guests_refunds_duplicates_and_skew() {
    let shop = shop();
    let records: Vec<Vec<u8>> = shop.records(ShopStream::Orders).map(|(_, record)| record).take(20_000).collect();
    let distinct: HashSet<&Vec<u8>> = records.iter().collect();
    let repeated = records.len() - distinct.len();
    assert!((100..400).contains(&repeated), "{repeated} duplicates");
    let orders: Vec<serde_json::Value> =
        distinct.iter().filter_map(|record| serde_json::from_slice(record).ok()).collect();
    let ids: HashSet<i64> = orders.iter().map(|order| order["order_id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), orders.len(), "different records have different ids");
    let guests = orders.iter().filter(|order| order["user_id"].is_null()).count();
    assert!((300..1_200).contains(&guests), "{guests} guests");
    let mut paid = 0;
    for order in &orders {
        let amount = order["amount"].as_f64().or_else(|| order["amount"].as_str()?.parse().ok());
        match order["status"].as_str().unwrap() {
            "refunded" => assert!(amount.unwrap() < 0.0),
            _ => paid += usize::from(amount.is_none_or(|amount| amount > 0.0)),
        }
    }
    let refunded = orders.len() - paid;
    assert!((400..1_200).contains(&refunded), "{refunded} refunds");
    let mut by_user: HashMap<i64, usize> = HashMap::new();
    orders.iter().filter_map(|order| order["user_id"].as_i64()).for_each(|user| *by_user.entry(user).or_default() += 1);
    assert!(by_user.len() > 1_000 && by_user.values().max().unwrap() > &100, "{} users", by_user.len());
}

#[test]
fn page_views_and_users_are_valid_json_of_the_declared_shape() {
    let shop = shop();
    let view = json(&shop.generate(ShopStream::PageViews, 5));
    assert_eq!(
        view.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["view_id", "user_id", "page", "category", "device", "duration_ms", "referrer", "view_time"]
    );
    let users: Vec<_> = shop.records(ShopStream::Users).take(2_000).map(|(_, record)| json(&record)).collect();
    assert_eq!(
        users[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["user_id", "name", "gender", "birthday", "city", "level", "channel", "registered_at"]
    );
    assert!(users.iter().enumerate().all(|(at, user)| user["user_id"] == 10_001 + at as u64));
    shop.records(ShopStream::PageViews).skip(31_000).take(3_000).for_each(|(_, record)| drop(json(&record)));
}

#[test]
fn some_records_cannot_be_decoded() {
    let shop = shop();
    let broken = |offset: &i64| {
        let record = shop.generate(ShopStream::Orders, *offset);
        record.ends_with(b":") || record.windows(14).any(|part| part == br#""amount":"N/A""#)
    };
    let count = (0..400_000).filter(broken).count();
    assert!((1..20).contains(&count), "{count}");
}

fn context(state_dir: &Path, now: i64) -> SourceContext {
    let wall_clock: crate::source::WallClock = Arc::new(move || now);
    SourceContext {
        timezone: chrono_tz::Asia::Shanghai,
        root: "nowhere".into(),
        dead_letters: Arc::new(DeadLetters::new(state_dir.join("dead-letters"), 1 << 20, wall_clock.clone())),
        tables: Arc::new(Tables::new(state_dir)),
        state_dir: state_dir.to_path_buf(),
        wall_clock,
        registries: crate::source::Registries::default(),
    }
}

fn request(topic: &str, from: &[(i32, i64)], until: Option<i64>) -> ReadRequest {
    use crate::catalog::{Column, Stream, TimestampFormat};
    let order_id = Column {
        name: "order_id".into(),
        data_type: arrow::datatypes::DataType::Int64,
        nullable: false,
        path: vec!["order_id".into()],
        timestamp_format: TimestampFormat::Iso,
        misfits: Default::default(),
    };
    let stream = Stream {
        name: "orders".into(),
        file: "schemas/orders.toml".into(),
        title: None,
        connection: "shop".into(),
        topic: topic.into(),
        format: Format::Json,
        timezone: chrono_tz::Tz::UTC,
        start: Start::Earliest,
        time: None,
        kind: Default::default(),
        key: vec![],
        truncates: false,
        on_lost: Default::default(),
        history: None,
        archive: None,
        unique: None,
        columns: vec![order_id],
    };
    let until = until.map(|until| BTreeMap::from([(0, until)]));
    ReadRequest {
        stream: Arc::new(stream),
        columns: vec![0, 3],
        from: from.iter().copied().collect(),
        until,
        room: ReadRoom::default(),
    }
}

#[test]
fn bounded_read_delivers_each_offset_once_and_finishes() {
    let dir = tempfile::tempdir().unwrap();
    let (events, received) = sync_channel(4);
    let stop = Arc::new(StopFlag::default());
    let emitter = Emitter::new("orders", events, stop.clone());
    let request = request("shop.orders", &[(0, 100)], Some(9_000));
    let threads = start(request, &config(), &context(dir.path(), EPOCH), emitter).unwrap();
    let _handle = SourceHandle::new(stop, threads);
    let mut reached = 100;
    for event in received {
        match event {
            SourceEvent::Partition { beginning, end, next, .. } => assert_eq!((beginning, end, next), (0, 10_001, 100)),
            SourceEvent::Batch(batch) => {
                assert!(batch.offsets.iter().all(|offset| (reached..batch.next_offset).contains(offset)));
                assert_eq!(batch.batch.num_rows(), batch.offsets.len());
                reached = batch.next_offset;
            }
            SourceEvent::Announced { .. } => assert_eq!(reached, 100),
            SourceEvent::Finished { .. } => assert_eq!(reached, 9_000),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reached, 9_000);
}

#[test]
fn epoch_of_the_first_start_holds_for_all_later_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/generator.json");
    for later in [0, 3_600_000, 7_200_000] {
        assert_eq!(epoch(&path, &config(), EPOCH + later).unwrap(), Ok(EPOCH));
    }
    assert_eq!(fs::read_dir(dir.path().join("state")).unwrap().count(), 1, "no draft is left behind");
}

#[test]
fn changed_settings_are_refused_with_the_first_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generator.json");
    assert_eq!(epoch(&path, &config(), EPOCH).unwrap(), Ok(EPOCH));
    let message = epoch(&path, &GeneratorConfig { rate: 1, ..config() }, EPOCH).unwrap().unwrap_err();
    assert!(message.contains("rate = 1000, seed = 42, users = 2000"), "{message}");
}

#[test]
fn unknown_stream_is_refused_with_the_nearest_name() {
    let dir = tempfile::tempdir().unwrap();
    let (events, _received) = sync_channel(4);
    let emitter = Emitter::new("orders", events, Arc::new(StopFlag::default()));
    let outcome = start(request("shop.order", &[], None), &config(), &context(dir.path(), EPOCH), emitter);
    assert_eq!(
        outcome.err().unwrap().to_string(),
        "stream \"orders\": the generator has no stream \"order\", only orders, page_views, users; did you mean \"orders\"?"
    );
}

//! Faults of the cluster, against librdkafka's own mock of one; everything else is tested with a real broker (`tests/e2e`).

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::*;
use crate::catalog::{Column, Format, Start, Stream, TimestampFormat};
use crate::config::Connection;
use crate::source::{DeadLetters, ReadRoom, SourceEvent, SourceHandle, Tables, WallClock, start_source};

const PATIENCE: Duration = Duration::from_secs(40);
const TOPIC: &str = "shop.orders";

fn start_reading(
    dir: &std::path::Path,
    brokers: &str,
    properties: &[(&str, &str)],
) -> Result<(SourceHandle, Receiver<SourceEvent>), SourceError> {
    let column = Column {
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
        topic: TOPIC.into(),
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
        columns: vec![column],
    };
    let wall_clock: WallClock = Arc::new(|| 0);
    let context = SourceContext {
        timezone: chrono_tz::UTC,
        root: "nowhere".into(),
        dead_letters: Arc::new(DeadLetters::new(dir, 1 << 20, wall_clock.clone())),
        tables: Arc::new(Tables::new(dir)),
        state_dir: dir.to_path_buf(),
        wall_clock,
        registries: crate::source::Registries::default(),
    };
    let properties = properties.iter().map(|(name, value)| ((*name).into(), Secret::new(*value))).collect();
    let connection = Connection::Kafka { brokers: brokers.into(), properties, registry: None };
    let (sender, events) = sync_channel(4);
    let request = ReadRequest {
        stream: Arc::new(stream),
        columns: vec![0],
        from: BTreeMap::new(),
        until: None,
        room: ReadRoom::default(),
    };
    Ok((start_source(request, &connection, &context, sender)?, events))
}

fn write(cluster: &MockCluster<'_, DefaultProducerContext>, ids: std::ops::Range<i64>) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for id in ids {
        let payload = format!("{{\"order_id\":{id}}}");
        producer.send(BaseRecord::<(), str>::to(TOPIC).partition(0).payload(&payload)).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

#[test]
fn broker_that_goes_away_is_one_trouble_and_reading_goes_on_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    write(&cluster, 0..10);
    let (_handle, events) = start_reading(dir.path(), &cluster.bootstrap_servers(), &[]).unwrap();
    let mut offsets: Vec<i64> = Vec::new();
    let mut troubles = Vec::new();
    let mut is_down = false;
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            SourceEvent::Partition { .. } | SourceEvent::Announced { .. } | SourceEvent::AtEnd { .. } => {}
            SourceEvent::Batch(batch) => offsets.extend(batch.offsets),
            SourceEvent::Trouble { message, .. } => {
                troubles.push(message);
                cluster.broker_up(1).unwrap();
            }
            SourceEvent::Recovered { .. } => break,
            other => panic!("{other:?}"),
        }
        if offsets.len() == 10 && !std::mem::replace(&mut is_down, true) {
            cluster.broker_down(1).unwrap();
        }
    }
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    assert!(troubles[0].starts_with("no answer from 127.0.0.1:"), "{troubles:?}");
    write(&cluster, 10..20);
    while offsets.len() < 20 {
        match events.recv_timeout(PATIENCE).unwrap() {
            SourceEvent::Batch(batch) => offsets.extend(batch.offsets),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(offsets, (0..20).collect::<Vec<_>>());
}

#[test]
fn partition_whose_leader_moves_is_read_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = MockCluster::new(2).unwrap();
    cluster.create_topic(TOPIC, 1, 2).unwrap();
    cluster.partition_leader(TOPIC, 0, Some(1)).unwrap();
    write(&cluster, 0..10);
    let (_handle, events) = start_reading(dir.path(), &cluster.bootstrap_servers(), &[]).unwrap();
    let mut offsets: Vec<i64> = Vec::new();
    for (leader, ids) in [(2, 10..20), (1, 20..30), (2, 30..30)] {
        while (offsets.len() as i64) < ids.start {
            match events.recv_timeout(PATIENCE).unwrap() {
                SourceEvent::Batch(batch) => offsets.extend(batch.offsets),
                SourceEvent::Failed { message, .. } => panic!("{message}"),
                _ => {}
            }
        }
        cluster.partition_leader(TOPIC, 0, Some(leader)).unwrap();
        write(&cluster, ids);
    }
    assert_eq!(offsets, (0..30).collect::<Vec<_>>());
}

#[test]
fn cluster_that_was_of_no_use_for_long_is_read_by_a_new_client_once_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    write(&cluster, 0..10);
    cluster.partition_leader(TOPIC, 0, None).unwrap();
    let began = std::time::Instant::now();
    let (_handle, events) = start_reading(dir.path(), &cluster.bootstrap_servers(), &[]).unwrap();
    let mut offsets: Vec<i64> = Vec::new();
    let mut is_led = false;
    while offsets.len() < 10 {
        match events.recv_timeout(Duration::from_millis(200)) {
            Ok(SourceEvent::Batch(batch)) => offsets.extend(batch.offsets),
            Ok(SourceEvent::Failed { message, .. }) => panic!("{message}"),
            _ => assert!(began.elapsed() < PATIENCE * 2),
        }
        if began.elapsed() > coordinator::RENEWED_AFTER + coordinator::RENEWED_AFTER / 2 && !is_led {
            assert_eq!(offsets, Vec::<i64>::new());
            cluster.partition_leader(TOPIC, 0, Some(1)).unwrap();
            is_led = true;
        }
    }
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
}

#[test]
fn stop_is_prompt_while_the_broker_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    cluster.broker_round_trip_time(1, Duration::from_secs(60)).unwrap();
    let (handle, _events) = start_reading(dir.path(), &cluster.bootstrap_servers(), &[]).unwrap();
    let began = std::time::Instant::now();
    handle.stop();
    // It gives up on its threads after 150 ms; the rest is for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn wrong_property_is_refused_without_its_value() {
    let dir = tempfile::tempdir().unwrap();
    for (property, value) in [("sasl.pasword", "secret"), ("fetch.wait.max.ms", "secret")] {
        let error = start_reading(dir.path(), "127.0.0.1:1", &[(property, value)]).err().unwrap().to_string();
        assert!(error.starts_with(&format!("stream \"orders\": kafka property {property:?}: ")), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn missing_records_are_named() {
    assert_eq!(out_of_range("t", 0, 5, 5, 9), None);
    assert_eq!(out_of_range("t", 0, 9, 5, 9), None);
    assert!(out_of_range("t", 3, 4, 5, 9).unwrap().starts_with("topic \"t\" partition 3: records 4 to 4 are gone"));
    assert!(out_of_range("t", 3, 10, 5, 9).unwrap().contains("record 10 should be next but the topic ends at 9"));
}

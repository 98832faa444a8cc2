//! The Kafka source against a real broker, whose address is in `TAGFLOW_TEST_KAFKA`.
//!
//! Every test makes a topic of its own, so that they may run side by side and again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use rdkafka::producer::Producer;
use tagflow::catalog::{Column, Format, Start, Stream, TimestampFormat};
use tagflow::config::{Connection, Secret};
use tagflow::source::{
    DeadLetters, ReadRequest, ReadRoom, Registries, SourceContext, SourceEvent, SourceHandle, Tables, WallClock,
    start_source,
};

use crate::topic::{PATIENCE, Topic, send};

impl Topic {
    pub fn write_ids(&self, partition: i32, ids: std::ops::Range<i64>) {
        let records: Vec<_> = ids.map(|id| (order(id), None)).collect();
        self.write(partition, &records);
    }

    pub fn request(&self) -> ReadRequest {
        let id = Column {
            name: "order_id".into(),
            data_type: DataType::Int64,
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
            topic: self.name.clone(),
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
            columns: vec![id],
        };
        ReadRequest {
            stream: Arc::new(stream),
            columns: vec![0],
            from: BTreeMap::new(),
            until: None,
            room: ReadRoom::default(),
        }
    }

    pub fn read(&self, request: ReadRequest) -> Reading {
        self.read_with(request, &[])
    }

    pub fn read_with(&self, request: ReadRequest, properties: &[(&str, &str)]) -> Reading {
        let dir = tempfile::tempdir().unwrap();
        let reading = self.read_in(dir.path(), request, properties);
        Reading { _dir: Some(dir), ..reading }
    }

    /// By another listener of the broker.
    pub fn read_at(&self, brokers: String, request: ReadRequest, properties: &[(&str, &str)]) -> Reading {
        let dir = tempfile::tempdir().unwrap();
        let reading = read(dir.path(), brokers, request, properties);
        Reading { _dir: Some(dir), ..reading }
    }

    /// With a state directory that outlives the reader.
    pub fn read_in(&self, dir: &Path, request: ReadRequest, properties: &[(&str, &str)]) -> Reading {
        read(dir, self.brokers.clone(), request, properties)
    }
}

fn read(dir: &Path, brokers: String, request: ReadRequest, properties: &[(&str, &str)]) -> Reading {
    let wall_clock: WallClock = Arc::new(|| 0);
    let dead_letters = Arc::new(DeadLetters::new(dir.join("dead-letters"), 1 << 20, wall_clock.clone()));
    let context = SourceContext {
        timezone: chrono_tz::Asia::Shanghai,
        root: "nowhere".into(),
        dead_letters: dead_letters.clone(),
        tables: Arc::new(Tables::new(dir)),
        state_dir: dir.to_path_buf(),
        wall_clock,
        registries: Registries::default(),
    };
    let properties = properties.iter().map(|(name, value)| ((*name).into(), Secret::new(*value))).collect();
    let connection = Connection::Kafka { brokers, properties, registry: None };
    let (sender, events) = sync_channel(4);
    let handle = start_source(request, &connection, &context, sender).unwrap();
    Reading {
        events,
        handle,
        dead_letters,
        _dir: None,
        rows: BTreeMap::new(),
        next: BTreeMap::new(),
        is_announced: false,
        ended: BTreeSet::new(),
    }
}

pub fn order(id: i64) -> String {
    format!("{{\"order_id\":{id}}}")
}

/// What a reader has told so far.
pub struct Reading {
    events: Receiver<SourceEvent>,
    handle: SourceHandle,
    pub dead_letters: Arc<DeadLetters>,
    _dir: Option<tempfile::TempDir>,
    /// (offset, id) by partition.
    rows: BTreeMap<i32, Vec<(i64, i64)>>,
    next: BTreeMap<i32, i64>,
    is_announced: bool,
    /// Partitions that were read as far as it goes.
    ended: BTreeSet<i32>,
}

impl Reading {
    /// Takes one event; batches are checked and counted here, others are given back.
    pub fn step(&mut self) -> Option<SourceEvent> {
        match self.events.recv_timeout(PATIENCE).expect("an event should come") {
            SourceEvent::Announced { .. } => {
                self.is_announced = true;
                None
            }
            SourceEvent::AtEnd { partition } => {
                self.ended.insert(partition.number);
                None
            }
            SourceEvent::Batch(batch) => {
                let number = batch.partition.number;
                let ids = batch.batch.column(0).as_primitive::<Int64Type>();
                assert_eq!(ids.len(), batch.offsets.len());
                assert!(batch.end_offset >= batch.next_offset);
                let next =
                    self.next.entry(number).or_insert(batch.next_offset.min(*batch.offsets.first().unwrap_or(&0)));
                assert!(batch.offsets.iter().all(|offset| (*next..batch.next_offset).contains(offset)), "{batch:?}");
                assert!(batch.offsets.is_sorted_by(|one, other| one < other));
                *next = batch.next_offset;
                let rows = batch.offsets.iter().copied().zip(ids.values().iter().copied());
                self.rows.entry(number).or_default().extend(rows);
                None
            }
            other => Some(other),
        }
    }

    pub fn count(&self) -> usize {
        self.rows.values().map(Vec::len).sum()
    }

    pub fn until_rows(&mut self, count: usize) {
        while self.count() < count {
            if let Some(event) = self.step() {
                assert!(matches!(event, SourceEvent::Partition { .. }), "{event:?}");
            }
        }
        assert_eq!(self.count(), count);
    }

    fn until_finished(&mut self) {
        loop {
            match self.step() {
                None | Some(SourceEvent::Partition { .. }) => {}
                Some(SourceEvent::Finished { .. }) => break,
                Some(other) => panic!("{other:?}"),
            }
        }
        assert!(self.events.recv_timeout(PATIENCE).is_err(), "nothing follows the end");
    }

    /// What is wrong, passing or not; nothing is read before.
    pub fn until_told(&mut self) -> String {
        loop {
            match self.step() {
                Some(SourceEvent::Trouble { message, .. } | SourceEvent::Failed { message, .. }) => return message,
                Some(SourceEvent::Finished { .. }) => panic!("finished instead of failing"),
                _ => assert_eq!(self.count(), 0),
            }
        }
    }

    pub fn until_failed(&mut self) -> String {
        loop {
            match self.step() {
                Some(SourceEvent::Failed { message, .. }) => return message,
                Some(SourceEvent::Finished { .. }) => panic!("finished instead of failing"),
                _ => {}
            }
        }
    }

    pub fn ids(&self, partition: i32) -> Vec<i64> {
        self.rows.get(&partition).map(|rows| rows.iter().map(|(_, id)| *id).collect()).unwrap_or_default()
    }
}

#[test]
fn every_record_of_every_partition_arrives_once_and_in_order() {
    let topic = Topic::with_partitions("all", 3);
    for partition in 0..3 {
        topic.write_ids(partition, 0..20_000);
    }
    let mut reading = topic.read(topic.request());
    reading.until_rows(60_000);
    topic.write_ids(1, 20_000..20_010);
    reading.until_rows(60_010);
    for (partition, count) in [(0, 20_000), (1, 20_010), (2, 20_000)] {
        assert_eq!(reading.rows[&partition], (0..count).map(|at| (at, at)).collect::<Vec<_>>());
    }
}

#[test]
fn record_that_does_not_decode_is_a_dead_letter_and_the_stream_goes_on() {
    let topic = Topic::with_partitions("dead", 1);
    topic.write(0, &[(order(1), None), ("{\"order_id\":\"x\"}".into(), Some(1_700_000_000_000)), (order(3), None)]);
    let mut reading = topic.read(topic.request());
    reading.until_rows(2);
    assert_eq!(reading.rows[&0], [(0, 1), (2, 3)]);
    let letters = reading.dead_letters.read("orders").unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].partition, letters[0].offset, letters[0].timestamp), (0, 1, Some(1_700_000_000_000)));
    assert_eq!(letters[0].topic, topic.name);
    assert_eq!(letters[0].raw.as_deref(), Some("{\"order_id\":\"x\"}"));
}

#[test]
fn start_latest_reads_only_what_comes_later() {
    let topic = Topic::with_partitions("latest", 1);
    topic.write_ids(0, 0..10);
    let mut request = topic.request();
    Arc::make_mut(&mut request.stream).start = Start::Latest;
    let mut reading = topic.read(request);
    match reading.step() {
        Some(SourceEvent::Partition { beginning: 0, end: 10, next: 10, .. }) => {}
        other => panic!("{other:?}"),
    }
    topic.write_ids(0, 10..12);
    reading.until_rows(2);
    assert_eq!(reading.ids(0), [10, 11]);
}

#[test]
fn start_at_a_time_reads_from_the_first_record_of_that_time() {
    let topic = Topic::with_partitions("time", 2);
    let at = |id: i64| (order(id), Some(1_700_000_000_000 + id * 1_000));
    topic.write(0, &(0..10).map(at).collect::<Vec<_>>());
    topic.write(1, &[at(0)]);
    let mut request = topic.request();
    Arc::make_mut(&mut request.stream).start = Start::Timestamp(1_700_000_006_500);
    let mut reading = topic.read(request);
    reading.until_rows(3);
    assert_eq!(reading.ids(0), [7, 8, 9]);
    topic.write_ids(1, 50..51);
    reading.until_rows(4);
    assert_eq!(reading.ids(1), [50]);
}

#[test]
fn offsets_that_are_handed_in_win_over_start() {
    let topic = Topic::with_partitions("from", 2);
    topic.write_ids(0, 0..10);
    topic.write_ids(1, 0..10);
    let mut request = topic.request();
    Arc::make_mut(&mut request.stream).start = Start::Latest;
    request.from = BTreeMap::from([(0, 7)]);
    let mut reading = topic.read(request);
    // Partition 1 is new beside a known one, so that none of it may be skipped.
    reading.until_rows(13);
    assert_eq!(reading.ids(0), [7, 8, 9]);
    assert_eq!(reading.ids(1), (0..10).collect::<Vec<_>>());
}

#[test]
fn bounded_read_delivers_exactly_up_to_its_ends() {
    let topic = Topic::with_partitions("bounded", 3);
    for partition in 0..3 {
        topic.write_ids(partition, 0..30_000);
    }
    let mut request = topic.request();
    request.from = BTreeMap::from([(0, 100), (1, 500), (2, 0)]);
    request.until = Some(BTreeMap::from([(0, 20_001), (1, 500), (2, 30_000)]));
    let mut reading = topic.read(request);
    reading.until_finished();
    assert_eq!(reading.ids(0), (100..20_001).collect::<Vec<_>>());
    assert_eq!(reading.ids(1), [0i64; 0]);
    assert_eq!(reading.ids(2), (0..30_000).collect::<Vec<_>>());
}

#[test]
fn bounded_read_ends_although_its_last_offsets_are_transaction_markers() {
    let topic = Topic::with_partitions("markers", 1);
    topic.write_ids(0, 0..5);
    let transaction = |ids: std::ops::Range<i64>, commit: bool| {
        let producer = topic.producer(&[("transactional.id", &topic.name)]);
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        send(&producer, &topic.name, 0, &ids.map(|id| (order(id), None)).collect::<Vec<_>>());
        producer.flush(PATIENCE).unwrap();
        match commit {
            true => producer.commit_transaction(PATIENCE).unwrap(),
            false => producer.abort_transaction(PATIENCE).unwrap(),
        }
    };
    transaction(5..8, true);
    transaction(90..95, false);
    // Offsets: 0-4, 5-7, marker 8, aborted 9-13, marker 14.
    for until in [8, 9, 12, 15] {
        let mut request = topic.request();
        request.until = Some(BTreeMap::from([(0, until)]));
        let mut reading = topic.read(request);
        reading.until_finished();
        assert_eq!(reading.ids(0), (0..8).collect::<Vec<_>>());
        assert_eq!(reading.next[&0], until, "the holes at the end are behind the reader as well");
    }
    let mut endless = topic.read(topic.request());
    while !endless.ended.contains(&0) {
        endless.step();
    }
    assert!(endless.is_announced);
    assert_eq!(endless.ids(0), (0..8).collect::<Vec<_>>(), "the end is told behind all that can be read");
}

#[test]
fn records_lost_to_retention_are_a_failure_that_names_them() {
    let topic = Topic::with_partitions("lost", 1);
    topic.write_ids(0, 0..10);
    topic.delete_before(0, 6);
    let mut request = topic.request();
    request.from = BTreeMap::from([(0, 4)]);
    let message = topic.read(request).until_failed();
    let expected = format!("topic {:?} partition 0: records 4 to 5 are gone (the topic now begins at 6)", topic.name);
    assert!(message.starts_with(&expected), "{message}");
    // Without a checkpoint nothing was promised.
    let mut reading = topic.read(topic.request());
    reading.until_rows(4);
    let mut request = topic.request();
    request.from = BTreeMap::from([(0, 11)]);
    let message = topic.read(request).until_failed();
    assert!(message.contains("record 11 should be next but the topic ends at 10"), "{message}");
}

#[test]
fn records_that_vanish_under_a_slow_reader_are_a_failure() {
    let topic = Topic::with_partitions("vanish", 1);
    topic.write_ids(0, 0..200_000);
    // So little is fetched ahead that the reader has to ask for what is gone.
    let small =
        [("queued.min.messages", "1000"), ("queued.max.messages.kbytes", "64"), ("max.partition.fetch.bytes", "16384")];
    let mut reading = topic.read_with(topic.request(), &small);
    while reading.count() == 0 {
        reading.step();
    }
    topic.delete_before(0, 199_990);
    let message = reading.until_failed();
    let next = reading.next[&0];
    assert!(message.contains(&format!("records {next} to 199989 are gone")), "{message}");
    assert_eq!(reading.ids(0), (0..next).collect::<Vec<_>>(), "what was read before is whole");
}

#[test]
fn topic_that_is_made_later_is_waited_for_and_read_from_its_beginning() {
    let topic = Topic::named("later");
    let mut request = topic.request();
    Arc::make_mut(&mut request.stream).start = Start::Latest;
    let mut reading = topic.read(request);
    match reading.step() {
        Some(SourceEvent::Trouble { message, .. }) => assert!(message.contains("does not exist"), "{message}"),
        other => panic!("{other:?}"),
    }
    // Only after a while: a cluster that starts may not know its topics yet.
    let missing = reading.step();
    assert!(matches!(missing, Some(SourceEvent::Missing { .. })), "{missing:?}");
    assert!(!reading.is_announced);
    topic.create(1);
    topic.write_ids(0, 0..3);
    let mut has_recovered = false;
    while reading.count() < 3 || !has_recovered {
        match reading.step() {
            None | Some(SourceEvent::Partition { .. }) => {}
            Some(SourceEvent::Recovered { .. }) => has_recovered = true,
            Some(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(reading.ids(0), [0, 1, 2]);
}

#[test]
fn new_partition_is_found_and_read_from_its_beginning() {
    let topic = Topic::with_partitions("grow", 1);
    let mut request = topic.request();
    Arc::make_mut(&mut request.stream).start = Start::Latest;
    let mut reading = topic.read(request);
    assert!(matches!(reading.step(), Some(SourceEvent::Partition { .. })));
    topic.grow(2);
    // The producer, too, has to learn of the partition first.
    topic.write_ids(1, 0..5);
    reading.until_rows(5);
    assert_eq!(reading.ids(1), [0, 1, 2, 3, 4]);
}

#[test]
fn two_readers_of_one_stream_do_not_disturb_each_other() {
    let topic = Topic::with_partitions("two", 2);
    topic.write_ids(0, 0..5_000);
    topic.write_ids(1, 0..5_000);
    let mut live = topic.read(topic.request());
    let mut request = topic.request();
    request.until = Some(BTreeMap::from([(0, 4_000), (1, 5_000)]));
    let mut fill = topic.read(request);
    fill.until_finished();
    assert_eq!((fill.ids(0).len(), fill.ids(1).len()), (4_000, 5_000));
    live.until_rows(10_000);
}

#[test]
fn stop_is_prompt_even_when_nobody_takes_the_batches() {
    let topic = Topic::with_partitions("stop", 2);
    topic.write_ids(0, 0..100_000);
    topic.write_ids(1, 0..100_000);
    let mut reading = topic.read(topic.request());
    while reading.count() == 0 {
        reading.step();
    }
    let began = Instant::now();
    reading.handle.stop();
    // It gives up on its threads after 150 ms; the rest is for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn refused_login_is_a_failure_that_keeps_the_password() {
    let topic = Topic::with_partitions("login", 1);
    // The test's broker wants no login, so it refuses any.
    let login = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "tagflow"),
        ("sasl.password", "not-to-be-seen"),
    ];
    let message = topic.read_with(topic.request(), &login).until_failed();
    assert!(message.starts_with(&format!("topic {:?} at ", topic.name)), "{message}");
    assert!(message.to_lowercase().contains("sasl") && !message.contains("not-to-be-seen"), "{message}");
}

#[test]
#[ignore = "prints rows/s; worth running in release only"]
fn speed_of_reading() {
    let topic = Topic::with_partitions("speed", 4);
    let records: Vec<_> = (0..250_000)
        .map(|id| {
            let text = format!(
                r#"{{"order_id":{id},"user_id":{},"amount":{}.25,"status":"paid","category":"手机","city":"上海","channel":"app","order_time":{},"note":"x"}}"#,
                id * 7919 % 1_000_000,
                id % 500,
                1_769_818_500_000i64 + id
            );
            (text, None)
        })
        .collect();
    for partition in 0..4 {
        topic.write(partition, &records);
    }
    let began = Instant::now();
    let mut reading = topic.read(topic.request());
    reading.until_rows(1_000_000);
    println!("{:.2} M rows/s", 1.0 / began.elapsed().as_secs_f64());
}

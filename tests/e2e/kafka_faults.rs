//! What a real broker does to a reader: topics deleted and made again, codecs, records of any size, readers that stop.

use std::collections::BTreeMap;
use std::path::Path;

use futures::executor::block_on;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::producer::Producer;
use tagflow::source::SourceEvent;

use crate::kafka_source::{Reading, order};
use crate::topic::{PATIENCE, Topic, send};

impl Topic {
    /// Deletes the topic and makes it anew, with as many records.
    fn make_again(&self, records: i64) {
        self.create_again();
        self.write_ids(0, 1000..1000 + records);
    }

    fn read_on(&self, state_dir: &Path, next: i64) -> Reading {
        let mut request = self.request();
        request.from = BTreeMap::from([(0, next)]);
        self.read_in(state_dir, request, &[])
    }
}

#[test]
fn topic_that_was_made_again_with_as_many_records_is_a_failure_after_a_restart() {
    let topic = Topic::with_partitions("again", 1);
    let state = tempfile::tempdir().unwrap();
    topic.write_ids(0, 0..10);
    topic.read_in(state.path(), topic.request(), &[]).until_rows(10);
    // The same topic is read on.
    topic.write_ids(0, 10..12);
    let mut reading = topic.read_on(state.path(), 10);
    reading.until_rows(2);
    drop(reading);
    topic.make_again(20);
    for request in [None, Some(12)] {
        let mut reading = match request {
            Some(next) => topic.read_on(state.path(), next),
            // Nor may a tag be filled from one topic and follow another.
            None => topic.read_in(state.path(), topic.request(), &[]),
        };
        let message = reading.until_failed();
        let expected = format!("topic {:?} was deleted and made again: its id was ", topic.name);
        assert!(message.starts_with(&expected), "{message}");
        assert_eq!(reading.count(), 0);
    }
    // Without what was known of the old one it is a topic like any other.
    std::fs::remove_dir_all(state.path().join("topics")).unwrap();
    topic.read_in(state.path(), topic.request(), &[]).until_rows(20);
}

#[test]
fn topic_that_goes_under_a_reader_is_trouble_and_a_failure_once_it_is_made_again() {
    let topic = Topic::with_partitions("gone", 1);
    topic.write_ids(0, 0..10);
    let mut reading = topic.read(topic.request());
    reading.until_rows(10);
    topic.delete();
    let trouble = loop {
        match reading.step() {
            Some(SourceEvent::Trouble { message, .. }) => break message,
            Some(SourceEvent::Failed { message, .. }) => panic!("{message}"),
            _ => {}
        }
    };
    assert!(trouble.contains(&topic.name), "{trouble}");
    topic.create(1);
    topic.write_ids(0, 1000..1005);
    let message = reading.until_failed();
    assert!(message.contains("made again"), "{message}");
    assert_eq!(reading.ids(0), (0..10).collect::<Vec<_>>(), "nothing of the new topic is taken");
}

#[test]
fn records_of_every_codec_arrive_in_order() {
    let topic = Topic::with_partitions("codecs", 1);
    for (at, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        let at = at as i64 * 1000;
        let records: Vec<_> = (at..at + 1000).map(|id| (order(id), None)).collect();
        let producer = topic.producer(&[("compression.codec", codec), ("linger.ms", "50")]);
        send(&producer, &topic.name, 0, &records);
        producer.flush(PATIENCE).unwrap();
    }
    let mut reading = topic.read(topic.request());
    reading.until_rows(5000);
    assert_eq!(reading.ids(0), (0..5000).collect::<Vec<_>>());
}

#[test]
fn record_larger_than_a_fetch_arrives_and_one_that_is_no_record_at_all_holds_nobody_up() {
    let topic = Topic::named("large");
    let settings = NewTopic::new(&topic.name, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "20000000");
    block_on(topic.admin.create_topics([&settings], &AdminOptions::new())).unwrap().remove(0).unwrap();
    let producer = topic.producer(&[("message.max.bytes", "20000000")]);
    let large = format!("{{\"order_id\":1,\"note\":\"{}\"}}", "x".repeat(9_000_000));
    let poison = "\u{0}".repeat(9_000_000);
    let records = [(order(0), None), (large, None), (poison, None), (order(3), None)];
    send(&producer, &topic.name, 0, &records);
    producer.flush(PATIENCE).unwrap();
    // The share of a partition in one fetch is less than half of each.
    let mut reading = topic.read(topic.request());
    reading.until_rows(3);
    assert_eq!(reading.ids(0), [0, 1, 3]);
    let letters = reading.dead_letters.read("orders").unwrap();
    assert_eq!((letters.len(), letters[0].offset, letters[0].cut_from), (1, 2, Some(9_000_000)));
}

#[test]
fn reader_whose_batches_nobody_takes_for_a_while_goes_on_where_it_was() {
    let topic = Topic::with_partitions("slow", 1);
    topic.write_ids(0, 0..200_000);
    let mut reading =
        topic.read_with(topic.request(), &[("session.timeout.ms", "6000"), ("max.poll.interval.ms", "6000")]);
    while reading.count() == 0 {
        reading.step();
    }
    // Longer than a member of a group may be silent.
    std::thread::sleep(std::time::Duration::from_secs(7));
    reading.until_rows(200_000);
    assert_eq!(reading.ids(0), (0..200_000).collect::<Vec<_>>());
}

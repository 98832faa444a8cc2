//! Topics of the real broker, each of one test.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Longest wait for anything; new partitions are looked for every ten seconds.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub fn brokers() -> String {
    std::env::var("TAGFLOW_TEST_KAFKA")
        .expect("TAGFLOW_TEST_KAFKA must name a Kafka broker (host:port); `make test` starts one and sets it")
}

/// A topic of one test, gone at its end.
pub struct Topic {
    pub name: String,
    pub brokers: String,
    pub admin: AdminClient<DefaultClientContext>,
}

impl Topic {
    /// A topic that does not exist yet.
    pub fn named(test: &str) -> Self {
        Topic::at(brokers(), test)
    }

    /// The same of a cluster of the test's own.
    pub fn at(brokers: String, test: &str) -> Self {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let admin = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        Topic { name: format!("tagflow-test.{test}.{nanos}"), brokers, admin }
    }

    pub fn create(&self, partitions: i32) {
        let topic = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for outcome in block_on(self.admin.create_topics([&topic], &options)).unwrap() {
            outcome.unwrap();
        }
    }

    pub fn with_partitions(test: &str, partitions: i32) -> Self {
        let topic = Topic::named(test);
        topic.create(partitions);
        topic
    }

    /// Gives it more partitions, up to so many.
    pub fn grow(&self, partitions: usize) {
        let more = NewPartitions::new(&self.name, partitions);
        for outcome in block_on(self.admin.create_partitions([&more], &AdminOptions::new())).unwrap() {
            outcome.unwrap();
        }
    }

    pub fn delete(&self) {
        for outcome in block_on(self.admin.delete_topics(&[&self.name], &AdminOptions::new())).unwrap() {
            outcome.unwrap();
        }
    }

    /// Deletes the topic and makes it anew, with one partition.
    pub fn create_again(&self) {
        self.delete();
        let topic = NewTopic::new(&self.name, 1, TopicReplication::Fixed(1));
        let made = || block_on(self.admin.create_topics([&topic], &AdminOptions::new())).unwrap().remove(0);
        let begun = Instant::now();
        // The old one may still be on its way out.
        while made().is_err() {
            assert!(begun.elapsed() < PATIENCE, "the topic cannot be made again");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn producer(&self, properties: &[(&str, &str)]) -> BaseProducer {
        producer(&self.brokers, properties)
    }

    /// Lets the records of a partition go before an offset, as retention does.
    pub fn delete_before(&self, partition: i32, offset: i64) {
        let mut keep = TopicPartitionList::new();
        keep.add_partition_offset(&self.name, partition, Offset::Offset(offset)).unwrap();
        block_on(self.admin.delete_records(&keep, &AdminOptions::new())).unwrap();
    }

    /// Writes records to one partition; their broker times are given with them.
    pub fn write(&self, partition: i32, records: &[(String, Option<i64>)]) {
        let producer = self.producer(&[]);
        send(&producer, &self.name, partition, records);
        producer.flush(PATIENCE).unwrap();
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // A topic that is left behind harms no other test.
        let _ = block_on(self.admin.delete_topics(&[&self.name], &AdminOptions::new()));
    }
}

/// A producer of which every record arrives once and in order. A plain one sends a batch again, behind the next, when its
/// partition had no leader yet.
pub fn producer(brokers: &str, properties: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("enable.idempotence", "true");
    for (name, value) in properties {
        config.set(*name, *value);
    }
    config.create().unwrap()
}

pub fn send(producer: &BaseProducer, topic: &str, partition: i32, records: &[(String, Option<i64>)]) {
    for (payload, timestamp) in records {
        let mut record = BaseRecord::<(), str>::to(topic).partition(partition).payload(payload);
        record.timestamp = *timestamp;
        let mut waiting = Some(record);
        while let Some(record) = waiting.take() {
            if let Err((error, back)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull));
                producer.poll(Duration::from_millis(10));
                waiting = Some(back);
            }
        }
    }
}

//! Events: written to the real broker at random, and read back to know what the broker holds at each offset.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, Message};
use serde::Deserialize;
use serde_json::json;

pub const USERS: i64 = 150;
pub const CATEGORIES: [&str; 5] = ["books", "toys", "food", "shoes", "games"];
/// Partitions of both topics.
pub const PARTITIONS: i32 = 3;
/// How late an order may be, as its schema says.
pub const LATENESS_MS: i64 = 3_000;

/// A record of the topic of orders.
#[derive(Debug, Clone, Deserialize)]
pub struct Order {
    pub order_id: i64,
    pub user_id: i64,
    /// In hundredths; the record has it as a text with a decimal point.
    #[serde(deserialize_with = "cents")]
    pub amount: i64,
    pub points: i64,
    pub category: String,
    /// Milliseconds since the Unix epoch.
    pub order_time: i64,
}

/// A record of the topic of refunds.
#[derive(Debug, Clone, Deserialize)]
pub struct Refund {
    pub order_id: i64,
    #[serde(deserialize_with = "cents")]
    pub amount: i64,
}

fn cents<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.replace('.', "").parse().map_err(serde::de::Error::custom)
}

pub fn decimal(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// What the broker holds: by partition, the event at each offset.
#[derive(Debug, Default)]
pub struct Held {
    pub orders: BTreeMap<i32, Vec<Order>>,
    pub refunds: BTreeMap<i32, Vec<Refund>>,
}

impl Held {
    /// The offset behind the last record of each partition, by stream.
    pub fn ends(&self) -> BTreeMap<(&'static str, i32), usize> {
        let orders = self.orders.iter().map(|(partition, events)| (("orders", *partition), events.len()));
        let refunds = self.refunds.iter().map(|(partition, events)| (("refunds", *partition), events.len()));
        orders.chain(refunds).collect()
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Both topics of a run.
pub struct Topics {
    brokers: String,
    pub orders: String,
    pub refunds: String,
    /// Events to write at once, beside the steady ones.
    pub burst: AtomicU64,
    pub produced: AtomicU64,
    stop: AtomicBool,
}

impl Topics {
    pub fn new(brokers: &str, id: &str) -> Self {
        Topics {
            brokers: brokers.to_string(),
            orders: format!("{id}.orders"),
            refunds: format!("{id}.refunds"),
            burst: AtomicU64::new(0),
            produced: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    pub fn kafka(&self) -> &str {
        &self.brokers
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("an admin client")
    }

    pub fn create(&self) {
        let topics = [&self.orders, &self.refunds];
        let topics = topics.map(|topic| NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)));
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        for outcome in block_on(self.admin().create_topics(&topics, &options)).expect("topics") {
            outcome.expect("a topic of its own");
        }
    }

    /// Topics that are left behind make the next start of the broker slower.
    pub fn delete(&self) {
        let topics = [self.orders.as_str(), self.refunds.as_str()];
        block_on(self.admin().delete_topics(&topics, &AdminOptions::new())).expect("the broker answers");
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("reconnect.backoff.max.ms", "500");
        // As the daemon: a partition whose leader was lost sight of would be missed for five minutes.
        config.set("topic.metadata.refresh.interval.ms", "10000");
        config
    }

    /// No more events; what was written is at the broker when [`Topics::produce`] returns.
    pub fn stop_producing(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Writes events, `rate` a second and bursts, until it is stopped. A broker that is away is waited for.
    pub fn produce(&self, seed: u64, rate: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut config = self.config();
        // An idempotent producer gives up for good where a killed broker has forgotten what it had of it. This one writes again,
        // in order: what is there twice then is two events.
        config
            .set("max.in.flight.requests.per.connection", "1")
            .set("message.timeout.ms", "600000")
            .set("linger.ms", "20");
        let producer: ThreadedProducer<_> = config.create().expect("a producer");
        let mut next_order = 1;
        while !self.stop.load(Ordering::SeqCst) {
            let burst = self.burst.swap(0, Ordering::SeqCst);
            for _ in 0..rate / 20 + burst {
                let (topic, partition, payload) = self.event(&mut rng, &mut next_order);
                let record = BaseRecord::<(), str>::to(topic).partition(partition).payload(&payload);
                match producer.send(record) {
                    Ok(()) => self.produced.fetch_add(1, Ordering::SeqCst),
                    // The broker has been away for so long that the queue is full: this event never was.
                    Err((_, _)) => break,
                };
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        producer.flush(Duration::from_secs(300)).expect("the broker takes what was written");
    }

    fn event(&self, rng: &mut StdRng, next_order: &mut i64) -> (&str, i32, String) {
        let partition = rng.random_range(0..PARTITIONS);
        let cents = rng.random_range(1..50_000);
        if *next_order > 1 && rng.random_bool(0.1) {
            // Of an order that may not be there yet, of one of long ago, or a second one of the same order.
            let refunded = (*next_order - rng.random_range(-5..500)).max(1);
            let refund = json!({ "order_id": refunded, "amount": decimal(cents / 2) });
            return (&self.refunds, partition, refund.to_string());
        }
        let delay = match rng.random_range(0..100) {
            0..3 => rng.random_range(LATENESS_MS..20_000),
            _ => rng.random_range(0..2_000),
        };
        let order = json!({
            "order_id": *next_order,
            "user_id": rng.random_range(1..=USERS),
            "amount": decimal(cents),
            "points": rng.random_range(-6..=6),
            "category": CATEGORIES[rng.random_range(0..CATEGORIES.len())],
            "order_time": now_ms() - delay,
        });
        *next_order += 1;
        (&self.orders, partition, order.to_string())
    }

    /// Reads back what the broker holds, until `stop`.
    pub fn record(&self, held: &Mutex<Held>, stop: &AtomicBool) {
        let mut config = self.config();
        config.set("group.id", "chaos").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut from = TopicPartitionList::new();
        for topic in [&self.orders, &self.refunds] {
            for partition in 0..PARTITIONS {
                from.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
            }
        }
        consumer.assign(&from).expect("partitions");
        while !stop.load(Ordering::SeqCst) {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
            let payload = message.payload().expect("a payload");
            let mut held = held.lock().expect("no thread panics with it");
            let next = if message.topic() == self.orders {
                push(held.orders.entry(message.partition()).or_default(), payload)
            } else {
                push(held.refunds.entry(message.partition()).or_default(), payload)
            };
            assert_eq!(next as i64, message.offset() + 1, "the broker gives every offset once");
        }
    }
}

fn push<T: for<'de> Deserialize<'de>>(events: &mut Vec<T>, payload: &[u8]) -> usize {
    events.push(serde_json::from_slice(payload).expect("an event"));
    events.len()
}

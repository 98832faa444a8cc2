//! The newest records of a topic as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use super::{Callbacks, Consumer, Fault, Role, client_config, explain, fault_of};
use crate::config::Secret;
use crate::diagnostic::nearest;
use crate::source::sample::Sampled;

/// How long the cluster may take for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(200);
/// How long it may be silent while records are read.
const SILENCE: Duration = Duration::from_secs(15);
/// Bytes that the client may read ahead.
const AHEAD: usize = 16 << 20;
/// More than a sample needs, and little enough for any machine.
const MOST_BYTES: usize = 64 << 20;

/// About `most` records: as many of the newest of each partition as make up that number.
///
/// # Errors
/// Why there is no sample.
pub(in crate::source) fn sample(
    brokers: &str,
    properties: &BTreeMap<String, Secret>,
    topic: &str,
    most: usize,
) -> Result<Vec<Sampled>, String> {
    let config = client_config(brokers, properties, Role::Reader, AHEAD);
    let consumer: Consumer = config.create_with_context(Callbacks::default()).map_err(|error| explain(&error))?;
    let place = |what: String| format!("topic {topic:?} at {brokers}: {what}");
    let told = |error: &KafkaError| place(consumer.context().reason().unwrap_or_else(|| explain(error)));
    let ranges = ranges(&consumer, topic, most).map_err(|failure| match failure {
        Failure::Cluster(error) => told(&error),
        Failure::Topic(message) => message,
    })?;
    let mut list = TopicPartitionList::new();
    for (number, (first, _)) in &ranges {
        list.add_partition_offset(topic, *number, Offset::Offset(*first)).map_err(|error| told(&error))?;
    }
    consumer.assign(&list).map_err(|error| told(&error))?;
    let mut open: BTreeSet<i32> = ranges.keys().copied().collect();
    let (mut found, mut bytes, mut heard) = (Vec::new(), 0, Instant::now());
    while !open.is_empty() && bytes < MOST_BYTES {
        match consumer.poll(Duration::from_millis(100)) {
            None if heard.elapsed() > SILENCE && found.is_empty() => {
                let silence = || format!("no record within {} s", SILENCE.as_secs());
                return Err(place(consumer.context().reason().unwrap_or_else(silence)));
            }
            None if heard.elapsed() > SILENCE => break,
            None => {}
            Some(Ok(message)) => {
                heard = Instant::now();
                let (number, offset) = (message.partition(), message.offset());
                let Some((_, end)) = ranges.get(&number) else { continue };
                bytes += message.payload().map_or(0, <[u8]>::len);
                if offset < *end {
                    found.push(Sampled {
                        partition: number,
                        offset,
                        timestamp: message.timestamp().to_millis(),
                        key: message.key().map(<[u8]>::to_vec),
                        payload: message.payload().map(<[u8]>::to_vec),
                    });
                }
                if offset + 1 >= *end {
                    open.remove(&number);
                }
            }
            // The last offsets may be markers of transactions, which never come.
            Some(Err(KafkaError::PartitionEOF(number))) => {
                open.remove(&number);
            }
            Some(Err(error)) => match fault_of(error.rdkafka_error_code()) {
                // Silence that lasts ends the waiting.
                Fault::Passing | Fault::Ignored => {}
                Fault::Refused | Fault::OutOfRange => return Err(told(&error)),
            },
        }
    }
    Ok(found)
}

enum Failure {
    Cluster(KafkaError),
    Topic(String),
}

/// Of each partition that has records, those to read: the first, and the one behind the last.
fn ranges(consumer: &Consumer, topic: &str, most: usize) -> Result<BTreeMap<i32, (i64, i64)>, Failure> {
    // All topics are asked for: asking for one by its name may make it.
    let metadata = consumer.fetch_metadata(None, ANSWER).map_err(Failure::Cluster)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        let names: Vec<&str> =
            metadata.topics().iter().map(|topic| topic.name()).filter(|name| !name.starts_with("__")).collect();
        let help = match nearest(topic, names.iter().copied()) {
            Some(near) => format!("; did you mean {near:?}?"),
            None if names.is_empty() => "; the cluster has none that this login may read".to_string(),
            None => format!("; there are {}", names.iter().take(20).copied().collect::<Vec<_>>().join(", ")),
        };
        return Err(Failure::Topic(format!("there is no topic {topic:?}{help}")));
    };
    let mut ends = BTreeMap::new();
    for partition in found.partitions() {
        let (low, high) = watermarks(consumer, topic, partition.id()).map_err(Failure::Cluster)?;
        if low < high {
            ends.insert(partition.id(), (low, high));
        }
    }
    if ends.is_empty() {
        return Err(Failure::Topic(format!("the topic {topic:?} has no records yet: there is nothing to go by")));
    }
    let each = i64::try_from(most.div_ceil(ends.len())).unwrap_or(i64::MAX);
    Ok(ends.into_iter().map(|(number, (low, high))| (number, (low.max(high.saturating_sub(each)), high))).collect())
}

/// The first offset of a partition, and the one behind its last. A topic that was just made, or a leader that has moved, is
/// asked for again.
fn watermarks(consumer: &Consumer, topic: &str, number: i32) -> Result<(i64, i64), KafkaError> {
    let begun = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, number, ANSWER) {
            Err(error)
                if begun.elapsed() < ANSWER && matches!(fault_of(error.rdkafka_error_code()), Fault::Passing) =>
            {
                std::thread::sleep(RETRY);
            }
            outcome => return outcome,
        }
    }
}

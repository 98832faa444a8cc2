//! Kafka: one coordinator and a few readers per stream.
//!
//! The coordinator knows the topic (its partitions, their ends, where to start, whether the cluster answers) and hands
//! each partition to a reader. A reader is a consumer and a thread of its own: it polls, decodes and sends batches, so
//! that decoding runs on as many cores as there are readers and a slow call to the cluster never holds up records.
//! Back-pressure: a reader that waits for the engine does not poll, and librdkafka stops fetching at
//! `queued.max.messages.kbytes`.
//!
//! Delivery: each record from `next` on, in the partition's order, exactly once per reader; what retention has taken
//! is a failure, or a jump that is told where the stream says `on_lost = "skip"`; a topic that was made again is a failure
//! always. Partitions are assigned, never subscribed to; no offset is ever committed.

mod coordinator;
mod history;
mod identity;
mod reader;
mod sample;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use self::history::History;
pub(crate) use self::identity::known_topic_id;
pub use self::identity::{KnownTopic, known_topics, remember_topics};
use self::reader::Assignment;
pub(super) use self::sample::sample;
use super::decode::Schemas;
use super::emit::{Emitter, Stopped};
use super::{ReadRequest, SourceContext, SourceError, spawn};
use crate::catalog::OnLost;
use crate::config::Secret;
use crate::delta::Lost;

/// What one answer may add to a queue that is just short of full; less where less may be ahead.
const LARGEST_ANSWER: usize = 16 << 20;
/// An answer holds a record of the usual largest size at least.
const SMALLEST_ANSWER: usize = 1 << 20;
/// How long the cluster may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Most readers of one stream.
const MOST_READERS: usize = 4;

/// What coordinator and readers of one stream share.
struct Shared {
    request: ReadRequest,
    context: SourceContext,
    emitter: Emitter,
    brokers: String,
    properties: BTreeMap<String, Secret>,
    /// Where the schemas of records are found.
    schemas: Option<Arc<dyn Schemas>>,
    /// Why partitions do not go on for now, though the cluster has records of them.
    hindrances: Mutex<BTreeMap<i32, String>>,
    /// A reader's fault that the coordinator should look into.
    suspicion: Mutex<Option<String>>,
    /// Partitions of a bounded read that are not yet read to their end.
    unfinished: AtomicUsize,
}

/// Starts the coordinator, which starts the readers as partitions turn up.
pub(super) fn start(
    request: ReadRequest,
    brokers: &str,
    properties: &BTreeMap<String, Secret>,
    schemas: Option<Arc<dyn Schemas>>,
    context: &SourceContext,
    emitter: Emitter,
) -> Result<Vec<std::thread::JoinHandle<()>>, SourceError> {
    let unfinished = AtomicUsize::new(unfinished_partitions(&request));
    let shared = Shared {
        request,
        context: context.clone(),
        emitter,
        brokers: brokers.to_string(),
        properties: properties.clone(),
        schemas,
        hindrances: Mutex::default(),
        suspicion: Mutex::new(None),
        unfinished,
    };
    let stream = shared.request.stream.name.clone();
    let setup = |error| SourceError::Setup { stream: stream.clone(), message: explain(&error) };
    // Both are made here so that a wrong property is an error of the start.
    let watcher = shared.consumer(Role::Coordinator).map_err(setup)?;
    drop(shared.config(Role::Reader).create_native_config().map_err(setup)?);
    let shared = Arc::new(shared);
    let coordinator = coordinator::Coordinator::new(shared.clone(), watcher);
    Ok(vec![spawn(&shared.emitter, "kafka", move || coordinator.run())?])
}

/// Of a bounded read, the partitions that have something to read; 1 too many where the start is not known yet.
fn unfinished_partitions(request: &ReadRequest) -> usize {
    let has_more = |(number, until): (&i32, &i64)| request.from.get(number).is_none_or(|from| from < until);
    request.until.as_ref().map_or(0, |until| until.iter().filter(|entry| has_more(*entry)).count())
}

/// Which of the two kinds of client is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Coordinator,
    Reader,
}

type Consumer = BaseConsumer<Callbacks>;

impl Shared {
    fn consumer(&self, role: Role) -> Result<Consumer, KafkaError> {
        self.config(role).create_with_context(Callbacks::default())
    }

    fn config(&self, role: Role) -> ClientConfig {
        client_config(&self.brokers, &self.properties, role, self.request.room.ahead)
    }

    fn topic(&self) -> &str {
        &self.request.stream.topic
    }

    fn suspect(&self, fault: String) {
        *self.suspicion.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    fn take_suspicion(&self) -> Option<String> {
        self.suspicion.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A partition waits for something else than the cluster, or no longer.
    fn set_hindrance(&self, number: i32, reason: Option<String>) {
        let mut hindrances = self.hindrances.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => hindrances.insert(number, reason),
            None => hindrances.remove(&number),
        };
    }

    /// What any partition waits for.
    fn hindrance(&self) -> Option<String> {
        self.hindrances.lock().unwrap_or_else(PoisonError::into_inner).values().next().cloned()
    }

    /// Where reading begins that should begin at `next`, of a partition that has `beginning..end`: there, or behind what was
    /// lost, where the stream goes on all the same. A read with an end is to be whole: it repeats what tables show already.
    fn beginning_at(&self, number: i32, next: i64, beginning: i64, end: i64) -> Result<i64, Stopped> {
        let Some(message) = out_of_range(self.topic(), number, next, beginning, end) else { return Ok(next) };
        if next < beginning && self.request.stream.on_lost == OnLost::Skip && !self.is_bounded() {
            let stream = self.request.stream.name.clone();
            self.emitter.lost(Lost { stream, partition: number, first: next, next: beginning })?;
            return Ok(beginning);
        }
        Err(self.emitter.failed(message))
    }

    /// What files have of the topic's past; those of another topic than that with this id are a failure.
    fn history(&self, topic_id: Option<&str>) -> Result<History, Stopped> {
        let stream = &self.request.stream;
        let found = History::find(&self.context.root, stream);
        let found = found.and_then(|history| history.belongs(stream, topic_id).map(|()| history));
        found.map_err(|message| self.emitter.failed(message))
    }

    /// True where files have a record that the topic has lost.
    fn is_in_files(&self, number: i32, offset: i64) -> bool {
        let found = History::find(&self.context.root, &self.request.stream);
        found.is_ok_and(|history| history.range(number).is_some_and(|files| files.contains(&offset)))
    }

    /// Where the topic begins by now, if that is behind the place where a partition is to be read on, and the stream has an
    /// archive, which may have grown since.
    fn beginning_now(&self, assignment: &Assignment) -> Option<i64> {
        let Assignment { number, next, until, .. } = *assignment;
        if self.request.stream.archive.is_none() || until.is_some_and(|until| next >= until) {
            return None;
        }
        // A cluster that does not answer now does so to the reader.
        let asked = self.consumer(Role::Coordinator).ok()?.fetch_watermarks(self.topic(), number, ANSWER);
        asked.ok().map(|(beginning, _)| beginning).filter(|beginning| *beginning > next)
    }

    /// One partition of a bounded read is at its end; true when it was the last.
    fn finish_one(&self) -> bool {
        self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn is_bounded(&self) -> bool {
        self.request.until.is_some()
    }
}

/// How a client of a cluster is set up that reads so many bytes ahead.
fn client_config(brokers: &str, properties: &BTreeMap<String, Secret>, role: Role, ahead: usize) -> ClientConfig {
    let ahead = ahead / reader_count();
    let answer = ahead.clamp(SMALLEST_ANSWER, LARGEST_ANSWER);
    let mut config = ClientConfig::new();
    config
        .set("client.id", "tagflow")
        // Nothing waits for more bytes, so this is only how often an idle connection is renewed.
        .set("fetch.wait.max.ms", "500")
        .set("max.partition.fetch.bytes", (answer / 4).max(SMALLEST_ANSWER).to_string())
        .set("fetch.max.bytes", answer.to_string())
        .set("queued.min.messages", "200000")
        // The default of a second would leave a fast reader idle most of the time.
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", (ahead >> 10).max(1).to_string())
        .set("check.crcs", "false")
        .set("reconnect.backoff.max.ms", "2000")
        // A partition whose leader was lost sight of is looked for again within this time: five minutes are the default.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("socket.keepalive.enable", "true");
    for (name, value) in properties {
        config.set(name, value.expose());
    }
    config
        .set("bootstrap.servers", brokers)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("allow.auto.create.topics", "false");
    match role {
        Role::Coordinator => {
            // Without a group the client can ask for metadata and ends, which is all it is for. The end that is
            // told is the log's; records of open transactions lie before it.
            config.remove("group.id").set("isolation.level", "read_uncommitted");
        }
        Role::Reader if !properties.contains_key("group.id") => {
            // librdkafka wants a name to assign partitions; the group is never joined.
            config.set("group.id", "tagflow");
        }
        Role::Reader => {}
    }
    config
}

/// How many readers share a stream's partitions.
fn reader_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_READERS)
}

/// What librdkafka tells outside of records.
#[derive(Default)]
struct Callbacks {
    /// The last fault in librdkafka's words.
    reason: Mutex<Option<String>>,
}

impl Callbacks {
    fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka repeats its faults at every try; what matters of them becomes `Trouble`.
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info => tracing::trace!(target: "librdkafka", facility, message),
            _ => tracing::debug!(target: "librdkafka", facility, message),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        tracing::debug!(target: "librdkafka", %error, reason);
        let mut known = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are away says less than why one of them is.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) || known.is_none() {
            *known = Some(reason.to_string());
        }
    }
}

impl ConsumerContext for Callbacks {}

/// What an error of a poll means for the stream.
enum Fault {
    /// The next record is not where it was.
    OutOfRange,
    /// Trying again will not help.
    Refused,
    /// Of no concern.
    Ignored,
    /// Likely to pass.
    Passing,
}

fn fault_of(code: Option<RDKafkaErrorCode>) -> Fault {
    use RDKafkaErrorCode as Code;
    match code {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Fault::OutOfRange,
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed,
        ) => Fault::Refused,
        // The group is a name only: nobody has to allow it.
        Some(Code::GroupAuthorizationFailed) => Fault::Ignored,
        _ => Fault::Passing,
    }
}

/// The driver's words, never with a property's value.
fn explain(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, description, property, _) => {
            let known = description.trim_end_matches(['.', ' ']);
            format!("kafka property {property:?}: {known}")
        }
        other => match other.rdkafka_error_code() {
            Some(code) => code.to_string(),
            None => other.to_string(),
        },
    }
}

/// Why reading cannot begin at `next` of a topic that has `beginning..end`; `None` when all is there.
fn out_of_range(topic: &str, number: i32, next: i64, beginning: i64, end: i64) -> Option<String> {
    let place = format!("topic {topic:?} partition {number}");
    if next < beginning {
        let last = beginning - 1;
        return Some(format!(
            "{place}: records {next} to {last} are gone (the topic now begins at {beginning}); nothing was skipped: \
             bring them back, write on_lost = \"skip\" into the stream's schema file, or start the stream again without its \
             checkpoint"
        ));
    }
    if next > end {
        return Some(format!(
            "{place}: record {next} should be next but the topic ends at {end}; was it deleted and made again? \
             start the stream again without its checkpoint"
        ));
    }
    None
}

#[cfg(test)]
mod tests;

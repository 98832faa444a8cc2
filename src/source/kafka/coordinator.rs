//! Watches a topic: finds its partitions, decides where each starts, and tells when the cluster does not answer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use super::history::{History, Wanted};
use super::identity::{Identity, topic_id};
use super::reader::{Assignment, Reader};
use super::{ANSWER, Consumer, Fault, Role, Shared, explain, fault_of, reader_count};
use crate::catalog::{OnLost, Start};
use crate::delta::Partition;
use crate::source::emit::Stopped;
use crate::source::{SourceEvent, spawn};

/// How often new partitions are looked for.
const REFRESH: Duration = Duration::from_secs(10);
/// How often a cluster or topic that is away is asked for again.
const RETRY: Duration = Duration::from_secs(1);
/// How often a reader's suspicion is looked into at most.
const SUSPICION_PAUSE: Duration = Duration::from_millis(500);
/// How long a topic must be unknown before it counts as one that does not exist: a cluster that starts may not know yet.
const MISSING_AFTER: Duration = Duration::from_secs(8);
/// After how many suspicions in a row they are told.
const SUSPICIONS: u32 = 4;
/// How long it is waited for the reason of a failure.
const REASON: Duration = Duration::from_secs(2);
/// After so long in trouble the cluster is asked by a new client, and each time after twice as long up to the second: one
/// that is only slow must get to its answer.
pub(super) const RENEWED_AFTER: Duration = Duration::from_secs(10);
const RENEWED_AFTER_AT_MOST: Duration = Duration::from_secs(80);
/// Events of librdkafka between two looks at the rest.
const EVENTS_A_LOOK: u32 = 32;

pub(super) struct Coordinator {
    shared: Arc<Shared>,
    watcher: Consumer,
    /// When the watcher was made, or the cluster was last found well.
    well_at: Instant,
    /// How long after that it is made anew.
    renewed_after: Duration,
    identity: Identity,
    /// What files have of the topic's past, once a partition is read that begins in it.
    history: Option<Arc<History>>,
    /// The id of the topic, where the cluster says it.
    topic_id: Option<String>,
    /// Made when their first partition turns up.
    readers: Vec<Option<Sender<Assignment>>>,
    threads: Vec<JoinHandle<()>>,
    /// Where each known partition starts.
    known: BTreeMap<i32, i64>,
    /// The topic was found at least once, or found missing: partitions that turn up from now on are new ones.
    was_seen: bool,
    /// All partitions were told at least once.
    is_announced: bool,
    /// Since when the cluster has been saying that it does not know the topic.
    unknown_since: Option<Instant>,
    in_trouble: bool,
    /// A partition waited for something else than the cluster when that was last looked at.
    is_hindered: bool,
    /// Rounds in a row that a reader asked for.
    suspicions: u32,
}

/// Why a round could not be ended.
enum Setback {
    Stopped,
    /// To be told and tried again.
    Trouble(String),
}

impl From<Stopped> for Setback {
    fn from(_: Stopped) -> Self {
        Setback::Stopped
    }
}

impl Coordinator {
    pub(super) fn new(shared: Arc<Shared>, watcher: Consumer) -> Self {
        let was_seen = !shared.request.from.is_empty();
        let readers = (0..reader_count()).map(|_| None).collect();
        let identity = Identity::of(&shared.context.state_dir, &shared.request.stream.name);
        Coordinator {
            shared,
            watcher,
            well_at: Instant::now(),
            renewed_after: RENEWED_AFTER,
            identity,
            history: None,
            topic_id: None,
            readers,
            threads: Vec::new(),
            known: BTreeMap::new(),
            was_seen,
            is_announced: false,
            unknown_since: None,
            in_trouble: false,
            is_hindered: false,
            suspicions: 0,
        }
    }

    /// Runs until the stream is stopped, has failed or has been read to its end.
    pub(super) fn run(mut self) -> Result<(), Stopped> {
        let outcome = self.watch();
        // Without a coordinator the readers end when their partitions do. The stream's handle waits for this thread.
        self.readers.clear();
        for thread in self.threads.drain(..) {
            // A panic has been told by the thread itself.
            let _ = thread.join();
        }
        outcome
    }

    fn watch(&mut self) -> Result<(), Stopped> {
        if self.shared.is_bounded() && self.is_read() {
            return self.shared.emitter.finished();
        }
        loop {
            let pause = match self.refresh() {
                Ok(()) => {
                    (self.well_at, self.renewed_after) = (Instant::now(), RENEWED_AFTER);
                    if !std::mem::replace(&mut self.is_announced, true) {
                        self.shared.emitter.announced()?;
                    }
                    self.is_hindered = self.shared.hindrance().is_some();
                    if self.suspicions == 0 && !self.is_hindered && std::mem::take(&mut self.in_trouble) {
                        self.shared.emitter.recovered()?;
                    }
                    REFRESH
                }
                Err(Setback::Stopped) => return Err(Stopped),
                Err(Setback::Trouble(message)) => {
                    if !std::mem::replace(&mut self.in_trouble, true) {
                        self.shared.emitter.trouble(message)?;
                    }
                    self.renew();
                    RETRY
                }
            };
            if self.shared.is_bounded() && self.is_read() {
                return Ok(());
            }
            match self.wait(pause)? {
                None => self.suspicions = 0,
                Some(suspicion) => {
                    self.suspicions += 1;
                    // The cluster answers and yet a reader gets no further: a batch that cannot be unpacked, for one.
                    if self.suspicions >= SUSPICIONS && !std::mem::replace(&mut self.in_trouble, true) {
                        self.shared.emitter.trouble(suspicion)?;
                    }
                }
            }
        }
    }

    /// Asks by a new client where the one that there is has got no answer for long. One that has seen a cluster start, or a
    /// broker that was taken for dead, may go on believing that a partition has no leader, whatever the cluster says by now.
    fn renew(&mut self) {
        if self.well_at.elapsed() < self.renewed_after {
            return;
        }
        self.well_at = Instant::now();
        self.renewed_after = (self.renewed_after * 2).min(RENEWED_AFTER_AT_MOST);
        match self.shared.consumer(Role::Coordinator) {
            Ok(watcher) => self.watcher = watcher,
            Err(error) => tracing::debug!(topic = self.shared.topic(), %error, "no new client can be made"),
        }
    }

    fn is_read(&self) -> bool {
        self.shared.unfinished.load(Ordering::Acquire) == 0
    }

    /// Waits for the next round; a reader's suspicion makes it come sooner.
    fn wait(&mut self, pause: Duration) -> Result<Option<String>, Stopped> {
        let began = Instant::now();
        while began.elapsed() < pause {
            self.shared.emitter.stop().wait(Duration::from_millis(50))?;
            // A line of its log comes out as nothing too.
            for _ in 0..EVENTS_A_LOOK {
                if let Some(Err(error)) = self.watcher.poll(Duration::ZERO)
                    && matches!(fault_of(error.rdkafka_error_code()), Fault::Refused)
                {
                    return Err(self.refused(&error));
                }
            }
            match (self.shared.hindrance(), self.is_hindered) {
                (Some(reason), _) => {
                    self.is_hindered = true;
                    if !std::mem::replace(&mut self.in_trouble, true) {
                        self.shared.emitter.trouble(reason)?;
                    }
                }
                // The round that follows tells that it is over.
                (None, true) => break,
                (None, false) => {}
            }
            if began.elapsed() > SUSPICION_PAUSE
                && let Some(suspicion) = self.shared.take_suspicion()
            {
                return Ok(Some(suspicion));
            }
            if self.shared.is_bounded() && self.is_read() {
                break;
            }
        }
        Ok(None)
    }

    fn refused(&self, error: &KafkaError) -> Stopped {
        let reason = self.watcher.context().reason().unwrap_or_else(|| explain(error));
        let (topic, brokers) = (self.shared.topic(), &self.shared.brokers);
        self.shared.emitter.failed(format!("topic {topic:?} at {brokers}: {reason}"))
    }

    /// One look at the topic.
    fn refresh(&mut self) -> Result<(), Setback> {
        let shared = self.shared.clone();
        let (topic, brokers) = (shared.topic(), &shared.brokers);
        let metadata = match self.watcher.fetch_metadata(Some(topic), ANSWER) {
            Ok(metadata) => metadata,
            Err(error) => {
                // Without a poll librdkafka keeps its reasons, a wrong password among them, to itself.
                let began = Instant::now();
                while self.watcher.context().reason().is_none() && began.elapsed() < REASON {
                    self.wait(Duration::from_millis(1))?;
                }
                let reason = self.watcher.context().reason().unwrap_or_else(|| explain(&error));
                return Err(Setback::Trouble(format!("no answer from {brokers}: {reason}")));
            }
        };
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Err(Setback::Trouble(format!("{brokers} says nothing of topic {topic:?}")));
        };
        if let Some(error) = found.error() {
            let code = RDKafkaErrorCode::from(error);
            if matches!(fault_of(Some(code)), Fault::Refused) {
                return Err(shared.emitter.failed(format!("topic {topic:?} at {brokers}: {code}")).into());
            }
            if matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) {
                let unknown = self.unknown_since.get_or_insert_with(Instant::now).elapsed();
                // A topic that was read before has not gone without its records.
                if unknown >= MISSING_AFTER && !self.was_seen {
                    // Whatever it will hold is written after the stream's start, so `latest` skips none of it.
                    self.was_seen = true;
                    shared.emitter.missing()?;
                }
                return Err(Setback::Trouble(format!("topic {topic:?} does not exist at {brokers}; waiting for it")));
            }
            return Err(Setback::Trouble(format!("topic {topic:?} at {brokers}: {code}")));
        }
        self.unknown_since = None;
        self.recognise()?;
        let mut numbers: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
        numbers.sort_unstable();
        if let Some(until) = &shared.request.until {
            if let Some(missing) = until.keys().find(|number| !numbers.contains(number)) {
                return Err(Setback::Trouble(format!("topic {topic:?} at {brokers} has no partition {missing}")));
            }
            numbers.retain(|number| until.contains_key(number));
        }
        numbers.retain(|number| !self.known.contains_key(number));
        let starts = self.starts(&numbers)?;
        for (number, start) in numbers.iter().zip(starts) {
            self.admit(*number, start)?;
        }
        self.was_seen = true;
        match found.partitions().iter().find(|partition| partition.leader() < 0) {
            Some(orphan) => {
                let number = orphan.id();
                Err(Setback::Trouble(format!("topic {topic:?} at {brokers}: partition {number} has no leader")))
            }
            None => Ok(()),
        }
    }

    /// Fails where the topic is another one than that which was read before.
    fn recognise(&mut self) -> Result<(), Setback> {
        let topic = self.shared.topic();
        let Some(id) = topic_id(&self.watcher, topic, ANSWER) else { return Ok(()) };
        self.topic_id = Some(id.clone());
        match self.identity.differs(topic, &id) {
            Ok(None) => Ok(()),
            Ok(Some(message)) => Err(self.shared.emitter.failed(message).into()),
            Err(error) => Err(Setback::Trouble(format!("which topic {topic:?} was cannot be read: {error}"))),
        }
    }

    /// Where unknown partitions start.
    fn starts(&self, numbers: &[i32]) -> Result<Vec<Offset>, Setback> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        if self.was_seen {
            return Ok(vec![Offset::Beginning; numbers.len()]);
        }
        let at = match self.shared.request.stream.start {
            Start::Earliest => return Ok(vec![Offset::Beginning; numbers.len()]),
            Start::Latest => return Ok(vec![Offset::End; numbers.len()]),
            Start::Timestamp(at) => at,
        };
        let mut times = TopicPartitionList::new();
        for number in numbers {
            times
                .add_partition_offset(self.shared.topic(), *number, Offset::Offset(at))
                .map_err(|error| self.setback(&error))?;
        }
        let found = self.watcher.offsets_for_times(times, ANSWER).map_err(|error| self.setback(&error))?;
        numbers
            .iter()
            .map(|number| match found.find_partition(self.shared.topic(), *number) {
                Some(element) => element.error().map(|()| element.offset()).map_err(|error| self.setback(&error)),
                None => Ok(Offset::End),
            })
            .collect()
    }

    /// The offsets of a partition that files reach over, if any are asked for that the topic does not hold.
    fn files_of(&mut self, number: i32, oldest: i64) -> Result<Option<Range<i64>>, Setback> {
        let request = &self.shared.request;
        let has_files = request.stream.history.is_some() || request.stream.archive.is_some() && oldest > 0;
        if !has_files || request.from.get(&number).is_some_and(|next| *next >= oldest) {
            return Ok(None);
        }
        if self.history.is_none() {
            self.history = Some(Arc::new(self.shared.history(self.topic_id.as_deref())?));
        }
        Ok(self.history.as_ref().and_then(|history| history.range(number)))
    }

    /// Announces a partition and hands it to its reader.
    fn admit(&mut self, number: i32, start: Offset) -> Result<(), Setback> {
        let shared = self.shared.clone();
        let topic = shared.topic();
        let (beginning, end) =
            self.watcher.fetch_watermarks(topic, number, ANSWER).map_err(|error| self.setback(&error))?;
        let oldest = beginning;
        let files = self.files_of(number, oldest)?;
        let beginning = files.as_ref().map_or(beginning, |files| files.start.min(beginning));
        let next = match (shared.request.from.get(&number), start) {
            (Some(next), _) => *next,
            (None, Offset::Offset(offset)) => offset,
            (None, Offset::Beginning) => beginning,
            (None, _) => end,
        };
        let until = shared.request.until.as_ref().and_then(|until| until.get(&number).copied());
        let is_read = until.is_some_and(|until| next >= until);
        let files = files.filter(|files| !is_read && files.contains(&next));
        let files = files.map(|files| next..until.map_or(files.end, |until| files.end.min(until)));
        // What the topic holds is read from it: the schema may have changed since it was archived.
        let files = match shared.request.stream.archive {
            Some(_) => files.map(|files| files.start..files.end.min(oldest)).filter(|files| !files.is_empty()),
            None => files,
        };
        // A stream that goes on behind what is lost is incomplete from the topic's beginning on, rather than in between. Where it
        // has come further, it takes what the files have, and is told of the gap.
        let is_fresh = until.is_none() && !shared.request.from.contains_key(&number);
        let skips = is_fresh && shared.request.stream.on_lost == OnLost::Skip;
        let (files, next) = match files {
            Some(files) if skips && files.end < oldest => (None, oldest),
            files => (files, next),
        };
        // Where the topic is read from: behind the files, if they are read at all.
        let of_topic = files.as_ref().map_or(next, |files| files.end);
        // What is read already may be gone; nobody asks for it.
        let is_topic_read = until.is_some_and(|until| of_topic >= until);
        let of_topic = if is_topic_read { of_topic } else { shared.beginning_at(number, of_topic, oldest, end)? };
        let next = if files.is_some() { next } else { of_topic };
        let partition = Arc::new(Partition { stream: shared.request.stream.name.clone(), number });
        let told = Arc::clone(&partition);
        shared.emitter.send(SourceEvent::Partition { partition: told, beginning, end: end.max(of_topic), next })?;
        if is_read {
            self.known.insert(number, next);
            // One that was known to be read was never counted.
            if !shared.request.from.contains_key(&number) && shared.finish_one() {
                shared.emitter.finished()?;
            }
            return Ok(());
        }
        let assignment = Assignment { number, next: of_topic, end, until };
        match files {
            Some(offsets) => self.read_files(partition, offsets, assignment)?,
            None => self.assign(assignment)?,
        }
        self.known.insert(number, next);
        Ok(())
    }

    /// Reads the past of a partition out of files, and then lets its reader go on behind them.
    fn read_files(
        &mut self,
        partition: Arc<Partition>,
        offsets: Range<i64>,
        assignment: Assignment,
    ) -> Result<(), Setback> {
        let Some(history) = self.history.clone() else { return self.assign(assignment) };
        let (shared, topic_id) = (self.shared.clone(), self.topic_id.clone());
        let reader = self.reader_of(assignment.number)?;
        let body = move || {
            let request = &shared.request;
            let (mut history, mut offsets, mut assignment) = (history, offsets, assignment);
            loop {
                let end = assignment.end.max(offsets.end);
                let (stream, columns, partition) = (&request.stream, &request.columns, Arc::clone(&partition));
                let wanted = Wanted { stream, columns, partition, offsets, end };
                let given = history.read(&wanted, |batch| shared.emitter.batch(batch));
                given.map_err(|message| shared.emitter.failed(message))??;
                // Retention may have gone past the place meanwhile, and the archive with it.
                let Some(beginning) = shared.beginning_now(&assignment) else { break };
                history = Arc::new(shared.history(topic_id.as_deref())?);
                let files = history.range(assignment.number).filter(|files| files.contains(&assignment.next));
                let Some(files) = files else { break };
                let next = files.end.min(beginning).min(assignment.until.unwrap_or(i64::MAX));
                offsets = assignment.next..next;
                assignment.next = next;
            }
            if assignment.until.is_none_or(|until| assignment.next < until) {
                // A reader that is gone has stopped the stream.
                let _ = reader.send(assignment);
            } else if shared.finish_one() {
                shared.emitter.finished()?;
            }
            Ok(())
        };
        let thread = spawn(&self.shared.emitter, "files", body);
        self.threads.push(thread.map_err(|error| Setback::Trouble(error.to_string()))?);
        Ok(())
    }

    fn assign(&mut self, assignment: Assignment) -> Result<(), Setback> {
        // A reader that is gone has stopped the stream, which the next wait notices.
        let _ = self.reader_of(assignment.number)?.send(assignment);
        Ok(())
    }

    /// The reader of a partition.
    fn reader_of(&mut self, number: i32) -> Result<Sender<Assignment>, Setback> {
        let place = number as usize % self.readers.len();
        if let Some(reader) = &self.readers[place] {
            return Ok(reader.clone());
        }
        {
            let (sender, assignments) = channel();
            let consumer = self.shared.consumer(Role::Reader).map_err(|error| self.setback(&error))?;
            let reader = Reader::new(self.shared.clone(), consumer, assignments);
            let thread = spawn(&self.shared.emitter, "read", move || reader.run());
            self.threads.push(thread.map_err(|error| Setback::Trouble(error.to_string()))?);
            self.readers[place] = Some(sender.clone());
            Ok(sender)
        }
    }

    fn setback(&self, error: &KafkaError) -> Setback {
        let (topic, brokers) = (self.shared.topic(), &self.shared.brokers);
        if matches!(fault_of(error.rdkafka_error_code()), Fault::Refused) {
            return self.refused(error).into();
        }
        Setback::Trouble(format!("topic {topic:?} at {brokers}: {}", explain(error)))
    }
}

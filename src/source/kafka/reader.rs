//! Polls the records of some partitions, decodes them and sends batches.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::topic_partition_list::Offset;

use super::{ANSWER, Consumer, Fault, Shared, explain, fault_of};
use crate::source::batch::{LONGEST_WAIT, PartitionBatcher};
use crate::source::decode::Unavailable;
use crate::source::emit::Stopped;

/// A partition for a reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assignment {
    pub number: i32,
    /// The next record to read.
    pub next: i64,
    /// The end as the coordinator saw it.
    pub end: i64,
    /// Where reading ends, exclusive.
    pub until: Option<i64>,
}

/// Records between two looks at the clock.
const RECORDS_A_LOOK: u32 = 256;
/// How long an idle reader sleeps: bounds how late a stop or a new partition is noticed.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// How often a record is tried again whose schema cannot be had.
const SCHEMA_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Reader {
    shared: Arc<Shared>,
    consumer: Consumer,
    topic: Arc<str>,
    native_topic: CString,
    assignments: Receiver<Assignment>,
    partitions: BTreeMap<i32, Reading>,
    /// The record that was polled last, when its schema cannot be had. Nothing else is polled meanwhile.
    held: Option<OwnedMessage>,
}

/// A partition being read.
struct Reading {
    batcher: PartitionBatcher,
    end: i64,
    until: Option<i64>,
    /// Everything before `until` can be read by now: when the end is met once more, there is nothing left.
    is_complete: bool,
    /// The end was met, and that was told.
    was_at_end: bool,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, consumer: Consumer, assignments: Receiver<Assignment>) -> Self {
        let topic: Arc<str> = shared.topic().into();
        // No topic that a cluster knows has a NUL in its name.
        let native_topic = CString::new(shared.topic()).unwrap_or_default();
        Reader { shared, consumer, topic, native_topic, assignments, partitions: BTreeMap::new(), held: None }
    }

    /// Runs until the stream is stopped or the coordinator and all partitions are at their end.
    pub(super) fn run(mut self) -> Result<(), Stopped> {
        loop {
            self.shared.emitter.stop().check()?;
            if !self.take_assignments()? {
                return Ok(());
            }
            if self.partitions.is_empty() {
                continue;
            }
            if let Some(message) = self.held.take() {
                self.try_again(message)?;
                continue;
            }
            let wait = self.send_due()?;
            let mut wait = wait.min(IDLE_WAIT);
            for _ in 0..RECORDS_A_LOOK {
                match self.poll_once(wait)? {
                    true => wait = Duration::ZERO,
                    false => break,
                }
            }
        }
    }

    /// One record or fault; false when there was none.
    fn poll_once(&mut self, wait: Duration) -> Result<bool, Stopped> {
        let event = match self.consumer.poll(wait) {
            None => return Ok(false),
            // The record borrows the consumer while the rest of the reader changes.
            Some(Ok(message)) => match take_record(&mut self.partitions, &message) {
                Ok(taken) => Ok(taken),
                Err(Unavailable(_)) => {
                    self.held = Some(message.detach());
                    return Ok(false);
                }
            },
            Some(Err(error)) => Err(error),
        };
        match event {
            Ok(taken) => self.follow(taken)?,
            Err(KafkaError::PartitionEOF(number)) => self.at_end(number)?,
            Err(error) => self.fault(&error)?,
        }
        Ok(true)
    }

    fn follow(&mut self, taken: Taken) -> Result<(), Stopped> {
        match taken {
            Taken::Enough => Ok(()),
            Taken::Full(number) => self.send(number),
            Taken::Last(number) => self.finish(number),
        }
    }

    /// Takes a record that had to wait for its schema, or waits on.
    fn try_again(&mut self, message: OwnedMessage) -> Result<(), Stopped> {
        let number = message.partition();
        match take_record(&mut self.partitions, &message) {
            Ok(taken) => {
                self.shared.set_hindrance(number, None);
                self.follow(taken)
            }
            Err(Unavailable(reason)) => {
                self.shared.set_hindrance(number, Some(reason));
                self.held = Some(message);
                // What was read before it need not wait with it.
                let numbers: Vec<i32> = self.partitions.keys().copied().collect();
                numbers.into_iter().try_for_each(|number| self.send(number))?;
                self.shared.emitter.stop().wait(SCHEMA_RETRY)
            }
        }
    }

    /// New partitions; false when there are none left and none can come.
    fn take_assignments(&mut self) -> Result<bool, Stopped> {
        loop {
            let wait = if self.partitions.is_empty() { IDLE_WAIT } else { Duration::ZERO };
            let assignment = match self.assignments.recv_timeout(wait) {
                Ok(assignment) => assignment,
                Err(RecvTimeoutError::Timeout) => return Ok(true),
                Err(RecvTimeoutError::Disconnected) => return Ok(!self.partitions.is_empty()),
            };
            let shared = self.shared.clone();
            let (number, topic) = (assignment.number, self.topic.clone());
            let mut batcher = PartitionBatcher::new(&shared.request, &shared.context, topic, number, assignment.next)
                .map_err(|error| shared.emitter.failed(error.to_string()))?;
            if let Some(schemas) = &shared.schemas {
                batcher.decoder().set_schemas(Arc::clone(schemas));
            }
            let reading = Reading {
                batcher,
                end: assignment.end,
                until: assignment.until,
                is_complete: false,
                was_at_end: false,
            };
            self.partitions.insert(number, reading);
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&self.topic, number, Offset::Offset(assignment.next))
                .and_then(|()| self.consumer.incremental_assign(&list))
                .map_err(|error| {
                    let topic = &self.topic;
                    shared.emitter.failed(format!("topic {topic:?} partition {number}: {}", explain(&error)))
                })?;
        }
    }

    /// Sends what has waited long enough; returns how long the rest may wait.
    fn send_due(&mut self) -> Result<Duration, Stopped> {
        let now = Instant::now();
        let mut wait = IDLE_WAIT;
        let mut due = Vec::new();
        for (number, reading) in &self.partitions {
            match reading.batcher.due() {
                Some(at) if at <= now => due.push(*number),
                Some(at) => wait = wait.min(at - now).min(LONGEST_WAIT),
                None => {}
            }
        }
        for number in due {
            self.send(number)?;
        }
        Ok(wait)
    }

    fn send(&mut self, number: i32) -> Result<(), Stopped> {
        let end = self.known_end(number);
        if let Some(reading) = self.partitions.get_mut(&number) {
            reading.end = reading.end.max(end);
            if let Some(batch) = reading.batcher.take(reading.end) {
                self.shared.emitter.batch(batch)?;
            }
        }
        Ok(())
    }

    /// The partition's end as the last fetch told it; -1 before the first.
    fn known_end(&self, number: i32) -> i64 {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client lives as long as `self.consumer`, the topic is a C string, and both results are ours.
        // The call only reads what the client remembers.
        unsafe {
            rdkafka::bindings::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                self.native_topic.as_ptr(),
                number,
                &mut low,
                &mut high,
            );
        }
        high
    }

    /// A bounded read has delivered the last record of a partition.
    fn finish(&mut self, number: i32) -> Result<(), Stopped> {
        if let Some(reading) = self.partitions.get_mut(&number)
            && let Some(until) = reading.until
        {
            reading.batcher.skip_to(until);
        }
        self.send(number)?;
        self.partitions.remove(&number);
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, number);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            // Its records are dropped one by one then, which only costs time.
            tracing::debug!(topic = %self.topic, number, %error, "partition not given back");
        }
        if self.shared.finish_one() { self.shared.emitter.finished() } else { Ok(()) }
    }

    /// The end of a partition was met.
    ///
    /// The last offsets before `until` may belong to transaction markers or to records that compaction took, and never
    /// come. Once the cluster says that it has everything up to `until`, meeting the end again proves that.
    fn at_end(&mut self, number: i32) -> Result<(), Stopped> {
        let known_end = self.known_end(number);
        let Some(reading) = self.partitions.get_mut(&number) else { return Ok(()) };
        let Some(until) = reading.until else {
            // Where records end before the partition does, only this tells that none are left.
            let is_short = known_end > reading.batcher.next_offset();
            if !std::mem::replace(&mut reading.was_at_end, true) || is_short {
                self.send(number)?;
                self.shared.emitter.at_end(number)?;
            }
            return Ok(());
        };
        if reading.is_complete || reading.batcher.next_offset() >= until {
            return self.finish(number);
        }
        match self.consumer.fetch_watermarks(&self.topic, number, ANSWER) {
            Ok((_, end)) if end >= until => {
                reading.is_complete = true;
                self.seek_back(number);
            }
            Ok(_) => {}
            // The end is met only once: look again from where we are.
            Err(error) => {
                self.shared.suspect(explain(&error));
                self.seek_back(number);
            }
        }
        Ok(())
    }

    /// Fetches again from the next record to read.
    fn seek_back(&self, number: i32) {
        if let Some(reading) = self.partitions.get(&number) {
            let next = Offset::Offset(reading.batcher.next_offset());
            if let Err(error) = self.consumer.seek(&self.topic, number, next, ANSWER) {
                self.shared.suspect(explain(&error));
            }
        }
    }

    fn fault(&mut self, error: &KafkaError) -> Result<(), Stopped> {
        let reason = self.consumer.context().reason().unwrap_or_else(|| explain(error));
        match fault_of(error.rdkafka_error_code()) {
            Fault::Ignored => Ok(()),
            Fault::Passing => {
                self.shared.suspect(reason);
                Ok(())
            }
            Fault::Refused => {
                let (topic, brokers) = (&self.topic, &self.shared.brokers);
                Err(self.shared.emitter.failed(format!("topic {topic:?} at {brokers}: {reason}")))
            }
            Fault::OutOfRange => self.look_for_losses(),
        }
    }

    /// librdkafka does not say which partition is out of range.
    fn look_for_losses(&mut self) -> Result<(), Stopped> {
        let numbers: Vec<i32> = self.partitions.keys().copied().collect();
        for number in numbers {
            // What was read before the loss is whole.
            self.send(number)?;
            let next = self.partitions[&number].batcher.next_offset();
            match self.consumer.fetch_watermarks(&self.topic, number, ANSWER) {
                Ok((beginning, end)) => {
                    if next < beginning && self.shared.is_in_files(number, next) {
                        let message =
                            "its records are gone from the topic, and read out of files when the stream is begun anew";
                        let topic = &self.topic;
                        return Err(self
                            .shared
                            .emitter
                            .failed(format!("topic {topic:?} partition {number}: {message}")));
                    }
                    let there = self.shared.beginning_at(number, next, beginning, end)?;
                    if there != next
                        && let Some(reading) = self.partitions.get_mut(&number)
                    {
                        reading.batcher.skip_to(there);
                        self.send(number)?;
                    }
                }
                Err(error) => self.shared.suspect(explain(&error)),
            }
            self.assign_again(number);
        }
        Ok(())
    }

    /// Fetches on from the next record to read, of a partition that librdkafka has given up: no seek brings it back.
    fn assign_again(&self, number: i32) {
        let Some(reading) = self.partitions.get(&number) else { return };
        let mut list = TopicPartitionList::new();
        let assigned = list
            .add_partition_offset(&self.topic, number, Offset::Offset(reading.batcher.next_offset()))
            .and_then(|()| self.consumer.incremental_unassign(&list))
            .and_then(|()| self.consumer.incremental_assign(&list));
        if let Err(error) = assigned {
            self.shared.suspect(explain(&error));
        }
    }
}

/// What a record did to its partition.
enum Taken {
    Enough,
    /// The batch should be sent.
    Full(i32),
    /// Nothing before the end of the read is missing any more.
    Last(i32),
}

#[inline]
fn take_record(partitions: &mut BTreeMap<i32, Reading>, message: &impl Message) -> Result<Taken, Unavailable> {
    let number = message.partition();
    // A partition that is finished may still have records on their way.
    let Some(reading) = partitions.get_mut(&number) else { return Ok(Taken::Enough) };
    let offset = message.offset();
    if offset < reading.batcher.next_offset() {
        // Fetched twice after a seek.
        return Ok(Taken::Enough);
    }
    let next = offset + 1;
    if reading.until.is_some_and(|until| offset >= until) {
        return Ok(Taken::Last(number));
    }
    reading.batcher.prepare(message.payload())?;
    reading.batcher.push(offset, next, message.timestamp().to_millis(), message.key(), message.payload());
    if reading.until == Some(next) {
        return Ok(Taken::Last(number));
    }
    Ok(if reading.batcher.is_full() { Taken::Full(number) } else { Taken::Enough })
}

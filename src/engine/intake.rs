//! What has arrived: the sources of a dataflow behind one bounded channel, cut into epochs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches, max};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::error::ArrowError;

use chrono::{DateTime, TimeZone};
use chrono_tz::Tz;

use crate::catalog::{EventTime, Stream};
use crate::config::{Config, Connection};
use crate::delta::{Lost, Offsets, Partition};
use crate::engine::culprit::EventRow;
use crate::engine::dataflow::TagFault;
use crate::operator::rows::bytes_of;
use crate::source::{
    DeadLetters, ReadRequest, ReadRoom, Registries, SourceContext, SourceError, SourceEvent, SourceHandle, Tables,
    WallClock, start_source,
};

/// Batches that may wait in the channel, unless memory is limited: what bounds the memory between sources and operators.
const QUEUED_BATCHES: usize = 32;
/// Batches that may wait where it is.
const LIMITED_BATCHES: usize = 8;
/// About the most bytes of one epoch, however few rows they are.
const EPOCH_BYTES: usize = 64 << 20;

/// Where streams come from: the connections and the world of the sources.
#[derive(Clone)]
pub struct World {
    /// By name.
    pub connections: BTreeMap<String, Connection>,
    /// Zone, dead letters, clock.
    pub context: SourceContext,
    /// What may wait between sources and operators.
    pub queue: Queue,
}

/// How much of what arrives is in memory.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    batches: usize,
    epoch_bytes: usize,
    room: ReadRoom,
}

impl Queue {
    /// As much as serves.
    pub fn unlimited() -> Self {
        Queue { batches: QUEUED_BATCHES, epoch_bytes: EPOCH_BYTES, room: ReadRoom::default() }
    }

    /// With so much memory for all, about as much in the queue as in librdkafka's and as in an epoch, where it is twice.
    pub fn within(bytes: usize) -> Self {
        let Queue { epoch_bytes, room: ReadRoom { batch, ahead }, .. } = Queue::unlimited();
        let room = ReadRoom { batch: batch.min(bytes / 4 / LIMITED_BATCHES), ahead: ahead.min(bytes / 4) };
        Queue { batches: LIMITED_BATCHES, epoch_bytes: epoch_bytes.min(bytes / 4), room }
    }

    /// What each of so many streams may have.
    fn room_of_each(&self, streams: usize) -> ReadRoom {
        let ReadRoom { batch, ahead } = self.room;
        // Each also has a batch that is under way.
        ReadRoom { batch: batch.min(2 * self.epoch_bytes / streams.max(1)), ahead: ahead / streams.max(1) }
    }
}

impl World {
    /// For a command: what does not decode was told by the daemon, and goes to a folder of its own.
    pub fn beside_the_daemon(config: &Config) -> Self {
        let wall_clock: WallClock = Arc::new(|| chrono::Utc::now().timestamp_millis());
        let engine = &config.engine;
        let folder = engine.state_dir.join("dead-letters-of-verify");
        World {
            connections: config.connections.clone(),
            queue: Queue::unlimited(),
            context: SourceContext {
                timezone: config.timezone,
                root: config.root.clone(),
                dead_letters: Arc::new(DeadLetters::new(folder, engine.dead_letters, Arc::clone(&wall_clock))),
                tables: Arc::new(Tables::new(&engine.state_dir)),
                state_dir: engine.state_dir.clone(),
                wall_clock,
                registries: Registries::default(),
            },
        }
    }
}

/// The streams to read, each with the columns that are needed.
pub type Reads = BTreeMap<String, (Arc<Stream>, BTreeSet<usize>)>;

/// What is known of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionState {
    /// The oldest record that was there at the start.
    pub beginning: i64,
    /// The offset behind the last record, as last heard of.
    pub end: i64,
    /// The end as it was first heard of: behind it lies what arrived while reading.
    pub first_end: i64,
    /// The next record that the engine takes.
    pub next: i64,
    /// All that could be read was taken once, whatever offsets are left.
    pub was_at_end: bool,
    /// Broker time of the first records that were read, milliseconds.
    pub first_timestamp: Option<i64>,
    /// Broker time of the newest record that was read, milliseconds.
    pub newest_timestamp: Option<i64>,
    /// When records last came, or the partition was first heard of.
    pub active: Instant,
}

impl PartitionState {
    fn new(beginning: i64, end: i64, next: i64) -> Self {
        PartitionState {
            beginning,
            end,
            first_end: end,
            next,
            was_at_end: false,
            first_timestamp: None,
            newest_timestamp: None,
            active: Instant::now(),
        }
    }
}

/// The events of one epoch.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Rows by stream.
    pub events: HashMap<String, RecordBatch>,
    /// Where reading has come to.
    pub next: Vec<(Arc<Partition>, i64)>,
    /// Rows in all.
    pub rows: usize,
    /// By stream, the partitions of its rows with the offset of each, in the order of the rows.
    places: HashMap<String, Vec<(i32, Vec<i64>)>>,
}

impl Arrived {
    /// Names the records that tags have failed on.
    pub fn name_records(&self, faults: &mut [TagFault]) {
        for fault in faults {
            let Some(EventRow { stream, topic, row }) = &fault.row else { continue };
            if let Some((partition, offset)) = self.place(stream, *row) {
                let place = format!("topic \"{topic}\", partition {partition}, offset {offset}");
                fault.reason = format!("{} (at {place})", fault.reason);
            }
        }
    }

    fn place(&self, stream: &str, row: usize) -> Option<(i32, i64)> {
        let mut before = 0;
        for (partition, offsets) in self.places.get(stream)? {
            if let Some(offset) = offsets.get(row - before) {
                return Some((*partition, *offset));
            }
            before += offsets.len();
        }
        None
    }
}

/// The sources of one dataflow.
pub struct Intake {
    queue: Queue,
    handles: Vec<SourceHandle>,
    events: Receiver<SourceEvent>,
    streams: BTreeSet<String>,
    finished: BTreeSet<String>,
    /// Streams that have told all their partitions.
    announced: BTreeSet<String>,
    /// Streams whose topic does not exist yet.
    missing: BTreeSet<String>,
    /// The newest event time that was read of each stream, milliseconds since the Unix epoch.
    newest: BTreeMap<String, i64>,
    /// The columns of event time, and how late events may be.
    times: BTreeMap<String, EventTime>,
    timezone: Tz,
    /// By partition.
    pub partitions: BTreeMap<Partition, PartitionState>,
    /// Passing faults, by stream.
    pub troubles: BTreeMap<String, String>,
    /// Streams that cannot go on, with the reason.
    pub failed: BTreeMap<String, String>,
    /// What was gone before it was read, of streams that go on all the same; whoever tells of it takes it out.
    pub lost: Vec<Lost>,
}

impl Intake {
    /// Starts reading at `offsets`; with `until`, exactly up to it.
    pub fn start(
        world: &World,
        reads: &Reads,
        offsets: &Offsets,
        until: Option<&Offsets>,
    ) -> Result<Self, SourceError> {
        let (sender, events) = sync_channel(world.queue.batches);
        let mut intake = Intake {
            queue: world.queue,
            handles: Vec::new(),
            events,
            streams: reads.keys().cloned().collect(),
            finished: BTreeSet::new(),
            announced: BTreeSet::new(),
            missing: BTreeSet::new(),
            newest: BTreeMap::new(),
            times: reads.values().filter_map(|(stream, _)| Some((stream.name.clone(), stream.time.clone()?))).collect(),
            timezone: world.context.timezone,
            partitions: BTreeMap::new(),
            troubles: BTreeMap::new(),
            failed: BTreeMap::new(),
            lost: Vec::new(),
        };
        let room = world.queue.room_of_each(reads.len());
        for (name, (stream, columns)) in reads {
            let of_stream = |offsets: &Offsets| -> BTreeMap<i32, i64> {
                let own = offsets.0.iter().filter(|(partition, _)| partition.stream == *name);
                own.map(|(partition, next)| (partition.number, *next)).collect()
            };
            let connection = world.connections.get(&stream.connection).ok_or_else(|| SourceError::Setup {
                stream: name.clone(),
                message: format!("connection `{}` is not in tagflow.toml", stream.connection),
            })?;
            let request = ReadRequest {
                stream: Arc::clone(stream),
                columns: columns.iter().copied().collect(),
                from: of_stream(offsets),
                until: until.map(of_stream),
                room,
            };
            intake.handles.push(start_source(request, connection, &world.context, sender.clone())?);
        }
        Ok(intake)
    }

    /// Takes what arrives within `wait`, and stops earlier at `rows` or at a good many bytes.
    pub fn collect(&mut self, wait: Duration, rows: usize) -> Result<Arrived, ArrowError> {
        let deadline = Instant::now() + wait;
        let mut arrived = Arrived::default();
        let mut batches: BTreeMap<String, Vec<RecordBatch>> = BTreeMap::new();
        let mut bytes = 0;
        while arrived.rows < rows && bytes < self.queue.epoch_bytes {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = match self.events.recv_timeout(left) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => break,
                // All sources have ended: nothing will come any more.
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(left);
                    break;
                }
            };
            let SourceEvent::Batch(batch) = event else {
                let ended = matches!(&event, SourceEvent::Finished { .. } | SourceEvent::Failed { .. });
                self.note(event, &mut arrived);
                if ended && self.is_finished() {
                    break;
                }
                continue;
            };
            let partition = batch.partition.as_ref().clone();
            let known = self.partitions.entry(partition).or_insert_with(|| PartitionState::new(0, 0, 0));
            known.active = Instant::now();
            known.next = batch.next_offset;
            known.end = known.end.max(batch.end_offset);
            known.first_timestamp = known.first_timestamp.or(batch.newest_timestamp);
            known.newest_timestamp = known.newest_timestamp.max(batch.newest_timestamp);
            arrived.rows += batch.batch.num_rows();
            arrived.next.push((Arc::clone(&batch.partition), batch.next_offset));
            bytes += bytes_of(&batch.batch);
            if batch.batch.num_rows() > 0 {
                let places = arrived.places.entry(batch.partition.stream.clone()).or_default();
                places.push((batch.partition.number, batch.offsets));
                batches.entry(batch.partition.stream.clone()).or_default().push(batch.batch);
            }
        }
        for (stream, batches) in batches {
            let schema = batches[0].schema();
            let whole = concat_batches(&schema, &batches)?;
            self.note_times(&stream, &whole)?;
            arrived.events.insert(stream, whole);
        }
        Ok(arrived)
    }

    fn note(&mut self, event: SourceEvent, arrived: &mut Arrived) {
        match event {
            SourceEvent::Batch(_) => {}
            SourceEvent::Finished { stream } => {
                self.finished.insert(stream);
            }
            SourceEvent::Partition { partition, beginning, end, next } => {
                self.missing.remove(&partition.stream);
                // Where reading begins is a place too: a partition without records must not begin elsewhere next time.
                arrived.next.push((Arc::clone(&partition), next));
                let state = PartitionState::new(beginning, end, next);
                self.partitions.insert(partition.as_ref().clone(), state);
            }
            SourceEvent::Announced { stream } => {
                self.announced.insert(stream);
            }
            SourceEvent::AtEnd { partition } => {
                if let Some(state) = self.partitions.get_mut(partition.as_ref()) {
                    state.was_at_end = true;
                    state.end = state.next;
                }
            }
            SourceEvent::Lost(lost) => self.lost.push(lost),
            SourceEvent::Missing { stream } => {
                self.missing.insert(stream);
            }
            SourceEvent::Trouble { stream, message } => {
                self.troubles.insert(stream, message);
            }
            SourceEvent::Recovered { stream } => {
                self.troubles.remove(&stream);
            }
            SourceEvent::Failed { stream, message } => {
                self.failed.insert(stream, message);
            }
        }
    }

    /// True when a stream has told its partitions.
    pub fn is_announced(&self, stream: &str) -> bool {
        self.announced.contains(stream)
    }

    /// The partitions of the streams that have told all of theirs.
    pub fn announced_partitions(&self) -> impl Iterator<Item = &Partition> + Clone {
        self.partitions.keys().filter(|partition| self.announced.contains(&partition.stream))
    }

    /// True when the source of a stream has delivered all that was asked for.
    pub fn has_finished(&self, stream: &str) -> bool {
        self.finished.contains(stream)
    }

    /// True when every source has delivered all that was asked for, or cannot go on.
    pub fn is_finished(&self) -> bool {
        self.streams.iter().all(|stream| self.finished.contains(stream) || self.failed.contains_key(stream))
    }

    /// True when every stream has told all its partitions and they were read up to the end that was first heard of, or
    /// as far as anything can be read; a topic that does not exist has nothing to read.
    pub fn is_caught_up(&self) -> bool {
        self.streams.iter().all(|stream| {
            let mut own = self.partitions.iter().filter(|(partition, _)| partition.stream == *stream);
            self.finished.contains(stream)
                || self.failed.contains_key(stream)
                || self.missing.contains(stream)
                || self.announced.contains(stream)
                    && own.all(|(_, state)| state.was_at_end || state.next >= state.first_end)
        })
    }

    fn note_times(&mut self, stream: &str, batch: &RecordBatch) -> Result<(), ArrowError> {
        let time = self.times.get(stream).and_then(|time| batch.column_by_name(&time.column));
        let Some(time) = time else { return Ok(()) };
        let millis = cast(&cast(time, &DataType::Timestamp(TimeUnit::Millisecond, None))?, &DataType::Int64)?;
        let Some(newest) = max(millis.as_primitive::<Int64Type>()) else { return Ok(()) };
        let instant = instant_of(newest, time.data_type(), self.timezone);
        let known = self.newest.entry(stream.to_string()).or_insert(instant);
        *known = instant.max(*known);
        Ok(())
    }

    /// Up to when, in event time, each stream is known: its newest event less how late another may be, milliseconds since
    /// the Unix epoch. Streams whose event time no tag reads are not among them.
    pub fn watermarks(&self) -> BTreeMap<String, i64> {
        let lateness = |stream: &str| self.times.get(stream).map_or(0, |time| time.lateness.as_millis() as i64);
        self.newest.iter().map(|(stream, newest)| (stream.clone(), newest - lateness(stream))).collect()
    }

    /// The partitions from which events are to be waited for, of a stream that has told all of them: those that are not at
    /// their end, or have not been there long.
    pub fn awaited(&self, stream: &str) -> Option<BTreeSet<i32>> {
        let idle = self.times.get(stream)?.idle;
        let own = self.partitions.iter().filter(|(partition, _)| partition.stream == stream);
        let is_awaited = |state: &PartitionState| {
            let is_at_end = state.was_at_end || state.next >= state.end;
            !is_at_end || state.active.elapsed() < idle
        };
        let awaited = own.filter(|(_, state)| is_awaited(state)).map(|(partition, _)| partition.number);
        self.announced.contains(stream).then(|| awaited.collect())
    }

    /// Records that are known to wait, over all partitions.
    pub fn lag(&self) -> i64 {
        self.partitions.values().map(|state| (state.end - state.next).max(0)).sum()
    }
}

/// The instant, milliseconds since the Unix epoch, of an event time that counts as its column does.
pub fn instant_of(millis: i64, data_type: &DataType, timezone: Tz) -> i64 {
    let is_wall_time = matches!(data_type, DataType::Timestamp(_, None));
    let wall = DateTime::from_timestamp_millis(millis).filter(|_| is_wall_time);
    let local = wall.and_then(|wall| timezone.from_local_datetime(&wall.naive_utc()).latest());
    local.map_or(millis, |local| local.timestamp_millis())
}

impl Drop for Intake {
    fn drop(&mut self) {
        // Side by side: each may take a moment to end.
        let handles = std::mem::take(&mut self.handles);
        std::thread::scope(|scope| {
            for handle in handles {
                scope.spawn(move || handle.stop());
            }
        });
    }
}

//! Fills: new and changed tags read the whole history beside the running ones, up to exact offsets.
//!
//! A fill has a dataflow and sources of its own. It reads until it has caught up, says so, is given offsets and a
//! clock at which it and the running tags meet, goes exactly there, and hands its dataflow over. Its rows are in
//! tables of their own by then, which only have to be renamed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::delta::{Clock, Offsets, Watermarks};
use crate::engine::changes::complete_from;
use crate::engine::commits::{Commits, commits_of_tags};
use crate::engine::dataflow::{Dataflow, TagFault};
use crate::engine::desired::{PlannedTag, reads};
use crate::engine::intake::{Intake, Reads, World};
use crate::engine::labels::OutsideLabels;
use crate::engine::letters::keep_left_out;
use crate::engine::memory::{MemoryPlan, pending};
use crate::engine::sizes::StateSizes;
use crate::engine::status::Rate;
use crate::engine::stop::Stop;
use crate::engine::store::StoreThread;
use crate::sink::CommitStats;

/// Keys that may wait before they are written to the tables that are being filled; fewer where the store must serve running
/// tags in between.
const PENDING_KEYS: usize = 200_000;
const PENDING_KEYS_BESIDE: usize = 50_000;
/// Of its time a fill gets at least this part, however far running tags are behind.
const LEAST_SHARE: u32 = 10;
/// Bytes of the rows that may wait likewise.
const PENDING_BYTES: usize = 128 << 20;

/// Expressions are evaluated recursively, also deep ones.
const STACK: usize = 64 << 20;

/// What a fill is to do.
pub struct FillRequest {
    /// The tags.
    pub tags: BTreeMap<String, PlannedTag>,
    /// Where streams come from.
    pub world: World,
    /// The store.
    pub store: Arc<StoreThread>,
    /// Key shards.
    pub shards: usize,
    /// Most rows of one epoch, where memory does not make it fewer.
    pub epoch_rows: usize,
    /// The clock to begin with.
    pub clock: Clock,
    /// Watermarks to begin with.
    pub watermarks: Watermarks,
    /// No tag runs that could be held up.
    pub is_alone: bool,
    /// What it may take of the memory; `None` without a limit.
    pub memory: Option<MemoryPlan>,
    /// When it is not waited for any more.
    pub stop: Arc<Stop>,
}

/// Where fill and running tags meet.
#[derive(Debug, Clone)]
pub struct Meeting {
    /// Exactly these records have been taken.
    pub offsets: Offsets,
    /// At this time.
    pub clock: Clock,
    /// With these watermarks.
    pub watermarks: Watermarks,
}

/// What a fill tells the engine.
pub enum FillEvent {
    /// How far it is.
    Progress {
        /// Rows read.
        rows: u64,
        /// Records known to wait.
        lag: i64,
        /// What keeps it from reading.
        troubles: Vec<String>,
    },
    /// What it has written into its tables, and what the store could not take.
    Written(CommitStats),
    /// A tag cannot be filled; the others go on.
    Fault(TagFault),
    /// History is read up to here: say where to meet.
    CaughtUp {
        /// The next records to read.
        offsets: Offsets,
        /// How far the watermarks have come.
        watermarks: Watermarks,
        /// Who last touched the files of tags.
        commits: Commits,
    },
    /// It is where it was told to be, and its tables hold what its dataflow says.
    Filled(Box<Filled>),
    /// Nothing of it can be used; another try may go better.
    Failed(String),
}

/// A finished fill.
pub struct Filled {
    /// With state, nothing pending.
    pub dataflow: Dataflow,
    /// For each tag from when on it is complete, milliseconds; `None` when history reaches back far enough.
    pub complete_from: BTreeMap<String, Option<i64>>,
}

/// A fill that is under way.
pub struct Fill {
    /// The tags that it fills.
    pub tags: BTreeMap<String, PlannedTag>,
    /// What it tells.
    pub events: Receiver<FillEvent>,
    /// Rows read so far.
    pub rows: u64,
    /// Records known to wait.
    pub lag: i64,
    /// What keeps it from reading.
    pub troubles: Vec<String>,
    /// Since when something has.
    pub troubled_since: Option<Instant>,
    /// The clock of its epochs.
    pub clock: Clock,
    /// Rows a second, lately.
    pub rate: Rate,
    /// When it has begun.
    pub begun: Instant,
    meetings: Sender<Meeting>,
    cancelled: Arc<AtomicBool>,
    held: Arc<AtomicBool>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Fill {
    /// Starts one.
    pub fn start(request: FillRequest) -> std::io::Result<Self> {
        let (sender, events) = channel();
        let (meetings, meeting) = channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let held = Arc::new(AtomicBool::new(false));
        let tags = request.tags.clone();
        let clock = request.clock;
        let stop = Arc::clone(&request.stop);
        let run = Run {
            request,
            events: sender,
            meeting,
            cancelled: Arc::clone(&cancelled),
            held: Arc::clone(&held),
            rows: 0,
            beginnings: Offsets::default(),
            sizes: StateSizes::default(),
        };
        let thread = std::thread::Builder::new().name("fill".to_string()).stack_size(STACK).spawn(move || run.run())?;
        Ok(Fill {
            tags,
            events,
            rows: 0,
            lag: 0,
            troubles: Vec::new(),
            troubled_since: None,
            clock,
            rate: Rate::default(),
            begun: Instant::now(),
            meetings,
            cancelled,
            held,
            stop,
            thread: Some(thread),
        })
    }

    /// Takes note of how far it is.
    pub fn note(&mut self, rows: u64, lag: i64, troubles: Vec<String>) {
        if troubles.is_empty() || rows != self.rows {
            self.troubled_since = None;
        }
        if !troubles.is_empty() {
            self.troubled_since.get_or_insert_with(Instant::now);
        }
        (self.rows, self.lag, self.troubles) = (rows, lag, troubles);
    }

    /// Lets it wait, or go on.
    pub fn hold(&self, is_held: bool) {
        self.held.store(is_held, Ordering::SeqCst);
    }

    /// True while it waits for running tags.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Says where to meet.
    pub fn meet(&self, meeting: Meeting) {
        let _ = self.meetings.send(meeting);
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return };
        // Where the daemon goes on, the tables that it fills are filled by another one next.
        match self.stop.join(thread) {
            Some(Ok(())) => {}
            Some(Err(_)) => warn!("a fill panicked"),
            None => warn!("the fill is in the middle of something long; it ends with the process"),
        }
    }
}

struct Run {
    request: FillRequest,
    events: Sender<FillEvent>,
    meeting: Receiver<Meeting>,
    cancelled: Arc<AtomicBool>,
    held: Arc<AtomicBool>,
    rows: u64,
    /// The first records taken of partitions whose first ever are gone or not asked for.
    beginnings: Offsets,
    sizes: StateSizes,
}

/// Why a fill ends early: cancelled (`None`), or with a reason.
type Ended = Option<String>;

impl Run {
    fn run(mut self) {
        let filled = catch_unwind(AssertUnwindSafe(|| self.fill()));
        match filled
            .unwrap_or_else(|_| Err(Some("it panicked: this is a bug of tagflow, its log has the place".into())))
        {
            Ok(filled) => self.tell(FillEvent::Filled(Box::new(filled))),
            Err(Some(reason)) => self.tell(FillEvent::Failed(reason)),
            Err(None) => info!("the fill was cancelled"),
        }
    }

    fn tell(&self, event: FillEvent) {
        // The engine may have dropped the fill meanwhile.
        let _ = self.events.send(event);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    fn fill(&mut self) -> Result<Filled, Ended> {
        let world = self.request.world.clone();
        let mut dataflow = Dataflow::new(self.request.shards, world.context.timezone);
        if let Some(memory) = &self.request.memory {
            dataflow.graph.set_room(memory.of_filling());
        }
        for (name, tag) in &self.request.tags {
            if self.is_cancelled() {
                return Err(None);
            }
            let table = Arc::clone(&tag.shadow);
            let created = self.request.store.call("create table", move |sink| sink.create_table(&table));
            let created = created.map_err(|error| TagFault::passing(name, error));
            // Where history begins is known once the streams have been read.
            let added = |()| dataflow.add_tag(&tag.shadow, name, &tag.plan, 0, &Offsets::default());
            if let Err(fault) = created.and_then(added) {
                self.tell(FillEvent::Fault(fault));
            }
            dataflow.watch_labels(name, OutsideLabels::of(&tag.registration.columns));
        }
        if dataflow.is_empty() {
            return Err(Some("none of the tags can be filled".to_string()));
        }
        dataflow.raise_watermarks(&self.request.watermarks);
        let reads = self.reads(&dataflow);
        let mut intake =
            Intake::start(&world, &reads, &Offsets::default(), None).map_err(|error| Some(error.to_string()))?;
        let clock = self.request.clock;
        // The running tags wait where they meet the fill, so it goes on until little is left between them.
        while !intake.is_caught_up() || intake.lag() > self.epoch_rows() as i64 {
            let begun = Instant::now();
            self.epoch(&mut dataflow, &mut intake, clock)?;
            self.wait_while_held(begun.elapsed());
            dataflow.look_ahead(|stream| intake.awaited(stream));
        }
        let complete_from = self.completeness(&intake, clock);
        drop(intake);
        self.write(&mut dataflow)?;
        let watermarks = dataflow.next_watermarks().clone();
        // Before the meeting, at which running tags wait.
        let commits = commits_of_tags(&world.context.root);
        self.tell(FillEvent::CaughtUp { offsets: dataflow.offsets.clone(), watermarks, commits });

        let meeting = self.wait_for_meeting()?;
        let reads = self.reads(&dataflow);
        let mut intake = Intake::start(&world, &reads, &dataflow.offsets, Some(&meeting.offsets))
            .map_err(|error| Some(error.to_string()))?;
        while !intake.is_finished() {
            self.epoch(&mut dataflow, &mut intake, clock)?;
        }
        dataflow.raise_watermarks(&meeting.watermarks);
        let faults = dataflow.step(&Default::default(), meeting.clock);
        self.report(faults);
        self.write(&mut dataflow)?;
        dataflow.begin_at(&self.beginnings);
        Ok(Filled { dataflow, complete_from })
    }

    fn reads(&self, dataflow: &Dataflow) -> Reads {
        reads(dataflow.tags().filter_map(|(tag, _)| Some(self.request.tags.get(tag)?.plan.as_ref())))
    }

    fn epoch(&mut self, dataflow: &mut Dataflow, intake: &mut Intake, clock: Clock) -> Result<(), Ended> {
        if self.is_cancelled() {
            return Err(None);
        }
        if self.waits_for_memory(dataflow, intake)? {
            return Ok(());
        }
        let arrived =
            intake.collect(Duration::from_millis(100), self.epoch_rows()).map_err(|error| Some(error.to_string()))?;
        if let Some(lost) = intake.lost.first() {
            return Err(Some(format!("{lost} were gone before they were read")));
        }
        self.give_up_failed(dataflow, intake);
        for (partition, next) in &arrived.next {
            // A partition is told before its first record.
            if *next > 0 && dataflow.offsets.next(partition).is_none() {
                self.beginnings.advance(partition, *next);
            }
            dataflow.offsets.advance(partition, *next);
        }
        if arrived.rows > 0 {
            self.rows += arrived.rows as u64;
            dataflow.graph.note_partitions(intake.announced_partitions());
            dataflow.note_event_times(intake.watermarks());
            let mut faults = dataflow.step(&arrived.events, clock);
            arrived.name_records(&mut faults);
            self.report(faults);
            keep_left_out(&dataflow.graph, &self.request.world.context.dead_letters);
        }
        if self.sizes.count(&dataflow.graph) {
            let over = self.sizes.over_limit(|tag| self.request.tags.get(tag)?.state_limit);
            over.iter().for_each(|fault| dataflow.remove_tag(&fault.tag));
            self.report(over);
        }
        if dataflow.is_empty() {
            return Err(Some("all of its tags have failed".to_string()));
        }
        let troubles = intake.troubles.iter().map(|(stream, message)| format!("stream `{stream}`: {message}"));
        self.tell(FillEvent::Progress { rows: self.rows, lag: intake.lag(), troubles: troubles.collect() });
        let most_bytes = pending(self.request.memory.as_ref(), PENDING_BYTES);
        let most_keys = if self.request.is_alone { PENDING_KEYS } else { PENDING_KEYS_BESIDE };
        if dataflow.pending_keys() > most_keys || dataflow.pending_bytes() > most_bytes {
            self.write(dataflow)?;
        }
        Ok(())
    }

    fn epoch_rows(&self) -> usize {
        let most = self.request.epoch_rows;
        self.request.memory.as_ref().map_or(most, |memory| memory.epoch_rows(most))
    }

    /// Waits for running tags that are behind, and not for ever: `worked` is how long the last epoch took.
    fn wait_while_held(&self, worked: Duration) {
        let until = Instant::now() + worked * (LEAST_SHARE - 1);
        while self.held.load(Ordering::SeqCst) && !self.is_cancelled() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// True where nothing is read this time: the process is at its limit, or state cannot leave.
    fn waits_for_memory(&self, dataflow: &mut Dataflow, intake: &Intake) -> Result<bool, Ended> {
        let Some(memory) = &self.request.memory else { return Ok(false) };
        let is_out_of_memory = memory.follow();
        dataflow.graph.set_room(memory.of_filling());
        let of_state = dataflow.graph.fit().trouble.clone();
        if !is_out_of_memory && of_state.is_none() {
            return Ok(false);
        }
        if dataflow.pending_keys() > 0 {
            self.write(dataflow)?;
        }
        std::thread::sleep(Duration::from_millis(100));
        dataflow.graph.keep_in_room();
        let troubles = of_state.or_else(|| memory.trouble()).into_iter().collect();
        self.tell(FillEvent::Progress { rows: self.rows, lag: intake.lag(), troubles });
        Ok(true)
    }

    /// A stream that cannot go on fails the tags that read it, not the others.
    fn give_up_failed(&self, dataflow: &mut Dataflow, intake: &Intake) {
        for (stream, reason) in &intake.failed {
            let reading = dataflow.tags_reading(stream);
            for tag in reading {
                dataflow.remove_tag(&tag);
                self.tell(FillEvent::Fault(TagFault::passing(tag, format!("stream `{stream}`: {reason}"))));
            }
        }
    }

    fn report(&self, faults: Vec<TagFault>) {
        for fault in faults {
            self.tell(FillEvent::Fault(fault));
        }
    }

    fn write(&self, dataflow: &mut Dataflow) -> Result<(), Ended> {
        let (changes, faults) = dataflow.drain();
        self.report(faults);
        let in_flight = self.request.store.commit(changes);
        loop {
            match in_flight.wait(Duration::from_millis(100)) {
                Some(Ok(committed)) => {
                    self.tell(FillEvent::Written(committed.stats));
                    for fault in committed.faults {
                        dataflow.remove_tag(&fault.tag);
                        self.tell(FillEvent::Fault(fault));
                    }
                    return Ok(());
                }
                Some(Err(error)) => return Err(Some(error.to_string())),
                None if self.is_cancelled() => return Err(None),
                None => {}
            }
        }
    }

    fn wait_for_meeting(&self) -> Result<Meeting, Ended> {
        loop {
            match self.meeting.recv_timeout(Duration::from_millis(50)) {
                Ok(meeting) => return Ok(meeting),
                Err(RecvTimeoutError::Timeout) if !self.is_cancelled() => {}
                Err(_) => return Err(None),
            }
        }
    }

    /// From when on each tag's answer is complete: history may begin later than its SQL asks.
    fn completeness(&self, intake: &Intake, clock: Clock) -> BTreeMap<String, Option<i64>> {
        let incomplete_from = |tag: &PlannedTag| {
            let reads = reads([tag.plan.as_ref()]);
            let partitions = intake.partitions.iter().filter(|(partition, _)| reads.contains_key(&partition.stream));
            // What `start` leaves out counts as little as what the broker has dropped.
            let cut = partitions.filter(|(partition, _)| self.beginnings.next(partition).is_some());
            let cut = cut.map(|(_, state)| state.first_timestamp.unwrap_or(clock / 1_000_000));
            complete_from(&tag.plan, cut, clock)
        };
        self.request.tags.iter().map(|(name, tag)| (name.clone(), incomplete_from(tag))).collect()
    }
}

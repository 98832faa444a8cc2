//! The epoch loop: takes what has arrived, steps the graph, hands changes to the store, and keeps the tags that run
//! the ones that the project says.
//!
//! Everything that the loop decides on comes through it: arrivals, the clock, outcomes of the store, of fills and of
//! reloads. The order of the commit protocol is in `ARCHITECTURE.md`.

mod archives;
mod checkpoints;
mod claim;
mod error;
mod fills;
mod losses;
mod memory;
mod pace;
mod report;
mod restore;
mod tags;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tracing::{error, warn};

pub use self::claim::OtherDaemon;
pub use self::error::DaemonError;
pub use self::pace::BACKFILLS;
pub use self::tags::RESUMED;
use crate::config::Config;
use crate::crash_point::crash_point;
use crate::delta::{Clock, Lost, Offsets};
use crate::engine::checkpoint::Checkpoints;
use crate::engine::commits::commits_of_tags;
use crate::engine::dataflow::Dataflow;
use crate::engine::delay::Delay;
use crate::engine::desired::{Desired, PlannedTag, reads};
use crate::engine::fill::{Fill, Filled, Meeting};
use crate::engine::intake::{Intake, Queue, World};
use crate::engine::letters::keep_left_out;
use crate::engine::memory::MemoryPlan;
use crate::engine::reload::Reloader;
use crate::engine::running::Running;
use crate::engine::sizes::StateSizes;
use crate::engine::status::{Phase, Rate, SharedStatus, TagState, update};
use crate::engine::stop::Stop;
use crate::engine::store::{InFlight, StoreThread};
use crate::operator::OperatorError;
use crate::sink::{CommitStats, open_store};
use crate::source::{DeadLetters, Registries, SourceContext, Tables, dead_letter};

/// Keys that may wait for a store that is busy before no more is read.
const MOST_PENDING_KEYS: usize = 1_000_000;
/// Bytes of the rows that may wait likewise.
const MOST_PENDING_BYTES: usize = 512 << 20;
/// How often the status is written anew.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// When a tag is tried again whose surroundings failed it: doubled from the first wait to the last.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(600);
/// How long after a failure streams are tried again.
const STREAM_RETRY: Duration = Duration::from_secs(60);

/// The world of a daemon, as values, so that tests control it.
pub struct DaemonOptions {
    /// What should run.
    pub desired: Desired,
    /// The fingerprint of the files as they were loaded; `None` to run without watching them.
    pub watched: Option<String>,
    /// Set from outside to stop.
    pub shutdown: Arc<AtomicBool>,
    /// Written by the daemon.
    pub status: SharedStatus,
    /// Stop by itself once everything that was there at the start is in the store.
    pub until_caught_up: bool,
    /// Let most tags vanish at once.
    pub accept_removals: bool,
    /// What to do when another daemon writes the store.
    pub other_daemon: OtherDaemon,
}

/// Nanoseconds since the Unix epoch.
fn wall_clock() -> Clock {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or(Clock::MAX)
}

/// Key shards of every dataflow: as set, or one a core.
fn shards(config: &Config) -> usize {
    if config.engine.shards == 0 { rayon::current_num_threads() } else { config.engine.shards }
}

/// What the daemon before has noted; one that cannot be read is written anew.
fn kept_running(state_dir: &Path) -> Running {
    let kept = Running::kept_in(state_dir).unwrap_or_else(|error| {
        warn!(%error, "what has run here cannot be read");
        None
    });
    kept.unwrap_or_default()
}

/// Runs until told to stop.
pub fn run(options: DaemonOptions) -> Result<(), DaemonError> {
    let config = options.desired.project.config.clone();
    std::fs::create_dir_all(&config.engine.state_dir).map_err(|source| DaemonError::Io {
        what: format!("the state directory {}", config.engine.state_dir.display()),
        source,
    })?;
    let other_daemon = options.other_daemon;
    let mut daemon = Daemon::open(options, config)?;
    let Some(_lock) = daemon.claim(other_daemon)? else { return Ok(()) };
    daemon.follow_memory();
    daemon.restore()?;
    let outcome = daemon.follow();
    daemon.stop(outcome)
}

struct Daemon {
    config: Config,
    desired: Desired,
    world: World,
    store: Arc<StoreThread>,
    checkpoints: Checkpoints,
    /// The state directory's name.
    state_name: String,
    checkpointing: Option<checkpoints::Checkpointing>,
    archives: archives::Archives,
    dataflow: Dataflow,
    /// The tags that run, as they were planned when they joined.
    running: BTreeMap<String, PlannedTag>,
    complete_from: BTreeMap<String, Option<i64>>,
    /// By tag, the records that its table lacks.
    lost: BTreeMap<String, Vec<Lost>>,
    versions: BTreeMap<String, u64>,
    /// By tag, the highest number that a version had.
    last_versions: BTreeMap<String, u64>,
    /// The versions before, by their names in the dataflow.
    kept: BTreeMap<String, versions::Kept>,
    /// Versions that follow no more, with the reason, of which the store does not know yet.
    given_up: Vec<(String, u64, String)>,
    /// What the state directory says of the tags that run.
    known: Running,
    intake: Intake,
    /// The next epoch takes watermarks further, whether or not anything arrives.
    watermarks_move: bool,
    in_flight: Option<InFlight>,
    /// Records that were taken by the time of the last commit.
    committed_records: i64,
    delay: Delay,
    /// Tags to be filled again although they run.
    backfills: BTreeSet<String>,
    fill: Option<Fill>,
    meeting: Option<Meeting>,
    meeting_since: Instant,
    filled: Option<Box<Filled>>,
    /// Tags that were set aside or must wait, with the fingerprint that this is true of and the reason.
    aside: BTreeMap<String, Aside>,
    /// How often a tag was set aside since it last ran.
    attempts: BTreeMap<String, u32>,
    reloader: Option<Reloader>,
    /// Tags that are gone, with the files that they were in.
    vanished: Vec<(String, PathBuf)>,
    stop: Arc<Stop>,
    status: SharedStatus,
    accept_removals: bool,
    until_caught_up: bool,
    last_intake: Instant,
    last_flush: Instant,
    last_status: Instant,
    sizes: StateSizes,
    /// `None` without a limit.
    memory: Option<MemoryPlan>,
    /// The process is so near its limit that nothing is read.
    is_out_of_memory: bool,
    last_room: Instant,
    last_retired: Instant,
    committed_epoch: u64,
    events: u64,
    event_rate: Rate,
    change_rates: BTreeMap<String, Rate>,
    project_errors: Vec<String>,
    stream_errors: BTreeMap<String, String>,
}

struct Aside {
    fingerprint: String,
    /// The limit of its state by then: with another one it may run.
    state_limit: Option<u64>,
    state: TagState,
    reason: String,
    retry_at: Option<Instant>,
}

impl Daemon {
    fn open(options: DaemonOptions, config: Config) -> Result<Self, DaemonError> {
        let memory =
            config.engine.memory_limit.map(|limit| MemoryPlan::new(limit, &config.engine.state_dir)).transpose()?;
        let sink = open_store(&config.store, &config.root, config.timezone)?;
        let stop = Arc::new(Stop::new(options.shutdown));
        let lease = config.engine.lease;
        let store = StoreThread::start(sink, lease, Arc::clone(&stop), Arc::clone(&options.status))
            .map_err(|source| DaemonError::Io { what: "the store's thread".to_string(), source })?;
        let millis: crate::source::WallClock = Arc::new(|| chrono::Utc::now().timestamp_millis());
        let world = World {
            connections: config.connections.clone(),
            queue: memory.as_ref().map_or_else(Queue::unlimited, |memory| Queue::within(memory.reading())),
            context: SourceContext {
                timezone: config.timezone,
                root: config.root.clone(),
                dead_letters: Arc::new(DeadLetters::new(
                    config.engine.state_dir.join(dead_letter::FOLDER),
                    config.engine.dead_letters,
                    Arc::clone(&millis),
                )),
                tables: Arc::new(Tables::new(&config.engine.state_dir)),
                state_dir: config.engine.state_dir.clone(),
                wall_clock: millis,
                registries: Registries::default(),
            },
        };
        update(&options.status, |status| {
            status.version = env!("CARGO_PKG_VERSION").to_string();
            status.profile.clone_from(&config.profile);
            status.started_at = chrono::Utc::now().timestamp_millis();
        });
        let reloader = match &options.watched {
            None => None,
            Some(known) => {
                let started =
                    Reloader::start(config.profile.clone(), known.clone(), &options.desired, Arc::clone(&stop));
                Some(started.map_err(|source| DaemonError::Io { what: "the reloader's thread".to_string(), source })?)
            }
        };
        let intake = Intake::start(&world, &Default::default(), &Offsets::default(), None)?;
        Ok(Daemon {
            checkpoints: Checkpoints::open(&config.engine, &stop)?,
            state_name: String::new(),
            checkpointing: None,
            archives: archives::Archives::default(),
            dataflow: Dataflow::new(shards(&config), config.timezone),
            store: Arc::new(store),
            desired: Desired { commits: commits_of_tags(&config.root), ..options.desired },
            world,
            running: BTreeMap::new(),
            complete_from: BTreeMap::new(),
            lost: BTreeMap::new(),
            versions: BTreeMap::new(),
            last_versions: BTreeMap::new(),
            kept: BTreeMap::new(),
            given_up: Vec::new(),
            known: kept_running(&config.engine.state_dir),
            intake,
            watermarks_move: false,
            in_flight: None,
            committed_records: 0,
            delay: Delay::default(),
            backfills: BTreeSet::new(),
            fill: None,
            meeting: None,
            meeting_since: Instant::now(),
            filled: None,
            aside: BTreeMap::new(),
            attempts: BTreeMap::new(),
            reloader,
            vanished: Vec::new(),
            stop,
            status: options.status,
            accept_removals: options.accept_removals,
            until_caught_up: options.until_caught_up,
            last_intake: Instant::now(),
            last_flush: Instant::now(),
            last_status: Instant::now(),
            sizes: StateSizes::default(),
            memory,
            is_out_of_memory: false,
            last_room: Instant::now(),
            last_retired: Instant::now(),
            committed_epoch: 0,
            events: 0,
            event_rate: Rate::default(),
            change_rates: BTreeMap::new(),
            project_errors: Vec::new(),
            stream_errors: BTreeMap::new(),
            config,
        })
    }

    fn stopping(&self) -> bool {
        self.stop.is_asked()
    }

    fn follow(&mut self) -> Result<(), DaemonError> {
        if self.stopping() {
            return Ok(());
        }
        update(&self.status, |status| status.phase = Phase::Running);
        self.restart_intake(None)?;
        self.describe_anew()?;
        self.reconcile()?;
        while !self.stopping() {
            self.store.check_lease()?;
            self.follow_memory();
            self.epoch()?;
            self.follow_losses()?;
            self.follow_store()?;
            self.follow_delay();
            self.follow_fill()?;
            self.follow_reloads()?;
            if self.last_flush.elapsed() >= self.config.engine.flush_interval {
                self.flush()?;
            }
            self.follow_checkpoints()?;
            self.follow_versions()?;
            self.keep_state_limits();
            if self.last_status.elapsed() >= STATUS_INTERVAL {
                self.try_again()?;
                self.follow_archives()?;
            }
            self.write_status(&[]);
            // What was taken with the last epoch is written when the daemon stops.
            let settled = self.fill.is_none() && self.meeting.is_none() && !self.watermarks_move;
            if self.until_caught_up
                && settled
                && self.intake.is_caught_up()
                && self.needed().is_empty()
                && self.are_archived()
            {
                break;
            }
        }
        Ok(())
    }

    /// What a run up to the end of the streams has left out.
    fn left_out(&self) -> Option<String> {
        let tags = self.aside.iter().map(|(tag, aside)| format!("tag `{tag}`: {}", aside.reason));
        let streams = self.intake.failed.iter().map(|(stream, reason)| format!("stream `{stream}`: {reason}"));
        let all: Vec<String> = streams.chain(tags).chain(self.archives.troubles()).collect();
        (self.until_caught_up && !all.is_empty()).then(|| format!("not all tags are at the end: {}", all.join("; ")))
    }

    /// One epoch, if anything has arrived or is due.
    fn epoch(&mut self) -> Result<(), DaemonError> {
        let arrived = if self.is_full() {
            std::thread::sleep(Duration::from_millis(5));
            Default::default()
        } else {
            let rows = self.epoch_rows();
            self.intake.collect(self.config.engine.epoch_interval, rows).map_err(OperatorError::from)?
        };
        let intake = &self.intake;
        self.stream_errors.retain(|stream, _| intake.failed.contains_key(stream) || !intake.is_announced(stream));
        for (stream, reason) in &self.intake.failed {
            if self.stream_errors.insert(stream.clone(), reason.clone()).is_none() {
                error!(stream, reason, "the stream cannot go on; its tags stand still");
            }
        }
        if let Some(meeting) = &self.meeting {
            return self.epoch_before_meeting(arrived, meeting.clone());
        }
        let now = wall_clock().max(self.dataflow.clock);
        let due = self.dataflow.graph.next_timer().is_some_and(|timer| timer <= now);
        if !arrived.next.is_empty() || due || self.watermarks_move {
            self.take(arrived, now);
        }
        self.watermarks_move = self.dataflow.look_ahead(|stream| self.intake.awaited(stream));
        Ok(())
    }

    fn take(&mut self, arrived: crate::engine::intake::Arrived, clock: Clock) {
        for (partition, next) in &arrived.next {
            self.dataflow.offsets.advance(partition, *next);
        }
        self.events += arrived.rows as u64;
        self.dataflow.graph.note_partitions(self.intake.announced_partitions());
        self.dataflow.note_event_times(self.intake.watermarks());
        let mut faults = self.dataflow.step(&arrived.events, clock);
        arrived.name_records(&mut faults);
        keep_left_out(&self.dataflow.graph, &self.world.context.dead_letters);
        self.faults(faults);
    }

    /// Reads on from where the dataflow stands, the columns that its tags need.
    fn restart_intake(&mut self, until: Option<&Offsets>) -> Result<(), DaemonError> {
        let reads = reads(self.plans());
        // The old sources have ended before the new ones begin: a broker need not serve both.
        self.intake = Intake::start(&self.world, &Default::default(), &Offsets::default(), None)?;
        self.intake = Intake::start(&self.world, &reads, &self.dataflow.offsets, until)?;
        self.last_intake = Instant::now();
        self.delay.forget();
        Ok(())
    }

    /// Hands what is pending to the store, unless it is still busy with the flush before.
    fn flush(&mut self) -> Result<(), DaemonError> {
        self.follow_store()?;
        if self.in_flight.is_some() || (self.dataflow.pending_keys() == 0 && !self.awaits_commit()) {
            return Ok(());
        }
        self.begin_commit();
        Ok(())
    }

    fn begin_commit(&mut self) {
        let (changes, faults) = self.dataflow.drain();
        self.faults(faults);
        self.last_flush = Instant::now();
        if !changes.is_empty() {
            crash_point("flush.drained");
            self.committed_epoch = self.dataflow.epoch;
            self.committed_records = self.taken();
            self.in_flight = Some(self.store.commit(changes));
        }
    }

    fn follow_store(&mut self) -> Result<(), DaemonError> {
        let outcome = self.in_flight.as_ref().and_then(InFlight::try_outcome);
        if let Some(outcome) = outcome {
            self.in_flight = None;
            self.committed(outcome?);
        }
        Ok(())
    }

    fn tell_rejected(&self, stats: &CommitStats) {
        if let Some(sample) = &stats.rejected_sample {
            warn!(sample, rejected = stats.rejected_keys, "keys do not fit the store's index and are left out");
        }
        update(&self.status, |status| status.rejected_keys += stats.rejected_keys);
    }

    fn committed(&mut self, committed: crate::engine::store::Committed) {
        self.tell_rejected(&committed.stats);
        crash_point("flush.confirmed");
        update(&self.status, |status| {
            status.flush_millis = committed.took.as_millis() as u64;
            status.commits += 1;
            status.written += committed.stats.upserted + committed.stats.deleted;
        });
        self.delay.settle(self.committed_records);
        self.faults(committed.faults);
        self.tell_committed();
    }

    /// Everything up to now is in the store when this returns.
    fn settle(&mut self) -> Result<(), DaemonError> {
        if let Some(in_flight) = self.in_flight.take() {
            let outcome = self.store.outcome(&in_flight)?;
            self.committed(outcome);
        }
        if self.dataflow.pending_keys() > 0 || self.committed_epoch != self.dataflow.epoch {
            self.begin_commit();
            if let Some(in_flight) = self.in_flight.take() {
                let outcome = self.store.outcome(&in_flight)?;
                self.committed(outcome);
            }
        }
        Ok(())
    }

    /// The last flush and checkpoint; what went wrong before is what is told.
    fn stop(mut self, outcome: Result<(), DaemonError>) -> Result<(), DaemonError> {
        update(&self.status, |status| status.phase = Phase::Stopping);
        self.stop.begin();
        self.fill = None;
        self.archives.end(outcome.is_ok());
        outcome?;
        let left_out = self.left_out();
        self.last_checkpoint()?;
        self.drop_retired()?;
        self.archives.wait(&self.stop);
        left_out.map_or(Ok(()), |message| Err(DaemonError::Incomplete(message)))
    }
}

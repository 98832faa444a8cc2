//! The epoch loop: takes what has arrived, steps the graph, hands changes to the store, and keeps the tags that run
//! the ones that the project says.
//!
//! Everything that the loop decides on comes through it: arrivals, the clock, outcomes of the store, of fills and of
//! reloads. The order of the commit protocol is in `ARCHITECTURE.md`.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::config::Config;
use crate::delta::{Clock, Offsets};
use crate::diagnostic::Diagnostic;
use crate::engine::checkpoint::{CheckpointError, Checkpoints, Manifest, VERSION};
use crate::engine::dataflow::{Dataflow, TagFault};
use crate::engine::desired::{Desired, PlannedTag, git_commit, reads, streams};
use crate::engine::fill::{Fill, FillEvent, FillRequest, Filled, Meeting};
use crate::engine::intake::{Intake, World};
use crate::engine::reload::{ReloadOutcome, Reloaded, Reloader, files_fingerprint};
use crate::engine::status::{FillStatus, PartitionStatus, Phase, Rate, SharedStatus, TagState, TagStatus, update};
use crate::engine::store::{InFlight, StoreError, StoreThread};
use crate::operator::OperatorError;
use crate::sink::{SinkError, TagProgress, TagRegistration, open_store};
use crate::source::{DeadLetters, SourceContext, SourceError};

/// Keys that may wait for a store that is busy before no more is read.
const MOST_PENDING_KEYS: usize = 1_000_000;
/// How often the status is written anew.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// How often sizes of state are counted: it looks at all of it.
const SIZES_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is looked for tables whose grace period is over.
const RETIRED_INTERVAL: Duration = Duration::from_secs(600);
/// A stop waits this long for a store that is away.
const STOP_DEADLINE: Duration = Duration::from_secs(8);

/// Why the daemon ends without being told to.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The store says no, for good.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source cannot even start.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A folder or thread that the machine refuses.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// State does not fit its operators.
    #[error("{0}")]
    State(#[from] OperatorError),
}

impl From<SinkError> for DaemonError {
    fn from(error: SinkError) -> Self {
        DaemonError::Store(error.into())
    }
}

/// The world of a daemon, as values, so that tests control it.
pub struct DaemonOptions {
    /// What should run.
    pub desired: Desired,
    /// The files as they were loaded, with those that could not be read; `None` to run without watching them.
    pub watched: Option<(BTreeMap<PathBuf, String>, std::collections::BTreeSet<PathBuf>)>,
    /// Set from outside to stop.
    pub shutdown: Arc<AtomicBool>,
    /// Written by the daemon.
    pub status: SharedStatus,
    /// Stop by itself once everything that was there at the start is in the store.
    pub until_caught_up: bool,
    /// Let most tags vanish at once.
    pub accept_removals: bool,
}

/// Nanoseconds since the Unix epoch.
fn wall_clock() -> Clock {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or(Clock::MAX)
}

/// Runs until told to stop.
pub fn run(options: DaemonOptions) -> Result<(), DaemonError> {
    let config = options.desired.project.config.clone();
    std::fs::create_dir_all(&config.engine.state_dir).map_err(|source| DaemonError::Io {
        what: format!("the state directory {}", config.engine.state_dir.display()),
        source,
    })?;
    let _lock = lock(&config)?;
    let mut daemon = Daemon::open(options, config)?;
    daemon.restore()?;
    let outcome = daemon.follow();
    daemon.stop(outcome)
}

/// Keeps a second daemon off the same state directory; the lock goes with the process.
fn lock(config: &Config) -> Result<std::fs::File, DaemonError> {
    let path = config.engine.state_dir.join("lock");
    let failed = |source| DaemonError::Io { what: format!("another daemon may be using {}", path.display()), source };
    let file = std::fs::File::create(&path).map_err(failed)?;
    file.try_lock().map_err(|error| failed(error.into()))?;
    Ok(file)
}

struct Daemon {
    config: Config,
    desired: Desired,
    world: World,
    store: Arc<StoreThread>,
    checkpoints: Checkpoints,
    dataflow: Dataflow,
    /// The tags that run, as they were planned when they joined.
    running: BTreeMap<String, PlannedTag>,
    complete_from: BTreeMap<String, Option<i64>>,
    versions: BTreeMap<String, u64>,
    intake: Intake,
    in_flight: Option<InFlight>,
    fill: Option<Fill>,
    meeting: Option<Meeting>,
    filled: Option<Box<Filled>>,
    /// Tags that were set aside or must wait, with the fingerprint that this is true of and the reason.
    aside: BTreeMap<String, Aside>,
    reloader: Option<Reloader>,
    vanished: Vec<String>,
    shutdown: Arc<AtomicBool>,
    status: SharedStatus,
    accept_removals: bool,
    until_caught_up: bool,
    last_flush: Instant,
    last_checkpoint: Instant,
    last_status: Instant,
    last_sizes: Option<Instant>,
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
    state: TagState,
    reason: String,
}

impl Daemon {
    fn open(options: DaemonOptions, config: Config) -> Result<Self, DaemonError> {
        let sink = open_store(&config.store, &config.root, config.timezone)?;
        let store = StoreThread::start(sink)
            .map_err(|source| DaemonError::Io { what: "the store's thread".to_string(), source })?;
        let millis: crate::source::WallClock = Arc::new(|| chrono::Utc::now().timestamp_millis());
        let world = World {
            connections: config.connections.clone(),
            context: SourceContext {
                timezone: config.timezone,
                dead_letters: Arc::new(DeadLetters::new(
                    config.engine.state_dir.join("dead-letters"),
                    Arc::clone(&millis),
                )),
                state_dir: config.engine.state_dir.clone(),
                wall_clock: millis,
            },
        };
        update(&options.status, |status| {
            status.version = env!("CARGO_PKG_VERSION").to_string();
            status.profile.clone_from(&config.profile);
            status.started_at = chrono::Utc::now().timestamp_millis();
        });
        let reloader = match &options.watched {
            None => None,
            Some((sources, unreadable)) => {
                let known = files_fingerprint(sources, unreadable);
                let started = Reloader::start(config.root.clone(), config.profile.clone(), known);
                Some(started.map_err(|source| DaemonError::Io { what: "the reloader's thread".to_string(), source })?)
            }
        };
        let intake = Intake::start(&world, &Default::default(), &Offsets::default(), None)?;
        let shards = if config.engine.shards == 0 { rayon::current_num_threads() } else { config.engine.shards };
        Ok(Daemon {
            checkpoints: Checkpoints::new(&config.engine.state_dir),
            dataflow: Dataflow::new(shards, config.timezone),
            store: Arc::new(store),
            desired: options.desired,
            world,
            running: BTreeMap::new(),
            complete_from: BTreeMap::new(),
            versions: BTreeMap::new(),
            intake,
            in_flight: None,
            fill: None,
            meeting: None,
            filled: None,
            aside: BTreeMap::new(),
            reloader,
            vanished: Vec::new(),
            shutdown: options.shutdown,
            status: options.status,
            accept_removals: options.accept_removals,
            until_caught_up: options.until_caught_up,
            last_flush: Instant::now(),
            last_checkpoint: Instant::now(),
            last_status: Instant::now(),
            last_sizes: None,
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
        self.shutdown.load(Ordering::SeqCst)
    }

    /// Loads the last checkpoint and goes, in silence, to exactly the epoch that the store holds.
    fn restore(&mut self) -> Result<(), DaemonError> {
        self.store.call("open", |sink| sink.open())?;
        let progress = self.store.call("read progress", |sink| sink.progress())?;
        let registered = self.store.call("read registry", |sink| sink.registrations())?;
        self.retire_forgotten(&registered)?;
        for registered in registered {
            self.versions.insert(registered.tag.clone(), registered.version);
            self.complete_from.insert(registered.tag, registered.complete_from);
        }
        let (checkpoint, skipped) = self.checkpoints.latest()?;
        for damaged in skipped {
            warn!(error = %damaged, "a checkpoint is skipped");
        }
        let Some((manifest, state)) = checkpoint else { return Ok(()) };
        let Some(target) = self.resumable(&manifest, progress)? else { return Ok(()) };
        for (tag, rows) in &target.rows {
            let planned = &self.desired.tags[tag];
            let added = self.dataflow.add_tag(&planned.table, tag, &planned.plan, *rows);
            match added {
                Ok(()) => drop(self.running.insert(tag.clone(), planned.clone())),
                Err(fault) => self.set_aside(fault, TagState::Failed),
            }
        }
        if let Err(error) = self.dataflow.load(&state) {
            warn!(%error, "the checkpoint cannot be used; tags are filled anew");
            self.forget_all();
            return Ok(());
        }
        drop(state);
        self.dataflow.offsets = manifest.offsets.clone();
        self.dataflow.clock = manifest.clock;
        info!(epoch = manifest.epoch, tags = self.running.len(), "the checkpoint is loaded");
        update(&self.status, |status| status.phase = Phase::Replaying);
        self.replay(&target)
    }

    /// Retires the tables of tags whose files went while no daemon ran.
    fn retire_forgotten(&mut self, registered: &[TagRegistration]) -> Result<(), DaemonError> {
        let known = |tag: &TagRegistration| {
            self.desired
                .project
                .tags
                .get(&tag.tag)
                .map_or_else(|| self.config.root.join(&tag.file).exists(), |definition| definition.runs())
        };
        let gone: Vec<String> = registered.iter().filter(|tag| !known(tag)).map(|tag| tag.tag.clone()).collect();
        if let Some(message) = self.too_many_gone(gone.len(), registered.len()) {
            error!(message);
            self.project_errors = vec![message];
            return Ok(());
        }
        for tag in gone {
            info!(tag, "the tag's file is gone; its table is retired");
            self.store.call("retire a table", move |sink| sink.retire_table(&tag))?;
        }
        Ok(())
    }

    /// Most tags vanish at once when a folder is not mounted, seldom because it is meant.
    fn too_many_gone(&self, gone: usize, of: usize) -> Option<String> {
        (gone > 3 && gone * 2 > of && !self.accept_removals).then(|| {
            format!(
                "{gone} of {of} tags have vanished at once; nothing is removed. Restart with --accept-removals if it is meant"
            )
        })
    }

    /// The tags whose state and table belong together, and where their tables are.
    fn resumable(&self, manifest: &Manifest, progress: Vec<TagProgress>) -> Result<Option<ReplayTarget>, DaemonError> {
        let mut groups: BTreeMap<u64, ReplayTarget> = BTreeMap::new();
        for progress in progress {
            let Some(planned) = self.desired.tags.get(&progress.tag) else { continue };
            let fingerprint = &planned.plan.fingerprint;
            let known = manifest.tags.get(&progress.tag) == Some(fingerprint);
            if !known || progress.fingerprint != *fingerprint || progress.epoch < manifest.epoch {
                continue;
            }
            let table = Arc::clone(&planned.table);
            if !self.store.call("look at a table", move |sink| sink.table_matches(&table))? {
                continue;
            }
            let group = groups.entry(progress.epoch).or_default();
            group.epoch = progress.epoch;
            group.clock = group.clock.max(progress.clock);
            for (partition, next) in &progress.offsets.0 {
                group.offsets.advance(partition, *next);
            }
            group.rows.insert(progress.tag, progress.rows);
        }
        // Tags that were committed together are at one epoch; the few that are not are filled anew.
        Ok(groups.into_values().max_by_key(|group| group.rows.len()))
    }

    fn replay(&mut self, target: &ReplayTarget) -> Result<(), DaemonError> {
        let reads = reads(self.running.values().map(|tag| tag.plan.as_ref()));
        let mut intake = Intake::start(&self.world, &reads, &self.dataflow.offsets, Some(&target.offsets))?;
        let mut rows = 0;
        while !intake.is_finished() {
            if self.stopping() {
                return Ok(());
            }
            let arrived = intake
                .collect(Duration::from_millis(100), self.config.engine.epoch_rows)
                .map_err(OperatorError::from)?;
            if let Some((stream, reason)) = intake.failed.first_key_value() {
                warn!(stream, reason, "records of the replay are gone; tags are filled anew");
                self.forget_all();
                return Ok(());
            }
            for (partition, next) in &arrived.next {
                self.dataflow.offsets.advance(partition, *next);
            }
            rows += arrived.rows;
            let clock = self.dataflow.clock;
            let faults = self.dataflow.replay(&arrived.events, clock);
            self.faults(faults);
            self.write_status(&intake.troubles.values().cloned().collect::<Vec<_>>());
        }
        let faults = self.dataflow.replay(&HashMap::new(), target.clock);
        self.faults(faults);
        self.dataflow.epoch = target.epoch;
        self.committed_epoch = target.epoch;
        info!(rows, epoch = target.epoch, "the replay is done");
        Ok(())
    }

    fn forget_all(&mut self) {
        let epoch = self.dataflow.epoch;
        for tag in std::mem::take(&mut self.running).into_keys() {
            self.dataflow.remove_tag(&tag);
        }
        self.dataflow.offsets = Offsets::default();
        self.dataflow.epoch = epoch;
    }

    fn follow(&mut self) -> Result<(), DaemonError> {
        update(&self.status, |status| status.phase = Phase::Running);
        self.restart_intake(None)?;
        self.reconcile()?;
        let mut caught_up_since = None;
        while !self.stopping() {
            self.epoch()?;
            self.follow_store()?;
            self.follow_fill()?;
            self.follow_reloads()?;
            if self.last_flush.elapsed() >= self.config.engine.flush_interval {
                self.flush()?;
            }
            if self.last_checkpoint.elapsed() >= self.config.engine.checkpoint_interval && self.meeting.is_none() {
                self.checkpoint()?;
            }
            if self.last_retired.elapsed() >= RETIRED_INTERVAL {
                self.drop_retired()?;
            }
            self.write_status(&[]);
            if self.until_caught_up && self.fill.is_none() && self.in_flight.is_none() && self.intake.is_caught_up() {
                // What came with the last epoch is behind us once the loop has gone round without more.
                if caught_up_since.replace(self.dataflow.epoch) == Some(self.dataflow.epoch) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// One epoch, if anything has arrived or is due.
    fn epoch(&mut self) -> Result<(), DaemonError> {
        let rows = if self.dataflow.pending_keys() > MOST_PENDING_KEYS { 0 } else { self.config.engine.epoch_rows };
        let arrived = if rows == 0 {
            // The store is behind: nothing is read until it has caught up.
            std::thread::sleep(Duration::from_millis(5));
            Default::default()
        } else {
            self.intake.collect(self.config.engine.epoch_interval, rows).map_err(OperatorError::from)?
        };
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
        if arrived.next.is_empty() && !due {
            return Ok(());
        }
        self.take(arrived, now);
        Ok(())
    }

    fn take(&mut self, arrived: crate::engine::intake::Arrived, clock: Clock) {
        for (partition, next) in &arrived.next {
            self.dataflow.offsets.advance(partition, *next);
        }
        self.events += arrived.rows as u64;
        let faults = self.dataflow.step(&arrived.events, clock);
        self.faults(faults);
    }

    /// Until the running tags are where they meet those that are filled; then they wait for them there.
    fn epoch_before_meeting(
        &mut self,
        arrived: crate::engine::intake::Arrived,
        meeting: Meeting,
    ) -> Result<(), DaemonError> {
        if !arrived.next.is_empty() {
            let clock = self.dataflow.clock;
            self.take(arrived, clock);
        }
        if self.intake.is_finished()
            && let Some(filled) = self.filled.take()
        {
            let faults = self.dataflow.step(&HashMap::new(), meeting.clock);
            self.faults(faults);
            self.join(*filled)?;
        }
        Ok(())
    }

    fn faults(&mut self, faults: Vec<TagFault>) {
        for fault in faults {
            self.set_aside(fault, TagState::Failed);
        }
    }

    fn set_aside(&mut self, fault: TagFault, state: TagState) {
        error!(tag = fault.tag, reason = fault.reason, "the tag is set aside; the others go on");
        self.dataflow.remove_tag(&fault.tag);
        let known = self.running.remove(&fault.tag);
        let fingerprint = known
            .map(|tag| tag.plan.fingerprint.clone())
            .or_else(|| Some(self.desired.tags.get(&fault.tag)?.plan.fingerprint.clone()))
            .unwrap_or_default();
        self.aside.insert(fault.tag, Aside { fingerprint, state, reason: fault.reason });
    }

    /// Reads on from where the dataflow stands, the columns that its tags need.
    fn restart_intake(&mut self, until: Option<&Offsets>) -> Result<(), DaemonError> {
        let reads = reads(self.running.values().map(|tag| tag.plan.as_ref()));
        // The old sources have ended before the new ones begin: a broker need not serve both.
        self.intake = Intake::start(&self.world, &Default::default(), &Offsets::default(), None)?;
        self.intake = Intake::start(&self.world, &reads, &self.dataflow.offsets, until)?;
        Ok(())
    }

    /// Hands what is pending to the store, unless it is still busy with the flush before.
    fn flush(&mut self) -> Result<(), DaemonError> {
        self.follow_store()?;
        if self.in_flight.is_some() || self.dataflow.pending_keys() == 0 {
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
            self.committed_epoch = self.dataflow.epoch;
            self.in_flight = Some(self.store.commit(changes));
        }
    }

    fn follow_store(&mut self) -> Result<(), DaemonError> {
        let outcome = self.in_flight.as_ref().and_then(|in_flight| in_flight.outcome(Duration::ZERO));
        if let Some(outcome) = outcome {
            self.in_flight = None;
            self.committed(outcome?);
        }
        Ok(())
    }

    fn committed(&mut self, committed: crate::engine::store::Committed) {
        if let Some(sample) = &committed.stats.rejected_sample {
            warn!(
                sample,
                rejected = committed.stats.rejected_keys,
                "keys do not fit the store's index and are left out"
            );
        }
        update(&self.status, |status| {
            status.flush_millis = committed.took.as_millis() as u64;
            status.commits += 1;
            status.written += committed.stats.upserted + committed.stats.deleted;
            status.rejected_keys += committed.stats.rejected_keys;
        });
        self.faults(committed.faults);
    }

    /// Everything up to now is in the store when this returns.
    fn settle(&mut self) -> Result<(), DaemonError> {
        if let Some(in_flight) = self.in_flight.take() {
            let outcome = self.await_commit(&in_flight)?;
            self.committed(outcome);
        }
        if self.dataflow.pending_keys() > 0 || self.committed_epoch != self.dataflow.epoch {
            self.begin_commit();
            if let Some(in_flight) = self.in_flight.take() {
                let outcome = self.await_commit(&in_flight)?;
                self.committed(outcome);
            }
        }
        Ok(())
    }

    fn await_commit(&self, in_flight: &InFlight) -> Result<crate::engine::store::Committed, DaemonError> {
        let mut deadline = None;
        loop {
            if let Some(outcome) = in_flight.outcome(Duration::from_millis(50)) {
                return Ok(outcome?);
            }
            if self.stopping() && Instant::now() > *deadline.get_or_insert(Instant::now() + STOP_DEADLINE) {
                self.store.give_up();
            }
            self.write_troubles();
        }
    }

    /// Saves after the store has committed: a lost checkpoint replays, an early one would lose rows.
    fn checkpoint(&mut self) -> Result<(), DaemonError> {
        self.last_checkpoint = Instant::now();
        if self.dataflow.is_empty() {
            return Ok(());
        }
        self.settle()?;
        let manifest = Manifest {
            version: VERSION,
            epoch: self.dataflow.epoch,
            clock: self.dataflow.clock,
            offsets: self.dataflow.offsets.clone(),
            tags: self.dataflow.tags().map(|(tag, plan)| (tag.to_string(), plan.to_string())).collect(),
            operators: BTreeMap::new(),
        };
        let begun = Instant::now();
        let bytes = self.checkpoints.write(manifest, &self.dataflow.snapshot()?)?;
        info!(epoch = self.dataflow.epoch, bytes, millis = begun.elapsed().as_millis() as u64, "checkpoint");
        update(&self.status, |status| status.checkpoint_epoch = Some(self.dataflow.epoch));
        self.last_checkpoint = Instant::now();
        Ok(())
    }

    /// Makes what runs what should run: takes out what is gone, fills what is new or changed.
    fn reconcile(&mut self) -> Result<(), DaemonError> {
        self.aside.retain(|tag, aside| {
            self.desired.tags.get(tag).is_some_and(|wanted| wanted.plan.fingerprint == aside.fingerprint)
        });
        let accepted = |tag: &str, fingerprint: &str| {
            self.config.engine.state_dir.join("accepted").join(format!("{tag}.{fingerprint}")).exists()
        };
        let mut needed = BTreeMap::new();
        for (name, wanted) in &self.desired.tags {
            let fingerprint = &wanted.plan.fingerprint;
            if self.running.get(name).is_some_and(|running| running.plan.fingerprint == *fingerprint) {
                continue;
            }
            if let Some(aside) = self.aside.get(name)
                && !(aside.state == TagState::Waiting && accepted(name, fingerprint))
            {
                continue;
            }
            needed.insert(name.clone(), wanted.clone());
        }
        if let Some(fill) = &self.fill {
            let still = |(name, fingerprint): (&String, &String)| {
                needed.get(name).is_some_and(|wanted| wanted.plan.fingerprint == *fingerprint)
            };
            if fill.tags.iter().all(still) {
                return Ok(());
            }
            info!("the fill is given up: its tags have changed again");
            self.end_fill()?;
        }
        if needed.is_empty() {
            return Ok(());
        }
        info!(tags = ?needed.keys().collect::<Vec<_>>(), "filling");
        let request = FillRequest {
            tags: needed,
            world: self.world.clone(),
            store: Arc::clone(&self.store),
            shards: if self.config.engine.shards == 0 {
                rayon::current_num_threads()
            } else {
                self.config.engine.shards
            },
            epoch_rows: self.config.engine.epoch_rows,
            clock: wall_clock().max(self.dataflow.clock),
        };
        let fill =
            Fill::start(request).map_err(|source| DaemonError::Io { what: "the fill's thread".to_string(), source })?;
        self.fill = Some(fill);
        Ok(())
    }

    /// Lets a fill go; the running tags read on.
    fn end_fill(&mut self) -> Result<(), DaemonError> {
        self.fill = None;
        self.filled = None;
        if self.meeting.take().is_some() {
            self.restart_intake(None)?;
        }
        Ok(())
    }

    fn follow_fill(&mut self) -> Result<(), DaemonError> {
        while let Some(event) = self.fill.as_ref().and_then(|fill| fill.events.try_recv().ok()) {
            match event {
                FillEvent::Progress { rows, lag } => {
                    if let Some(fill) = &mut self.fill {
                        (fill.rows, fill.lag) = (rows, lag);
                    }
                }
                FillEvent::Fault(fault) => {
                    // The version that runs, if there is one, goes on.
                    let fingerprint =
                        self.fill.as_ref().and_then(|fill| fill.tags.get(&fault.tag).cloned()).unwrap_or_default();
                    error!(tag = fault.tag, reason = fault.reason, "the tag cannot be filled");
                    let aside = Aside { fingerprint, state: TagState::Failed, reason: fault.reason };
                    self.aside.insert(fault.tag, aside);
                }
                FillEvent::CaughtUp(offsets) => self.agree_on_meeting(offsets)?,
                FillEvent::Filled(filled) => self.filled = Some(filled),
                FillEvent::Failed(reason) => {
                    error!(reason, "the fill has failed");
                    let tags = self.fill.as_ref().map(|fill| fill.tags.clone()).unwrap_or_default();
                    for (tag, fingerprint) in tags {
                        let aside = Aside { fingerprint, state: TagState::Failed, reason: reason.clone() };
                        self.aside.entry(tag).or_insert(aside);
                    }
                    self.end_fill()?;
                }
            }
        }
        Ok(())
    }

    /// Both go to the later of the two offsets in every partition, and there meet.
    fn agree_on_meeting(&mut self, filled: Offsets) -> Result<(), DaemonError> {
        let mut offsets = self.dataflow.offsets.clone();
        for (partition, next) in &filled.0 {
            offsets.advance(partition, *next);
        }
        let meeting = Meeting { offsets, clock: wall_clock().max(self.dataflow.clock) };
        if let Some(fill) = &self.fill {
            fill.meet(meeting.clone());
        }
        self.restart_intake(Some(&meeting.offsets))?;
        self.meeting = Some(meeting);
        Ok(())
    }

    /// The filled tags join: their tables are renamed, their state is taken over, all sources read on.
    fn join(&mut self, mut filled: Filled) -> Result<(), DaemonError> {
        self.settle()?;
        self.meeting = None;
        let tags: Vec<String> = filled.dataflow.tags().map(|(tag, _)| tag.to_string()).collect();
        filled.dataflow.epoch = self.dataflow.epoch;
        for tag in &tags {
            let Some(planned) = self.desired.tags.get(tag).cloned() else {
                filled.dataflow.remove_tag(tag);
                continue;
            };
            let complete_from = filled.complete_from.get(tag).copied().flatten();
            let fingerprint = &planned.plan.fingerprint;
            let replaces_complete = self.complete_from.get(tag) == Some(&None) && self.versions.contains_key(tag);
            let accepted = self.config.engine.state_dir.join("accepted").join(format!("{tag}.{fingerprint}")).exists();
            if let (Some(from), true, false) = (complete_from, replaces_complete, accepted) {
                let reason = format!(
                    "history begins at {}, later than the SQL asks; `tagflow accept {tag}` lets it replace the complete version",
                    display_millis(from)
                );
                warn!(tag, reason, "the new version waits");
                filled.dataflow.remove_tag(tag);
                let fingerprint = fingerprint.clone();
                self.aside.insert(tag.clone(), Aside { fingerprint, state: TagState::Waiting, reason });
                continue;
            }
            match self.swap(&planned, &filled, complete_from) {
                Ok(()) => {
                    filled.dataflow.redirect(tag, Arc::clone(&planned.table));
                    self.dataflow.remove_tag(tag);
                    self.running.insert(tag.clone(), planned);
                    self.complete_from.insert(tag.clone(), complete_from);
                }
                Err(DaemonError::Store(StoreError::Sink(error @ SinkError::Table { .. }))) => {
                    filled.dataflow.remove_tag(tag);
                    self.set_aside(TagFault { tag: tag.clone(), reason: error.to_string() }, TagState::Failed);
                }
                Err(error) => return Err(error),
            }
        }
        let known = streams(
            self.running.values().filter(|tag| !tags.contains(&tag.definition.name)).map(|tag| tag.plan.as_ref()),
        );
        let new = streams(
            self.running.values().filter(|tag| tags.contains(&tag.definition.name)).map(|tag| tag.plan.as_ref()),
        );
        if new.iter().any(|(name, stream)| known.get(name).is_some_and(|known| known.columns != stream.columns)) {
            self.relay()?;
        }
        self.dataflow.absorb(filled.dataflow)?;
        self.fill = None;
        info!(?tags, epoch = self.dataflow.epoch, "the filled tags follow now");
        self.restart_intake(None)?;
        self.checkpoint()?;
        self.reconcile()
    }

    /// Plans of the running tags over the streams as the project lays them out now.
    fn relay(&mut self) -> Result<(), DaemonError> {
        let mut plans = BTreeMap::new();
        for (name, running) in &mut self.running {
            if let Some(wanted) = self.desired.tags.get(name)
                && wanted.plan.fingerprint == running.plan.fingerprint
            {
                running.plan = Arc::clone(&wanted.plan);
            }
            plans.insert(name.clone(), Arc::clone(&running.plan));
        }
        Ok(self.dataflow.relay(&plans)?)
    }

    fn swap(&mut self, planned: &PlannedTag, filled: &Filled, complete_from: Option<i64>) -> Result<(), DaemonError> {
        let tag = planned.definition.name.clone();
        let version = self.versions.get(&tag).map_or(1, |version| version + 1);
        let registration = self.registration(planned, version, complete_from)?;
        let streams = reads([planned.plan.as_ref()]);
        let own = filled.dataflow.offsets.0.iter().filter(|(partition, _)| streams.contains_key(&partition.stream));
        let progress = TagProgress {
            tag: tag.clone(),
            fingerprint: planned.plan.fingerprint.clone(),
            epoch: self.dataflow.epoch,
            offsets: Offsets(own.map(|(partition, next)| (partition.clone(), *next)).collect()),
            clock: self.dataflow.clock,
            rows: filled.dataflow.rows(&tag),
        };
        let shadow = planned.shadow.table.clone();
        self.store
            .call("swap a table", move |sink| sink.swap_table(&shadow, &progress.tag, &progress, &registration))?;
        self.versions.insert(tag, version);
        Ok(())
    }

    fn registration(
        &self,
        planned: &PlannedTag,
        version: u64,
        complete_from: Option<i64>,
    ) -> Result<TagRegistration, DaemonError> {
        let mut registration = planned.registration.clone();
        registration.version = version;
        registration.complete_from = complete_from;
        registration.git_commit = git_commit(&self.config.root, &registration.file);
        let table = Arc::clone(&planned.table);
        let types = self.store.call("name column types", move |sink| sink.column_types(&table))?;
        for (column, sql_type) in registration.columns.iter_mut().zip(types) {
            column.sql_type = sql_type;
        }
        Ok(registration)
    }

    fn follow_reloads(&mut self) -> Result<(), DaemonError> {
        while let Some(outcome) = self.reloader.as_ref().and_then(|reloader| reloader.outcomes.try_recv().ok()) {
            match outcome {
                ReloadOutcome::Refused(diagnostics) => self.refuse(&diagnostics),
                ReloadOutcome::Changed(reloaded) => self.reload(*reloaded)?,
            }
        }
        if !self.vanished.is_empty() {
            self.retire_vanished()?;
        }
        Ok(())
    }

    fn refuse(&mut self, diagnostics: &[Diagnostic]) {
        self.project_errors = diagnostics
            .iter()
            .map(|diagnostic| format!("{}: {} [{}]", diagnostic.file.display(), diagnostic.message, diagnostic.code))
            .collect();
        error!(problems = ?self.project_errors, "the project has errors; what runs stays as it is");
    }

    fn reload(&mut self, reloaded: Reloaded) -> Result<(), DaemonError> {
        self.project_errors.clear();
        let Reloaded { desired, unreadable } = reloaded;
        if desired.project.config != self.config {
            warn!("tagflow.toml has changed; restart the daemon for it");
        }
        let gone: Vec<String> = self
            .running
            .iter()
            .filter(|(name, tag)| !desired.tags.contains_key(*name) && !unreadable.contains(&tag.definition.file))
            .map(|(name, _)| name.clone())
            .collect();
        if let Some(message) = self.too_many_gone(gone.len(), self.running.len()) {
            error!(message);
            self.project_errors = vec![message];
            return Ok(());
        }
        self.vanished = gone;
        let metadata: Vec<PlannedTag> = desired
            .tags
            .iter()
            .filter_map(|(name, wanted)| {
                let running = self.running.get(name)?;
                let same = running.plan.fingerprint == wanted.plan.fingerprint;
                (same && running.registration != wanted.registration).then(|| wanted.clone())
            })
            .collect();
        self.desired = desired;
        for wanted in metadata {
            self.update_metadata(&wanted)?;
        }
        self.reconcile()
    }

    /// A comment, a title, another folder: state and table stay.
    fn update_metadata(&mut self, wanted: &PlannedTag) -> Result<(), DaemonError> {
        let name = &wanted.definition.name;
        let version = self.versions.get(name).copied().unwrap_or(1);
        let complete_from = self.complete_from.get(name).copied().flatten();
        let registration = self.registration(wanted, version, complete_from)?;
        self.store.call("register", move |sink| sink.register(std::slice::from_ref(&registration)))?;
        if let Some(running) = self.running.get_mut(name) {
            running.definition = wanted.definition.clone();
            running.registration = wanted.registration.clone();
        }
        info!(tag = name, "the tag's description has changed");
        Ok(())
    }

    /// Tags count as removed only when a second look finds their files gone too.
    fn retire_vanished(&mut self) -> Result<(), DaemonError> {
        for tag in std::mem::take(&mut self.vanished) {
            let Some(running) = self.running.get(&tag) else { continue };
            if self.config.root.join(&running.definition.file).exists() && !self.was_switched_off(&tag) {
                continue;
            }
            self.settle()?;
            self.dataflow.remove_tag(&tag);
            self.running.remove(&tag);
            self.versions.remove(&tag);
            self.complete_from.remove(&tag);
            let name = tag.clone();
            self.store.call("retire a table", move |sink| sink.retire_table(&name))?;
            info!(tag, "the tag's file is gone; its table is retired");
        }
        Ok(())
    }

    /// True when the file is there but says that the tag does not run any more.
    fn was_switched_off(&self, tag: &str) -> bool {
        self.desired.project.tags.get(tag).is_some_and(|definition| !definition.runs())
    }

    fn write_troubles(&self) {
        if let Some(trouble) = self.store.trouble() {
            update(&self.status, |status| status.troubles = vec![trouble]);
        }
    }

    fn write_status(&mut self, more_troubles: &[String]) {
        let elapsed = self.last_status.elapsed();
        if elapsed < STATUS_INTERVAL {
            return;
        }
        self.last_status = Instant::now();
        let seconds = elapsed.as_secs_f64();
        let count_sizes = self.last_sizes.is_none_or(|last| last.elapsed() >= SIZES_INTERVAL);
        let mut tags: BTreeMap<String, TagStatus> = BTreeMap::new();
        for (name, wanted) in &self.desired.tags {
            let status = TagStatus {
                tag: name.clone(),
                folder: wanted.registration.folder.clone(),
                title: wanted.registration.title.clone(),
                ..TagStatus::default()
            };
            tags.insert(name.clone(), status);
        }
        for (name, running) in &self.running {
            let status =
                tags.entry(name.clone()).or_insert_with(|| TagStatus { tag: name.clone(), ..Default::default() });
            let wanted = self.desired.tags.get(name);
            let same = wanted.is_some_and(|wanted| wanted.plan.fingerprint == running.plan.fingerprint);
            status.state = if same { TagState::Live } else { TagState::Replacing };
            status.rows = self.dataflow.rows(name);
            status.changes = self.dataflow.changes(name);
            status.changes_per_second =
                self.change_rates.entry(name.clone()).or_default().update(status.changes, seconds);
            status.null_keys = self.dataflow.null_keys(name);
            status.complete_from = self.complete_from.get(name).copied().flatten();
            if count_sizes {
                let (rows, bytes) = self.dataflow.graph.tag_size(name);
                (status.state_rows, status.state_bytes) = (rows as u64, bytes as u64);
            }
        }
        for (name, aside) in &self.aside {
            if let Some(status) = tags.get_mut(name) {
                status.state = aside.state;
                status.message = Some(aside.reason.clone());
            }
        }
        let sizes = count_sizes.then(|| self.dataflow.graph.sizes());
        if count_sizes {
            self.last_sizes = Some(Instant::now());
        }
        let rate = self.event_rate.update(self.events, seconds);
        let partitions = self.intake.partitions.iter().map(|(partition, state)| PartitionStatus {
            stream: partition.stream.clone(),
            partition: partition.number,
            next_offset: state.next,
            end_offset: state.end,
            newest_timestamp: state.newest_timestamp,
        });
        let partitions: Vec<PartitionStatus> = partitions.collect();
        let troubles: Vec<String> = self
            .intake
            .troubles
            .iter()
            .chain(&self.stream_errors)
            .map(|(stream, message)| format!("stream `{stream}`: {message}"))
            .chain(self.store.trouble())
            .chain(more_troubles.iter().cloned())
            .collect();
        let fill = self.fill.as_ref().map(|fill| FillStatus {
            tags: fill.tags.keys().cloned().collect(),
            rows: fill.rows,
            lag: fill.lag,
        });
        let dead_letters = self.world.context.dead_letters.counts();
        let (epoch, clock, events, lag) = (self.dataflow.epoch, self.dataflow.clock, self.events, self.intake.lag());
        let pending = self.dataflow.pending_keys() as u64;
        let errors = self.project_errors.clone();
        update(&self.status, |status| {
            if !count_sizes {
                for known in &status.tags {
                    if let Some(tag) = tags.get_mut(&known.tag) {
                        (tag.state_rows, tag.state_bytes) = (known.state_rows, known.state_bytes);
                    }
                }
            }
            if let Some(sizes) = sizes {
                status.state_rows = sizes.iter().map(|size| size.rows as u64).sum();
                status.state_bytes = sizes.iter().map(|size| size.bytes as u64).sum();
            }
            status.tags = tags.into_values().collect();
            status.epoch = epoch;
            status.clock = clock / 1_000_000;
            status.events = events;
            status.events_per_second = rate;
            status.lag = lag;
            status.partitions = partitions;
            status.fill = fill;
            status.pending_keys = pending;
            status.dead_letters = dead_letters.into_iter().map(|(stream, count)| (stream, count.put)).collect();
            status.troubles = troubles;
            status.project_errors = errors;
        });
    }

    fn drop_retired(&mut self) -> Result<(), DaemonError> {
        self.last_retired = Instant::now();
        let grace = self.config.engine.grace_period;
        let dropped = self.store.call("drop retired tables", move |sink| sink.drop_retired(grace))?;
        if !dropped.is_empty() {
            info!(?dropped, "retired tables whose grace period is over are dropped");
        }
        Ok(())
    }

    /// The last flush and checkpoint; what went wrong before is what is told.
    fn stop(mut self, outcome: Result<(), DaemonError>) -> Result<(), DaemonError> {
        update(&self.status, |status| status.phase = Phase::Stopping);
        self.shutdown.store(true, Ordering::SeqCst);
        self.reloader = None;
        self.fill = None;
        outcome?;
        self.checkpoint()?;
        self.drop_retired()
    }
}

/// Where the store's tables are: the end of a replay.
#[derive(Debug, Default)]
struct ReplayTarget {
    epoch: u64,
    clock: Clock,
    offsets: Offsets,
    /// Tags with the rows in their tables.
    rows: BTreeMap<String, u64>,
}

fn display_millis(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).map_or_else(|| millis.to_string(), |time| time.to_rfc3339())
}

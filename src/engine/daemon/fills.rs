//! Fills of the daemon: which tags are filled together, where they meet the running ones, and how they join them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::versions::Replaced;
use super::{Aside, Daemon, DaemonError, shards, wall_clock};
use crate::catalog::Stream;
use crate::crash_point::crash_point;
use crate::delta::{Offsets, Watermarks};
use crate::engine::changes::waits_for_accept;
use crate::engine::dataflow::{TagFault, of_streams};
use crate::engine::desired::{PlannedTag, reads, streams};
use crate::engine::fill::{Fill, FillEvent, FillRequest, Filled, Meeting};
use crate::engine::intake::Arrived;
use crate::engine::running::FillSpeed;
use crate::engine::status::TagState;
use crate::engine::store::StoreError;
use crate::graph::Graph;
use crate::sink::versions::Origin;
use crate::sink::{SinkError, TagProgress};

/// How long running tags wait for a fill, or it for them, before it is given up.
const MEETING_DEADLINE: Duration = Duration::from_secs(60);
/// How long a fill that cannot read keeps others waiting.
const TROUBLE_DEADLINE: Duration = Duration::from_secs(30);

impl Daemon {
    /// Until the running tags are where they meet those that are filled; then they wait for them there.
    pub(super) fn epoch_before_meeting(&mut self, arrived: Arrived, meeting: Meeting) -> Result<(), DaemonError> {
        if !arrived.next.is_empty() {
            let clock = self.dataflow.clock;
            self.take(arrived, clock);
        }
        if let Some((stream, reason)) = self.intake.failed.clone().into_iter().next() {
            // Its tags cannot get to any meeting: they are filled again with the others.
            let reason = format!("stream `{stream}`: {reason}");
            for tag in self.dataflow.tags_reading(&stream) {
                self.set_aside(TagFault::passing(tag, &reason), TagState::Failed);
            }
            self.prune_offsets();
            return self.give_up_fill(&reason);
        }
        if self.meeting_since.elapsed() > MEETING_DEADLINE {
            return self.give_up_fill("a source does not get to where new and running tags meet");
        }
        if self.intake.is_finished()
            && let Some(filled) = self.filled.take()
        {
            if !self.stands_at(&meeting.offsets) {
                return self.give_up_fill("a source has ended elsewhere than it was asked to");
            }
            self.dataflow.raise_watermarks(&meeting.watermarks);
            let faults = self.dataflow.step(&HashMap::new(), meeting.clock);
            self.faults(faults);
            self.join(*filled)?;
        }
        Ok(())
    }

    /// True when exactly the records before `offsets` were taken of every stream that the running tags read.
    pub(super) fn stands_at(&self, offsets: &Offsets) -> bool {
        let reads = reads(self.plans());
        let own = offsets.0.iter().filter(|(partition, _)| reads.contains_key(&partition.stream));
        own.into_iter().all(|(partition, next)| self.dataflow.offsets.next(partition) == Some(*next))
    }

    /// Lets a fill go; the running tags read on.
    pub(super) fn end_fill(&mut self) -> Result<(), DaemonError> {
        self.fill = None;
        self.filled = None;
        if self.meeting.take().is_some() {
            self.restart_intake(None)?;
        }
        Ok(())
    }

    /// Lets a fill go whose tags are worth another try.
    fn give_up_fill(&mut self, reason: &str) -> Result<(), DaemonError> {
        error!(reason, "the fill is given up; it is tried again");
        let tags = self.fill.as_ref().map(|fill| fill.tags.clone()).unwrap_or_default();
        for (tag, planned) in tags {
            if !self.is_aside(&planned) {
                self.put_aside(planned.plan.fingerprint.clone(), TagFault::passing(tag, reason), TagState::Failed);
            }
        }
        self.end_fill()
    }

    /// Starts to fill some of `needed`: tags over the same connections, so that one that is away stops nobody else.
    pub(super) fn start_fill(&mut self, needed: BTreeMap<String, PlannedTag>) -> Result<(), DaemonError> {
        let Some(first) = needed.values().next().map(connections) else { return Ok(()) };
        let tags: BTreeMap<String, PlannedTag> =
            needed.into_iter().filter(|(_, planned)| connections(planned) == first).collect();
        info!(tags = ?tags.keys().collect::<Vec<_>>(), "filling");
        let running = self.running.values().flat_map(|tag| tag.plan.sources());
        let moved: BTreeSet<&str> =
            running.filter(|(stream, _)| self.is_moved(stream)).map(|(stream, _)| stream.name.as_str()).collect();
        let mut watermarks = self.dataflow.next_watermarks().clone();
        watermarks.retain(|stream, _| !moved.contains(stream.as_str()));
        let request = FillRequest {
            tags,
            world: self.world.clone(),
            store: Arc::clone(&self.store),
            shards: shards(&self.config),
            epoch_rows: self.config.engine.epoch_rows,
            clock: wall_clock().max(self.dataflow.clock),
            watermarks,
            is_alone: self.running.is_empty(),
            memory: self.memory.clone(),
            stop: Arc::clone(&self.stop),
        };
        let fill =
            Fill::start(request).map_err(|source| DaemonError::Io { what: "the fill's thread".to_string(), source })?;
        self.fill = Some(fill);
        Ok(())
    }

    /// A fill that cannot read makes room for others that may.
    pub(super) fn rotate_fills(&mut self) -> Result<(), DaemonError> {
        let Some(fill) = &self.fill else { return Ok(()) };
        let is_stuck = fill.troubled_since.is_some_and(|since| since.elapsed() > TROUBLE_DEADLINE);
        if !is_stuck || !self.needed().keys().any(|tag| !fill.tags.contains_key(tag)) {
            return Ok(());
        }
        let reason = fill.troubles.join("; ");
        self.give_up_fill(&reason)?;
        self.reconcile()
    }

    pub(super) fn follow_fill(&mut self) -> Result<(), DaemonError> {
        while let Some(event) = self.fill.as_ref().and_then(|fill| fill.events.try_recv().ok()) {
            match event {
                FillEvent::Progress { rows, lag, troubles } => {
                    if let Some(fill) = &mut self.fill {
                        fill.note(rows, lag, troubles);
                    }
                }
                FillEvent::Written(stats) => self.tell_rejected(&stats),
                FillEvent::Fault(fault) => {
                    // The version that runs, if there is one, goes on.
                    error!(tag = fault.tag, reason = fault.reason, "the tag cannot be filled");
                    let filling = self.fill.as_ref().and_then(|fill| fill.tags.get(&fault.tag));
                    let fingerprint = filling.map(|planned| planned.plan.fingerprint.clone()).unwrap_or_default();
                    self.put_aside(fingerprint, fault, TagState::Failed);
                }
                FillEvent::CaughtUp { offsets, watermarks, commits } => {
                    self.desired.commits.extend(commits);
                    self.agree_on_meeting(offsets, watermarks)?;
                }
                FillEvent::Filled(filled) => self.filled = Some(filled),
                FillEvent::Failed(reason) => self.give_up_fill(&reason)?,
            }
        }
        Ok(())
    }

    /// Both go to the later of the two offsets in every partition, and there meet.
    pub(super) fn agree_on_meeting(&mut self, filled: Offsets, watermarks: Watermarks) -> Result<(), DaemonError> {
        if let Some(fill) = &self.fill {
            self.known.fill = FillSpeed::of(fill.rows, fill.begun.elapsed(), fill.tags.len()).or(self.known.fill);
        }
        self.leave_moved_streams()?;
        let mut offsets = self.dataflow.offsets.clone();
        for (partition, next) in &filled.0 {
            offsets.advance(partition, *next);
        }
        // Neither side's clock goes back, whatever the machine's does meanwhile.
        let begun = self.fill.as_ref().map_or(0, |fill| fill.clock);
        self.dataflow.raise_watermarks(&watermarks);
        let meeting = Meeting {
            offsets,
            clock: wall_clock().max(self.dataflow.clock).max(begun),
            watermarks: self.dataflow.next_watermarks().clone(),
        };
        if let Some(fill) = &self.fill {
            fill.meet(meeting.clone());
        }
        self.restart_intake(Some(&meeting.offsets))?;
        crash_point("fill.meets");
        self.meeting_since = Instant::now();
        self.meeting = Some(meeting);
        Ok(())
    }

    /// True of a stream of a running tag that the project now reads elsewhere.
    fn is_moved(&self, stream: &Stream) -> bool {
        let mut wanted = self.desired.tags.values().flat_map(|tag| tag.plan.sources());
        let wanted = wanted.find(|(wanted, _)| wanted.name == stream.name);
        wanted.is_some_and(|(wanted, _)| (&wanted.connection, &wanted.topic) != (&stream.connection, &stream.topic))
    }

    /// Tags whose stream now reads another topic stop: offsets of the one mean nothing in the other. Their tables stay as
    /// they are until the versions that are being filled replace them.
    fn leave_moved_streams(&mut self) -> Result<(), DaemonError> {
        let reads_moved = |tag: &PlannedTag| tag.plan.sources().any(|(stream, _)| self.is_moved(stream));
        let moved: Vec<String> =
            self.running.iter().filter(|(_, tag)| reads_moved(tag)).map(|(name, _)| name.clone()).collect();
        let kept = self.kept.iter().filter(|(_, kept)| reads_moved(&kept.planned));
        let kept: Vec<String> = kept.map(|(name, _)| name.clone()).collect();
        if !moved.is_empty() {
            self.settle()?;
            warn!(?moved, "streams read other topics now; their tags stand still until they are filled");
        }
        for tag in moved {
            self.dataflow.remove_tag(&tag);
            self.running.remove(&tag);
        }
        kept.iter().for_each(|name| self.give_kept_up(name, "its streams read other topics now"));
        self.prune_offsets();
        Ok(())
    }

    /// Forgets the offsets and watermarks of streams that no tag reads.
    pub(super) fn prune_offsets(&mut self) {
        let reads = reads(self.plans());
        self.dataflow.keep_streams(|stream| reads.contains_key(stream));
    }

    /// The filled tags join: their tables are renamed, their state is taken over, all sources read on.
    pub(super) fn join(&mut self, mut filled: Filled) -> Result<(), DaemonError> {
        self.settle()?;
        crash_point("join.settled");
        self.meeting = None;
        let tags: Vec<String> = filled.dataflow.tags().map(|(tag, _)| tag.to_string()).collect();
        filled.dataflow.epoch = self.dataflow.epoch;
        let graph = Graph::of(&self.desired.project);
        let made_of = self.files_of_live()?;
        let (mut joining, mut replaced) = (Vec::new(), Vec::new());
        for tag in &tags {
            let Some(planned) = self.desired.tags.get(tag).cloned() else {
                filled.dataflow.remove_tag(tag);
                continue;
            };
            let complete_from = filled.complete_from.get(tag).copied().flatten();
            let fingerprint = &planned.plan.fingerprint;
            let shown = self.versions.get(tag).map(|_| self.complete_from.get(tag).copied().flatten());
            if let Some(from) = complete_from
                && waits_for_accept(complete_from, shown)
                && !self.is_accepted(tag, fingerprint)
            {
                let reason = format!(
                    "history begins at {}, later than the SQL asks; `tagflow accept {tag}` lets it replace the complete version",
                    display_millis(from)
                );
                warn!(tag, reason, "the new version waits");
                filled.dataflow.remove_tag(tag);
                let (fingerprint, state_limit) = (fingerprint.clone(), planned.state_limit);
                let aside = Aside { fingerprint, state_limit, state: TagState::Waiting, reason, retry_at: None };
                self.aside.insert(tag.clone(), aside);
                continue;
            }
            let before = self.versions.get(tag).copied();
            let origin = self.origin(&planned, &graph, made_of.get(tag));
            match self.swap(&planned, &filled, complete_from, origin) {
                Ok(()) => {
                    let by = Some(planned.plan.fingerprint.clone());
                    match before {
                        Some(version) => replaced.push(Replaced { tag: tag.clone(), version, by }),
                        None => self.dataflow.remove_tag(tag),
                    }
                    self.aside.remove(tag);
                    self.attempts.remove(tag);
                    self.end_backfill(tag);
                    filled.dataflow.redirect(tag, Arc::clone(&planned.table));
                    self.complete_from.insert(tag.clone(), complete_from);
                    self.lost.remove(tag);
                    joining.push((tag.clone(), planned));
                }
                Err(DaemonError::Store(StoreError::Sink(error @ SinkError::Table { .. }))) => {
                    // The version that runs, if there is one, goes on.
                    filled.dataflow.remove_tag(tag);
                    error!(tag, %error, "the filled table cannot be swapped in");
                    self.put_aside(fingerprint.clone(), TagFault::passing(tag, error), TagState::Failed);
                }
                Err(error) => return Err(error),
            }
        }
        self.keep_replaced(replaced)?;
        self.running.extend(joining);
        self.leave_old_layouts()?;
        crash_point("join.swapped");
        self.dataflow.absorb(filled.dataflow)?;
        crash_point("join.absorbed");
        let rows = self.fill.take().map_or(0, |fill| fill.rows);
        info!(?tags, rows, epoch = self.dataflow.epoch, "the filled tags follow now");
        self.restart_intake(None)?;
        self.hasten_checkpoint();
        self.reconcile()
    }

    /// Lets all running tags read the streams as the project lays them out now: one reader serves them all. A tag whose
    /// own version is of an older layout, since its new one waits or has failed, stands still from here on.
    fn leave_old_layouts(&mut self) -> Result<(), DaemonError> {
        let wanted = streams(self.desired.tags.values().map(|tag| tag.plan.as_ref()));
        let is_old = |planned: &PlannedTag| {
            planned
                .plan
                .sources()
                .any(|(stream, _)| wanted.get(&stream.name).is_some_and(|wanted| wanted.columns != stream.columns))
        };
        let is_kept_old = self.lay_kept_out(is_old)?;
        if !is_kept_old && !self.running.values().any(is_old) {
            return Ok(());
        }
        let is_replaced = |name: &String, planned: &PlannedTag| {
            let wanted = self.desired.tags.get(name);
            wanted.is_none_or(|wanted| wanted.plan.fingerprint != planned.plan.fingerprint)
        };
        let left = self.running.iter().filter(|(name, planned)| is_old(planned) && is_replaced(name, planned));
        let left: Vec<String> = left.map(|(name, _)| name.clone()).collect();
        for tag in left {
            warn!(tag, "its stream has other columns now: its table stands still until its new version takes over");
            self.dataflow.remove_tag(&tag);
            self.running.remove(&tag);
        }
        self.relay()
    }

    /// Plans of the running tags over the streams as the project lays them out now.
    pub(super) fn relay(&mut self) -> Result<(), DaemonError> {
        let mut plans = BTreeMap::new();
        for (name, running) in &mut self.running {
            if let Some(wanted) = self.desired.tags.get(name)
                && wanted.plan.fingerprint == running.plan.fingerprint
            {
                running.plan = Arc::clone(&wanted.plan);
            }
            plans.insert(name.clone(), Arc::clone(&running.plan));
        }
        plans.extend(self.kept.iter().map(|(name, kept)| (name.clone(), Arc::clone(&kept.planned.plan))));
        Ok(self.dataflow.relay(&plans)?)
    }

    pub(super) fn swap(
        &mut self,
        planned: &PlannedTag,
        filled: &Filled,
        complete_from: Option<i64>,
        origin: Origin,
    ) -> Result<(), DaemonError> {
        let tag = planned.definition.name.clone();
        let version = self.next_version(&tag);
        let mut registration = self.registration(planned, version, complete_from)?;
        // It has read all that there was.
        registration.lost.clear();
        let streams = reads([planned.plan.as_ref()]);
        let own = filled.dataflow.offsets.0.iter().filter(|(partition, _)| streams.contains_key(&partition.stream));
        let names: BTreeSet<String> = streams.keys().cloned().collect();
        let progress = TagProgress {
            tag: tag.clone(),
            fingerprint: planned.plan.fingerprint.clone(),
            epoch: self.dataflow.epoch,
            offsets: Offsets(own.map(|(partition, next)| (partition.clone(), *next)).collect()),
            clock: self.dataflow.clock,
            watermarks: of_streams(&filled.dataflow.watermarks, &names),
            event_time: filled.dataflow.event_time(&names),
            rows: filled.dataflow.rows(&tag),
        };
        let shadow = planned.shadow.table.clone();
        self.store.call("swap a table", move |sink| {
            sink.swap_table(&shadow, &progress.tag, &progress, &registration, &origin)
        })?;
        self.last_versions.insert(tag.clone(), version);
        self.versions.insert(tag, version);
        Ok(())
    }
}

/// The connections that a tag reads from.
fn connections(planned: &PlannedTag) -> BTreeSet<String> {
    planned.plan.sources().map(|(stream, _)| stream.connection.clone()).collect()
}

fn display_millis(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).map_or_else(|| millis.to_string(), |time| time.to_rfc3339())
}

//! The start: the last checkpoint, then in silence to exactly what the store holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::tags::take_resumed;
use super::versions::Kept;
use super::{Daemon, DaemonError};
use crate::crash_point::crash_point;
use crate::delta::{Clock, Offsets, Watermarks};
use crate::engine::checkpoint::{CheckpointError, Checkpoints, Manifest, OperatorFiles, Position};
use crate::engine::desired::{PlannedTag, reads};
use crate::engine::intake::Intake;
use crate::engine::status::{Phase, TagState, update};
use crate::engine::versions::plan_versions;
use crate::operator::OperatorError;
use crate::sink::versions::Version;
use crate::sink::{TagProgress, TagRegistration};
use crate::source::remember_topics;

/// Files by operator.
type Resting = BTreeMap<String, OperatorFiles>;

impl Daemon {
    /// Loads the last checkpoint and goes, in silence, to exactly the epoch that the store holds.
    pub(super) fn restore(&mut self) -> Result<(), DaemonError> {
        crash_point("restore.opened");
        let progress = self.store.call("read progress", |sink| sink.progress())?;
        // Epochs and the clock go on from what was ever committed, also where no state can be taken up.
        let epoch = progress.iter().map(|progress| progress.epoch).max().unwrap_or_default();
        let clock = progress.iter().map(|progress| progress.clock).max().unwrap_or_default();
        // Those of another plan may be of another topic.
        let is_of_plan = |progress: &&TagProgress| {
            let planned = self.desired.tags.get(&progress.tag);
            planned.is_some_and(|planned| planned.plan.fingerprint == progress.fingerprint)
        };
        let own = progress.iter().filter(is_of_plan);
        let watermarks: Vec<Watermarks> = own.map(|progress| progress.watermarks.clone()).collect();
        // What was wished of a daemon before does not concern this one: it tries every tag.
        take_resumed(&self.config.engine.state_dir);
        let resting_on = self.restore_state(progress)?;
        self.start_checkpoints(resting_on)?;
        self.dataflow.epoch = self.dataflow.epoch.max(epoch);
        self.dataflow.clock = self.dataflow.clock.max(clock);
        watermarks.iter().for_each(|watermarks| self.dataflow.raise_watermarks(watermarks));
        Ok(())
    }

    /// Gives the files that the operators' state was loaded from.
    fn restore_state(&mut self, progress: Vec<TagProgress>) -> Result<Resting, DaemonError> {
        let registered = self.store.call("read registry", |sink| sink.registrations())?;
        let retired = self.retire_forgotten(&registered)?;
        for registered in registered.into_iter().filter(|registered| !retired.contains(&registered.tag)) {
            self.versions.insert(registered.tag.clone(), registered.version);
            self.complete_from.insert(registered.tag.clone(), registered.complete_from);
            self.lost.insert(registered.tag, registered.lost);
        }
        let versions = self.store.call("read versions", |sink| sink.versions())?;
        for version in &versions {
            let last = self.last_versions.entry(version.tag.clone()).or_default();
            *last = version.version.max(*last);
        }
        let candidates = self.candidates(progress, &versions)?;
        let resting_on = self.restore_candidates(&candidates)?;
        let is_over = |version: &&Version| version.is_kept() && !self.kept.contains_key(&version.name());
        let over = versions.iter().filter(is_over).map(|version| {
            (version.tag.clone(), version.version, "its state was not to be had when the daemon started".to_string())
        });
        self.given_up.extend(over.collect::<Vec<_>>());
        Ok(resting_on)
    }

    /// What the store's tables show that can be planned still: tags as they should be, those whose files have changed since
    /// as they were, and the versions that were kept.
    fn candidates(
        &self,
        progress: Vec<TagProgress>,
        versions: &[Version],
    ) -> Result<BTreeMap<String, Candidate>, DaemonError> {
        let aside = self.store.call("read versions", |sink| sink.versions_aside())?;
        let keeps = !self.config.engine.grace_period.is_zero();
        let is_shown = |version: &&Version| {
            let live = || progress.iter().any(|shown| shown.tag == version.tag);
            let name = version.name();
            let kept = || keeps && aside.iter().any(|(_, shown)| shown.tag == name);
            if version.live_until.is_none() { live() } else { version.is_kept() && kept() }
        };
        let stored: Vec<&Version> = versions.iter().filter(is_shown).collect();
        let is_as_it_should = |version: &Version| {
            let wanted = self.desired.tags.get(&version.tag);
            version.live_until.is_none() && wanted.is_some_and(|wanted| wanted.plan.fingerprint == version.fingerprint)
        };
        let changed = stored.iter().copied().filter(|version| !is_as_it_should(version));
        let plans = plan_versions(&self.desired.project, changed);
        let mut candidates = BTreeMap::new();
        for progress in progress {
            let of_plan = |planned: &&PlannedTag| planned.plan.fingerprint == progress.fingerprint;
            let version = self.versions.get(&progress.tag).copied().unwrap_or_default();
            let live = stored.iter().find(|live| live.tag == progress.tag && live.live_until.is_none());
            let stored = live.and_then(|live| plans.get(&live.name()));
            let wanted = self.desired.tags.get(&progress.tag).filter(of_plan);
            let Some(planned) = wanted.or(stored.filter(of_plan)).cloned() else { continue };
            let tag = progress.tag.clone();
            candidates.insert(tag.clone(), Candidate { tag, version, planned, progress, kept: None });
        }
        for (table, progress) in aside {
            let Some(known) = stored.iter().find(|known| known.name() == progress.tag) else { continue };
            let Some(planned) = plans.get(&progress.tag).cloned() else { continue };
            let kept = Kept::new(known, planned, &table);
            let (name, planned) = (progress.tag.clone(), kept.planned.clone());
            let (tag, version) = (known.tag.clone(), known.version);
            candidates.insert(name, Candidate { tag, version, planned, progress, kept: Some(kept) });
        }
        Ok(candidates)
    }

    fn restore_candidates(&mut self, candidates: &BTreeMap<String, Candidate>) -> Result<Resting, DaemonError> {
        let mut was_away = false;
        // Without its checkpoints all tags would be filled anew: their place is waited for.
        let loaded = loop {
            match self.load_newest(candidates) {
                Err(DaemonError::Checkpoint(error)) if error.is_passing() => {
                    self.forget_all();
                    if !std::mem::replace(&mut was_away, true) {
                        warn!(%error, "the checkpoints cannot be read; waiting for their place");
                    }
                    if !self.wait_for_place(&error)? {
                        return Ok(Resting::new());
                    }
                }
                outcome => break outcome?,
            }
        };
        let Some((manifest, target)) = loaded else { return Ok(Resting::new()) };
        let position = &manifest.position;
        self.dataflow.graph.set_saved(true);
        self.dataflow.offsets = position.offsets.clone();
        self.prune_offsets();
        self.dataflow.clock = position.clock;
        self.dataflow.raise_watermarks(&position.watermarks);
        crash_point("restore.loaded");
        info!(epoch = position.epoch, tags = self.running.len(), "the checkpoint is loaded");
        update(&self.status, |status| status.phase = Phase::Replaying);
        self.replay(&target)?;
        Ok(manifest.operators)
    }

    /// Loads the newest checkpoint that is whole; `None` where none is, or where it is of no use.
    fn load_newest(
        &mut self,
        candidates: &BTreeMap<String, Candidate>,
    ) -> Result<Option<(Manifest, ReplayTarget)>, DaemonError> {
        let checkpoints = self.checkpoints.clone();
        let skip = |error: CheckpointError| match error {
            CheckpointError::Io { .. } => Err(error),
            damaged => {
                warn!(error = %damaged, "a checkpoint is skipped");
                Ok(())
            }
        };
        for epoch in checkpoints.epochs()? {
            let manifest = match checkpoints.manifest(epoch) {
                Ok(manifest) => manifest,
                Err(error) => {
                    skip(error)?;
                    continue;
                }
            };
            // The store may have gone back behind it, by a backup for one; an older one may serve then.
            let Some(target) = self.resumable(&manifest.position, candidates)? else {
                info!(epoch, "no table goes with the checkpoint; the one before is looked at");
                continue;
            };
            self.add_resumed(&manifest.position, &target, candidates)?;
            match self.load_pieces(&checkpoints, &manifest) {
                Ok(true) => return Ok(Some((manifest, target))),
                Ok(false) => {
                    self.forget_all();
                    return Ok(None);
                }
                Err(error) => {
                    // What was loaded of it may be half of it.
                    self.forget_all();
                    skip(error)?;
                }
            }
        }
        checkpoints.of_old_formats()?.into_iter().try_for_each(skip)?;
        Ok(None)
    }

    /// Adds the tags of a checkpoint, of which there is no state yet.
    fn add_resumed(
        &mut self,
        position: &Position,
        target: &ReplayTarget,
        candidates: &BTreeMap<String, Candidate>,
    ) -> Result<(), DaemonError> {
        if !self.was_taken_here(position) {
            let state_dir = &self.config.engine.state_dir;
            info!(path = %state_dir.display(), "the checkpoint was taken beside another state directory");
            remember_topics(state_dir, &position.topics)
                .map_err(|source| DaemonError::Io { what: state_dir.display().to_string(), source })?;
        }
        for name in &target.names {
            let Some(Candidate { tag, version, planned, progress, kept }) = candidates.get(name) else { continue };
            let known = position.version(tag, *version);
            let beginnings = known.map(|known| known.beginnings.clone()).unwrap_or_default();
            let added = self.dataflow.add_tag(&planned.table, name, &planned.plan, progress.rows, &beginnings);
            match (added, kept) {
                (Ok(()), Some(kept)) => drop(self.kept.insert(name.clone(), kept.clone())),
                (Ok(()), None) => drop(self.running.insert(name.clone(), planned.clone())),
                (Err(fault), Some(_)) => warn!(name, reason = fault.reason, "a version cannot be kept"),
                (Err(fault), None) => self.set_aside(fault, TagState::Failed),
            }
        }
        Ok(())
    }

    /// False where the state does not fit the operators, or where the daemon was stopped meanwhile.
    fn load_pieces(&mut self, checkpoints: &Checkpoints, manifest: &Manifest) -> Result<bool, CheckpointError> {
        for piece in checkpoints.pieces(manifest) {
            let piece = piece?;
            if self.stopping() {
                return Ok(false);
            }
            if let Err(error) = self.dataflow.load(piece.operator, &piece.parts) {
                warn!(%error, "the checkpoint cannot be used; tags are filled anew");
                return Ok(false);
            }
            self.follow_memory();
        }
        Ok(true)
    }

    /// Retires the tables of tags whose files went while no daemon ran; gives their names.
    fn retire_forgotten(&mut self, registered: &[TagRegistration]) -> Result<BTreeSet<String>, DaemonError> {
        let known = |tag: &TagRegistration| {
            let defined = self.desired.project.tags.get(&tag.tag);
            self.desired.tags.contains_key(&tag.tag)
                || defined.map_or_else(|| self.config.root.join(&tag.file).exists(), |definition| definition.runs())
        };
        let gone: BTreeSet<String> = registered.iter().filter(|tag| !known(tag)).map(|tag| tag.tag.clone()).collect();
        if let Some(message) = self.too_many_gone(gone.len(), registered.len()) {
            error!(message);
            self.project_errors = vec![message];
            return Ok(BTreeSet::new());
        }
        for tag in &gone {
            info!(tag, "the tag's file is gone; its table is retired");
            self.retire(tag.clone())?;
        }
        Ok(gone)
    }

    /// True where what lies in the state directory goes with a checkpoint.
    fn was_taken_here(&self, position: &Position) -> bool {
        position.state_dir.is_empty() || position.state_dir == self.state_name
    }

    /// The tags whose state and table belong together, and where their tables are.
    fn resumable(
        &self,
        saved: &Position,
        candidates: &BTreeMap<String, Candidate>,
    ) -> Result<Option<ReplayTarget>, DaemonError> {
        let mut groups: BTreeMap<u64, ReplayTarget> = BTreeMap::new();
        for (name, Candidate { tag, version, planned, progress, .. }) in candidates {
            let fingerprint = &planned.plan.fingerprint;
            // A table that was filled again since goes with other state.
            let is_known = saved.version(tag, *version).is_some_and(|known| known.plan == *fingerprint);
            // The log that its offsets count is not here.
            let is_elsewhere =
                !self.was_taken_here(saved) && planned.plan.sources().any(|(stream, _)| stream.kind.is_outside());
            if is_elsewhere {
                info!(tag = name, "the tag reads a table outside, whose log is elsewhere; it is filled anew");
                continue;
            }
            if !is_known || progress.epoch < saved.epoch {
                continue;
            }
            let table = Arc::clone(&planned.table);
            if !self.store.call("look at a table", move |sink| sink.table_matches(&table))? {
                continue;
            }
            let group = groups.entry(progress.epoch).or_default();
            group.epoch = progress.epoch;
            group.clock = group.clock.max(progress.clock);
            group.watermarks.extend(progress.watermarks.clone());
            for (partition, next) in &progress.offsets.0 {
                group.offsets.advance(partition, *next);
            }
            group.names.insert(name.clone());
        }
        // Tags that were committed together are at one epoch; the few that are not are filled anew.
        Ok(groups.into_values().max_by_key(|group| group.names.len()))
    }

    fn replay(&mut self, target: &ReplayTarget) -> Result<(), DaemonError> {
        let reads = reads(self.plans());
        let mut intake = Intake::start(&self.world, &reads, &self.dataflow.offsets, Some(&target.offsets))?;
        let mut rows = 0;
        while !intake.is_finished() {
            if self.stopping() {
                // Half-way, nothing may be committed or saved: the store is further than this state.
                self.forget_all();
                return Ok(());
            }
            self.follow_memory();
            if self.is_full() {
                std::thread::sleep(Duration::from_millis(5));
                self.write_status(&intake.troubles.values().cloned().collect::<Vec<_>>());
                continue;
            }
            let arrived = intake.collect(Duration::from_millis(100), self.epoch_rows()).map_err(OperatorError::from)?;
            if let Some((stream, reason)) = intake.failed.first_key_value() {
                warn!(stream, reason, "records of the replay are gone; tags are filled anew");
                self.forget_all();
                return Ok(());
            }
            for (partition, next) in &arrived.next {
                self.dataflow.offsets.advance(partition, *next);
            }
            rows += arrived.rows;
            self.dataflow.graph.note_partitions(intake.announced_partitions());
            let clock = self.dataflow.clock;
            let mut faults = self.dataflow.replay(&arrived.events, clock);
            arrived.name_records(&mut faults);
            self.faults(faults);
            self.write_status(&intake.troubles.values().cloned().collect::<Vec<_>>());
        }
        if !self.stands_at(&target.offsets) {
            warn!("the replay has ended elsewhere than the tables are; tags are filled anew");
            self.forget_all();
            return Ok(());
        }
        self.dataflow.raise_watermarks(&target.watermarks);
        let faults = self.dataflow.replay(&HashMap::new(), target.clock);
        self.faults(faults);
        self.dataflow.epoch = target.epoch;
        self.committed_epoch = target.epoch;
        crash_point("restore.replayed");
        info!(rows, epoch = target.epoch, "the replay is done");
        for planned in self.running.values().cloned().collect::<Vec<_>>() {
            self.count_labels(&planned)?;
        }
        Ok(())
    }

    fn forget_all(&mut self) {
        let epoch = self.dataflow.epoch;
        let kept = std::mem::take(&mut self.kept).into_keys();
        for tag in std::mem::take(&mut self.running).into_keys().chain(kept) {
            self.dataflow.remove_tag(&tag);
        }
        self.dataflow.offsets = Offsets::default();
        self.dataflow.epoch = epoch;
    }
}

/// A table whose state may be in a checkpoint.
struct Candidate {
    tag: String,
    version: u64,
    planned: PlannedTag,
    progress: TagProgress,
    /// Set for one that is not live.
    kept: Option<Kept>,
}

/// Where the store's tables are: the end of a replay.
#[derive(Debug, Default)]
struct ReplayTarget {
    epoch: u64,
    clock: Clock,
    watermarks: Watermarks,
    offsets: Offsets,
    /// Tags and kept versions by their names in the dataflow.
    names: BTreeSet<String>,
}

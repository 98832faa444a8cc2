//! Tags come and go: what runs is made what the project says. New and changed tags are filled beside the running ones
//! and join them at an epoch; those whose files are gone are retired; one that fails is set aside alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tracing::{error, info, warn};

use super::{Aside, Daemon, DaemonError, wall_clock};
use crate::delta::Offsets;
use crate::diagnostic::Diagnostic;
use crate::engine::dataflow::TagFault;
use crate::engine::desired::{PlannedTag, git_commit, reads, streams};
use crate::engine::fill::{Fill, FillEvent, FillRequest, Filled, Meeting};
use crate::engine::intake::Arrived;
use crate::engine::labels::OutsideLabels;
use crate::engine::reload::{ReloadOutcome, Reloaded};
use crate::engine::status::TagState;
use crate::engine::store::StoreError;
use crate::sink::{SinkError, TagProgress, TagRegistration};

impl Daemon {
    /// Most tags vanish at once when a folder is not mounted, seldom because it is meant.
    pub(super) fn too_many_gone(&self, gone: usize, of: usize) -> Option<String> {
        (gone > 3 && gone * 2 > of && !self.accept_removals).then(|| {
            format!(
                "{gone} of {of} tags have vanished at once; nothing is removed. Restart with --accept-removals if it is meant"
            )
        })
    }

    /// Until the running tags are where they meet those that are filled; then they wait for them there.
    pub(super) fn epoch_before_meeting(&mut self, arrived: Arrived, meeting: Meeting) -> Result<(), DaemonError> {
        if !arrived.next.is_empty() {
            let clock = self.dataflow.clock;
            self.take(arrived, clock);
        }
        if let Some((stream, reason)) = self.intake.failed.first_key_value() {
            error!(stream, reason, "the fill is given up: its tags cannot be met");
            return self.end_fill();
        }
        if self.intake.is_finished()
            && let Some(filled) = self.filled.take()
        {
            if !self.stands_at(&meeting.offsets) {
                error!("the fill is given up: a source has ended elsewhere than it was asked to");
                return self.end_fill();
            }
            let faults = self.dataflow.step(&HashMap::new(), meeting.clock);
            self.faults(faults);
            self.join(*filled)?;
        }
        Ok(())
    }

    /// True when exactly the records before `offsets` were taken of every stream that the running tags read.
    pub(super) fn stands_at(&self, offsets: &Offsets) -> bool {
        let reads = reads(self.running.values().map(|tag| tag.plan.as_ref()));
        let own = offsets.0.iter().filter(|(partition, _)| reads.contains_key(&partition.stream));
        own.into_iter().all(|(partition, next)| self.dataflow.offsets.next(partition) == Some(*next))
    }

    pub(super) fn faults(&mut self, faults: Vec<TagFault>) {
        for fault in faults {
            self.set_aside(fault, TagState::Failed);
        }
    }

    pub(super) fn set_aside(&mut self, fault: TagFault, state: TagState) {
        error!(tag = fault.tag, reason = fault.reason, "the tag is set aside; the others go on");
        self.dataflow.remove_tag(&fault.tag);
        let known = self.running.remove(&fault.tag);
        let fingerprint = known
            .map(|tag| tag.plan.fingerprint.clone())
            .or_else(|| Some(self.desired.tags.get(&fault.tag)?.plan.fingerprint.clone()))
            .unwrap_or_default();
        self.aside.insert(fault.tag, Aside { fingerprint, state, reason: fault.reason });
    }

    /// Makes what runs what should run: takes out what is gone, fills what is new or changed.
    pub(super) fn reconcile(&mut self) -> Result<(), DaemonError> {
        self.aside.retain(|tag, aside| {
            self.desired.tags.get(tag).is_some_and(|wanted| wanted.plan.fingerprint == aside.fingerprint)
        });
        let mut needed = BTreeMap::new();
        for (name, wanted) in &self.desired.tags {
            let fingerprint = &wanted.plan.fingerprint;
            if self.running.get(name).is_some_and(|running| running.plan.fingerprint == *fingerprint) {
                continue;
            }
            if let Some(aside) = self.aside.get(name)
                && !(aside.state == TagState::Waiting && self.is_accepted(name, fingerprint))
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

    /// True when the author lets a version in that is less complete than the one that runs.
    fn is_accepted(&self, tag: &str, fingerprint: &str) -> bool {
        self.config.engine.state_dir.join("accepted").join(format!("{tag}.{fingerprint}")).exists()
    }

    /// Fills tags that wait once `tagflow accept` has let them in.
    pub(super) fn follow_acceptance(&mut self) -> Result<(), DaemonError> {
        let mut waiting = self.aside.iter().filter(|(_, aside)| aside.state == TagState::Waiting);
        let may_fill = self.fill.is_none() && waiting.any(|(tag, aside)| self.is_accepted(tag, &aside.fingerprint));
        if may_fill { self.reconcile() } else { Ok(()) }
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

    pub(super) fn follow_fill(&mut self) -> Result<(), DaemonError> {
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
    pub(super) fn agree_on_meeting(&mut self, filled: Offsets) -> Result<(), DaemonError> {
        self.leave_moved_streams()?;
        let mut offsets = self.dataflow.offsets.clone();
        for (partition, next) in &filled.0 {
            offsets.advance(partition, *next);
        }
        // Neither side's clock goes back, whatever the machine's does meanwhile.
        let begun = self.fill.as_ref().map_or(0, |fill| fill.clock);
        let meeting = Meeting { offsets, clock: wall_clock().max(self.dataflow.clock).max(begun) };
        if let Some(fill) = &self.fill {
            fill.meet(meeting.clone());
        }
        self.restart_intake(Some(&meeting.offsets))?;
        self.meeting = Some(meeting);
        Ok(())
    }

    /// Tags whose stream now reads another topic stop: offsets of the one mean nothing in the other. Their tables stay as
    /// they are until the versions that are being filled replace them.
    fn leave_moved_streams(&mut self) -> Result<(), DaemonError> {
        let wanted = streams(self.desired.tags.values().map(|tag| tag.plan.as_ref()));
        let is_moved = |tag: &PlannedTag| {
            tag.plan.sources().any(|(stream, _)| {
                wanted
                    .get(&stream.name)
                    .is_some_and(|wanted| (&wanted.connection, &wanted.topic) != (&stream.connection, &stream.topic))
            })
        };
        let moved: Vec<String> =
            self.running.iter().filter(|(_, tag)| is_moved(tag)).map(|(name, _)| name.clone()).collect();
        if !moved.is_empty() {
            self.settle()?;
            warn!(?moved, "streams read other topics now; their tags stand still until they are filled");
        }
        for tag in moved {
            self.dataflow.remove_tag(&tag);
            self.running.remove(&tag);
        }
        self.prune_offsets();
        Ok(())
    }

    /// Forgets the offsets of streams that no tag reads.
    pub(super) fn prune_offsets(&mut self) {
        let reads = reads(self.running.values().map(|tag| tag.plan.as_ref()));
        self.dataflow.offsets.0.retain(|partition, _| reads.contains_key(&partition.stream));
    }

    /// The filled tags join: their tables are renamed, their state is taken over, all sources read on.
    pub(super) fn join(&mut self, mut filled: Filled) -> Result<(), DaemonError> {
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
            let accepted = self.is_accepted(tag, fingerprint);
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
                    self.aside.remove(tag);
                    filled.dataflow.redirect(tag, Arc::clone(&planned.table));
                    self.dataflow.remove_tag(tag);
                    self.running.insert(tag.clone(), planned);
                    self.complete_from.insert(tag.clone(), complete_from);
                }
                Err(DaemonError::Store(StoreError::Sink(error @ SinkError::Table { .. }))) => {
                    // The version that runs, if there is one, goes on.
                    filled.dataflow.remove_tag(tag);
                    error!(tag, %error, "the filled table cannot be swapped in");
                    let (fingerprint, reason) = (fingerprint.clone(), error.to_string());
                    self.aside.insert(tag.clone(), Aside { fingerprint, state: TagState::Failed, reason });
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
        Ok(self.dataflow.relay(&plans)?)
    }

    pub(super) fn swap(
        &mut self,
        planned: &PlannedTag,
        filled: &Filled,
        complete_from: Option<i64>,
    ) -> Result<(), DaemonError> {
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

    pub(super) fn registration(
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

    pub(super) fn follow_reloads(&mut self) -> Result<(), DaemonError> {
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

    pub(super) fn refuse(&mut self, diagnostics: &[Diagnostic]) {
        self.project_errors = diagnostics
            .iter()
            .map(|diagnostic| format!("{}: {} [{}]", diagnostic.file.display(), diagnostic.message, diagnostic.code))
            .collect();
        error!(problems = ?self.project_errors, "the project has errors; what runs stays as it is");
    }

    pub(super) fn reload(&mut self, reloaded: Reloaded) -> Result<(), DaemonError> {
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
    pub(super) fn update_metadata(&mut self, wanted: &PlannedTag) -> Result<(), DaemonError> {
        let name = &wanted.definition.name;
        let version = self.versions.get(name).copied().unwrap_or(1);
        let complete_from = self.complete_from.get(name).copied().flatten();
        let registration = self.registration(wanted, version, complete_from)?;
        self.store.call("register", move |sink| sink.register(std::slice::from_ref(&registration)))?;
        self.settle()?;
        self.count_labels(wanted)?;
        if let Some(running) = self.running.get_mut(name) {
            running.definition = wanted.definition.clone();
            running.registration = wanted.registration.clone();
        }
        info!(tag = name, "the tag's description has changed");
        Ok(())
    }

    /// Lets the store count the values outside of a tag's labels; it must hold all that the tag has given.
    pub(super) fn count_labels(&mut self, tag: &PlannedTag) -> Result<(), DaemonError> {
        let labels = OutsideLabels::of(&tag.registration.columns);
        let name = &tag.definition.name;
        if labels.is_empty() {
            self.dataflow.watch_labels(name, labels);
            return Ok(());
        }
        let table = Arc::clone(&tag.table);
        let counted = self.store.call("count values", move |sink| {
            let mut labels = labels.clone();
            labels.recount(sink, &table)?;
            Ok(labels)
        })?;
        self.dataflow.watch_labels(name, counted);
        Ok(())
    }

    /// Tags count as removed only when a second look finds their files gone too.
    pub(super) fn retire_vanished(&mut self) -> Result<(), DaemonError> {
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
    pub(super) fn was_switched_off(&self, tag: &str) -> bool {
        self.desired.project.tags.get(tag).is_some_and(|definition| !definition.runs())
    }
}

fn display_millis(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).map_or_else(|| millis.to_string(), |time| time.to_rfc3339())
}

//! Tags come and go: what runs is made what the project says. New and changed tags are filled beside the running ones
//! and join them at an epoch; those whose files are gone are retired; one that fails is set aside alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tracing::{error, info, warn};

use super::versions::Replaced;
use super::{Aside, Daemon, DaemonError, FIRST_RETRY, LAST_RETRY, STREAM_RETRY};
use crate::diagnostic::Diagnostic;
use crate::engine::changes::{Change, change_of, too_many_gone};
use crate::engine::dataflow::TagFault;
use crate::engine::desired::PlannedTag;
use crate::engine::labels::OutsideLabels;
use crate::engine::reload::{ReloadOutcome, Reloaded};
use crate::engine::status::TagState;
use crate::engine::store::StoreError;
use crate::sink::{SinkError, TagRegistration};

/// The folder below the state directory in which `tagflow resume` names tags by empty files.
pub const RESUMED: &str = "resumed";

impl Daemon {
    /// Most tags vanish at once when a folder is not mounted, seldom because it is meant.
    pub(super) fn too_many_gone(&self, gone: usize, of: usize) -> Option<String> {
        (too_many_gone(gone, of) && !self.accept_removals).then(|| {
            format!(
                "{gone} of {of} tags have vanished at once; nothing is removed. Restart with --accept-removals if it is meant"
            )
        })
    }

    pub(super) fn faults(&mut self, faults: Vec<TagFault>) {
        for fault in faults {
            self.set_aside(fault, TagState::Failed);
        }
    }

    /// Sets tags aside whose state has grown over their limits.
    pub(super) fn keep_state_limits(&mut self) {
        if !self.sizes.count(&self.dataflow.graph) {
            return;
        }
        let known = |tag: &str| {
            let kept = self.kept.get(tag).map(|kept| &kept.planned);
            self.desired.tags.get(tag).or_else(|| self.running.get(tag)).or(kept)
        };
        let faults = self.sizes.over_limit(|tag| known(tag)?.state_limit);
        self.faults(faults);
    }

    pub(super) fn set_aside(&mut self, fault: TagFault, state: TagState) {
        if self.kept.contains_key(&fault.tag) {
            return self.give_kept_up(&fault.tag, &fault.reason);
        }
        error!(tag = fault.tag, reason = fault.reason, "the tag is set aside; the others go on");
        self.dataflow.remove_tag(&fault.tag);
        let known = self.running.remove(&fault.tag);
        let fingerprint = known
            .map(|tag| tag.plan.fingerprint.clone())
            .or_else(|| Some(self.desired.tags.get(&fault.tag)?.plan.fingerprint.clone()))
            .unwrap_or_default();
        self.put_aside(fingerprint, fault, state);
    }

    /// Makes what runs what should run: takes out what is gone, fills what is new or changed.
    pub(super) fn reconcile(&mut self) -> Result<(), DaemonError> {
        self.keep_known();
        self.aside.retain(|tag, aside| {
            self.desired.tags.get(tag).is_some_and(|wanted| {
                wanted.plan.fingerprint == aside.fingerprint && wanted.state_limit == aside.state_limit
            })
        });
        self.return_to_kept()?;
        if let Some(fill) = &self.fill {
            // The same tags over the same columns; one that has failed meanwhile is no reason to begin anew.
            let still = |(name, planned): (&String, &PlannedTag)| {
                self.desired.tags.get(name).is_some_and(|wanted| is_same(wanted, planned))
            };
            if fill.tags.iter().all(still) {
                return Ok(());
            }
            info!("the fill is given up: its tags have changed again");
            self.end_fill()?;
        }
        let needed = self.needed();
        self.start_fill(needed)
    }

    /// Tags that should run and do not, without those that another try is not due for.
    pub(super) fn needed(&self) -> BTreeMap<String, PlannedTag> {
        let is_needed = |name: &String, wanted: &PlannedTag| {
            let runs = matches!(self.change_of(wanted), Change::Described | Change::Unchanged);
            let runs = runs && !self.backfills.contains(name);
            let may_run = self.aside.get(name).is_none_or(|aside| self.is_due(name, aside));
            !runs && may_run
        };
        let needed = self.desired.tags.iter().filter(|(name, wanted)| is_needed(name, wanted));
        needed.map(|(name, wanted)| (name.clone(), wanted.clone())).collect()
    }

    /// What becomes of a tag of the project.
    fn change_of(&self, wanted: &PlannedTag) -> Change {
        let running = self.running.get(&wanted.definition.name);
        change_of(running.map(|running| (running.plan.fingerprint.as_str(), &running.registration)), wanted)
    }

    /// Notes the files that the running tags were planned from, for `tagflow plan`.
    fn keep_known(&mut self) {
        let has_table = |tag: &str| self.versions.contains_key(tag);
        let known = self.known.followed(&self.desired, self.running.values(), has_table);
        if known == self.known {
            return;
        }
        // What is told of changes is poorer without it, and nothing else.
        match known.keep_in(&self.config.engine.state_dir) {
            Ok(()) => self.known = known,
            Err(error) => warn!(%error, "what runs cannot be noted in the state directory"),
        }
    }

    /// True for a tag that was set aside and may be tried again.
    fn is_due(&self, tag: &str, aside: &Aside) -> bool {
        match aside.state {
            TagState::Waiting => self.is_accepted(tag, &aside.fingerprint),
            _ => aside.retry_at.is_some_and(|at| at <= Instant::now()),
        }
    }

    /// True when this version of a tag was set aside.
    pub(super) fn is_aside(&self, planned: &PlannedTag) -> bool {
        let aside = self.aside.get(&planned.definition.name);
        aside.is_some_and(|aside| aside.fingerprint == planned.plan.fingerprint)
    }

    /// Notes why a version of a tag does not run, and when it is tried again if that may help.
    pub(super) fn put_aside(&mut self, fingerprint: String, fault: TagFault, state: TagState) {
        let retry_at = fault.may_pass.then(|| {
            let attempts = self.attempts.entry(fault.tag.clone()).or_default();
            *attempts += 1;
            Instant::now() + FIRST_RETRY.saturating_mul(1 << (*attempts - 1).min(16)).min(LAST_RETRY)
        });
        let state_limit = self.desired.tags.get(&fault.tag).and_then(|wanted| wanted.state_limit);
        self.aside.insert(fault.tag, Aside { fingerprint, state_limit, state, reason: fault.reason, retry_at });
    }

    /// True when the author lets a version in that is less complete than the one that runs.
    pub(super) fn is_accepted(&self, tag: &str, fingerprint: &str) -> bool {
        self.config.engine.state_dir.join("accepted").join(format!("{tag}.{fingerprint}")).exists()
    }

    /// Forgets why tags were set aside that `tagflow resume` has named, so that they are filled again.
    fn resume(&mut self) {
        if !self.aside.values().any(|aside| aside.state == TagState::Failed) {
            return;
        }
        for tag in take_resumed(&self.config.engine.state_dir) {
            if self.aside.get(&tag).is_some_and(|aside| aside.state == TagState::Failed) {
                info!(tag, "the tag is tried again");
                self.aside.remove(&tag);
                self.attempts.remove(&tag);
            }
        }
    }

    /// Fills tags that wait for `tagflow accept` or `tagflow resume`, for another try or for a fill that has ended without them, and reads
    /// streams again that have failed.
    pub(super) fn try_again(&mut self) -> Result<(), DaemonError> {
        if self.meeting.is_none() && !self.intake.failed.is_empty() && self.last_intake.elapsed() > STREAM_RETRY {
            self.restart_intake(None)?;
        }
        self.resume();
        self.look_for_backfills();
        if self.fill.is_some() {
            return self.rotate_fills();
        }
        if self.needed().is_empty() { Ok(()) } else { self.reconcile() }
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
        registration.lost = self.lost.get(&registration.tag).cloned().unwrap_or_default();
        registration.git_commit = self.desired.commits.get(&planned.definition.file).map(|commit| commit.hash.clone());
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

    /// Takes the files as they are now while nothing runs yet.
    pub(super) fn follow_files(&mut self) {
        while let Some(outcome) = self.reloader.as_ref().and_then(|reloader| reloader.outcomes.try_recv().ok()) {
            match outcome {
                ReloadOutcome::Refused(diagnostics) => self.refuse(&diagnostics),
                ReloadOutcome::Changed(reloaded) => {
                    self.project_errors.clear();
                    self.desired = reloaded.desired;
                }
            }
        }
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
        // Those that were set aside have tables too.
        let known: BTreeMap<&String, &PlannedTag> = self.desired.tags.iter().chain(&self.running).collect();
        let gone: Vec<(String, PathBuf)> = known
            .iter()
            .filter(|(name, tag)| !desired.tags.contains_key(**name) && !unreadable.contains(&tag.definition.file))
            .filter(|(name, _)| self.versions.contains_key(**name))
            .map(|(name, tag)| ((*name).clone(), tag.definition.file.clone()))
            .collect();
        if let Some(message) = self.too_many_gone(gone.len(), known.len()) {
            error!(message);
            self.project_errors = vec![message];
            return Ok(());
        }
        self.vanished = gone;
        let metadata: Vec<PlannedTag> =
            desired.tags.values().filter(|wanted| self.change_of(wanted) == Change::Described).cloned().collect();
        self.desired = desired;
        self.forget_rollbacks();
        for wanted in metadata {
            self.update_metadata(&wanted)?;
        }
        self.follow_on_lost()?;
        self.reconcile()
    }

    /// Tells readers what was written into files while no daemon ran.
    pub(super) fn describe_anew(&mut self) -> Result<(), DaemonError> {
        for told in self.store.call("read registry", |sink| sink.registrations())? {
            let Some(running) = self.running.get(&told.tag).cloned() else { continue };
            if change_of(Some((&running.plan.fingerprint, &told)), &running) == Change::Described {
                self.update_metadata(&running)?;
            }
        }
        Ok(())
    }

    /// A comment, a title, another folder: state and table stay.
    pub(super) fn update_metadata(&mut self, wanted: &PlannedTag) -> Result<(), DaemonError> {
        let name = &wanted.definition.name;
        self.write_registration(wanted)?;
        self.settle()?;
        self.count_labels(wanted)?;
        if let Some(running) = self.running.get_mut(name) {
            running.definition = wanted.definition.clone();
            running.registration = wanted.registration.clone();
        }
        info!(tag = name, "the tag's description has changed");
        Ok(())
    }

    /// Tells readers what is known of a tag by now.
    pub(super) fn write_registration(&self, tag: &PlannedTag) -> Result<(), DaemonError> {
        let name = &tag.definition.name;
        let version = self.versions.get(name).copied().unwrap_or(1);
        let complete_from = self.complete_from.get(name).copied().flatten();
        let registration = self.registration(tag, version, complete_from)?;
        self.store.call("register", move |sink| sink.register(std::slice::from_ref(&registration)))?;
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
        });
        match counted {
            Ok(counted) => self.dataflow.watch_labels(name, counted),
            Err(StoreError::Sink(error @ SinkError::Table { .. })) => {
                self.set_aside(TagFault::passing(name, error), TagState::Failed);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Tags count as removed only when a second look finds their files gone too.
    pub(super) fn retire_vanished(&mut self) -> Result<(), DaemonError> {
        for (tag, file) in std::mem::take(&mut self.vanished) {
            if self.desired.tags.contains_key(&tag)
                || self.config.root.join(&file).exists() && !self.was_switched_off(&tag)
            {
                continue;
            }
            self.settle()?;
            info!(tag, "the tag's file is gone; its table is retired");
            self.retire(tag.clone())?;
            if let Some(version) = self.versions.remove(&tag) {
                self.keep_replaced(vec![Replaced { tag: tag.clone(), version, by: None }])?;
            }
            self.complete_from.remove(&tag);
            self.lost.remove(&tag);
        }
        Ok(())
    }

    /// Renames the table of a tag aside that is gone. One that somebody keeps locked stays until the next start.
    pub(super) fn retire(&self, tag: String) -> Result<(), DaemonError> {
        match self.store.call("retire a table", move |sink| sink.retire_table(&tag)) {
            Err(StoreError::Sink(error @ SinkError::Table { .. })) => warn!(%error, "the table cannot be retired now"),
            other => other?,
        }
        Ok(())
    }

    /// True when the file is there but says that the tag does not run any more.
    pub(super) fn was_switched_off(&self, tag: &str) -> bool {
        self.desired.project.tags.get(tag).is_some_and(|definition| !definition.runs())
    }
}

/// The tags that `tagflow resume` has named since the last look.
pub(super) fn take_resumed(state_dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(state_dir.join(RESUMED)) else { return Vec::new() };
    let named = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        std::fs::remove_file(entry.path()).ok()?;
        entry.file_name().into_string().ok()
    });
    named.collect()
}

/// True when both give the same table within the same limit, from streams that are laid out alike.
fn is_same(one: &PlannedTag, other: &PlannedTag) -> bool {
    let columns = |planned: &PlannedTag| {
        let sources = planned.plan.sources().map(|(stream, _)| (stream.name.clone(), stream.columns.clone()));
        sources.collect::<Vec<_>>()
    };
    one.plan.fingerprint == other.plan.fingerprint
        && one.state_limit == other.state_limit
        && columns(one) == columns(other)
}

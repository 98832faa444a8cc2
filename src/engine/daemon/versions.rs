//! The version of a tag before the one that is live: it is computed on beside it, into the table that was set aside, so that
//! the tag can go back to it at any epoch without a fill.
//!
//! A kept version is one more plan in the dataflow, under a name that no tag has (`spend_30d@4`), with a table and progress of
//! its own. It harms nobody: what goes wrong with it ends it, and its table stays as it is until its grace period is over.
//! A tag goes back whenever the plan that it should have is that of its kept version: after `tagflow rollback`, and where its file
//! is again as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::{Daemon, DaemonError};
use crate::crash_point::crash_point;
use crate::delta::Lost;
use crate::engine::dataflow::TagFault;
use crate::engine::desired::PlannedTag;
use crate::engine::rollbacks;
use crate::engine::status::{KeptStatus, TagState};
use crate::engine::store::StoreError;
use crate::engine::versions::{Texts, origin, plan_versions};
use crate::graph::Graph;
use crate::plan::flow::FlowPlan;
use crate::sink::versions::{Origin, Version, version_name};
use crate::sink::{SinkError, TagTable};

/// How often it is looked for tables whose grace period is over, at most and at least.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// A version that is not live and follows.
#[derive(Clone)]
pub(super) struct Kept {
    /// Its tag.
    pub(super) tag: String,
    /// Its number.
    pub(super) version: u64,
    /// As it ran, with the table that was set aside.
    pub(super) planned: PlannedTag,
    /// From when on it is complete.
    pub(super) complete_from: Option<i64>,
    /// Records that it lacks.
    pub(super) lost: Vec<Lost>,
    /// Since when it is not live, milliseconds since the Unix epoch.
    pub(super) since: i64,
}

impl Kept {
    /// Its table, which it had when it was live.
    pub(super) fn new(version: &Version, planned: PlannedTag, table: &str) -> Self {
        let table = Arc::new(TagTable { table: table.to_string(), ..TagTable::clone(&planned.table) });
        Kept {
            tag: version.tag.clone(),
            version: version.version,
            planned: PlannedTag { table, ..planned },
            complete_from: version.complete_from,
            lost: version.lost.clone(),
            since: version.live_until.unwrap_or(version.live_from),
        }
    }
}

/// A version that the store has set aside.
pub(super) struct Replaced {
    /// Its tag.
    pub(super) tag: String,
    /// Its number.
    pub(super) version: u64,
    /// The fingerprint of the plan that took its place, if one did.
    pub(super) by: Option<String>,
}

impl Daemon {
    /// The plans of all that follows: tags and kept versions.
    pub(super) fn plans(&self) -> impl Iterator<Item = &FlowPlan> {
        self.running.values().chain(self.kept.values().map(|kept| &kept.planned)).map(|planned| planned.plan.as_ref())
    }

    /// The number of the version that is computed under a name of the dataflow.
    pub(super) fn version_of(&self, name: &str) -> u64 {
        let kept = self.kept.get(name).map(|kept| kept.version);
        kept.or_else(|| self.versions.get(name).copied()).unwrap_or_default()
    }

    /// The number that the next version of a tag gets.
    pub(super) fn next_version(&self, tag: &str) -> u64 {
        let live = self.versions.get(tag).copied().unwrap_or_default();
        self.last_versions.get(tag).copied().unwrap_or_default().max(live) + 1
    }

    /// Why a version of this plan goes live.
    pub(super) fn origin(&self, planned: &PlannedTag, graph: &Graph, before: Option<&Texts>) -> Origin {
        let name = &planned.definition.name;
        let files = self.desired.files_of(graph, name);
        let commit = self.desired.commits.get(&planned.definition.file);
        let mut origin = origin(&planned.definition.file, files, before, commit);
        let rollback = self.desired.rollbacks.get(name);
        if let Some(rollback) = rollback.filter(|rollback| rollback.fingerprint == planned.plan.fingerprint) {
            origin.author.clone_from(&rollback.by);
            origin.reason = match &rollback.by {
                Some(user) => format!("rolled back by {user}"),
                None => "rolled back".to_string(),
            };
        }
        origin
    }

    /// Lets versions follow on that were live and whose tables the store has set aside; those that cannot are given up.
    pub(super) fn keep_replaced(&mut self, replaced: Vec<Replaced>) -> Result<(), DaemonError> {
        if replaced.is_empty() {
            return Ok(());
        }
        let (aside, versions) =
            self.store.call("read versions", |sink| Ok((sink.versions_aside()?, sink.versions()?)))?;
        let is_replaced = |version: &&Version| {
            let is = |replaced: &Replaced| replaced.tag == version.tag && replaced.version == version.version;
            version.is_kept() && replaced.iter().any(is)
        };
        let known: Vec<&Version> = versions.iter().filter(is_replaced).collect();
        let plannable = plan_versions(&self.desired.project, known.iter().copied());
        for Replaced { tag, version, by } in replaced {
            let name = version_name(&tag, version);
            // The one that is kept already is the last that ran.
            let Some(running) = self.running.remove(&tag) else {
                self.given_up.push((tag, version, "it did not run when another took its place".to_string()));
                continue;
            };
            let table = aside.iter().find(|(_, progress)| progress.tag == name).map(|(table, _)| table);
            let kept = known.iter().find(|known| known.name() == name);
            let outcome = match (table, kept) {
                _ if self.config.engine.grace_period.is_zero() => Err("grace_period is 0"),
                _ if by.as_ref() == Some(&running.plan.fingerprint) => Err("the tag was filled again by the same plan"),
                (_, None) => Err("it went live when versions were not remembered yet"),
                (None, _) => Err("its table is not there"),
                (Some(table), Some(kept)) if plannable.contains_key(&name) => Ok(Kept::new(kept, running, table)),
                _ => Err("streams that it reads have other columns now, or their dead letters were replayed"),
            };
            match outcome {
                Ok(kept) => {
                    let older = self.kept.iter().filter(|(_, kept)| kept.tag == tag);
                    let older: Vec<String> = older.map(|(name, _)| name.clone()).collect();
                    let reason = format!("version {version} followed it, and only the last is kept");
                    older.iter().for_each(|older| self.give_kept_up(older, &reason));
                    self.dataflow.rename_tag(&tag, &name, Arc::clone(&kept.planned.table));
                    info!(tag, version, "the version before is kept up to date");
                    self.kept.insert(name, kept);
                }
                Err(reason) => {
                    self.dataflow.remove_tag(&tag);
                    self.given_up.push((tag, version, reason.to_string()));
                }
            }
        }
        Ok(())
    }

    /// Lets a kept version go; the tag itself is not touched.
    pub(super) fn give_kept_up(&mut self, name: &str, reason: &str) {
        self.dataflow.remove_tag(name);
        if let Some(kept) = self.kept.remove(name) {
            warn!(tag = kept.tag, version = kept.version, reason, "the version before is not kept up to date any more");
            self.given_up.push((kept.tag, kept.version, reason.to_string()));
        }
    }

    /// Tells the store which versions were given up, and drops tables whose grace period is over.
    pub(super) fn follow_versions(&mut self) -> Result<(), DaemonError> {
        for (tag, version, reason) in std::mem::take(&mut self.given_up) {
            self.store.call("give a version up", move |sink| sink.give_version_up(&tag, version, &reason))?;
        }
        let interval = (self.config.engine.grace_period / 10).clamp(LOOKS.0, LOOKS.1);
        if self.last_retired.elapsed() >= interval { self.drop_retired() } else { Ok(()) }
    }

    pub(super) fn drop_retired(&mut self) -> Result<(), DaemonError> {
        self.last_retired = Instant::now();
        let grace = self.config.engine.grace_period;
        let dropped = self.store.call("drop retired tables", move |sink| sink.drop_retired(grace))?;
        if dropped.is_empty() {
            return Ok(());
        }
        info!(?dropped, "retired tables whose grace period is over are dropped");
        let is_over = |kept: &Kept| dropped.contains(&kept.planned.table.table);
        let over: Vec<String> =
            self.kept.iter().filter(|(_, kept)| is_over(kept)).map(|(name, _)| name.clone()).collect();
        for name in over {
            self.dataflow.remove_tag(&name);
            self.kept.remove(&name);
        }
        self.prune_offsets();
        Ok(())
    }

    /// Lets tags go back whose plan is that of their kept version: its table is swapped in, its state is the tag's from here on.
    pub(super) fn return_to_kept(&mut self) -> Result<(), DaemonError> {
        let needed = self.needed();
        let is_wanted = |kept: &Kept| {
            let wanted = needed.get(&kept.tag);
            wanted.is_some_and(|wanted| wanted.plan.fingerprint == kept.planned.plan.fingerprint)
        };
        let back: Vec<String> =
            self.kept.iter().filter(|(_, kept)| is_wanted(kept)).map(|(name, _)| name.clone()).collect();
        if back.is_empty() {
            return Ok(());
        }
        self.settle()?;
        crash_point("return.settled");
        let graph = Graph::of(&self.desired.project);
        let made_of = self.files_of_live()?;
        for name in back {
            // It may have failed while the rest was written.
            let (Some(kept), Some(progress)) = (self.kept.get(&name), self.dataflow.progress(&name)) else { continue };
            let (tag, version) = (kept.tag.clone(), kept.version);
            let (complete_from, lost) = (kept.complete_from, kept.lost.clone());
            let table = kept.planned.table.table.clone();
            let Some(wanted) = needed.get(&tag) else { continue };
            // The dataflow computes it over the streams as they are read now.
            let planned = PlannedTag { plan: Arc::clone(&kept.planned.plan), ..wanted.clone() };
            let mut registration = self.registration(&planned, version, complete_from)?;
            registration.lost.clone_from(&lost);
            let origin = self.origin(&planned, &graph, made_of.get(&tag));
            let mut progress = progress;
            progress.tag.clone_from(&tag);
            let swapped = self.store.call("swap a table back", move |sink| {
                sink.swap_table(&table, &progress.tag, &progress, &registration, &origin)
            });
            match swapped {
                Err(StoreError::Sink(error @ SinkError::Table { .. })) => {
                    error!(tag, %error, "the version before cannot be swapped in");
                    let fingerprint = planned.plan.fingerprint.clone();
                    self.put_aside(fingerprint, TagFault::passing(tag, error), TagState::Failed);
                    continue;
                }
                other => other?,
            }
            crash_point("return.swapped");
            self.kept.remove(&name);
            if let Some(live) = self.versions.insert(tag.clone(), version) {
                let by = Some(planned.plan.fingerprint.clone());
                self.keep_replaced(vec![Replaced { tag: tag.clone(), version: live, by }])?;
            }
            self.dataflow.rename_tag(&name, &tag, Arc::clone(&planned.table));
            self.aside.remove(&tag);
            self.attempts.remove(&tag);
            self.complete_from.insert(tag.clone(), complete_from);
            self.lost.insert(tag.clone(), lost);
            info!(tag, version, epoch = self.dataflow.epoch, "the tag is back at a version before");
            self.running.insert(tag, planned.clone());
            self.count_labels(&planned)?;
        }
        self.hasten_checkpoint();
        Ok(())
    }

    /// By tag the files that its live version was made of, as far as the store knows.
    pub(super) fn files_of_live(&self) -> Result<BTreeMap<String, Texts>, DaemonError> {
        let versions = self.store.call("read versions", |sink| sink.versions())?;
        let live = versions.into_iter().filter(|version| version.live_until.is_none());
        Ok(live.map(|version| (version.tag, version.origin.files)).collect())
    }

    /// Lets kept versions read streams as the project lays them out now; where one cannot, it is given up.
    pub(super) fn lay_kept_out(&mut self, is_old: impl Fn(&PlannedTag) -> bool) -> Result<bool, DaemonError> {
        let old: Vec<String> =
            self.kept.iter().filter(|(_, kept)| is_old(&kept.planned)).map(|(name, _)| name.clone()).collect();
        if old.is_empty() {
            return Ok(false);
        }
        let versions = self.store.call("read versions", |sink| sink.versions())?;
        let known = versions.iter().filter(|version| version.is_kept() && old.contains(&version.name()));
        let mut planned = plan_versions(&self.desired.project, known);
        for name in old {
            match (planned.remove(&name).filter(|planned| !is_old(planned)), self.kept.get_mut(&name)) {
                (Some(planned), Some(kept)) => kept.planned.plan = planned.plan,
                _ => self.give_kept_up(&name, "its streams have other columns now"),
            }
        }
        Ok(true)
    }

    /// Forgets rollbacks that the project's files have overruled.
    pub(super) fn forget_rollbacks(&self) {
        let state_dir = &self.config.engine.state_dir;
        let is_in_force = |tag: &String| self.desired.rollbacks.contains_key(tag);
        let forgotten = rollbacks::read(state_dir).and_then(|asked| {
            let overruled = asked.into_keys().filter(|tag| !is_in_force(tag)).collect::<BTreeSet<_>>();
            if overruled.is_empty() { Ok(()) } else { rollbacks::forget(state_dir, &overruled) }
        });
        if let Err(error) = forgotten {
            warn!(%error, "rollbacks that are over cannot be forgotten");
        }
    }

    /// What the status says of kept versions.
    pub(super) fn kept_status(&self) -> Vec<KeptStatus> {
        let grace = i64::try_from(self.config.engine.grace_period.as_millis()).unwrap_or(i64::MAX);
        let of = |(name, kept): (&String, &Kept)| {
            let (state_rows, state_bytes) = self.sizes.of(name);
            KeptStatus {
                tag: kept.tag.clone(),
                version: kept.version,
                table: kept.planned.table.table.clone(),
                rows: self.dataflow.rows(name),
                state_rows,
                state_bytes,
                until: kept.since.saturating_add(grace),
            }
        };
        self.kept.iter().map(of).collect()
    }
}

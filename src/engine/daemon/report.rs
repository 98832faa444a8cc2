//! The status, written anew a few times a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Daemon, STATUS_INTERVAL};
use crate::engine::intake::instant_of;
use crate::engine::status::{
    FillStatus, OperatorStatus, PartitionStatus, RolledBack, Status, TagState, TagStatus, update,
};
use crate::operator::unique::Dropped;
use crate::source::dead_letter::DeadLetterCount;

impl Daemon {
    /// Watermarks by which windows close, as instants in milliseconds.
    fn closing_watermarks(&self) -> BTreeMap<String, i64> {
        let instant = |(stream, watermark): (&String, &i64)| {
            let stream = self.desired.project.catalog.streams.get(stream)?;
            let time = stream.time.as_ref()?;
            let column = stream.columns.iter().find(|column| column.name == time.column)?;
            let millis = watermark.div_euclid(1_000_000);
            Some((stream.name.clone(), instant_of(millis, &column.data_type, self.config.timezone)))
        };
        self.dataflow.watermarks.iter().filter_map(instant).collect()
    }

    pub(super) fn write_status(&mut self, more_troubles: &[String]) {
        let elapsed = self.last_status.elapsed();
        if elapsed < STATUS_INTERVAL {
            return;
        }
        self.last_status = Instant::now();
        let seconds = elapsed.as_secs_f64();
        let mut tags: BTreeMap<String, TagStatus> = BTreeMap::new();
        for (name, wanted) in &self.desired.tags {
            let status = TagStatus {
                tag: name.clone(),
                folder: wanted.registration.folder.clone(),
                title: wanted.registration.title.clone(),
                ..TagStatus::default()
            };
            let rollback = self.desired.rollbacks.get(name).filter(|rollback| rollback.holds_back());
            let rolled_back =
                rollback.map(|rollback| RolledBack { version: rollback.version, by: rollback.by.clone() });
            tags.insert(name.clone(), TagStatus { rolled_back, ..status });
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
            status.outside_labels = self.dataflow.outside_labels(name);
            status.complete_from = self.complete_from.get(name).copied().flatten();
            status.lost = self.lost.get(name).cloned().unwrap_or_default();
            status.plan.clone_from(&running.plan.fingerprint);
            status.version = self.version_of(name);
            let operators = self.sizes.operators(name);
            status.operators = operators.map(|(node, rows, bytes)| OperatorStatus { node, rows, bytes }).collect();
            (status.state_rows, status.state_bytes) = self.sizes.of(name);
        }
        for (name, aside) in &self.aside {
            if let Some(status) = tags.get_mut(name) {
                status.state = aside.state;
                status.message = Some(aside.reason.clone());
            }
        }
        let (state_rows, state_bytes) = self.sizes.whole();
        let spilled_bytes = self.sizes.spilled();
        let rate = self.event_rate.update(self.events, seconds);
        let partitions = self.intake.partitions.iter().map(|(partition, state)| PartitionStatus {
            stream: partition.stream.clone(),
            partition: partition.number,
            next_offset: state.next,
            end_offset: state.end,
            newest_timestamp: state.newest_timestamp,
        });
        let partitions: Vec<PartitionStatus> = partitions.collect();
        let mut troubles: Vec<String> = self
            .intake
            .troubles
            .iter()
            .chain(&self.stream_errors)
            .map(|(stream, message)| format!("stream `{stream}`: {message}"))
            .chain(self.fill.iter().flat_map(|fill| fill.troubles.clone()))
            .chain(self.store.trouble())
            .chain(self.checkpoint_trouble())
            .chain(self.memory_trouble())
            .chain(self.archives.troubles())
            .chain(more_troubles.iter().cloned())
            .collect();
        // Fill and running tags share the process, and what it lacks.
        let mut told = BTreeSet::new();
        troubles.retain(|trouble| told.insert(trouble.clone()));
        let fill = self.fill.as_mut().map(|fill| {
            let rows_per_second = fill.rate.update(fill.rows, seconds);
            FillStatus {
                tags: fill.tags.keys().cloned().collect(),
                rows: fill.rows,
                lag: fill.lag,
                rows_per_second,
                seconds_left: (fill.rows > 0 && rows_per_second >= 1.0).then(|| fill.lag as f64 / rows_per_second),
                is_held: fill.is_held(),
            }
        });
        let archives = self.archives.status();
        let delay = self.delay.of(Instant::now());
        let streams = self.desired.project.catalog.streams.keys();
        let letters = self.world.context.dead_letters.counts(streams);
        let dropped = self.dataflow.graph.dropped();
        let count = |count: fn(&Dropped) -> u64| -> BTreeMap<String, u64> {
            dropped.iter().map(|(stream, dropped)| (stream.to_string(), count(dropped))).collect()
        };
        let kept = self.kept_status();
        let (resent, too_late) = (count(|dropped| dropped.resent), count(|dropped| dropped.too_late));
        let (epoch, clock, events, lag) = (self.dataflow.epoch, self.dataflow.clock, self.events, self.intake.lag());
        let pending = self.dataflow.pending_keys() as u64;
        let errors = self.project_errors.clone();
        // A restarted reader has read nothing yet: what was known stays known.
        let mut watermarks = self.intake.watermarks();
        watermarks.extend(self.closing_watermarks());
        update(&self.status, |status| {
            (status.state_rows, status.state_bytes) = (state_rows, state_bytes);
            status.spilled_bytes = spilled_bytes;
            status.tags = tags.into_values().collect();
            status.kept = kept;
            status.archives = archives;
            status.epoch = epoch;
            status.clock = clock / 1_000_000;
            status.events = events;
            status.events_per_second = rate;
            status.lag = lag;
            status.delay_millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            status.partitions = partitions;
            status.watermarks.extend(watermarks);
            status.fill = fill;
            status.pending_keys = pending;
            report_letters(status, &letters);
            (status.resent, status.too_late) = (resent, too_late);
            status.troubles = troubles;
            status.project_errors = errors;
        });
    }
}

/// What is known of the dead letters of each stream.
fn report_letters(status: &mut Status, letters: &BTreeMap<String, DeadLetterCount>) {
    let each = |count: fn(&DeadLetterCount) -> u64| -> BTreeMap<String, u64> {
        letters.iter().map(|(stream, letters)| (stream.clone(), count(letters))).collect()
    };
    let some = |count| each(count).into_iter().filter(|(_, count)| *count > 0).collect();
    // A counter that is there before its first letter shows the first one as a rise.
    status.dead_letters = each(|letters| letters.put);
    status.letters_dropped = each(|letters| letters.dropped);
    status.letters_lost = each(|letters| letters.lost);
    status.letters_kept = each(|letters| letters.kept);
    status.nulls = each(|letters| letters.nulls);
    status.late_events = some(|letters| letters.late);
    status.skipped = some(|letters| letters.skipped.values().sum());
    let newest = letters.iter().filter_map(|(stream, letters)| Some((stream.clone(), letters.newest_at?)));
    status.newest_letter = newest.collect();
    for tag in &mut status.tags {
        tag.skipped = letters.values().filter_map(|letters| letters.skipped.get(&tag.tag)).sum();
    }
}

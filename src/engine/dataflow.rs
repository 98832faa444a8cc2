//! The graph of some tags together with where it stands: offsets, clock, and what the store does not have yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use chrono_tz::Tz;

use crate::delta::{Clock, Delta, Moment, Offsets, Watermarks};
use crate::engine::culprit::{EventRow, failing_row};
use crate::engine::labels::OutsideLabels;
use crate::operator::graph::{Graph, OutputId};
use crate::operator::{OperatorError, StatePart};
use crate::plan::flow::FlowPlan;
use crate::sink::collapse::{CollapseError, PendingChanges};
use crate::sink::{TagChanges, TagProgress, TagTable};

/// A tag's fault: it is set aside with this reason, the others go on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct TagFault {
    /// The tag.
    pub tag: String,
    /// What happened.
    pub reason: String,
    /// True where the world around the tag is at fault, which may mend itself: worth another try.
    pub may_pass: bool,
    /// An event of the epoch that it failed on, where one alone is at fault.
    pub row: Option<EventRow>,
}

impl TagFault {
    /// A fault of the tag's own SQL or data: the same would come of another try.
    pub fn lasting(tag: impl Into<String>, reason: impl ToString) -> Self {
        TagFault { tag: tag.into(), reason: reason.to_string(), may_pass: false, row: None }
    }

    /// A fault of what the tag reads or writes.
    pub fn passing(tag: impl Into<String>, reason: impl ToString) -> Self {
        TagFault { tag: tag.into(), reason: reason.to_string(), may_pass: true, row: None }
    }
}

/// A graph and where it stands.
pub struct Dataflow {
    /// The operators.
    pub graph: Graph,
    /// The next records to read.
    pub offsets: Offsets,
    /// The clock of the last epoch; never goes back.
    pub clock: Clock,
    /// The watermarks of the last epoch; they never go back.
    pub watermarks: Watermarks,
    /// Up to when, in event time, the streams are known of which that can be told, milliseconds since the Unix epoch. For
    /// people: no operator reads it.
    event_times: BTreeMap<String, i64>,
    /// What they are from the next epoch on.
    ahead: Watermarks,
    /// The number of the last epoch.
    pub epoch: u64,
    outputs: BTreeMap<String, TagOutput>,
    timezone: Tz,
    shards: usize,
}

/// Where a dataflow stands.
#[derive(Clone, Copy)]
struct At<'d> {
    epoch: u64,
    offsets: &'d Offsets,
    clock: Clock,
    watermarks: &'d Watermarks,
    event_times: &'d BTreeMap<String, i64>,
}

struct TagOutput {
    fingerprint: String,
    streams: BTreeSet<String>,
    /// Where its state begins in history, see [`FlowPlan::since`].
    beginnings: Offsets,
    table: Arc<TagTable>,
    /// Key columns, then value columns, by the names of the table.
    schema: SchemaRef,
    positions: Vec<usize>,
    pending: PendingChanges,
    /// Rows in the table, as of the last drain.
    rows: u64,
    changes: u64,
    labels: OutsideLabels,
}

impl Dataflow {
    /// Without tags, at the beginning of time.
    pub fn new(shards: usize, timezone: Tz) -> Self {
        Dataflow {
            graph: Graph::new(shards, timezone),
            offsets: Offsets::default(),
            clock: 0,
            watermarks: Watermarks::new(),
            event_times: BTreeMap::new(),
            ahead: Watermarks::new(),
            epoch: 0,
            outputs: BTreeMap::new(),
            timezone,
            shards,
        }
    }

    /// Adds a tag whose state begins at `beginnings` and is loaded later, if there is any; `rows` is how many its table
    /// has.
    pub fn add_tag(
        &mut self,
        table: &Arc<TagTable>,
        tag: &str,
        plan: &FlowPlan,
        rows: u64,
        beginnings: &Offsets,
    ) -> Result<(), TagFault> {
        let plan = Arc::new(plan.since(beginnings));
        self.graph.add_tag(tag, &plan).map_err(|error| TagFault::lasting(tag, error))?;
        let columns = || plan.key.iter().chain(&plan.columns);
        let fields: Vec<Field> =
            columns().map(|column| Field::new(&column.name, column.data_type.clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let key: Vec<usize> = (0..plan.key.len()).collect();
        let pending =
            PendingChanges::new(tag, Arc::clone(&schema), &key).map_err(|error| TagFault::lasting(tag, error))?;
        let output = TagOutput {
            fingerprint: plan.fingerprint.clone(),
            streams: plan.sources().map(|(stream, _)| stream.name.clone()).collect(),
            beginnings: beginnings.clone(),
            table: Arc::clone(table),
            schema,
            positions: columns().map(|column| column.index).collect(),
            pending,
            rows,
            changes: 0,
            labels: OutsideLabels::default(),
        };
        self.outputs.insert(tag.to_string(), output);
        Ok(())
    }

    /// Takes a tag out, and what only it used.
    pub fn remove_tag(&mut self, tag: &str) {
        self.graph.remove_tag(tag);
        self.outputs.remove(tag);
    }

    /// Calls a tag otherwise, and lets its changes go to another table from now on. Nothing of it is pending.
    pub fn rename_tag(&mut self, tag: &str, name: &str, table: Arc<TagTable>) {
        self.graph.rename_tag(tag, name);
        if let Some(output) = self.outputs.remove(tag) {
            self.outputs.insert(name.to_string(), TagOutput { table, ..output });
        }
    }

    /// How far a tag is of which nothing is pending.
    pub fn progress(&self, tag: &str) -> Option<TagProgress> {
        Some(self.outputs.get(tag)?.progress(tag, self.at()))
    }

    fn at(&self) -> At<'_> {
        At {
            epoch: self.epoch,
            offsets: &self.offsets,
            clock: self.clock,
            watermarks: &self.watermarks,
            event_times: &self.event_times,
        }
    }

    /// Names and plan fingerprints of the tags that run.
    pub fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.outputs.iter().map(|(tag, output)| (tag.as_str(), output.fingerprint.as_str()))
    }

    /// Where the state of each tag begins.
    pub fn beginnings(&self) -> BTreeMap<String, Offsets> {
        self.outputs.iter().map(|(tag, output)| (tag.clone(), output.beginnings.clone())).collect()
    }

    /// Says of all tags where their state begins, which is known only once their streams have been seen.
    pub fn begin_at(&mut self, beginnings: &Offsets) {
        let mut plans = BTreeMap::new();
        for (tag, output) in &mut self.outputs {
            let Some(plan) = self.graph.plan(tag) else { continue };
            plans.insert(tag.clone(), Arc::new(plan.since(beginnings)));
            let own = beginnings.0.iter().filter(|(partition, _)| output.streams.contains(&partition.stream));
            output.beginnings = Offsets(own.map(|(partition, next)| (partition.clone(), *next)).collect());
        }
        self.graph.rename(&plans);
    }

    /// The tags that read a stream.
    pub fn tags_reading(&self, stream: &str) -> Vec<String> {
        let reading = self.outputs.iter().filter(|(_, output)| output.streams.contains(stream));
        reading.map(|(tag, _)| tag.clone()).collect()
    }

    /// True without any tag.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Looks how far the watermarks may go: to the newest event of the awaited partition that is furthest behind, less the
    /// lateness; where none is awaited, to the newest of all. The next step takes them there. True where they will move.
    pub fn look_ahead(&mut self, awaited: impl Fn(&str) -> Option<BTreeSet<i32>>) -> bool {
        for (stream, newest) in self.graph.newest_events() {
            let Some(awaited) = awaited(stream) else { continue };
            let of_awaited: Option<Vec<i64>> =
                awaited.iter().map(|partition| newest.partitions.get(partition).copied()).collect();
            let reached = match of_awaited {
                // Nothing has come yet of a partition from which something may.
                None => continue,
                Some(times) if times.is_empty() => newest.partitions.values().copied().max(),
                Some(times) => times.into_iter().min(),
            };
            let Some(reached) = reached else { continue };
            raise(&mut self.ahead, stream, reached.saturating_sub(newest.lateness));
        }
        self.ahead != self.watermarks
    }

    /// Takes the watermarks to where others are, from the next step on.
    pub fn raise_watermarks(&mut self, watermarks: &Watermarks) {
        for (stream, watermark) in watermarks {
            raise(&mut self.ahead, stream, *watermark);
        }
    }

    /// Forgets how far all other streams are.
    pub fn keep_streams(&mut self, keeps: impl Fn(&str) -> bool) {
        self.offsets.0.retain(|partition, _| keeps(&partition.stream));
        self.watermarks.retain(|stream, _| keeps(stream));
        self.event_times.retain(|stream, _| keeps(stream));
        self.ahead.retain(|stream, _| keeps(stream));
    }

    /// Takes note of how far event time has come.
    pub fn note_event_times(&mut self, times: BTreeMap<String, i64>) {
        for (stream, time) in times {
            let known = self.event_times.entry(stream).or_insert(time);
            *known = time.max(*known);
        }
    }

    /// Up to when, in event time, these streams are known: the least of those of which that can be told.
    pub fn event_time(&self, streams: &BTreeSet<String>) -> Option<i64> {
        least_of(&self.event_times, streams)
    }

    /// Where the next step takes the watermarks.
    pub fn next_watermarks(&self) -> &Watermarks {
        &self.ahead
    }

    /// The moment of the next step.
    fn moment(&mut self, clock: Clock) -> Moment {
        self.clock = self.clock.max(clock);
        self.watermarks.clone_from(&self.ahead);
        Moment { clock: self.clock, watermarks: self.watermarks.clone() }
    }

    /// One epoch: the events of each stream, then the clock. The clock does not go back even if `clock` does.
    pub fn step(&mut self, events: &HashMap<String, RecordBatch>, clock: Clock) -> Vec<TagFault> {
        let moment = self.moment(clock);
        self.epoch += 1;
        let deltas = self.graph.step(events, moment.clone());
        let mut faults = Vec::new();
        for (tag, delta) in deltas {
            let Some(output) = self.outputs.get_mut(&tag) else { continue };
            match delta.map(|delta| output.add(&delta)) {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => faults.push(TagFault::lasting(tag, reason)),
                Err(error) => faults.push(self.fault_of_events(tag, &error, events, &moment)),
            }
        }
        for fault in &faults {
            self.remove_tag(&fault.tag);
        }
        faults
    }

    /// An epoch whose changes the store has already.
    pub fn replay(&mut self, events: &HashMap<String, RecordBatch>, clock: Clock) -> Vec<TagFault> {
        let moment = self.moment(clock);
        let deltas = self.graph.step(events, moment.clone());
        let faults: Vec<TagFault> = deltas
            .into_iter()
            .filter_map(|(tag, delta)| Some(self.fault_of_events(tag, &delta.err()?, events, &moment)))
            .collect();
        for fault in &faults {
            self.remove_tag(&fault.tag);
        }
        faults
    }

    /// The fault of a tag in a step, with the row that it failed on.
    fn fault_of_events(
        &self,
        tag: String,
        error: &OperatorError,
        events: &HashMap<String, RecordBatch>,
        moment: &Moment,
    ) -> TagFault {
        let row = self.graph.plan(&tag).and_then(|plan| failing_row(plan, events, moment, self.timezone));
        TagFault { row, ..TagFault::lasting(tag, error) }
    }

    /// Keys that wait for the store, over all tags.
    pub fn pending_keys(&self) -> usize {
        self.outputs.values().map(|output| output.pending.len()).sum()
    }

    /// Bytes of the rows that wait for the store, over all tags.
    pub fn pending_bytes(&self) -> usize {
        self.outputs.values().map(|output| output.pending.bytes()).sum()
    }

    /// Everything that the store does not have yet, and each tag's progress with it.
    pub fn drain(&mut self) -> (Vec<TagChanges>, Vec<TagFault>) {
        let mut changes = Vec::new();
        let mut faults = Vec::new();
        let mut outputs = std::mem::take(&mut self.outputs);
        for (tag, output) in &mut outputs {
            match output.drain(tag, self.at()) {
                Ok(drained) => changes.push(drained),
                Err(error) => faults.push(TagFault::lasting(tag, error)),
            }
        }
        self.outputs = outputs;
        for fault in &faults {
            self.remove_tag(&fault.tag);
        }
        (changes, faults)
    }

    /// Rows in a tag's table when all that is pending is written.
    pub fn rows(&self, tag: &str) -> u64 {
        self.outputs.get(tag).map_or(0, |output| output.rows.saturating_add_signed(output.pending.rows_delta()))
    }

    /// Rows left out because their key holds a NULL.
    pub fn null_keys(&self, tag: &str) -> u64 {
        self.outputs.get(tag).map_or(0, |output| output.pending.null_keys())
    }

    /// Counts values outside of `labels` from now on; they show the rows that the table has.
    pub fn watch_labels(&mut self, tag: &str, labels: OutsideLabels) {
        if let Some(output) = self.outputs.get_mut(tag) {
            output.labels = labels;
        }
    }

    /// Values of a tag that its header gives no label, where the column has labels.
    pub fn outside_labels(&self, tag: &str) -> u64 {
        self.outputs.get(tag).map_or(0, |output| output.labels.count())
    }

    /// Changed rows of a tag since it was added.
    pub fn changes(&self, tag: &str) -> u64 {
        self.outputs.get(tag).map_or(0, |output| output.changes)
    }

    /// Lets a tag's changes go to another table from now on: from the one it is filled in to its own.
    pub fn redirect(&mut self, tag: &str, table: Arc<TagTable>) {
        if let Some(output) = self.outputs.get_mut(tag) {
            output.table = table;
        }
    }

    /// Loads a piece of the state of an operator, for all tags.
    pub fn load(&mut self, operator: &str, parts: &[StatePart]) -> Result<(), OperatorError> {
        let all: BTreeSet<OutputId> = self.graph.outputs();
        self.graph.load_operator(operator, parts, &all)
    }

    /// Takes the tags of a dataflow that stands at the same offsets and clock over. Neither has anything pending.
    pub fn absorb(&mut self, filled: Dataflow) -> Result<(), OperatorError> {
        self.graph.absorb(filled.graph)?;
        self.outputs.extend(filled.outputs);
        for (partition, next) in &filled.offsets.0 {
            self.offsets.advance(partition, *next);
        }
        self.clock = self.clock.max(filled.clock);
        self.watermarks.extend(filled.watermarks);
        self.note_event_times(filled.event_times);
        self.ahead.extend(filled.ahead);
        self.epoch = self.epoch.max(filled.epoch);
        Ok(())
    }

    /// The same tags over plans that lay the streams out anew, and no tag without one; state is carried over.
    pub fn relay(&mut self, plans: &BTreeMap<String, Arc<FlowPlan>>) -> Result<(), OperatorError> {
        let mut graph = Graph::new(self.shards, self.timezone);
        for (tag, output) in &self.outputs {
            if let Some(plan) = plans.get(tag) {
                graph.add_tag(tag, &Arc::new(plan.since(&output.beginnings)))?;
            }
        }
        let old = std::mem::replace(&mut self.graph, graph);
        self.graph.take_over(old)
    }
}

fn raise(watermarks: &mut Watermarks, stream: &str, watermark: i64) {
    match watermarks.get_mut(stream) {
        Some(known) => *known = watermark.max(*known),
        None => drop(watermarks.insert(stream.to_string(), watermark)),
    }
}

fn least_of(times: &BTreeMap<String, i64>, streams: &BTreeSet<String>) -> Option<i64> {
    times.iter().filter(|(stream, _)| streams.contains(*stream)).map(|(_, time)| *time).min()
}

/// Those of the watermarks that are of these streams.
pub fn of_streams(watermarks: &Watermarks, streams: &BTreeSet<String>) -> Watermarks {
    let own = watermarks.iter().filter(|(stream, _)| streams.contains(*stream));
    own.map(|(stream, watermark)| (stream.clone(), *watermark)).collect()
}

impl TagOutput {
    fn add(&mut self, delta: &Delta) -> Result<(), String> {
        if delta.is_empty() {
            return Ok(());
        }
        let columns = self.positions.iter().map(|position| Arc::clone(delta.batch.column(*position))).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|error| error.to_string())?;
        self.changes += batch.num_rows() as u64;
        let delta = Delta { batch, weights: delta.weights.clone() };
        self.labels.add(&delta, self.table.key.len())?;
        self.pending.add_epoch(&[delta]).map_err(|error| error.to_string())
    }

    fn drain(&mut self, tag: &str, at: At<'_>) -> Result<TagChanges, CollapseError> {
        let net = self.pending.drain()?;
        self.rows = self.rows.saturating_add_signed(net.rows_delta);
        Ok(TagChanges {
            table: Arc::clone(&self.table),
            upserts: net.upserts,
            deletes: net.deletes,
            progress: self.progress(tag, at),
        })
    }

    /// What is true with the rows that were drained.
    fn progress(&self, tag: &str, at: At<'_>) -> TagProgress {
        let own = at.offsets.0.iter().filter(|(partition, _)| self.streams.contains(&partition.stream));
        TagProgress {
            tag: tag.to_string(),
            fingerprint: self.fingerprint.clone(),
            epoch: at.epoch,
            offsets: Offsets(own.map(|(partition, next)| (partition.clone(), *next)).collect()),
            clock: at.clock,
            watermarks: of_streams(at.watermarks, &self.streams),
            event_time: least_of(at.event_times, &self.streams),
            rows: self.rows,
        }
    }
}

//! The shared graph: the plans of all running tags as one set of operators, each run once.
//!
//! A tag's plan is laid over the graph by fingerprints; nodes that are there already are shared. A fault of an output
//! is the fault of the tags that read it, and of nobody else.

mod spill;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono_tz::Tz;

use self::spill::Counted;
pub use self::spill::{Fit, Room};
pub use self::state::{ChangesFault, Further};
use crate::delta::{Clock, Delta, Moment, Partition};
use crate::operator::OperatorError;
use crate::operator::aggregate::Aggregate;
use crate::operator::clock_filter::ClockFilter;
use crate::operator::clock_flags::ClockFlags;
use crate::operator::clock_row::ClockRow;
use crate::operator::join::Join;
use crate::operator::map::Map;
use crate::operator::punctual::{LateEvents, Punctual};
use crate::operator::rows::bytes_of;
use crate::operator::seed::Seed;
use crate::operator::sound::{FailedRows, SoundRows};
use crate::operator::tiles::Tiles;
use crate::operator::top_rows::TopRows;
use crate::operator::unique::{Dropped, Unique};
use crate::operator::unnest::Unnest;
use crate::operator::window::Window;
use crate::plan::flow::{FlowNode, FlowPlan, NodeIndex, NodeKind, Punctuality};

/// An output of the graph: a node, and the member for an aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutputId {
    /// The node's fingerprint.
    pub node: String,
    /// The member's fingerprint; empty for all nodes but aggregates.
    pub member: String,
}

/// All operators of the running tags.
#[derive(Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    tags: BTreeMap<String, TagOutput>,
    shards: usize,
    timezone: Tz,
    /// `None` where all state stays in memory.
    room: Option<Room>,
    /// Bytes of events since the operators' bytes were counted anew.
    taken: usize,
    fit: Fit,
}

#[derive(Debug)]
struct Node {
    fingerprint: String,
    inputs: Vec<OutputId>,
    operator: Operator,
    counted: Counted,
    /// A checkpoint holds its state: the next one needs to hold what has changed.
    is_saved: bool,
}

#[derive(Debug)]
enum Operator {
    Source(Source),
    Unique { stream: String, operator: Box<Unique> },
    Seed(Seed),
    Map(Map),
    Punctual(Box<Punctual>),
    Sound(SoundRows),
    ClockFilter(Box<ClockFilter>),
    ClockFlags(Box<ClockFlags>),
    ClockRow(Box<ClockRow>),
    Tiles(Box<Tiles>),
    Aggregate(Box<Aggregate>),
    TopRows(Box<TopRows>),
    Window(Box<Window>),
    Unnest(Unnest),
    Join(Box<Join>),
    Union(SchemaRef),
}

#[derive(Debug)]
struct Source {
    stream: String,
    /// The stream's columns, all nullable: those that no tag needs are NULL.
    schema: SchemaRef,
    /// Columns that a tag needs.
    needed: BTreeSet<usize>,
    nulls: HashMap<DataType, ArrayRef>,
}

#[derive(Debug)]
struct TagOutput {
    plan: Arc<FlowPlan>,
    /// Outputs that the tag depends on, its own last.
    outputs: Vec<OutputId>,
}

impl TagOutput {
    fn uses(&self, node: &str) -> bool {
        self.outputs.iter().any(|output| output.node == node)
    }
}

/// How far the events of a stream have come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewestEvents {
    /// How far the watermark is behind them, in nanoseconds.
    pub lateness: i64,
    /// The newest event time of each partition with any, in nanoseconds and as the column counts.
    pub partitions: BTreeMap<i32, i64>,
}

/// What a step gives: the change of each tag's relation, in the schema of the last node of its plan.
pub type TagDeltas = BTreeMap<String, Result<Delta, OperatorError>>;

/// State of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSize {
    /// The node's fingerprint.
    pub node: String,
    /// Keys or rows kept.
    pub rows: usize,
    /// Bytes they take in memory, estimated.
    pub bytes: usize,
    /// Bytes of those that are out of memory.
    pub spilled: usize,
}

impl Graph {
    /// Without tags.
    pub fn new(shards: usize, timezone: Tz) -> Self {
        Graph { nodes: Vec::new(), tags: BTreeMap::new(), shards, timezone, room: None, taken: 0, fit: Fit::default() }
    }

    /// Lays a tag's plan over the graph. Operators that are new start without state.
    pub fn add_tag(&mut self, tag: &str, plan: &Arc<FlowPlan>) -> Result<(), OperatorError> {
        let mut outputs: Vec<OutputId> = Vec::new();
        for node in &plan.nodes {
            outputs.push(self.add_node(node, &outputs, plan)?);
        }
        self.tags.insert(tag.to_string(), TagOutput { plan: Arc::clone(plan), outputs });
        self.note_needs();
        Ok(())
    }

    /// Tells the sources which columns their tags need.
    fn note_needs(&mut self) {
        for node in &mut self.nodes {
            let Operator::Source(source) = &mut node.operator else { continue };
            let of_tags = self.tags.values().flat_map(|tag| &tag.plan.nodes);
            let needs = of_tags.filter(|wanted| wanted.fingerprint == node.fingerprint);
            source.needed = needs
                .filter_map(|wanted| match &wanted.kind {
                    NodeKind::Source { columns, .. } => Some(columns),
                    _ => None,
                })
                .flatten()
                .copied()
                .collect();
        }
    }

    /// Lets a tag go by the fingerprints of `plan`, which differs from its own in nothing else.
    pub fn rename(&mut self, plans: &BTreeMap<String, Arc<FlowPlan>>) {
        let mut names: HashMap<String, String> = HashMap::new();
        for (tag, output) in &mut self.tags {
            let Some(plan) = plans.get(tag) else { continue };
            for (old, new) in output.plan.nodes.iter().zip(&plan.nodes) {
                names.insert(old.fingerprint.clone(), new.fingerprint.clone());
            }
            output.plan = Arc::clone(plan);
        }
        let rename = |name: &mut String| {
            if let Some(new) = names.get(name) {
                name.clone_from(new);
            }
        };
        for node in &mut self.nodes {
            rename(&mut node.fingerprint);
            node.inputs.iter_mut().for_each(|input| rename(&mut input.node));
        }
        for output in self.tags.values_mut().flat_map(|tag| &mut tag.outputs) {
            rename(&mut output.node);
        }
    }

    /// Calls a tag otherwise; what is computed for it stays as it is.
    pub fn rename_tag(&mut self, tag: &str, name: &str) {
        if let Some(output) = self.tags.remove(tag) {
            self.tags.insert(name.to_string(), output);
        }
    }

    fn add_node(&mut self, node: &FlowNode, outputs: &[OutputId], plan: &FlowPlan) -> Result<OutputId, OperatorError> {
        let inputs: Vec<OutputId> = node.inputs.iter().map(|input| outputs[*input].clone()).collect();
        let append_only = |index: &NodeIndex| plan.nodes[*index].append_only;
        let input_append_only = node.inputs.iter().all(append_only);
        let position = match self.nodes.iter().position(|known| known.fingerprint == node.fingerprint) {
            Some(position) => position,
            None => {
                let operator = match &node.kind {
                    NodeKind::Source { stream, .. } => Operator::Source(Source::new(&stream.name, &node.schema)),
                    NodeKind::Unique { stream, rule } => Operator::Unique {
                        stream: stream.clone(),
                        operator: Box::new(Unique::new(rule.clone(), nullable(&node.schema), self.shards)?),
                    },
                    NodeKind::Seed => Operator::Seed(Seed::new(&node.schema)),
                    NodeKind::Map { filter, columns } => {
                        Operator::Map(Map::new(filter.clone(), columns.clone(), Arc::clone(&node.schema)))
                    }
                    NodeKind::Punctual(punctuality) => {
                        let schema = nullable(&node.schema);
                        Operator::Punctual(Box::new(Punctual::new(punctuality.clone(), schema)))
                    }
                    NodeKind::Sound(soundness) => Operator::Sound(SoundRows::new(soundness.clone())),
                    NodeKind::ClockFilter { bounds } => {
                        let schema = Arc::clone(&node.schema);
                        Operator::ClockFilter(Box::new(ClockFilter::new(bounds.clone(), schema, self.timezone)?))
                    }
                    NodeKind::ClockFlags { flags } => {
                        let input = nullable(&plan.nodes[node.inputs[0]].schema);
                        let output = Arc::clone(&node.schema);
                        Operator::ClockFlags(Box::new(ClockFlags::new(flags.clone(), input, output, self.timezone)?))
                    }
                    NodeKind::ClockRow { steps } => {
                        let schema = Arc::clone(&node.schema);
                        Operator::ClockRow(Box::new(ClockRow::new(steps.clone(), schema, self.timezone)))
                    }
                    NodeKind::Tiles(tiles) => {
                        let input = nullable(&plan.nodes[node.inputs[0]].schema);
                        let output = Arc::clone(&node.schema);
                        let tiles = Tiles::new(tiles.clone(), &input, output, self.shards)?;
                        Operator::Tiles(Box::new(tiles))
                    }
                    NodeKind::Aggregate { keys, .. } => {
                        Operator::Aggregate(Box::new(Aggregate::new(keys.clone(), input_append_only, self.shards)?))
                    }
                    NodeKind::TopRows { partition, order, first } => Operator::TopRows(Box::new(TopRows::new(
                        partition.clone(),
                        order.clone(),
                        first.clone(),
                        Arc::clone(&node.schema),
                        input_append_only,
                        self.shards,
                    )?)),
                    NodeKind::Window { partition, order, calls } => Operator::Window(Box::new(Window::new(
                        partition.clone(),
                        order.clone(),
                        calls.clone(),
                        Arc::clone(&node.schema),
                        self.shards,
                    )?)),
                    NodeKind::Unnest { lists, keeps_empty } => {
                        Operator::Unnest(Unnest::new(lists.clone(), *keeps_empty, Arc::clone(&node.schema)))
                    }
                    NodeKind::Join(join) => {
                        let schema = |index: usize| nullable(&plan.nodes[node.inputs[index]].schema);
                        let (left, right) = (schema(0), schema(1));
                        let columns: Vec<_> = left.fields().iter().chain(right.fields()).cloned().collect();
                        let pairs = Arc::new(Schema::new(columns));
                        let output = Arc::clone(&node.schema);
                        Operator::Join(Box::new(Join::new(join.clone(), &left, &right, pairs, output, self.shards)?))
                    }
                    NodeKind::Union => Operator::Union(Arc::clone(&node.schema)),
                };
                let (fingerprint, counted) = (node.fingerprint.clone(), Counted::default());
                self.nodes.push(Node { fingerprint, inputs, operator, counted, is_saved: false });
                self.nodes.len() - 1
            }
        };
        let mut member = String::new();
        if let (NodeKind::Aggregate { member: plan, .. }, Operator::Aggregate(aggregate)) =
            (&node.kind, &mut self.nodes[position].operator)
        {
            member.clone_from(&plan.fingerprint);
            if !aggregate.members().any(|known| known == member) {
                aggregate.add_member(plan.clone(), Arc::clone(&node.schema))?;
                self.nodes[position].counted = Counted::default();
                self.nodes[position].is_saved = false;
            }
        }
        Ok(OutputId { node: node.fingerprint.clone(), member })
    }

    /// Takes a tag out, with all that no other tag uses.
    pub fn remove_tag(&mut self, tag: &str) {
        if self.tags.remove(tag).is_none() {
            return;
        }
        let used: BTreeSet<&OutputId> = self.tags.values().flat_map(|tag| &tag.outputs).collect();
        self.nodes.retain_mut(|node| {
            if let Operator::Aggregate(aggregate) = &mut node.operator {
                let members: Vec<String> = aggregate.members().map(str::to_string).collect();
                for member in members {
                    let output = OutputId { node: node.fingerprint.clone(), member };
                    if !used.contains(&output) {
                        aggregate.remove_member(&output.member);
                    }
                }
            }
            used.iter().any(|output| output.node == node.fingerprint)
        });
        self.note_needs();
    }

    /// Names of the tags that run.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.keys().map(String::as_str)
    }

    /// The plan of a tag.
    pub fn plan(&self, tag: &str) -> Option<&Arc<FlowPlan>> {
        self.tags.get(tag).map(|tag| &tag.plan)
    }

    /// Says which partitions streams have, so that what all partitions of a stream have passed can be forgotten.
    pub fn note_partitions<'a>(&mut self, partitions: impl Iterator<Item = &'a Partition> + Clone) {
        for node in &mut self.nodes {
            if let Operator::Unique { stream, operator } = &mut node.operator {
                let own = partitions.clone().filter(|partition| partition.stream == *stream);
                operator.note_partitions(own.map(|partition| partition.number));
            }
        }
    }

    /// What was dropped of each stream whose schema says that resent records are.
    pub fn dropped(&self) -> BTreeMap<&str, Dropped> {
        let mut dropped: BTreeMap<&str, Dropped> = BTreeMap::new();
        for node in &self.nodes {
            if let Operator::Unique { stream, operator } = &node.operator {
                // Several of one stream drop the same, as far as they have seen the same part of its history.
                let most = dropped.entry(stream).or_default();
                most.resent = most.resent.max(operator.dropped().resent);
                most.too_late = most.too_late.max(operator.dropped().too_late);
            }
        }
        dropped
    }

    /// One epoch: `events` has, for each stream with any, its new rows with the stream's own column names.
    pub fn step(&mut self, events: &HashMap<String, RecordBatch>, moment: impl Into<Moment>) -> TagDeltas {
        let moment = moment.into();
        let mut deltas: HashMap<OutputId, Result<Delta, OperatorError>> = HashMap::new();
        for node in &mut self.nodes {
            let inputs: Result<Vec<&Delta>, OperatorError> = node
                .inputs
                .iter()
                .map(|input| match deltas.get(input) {
                    Some(Ok(delta)) => Ok(delta),
                    Some(Err(error)) => Err(error.clone()),
                    None => Err(OperatorError::Expression("an input was not stepped".to_string())),
                })
                .collect();
            let results = match inputs {
                Ok(inputs) => OperatorError::of_panic(|| node.operator.step(&inputs, events, &moment)),
                Err(error) => Err(error),
            };
            let results = results.unwrap_or_else(|error| node.operator.fail(&error));
            for (member, result) in results {
                deltas.insert(OutputId { node: node.fingerprint.clone(), member }, result);
            }
        }
        self.taken += events.values().map(bytes_of).sum::<usize>();
        let of_tag =
            |(name, tag): (&String, &TagOutput)| Some((name.clone(), deltas.get(tag.outputs.last()?)?.clone()));
        let of_tags = self.tags.iter().filter_map(of_tag).collect();
        // What was between operators is not needed while keys leave.
        drop(deltas);
        self.keep_in_room();
        of_tags
    }

    /// The next instant at which rows enter or leave without an event.
    pub fn next_timer(&self) -> Option<Clock> {
        let timers = self.nodes.iter().filter_map(|node| match &node.operator {
            Operator::ClockFilter(filter) if filter.stream().is_none() => filter.next_timer(),
            Operator::ClockFlags(flags) => flags.next_timer(),
            Operator::ClockRow(row) => row.next_timer(),
            Operator::Tiles(tiles) => tiles.next_timer(),
            _ => None,
        });
        timers.min()
    }

    /// The streams whose events may be late, each with the newest event of every partition.
    pub fn newest_events(&self) -> BTreeMap<&str, NewestEvents> {
        let mut streams: BTreeMap<&str, NewestEvents> = BTreeMap::new();
        for node in &self.nodes {
            let Operator::Punctual(punctual) = &node.operator else { continue };
            let Punctuality { stream, lateness, .. } = punctual.punctuality();
            let known =
                streams.entry(stream).or_insert_with(|| NewestEvents { lateness: *lateness, ..Default::default() });
            for (partition, newest) in punctual.newest() {
                let known = known.partitions.entry(partition).or_insert(newest);
                *known = newest.max(*known);
            }
        }
        streams
    }

    /// Events that were too late in the last step, and the tags that left them out.
    pub fn late_events(&self) -> impl Iterator<Item = (&LateEvents, Vec<&str>)> {
        self.nodes.iter().filter_map(|node| {
            let Operator::Punctual(punctual) = &node.operator else { return None };
            let late = punctual.late()?;
            Some((late, self.users(&node.fingerprint)))
        })
    }

    /// Rows of which an expression failed in the last step, and the tags that left them out.
    pub fn failed_rows(&self) -> impl Iterator<Item = (&FailedRows, Vec<&str>)> {
        self.nodes.iter().filter_map(|node| {
            let Operator::Sound(sound) = &node.operator else { return None };
            let failed = sound.failed()?;
            Some((failed, self.users(&node.fingerprint)))
        })
    }

    /// The tags that use a node.
    fn users(&self, node: &str) -> Vec<&str> {
        self.tags.iter().filter(|(_, tag)| tag.uses(node)).map(|(name, _)| name.as_str()).collect()
    }

    /// Keys or rows, and bytes, of every operator with state.
    pub fn sizes(&self) -> Vec<NodeSize> {
        let size = |node: &Node| {
            let (rows, bytes) = node.operator.size()?;
            let spilled = node.operator.cold_size().bytes;
            Some(NodeSize { node: node.fingerprint.clone(), rows, bytes, spilled })
        };
        self.nodes.iter().filter_map(size).collect()
    }

    /// For each tag the keys or rows, and bytes, of the operators of its plan by their indices; what a tag shares with
    /// others is counted in full, what is out of memory as well. Looks at each operator once: counting takes time where state is large.
    pub fn tag_sizes(&self) -> BTreeMap<String, BTreeMap<NodeIndex, (usize, usize)>> {
        let nodes: HashMap<&str, &Node> = self.nodes.iter().map(|node| (node.fingerprint.as_str(), node)).collect();
        let mut known: HashMap<&OutputId, Option<(usize, usize)>> = HashMap::new();
        let mut size = |output| {
            *known.entry(output).or_insert_with(|| match &nodes.get(output.node.as_str())?.operator {
                Operator::Aggregate(aggregate) => Some(aggregate.member_size(&output.member)),
                operator => operator.size().map(|(rows, bytes)| (rows, bytes + operator.cold_size().bytes)),
            })
        };
        let mut sizes = BTreeMap::new();
        for (name, tag) in &self.tags {
            let own = tag.outputs.iter().enumerate();
            sizes.insert(name.clone(), own.filter_map(|(index, output)| Some((index, size(output)?))).collect());
        }
        sizes
    }

    /// Other tags that use an operator, by the index of the node in the tag's plan.
    pub fn sharing(&self, plan: &FlowPlan, except: &str) -> Vec<Vec<String>> {
        let users = |fingerprint: &str| {
            let others = self.tags.iter().filter(|(name, tag)| name.as_str() != except && tag.uses(fingerprint));
            others.map(|(name, _)| name.clone()).collect()
        };
        plan.nodes.iter().map(|node| users(&node.fingerprint)).collect()
    }

    /// All outputs of the graph.
    pub fn outputs(&self) -> BTreeSet<OutputId> {
        self.tags.values().flat_map(|tag| tag.outputs.iter().cloned()).collect()
    }
}

impl Operator {
    fn step(
        &mut self,
        inputs: &[&Delta],
        events: &HashMap<String, RecordBatch>,
        moment: &Moment,
    ) -> Vec<(String, Result<Delta, OperatorError>)> {
        let whole = |result| vec![(String::new(), result)];
        match self {
            Operator::Source(source) => whole(source.step(events)),
            Operator::Unique { operator, .. } => whole(operator.step(inputs[0])),
            Operator::Seed(seed) => whole(seed.step()),
            Operator::Map(map) => whole(map.step(inputs[0])),
            Operator::Punctual(punctual) => whole(punctual.step(inputs[0])),
            Operator::Sound(sound) => whole(sound.step(inputs[0])),
            Operator::ClockFilter(filter) => whole(filter.step(inputs[0], moment)),
            Operator::ClockFlags(flags) => whole(flags.step(inputs[0], moment.clock)),
            Operator::ClockRow(row) => whole(row.step(moment.clock)),
            Operator::Tiles(tiles) => whole(tiles.step(inputs[0], moment.clock)),
            Operator::TopRows(top) => whole(top.step(inputs[0])),
            Operator::Window(window) => whole(window.step(inputs[0])),
            Operator::Unnest(unnest) => whole(unnest.step(inputs[0])),
            Operator::Join(join) => whole(join.step(inputs[0], inputs[1])),
            Operator::Union(schema) => {
                let inputs: Result<Vec<Delta>, OperatorError> = inputs
                    .iter()
                    .filter(|input| !input.is_empty())
                    .map(|input| {
                        let columns = input.batch.columns().to_vec();
                        let batch = RecordBatch::try_new(Arc::clone(schema), columns)?;
                        Ok(Delta { batch, weights: input.weights.clone() })
                    })
                    .collect();
                whole(inputs.and_then(|inputs| Ok(Delta::concat(schema, &inputs)?)))
            }
            Operator::Aggregate(aggregate) => {
                let results = aggregate.step(inputs[0]);
                aggregate.members().map(str::to_string).zip(results).collect()
            }
        }
    }

    /// Keys or rows, and bytes; `None` without state.
    fn size(&self) -> Option<(usize, usize)> {
        match self {
            Operator::Unique { operator, .. } => Some(operator.size()),
            Operator::ClockFilter(filter) => Some(filter.size()),
            Operator::ClockFlags(flags) => Some(flags.size()),
            Operator::Tiles(tiles) => Some(tiles.size()),
            Operator::Aggregate(aggregate) => Some(aggregate.size()),
            Operator::TopRows(top) => Some(top.size()),
            Operator::Window(window) => Some(window.size()),
            Operator::Join(join) => Some(join.size()),
            Operator::Source(_)
            | Operator::Seed(_)
            | Operator::ClockRow(_)
            | Operator::Map(_)
            | Operator::Punctual(_)
            | Operator::Sound(_)
            | Operator::Unnest(_)
            | Operator::Union(_) => None,
        }
    }

    fn fail(&self, error: &OperatorError) -> Vec<(String, Result<Delta, OperatorError>)> {
        match self {
            Operator::Aggregate(aggregate) => {
                aggregate.members().map(|member| (member.to_string(), Err(error.clone()))).collect()
            }
            _ => vec![(String::new(), Err(error.clone()))],
        }
    }
}

/// The schema with columns that may all be NULL.
fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

impl Source {
    fn new(stream: &str, schema: &SchemaRef) -> Self {
        Source { stream: stream.to_string(), schema: nullable(schema), needed: BTreeSet::new(), nulls: HashMap::new() }
    }

    /// The stream's new rows in its full schema. A column that a tag needs and the reader did not read is an error:
    /// NULL in its place would be a wrong answer.
    fn step(&mut self, events: &HashMap<String, RecordBatch>) -> Result<Delta, OperatorError> {
        let Some(batch) = events.get(&self.stream) else { return Ok(Delta::empty(Arc::clone(&self.schema))) };
        let rows = batch.num_rows();
        let missing = self.needed.iter().map(|index| self.schema.field(*index).name());
        if let Some(column) = missing.into_iter().find(|column| batch.column_by_name(column).is_none()) {
            return Err(OperatorError::Expression(format!(
                "column `{column}` of stream `{}` was not read",
                self.stream
            )));
        }
        let columns = self.schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => Arc::clone(column),
            None => {
                let nulls = self
                    .nulls
                    .entry(field.data_type().clone())
                    .and_modify(|nulls| {
                        if nulls.len() < rows {
                            *nulls = new_null_array(field.data_type(), rows);
                        }
                    })
                    .or_insert_with(|| new_null_array(field.data_type(), rows));
                nulls.slice(0, rows)
            }
        });
        let columns = columns.collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(Delta::inserts(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }
}

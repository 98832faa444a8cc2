//! What an operator keeps in memory for each key or row: as a daemon has counted it, else estimated from the types.
//!
//! The estimate follows how operators lay their state out; text is taken as 16 bytes, a list as four elements, tables and
//! vectors as filled by three quarters.

use arrow::datatypes::DataType;
use bytesize::ByteSize;
use serde::Serialize;

use crate::plan::flow::{AggregateCall, AggregateFunction, FlowPlan, NodeIndex, NodeKind, Scalar};

/// The memory of one operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What is kept: keys, rows …
    pub per: &'static str,
    /// Bytes for each.
    pub bytes: u64,
    /// What takes more beside it, and how many bytes; of an estimate only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub further: Option<(&'static str, u64)>,
    /// How many are kept, where that was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
}

/// Of a row beside its bytes: its box, and its place among the rows of its key.
const ENTRY: u64 = 64;
/// Of a key beside its bytes: its box, its place in a table, the head of its rows.
const KEY: u64 = 64;

impl Memory {
    /// Of an operator of a plan by the types of its columns; `None` without state.
    pub fn estimate(plan: &FlowPlan, index: NodeIndex) -> Option<Self> {
        let node = &plan.nodes[index];
        let input = |place: usize| node.inputs.get(place).map(|input| &plan.nodes[*input]);
        let row = |place: usize| {
            let fields = input(place).into_iter().flat_map(|input| input.schema.fields());
            fields.map(|field| width(field.data_type())).sum::<u64>()
        };
        let append_only = input(0).is_some_and(|input| input.append_only);
        let rows = |bytes: u64, key: Option<&[Scalar]>| Memory {
            per: "row",
            bytes: bytes + ENTRY,
            further: key.map(|key| ("key", KEY + widths(key))),
            kept: None,
        };
        let memory = match &node.kind {
            NodeKind::Aggregate { keys, member } => {
                let states = member.aggregates.iter().map(|call| state(call, append_only));
                let (fixed, values) = states.fold((0, 0), |sum, state| (sum.0 + state.0, sum.1 + state.1));
                let further = (values > 0).then_some(("value", values));
                Memory { per: "key", bytes: group(keys) + filled(8) + fixed, further, kept: None }
            }
            NodeKind::Tiles(tiles) => {
                let partials: u64 = tiles.calls.iter().map(|call| width(&call.data_type)).sum();
                let turns = (tiles.bounds.len() + tiles.flags.len()) as u64 * 9;
                Memory {
                    per: "tile",
                    bytes: KEY + widths(&tiles.keys) + turns + 8 + partials,
                    further: None,
                    kept: None,
                }
            }
            NodeKind::TopRows { partition, order, .. } | NodeKind::Window { partition, order, .. } => {
                let order: u64 = order.iter().map(|(scalar, _)| width(&scalar.data_type)).sum();
                rows(order + row(0), Some(partition))
            }
            NodeKind::Join(join) => rows(row(0).max(row(1)) + 16, Some(&join.left_keys)),
            NodeKind::ClockFilter { .. } => rows(row(0) + 8, None),
            NodeKind::ClockFlags { flags } => rows(row(0) + 8 + 8 * flags.len() as u64, None),
            NodeKind::Unique { rule, .. } => {
                let keys = rule.columns.iter().filter_map(|name| node.schema.field_with_name(name).ok());
                let keys: u64 = keys.map(|field| width(field.data_type())).sum();
                let further = Some(("record that may still be retracted", row(0)));
                Memory { per: "time", bytes: KEY + keys, further, kept: None }
            }
            NodeKind::Source { .. }
            | NodeKind::Map { .. }
            | NodeKind::Seed
            | NodeKind::ClockRow { .. }
            | NodeKind::Punctual(_)
            | NodeKind::Sound(_)
            | NodeKind::Unnest { .. }
            | NodeKind::Union => {
                return None;
            }
        };
        Some(memory)
    }

    /// As a daemon has counted it: so many are kept, in `bytes` in all.
    pub fn counted(self, kept: u64, bytes: u64) -> Self {
        match bytes.checked_div(kept) {
            Some(each) => Memory { bytes: each, further: None, kept: Some(kept), ..self },
            None => self,
        }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Memory { per, bytes, .. } = self;
        match (self.kept, self.further) {
            (Some(kept), _) => write!(out, "{kept} {per}s in {}, {bytes} B a {per}", ByteSize(kept * bytes)),
            (None, Some((what, more))) => write!(out, "about {bytes} B a {per}, and {more} B a {what}"),
            (None, None) => write!(out, "about {bytes} B a {per}"),
        }
    }
}

/// Bytes of a value as rows are kept.
fn width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::Boolean => 2,
        DataType::List(item) => 8 + 4 * width(item.data_type()),
        DataType::Struct(fields) => fields.iter().map(|field| width(field.data_type())).sum(),
        other => other.primitive_width().map_or(8 + 16, |width| width as u64 + 1),
    }
}

fn widths(scalars: &[Scalar]) -> u64 {
    scalars.iter().map(|scalar| width(&scalar.data_type)).sum()
}

/// Bytes of an element of a vector that is not filled to its end.
fn filled(bytes: u64) -> u64 {
    bytes * 4 / 3
}

/// Bytes of a group's key and its place in the index.
fn group(keys: &[Scalar]) -> u64 {
    match keys {
        [only] if only.data_type == DataType::Int64 => filled(17 + 8),
        keys => filled(5 + 16) + 16 + widths(keys),
    }
}

/// Bytes of an aggregate for a group, and for each value that it keeps.
fn state(call: &AggregateCall, append_only: bool) -> (u64, u64) {
    let value = call.argument.as_ref().map_or(0, |argument| width(&argument.data_type));
    let sum = if call.data_type.is_floating() { 32 } else { 16 };
    let (fixed, values) = match call.function {
        AggregateFunction::Count => (0, 0),
        AggregateFunction::Sum | AggregateFunction::Avg => (filled(sum), 0),
        AggregateFunction::Min | AggregateFunction::Max if append_only => (filled(16) + value, 0),
        AggregateFunction::Min | AggregateFunction::Max | AggregateFunction::Collected => (filled(24), value + ENTRY),
        AggregateFunction::CountDistinct => (filled(8), value + 16 + filled(32)),
    };
    (filled(8) + fixed, values)
}

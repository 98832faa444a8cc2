//! Which record a tag failed on. Looked for only once it has failed, so that no tag carries places of records for it.
//!
//! The operators up to the first that remembers rows are stepped anew, without state, over halves of the events until one
//! row is left that fails by itself. What fails on values of several records (an aggregate's, a join's) names none.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono_tz::Tz;

use crate::delta::Moment;
use crate::operator::graph::Graph;
use crate::plan::flow::{FlowPlan, NodeIndex, NodeKind};

/// A row among the events of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// The stream.
    pub stream: String,
    /// Where the stream comes from.
    pub topic: String,
    /// The row of its events.
    pub row: usize,
}

/// The first row that a plan fails on, if there is one.
pub fn failing_row(
    plan: &FlowPlan,
    events: &HashMap<String, RecordBatch>,
    moment: &Moment,
    timezone: Tz,
) -> Option<EventRow> {
    let mut is_by_row: Vec<bool> = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let reads_rows = node.inputs.iter().all(|input| is_by_row[*input]);
        is_by_row.push(reads_rows && gives_rows(&node.kind));
        if !reads_rows || node.inputs.is_empty() {
            continue;
        }
        let up_to = Arc::new(FlowPlan { nodes: plan.nodes[..=index].to_vec(), ..plan.clone() });
        for (stream, _) in up_to.sources().filter(|(stream, _)| is_below(plan, index, &stream.name)) {
            let Some(batch) = events.get(&stream.name) else { continue };
            let fails = |rows: Range<usize>| {
                let some = HashMap::from([(stream.name.clone(), batch.slice(rows.start, rows.len()))]);
                fails_on(&up_to, &some, moment, timezone)
            };
            if let Some(row) = first(0..batch.num_rows(), fails) {
                return Some(EventRow { stream: stream.name.clone(), topic: stream.topic.clone(), row });
            }
        }
    }
    None
}

/// True where each row that comes out is of one record.
fn gives_rows(kind: &NodeKind) -> bool {
    let is_by_clock = matches!(kind, NodeKind::ClockFilter { .. } | NodeKind::ClockFlags { .. });
    kind.gives_records() || is_by_clock || !kind.keeps_state()
}

fn is_below(plan: &FlowPlan, node: NodeIndex, stream: &str) -> bool {
    let node = &plan.nodes[node];
    matches!(&node.kind, NodeKind::Source { stream: source, .. } if source.name == stream)
        || node.inputs.iter().any(|input| is_below(plan, *input, stream))
}

/// True when the last node of a plan fails on events, without any before them.
fn fails_on(plan: &Arc<FlowPlan>, events: &HashMap<String, RecordBatch>, moment: &Moment, timezone: Tz) -> bool {
    let mut graph = Graph::new(1, timezone);
    let added = graph.add_tag("", plan);
    added.is_ok() && graph.step(events, moment.clone()).values().any(Result::is_err)
}

/// The first row that fails by itself, as long as one of the halves that it is in does.
fn first(mut rows: Range<usize>, fails: impl Fn(Range<usize>) -> bool) -> Option<usize> {
    if rows.is_empty() || !fails(rows.clone()) {
        return None;
    }
    while rows.len() > 1 {
        let middle = rows.start + rows.len() / 2;
        let halves = [rows.start..middle, middle..rows.end];
        rows = halves.into_iter().find(|half| fails(half.clone()))?;
    }
    Some(rows.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_failing_row_is_found_and_none_where_rows_fail_only_together() {
        let over = |wrong: &'static [usize]| move |rows: Range<usize>| wrong.iter().any(|row| rows.contains(row));
        assert_eq!(first(0..1000, over(&[700, 17, 999])), Some(17));
        assert_eq!(first(0..1, over(&[0])), Some(0));
        assert_eq!(first(0..1000, over(&[])), None);
        assert_eq!(first(0..0, |_| true), None);
        assert_eq!(first(0..1000, |rows| rows.contains(&1) && rows.contains(&2)), None);
    }
}

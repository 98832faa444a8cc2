//! What a tag costs that its SQL does not show: state without bound, and values that move everybody.

use chrono_tz::Tz;

use crate::delta::Clock;
use crate::diagnostic::Diagnostic;
use crate::plan::clock::ClockBound;
use crate::plan::codes;
use crate::plan::flow::{FlowPlan, JoinPlan, NodeIndex, NodeKind};
use crate::plan::sql::text::SqlText;
use crate::plan::steps::shortest_step;
use crate::tag::TagHeader;

/// Steps of the clock are warned of that are shorter, in nanoseconds.
const SHORT_STEP: Clock = 3_600_000_000_000;

/// Warnings for joins that keep every event of a stream, and for values of the whole population or of the clock.
pub(crate) fn of(text: &SqlText<'_>, plan: &FlowPlan, header: &TagHeader, timezone: Tz) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    for node in &plan.nodes {
        if let NodeKind::ClockRow { steps } = &node.kind {
            let lengths = steps.iter().filter_map(|step| shortest_step(step, timezone));
            let Some(shortest) = lengths.min().filter(|shortest| *shortest < SHORT_STEP) else { continue };
            let span = text.find_word(&["now", "current_timestamp"]).unwrap_or_else(|| text.first_word());
            let length = humantime::format_duration(std::time::Duration::from_nanos(shortest.unsigned_abs()));
            let message = format!("a value of the clock that moves every {length}: every row is computed again");
            let help = "let it move by the hour or the day, date_trunc('hour', NOW()) or CURRENT_DATE, or compare a column \
                        with the clock, which touches a row only when it turns";
            warnings.push(text.warning(codes::CLOCK_VALUE, span, message).help(help));
            continue;
        }
        let NodeKind::Join(join) = &node.kind else { continue };
        if node.inputs.iter().any(|input| matches!(plan.nodes[*input].kind, NodeKind::ClockRow { .. })) {
            continue;
        }
        if is_population(join) {
            if node.inputs.iter().any(|input| is_constant(plan, *input)) {
                continue;
            }
            if header.recompute_every.is_some() || node.inputs.iter().any(|input| reads_truncations(plan, *input)) {
                continue;
            }
            let span = text.find_word(&["select"]).unwrap_or_else(|| text.first_word());
            let span = text.text().to_ascii_lowercase().rfind("select").map_or(span, |at| at..at + "select".len());
            let message = "a value of the whole population: when it changes, every row is computed again";
            let help = "say how often it may change in the header, recompute_every = \"1h\", or compare with a number";
            warnings.push(text.warning(codes::POPULATION, span, message).help(help));
            continue;
        }
        for stream in node.inputs.iter().filter_map(|input| whole_stream(plan, *input)) {
            let span = text.find_word(&["join", "exists", "in", "intersect", "except", "union"]);
            let span = span.unwrap_or_else(|| text.first_word());
            let message = format!("the join keeps every row of `{stream}` for good");
            let help = match compares_times(join) {
                // The condition alone does not: an event may be late by any time.
                true => {
                    "bound the time of the other side, and the condition on both times bounds this one too: \
                         WHERE order_time >= CURRENT_DATE - INTERVAL '90' DAY"
                }
                false => {
                    "aggregate before joining (GROUP BY in a sub-query), or bound it: \
                          WHERE order_time >= CURRENT_DATE - INTERVAL '90' DAY"
                }
            };
            warnings.push(text.warning(codes::UNBOUNDED_JOIN, span, message).help(help));
        }
    }
    warnings.dedup();
    warnings
}

/// True for a join by nothing but a constant.
fn is_population(join: &JoinPlan) -> bool {
    join.left_keys.iter().all(|key| key.expr.is::<datafusion::physical_expr::expressions::Literal>())
}

/// True where the rows of a node are written in the query.
fn is_constant(plan: &FlowPlan, node: NodeIndex) -> bool {
    let node = &plan.nodes[node];
    let is_changing = matches!(node.kind, NodeKind::Source { .. } | NodeKind::ClockRow { .. });
    !is_changing && node.inputs.iter().all(|input| is_constant(plan, *input))
}

/// True for the offset of the newest TRUNCATE of a table (see [`crate::plan::changes`]): nothing else reads the table's
/// records other than by their first rows, and the author can do nothing about it.
fn reads_truncations(plan: &FlowPlan, node: NodeIndex) -> bool {
    let node = &plan.nodes[node];
    match &node.kind {
        NodeKind::Source { stream, .. } => stream.truncates,
        NodeKind::TopRows { .. } | NodeKind::Window { .. } => false,
        _ => node.inputs.iter().any(|input| reads_truncations(plan, *input)),
    }
}

/// True where the condition of a join puts times of both sides in an order.
fn compares_times(join: &JoinPlan) -> bool {
    join.condition.as_ref().is_some_and(|condition| condition.text.contains("IntervalMonthDayNano"))
}

/// The stream all of whose rows come through a node.
pub(crate) fn whole_stream(plan: &FlowPlan, node: NodeIndex) -> Option<&str> {
    let node = &plan.nodes[node];
    let is_lower = |bound: &ClockBound| bound.comparison.is_lower();
    match &node.kind {
        NodeKind::ClockFilter { bounds } if !bounds.iter().any(is_lower) => {
            node.inputs.iter().find_map(|input| whole_stream(plan, *input))
        }
        NodeKind::Source { stream, .. } => Some(&stream.name),
        NodeKind::Unique { stream, .. } => Some(stream),
        NodeKind::Map { .. }
        | NodeKind::Punctual(_)
        | NodeKind::Sound(_)
        | NodeKind::Unnest { .. }
        | NodeKind::Union
        | NodeKind::Window { .. }
        | NodeKind::Join(_) => node.inputs.iter().find_map(|input| whole_stream(plan, *input)),
        NodeKind::ClockFlags { .. } => node.inputs.iter().find_map(|input| whole_stream(plan, *input)),
        NodeKind::Seed
        | NodeKind::ClockFilter { .. }
        | NodeKind::ClockRow { .. }
        | NodeKind::Tiles(_)
        | NodeKind::Aggregate { .. }
        | NodeKind::TopRows { .. } => None,
    }
}

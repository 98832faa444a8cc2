//! Operators that keep more than they need to: rows for good, rows one by one where a day would do, and keys that few
//! threads can share.

use std::ops::{ControlFlow, Range};

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, DateTimeField, Value, ValueWithSpan, Visit, Visitor};

use super::called;
use crate::diagnostic::Diagnostic;
use crate::plan::clock::ClockSide;
use crate::plan::codes;
use crate::plan::explain::readable;
use crate::plan::flow::{FlowNode, FlowPlan, NodeKind, Scalar};
use crate::plan::sql::costs::whole_stream;
use crate::plan::sql::text::SqlText;

/// Windows up to so many days may well be meant to the second.
const LONGEST_BY_ROW: u64 = 7;
/// Names of columns that have few values.
const COARSE: &[&str] = &[
    "status", "state", "gender", "sex", "channel", "level", "type", "kind", "category", "country", "currency",
    "language", "platform", "device", "os",
];

/// What the operators of a tag keep that they need not.
pub(crate) fn kept(text: &SqlText<'_>, plan: &FlowPlan) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = Vec::new();
    found.extend(by_row(text, plan));
    for node in &plan.nodes {
        found.extend(for_good(text, plan, node));
        found.extend(coarse(text, plan, node));
    }
    found.dedup();
    found
}

fn at(text: &SqlText<'_>, words: &[&str]) -> Range<usize> {
    text.find_word(words).unwrap_or_else(|| text.first_word())
}

/// Windows over partitions, and aggregates that keep their values, over all rows of a stream.
fn for_good(text: &SqlText<'_>, plan: &FlowPlan, node: &FlowNode) -> Option<Diagnostic> {
    let (what, words): (&str, &[&str]) = match &node.kind {
        NodeKind::Window { .. } => ("a window function needs all rows of its partition", &["over"]),
        NodeKind::Aggregate { member, .. } if member.aggregates.iter().any(|call| call.collected.is_some()) => {
            ("an aggregate needs all values of its key", &["group by"])
        }
        _ => return None,
    };
    let stream = node.inputs.iter().find_map(|input| whole_stream(plan, *input))?;
    let message = format!("{what}, and keeps those of `{stream}` for good");
    let help = "bound it by the clock: WHERE order_time >= CURRENT_DATE - INTERVAL '90' DAY; or say that it is meant: \
                lints.unbounded_state = \"allow\" in the header";
    Some(text.warning(codes::UNBOUNDED_STATE, at(text, words), message).help(help))
}

/// Sums and counts over a long time that move by the row.
fn by_row(text: &SqlText<'_>, plan: &FlowPlan) -> Option<Diagnostic> {
    let keeps_rows = plan.nodes.iter().any(|node| {
        let NodeKind::Aggregate { member, .. } = &node.kind else { return false };
        // Tiles take their place where all of them can be put together from parts.
        let has_parts = member.aggregates.iter().all(|call| call.partial_type().is_some());
        has_parts && node.inputs.iter().any(|input| moves_by_row(plan, &plan.nodes[*input]))
    });
    if !keeps_rows {
        return None;
    }
    let query = text.parse().ok()?;
    let mut search = LongWindow { found: None };
    let _ = Visit::visit(&query, &mut search);
    let (window, days) = search.found?;
    let message = format!("rows of {days} days are kept one by one, so that each leaves to the second");
    let help = format!(
        "where a day will do write `CURRENT_DATE - INTERVAL '{days}' DAY`, or \
         `date_trunc('hour', NOW()) - INTERVAL '{days}' DAY`: sums by day or hour are kept then"
    );
    Some(text.warning(codes::CLOCK_BY_ROW, text.expr(&window), message).help(help))
}

fn moves_by_row(plan: &FlowPlan, node: &FlowNode) -> bool {
    match &node.kind {
        NodeKind::ClockFilter { bounds: clocks } | NodeKind::ClockFlags { flags: clocks } => {
            clocks.iter().any(|clock| !clock.stepped && matches!(clock.clock, ClockSide::Clock(_)))
        }
        NodeKind::Map { .. } => node.inputs.iter().any(|input| moves_by_row(plan, &plan.nodes[*input])),
        _ => false,
    }
}

/// The first `NOW() - INTERVAL …` of many days, and how many.
struct LongWindow {
    found: Option<(ast::Expr, u64)>,
}

impl Visitor for LongWindow {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::BinaryOp { left, op: BinaryOperator::Minus, right } = expr
            && called(left, &["now", "current_timestamp"]).is_some()
            && let ast::Expr::Interval(interval) = right.as_ref()
            && let Some(days) = days(interval).filter(|days| *days > LONGEST_BY_ROW)
        {
            self.found = Some((expr.clone(), days));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// The whole days of `INTERVAL '30' DAY`, `INTERVAL '30 days'` and their like.
fn days(interval: &ast::Interval) -> Option<u64> {
    let ast::Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = interval.value.as_ref() else {
        return None;
    };
    let (number, unit) = match text.trim().split_once(' ') {
        Some((number, unit)) => (number, unit.trim().to_lowercase()),
        None => (text.trim(), interval.leading_field.as_ref().map(DateTimeField::to_string)?.to_lowercase()),
    };
    let number: u64 = number.parse().ok()?;
    match unit.trim_end_matches('s') {
        "hour" => Some(number / 24),
        "day" => Some(number),
        "week" => Some(number * 7),
        _ => None,
    }
}

/// Groups and partitions by nothing but columns that have few values.
fn coarse(text: &SqlText<'_>, plan: &FlowPlan, node: &FlowNode) -> Option<Diagnostic> {
    let (keys, words): (&[Scalar], &[&str]) = match &node.kind {
        NodeKind::Aggregate { keys, .. } => (keys, &["group by"]),
        NodeKind::TopRows { partition, .. } | NodeKind::Window { partition, .. } => (partition, &["partition by"]),
        _ => return None,
    };
    let input = node.inputs.first().map(|input| &plan.nodes[*input]);
    let names: Vec<String> = keys.iter().map(|key| readable(&key.text, input)).collect();
    let is_coarse = |(key, name): (&Scalar, &String)| {
        let name = name.to_lowercase();
        key.data_type == DataType::Boolean
            || COARSE
                .iter()
                .any(|word| name == *word || name.strip_suffix(word).is_some_and(|rest| rest.ends_with('_')))
    };
    if keys.is_empty() || !keys.iter().zip(&names).all(is_coarse) {
        return None;
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let message = format!("{} has few values: one thread does the work of all its rows", names.join(" and "));
    let help = "group by the tag's key beside it, or aggregate by the key first and by it then";
    Some(text.warning(codes::COARSE_KEY, at(text, words), message).help(help))
}

//! A flow plan for people: the operators as a tree, from the table down to the streams.

use std::time::Duration;

use arrow::compute::SortOptions;
use serde_json::{Value as Json, json};

use crate::plan::clock::{ClockBound, ClockSide, Comparison};
use crate::plan::flow::{AggregateCall, FlowNode, FlowPlan, NodeIndex, NodeKind, OutputColumn, Ranking, Reach, Scalar};
use crate::plan::memory::Memory;
use crate::plan::steps::most_tiles;
use crate::plan::wording::{sql_text, sql_type};

/// The tree of a tag; `sharing` has, for each node, the other tags that use it, `memory` what it keeps.
pub fn describe(tag: &str, plan: &FlowPlan, sharing: &[Vec<String>], memory: &[Option<Memory>]) -> String {
    let names = |columns: &[OutputColumn]| -> String {
        let column = |column: &OutputColumn| format!("{} {}", column.name, sql_type(&column.data_type));
        columns.iter().map(column).collect::<Vec<_>>().join(", ")
    };
    let reach = match plan.reach {
        Reach::Unbounded => "all events since the beginning matter".to_string(),
        Reach::Within(reach) => format!("events of the last {} days matter", reach / 86_400_000_000_000),
    };
    let mut text = format!(
        "{tag}\n  key: {}\n  values: {}\n  history: {reach}\n",
        names(&plan.key),
        if plan.columns.is_empty() { "none (a segment)".to_string() } else { names(&plan.columns) },
    );
    node(plan, sharing, memory, plan.nodes.len() - 1, 0, &mut text);
    text
}

/// The same for programs: the operators in the order of the plan, inputs before those that read them.
pub fn as_json(tag: &str, plan: &FlowPlan, sharing: &[Vec<String>], memory: &[Option<Memory>]) -> Json {
    let names = |columns: &[OutputColumn]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
    let operator = |(index, flow): (usize, &FlowNode)| {
        json!({
            "inputs": flow.inputs,
            "lines": lines(plan, flow),
            "append_only": flow.append_only,
            "shared_with": sharing.get(index),
            "memory": memory.get(index),
        })
    };
    let operators: Vec<Json> = plan.nodes.iter().enumerate().map(operator).collect();
    json!({ "tag": tag, "key": names(&plan.key), "columns": names(&plan.columns), "operators": operators })
}

fn node(
    plan: &FlowPlan,
    sharing: &[Vec<String>],
    memory: &[Option<Memory>],
    index: NodeIndex,
    depth: usize,
    text: &mut String,
) {
    let flow = &plan.nodes[index];
    let indent = "  ".repeat(depth + 1);
    let mut lines = lines(plan, flow).into_iter();
    text.push_str(&format!("{indent}{}\n", lines.next().unwrap_or_default()));
    for line in lines {
        text.push_str(&format!("{indent}    {line}\n"));
    }
    if let Some(Some(memory)) = memory.get(index) {
        text.push_str(&format!("{indent}    memory: {memory}\n"));
    }
    match sharing.get(index).map(Vec::as_slice) {
        None | Some([]) => {}
        Some(tags) if tags.len() > 5 => text.push_str(&format!("{indent}    shared with {} other tags\n", tags.len())),
        Some(tags) => text.push_str(&format!("{indent}    shared with {}\n", tags.join(", "))),
    }
    for input in &flow.inputs {
        node(plan, sharing, memory, *input, depth + 1, text);
    }
}

/// A clock side as SQL writes it.
fn plain_clock(text: &str) -> String {
    sql_text(&text.replace("__clock", "NOW()").replace("__today", "CURRENT_DATE"))
}

fn comparison(bound: &ClockBound, show: &dyn Fn(&Scalar) -> String) -> String {
    let sign = match bound.comparison {
        Comparison::AtLeast => ">=",
        Comparison::After => ">",
        Comparison::AtMost => "<=",
        Comparison::Before => "<",
    };
    let clock = plain_clock(&bound.clock_text);
    let steps = match (&bound.clock, bound.stepped) {
        (ClockSide::Watermark(_), _) => "",
        (ClockSide::Clock(_), true) => ", in steps",
        (ClockSide::Clock(_), false) => ", row by row",
    };
    format!("{} {sign} {clock}{steps}", show(&bound.row))
}

fn aggregate(call: &AggregateCall, show: &dyn Fn(&Scalar) -> String) -> String {
    let argument = call.argument.as_ref().map_or("*".to_string(), show);
    let filter = call.filter.as_ref().map_or(String::new(), |filter| format!(" where {}", show(filter)));
    let merged = if call.merges { "merged " } else { "" };
    format!("{merged}{}({argument}){filter} -> {}", call.function.name(), sql_type(&call.data_type))
}

fn lines(plan: &FlowPlan, flow: &FlowNode) -> Vec<String> {
    let input = flow.inputs.first().map(|input| &plan.nodes[*input]);
    let show = |scalar: &Scalar| readable(&scalar.text, input);
    let list = |scalars: &[Scalar]| scalars.iter().map(show).collect::<Vec<_>>().join(", ");
    let wheres = |filter: &[Scalar]| {
        let stages: Vec<String> = filter.iter().map(show).collect();
        (!stages.is_empty()).then(|| format!("where {}", stages.join(" and then ")))
    };
    match &flow.kind {
        NodeKind::Source { stream, columns } => {
            let schema = stream.schema();
            let columns: Vec<&str> = columns.iter().map(|column| schema.field(*column).name().as_str()).collect();
            vec![format!("stream {} ({})", stream.name, columns.join(", "))]
        }
        NodeKind::Unique { stream, rule } => {
            let columns = rule.columns.join(", ");
            vec![
                format!("{stream} without what was sent again, by {columns}: keeps event times of each"),
                "it retracts a record when one comes late that lies close before it".to_string(),
            ]
        }
        NodeKind::Map { filter, columns } => {
            let mut lines = vec!["map: no state".to_string()];
            lines.extend(wheres(filter));
            lines.extend(columns.as_ref().map(|columns| format!("select {}", list(columns))));
            lines
        }
        NodeKind::Seed => vec!["one row that always is there".to_string()],
        NodeKind::Punctual(punctuality) => {
            let allowed = Duration::from_nanos(punctuality.late_after.unsigned_abs());
            let allowed = humantime::format_duration(allowed);
            vec![format!("without events that come more than {allowed} late: keeps one time a partition")]
        }
        NodeKind::ClockFilter { bounds } if bounds.iter().any(|bound| bound.clock.stream().is_some()) => {
            let lines = ["windows that have closed: keeps the rows of the others".to_string()];
            lines.into_iter().chain(bounds.iter().map(|bound| comparison(bound, &show))).collect()
        }
        NodeKind::ClockFilter { bounds } => {
            let lines = ["clock filter: keeps the rows that will enter or leave".to_string()];
            lines.into_iter().chain(bounds.iter().map(|bound| comparison(bound, &show))).collect()
        }
        NodeKind::ClockFlags { flags } => {
            let lines = ["clock flags: keeps the rows of which a comparison is still to turn".to_string()];
            lines.into_iter().chain(flags.iter().map(|flag| comparison(flag, &show))).collect()
        }
        NodeKind::ClockRow { steps } => {
            let values: Vec<String> = steps.iter().map(|step| plain_clock(&step.clock_text)).collect();
            vec![format!("one row with {}: replaced when the clock has passed it", values.join(", "))]
        }
        NodeKind::Tiles(tiles) => {
            let most = most_tiles(tiles).map_or_else(String::new, |most| format!(", up to {most} a key"));
            let lines =
                [format!("tiles by {}: one partial aggregate a key and step of the clock{most}", list(&tiles.keys))];
            let clocks = tiles.bounds.iter().chain(&tiles.flags).map(|bound| comparison(bound, &show));
            lines.into_iter().chain(clocks).chain(tiles.calls.iter().map(|call| aggregate(call, &show))).collect()
        }
        NodeKind::Aggregate { keys, member } => {
            let mut lines = vec![format!("aggregate by {}: one entry a key", list(keys))];
            lines.extend(wheres(&member.filter));
            for call in &member.aggregates {
                if call.collected.is_some() {
                    lines.push(format!("{}: keeps all values of a key", readable(call.name(), input)));
                    continue;
                }
                lines.push(aggregate(call, &show));
            }
            if input.is_some_and(|input| !input.append_only) {
                lines.push("its input retracts rows".to_string());
            }
            lines
        }
        NodeKind::TopRows { partition, order, first } => {
            let rows = if first.most == 1 { "row".to_string() } else { format!("{} rows", first.most) };
            let what = match first.by {
                Ranking::RowNumber => format!("first {rows}"),
                ranking => format!("rows with {} <= {}", ranking.name(), first.most),
            };
            let kept = match (input.is_some_and(|input| input.append_only), first.by) {
                (false, _) => "all rows",
                (true, Ranking::RowNumber) if first.most == 1 => "one row",
                (true, _) => "them alone",
            };
            let by = if partition.is_empty() { "of all".to_string() } else { format!("by {}", list(partition)) };
            vec![format!("{what} {by}: keeps {kept} a key"), format!("order by {}", order_list(order, &show))]
        }
        NodeKind::Window { partition, order, calls } => {
            let mut lines = vec![match partition.is_empty() {
                true => "windows over all rows: keeps all rows".to_string(),
                false => format!("windows by {}: keeps all rows of a key", list(partition)),
            }];
            if !order.is_empty() {
                lines.push(format!("order by {}", order_list(order, &show)));
            }
            lines.extend(
                calls.iter().map(|call| format!("{} -> {}", readable(&call.text, input), sql_type(&call.data_type))),
            );
            lines
        }
        NodeKind::Join(join) => {
            let right = flow.inputs.get(1).and_then(|input| plan.nodes.get(*input));
            let keys = join.left_keys.iter().zip(&join.right_keys);
            let keys: Vec<String> =
                keys.map(|(left, key)| format!("{} = {}", show(left), readable(&key.text, right))).collect();
            let mut lines = vec![
                format!("{} join: keeps the rows of both inputs", format!("{:?}", join.kind).to_lowercase()),
                format!("on {}", keys.join(" and ")),
            ];
            lines.extend(join.condition.as_ref().map(|condition| format!("and {}", sql_text(&condition.text))));
            lines
        }
        NodeKind::Unnest { lists, keeps_empty } => {
            let name = |list: &usize| input.map_or_else(String::new, |input| input.schema.field(*list).name().clone());
            let names: Vec<String> = lists.iter().map(name).collect();
            let or = if *keeps_empty { ", or one without any" } else { "" };
            vec![format!("one row for each element of {}{or}: no state", names.join(", "))]
        }
        NodeKind::Sound(soundness) => {
            vec![format!("rows of which nothing fails of {}: no state", sql_text(&soundness.texts.join(", ")))]
        }
        NodeKind::Union => vec!["union: no state".to_string()],
    }
}

fn order_list(order: &[(Scalar, SortOptions)], show: &dyn Fn(&Scalar) -> String) -> String {
    let keys = order.iter();
    keys.map(|(key, options)| format!("{}{}", show(key), if options.descending { " desc" } else { "" }))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Canonical text with the input's own names for `#0`, `#1` …, and source columns without their hash.
pub(crate) fn readable(text: &str, input: Option<&FlowNode>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('#') {
        let before = &rest[..at];
        let after = &rest[at + 1..];
        let names_source = before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        let width = after.find(|next: char| !next.is_ascii_hexdigit()).unwrap_or(after.len());
        out.push_str(before);
        if !names_source {
            let index = after[..width].parse::<usize>().ok();
            let field = index.and_then(|index| input?.schema.fields().get(index).map(|field| field.name().clone()));
            out.push_str(&field.unwrap_or_else(|| format!("#{}", &after[..width])));
        }
        rest = &after[width..];
    }
    out.push_str(rest);
    sql_text(&out)
}

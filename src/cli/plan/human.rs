//! The plan for people.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::chart::{bars, signed};
use super::data::{DataDiff, Difference, RowDiff};
use super::plan::{ColumnChange, ColumnPlan, Downstream, Fate, Fill, Plan, TagPlan};
use crate::cli::{paint, plural};

/// Letters of the longest bar.
const BAR: usize = 40;

/// Everything.
pub(super) fn describe(plan: &Plan, grace: Duration, colour: bool) -> String {
    let mut text = format!("compared with {}\n\n", plan.compared_with);
    for tag in &plan.tags {
        text.push_str(&tag_lines(tag, grace, colour));
    }
    if !plan.tags.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("{}\n", summary(plan)));
    if let Some(fill) = &plan.fill {
        text.push_str(&format!("{}\n", fill_line(fill)));
    }
    for remark in &plan.remarks {
        text.push_str(&format!("! {remark}\n"));
    }
    for tag in &plan.tags {
        if let Some(data) = &tag.data {
            text.push_str(&format!("\n{}\n", paint(&tag.tag, 1, colour)));
            text.push_str(&indent(&data_text(data)));
        }
    }
    text
}

fn indent(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_string() } else { format!("  {line}\n") }).collect()
}

/// How many tags of each fate there are.
pub(super) fn summary(plan: &Plan) -> String {
    let counts = [
        (Fate::Added, "added"),
        (Fate::Changed, "changed"),
        (Fate::Removed, "removed"),
        (Fate::Moved, "moved"),
        (Fate::Metadata, "with other metadata"),
    ];
    let told = counts.map(|(fate, word)| (plan.count(fate), word)).into_iter().filter(|(count, _)| *count > 0);
    let mut parts: Vec<String> = told.map(|(count, word)| format!("{count} {word}")).collect();
    if parts.is_empty() {
        return format!("nothing to do: {} unchanged", plural(plan.unchanged, "tag"));
    }
    parts.push(format!("{} unchanged", plan.unchanged));
    parts.join(", ")
}

fn tag_lines(tag: &TagPlan, grace: Duration, colour: bool) -> String {
    let (sign, code) = match tag.fate {
        Fate::Added => ("+", 32),
        Fate::Changed => ("~", 33),
        Fate::Removed => ("-", 31),
        Fate::Moved => (">", 36),
        Fate::Metadata => ("i", 36),
    };
    let name = format!("{sign} {}", tag.tag);
    let mut text = format!("{}  {}\n", paint(&format!("{name:<28}"), code, colour), fate_words(tag, grace));
    for line in details(tag) {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

/// What becomes of a tag and its state.
pub(super) fn fate_words(tag: &TagPlan, grace: Duration) -> String {
    let kind = tag.kind;
    if let Some(version) = tag.returns_to {
        return format!("{kind}, goes back at once to its version {version}, which is kept up to date");
    }
    match tag.fate {
        Fate::Added => format!("new {kind}, filled from history: {}", tag.file),
        Fate::Changed => format!("{kind}, filled again beside the running version, then swapped in"),
        Fate::Removed => format!("{kind}, its table is retired and kept for {}", humantime::format_duration(grace)),
        Fate::Moved => "moved; state and table stay".to_string(),
        Fate::Metadata => "other metadata; state and table stay".to_string(),
    }
}

/// What else there is to say, a line each.
pub(super) fn details(tag: &TagPlan) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(from) = &tag.moved_from {
        lines.push(format!("moved: {from} → {}", tag.file));
    }
    if matches!(tag.fate, Fate::Changed | Fate::Removed) {
        lines.extend(tag.why.iter().map(|why| format!("why: {why}")));
    }
    if !tag.columns.is_empty() && tag.fate == Fate::Changed {
        lines.push(format!("columns: {}", column_list(&tag.columns)));
    }
    if !tag.metadata.is_empty() {
        lines.push(format!("described anew: {}", tag.metadata.join(", ")));
    }
    if !tag.downstream.is_empty() {
        let downstream: Vec<String> = tag.downstream.iter().map(downstream_words).collect();
        lines.push(format!("downstream: {}", downstream.join("; ")));
    }
    if !tag.readers.is_empty() {
        lines.push(format!("read by: {}", tag.readers.join(", ")));
    }
    match (&tag.complete_from, tag.waits_for_accept) {
        (Some(from), true) => lines.push(format!(
            "! history begins at {from}, later than the query asks: it waits for `tagflow accept {}`",
            tag.tag
        )),
        (Some(from), false) => {
            lines.push(format!(
                "! history begins at {from}, later than the query asks: it is complete only from then on"
            ));
        }
        (None, _) => {}
    }
    lines
}

fn column_list(columns: &[ColumnPlan]) -> String {
    let word = |column: &ColumnPlan| match column.change {
        ColumnChange::Added => format!("{} (new)", column.name),
        ColumnChange::Removed => format!("{} (gone)", column.name),
        ColumnChange::Computed => column.name.clone(),
    };
    columns.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn downstream_words(downstream: &Downstream) -> String {
    let Downstream { tag, kind, columns } = downstream;
    match columns.as_slice() {
        [] => format!("{kind} {tag}"),
        columns => format!("{kind} {tag} ({})", columns.join(", ")),
    }
}

/// How much is read, and how long that takes.
pub(super) fn fill_line(fill: &Fill) -> String {
    let streams: Vec<String> = fill
        .streams
        .iter()
        .map(|stream| match (stream.records, &stream.unknown) {
            (Some(records), _) => format!("{} of {}", grouped(records), stream.stream),
            (None, reason) => {
                let reason = reason.as_deref().unwrap_or("not known");
                format!("an unknown number of {} ({reason})", stream.stream)
            }
        })
        .collect();
    let time = match (fill.records, fill.rows_per_second, fill.seconds) {
        (_, None, _) => {
            "how long that takes is not known, as no fill of 10,000 records or more was measured yet".to_string()
        }
        (_, Some(speed), Some(seconds)) => {
            format!("about {} at {} records/s, as the last fill ran", duration(seconds), grouped(speed.round() as u64))
        }
        (_, Some(speed), None) => format!("at {} records/s, as the last fill ran", grouped(speed.round() as u64)),
    };
    let them = if fill.tags == 1 { "it" } else { "them" };
    format!("to fill {them} these records are read, in one pass: {}; {time}", streams.join(", "))
}

/// A length of time in its two largest units.
fn duration(seconds: f64) -> String {
    let whole = Duration::from_secs(seconds.clamp(1.0, 1e12).round() as u64);
    let text = humantime::format_duration(whole).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How values change, with tables and charts.
pub(super) fn data_text(data: &DataDiff) -> String {
    let found = match data {
        DataDiff::Known(found) => found,
        DataDiff::Unknown { unknown } => return format!("not compared: {unknown}\n"),
    };
    let mut text = format!("{}\n", data_summary(found));
    for column in &found.columns {
        text.push_str(&format!("\n{} is another for {}", column.name, grouped(column.changed as u64)));
        text.push_str(if column.distribution.is_empty() { ":\n" } else { "; by how much:\n" });
        let bars = bars(&column.distribution, BAR);
        text.extend(bars.into_iter().map(|bar| format!("  {bar}\n")));
        for transition in &column.transitions {
            let rows = grouped(transition.rows as u64);
            text.push_str(&format!("  {} → {}: {rows}\n", printable(&transition.from), printable(&transition.to)));
        }
    }
    if !found.biggest.is_empty() {
        text.push_str(&format!("\nthe biggest changes:\n{}\n", biggest(&found.biggest, presets::NOTHING, printable)));
    }
    text
}

/// How many rows change, appear and vanish.
pub(super) fn data_summary(found: &Difference) -> String {
    let Difference { of, rows, sample, same, changed, appear, vanish, .. } = found;
    let of_sample = sample.as_ref().map_or(String::new(), |sample| format!(" in a sample ({sample})"));
    let seen = changed + appear + vanish + same;
    let count = |rows: &usize| grouped(*rows as u64);
    if rows.0 == 0 && *changed == 0 && *same == 0 {
        return format!("{} {of} get a row{of_sample}", count(appear));
    }
    let share = 100.0 * (changed + appear + vanish) as f64 / seen.max(1) as f64;
    format!(
        "of {} {of}{of_sample} {} change value, {} appear, {} vanish: {share:.1}%",
        grouped(seen as u64),
        count(changed),
        count(appear),
        count(vanish)
    )
}

/// A table of rows.
pub(super) fn biggest(rows: &[RowDiff], preset: &str, shown: impl Fn(&str) -> String) -> Table {
    let mut table = Table::new();
    table.load_preset(preset).set_header(["key", "column", "was", "is", "change"]);
    for row in rows {
        let cell = |cell: &Option<String>| cell.as_deref().map(&shown).unwrap_or_default();
        let change = match (&row.change, &row.old, &row.new) {
            (Some(change), ..) => signed(*change),
            (None, None, _) => "appears".to_string(),
            (None, _, None) => "vanishes".to_string(),
            (None, Some(_), Some(_)) => String::new(),
        };
        table.add_row([shown(&row.key), cell(&row.column), cell(&row.old), cell(&row.new), change]);
    }
    for column in [2, 3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Text without what breaks a line, or what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

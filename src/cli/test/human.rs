//! What came of tests, for people: a line a file, tables of what differs, a summary.

use std::collections::BTreeSet;

use chrono::DateTime;
use comfy_table::{Cell as Shown, Color, Table, presets};

use super::{Ran, Report, TagCoverage};
use crate::cli::{paint, plural};
use crate::diagnostic::position;
use crate::engine::verify::{Cell, Difference};
use crate::tag_test::{Failure, Suite, What};

/// Everything.
pub(super) fn describe(report: &Report, suite: &Suite, show: usize, colour: bool) -> String {
    let mut text = String::new();
    for file in &suite.files {
        let own: Vec<&Ran> = report.ran.iter().filter(|ran| ran.file.file == file.file).collect();
        let failed = own.iter().filter(|ran| !ran.passed()).count();
        let tests = plural(file.declared, "test");
        let unsound = file.declared - own.len();
        match failed {
            _ if file.declared == 0 => continue,
            _ if unsound > 0 => {
                let verdict = paint("FAIL", 31, colour);
                let more = if failed > 0 { format!(", {failed} failed") } else { String::new() };
                text.push_str(&format!("{verdict} {} ({unsound} of {tests} cannot run{more})\n", file.file.display()));
            }
            0 => text.push_str(&format!("{} {} ({tests})\n", paint("ok  ", 32, colour), file.file.display())),
            _ => {
                let verdict = paint("FAIL", 31, colour);
                text.push_str(&format!("{verdict} {} ({failed} of {tests})\n", file.file.display()));
            }
        }
        for ran in own.iter().filter(|ran| !ran.passed()) {
            text.push_str(&format!("  {}\n", paint(&ran.test.name, 1, colour)));
            match &ran.outcome {
                Ok(outcome) => {
                    for failure in &outcome.failures {
                        text.push_str(&indent(&describe_failure(failure, suite, show, colour)));
                    }
                }
                Err(reason) => text.push_str(&format!("    cannot run: {reason}\n")),
            }
            text.push('\n');
        }
    }
    for file in report.broken.iter().filter(|file| !suite.files.iter().any(|known| known.file == **file)) {
        text.push_str(&format!("{} {} has errors\n", paint("FAIL", 31, colour), file.display()));
    }
    if !report.untested.is_empty() {
        text.push_str(&format!("without a test: {}\n", report.untested.join(", ")));
    }
    for tag in report.coverage.iter().flatten() {
        text.push_str(&describe_coverage(tag));
    }
    text.push_str(&summary(report, colour));
    text
}

/// What no test of a tag has looked at.
fn describe_coverage(tag: &TagCoverage) -> String {
    let covered = tag.conditions.iter().filter(|condition| condition.missing.is_none()).count();
    let mut text = format!("coverage of {}: {covered} of {}\n", tag.tag, plural(tag.conditions.len(), "condition"));
    for condition in &tag.conditions {
        let Some(missing) = &condition.missing else { continue };
        let (line, column) = position(&tag.text, condition.span.start);
        let (word, sql) = (condition.word, &condition.text);
        text.push_str(&format!("  {}:{line}:{column}: {word} {sql}: {missing}\n", tag.file.display()));
    }
    text
}

fn summary(report: &Report, colour: bool) -> String {
    let tags: BTreeSet<&str> = report.ran.iter().map(|ran| ran.file.tag.as_str()).collect();
    let passed = report.ran.iter().filter(|ran| ran.passed()).count();
    let failed = report.ran.len() - passed;
    let mut parts = vec![format!("{passed} passed")];
    if failed > 0 {
        parts.push(paint(&format!("{failed} failed"), 31, colour));
    }
    if !report.broken.is_empty() {
        parts.push(paint(&format!("{} cannot run", plural(report.broken.len(), "file")), 31, colour));
    }
    let (tests, tags) = (plural(report.ran.len(), "test"), plural(tags.len(), "tag"));
    format!("{tests} of {tags}: {} in {:.1} s\n", parts.join(", "), report.took.as_secs_f64())
}

/// What is not as expected at one moment.
pub(super) fn describe_failure(failure: &Failure, suite: &Suite, show: usize, colour: bool) -> String {
    let (file, span) = &failure.place;
    let line = suite.sources.get(file).map_or(0, |text| position(text, span.start).0);
    let at = DateTime::from_timestamp_nanos(failure.at).with_timezone(&suite.timezone).format("%Y-%m-%d %H:%M:%S%.f");
    let told = |what: &str| format!("{at} ({}:{line}): {what}\n", file.display());
    match &failure.what {
        What::Rows(differences) => told("the rows are not as expected") + &table(differences, show, colour),
        What::Changes(differences) => told("the changes are not as expected") + &table(differences, show, colour),
        What::Disagreement(differences) => {
            let message = "streaming and batch do not agree; the batch answer is shown as expected. Whatever the test \
                           expects, this is a bug of Tagflow, or the answer is not determined by the query";
            told(message) + &table(differences, show, colour)
        }
        What::NoLetter(expected) => told(&format!("no record became a dead letter {expected}")),
        What::Letter(letter) => told(&format!("a record became a dead letter that is not expected: {letter}")),
        What::Fault(reason) => told(&format!("the tag is set aside: {reason}")),
        What::NoFault(reason) => told(&format!("the tag goes on, and was to be set aside for \"{reason}\"")),
        What::Batch(reason) => told(&format!("the batch answer fails: {reason}")),
    }
}

/// Rows that differ, of which as many are shown.
fn table(differences: &[Difference], show: usize, colour: bool) -> String {
    let differing = columns(differences);
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let key = differences.first().map(|first| first.key.iter().map(|(name, _)| name.as_str()));
    let header = std::iter::once("").chain(key.into_iter().flatten()).chain(differing.iter().copied());
    table.set_header(header.collect::<Vec<_>>());
    for difference in differences.iter().take(show) {
        let (kind, tint) = match (&difference.expected, &difference.found) {
            (Some(_), None) => ("missing", Color::Red),
            (None, Some(_)) => ("extra", Color::Yellow),
            _ => ("changed", Color::Cyan),
        };
        let mut row = vec![Shown::new(kind).fg(tint)];
        row.extend(difference.key.iter().map(|(_, value)| Shown::new(value)));
        for name in &differing {
            let cell = |side: &Option<Vec<(String, Cell)>>| {
                let found = side.as_ref()?.iter().find(|(column, _)| column == name);
                found.map(|(_, cell)| cell.clone())
            };
            row.push(match (cell(&difference.expected), cell(&difference.found)) {
                (Some(expected), Some(found)) if !found.equals(&expected) => {
                    Shown::new(format!("{} (expected {})", shown(&found), shown(&expected))).fg(Color::Red)
                }
                (Some(expected), None) => Shown::new(shown(&expected)).fg(tint),
                (None, Some(found)) => Shown::new(shown(&found)).fg(tint),
                (Some(same), Some(_)) => Shown::new(shown(&same)),
                (None, None) => Shown::new(""),
            });
        }
        table.add_row(row);
    }
    let more = differences.len().saturating_sub(show);
    let rest = if more > 0 { format!("and {} more\n", plural(more, "row")) } else { String::new() };
    format!("{table}\n{rest}")
}

/// The columns that say something: all where rows are missing or too many, else those that differ.
fn columns(differences: &[Difference]) -> Vec<&str> {
    let whole = |difference: &&Difference| difference.expected.is_none() || difference.found.is_none();
    let all = |difference: &'_ Difference| -> Vec<(usize, bool)> {
        let pairs = difference.found.iter().flatten().zip(difference.expected.iter().flatten());
        pairs.enumerate().map(|(place, ((_, found), (_, expected)))| (place, !found.equals(expected))).collect()
    };
    let Some(first) = differences.first() else { return Vec::new() };
    let names = first.found.as_ref().or(first.expected.as_ref()).into_iter().flatten().map(|(name, _)| name.as_str());
    if differences.iter().any(|difference| whole(&difference)) {
        return names.collect();
    }
    let differing: BTreeSet<usize> =
        differences.iter().flat_map(all).filter(|(_, differs)| *differs).map(|(place, _)| place).collect();
    names.enumerate().filter(|(place, _)| differing.contains(place)).map(|(_, name)| name).collect()
}

/// A value; text that looks like something else stands in quotes.
fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) if text.is_empty() || text == "NULL" || text.trim() != text => format!("{text:?}"),
        // A line of its own would break the table, and a terminal obeys what else there is.
        Cell::Text(text) => {
            text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
        }
        other => other.to_string(),
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

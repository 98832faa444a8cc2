//! What a test expects beside what was found.

use std::cmp::Ordering;
use std::ops::Range;
use std::path::PathBuf;

use super::{ExpectedChanges, ExpectedLetter, ExpectedRows};
use crate::delta::Clock;
use crate::engine::desired::PlannedTag;
use crate::engine::verify::{Cell, Difference, StoredRows, stored_rows, unlike};
use crate::source::dead_letter::DeadLetter;

/// Why a test fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Which moment of the test.
    pub moment: usize,
    /// Its clock.
    pub at: Clock,
    /// Where what was expected is written: a file and a place in it.
    pub place: (PathBuf, Range<usize>),
    /// What is not as expected.
    pub what: What,
}

/// What is not as expected.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Rows of the table.
    Rows(Vec<Difference>),
    /// Changes since the moment before; the first column says whether the row is written or gone.
    Changes(Vec<Difference>),
    /// The table that streaming leaves is not the batch answer, which is told as expected.
    Disagreement(Vec<Difference>),
    /// No record was put aside that is such a letter.
    NoLetter(String),
    /// A record was put aside.
    Letter(String),
    /// The tag is set aside.
    Fault(String),
    /// The tag goes on where it was to be set aside for this.
    NoFault(String),
    /// The batch answer cannot be had.
    Batch(String),
}

/// What the first column of changes is called.
pub const CHANGE: &str = "change";

/// The rows of `found` and `expected` that differ, with the columns that are compared.
pub(super) fn differences(
    planned: &PlannedTag,
    compared: &[usize],
    found: &StoredRows,
    expected: &StoredRows,
) -> Vec<Difference> {
    let names: Vec<&str> = compared.iter().map(|place| planned.table.columns[*place].name.as_str()).collect();
    named(planned, &names, &part(found, compared), &part(expected, compared))
}

fn named(planned: &PlannedTag, names: &[&str], found: &StoredRows, expected: &StoredRows) -> Vec<Difference> {
    let key =
        |key: &[String]| planned.table.key.iter().map(|column| column.name.clone()).zip(key.iter().cloned()).collect();
    let cells = |cells: &Vec<Cell>| names.iter().map(|name| name.to_string()).zip(cells.iter().cloned()).collect();
    let mut differences: Vec<(&Vec<String>, Difference)> = unlike(found, expected)
        .map(|(of, found, expected)| {
            (of, Difference { key: key(of), found: found.map(cells), expected: expected.map(cells) })
        })
        .collect();
    differences.sort_by(|(left, _), (right, _)| by_key(left, right));
    differences.into_iter().map(|(_, difference)| difference).collect()
}

/// The order of keys: of numbers by their size, of others by their text.
pub(super) fn by_key(left: &[String], right: &[String]) -> Ordering {
    let part = |(left, right): (&String, &String)| match (left.parse::<i128>(), right.parse::<i128>()) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        _ => left.cmp(right),
    };
    left.iter().zip(right).map(part).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// The rows with some of their columns.
pub(super) fn part(rows: &StoredRows, columns: &[usize]) -> StoredRows {
    let cells = |cells: &Vec<Cell>| columns.iter().filter_map(|place| cells.get(*place).cloned()).collect();
    rows.iter().map(|(key, row)| (key.clone(), cells(row))).collect()
}

/// What has changed from one table to the next: the rows as they are now, or as `None` where they are gone.
pub(super) fn changes(before: &StoredRows, now: &StoredRows) -> Vec<(Vec<String>, Option<Vec<Cell>>)> {
    let changed = unlike(before, now).map(|(key, _, now)| (key.clone(), now.cloned()));
    let mut changed: Vec<_> = changed.collect();
    changed.sort_by(|(left, _), (right, _)| by_key(left, right));
    changed
}

/// Changes as rows whose first column says what kind they are.
fn as_rows<'a>(
    changes: impl Iterator<Item = (&'a Vec<String>, Option<&'a Vec<Cell>>)>,
    compared: &[usize],
) -> StoredRows {
    let row = |values: Option<&Vec<Cell>>| {
        let kind = if values.is_some() { "written" } else { "gone" };
        let value = |place: &usize| match values {
            Some(values) => values.get(*place).cloned().unwrap_or(Cell::Null),
            None => Cell::Text("–".to_string()),
        };
        std::iter::once(Cell::Text(kind.to_string())).chain(compared.iter().map(value)).collect()
    };
    changes.map(|(key, values)| (key.clone(), row(values))).collect()
}

/// Rows that are not as expected.
pub(super) fn compare_rows(
    planned: &PlannedTag,
    compared: &[usize],
    found: &StoredRows,
    expected: &ExpectedRows,
    zone: chrono_tz::Tz,
) -> Result<Option<What>, arrow::error::ArrowError> {
    let expected = stored_rows(planned.table.key.len(), &expected.rows, zone)?;
    let differences = differences(planned, compared, found, &expected);
    Ok((!differences.is_empty()).then_some(What::Rows(differences)))
}

/// Changes that are not as expected.
pub(super) fn compare_changes(
    planned: &PlannedTag,
    compared: &[usize],
    (before, now): (&StoredRows, &StoredRows),
    expected: &ExpectedChanges,
    zone: chrono_tz::Tz,
) -> Result<Option<What>, arrow::error::ArrowError> {
    let found = changes(&part(before, compared), &part(now, compared));
    let whole: Vec<usize> = (0..compared.len()).collect();
    let found = as_rows(found.iter().map(|(key, row)| (key, row.as_ref())), &whole);
    let keys = planned.table.key.len();
    let upserts = stored_rows(keys, &expected.upserts, zone)?;
    let deletes = stored_rows(keys, &expected.deletes, zone)?;
    let expected = upserts.iter().map(|(key, row)| (key, Some(row))).chain(deletes.keys().map(|key| (key, None)));
    let expected = as_rows(expected, compared);
    let columns = compared.iter().map(|place| planned.table.columns[*place].name.as_str());
    let names: Vec<&str> = std::iter::once(CHANGE).chain(columns).collect();
    let differences = named(planned, &names, &found, &expected);
    Ok((!differences.is_empty()).then_some(What::Changes(differences)))
}

/// The letters that are not expected, and those that are and did not come: as few as possible.
pub(super) fn unmatched<'a>(
    found: &'a [DeadLetter],
    expected: &'a [ExpectedLetter],
) -> (Vec<&'a DeadLetter>, Vec<&'a ExpectedLetter>) {
    let mut taken_by: Vec<Option<usize>> = vec![None; found.len()];
    let mut missing = Vec::new();
    for (number, letter) in expected.iter().enumerate() {
        let mut tried = vec![false; found.len()];
        if !place(number, expected, found, &mut taken_by, &mut tried) {
            missing.push(letter);
        }
    }
    let left = found.iter().zip(&taken_by).filter(|(_, taken)| taken.is_none()).map(|(letter, _)| letter);
    (left.collect(), missing)
}

/// Finds a letter for an expectation, and others for those that must make room.
fn place(
    number: usize,
    expected: &[ExpectedLetter],
    found: &[DeadLetter],
    taken_by: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for letter in 0..found.len() {
        if tried[letter] || !expected[number].selection.holds(&found[letter]) {
            continue;
        }
        tried[letter] = true;
        if taken_by[letter].is_none_or(|other| place(other, expected, found, taken_by, tried)) {
            taken_by[letter] = Some(number);
            return true;
        }
    }
    false
}

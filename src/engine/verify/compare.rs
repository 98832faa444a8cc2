//! Two answers beside each other, row by row.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono_tz::Tz;

use super::sample::Share;
use crate::engine::desired::PlannedTag;
use crate::sink::cells::{self, CellReader};

/// How a table compares with the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Rows of the answer that were compared.
    pub rows: usize,
    /// Rows that are missing, too many, or different.
    pub differences: usize,
    /// The first of them, by key.
    pub shown: Vec<Difference>,
}

/// A row that is not what it should be; columns by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Its key.
    pub key: Vec<(String, String)>,
    /// What the table holds; `None` where it has no such row.
    pub found: Option<Vec<(String, Cell)>>,
    /// What it should hold; `None` where there should be no such row.
    pub expected: Option<Vec<(String, Cell)>>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// Any value but a floating point number, as text.
    Text(String),
    /// A floating point number.
    Double(f64),
}

impl Cell {
    /// Doubles are equal to one part in 10^9: a batch adds them in another order than the engine's exact sum.
    pub fn equals(&self, other: &Cell) -> bool {
        match (self, other) {
            (Cell::Double(left), Cell::Double(right)) => {
                (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0)
            }
            (left, right) => left == right,
        }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Null => formatter.write_str("NULL"),
            Cell::Text(text) => formatter.write_str(text),
            Cell::Double(value) => value.fmt(formatter),
        }
    }
}

/// Rows by the text of their key.
pub type StoredRows = BTreeMap<Vec<String>, Vec<Cell>>;

/// A row of one of two tables, or of both: the key, and the values on either side.
type Unlike<'a> = (&'a Vec<String>, Option<&'a Vec<Cell>>, Option<&'a Vec<Cell>>);

/// Compares the rows that a table holds with those of an answer that are in its share; `shown` differences are told in full.
pub(super) fn compare(
    planned: &PlannedTag,
    answer: &RecordBatch,
    found: &RecordBatch,
    share: &Share,
    shown: usize,
    zone: Tz,
) -> Result<Comparison, ArrowError> {
    let table = &planned.table;
    let keys = table.key.len();
    let expected = stored_rows(keys, &share.of(answer_rows(planned, answer)?)?, zone)?;
    let found = stored_rows(keys, found, zone)?;
    let mut comparison = Comparison { rows: expected.len(), differences: 0, shown: Vec::new() };
    for (key, found, expected) in unlike(&found, &expected) {
        comparison.differences += 1;
        if comparison.shown.len() < shown {
            let names = table.key.iter().map(|column| column.name.clone());
            let named = |cells: &Vec<Cell>| {
                let names = table.columns.iter().map(|column| column.name.clone());
                names.zip(cells.iter().cloned()).collect()
            };
            comparison.shown.push(Difference {
                key: names.zip(key.iter().cloned()).collect(),
                found: found.map(named),
                expected: expected.map(named),
            });
        }
    }
    Ok(comparison)
}

/// The rows that two tables do not share: what is found and what is expected, first those that are expected.
pub fn unlike<'a>(found: &'a StoredRows, expected: &'a StoredRows) -> impl Iterator<Item = Unlike<'a>> {
    let of_expected = expected.iter().filter_map(|(key, row)| {
        let there = found.get(key);
        let is_same = there.is_some_and(|there| there.iter().zip(row).all(|(left, right)| left.equals(right)));
        (!is_same).then_some((key, there, Some(row)))
    });
    let too_many =
        found.iter().filter(|(key, _)| !expected.contains_key(*key)).map(|(key, row)| (key, Some(row), None));
    of_expected.chain(too_many)
}

/// The answer's rows in the order and types of the table, without those whose key has a NULL.
pub fn answer_rows(planned: &PlannedTag, answer: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = planned.plan.key.iter().chain(&planned.plan.columns);
    let columns: Vec<ArrayRef> =
        columns.map(|column| cast(answer.column(column.index), &column.data_type)).collect::<Result<_, _>>()?;
    let keys = &columns[..planned.plan.key.len()];
    let has_key = |row: usize| keys.iter().all(|key| key.is_valid(row));
    let mask: BooleanArray = (0..answer.num_rows()).map(|row| Some(has_key(row))).collect();
    let named = columns.iter().enumerate().map(|(index, column)| (format!("c{index}"), column.clone(), true));
    filter_record_batch(&RecordBatch::try_from_iter_with_nullable(named)?, &mask)
}

/// Rows as a store has them whose zone is `zone`: what it has no value for is NULL, lists and structs are JSON.
pub fn stored_rows(keys: usize, batch: &RecordBatch, zone: Tz) -> Result<StoredRows, ArrowError> {
    let options = FormatOptions::default();
    let formatters: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
    let values = &batch.columns()[keys..];
    let mut stored: Vec<CellReader> =
        values.iter().map(|column| CellReader::new(column, zone)).collect::<Result<_, _>>()?;
    let mut cell = |index: usize, row: usize| match stored[index].cell(row) {
        cells::Cell::Null | cells::Cell::Unfit => Cell::Null,
        cells::Cell::Real(value) => Cell::Double(value),
        cells::Cell::Text(text) => Cell::Text(text.to_string()),
        _ => Cell::Text(formatters[keys + index].value(row).to_string()),
    };
    let mut rows = StoredRows::new();
    for row in 0..batch.num_rows() {
        let key = (0..keys).map(|index| formatters[index].value(row).to_string()).collect();
        rows.insert(key, (0..values.len()).map(|index| cell(index, row)).collect());
    }
    Ok(rows)
}

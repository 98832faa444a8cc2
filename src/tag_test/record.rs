//! Writes what was found into a test file as what is expected, and leaves all else in it as it is.

use std::path::PathBuf;

use arrow::datatypes::DataType;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, TableLike, Value};

use super::TagTest;
use super::compare::{self, What};
use super::run::{Found, Outcome};
use crate::csv_line::csv_line;
use crate::engine::desired::PlannedTag;
use crate::engine::verify::Cell;
use crate::source::dead_letter::DeadLetter;

/// A file with what was found.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// The test file's text.
    pub text: String,
    /// CSV files and their text.
    pub csv: Vec<(PathBuf, String)>,
    /// By the name of a test, at how many moments something was written.
    pub written: Vec<(String, usize)>,
    /// By the name of a test, why nothing was.
    pub left: Vec<(String, String)>,
}

/// Writes what the tests of one file have found. What is as expected stays as it is written.
///
/// # Errors
/// When the text is no TOML.
pub fn record(text: &str, planned: &PlannedTag, ran: &[(&TagTest, &Outcome)]) -> Result<Recorded, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let mut recorded = Recorded::default();
    for (test, outcome) in ran {
        let is_open = test.expects_nothing();
        if outcome.failures.is_empty() && !is_open {
            continue;
        }
        if let Some(reason) = unfit(test, outcome) {
            recorded.left.push((test.name.clone(), reason));
            continue;
        }
        let mut moments = 0;
        for (index, (moment, found)) in test.moments.iter().zip(&outcome.found).enumerate() {
            let Some(place) = moment_in(&mut document, test.index, index) else { continue };
            let failed = |is_such: fn(&What) -> bool| {
                outcome.failures.iter().any(|failure| failure.moment == index && is_such(&failure.what))
            };
            let writer = Writer { planned, test, found };
            let mut is_written = false;
            if is_open || failed(|what| matches!(what, What::Rows(_))) {
                match moment.rows.as_ref().and_then(|rows| rows.csv.clone()) {
                    Some(csv) => recorded.csv.push((csv, writer.csv())),
                    None => {
                        let rows = writer.rows(place);
                        put(place, "rows", rows);
                    }
                }
                is_written = true;
            }
            if failed(|what| matches!(what, What::Changes(_))) {
                let changes = writer.changes(place);
                put(place, "changes", changes);
                is_written = true;
            }
            if failed(|what| matches!(what, What::Letter(_) | What::NoLetter(_))) {
                match found.letters.is_empty() {
                    true => drop(place.remove("dead_letters")),
                    false => put(place, "dead_letters", letters(&found.letters)),
                }
                is_written = true;
            }
            moments += usize::from(is_written);
        }
        recorded.written.push((test.name.clone(), moments));
    }
    recorded.text = document.to_string();
    Ok(recorded)
}

/// Why what was found is nothing to expect.
fn unfit(test: &TagTest, outcome: &Outcome) -> Option<String> {
    let reason = |what: &What| match what {
        What::Disagreement(_) => Some("streaming and batch do not agree".to_string()),
        What::Batch(reason) => Some(format!("the batch answer fails: {reason}")),
        What::Fault(reason) => Some(format!("the tag is set aside: {reason}")),
        What::NoFault(_) => Some("the tag goes on where it was to be set aside".to_string()),
        What::Rows(_) | What::Changes(_) | What::NoLetter(_) | What::Letter(_) => None,
    };
    let of_failures = outcome.failures.iter().find_map(|failure| reason(&failure.what));
    of_failures.or_else(|| (outcome.found.len() < test.moments.len()).then(|| "it did not come to its end".to_string()))
}

/// The table of a moment, however it is written.
fn moment_in(document: &mut DocumentMut, test: usize, moment: usize) -> Option<&mut dyn TableLike> {
    let test = nth(document.as_table_mut().get_mut("test")?, test)?;
    nth(test.get_mut("moment")?, moment)
}

fn nth(item: &mut Item, index: usize) -> Option<&mut dyn TableLike> {
    match item {
        Item::ArrayOfTables(tables) => ArrayOfTables::get_mut(tables, index).map(|table| table as &mut dyn TableLike),
        Item::Value(Value::Array(items)) => {
            items.get_mut(index)?.as_inline_table_mut().map(|table| table as &mut dyn TableLike)
        }
        _ => None,
    }
}

/// Replaces a value, or adds it at the end; what stands before and behind it stays.
fn put(table: &mut dyn TableLike, key: &str, array: Array) {
    match table.get_mut(key) {
        Some(Item::Value(value)) => {
            let decor = value.decor().clone();
            *value = Value::Array(array);
            *value.decor_mut() = decor;
        }
        _ => {
            table.insert(key, Item::Value(Value::Array(array)));
        }
    }
}

/// Writes what was found at one moment.
struct Writer<'a> {
    planned: &'a PlannedTag,
    test: &'a TagTest,
    found: &'a Found,
}

impl Writer<'_> {
    fn rows(&self, place: &dyn TableLike) -> Array {
        let rows = self.sorted().into_iter().map(|(key, cells)| self.row(key, Some(cells)));
        laid_out(rows.collect(), place.get("rows"), self.planned)
    }

    fn changes(&self, place: &dyn TableLike) -> Array {
        let before = compare::part(&self.found.before, &self.test.compared);
        let now = compare::part(&self.found.rows, &self.test.compared);
        let changed = compare::changes(&before, &now);
        let rows = changed.iter().map(|(key, _)| self.row(key, self.found.rows.get(key)));
        laid_out(rows.collect(), place.get("changes"), self.planned)
    }

    /// The table by key.
    fn sorted(&self) -> Vec<(&Vec<String>, &Vec<Cell>)> {
        let mut rows: Vec<_> = self.found.rows.iter().collect();
        rows.sort_by(|(left, _), (right, _)| compare::by_key(left, right));
        rows
    }

    /// A row, or the key of one that is gone.
    fn row(&self, key: &[String], cells: Option<&Vec<Cell>>) -> InlineTable {
        let table = &self.planned.table;
        let mut row = InlineTable::new();
        for (column, text) in table.key.iter().zip(key) {
            row.insert(&column.name, value(&column.data_type, text));
        }
        match cells {
            Some(cells) => {
                for place in &self.test.compared {
                    let column = &table.columns[*place];
                    match &cells[*place] {
                        // A column that a row does not name is NULL.
                        Cell::Null => {}
                        Cell::Text(text) => drop(row.insert(&column.name, value(&column.data_type, text))),
                        Cell::Double(number) => drop(row.insert(&column.name, double(*number))),
                    }
                }
            }
            None => drop(row.insert("_delete", true.into())),
        }
        row
    }

    /// The rows as a CSV file.
    fn csv(&self) -> String {
        let table = &self.planned.table;
        let compared = || self.test.compared.iter().map(|place| &table.columns[*place]);
        let names = table.key.iter().chain(compared()).map(|column| column.name.clone());
        let mut text = csv_line(names.map(Some));
        for (key, cells) in self.sorted() {
            let values = self.test.compared.iter().map(|place| match &cells[*place] {
                Cell::Null => None,
                other => Some(other.to_string()),
            });
            text.push_str(&csv_line(key.iter().cloned().map(Some).chain(values)));
        }
        text
    }
}

/// Rows as an array of one line each; a row that was there keeps the comments before it.
fn laid_out(rows: Vec<InlineTable>, before: Option<&Item>, planned: &PlannedTag) -> Array {
    let key = |row: &InlineTable| -> Vec<String> {
        let names = planned.table.key.iter().map(|column| column.name.as_str());
        names.map(|name| row.get(name).map(plain).unwrap_or_default()).collect()
    };
    let before = before.and_then(Item::as_array);
    let known: Vec<(Vec<String>, &Value)> =
        before.into_iter().flatten().filter_map(|item| Some((key(item.as_inline_table()?), item))).collect();
    let mut array = Array::new();
    for row in rows {
        let prefix =
            known.iter().find(|(known, _)| *known == key(&row)).and_then(|(_, item)| item.decor().prefix()?.as_str());
        let prefix = prefix.filter(|prefix| prefix.contains('\n')).unwrap_or("\n  ").to_string();
        let mut value = Value::InlineTable(row);
        value.decor_mut().set_prefix(prefix);
        array.push_formatted(value);
    }
    if !array.is_empty() {
        array.set_trailing("\n");
        array.set_trailing_comma(true);
    }
    array
}

/// A value without what stands around it.
fn plain(value: &Value) -> String {
    let mut value = value.clone();
    value.decor_mut().clear();
    value.to_string()
}

/// A value as TOML has it; text where it has no word for it.
fn value(data_type: &DataType, text: &str) -> Value {
    let has_word =
        matches!(data_type, DataType::Boolean | DataType::Date32 | DataType::Timestamp(..)) || data_type.is_numeric();
    text.parse::<Value>().ok().filter(|value| has_word && value.as_str().is_none()).unwrap_or_else(|| text.into())
}

fn double(number: f64) -> Value {
    let text = format!("{number:?}");
    text.parse().unwrap_or_else(|_| number.into())
}

/// The letters as what is expected; of errors the whole.
fn letters(letters: &[DeadLetter]) -> Array {
    let mut array = Array::new();
    for letter in letters {
        let mut table = InlineTable::new();
        table.insert("stream", letter.stream.as_str().into());
        table.insert("kind", letter.kind.name().into());
        table.insert("error", letter.error.as_str().into());
        let mut value = Value::InlineTable(table);
        value.decor_mut().set_prefix("\n  ");
        array.push_formatted(value);
    }
    array.set_trailing("\n");
    array.set_trailing_comma(true);
    array
}

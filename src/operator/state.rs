//! State as it is kept in checkpoints and handed from a fill to the live graph: tables by name.
//!
//! A table's first columns are its key. A checkpoint costs what has changed since the one before it, so an operator can
//! also say which rows of its tables are new or differ, and which keys are gone; `engine::checkpoint` lays that over what
//! it has, without knowing what any table means.

use arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::ArrowPrimitiveType;

use crate::operator::OperatorError;

/// An operator whose state outlives the process.
pub trait Stateful {
    /// All of it.
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError>;

    /// What has changed since this was called last, or since [`Stateful::set_saved`]; all of it where neither was, or where
    /// that is less.
    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError>;

    /// Takes state over: keys of which there are none yet, in parts of all tables. More pieces may follow.
    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError>;

    /// Whether a checkpoint holds what is here now: changes count from here on, or the next ones are all.
    fn set_saved(&mut self, is_saved: bool);
}

/// Rows of one named table of an operator's state.
#[derive(Debug, Clone)]
pub struct StatePart {
    /// The table: `tiles`, `member <fingerprint>` …
    pub name: String,
    /// How many of the first columns are the key, by which a newer row replaces an older one.
    pub key: usize,
    /// The rows.
    pub batch: RecordBatch,
    /// What they are of the table.
    pub extent: Extent,
}

/// What the rows of a part are of their table.
#[derive(Debug, Clone)]
pub enum Extent {
    /// All of it, or the beginning of it.
    Whole,
    /// More of a table that is cut into pieces: keys that no other piece has.
    Rest,
    /// What is new or differs since, and what is gone.
    Changes(Gone),
}

impl Extent {
    /// What further rows of the same part are.
    pub fn rest(&self) -> Extent {
        match self {
            Extent::Whole | Extent::Rest => Extent::Rest,
            Extent::Changes(gone) => Extent::Changes(Gone { keys: gone.keys.slice(0, 0), below: None }),
        }
    }
}

/// Rows that are no more.
#[derive(Debug, Clone)]
pub struct Gone {
    /// Their keys. A row that is there again is among the rows as well.
    pub keys: RecordBatch,
    /// Rows whose first column, a number, lies below this are gone too.
    pub below: Option<i64>,
}

impl StatePart {
    /// All of a table whose first `key` columns are the key.
    pub fn whole(name: impl Into<String>, key: usize, batch: RecordBatch) -> Self {
        StatePart { name: name.into(), key, batch, extent: Extent::Whole }
    }

    /// What has changed of a table whose first `key` columns are the key.
    pub fn changes(name: impl Into<String>, key: usize, batch: RecordBatch, gone: Gone) -> Self {
        StatePart { name: name.into(), key, batch, extent: Extent::Changes(gone) }
    }

    /// The same of no rows: that there is such a table, and what its columns are.
    pub fn without_rows(&self) -> Self {
        StatePart { name: self.name.clone(), key: self.key, batch: self.batch.slice(0, 0), extent: self.extent.rest() }
    }

    /// True where nothing has changed.
    pub fn is_unchanged(&self) -> bool {
        match &self.extent {
            Extent::Whole | Extent::Rest => false,
            Extent::Changes(gone) => self.batch.num_rows() == 0 && gone.keys.num_rows() == 0 && gone.below.is_none(),
        }
    }
}

/// The batches of all parts of that name, or an error that says which is missing.
pub fn find_parts<'a>(
    parts: &'a [StatePart],
    name: &'a str,
) -> Result<impl Iterator<Item = &'a RecordBatch>, OperatorError> {
    let mut found = parts.iter().filter(move |part| part.name == name).map(|part| &part.batch).peekable();
    match found.peek() {
        Some(_) => Ok(found),
        None => Err(OperatorError::State { what: name.to_string(), reason: "it is missing".to_string() }),
    }
}

/// A column of a part as the primitive type that it must have, without NULLs.
pub fn primitive_column<T: ArrowPrimitiveType>(
    batch: &RecordBatch,
    index: usize,
) -> Result<&PrimitiveArray<T>, OperatorError> {
    let column = batch.columns().get(index).and_then(|column| column.as_primitive_opt::<T>());
    column.filter(|column| column.null_count() == 0).ok_or_else(|| OperatorError::State {
        what: format!("column {index}"),
        reason: format!("it is not a column of {} without NULLs", T::DATA_TYPE),
    })
}

/// A column of bytes of a part.
pub fn binary_column(batch: &RecordBatch, index: usize) -> Result<&arrow::array::LargeBinaryArray, OperatorError> {
    batch.columns().get(index).and_then(|column| column.as_binary_opt::<i64>()).ok_or_else(|| OperatorError::State {
        what: format!("column {index}"),
        reason: "it is not a column of bytes".to_string(),
    })
}

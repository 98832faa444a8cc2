//! State as it is kept in checkpoints and handed from a fill to the live graph: Arrow batches by name.

use arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::ArrowPrimitiveType;

use crate::operator::OperatorError;

/// One named table of an operator's state.
#[derive(Debug, Clone)]
pub struct StatePart {
    /// What it is: `keys`, `member <fingerprint>` …
    pub name: String,
    /// Its rows.
    pub batch: RecordBatch,
}

/// The part of that name, or an error that says which is missing.
pub fn find_part<'a>(parts: &'a [StatePart], name: &str) -> Result<&'a RecordBatch, OperatorError> {
    parts
        .iter()
        .find(|part| part.name == name)
        .map(|part| &part.batch)
        .ok_or_else(|| OperatorError::State { what: name.to_string(), reason: "it is missing".to_string() })
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

//! Keys that a store's index cannot hold are found before the rows are written.
//!
//! Enters: a batch whose first columns are a key. Leaves: the rows whose key fits, and how many do not.

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use chrono_tz::Tz;

use super::cells::{Cell, CellReader};

/// How long a value of one key column may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyLimit {
    /// Any length.
    None,
    /// That many characters.
    Chars(usize),
    /// That many bytes.
    Bytes(usize),
}

/// The rows whose key fits.
pub struct FittingRows {
    /// They alone, in their order.
    pub batch: RecordBatch,
    /// Rows that were left out.
    pub rejected: u64,
    /// Why one of them was left out.
    pub sample: Option<String>,
}

/// Leaves out the rows whose key would be cut, blurred or NULL in the store. One limit for each key column.
///
/// # Errors
/// For a column type that no store has.
pub fn fit_keys(batch: &RecordBatch, limits: &[KeyLimit], zone: Tz) -> Result<FittingRows, ArrowError> {
    let mut keep: Option<Vec<bool>> = None;
    let mut sample = None;
    for (index, limit) in limits.iter().enumerate() {
        let column = batch.column(index);
        if always_fits(column, *limit) {
            continue;
        }
        let mut reader = CellReader::of_key(column, zone)?;
        for row in 0..batch.num_rows() {
            let reason = match reader.cell(row) {
                Cell::Null => "is NULL".to_string(),
                Cell::Unfit => "has no exact value in the database".to_string(),
                Cell::Text(text) => match too_long(text, *limit) {
                    Some(reason) => reason,
                    None => continue,
                },
                Cell::Bytes(bytes) => match limit {
                    KeyLimit::Bytes(most) if bytes.len() > *most => {
                        format!("has {} bytes, its index takes {most}", bytes.len())
                    }
                    _ => continue,
                },
                _ => continue,
            };
            if sample.is_none() {
                let value = arrow::util::display::array_value_to_string(column, row)?;
                let short: String = value.chars().take(40).collect();
                sample = Some(format!("key column `{}` {reason}: {short}", batch.schema_ref().field(index).name()));
            }
            keep.get_or_insert_with(|| vec![true; batch.num_rows()])[row] = false;
        }
    }
    let Some(keep) = keep else {
        return Ok(FittingRows { batch: batch.clone(), rejected: 0, sample: None });
    };
    let rejected = keep.iter().filter(|keep| !**keep).count() as u64;
    let batch = filter_record_batch(batch, &BooleanArray::from(keep))?;
    Ok(FittingRows { batch, rejected, sample })
}

/// True without looking at each value: whole numbers and dates in range need no second look at every row.
fn always_fits(column: &ArrayRef, limit: KeyLimit) -> bool {
    if column.logical_null_count() > 0 {
        return false;
    }
    match (column.data_type(), limit) {
        (data_type, _) if data_type.is_integer() => true,
        (DataType::Boolean, _) => true,
        (DataType::Utf8, KeyLimit::None) => true,
        // No value can be longer than all of them together.
        (DataType::Utf8, KeyLimit::Chars(most) | KeyLimit::Bytes(most)) => {
            let offsets = column.as_string::<i32>().value_offsets();
            offsets.windows(2).all(|pair| (pair[1] - pair[0]) as usize <= most)
        }
        _ => false,
    }
}

fn too_long(text: &str, limit: KeyLimit) -> Option<String> {
    let (length, most, what) = match limit {
        KeyLimit::None => return None,
        KeyLimit::Chars(most) if text.len() <= most => return None,
        KeyLimit::Chars(most) => (text.chars().count(), most, "characters"),
        KeyLimit::Bytes(most) => (text.len(), most, "bytes"),
    };
    (length > most).then(|| format!("has {length} {what}, its index takes {most}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn keys_longer_than_the_index_are_left_out_with_a_sample() {
        let names: ArrayRef = Arc::new(StringArray::from(vec!["四个字符", "abcde", "abc"]));
        let users: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_from_iter([("name", names), ("user_id", users)]).unwrap();
        let fitting = fit_keys(&batch, &[KeyLimit::Chars(4), KeyLimit::None], Tz::UTC).unwrap();
        assert_eq!((fitting.batch.num_rows(), fitting.rejected), (2, 1));
        assert_eq!(fitting.sample.as_deref(), Some("key column `name` has 5 characters, its index takes 4: abcde"));
        let fitting = fit_keys(&batch, &[KeyLimit::Bytes(4), KeyLimit::None], Tz::UTC).unwrap();
        assert_eq!((fitting.batch.column(0).len(), fitting.rejected), (1, 2));
    }
}

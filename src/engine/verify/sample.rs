//! Which keys are compared: all, or those whose entity falls into a share by the hash of its text. The same entities come out
//! of every run, in every tag, and a larger sample holds a smaller one.

use std::str::FromStr;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sha2::{Digest, Sha256};

use crate::engine::desired::{Desired, PlannedTag};

/// How many keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// All.
    Whole,
    /// This part of them, from 0 to 1.
    Part(f64),
    /// About so many of each table.
    About(u64),
}

impl FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither a number of keys (1000) nor a part of them (5%)");
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
                let is_part = percent > 0.0 && percent <= 100.0;
                if is_part { Ok(Sample::Part(percent / 100.0)) } else { Err(wrong()) }
            }
            None => text.parse().ok().filter(|keys| *keys > 0).map(Sample::About).ok_or_else(wrong),
        }
    }
}

/// The sample of one table.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// How many.
    pub sample: Sample,
    /// The column of the entity's key.
    pub column: usize,
    /// The rows of the table.
    pub rows: u64,
}

impl Share {
    /// Those rows, with the table's columns in their order, that are compared.
    pub fn of(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let part = match self.sample {
            Sample::Whole => return Ok(rows),
            Sample::Part(part) => part,
            Sample::About(keys) => keys as f64 / self.rows.max(1) as f64,
        };
        if part >= 1.0 {
            return Ok(rows);
        }
        let options = FormatOptions::default();
        let texts = ArrayFormatter::try_new(rows.column(self.column), &options)?;
        let is_in = |row: usize| fraction(&texts.value(row).to_string()) < part;
        let mask: BooleanArray = (0..rows.num_rows()).map(|row| Some(is_in(row))).collect();
        filter_record_batch(&rows, &mask)
    }
}

/// A number from 0 to 1 that stands for a text, evenly spread.
fn fraction(text: &str) -> f64 {
    let digest = Sha256::digest(text.as_bytes());
    let first = digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    first as f64 / u64::MAX as f64
}

/// The column of a tag's table that is its entity's key.
pub fn entity_column(planned: &PlannedTag, desired: &Desired) -> usize {
    let entity = desired.project.config.entities.get(&planned.definition.entity);
    let is_key = |name: &str| entity.is_some_and(|entity| entity.key.eq_ignore_ascii_case(name));
    planned.table.key.iter().position(|column| is_key(&column.name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn chosen(sample: &str, keys: std::ops::Range<i64>) -> Vec<i64> {
        let rows = keys.end as u64;
        let column = Arc::new(Int64Array::from_iter_values(keys)) as _;
        let batch = RecordBatch::try_from_iter([("user_id", column)]).unwrap();
        let share = Share { sample: sample.parse().unwrap(), column: 0, rows };
        share.of(batch).unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn sample_is_the_same_however_the_rows_come_and_larger_ones_hold_smaller_ones() {
        let (some, more) = (chosen("1%", 0..20_000), chosen("500", 0..20_000));
        assert!((150..250).contains(&some.len()) && (400..600).contains(&more.len()), "{} {}", some.len(), more.len());
        assert!(some.iter().all(|key| more.contains(key)));
        let pieces: Vec<i64> = [chosen("1%", 0..7), chosen("1%", 7..20_000)].concat();
        assert_eq!(pieces, some);
        assert_eq!(chosen("100%", 0..50).len(), 50);
        assert_eq!(chosen("50", 0..50).len(), 50);
    }

    #[test]
    fn sample_is_a_number_of_keys_or_a_part_of_them() {
        assert_eq!("0.5%".parse(), Ok(Sample::Part(0.005)));
        assert_eq!("1000".parse(), Ok(Sample::About(1000)));
        for wrong in ["", "0", "-1", "0%", "101%", "NaN%", "all", "1e3"] {
            let told = format!("`{wrong}` is neither a number of keys (1000) nor a part of them (5%)");
            assert_eq!(wrong.parse::<Sample>(), Err(told));
        }
    }
}

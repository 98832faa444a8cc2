//! Rows of which nothing fails. Stateless; the others are told of once, when they come.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter_record_batch, not};

use crate::delta::Delta;
use crate::operator::OperatorError;
use crate::operator::map::filter_delta;
use crate::plan::flow::Soundness;

/// Leaves rows out of which an expression fails.
#[derive(Debug)]
pub struct SoundRows {
    soundness: Soundness,
    failed: Option<FailedRows>,
}

/// The rows of one step that failed.
#[derive(Debug, Clone)]
pub struct FailedRows {
    /// Which they are of, and what may fail.
    pub soundness: Soundness,
    /// The rows; what fails of each is among its columns.
    pub rows: RecordBatch,
}

impl SoundRows {
    /// Over rows that say themselves whether they fail.
    pub fn new(soundness: Soundness) -> Self {
        SoundRows { soundness, failed: None }
    }

    /// What the last step left out.
    pub fn failed(&self) -> Option<&FailedRows> {
        self.failed.as_ref()
    }

    /// The rows that do not fail.
    pub fn step(&mut self, input: &Delta) -> Result<Delta, OperatorError> {
        self.failed = None;
        let mut fails = BooleanBuffer::new_unset(input.num_rows());
        for failure in &self.soundness.failures {
            let flags = input.batch.column(*failure).as_boolean_opt().ok_or_else(|| {
                OperatorError::Expression(format!("column {failure} does not tell whether a row fails"))
            })?;
            let is_true = match flags.nulls() {
                Some(known) => flags.values() & known.inner(),
                None => flags.values().clone(),
            };
            fails = &fails | &is_true;
        }
        if fails.count_set_bits() == 0 {
            return Ok(input.clone());
        }
        let fails = BooleanArray::new(fails, None);
        let arrived: BooleanArray = (0..input.num_rows()).map(|row| Some(input.weight(row) > 0)).collect();
        let told = arrow::compute::and(&fails, &arrived)?;
        if told.true_count() > 0 {
            let rows = filter_record_batch(&input.batch, &told)?;
            self.failed = Some(FailedRows { soundness: self.soundness.clone(), rows });
        }
        filter_delta(input, &not(&fails)?)
    }
}

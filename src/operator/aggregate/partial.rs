//! Partial aggregates as columns: what one accumulator knows, for another to merge.
//!
//! A count is an integer, a sum is the number of its values and their exact sum, an extreme is itself; different values are
//! counted from each value and its count. All but extremes can be taken away again, by a negative weight.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Int64Array, LargeBinaryArray, StructArray};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, Int64Type};

use crate::operator::OperatorError;
use crate::operator::aggregate::accumulator::{Accumulator, Argument, Selection, State};
use crate::operator::aggregate::exact_sum::ExactSum;

impl Accumulator {
    /// What is known of these slots, in the type of [`partial_type`](crate::plan::flow::AggregateCall::partial_type).
    pub fn partials(&self, slots: &[u32]) -> Result<ArrayRef, OperatorError> {
        let counts = || Arc::new(slots.iter().map(|slot| self.counts[*slot as usize]).collect::<Int64Array>());
        match &self.state {
            State::Count => Ok(counts()),
            State::Whole { sums, scale } => {
                let sums = slots.iter().map(|slot| sums[*slot as usize]).collect::<Vec<_>>();
                let sums = Decimal128Array::from(sums).with_precision_and_scale(DECIMAL128_MAX_PRECISION, *scale)?;
                count_and_sum(counts(), Arc::new(sums))
            }
            State::Float { sums } => {
                let bytes = slots.iter().map(|slot| sums[*slot as usize].to_bytes());
                count_and_sum(counts(), Arc::new(LargeBinaryArray::from_iter_values(bytes)))
            }
            State::Distinct { .. } | State::Extreme { .. } | State::Collected(_) => self.evaluate(slots),
        }
    }

    /// Takes partial counts and sums, and values with how often they are there.
    pub(super) fn merge(&mut self, selection: Selection<'_>, argument: &Argument) -> Result<(), OperatorError> {
        let unreadable = || OperatorError::Expression("a partial aggregate cannot be read".to_string());
        let values = argument.values.as_ref().ok_or_else(unreadable)?;
        let part = |index: usize| values.as_struct_opt().and_then(|parts| parts.columns().get(index));
        let counted = match self.state {
            State::Count => values.as_primitive_opt::<Int64Type>(),
            State::Distinct { .. } => part(1).and_then(|counts| counts.as_primitive_opt::<Int64Type>()),
            _ => part(0).and_then(|counts| counts.as_primitive_opt::<Int64Type>()),
        };
        let counted = counted.ok_or_else(unreadable)?.values();
        let counts = &mut self.counts;
        let mut fits = true;
        match &mut self.state {
            State::Count => selection.each(argument, |slot, row, weight| counts[slot] += counted[row] * weight),
            State::Whole { sums, .. } => {
                let partial = part(1).and_then(|sums| sums.as_primitive_opt::<Decimal128Type>());
                let partial = partial.ok_or_else(unreadable)?.values();
                selection.each(argument, |slot, row, weight| {
                    counts[slot] += counted[row] * weight;
                    let scaled = partial[row].checked_mul(i128::from(weight));
                    match scaled.and_then(|sum| sums[slot].checked_add(sum)) {
                        Some(sum) => sums[slot] = sum,
                        None => fits = false,
                    }
                });
            }
            State::Float { sums } => {
                let partial = part(1).and_then(|sums| sums.as_binary_opt::<i64>()).ok_or_else(unreadable)?;
                let mut is_whole = true;
                selection.each(argument, |slot, row, weight| {
                    counts[slot] += counted[row] * weight;
                    match ExactSum::from_bytes(partial.value(row)) {
                        Some(sum) => sums[slot].merge(&sum, weight),
                        None => is_whole = false,
                    }
                });
                if !is_whole {
                    return Err(unreadable());
                }
            }
            State::Distinct { values } => {
                let encoded = argument.encoded.as_ref().ok_or_else(unreadable)?;
                selection.each(argument, |slot, row, weight| {
                    let times = counted[row] * weight;
                    if times != 0 {
                        counts[slot] += times;
                        values.add(slot as u32, encoded.row(row).data(), times);
                    }
                });
            }
            State::Extreme { .. } | State::Collected(_) => return Err(unreadable()),
        }
        if fits { Ok(()) } else { Err(self.overflow()) }
    }
}

fn count_and_sum(counts: ArrayRef, sums: ArrayRef) -> Result<ArrayRef, OperatorError> {
    let fields = vec![Field::new("count", DataType::Int64, true), Field::new("sum", sums.data_type().clone(), true)];
    Ok(Arc::new(StructArray::try_new(fields.into(), vec![counts, sums], None)?))
}

//! What the members read of a batch, computed once: filters and arguments that several share, and in parallel.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::Int64Type;
use rayon::prelude::*;

use crate::operator::aggregate::MemberPlan;
use crate::operator::aggregate::accumulator::Argument;
use crate::operator::{OperatorError, map};
use crate::plan::flow::{AggregateCall, Scalar};

/// One member's view of a batch.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Rows that count for the member; `None` for all.
    pub(crate) mask: Option<BooleanArray>,
    /// How many rows each row stands for; `None` where it is one.
    pub(crate) rows: Option<Vec<i64>>,
    /// One per aggregate.
    pub(crate) arguments: Vec<Argument>,
}

/// Evaluates what all members need. A fault is the fault of one member.
pub(crate) fn prepare(members: &[Arc<MemberPlan>], batch: &RecordBatch) -> Vec<Result<Prepared, OperatorError>> {
    // What cannot fail is evaluated over the whole batch, once for all members that need it.
    let mut conditions: HashMap<&str, &Scalar> = HashMap::new();
    let mut values: HashMap<&str, &Scalar> = HashMap::new();
    for plan in members {
        for stage in plan.member.filter.iter().filter(|stage| !stage.fallible) {
            conditions.insert(&stage.text, stage);
        }
        for call in &plan.member.aggregates {
            if let Some(filter) = call.filter.as_ref().filter(|filter| !filter.fallible) {
                conditions.insert(&filter.text, filter);
            }
            if let Some(argument) = call.argument.as_ref().filter(|argument| !argument.fallible) {
                values.insert(&argument.text, argument);
            }
        }
    }
    let conditions: HashMap<&str, Result<BooleanArray, OperatorError>> =
        conditions.into_par_iter().map(|(text, condition)| (text, map::evaluate_condition(condition, batch))).collect();
    let values: HashMap<&str, Result<ArrayRef, OperatorError>> =
        values.into_par_iter().map(|(text, value)| (text, map::evaluate(value, batch))).collect();
    let shared = Shared { batch, conditions, values };
    members.par_iter().map(|plan| shared.member(plan)).collect()
}

/// The rows that count for any member; `None` when one takes all.
pub(crate) fn any_mask(prepared: &[Result<Prepared, OperatorError>], rows: usize) -> Option<BooleanArray> {
    let mut any = BooleanBuffer::new_unset(rows);
    for member in prepared.iter().flatten() {
        any = &any | member.mask.as_ref()?.values();
    }
    Some(BooleanArray::new(any, None))
}

struct Shared<'a> {
    batch: &'a RecordBatch,
    conditions: HashMap<&'a str, Result<BooleanArray, OperatorError>>,
    values: HashMap<&'a str, Result<ArrayRef, OperatorError>>,
}

impl Shared<'_> {
    fn member(&self, plan: &MemberPlan) -> Result<Prepared, OperatorError> {
        let mut mask: Option<BooleanArray> = None;
        for stage in &plan.member.filter {
            let passed = self.condition(stage, mask.as_ref())?;
            mask = Some(match mask {
                Some(mask) => both(&mask, &passed),
                None => passed,
            });
        }
        let calls = plan.member.aggregates.iter();
        let arguments = calls.map(|call| self.argument(call, mask.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let rows = plan.member.rows.as_ref().map(|rows| map::evaluate(rows, self.batch)).transpose()?;
        let rows = rows.map(|rows| rows.as_primitive::<Int64Type>().iter().map(|rows| rows.unwrap_or(0)).collect());
        Ok(Prepared { mask, rows, arguments })
    }

    fn argument(&self, call: &AggregateCall, mask: Option<&BooleanArray>) -> Result<Argument, OperatorError> {
        let filter = call.filter.as_ref().map(|filter| self.condition(filter, mask)).transpose()?;
        // A value that can fail is computed only where it is used.
        let used = match (&filter, mask) {
            (Some(filter), Some(mask)) => Some(both(filter, mask)),
            (filter, mask) => filter.as_ref().or(mask).cloned(),
        };
        let values = match &call.argument {
            None => None,
            Some(argument) => Some(match self.values.get(argument.text.as_str()) {
                Some(values) => values.clone()?,
                None => scattered(argument, self.batch, used.as_ref())?,
            }),
        };
        Argument::new(call, values, filter)
    }

    fn condition(&self, condition: &Scalar, mask: Option<&BooleanArray>) -> Result<BooleanArray, OperatorError> {
        if let Some(passed) = self.conditions.get(condition.text.as_str()) {
            return passed.clone();
        }
        let passed = scattered(condition, self.batch, mask)?;
        let passed = BooleanArray::from(passed.to_data());
        Ok(if passed.null_count() > 0 { arrow::compute::prep_null_mask_filter(&passed) } else { passed })
    }
}

fn both(left: &BooleanArray, right: &BooleanArray) -> BooleanArray {
    BooleanArray::new(left.values() & right.values(), None)
}

/// The expression over the rows of `mask` alone, in their places, NULL elsewhere.
fn scattered(scalar: &Scalar, batch: &RecordBatch, mask: Option<&BooleanArray>) -> Result<ArrayRef, OperatorError> {
    let Some(mask) = mask else { return map::evaluate(scalar, batch) };
    let kept = filter_record_batch(batch, mask)?;
    let values = map::evaluate(scalar, &kept)?;
    let mut next = 0;
    let places: UInt32Array = mask
        .values()
        .iter()
        .map(|kept| {
            kept.then(|| {
                next += 1;
                next - 1
            })
        })
        .collect();
    Ok(take(&values, &places, None)?)
}

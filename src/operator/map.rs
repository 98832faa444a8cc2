//! Filter and projection: stateless, row by row.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{filter, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;

use crate::delta::Delta;
use crate::operator::OperatorError;
use crate::plan::flow::Scalar;

/// Keeps rows and computes columns.
#[derive(Debug)]
pub struct Map {
    filter: Vec<Scalar>,
    columns: Option<Vec<Scalar>>,
    schema: SchemaRef,
}

impl Map {
    /// A map with that output schema.
    pub fn new(filter: Vec<Scalar>, columns: Option<Vec<Scalar>>, schema: SchemaRef) -> Self {
        Map { filter, columns, schema }
    }

    /// The rows that pass, with their new columns and old weights.
    pub fn step(&self, input: &Delta) -> Result<Delta, OperatorError> {
        let mut kept = Cow::Borrowed(input);
        for stage in &self.filter {
            let mask = evaluate_condition(stage, &kept.batch)?;
            kept = Cow::Owned(filter_delta(&kept, &mask)?);
        }
        let Some(columns) = &self.columns else { return Ok(kept.into_owned()) };
        let arrays =
            columns.iter().map(|column| evaluate(column, &kept.batch)).collect::<Result<Vec<_>, OperatorError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
        Ok(Delta { batch, weights: kept.weights.clone() })
    }
}

/// The values of an expression, one a row.
pub fn evaluate(scalar: &Scalar, batch: &RecordBatch) -> Result<ArrayRef, OperatorError> {
    Ok(scalar.expr.evaluate(batch)?.into_array(batch.num_rows())?)
}

/// A condition as a mask in which NULL is false.
pub fn evaluate_condition(condition: &Scalar, batch: &RecordBatch) -> Result<BooleanArray, OperatorError> {
    let values = evaluate(condition, batch)?;
    let mask = values.as_boolean_opt().ok_or_else(|| {
        OperatorError::Expression(format!(
            "the condition `{}` is {}, not a boolean",
            condition.text,
            values.data_type()
        ))
    })?;
    Ok(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
}

/// The rows for which the mask is true.
pub fn filter_delta(delta: &Delta, mask: &BooleanArray) -> Result<Delta, OperatorError> {
    let batch = filter_record_batch(&delta.batch, mask)?;
    let weights = match &delta.weights {
        Some(weights) => Some(Int64Array::from(filter(weights, mask)?.to_data())),
        None => None,
    };
    Ok(Delta { batch, weights })
}

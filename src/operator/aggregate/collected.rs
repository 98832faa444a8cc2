//! Aggregates that are computed anew from all values of a group: DataFusion's own, over a multiset that can lose rows.
//!
//! It costs memory by the row and time by the group, and serves every function whose result cannot be taken back:
//! medians, ordered lists, bits, correlations.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StructArray, new_empty_array};
use arrow::compute::{SortColumn, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::RowConverter;
use datafusion::common::ScalarValue;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use crate::operator::aggregate::value_set::Multisets;
use crate::operator::{OperatorError, rows};

/// The rows of each slot, and the function over them.
#[derive(Debug)]
pub struct Collected {
    function: Arc<AggregateFunctionExpr>,
    /// The function's arguments and order, as the fields of one value.
    schema: SchemaRef,
    converter: RowConverter,
    pub(crate) values: Multisets,
}

impl Collected {
    /// Without rows; `argument` is the type of the structs that hold what the function reads.
    pub fn new(function: &Arc<AggregateFunctionExpr>, argument: &DataType) -> Result<Self, OperatorError> {
        let DataType::Struct(fields) = argument else {
            return Err(OperatorError::Expression(format!("{} reads {argument}, not a struct", function.name())));
        };
        Ok(Collected {
            function: Arc::clone(function),
            schema: Arc::new(Schema::new(fields.clone())),
            converter: rows::converter([argument])?,
            values: Multisets::default(),
        })
    }

    /// The results of these slots.
    pub fn evaluate(&self, slots: &[u32], output: &DataType) -> Result<ArrayRef, OperatorError> {
        let mut encoded: Vec<&[u8]> = Vec::new();
        let mut ends = Vec::with_capacity(slots.len());
        for slot in slots {
            encoded.extend(rows::repeated(self.values.of(*slot as usize)));
            ends.push(encoded.len());
        }
        let columns = rows::decode(&self.converter, encoded)?;
        let whole = columns.first().and_then(|column| column.as_struct_opt());
        let whole = whole.ok_or_else(|| OperatorError::Expression("no struct was decoded".to_string()))?;
        let mut start = 0;
        let results = ends.into_iter().map(|end| {
            let rows = whole.slice(start, end - start);
            start = end;
            let result = self.result(&rows)?;
            Ok(if result.data_type() == *output { result } else { result.cast_to(output)? })
        });
        let results = results.collect::<Result<Vec<ScalarValue>, OperatorError>>()?;
        if results.is_empty() { Ok(new_empty_array(output)) } else { Ok(ScalarValue::iter_to_array(results)?) }
    }

    fn result(&self, rows: &StructArray) -> Result<ScalarValue, OperatorError> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), rows.columns().to_vec())?;
        let evaluate = |batch: &RecordBatch| -> Result<Vec<ArrayRef>, OperatorError> {
            let order = self.function.order_bys().iter().map(|sort| Arc::clone(&sort.expr));
            let read = self.function.expressions().into_iter().chain(order);
            read.map(|expr| Ok(expr.evaluate(batch)?.into_array(batch.num_rows())?)).collect()
        };
        let sort = self.function.order_bys().iter().map(|sort| {
            let values = sort.expr.evaluate(&batch)?.into_array(batch.num_rows())?;
            Ok(SortColumn { values, options: Some(sort.options) })
        });
        let sort = sort.collect::<Result<Vec<_>, OperatorError>>()?;
        let sorted = if sort.is_empty() || batch.num_rows() < 2 {
            batch
        } else {
            take_record_batch(&batch, &lexsort_to_indices(&sort, None)?)?
        };
        let mut accumulator = self.function.create_accumulator()?;
        accumulator.update_batch(&evaluate(&sorted)?)?;
        Ok(accumulator.evaluate()?)
    }
}

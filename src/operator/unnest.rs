//! One row for each element of a list: UNNEST. Stateless; a row's elements have its weight.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;

use crate::delta::Delta;
use crate::operator::OperatorError;

/// Writes the elements of list columns out.
#[derive(Debug)]
pub struct Unnest {
    /// Which columns are lists to be written out, side by side: the shorter ones end in NULLs.
    lists: Vec<usize>,
    /// A row without elements stays, with NULLs for them.
    keeps_empty: bool,
    schema: SchemaRef,
}

impl Unnest {
    /// Of the lists at these positions; the output has their elements in their places.
    pub fn new(lists: Vec<usize>, keeps_empty: bool, schema: SchemaRef) -> Self {
        Unnest { lists, keeps_empty, schema }
    }

    /// A row for each element, in their order.
    pub fn step(&self, input: &Delta) -> Result<Delta, OperatorError> {
        let lists =
            self.lists.iter().map(|index| as_list(input.batch.column(*index))).collect::<Result<Vec<_>, _>>()?;
        let length = |list: &ListArray, row: usize| if list.is_null(row) { 0 } else { list.value_length(row) as u32 };
        let least = u32::from(self.keeps_empty);
        let longest = |row: usize| lists.iter().map(|list| length(list, row)).max().unwrap_or_default().max(least);
        let mut rows: Vec<u32> = Vec::new();
        let mut places: Vec<Vec<Option<u32>>> = vec![Vec::new(); lists.len()];
        for row in 0..input.num_rows() {
            let count = longest(row);
            rows.extend((0..count).map(|_| row as u32));
            for (list, places) in lists.iter().zip(&mut places) {
                let (start, own) = (list.value_offsets()[row] as u32, length(list, row));
                places.extend((0..count).map(|at| (at < own).then_some(start + at)));
            }
        }
        let rows = UInt32Array::from(rows);
        let columns = input
            .batch
            .columns()
            .iter()
            .enumerate()
            .map(|(index, column)| match self.lists.iter().position(|list| *list == index) {
                Some(list) => take(lists[list].values(), &UInt32Array::from(std::mem::take(&mut places[list])), None),
                None => take(column, &rows, None),
            })
            .collect::<Result<Vec<ArrayRef>, _>>()?;
        let weights = match &input.weights {
            Some(weights) => Some(Int64Array::from(take(weights, &rows, None)?.to_data())),
            None => None,
        };
        Ok(Delta { batch: RecordBatch::try_new(Arc::clone(&self.schema), columns)?, weights })
    }
}

fn as_list(column: &ArrayRef) -> Result<&ListArray, OperatorError> {
    column
        .as_list_opt::<i32>()
        .ok_or_else(|| OperatorError::Expression(format!("UNNEST of {}, which is no list", column.data_type())))
}

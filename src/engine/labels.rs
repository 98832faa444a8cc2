//! Labels: how many values of a tag are none of those that its header gives a name.
//!
//! The count follows the tag's changes; where a table is taken up that is there already, the store counts it once.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, SchemaRef};

use crate::delta::Delta;
use crate::sink::{ColumnRegistration, Sink, SinkError, TagTable};

/// The labelled columns of one tag, and the rows' values outside of their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OutsideLabels {
    /// Names of labelled columns with the values that have a label.
    columns: Vec<(String, BTreeSet<String>)>,
    count: i64,
}

impl OutsideLabels {
    /// Of a tag without rows.
    pub fn of(columns: &[ColumnRegistration]) -> Self {
        let labelled = columns.iter().filter(|column| !column.labels.is_empty());
        let columns = labelled.map(|column| (column.name.clone(), column.labels.keys().cloned().collect())).collect();
        OutsideLabels { columns, count: 0 }
    }

    /// True when no column has labels: there is nothing to count.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Values that are there and have no label.
    pub fn count(&self) -> u64 {
        self.count.max(0).unsigned_abs()
    }

    /// Takes changed rows of the tag: `delta` has the tag's columns, of which the first `keys` are its key.
    pub fn add(&mut self, delta: &Delta, keys: usize) -> Result<(), String> {
        let schema: SchemaRef = delta.batch.schema();
        for (name, labels) in &self.columns {
            let Ok(index) = schema.index_of(name) else { continue };
            if !can_cast_types(schema.field(index).data_type(), &DataType::Utf8) {
                continue;
            }
            let texts = cast(delta.batch.column(index), &DataType::Utf8).map_err(|error| error.to_string())?;
            let texts = texts.as_string::<i32>();
            for row in (0..delta.num_rows()).filter(|row| texts.is_valid(*row)) {
                // A row without a key is in no table.
                let has_key = (0..keys).all(|key| delta.batch.column(key).is_valid(row));
                if has_key && !labels.contains(texts.value(row)) {
                    self.count += delta.weight(row);
                }
            }
        }
        Ok(())
    }

    /// Counts the rows that a table holds.
    pub fn recount(&mut self, sink: &mut dyn Sink, table: &TagTable) -> Result<(), SinkError> {
        self.count = 0;
        for (name, labels) in &self.columns {
            let Some(column) = table.key.iter().chain(&table.columns).find(|column| column.name == *name) else {
                continue;
            };
            for (value, rows) in sink.value_counts(table, column)? {
                if value.is_some_and(|value| !labels.contains(&value)) {
                    self.count += i64::try_from(rows).unwrap_or(i64::MAX);
                }
            }
        }
        Ok(())
    }
}

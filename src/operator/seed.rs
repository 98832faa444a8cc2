//! One row that comes with the first step and stays.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::delta::Delta;
use crate::operator::state::find_parts;
use crate::operator::{OperatorError, StatePart, Stateful};

/// The one table of the state.
const TABLE: &str = "given";

/// Gives its row once.
#[derive(Debug)]
pub struct Seed {
    schema: SchemaRef,
    is_given: bool,
}

impl Seed {
    /// A seed with one boolean column.
    pub fn new(schema: &SchemaRef) -> Self {
        Seed { schema: Arc::clone(schema), is_given: false }
    }

    /// The row, if it was not given yet.
    pub fn step(&mut self) -> Result<Delta, OperatorError> {
        if std::mem::replace(&mut self.is_given, true) {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let row = BooleanArray::from(vec![true]);
        Ok(Delta::inserts(RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::new(row)])?))
    }
}

/// It has a bit to keep, and always gives all of it.
impl Stateful for Seed {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let schema = Schema::new(vec![Field::new("given", DataType::Boolean, false)]);
        let given = BooleanArray::from(vec![true; usize::from(self.is_given)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(given)])?;
        Ok(vec![StatePart::whole(TABLE, 1, batch)])
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        self.snapshot()
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        self.is_given = find_parts(parts, TABLE)?.any(|batch| batch.num_rows() > 0);
        Ok(())
    }

    fn set_saved(&mut self, _: bool) {}
}

//! One row of values of the clock, which is replaced as they move.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use chrono_tz::Tz;

use crate::delta::{Clock, Delta};
use crate::operator::bisect::TurningPoints;
use crate::operator::state::{find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, Stateful};
use crate::plan::clock::{ClockBound, as_integers};

/// The one table of the state.
const TABLE: &str = "given";

/// Gives the row of the first step, and another one whenever the clock has passed one of its values.
#[derive(Debug)]
pub struct ClockRow {
    steps: Vec<TurningPoints>,
    schema: SchemaRef,
    timezone: Tz,
    given: Option<Given>,
}

/// The row that was given last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    /// An instant at which the clock has its values.
    at: Clock,
    /// When the next of them moves.
    until: Clock,
}

impl ClockRow {
    /// A row with these values, one a column.
    pub fn new(steps: Vec<ClockBound>, schema: SchemaRef, timezone: Tz) -> Self {
        let steps = steps.into_iter().map(|step| TurningPoints::new(step, timezone)).collect();
        ClockRow { steps, schema, timezone, given: None }
    }

    /// Moves the clock.
    pub fn step(&mut self, clock: Clock) -> Result<Delta, OperatorError> {
        let before = match self.given {
            Some(given) if clock < given.until => return Ok(Delta::empty(Arc::clone(&self.schema))),
            before => before,
        };
        let instants: Vec<Clock> = before.map(|given| given.at).into_iter().chain([clock]).collect();
        let mut until = Clock::MAX;
        let mut columns: Vec<ArrayRef> = Vec::new();
        for step in &mut self.steps {
            let values = instants.iter().map(|instant| step.bound().clock_value(*instant, self.timezone));
            let values = values.collect::<Result<Vec<ArrayRef>, _>>()?;
            let now = as_integers(&values[values.len() - 1])?;
            until = until.min(step.turn(now.values(), clock)?[0]);
            columns.push(concat(&values.iter().map(AsRef::as_ref).collect::<Vec<_>>())?);
        }
        self.given = Some(Given { at: clock, until });
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(match before {
            Some(_) => Delta::weighted(batch, vec![-1, 1].into()),
            None => Delta::inserts(batch),
        })
    }

    /// When the next row is due.
    pub fn next_timer(&self) -> Option<Clock> {
        self.given.map(|given| given.until)
    }
}

/// It has two numbers to keep, and always gives both.
impl Stateful for ClockRow {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let field = |name| Field::new(name, DataType::Int64, false);
        let schema = Schema::new(vec![field("at"), field("until")]);
        let at = Int64Array::from_iter_values(self.given.map(|given| given.at));
        let until = Int64Array::from_iter_values(self.given.map(|given| given.until));
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(at), Arc::new(until)])?;
        Ok(vec![StatePart::whole(TABLE, 1, batch)])
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        self.snapshot()
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        for batch in find_parts(parts, TABLE)?.filter(|batch| batch.num_rows() > 0) {
            let (at, until) = (primitive_column::<Int64Type>(batch, 0)?, primitive_column::<Int64Type>(batch, 1)?);
            self.given = Some(Given { at: at.value(0), until: until.value(0) });
        }
        Ok(())
    }

    fn set_saved(&mut self, _: bool) {}
}

//! Rows with one boolean more for each comparison with the clock: as the clock passes a row's turning point, the row
//! is retracted and comes back with the flag turned.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, LargeBinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef};
use arrow::row::RowConverter;
use chrono_tz::Tz;

use crate::delta::{Clock, Delta};
use crate::operator::bisect::{NEVER, TurningPoints};
use crate::operator::cold::{Cold, Scratch, Spills};
use crate::operator::due_rows::{DueRows, Kept};
use crate::operator::state::{binary_column, find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, Stateful, map, rows};
use crate::plan::clock::{ClockBound, Comparison, as_integers};

/// In place of a turning point: the row's side is NULL, and so is the flag for ever.
const UNKNOWN: Clock = Clock::MIN;

/// Adds flags to rows, and keeps those of which a flag is still to turn.
#[derive(Debug)]
pub struct ClockFlags {
    flags: Vec<TurningPoints>,
    /// Of the input.
    converter: RowConverter,
    input: SchemaRef,
    output: SchemaRef,
    /// Rows by when their next flag turns.
    turning: DueRows<Turning>,
}

/// The one table of the state.
const TABLE: &str = "turning";

/// A row of which a flag is still to turn.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Turning {
    weight: i64,
    /// When each flag turns.
    turns: Box<[Clock]>,
}

impl ClockFlags {
    /// Over rows of `input`, all of whose columns are nullable; the output has one boolean more for each comparison.
    pub fn new(
        flags: Vec<ClockBound>,
        input: SchemaRef,
        output: SchemaRef,
        timezone: Tz,
    ) -> Result<Self, OperatorError> {
        Ok(ClockFlags {
            flags: flags.into_iter().map(|flag| TurningPoints::new(flag, timezone)).collect(),
            converter: rows::converter(input.fields().iter().map(|field| field.data_type()))?,
            input,
            output,
            turning: DueRows::new(TABLE)?,
        })
    }

    /// Moves the clock and takes new rows.
    pub fn step(&mut self, input: &Delta, clock: Clock) -> Result<Delta, OperatorError> {
        let turned = self.advance(clock)?;
        let taken = self.take(input, clock)?;
        Ok(Delta::concat(&self.output, &[turned, taken].into_iter().flatten().collect::<Vec<_>>())?)
    }

    /// The next instant at which a flag turns.
    pub fn next_timer(&self) -> Option<Clock> {
        self.turning.next()
    }

    /// Rows kept, and the bytes they take in memory.
    pub fn size(&self) -> (usize, usize) {
        self.turning.size()
    }

    fn flag(&self, index: usize, turn: Clock, clock: Clock) -> Option<bool> {
        match self.flags[index].bound().comparison {
            _ if turn == UNKNOWN => None,
            Comparison::AtLeast | Comparison::After => Some(clock < turn),
            Comparison::AtMost | Comparison::Before => Some(clock >= turn),
        }
    }

    /// Rows of which a flag turns up to `clock`: as they were, and as they are.
    fn advance(&mut self, clock: Clock) -> Result<Option<Delta>, OperatorError> {
        let changed = self.turning.take_due(clock)?;
        if changed.is_empty() {
            return Ok(None);
        }
        let rows = changed.iter().flat_map(|(_, row, _)| [row.as_ref(), row.as_ref()]);
        let batch = rows::decode_batch(&self.converter, &self.input, rows)?;
        let flags = (0..self.flags.len()).map(|index| {
            let both = changed.iter().flat_map(|(when, _, turning)| {
                let turn = turning.turns[index];
                [self.flag(index, turn, when - 1), self.flag(index, turn, clock)]
            });
            Arc::new(both.collect::<BooleanArray>()) as ArrayRef
        });
        let columns = batch.columns().iter().cloned().chain(flags).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.output), columns)?;
        let weights: Vec<i64> = changed.iter().flat_map(|(.., turning)| [-turning.weight, turning.weight]).collect();
        let still = changed.into_iter().filter_map(|(_, row, turning)| {
            let next = next_turn(&turning.turns, clock)?;
            Some((next, row, turning))
        });
        self.turning.keep(still.collect())?;
        Ok(Some(Delta::weighted(batch, weights.into())))
    }

    fn take(&mut self, input: &Delta, clock: Clock) -> Result<Option<Delta>, OperatorError> {
        if input.is_empty() {
            return Ok(None);
        }
        let count = input.num_rows();
        let mut turns = vec![vec![UNKNOWN; self.flags.len()]; count];
        for (index, points) in self.flags.iter_mut().enumerate() {
            let values = as_integers(&map::evaluate(&points.bound().row, &input.batch)?)?;
            for (row, turn) in points.turn(values.values(), clock)?.into_iter().enumerate() {
                if values.is_valid(row) {
                    turns[row][index] = turn;
                }
            }
        }
        let flags = (0..self.flags.len()).map(|index| {
            let flags = turns.iter().map(|turns| self.flag(index, turns[index], clock));
            Arc::new(flags.collect::<BooleanArray>()) as ArrayRef
        });
        let columns = input.batch.columns().iter().cloned().chain(flags).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.output), columns)?;
        let encoded = self.converter.convert_columns(input.batch.columns())?;
        let kept = turns.into_iter().enumerate().filter_map(|(row, turns)| {
            let next = next_turn(&turns, clock)?;
            let turning = Turning { weight: input.weight(row), turns: turns.into() };
            Some((next, encoded.row(row).data().into(), turning))
        });
        self.turning.keep(kept.collect())?;
        Ok(Some(Delta { batch, weights: input.weights.clone() }))
    }
}

impl Kept for Turning {
    fn weight(&mut self) -> &mut i64 {
        &mut self.weight
    }

    fn heap_bytes(&self) -> usize {
        rows::heap_bytes(size_of_val(self.turns.as_ref()))
    }

    fn fields() -> Vec<Field> {
        vec![Field::new("weight", DataType::Int64, false), Field::new("turns", DataType::LargeBinary, false)]
    }

    fn columns(all: &[&Self]) -> Vec<ArrayRef> {
        let turns = all.iter().map(|one| one.turns.iter().flat_map(|turn| turn.to_le_bytes()).collect::<Vec<u8>>());
        let weights = Int64Array::from_iter_values(all.iter().map(|one| one.weight));
        vec![Arc::new(weights), Arc::new(LargeBinaryArray::from_iter_values(turns))]
    }

    fn read(table: &RecordBatch, first: usize) -> Result<Vec<Self>, OperatorError> {
        let weights = primitive_column::<Int64Type>(table, first)?.values().iter().enumerate();
        let turns = binary_column(table, first + 1)?;
        let of_row = |row: usize| turns.value(row).as_chunks::<8>().0.iter().map(|turn| Clock::from_le_bytes(*turn));
        Ok(weights.map(|(row, weight)| Turning { weight: *weight, turns: of_row(row).collect() }).collect())
    }
}

impl Stateful for ClockFlags {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        Ok(vec![self.turning.whole()?])
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        match self.turning.take_noted() {
            Some(noted) => Ok(vec![self.turning.changes(&noted)?]),
            None => {
                let all = self.snapshot();
                self.set_saved(true);
                all
            }
        }
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        let width = self.flags.len() * size_of::<Clock>();
        for batch in find_parts(parts, TABLE)? {
            if binary_column(batch, 3)?.iter().flatten().any(|turns| turns.len() != width) {
                let reason = "it has another number of comparisons".to_string();
                return Err(OperatorError::State { what: TABLE.to_string(), reason });
            }
        }
        self.turning.load(parts)
    }

    fn set_saved(&mut self, is_saved: bool) {
        self.turning.set_saved(is_saved);
    }
}

impl Spills for ClockFlags {
    fn in_memory(&self) -> usize {
        self.turning.in_memory()
    }

    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        self.turning.spill(most, scratch)
    }

    fn cold(&self) -> Vec<&Cold> {
        vec![self.turning.cold()]
    }
}

/// When the next flag turns after `clock`.
fn next_turn(turns: &[Clock], clock: Clock) -> Option<Clock> {
    turns.iter().copied().filter(|turn| *turn > clock && *turn != NEVER).min()
}

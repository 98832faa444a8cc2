//! Rows with one boolean more for each comparison with the clock: as the clock passes a row's turning point, the row
//! is retracted and comes back with the flag turned.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, LargeBinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::RowConverter;
use chrono_tz::Tz;

use crate::delta::{Clock, Delta};
use crate::operator::bisect::{NEVER, TurningPoints};
use crate::operator::changed::ChangedRows;
use crate::operator::state::{Gone, binary_column, find_parts, primitive_column};
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
    turning: BTreeMap<Clock, BTreeMap<Box<[u8]>, Turning>>,
    stored: usize,
    bytes: usize,
    /// Rows that are due go by themselves.
    changed: ChangedRows,
    /// Since the last checkpoint rows were due up to here.
    passed: Option<Clock>,
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
            turning: BTreeMap::new(),
            stored: 0,
            bytes: 0,
            changed: ChangedRows::default(),
            passed: None,
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
        self.turning.keys().next().copied()
    }

    /// Rows kept, and the bytes they take.
    pub fn size(&self) -> (usize, usize) {
        (self.stored, self.bytes)
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
        if self.next_timer().is_none_or(|first| first > clock) {
            return Ok(None);
        }
        self.passed = Some(clock);
        let later = self.turning.split_off(&(clock + 1));
        let due = std::mem::replace(&mut self.turning, later);
        let mut changed: Vec<(Box<[u8]>, Turning, Clock)> = Vec::new();
        for (when, rows) in due {
            for (row, turning) in rows {
                self.forget(&row, &turning);
                changed.push((row, turning, when));
            }
        }
        let rows = changed.iter().flat_map(|(row, ..)| [row.as_ref(), row.as_ref()]);
        let batch = rows::decode_batch(&self.converter, &self.input, rows)?;
        let flags = (0..self.flags.len()).map(|index| {
            let both = changed.iter().flat_map(|(_, turning, when)| {
                let turn = turning.turns[index];
                [self.flag(index, turn, when - 1), self.flag(index, turn, clock)]
            });
            Arc::new(both.collect::<BooleanArray>()) as ArrayRef
        });
        let columns = batch.columns().iter().cloned().chain(flags).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.output), columns)?;
        let weights: Vec<i64> = changed.iter().flat_map(|(_, turning, _)| [-turning.weight, turning.weight]).collect();
        for (row, turning, _) in changed {
            self.keep(row, turning, clock);
        }
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
        for (row, turns) in turns.into_iter().enumerate() {
            if next_turn(&turns, clock).is_some() {
                let turning = Turning { weight: input.weight(row), turns: turns.into() };
                self.keep(encoded.row(row).data().into(), turning, clock);
            }
        }
        Ok(Some(Delta { batch, weights: input.weights.clone() }))
    }

    /// Keeps a row until its next flag turns after `clock`, if one does.
    fn keep(&mut self, row: Box<[u8]>, turning: Turning, clock: Clock) {
        let Some(when) = next_turn(&turning.turns, clock) else { return };
        self.changed.note(&when.to_le_bytes(), &row);
        let due = self.turning.entry(when).or_default();
        match due.get_mut(&row) {
            Some(known) => {
                known.weight += turning.weight;
                if known.weight == 0 {
                    let gone = due.remove(&row);
                    if due.is_empty() {
                        self.turning.remove(&when);
                    }
                    if let Some(gone) = gone {
                        self.forget(&row, &gone);
                    }
                }
            }
            None => {
                self.stored += 1;
                self.bytes += bytes_of(&row, &turning);
                due.insert(row, turning);
            }
        }
    }

    fn forget(&mut self, row: &[u8], turning: &Turning) {
        self.stored -= 1;
        self.bytes -= bytes_of(row, turning);
    }
}

fn batch(entries: &[(Clock, &[u8], &Turning)]) -> Result<RecordBatch, OperatorError> {
    let weight = Field::new("weight", DataType::Int64, false);
    let schema =
        Schema::new([rows::due_fields(), vec![weight, Field::new("turns", DataType::LargeBinary, false)]].concat());
    let turns =
        entries.iter().map(|(.., one)| one.turns.iter().flat_map(|turn| turn.to_le_bytes()).collect::<Vec<u8>>());
    let mut columns = rows::due_columns(entries.iter().map(|(when, row, _)| (*when, *row)));
    columns.push(Arc::new(Int64Array::from_iter_values(entries.iter().map(|(.., one)| one.weight))));
    columns.push(Arc::new(LargeBinaryArray::from_iter_values(turns)));
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

impl Stateful for ClockFlags {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let entries =
            self.turning.iter().flat_map(|(when, due)| due.iter().map(|(row, one)| (*when, row.as_ref(), one)));
        Ok(vec![StatePart::whole(TABLE, 2, batch(&entries.collect::<Vec<_>>())?)])
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        let Some(noted) = self.changed.take(self.stored) else {
            let all = self.snapshot();
            self.set_saved(true);
            return all;
        };
        let below = self.passed.take().map(|passed| passed + 1);
        let (mut held, mut gone) = (Vec::new(), Vec::new());
        for (when, row) in noted.iter() {
            let Ok(when) = when.try_into().map(Clock::from_le_bytes) else { continue };
            match self.turning.get(&when).and_then(|due| due.get(row)) {
                Some(one) => held.push((when, row, one)),
                None => gone.push((when, row)),
            }
        }
        let keys =
            RecordBatch::try_new(Arc::new(Schema::new(rows::due_fields())), rows::due_columns(gone.into_iter()))?;
        Ok(vec![StatePart::changes(TABLE, 2, batch(&held)?, Gone { keys, below })])
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        for batch in find_parts(parts, TABLE)? {
            let when = primitive_column::<Int64Type>(batch, 0)?;
            let row = binary_column(batch, 1)?;
            let weight = primitive_column::<Int64Type>(batch, 2)?;
            let turns = binary_column(batch, 3)?;
            for index in 0..batch.num_rows() {
                let (chunks, rest) = turns.value(index).as_chunks::<8>();
                if chunks.len() != self.flags.len() || !rest.is_empty() {
                    let reason = "it has another number of comparisons".to_string();
                    return Err(OperatorError::State { what: TABLE.to_string(), reason });
                }
                let turns = chunks.iter().map(|turn| Clock::from_le_bytes(*turn)).collect();
                let turning = Turning { weight: weight.value(index), turns };
                self.keep(row.value(index).into(), turning, when.value(index) - 1);
            }
        }
        Ok(())
    }

    fn set_saved(&mut self, is_saved: bool) {
        self.passed = None;
        self.changed.set_saved(is_saved, self.stored);
    }
}

/// When the next flag turns after `clock`.
fn next_turn(turns: &[Clock], clock: Clock) -> Option<Clock> {
    turns.iter().copied().filter(|turn| *turn > clock && *turn != NEVER).min()
}

fn bytes_of(row: &[u8], turning: &Turning) -> usize {
    row.len() + size_of_val(turning.turns.as_ref()) + size_of::<(Box<[u8]>, Turning)>()
}

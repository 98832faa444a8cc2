//! Rows while they are visible: each enters and leaves as the clock moves, whether or not an event arrives, or enters
//! when the watermark of a stream has reached it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef};
use arrow::row::RowConverter;
use chrono_tz::Tz;

use crate::delta::{Clock, Delta, Moment};
use crate::operator::bisect::{NEVER, TurningPoints};
use crate::operator::cold::{Cold, Scratch, Spills};
use crate::operator::due_rows::{DueRow, DueRows, Kept};
use crate::operator::state::primitive_column;
use crate::operator::{OperatorError, StatePart, Stateful, map, rows};
use crate::plan::clock::{ClockBound, Comparison, as_integers};

/// What is kept of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scheduled {
    /// How many of it.
    weight: i64,
    /// When it leaves.
    leave: Clock,
}

/// Keeps the rows that will still enter or leave; the others it lets through or drops.
#[derive(Debug)]
pub struct ClockFilter {
    bounds: Vec<TurningPoints>,
    schema: SchemaRef,
    converter: RowConverter,
    /// Rows that are not visible yet, by when they enter.
    waiting: DueRows<Scheduled>,
    /// Rows that are visible, by when they leave.
    visible: DueRows<Scheduled>,
}

impl ClockFilter {
    /// A filter by all of these bounds, which compare with the same clock.
    pub fn new(bounds: Vec<ClockBound>, schema: SchemaRef, timezone: Tz) -> Result<Self, OperatorError> {
        let converter = rows::converter(schema.fields().iter().map(|field| field.data_type()))?;
        Ok(ClockFilter {
            bounds: bounds.into_iter().map(|bound| TurningPoints::new(bound, timezone)).collect(),
            schema,
            converter,
            waiting: DueRows::new("waiting")?,
            visible: DueRows::new("visible")?,
        })
    }

    /// The stream whose watermark is this filter's clock; `None` for the engine's own.
    pub fn stream(&self) -> Option<&str> {
        self.bounds.first().and_then(|points| points.bound().clock.stream())
    }

    /// Moves the clock and takes new rows.
    pub fn step(&mut self, input: &Delta, moment: &Moment) -> Result<Delta, OperatorError> {
        let clock = match self.stream() {
            Some(stream) => moment.watermarks.get(stream).copied().unwrap_or(Clock::MIN),
            None => moment.clock,
        };
        let mut out: Vec<(Box<[u8]>, i64)> = Vec::new();
        self.advance(clock, &mut out)?;
        if !input.is_empty() {
            self.take(input, clock, &mut out)?;
        }
        if out.is_empty() {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let batch = rows::decode_batch(&self.converter, &self.schema, out.iter().map(|(row, _)| row.as_ref()))?;
        Ok(Delta::weighted(batch, out.iter().map(|(_, weight)| *weight).collect::<Vec<_>>().into()))
    }

    /// The next instant of its clock at which a row enters or leaves.
    pub fn next_timer(&self) -> Option<Clock> {
        [self.waiting.next(), self.visible.next()].into_iter().flatten().min()
    }

    /// Rows kept, and the bytes they take in memory.
    pub fn size(&self) -> (usize, usize) {
        let (waiting, visible) = (self.waiting.size(), self.visible.size());
        (waiting.0 + visible.0, waiting.1 + visible.1)
    }

    fn advance(&mut self, clock: Clock, out: &mut Vec<(Box<[u8]>, i64)>) -> Result<(), OperatorError> {
        let mut entered = Vec::new();
        for (_, row, scheduled) in self.waiting.take_due(clock)? {
            if scheduled.leave <= clock {
                continue;
            }
            out.push((row.clone(), scheduled.weight));
            if scheduled.leave != NEVER {
                entered.push((scheduled.leave, row, scheduled));
            }
        }
        self.visible.keep(entered)?;
        let left = self.visible.take_due(clock)?;
        out.extend(left.into_iter().map(|(_, row, scheduled)| (row, -scheduled.weight)));
        Ok(())
    }

    fn take(&mut self, input: &Delta, clock: Clock, out: &mut Vec<(Box<[u8]>, i64)>) -> Result<(), OperatorError> {
        let count = input.num_rows();
        let (mut enter, mut leave) = (vec![clock; count], vec![NEVER; count]);
        for points in &mut self.bounds {
            let values = as_integers(&map::evaluate(&points.bound().row, &input.batch)?)?;
            let turns = points.turn(values.values(), clock)?;
            for row in 0..count {
                if values.is_null(row) {
                    // A comparison with NULL is never true.
                    leave[row] = clock;
                    continue;
                }
                match points.bound().comparison {
                    Comparison::AtLeast | Comparison::After => leave[row] = leave[row].min(turns[row]),
                    Comparison::AtMost | Comparison::Before => enter[row] = enter[row].max(turns[row]),
                }
            }
        }
        let encoded = self.converter.convert_columns(input.batch.columns())?;
        let (mut waiting, mut visible): (Vec<DueRow<Scheduled>>, Vec<DueRow<Scheduled>>) = Default::default();
        for row in 0..count {
            if enter[row] >= leave[row] || leave[row] <= clock || enter[row] == NEVER {
                continue;
            }
            let bytes: Box<[u8]> = encoded.row(row).data().into();
            let scheduled = Scheduled { weight: input.weight(row), leave: leave[row] };
            if enter[row] > clock {
                waiting.push((enter[row], bytes, scheduled));
                continue;
            }
            out.push((bytes.clone(), scheduled.weight));
            if leave[row] != NEVER {
                visible.push((leave[row], bytes, scheduled));
            }
        }
        self.waiting.keep(waiting)?;
        self.visible.keep(visible)
    }
}

impl Kept for Scheduled {
    fn weight(&mut self) -> &mut i64 {
        &mut self.weight
    }

    fn heap_bytes(&self) -> usize {
        0
    }

    fn fields() -> Vec<Field> {
        ["leave", "weight"].map(|name| Field::new(name, DataType::Int64, false)).to_vec()
    }

    fn columns(all: &[&Self]) -> Vec<ArrayRef> {
        let leave = Int64Array::from_iter_values(all.iter().map(|one| one.leave));
        vec![Arc::new(leave), Arc::new(Int64Array::from_iter_values(all.iter().map(|one| one.weight)))]
    }

    fn read(table: &RecordBatch, first: usize) -> Result<Vec<Self>, OperatorError> {
        let leave = primitive_column::<Int64Type>(table, first)?.values().iter();
        let weight = primitive_column::<Int64Type>(table, first + 1)?.values().iter();
        Ok(leave.zip(weight).map(|(leave, weight)| Scheduled { weight: *weight, leave: *leave }).collect())
    }
}

impl Stateful for ClockFilter {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        Ok(vec![self.waiting.whole()?, self.visible.whole()?])
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        let (Some(waiting), Some(visible)) = (self.waiting.take_noted(), self.visible.take_noted()) else {
            let all = self.snapshot();
            self.set_saved(true);
            return all;
        };
        Ok(vec![self.waiting.changes(&waiting)?, self.visible.changes(&visible)?])
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        self.waiting.load(parts)?;
        self.visible.load(parts)
    }

    fn set_saved(&mut self, is_saved: bool) {
        self.waiting.set_saved(is_saved);
        self.visible.set_saved(is_saved);
    }
}

impl Spills for ClockFilter {
    fn in_memory(&self) -> usize {
        self.waiting.in_memory() + self.visible.in_memory()
    }

    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        let gone = self.waiting.spill(most, scratch)?;
        Ok(gone + self.visible.spill(most.saturating_sub(gone), scratch)?)
    }

    fn cold(&self) -> Vec<&Cold> {
        vec![self.waiting.cold(), self.visible.cold()]
    }
}

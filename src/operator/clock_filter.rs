//! Rows while they are visible: each enters and leaves as the clock moves, whether or not an event arrives, or enters
//! when the watermark of a stream has reached it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::RowConverter;
use chrono_tz::Tz;

use crate::delta::{Clock, Delta, Moment};
use crate::operator::bisect::{NEVER, TurningPoints};
use crate::operator::changed::{ChangedRows, NotedRows};
use crate::operator::state::{Gone, binary_column, find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, Stateful, map, rows};
use crate::plan::clock::{ClockBound, Comparison, as_integers};

/// A multiset of rows ordered by an instant at which something happens to them.
type Schedule = BTreeMap<Clock, BTreeMap<Box<[u8]>, Scheduled>>;

/// A row in the schedule.
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
    waiting: Schedule,
    /// Rows that are visible, by when they leave.
    visible: Schedule,
    stored: usize,
    bytes: usize,
    /// Of those that wait and of those that are visible; rows that are due go by themselves.
    changed: [ChangedRows; 2],
    /// Since the last checkpoint rows were due up to here.
    passed: Option<Clock>,
}

/// The tables of the state.
const TABLES: [&str; 2] = ["waiting", "visible"];

impl ClockFilter {
    /// A filter by all of these bounds, which compare with the same clock.
    pub fn new(bounds: Vec<ClockBound>, schema: SchemaRef, timezone: Tz) -> Result<Self, OperatorError> {
        let converter = rows::converter(schema.fields().iter().map(|field| field.data_type()))?;
        Ok(ClockFilter {
            bounds: bounds.into_iter().map(|bound| TurningPoints::new(bound, timezone)).collect(),
            schema,
            converter,
            waiting: Schedule::new(),
            visible: Schedule::new(),
            stored: 0,
            bytes: 0,
            changed: Default::default(),
            passed: None,
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
        self.advance(clock, &mut out);
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
        let first = |schedule: &Schedule| schedule.keys().next().copied();
        [first(&self.waiting), first(&self.visible)].into_iter().flatten().min()
    }

    /// Rows kept, and the bytes they take.
    pub fn size(&self) -> (usize, usize) {
        (self.stored, self.bytes)
    }

    fn advance(&mut self, clock: Clock, out: &mut Vec<(Box<[u8]>, i64)>) {
        if self.next_timer().is_none_or(|first| first > clock) {
            return;
        }
        self.passed = Some(clock);
        for (_, due) in take_due(&mut self.waiting, clock) {
            for (row, Scheduled { weight, leave }) in due {
                self.forget(&row);
                if leave <= clock {
                    continue;
                }
                if leave != NEVER {
                    self.keep(false, leave, row.clone(), Scheduled { weight, leave });
                }
                out.push((row, weight));
            }
        }
        for (_, due) in take_due(&mut self.visible, clock) {
            for (row, Scheduled { weight, .. }) in due {
                self.forget(&row);
                out.push((row, -weight));
            }
        }
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
        for row in 0..count {
            if enter[row] >= leave[row] || leave[row] <= clock || enter[row] == NEVER {
                continue;
            }
            let bytes: Box<[u8]> = encoded.row(row).data().into();
            let scheduled = Scheduled { weight: input.weight(row), leave: leave[row] };
            if enter[row] > clock {
                self.keep(true, enter[row], bytes, scheduled);
                continue;
            }
            out.push((bytes.clone(), scheduled.weight));
            if leave[row] != NEVER {
                self.keep(false, leave[row], bytes, scheduled);
            }
        }
        Ok(())
    }

    fn keep(&mut self, waiting: bool, when: Clock, row: Box<[u8]>, scheduled: Scheduled) {
        self.changed[usize::from(!waiting)].note(&when.to_le_bytes(), &row);
        let schedule = if waiting { &mut self.waiting } else { &mut self.visible };
        let due = schedule.entry(when).or_default();
        match due.get_mut(&row) {
            Some(known) => {
                known.weight += scheduled.weight;
                if known.weight == 0 {
                    due.remove(&row);
                    if due.is_empty() {
                        schedule.remove(&when);
                    }
                    self.forget(&row);
                }
            }
            None => {
                self.stored += 1;
                self.bytes += row.len() + size_of::<(Box<[u8]>, Scheduled)>();
                due.insert(row, scheduled);
            }
        }
    }

    fn forget(&mut self, row: &[u8]) {
        self.stored -= 1;
        self.bytes -= row.len() + size_of::<(Box<[u8]>, Scheduled)>();
    }

    fn schedules(&self) -> [&Schedule; 2] {
        [&self.waiting, &self.visible]
    }
}

fn entries(schedule: &Schedule) -> impl Iterator<Item = (Clock, &[u8], Scheduled)> {
    schedule.iter().flat_map(|(when, due)| due.iter().map(move |(row, one)| (*when, row.as_ref(), *one)))
}

fn batch(entries: &[(Clock, &[u8], Scheduled)]) -> Result<RecordBatch, OperatorError> {
    let number = |name: &str| Field::new(name, DataType::Int64, false);
    let schema = Schema::new([rows::due_fields(), vec![number("leave"), number("weight")]].concat());
    let mut columns = rows::due_columns(entries.iter().map(|(when, row, _)| (*when, *row)));
    columns.push(Arc::new(Int64Array::from_iter_values(entries.iter().map(|(.., one)| one.leave))));
    columns.push(Arc::new(Int64Array::from_iter_values(entries.iter().map(|(.., one)| one.weight))));
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

impl Stateful for ClockFilter {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let part = |(name, schedule): (&str, &Schedule)| {
            Ok(StatePart::whole(name, 2, batch(&entries(schedule).collect::<Vec<_>>())?))
        };
        TABLES.into_iter().zip(self.schedules()).map(part).collect()
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        let noted: Option<Vec<NotedRows>> = self.changed.iter_mut().map(|changed| changed.take(self.stored)).collect();
        let Some(noted) = noted else {
            let all = self.snapshot();
            self.set_saved(true);
            return all;
        };
        let below = self.passed.take().map(|passed| passed + 1);
        let part = |((name, schedule), noted): ((&str, &Schedule), &NotedRows)| {
            let (mut held, mut gone) = (Vec::new(), Vec::new());
            for (when, row) in noted.iter() {
                let Ok(when) = when.try_into().map(Clock::from_le_bytes) else { continue };
                match schedule.get(&when).and_then(|due| due.get(row)) {
                    Some(one) => held.push((when, row, *one)),
                    None => gone.push((when, row)),
                }
            }
            let keys =
                RecordBatch::try_new(Arc::new(Schema::new(rows::due_fields())), rows::due_columns(gone.into_iter()))?;
            Ok(StatePart::changes(name, 2, batch(&held)?, Gone { keys, below }))
        };
        TABLES.into_iter().zip(self.schedules()).zip(&noted).map(part).collect()
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        for (name, waiting) in TABLES.into_iter().zip([true, false]) {
            for batch in find_parts(parts, name)? {
                let when = primitive_column::<Int64Type>(batch, 0)?;
                let row = binary_column(batch, 1)?;
                let leave = primitive_column::<Int64Type>(batch, 2)?;
                let weight = primitive_column::<Int64Type>(batch, 3)?;
                for index in 0..batch.num_rows() {
                    let scheduled = Scheduled { weight: weight.value(index), leave: leave.value(index) };
                    self.keep(waiting, when.value(index), row.value(index).into(), scheduled);
                }
            }
        }
        Ok(())
    }

    fn set_saved(&mut self, is_saved: bool) {
        self.passed = None;
        let rows = self.schedules().map(|schedule| schedule.values().map(BTreeMap::len).sum());
        for (changed, rows) in self.changed.iter_mut().zip(rows) {
            changed.set_saved(is_saved, rows);
        }
    }
}

fn take_due(schedule: &mut Schedule, clock: Clock) -> Schedule {
    if schedule.first_key_value().is_none_or(|(when, _)| *when > clock) {
        return Schedule::new();
    }
    let later = schedule.split_off(&(clock + 1));
    std::mem::replace(schedule, later)
}

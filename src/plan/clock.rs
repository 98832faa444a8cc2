//! Clock comparisons: conditions whose truth changes as time passes.
//!
//! A comparison has a row side without the clock and a clock side without columns. The clock side is a
//! non-decreasing function of the clock, so each row enters and leaves at one instant each, which
//! `operator::clock_filter` finds by bisection. The function is evaluated by DataFusion itself over a column of
//! instants: what it means is what a batch query means by it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, IntervalMonthDayNano, Schema, TimeUnit};
use chrono::DateTime;
use chrono_tz::Tz;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;

use crate::delta::Clock;
use crate::plan::flow::Scalar;
use crate::plan::wording::sql_text;
use crate::plan::{bins, watermark, zone, zone_days};

/// Name of the column of instants (`Timestamp(ns, project zone)`) in the batch that a clock side is evaluated over.
const CLOCK_COLUMN: &str = "__clock";
/// Name of the column of local dates of those instants.
const TODAY_COLUMN: &str = "__today";

/// How a row's value is compared with the clock's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// row >= clock: true until the clock's value has passed the row's.
    AtLeast,
    /// row > clock: true until the clock's value has reached the row's.
    After,
    /// row <= clock: true from when the clock's value has reached the row's.
    AtMost,
    /// row < clock: true from when the clock's value has passed the row's.
    Before,
}

impl Comparison {
    /// True where it holds until the clock has passed the row, false where it holds from then on.
    pub fn is_lower(self) -> bool {
        matches!(self, Comparison::AtLeast | Comparison::After)
    }
}

/// One bound on the time during which a row is visible.
#[derive(Debug, Clone)]
pub struct ClockBound {
    /// The row's value: a date or timestamp, in the same type as the clock's.
    pub row: Scalar,
    /// How the two compare.
    pub comparison: Comparison,
    /// What the row's value is compared with; never decreases.
    pub clock: ClockSide,
    /// Canonical text of the clock side.
    pub clock_text: String,
    /// True when the clock side moves in steps (hours, days) and so takes few values.
    pub stepped: bool,
}

/// The side of a comparison that moves with time.
#[derive(Debug, Clone)]
pub enum ClockSide {
    /// The engine's clock, by an expression over the columns of [`clock_schema`].
    Clock(Arc<dyn PhysicalExpr>),
    /// The watermark of a stream itself.
    Watermark(String),
}

impl ClockSide {
    /// The stream whose watermark it is.
    pub fn stream(&self) -> Option<&str> {
        match self {
            ClockSide::Clock(_) => None,
            ClockSide::Watermark(stream) => Some(stream),
        }
    }
}

/// The columns that a clock side is evaluated over.
pub fn clock_schema(timezone: Tz) -> Schema {
    Schema::new(vec![
        Field::new(CLOCK_COLUMN, DataType::Timestamp(TimeUnit::Nanosecond, Some(timezone.name().into())), false),
        Field::new(TODAY_COLUMN, DataType::Date32, false),
    ])
}

/// True when the expression reads the clock.
pub fn reads_clock(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(clock_function(expr).is_some())).unwrap_or(true)
}

/// True for the clock itself: a call of `now()` or one of its kin.
pub fn is_clock(expr: &Expr) -> bool {
    clock_function(expr).is_some()
}

fn clock_function(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::ScalarFunction(function) => match function.name() {
            name @ ("now" | "current_date" | "current_time" | watermark::WATERMARK) => Some(name),
            _ => None,
        },
        _ => None,
    }
}

/// The clock side over [`clock_schema`], and whether it moves in steps; or why it cannot be one.
pub fn clock_side(expr: &Expr) -> Result<(Expr, bool), String> {
    step_of(expr)?;
    let mut stepped = false;
    let rewritten = expr.clone().transform(|expr| {
        Ok(match clock_function(&expr) {
            Some("now") => Transformed::yes(Expr::Column(Column::from_name(CLOCK_COLUMN))),
            Some("current_date") => {
                stepped = true;
                Transformed::yes(Expr::Column(Column::from_name(TODAY_COLUMN)))
            }
            _ => {
                stepped |= match &expr {
                    Expr::ScalarFunction(function) => matches!(function.name(), "date_trunc" | "date_bin" | bins::BIN),
                    Expr::Cast(cast) => matches!(cast.field.data_type(), DataType::Date32 | DataType::Date64),
                    _ => false,
                };
                Transformed::no(expr)
            }
        })
    });
    rewritten.map(|rewritten| (rewritten.data, stepped)).map_err(|error| error.to_string())
}

/// How an expression of the clock moves, as far as interval arithmetic on it cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// From one local midnight to another.
    Days,
    /// Continuously, or in steps that are no whole days.
    Finer,
}

/// Checks that an expression without columns never decreases as the clock moves.
fn step_of(expr: &Expr) -> Result<Step, String> {
    let unknown = || {
        Err(format!(
            "`{}` may go back as time passes: write NOW() or CURRENT_DATE, also in date_trunc or cast to a date or timestamp, plus or \
             minus a fixed interval",
            sql_text(&expr.to_string())
        ))
    };
    match expr {
        Expr::Literal(..) => Ok(Step::Days),
        Expr::Alias(alias) => step_of(&alias.expr),
        Expr::Cast(cast) => match cast.field.data_type() {
            DataType::Date32 | DataType::Date64 => match cast.expr.as_ref() {
                // The date of another zone, as CURRENT_DATE is that of the project's.
                Expr::ScalarFunction(function) if function.name() == zone::WALL_TIME && !function.args.is_empty() => {
                    step_of(&function.args[0]).map(|_| Step::Days)
                }
                inner => step_of(inner).map(|_| Step::Days),
            },
            DataType::Timestamp(..) => step_of(&cast.expr),
            _ => unknown(),
        },
        Expr::ScalarFunction(function) => match (function.name(), function.args.as_slice()) {
            ("now", []) => Ok(Step::Finer),
            ("current_date", []) => Ok(Step::Days),
            ("date_trunc", [Expr::Literal(unit, _), value]) => {
                let inner = step_of(value)?;
                let unit = unit.to_string().to_lowercase();
                Ok(if matches!(unit.as_str(), "day" | "week" | "month" | "quarter" | "year") {
                    Step::Days
                } else {
                    inner
                })
            }
            (zone::INSTANT | zone::FINER, [value, ..]) => step_of(value),
            (zone::WALL_TIME, [value, ..]) => match step_of(value)? {
                Step::Days => Ok(Step::Days),
                Step::Finer => Err(format!(
                    "`{}` is wall time, which goes back when clocks are put back: compare with NOW() itself",
                    sql_text(&expr.to_string())
                )),
            },
            (bins::BIN, [interval, value, ..]) if bins::is_of_days(interval) => step_of(value).map(|_| Step::Days),
            ("date_bin" | bins::BIN, [Expr::Literal(..), value, ..]) => step_of(value).map(|_| Step::Finer),
            ("to_timestamp" | "to_timestamp_millis" | "to_timestamp_micros" | "to_timestamp_seconds", [value]) => {
                step_of(value)
            }
            ("to_date", [value]) => step_of(value).map(|_| Step::Days),
            _ => unknown(),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (clock, interval) = match (interval_parts(left), interval_parts(right)) {
                (None, Some(interval)) => (left, interval),
                (Some(interval), None) if *op == Operator::Plus => (right, interval),
                _ => return unknown(),
            };
            match (step_of(clock)?, interval) {
                // The 31st less one month is the 30th, as is the 30th: by the second that goes back, by the day it stays.
                (Step::Finer, IntervalParts { months: 1.., .. } | IntervalParts { months: ..=-1, .. }) => Err(format!(
                    "`{}` goes back at the ends of months, where the 31st and the 30th less a month are the same day; \
                     `CURRENT_DATE - INTERVAL '1' MONTH` moves by the day, `NOW() - INTERVAL '30' DAY` by the second",
                    sql_text(&expr.to_string())
                )),
                (Step::Days, IntervalParts { nanoseconds: 0, .. }) => Ok(Step::Days),
                _ => Ok(Step::Finer),
            }
        }
        _ => unknown(),
    }
}

#[derive(Debug, Clone, Copy)]
struct IntervalParts {
    months: i32,
    days: i64,
    nanoseconds: i64,
}

fn interval_parts(expr: &Expr) -> Option<IntervalParts> {
    let parts = |months: i32, days: i64, nanoseconds: i64| Some(IntervalParts { months, days, nanoseconds });
    match expr {
        Expr::Alias(alias) => interval_parts(&alias.expr),
        Expr::Cast(cast) => interval_parts(&cast.expr),
        Expr::Literal(value, _) => match value {
            ScalarValue::IntervalMonthDayNano(Some(value)) => {
                parts(value.months, i64::from(value.days), value.nanoseconds)
            }
            ScalarValue::IntervalDayTime(Some(value)) => {
                parts(0, i64::from(value.days), i64::from(value.milliseconds) * 1_000_000)
            }
            ScalarValue::IntervalYearMonth(Some(months)) => parts(*months, 0, 0),
            ScalarValue::DurationNanosecond(Some(value)) => parts(0, 0, *value),
            ScalarValue::DurationMicrosecond(Some(value)) => parts(0, 0, value.checked_mul(1_000)?),
            ScalarValue::DurationMillisecond(Some(value)) => parts(0, 0, value.checked_mul(1_000_000)?),
            ScalarValue::DurationSecond(Some(value)) => parts(0, 0, value.checked_mul(1_000_000_000)?),
            // A date plus a number of days.
            ScalarValue::Int32(Some(days)) => parts(0, i64::from(*days), 0),
            ScalarValue::Int64(Some(days)) => parts(0, *days, 0),
            _ => None,
        },
        _ => None,
    }
}

/// The least and the most nanoseconds that a fixed interval is: a month has 28 to 31 days.
pub fn interval_range(expr: &Expr) -> Option<(i64, i64)> {
    const DAY: i64 = 86_400_000_000_000;
    let IntervalParts { months, days, nanoseconds } = interval_parts(expr)?;
    let of_months = |days: i64| i64::from(months).checked_mul(days)?.checked_mul(DAY);
    let rest = days.checked_mul(DAY)?.checked_add(nanoseconds)?;
    let (one, other) = (of_months(28)?.checked_add(rest)?, of_months(31)?.checked_add(rest)?);
    Some((one.min(other), one.max(other)))
}

/// For an expression of one time that never decreases as the time grows, but for changes of a zone's clocks: the most
/// nanoseconds by which it may lie above that time. `None` for every other expression.
pub fn rise(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Column(_) => Some(0),
        Expr::Alias(alias) => rise(&alias.expr),
        Expr::Cast(cast) => match cast.field.data_type() {
            DataType::Timestamp(..) | DataType::Date32 => rise(&cast.expr),
            _ => None,
        },
        Expr::ScalarFunction(function) => match (function.name(), function.args.as_slice()) {
            (zone::INSTANT | zone::FINER, [time, ..]) | ("date_trunc", [Expr::Literal(..), time]) => rise(time),
            (zone_days::LATER, [time, interval, ..]) => rise(time)?.checked_add(interval_range(interval)?.1),
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => match interval_range(right) {
            Some((_, most)) => rise(left)?.checked_add(most),
            None => rise(right)?.checked_add(interval_range(left)?.1),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            rise(left)?.checked_sub(interval_range(right)?.0)
        }
        _ => None,
    }
}

/// Makes days that are added to or taken from NOW() 24 hours each.
///
/// By the calendar of a zone with daylight saving, `NOW() - INTERVAL '1' DAY` would go back by an hour once a year and
/// not exist in another. What starts at a midnight (CURRENT_DATE, `date_trunc('day', NOW())`) keeps calendar days.
pub fn with_fixed_days(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    const DAY: i64 = 86_400_000_000_000;
    let fixed = |expr: Expr| {
        let Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let fix = |interval: &Expr, clock: &Expr| -> Option<Expr> {
            let IntervalParts { months: 0, days, nanoseconds } = interval_parts(interval)? else { return None };
            let finer = days != 0 && reads_clock(clock) && step_of(clock) == Ok(Step::Finer);
            let total = days.checked_mul(DAY)?.checked_add(nanoseconds)?;
            let literal = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, total)));
            finer.then(|| Expr::Literal(literal, None))
        };
        let (left, right) = match (fix(left, right), fix(right, left)) {
            (Some(interval), None) if *op == Operator::Plus => (Box::new(interval), right.clone()),
            (None, Some(interval)) => (left.clone(), Box::new(interval)),
            _ => return Ok(Transformed::no(expr)),
        };
        Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op: *op, right })))
    };
    let rewritten = plan.transform_up_with_subqueries(|plan| plan.map_expressions(|expr| expr.transform_up(fixed)))?;
    Ok(rewritten.data)
}

impl ClockBound {
    /// Canonical text, for fingerprints.
    pub fn text(&self) -> String {
        format!("{} {:?} {}", self.row.text, self.comparison, self.clock_text)
    }

    /// The clock side at each of the instants (nanoseconds since the Unix epoch), as integers of its type.
    pub fn clock_values(&self, instants: &[Clock], timezone: Tz) -> DataFusionResult<Int64Array> {
        let ClockSide::Clock(clock) = &self.clock else {
            let unit = self.unit().unwrap_or(1);
            return Ok(instants.iter().map(|instant| Some(instant.div_euclid(unit))).collect());
        };
        match clock.evaluate(&clock_batch(clock, instants, timezone)?) {
            Ok(values) => as_integers(&values.into_array(instants.len())?),
            // One of them may be a midnight that does not exist.
            Err(_) => {
                let value = |instant: &Clock| as_integers(&self.clock_value(*instant, timezone)?);
                instants.iter().map(|instant| Ok(value(instant)?.iter().next().flatten())).collect()
            }
        }
    }

    /// The clock side at an instant, in its own type.
    pub fn clock_value(&self, instant: Clock, timezone: Tz) -> DataFusionResult<ArrayRef> {
        let ClockSide::Clock(clock) = &self.clock else {
            let unit = self.unit().unwrap_or(1);
            let value = Int64Array::from(vec![instant.div_euclid(unit)]);
            return Ok(cast(&value, &self.row.data_type)?);
        };
        match clock.evaluate(&clock_batch(clock, &[instant], timezone)?) {
            Ok(value) => value.into_array(1),
            // Where the clocks are put forward at midnight that midnight does not exist; an hour later there is one.
            Err(error) => {
                const HOUR: Clock = 3_600_000_000_000;
                let later = clock.evaluate(&clock_batch(clock, &[instant + HOUR], timezone)?);
                later.map_err(|_| error)?.into_array(1)
            }
        }
    }

    /// The row's side of a row of that instant, where it is a time as such; `None` for other types.
    pub fn row_value(&self, instant: Clock, timezone: Tz) -> Option<i64> {
        let wall_time = || DateTime::from_timestamp_nanos(instant).with_timezone(&timezone).naive_local().and_utc();
        let time = match &self.row.data_type {
            DataType::Date32 => return Some(i64::from(local_date(instant, timezone))),
            DataType::Timestamp(_, None) | DataType::Date64 => wall_time().timestamp_nanos_opt()?,
            _ => instant,
        };
        Some(time.div_euclid(self.unit()?))
    }

    /// Nanoseconds of one unit of the row's side.
    pub fn unit(&self) -> Option<i64> {
        nanoseconds(&self.row.data_type)
    }

    /// How far behind the clock the clock side is at most, in nanoseconds; `None` when it cannot be told.
    pub fn distance_back(&self, timezone: Tz) -> Option<i64> {
        const DAY: Clock = 86_400_000_000_000;
        // A year of noons from 2024-01-01 on sees every month length, leap day and clock change.
        let instants: Vec<Clock> = (0..366).map(|day| 1_704_110_400_000_000_000 + day * DAY).collect();
        let values = self.clock_values(&instants, timezone).ok()?;
        let unit = self.unit()?;
        // Wall time may be up to 14 hours off UTC, and a step may have begun a day ago: two days cover both.
        instants.iter().zip(values.iter().flatten()).map(|(instant, value)| instant - value * unit + 2 * DAY).max()
    }
}

/// Nanoseconds of one tick of a date or timestamp.
pub fn nanoseconds(data_type: &DataType) -> Option<i64> {
    match data_type {
        DataType::Date32 => Some(86_400_000_000_000),
        DataType::Timestamp(TimeUnit::Second, _) => Some(1_000_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => Some(1_000_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some(1_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(1),
        _ => None,
    }
}

/// Instants as the columns of [`clock_schema`]; the dates are nought where they are not read.
fn clock_batch(clock: &Arc<dyn PhysicalExpr>, instants: &[Clock], timezone: Tz) -> DataFusionResult<RecordBatch> {
    let reads_today = collect_columns(clock).iter().any(|column| column.name() == TODAY_COLUMN);
    let today = |instant: &Clock| if reads_today { local_date(*instant, timezone) } else { 0 };
    let today = Date32Array::from_iter_values(instants.iter().map(today));
    let now = TimestampNanosecondArray::from(instants.to_vec()).with_timezone(timezone.name());
    Ok(RecordBatch::try_new(Arc::new(clock_schema(timezone)), vec![Arc::new(now), Arc::new(today)])?)
}

/// Days since 1970-01-01 of the local date at an instant.
fn local_date(instant: Clock, timezone: Tz) -> i32 {
    let date = DateTime::from_timestamp_nanos(instant).with_timezone(&timezone).date_naive();
    Date32Type::from_naive_date(date)
}

/// Dates and timestamps as the integers that they are.
pub fn as_integers(values: &ArrayRef) -> DataFusionResult<Int64Array> {
    let integers = match values.data_type() {
        DataType::Date32 => cast(&cast(values, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(values, &DataType::Int64)?,
    };
    Ok(integers.as_primitive::<Int64Type>().clone())
}

/// A conjunct that reads the clock, split into `(row side, comparison, clock side)`; `=` gives two.
/// `None` when it is not of a form that can be followed.
pub fn split_comparison(expr: &Expr) -> Option<Vec<(Expr, Comparison, Expr)>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (row, op, clock) = match (reads_clock(left), reads_clock(right)) {
                (false, true) => (left, *op, right),
                (true, false) => (right, op.swap()?, left),
                _ => return None,
            };
            if has_columns(clock) {
                return None;
            }
            let comparisons = match op {
                Operator::GtEq => vec![Comparison::AtLeast],
                Operator::Gt => vec![Comparison::After],
                Operator::LtEq => vec![Comparison::AtMost],
                Operator::Lt => vec![Comparison::Before],
                Operator::Eq => vec![Comparison::AtLeast, Comparison::AtMost],
                _ => return None,
            };
            Some(comparisons.into_iter().map(|comparison| ((**row).clone(), comparison, (**clock).clone())).collect())
        }
        Expr::Between(between) if !between.negated => {
            let mut bounds = Vec::new();
            for (limit, op) in [(&between.low, Operator::GtEq), (&between.high, Operator::LtEq)] {
                let part = Expr::BinaryExpr(BinaryExpr { left: between.expr.clone(), op, right: limit.clone() });
                bounds.extend(split_comparison(&part)?);
            }
            Some(bounds)
        }
        _ => None,
    }
}

fn has_columns(expr: &Expr) -> bool {
    let mut found = false;
    let walked: DataFusionResult<TreeNodeRecursion> = expr.apply(|expr| {
        found |= matches!(expr, Expr::Column(_));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found || walked.is_err()
}

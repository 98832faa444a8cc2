//! Clock comparisons: conditions whose truth changes as time passes.
//!
//! A comparison has a row side without the clock and a clock side without columns. The clock side is a
//! non-decreasing function of the clock, so each row enters and leaves at one instant each, which
//! `operator::clock_filter` finds by bisection. The function is evaluated by DataFusion itself over a column of
//! instants: what it means is what a batch query means by it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, Schema, TimeUnit};
use chrono::DateTime;
use chrono_tz::Tz;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;

use crate::delta::Clock;
use crate::plan::flow::Scalar;

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

/// One bound on the time during which a row is visible.
#[derive(Debug, Clone)]
pub struct ClockBound {
    /// The row's value: a date or timestamp, in the same type as the clock's.
    pub row: Scalar,
    /// How the two compare.
    pub comparison: Comparison,
    /// The clock's value over the columns of [`clock_schema`]; never decreases as the clock moves.
    pub clock: Arc<dyn PhysicalExpr>,
    /// Canonical text of the clock side.
    pub clock_text: String,
    /// True when the clock side moves in steps (hours, days) and so takes few values.
    pub stepped: bool,
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

fn clock_function(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::ScalarFunction(function) => match function.name() {
            name @ ("now" | "current_date" | "current_time") => Some(name),
            _ => None,
        },
        _ => None,
    }
}

/// The clock side over [`clock_schema`], or why it cannot be one.
pub fn clock_side(expr: &Expr) -> Result<(Expr, bool), String> {
    if !is_monotone(expr) {
        return Err(format!(
            "the clock side `{expr}` must never decrease as time passes: only NOW(), CURRENT_DATE, date_trunc, casts to a \
             date or timestamp, and adding or subtracting a fixed interval are allowed"
        ));
    }
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
                    Expr::ScalarFunction(function) => matches!(function.name(), "date_trunc" | "date_bin"),
                    Expr::Cast(cast) => matches!(cast.field.data_type(), DataType::Date32 | DataType::Date64),
                    _ => false,
                };
                Transformed::no(expr)
            }
        })
    });
    rewritten.map(|rewritten| (rewritten.data, stepped)).map_err(|error| error.to_string())
}

impl ClockBound {
    /// The clock side at each of the instants (nanoseconds since the Unix epoch), as integers of its type.
    pub fn clock_values(&self, instants: &[Clock], timezone: Tz) -> DataFusionResult<Int64Array> {
        let today: Date32Array =
            Date32Array::from_iter_values(instants.iter().map(|instant| local_date(*instant, timezone)));
        let now = TimestampNanosecondArray::from(instants.to_vec()).with_timezone(timezone.name());
        let schema = Arc::new(clock_schema(timezone));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(now), Arc::new(today)])?;
        let values = self.clock.evaluate(&batch)?.into_array(instants.len())?;
        as_integers(&values)
    }

    /// How far behind the clock the clock side is at most, in nanoseconds; `None` when it cannot be told.
    pub fn distance_back(&self, timezone: Tz) -> Option<i64> {
        const DAY: Clock = 86_400_000_000_000;
        // A year of noons from 2024-01-01 on sees every month length, leap day and clock change.
        let instants: Vec<Clock> = (0..366).map(|day| 1_704_110_400_000_000_000 + day * DAY).collect();
        let values = self.clock_values(&instants, timezone).ok()?;
        let unit = match &self.row.data_type {
            DataType::Date32 => DAY,
            DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
            DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => 1_000_000,
            DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
            _ => return None,
        };
        // Wall time may be up to 14 hours off UTC, and a step may have begun a day ago: two days cover both.
        instants.iter().zip(values.iter().flatten()).map(|(instant, value)| instant - value * unit + 2 * DAY).max()
    }
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

/// Whether an expression without columns never decreases as the clock moves.
fn is_monotone(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Alias(alias) => is_monotone(&alias.expr),
        Expr::Cast(cast) => is_monotone(&cast.expr) && is_instant_type(cast.field.data_type()),
        Expr::ScalarFunction(function) => match function.name() {
            "now" | "current_date" => true,
            "date_trunc" => {
                matches!(function.args.first(), Some(Expr::Literal(..)))
                    && function.args.get(1).is_some_and(is_monotone)
            }
            "date_bin" => {
                matches!(function.args.first(), Some(Expr::Literal(..)))
                    && function.args.get(1).is_some_and(is_monotone)
                    && function.args.get(2).is_none_or(|origin| matches!(origin, Expr::Literal(..)))
            }
            "to_timestamp" | "to_timestamp_millis" | "to_timestamp_micros" | "to_timestamp_seconds" | "to_date" => {
                function.args.len() == 1 && is_monotone(&function.args[0])
            }
            _ => false,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            is_monotone(left) && is_interval(right) || is_interval(left) && is_monotone(right)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => is_monotone(left) && is_interval(right),
        _ => false,
    }
}

fn is_instant_type(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

fn is_interval(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => matches!(
            value,
            ScalarValue::IntervalMonthDayNano(_)
                | ScalarValue::IntervalDayTime(_)
                | ScalarValue::IntervalYearMonth(_)
                | ScalarValue::DurationNanosecond(_)
                | ScalarValue::DurationMicrosecond(_)
                | ScalarValue::DurationMillisecond(_)
                | ScalarValue::DurationSecond(_)
                | ScalarValue::Int32(_)
                | ScalarValue::Int64(_)
        ),
        Expr::Cast(cast) => is_interval(&cast.expr),
        Expr::Alias(alias) => is_interval(&alias.expr),
        _ => false,
    }
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

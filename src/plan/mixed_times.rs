//! Wall time, instants, dates, texts and numbers of times beside each other, each in the meaning that SQL gives it.
//!
//! DataFusion drops the hours of an interval that is added to a date; takes `to_timestamp` of a number as wall time of UTC;
//! subtracts a wall time from an instant as if it were UTC; makes `AT TIME ZONE` an instant that is shown in another zone,
//! where SQL makes wall time of an instant and an instant of wall time; and reads a text beside a timestamp, or the date of
//! `date_trunc`, in nanoseconds, which end in 2262. Runs before type coercion.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::each_expression;
use crate::plan::clock::reads_clock;
use crate::plan::zone::{INSTANT, WALL_TIME, ZoneFunction, named_zone};

/// How the zone of an `AT TIME ZONE` begins, to tell it from that of a cast.
pub const AT: &str = "at time zone ";

/// The rule.
#[derive(Debug)]
pub struct MixedTimes;

impl AnalyzerRule for MixedTimes {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let project: Arc<str> = config.execution.time_zone.as_deref().unwrap_or("UTC").into();
        each_expression(plan, |expr, schema| rewritten(expr, schema, &project))
    }

    fn name(&self) -> &str {
        "mixed_times"
    }
}

fn rewritten(expr: Expr, schema: &DFSchema, project: &Arc<str>) -> Result<Transformed<Expr>> {
    let type_of = |expr: &Expr| expr.get_type(schema).ok();
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right })
            if is_date(type_of(&left)) && has_hours(&right) =>
        {
            let left = as_type(left, MIDNIGHT);
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right })
            if is_date(type_of(&right)) && has_hours(&left) =>
        {
            let right = as_type(right, MIDNIGHT);
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right })))
        }
        Expr::Cast(Cast { expr, field }) => match field.data_type() {
            DataType::Timestamp(_, Some(zone)) if zone.starts_with(AT) => {
                let zone: Arc<str> = zone[AT.len()..].into();
                at_time_zone(*expr, &zone, schema, project).map(Transformed::yes)
            }
            _ => Ok(Transformed::no(Expr::Cast(Cast { expr, field }))),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            let (left, right) = match (type_of(&left), type_of(&right)) {
                (Some(DataType::Timestamp(_, Some(zone))), Some(DataType::Timestamp(unit, None))) => {
                    (left, as_type(right, DataType::Timestamp(unit, Some(zone))))
                }
                (Some(DataType::Timestamp(unit, None)), Some(DataType::Timestamp(_, Some(zone)))) => {
                    (as_type(left, DataType::Timestamp(unit, Some(zone))), right)
                }
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }))),
            };
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right })))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            let (right, of_right) = beside(type_of(&left), right);
            let (left, of_left) = beside(type_of(&right), left);
            Ok(Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), of_left || of_right))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let ((low, of_low), (high, of_high)) = (beside(type_of(&expr), low), beside(type_of(&expr), high));
            Ok(Transformed::new_transformed(Expr::Between(Between { expr, negated, low, high }), of_low || of_high))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let list: Vec<(Box<Expr>, bool)> =
                list.into_iter().map(|item| beside(type_of(&expr), Box::new(item))).collect();
            let changed = list.iter().any(|(_, changed)| *changed);
            let list = list.into_iter().map(|(item, _)| *item).collect();
            Ok(Transformed::new_transformed(Expr::InList(InList { expr, list, negated }), changed))
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args }) => match (func.name(), args.as_mut_slice()) {
            ("date_trunc", [_, time]) if is_date(type_of(time)) && !reads_clock(time) => {
                *time = Expr::Cast(Cast::new(Box::new(time.clone()), MIDNIGHT));
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
            }
            ("to_timestamp", [seconds]) if type_of(seconds).is_some_and(|found| found.is_integer()) => {
                let instant = DataType::Timestamp(TimeUnit::Second, Some(Arc::clone(project)));
                let seconds = Expr::Cast(Cast::new(Box::new(seconds.clone()), DataType::Int64));
                Ok(Transformed::yes(Expr::Cast(Cast::new(Box::new(seconds), instant))))
            }
            _ => Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))),
        },
        other => Ok(Transformed::no(other)),
    }
}

/// The time at which a date begins.
const MIDNIGHT: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn is_date(data_type: Option<DataType>) -> bool {
    matches!(data_type, Some(DataType::Date32 | DataType::Date64))
}

/// True for an interval that is no number of days.
fn has_hours(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.nanoseconds != 0)
}

fn as_type(expr: Box<Expr>, data_type: DataType) -> Box<Expr> {
    Box::new(Expr::Cast(Cast::new(expr, data_type)))
}

/// A text beside a timestamp as one in microseconds.
fn beside(other: Option<DataType>, text: Box<Expr>) -> (Box<Expr>, bool) {
    let is_text =
        matches!(text.as_ref(), Expr::Literal(ScalarValue::Utf8(Some(_)) | ScalarValue::Utf8View(Some(_)), _));
    match other {
        Some(DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, zone))
            if is_text =>
        {
            (as_type(text, DataType::Timestamp(TimeUnit::Microsecond, zone)), true)
        }
        _ => (text, false),
    }
}

/// `instant AT TIME ZONE zone` is wall time there, `wall time AT TIME ZONE zone` the instant at which it is that there.
fn at_time_zone(time: Expr, zone: &Arc<str>, schema: &DFSchema, project: &Arc<str>) -> Result<Expr> {
    named_zone(zone)?;
    let call = |name, unit, time| ZoneFunction::new(name, zone, unit).of(time);
    let instant = |unit, time| {
        // The same instant, shown in the project's zone.
        Expr::Cast(Cast::new(Box::new(call(INSTANT, unit, time)), DataType::Timestamp(unit, Some(Arc::clone(project)))))
    };
    match time.get_type(schema)? {
        DataType::Timestamp(unit, Some(_)) => Ok(call(WALL_TIME, unit, time)),
        DataType::Timestamp(unit, None) => Ok(instant(unit, time)),
        DataType::Date32 | DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
            let unit = TimeUnit::Microsecond;
            Ok(instant(unit, Expr::Cast(Cast::new(Box::new(time), DataType::Timestamp(unit, None)))))
        }
        other => plan_err!("AT TIME ZONE is of a timestamp, not of a {other}"),
    }
}

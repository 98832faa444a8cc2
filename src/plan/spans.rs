//! Lengths of time: what one timestamp less another is, compared with an INTERVAL. DataFusion would compare months, then
//! days, then nanoseconds, and 36 hours would be less than `INTERVAL '1' DAY`, as they have no days. And their seconds, of
//! which DataFusion gives the whole ones alone.

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, cast, lit};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::each_expression;

const DAY: i64 = 86_400_000_000_000;

/// Compares lengths of time with fixed intervals as lengths of time, and counts their seconds; runs before type coercion.
#[derive(Debug)]
pub struct Spans;

impl AnalyzerRule for Spans {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        each_expression(plan, as_lengths)
    }

    fn name(&self) -> &str {
        "spans"
    }
}

fn as_lengths(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            let (mut left, mut right) = (*left, *right);
            let changed = length_beside(&left, &mut right, schema)? || length_beside(&right, &mut left, schema)?;
            let (left, right) = (Box::new(left), Box::new(right));
            Ok(Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), changed))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (mut low, mut high) = (*low, *high);
            let changed = length_beside(&expr, &mut low, schema)? | length_beside(&expr, &mut high, schema)?;
            let between = Between { expr, negated, low: Box::new(low), high: Box::new(high) };
            Ok(Transformed::new_transformed(Expr::Between(between), changed))
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => match (func.name(), args.as_slice()) {
            ("date_part", [Expr::Literal(part, _), length]) if part.to_string().eq_ignore_ascii_case("epoch") => {
                let DataType::Duration(unit) = length.get_type(schema)? else {
                    return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })));
                };
                let per_second = lit(1_000_000_000.0 / nanoseconds(unit) as f64);
                let units = cast(cast(length.clone(), DataType::Int64), DataType::Float64);
                Ok(Transformed::yes(units / per_second))
            }
            _ => Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))),
        },
        other => Ok(Transformed::no(other)),
    }
}

fn nanoseconds(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// Turns a fixed interval into a length where the other side is one.
fn length_beside(other: &Expr, interval: &mut Expr, schema: &DFSchema) -> Result<bool> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(fixed)), _) = interval else { return Ok(false) };
    let Ok(DataType::Duration(unit)) = other.get_type(schema) else { return Ok(false) };
    let IntervalMonthDayNano { months, days, nanoseconds: rest } = *fixed;
    if months != 0 {
        return plan_err!("months are no length of time");
    }
    let length = i64::from(days) * DAY + rest;
    let per_unit = nanoseconds(unit);
    let of_unit = match unit {
        TimeUnit::Second => ScalarValue::DurationSecond,
        TimeUnit::Millisecond => ScalarValue::DurationMillisecond,
        TimeUnit::Microsecond => ScalarValue::DurationMicrosecond,
        TimeUnit::Nanosecond => ScalarValue::DurationNanosecond,
    };
    *interval = match length % per_unit {
        0 => Expr::Literal(of_unit(Some(length / per_unit)), None),
        // Finer than the times themselves.
        _ => Expr::Literal(ScalarValue::DurationNanosecond(Some(length)), None),
    };
    Ok(true)
}

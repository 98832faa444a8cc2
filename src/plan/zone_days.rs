//! Days and months added to an instant or taken from it, by the calendar of the project's zone.
//!
//! Arrow fails where the result is a wall time that the zone skips or has twice: half past two on the morning on which clocks
//! are put forward would set a tag aside. Here it is the instant that [`zone::INSTANT`] makes of it. Takes the place of `+` and
//! `-` with `zone::ZoneCasts`; what is shorter than a day is added as it is.

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use chrono::{DateTime, Days, Months, NaiveDateTime};
use chrono_tz::Tz;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::function::Hint;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::plan::clock::reads_clock;
use crate::plan::zone::{Offsets, details, named_zone, per_second, timestamps};

/// Name of the function of an instant and an interval.
pub const LATER: &str = "zone_later";

/// `instant + interval` or `instant - interval` as this function; `None` for every other expression, for intervals without
/// days and months, and for the clock, whose days are `clock::with_fixed_days`'s.
pub(super) fn replaced(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) = expr else {
        return Ok(None);
    };
    let is_interval = |expr: &Expr| {
        Ok::<_, DataFusionError>(expr.get_type(schema)? == DataType::Interval(IntervalUnit::MonthDayNano))
    };
    let (instant, interval) = match (is_interval(left)?, is_interval(right)?) {
        (false, true) => (left, right),
        (true, false) if *op == Operator::Plus => (right, left),
        _ => return Ok(None),
    };
    let DataType::Timestamp(unit, Some(zone)) = instant.get_type(schema)? else { return Ok(None) };
    if reads_clock(instant) {
        return Ok(None);
    }
    let interval = match (interval.as_ref(), op) {
        (Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(literal)), metadata), op) => {
            let IntervalMonthDayNano { months, days, nanoseconds } = *literal;
            let negated = (months.checked_neg(), days.checked_neg(), nanoseconds.checked_neg());
            let literal = match (op, negated) {
                _ if months == 0 && days == 0 => return Ok(None),
                (Operator::Minus, (Some(months), Some(days), Some(nanoseconds))) => {
                    IntervalMonthDayNano::new(months, days, nanoseconds)
                }
                (Operator::Minus, _) => return Ok(None),
                _ => *literal,
            };
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(literal)), metadata.clone())
        }
        (interval, Operator::Minus) => Expr::Negative(Box::new(interval.clone())),
        (interval, _) => interval.clone(),
    };
    let zone = named_zone(&zone)?;
    let later = Later { zone, unit, signature: Signature::any(3, Volatility::Immutable) };
    Ok(Some(ScalarUDF::from(later).call(vec![instant.as_ref().clone(), interval, details(unit, zone.name())])))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Later {
    zone: Tz,
    unit: TimeUnit,
    signature: Signature,
}

impl Later {
    fn output(&self) -> DataType {
        DataType::Timestamp(self.unit, Some(self.zone.name().into()))
    }

    fn of(&self, instants: &ArrayRef, intervals: &ArrayRef) -> Result<ArrayRef> {
        let ticks = cast(instants, &DataType::Int64)?;
        let ticks = ticks.as_primitive::<Int64Type>();
        let intervals = intervals.as_primitive_opt::<IntervalMonthDayNanoType>();
        let intervals = intervals.ok_or_else(|| DataFusionError::Internal(format!("{LATER} of no interval")))?;
        let rows = ticks.len();
        let (mut to_wall_time, mut to_instant) =
            (Offsets::new(self.zone, false, rows), Offsets::new(self.zone, true, rows));
        let mut later = Vec::with_capacity(rows);
        for (tick, interval) in ticks.iter().zip(intervals) {
            let (Some(tick), Some(interval)) = (tick, interval) else {
                later.push(None);
                continue;
            };
            let moved = self.moved(tick, interval, &mut to_wall_time, &mut to_instant);
            later.push(Some(moved.ok_or_else(|| {
                DataFusionError::Execution(format!("an instant and {interval:?} is a time that no timestamp holds"))
            })?));
        }
        timestamps(&Int64Array::from(later), self.output())
    }

    fn moved(
        &self,
        tick: i64,
        interval: IntervalMonthDayNano,
        to_wall_time: &mut Offsets,
        to_instant: &mut Offsets,
    ) -> Option<i64> {
        let per_second = per_second(self.unit);
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        let mut moved = tick;
        if months != 0 || days != 0 {
            let (second, below) = (tick.div_euclid(per_second), tick.rem_euclid(per_second));
            let wall_time = DateTime::from_timestamp(second.checked_add(to_wall_time.offset(second)?)?, 0)?.naive_utc();
            let wall_time = by_calendar(wall_time, months, days)?.and_utc().timestamp();
            let second = wall_time.checked_sub(to_instant.offset(wall_time)?)?;
            moved = second.checked_mul(per_second)?.checked_add(below)?;
        }
        moved.checked_add(nanoseconds / (1_000_000_000 / per_second))
    }
}

fn by_calendar(time: NaiveDateTime, months: i32, days: i32) -> Option<NaiveDateTime> {
    let time = match (months, Months::new(months.unsigned_abs())) {
        (0.., months) => time.checked_add_months(months)?,
        (_, months) => time.checked_sub_months(months)?,
    };
    match (days, Days::new(u64::from(days.unsigned_abs()))) {
        (0.., days) => time.checked_add_days(days),
        (_, days) => time.checked_sub_days(days),
    }
}

impl ScalarUDFImpl for Later {
    fn name(&self) -> &str {
        LATER
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.output())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let later = |arrays: &[ArrayRef]| self.of(&arrays[0], &arrays[1]);
        make_scalar_function(later, vec![Hint::Pad, Hint::Pad, Hint::AcceptsSingular])(&args.args)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{IntervalMonthDayNanoArray, TimestampMillisecondArray};

    fn later(zone: &str, instant: &str, interval: IntervalMonthDayNano) -> Option<String> {
        let millis = DateTime::parse_from_rfc3339(instant).unwrap().timestamp_millis();
        let later = Later {
            zone: zone.parse().unwrap(),
            unit: TimeUnit::Millisecond,
            signature: Signature::any(3, Volatility::Immutable),
        };
        let instants: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![millis]).with_timezone(zone));
        let intervals: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![interval]));
        let moved = cast(&later.of(&instants, &intervals).ok()?, &DataType::Int64).unwrap();
        let moved = DateTime::from_timestamp_millis(moved.as_primitive::<Int64Type>().value(0)).unwrap();
        Some(moved.with_timezone(&later.zone).to_rfc3339())
    }

    fn interval(months: i32, days: i32, nanoseconds: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano::new(months, days, nanoseconds)
    }

    const NEW_YORK: &str = "America/New_York";

    #[test]
    fn a_day_later_is_the_same_wall_time() {
        let of = |instant, days| later(NEW_YORK, instant, interval(0, days, 0)).unwrap();
        assert_eq!(of("2026-03-07T12:00:00-05:00", 1), "2026-03-08T12:00:00-04:00");
        assert_eq!(of("2026-11-02T00:00:00-05:00", -1), "2026-11-01T00:00:00-04:00");
    }

    #[test]
    fn a_wall_time_that_is_skipped_or_comes_twice_is_no_error() {
        let of = |instant, days| later(NEW_YORK, instant, interval(0, days, 0)).unwrap();
        assert_eq!(of("2026-03-07T02:30:00-05:00", 1), "2026-03-08T03:30:00-04:00");
        assert_eq!(of("2026-10-31T01:30:00-04:00", 1), "2026-11-01T01:30:00-04:00");
    }

    #[test]
    fn months_end_with_the_month_and_hours_are_hours() {
        let of = |instant, length| later(NEW_YORK, instant, length).unwrap();
        assert_eq!(of("2026-01-31T12:00:00-05:00", interval(1, 0, 0)), "2026-02-28T12:00:00-05:00");
        assert_eq!(of("2026-03-31T12:00:00-04:00", interval(-1, -1, 0)), "2026-02-27T12:00:00-05:00");
        assert_eq!(of("2026-10-31T23:30:00-04:00", interval(0, 1, 3_600_000_000_000)), "2026-11-02T00:30:00-05:00");
    }

    #[test]
    fn what_no_timestamp_holds_is_an_error() {
        assert_eq!(later(NEW_YORK, "2026-01-31T12:00:00-05:00", interval(i32::MAX, 0, 0)), None);
    }
}

//! `date_bin` of instants, by the project's zone: DataFusion's own counts from 1970-01-01 00:00 UTC, so that a day would begin at
//! eight in the morning of Shanghai. Of wall time too, of which DataFusion's gives NULL beyond the year 2262.
//!
//! Bins of days and of months begin at a midnight of the zone, also where a day has 23 or 25 hours. Shorter ones all have
//! the length that was asked for, and one of them begins at a midnight. Takes the place of `date_bin` with `zone::ZoneCasts`.

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNano, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDate};
use chrono_tz::Tz;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::function::Hint;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::plan::zone::{Offsets, details, named_zone, per_second, timestamps};

/// Name of the function from instants to the beginning of their bin.
pub const BIN: &str = "zone_bin";

const DAY: i64 = 86_400;
const DAY_NANOS: i64 = DAY * 1_000_000_000;
/// 2024-01-01, a day on which shorter bins begin: as far as is known zones keep the offset of their winters.
const FIRST_DAY: i64 = 19_723;
/// Shorter bins of wall time begin with 1970.
const FIRST_DAY_OF_WALL_TIME: i64 = 0;

/// `date_bin(interval, instant)` as this function; `None` for every other expression, and for an interval that it leaves
/// to DataFusion to refuse.
pub(super) fn replaced(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return Ok(None) };
    let ("date_bin", [Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _), time]) =
        (func.name(), args.as_slice())
    else {
        return Ok(None);
    };
    let DataType::Timestamp(unit, zone) = time.get_type(schema)? else { return Ok(None) };
    let Some(length) = Length::of(*interval) else { return Ok(None) };
    let zone = zone.as_deref().map(named_zone).transpose()?;
    let details = details(unit, zone.map_or("", |zone| zone.name()));
    let args = args.iter().cloned().chain([details]).collect();
    Ok(Some(ScalarUDF::from(ZoneBin::new(length, zone, unit)).call(args)))
}

/// True for a bin that begins at a midnight, of the call's arguments.
pub(crate) fn is_of_days(interval: &Expr) -> bool {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = interval else { return false };
    matches!(Length::of(*interval), Some(Length::Days(_) | Length::Months(_)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Length {
    Months(i64),
    Days(i64),
    Nanoseconds(i64),
}

impl Length {
    fn of(interval: IntervalMonthDayNano) -> Option<Self> {
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        match (i64::from(months), i64::from(days).checked_mul(DAY_NANOS)?.checked_add(nanoseconds)?) {
            (months @ 1.., 0) => Some(Length::Months(months)),
            (0, length @ 1..) if length % DAY_NANOS == 0 => Some(Length::Days(length / DAY_NANOS)),
            (0, length @ 1..) => Some(Length::Nanoseconds(length)),
            _ => None,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ZoneBin {
    length: Length,
    /// `None` of wall time.
    zone: Option<Tz>,
    unit: TimeUnit,
    signature: Signature,
}

impl ZoneBin {
    fn new(length: Length, zone: Option<Tz>, unit: TimeUnit) -> Self {
        ZoneBin { length, zone, unit, signature: Signature::any(3, Volatility::Immutable) }
    }

    fn output(&self) -> DataType {
        DataType::Timestamp(self.unit, self.zone.map(|zone| zone.name().into()))
    }

    /// The beginnings of the bins of instants, which are ticks of the unit.
    fn beginnings(&self, instants: &Int64Array) -> Int64Array {
        let per_second = per_second(self.unit);
        let zone = self.zone.unwrap_or(Tz::UTC);
        let rows = instants.len();
        let (mut to_wall_time, mut to_instant) = (Offsets::new(zone, false, rows), Offsets::new(zone, true, rows));
        // What lies outside of the calendar's years has no beginning in them, and is its own.
        let mut day = |tick: i64| {
            let second = tick.div_euclid(per_second);
            let wall_time = second.checked_add(to_wall_time.offset(second)?)?;
            self.first_day(wall_time.div_euclid(DAY))
        };
        let mut midnight = |day: i64| {
            let second = day.checked_mul(DAY)?;
            second.checked_sub(to_instant.offset(second)?)?.checked_mul(per_second)
        };
        let Length::Nanoseconds(length) = self.length else {
            return instants
                .iter()
                .map(|tick| tick.map(|tick| day(tick).and_then(&mut midnight).unwrap_or(tick)))
                .collect();
        };
        let in_nanos = i128::from(1_000_000_000 / per_second);
        let origin = i128::from(
            midnight(if self.zone.is_some() { FIRST_DAY } else { FIRST_DAY_OF_WALL_TIME }).unwrap_or_default(),
        ) * in_nanos;
        let begin = |tick: i64| {
            let nanos = i128::from(tick) * in_nanos - origin;
            let beginning = nanos.div_euclid(i128::from(length)) * i128::from(length) + origin;
            i64::try_from(beginning.div_euclid(in_nanos)).unwrap_or(tick)
        };
        instants.unary(begin)
    }

    /// The first day of the bin of a day, both counted from 1970-01-01.
    fn first_day(&self, day: i64) -> Option<i64> {
        match self.length {
            Length::Days(days) => day.checked_sub(day.rem_euclid(days)),
            Length::Months(months) => {
                let date = DateTime::from_timestamp(day.checked_mul(DAY)?, 0)?.date_naive();
                let month = i64::from(date.year() - 1970) * 12 + i64::from(date.month0());
                let first = month - month.rem_euclid(months);
                let year = i32::try_from(1970 + first.div_euclid(12)).ok()?;
                let first = NaiveDate::from_ymd_opt(year, u32::try_from(first.rem_euclid(12)).ok()? + 1, 1)?;
                Some(first.and_time(chrono::NaiveTime::MIN).and_utc().timestamp() / DAY)
            }
            Length::Nanoseconds(_) => Some(day),
        }
    }

    fn of(&self, instants: &ArrayRef) -> Result<ArrayRef> {
        let ticks = cast(instants, &DataType::Int64)?;
        timestamps(&self.beginnings(ticks.as_primitive::<Int64Type>()), self.output())
    }
}

impl ScalarUDFImpl for ZoneBin {
    fn name(&self) -> &str {
        BIN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.output())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let begin = |arrays: &[ArrayRef]| self.of(&arrays[1]);
        make_scalar_function(begin, vec![Hint::AcceptsSingular, Hint::Pad, Hint::AcceptsSingular])(&args.args)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::TimestampMillisecondArray;

    fn interval(months: i32, days: i32, nanoseconds: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano::new(months, days, nanoseconds)
    }

    fn begins(zone: &str, length: IntervalMonthDayNano, instant: &str) -> String {
        let millis = DateTime::parse_from_rfc3339(instant).unwrap().timestamp_millis();
        let bin = ZoneBin::new(Length::of(length).unwrap(), Some(zone.parse().unwrap()), TimeUnit::Millisecond);
        let array: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![millis]).with_timezone(zone));
        let begun = cast(&bin.of(&array).unwrap(), &DataType::Int64).unwrap();
        let begun = DateTime::from_timestamp_millis(begun.as_primitive::<Int64Type>().value(0)).unwrap();
        begun.with_timezone(&zone.parse::<Tz>().unwrap()).to_rfc3339()
    }

    const HOUR: i64 = 3_600_000_000_000;

    #[test]
    fn a_day_begins_at_midnight_of_the_zone() {
        let day = interval(0, 1, 0);
        assert_eq!(begins("Asia/Shanghai", day, "2026-05-01T07:59:59+08:00"), "2026-05-01T00:00:00+08:00");
        assert_eq!(
            begins("Asia/Shanghai", interval(0, 0, 24 * HOUR), "2026-05-01T23:59:59+08:00"),
            "2026-05-01T00:00:00+08:00"
        );
        // The days of 23 and of 25 hours.
        assert_eq!(begins("America/New_York", day, "2026-03-08T12:00:00-04:00"), "2026-03-08T00:00:00-05:00");
        assert_eq!(begins("America/New_York", day, "2026-11-01T23:30:00-05:00"), "2026-11-01T00:00:00-04:00");
        // A midnight that does not exist: the first instant of the day.
        assert_eq!(begins("America/Santiago", day, "2026-09-06T12:00:00-03:00"), "2026-09-06T01:00:00-03:00");
    }

    #[test]
    fn weeks_and_months_are_counted_from_the_first_of_1970() {
        assert_eq!(
            begins("Asia/Shanghai", interval(0, 7, 0), "1970-01-09T03:00:00+08:00"),
            "1970-01-08T00:00:00+08:00"
        );
        assert_eq!(
            begins("Asia/Shanghai", interval(3, 0, 0), "2026-06-30T23:00:00+08:00"),
            "2026-04-01T00:00:00+08:00"
        );
        assert_eq!(
            begins("Asia/Shanghai", interval(1, 0, 0), "1969-12-31T23:00:00+08:00"),
            "1969-12-01T00:00:00+08:00"
        );
    }

    #[test]
    fn an_hour_begins_with_the_hour_of_the_zone() {
        assert_eq!(
            begins("Asia/Kathmandu", interval(0, 0, HOUR), "2026-05-01T07:59:59+05:45"),
            "2026-05-01T07:00:00+05:45"
        );
        assert_eq!(
            begins("Asia/Kolkata", interval(0, 0, 6 * HOUR), "2026-05-01T05:59:59+05:30"),
            "2026-05-01T00:00:00+05:30"
        );
        assert_eq!(
            begins("America/New_York", interval(0, 0, HOUR), "2026-11-01T01:30:00-05:00"),
            "2026-11-01T01:00:00-05:00"
        );
    }

    #[test]
    fn an_instant_out_of_all_calendars_is_its_own_beginning() {
        let bin = ZoneBin::new(Length::Days(1), Some(chrono_tz::Asia::Shanghai), TimeUnit::Second);
        assert_eq!(bin.beginnings(&Int64Array::from(vec![i64::MAX, i64::MIN])).values(), &[i64::MAX, i64::MIN]);
    }
}

//! `date_trunc` of times that nanoseconds do not hold: DataFusion's own fails there, and one order of the year 9999 would set aside
//! every tag that truncates its time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use chrono_tz::Tz;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::plan::zone::{Offsets, named_zone, per_second, timestamps};

/// Nanoseconds hold the years from 1678 to 2261, whatever the zone.
const NEAR_SECONDS: std::ops::Range<i64> = -9_214_560_000..9_214_646_400;

/// DataFusion's `date_trunc` with all years.
pub fn date_trunc(near: Arc<ScalarUDF>) -> ScalarUDF {
    ScalarUDF::from(DateTrunc { near })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    /// DataFusion's own.
    near: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.near.name()
    }

    fn aliases(&self) -> &[String] {
        self.near.aliases()
    }

    fn signature(&self) -> &Signature {
        self.near.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.near.inner().return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.near.inner().return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some((times, is_near)) = far(&args)? else { return self.near.inner().invoke_with_args(args) };
        let Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(unit)))) = args.args.first() else {
            return self.near.inner().invoke_with_args(args);
        };
        let truncated = truncated(&unit.to_lowercase(), &times)?;
        let is_far = arrow::compute::not(&is_near)?;
        let is_scalar = matches!(args.args.get(1), Some(ColumnarValue::Scalar(_)));
        let mut near = args.clone();
        near.args[1] = ColumnarValue::Array(nullif(&times, &is_far)?);
        near.number_rows = times.len();
        let near = self.near.inner().invoke_with_args(near)?.into_array(times.len())?;
        let all = zip(&is_far, &truncated, &near)?;
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&all, 0)?));
        }
        Ok(ColumnarValue::Array(all))
    }
}

/// The times, and which of them nanoseconds hold; `None` where all are such.
fn far(args: &ScalarFunctionArgs) -> Result<Option<(ArrayRef, BooleanArray)>> {
    let Some(times) = args.args.get(1) else { return Ok(None) };
    let DataType::Timestamp(unit, _) = times.data_type() else { return Ok(None) };
    let per_second = per_second(unit);
    let times = match times {
        ColumnarValue::Array(times) => Arc::clone(times),
        ColumnarValue::Scalar(time) => time.to_array()?,
    };
    let ticks = cast(&times, &DataType::Int64)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    let is_near = |tick: i64| NEAR_SECONDS.contains(&tick.div_euclid(per_second));
    if ticks.iter().flatten().all(is_near) {
        return Ok(None);
    }
    let is_near = ticks.iter().map(|tick| Some(tick.is_none_or(is_near))).collect();
    Ok(Some((times, is_near)))
}

/// Times that are far truncated to their hour, day … in their zone; shorter units are left as they are.
fn truncated(unit: &str, times: &ArrayRef) -> Result<ArrayRef> {
    let DataType::Timestamp(tick, zone) = times.data_type() else {
        return Err(DataFusionError::Internal(format!("date_trunc of {}", times.data_type())));
    };
    let per_second = per_second(*tick);
    let zone = zone.as_deref().map(named_zone).transpose()?.unwrap_or(Tz::UTC);
    let rows = times.len();
    let (mut to_wall_time, mut to_instant) = (Offsets::new(zone, false, rows), Offsets::new(zone, true, rows));
    let ticks = cast(times, &DataType::Int64)?;
    let mut truncate = |tick: i64| {
        let second = tick.div_euclid(per_second);
        let wall_time = DateTime::from_timestamp(second.checked_add(to_wall_time.offset(second)?)?, 0)?.naive_utc();
        let wall_time = beginning(unit, wall_time)?.and_utc().timestamp();
        wall_time.checked_sub(to_instant.offset(wall_time)?)?.checked_mul(per_second)
    };
    // What is near is taken from DataFusion, and a time out of all calendars is its own beginning.
    let ticks = ticks.as_primitive::<Int64Type>().iter();
    let ticks: Int64Array = ticks.map(|tick| tick.map(|tick| truncate(tick).unwrap_or(tick))).collect();
    timestamps(&ticks, times.data_type().clone())
}

fn beginning(unit: &str, time: NaiveDateTime) -> Option<NaiveDateTime> {
    let date = time.date();
    let first_of = |month: u32| NaiveDate::from_ymd_opt(date.year(), month, 1);
    let date = match unit {
        "year" => first_of(1)?,
        "quarter" => first_of(date.month0() / 3 * 3 + 1)?,
        "month" => first_of(date.month())?,
        "week" => date.checked_sub_days(Days::new(u64::from(date.weekday().num_days_from_monday())))?,
        "day" => date,
        "hour" => return date.and_hms_opt(time.hour(), 0, 0),
        "minute" => return date.and_hms_opt(time.hour(), time.minute(), 0),
        "second" => return Some(time),
        _ => return None,
    };
    Some(date.and_time(NaiveTime::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampMillisecondArray;
    use arrow::datatypes::{Field, TimeUnit};

    fn of(unit: &str, zone: Option<&str>, texts: &[&str]) -> Vec<String> {
        let millis = texts.iter().map(|text| DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis());
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(millis).with_timezone_opt(zone));
        let data_type = times.data_type().clone();
        let field = |name: &str, data_type: DataType| Arc::new(Field::new(name, data_type, true));
        let args = ScalarFunctionArgs {
            args: vec![ColumnarValue::Scalar(ScalarValue::Utf8(Some(unit.into()))), ColumnarValue::Array(times)],
            arg_fields: vec![field("unit", DataType::Utf8), field("time", data_type.clone())],
            number_rows: texts.len(),
            return_field: field("truncated", data_type),
            config_options: Arc::default(),
        };
        let function = date_trunc(datafusion::functions::datetime::date_trunc());
        let truncated = function.inner().invoke_with_args(args).unwrap().into_array(texts.len()).unwrap();
        assert!(
            matches!(truncated.data_type(), DataType::Timestamp(TimeUnit::Millisecond, found) if found.as_deref() == zone)
        );
        let zone: Tz = zone.unwrap_or("UTC").parse().unwrap();
        let ticks = cast(&truncated, &DataType::Int64).unwrap();
        let shown = |tick: &i64| DateTime::from_timestamp_millis(*tick).unwrap().with_timezone(&zone).to_rfc3339();
        ticks.as_primitive::<Int64Type>().values().iter().map(shown).collect()
    }

    #[test]
    fn far_and_near_times_are_truncated_side_by_side() {
        let times = ["9999-12-31T23:59:59.999Z", "2026-05-17T10:20:30Z", "0001-05-17T10:20:30Z"];
        assert_eq!(
            of("month", None, &times),
            ["9999-12-01T00:00:00+00:00", "2026-05-01T00:00:00+00:00", "0001-05-01T00:00:00+00:00"]
        );
        assert_eq!(of("quarter", None, &times[..2]), ["9999-10-01T00:00:00+00:00", "2026-04-01T00:00:00+00:00"]);
        assert_eq!(of("week", None, &times[..2]), ["9999-12-27T00:00:00+00:00", "2026-05-11T00:00:00+00:00"]);
        assert_eq!(of("hour", None, &times[..2]), ["9999-12-31T23:00:00+00:00", "2026-05-17T10:00:00+00:00"]);
    }

    #[test]
    fn a_day_far_ahead_begins_at_midnight_of_its_zone() {
        let times = ["9999-06-15T20:00:00Z", "2026-05-17T20:00:00Z"];
        assert_eq!(
            of("day", Some("Asia/Shanghai"), &times),
            ["9999-06-16T00:00:00+08:00", "2026-05-18T00:00:00+08:00"]
        );
    }
}

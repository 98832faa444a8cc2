//! Wall time and instants: the casts between TIMESTAMP and TIMESTAMP WITH TIME ZONE, by the zone's own rules.
//!
//! Arrow's cast of an instant to a TIMESTAMP gives UTC, its cast of a wall time that does not exist or exists twice
//! fails, and DataFusion compares a wall time with a constant instant as if the zone were UTC. So both casts become
//! functions of ours in the analysed plan, before anything is optimised. So do casts to a finer unit, which DataFusion
//! puts in to compare with the clock: a year that nanoseconds do not hold (9999 for "never") is then the last or first
//! one that they do, instead of an error that stops the tag.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use chrono::{DateTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::function::Hint;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};
use datafusion::optimizer::AnalyzerRule;

use crate::plan::{bins, zone_days};

/// Name of the function from instants to wall time.
pub const WALL_TIME: &str = "wall_time";
/// Name of the function from wall time to instants.
pub const INSTANT: &str = "instant";
/// Name of the function from a timestamp to one of a finer unit.
pub const FINER: &str = "finer_timestamp";

/// Puts [`WALL_TIME`] and [`INSTANT`] in the place of casts, [`bins::BIN`] in that of `date_bin`, and [`zone_days::LATER`] in
/// that of days and months added to instants; runs after type coercion.
#[derive(Debug)]
pub struct ZoneCasts;

impl AnalyzerRule for ZoneCasts {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = &plan {
                schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
            }
            plan.map_expressions(|expr| {
                let name = expr.schema_name().to_string();
                let replaced = expr.transform_up(|expr| replace_cast(expr, &schema))?;
                // A column is known above by the text of its expression.
                let keeps_name =
                    matches!(replaced.data, Expr::Alias(_)) || replaced.data.schema_name().to_string() == name;
                Ok(if replaced.transformed && !keeps_name {
                    replaced.update_data(|expr| expr.alias(name))
                } else {
                    replaced
                })
            })
        })?;
        rewritten.data.recompute_schema()
    }

    fn name(&self) -> &str {
        "zone_casts"
    }
}

fn replace_cast(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if let Some(bin) = bins::replaced(&expr, schema)? {
        return Ok(Transformed::yes(bin));
    }
    if let Some(later) = zone_days::replaced(&expr, schema)? {
        return Ok(Transformed::yes(later));
    }
    let (inner, to) = match &expr {
        Expr::Cast(cast) => (&cast.expr, cast.field.data_type()),
        Expr::TryCast(cast) => (&cast.expr, cast.field.data_type()),
        _ => return Ok(Transformed::no(expr)),
    };
    let from = inner.get_type(schema)?;
    let call = |function: ZoneFunction, argument: Expr| Ok(Transformed::yes(function.of(argument)));
    match (&from, to) {
        (DataType::Timestamp(_, Some(zone)), DataType::Timestamp(unit, None)) => {
            call(ZoneFunction::new(WALL_TIME, zone, *unit), inner.as_ref().clone())
        }
        (DataType::Timestamp(_, None), DataType::Timestamp(unit, Some(zone))) => {
            call(ZoneFunction::new(INSTANT, zone, *unit), inner.as_ref().clone())
        }
        (DataType::Timestamp(from, from_zone), DataType::Timestamp(unit, zone))
            if from_zone == zone && per_second(*unit) > per_second(*from) =>
        {
            let zone = zone.clone().unwrap_or_else(|| Arc::from(""));
            call(ZoneFunction::new(FINER, &zone, *unit), inner.as_ref().clone())
        }
        (DataType::Date32 | DataType::Date64, DataType::Timestamp(unit, Some(zone))) => {
            let midnight = Expr::Cast(Cast::new(inner.clone(), DataType::Timestamp(*unit, None)));
            call(ZoneFunction::new(INSTANT, zone, *unit), midnight)
        }
        _ => Ok(Transformed::no(expr)),
    }
}

/// An argument that is not looked at: operators are known by the text of their expressions, which must tell two calls apart
/// that give another unit or read another zone.
pub(super) fn details(unit: TimeUnit, zone: &str) -> Expr {
    let unit = match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    lit(format!("{unit} {zone}").trim_end())
}

/// The zone of that name.
pub(super) fn named_zone(name: &str) -> Result<Tz> {
    name.parse().map_err(|_| DataFusionError::Plan(format!("`{name}` is no time zone by name")))
}

/// Ticks of a unit in a second.
pub(super) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// One of the casts.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ZoneFunction {
    name: &'static str,
    zone: Arc<str>,
    unit: TimeUnit,
    signature: Signature,
}

impl ZoneFunction {
    pub(super) fn new(name: &'static str, zone: &Arc<str>, unit: TimeUnit) -> Self {
        ZoneFunction { name, zone: Arc::clone(zone), unit, signature: Signature::any(2, Volatility::Immutable) }
    }

    /// The call.
    pub(super) fn of(self, time: Expr) -> Expr {
        let details = details(self.unit, &self.zone);
        ScalarUDF::from(self).call(vec![time, details])
    }

    fn output(&self) -> DataType {
        let has_zone = self.name != WALL_TIME && !self.zone.is_empty();
        DataType::Timestamp(self.unit, has_zone.then(|| Arc::clone(&self.zone)))
    }
}

impl ScalarUDFImpl for ZoneFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.output())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let convert = |arrays: &[ArrayRef]| self.convert(&arrays[0]);
        make_scalar_function(convert, vec![Hint::Pad, Hint::AcceptsSingular])(&args.args)
    }
}

impl ZoneFunction {
    fn convert(&self, array: &ArrayRef) -> Result<ArrayRef> {
        // First to the unit of the result, the meaning unchanged; then from one meaning to the other.
        let values = in_unit(array, self.unit)?;
        let converted = if self.name == FINER {
            values
        } else {
            let mut offsets = Offsets::new(named_zone(&self.zone)?, self.name == INSTANT, values.len());
            offsets.convert(&values, per_second(self.unit))
        };
        timestamps(&converted, self.output())
    }
}

/// Ticks as the timestamps that they are of that type.
pub(super) fn timestamps(ticks: &Int64Array, data_type: DataType) -> Result<ArrayRef> {
    Ok(arrow::array::make_array(ticks.to_data().into_builder().data_type(data_type).build()?))
}

/// The ticks of timestamps, counted in another unit; what that does not hold is its first or last.
fn in_unit(array: &ArrayRef, unit: TimeUnit) -> Result<Int64Array> {
    let DataType::Timestamp(from, _) = array.data_type() else {
        return Err(DataFusionError::Internal(format!("a {} is no timestamp", array.data_type())));
    };
    let ticks = cast(array, &DataType::Int64)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    let (from, to) = (per_second(*from), per_second(unit));
    Ok(if to >= from {
        ticks.unary(|tick| tick.saturating_mul(to / from))
    } else {
        ticks.unary(|tick| tick.div_euclid(from / to))
    })
}

/// Most quarters of an hour whose offset is kept: zones change theirs at such a boundary, or the quarter is looked at anew.
const REMEMBERED: usize = 4096;
const QUARTER: i64 = 900;

/// Offsets of a zone, with those of recent quarters of an hour at hand.
pub(super) struct Offsets {
    zone: Tz,
    from_wall_time: bool,
    /// By quarter: the quarter and its offset in seconds.
    recent: Vec<Option<(i64, i64)>>,
}

impl Offsets {
    /// For so many times.
    pub(super) fn new(zone: Tz, from_wall_time: bool, times: usize) -> Self {
        Offsets { zone, from_wall_time, recent: vec![None; times.clamp(1, REMEMBERED)] }
    }

    fn convert(&mut self, values: &Int64Array, per_second: i64) -> Int64Array {
        values
            .iter()
            .map(|value| {
                let value = value?;
                let offset = self.offset(value.div_euclid(per_second))?.saturating_mul(per_second);
                Some(if self.from_wall_time { value.saturating_sub(offset) } else { value.saturating_add(offset) })
            })
            .collect()
    }

    /// Seconds that wall time is ahead of UTC, at seconds of wall time or of UTC. `None` outside chrono's range.
    pub(super) fn offset(&mut self, second: i64) -> Option<i64> {
        let quarter = second.div_euclid(QUARTER);
        let place = quarter.rem_euclid(self.recent.len() as i64) as usize;
        if let Some((known, offset)) = self.recent[place]
            && known == quarter
        {
            return Some(offset);
        }
        let first = quarter.checked_mul(QUARTER)?;
        let start = self.look_up(first)?;
        let end = self.look_up(first.checked_add(QUARTER - 1)?)?;
        if start == end {
            self.recent[place] = Some((quarter, start));
            return Some(start);
        }
        self.look_up(second)
    }

    fn look_up(&self, second: i64) -> Option<i64> {
        let time: NaiveDateTime = DateTime::from_timestamp(second, 0)?.naive_utc();
        let seconds = |offset: chrono_tz::TzOffset| i64::from(offset.fix().local_minus_utc());
        if !self.from_wall_time {
            return Some(seconds(self.zone.offset_from_utc_datetime(&time)));
        }
        // A wall time that exists twice is the earlier one; one that is skipped is read with the offset before the gap,
        // which is an hour or two, or a whole day where a zone went to the other side of the date line.
        let before = [0, 3, 27].into_iter().find_map(|hours| {
            let before = time.checked_sub_signed(chrono::TimeDelta::hours(hours))?;
            self.zone.offset_from_local_datetime(&before).earliest()
        });
        before.map(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampSecondArray;

    fn second(text: &str) -> i64 {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap().and_utc().timestamp()
    }

    fn convert(name: &'static str, zone: &str, input: DataType, text: &str) -> i64 {
        let function = ZoneFunction::new(name, &Arc::from(zone), TimeUnit::Second);
        let array = cast(&TimestampSecondArray::from(vec![second(text)]), &input).unwrap();
        let converted = cast(&function.convert(&array).unwrap(), &DataType::Int64).unwrap();
        converted.as_primitive::<arrow::datatypes::Int64Type>().value(0)
    }

    #[test]
    fn wall_time_becomes_the_instant_of_its_zone() {
        let naive = DataType::Timestamp(TimeUnit::Second, None);
        let instant = |zone, text| convert(INSTANT, zone, naive.clone(), text);
        assert_eq!(instant("Asia/Shanghai", "2026-01-01 08:00:00"), second("2026-01-01 00:00:00"));
        assert_eq!(instant("America/New_York", "2026-07-01 08:00:00"), second("2026-07-01 12:00:00"));
        // 02:30 on 2026-03-08 is skipped, 01:30 on 2026-11-01 comes twice.
        assert_eq!(instant("America/New_York", "2026-03-08 02:30:00"), second("2026-03-08 07:30:00"));
        assert_eq!(instant("America/New_York", "2026-11-01 01:30:00"), second("2026-11-01 05:30:00"));
        // The whole of 2011-12-30 is skipped.
        assert_eq!(instant("Pacific/Apia", "2011-12-30 01:00:00"), second("2011-12-30 11:00:00"));
        assert_eq!(instant("Pacific/Apia", "2011-12-30 23:00:00"), second("2011-12-31 09:00:00"));
        assert_eq!(instant("Pacific/Apia", "2011-12-31 00:00:00"), second("2011-12-30 10:00:00"));
    }

    /// What bounds of near joins rely on (`compile/implied.rs`).
    #[test]
    fn a_wall_time_and_a_day_is_no_earlier_instant_than_any_before_it() {
        for (zone, from) in [("Pacific/Apia", "2011-12-28 00:00:00"), ("America/New_York", "2026-03-07 00:00:00")] {
            let mut offsets = Offsets::new(zone.parse().unwrap(), true, REMEMBERED);
            let start = second(from);
            let instants: Vec<i64> = (0..5 * 96)
                .map(|quarter| {
                    let wall = start + quarter * QUARTER;
                    wall - offsets.offset(wall).unwrap()
                })
                .collect();
            let latest = |upto: usize| instants[..=upto].iter().max().copied().unwrap();
            for (quarter, a_day_later) in instants.iter().skip(96).enumerate() {
                assert!(*a_day_later >= latest(quarter), "{zone}: quarter {quarter}");
            }
        }
    }

    #[test]
    fn instant_becomes_the_wall_time_of_its_zone() {
        let utc = |zone: &str| DataType::Timestamp(TimeUnit::Second, Some(zone.into()));
        let wall = |zone: &'static str, text| {
            let function = ZoneFunction::new(WALL_TIME, &Arc::from(zone), TimeUnit::Second);
            let array = TimestampSecondArray::from(vec![second(text)]).with_timezone(zone);
            let array: ArrayRef = Arc::new(array);
            assert_eq!(array.data_type(), &utc(zone));
            let converted = cast(&function.convert(&array).unwrap(), &DataType::Int64).unwrap();
            converted.as_primitive::<arrow::datatypes::Int64Type>().value(0)
        };
        assert_eq!(wall("Asia/Shanghai", "2026-01-01 00:00:00"), second("2026-01-01 08:00:00"));
        assert_eq!(wall("America/New_York", "2026-11-01 06:30:00"), second("2026-11-01 01:30:00"));
    }
}

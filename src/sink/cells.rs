//! Arrow values on their way into a store, one cell at a time and without an allocation per value.
//!
//! Enters: columns of a batch. Leaves: [`Cell`]s, which every store writes in its own spelling.
//! Never decides about rows: an unfit value is reported, [`fit_keys`](super::keys::fit_keys) and the stores decide.

use std::fmt::Write;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float32Array,
    Float64Array, Int64Array, ListArray, StringArray, StructArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float32Type, Float64Type, Int64Type, TimeUnit, UInt64Type};
use arrow::error::ArrowError;
use chrono::{DateTime, Datelike, MappedLocalTime, NaiveDateTime, TimeDelta, TimeZone, Timelike};
use chrono_tz::Tz;

/// One value as stores see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// A value that no store has (NaN, infinity, a year outside 1 to 9999); NULL in a value column.
    Unfit,
    /// A whole number; 0 or 1 for a boolean.
    Int(i64),
    /// A whole number without a sign.
    UInt(u64),
    /// A finite floating point number, never -0.
    Real(f64),
    /// An exact number in digits.
    Digits(&'a str),
    /// A date or time: digits, `-`, `:`, `.` and a space.
    Moment(&'a str),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// Reads one column cell by cell.
pub struct CellReader {
    data: Data,
    strict: bool,
    scratch: String,
}

enum Data {
    Null,
    Boolean(BooleanArray),
    Int(Int64Array),
    UInt(UInt64Array),
    Real32(Float32Array),
    Real(Float64Array),
    Decimal(Decimal128Array, usize),
    WideDecimal(Decimal256Array),
    Text(StringArray),
    Bytes(BinaryArray),
    Date(Date32Array),
    /// Microseconds since midnight.
    Time(Int64Array, usize),
    Moment(Moments),
    List(ListArray, Box<CellReader>),
    Struct(StructArray, Vec<(String, CellReader)>),
}

struct Moments {
    values: Int64Array,
    unit: TimeUnit,
    /// The zone to convert instants to; `None` for wall time, which is taken as it is.
    zone: Option<Tz>,
}

impl CellReader {
    /// Reads a value column. Instants are converted to wall time of `zone`.
    ///
    /// # Errors
    /// For a type that [`StoreType::of`](super::types::StoreType::of) refuses.
    pub fn new(array: &ArrayRef, zone: Tz) -> Result<CellReader, ArrowError> {
        Ok(CellReader { data: Data::new(array, zone)?, strict: false, scratch: String::new() })
    }

    /// Reads a key column: what the store would blur into another key (a part of a microsecond, the second pass of
    /// an hour that the clocks repeat) is unfit too.
    ///
    /// # Errors
    /// As [`CellReader::new`].
    pub fn of_key(array: &ArrayRef, zone: Tz) -> Result<CellReader, ArrowError> {
        Ok(CellReader { strict: true, ..CellReader::new(array, zone)? })
    }

    /// The value of one row.
    pub fn cell(&mut self, row: usize) -> Cell<'_> {
        if self.data.is_null(row) {
            return Cell::Null;
        }
        self.scratch.clear();
        if matches!(self.data, Data::List(_, _) | Data::Struct(_, _)) {
            let mut text = std::mem::take(&mut self.scratch);
            self.write_json(row, &mut text);
            self.scratch = text;
            return Cell::Text(&self.scratch);
        }
        match &self.data {
            Data::Null | Data::List(_, _) | Data::Struct(_, _) => Cell::Null,
            Data::Boolean(values) => Cell::Int(i64::from(values.value(row))),
            Data::Int(values) => Cell::Int(values.value(row)),
            Data::UInt(values) => Cell::UInt(values.value(row)),
            Data::Real(values) => real(values.value(row)),
            Data::Real32(values) => {
                // The shortest text of an f32, so that 0.1 reads 0.1 in the store and still comes back as the same f32.
                let value = values.value(row);
                let _ = write!(self.scratch, "{value:e}");
                real(self.scratch.parse().unwrap_or(f64::from(value)))
            }
            Data::Decimal(values, scale) => {
                write_decimal(values.value(row), *scale, &mut self.scratch);
                Cell::Digits(&self.scratch)
            }
            Data::WideDecimal(values) => {
                self.scratch.push_str(&values.value_as_string(row));
                Cell::Digits(&self.scratch)
            }
            Data::Text(values) => Cell::Text(values.value(row)),
            Data::Bytes(values) => Cell::Bytes(values.value(row)),
            Data::Date(values) => match date_of(values.value(row)) {
                Some(date) => {
                    write_date(&date, &mut self.scratch);
                    Cell::Moment(&self.scratch)
                }
                None => Cell::Unfit,
            },
            Data::Time(values, digits) => {
                let micros = values.value(row);
                write_time(micros, *digits, &mut self.scratch);
                Cell::Moment(&self.scratch)
            }
            Data::Moment(moments) => match moments.wall_time(row, self.strict) {
                Some(moment) => {
                    write_moment(&moment, moments.digits(), &mut self.scratch);
                    Cell::Moment(&self.scratch)
                }
                None => Cell::Unfit,
            },
        }
    }

    fn write_json(&mut self, row: usize, out: &mut String) {
        if self.data.is_null(row) {
            out.push_str("null");
            return;
        }
        match &mut self.data {
            Data::List(lists, items) => {
                let offsets = lists.value_offsets();
                out.push('[');
                for item in offsets[row]..offsets[row + 1] {
                    if item > offsets[row] {
                        out.push(',');
                    }
                    items.write_json(item as usize, out);
                }
                out.push(']');
            }
            Data::Struct(_, fields) => {
                out.push('{');
                for (index, (name, field)) in fields.iter_mut().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_json_text(name, out);
                    out.push(':');
                    field.write_json(row, out);
                }
                out.push('}');
            }
            Data::Boolean(values) => out.push_str(if values.value(row) { "true" } else { "false" }),
            _ => {
                let written = match self.cell(row) {
                    Cell::Null | Cell::Unfit => write!(out, "null"),
                    Cell::Int(value) => write!(out, "{value}"),
                    Cell::UInt(value) => write!(out, "{value}"),
                    Cell::Real(value) => write!(out, "{value:?}"),
                    Cell::Digits(digits) => write!(out, "{digits}"),
                    Cell::Moment(moment) => write!(out, "\"{moment}\""),
                    Cell::Text(text) => {
                        write_json_text(text, out);
                        Ok(())
                    }
                    Cell::Bytes(bytes) => write!(out, "\"{}\"", Hex(bytes)),
                };
                written.expect("a String takes all that is written");
            }
        }
    }
}

impl Data {
    fn new(array: &ArrayRef, zone: Tz) -> Result<Data, ArrowError> {
        let to = |data_type: DataType| cast(array, &data_type);
        Ok(match array.data_type() {
            DataType::Null => Data::Null,
            DataType::Boolean => Data::Boolean(array.as_boolean().clone()),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Data::Int(to(DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Data::UInt(to(DataType::UInt64)?.as_primitive::<UInt64Type>().clone())
            }
            DataType::Float16 | DataType::Float32 => {
                Data::Real32(to(DataType::Float32)?.as_primitive::<Float32Type>().clone())
            }
            DataType::Float64 => Data::Real(array.as_primitive::<Float64Type>().clone()),
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
                let wide = to(DataType::Decimal128(38, *scale))?;
                Data::Decimal(wide.as_primitive().clone(), usize::try_from(*scale).unwrap_or(0))
            }
            DataType::Decimal256(_, _) => Data::WideDecimal(array.as_primitive().clone()),
            DataType::Utf8 => Data::Text(array.as_string::<i32>().clone()),
            DataType::LargeUtf8 | DataType::Utf8View => Data::Text(to(DataType::Utf8)?.as_string::<i32>().clone()),
            DataType::Binary => Data::Bytes(array.as_binary::<i32>().clone()),
            DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Data::Bytes(to(DataType::Binary)?.as_binary::<i32>().clone())
            }
            DataType::Date32 | DataType::Date64 => {
                Data::Date(to(DataType::Date32)?.as_primitive::<Date32Type>().clone())
            }
            DataType::Time32(_) => Data::Time(time_in_micros(array)?, 3),
            DataType::Time64(_) => Data::Time(time_in_micros(array)?, 6),
            DataType::Timestamp(unit, instant) => Data::Moment(Moments {
                values: to(DataType::Int64)?.as_primitive::<Int64Type>().clone(),
                unit: *unit,
                zone: instant.is_some().then_some(zone),
            }),
            DataType::Dictionary(_, values) => Data::new(&to(values.as_ref().clone())?, zone)?,
            DataType::List(_) => {
                let lists = array.as_list::<i32>().clone();
                let items = CellReader::new(lists.values(), zone)?;
                Data::List(lists, Box::new(items))
            }
            DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                Data::new(&to(DataType::List(item.clone()))?, zone)?
            }
            DataType::Struct(fields) => {
                let structs = array.as_struct().clone();
                let readers = fields
                    .iter()
                    .zip(structs.columns())
                    .map(|(field, column)| Ok((field.name().clone(), CellReader::new(column, zone)?)))
                    .collect::<Result<Vec<_>, ArrowError>>()?;
                Data::Struct(structs, readers)
            }
            other => return Err(ArrowError::NotYetImplemented(format!("a store column of type {other}"))),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Data::Null => true,
            Data::Boolean(values) => values.is_null(row),
            Data::Int(values) | Data::Time(values, _) => values.is_null(row),
            Data::UInt(values) => values.is_null(row),
            Data::Real32(values) => values.is_null(row),
            Data::Real(values) => values.is_null(row),
            Data::Decimal(values, _) => values.is_null(row),
            Data::WideDecimal(values) => values.is_null(row),
            Data::Text(values) => values.is_null(row),
            Data::Bytes(values) => values.is_null(row),
            Data::Date(values) => values.is_null(row),
            Data::Moment(moments) => moments.values.is_null(row),
            Data::List(values, _) => values.is_null(row),
            Data::Struct(values, _) => values.is_null(row),
        }
    }
}

impl Moments {
    fn digits(&self) -> usize {
        match self.unit {
            TimeUnit::Second | TimeUnit::Millisecond => 3,
            TimeUnit::Microsecond | TimeUnit::Nanosecond => 6,
        }
    }

    fn wall_time(&self, row: usize, strict: bool) -> Option<NaiveDateTime> {
        let value = self.values.value(row);
        if strict && self.unit == TimeUnit::Nanosecond && value % 1000 != 0 {
            return None;
        }
        let moment = moment_of(value, self.unit)?;
        let Some(zone) = self.zone else {
            return in_range(moment);
        };
        let local = zone.from_utc_datetime(&moment).naive_local();
        if strict
            && let MappedLocalTime::Ambiguous(first, _) = zone.from_local_datetime(&local)
            && first.naive_utc() != moment
        {
            return None;
        }
        in_range(local)
    }
}

/// Wall time in `zone` of an instant in nanoseconds since the Unix epoch, as DATETIME(3) text.
pub fn wall_time_text(nanos: i64, zone: Tz) -> String {
    let moment = zone.from_utc_datetime(&DateTime::from_timestamp_nanos(nanos).naive_utc()).naive_local();
    let mut text = String::with_capacity(23);
    write_moment(&moment, 3, &mut text);
    text
}

/// Lower-case hexadecimal digits of bytes.
pub struct Hex<'a>(pub &'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn real(value: f64) -> Cell<'static> {
    // Adding 0 turns -0 into 0: some stores do so by themselves, and no two may differ.
    if value.is_finite() { Cell::Real(value + 0.0) } else { Cell::Unfit }
}

fn time_in_micros(array: &ArrayRef) -> Result<Int64Array, ArrowError> {
    let micros = cast(array, &DataType::Time64(TimeUnit::Microsecond))?;
    Ok(cast(&micros, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn moment_of(value: i64, unit: TimeUnit) -> Option<NaiveDateTime> {
    let moment = match unit {
        TimeUnit::Second => DateTime::from_timestamp(value, 0),
        TimeUnit::Millisecond => DateTime::from_timestamp_millis(value),
        TimeUnit::Microsecond => DateTime::from_timestamp_micros(value),
        TimeUnit::Nanosecond => Some(DateTime::from_timestamp_nanos(value)),
    };
    // A day of room, since conversion to a zone must not overflow either.
    moment.map(|moment| moment.naive_utc()).filter(|moment| (0..=10_000).contains(&moment.year()))
}

fn in_range(moment: NaiveDateTime) -> Option<NaiveDateTime> {
    (1..=9999).contains(&moment.year()).then_some(moment)
}

fn date_of(days: i32) -> Option<chrono::NaiveDate> {
    let date = DateTime::UNIX_EPOCH.date_naive().checked_add_signed(TimeDelta::days(i64::from(days)))?;
    (1..=9999).contains(&date.year()).then_some(date)
}

fn write_date(date: &impl Datelike, out: &mut String) {
    write_digits(date.year().unsigned_abs(), 4, out);
    out.push('-');
    write_digits(date.month(), 2, out);
    out.push('-');
    write_digits(date.day(), 2, out);
}

fn write_moment(moment: &NaiveDateTime, digits: usize, out: &mut String) {
    write_date(moment, out);
    out.push(' ');
    let micros = i64::from(moment.num_seconds_from_midnight()) * 1_000_000 + i64::from(moment.nanosecond() / 1000);
    write_time(micros, digits, out);
}

fn write_time(micros: i64, digits: usize, out: &mut String) {
    let micros = micros.unsigned_abs();
    let seconds = micros / 1_000_000;
    let fraction = (micros % 1_000_000) as u32;
    write_digits((seconds / 3600) as u32, 2, out);
    out.push(':');
    write_digits((seconds / 60 % 60) as u32, 2, out);
    out.push(':');
    write_digits((seconds % 60) as u32, 2, out);
    out.push('.');
    match digits {
        3 => write_digits(fraction / 1000, 3, out),
        _ => write_digits(fraction, 6, out),
    }
}

fn write_digits(number: u32, width: usize, out: &mut String) {
    let mut text = [b'0'; 10];
    let mut rest = number;
    for digit in text[..width].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    out.extend(text[..width].iter().map(|&digit| char::from(digit)));
}

fn write_decimal(value: i128, scale: usize, out: &mut String) {
    let sign = if value < 0 { "-" } else { "" };
    let digits = value.unsigned_abs();
    let unit = 10u128.pow(scale as u32);
    let written = match scale {
        0 => write!(out, "{sign}{digits}"),
        _ => write!(out, "{sign}{}.{:0scale$}", digits / unit, digits % unit),
    };
    written.expect("a String takes all that is written");
}

fn write_json_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{TimestampMillisecondArray, TimestampNanosecondArray};

    fn texts(array: ArrayRef, key: bool, zone: Tz) -> Vec<String> {
        let mut reader = if key { CellReader::of_key(&array, zone) } else { CellReader::new(&array, zone) }.unwrap();
        (0..array.len()).map(|row| format!("{:?}", reader.cell(row))).collect()
    }

    #[test]
    fn decimals_keep_sign_and_scale() {
        let values = Decimal128Array::from(vec![-5, 0, 12345, -99999999999999999999999999999999999999])
            .with_precision_and_scale(38, 10)
            .unwrap();
        assert_eq!(
            texts(Arc::new(values), false, Tz::UTC),
            [
                "Digits(\"-0.0000000005\")",
                "Digits(\"0.0000000000\")",
                "Digits(\"0.0000012345\")",
                "Digits(\"-9999999999999999999999999999.9999999999\")"
            ]
        );
    }

    #[test]
    fn instants_become_wall_time_and_the_repeated_hour_is_no_key() {
        let zone = chrono_tz::Europe::Berlin;
        // 2024-10-27 00:30 and 01:30 UTC are both 02:30 in Berlin.
        let values = TimestampMillisecondArray::from(vec![1729989000000, 1729992600000]).with_timezone("UTC");
        let array: ArrayRef = Arc::new(values);
        let wall = "Moment(\"2024-10-27 02:30:00.000\")";
        assert_eq!(texts(array.clone(), false, zone), [wall, wall]);
        assert_eq!(texts(array, true, zone), [wall, "Unfit"]);
    }

    #[test]
    fn nanoseconds_are_cut_in_values_and_unfit_in_keys() {
        let array: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![-1, 1_000]));
        assert_eq!(
            texts(array.clone(), false, Tz::UTC),
            ["Moment(\"1969-12-31 23:59:59.999999\")", "Moment(\"1970-01-01 00:00:00.000001\")"]
        );
        assert_eq!(texts(array, true, Tz::UTC)[0], "Unfit");
    }

    #[test]
    fn years_outside_1_to_9999_and_not_finite_numbers_are_unfit() {
        let seconds =
            arrow::array::TimestampSecondArray::from(vec![i64::MAX, -62135596801, -62135596800, 253402300800]);
        assert_eq!(
            texts(Arc::new(seconds), false, Tz::UTC),
            ["Unfit", "Unfit", "Moment(\"0001-01-01 00:00:00.000\")", "Unfit"]
        );
        let reals = Float64Array::from(vec![f64::NAN, f64::INFINITY, -0.0]);
        assert_eq!(texts(Arc::new(reals), false, Tz::UTC), ["Unfit", "Unfit", "Real(0.0)"]);
    }
}

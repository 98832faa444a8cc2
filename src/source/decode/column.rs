//! One column of a batch while it is being filled: typed values that can be cut back when a row is refused.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, NullBufferBuilder, PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use chrono_tz::Tz;

use super::time::{Moment, TimestampReader};
use super::tree::{self, Tree};
use super::{nested, number, time};
use crate::catalog::TimestampFormat;

/// A value of a record on its way into a column: the text of it, or what a binary format has read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// The field is not there.
    Missing,
    Null,
    Bool(bool),
    /// The text of a number.
    Number(&'a str),
    Text(&'a str),
    /// A CSV field: text of which the column's type decides what it is.
    Field(&'a str),
    /// An object or array, compact where the column keeps text.
    Composite(&'a str),
    /// What stands where the column's path expects an object.
    NotAnObject(&'a str),
    Integer(i64),
    /// A whole number beyond those of [`Value::Integer`].
    Large(u64),
    Real(f32),
    Double(f64),
    /// A whole number in two's complement, the highest byte first, of which `scale` digits are after the point.
    Decimal {
        unscaled: &'a [u8],
        scale: u32,
    },
    Bytes(&'a [u8]),
    /// Days since 1970-01-01.
    Date(i32),
    /// A moment in UTC.
    Instant(Moment),
    /// Wall time of no zone.
    Wall(Moment),
    /// What has passed since midnight.
    TimeOfDay(Moment),
    Uuid(&'a [u8; 16]),
    /// A value of an enum whose names may not all be known.
    Symbol {
        number: i32,
        name: Option<&'a str>,
    },
    /// An array, or an object.
    Tree(&'a Tree<'a>),
}

/// Why a value does not fit its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Misfit {
    /// What was expected instead.
    Expected(&'static str),
    /// A value of the column's type was expected.
    OfType,
    /// The batch holds as much text as an arrow column can.
    Full,
}

/// The values of a column in the making.
enum Values {
    Boolean(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal { values: Vec<i128>, precision: u8, scale: i8 },
    Text { ends: Vec<i32>, bytes: Vec<u8> },
    Date(Vec<i32>),
    Timestamp { values: Vec<i64>, reader: Box<TimestampReader> },
    List { ends: Vec<i32>, items: Box<ColumnBuilder> },
    Struct { fields: Vec<ColumnBuilder> },
}

/// One column in the making.
pub(super) struct ColumnBuilder {
    name: String,
    data_type: DataType,
    nullable: bool,
    values: Values,
    nulls: NullBufferBuilder,
}

impl ColumnBuilder {
    /// `None` when no record can be decoded into this type.
    pub(super) fn new(
        name: &str,
        data_type: &DataType,
        nullable: bool,
        format: TimestampFormat,
        zone: Tz,
    ) -> Option<Self> {
        let values = match data_type {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => {
                Values::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::Utf8 => Values::Text { ends: Vec::new(), bytes: Vec::new() },
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Timestamp(unit, instant) => Values::Timestamp {
                values: Vec::new(),
                reader: Box::new(TimestampReader::new(format, *unit, instant.is_some(), zone)),
            },
            DataType::List(item) => {
                let items = ColumnBuilder::new(item.name(), item.data_type(), true, format, zone)?;
                Values::List { ends: Vec::new(), items: Box::new(items) }
            }
            DataType::Struct(fields) => {
                let field = |field: &FieldRef| ColumnBuilder::new(field.name(), field.data_type(), true, format, zone);
                Values::Struct { fields: fields.iter().map(field).collect::<Option<_>>()? }
            }
            _ => return None,
        };
        Some(ColumnBuilder {
            name: name.to_string(),
            data_type: data_type.clone(),
            nullable,
            values,
            nulls: NullBufferBuilder::new(0),
        })
    }

    /// The column's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// True when objects and arrays are kept, as text.
    pub(super) fn keeps_json(&self) -> bool {
        matches!(self.values, Values::Text { .. })
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Appends one value, or leaves the column as it is.
    #[inline]
    pub(super) fn push(&mut self, value: Value<'_>) -> Result<(), Misfit> {
        match (value, &mut self.values) {
            (Value::Missing | Value::Null, _) => return self.push_null(),
            (Value::NotAnObject(_), _) => return Err(Misfit::Expected("an object on its path")),
            (Value::Field(""), _) => return self.push_null(),
            (value, Values::Text { ends, bytes }) => {
                let mut made = String::new();
                let text = match value {
                    Value::Bool(true) => "true",
                    Value::Bool(false) => "false",
                    Value::Number(text) | Value::Text(text) | Value::Field(text) | Value::Composite(text) => text,
                    Value::Symbol { name: Some(name), .. } => name,
                    typed => {
                        tree::write_text(typed, &mut made)?;
                        &made
                    }
                };
                let end = i32::try_from(bytes.len() + text.len()).map_err(|_| Misfit::Full)?;
                bytes.extend_from_slice(text.as_bytes());
                ends.push(end);
            }
            (Value::Composite(json), Values::List { ends, items }) => {
                nested::push_list(json, items)?;
                ends.push(i32::try_from(items.len()).map_err(|_| Misfit::Full)?);
            }
            (Value::Composite(json), Values::Struct { fields }) => nested::push_struct(json, self.nulls.len(), fields)?,
            (Value::Tree(Tree::List(elements)), Values::List { ends, items }) => {
                tree::push_list(elements, items)?;
                ends.push(i32::try_from(items.len()).map_err(|_| Misfit::Full)?);
            }
            (Value::Tree(Tree::Object(object)), Values::Struct { fields }) => {
                tree::push_struct(object, self.nulls.len(), fields)?;
            }
            (Value::Composite(_) | Value::Tree(_), _) => return Err(Misfit::OfType),
            (Value::Bool(value), Values::Boolean(values)) => values.append(value),
            (Value::Field(text), Values::Boolean(values)) => match text {
                "true" | "TRUE" | "True" => values.append(true),
                "false" | "FALSE" | "False" => values.append(false),
                _ => return Err(Misfit::OfType),
            },
            (Value::Bool(_), _) | (_, Values::Boolean(_)) => return Err(Misfit::OfType),
            (Value::Text(text) | Value::Field(text), Values::Date(values)) => {
                values.push(time::date(text).ok_or(Misfit::Expected("DATE as \"YYYY-MM-DD\""))?);
            }
            (Value::Number(_), Values::Date(_)) => return Err(Misfit::Expected("DATE as \"YYYY-MM-DD\"")),
            (Value::Text(text) | Value::Field(text), Values::Timestamp { values, reader }) => {
                values.push(reader.text(text).map_err(Misfit::Expected)?);
            }
            (Value::Number(text), Values::Timestamp { values, reader }) => {
                values.push(reader.number(text).map_err(Misfit::Expected)?);
            }
            (Value::Number(text) | Value::Text(text) | Value::Field(text), values) => push_number(values, text)?,
            (typed, values) => push_typed(values, typed)?,
        }
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_null(&mut self) -> Result<(), Misfit> {
        if !self.nullable {
            return Err(Misfit::OfType);
        }
        self.push_zero()?;
        self.nulls.append_null();
        Ok(())
    }

    /// Appends NULL in the place of a value that does not fit, where NULL may be; a batch that is full is no such case.
    pub(super) fn push_null_for(&mut self, misfit: &Misfit) -> bool {
        *misfit != Misfit::Full && self.push_null().is_ok()
    }

    /// Appends what stands in rows that have no values: NULL, or the type's zero where NULL cannot be.
    pub(super) fn push_nothing(&mut self) -> Result<(), Misfit> {
        if self.nullable {
            return self.push_null();
        }
        self.push_zero()?;
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_zero(&mut self) -> Result<(), Misfit> {
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int8(values) => values.push(0),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Timestamp { values, .. } => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Text { ends, bytes } => ends.push(bytes.len() as i32),
            Values::List { ends, items } => ends.push(items.len() as i32),
            Values::Struct { fields } => fields.iter_mut().try_for_each(ColumnBuilder::push_null)?,
        }
        Ok(())
    }

    /// Appends what is already a number of the column's unit: partitions, offsets, broker times.
    pub(super) fn push_integer(&mut self, value: i64) -> Result<(), Misfit> {
        match &mut self.values {
            Values::Int32(values) => values.push(i32::try_from(value).map_err(|_| Misfit::OfType)?),
            Values::Int64(values) | Values::Timestamp { values, .. } => values.push(value),
            _ => return Err(Misfit::OfType),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Forgets all rows behind the first `rows`.
    pub(super) fn truncate(&mut self, rows: usize) {
        if self.nulls.len() <= rows {
            return;
        }
        match &mut self.values {
            Values::Boolean(values) => values.truncate(rows),
            Values::Int8(values) => values.truncate(rows),
            Values::Int16(values) => values.truncate(rows),
            Values::Int32(values) | Values::Date(values) => values.truncate(rows),
            Values::Int64(values) | Values::Timestamp { values, .. } => values.truncate(rows),
            Values::Float32(values) => values.truncate(rows),
            Values::Float64(values) => values.truncate(rows),
            Values::Decimal { values, .. } => values.truncate(rows),
            Values::Text { ends, bytes } => {
                ends.truncate(rows);
                bytes.truncate(ends.last().map_or(0, |end| *end as usize));
            }
            Values::List { ends, items } => {
                ends.truncate(rows);
                items.truncate(ends.last().map_or(0, |end| *end as usize));
            }
            Values::Struct { fields } => fields.iter_mut().for_each(|field| field.truncate(rows)),
        }
        self.nulls.truncate(rows);
    }

    /// What was expected and what was found.
    pub(super) fn explain(&self, misfit: &Misfit, value: Value<'_>) -> String {
        let name = &self.name;
        let expected = match misfit {
            Misfit::Full => return format!("column {name:?}: more than 2 GiB of text in one batch"),
            Misfit::Expected(expected) => (*expected).to_string(),
            Misfit::OfType if self.nullable => sql_type(&self.data_type),
            Misfit::OfType => format!("{} NOT NULL", sql_type(&self.data_type)),
        };
        let found = match value {
            Value::Missing => "no such field".to_string(),
            Value::Null => "null".to_string(),
            Value::Field("") => "an empty field".to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Number(text) | Value::Composite(text) | Value::NotAnObject(text) => shortened(text),
            Value::Text(text) | Value::Field(text) => format!("{:?}", shortened(text)),
            typed => shortened(&tree::shown(typed)),
        };
        format!("column {name:?}: expected {expected}, found {found}")
    }

    /// The rows so far as an array; the builder is empty afterwards and keeps room for as many rows again.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let nulls = self.nulls.finish();
        match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int8(values) => Arc::new(Int8Array::new(taken(values), nulls)),
            Values::Int16(values) => Arc::new(Int16Array::new(taken(values), nulls)),
            Values::Int32(values) => Arc::new(Int32Array::new(taken(values), nulls)),
            Values::Int64(values) => Arc::new(Int64Array::new(taken(values), nulls)),
            Values::Float32(values) => Arc::new(Float32Array::new(taken(values), nulls)),
            Values::Float64(values) => Arc::new(Float64Array::new(taken(values), nulls)),
            Values::Date(values) => Arc::new(Date32Array::new(taken(values), nulls)),
            Values::Decimal { values, .. } => {
                // Every value was checked against the precision when it was read.
                Arc::new(Decimal128Array::new(taken(values), nulls).with_data_type(self.data_type.clone()))
            }
            Values::Text { ends, bytes } => finish_text(ends, bytes, nulls),
            Values::List { ends, items } => {
                let DataType::List(item) = &self.data_type else {
                    unreachable!("lists are only made for a list type");
                };
                let room = ends.len();
                let ends = std::mem::replace(ends, Vec::with_capacity(room));
                let offsets = OffsetBuffer::new(std::iter::once(0).chain(ends).collect());
                Arc::new(ListArray::new(Arc::clone(item), offsets, items.finish(), nulls))
            }
            Values::Struct { fields } => {
                let DataType::Struct(types) = &self.data_type else {
                    unreachable!("structs are only made for a struct type");
                };
                Arc::new(StructArray::new(types.clone(), fields.iter_mut().map(ColumnBuilder::finish).collect(), nulls))
            }
            Values::Timestamp { values, .. } => {
                let DataType::Timestamp(unit, zone) = &self.data_type else {
                    unreachable!("timestamp values are only made for a timestamp type");
                };
                let (values, zone) = (taken(values), zone.clone());
                match unit {
                    TimeUnit::Second => {
                        Arc::new(PrimitiveArray::<TimestampSecondType>::new(values, nulls).with_timezone_opt(zone))
                    }
                    TimeUnit::Millisecond => {
                        Arc::new(PrimitiveArray::<TimestampMillisecondType>::new(values, nulls).with_timezone_opt(zone))
                    }
                    TimeUnit::Microsecond => {
                        Arc::new(PrimitiveArray::<TimestampMicrosecondType>::new(values, nulls).with_timezone_opt(zone))
                    }
                    TimeUnit::Nanosecond => {
                        Arc::new(PrimitiveArray::<TimestampNanosecondType>::new(values, nulls).with_timezone_opt(zone))
                    }
                }
            }
        }
    }
}

fn push_number(values: &mut Values, text: &str) -> Result<(), Misfit> {
    let misfit = |_| Misfit::OfType;
    match values {
        Values::Int64(values) => values.push(number::integer(text).map_err(misfit)?),
        Values::Decimal { values, precision, scale } => {
            values.push(number::decimal(text, *precision, *scale).map_err(misfit)?);
        }
        Values::Float64(values) => values.push(number::double(text).map_err(misfit)?),
        Values::Int32(values) => values.push(narrow(text)?),
        Values::Int16(values) => values.push(narrow(text)?),
        Values::Int8(values) => values.push(narrow(text)?),
        Values::Float32(values) => {
            let value = number::double(text).map_err(misfit)? as f32;
            if !value.is_finite() {
                return Err(Misfit::OfType);
            }
            values.push(value);
        }
        Values::Boolean(_)
        | Values::Text { .. }
        | Values::Date(_)
        | Values::Timestamp { .. }
        | Values::List { .. }
        | Values::Struct { .. } => {
            return Err(Misfit::OfType);
        }
    }
    Ok(())
}

/// A value that is no text.
#[inline]
fn push_typed(values: &mut Values, value: Value<'_>) -> Result<(), Misfit> {
    match (value, values) {
        (Value::Integer(value), Values::Int64(values)) => values.push(value),
        (Value::Integer(value), Values::Int32(values)) => values.push(fitting(value)?),
        (Value::Integer(value), Values::Int16(values)) => values.push(fitting(value)?),
        (Value::Integer(value), Values::Int8(values)) => values.push(fitting(value)?),
        (Value::Integer(value), Values::Float64(values)) => values.push(value as f64),
        (Value::Integer(value), Values::Float32(values)) => values.push(value as f32),
        (Value::Integer(value), Values::Decimal { values, precision, scale }) => {
            values.push(number::rescaled(value.into(), 0, *precision, *scale).map_err(|_| Misfit::OfType)?);
        }
        (Value::Integer(value), Values::Timestamp { values, reader }) => {
            values.push(reader.count(value).map_err(Misfit::Expected)?);
        }
        (Value::Symbol { number, .. }, values) => return push_typed(values, Value::Integer(number.into())),
        (Value::Double(value), Values::Float64(values)) => values.push(finite(value)?),
        (Value::Real(value), Values::Float64(values)) => values.push(finite(value.into())?),
        (Value::Double(value), Values::Float32(values)) => values.push(finite((value as f32).into())? as f32),
        (Value::Real(value), Values::Float32(values)) => values.push(finite(value.into())? as f32),
        (Value::Decimal { unscaled, scale: digits }, Values::Decimal { values, precision, scale }) => {
            let unscaled = number::from_big_endian(unscaled).map_err(|_| Misfit::OfType)?;
            values.push(number::rescaled(unscaled, digits, *precision, *scale).map_err(|_| Misfit::OfType)?);
        }
        (Value::Date(days), Values::Date(values)) => {
            values.push(time::bounded_date(days).ok_or(Misfit::Expected("DATE between the years 1 and 9999"))?);
        }
        (Value::Instant(moment), Values::Timestamp { values, reader }) => {
            values.push(reader.instant(moment).map_err(Misfit::Expected)?);
        }
        (Value::Wall(moment), Values::Timestamp { values, reader }) => {
            values.push(reader.wall(moment).map_err(Misfit::Expected)?);
        }
        // What is left between kinds of numbers has to fit digit by digit, as it does in JSON.
        (Value::Large(_) | Value::Real(_) | Value::Double(_) | Value::Decimal { .. }, values) => {
            let mut digits = String::new();
            tree::write_text(value, &mut digits)?;
            match values {
                Values::Timestamp { values, reader } => values.push(reader.number(&digits).map_err(Misfit::Expected)?),
                values => push_number(values, &digits)?,
            }
        }
        _ => return Err(Misfit::OfType),
    }
    Ok(())
}

fn fitting<T: TryFrom<i64>>(value: i64) -> Result<T, Misfit> {
    T::try_from(value).map_err(|_| Misfit::OfType)
}

fn finite(value: f64) -> Result<f64, Misfit> {
    if value.is_finite() { Ok(value) } else { Err(Misfit::Expected("a finite number")) }
}

fn narrow<T: TryFrom<i64>>(text: &str) -> Result<T, Misfit> {
    fitting(number::integer(text).map_err(|_| Misfit::OfType)?)
}

fn taken<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    let room = values.len();
    std::mem::replace(values, Vec::with_capacity(room)).into()
}

fn finish_text(ends: &mut Vec<i32>, bytes: &mut Vec<u8>, nulls: Option<NullBuffer>) -> ArrayRef {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    offsets.append(ends);
    let room = bytes.len();
    let bytes = std::mem::replace(bytes, Vec::with_capacity(room));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    // SAFETY: only whole `&str`s are appended and only whole ones are cut off, so every slice is valid UTF-8.
    Arc::new(unsafe { StringArray::new_unchecked(offsets, Buffer::from_vec(bytes), nulls) })
}

/// A value's text for a message: never longer than a line.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

/// The SQL spelling of a type, for messages.
pub(super) fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision},{scale})"),
        DataType::Utf8 => "VARCHAR".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(unit, zone) => {
            let digits = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            let zone = if zone.is_some() { " WITH TIME ZONE" } else { "" };
            format!("TIMESTAMP({digits}){zone}")
        }
        DataType::List(item) => format!("{} ARRAY", sql_type(item.data_type())),
        DataType::Struct(fields) => {
            let field = |field: &FieldRef| format!("{} {}", field.name(), sql_type(field.data_type()));
            format!("STRUCT<{}>", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

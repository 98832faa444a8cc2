//! Rows as a test writes them, by the names of columns, as rows of arrow.
//!
//! Enters: values as JSON, out of TOML or CSV. Leaves: batches of the columns' types. A value fits as it would in a record:
//! exactly, ISO text for dates and times, text for anything that TOML has no word for.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use chrono_tz::Tz;
use toml::de::DeValue;

use crate::catalog::{Column, Format, Kind, Misfits, OnLost, Start, Stream, TimestampFormat};
use crate::source::decode::{DecodeError, Decoder, RawRecord};

/// Reads rows of some columns.
pub(super) struct RowReader {
    /// Of records that say every column by its name.
    stream: Stream,
    types: Vec<DataType>,
}

impl RowReader {
    /// Rows of these columns, in this order, all of which may be NULL.
    pub(super) fn new(columns: impl IntoIterator<Item = (String, DataType)>, zone: Tz) -> Self {
        let (names, types): (Vec<String>, Vec<DataType>) = columns.into_iter().unzip();
        let column = |(name, data_type): (&String, &DataType)| Column {
            name: name.clone(),
            data_type: read_as(data_type),
            nullable: true,
            path: vec![name.clone()],
            timestamp_format: TimestampFormat::Iso,
            misfits: Misfits::DeadLetter,
        };
        let columns = names.iter().zip(&types).map(column).collect();
        let stream = Stream {
            name: String::new(),
            file: Default::default(),
            title: None,
            connection: String::new(),
            topic: String::new(),
            // Text stands for values of any type, as in CSV.
            format: Format::Csv,
            kind: Kind::File,
            timezone: zone,
            start: Start::Earliest,
            time: None,
            key: Vec::new(),
            truncates: false,
            history: None,
            archive: None,
            unique: None,
            on_lost: OnLost::Stop,
            columns,
        };
        RowReader { stream, types }
    }

    /// A row, by the JSON objects' text.
    ///
    /// # Errors
    /// Which column cannot hold its value.
    pub(super) fn row(&self, object: &str) -> Result<RecordBatch, String> {
        let declared: Vec<usize> = (0..self.types.len()).collect();
        let mut decoder = Decoder::new(&self.stream, &declared).map_err(|error| error.to_string())?;
        let payload = Some(object.as_bytes());
        let record = RawRecord { topic: "", partition: 0, offset: 0, timestamp: None, key: None, payload };
        decoder.decode(&record).map_err(|error| error.to_string())?;
        let read = decoder.finish();
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for (index, data_type) in self.types.iter().enumerate() {
            let name = &self.stream.columns[index].name;
            let column = as_type(read.column(index), data_type).map_err(|why| format!("column {name:?}: {why}"))?;
            fields.push(Field::new(name, data_type.clone(), true));
            columns.push(column);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| error.to_string())
    }

    /// No rows.
    pub(super) fn none(&self) -> RecordBatch {
        let columns = self.stream.columns.iter().zip(&self.types);
        let fields: Vec<Field> =
            columns.map(|(column, data_type)| Field::new(&column.name, data_type.clone(), true)).collect();
        RecordBatch::new_empty(Arc::new(Schema::new(fields)))
    }
}

/// A stream whose records say every column by its name, whatever the stream's own are made of.
pub(super) fn by_columns(stream: &Stream) -> Stream {
    let column = |column: &Column| Column {
        path: vec![column.name.clone()],
        timestamp_format: TimestampFormat::Iso,
        misfits: Misfits::DeadLetter,
        ..column.clone()
    };
    Stream {
        format: Format::Csv,
        kind: Kind::File,
        columns: stream.columns.iter().map(column).collect(),
        ..stream.clone()
    }
}

/// A decoder of all that `stream` is for SQL, of records as `written` has them.
pub(super) fn decoder(stream: &Stream, written: &Stream) -> Result<Decoder, DecodeError> {
    let (columns, there) = (stream.schema(), written.schema());
    let places = columns.fields().iter().filter_map(|field| there.index_of(field.name()).ok());
    Decoder::new(written, &places.collect::<Vec<_>>())
}

/// A TOML value as JSON; `None` for what no column holds.
pub(super) fn json_of(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => serde_json::Value::from(text.as_ref()).to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().trim_start_matches('+').to_string(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()?.to_string(),
        // Its digits are kept as they are written.
        DeValue::Float(number) => {
            let digits = number.as_str().trim_start_matches('+');
            digits.parse::<f64>().ok().filter(|number| number.is_finite())?;
            digits.to_string()
        }
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(moment) => serde_json::Value::from(moment.to_string()).to_string(),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| json_of(item.get_ref())).collect();
            format!("[{}]", items?.join(","))
        }
        DeValue::Table(table) => {
            let member = |(name, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
                let name = serde_json::Value::from(name.get_ref().as_ref());
                Some(format!("{name}:{}", json_of(value.get_ref())?))
            };
            let members: Option<Vec<String>> = table.iter().map(member).collect();
            format!("{{{}}}", members?.join(","))
        }
    })
}

/// Lists and structs may be written as JSON text too, as a CSV file has to.
pub(super) fn unquoted(json: String, data_type: &DataType) -> String {
    let is_nested = matches!(read_as(data_type), DataType::List(_) | DataType::Struct(_));
    let text = is_nested.then(|| serde_json::from_str::<String>(&json).ok()).flatten();
    text.filter(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()).unwrap_or(json)
}

/// The type by which values of another are read.
fn read_as(data_type: &DataType) -> DataType {
    let items = |item: &Arc<Field>| Arc::new(Field::new(item.name(), read_as(item.data_type()), true));
    match data_type {
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Decimal256(_, scale) if (0..=38).contains(scale) => DataType::Decimal128(38, *scale),
        DataType::Date64 => DataType::Date32,
        DataType::Dictionary(_, values) => read_as(values),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(items(item))
        }
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(items).collect::<Fields>()),
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Date32
        | DataType::Timestamp(..) => data_type.clone(),
        _ => DataType::Utf8,
    }
}

fn as_type(read: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, String> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    match data_type {
        DataType::Null => Ok(new_null_array(data_type, read.len())),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let texts = read.as_string::<i32>();
            let bytes: Result<Vec<Option<Vec<u8>>>, String> =
                texts.iter().map(|text| text.map(bytes_of_hex).transpose()).collect();
            let bytes: ArrayRef = Arc::new(BinaryArray::from_iter(bytes?));
            cast_with_options(&bytes, data_type, &strict).map_err(|error| error.to_string())
        }
        _ => cast_with_options(read, data_type, &strict).map_err(|error| error.to_string()),
    }
}

/// Bytes are written as two hexadecimal digits each, as they are shown.
fn bytes_of_hex(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("`{text}` is no bytes in hexadecimal digits");
    if !text.is_ascii() || text.len() % 2 == 1 {
        return Err(wrong());
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong());
    (0..text.len()).step_by(2).map(byte).collect()
}

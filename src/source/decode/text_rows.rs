//! Rows of a database's table, as its log or a change of it has them: JSON objects whose text stands for values of any type,
//! as in CSV.

use arrow::datatypes::DataType;

use super::column::Value;
use super::json::JsonReader;
use super::{DecodeError, RowBuilder};
use crate::catalog::Stream;

/// Finds the columns of one row after the other.
pub(super) struct TextRowReader {
    object: JsonReader,
    /// By declared column.
    types: Vec<DataType>,
}

impl TextRowReader {
    pub(super) fn new(stream: &Stream, rows: &RowBuilder) -> Self {
        let types = stream.columns.iter().map(|column| column.data_type.clone()).collect();
        TextRowReader { object: JsonReader::new(stream, rows), types }
    }

    pub(super) fn read(&mut self, text: &str) -> Result<(), DecodeError> {
        self.object.read(text)
    }

    /// The value of a declared column in the row `text` that was just read.
    pub(super) fn value<'a>(&'a self, slot: usize, text: &'a str) -> Value<'a> {
        match (self.object.value(slot, text), &self.types[slot]) {
            // Quotes tell empty text from no value; every other type than VARCHAR refuses it.
            (Value::Text(""), _) => Value::Text(""),
            // MySQL's BOOLEAN is a number.
            (Value::Text("0") | Value::Number("0"), DataType::Boolean) => Value::Bool(false),
            (Value::Text("1") | Value::Number("1"), DataType::Boolean) => Value::Bool(true),
            (Value::Text(text), data_type) if *data_type != DataType::Utf8 => Value::Field(text),
            (value, _) => value,
        }
    }
}

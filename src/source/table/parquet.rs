//! The rows of a Parquet file as JSON objects.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema};
use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::file::Found;
use crate::catalog::Stream;

/// All rows of the file; nothing of a file that is not whole.
pub(super) fn rows(content: Vec<u8>, stream: &Stream) -> Result<Vec<Found>, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(content))
        .map_err(|error| format!("no whole Parquet file: {error}"))?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let has = |name: &str| names.iter().any(|known| known.to_lowercase() == name.to_lowercase());
    if let Some(column) = stream.columns.iter().find(|column| column.path.first().is_none_or(|name| !has(name))) {
        return Err(format!("the file has no column {:?}, only {}", column.name, names.join(", ")));
    }
    let mut found = Vec::new();
    for batch in builder.build().map_err(|error| error.to_string())? {
        let batch = with_texts(&batch.map_err(|error| error.to_string())?)?;
        let numbers = all_numbers(&batch);
        let sound = filter_record_batch(&batch, &numbers).map_err(|error| error.to_string())?;
        for row in json(&sound)? {
            found.push(Found::Row(row));
        }
        for row in (0..batch.num_rows()).filter(|row| !numbers.value(*row)) {
            let reason = "NaN and infinity are no values of a table".to_string();
            found.push(Found::Unusable { reason, text: json(&batch.slice(row, 1))?.concat() });
        }
    }
    Ok(found)
}

fn json(batch: &RecordBatch) -> Result<Vec<String>, String> {
    let mut bytes = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut bytes);
    writer.write(batch).and_then(|()| writer.finish()).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    Ok(text.lines().map(str::to_string).collect())
}

/// Text of writers that do not say that it is some; what is none is an error, and not its hexadecimal digits.
fn with_texts(batch: &RecordBatch) -> Result<RecordBatch, String> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let is_binary = matches!(field.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
        if !is_binary {
            fields.push(field.as_ref().clone());
            columns.push(Arc::clone(column));
            continue;
        }
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let text = cast_with_options(column, &DataType::Utf8, &strict);
        columns.push(text.map_err(|error| format!("column {:?} is no text: {error}", field.name()))?);
        fields.push(Field::new(field.name(), DataType::Utf8, true));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| error.to_string())
}

/// True for each row whose numbers JSON can write: it would make NULL of the others.
fn all_numbers(batch: &RecordBatch) -> BooleanArray {
    let is_sound = |column: &dyn Array, row: usize| match column.data_type() {
        DataType::Float64 => column.is_null(row) || column.as_primitive::<Float64Type>().value(row).is_finite(),
        DataType::Float32 => column.is_null(row) || column.as_primitive::<Float32Type>().value(row).is_finite(),
        _ => true,
    };
    (0..batch.num_rows()).map(|row| Some(batch.columns().iter().all(|column| is_sound(column, row)))).collect()
}

//! Texts out of a store back into arrow, to compare a table with what it should be.
//!
//! Enters: one text a cell, as the stores give them. Leaves: columns of the tag's types.
//! The inverse of [`cells`](super::cells), except where a store holds less (NaN, parts of a microsecond).

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringArray,
    StructArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{
    CastOptions, SortColumn, cast, cast_with_options, concat_batches, lexsort_to_indices, take_record_batch,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use chrono::{DateTime, NaiveDateTime, TimeZone};
use chrono_tz::Tz;

use super::types::StoreType;
use super::{Keep, SinkColumn, TagTable, TextRow};

/// One cell as the store gives it.
pub type RawCell = Option<Vec<u8>>;

/// A whole table out of its cells, column by column, sorted by key.
///
/// # Errors
/// Which column holds what cannot be read as its type.
pub fn table_from_cells(table: &TagTable, cells: Vec<Vec<RawCell>>, zone: Tz) -> Result<RecordBatch, String> {
    let columns = table.key.iter().chain(&table.columns);
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    let rows = cells.first().map_or(0, Vec::len);
    for (index, (column, cells)) in columns.zip(cells).enumerate() {
        let array = array_from_cells(&column.data_type, cells, zone)
            .map_err(|message| format!("column `{}`: {message}", column.name))?;
        fields.push(Field::new(&column.name, column.data_type.clone(), index >= table.key.len()));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| error.to_string())?;
    let sort_columns: Vec<SortColumn> = batch.columns()[..table.key.len()]
        .iter()
        .map(|column| SortColumn { values: column.clone(), options: None })
        .collect();
    let order = lexsort_to_indices(&sort_columns, None).map_err(|error| error.to_string())?;
    take_record_batch(&batch, &order).map_err(|error| error.to_string())
}

/// How many rows are turned into arrow at a time.
const PIECE: usize = 1 << 16;

/// A table out of rows as a store gives them, of which only some are kept.
pub struct KeptRows<'a> {
    table: &'a TagTable,
    zone: Tz,
    keep: Keep<'a>,
    /// By column.
    cells: Vec<Vec<RawCell>>,
    kept: Vec<RecordBatch>,
}

impl<'a> KeptRows<'a> {
    /// Of this table.
    pub fn new(table: &'a TagTable, zone: Tz, keep: Keep<'a>) -> Self {
        let cells = vec![Vec::new(); table.key.len() + table.columns.len()];
        KeptRows { table, zone, keep, cells, kept: Vec::new() }
    }

    /// Takes a row.
    ///
    /// # Errors
    /// Which column holds what cannot be read as its type.
    pub fn add(&mut self, row: Vec<RawCell>) -> Result<(), String> {
        self.cells.iter_mut().zip(row).for_each(|(column, cell)| column.push(cell));
        if self.cells.first().is_some_and(|column| column.len() >= PIECE) { self.end_piece() } else { Ok(()) }
    }

    fn end_piece(&mut self) -> Result<(), String> {
        let cells = self.cells.iter_mut().map(std::mem::take).collect();
        let piece = table_from_cells(self.table, cells, self.zone)?;
        self.kept.push((self.keep)(piece).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// All that was kept.
    ///
    /// # Errors
    /// As [`KeptRows::add`].
    pub fn finish(mut self) -> Result<RecordBatch, String> {
        self.end_piece()?;
        concat_batches(&self.kept[0].schema(), &self.kept).map_err(|error| error.to_string())
    }
}

/// One cell as people read it.
fn display_text(data_type: &DataType, cell: RawCell) -> Option<String> {
    cell.map(|bytes| match StoreType::of(data_type) {
        Ok(StoreType::Boolean) => if bytes == b"0" { "false" } else { "true" }.to_string(),
        Ok(StoreType::Bytes) => super::cells::Hex(&bytes).to_string(),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    })
}

/// A row of a value and its number of rows.
pub fn value_count(column: &SinkColumn, row: Vec<RawCell>) -> (Option<String>, u64) {
    let mut cells = row.into_iter();
    let value = display_text(&column.data_type, cells.next().flatten());
    let rows = cells.next().flatten().and_then(|bytes| String::from_utf8_lossy(&bytes).parse().ok());
    (value, rows.unwrap_or_default())
}

fn array_from_cells(data_type: &DataType, cells: Vec<RawCell>, zone: Tz) -> Result<ArrayRef, String> {
    if *data_type == DataType::Null {
        return Ok(new_null_array(data_type, cells.len()));
    }
    let store_type = StoreType::of(data_type).map_err(|error| error.to_string())?;
    if store_type == StoreType::Bytes {
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter(cells));
        return cast(&bytes, data_type).map_err(|error| error.to_string());
    }
    let texts = cells
        .into_iter()
        .map(|cell| cell.map(String::from_utf8).transpose().map_err(|_| "not UTF-8".to_string()))
        .collect::<Result<Vec<Option<String>>, String>>()?;
    match (store_type, data_type) {
        (StoreType::Boolean, _) => {
            Ok(Arc::new(texts.iter().map(|text| text.as_ref().map(|text| text != "0")).collect::<BooleanArray>()))
        }
        (StoreType::DateTime { .. }, DataType::Timestamp(unit, instant)) => {
            let zone = instant.is_some().then_some(zone);
            let values = texts
                .iter()
                .map(|text| text.as_deref().map(|text| parse_moment(text, *unit, zone)).transpose())
                .collect::<Result<Int64Array, String>>()?;
            let values: ArrayRef = Arc::new(values);
            cast(&values, data_type).map_err(|error| error.to_string())
        }
        (StoreType::Json, _) => array_from_json(data_type, &texts, zone),
        _ => {
            let values: ArrayRef = Arc::new(StringArray::from_iter(texts));
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(&values, data_type, &strict).map_err(|error| error.to_string())
        }
    }
}

fn parse_moment(text: &str, unit: TimeUnit, zone: Option<Tz>) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no date and time");
    let local = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").map_err(|_| wrong())?;
    let utc: DateTime<chrono::Utc> = match zone {
        Some(zone) => zone.from_local_datetime(&local).earliest().ok_or_else(wrong)?.to_utc(),
        None => local.and_utc(),
    };
    match unit {
        TimeUnit::Second => Ok(utc.timestamp()),
        TimeUnit::Millisecond => Ok(utc.timestamp_millis()),
        TimeUnit::Microsecond => Ok(utc.timestamp_micros()),
        TimeUnit::Nanosecond => utc.timestamp_nanos_opt().ok_or_else(wrong),
    }
}

fn array_from_json(data_type: &DataType, texts: &[Option<String>], zone: Tz) -> Result<ArrayRef, String> {
    let nulls = || NullBuffer::from_iter(texts.iter().map(Option::is_some));
    match data_type {
        DataType::List(item) => {
            let lists: Vec<Vec<&str>> = texts.iter().map(|text| json_parts(text.as_deref().unwrap_or("[]"))).collect();
            let offsets = OffsetBuffer::<i32>::from_lengths(lists.iter().map(Vec::len));
            let cells = lists.into_iter().flatten().map(|text| cell_from_json(item.data_type(), text));
            let items = array_from_cells(item.data_type(), cells.collect::<Result<_, _>>()?, zone)?;
            let list = ListArray::try_new(item.clone(), offsets, items, Some(nulls())).map_err(|e| e.to_string())?;
            Ok(Arc::new(list))
        }
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let list = array_from_json(&DataType::List(item.clone()), texts, zone)?;
            cast(&list, data_type).map_err(|error| error.to_string())
        }
        DataType::Struct(fields) => {
            let objects: Vec<Vec<&str>> =
                texts.iter().map(|text| json_parts(text.as_deref().unwrap_or("{}"))).collect();
            let mut columns = Vec::new();
            for (index, field) in fields.iter().enumerate() {
                let cells = objects.iter().map(|members| match members.get(index) {
                    Some(member) => cell_from_json(field.data_type(), after_name(member)),
                    None => Ok(None),
                });
                columns.push(array_from_cells(field.data_type(), cells.collect::<Result<_, _>>()?, zone)?);
            }
            let structs =
                StructArray::try_new(fields.clone(), columns, Some(nulls())).map_err(|error| error.to_string())?;
            Ok(Arc::new(structs))
        }
        DataType::Dictionary(_, values) => {
            let values = array_from_json(values, texts, zone)?;
            cast(&values, data_type).map_err(|error| error.to_string())
        }
        other => Err(format!("{other} is not stored as JSON")),
    }
}

/// A JSON value as the cell that a column of its own would hold.
fn cell_from_json(data_type: &DataType, text: &str) -> Result<RawCell, String> {
    if text == "null" {
        return Ok(None);
    }
    let unquoted = match text.starts_with('"') {
        true => serde_json::from_str::<String>(text).map_err(|error| error.to_string())?,
        false => text.to_string(),
    };
    Ok(Some(match StoreType::of(data_type).map_err(|error| error.to_string())? {
        StoreType::Boolean => if text == "true" { "1" } else { "0" }.into(),
        StoreType::Bytes => unquoted.as_bytes().chunks(2).map(byte_from_hex).collect::<Result<_, _>>()?,
        _ => unquoted.into_bytes(),
    }))
}

fn byte_from_hex(digits: &[u8]) -> Result<u8, String> {
    let digits = std::str::from_utf8(digits).map_err(|error| error.to_string())?;
    u8::from_str_radix(digits, 16).map_err(|error| format!("`{digits}`: {error}"))
}

/// The texts between the outer brackets, split at the commas of that level. Numbers stay text, so that no digit is lost.
fn json_parts(text: &str) -> Vec<&str> {
    let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    let mut parts = Vec::new();
    let (mut depth, mut start, mut in_text, mut escaped) = (0, 0, false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner.is_empty() {
        parts.push(&inner[start..]);
    }
    parts
}

/// What follows `"name":`.
fn after_name(member: &str) -> &str {
    let mut escaped = false;
    for (at, byte) in member.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return member.get(at + 2..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}
/// A row for people.
pub fn text_row(table: &TagTable, row: Vec<RawCell>) -> TextRow {
    let columns = table.key.iter().chain(&table.columns);
    columns.zip(row).map(|(column, cell)| (column.name.clone(), display_text(&column.data_type, cell))).collect()
}

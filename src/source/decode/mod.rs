//! Bytes of a record → a row of Arrow columns.
//!
//! Enters: raw records, one at a time, and the columns that are wanted. Leaves: record batches, or for a record that
//! does not fit its stream's schema an error that names the column. A refused record leaves no trace in the batch.
//! Never guesses: a value of a wrong type is an error, or a NULL that is counted where the schema says so. In detail:
//!
//! - Field names match exactly, else whatever their case; of a field given twice the last one holds.
//! - A missing field, `null` and an empty CSV field are NULL; a quoted empty CSV field is empty text.
//! - Integers, decimals and doubles are also read from text (`"12"`); they must fit exactly: `1.0` is an integer,
//!   `12.345` no DECIMAL(12,2). Doubles take the nearest value.
//! - VARCHAR keeps numbers and booleans as they were written and objects and arrays as compact JSON.
//! - An ARRAY is a JSON array whose elements are all of its type or null; a STRUCT is an object, of which other fields
//!   are passed over.
//! - Timestamps finer than the column's precision are cut.
//! - Binary formats say what a value is: logical types and enums are theirs, not their underlying numbers. Whole numbers
//!   fit decimals and doubles, doubles fit where they are whole, and bytes are text where they are UTF-8.

mod avro;
mod avro_records;
mod changes;
mod column;
mod csv;
mod json;
mod nested;
mod number;
mod protobuf;
mod scan;
mod text_rows;
mod time;
mod tombstone;
mod tree;
mod wanted;

use std::sync::Arc;

pub(crate) use self::csv::CsvReader;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};

pub use self::avro_records::{Lookup, Schemas, Unavailable};
use self::changes::Change;
use self::column::{ColumnBuilder, Value};
pub use self::time::instant;
use self::tombstone::TombstoneReader;
use crate::catalog::{Column, DELETED, Format, Kind, Misfits, Stream, TRUNCATED, TimestampFormat};

/// A record as the source has it.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    /// The Kafka topic, or the file's name below its connection's folder.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Broker time in milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record itself; `None` for a tombstone.
    pub payload: Option<&'a [u8]>,
}

/// Why a record has no row: lower case, naming the column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// Decodes the records of one partition of one stream.
pub struct Decoder {
    syntax: Syntax,
    rows: RowBuilder,
    /// There where an empty record deletes the row of its key.
    tombstones: Option<TombstoneReader>,
}

enum Syntax {
    Json(json::JsonReader),
    Csv(csv::CsvReader),
    TextRows(text_rows::TextRowReader),
    Changes(Box<changes::ChangeReader>),
    Avro(Box<avro_records::AvroRecords>),
    Protobuf(Box<protobuf::ProtobufRecords>),
}

impl Decoder {
    /// A decoder of the columns at `columns` of the stream's schema (see
    /// [`ReadRequest::columns`](crate::source::ReadRequest)). CSV fields are taken in the order of the columns unless
    /// [`Decoder::set_csv_header`] says otherwise. The error says which column has a type that cannot be read.
    pub fn new(stream: &Stream, columns: &[usize]) -> Result<Self, DecodeError> {
        let rows = RowBuilder::new(stream, columns)?;
        let has_types = stream.format == Format::Json && !matches!(stream.kind, Kind::Mysql { .. });
        let syntax = match &stream.format {
            _ if stream.kind.is_outside() && !has_types => {
                Syntax::TextRows(text_rows::TextRowReader::new(stream, &rows))
            }
            Format::Json => Syntax::Json(json::JsonReader::new(stream, &rows)),
            Format::Csv => Syntax::Csv(csv::CsvReader::new(stream)),
            Format::Debezium | Format::Canal | Format::Maxwell => {
                Syntax::Changes(Box::new(changes::ChangeReader::new(stream, &rows)?))
            }
            Format::Avro(schema) => {
                Syntax::Avro(Box::new(avro_records::AvroRecords::new(stream, schema.as_ref(), &rows)))
            }
            Format::Protobuf(format) => {
                Syntax::Protobuf(Box::new(protobuf::ProtobufRecords::new(stream, format, &rows)))
            }
            Format::Parquet => return Err(DecodeError("a Parquet file is read as a whole: kind = \"file\"".into())),
        };
        let tombstones = (stream.kind != Kind::Records).then(|| TombstoneReader::new(stream, &rows));
        Ok(Decoder { syntax, rows, tombstones })
    }

    /// For CSV: the line that names the fields of all following records.
    pub fn set_csv_header(&mut self, line: &[u8]) -> Result<(), DecodeError> {
        match &mut self.syntax {
            Syntax::Csv(reader) => reader.set_header(line),
            Syntax::Json(_) | Syntax::TextRows(_) | Syntax::Changes(_) | Syntax::Avro(_) | Syntax::Protobuf(_) => {
                Ok(())
            }
        }
    }

    /// For Avro: where the schemas are found that records name.
    pub fn set_schemas(&mut self, schemas: Arc<dyn Schemas>) {
        if let Syntax::Avro(records) = &mut self.syntax {
            records.set_schemas(schemas);
        }
    }

    /// Gets what decoding this record needs from elsewhere; to be called before [`Decoder::decode`].
    ///
    /// # Errors
    /// When it cannot be had now. The record is not decoded then, and has to be tried again.
    #[inline]
    pub fn prepare(&mut self, payload: Option<&[u8]>) -> Result<(), Unavailable> {
        match (&mut self.syntax, payload) {
            (Syntax::Avro(records), Some(payload)) => records.prepare(payload),
            _ => Ok(()),
        }
    }

    /// Adds the rows of a record, one for an event, or nothing.
    #[inline]
    pub fn decode(&mut self, record: &RawRecord<'_>) -> Result<(), DecodeError> {
        self.rows.values_as_null = 0;
        let payload = match record.payload {
            None if let Some(tombstones) = &mut self.tombstones => {
                tombstones.read(record.key)?;
                self.rows.is_deleted = true;
                let added = self.rows.append(record, |slot| tombstones.value(slot));
                self.rows.is_deleted = false;
                return added;
            }
            // What follows a delete for compaction's sake.
            None if matches!(self.syntax, Syntax::Changes(_)) => return Ok(()),
            None => return Err(DecodeError("the record is empty (a tombstone)".into())),
            // A message of nothing but defaults has no bytes.
            Some([]) if !matches!(self.syntax, Syntax::Protobuf(_)) => {
                return Err(DecodeError("the record is empty".into()));
            }
            Some(payload) => payload,
        };
        if u32::try_from(payload.len()).is_err() {
            return Err(DecodeError("the record is larger than 4 GiB".into()));
        }
        let text = || {
            std::str::from_utf8(payload)
                .map_err(|error| DecodeError(format!("invalid UTF-8 at byte {}", error.valid_up_to())))
        };
        match &mut self.syntax {
            Syntax::Avro(records) => records.append(record, payload, &mut self.rows),
            Syntax::Protobuf(records) => records.append(record, payload, &mut self.rows),
            Syntax::Json(reader) => {
                let text = text()?;
                reader.read(text)?;
                self.rows.append(record, |slot| reader.value(slot, text))
            }
            Syntax::Csv(reader) => {
                let text = text()?;
                reader.read(text)?;
                self.rows.append(record, |slot| reader.value(slot, text))
            }
            Syntax::TextRows(reader) => {
                let text = text()?;
                reader.read(text)?;
                self.rows.append(record, |slot| reader.value(slot, text))
            }
            Syntax::Changes(reader) => {
                let before = self.rows.rows;
                for change in reader.changes(text()?)? {
                    let added = match &change {
                        Change::Row { is_deleted, row } => {
                            self.rows.is_deleted = *is_deleted;
                            let read = reader.read_row(row);
                            read.and_then(|()| self.rows.append(record, |slot| reader.value(slot, row)))
                        }
                        Change::Truncated => self.rows.append_truncation(record),
                        Change::Nothing(what) => {
                            let RawRecord { topic, partition, offset, .. } = record;
                            tracing::info!(topic, partition, offset, what, "record skipped: it changes no row");
                            Ok(())
                        }
                    };
                    if let Err(error) = added {
                        self.rows.cut(before);
                        return Err(error);
                    }
                }
                Ok(())
            }
        }
    }

    /// Values of the record before that did not fit and are NULL; for rows that were added.
    pub fn values_as_null(&self) -> u64 {
        self.rows.values_as_null
    }

    /// Rows since the last [`Decoder::finish`].
    pub fn rows(&self) -> usize {
        self.rows.rows
    }

    /// The rows so far; the decoder is empty afterwards.
    pub fn finish(&mut self) -> RecordBatch {
        self.rows.finish()
    }
}

/// Where an output column's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The stream's declared column of this index.
    Declared(usize),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    Deleted,
    Truncated,
}

/// The columns of a batch in the making.
struct RowBuilder {
    schema: SchemaRef,
    columns: Vec<(Origin, ColumnBuilder)>,
    /// Columns that nobody asked for and that a value may not fit: read and forgotten, so that what is a dead letter does
    /// not depend on the tags that happen to run.
    checked: Vec<(usize, ColumnBuilder)>,
    rows: usize,
    /// What the next row says of its key.
    is_deleted: bool,
    /// The table may be emptied.
    truncates: bool,
    /// By declared column: what does not fit is NULL.
    misfits_as_null: Vec<bool>,
    /// Such values of the current record.
    values_as_null: u64,
}

impl RowBuilder {
    fn new(stream: &Stream, wanted: &[usize]) -> Result<Self, DecodeError> {
        let schema = stream.schema();
        let builder = |index: usize| {
            let field = schema.field(index);
            let format = stream.columns.get(index).map_or(TimestampFormat::default(), |column| column.timestamp_format);
            ColumnBuilder::new(field.name(), field.data_type(), field.is_nullable(), format, stream.timezone)
                .ok_or_else(|| {
                    let (name, data_type) = (field.name(), column::sql_type(field.data_type()));
                    DecodeError(format!("column {name:?}: no record can be read as {data_type}"))
                })
        };
        let declared = stream.columns.len();
        let mut columns = Vec::with_capacity(wanted.len());
        for &index in wanted {
            if index >= schema.fields().len() {
                let stream = &stream.name;
                return Err(DecodeError(format!("stream {stream:?} has no column of index {index}")));
            }
            let origin = match schema.field(index).name().as_str() {
                _ if index < declared => Origin::Declared(index),
                "_topic" => Origin::Topic,
                "_partition" => Origin::Partition,
                "_offset" => Origin::Offset,
                "_timestamp" => Origin::Timestamp,
                "_key" => Origin::Key,
                DELETED => Origin::Deleted,
                TRUNCATED => Origin::Truncated,
                other => return Err(DecodeError(format!("system column {other:?} is unknown to the decoder"))),
            };
            columns.push((origin, builder(index)?));
        }
        let checked = (0..declared)
            .filter(|index| !wanted.contains(index) && may_misfit(&stream.columns[*index], &stream.format))
            .map(|index| Ok((index, builder(index)?)))
            .collect::<Result<_, DecodeError>>()?;
        let schema = schema.project(wanted).map_err(|error| DecodeError(error.to_string()))?;
        let truncates = stream.truncates;
        Ok(RowBuilder {
            schema: schema.into(),
            columns,
            checked,
            rows: 0,
            is_deleted: false,
            truncates,
            misfits_as_null: stream.columns.iter().map(|column| column.misfits == Misfits::Null).collect(),
            values_as_null: 0,
        })
    }

    /// The declared columns that are looked at, and whether each keeps JSON text.
    fn slots(&self) -> impl Iterator<Item = (usize, bool)> {
        let wanted = self.columns.iter().filter_map(|(origin, column)| match origin {
            Origin::Declared(slot) => Some((*slot, column.keeps_json())),
            _ => None,
        });
        wanted.chain(self.checked.iter().map(|(slot, column)| (*slot, column.keeps_json())))
    }

    /// Appends one row, or nothing.
    #[inline]
    fn append<'a>(&mut self, record: &RawRecord<'_>, value: impl Fn(usize) -> Value<'a>) -> Result<(), DecodeError> {
        let mut fault = None;
        let is_deleted = self.is_deleted;
        for (slot, column) in &mut self.checked {
            let value = value(*slot);
            let outcome = column.push(value);
            column.truncate(0);
            if let Err(misfit) = outcome {
                return Err(DecodeError(column.explain(&misfit, value)));
            }
        }
        for (origin, column) in &mut self.columns {
            let outcome = match origin {
                Origin::Declared(slot) => {
                    let value = value(*slot);
                    match column.push(value) {
                        Err(misfit) if self.misfits_as_null[*slot] && column.push_null_for(&misfit) => {
                            self.values_as_null += 1;
                            Ok(())
                        }
                        outcome => outcome.map_err(|misfit| column.explain(&misfit, value)),
                    }
                }
                Origin::Deleted => column.push(Value::Bool(is_deleted)).map_err(|misfit| format!("{misfit:?}")),
                Origin::Truncated => column.push(Value::Bool(false)).map_err(|misfit| format!("{misfit:?}")),
                system => append_system(column, *system, record),
            };
            if let Err(message) = outcome {
                fault = Some(DecodeError(message));
                break;
            }
        }
        match fault {
            None => {
                self.rows += 1;
                Ok(())
            }
            Some(fault) => {
                self.cut(self.rows);
                Err(fault)
            }
        }
    }

    /// Appends the row that says that all rows of smaller offsets are gone; its other columns say nothing.
    fn append_truncation(&mut self, record: &RawRecord<'_>) -> Result<(), DecodeError> {
        if !self.truncates {
            let message =
                "TRUNCATE is not followed: write `truncates = true` into the stream's schema file, or delete the rows";
            return Err(DecodeError(message.into()));
        }
        for (origin, column) in &mut self.columns {
            let outcome = match origin {
                Origin::Declared(_) => column.push_nothing().map_err(|misfit| format!("{misfit:?}")),
                Origin::Deleted => column.push(Value::Bool(false)).map_err(|misfit| format!("{misfit:?}")),
                Origin::Truncated => column.push(Value::Bool(true)).map_err(|misfit| format!("{misfit:?}")),
                system => append_system(column, *system, record),
            };
            if let Err(message) = outcome {
                self.cut(self.rows);
                return Err(DecodeError(message));
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Takes the rows behind the first `rows` back.
    fn cut(&mut self, rows: usize) {
        for (_, column) in &mut self.columns {
            column.truncate(rows);
        }
        self.rows = rows;
    }

    fn finish(&mut self) -> RecordBatch {
        let columns: Vec<ArrayRef> = self.columns.iter_mut().map(|(_, column)| column.finish()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .expect("every column was built for its field and has one value a row")
    }
}

/// False for a column that takes whatever a record has in its place.
fn may_misfit(column: &Column, format: &Format) -> bool {
    let is_text = matches!(format, Format::Json | Format::Csv | Format::Debezium | Format::Canal | Format::Maxwell);
    let takes_all = is_text && column.data_type == DataType::Utf8 && column.path.len() == 1;
    !column.nullable || !(takes_all || column.misfits == Misfits::Null)
}

fn append_system(column: &mut ColumnBuilder, origin: Origin, record: &RawRecord<'_>) -> Result<(), String> {
    let outcome = match origin {
        Origin::Topic => column.push(Value::Text(record.topic)),
        Origin::Partition => column.push_integer(record.partition.into()),
        Origin::Offset => column.push_integer(record.offset),
        Origin::Timestamp => match record.timestamp {
            Some(millis) => column.push_integer(millis),
            None => column.push(Value::Null),
        },
        Origin::Key => match record.key {
            // A binary key is shown with replacement characters: whether a record is a dead letter must not depend
            // on who reads its key.
            Some(key) => column.push(Value::Text(&String::from_utf8_lossy(key))),
            None => column.push(Value::Null),
        },
        Origin::Declared(_) | Origin::Deleted | Origin::Truncated => Ok(()),
    };
    outcome.map_err(|_| format!("column {:?}: cannot hold this record's value", column.name()))
}

#[cfg(test)]
mod avro_tests;
#[cfg(test)]
mod changes_tests;
#[cfg(test)]
mod protobuf_tests;
#[cfg(test)]
mod tests;

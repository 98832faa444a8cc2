//! Rows of a table as a look finds them → what the log has to say of it.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::Setback;
use super::log::LogWriter;
use crate::catalog::Stream;
use crate::source::decode::{DecodeError, Decoder, RawRecord};
use crate::source::emit::StopFlag;

/// Rows whose keys are made out together.
const ROWS_AT_ONCE: usize = 4096;
/// Bytes of rows after which readers may see what there is.
const COMMIT_BYTES: usize = 8 << 20;

/// Makes out the key of a row: the same text for the same key, however the row writes it (`1`, `01`).
pub(super) struct Keys {
    decoder: Decoder,
}

impl Keys {
    pub(super) fn new(stream: &Stream) -> Result<Self, DecodeError> {
        // Of the other columns nothing is said here: a row that does not decode has a key all the same.
        let keys = stream.of_key();
        let places: Vec<usize> = (0..keys.columns.len()).collect();
        Ok(Keys { decoder: Decoder::new(&keys, &places)? })
    }

    fn take(&mut self, row: &str) -> Result<(), DecodeError> {
        let payload = Some(row.as_bytes());
        self.decoder.decode(&RawRecord { topic: "", partition: 0, offset: 0, timestamp: None, key: None, payload })
    }

    /// The keys of the rows that were taken, as JSON objects.
    fn finish(&mut self) -> Result<Vec<String>, ArrowError> {
        let batch: RecordBatch = self.decoder.finish();
        let options = FormatOptions::default();
        let names: Vec<String> = batch.schema().fields().iter().map(|field| json_text(field.name())).collect();
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
        let key = |row: usize| {
            let values = columns.iter().map(|column| json_text(&column.value(row).to_string()));
            let fields: Vec<String> = names.iter().zip(values).map(|(name, value)| format!("{name}:{value}")).collect();
            format!("{{{}}}", fields.join(","))
        };
        Ok((0..batch.num_rows()).map(key).collect())
    }
}

pub(super) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Compares what is seen with the log, and appends what differs.
pub(super) struct Differ<'a> {
    writer: &'a mut LogWriter,
    keys: Keys,
    at: i64,
    stop: &'a StopFlag,
    rows: Vec<String>,
    bytes: usize,
    gathered: Option<Gathered>,
}

/// The rows of a table that may have several of one key, of which the last counts.
#[derive(Default)]
struct Gathered {
    rows: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl<'a> Differ<'a> {
    /// Of a look at the time `at`.
    pub(super) fn new(writer: &'a mut LogWriter, keys: Keys, at: i64, stop: &'a StopFlag) -> Self {
        Differ { writer, keys, at, stop, rows: Vec::new(), bytes: 0, gathered: None }
    }

    /// A look at the whole table begins, whose key is unique.
    pub(super) fn begin(&mut self) {
        self.writer.begin_look();
    }

    /// A look at a whole table begins that may have several rows of a key. Nothing is appended before its end.
    pub(super) fn begin_gathering(&mut self) {
        self.begin();
        self.gathered = Some(Gathered::default());
    }

    /// The table has this row, a JSON object.
    pub(super) fn row(&mut self, row: String) -> Result<(), Setback> {
        if let Err(error) = self.keys.take(&row) {
            return self.unusable(&error.to_string(), &row);
        }
        self.bytes += row.len();
        self.rows.push(row);
        if self.rows.len() >= ROWS_AT_ONCE { self.settle() } else { Ok(()) }
    }

    /// The table has something that is no row.
    pub(super) fn unusable(&mut self, reason: &str, text: &str) -> Result<(), Setback> {
        let outcome = self.writer.unusable(reason, text, self.at);
        outcome.map_err(|error| Setback::Trouble(error.to_string()))
    }

    /// The whole table was seen: what was not is gone.
    pub(super) fn end(&mut self) -> Result<(), Setback> {
        self.settle()?;
        if let Some(gathered) = self.gathered.take() {
            let total = gathered.rows.len();
            if total > gathered.places.len() {
                let doubles = total - gathered.places.len();
                tracing::warn!(rows = doubles, "rows share their key with a later row, which is the one that counts");
            }
            for (place, (key, row)) in gathered.rows.iter().enumerate() {
                if gathered.places.get(key) == Some(&place) {
                    self.append(key, row)?;
                }
            }
        }
        let before = self.writer.rows();
        let gone = self.writer.end_look(self.at).map_err(|error| Setback::Trouble(error.to_string()))?;
        if gone > 0 && gone == before {
            tracing::warn!(rows = gone, "the table is empty now");
        }
        Ok(())
    }

    /// Lets readers see what was appended.
    pub(super) fn commit(&mut self) -> Result<(), Setback> {
        if !self.rows.is_empty() {
            self.settle()?;
        }
        self.bytes = 0;
        self.writer.commit().map_err(|error| Setback::Trouble(error.to_string()))
    }

    fn settle(&mut self) -> Result<(), Setback> {
        self.stop.check()?;
        let keys = self.keys.finish().map_err(|error| Setback::Trouble(error.to_string()))?;
        let rows = std::mem::take(&mut self.rows);
        if let Some(gathered) = &mut self.gathered {
            for (key, row) in keys.into_iter().zip(rows) {
                gathered.places.insert(key.clone(), gathered.rows.len());
                gathered.rows.push((key, row));
            }
            return Ok(());
        }
        for (key, row) in keys.iter().zip(&rows) {
            self.append(key, row)?;
        }
        if self.bytes >= COMMIT_BYTES { self.commit() } else { Ok(()) }
    }

    fn append(&mut self, key: &str, row: &str) -> Result<(), Setback> {
        self.writer.row(key, row, self.at).map_err(|error| Setback::Trouble(error.to_string()))
    }
}

//! Changes of a database's table: what Debezium, Canal and Maxwell write becomes rows that say what a key is from now on,
//! or that it is gone.
//!
//! A change is never taken back by the old row that it carries, which may be missing or doubled: the newest row of each
//! key is what counts (see [`crate::plan::changes`]). The old row only tells which key a row had before.

use serde_json::Value as Json;

use super::column::{Value, shortened};
use super::json::JsonReader;
use super::text_rows::TextRowReader;
use super::{DecodeError, RowBuilder};
use crate::catalog::{Column, Format, Stream, TimestampFormat};

/// Reads the envelope of a record and the rows in it.
pub(super) struct ChangeReader {
    format: Format,
    envelope: JsonReader,
    row: TextRowReader,
    /// The key's columns alone.
    keys: JsonReader,
    /// The path in a row of each of them.
    key: Vec<Vec<String>>,
}

/// What a record says.
pub(super) enum Change {
    /// A row, or that its key is gone.
    Row {
        /// The key is gone; only its columns are known.
        is_deleted: bool,
        /// A JSON object of the table's columns.
        row: String,
    },
    /// The table is empty from now on.
    Truncated,
    /// It is about no row: what it is about.
    Nothing(String),
}

impl Change {
    fn upsert(row: String) -> Self {
        Change::Row { is_deleted: false, row }
    }

    fn delete(row: String) -> Self {
        Change::Row { is_deleted: true, row }
    }
}

/// The fields of all envelopes; Debezium's may lie below `payload`.
const FIELDS: [&[&str]; 10] = [
    &["op"],
    &["before"],
    &["after"],
    &["payload", "op"],
    &["payload", "before"],
    &["payload", "after"],
    &["type"],
    &["data"],
    &["old"],
    &["payload"],
];

impl ChangeReader {
    pub(super) fn new(stream: &Stream, rows: &RowBuilder) -> Result<Self, DecodeError> {
        let columns = FIELDS.iter().map(|path| Column {
            name: path.join("."),
            data_type: arrow::datatypes::DataType::Utf8,
            nullable: true,
            path: path.iter().map(ToString::to_string).collect(),
            timestamp_format: TimestampFormat::default(),
            misfits: Default::default(),
        });
        let outer = Stream { columns: columns.collect(), format: Format::Json, ..stream.clone() };
        let fields: Vec<usize> = (0..FIELDS.len()).collect();
        let envelope = JsonReader::new(&outer, &RowBuilder::new(&outer, &fields)?);
        let of_key = stream.of_key();
        let slots: Vec<usize> = (0..of_key.columns.len()).collect();
        Ok(ChangeReader {
            format: stream.format.clone(),
            envelope,
            row: TextRowReader::new(stream, rows),
            keys: JsonReader::new(&of_key, &RowBuilder::new(&of_key, &slots)?),
            key: of_key.columns.into_iter().map(|column| column.path).collect(),
        })
    }

    /// What a record says, in order.
    pub(super) fn changes(&mut self, text: &str) -> Result<Vec<Change>, DecodeError> {
        self.envelope.read(text)?;
        let field = |name: &str| {
            let slot = FIELDS.iter().position(|path| path.join(".") == name)?;
            match self.envelope.value(slot, text) {
                Value::Text(text) => Some(text.to_string()),
                Value::Number(text) => Some(text.to_string()),
                Value::Bool(value) => Some(value.to_string()),
                _ => None,
            }
        };
        match &self.format {
            Format::Debezium => {
                let below = if field("payload.op").is_some() { "payload." } else { "" };
                let of = |name: &str| field(&format!("{below}{name}"));
                let op = of("op");
                if op.is_none()
                    && let Some(what) = beside(field("payload").as_deref().unwrap_or(text))
                {
                    return Ok(vec![Change::Nothing(what.into())]);
                }
                self.debezium(op.as_deref(), of("before"), of("after"))
            }
            _ => self.rows_of_table(field("type").as_deref(), field("data"), field("old")),
        }
    }

    fn debezium(
        &mut self,
        op: Option<&str>,
        before: Option<String>,
        after: Option<String>,
    ) -> Result<Vec<Change>, DecodeError> {
        match (op, before, after) {
            (Some("c" | "r" | "u"), before, Some(after)) => {
                let moved = before.map(|before| self.moved_key(&before, &after)).transpose()?.flatten();
                Ok(moved.into_iter().chain([Change::upsert(after)]).collect())
            }
            (Some("d"), Some(before), _) => Ok(vec![Change::delete(before)]),
            (Some("d"), None, _) => Err(DecodeError("a delete without the old row tells no key".into())),
            (Some("t"), ..) => Ok(vec![Change::Truncated]),
            (Some("m"), ..) => Ok(vec![Change::Nothing("a message of the database's log".into())]),
            (Some(op), ..) => {
                let op = shortened(op);
                Err(DecodeError(format!("op {op:?} without the row that it is about")))
            }
            (None, ..) => Err(DecodeError("no \"op\": this is no change in Debezium's JSON".into())),
        }
    }

    /// Canal's list of rows, or Maxwell's one.
    fn rows_of_table(
        &mut self,
        kind: Option<&str>,
        data: Option<String>,
        old: Option<String>,
    ) -> Result<Vec<Change>, DecodeError> {
        let kind = kind.ok_or_else(|| DecodeError("no \"type\": this is no change of a table".into()))?.to_lowercase();
        let is_deleted = match kind.as_str() {
            "insert" | "update" | "bootstrap-insert" => false,
            "delete" => true,
            // Canal calls it a schema change too.
            "truncate" => return Ok(vec![Change::Truncated]),
            _ if data.as_deref().is_some_and(|data| !["[]", "{}"].contains(&data)) => {
                let kind = shortened(&kind);
                return Err(DecodeError(format!("type {kind:?} with rows: nobody knows what becomes of them")));
            }
            // A table made or altered, the begin of a snapshot.
            _ => return Ok(vec![Change::Nothing(shortened(&kind))]),
        };
        let list = |text: Option<String>| -> Result<Vec<String>, DecodeError> {
            let Some(text) = text else { return Ok(Vec::new()) };
            if !text.starts_with('[') {
                return Ok(vec![text]);
            }
            let rows: Vec<Json> = serde_json::from_str(&text).map_err(|error| DecodeError(error.to_string()))?;
            Ok(rows.iter().map(Json::to_string).collect())
        };
        let (rows, old) = (list(data)?, list(old)?);
        if rows.is_empty() {
            return Err(DecodeError(format!("a change of type {kind:?} without \"data\"")));
        }
        let mut changes = Vec::new();
        for (index, row) in rows.into_iter().enumerate() {
            if let (false, Some(old)) = (is_deleted, old.get(index).filter(|old| *old != "null")) {
                changes.extend(self.moved_key(old, &row)?);
            }
            changes.push(Change::Row { is_deleted, row });
        }
        Ok(changes)
    }

    /// The old key of a row, if the change gave it another. `old` may hold the changed columns alone.
    fn moved_key(&mut self, old: &str, new: &str) -> Result<Option<Change>, DecodeError> {
        let (old, new) = (self.key_of(old)?, self.key_of(new)?);
        if old.iter().zip(&new).all(|(old, new)| old.is_none() || old == new) {
            return Ok(None);
        }
        let mut row = Json::Null;
        for (path, value) in self.key.iter().zip(old.into_iter().zip(new).map(|(old, new)| old.or(new))) {
            let mut place = &mut row;
            for name in path {
                if !place.is_object() {
                    *place = Json::Object(serde_json::Map::new());
                }
                place = &mut place[name.as_str()];
            }
            *place = value.unwrap_or(Json::Null);
        }
        Ok(Some(Change::delete(row.to_string())))
    }

    /// The key's values in a row; `None` where a field is not there.
    fn key_of(&mut self, row: &str) -> Result<Vec<Option<Json>>, DecodeError> {
        self.keys.read(row).map_err(of_row)?;
        let value = |slot: usize| match self.keys.value(slot, row) {
            Value::Missing => Ok(None),
            Value::Null => Ok(Some(Json::Null)),
            Value::Bool(value) => Ok(Some(Json::Bool(value))),
            Value::Text(text) => Ok(Some(Json::String(text.to_string()))),
            Value::Number(text) | Value::Composite(text) | Value::NotAnObject(text) => {
                serde_json::from_str(text).map(Some).map_err(|error| DecodeError(error.to_string()))
            }
            // JSON has no other values.
            _ => Ok(None),
        };
        (0..self.key.len()).map(value).collect()
    }

    /// Finds the columns of one row.
    pub(super) fn read_row(&mut self, row: &str) -> Result<(), DecodeError> {
        self.row.read(row).map_err(of_row)
    }

    /// The value of a declared column in the row that was just read.
    pub(super) fn value<'a>(&'a self, slot: usize, row: &'a str) -> Value<'a> {
        self.row.value(slot, row)
    }
}

/// What is wrong with a row, and not with the record that holds it.
fn of_row(DecodeError(reason): DecodeError) -> DecodeError {
    DecodeError(format!("a row of the change: {reason}"))
}

/// What Debezium writes beside changes, to topics of their own unless they are routed together: what a record is, if it
/// is such a one.
fn beside(text: &str) -> Option<&'static str> {
    let record: serde_json::Map<String, Json> = serde_json::from_str(text).ok()?;
    let only = |names: &[&str]| record.keys().all(|key| names.contains(&key.as_str()));
    match record.get("status").and_then(Json::as_str) {
        Some("BEGIN" | "END") if only(&["status", "id", "event_count", "data_collections", "ts_ms"]) => {
            Some("the border of a transaction")
        }
        _ if record.contains_key("ddl") && record.contains_key("databaseName") => Some("a schema change"),
        _ if record.contains_key("ts_ms") && record.len() == 1 => Some("a heartbeat"),
        _ => None,
    }
}

//! The key of a record without a payload, which deletes the row of that key: a JSON object of the key's columns, or the
//! bare value where the key is one column.

use super::column::Value;
use super::json::JsonReader;
use super::{DecodeError, RowBuilder};
use crate::catalog::Stream;

/// Finds the columns of the key in one record's key after the other.
pub(super) struct TombstoneReader {
    object: JsonReader,
    /// The declared columns that are the key.
    slots: Vec<usize>,
    names: String,
    text: String,
    is_object: bool,
}

impl TombstoneReader {
    pub(super) fn new(stream: &Stream, rows: &RowBuilder) -> Self {
        let is_key = |name: &String| stream.key.contains(name);
        let declared = stream.columns.iter().enumerate();
        TombstoneReader {
            object: JsonReader::new(stream, rows),
            slots: declared.filter(|(_, column)| is_key(&column.name)).map(|(slot, _)| slot).collect(),
            names: stream.key.join(", "),
            text: String::new(),
            is_object: false,
        }
    }

    /// Takes the key of a record.
    pub(super) fn read(&mut self, key: Option<&[u8]>) -> Result<(), DecodeError> {
        let Some(key) = key else {
            return Err(DecodeError("the record is empty and has no key: it tells no row to delete".into()));
        };
        let text = std::str::from_utf8(key)
            .map_err(|error| DecodeError(format!("the record's key: invalid UTF-8 at byte {}", error.valid_up_to())))?;
        self.is_object = text.trim_start().starts_with('{');
        self.text.clear();
        if self.is_object {
            self.text.push_str(text);
            return self.object.read(text).map_err(|error| DecodeError(format!("the record's key: {error}")));
        }
        if self.slots.len() != 1 {
            let names = &self.names;
            return Err(DecodeError(format!("the record's key is no JSON object of the columns {names}")));
        }
        // A JSON converter writes text in quotes, a plain one without.
        match serde_json::from_str::<String>(text) {
            Ok(unquoted) => self.text = unquoted,
            Err(_) => self.text.push_str(text),
        }
        Ok(())
    }

    /// The value of a declared column of the key that was just read; all others are missing.
    pub(super) fn value(&self, slot: usize) -> Value<'_> {
        match (self.slots.contains(&slot), self.is_object) {
            (false, _) => Value::Missing,
            // A key of no characters is a text, not CSV's missing field.
            (true, false) if self.text.is_empty() => Value::Text(""),
            (true, false) => Value::Field(&self.text),
            (true, true) => self.object.value(slot, &self.text),
        }
    }
}

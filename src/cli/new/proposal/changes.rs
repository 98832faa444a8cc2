//! Records as rows: events as they are, and changes of a table as what they say of its rows.

use serde_json::{Map, Value};

use crate::source::sample::Sampled;

/// The rows of a sample, and how they are written.
pub(super) struct Rows<'a> {
    /// The `format` of the schema file.
    pub(super) format: &'static str,
    /// The table's key, where the records tell it.
    pub(super) key: Vec<String>,
    pub(super) rows: Vec<(&'a Sampled, Map<String, Value>)>,
}

type Object = Map<String, Value>;

/// True for a format of changes.
pub(super) fn is_changes(format: &str) -> bool {
    matches!(format, "debezium-json" | "canal-json" | "maxwell-json")
}

/// Takes the records apart.
///
/// # Errors
/// Why they are no JSON that could be taken apart.
pub(super) fn rows(records: &[Sampled]) -> Result<Rows<'_>, String> {
    let payloads = records.iter().filter_map(|record| Some((record, record.payload.as_deref()?)));
    let payloads: Vec<(&Sampled, &[u8])> = payloads.collect();
    let objects: Vec<(&Sampled, Object)> = payloads
        .iter()
        .filter_map(|(record, payload)| match serde_json::from_slice(payload) {
            Ok(Value::Object(object)) => Some((*record, object)),
            _ => None,
        })
        .collect();
    if objects.is_empty() {
        let is_framed = payloads.iter().any(|(_, payload)| payload.len() > 5 && payload[0] == 0);
        return Err(match is_framed {
            true => "the records look like Confluent's wire format (Avro): add registry = \"http://HOST:8081\" to the connection".to_string(),
            false if payloads.is_empty() => "there is nothing to go by: the records are empty".to_string(),
            false => "the records are no JSON objects: write the schema by hand, `tagflow new schema NAME --topic T`".to_string(),
        });
    }
    let format = format_of(&objects[0].1);
    let mut key = Vec::new();
    let mut rows = Vec::new();
    for (record, object) in objects {
        match format {
            "debezium-json" => {
                if key.is_empty() {
                    key = key_of(record);
                }
                let inner = envelope(&object);
                let row = ["after", "before"].iter().find_map(|side| inner.get(*side)?.as_object());
                rows.extend(row.map(|row| (record, row.clone())));
            }
            "canal-json" => {
                if key.is_empty() {
                    let names = object.get("pkNames").and_then(Value::as_array);
                    key = names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_string())).collect();
                }
                let data = object.get("data").and_then(Value::as_array);
                rows.extend(data.into_iter().flatten().filter_map(|row| Some((record, row.as_object()?.clone()))));
            }
            "maxwell-json" => {
                rows.extend(object.get("data").and_then(Value::as_object).map(|row| (record, row.clone())))
            }
            _ => rows.push((record, object)),
        }
    }
    if rows.is_empty() {
        return Err("the records are changes of a table, and none of the sample has a row".to_string());
    }
    Ok(Rows { format, key, rows })
}

/// What a change says, without the schema that may come with it.
fn envelope(object: &Object) -> &Object {
    object.get("payload").and_then(Value::as_object).unwrap_or(object)
}

/// By what the three are known by: none of their words alone would do.
fn format_of(object: &Object) -> &'static str {
    let has = |object: &Object, names: &[&str]| names.iter().all(|name| object.contains_key(*name));
    let inner = envelope(object);
    match () {
        () if has(inner, &["op", "before", "after"]) || has(inner, &["op", "source", "after"]) => "debezium-json",
        () if has(object, &["data", "isDdl", "type"]) => "canal-json",
        () if has(object, &["database", "table", "type", "data"]) => "maxwell-json",
        () => "json",
    }
}

/// The fields of a record's own key.
fn key_of(record: &Sampled) -> Vec<String> {
    let key = record.key.as_deref().and_then(|key| serde_json::from_slice::<Value>(key).ok());
    match key {
        Some(Value::Object(object)) => envelope(&object).keys().cloned().collect(),
        _ => Vec::new(),
    }
}

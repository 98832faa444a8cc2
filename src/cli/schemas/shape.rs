//! What keys a table of TOML may have, as data: JSON Schemas and the language server are made of it.

use serde_json::{Map, Value, json};

use crate::diagnostic::LINTS;

/// What may stand behind a key.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Any text.
    Text,
    /// One of some words.
    Word(&'static [&'static str]),
    /// A whole number from the first to the second.
    Whole(i64, i64),
    /// `true` or `false`.
    Flag,
    /// `"30s"`.
    Duration,
    /// `"512MB"`.
    Bytes,
    /// A list of texts.
    Texts,
    /// Text, a number or a boolean.
    Scalar,
    /// A table with these keys.
    Table(Object),
    /// A table of names that the author chooses.
    Named(Box<Shape>),
    /// A list of these, so many at least.
    List(Box<Shape>, usize),
    /// A date and time, with quotes or without.
    Moment,
    /// Any of these.
    Either(Vec<Shape>),
    /// What another tool defines.
    Anything,
}

/// A table.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) keys: Vec<Key>,
    /// Further keys are the author's own.
    pub(crate) is_open: bool,
}

/// One key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// What it is for, in a line.
    pub(crate) about: &'static str,
    /// It must be there.
    pub(crate) is_required: bool,
}

/// A key that may be left out.
pub(crate) fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, about, is_required: false }
}

/// A key that must be there.
pub(crate) fn required(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { is_required: true, ..key(name, shape, about) }
}

/// A table of these keys and no others.
pub(crate) fn table(keys: Vec<Key>) -> Shape {
    Shape::Table(object(keys))
}

/// A table of these keys and any others.
pub(crate) fn open(keys: Vec<Key>) -> Shape {
    Shape::Table(Object { keys, is_open: true })
}

/// The levels of lints, of the project or of one file.
pub(crate) fn lints() -> Key {
    let level = |(name, code): &(&'static str, &'static str)| key(name, Shape::Word(&["allow", "warn", "deny"]), code);
    key("lints", table(LINTS.iter().map(level).collect()), "how bad each lint is: allow, warn, deny")
}

/// [`table`], as the whole of a file.
pub(crate) fn object(keys: Vec<Key>) -> Object {
    Object { keys, is_open: false }
}

impl Object {
    /// The table at the end of a path of keys; names that the author chooses may be any.
    pub(crate) fn at(&self, path: &[String]) -> Option<&Object> {
        match path.split_first() {
            None => Some(self),
            Some((first, rest)) => self.keys.iter().find(|key| key.name == first).and_then(|key| key.shape.at(rest)),
        }
    }

    /// The file as a JSON Schema.
    pub(crate) fn json_schema(&self, title: &str) -> Value {
        let mut schema = self.json();
        let head = [("$schema", json!("http://json-schema.org/draft-07/schema#")), ("title", json!(title))];
        if let Value::Object(fields) = &mut schema {
            let body = std::mem::take(fields);
            fields.extend(head.into_iter().map(|(name, value)| (name.to_string(), value)));
            fields.extend(body);
        }
        schema
    }

    fn json(&self) -> Value {
        let property = |key: &Key| {
            let mut schema = key.shape.json();
            schema["description"] = json!(key.about);
            (key.name.to_string(), schema)
        };
        let properties: Map<String, Value> = self.keys.iter().map(property).collect();
        let required: Vec<&str> = self.keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": self.is_open });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }
}

impl Shape {
    fn at(&self, path: &[String]) -> Option<&Object> {
        match (self, path.split_first()) {
            (Shape::Table(object), _) => object.at(path),
            (Shape::Named(of), Some((_, rest))) => of.at(rest),
            (Shape::List(of, _), _) => of.at(path),
            (Shape::Either(shapes), _) => shapes.iter().find_map(|shape| shape.at(path)),
            _ => None,
        }
    }

    /// The words that may stand there.
    pub(crate) fn words(&self) -> Vec<&'static str> {
        match self {
            Shape::Word(words) => words.to_vec(),
            Shape::Flag => vec!["true", "false"],
            Shape::Either(shapes) => shapes.iter().flat_map(Shape::words).collect(),
            _ => Vec::new(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Shape::Text => json!({ "type": "string" }),
            // A variable may stand in place of a word.
            Shape::Word(words) => json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": "\\$" }] }),
            Shape::Whole(low, i64::MAX) => json!({ "type": "integer", "minimum": low }),
            Shape::Whole(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
            Shape::Flag => json!({ "type": "boolean" }),
            Shape::Duration => json!({ "type": "string", "pattern": "[0-9]+ *[a-zA-Zµ]+|\\$", "examples": ["30s"] }),
            Shape::Bytes => json!({ "type": "string", "pattern": "^[0-9.]+ *[a-zA-Z]*$|\\$", "examples": ["512MB"] }),
            Shape::Texts => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
            Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
            Shape::Table(object) => object.json(),
            Shape::Named(of) => json!({ "type": "object", "additionalProperties": of.json() }),
            Shape::List(of, least) => json!({ "type": "array", "items": of.json(), "minItems": least }),
            Shape::Moment => json!({ "type": "string", "examples": ["2026-03-01T12:00:00"] }),
            Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(Shape::json).collect::<Vec<_>>() }),
            Shape::Anything => json!({}),
        }
    }
}

//! Avro schemas: JSON text → types that name each other by number.
//!
//! Enters: the text of a schema, and before it those that it refers to. Leaves: an [`AvroSchema`] whose types are all
//! known, or what is wrong with the text. A logical type that its attributes do not bear out is passed over, as the
//! specification asks.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::place_of_name;

/// A type by its place among those of its schema.
pub type TypeId = usize;

/// The types of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvroSchema {
    types: Vec<AvroType>,
    root: TypeId,
}

/// How bytes are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AvroType {
    /// No bytes at all.
    Null,
    /// One byte.
    Boolean,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// A length and bytes.
    Bytes,
    /// A length and UTF-8.
    String,
    /// That many bytes.
    Fixed(usize),
    /// The place of one of the symbols.
    Enum(Vec<String>),
    /// Blocks of elements.
    Array(TypeId),
    /// Blocks of keys and values.
    Map(TypeId),
    /// The place of a type, and a value of it.
    Union(Vec<TypeId>),
    /// The fields one after the other.
    Record(Vec<AvroField>),
    /// An unscaled number in two's complement, of a fixed size or with its length before it.
    Decimal {
        /// Digits after the point.
        scale: u32,
        /// How many bytes; `None` where a length says it.
        size: Option<usize>,
    },
    /// Days since 1970-01-01.
    Date,
    /// A time of day as a count of 10^-digits seconds: an int of milliseconds or a long of microseconds.
    TimeOfDay {
        /// Digits of a second.
        digits: u32,
    },
    /// A count of 10^-digits seconds since 1970.
    Timestamp {
        /// Digits of a second.
        digits: u32,
        /// Wall time of no zone, not an instant.
        is_local: bool,
    },
    /// Sixteen bytes.
    Uuid,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvroField {
    /// Its name.
    pub name: String,
    /// Its type.
    pub of: TypeId,
}

impl AvroType {
    /// What messages call it.
    pub fn name(&self) -> &'static str {
        match self {
            AvroType::Null => "null",
            AvroType::Boolean => "an Avro boolean",
            AvroType::Int => "an Avro int",
            AvroType::Long => "an Avro long",
            AvroType::Float => "an Avro float",
            AvroType::Double => "an Avro double",
            AvroType::Bytes => "Avro bytes",
            AvroType::String => "an Avro string",
            AvroType::Fixed(_) => "an Avro fixed",
            AvroType::Enum(_) => "an Avro enum",
            AvroType::Array(_) => "an Avro array",
            AvroType::Map(_) => "an Avro map",
            AvroType::Union(_) => "an Avro union",
            AvroType::Record(_) => "an Avro record",
            AvroType::Decimal { .. } => "an Avro decimal",
            AvroType::Date => "an Avro date",
            AvroType::TimeOfDay { .. } => "an Avro time",
            AvroType::Timestamp { .. } => "an Avro timestamp",
            AvroType::Uuid => "an Avro uuid",
        }
    }
}

impl AvroSchema {
    /// Reads the last of `texts`; those before it define names that it uses.
    ///
    /// # Errors
    /// What is wrong with which text.
    pub fn parse(texts: &[&str]) -> Result<AvroSchema, String> {
        let mut reading = Reading::default();
        let mut root = None;
        for text in texts {
            let json: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
            root = Some(reading.read(&json, "")?);
        }
        let root = root.ok_or("there is no schema")?;
        Ok(AvroSchema { types: reading.types, root })
    }

    /// The type of a whole record.
    pub fn root(&self) -> TypeId {
        self.root
    }

    /// A type by its number.
    pub fn get(&self, id: TypeId) -> &AvroType {
        &self.types[id]
    }

    /// The records and maps that a value of type `id` may be: itself, or a branch of its union.
    pub fn objects(&self, id: TypeId) -> Vec<TypeId> {
        let is_object = |id: &TypeId| matches!(self.types[*id], AvroType::Record(_) | AvroType::Map(_));
        match &self.types[id] {
            AvroType::Union(branches) => branches.iter().copied().filter(is_object).collect(),
            _ => [id].into_iter().filter(is_object).collect(),
        }
    }

    /// Where `name` leads to from a value of any of those types.
    pub fn below(&self, places: &[TypeId], name: &str) -> Vec<TypeId> {
        let of = |id: TypeId| match &self.types[id] {
            AvroType::Record(fields) => {
                let names = fields.iter().map(|field| field.name.as_str());
                place_of_name(names, name).map(|place| fields[place].of)
            }
            AvroType::Map(values) => Some(*values),
            _ => None,
        };
        places.iter().flat_map(|id| self.objects(*id)).filter_map(of).collect()
    }

    /// The fields that a value of any of those types may have.
    pub fn names(&self, places: &[TypeId]) -> Vec<&str> {
        let fields = |id: TypeId| match &self.types[id] {
            AvroType::Record(fields) => fields.iter().map(|field| field.name.as_str()).collect(),
            _ => Vec::new(),
        };
        places.iter().flat_map(|id| self.objects(*id)).flat_map(fields).collect()
    }
}

/// A schema being read.
#[derive(Default)]
struct Reading {
    types: Vec<AvroType>,
    /// Named types by their full names.
    names: HashMap<String, TypeId>,
}

impl Reading {
    fn add(&mut self, found: AvroType) -> TypeId {
        self.types.push(found);
        self.types.len() - 1
    }

    /// A type within `namespace`.
    fn read(&mut self, json: &Value, namespace: &str) -> Result<TypeId, String> {
        match json {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(object) => match object.get("type") {
                Some(Value::String(name)) => self.described(name, object, namespace),
                Some(inner) => self.read(inner, namespace),
                None => Err("a type without its \"type\"".into()),
            },
            other => Err(format!("{other} is no type")),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<TypeId, String> {
        if let Some(primitive) = primitive(name) {
            return Ok(self.add(primitive));
        }
        let full = full_name(name, namespace);
        // A simple name that the namespace does not know is one without a namespace.
        let found = self.names.get(&full).or_else(|| self.names.get(name));
        found.copied().ok_or_else(|| format!("the type {name:?} is not known"))
    }

    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<TypeId, String> {
        let mut ids = Vec::with_capacity(branches.len());
        for branch in branches {
            let id = self.read(branch, namespace)?;
            if matches!(self.types[id], AvroType::Union(_)) {
                return Err("a union directly within a union".into());
            }
            ids.push(id);
        }
        Ok(self.add(AvroType::Union(ids)))
    }

    fn described(&mut self, kind: &str, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let part = |key: &str| object.get(key).ok_or_else(|| format!("the type {kind:?} without its {key:?}"));
        match kind {
            "array" => {
                let items = self.read(part("items")?, namespace)?;
                Ok(self.add(AvroType::Array(items)))
            }
            "map" => {
                let values = self.read(part("values")?, namespace)?;
                Ok(self.add(AvroType::Map(values)))
            }
            "enum" => {
                let symbols = part("symbols")?.as_array().map(|symbols| symbols.iter().map(Value::as_str).collect());
                let symbols: Option<Vec<&str>> = symbols.flatten();
                let symbols = symbols.ok_or("the symbols of an enum must be texts")?;
                let symbols = symbols.into_iter().map(str::to_owned).collect();
                self.define(object, namespace, |_, _| Ok(AvroType::Enum(symbols)))
            }
            "fixed" => {
                let size = part("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or("the size of a fixed must be a whole number")?;
                let found = logical_fixed(object, size).unwrap_or(AvroType::Fixed(size));
                self.define(object, namespace, |_, _| Ok(found))
            }
            "record" | "error" => {
                let fields = part("fields")?.as_array().ok_or("the fields of a record must be a list")?;
                self.define(object, namespace, |reading, namespace| {
                    let field = |field: &Value| -> Result<AvroField, String> {
                        let name = field.get("name").and_then(Value::as_str).ok_or("a field without its \"name\"")?;
                        let of = field.get("type").ok_or_else(|| format!("the field {name:?} has no \"type\""))?;
                        Ok(AvroField { name: name.to_owned(), of: reading.read(of, namespace)? })
                    };
                    Ok(AvroType::Record(fields.iter().map(field).collect::<Result<_, _>>()?))
                })
            }
            name => match primitive(name) {
                Some(primitive) => Ok(self.add(logical(object, &primitive).unwrap_or(primitive))),
                None => self.named(name, namespace),
            },
        }
    }

    /// A type with a name, by which its own parts may call it.
    fn define(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
        parts: impl FnOnce(&mut Self, &str) -> Result<AvroType, String>,
    ) -> Result<TypeId, String> {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let name = text("name").ok_or("a record, enum or fixed without its \"name\"")?;
        let full = full_name(name, text("namespace").unwrap_or(namespace));
        // Stands there until the parts are known.
        let id = self.add(AvroType::Null);
        if self.names.insert(full.clone(), id).is_some() {
            return Err(format!("the type {full:?} is defined twice"));
        }
        let inner = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        self.types[id] = parts(self, inner)?;
        Ok(id)
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    match name.contains('.') || namespace.is_empty() {
        true => name.to_owned(),
        false => format!("{namespace}.{name}"),
    }
}

fn primitive(name: &str) -> Option<AvroType> {
    Some(match name {
        "null" => AvroType::Null,
        "boolean" => AvroType::Boolean,
        "int" => AvroType::Int,
        "long" => AvroType::Long,
        "float" => AvroType::Float,
        "double" => AvroType::Double,
        "bytes" => AvroType::Bytes,
        "string" => AvroType::String,
        _ => return None,
    })
}

/// What a primitive type with a `logicalType` means; `None` where it means nothing more.
fn logical(object: &Map<String, Value>, primitive: &AvroType) -> Option<AvroType> {
    let name = object.get("logicalType")?.as_str()?;
    Some(match (name, primitive) {
        ("decimal", AvroType::Bytes) => AvroType::Decimal { scale: decimal_scale(object)?, size: None },
        ("date", AvroType::Int) => AvroType::Date,
        ("time-millis", AvroType::Int) => AvroType::TimeOfDay { digits: 3 },
        ("time-micros", AvroType::Long) => AvroType::TimeOfDay { digits: 6 },
        (_, AvroType::Long) => {
            let (is_local, unit) = match name.strip_prefix("local-") {
                Some(unit) => (true, unit),
                None => (false, name),
            };
            let digits = match unit {
                "timestamp-millis" => 3,
                "timestamp-micros" => 6,
                "timestamp-nanos" => 9,
                _ => return None,
            };
            AvroType::Timestamp { digits, is_local }
        }
        _ => return None,
    })
}

fn logical_fixed(object: &Map<String, Value>, size: usize) -> Option<AvroType> {
    match object.get("logicalType")?.as_str()? {
        "decimal" => Some(AvroType::Decimal { scale: decimal_scale(object)?, size: Some(size) }),
        "uuid" if size == 16 => Some(AvroType::Uuid),
        _ => None,
    }
}

fn decimal_scale(object: &Map<String, Value>) -> Option<u32> {
    let number = |key: &str| object.get(key).map(|value| value.as_u64().and_then(|value| u32::try_from(value).ok()));
    let precision = number("precision")??;
    let scale = number("scale").unwrap_or(Some(0))?;
    (precision > 0 && scale <= precision).then_some(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<(String, AvroType)> {
        let schema = AvroSchema::parse(&[text]).unwrap();
        let AvroType::Record(fields) = schema.get(schema.root()) else { panic!("no record") };
        fields.iter().map(|field| (field.name.clone(), schema.get(field.of).clone())).collect()
    }

    fn type_of(text: &str) -> AvroType {
        let schema = AvroSchema::parse(&[text]).unwrap();
        schema.get(schema.root()).clone()
    }

    fn error(text: &str) -> String {
        AvroSchema::parse(&[text]).unwrap_err()
    }

    #[test]
    fn names_are_looked_up_in_their_namespace() {
        let found = fields(
            r#"{"type":"record","name":"Order","namespace":"shop","fields":[
                {"name":"state","type":{"type":"enum","name":"State","symbols":["NEW","PAID"]}},
                {"name":"before","type":"State"},
                {"name":"again","type":"shop.State"},
                {"name":"next","type":["null","Order"]},
                {"name":"id","type":{"type":"fixed","name":"other.Id","size":4}},
                {"name":"same","type":"other.Id"}]}"#,
        );
        let state = AvroType::Enum(vec!["NEW".into(), "PAID".into()]);
        for name in ["state", "before", "again"] {
            assert!(found.contains(&(name.into(), state.clone())), "{name}");
        }
        assert_eq!(found[3].1, AvroType::Union(vec![2, 0]));
        assert_eq!(found[5].1, AvroType::Fixed(4));
    }

    #[test]
    fn logical_types_hold_only_where_their_attributes_do() {
        let decimal = |scale, size| AvroType::Decimal { scale, size };
        for (text, expected) in [
            (r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#, decimal(2, None)),
            (r#"{"type":"bytes","logicalType":"decimal","precision":9}"#, decimal(0, None)),
            (r#"{"type":"bytes","logicalType":"decimal","precision":2,"scale":9}"#, AvroType::Bytes),
            (r#"{"type":"bytes","logicalType":"decimal"}"#, AvroType::Bytes),
            (
                r#"{"type":"fixed","name":"D","size":8,"logicalType":"decimal","precision":9,"scale":2}"#,
                decimal(2, Some(8)),
            ),
            (r#"{"type":"int","logicalType":"date"}"#, AvroType::Date),
            (r#"{"type":"long","logicalType":"date"}"#, AvroType::Long),
            (r#"{"type":"int","logicalType":"time-millis"}"#, AvroType::TimeOfDay { digits: 3 }),
            (r#"{"type":"long","logicalType":"time-micros"}"#, AvroType::TimeOfDay { digits: 6 }),
            (r#"{"type":"long","logicalType":"timestamp-nanos"}"#, AvroType::Timestamp { digits: 9, is_local: false }),
            (
                r#"{"type":"long","logicalType":"local-timestamp-micros"}"#,
                AvroType::Timestamp { digits: 6, is_local: true },
            ),
            (r#"{"type":"string","logicalType":"uuid"}"#, AvroType::String),
            (r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#, AvroType::Uuid),
            (r#"{"type":{"type":"long","logicalType":"of a producer"}}"#, AvroType::Long),
        ] {
            assert_eq!(type_of(text), expected, "{text}");
        }
    }

    #[test]
    fn names_of_earlier_texts_are_known() {
        let id = r#"{"type":"fixed","name":"shop.Id","size":4}"#;
        let order = r#"{"type":"record","name":"shop.Order","fields":[{"name":"id","type":"Id"}]}"#;
        assert!(AvroSchema::parse(&[id, order]).is_ok());
        assert_eq!(error(order), "the type \"Id\" is not known");
    }

    #[test]
    fn what_is_no_schema_is_told() {
        for (text, message) in [
            ("{", "not JSON: EOF while parsing an object at line 1 column 1"),
            ("7", "7 is no type"),
            ("{}", "a type without its \"type\""),
            (r#"[["null"]]"#, "a union directly within a union"),
            (r#"{"type":"record","name":"A","fields":[{"name":"a"}]}"#, "the field \"a\" has no \"type\""),
            (r#"{"type":"record","fields":[]}"#, "a record, enum or fixed without its \"name\""),
            (r#"{"type":"enum","name":"E","symbols":[1]}"#, "the symbols of an enum must be texts"),
            (r#"{"type":"fixed","name":"F","size":-1}"#, "the size of a fixed must be a whole number"),
            (r#"{"type":"array"}"#, "the type \"array\" without its \"items\""),
            (
                r#"[{"type":"fixed","name":"F","size":1},{"type":"fixed","name":"F","size":1}]"#,
                "the type \"F\" is defined twice",
            ),
        ] {
            assert_eq!(error(text), message, "{text}");
        }
    }
}

//! A proposal out of the schema that records of Avro were written by.

use super::names::Names;
use super::{Proposal, ProposedColumn, Setting};
use crate::catalog::{AvroSchema, AvroType, TypeId};

/// Deeper records are left to be declared by hand.
const DEEPEST: usize = 4;

/// Takes the fields of the schema.
///
/// # Errors
/// A schema of something else than records.
pub(in crate::cli::new) fn of_avro(schema: &AvroSchema) -> Result<Proposal, String> {
    let mut columns = Vec::new();
    let mut names = Names::default();
    add(schema, schema.root(), &mut Vec::new(), &mut names, &mut columns);
    if columns.is_empty() {
        return Err("the schema in the registry is not one of records with fields".to_string());
    }
    let mut settings = vec![Setting::text("format", "avro")];
    let times: Vec<&ProposedColumn> =
        columns.iter().filter(|column| column.sql_type.starts_with("TIMESTAMP")).collect();
    if let Some(time) = times.first() {
        let value = format!("{{ column = {}, lateness = \"10s\" }}", super::toml_text(&time.name));
        let others: Vec<&str> = times[1..].iter().map(|column| column.name.as_str()).collect();
        let setting = Setting::new("time", value);
        settings.push(match others.is_empty() {
            true => setting,
            false => setting.with(format!("unsure: it might be {}", others.join(", "))),
        });
    }
    Ok(Proposal { head: Vec::new(), settings, columns })
}

fn add(schema: &AvroSchema, id: TypeId, path: &mut Vec<String>, names: &mut Names, columns: &mut Vec<ProposedColumn>) {
    if let AvroType::Record(fields) = schema.get(alone(schema, id)) {
        if path.len() < DEEPEST {
            for field in fields {
                path.push(field.name.clone());
                add(schema, field.of, path, names, columns);
                path.pop();
            }
        }
        return;
    }
    if path.is_empty() {
        return;
    }
    let Some((name, place)) = names.of(path) else { return };
    let (sql_type, doubt) = type_of(schema, id);
    columns.push(ProposedColumn {
        name,
        sql_type,
        path: place,
        format: None,
        is_unsure: doubt.is_some(),
        remark: doubt,
    });
}

/// The only branch of a union beside null.
fn alone(schema: &AvroSchema, id: TypeId) -> TypeId {
    match schema.get(id) {
        AvroType::Union(branches) => {
            let mut others = branches.iter().filter(|branch| *schema.get(**branch) != AvroType::Null);
            match (others.next(), others.next()) {
                (Some(only), None) => *only,
                _ => id,
            }
        }
        _ => id,
    }
}

fn type_of(schema: &AvroSchema, id: TypeId) -> (String, Option<String>) {
    let (sql_type, doubt) = match schema.get(alone(schema, id)) {
        AvroType::Boolean => ("BOOLEAN", None),
        AvroType::Int => ("INT", None),
        AvroType::Long => ("BIGINT", None),
        AvroType::Float => ("FLOAT", None),
        AvroType::Double => ("DOUBLE", None),
        AvroType::String | AvroType::Enum(_) | AvroType::Uuid | AvroType::TimeOfDay { .. } => ("VARCHAR", None),
        AvroType::Date => ("DATE", None),
        AvroType::Timestamp { digits, is_local } => {
            let zone = if *is_local { "" } else { " WITH TIME ZONE" };
            return (format!("TIMESTAMP({}){zone}", digits.clamp(&3, &9)), None);
        }
        AvroType::Decimal { scale, .. } => {
            return (format!("DECIMAL(38,{})", (*scale).min(38)), Some("as many digits as there can be".to_string()));
        }
        AvroType::Array(element) => {
            let (element, doubt) = type_of(schema, *element);
            return (format!("{element} ARRAY"), doubt);
        }
        AvroType::Record(_) | AvroType::Map(_) => ("VARCHAR", Some("JSON text; a path leads to what is in it")),
        AvroType::Bytes | AvroType::Fixed(_) => {
            ("VARCHAR", Some("bytes: text where they are UTF-8, else a dead letter"))
        }
        AvroType::Union(_) => ("VARCHAR", Some("a union of several types")),
        AvroType::Null => ("VARCHAR", Some("it is null always")),
    };
    (sql_type.to_string(), doubt.map(ToString::to_string))
}

//! `[columns]` of a schema file: a type each, or a table with more to say.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use chrono_tz::Tz;
use toml::Spanned;
use toml::de::DeValue;

use super::{Column, Format, Misfits, SYSTEM_COLUMNS, TimestampFormat};
use crate::column_type::parse_column_type;
use crate::diagnostic::codes;
use crate::toml_walk::{Section, Text, Walk, in_order};

const TIMESTAMP_FORMATS: &[(&str, TimestampFormat)] = &[
    ("iso", TimestampFormat::Iso),
    ("epoch_s", TimestampFormat::EpochSeconds),
    ("epoch_ms", TimestampFormat::EpochMillis),
    ("epoch_us", TimestampFormat::EpochMicros),
];

/// What becomes of values that do not fit, as a stream or a column says it.
const MISFITS: &[(&str, Misfits)] = &[("dead_letter", Misfits::DeadLetter), ("null", Misfits::Null)];

/// Reads the columns of a stream in the order in which they are written; leaves out those that are not sound.
pub(super) fn read_columns(walk: &mut Walk<'_>, stream: &Section<'_>, format: &Format, timezone: Tz) -> Vec<Column> {
    let misfits = walk.word(stream, "on_error", MISFITS).unwrap_or_default();
    if stream.table.get("columns").is_none() {
        walk.missing(stream, "columns", "[columns] with user_id = \"BIGINT\" below it");
    }
    let Some(section) = walk.section(stream, "columns", "[columns]") else { return Vec::new() };
    if section.table.is_empty() {
        walk.error(codes::MISSING_KEY, section.span.clone(), format!("{} has no columns", stream.label))
            .help("add for example: user_id = \"BIGINT\"");
    }
    let mut columns = Vec::new();
    let mut first_written: BTreeMap<String, String> = BTreeMap::new();
    for key in in_order(section.table) {
        let name = key.get_ref().to_string();
        let span = walk.at(key.span());
        if name.is_empty() {
            walk.error(codes::BAD_VALUE, span, "a column without a name").help("write the name that SQL calls it by");
            continue;
        }
        if name.starts_with('_') {
            let message = format!("the column \"{name}\" begins with \"_\", which is kept for Tagflow's own columns");
            let help = if SYSTEM_COLUMNS.contains(&name.as_str()) {
                format!("remove it: every stream has \"{name}\"")
            } else {
                let plain = name.trim_start_matches('_');
                format!("give it another name and its path: {plain} = {{ type = …, path = \"$.{name}\" }}")
            };
            walk.error(codes::RESERVED_COLUMN, span, message).help(help);
            continue;
        }
        if let Some(first) = first_written.get(&name.to_lowercase()) {
            let message = format!("the columns \"{first}\" and \"{name}\" differ in case only, which SQL does not see");
            walk.error(codes::DUPLICATE_COLUMN, span, message).help(format!(
                "rename one, and name its place in the record: {name}_2 = {{ type = …, path = \"$.{name}\" }}"
            ));
            continue;
        }
        first_written.insert(name.to_lowercase(), name.clone());
        if let Some(value) = section.table.get(name.as_str()) {
            let column = read_column(walk, &section, name, value, format, timezone, misfits);
            column.iter().for_each(|column| check_nesting(walk, &section, column, format));
            columns.extend(column);
        }
    }
    columns
}

fn read_column(
    walk: &mut Walk<'_>,
    columns: &Section<'_>,
    name: String,
    value: &Spanned<DeValue<'_>>,
    format: &Format,
    timezone: Tz,
    misfits: Misfits,
) -> Option<Column> {
    let mut column = Column {
        path: vec![name.clone()],
        name,
        data_type: DataType::Null,
        nullable: true,
        timestamp_format: TimestampFormat::default(),
        misfits,
    };
    match value.get_ref() {
        DeValue::String(_) => {
            let text = walk.text(columns, &column.name)?;
            (column.data_type, column.nullable) = read_type(walk, &text, timezone)?;
            Some(column)
        }
        DeValue::Table(_) => {
            let section = walk.section(columns, &column.name, format!("the column \"{}\"", column.name))?;
            walk.check_keys(&section, &["type", "path", "format", "on_error"]);
            if section.table.get("type").is_none() {
                walk.missing(&section, "type", "type = \"BIGINT\"");
            }
            let found = walk.text(&section, "type").and_then(|text| read_type(walk, &text, timezone));
            if let Some(path) = read_path(walk, &section, format) {
                column.path = path;
            }
            let timestamp_format = walk.word(&section, "format", TIMESTAMP_FORMATS);
            let own = walk.word(&section, "on_error", MISFITS);
            column.misfits = own.unwrap_or(misfits);
            (column.data_type, column.nullable) = found?;
            if own == Some(Misfits::Null) && !column.nullable {
                let place = section.table.get("on_error").map(|value| walk.at(value.span()));
                let message = format!("{} is NOT NULL, and its \"on_error\" is \"null\"", section.label);
                walk.error(codes::BAD_VALUE, place, message)
                    .help("remove one of the two: a value that does not fit can be NULL where NULL may be");
            }
            if let Some(timestamp_format) = timestamp_format {
                if !matches!(column.data_type, DataType::Timestamp(..)) {
                    let place = section.table.get("format").map(|value| walk.at(value.span()));
                    let message = format!("{} has a \"format\", but is not a TIMESTAMP", section.label);
                    walk.error(codes::BAD_VALUE, place, message)
                        .help("remove \"format\", or write type = \"TIMESTAMP(3)\"");
                }
                column.timestamp_format = timestamp_format;
            }
            Some(column)
        }
        _ => {
            walk.wrong_type("[columns]", &column.name, value, "a type in quotes such as \"BIGINT\", or a table");
            None
        }
    }
}

/// What a line of csv cannot hold.
fn check_nesting(walk: &mut Walk<'_>, section: &Section<'_>, column: &Column, format: &Format) {
    if *format == Format::Csv && column.data_type.is_nested() {
        let place = section.table.get(column.name.as_str()).map(|value| walk.at(value.span()));
        let message = format!("the column \"{}\" holds several values, but its stream is csv", column.name);
        walk.error(codes::COLUMN_TYPE, place, message)
            .help("declare it as VARCHAR and take it apart in SQL: string_to_array(items, ';')");
    }
}

fn read_type(walk: &mut Walk<'_>, text: &Text, timezone: Tz) -> Option<(DataType, bool)> {
    match parse_column_type(&text.raw, timezone) {
        Ok(found) => Some(found),
        Err(problem) => {
            walk.error(codes::COLUMN_TYPE, text.span.clone(), problem.message).help(problem.help);
            None
        }
    }
}

/// The object keys of `$.a.b` or `$.a['b c']`.
fn read_path(walk: &mut Walk<'_>, section: &Section<'_>, format: &Format) -> Option<Vec<String>> {
    let text = walk.text(section, "path")?;
    if *format == Format::Csv {
        walk.error(codes::COLUMN_PATH, text.span, format!("{} has a \"path\", but its stream is csv", section.label))
            .help("remove \"path\": a column of csv is found by its name in the first line");
        return None;
    }
    let path = parse_path(&text.raw);
    if path.is_none() {
        let help = if text.raw.contains(['[', '*']) && !text.raw.contains("['") {
            "elements of arrays cannot be named yet: a path leads through objects only, such as \"$.item.category\""
                .to_owned()
        } else {
            format!(
                "write \"$.\" and the names that lead to the value: \"$.{}\"",
                text.raw.trim_matches(['$', '.', '/'])
            )
        };
        walk.error(codes::COLUMN_PATH, text.span, format!("\"{}\" is not a path", text.raw)).help(help);
    }
    path
}

fn parse_path(text: &str) -> Option<Vec<String>> {
    let mut rest = text.strip_prefix('$')?;
    let mut path = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let (name, after) = after.split_once("']")?;
            path.push(name.to_owned());
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            path.push(after[..end].to_owned());
            rest = &after[end..];
        }
    }
    let sound = !path.is_empty() && path.iter().all(|name| !name.is_empty() && name != "*");
    sound.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_leads_through_objects() {
        let path = |text| parse_path(text).map(|path| path.join("|"));
        assert_eq!(path("$.a.b"), Some("a|b".into()));
        assert_eq!(path("$['a b'].c"), Some("a b|c".into()));
        for wrong in ["", "$", "a.b", "$a", "$.", "$.a..b", "$.a[0]", "$.*"] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }
}

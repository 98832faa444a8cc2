//! A proposal out of records of JSON, or lines of CSV.

use serde_json::{Map, Value};

use super::changes::{self, Rows};
use super::event_time::Times;
use super::names::Names;
use super::seen::{Seen, names_money, names_time};
use super::{Proposal, ProposedColumn, Setting};
use crate::source::sample::Sampled;

/// What a place in records becomes.
struct Typed {
    sql_type: String,
    format: Option<&'static str>,
    /// What is unsure.
    doubt: Option<String>,
}

impl Typed {
    fn sure(sql_type: impl Into<String>) -> Self {
        Typed { sql_type: sql_type.into(), format: None, doubt: None }
    }

    fn unsure(sql_type: impl Into<String>, doubt: impl Into<String>) -> Self {
        Typed { sql_type: sql_type.into(), format: None, doubt: Some(doubt.into()) }
    }
}

/// Looks at the records; `topic` says whether they are lines of CSV.
///
/// # Errors
/// Why nothing can be proposed.
pub(in crate::cli::new) fn of_records(records: &[Sampled], topic: &str) -> Result<Proposal, String> {
    let is_csv = topic.ends_with(".csv");
    let rows = if is_csv { csv_rows(records)? } else { changes::rows(records)? };
    let Rows { format, key, rows } = rows;
    let mut root = Seen::default();
    rows.iter().for_each(|(_, row)| root.note_fields(row, 0));
    let mut columns = Vec::new();
    let mut left_out = Vec::new();
    let mut names = Names::default();
    let mut path = Vec::new();
    for (name, seen) in &root.fields {
        add(name, seen, rows.len(), &mut path, &mut names, &mut columns, &mut left_out);
    }
    if columns.is_empty() {
        return Err("the records have no fields: there is nothing to propose".to_string());
    }
    let mut settings = vec![Setting::text("format", format)];
    if !key.is_empty() {
        let names: Vec<String> =
            columns.iter().filter(|(path, _)| key.contains(&path[0])).map(|(_, column)| column.name.clone()).collect();
        settings.push(Setting::new("key", super::toml_list(&names)));
    } else if changes::is_changes(format) {
        settings.push(Setting::new("key", "[\"id\"]".to_string()).with("unsure: name the primary key of the table"));
    }
    let times = Times::of(&rows, &columns);
    settings.extend(times.setting());
    let head = left_out
        .iter()
        .map(|name: &String| format!("The field {name:?} has no name that a path could take: left out."));
    Ok(Proposal { head: head.collect(), settings, columns: columns.into_iter().map(|(_, column)| column).collect() })
}

/// A line of CSV is a record of texts; the first names them.
fn csv_rows(records: &[Sampled]) -> Result<Rows<'_>, String> {
    let lines: Vec<&[u8]> = records.iter().filter_map(|record| record.payload.as_deref()).collect();
    let text = lines.join(&b'\n');
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_slice());
    let names = reader.headers().map_err(|error| error.to_string())?.clone();
    let mut rows = Vec::new();
    for (record, row) in records.iter().skip(1).zip(reader.records()) {
        let row = row.map_err(|error| error.to_string())?;
        let value = |text: &str| if text.is_empty() { Value::Null } else { Value::String(text.to_string()) };
        let fields = names.iter().zip(row.iter()).map(|(name, text)| (name.to_string(), value(text)));
        rows.push((record, fields.collect::<Map<String, Value>>()));
    }
    Ok(Rows { format: "csv", key: Vec::new(), rows })
}

/// Adds the column of a place, or those below it.
fn add(
    name: &str,
    seen: &Seen,
    rows: usize,
    path: &mut Vec<String>,
    names: &mut Names,
    columns: &mut Vec<(Vec<String>, ProposedColumn)>,
    left_out: &mut Vec<String>,
) {
    path.push(name.to_string());
    if seen.is_object() {
        for (inner, below) in &seen.fields {
            add(inner, below, rows, path, names, columns, left_out);
        }
    } else if let Some((column, place)) = names.of(path) {
        let typed = type_of(name, seen);
        let is_unsure = typed.doubt.is_some();
        let seldom = (seen.count > 0 && seen.count < rows).then(|| format!("in {} of {rows} records", seen.count));
        columns.push((
            path.clone(),
            ProposedColumn {
                name: column,
                sql_type: typed.sql_type,
                path: place,
                format: typed.format,
                remark: typed.doubt.or(seldom),
                is_unsure,
            },
        ));
    } else {
        left_out.push(name.to_string());
    }
    path.pop();
}

fn type_of(name: &str, seen: &Seen) -> Typed {
    let texts = &seen.texts;
    let kinds = [seen.booleans, seen.objects, seen.arrays, seen.numbers.count, texts.count];
    match kinds.map(|count| count > 0) {
        [false, false, false, false, false] => Typed::unsure("VARCHAR", "it was null in all of the sample"),
        [true, false, false, false, false] => Typed::sure("BOOLEAN"),
        [false, false, false, true, false] => number(name, &seen.numbers),
        [false, false, false, false, true] => text(name, seen),
        [false, false, true, false, false] => array(seen),
        [false, true, false, false, false] => {
            Typed::unsure("VARCHAR", "objects as JSON text; read them by json_get_str(…)")
        }
        _ => Typed::unsure("VARCHAR", "the sample has values of several kinds there"),
    }
}

fn number(name: &str, numbers: &super::seen::Numbers) -> Typed {
    if let Some(unit) = numbers.epoch() {
        if names_time(name) {
            return Typed {
                format: Some(unit),
                ..Typed::sure(if unit == "epoch_us" { "TIMESTAMP(6)" } else { "TIMESTAMP(3)" })
            };
        }
        let digits = if unit == "epoch_us" { 6 } else { 3 };
        let instead = format!("{{ type = \"TIMESTAMP({digits})\", format = \"{unit}\" }}");
        // Numbers of ten digits are mostly no times.
        if unit != "epoch_s" {
            return Typed::unsure("BIGINT", format!("it may be a time: {instead}"));
        }
    }
    if numbers.are_whole && numbers.high > i64::MAX as f64 {
        return Typed::unsure("BIGINT UNSIGNED", "more than a BIGINT holds");
    }
    if numbers.are_whole {
        return match names_money(name) && !name.to_lowercase().contains("id") {
            true => Typed::unsure(
                "BIGINT",
                "whole numbers in the sample; DECIMAL(12,2) where there may be digits after the point",
            ),
            false => Typed::sure("BIGINT"),
        };
    }
    if numbers.are_inexact || !names_money(name) {
        return Typed::sure("DOUBLE");
    }
    let (before, after) = numbers.digits;
    let scale = after.max(2);
    let precision = (before + 3 + scale).clamp(12, 38);
    let doubt = format!("{after} digits after the point in the sample; a record with more is a dead letter");
    Typed::unsure(format!("DECIMAL({precision},{scale})"), doubt)
}

fn text(name: &str, seen: &Seen) -> Typed {
    let texts = &seen.texts;
    if texts.times == texts.count {
        return Typed::sure(if texts.second_digits > 3 { "TIMESTAMP(6)" } else { "TIMESTAMP(3)" });
    }
    if texts.dates == texts.count {
        return Typed::sure("DATE");
    }
    if texts.numbers.count == texts.count && (names_money(name) || !texts.numbers.are_whole) {
        let typed = number(name, &texts.numbers);
        return Typed::unsure(typed.sql_type, "numbers, written as text");
    }
    if texts.numbers.count == texts.count {
        return match name.to_lowercase().ends_with("id") {
            true => Typed::unsure("VARCHAR", "whole numbers, written as text; BIGINT reads them too"),
            false => Typed::unsure("BIGINT", "whole numbers, written as text"),
        };
    }
    if texts.times + texts.dates > texts.count / 2 {
        return Typed::unsure("VARCHAR", "most of them are times, and some are not");
    }
    Typed::sure("VARCHAR")
}

fn array(seen: &Seen) -> Typed {
    let Some(elements) = seen.elements.as_ref().filter(|elements| elements.count > 0) else {
        return Typed::unsure("VARCHAR ARRAY", "the lists of the sample are empty");
    };
    if elements.objects == 0 {
        let typed = type_of("", elements);
        let of = format!("{} ARRAY", typed.sql_type);
        return match typed.doubt {
            _ if elements.arrays > 0 => Typed::unsure("VARCHAR", "lists of lists as JSON text"),
            Some(doubt) => Typed::unsure(of, doubt),
            None => Typed::sure(of),
        };
    }
    let is_flat = |field: &Seen| field.objects == 0 && field.arrays == 0;
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if elements.is_object() && elements.fields.iter().all(|(name, field)| is_flat(field) && is_name(name)) {
        let fields = elements.fields.iter().map(|(name, field)| {
            // Times within a list are instants as text alone, and what a number means cannot be said there.
            let typed = type_of("", field);
            format!("{} {}", super::super::ident(name), typed.sql_type)
        });
        let sql_type = format!("STRUCT<{}> ARRAY", fields.collect::<Vec<_>>().join(", "));
        return Typed::unsure(sql_type, "fields and types of the sample; read it by CROSS JOIN UNNEST");
    }
    Typed::unsure("VARCHAR", "lists of objects as JSON text; declare STRUCT<…> ARRAY for what is needed of them")
}

//! A proposal out of what a database declares of a table.

use super::{Proposal, ProposedColumn, Setting, toml_list};
use crate::source::sample::{DescribedColumn, DescribedTable};

/// Names of columns that say when a row was written.
const WRITTEN: &[&str] =
    &["updated_at", "update_time", "updated", "modified_at", "modified", "gmt_modified", "last_modified"];

/// Takes the table's columns.
///
/// # Errors
/// A table of which nothing can be read.
pub(in crate::cli::new) fn of_table(table: &DescribedTable) -> Result<Proposal, String> {
    let mut columns = Vec::new();
    let mut head = Vec::new();
    for column in &table.columns {
        let is_key = table.key.contains(&column.name);
        match type_of(column) {
            Some(_) if column.name.starts_with('_') => {
                head.push(format!(
                    "The column {:?} is left out: names that begin with _ are Tagflow's own.",
                    column.name
                ));
            }
            Some((sql_type, doubt)) => {
                let sql_type = if column.nullable || is_key { sql_type } else { format!("{sql_type} NOT NULL") };
                let comment = (!column.comment.is_empty()).then(|| column.comment.clone());
                let is_unsure = doubt.is_some();
                columns.push(ProposedColumn {
                    name: column.name.clone(),
                    sql_type,
                    remark: doubt.or(comment),
                    is_unsure,
                    ..ProposedColumn::default()
                });
            }
            None => head.push(format!(
                "The column {:?} is left out: {} is no text. A view that has HEX(…) of it can be read.",
                column.name, column.declared
            )),
        }
    }
    if columns.is_empty() {
        return Err("no column of the table can be read as text".to_string());
    }
    let mut settings = Vec::new();
    settings.push(match table.key.is_empty() {
        false => Setting::new("key", toml_list(&table.key)),
        true => Setting::new("key", toml_list(&[columns[0].name.clone()]))
            .with("unsure: it has no primary key; name what tells its rows apart"),
    });
    let is_time = |column: &&DescribedColumn| matches!(column.data_type.as_str(), "datetime" | "timestamp");
    let place = |column: &DescribedColumn| WRITTEN.iter().position(|known| column.name.eq_ignore_ascii_case(known));
    let written = table.columns.iter().filter(is_time).filter(|column| column.is_touched || place(column).is_some());
    if let Some(written) = written.min_by_key(|column| (!column.is_touched, place(column))) {
        let setting =
            Setting::new("changes", format!("{{ column = {}, every = \"5s\" }}", super::toml_text(&written.name)));
        settings.push(match table.indexed.contains(&written.name) {
            _ if !written.is_touched => {
                setting.with("unsure: every write must set it, or the row is found by resync alone")
            }
            true => setting,
            false => setting.with("give it an index: it is asked for every few seconds"),
        });
    } else {
        head.push(
            "No column says when a row was written: changes are found every `resync`, by reading all of it."
                .to_string(),
        );
    }
    settings.push(Setting::text("resync", "10m"));
    Ok(Proposal { head, settings, columns })
}

/// The type to declare, and what is unsure of it; `None` for what is no text.
fn type_of(column: &DescribedColumn) -> Option<(String, Option<String>)> {
    let unsigned = if column.declared.contains("unsigned") { " UNSIGNED" } else { "" };
    let size = column.declared.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(size, _)| size);
    let digits = size.and_then(|size| size.parse::<u8>().ok()).unwrap_or(0);
    let plain = |name: &str| Some((name.to_string(), None));
    match column.data_type.as_str() {
        "tinyint" => plain(&format!("TINYINT{unsigned}")),
        "smallint" => plain(&format!("SMALLINT{unsigned}")),
        "mediumint" | "int" => plain(&format!("INT{unsigned}")),
        "bigint" => plain(&format!("BIGINT{unsigned}")),
        "year" => plain("INT"),
        "float" => plain("FLOAT"),
        "double" => plain("DOUBLE"),
        "decimal" => {
            let precision = size.and_then(|size| size.split(',').next()?.trim().parse::<u8>().ok()).unwrap_or(10);
            match precision <= 38 {
                true => plain(&format!("DECIMAL({})", size.unwrap_or("10,0"))),
                false => Some(("VARCHAR".to_string(), Some("more than the 38 digits of a DECIMAL".to_string()))),
            }
        }
        "date" => plain("DATE"),
        "datetime" => plain(&format!("TIMESTAMP({})", if digits > 3 { 6 } else { 3 })),
        "timestamp" => plain(&format!("TIMESTAMP({}) WITH TIME ZONE", if digits > 3 { 6 } else { 3 })),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" | "time" | "json"
        | "uuid" | "inet4" | "inet6" => plain("VARCHAR"),
        other if crate::source::sample::is_binary(other) => None,
        other => Some(("VARCHAR".to_string(), Some(format!("the type {other} as its text")))),
    }
}

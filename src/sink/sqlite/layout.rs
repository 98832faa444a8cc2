//! Tables as SQLite declares them: those of tags and the `_tagflow_*` ones.
//!
//! Enters: the shape of a tag's table. Leaves: SQL. Runs nothing.

use rusqlite::types::Value;

use crate::sink::types::{StoreType, Unstorable};
use crate::sink::{SinkColumn, SinkError, TagTable};

/// The `_tagflow_*` tables; see [`registry`](crate::sink::registry) for their meaning.
pub(super) const META_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _tagflow_meta (
        id INTEGER NOT NULL PRIMARY KEY, layout INTEGER NOT NULL, generation INTEGER NOT NULL,
        next_retired INTEGER NOT NULL, store_id TEXT
    );
    CREATE TABLE IF NOT EXISTS _tagflow_tags (
        tag TEXT NOT NULL PRIMARY KEY, folder TEXT NOT NULL, folder_titles TEXT NOT NULL, entity TEXT NOT NULL,
        version INTEGER NOT NULL, git_commit TEXT, file TEXT NOT NULL, title TEXT, description TEXT, owner TEXT,
        method TEXT, status TEXT NOT NULL, table_name TEXT NOT NULL, sql_text TEXT NOT NULL, timezone TEXT NOT NULL,
        complete_from TEXT, row_count INTEGER NOT NULL DEFAULT 0, true_at TEXT, updated_at TEXT NOT NULL,
        true_offsets TEXT, event_time TEXT, lost_records TEXT
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _tagflow_columns (
        tag TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, sql_type TEXT NOT NULL,
        is_key INTEGER NOT NULL, title TEXT, unit TEXT, default_value TEXT, labels TEXT NOT NULL,
        PRIMARY KEY (tag, position)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _tagflow_progress (
        tag TEXT NOT NULL, table_name TEXT NOT NULL, fingerprint TEXT NOT NULL, epoch INTEGER NOT NULL,
        clock_ns INTEGER NOT NULL, offsets TEXT NOT NULL, row_count INTEGER NOT NULL, watermarks TEXT,
        PRIMARY KEY (tag, table_name)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _tagflow_retired (
        table_name TEXT NOT NULL PRIMARY KEY, tag TEXT NOT NULL, retired_at TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _tagflow_versions (
        tag TEXT NOT NULL, period INTEGER NOT NULL, version INTEGER NOT NULL, fingerprint TEXT NOT NULL,
        git_commit TEXT, author TEXT, reason TEXT NOT NULL, files TEXT, live_from TEXT NOT NULL, live_until TEXT,
        table_name TEXT, ended TEXT, complete_from TEXT, lost_records TEXT, PRIMARY KEY (tag, period)
    ) WITHOUT ROWID;
";

/// What makes the tables of an older layout those of this one: the layout that lacks it, and how it is added.
pub(super) const LATER_COLUMNS: [(u64, &str); 4] = [
    (1, "ALTER TABLE _tagflow_progress ADD COLUMN watermarks TEXT"),
    (3, "ALTER TABLE _tagflow_tags ADD COLUMN true_offsets TEXT; ALTER TABLE _tagflow_tags ADD COLUMN event_time TEXT"),
    (4, "ALTER TABLE _tagflow_meta ADD COLUMN store_id TEXT"),
    (5, "ALTER TABLE _tagflow_tags ADD COLUMN lost_records TEXT"),
];

/// A name in double quotes.
pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text literal.
pub(super) fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The declared type of every column, keys first; `ANY` is a column without affinity.
pub(super) fn column_types(table: &TagTable) -> Result<Vec<String>, SinkError> {
    let refuse = |column: &SinkColumn, error: Unstorable| SinkError::Table {
        table: table.table.clone(),
        message: format!("column `{}`: {error}", column.name),
    };
    let keys = table.key.iter().map(|column| (column, StoreType::of_key(&column.data_type)));
    let columns = table.columns.iter().map(|column| (column, StoreType::of(&column.data_type)));
    keys.chain(columns)
        .map(|(column, kind)| {
            Ok(match kind.map_err(|error| refuse(column, error))? {
                StoreType::Boolean => "BOOLEAN",
                // INTEGER affinity would turn a text of 20 digits into a rounded REAL.
                StoreType::Int { bits: 64, unsigned: true } => "ANY",
                StoreType::Int { .. } => "INTEGER",
                StoreType::Double => "REAL",
                StoreType::Bytes => "BLOB",
                StoreType::Decimal { .. }
                | StoreType::Text
                | StoreType::Date
                | StoreType::Time { .. }
                | StoreType::DateTime { .. }
                | StoreType::Json => "TEXT",
            }
            .to_string())
        })
        .collect()
}

/// The statement that creates a tag's table.
pub(super) fn create_table(table: &TagTable) -> Result<String, SinkError> {
    let types = column_types(table)?;
    let columns = table.key.iter().chain(&table.columns);
    let lines: Vec<String> = columns
        .zip(types)
        .enumerate()
        .map(|(index, (column, sql_type))| {
            let declared = if sql_type == "ANY" { String::new() } else { format!(" {sql_type}") };
            let null = if index < table.key.len() { " NOT NULL" } else { "" };
            format!("  {}{declared}{null},\n", quote_name(&column.name))
        })
        .collect();
    Ok(format!(
        "CREATE TABLE {} (\n{}  _updated_at TEXT NOT NULL,\n  PRIMARY KEY ({})\n) WITHOUT ROWID",
        quote_name(&table.table),
        lines.concat(),
        names(&table.key)
    ))
}

pub(super) fn select_of(table: &TagTable) -> String {
    let columns: Vec<String> = table.key.iter().chain(&table.columns).map(|column| quote_name(&column.name)).collect();
    format!("SELECT {} FROM {}", columns.join(", "), quote_name(&table.table))
}

pub(super) fn replace_of(table: &TagTable) -> String {
    let width = table.key.len() + table.columns.len();
    let columns: Vec<String> = table.key.iter().chain(&table.columns).map(|column| quote_name(&column.name)).collect();
    format!(
        "REPLACE INTO {} ({}, _updated_at) VALUES ({}?)",
        quote_name(&table.table),
        columns.join(", "),
        "?, ".repeat(width)
    )
}

pub(super) fn delete_of(table: &TagTable) -> String {
    let conditions: Vec<String> = table.key.iter().map(|column| format!("{} = ?", quote_name(&column.name))).collect();
    format!("DELETE FROM {} WHERE {}", quote_name(&table.table), conditions.join(" AND "))
}

/// A key given as text, as the column holds it.
pub(super) fn key_value(column: &SinkColumn, key: &str) -> Value {
    match StoreType::of(&column.data_type) {
        Ok(StoreType::Boolean) => Value::Integer(i64::from(key == "true" || key == "1")),
        Ok(StoreType::Int { .. }) => {
            key.trim().parse().map_or_else(|_| Value::Text(key.trim().to_string()), Value::Integer)
        }
        Ok(StoreType::Bytes) => Value::Blob(key.as_bytes().to_vec()),
        _ => Value::Text(key.to_string()),
    }
}

/// INSERT … ON CONFLICT for a `_tagflow_*` table; columns that are not named keep their values.
pub(super) fn upsert_sql(table: &str, columns: &[&str], key: &str) -> String {
    let updates: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT ({key}) DO UPDATE SET {}",
        columns.join(", "),
        vec!["?"; columns.len()].join(", "),
        updates.join(", ")
    )
}

fn names(columns: &[SinkColumn]) -> String {
    columns.iter().map(|column| quote_name(&column.name)).collect::<Vec<_>>().join(", ")
}

//! Tables as MySQL declares them: those of tags and the `_tagflow_*` ones.
//!
//! Enters: the shape of a tag's table and what the server can do. Leaves: DDL. Runs nothing.

use super::encode::{quote_name, quote_text};
use super::server::{Abilities, KeyText};
use crate::sink::keys::KeyLimit;
use crate::sink::types::{StoreType, Unstorable};
use crate::sink::{SinkColumn, SinkError, TagTable};

/// What InnoDB's index takes of one key in all, with the default page size and ROW_FORMAT=DYNAMIC.
const KEY_BYTES: usize = 3072;
/// Bytes of a character in utf8mb4, at most.
const CHAR_BYTES: usize = 4;
/// MySQL's longest VARCHAR that an index of one column takes is a little below `KEY_BYTES / CHAR_BYTES`.
const LENGTH_BYTES: usize = 2;

/// Columns that older layouts lack: table, column, type.
pub(super) const LATER_COLUMNS: [(&str, &str, &str); 6] = [
    ("_tagflow_progress", "watermarks", "LONGTEXT"),
    ("_tagflow_tags", "true_offsets", "LONGTEXT"),
    ("_tagflow_tags", "event_time", "DATETIME(3)"),
    ("_tagflow_meta", "store_id", "VARCHAR(32)"),
    ("_tagflow_tags", "lost_records", "LONGTEXT"),
    ("_tagflow_pending", "origin", "LONGTEXT"),
];

/// The `_tagflow_*` tables; see [`registry`](crate::sink::registry) for their meaning.
pub(super) const META_TABLES: [&str; 8] = [
    "CREATE TABLE IF NOT EXISTS `_tagflow_meta` (
        `id` TINYINT NOT NULL PRIMARY KEY, `layout` BIGINT UNSIGNED NOT NULL, `generation` BIGINT UNSIGNED NOT NULL,
        `next_retired` BIGINT UNSIGNED NOT NULL, `store_id` VARCHAR(32) NULL
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin COMMENT='tagflow: the writer of this database'",
    "CREATE TABLE IF NOT EXISTS `_tagflow_lease` (
        `id` TINYINT NOT NULL PRIMARY KEY, `owner` VARCHAR(64) NOT NULL, `host` VARCHAR(255) NOT NULL,
        `pid` BIGINT UNSIGNED NOT NULL, `generation` BIGINT UNSIGNED NOT NULL, `expires_at` DATETIME(6) NOT NULL
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin COMMENT='tagflow: until when its daemon writes (UTC)'",
    "CREATE TABLE IF NOT EXISTS `_tagflow_tags` (
        `tag` VARCHAR(64) NOT NULL PRIMARY KEY, `folder` VARCHAR(512) NOT NULL, `folder_titles` LONGTEXT NOT NULL,
        `entity` VARCHAR(255) NOT NULL, `version` BIGINT UNSIGNED NOT NULL, `git_commit` VARCHAR(64) NULL,
        `file` TEXT NOT NULL, `title` TEXT NULL, `description` LONGTEXT NULL, `owner` TEXT NULL,
        `method` VARCHAR(32) NULL, `status` VARCHAR(32) NOT NULL, `table_name` VARCHAR(64) NOT NULL,
        `sql_text` LONGTEXT NOT NULL, `timezone` VARCHAR(64) NOT NULL, `complete_from` DATETIME(3) NULL,
        `row_count` BIGINT UNSIGNED NOT NULL DEFAULT 0, `true_at` DATETIME(3) NULL, `updated_at` DATETIME(3) NOT NULL,
        `true_offsets` LONGTEXT NULL, `event_time` DATETIME(3) NULL, `lost_records` LONGTEXT NULL
    ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin
      COMMENT='tagflow: every tag and up to when it is true'",
    "CREATE TABLE IF NOT EXISTS `_tagflow_columns` (
        `tag` VARCHAR(64) NOT NULL, `position` INT NOT NULL, `name` VARCHAR(255) NOT NULL, `sql_type` TEXT NOT NULL,
        `is_key` TINYINT(1) NOT NULL, `title` TEXT NULL, `unit` TEXT NULL, `default_value` LONGTEXT NULL,
        `labels` LONGTEXT NOT NULL, PRIMARY KEY (`tag`, `position`)
    ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin
      COMMENT='tagflow: the columns of every tag'",
    "CREATE TABLE IF NOT EXISTS `_tagflow_progress` (
        `tag` VARCHAR(64) NOT NULL, `table_name` VARCHAR(64) NOT NULL, `fingerprint` VARCHAR(255) NOT NULL,
        `epoch` BIGINT UNSIGNED NOT NULL, `clock_ns` BIGINT NOT NULL, `offsets` LONGTEXT NOT NULL,
        `row_count` BIGINT UNSIGNED NOT NULL, `watermarks` LONGTEXT NULL, PRIMARY KEY (`tag`, `table_name`)
    ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin
      COMMENT='tagflow: how far every table is, committed with its rows'",
    "CREATE TABLE IF NOT EXISTS `_tagflow_retired` (
        `table_name` VARCHAR(64) NOT NULL PRIMARY KEY, `tag` VARCHAR(64) NOT NULL, `retired_at` DATETIME(3) NOT NULL
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin COMMENT='tagflow: tables kept aside for a while (UTC)'",
    "CREATE TABLE IF NOT EXISTS `_tagflow_pending` (
        `live` VARCHAR(64) NOT NULL PRIMARY KEY, `filled` VARCHAR(64) NULL, `retired` VARCHAR(64) NULL,
        `tag` VARCHAR(64) NOT NULL, `progress` LONGTEXT NULL, `registration` LONGTEXT NULL, `origin` LONGTEXT NULL
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin COMMENT='tagflow: renames that were begun'",
    "CREATE TABLE IF NOT EXISTS `_tagflow_versions` (
        `tag` VARCHAR(64) NOT NULL, `period` BIGINT UNSIGNED NOT NULL, `version` BIGINT UNSIGNED NOT NULL,
        `fingerprint` VARCHAR(255) NOT NULL, `git_commit` VARCHAR(64) NULL, `author` TEXT NULL,
        `reason` LONGTEXT NOT NULL, `files` LONGTEXT NULL, `live_from` DATETIME(3) NOT NULL,
        `live_until` DATETIME(3) NULL, `table_name` VARCHAR(64) NULL, `ended` LONGTEXT NULL,
        `complete_from` DATETIME(3) NULL, `lost_records` LONGTEXT NULL, PRIMARY KEY (`tag`, `period`)
    ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin
      COMMENT='tagflow: which version of each tag was live when (UTC)'",
];

/// One column as it is declared.
pub(super) struct Declared {
    pub name: String,
    /// As `information_schema.COLUMNS.COLUMN_TYPE` has it, but for display widths.
    pub sql_type: String,
    /// Of a text column.
    pub collation: Option<String>,
    pub is_key: bool,
    pub limit: KeyLimit,
}

/// All columns of a tag's table but `_updated_at`.
pub(super) fn declare(table: &TagTable, abilities: &Abilities) -> Result<Vec<Declared>, SinkError> {
    let refuse = |column: &SinkColumn, error: Unstorable| SinkError::Table {
        table: table.table.clone(),
        message: format!("column `{}`: {error}", column.name),
    };
    let mut fixed = 0;
    let mut texts = 0;
    let mut kinds = Vec::new();
    for column in &table.key {
        let kind = StoreType::of_key(&column.data_type).map_err(|error| refuse(column, error))?;
        match kind {
            StoreType::Text | StoreType::Bytes => texts += 1,
            _ => fixed += index_bytes(kind),
        }
        kinds.push(kind);
    }
    let each = KEY_BYTES.saturating_sub(fixed) / texts.max(1) - LENGTH_BYTES;
    let mut declared: Vec<Declared> = table
        .key
        .iter()
        .zip(kinds)
        .map(|(column, kind)| {
            let (sql_type, collation, limit) = match (kind, &abilities.key_text) {
                (StoreType::Text, KeyText::Collation(name)) => {
                    let chars = each / CHAR_BYTES;
                    (format!("varchar({chars})"), Some(name.clone()), KeyLimit::Chars(chars))
                }
                (StoreType::Text | StoreType::Bytes, _) => (format!("varbinary({each})"), None, KeyLimit::Bytes(each)),
                _ => (sql_type(kind), None, KeyLimit::None),
            };
            Declared { name: column.name.clone(), sql_type, collation, is_key: true, limit }
        })
        .collect();
    for column in &table.columns {
        let kind = StoreType::of(&column.data_type).map_err(|error| refuse(column, error))?;
        let collation = matches!(kind, StoreType::Text | StoreType::Json).then(|| "utf8mb4_bin".to_string());
        declared.push(Declared {
            name: column.name.clone(),
            sql_type: sql_type(kind),
            collation,
            is_key: false,
            limit: KeyLimit::None,
        });
    }
    Ok(declared)
}

/// The statement that creates a tag's table.
pub(super) fn create_table(table: &TagTable, abilities: &Abilities) -> Result<String, SinkError> {
    let mut lines = Vec::new();
    for column in declare(table, abilities)? {
        let collation =
            column.collation.map_or_else(String::new, |name| format!(" CHARACTER SET utf8mb4 COLLATE {name}"));
        let null = if column.is_key { "NOT NULL" } else { "NULL" };
        lines.push(format!("{} {}{collation} {null}", quote_name(&column.name), column.sql_type));
    }
    lines.push("`_updated_at` DATETIME(3) NOT NULL".to_string());
    let key: Vec<String> = table.key.iter().map(|column| quote_name(&column.name)).collect();
    Ok(format!(
        "CREATE TABLE {} (\n  {},\n  PRIMARY KEY ({})\n) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 \
         COLLATE=utf8mb4_bin COMMENT={}",
        quote_name(&table.table),
        lines.join(",\n  "),
        key.join(", "),
        quote_text("tagflow: a tag; written by the daemon alone")
    ))
}

/// A column type without what servers print differently: `bigint(20) unsigned` and `bigint unsigned` are one.
pub(super) fn without_display_width(column_type: &str) -> String {
    let column_type = column_type.to_lowercase();
    match column_type.split_once('(') {
        Some((name, rest)) if name.ends_with("int") => match rest.split_once(')') {
            Some((_, tail)) => format!("{name}{tail}"),
            None => column_type,
        },
        _ => column_type,
    }
}

fn sql_type(kind: StoreType) -> String {
    match kind {
        StoreType::Boolean => "tinyint(1)".to_string(),
        StoreType::Int { bits, unsigned } => {
            let name = match bits {
                8 => "tinyint",
                16 => "smallint",
                32 => "int",
                _ => "bigint",
            };
            format!("{name}{}", if unsigned { " unsigned" } else { "" })
        }
        StoreType::Double => "double".to_string(),
        StoreType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        StoreType::Text | StoreType::Json => "longtext".to_string(),
        StoreType::Bytes => "longblob".to_string(),
        StoreType::Date => "date".to_string(),
        StoreType::Time { digits } => format!("time({digits})"),
        StoreType::DateTime { digits } => format!("datetime({digits})"),
    }
}

fn index_bytes(kind: StoreType) -> usize {
    match kind {
        StoreType::Decimal { .. } => 32,
        _ => 8,
    }
}

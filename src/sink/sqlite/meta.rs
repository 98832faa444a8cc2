//! The `_tagflow_*` tables of SQLite and the renames that go with them, inside the caller's transaction.
//!
//! Enters: progress, registrations, table names. Leaves: rows. The layout is that of
//! [`registry`](crate::sink::registry).

use chrono_tz::Tz;
use rusqlite::{Transaction, params_from_iter};

use super::layout::{quote_name, upsert_sql};
use super::versions;
use crate::sink::registry::{self, COLUMN_COLUMNS, PROGRESS_COLUMNS, TAG_COLUMNS, is_live};
use crate::sink::{TagProgress, TagRegistration};

/// The progress of one table, and what the registry shows of it.
pub(super) fn write_progress(
    transaction: &Transaction<'_>,
    progress: &TagProgress,
    table: &str,
    zone: Tz,
) -> Result<(), rusqlite::Error> {
    let row = registry::progress_row(progress, table);
    let sql = upsert_sql("_tagflow_progress", &PROGRESS_COLUMNS, "tag, table_name");
    transaction.prepare_cached(&sql)?.execute(params_from_iter(row))?;
    if is_live(progress, table) {
        let [true_at, true_offsets, event_time] = registry::truth(progress, zone);
        transaction
            .prepare_cached(
                "UPDATE _tagflow_tags SET row_count = ?1, true_at = ?2, true_offsets = ?3, \
                 event_time = COALESCE(?4, event_time) WHERE tag = ?5",
            )?
            .execute((progress.rows, true_at, true_offsets, event_time, &progress.tag))?;
    }
    Ok(())
}

/// One tag's rows in the registry.
pub(super) fn write_registration(
    transaction: &Transaction<'_>,
    registration: &TagRegistration,
    zone: Tz,
) -> Result<(), rusqlite::Error> {
    let sql = upsert_sql("_tagflow_tags", &TAG_COLUMNS, "tag");
    transaction.prepare_cached(&sql)?.execute(params_from_iter(registry::tag_row(registration, zone)))?;
    transaction.execute("DELETE FROM _tagflow_columns WHERE tag = ?1", [&registration.tag])?;
    let sql = upsert_sql("_tagflow_columns", &COLUMN_COLUMNS, "tag, position");
    for row in registry::column_rows(registration) {
        transaction.prepare_cached(&sql)?.execute(params_from_iter(row))?;
    }
    Ok(())
}

/// True when a swap to this progress has been carried out before.
pub(super) fn already_at(
    transaction: &Transaction<'_>,
    live: &str,
    progress: &TagProgress,
) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT COUNT(*) FROM _tagflow_progress \
               WHERE tag = ?1 AND table_name = ?2 AND fingerprint = ?3 AND epoch >= ?4";
    let parameters = (&progress.tag, live, &progress.fingerprint, progress.epoch);
    transaction.query_row(sql, parameters, |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

/// Renames the live table, where there is one, to a retired one.
pub(super) fn set_aside(transaction: &Transaction<'_>, live: &str, tag: &str) -> Result<(), rusqlite::Error> {
    if !table_exists(transaction, live)? {
        return versions::end(transaction, tag, None);
    }
    let number: u64 = transaction.query_row(
        "UPDATE _tagflow_meta SET next_retired = next_retired + 1 WHERE id = 1 RETURNING next_retired - 1",
        [],
        |row| row.get(0),
    )?;
    let retired = registry::retired_table(tag, number);
    rename(transaction, live, &retired)?;
    versions::end(transaction, tag, Some(&retired))
}

pub(super) fn rename(transaction: &Transaction<'_>, from: &str, to: &str) -> Result<(), rusqlite::Error> {
    transaction.execute(&format!("ALTER TABLE {} RENAME TO {}", quote_name(from), quote_name(to)), [])?;
    Ok(())
}

pub(super) fn table_exists(transaction: &Transaction<'_>, table: &str) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    transaction.query_row(sql, [table], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

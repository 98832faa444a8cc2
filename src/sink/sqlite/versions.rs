//! `_tagflow_versions` of SQLite: what goes live, what is set aside and what is given up, inside the caller's transaction.
//!
//! Enters: tags, versions, tables. Leaves: rows. The layout is that of [`registry`](crate::sink::registry).

use rusqlite::{Error, Transaction, params_from_iter};

use crate::sink::versions::{Origin, VERSION_COLUMNS, begun_row, version_name};
use crate::sink::{TagProgress, TagRegistration};

/// The present moment, as it is written.
const NOW: &str = "strftime('%Y-%m-%d %H:%M:%f', 'now')";

/// The live version of a tag is no longer live; its table is `retired` now, if it had one, and has its progress under the
/// version's name.
pub(super) fn end(transaction: &Transaction<'_>, tag: &str, retired: Option<&str>) -> Result<(), Error> {
    let of_tag = |column: &str| format!("(SELECT {column} FROM _tagflow_tags WHERE tag = ?1)");
    if retired.is_some() {
        let retire = format!("INSERT INTO _tagflow_retired (tag, table_name, retired_at) VALUES (?1, ?2, {NOW})");
        transaction.execute(&retire, (tag, retired))?;
        let rename = format!(
            "UPDATE _tagflow_progress SET tag = ?1 || '@' || COALESCE({}, 0), table_name = ?2 \
             WHERE tag = ?1 AND table_name = ?1",
            of_tag("version")
        );
        transaction.execute(&rename, (tag, retired))?;
    }
    let end = format!(
        "UPDATE _tagflow_versions SET live_until = {NOW}, table_name = ?2, complete_from = {}, lost_records = {} \
         WHERE tag = ?1 AND live_until IS NULL",
        of_tag("complete_from"),
        of_tag("lost_records")
    );
    transaction.execute(&end, (tag, retired))?;
    Ok(())
}

/// A version goes live.
pub(super) fn begin(
    transaction: &Transaction<'_>,
    progress: &TagProgress,
    registration: &TagRegistration,
    origin: &Origin,
) -> Result<(), Error> {
    let begin = format!(
        "INSERT INTO _tagflow_versions ({}, live_from, period) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, {NOW}, \
         COALESCE(MAX(period), 0) + 1 FROM _tagflow_versions WHERE tag = ?1",
        VERSION_COLUMNS[..7].join(", ")
    );
    transaction.execute(&begin, params_from_iter(begun_row(progress, registration, origin)))?;
    Ok(())
}

/// A table is gone from where it was: it was dropped, or is live now.
pub(super) fn forget_table(transaction: &Transaction<'_>, table: &str) -> Result<(), Error> {
    for forget in [
        "DELETE FROM _tagflow_progress WHERE table_name = ?1",
        "DELETE FROM _tagflow_retired WHERE table_name = ?1",
        "UPDATE _tagflow_versions SET table_name = NULL, files = NULL WHERE table_name = ?1",
    ] {
        transaction.execute(forget, [table])?;
    }
    Ok(())
}

pub(super) fn give_up(transaction: &Transaction<'_>, tag: &str, version: u64, reason: &str) -> Result<(), Error> {
    transaction.execute("DELETE FROM _tagflow_progress WHERE tag = ?1", [version_name(tag, version)])?;
    transaction.execute(
        "UPDATE _tagflow_versions SET ended = ?3 \
         WHERE tag = ?1 AND version = ?2 AND table_name IS NOT NULL AND ended IS NULL",
        (tag, version, reason),
    )?;
    Ok(())
}

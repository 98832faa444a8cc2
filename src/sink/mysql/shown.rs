//! A table with its progress as of one moment, for readers beside the writer.
//!
//! Enters: a table. Leaves: rows and progress out of one snapshot. Never locks a row; renames, which no snapshot knows of, are
//! told by what was begun and by the version of the tag, before and after.

use chrono_tz::Tz;

use super::encode::quote_text;
use super::meta::names;
use super::server::Session;
use super::{Store, select_of};
use crate::sink::read_back::KeptRows;
use crate::sink::registry::{self, PROGRESS_COLUMNS};
use crate::sink::{Keep, Shown, SinkError, TagTable};

impl Store {
    pub(super) async fn read_shown(&mut self, table: &TagTable, keep: Keep<'_>) -> Result<Option<Shown>, SinkError> {
        let zone = self.zone;
        let session = self.session().await?;
        let before = rename_of(session, table).await?;
        // At the session's own level every statement would see a moment of its own.
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", None).await?;
        session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT", None).await?;
        let shown = read(session, table, keep, zone).await;
        let ended = session.execute("COMMIT", None).await;
        self.settle(shown.is_err() || ended.is_err()).await;
        let (shown, ()) = (shown?, ended?);
        let session = self.session().await?;
        let is_one_table = before.is_some() && before == rename_of(session, table).await?;
        match is_one_table {
            true => Ok(shown),
            false => Err(self.server.unavailable(format!("table `{}` is being replaced", table.table))),
        }
    }
}

/// The version of the tag whose table it is; `None` while the table is being renamed.
async fn rename_of(session: &mut Session, table: &TagTable) -> Result<Option<String>, SinkError> {
    let name = quote_text(&table.table);
    let sql = format!(
        "SELECT (SELECT COUNT(*) FROM `_tagflow_pending` WHERE `live` = {name}), \
         COALESCE((SELECT `version` FROM `_tagflow_tags` WHERE `tag` = {name}), 0)"
    );
    let row = session.row(&sql).await?;
    Ok(match row.as_slice() {
        [Some(pending), version] if pending == "0" => version.clone(),
        _ => None,
    })
}

async fn read(session: &mut Session, table: &TagTable, keep: Keep<'_>, zone: Tz) -> Result<Option<Shown>, SinkError> {
    let columns = names(&PROGRESS_COLUMNS);
    let name = quote_text(&table.table);
    let found = session.row(&format!("SELECT {columns} FROM `_tagflow_progress` WHERE `table_name` = {name}")).await?;
    if found.is_empty() {
        return Ok(None);
    }
    let server = session.server().clone();
    let (_, progress) = registry::progress_from(found).map_err(|message| server.setup(message))?;
    let mut rows = KeptRows::new(table, zone, keep);
    session.each_row(&select_of(table), &table.table, |row| rows.add(row)).await?;
    let rows = rows.finish().map_err(|message| SinkError::Table { table: table.table.clone(), message })?;
    Ok(Some(Shown { progress, rows }))
}

//! `_tagflow_versions` of MySQL: what goes live, what is set aside and what is given up, inside the caller's transaction.
//!
//! Enters: tags, versions, tables. Leaves: rows, and versions back. The layout is that of
//! [`registry`](crate::sink::registry).

use super::Store;
use super::encode::{quote_optional, quote_text};
use super::meta::{committed_progress, names};
use super::server::Session;
use crate::sink::versions::{
    Origin, VERSION_COLUMNS, Version, begun_row, is_version_name, version_name, versions_from,
};
use crate::sink::{SinkError, TagProgress, TagRegistration};

/// The live version of a tag is no longer live; its table is `retired` now, if it had one, and has its progress under the
/// version's name.
pub(super) async fn end(session: &mut Session, tag: &str, retired: Option<&str>) -> Result<(), SinkError> {
    let name = quote_text(tag);
    let of_tag = |column: &str| format!("(SELECT `{column}` FROM `_tagflow_tags` WHERE `tag` = {name})");
    if let Some(table) = retired.map(quote_text) {
        let retire = format!(
            "INSERT INTO `_tagflow_retired` (`table_name`, `tag`, `retired_at`) VALUES ({table}, {name}, UTC_TIMESTAMP(3))"
        );
        session.execute(retire, None).await?;
        let rename = format!(
            "UPDATE `_tagflow_progress` SET `tag` = CONCAT({name}, '@', COALESCE({}, 0)), `table_name` = {table} \
             WHERE `tag` = {name} AND `table_name` = {name}",
            of_tag("version")
        );
        session.execute(rename, None).await?;
    }
    let end = format!(
        "UPDATE `_tagflow_versions` SET `live_until` = UTC_TIMESTAMP(3), `table_name` = {}, `complete_from` = {}, \
         `lost_records` = {} WHERE `tag` = {name} AND `live_until` IS NULL",
        quote_optional(retired),
        of_tag("complete_from"),
        of_tag("lost_records")
    );
    session.execute(end, None).await
}

/// A version goes live.
pub(super) async fn begin(
    session: &mut Session,
    progress: &TagProgress,
    registration: &TagRegistration,
    origin: &Origin,
) -> Result<(), SinkError> {
    let row = begun_row(progress, registration, origin);
    let literals: Vec<String> = row.iter().map(|text| quote_optional(text.as_deref())).collect();
    let begin = format!(
        "INSERT INTO `_tagflow_versions` ({}, `live_from`, `period`) SELECT {}, UTC_TIMESTAMP(3), \
         COALESCE(MAX(`period`), 0) + 1 FROM `_tagflow_versions` WHERE `tag` = {}",
        names(&VERSION_COLUMNS[..7]),
        literals.join(", "),
        quote_text(&progress.tag)
    );
    session.execute(begin, None).await
}

/// A table is gone from where it was: it was dropped, or is live now.
pub(super) async fn forget_table(session: &mut Session, table: &str) -> Result<(), SinkError> {
    let table = quote_text(table);
    for forget in [
        format!("DELETE FROM `_tagflow_progress` WHERE `table_name` = {table}"),
        format!("DELETE FROM `_tagflow_retired` WHERE `table_name` = {table}"),
        format!("UPDATE `_tagflow_versions` SET `table_name` = NULL, `files` = NULL WHERE `table_name` = {table}"),
    ] {
        session.execute(forget, None).await?;
    }
    Ok(())
}

impl Store {
    pub(super) async fn versions_aside(&mut self) -> Result<Vec<(String, TagProgress)>, SinkError> {
        let committed = committed_progress(self.session().await?).await?;
        let aside = committed.into_iter().filter(|(_, progress)| is_version_name(&progress.tag));
        Ok(aside.map(|((_, table), progress)| (table, progress)).collect())
    }

    pub(super) async fn versions(&mut self) -> Result<Vec<Version>, SinkError> {
        let zone = self.zone;
        let sql = format!("SELECT {} FROM `_tagflow_versions` ORDER BY `tag`, `period`", names(&VERSION_COLUMNS));
        let rows = self.session().await?.texts(&sql).await?;
        versions_from(rows, zone).map_err(|message| self.server.setup(message))
    }

    pub(super) async fn give_version_up(&mut self, tag: &str, version: u64, reason: &str) -> Result<(), SinkError> {
        let name = quote_text(&version_name(tag, version));
        let forget = format!("DELETE FROM `_tagflow_progress` WHERE `tag` = {name}");
        let end = format!(
            "UPDATE `_tagflow_versions` SET `ended` = {} WHERE `tag` = {} AND `version` = {version} \
             AND `table_name` IS NOT NULL AND `ended` IS NULL",
            quote_text(reason),
            quote_text(tag)
        );
        self.transaction(async |session| {
            session.execute(forget, None).await?;
            session.execute(end, None).await
        })
        .await
    }
}

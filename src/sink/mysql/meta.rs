//! The `_tagflow_*` tables of MySQL: what a commit and a registration write there, inside the caller's transaction.
//!
//! Enters: progress and registrations. Leaves: rows, and progress back. The layout is that of
//! [`registry`](crate::sink::registry).

use std::collections::BTreeMap;

use chrono_tz::Tz;

use super::encode::{quote_optional, quote_row, quote_text};
use super::server::Session;
use super::{Store, layout, number};
use crate::sink::registry::{self, COLUMN_COLUMNS, PROGRESS_COLUMNS, TAG_COLUMNS, is_live};
use crate::sink::{SinkError, TagProgress, TagRegistration};

impl Store {
    /// The `_tagflow_*` tables as this version lays them out.
    pub(super) async fn make_meta_tables(&mut self) -> Result<(), SinkError> {
        let session = self.session().await?;
        for statement in layout::META_TABLES {
            session.execute(statement, None).await?;
        }
        let first = format!(
            "INSERT IGNORE INTO `_tagflow_meta` (`id`, `layout`, `generation`, `next_retired`) VALUES (1, {}, 0, 1)",
            registry::LAYOUT
        );
        session.execute(first, None).await?;
        let found = session.row("SELECT `layout` FROM `_tagflow_meta` WHERE `id` = 1").await?;
        let server = session.server().clone();
        let found = number(&found, 0, &server)?;
        if found > registry::LAYOUT {
            return Err(server.setup("the _tagflow_* tables are those of a newer tagflow; install that one"));
        }
        if found == registry::LAYOUT {
            return Ok(());
        }
        // A daemon may have been stopped in the middle of this: what is there is asked, not guessed.
        for (table, column, definition) in layout::LATER_COLUMNS {
            let known = format!(
                "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
                 AND TABLE_NAME = {} AND COLUMN_NAME = {}",
                quote_text(table),
                quote_text(column)
            );
            if number(&session.row(&known).await?, 0, &server)? == 0 {
                let add = format!("ALTER TABLE `{table}` ADD COLUMN `{column}` {definition} NULL");
                session.execute(add, None).await?;
            }
        }
        session
            .execute(format!("UPDATE `_tagflow_meta` SET `layout` = {} WHERE `id` = 1", registry::LAYOUT), None)
            .await
    }
}

/// Progress rows of these tables, and what the registry shows of them.
pub(super) async fn write_progress(
    session: &mut Session,
    written: &[(&TagProgress, &str)],
    zone: Tz,
) -> Result<(), SinkError> {
    if written.is_empty() {
        return Ok(());
    }
    let rows: Vec<String> =
        written.iter().map(|(progress, table)| quote_row(&registry::progress_row(progress, table))).collect();
    session.execute(upsert_sql("_tagflow_progress", &PROGRESS_COLUMNS, &rows), None).await?;

    let live: Vec<&TagProgress> =
        written.iter().filter(|(progress, table)| is_live(progress, table)).map(|(progress, _)| *progress).collect();
    if live.is_empty() {
        return Ok(());
    }
    let case = |value: &dyn Fn(&TagProgress) -> String| {
        let whens: Vec<String> = live
            .iter()
            .map(|progress| format!("WHEN {} THEN {}", quote_text(&progress.tag), value(progress)))
            .collect();
        format!("CASE `tag` {} END", whens.join(" "))
    };
    let tags: Vec<String> = live.iter().map(|progress| quote_text(&progress.tag)).collect();
    let truth = |index: usize| case(&|progress| quote_optional(registry::truth(progress, zone)[index].as_deref()));
    let sql = format!(
        "UPDATE `_tagflow_tags` SET `row_count` = {}, `true_at` = {}, `true_offsets` = {}, \
         `event_time` = COALESCE({}, `event_time`) WHERE `tag` IN ({})",
        case(&|progress| progress.rows.to_string()),
        truth(0),
        truth(1),
        truth(2),
        tags.join(", ")
    );
    session.execute(sql, None).await
}

pub(super) async fn write_registrations(
    session: &mut Session,
    registrations: &[TagRegistration],
    zone: Tz,
) -> Result<(), SinkError> {
    for registration in registrations {
        let row = quote_row(&registry::tag_row(registration, zone));
        session.execute(upsert_sql("_tagflow_tags", &TAG_COLUMNS, &[row]), None).await?;
        let forget = format!("DELETE FROM `_tagflow_columns` WHERE `tag` = {}", quote_text(&registration.tag));
        session.execute(forget, None).await?;
        let rows: Vec<String> = registry::column_rows(registration).iter().map(|row| quote_row(row)).collect();
        if !rows.is_empty() {
            session.execute(upsert_sql("_tagflow_columns", &COLUMN_COLUMNS, &rows), None).await?;
        }
    }
    Ok(())
}

/// The progress of every table, those that are being filled included.
pub(super) async fn committed_progress(
    session: &mut Session,
) -> Result<BTreeMap<(String, String), TagProgress>, SinkError> {
    let sql = format!("SELECT {} FROM `_tagflow_progress`", names(&PROGRESS_COLUMNS));
    let rows = session.texts(&sql).await?;
    let server = session.server().clone();
    rows.into_iter()
        .map(|row| {
            let (table, progress) = registry::progress_from(row).map_err(|message| server.setup(message))?;
            Ok(((progress.tag.clone(), table), progress))
        })
        .collect()
}

fn upsert_sql(table: &str, columns: &[&str], rows: &[String]) -> String {
    let updates: Vec<String> = columns.iter().map(|column| format!("`{column}` = VALUES(`{column}`)")).collect();
    format!(
        "INSERT INTO `{table}` ({}) VALUES {} ON DUPLICATE KEY UPDATE {}",
        names(columns),
        rows.join(", "),
        updates.join(", ")
    )
}

pub(super) fn names(columns: &[&str]) -> String {
    columns.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", ")
}

//! Renames of tag tables, which MySQL commits by themselves, made to look like one step with progress and registry.
//!
//! Enters: a filled table and what becomes true with it, or a tag that goes. Leaves: renamed tables and a registry
//! that says so, whatever crashes in between.
//!
//! 1. A transaction writes what is about to happen into `_tagflow_pending`.
//! 2. `RENAME TABLE` moves the live table aside and the filled one in its place; the server does both or none.
//! 3. A transaction writes progress, registration, version and the retired table, and takes the pending row out.
//!
//! After a crash `open` looks at each pending row. The name that was to be renamed away (the filled table, or the live
//! one of a tag that goes) is still there: the rename did not happen and the row is dropped, the caller does it again.
//! It is gone: the rename happened and step 3 follows. All of it runs under the store's named lock, which a lost
//! connection keeps until its rename has ended on the server.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::error;

use super::encode::{quote_name, quote_text};
use super::meta::{committed_progress, write_progress, write_registrations};
use super::server::Session;
use super::{Store, number, optional_literal, versions};
use crate::crash_point::crash_point;
use crate::sink::registry::retired_table;
use crate::sink::versions::Origin;
use crate::sink::{SinkError, TagProgress, TagRegistration, shadow_table};

/// A row of `_tagflow_pending`.
struct Pending {
    /// The tag's table.
    live: String,
    /// The table to take its place; `None` when the tag goes.
    filled: Option<String>,
    /// What the live table is renamed to; `None` where there was none.
    retired: Option<String>,
    tag: String,
    progress: Option<TagProgress>,
    registration: Option<TagRegistration>,
    origin: Option<Origin>,
}

impl Store {
    pub(super) async fn swap_table(
        &mut self,
        filled: &str,
        live: &str,
        progress: &TagProgress,
        registration: &TagRegistration,
        origin: &Origin,
    ) -> Result<(), SinkError> {
        self.exclusive(async |store| {
            // The rename may have been carried out although its answer was lost: then this finishes the same swap.
            store.finish_renames().await?;
            let session = store.session().await?;
            if !table_exists(session, filled).await? {
                let committed = committed_progress(session).await?;
                let there = committed.get(&(progress.tag.clone(), live.to_string()));
                if there.is_some_and(|there| there.fingerprint == progress.fingerprint && there.epoch >= progress.epoch)
                {
                    return Ok(());
                }
                return Err(SinkError::Table {
                    table: filled.to_string(),
                    message: "the filled table is gone; it has to be filled again".to_string(),
                });
            }
            let retired = match table_exists(session, live).await? {
                true => Some(store.next_retired_name(&progress.tag).await?),
                false => None,
            };
            store
                .rename(&Pending {
                    live: live.to_string(),
                    filled: Some(filled.to_string()),
                    retired,
                    tag: progress.tag.clone(),
                    progress: Some(progress.clone()),
                    registration: Some(registration.clone()),
                    origin: Some(origin.clone()),
                })
                .await
        })
        .await
    }

    pub(super) async fn retire_table(&mut self, tag: &str) -> Result<(), SinkError> {
        self.exclusive(async |store| {
            store.finish_renames().await?;
            let session = store.session().await?;
            let shadow = shadow_table(tag);
            session.execute(format!("DROP TABLE IF EXISTS {}", quote_name(&shadow)), Some(&shadow)).await?;
            if !table_exists(session, tag).await? {
                return store
                    .transaction(async |session| {
                        versions::end(session, tag, None).await?;
                        forget_tag(session, tag).await
                    })
                    .await;
            }
            let retired = store.next_retired_name(tag).await?;
            store
                .rename(&Pending {
                    live: tag.to_string(),
                    filled: None,
                    retired: Some(retired),
                    tag: tag.to_string(),
                    progress: None,
                    registration: None,
                    origin: None,
                })
                .await
        })
        .await
    }

    pub(super) async fn drop_retired(&mut self, grace: Duration) -> Result<Vec<String>, SinkError> {
        self.exclusive(async |store| {
            let session = store.session().await?;
            let micros = u64::try_from(grace.as_micros()).unwrap_or(u64::MAX).min(i64::MAX as u64);
            let due = format!(
                "SELECT `table_name` FROM `_tagflow_retired` \
                 WHERE TIMESTAMPDIFF(MICROSECOND, `retired_at`, UTC_TIMESTAMP(3)) >= {micros} ORDER BY `table_name`"
            );
            let due: Vec<String> = session.texts(&due).await?.into_iter().flatten().flatten().collect();
            let mut dropped = Vec::new();
            for table in due {
                let drop = session.execute(format!("DROP TABLE IF EXISTS {}", quote_name(&table)), Some(&table)).await;
                match drop {
                    // Somebody reads it still: it can wait.
                    Err(SinkError::Unavailable { .. }) if !session.broken => continue,
                    other => other?,
                }
                versions::forget_table(session, &table).await?;
                dropped.push(table);
            }
            Ok(dropped)
        })
        .await
    }

    /// Steps 1 to 3.
    async fn rename(&mut self, pending: &Pending) -> Result<(), SinkError> {
        self.begin_rename(pending).await?;
        crash_point("rename.begun");
        let mut renames = Vec::new();
        if let Some(retired) = &pending.retired {
            renames.push(format!("{} TO {}", quote_name(&pending.live), quote_name(retired)));
        }
        if let Some(filled) = &pending.filled {
            renames.push(format!("{} TO {}", quote_name(filled), quote_name(&pending.live)));
        }
        let rename = format!("RENAME TABLE {}", renames.join(", "));
        self.session().await?.execute(rename, Some(&pending.live)).await?;
        crash_point("rename.renamed");
        self.finish_rename(pending).await?;
        crash_point("rename.finished");
        Ok(())
    }

    /// Step 1.
    async fn begin_rename(&mut self, pending: &Pending) -> Result<(), SinkError> {
        let progress = self.written(pending.progress.as_ref())?;
        let registration = self.written(pending.registration.as_ref())?;
        let origin = self.written(pending.origin.as_ref())?;
        let insert = format!(
            "INSERT INTO `_tagflow_pending` (`live`, `filled`, `retired`, `tag`, `progress`, `registration`, `origin`) \
             VALUES ({}, {}, {}, {}, {}, {}, {})",
            quote_text(&pending.live),
            optional_literal(pending.filled.as_ref()),
            optional_literal(pending.retired.as_ref()),
            quote_text(&pending.tag),
            optional_literal(progress.as_ref()),
            optional_literal(registration.as_ref()),
            optional_literal(origin.as_ref())
        );
        let count = "UPDATE `_tagflow_meta` SET `next_retired` = `next_retired` + 1 WHERE `id` = 1";
        self.transaction(async |session| {
            session.execute(insert, None).await?;
            session.execute(count, None).await
        })
        .await
    }

    /// Step 3.
    async fn finish_rename(&mut self, pending: &Pending) -> Result<(), SinkError> {
        let zone = self.zone;
        self.transaction(async |session| {
            versions::end(session, &pending.tag, pending.retired.as_deref()).await?;
            if let Some(filled) = &pending.filled {
                versions::forget_table(session, filled).await?;
            } else {
                forget_tag(session, &pending.tag).await?;
            }
            if let Some(registration) = &pending.registration {
                write_registrations(session, std::slice::from_ref(registration), zone).await?;
            }
            if let Some(progress) = &pending.progress {
                write_progress(session, &[(progress, &pending.live)], zone).await?;
            }
            if let (Some(progress), Some(registration), Some(origin)) =
                (&pending.progress, &pending.registration, &pending.origin)
            {
                versions::begin(session, progress, registration, origin).await?;
            }
            drop_pending(session, &pending.live).await
        })
        .await
    }

    /// Ends what a crash or a lost connection left half done.
    pub(super) async fn finish_renames(&mut self) -> Result<(), SinkError> {
        let session = self.session().await?;
        let rows = session
            .texts(
                "SELECT `live`, `filled`, `retired`, `tag`, `progress`, `registration`, `origin` FROM `_tagflow_pending`",
            )
            .await?;
        for row in rows {
            let pending = pending_from(row);
            let session = self.session().await?;
            let renamed_away = pending.filled.as_ref().unwrap_or(&pending.live);
            if table_exists(session, renamed_away).await? {
                self.transaction(async |session| drop_pending(session, &pending.live).await).await?;
            } else {
                self.finish_rename(&pending).await?;
            }
        }
        Ok(())
    }

    fn written<T: Serialize>(&self, told: Option<&T>) -> Result<Option<String>, SinkError> {
        let text = told.map(serde_json::to_string).transpose();
        text.map_err(|error| self.server.setup(format!("_tagflow_pending cannot be written: {error}")))
    }

    async fn next_retired_name(&mut self, tag: &str) -> Result<String, SinkError> {
        let server = self.server.clone();
        let row = self.session().await?.row("SELECT `next_retired` FROM `_tagflow_meta` WHERE `id` = 1").await?;
        Ok(retired_table(tag, number(&row, 0, &server)?))
    }
}

fn pending_from(row: Vec<Option<String>>) -> Pending {
    let mut row = row.into_iter();
    let mut next = || row.next().flatten();
    let (live, filled, retired, tag) = (next(), next(), next(), next());
    let tag = tag.unwrap_or_default();
    Pending {
        progress: read("progress", next(), &tag),
        registration: read("registration", next(), &tag),
        origin: read("origin", next(), &tag),
        live: live.unwrap_or_default(),
        filled,
        retired,
        tag,
    }
}

/// What a cell tells. One that cannot be made out must not keep the store closed for ever: without progress the tag is filled
/// again, without the rest less is told of it until then.
fn read<T: DeserializeOwned>(column: &str, text: Option<String>, tag: &str) -> Option<T> {
    let read = text.map(|text| serde_json::from_str(&text)).transpose();
    read.unwrap_or_else(|error| {
        error!(tag, column, %error, "_tagflow_pending cannot be made out; what it tells there is lost");
        None
    })
}

async fn table_exists(session: &mut Session, table: &str) -> Result<bool, SinkError> {
    let sql = format!(
        "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
        quote_text(table)
    );
    Ok(!session.row(&sql).await?.is_empty())
}

async fn drop_pending(session: &mut Session, live: &str) -> Result<(), SinkError> {
    session.execute(format!("DELETE FROM `_tagflow_pending` WHERE `live` = {}", quote_text(live)), None).await
}

async fn forget_tag(session: &mut Session, tag: &str) -> Result<(), SinkError> {
    for table in ["_tagflow_tags", "_tagflow_columns", "_tagflow_progress"] {
        session.execute(format!("DELETE FROM `{table}` WHERE `tag` = {}", quote_text(tag)), None).await?;
    }
    Ok(())
}

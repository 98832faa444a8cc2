//! MySQL and MariaDB: a table a tag, rows and progress in one transaction, fenced by a writer generation.
//!
//! Enters: what [`Sink`] takes. Leaves: committed rows. Run against MariaDB 10.11; the SQL keeps to what
//! MySQL 5.7, MySQL 8 and MariaDB from 10.5 on share.
//!
//! **Fence.** Every transaction first locks the row of `_tagflow_meta` and compares its generation. A newer writer
//! cannot claim the store in the middle of it, and a reconnected writer waits there for the end of its own lost transaction.
//! **Lost COMMIT.** When the connection goes while a COMMIT is under way, the next commit asks the progress rows:
//! a table that is already at that epoch is not written again.
//! **Renames** are not part of transactions: see [`swap`].

mod encode;
mod layout;
mod lease;
mod meta;
mod server;
mod shown;
pub mod swap;
mod try_out;
mod versions;
mod write;

use std::collections::BTreeMap;
use std::ops::AsyncFnOnce;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use chrono_tz::Tz;
use tokio::runtime::Runtime;

use self::encode::{quote_name, quote_optional, quote_text};
use self::lease::{Keeper, Lease};
use self::meta::{committed_progress, names, write_progress, write_registrations};
use self::server::{Abilities, Server, Session};
pub use self::try_out::try_out;
use super::cells::wall_time_text;
use super::keys::{KeyLimit, fit_keys};
use super::lease::{Claim, Opened};
use super::read_back::{RawCell, table_from_cells, text_row, value_count};
use super::registry::{self, COLUMN_COLUMNS, TAG_COLUMNS, is_live};
use super::types::StoreType;
use super::versions::{Origin, Version};
use super::{
    CommitStats, Keep, Shown, Sink, SinkColumn, SinkError, TagChanges, TagProgress, TagRegistration, TagTable, TextRow,
};
use crate::config::MysqlAddress;
use crate::crash_point::crash_point;

/// Tag tables in MySQL or MariaDB. Blocking: not to be used (or dropped) on a thread of an async runtime.
pub struct MysqlSink {
    runtime: Runtime,
    store: Store,
}

/// Everything but the runtime, so that its futures can borrow it.
struct Store {
    server: Arc<Server>,
    session: Option<Session>,
    generation: Option<u64>,
    lease: Option<Lease>,
    /// True when a COMMIT was sent and its answer was lost.
    uncertain: bool,
    /// The last epoch that the database has confirmed, by tag and table.
    confirmed: BTreeMap<(String, String), u64>,
    bulk_load: bool,
    /// True while the named lock is held: a connection lost then is not replaced, since the lock went with it.
    holds_lock: bool,
    zone: Tz,
}

impl MysqlSink {
    /// A store that is not yet connected. DATETIME columns will be wall time of `timezone`.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(address: &MysqlAddress, timezone: Tz) -> Result<MysqlSink, SinkError> {
        let server = Arc::new(Server::parse(address)?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| server.setup(format!("no thread for the connection: {error}")))?;
        let store = Store {
            server,
            session: None,
            generation: None,
            lease: None,
            uncertain: false,
            confirmed: BTreeMap::new(),
            bulk_load: true,
            holds_lock: false,
            zone: timezone,
        };
        Ok(MysqlSink { runtime, store })
    }

    /// Never use LOAD DATA LOCAL, even where the server allows it.
    #[must_use]
    pub fn without_bulk_load(mut self) -> MysqlSink {
        self.store.bulk_load = false;
        self
    }

    /// Runs a call that may take long, with the lease renewed beside it.
    fn run<T>(&mut self, call: impl AsyncFnOnce(&mut Store) -> Result<T, SinkError>) -> Result<T, SinkError> {
        let lease = self.store.lease.clone();
        let mut keeper = lease.map(|lease| Keeper::new(Arc::clone(&self.store.server), lease));
        self.runtime.block_on(async {
            let call = call(&mut self.store);
            let Some(keeper) = &mut keeper else { return call.await };
            let outcome = tokio::select! {
                biased;
                outcome = call => outcome,
                never = keeper.keep() => match never {},
            };
            keeper.close().await;
            outcome
        })
    }

    /// True when large batches go by LOAD DATA LOCAL; false before [`Sink::open`].
    pub fn bulk_loads(&self) -> bool {
        self.store.session.as_ref().is_some_and(|session| session.abilities.local_infile)
    }
}

impl Drop for MysqlSink {
    fn drop(&mut self) {
        if let Some(session) = self.store.session.take()
            && !std::thread::panicking()
        {
            self.runtime.block_on(session.close());
        }
    }
}

impl Sink for MysqlSink {
    fn open(&mut self, claim: &Claim) -> Result<Opened, SinkError> {
        self.runtime.block_on(self.store.open(claim))
    }

    fn renew(&mut self) -> Result<(), SinkError> {
        self.runtime.block_on(self.store.renew_lease())
    }

    fn release(&mut self) -> Result<(), SinkError> {
        self.runtime.block_on(self.store.give_lease_back())
    }

    fn progress(&mut self) -> Result<Vec<TagProgress>, SinkError> {
        self.run(async |store| store.progress().await)
    }

    fn create_table(&mut self, table: &TagTable) -> Result<(), SinkError> {
        self.store.confirmed.retain(|(_, confirmed), _| *confirmed != table.table);
        self.run(async |store| store.create_table(table).await)
    }

    fn table_matches(&mut self, table: &TagTable) -> Result<bool, SinkError> {
        self.runtime.block_on(self.store.table_matches(table))
    }

    fn commit(&mut self, changes: &[TagChanges]) -> Result<CommitStats, SinkError> {
        self.run(async |store| store.commit(changes).await)
    }

    fn swap_table(
        &mut self,
        filled: &str,
        live: &str,
        progress: &TagProgress,
        registration: &TagRegistration,
        origin: &Origin,
    ) -> Result<(), SinkError> {
        self.store.confirmed.retain(|(_, table), _| table != filled && table != live);
        self.run(async |store| store.swap_table(filled, live, progress, registration, origin).await)?;
        self.store.confirmed.insert((progress.tag.clone(), live.to_string()), progress.epoch);
        Ok(())
    }

    fn retire_table(&mut self, tag: &str) -> Result<(), SinkError> {
        self.store.confirmed.retain(|(confirmed, _), _| confirmed != tag);
        self.run(async |store| store.retire_table(tag).await)
    }

    fn versions_aside(&mut self) -> Result<Vec<(String, TagProgress)>, SinkError> {
        self.run(async |store| store.versions_aside().await)
    }

    fn versions(&mut self) -> Result<Vec<Version>, SinkError> {
        self.run(async |store| store.versions().await)
    }

    fn give_version_up(&mut self, tag: &str, version: u64, reason: &str) -> Result<(), SinkError> {
        self.run(async |store| store.give_version_up(tag, version, reason).await)
    }

    fn drop_retired(&mut self, grace: Duration) -> Result<Vec<String>, SinkError> {
        self.run(async |store| store.drop_retired(grace).await)
    }

    fn register(&mut self, registrations: &[TagRegistration]) -> Result<(), SinkError> {
        self.run(async |store| store.register(registrations).await)
    }

    fn value_counts(&mut self, table: &TagTable, column: &SinkColumn) -> Result<Vec<(Option<String>, u64)>, SinkError> {
        self.run(async |store| store.value_counts(table, column).await)
    }

    fn rows_of(&mut self, table: &TagTable, key: &str) -> Result<Vec<TextRow>, SinkError> {
        self.runtime.block_on(self.store.rows_of(table, key))
    }

    fn first_rows(&mut self, table: &TagTable, most: usize) -> Result<Vec<TextRow>, SinkError> {
        self.runtime.block_on(self.store.text_rows(table, &format!(" LIMIT {most}")))
    }

    fn registrations(&mut self) -> Result<Vec<TagRegistration>, SinkError> {
        self.runtime.block_on(self.store.registrations())
    }

    fn read_shown(&mut self, table: &TagTable, keep: Keep<'_>) -> Result<Option<Shown>, SinkError> {
        self.run(async |store| store.read_shown(table, keep).await)
    }

    fn read_table(&mut self, table: &TagTable) -> Result<RecordBatch, SinkError> {
        self.run(async |store| store.read_table(table).await)
    }

    fn column_types(&mut self, table: &TagTable) -> Result<Vec<String>, SinkError> {
        let abilities = self.runtime.block_on(self.store.session())?.abilities.clone();
        let declared = layout::declare(table, &abilities)?;
        Ok(declared.into_iter().map(|column| column.sql_type.to_uppercase()).collect())
    }
}

impl Store {
    /// The connection, made anew when the last one is gone.
    async fn session(&mut self) -> Result<&mut Session, SinkError> {
        if let Some(session) = &mut self.session
            && !session.is_alive().await
        {
            self.session = None;
        }
        if self.session.is_none() {
            if self.holds_lock {
                return Err(self.server.unavailable("the connection was lost while tables were changed"));
            }
            let mut session = self.server.connect().await?;
            session.abilities.local_infile &= self.bulk_load;
            if let Some(lease) = &self.lease {
                session.execute(lease.session_setup(), None).await?;
            }
            self.session = Some(session);
        }
        Ok(self.session.as_mut().expect("connected above"))
    }

    fn generation(&self) -> Result<u64, SinkError> {
        self.generation.ok_or_else(|| self.server.setup("the store was not opened for writing"))
    }

    async fn open(&mut self, claim: &Claim) -> Result<Opened, SinkError> {
        // Looked at without a lock first: whoever waits for the lease must not be in its holder's way.
        lease::look(self.session().await?, claim).await?;
        self.locked(async |store| {
            store.make_meta_tables().await?;
            let opened = store.take_lease(claim).await?;
            store.uncertain = false;
            store.finish_renames().await?;
            Ok(opened)
        })
        .await
    }

    /// Runs `body` under the store's named lock, which orders DDL between daemons: DDL cannot be fenced by a transaction.
    /// The server gives the lock back when the connection ends.
    async fn locked<T>(&mut self, body: impl AsyncFnOnce(&mut Store) -> Result<T, SinkError>) -> Result<T, SinkError> {
        const NAME: &str = "CONCAT('tagflow:', SHA1(DATABASE()))";
        let session = self.session().await?;
        let got = session.row(&format!("SELECT GET_LOCK({NAME}, 10)")).await?;
        if got.first().and_then(Option::as_deref) != Some("1") {
            return Err(self.server.unavailable("another tagflow daemon is changing tables; waited 10 s"));
        }
        self.holds_lock = true;
        let result = body(self).await;
        self.holds_lock = false;
        self.settle(result.is_err()).await;
        if let Some(session) = &mut self.session
            && session.execute(format!("DO RELEASE_LOCK({NAME})"), None).await.is_err()
        {
            self.session = None;
        }
        result
    }

    /// Under the lock, and only while no newer writer has claimed the store.
    async fn exclusive<T>(
        &mut self,
        body: impl AsyncFnOnce(&mut Store) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        let generation = self.generation()?;
        self.locked(async |store| {
            check_generation(store.session().await?, generation, "").await?;
            body(store).await
        })
        .await
    }

    /// One fenced transaction.
    async fn transaction<T>(
        &mut self,
        body: impl AsyncFnOnce(&mut Session) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        let generation = self.generation()?;
        let session = self.session().await?;
        let result = async {
            session.execute("START TRANSACTION", None).await?;
            check_generation(session, generation, " FOR UPDATE").await?;
            body(session).await
        }
        .await;
        self.settle(result.is_err()).await;
        let value = result?;
        let session = self.session.as_mut().ok_or_else(|| self.server.unavailable("the connection was lost"))?;
        if let Err(error) = session.execute("COMMIT", None).await {
            self.uncertain = true;
            self.session = None;
            return Err(match error {
                SinkError::Unavailable { .. } => error,
                other => self.server.unavailable(format!("COMMIT: {other}")),
            });
        }
        Ok(value)
    }

    /// After an error nothing of a transaction may stay open: rolls back, or lets the connection go.
    async fn settle(&mut self, failed: bool) {
        if let Some(session) = &mut self.session
            && (session.broken || (failed && session.execute("ROLLBACK", None).await.is_err()))
        {
            self.session = None;
        }
    }

    async fn commit(&mut self, changes: &[TagChanges]) -> Result<CommitStats, SinkError> {
        let (zone, uncertain) = (self.zone, self.uncertain);
        let confirmed = self.confirmed.clone();
        let keys = changes.iter().map(|change| (change.progress.tag.clone(), change.table.table.clone()));
        let keys: Vec<(String, String)> = keys.collect();
        let stats = self
            .transaction(async |session| {
                crash_point("commit.begun");
                let committed = committed_progress(session).await?;
                let mut stats = CommitStats::default();
                let mut written = Vec::new();
                for (change, key) in changes.iter().zip(&keys) {
                    let there = committed.get(key);
                    // Changes only mean something over the rows that they were made for.
                    if confirmed.get(key).is_some_and(|epoch| there.is_none_or(|there| there.epoch < *epoch)) {
                        return Err(SinkError::Table {
                            table: change.table.table.clone(),
                            message:
                                "the database is older than what it had confirmed (a backup, or a replica that took \
                                      over); the table has to be filled again"
                                    .to_string(),
                        });
                    }
                    let is_done = |there: &TagProgress| {
                        there.fingerprint == change.progress.fingerprint && there.epoch >= change.progress.epoch
                    };
                    if uncertain && there.is_some_and(is_done) {
                        stats.upserted += change.upserts.num_rows() as u64;
                        stats.deleted += change.deletes.num_rows() as u64;
                        continue;
                    }
                    write_changes(session, change, zone, &mut stats).await?;
                    crash_point("commit.rows");
                    written.push((&change.progress, change.table.table.as_str()));
                }
                write_progress(session, &written, zone).await?;
                crash_point("commit.progress");
                Ok(stats)
            })
            .await?;
        crash_point("commit.committed");
        self.uncertain = false;
        self.confirmed.extend(keys.into_iter().zip(changes.iter().map(|change| change.progress.epoch)));
        Ok(stats)
    }

    async fn progress(&mut self) -> Result<Vec<TagProgress>, SinkError> {
        let session = self.session().await?;
        let progress = committed_progress(session).await?;
        let live = progress.into_iter().filter(|((_, table), progress)| is_live(progress, table));
        Ok(live.map(|(_, progress)| progress).collect())
    }

    async fn create_table(&mut self, table: &TagTable) -> Result<(), SinkError> {
        self.exclusive(async |store| {
            // A rename that is not finished is told from one that never was by the names that are there.
            store.finish_renames().await?;
            let session = store.session().await?;
            let create = layout::create_table(table, &session.abilities)?;
            let name = Some(table.table.as_str());
            let forget = format!("DELETE FROM `_tagflow_progress` WHERE `table_name` = {}", quote_text(&table.table));
            // The progress first: rows without progress are filled again, progress without rows would be believed.
            session.execute(forget, None).await?;
            session.execute(format!("DROP TABLE IF EXISTS {}", quote_name(&table.table)), name).await?;
            session.execute(create, name).await
        })
        .await
    }

    async fn table_matches(&mut self, table: &TagTable) -> Result<bool, SinkError> {
        let session = self.session().await?;
        let declared = layout::declare(table, &session.abilities)?;
        let there = session
            .texts(&format!(
                "SELECT COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME, COLUMN_KEY, IS_NULLABLE \
                 FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} \
                 ORDER BY ORDINAL_POSITION",
                quote_text(&table.table)
            ))
            .await?;
        let mut there: Vec<_> = there
            .into_iter()
            .map(|row| {
                let mut row = row.into_iter();
                let name = row.next().flatten().unwrap_or_default();
                let column_type = layout::without_display_width(&row.next().flatten().unwrap_or_default());
                let collation = row.next().flatten();
                let is_key = row.next().flatten().as_deref() == Some("PRI");
                let nullable = row.next().flatten().as_deref() == Some("YES");
                (name, column_type, collation, is_key, nullable)
            })
            .collect();
        let updated_at = ("_updated_at".to_string(), "datetime(3)".to_string(), None, false, false);
        if there.pop() != Some(updated_at) {
            return Ok(false);
        }
        let wanted = declared.into_iter().map(|column| {
            let column_type = layout::without_display_width(&column.sql_type);
            (column.name, column_type, column.collation, column.is_key, !column.is_key)
        });
        Ok(there.into_iter().eq(wanted))
    }

    async fn register(&mut self, registrations: &[TagRegistration]) -> Result<(), SinkError> {
        let zone = self.zone;
        self.transaction(async |session| write_registrations(session, registrations, zone).await).await
    }

    async fn registrations(&mut self) -> Result<Vec<TagRegistration>, SinkError> {
        let zone = self.zone;
        let session = self.session().await?;
        let tags = format!("SELECT {} FROM `_tagflow_tags` ORDER BY `tag`", names(&TAG_COLUMNS));
        let tags = session.texts(&tags).await?;
        let columns = format!("SELECT {} FROM `_tagflow_columns` ORDER BY `tag`, `position`", names(&COLUMN_COLUMNS));
        let columns = session.texts(&columns).await?;
        registry::registrations_from(tags, columns, zone).map_err(|message| self.server.setup(message))
    }

    async fn rows_of(&mut self, table: &TagTable, key: &str) -> Result<Vec<TextRow>, SinkError> {
        let Some(first) = table.key.first() else {
            return Ok(Vec::new());
        };
        // A number is compared as a number: MySQL would take the text 'abc' for 0.
        let literal = match StoreType::of(&first.data_type) {
            Ok(StoreType::Int { .. }) => match key.trim().parse::<i128>() {
                Ok(number) => number.to_string(),
                Err(_) => return Ok(Vec::new()),
            },
            Ok(StoreType::Boolean) => if key == "true" || key == "1" { "1" } else { "0" }.to_string(),
            _ => quote_text(key),
        };
        self.text_rows(table, &format!(" WHERE {} = {literal}", quote_name(&first.name))).await
    }

    /// The rows that a clause behind the SELECT leaves.
    async fn text_rows(&mut self, table: &TagTable, clause: &str) -> Result<Vec<TextRow>, SinkError> {
        let sql = format!("{}{clause}", select_of(table));
        let rows = self.session().await?.rows(sql, Some(&table.table)).await?;
        Ok(rows.into_iter().map(|row| text_row(table, row)).collect())
    }

    async fn value_counts(
        &mut self,
        table: &TagTable,
        column: &SinkColumn,
    ) -> Result<Vec<(Option<String>, u64)>, SinkError> {
        let sql = registry::value_counts_sql(&quote_name(&table.table), &quote_name(&column.name));
        let rows = self.session().await?.rows(sql, Some(&table.table)).await?;
        Ok(rows.into_iter().map(|row| value_count(column, row)).collect())
    }

    async fn read_table(&mut self, table: &TagTable) -> Result<RecordBatch, SinkError> {
        let zone = self.zone;
        let rows = self.session().await?.rows(select_of(table), Some(&table.table)).await?;
        let mut columns: Vec<Vec<RawCell>> =
            vec![Vec::with_capacity(rows.len()); table.key.len() + table.columns.len()];
        for row in rows {
            for (column, cell) in columns.iter_mut().zip(row) {
                column.push(cell);
            }
        }
        table_from_cells(table, columns, zone)
            .map_err(|message| SinkError::Table { table: table.table.clone(), message })
    }
}

async fn check_generation(session: &mut Session, generation: u64, lock: &str) -> Result<(), SinkError> {
    let row = session.row(&format!("SELECT `generation` FROM `_tagflow_meta` WHERE `id` = 1{lock}")).await?;
    let server = session.server().clone();
    let newest = number(&row, 0, &server)?;
    if newest == generation {
        return Ok(());
    }
    Err(SinkError::Fenced { store: server.name.clone(), generation: newest })
}

async fn write_changes(
    session: &mut Session,
    change: &TagChanges,
    zone: Tz,
    stats: &mut CommitStats,
) -> Result<(), SinkError> {
    let table = &change.table;
    let limits = key_limits(table, &session.abilities)?;
    let refused =
        |error: arrow::error::ArrowError| SinkError::Table { table: table.table.clone(), message: error.to_string() };
    // A key that was refused when it came is not there to be deleted.
    let deletes = fit_keys(&change.deletes, &limits, zone).map_err(refused)?;
    let mut upserts = fit_keys(&change.upserts, &limits, zone).map_err(refused)?;
    stats.count_rejected(&table.table, &mut upserts);
    write::delete(session, table, &deletes.batch, zone).await?;
    let updated_at = wall_time_text(change.progress.clock, zone);
    stats.nulled += write::upsert(session, table, &upserts.batch, &updated_at, zone).await?;
    stats.upserted += upserts.batch.num_rows() as u64;
    stats.deleted += deletes.batch.num_rows() as u64;
    Ok(())
}

fn key_limits(table: &TagTable, abilities: &Abilities) -> Result<Vec<KeyLimit>, SinkError> {
    let declared = layout::declare(table, abilities)?;
    Ok(declared.into_iter().filter(|column| column.is_key).map(|column| column.limit).collect())
}

fn select_of(table: &TagTable) -> String {
    let columns: Vec<String> = table.key.iter().chain(&table.columns).map(|column| quote_name(&column.name)).collect();
    format!("SELECT {} FROM {}", columns.join(", "), quote_name(&table.table))
}

fn number(row: &[Option<String>], index: usize, server: &Server) -> Result<u64, SinkError> {
    let text = row.get(index).and_then(Option::as_deref);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        server.setup("the row of _tagflow_meta is gone; a database whose _tagflow_* tables were edited cannot be used")
    })
}

fn optional_literal(text: Option<&String>) -> String {
    quote_optional(text.map(String::as_str))
}

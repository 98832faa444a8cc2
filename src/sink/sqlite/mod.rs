//! SQLite: the same tables in one file, for the demo, tests and small projects.
//!
//! Enters: what [`Sink`] takes. Leaves: committed rows. Everything, renames included, is one transaction; the writer
//! generation is compared in it as in MySQL. The lease is a lock on `<file>.lock`: a SQLite file is of one machine, whose
//! system gives the lock back when a process ends.
//!
//! SQLite has no exact numbers, dates or unsigned 64-bit numbers: DECIMAL is TEXT with all digits of its scale
//! (`ORDER BY CAST(x AS REAL)` sorts it), dates and times are ISO text, and numbers above 2^63-1 are TEXT in a column
//! without affinity. Text compares by bytes (`COLLATE BINARY`), so keys need no length.

mod layout;
mod meta;
mod versions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::RecordBatch;
use chrono_tz::Tz;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params_from_iter};

use self::layout::quote_name;
use self::meta::{already_at, rename, set_aside, table_exists, write_progress, write_registration};
use super::cells::{Cell, CellReader, wall_time_text};
use super::keys::{KeyLimit, fit_keys};
use super::lease::{Claim, Ends, Holder, Opened, Owner, random_name};
use super::read_back::{KeptRows, RawCell, table_from_cells, text_row, value_count};
use super::registry::{self, COLUMN_COLUMNS, PROGRESS_COLUMNS, TAG_COLUMNS, Texts, is_live};
use super::versions::{Origin, VERSION_COLUMNS, Version, is_version_name, versions_from};
use super::{
    CommitStats, Keep, Shown, Sink, SinkColumn, SinkError, TagChanges, TagProgress, TagRegistration, TagTable, TextRow,
};
use crate::file_lock::{self, Asked, FileLock};

/// Tag tables in a SQLite file.
pub struct SqliteSink {
    path: PathBuf,
    connection: Option<Connection>,
    generation: Option<u64>,
    /// While this is the writer, with the one before it.
    lock: Option<(FileLock, Option<Owner>)>,
    zone: Tz,
}

/// Names the store in errors.
struct Store<'a>(&'a Path);

impl Store<'_> {
    fn name(&self) -> String {
        format!("sqlite:{}", self.0.display())
    }

    fn setup(&self, message: impl Into<String>) -> SinkError {
        SinkError::Setup { store: self.name(), message: message.into() }
    }

    /// What an error means for the caller; `table` is the tag's table that was being used, if any.
    fn error<'t>(&self, table: impl Into<Option<&'t str>>) -> impl FnOnce(rusqlite::Error) -> SinkError {
        let store = self.name();
        let table = table.into().map(str::to_string);
        move |error| {
            let message = error.to_string();
            match error.sqlite_error_code() {
                Some(
                    ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::OutOfMemory
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::FileLockingProtocolFailed,
                ) => SinkError::Unavailable { store, message },
                Some(
                    ErrorCode::CannotOpen
                    | ErrorCode::NotADatabase
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::ReadOnly
                    | ErrorCode::PermissionDenied
                    | ErrorCode::AuthorizationForStatementDenied,
                ) => SinkError::Setup { store, message },
                _ => match table {
                    Some(table) => SinkError::Table { table, message },
                    None if message.contains("no such table") => SinkError::Unused { store, message },
                    None => SinkError::Setup { store, message },
                },
            }
        }
    }
}

impl SqliteSink {
    /// A store in that file, which is made by the first call. DATETIME columns will be wall time of `timezone`.
    pub fn new(path: &Path, timezone: Tz) -> SqliteSink {
        SqliteSink { path: path.to_path_buf(), connection: None, generation: None, lock: None, zone: timezone }
    }

    fn connect(&mut self) -> Result<&mut Connection, SinkError> {
        if self.connection.is_none() {
            let store = Store(&self.path);
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|error| store.setup(format!("cannot make the folder {}: {error}", folder.display())))?;
            }
            let connection = Connection::open(&self.path).map_err(store.error(None))?;
            connection.busy_timeout(Duration::from_secs(10)).map_err(store.error(None))?;
            // FULL: a power cut must not take back progress on which a checkpoint was built.
            // Legacy renames leave the views of other programs alone: they mean the tag, not the table that was its.
            connection
                .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA legacy_alter_table = ON;")
                .map_err(store.error(None))?;
            connection.set_prepared_statement_cache_capacity(256);
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("connected above"))
    }

    /// Takes the lock that says who writes.
    fn take_lock(&mut self, claim: &Claim) -> Result<Option<Owner>, SinkError> {
        if let Some((_, before)) = &self.lock {
            return Ok(before.clone());
        }
        let store = Store(&self.path);
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |error: std::io::Error| store.setup(format!("{}: {error}", path.display()));
        let me = claim.owner.to_text();
        let (lock, before) = match file_lock::ask(&path, &me).map_err(failed)? {
            Asked::Ours(lock, before) => (lock, Owner::from_text(&before)),
            Asked::Held(holder) => {
                let unknown = || Owner { id: String::new(), host: "this machine".to_string(), pid: 0 };
                let owner = Owner::from_text(&holder).unwrap_or_else(unknown);
                if claim.ends != Ends::Anybody {
                    let holder = Holder { owner, expires_at: None, left: None };
                    return Err(SinkError::Held { store: store.name(), holder });
                }
                (file_lock::replace(&path, &me).map_err(failed)?, Some(owner))
            }
        };
        self.lock = Some((lock, before.clone()));
        Ok(before)
    }

    /// One fenced transaction; an error rolls it back.
    fn transaction<T>(
        &mut self,
        body: impl FnOnce(&Transaction<'_>, &Store<'_>) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        let generation = self.generation;
        self.connect()?;
        let store = Store(&self.path);
        let connection = self.connection.as_mut().expect("connected above");
        let generation = generation.ok_or_else(|| store.setup("the store was not opened for writing"))?;
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store.error(None))?;
        let newest: u64 = transaction
            .query_row("SELECT generation FROM _tagflow_meta WHERE id = 1", [], |row| row.get(0))
            .map_err(store.error(None))?;
        if newest != generation {
            return Err(SinkError::Fenced { store: store.name(), generation: newest });
        }
        let value = body(&transaction, &store)?;
        transaction.commit().map_err(store.error(None))?;
        Ok(value)
    }

    /// Of every table, with its name.
    fn committed_progress(&mut self) -> Result<Vec<(String, TagProgress)>, SinkError> {
        let sql = format!("SELECT {} FROM _tagflow_progress ORDER BY tag, table_name", PROGRESS_COLUMNS.join(", "));
        let rows = self.texts(&sql)?.into_iter().map(registry::progress_from);
        rows.collect::<Result<_, _>>().map_err(|message| Store(&self.path).setup(message))
    }

    fn texts(&mut self, sql: &str) -> Result<Vec<Texts>, SinkError> {
        let connection = self.connect()?;
        let rows = read_rows(connection, sql, &[]);
        let rows = rows.map_err(Store(&self.path).error(None))?;
        Ok(rows.into_iter().map(texts).collect())
    }
}

impl Sink for SqliteSink {
    fn open(&mut self, claim: &Claim) -> Result<Opened, SinkError> {
        self.connect()?;
        let before = self.take_lock(claim)?;
        let store = Store(&self.path);
        let connection = self.connection.as_mut().expect("connected above");
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store.error(None))?;
        transaction.execute_batch(layout::META_TABLES).map_err(store.error(None))?;
        transaction
            .execute(
                "INSERT OR IGNORE INTO _tagflow_meta (id, layout, generation, next_retired) VALUES (1, ?1, 0, 1)",
                [registry::LAYOUT],
            )
            .map_err(store.error(None))?;
        let layout: u64 = transaction
            .query_row("SELECT layout FROM _tagflow_meta WHERE id = 1", [], |row| row.get(0))
            .map_err(store.error(None))?;
        if layout > registry::LAYOUT {
            return Err(store.setup("the _tagflow_* tables are those of a newer tagflow; install that one"));
        }
        if layout < registry::LAYOUT {
            for (_, add) in layout::LATER_COLUMNS.iter().filter(|(last, _)| layout <= *last) {
                transaction.execute_batch(add).map_err(store.error(None))?;
            }
            transaction
                .execute("UPDATE _tagflow_meta SET layout = ?1", [registry::LAYOUT])
                .map_err(store.error(None))?;
        }
        let (generation, name) = transaction
            .query_row(
                "UPDATE _tagflow_meta SET generation = generation + 1, store_id = COALESCE(store_id, ?1) WHERE id = 1 \
                 RETURNING generation, store_id",
                [random_name()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(store.error(None))?;
        transaction.commit().map_err(store.error(None))?;
        self.generation = Some(generation);
        Ok(Opened { generation, store: name, before })
    }

    fn renew(&mut self) -> Result<(), SinkError> {
        // The lock needs no renewal; a newer writer is told by an empty transaction.
        if self.generation.is_none() { Ok(()) } else { self.transaction(|_, _| Ok(())) }
    }

    fn release(&mut self) -> Result<(), SinkError> {
        self.lock = None;
        Ok(())
    }

    fn progress(&mut self) -> Result<Vec<TagProgress>, SinkError> {
        let committed = self.committed_progress()?.into_iter();
        Ok(committed.filter(|(table, progress)| is_live(progress, table)).map(|(_, progress)| progress).collect())
    }

    fn create_table(&mut self, table: &TagTable) -> Result<(), SinkError> {
        let create = layout::create_table(table)?;
        self.transaction(|transaction, store| {
            transaction
                .execute("DELETE FROM _tagflow_progress WHERE table_name = ?1", [&table.table])
                .map_err(store.error(None))?;
            let drop = format!("DROP TABLE IF EXISTS {}", quote_name(&table.table));
            transaction.execute(&drop, []).map_err(store.error(table.table.as_str()))?;
            transaction.execute(&create, []).map_err(store.error(table.table.as_str()))?;
            Ok(())
        })
    }

    fn table_matches(&mut self, table: &TagTable) -> Result<bool, SinkError> {
        let create = layout::create_table(table)?;
        let sql = format!(
            "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = {}",
            layout::quote_text(&table.table)
        );
        let there = self.texts(&sql)?.into_iter().flatten().flatten().next();
        // A rename rewrites the name in the statement, so only what follows it is compared.
        let shape = |sql: &str| sql.split_once('(').map(|(_, shape)| shape.to_string());
        Ok(there.is_some_and(|there| shape(&there) == shape(&create)))
    }

    fn commit(&mut self, changes: &[TagChanges]) -> Result<CommitStats, SinkError> {
        let zone = self.zone;
        self.transaction(|transaction, store| {
            let mut stats = CommitStats::default();
            for change in changes {
                write_changes(transaction, store, change, zone, &mut stats)?;
                write_progress(transaction, &change.progress, &change.table.table, zone).map_err(store.error(None))?;
            }
            Ok(stats)
        })
    }

    fn swap_table(
        &mut self,
        filled: &str,
        live: &str,
        progress: &TagProgress,
        registration: &TagRegistration,
        origin: &Origin,
    ) -> Result<(), SinkError> {
        let zone = self.zone;
        self.transaction(|transaction, store| {
            if !table_exists(transaction, filled).map_err(store.error(None))? {
                if already_at(transaction, live, progress).map_err(store.error(None))? {
                    return Ok(());
                }
                return Err(SinkError::Table {
                    table: filled.to_string(),
                    message: "the filled table is gone; it has to be filled again".to_string(),
                });
            }
            set_aside(transaction, live, &progress.tag).map_err(store.error(live))?;
            rename(transaction, filled, live).map_err(store.error(filled))?;
            versions::forget_table(transaction, filled).map_err(store.error(None))?;
            write_registration(transaction, registration, zone).map_err(store.error(None))?;
            write_progress(transaction, progress, live, zone).map_err(store.error(None))?;
            versions::begin(transaction, progress, registration, origin).map_err(store.error(None))
        })
    }

    fn retire_table(&mut self, tag: &str) -> Result<(), SinkError> {
        self.transaction(|transaction, store| {
            let shadow = quote_name(&super::shadow_table(tag));
            transaction.execute(&format!("DROP TABLE IF EXISTS {shadow}"), []).map_err(store.error(tag))?;
            set_aside(transaction, tag, tag).map_err(store.error(tag))?;
            for table in ["_tagflow_tags", "_tagflow_columns", "_tagflow_progress"] {
                let forget = format!("DELETE FROM {table} WHERE tag = ?1");
                transaction.execute(&forget, [tag]).map_err(store.error(None))?;
            }
            Ok(())
        })
    }

    fn versions_aside(&mut self) -> Result<Vec<(String, TagProgress)>, SinkError> {
        let committed = self.committed_progress()?.into_iter();
        Ok(committed.filter(|(_, progress)| is_version_name(&progress.tag)).collect())
    }

    fn versions(&mut self) -> Result<Vec<Version>, SinkError> {
        let sql = format!("SELECT {} FROM _tagflow_versions ORDER BY tag, period", VERSION_COLUMNS.join(", "));
        let rows = self.texts(&sql)?;
        versions_from(rows, self.zone).map_err(|message| Store(&self.path).setup(message))
    }

    fn give_version_up(&mut self, tag: &str, version: u64, reason: &str) -> Result<(), SinkError> {
        self.transaction(|transaction, store| {
            versions::give_up(transaction, tag, version, reason).map_err(store.error(None))
        })
    }

    fn drop_retired(&mut self, grace: Duration) -> Result<Vec<String>, SinkError> {
        self.transaction(|transaction, store| {
            let due = read_rows(
                transaction,
                "SELECT table_name FROM _tagflow_retired \
                 WHERE (julianday('now') - julianday(retired_at)) * 86400.0 >= ?1 ORDER BY table_name",
                &[Value::Real(grace.as_secs_f64())],
            );
            let due = due.map_err(store.error(None))?;
            let due: Vec<String> =
                due.into_iter().flatten().flatten().map(|name| String::from_utf8_lossy(&name).into_owned()).collect();
            for table in &due {
                let drop = format!("DROP TABLE IF EXISTS {}", quote_name(table));
                transaction.execute(&drop, []).map_err(store.error(table.as_str()))?;
                versions::forget_table(transaction, table).map_err(store.error(None))?;
            }
            Ok(due)
        })
    }

    fn register(&mut self, registrations: &[TagRegistration]) -> Result<(), SinkError> {
        let zone = self.zone;
        self.transaction(|transaction, store| {
            for registration in registrations {
                write_registration(transaction, registration, zone).map_err(store.error(None))?;
            }
            Ok(())
        })
    }

    fn rows_of(&mut self, table: &TagTable, key: &str) -> Result<Vec<TextRow>, SinkError> {
        let Some(first) = table.key.first() else {
            return Ok(Vec::new());
        };
        let sql = format!("{} WHERE {} = ?1", layout::select_of(table), quote_name(&first.name));
        let connection = self.connect()?;
        let rows = read_rows(connection, &sql, &[layout::key_value(first, key)]);
        let rows = rows.map_err(Store(&self.path).error(table.table.as_str()))?;
        Ok(rows.into_iter().map(|row| text_row(table, row)).collect())
    }

    fn first_rows(&mut self, table: &TagTable, most: usize) -> Result<Vec<TextRow>, SinkError> {
        let sql = format!("{} LIMIT {most}", layout::select_of(table));
        let rows = read_rows(self.connect()?, &sql, &[]).map_err(Store(&self.path).error(table.table.as_str()))?;
        Ok(rows.into_iter().map(|row| text_row(table, row)).collect())
    }

    fn value_counts(&mut self, table: &TagTable, column: &SinkColumn) -> Result<Vec<(Option<String>, u64)>, SinkError> {
        let sql = registry::value_counts_sql(&quote_name(&table.table), &quote_name(&column.name));
        let rows = read_rows(self.connect()?, &sql, &[]).map_err(Store(&self.path).error(table.table.as_str()))?;
        Ok(rows.into_iter().map(|row| value_count(column, row)).collect())
    }

    fn registrations(&mut self) -> Result<Vec<TagRegistration>, SinkError> {
        let zone = self.zone;
        let tags = self.texts(&format!("SELECT {} FROM _tagflow_tags ORDER BY tag", TAG_COLUMNS.join(", ")))?;
        let columns = format!("SELECT {} FROM _tagflow_columns ORDER BY tag, position", COLUMN_COLUMNS.join(", "));
        let columns = self.texts(&columns)?;
        registry::registrations_from(tags, columns, zone).map_err(|message| Store(&self.path).setup(message))
    }

    fn read_shown(&mut self, table: &TagTable, keep: Keep<'_>) -> Result<Option<Shown>, SinkError> {
        let (zone, path) = (self.zone, self.path.clone());
        let (store, name) = (Store(&path), table.table.as_str());
        let refused = |message: String| SinkError::Table { table: name.to_string(), message };
        // A transaction that reads sees one state from its first query on.
        let snapshot = self.connect()?.transaction().map_err(store.error(None))?;
        let sql = format!("SELECT {} FROM _tagflow_progress WHERE table_name = ?1", PROGRESS_COLUMNS.join(", "));
        let found = read_rows(&snapshot, &sql, &[Value::Text(name.to_string())]).map_err(store.error(None))?;
        let Some(found) = found.into_iter().next() else { return Ok(None) };
        let (_, progress) = registry::progress_from(texts(found)).map_err(|message| store.setup(message))?;
        let mut rows = KeptRows::new(table, zone, keep);
        let mut told = Ok(());
        each_row(&snapshot, &layout::select_of(table), &[], |row| {
            if told.is_ok() {
                told = rows.add(row);
            }
        })
        .map_err(store.error(name))?;
        let rows = told.and_then(|()| rows.finish()).map_err(refused)?;
        Ok(Some(Shown { progress, rows }))
    }

    fn read_table(&mut self, table: &TagTable) -> Result<RecordBatch, SinkError> {
        let zone = self.zone;
        let connection = self.connect()?;
        let rows = read_rows(connection, &layout::select_of(table), &[]);
        let rows = rows.map_err(Store(&self.path).error(table.table.as_str()))?;
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

    fn column_types(&mut self, table: &TagTable) -> Result<Vec<String>, SinkError> {
        layout::column_types(table)
    }
}

fn write_changes(
    transaction: &Transaction<'_>,
    store: &Store<'_>,
    change: &TagChanges,
    zone: Tz,
    stats: &mut CommitStats,
) -> Result<(), SinkError> {
    let table = &change.table;
    let refused =
        |error: arrow::error::ArrowError| SinkError::Table { table: table.table.clone(), message: error.to_string() };
    let limits = vec![KeyLimit::None; table.key.len()];
    let deletes = fit_keys(&change.deletes, &limits, zone).map_err(refused)?.batch;
    let mut upserts = fit_keys(&change.upserts, &limits, zone).map_err(refused)?;
    stats.count_rejected(&table.table, &mut upserts);
    let upserts = upserts.batch;

    let mut statement =
        transaction.prepare_cached(&layout::delete_of(table)).map_err(store.error(table.table.as_str()))?;
    let mut readers = readers_of(&deletes, zone).map_err(refused)?;
    for row in 0..deletes.num_rows() {
        for (index, reader) in readers.iter_mut().enumerate() {
            let value = sql_value(reader.cell(row), &mut stats.nulled);
            statement.raw_bind_parameter(index + 1, value).map_err(store.error(table.table.as_str()))?;
        }
        statement.raw_execute().map_err(store.error(table.table.as_str()))?;
    }

    let mut statement =
        transaction.prepare_cached(&layout::replace_of(table)).map_err(store.error(table.table.as_str()))?;
    let mut readers = readers_of(&upserts, zone).map_err(refused)?;
    let updated_at = wall_time_text(change.progress.clock, zone);
    for row in 0..upserts.num_rows() {
        for (index, reader) in readers.iter_mut().enumerate() {
            let value = sql_value(reader.cell(row), &mut stats.nulled);
            statement.raw_bind_parameter(index + 1, value).map_err(store.error(table.table.as_str()))?;
        }
        statement.raw_bind_parameter(readers.len() + 1, &updated_at).map_err(store.error(table.table.as_str()))?;
        statement.raw_execute().map_err(store.error(table.table.as_str()))?;
    }
    stats.upserted += upserts.num_rows() as u64;
    stats.deleted += deletes.num_rows() as u64;
    Ok(())
}

fn readers_of(batch: &RecordBatch, zone: Tz) -> Result<Vec<CellReader>, arrow::error::ArrowError> {
    batch.columns().iter().map(|column| CellReader::new(column, zone)).collect()
}

fn sql_value<'a>(cell: Cell<'a>, nulled: &mut u64) -> ToSqlOutput<'a> {
    let value = match cell {
        Cell::Null => ValueRef::Null,
        Cell::Unfit => {
            *nulled += 1;
            ValueRef::Null
        }
        Cell::Int(value) => ValueRef::Integer(value),
        Cell::UInt(value) => match i64::try_from(value) {
            Ok(value) => ValueRef::Integer(value),
            Err(_) => return ToSqlOutput::Owned(Value::Text(value.to_string())),
        },
        Cell::Real(value) => ValueRef::Real(value),
        Cell::Digits(text) | Cell::Moment(text) | Cell::Text(text) => ValueRef::Text(text.as_bytes()),
        Cell::Bytes(bytes) => ValueRef::Blob(bytes),
    };
    ToSqlOutput::Borrowed(value)
}

fn texts(row: Vec<RawCell>) -> Texts {
    row.into_iter().map(|cell| cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())).collect()
}

fn read_rows(connection: &Connection, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<RawCell>>, rusqlite::Error> {
    let mut rows = Vec::new();
    each_row(connection, sql, parameters, |row| rows.push(row))?;
    Ok(rows)
}

fn each_row(
    connection: &Connection,
    sql: &str,
    parameters: &[Value],
    mut take: impl FnMut(Vec<RawCell>),
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(sql)?;
    let width = statement.column_count();
    let mut rows = statement.query(params_from_iter(parameters))?;
    while let Some(row) = rows.next()? {
        let mut cells = Vec::with_capacity(width);
        for index in 0..width {
            cells.push(match row.get_ref(index)? {
                ValueRef::Null => None,
                ValueRef::Integer(value) => Some(value.to_string().into_bytes()),
                ValueRef::Real(value) => Some(format!("{value:e}").into_bytes()),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
            });
        }
        take(cells);
    }
    Ok(())
}

// The contract names this crate as the e2e tests see it.
#[cfg(test)]
extern crate self as tagflow;

#[cfg(test)]
#[path = "../../../tests/e2e/sink_contract.rs"]
mod contract;

#[cfg(test)]
mod tests;

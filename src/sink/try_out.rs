//! Whether a store takes tables: one of nobody else's is made, written, renamed and dropped.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{SinkError, mysql};
use crate::config::Store;

/// How long another writer is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// Why tags cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFault {
    /// It does not answer, or does not let us in.
    Away(String),
    /// A statement is refused.
    Refused {
        /// What it does, in words.
        statement: &'static str,
        /// What the store says.
        message: String,
    },
}

impl From<SinkError> for StoreFault {
    fn from(error: SinkError) -> Self {
        StoreFault::Away(error.to_string())
    }
}

/// Tries a store out; no tag's table is touched.
///
/// # Errors
/// What keeps tags from being stored.
pub fn try_store(store: &Store, root: &Path) -> Result<(), StoreFault> {
    let name = format!("_tagflow_try_{:016x}", rand::random::<u64>());
    match store {
        Store::Mysql(address) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| StoreFault::Away(error.to_string()))?;
            runtime.block_on(mysql::try_out(address, &name))
        }
        Store::Sqlite(file) => sqlite(&root.join(file), &name),
    }
}

fn sqlite(file: &Path, name: &str) -> Result<(), StoreFault> {
    let away = |error: &dyn std::fmt::Display| StoreFault::Away(format!("store {}: {error}", file.display()));
    if !file.exists() {
        // The daemon makes the file: a folder that takes another file takes this one.
        let beside = file.with_file_name(name);
        std::fs::write(&beside, "").and_then(|()| std::fs::remove_file(&beside)).map_err(|error| away(&error))?;
        return Ok(());
    }
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE);
    let connection = connection.map_err(|error| away(&error))?;
    connection.busy_timeout(BUSY).map_err(|error| away(&error))?;
    let tried = connection.execute_batch(&format!("BEGIN IMMEDIATE; CREATE TABLE {name} (id INTEGER); ROLLBACK"));
    tried.map_err(|error| StoreFault::Refused { statement: "make a table", message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_store_is_tried_without_leaving_anything_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Sqlite("tags.db".into());
        try_store(&store, folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let file = folder.path().join("tags.db");
        Connection::open(&file).unwrap().execute_batch("CREATE TABLE t (id INTEGER)").unwrap();
        try_store(&store, folder.path()).unwrap();
        let tables = Connection::open(&file).unwrap();
        let count = tables.query_row("SELECT COUNT(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count, 1);
        std::fs::write(&file, "no database at all, but long enough to be looked at as one").unwrap();
        assert!(matches!(try_store(&store, folder.path()), Err(StoreFault::Refused { .. })));
        assert!(matches!(try_store(&Store::Sqlite("gone/tags.db".into()), folder.path()), Err(StoreFault::Away(_))));
    }
}

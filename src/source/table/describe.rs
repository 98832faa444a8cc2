//! What a database declares of a table.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params};
use tokio::time::timeout;

use super::mysql::{BINARY, CONNECT_DEADLINE};
use crate::config::MysqlAddress;
use crate::mysql_options::mysql_options;

/// A table as information_schema has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedTable {
    /// Its columns in order.
    pub columns: Vec<DescribedColumn>,
    /// The columns of its primary key, else of its first unique index; empty for a table without one, or a view.
    pub key: Vec<String>,
    /// The first columns of its indices, for asking for what has changed.
    pub indexed: Vec<String>,
}

/// A column of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedColumn {
    /// Its name.
    pub name: String,
    /// Its type without sizes, in lower case.
    pub data_type: String,
    /// Its type as it was declared, in lower case.
    pub declared: String,
    /// NULL may be there.
    pub nullable: bool,
    /// What its author says of it.
    pub comment: String,
    /// The server writes the time of a change into it.
    pub is_touched: bool,
}

/// True for a type whose values are no text, and cannot be read.
pub fn is_binary(data_type: &str) -> bool {
    BINARY.contains(&data_type)
}

/// Asks the database; `table` may have the database's name before it.
///
/// # Errors
/// Why it cannot be told.
pub fn describe(address: &MysqlAddress, table: &str) -> Result<DescribedTable, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        match timeout(CONNECT_DEADLINE, ask(address, table)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", CONNECT_DEADLINE.as_secs())),
        }
    })
}

async fn ask(address: &MysqlAddress, table: &str) -> Result<DescribedTable, String> {
    let told = |error: mysql_async::Error| error.to_string();
    let mut conn = Conn::new(mysql_options(address)?).await.map_err(told)?;
    let (database, name) = match table.split_once('.') {
        Some((database, name)) => (Some(database.to_string()), name.to_string()),
        None => (None, table.to_string()),
    };
    let place = || Params::Positional(vec![database.clone().into(), name.clone().into()]);
    const PLACE: &str = "TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?";
    let columns = "SELECT COLUMN_NAME, LOWER(DATA_TYPE), LOWER(COLUMN_TYPE), IS_NULLABLE, COLUMN_COMMENT, LOWER(EXTRA) \
                   FROM information_schema.COLUMNS";
    let columns: Vec<(String, String, String, String, String, String)> =
        conn.exec(format!("{columns} WHERE {PLACE} ORDER BY ORDINAL_POSITION"), place()).await.map_err(told)?;
    if columns.is_empty() {
        return Err(format!("there is no table {table:?} that the connection's user may read"));
    }
    let indices = "SELECT INDEX_NAME, COLUMN_NAME, NON_UNIQUE + 0, SEQ_IN_INDEX + 0, NULLABLE \
                   FROM information_schema.STATISTICS";
    let order = "ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX";
    let indices: Vec<(String, String, i64, i64, Option<String>)> =
        conn.exec(format!("{indices} WHERE {PLACE} {order}"), place()).await.map_err(told)?;
    conn.disconnect().await.map_err(told)?;
    // Of columns that may be NULL an index is unique for the others alone.
    let may_be_null = |index: &str| {
        indices.iter().any(|(name, _, _, _, nullable)| name == index && nullable.as_deref() == Some("YES"))
    };
    let unique = indices.iter().find(|(name, _, non_unique, ..)| *non_unique == 0 && !may_be_null(name));
    let key = match unique {
        Some((unique, ..)) => {
            let parts = indices.iter().filter(|(name, ..)| name == unique);
            parts.map(|(_, column, ..)| column.clone()).collect()
        }
        None => Vec::new(),
    };
    let first = indices.iter().filter(|(_, _, _, place, _)| *place == 1);
    let columns = columns.into_iter().map(|(name, data_type, declared, nullable, comment, extra)| DescribedColumn {
        name,
        data_type,
        declared,
        nullable: nullable == "YES",
        comment,
        is_touched: extra.contains("on update"),
    });
    Ok(DescribedTable {
        columns: columns.collect(),
        key,
        indexed: first.map(|(_, column, ..)| column.clone()).collect(),
    })
}

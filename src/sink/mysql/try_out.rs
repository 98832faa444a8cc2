//! Whether a MySQL takes tables of ours.

use std::sync::Arc;

use super::encode::quote_name;
use super::server::Server;
use crate::config::MysqlAddress;
use crate::sink::StoreFault;

/// Makes a table of this name, writes it, renames it and drops it.
///
/// # Errors
/// What does not work first.
pub async fn try_out(address: &MysqlAddress, name: &str) -> Result<(), StoreFault> {
    let server = Arc::new(Server::parse(address)?);
    let mut session = server.connect().await?;
    let (table, renamed) = (quote_name(name), quote_name(&format!("{name}_b")));
    let statements = [
        ("make a table", format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY, n BIGINT)")),
        ("write rows", format!("INSERT INTO {table} VALUES (1, 1)")),
        ("change rows", format!("UPDATE {table} SET n = 2")),
        ("read rows", format!("SELECT COUNT(*) FROM {table}")),
        ("remove rows", format!("DELETE FROM {table}")),
        ("rename a table", format!("RENAME TABLE {table} TO {renamed}")),
        ("drop a table", format!("DROP TABLE {renamed}")),
    ];
    let mut tried = Ok(());
    for (statement, sql) in statements {
        if let Err(error) = session.execute(sql, None).await {
            tried = Err(StoreFault::Refused { statement, message: error.to_string() });
            // What cannot be dropped either stays: its name says whose it is.
            let _ = session.execute(format!("DROP TABLE IF EXISTS {table}, {renamed}"), None).await;
            break;
        }
    }
    session.close().await;
    tried
}

//! The server: connecting, what it can do, and what its errors mean.
//!
//! Enters: the store's URL. Leaves: a [`Session`] set up so that nothing is cut, guessed or waited for without end.
//! Never prints the password.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, InfileData, IoError, Opts, OptsBuilder, Value};
use tokio::time::timeout;

use super::encode::quote_name;
use crate::config::MysqlAddress;
use crate::mysql_options::mysql_options;
use crate::sink::SinkError;
use crate::sink::read_back::RawCell;

const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// A statement that takes longer is given up: a black-holed connection must not hold the daemon for ever.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(600);

/// Strict: a value that does not fit is an error, never a cut or a zero. `NO_BACKSLASH_ESCAPES` and `ANSI_QUOTES` must
/// stay out, the literals rely on it. The waits are short so that a refused lock comes back as an error that is tried again.
const SESSION_SETUP: [&str; 3] = [
    "SET NAMES utf8mb4",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,\
     ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO', autocommit = 1, sql_safe_updates = 0, \
     innodb_lock_wait_timeout = 5, lock_wait_timeout = 5, wait_timeout = 600, net_read_timeout = 60, \
     net_write_timeout = 60",
];

const TLS_HINT: &str = "[store] `ca` names the authority that the server's certificate must come from, and the url's host is \
     the one that it must be made out to";

/// How text keys are compared by bytes on this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyText {
    /// A NO PAD binary collation of utf8mb4.
    Collation(String),
    /// VARBINARY, where there is no such collation (MySQL 5.7).
    Bytes,
}

/// What the server can do.
#[derive(Debug, Clone)]
pub(super) struct Abilities {
    pub key_text: KeyText,
    /// Longest statement in bytes.
    pub max_packet: usize,
    /// True when LOAD DATA LOCAL is allowed.
    pub local_infile: bool,
}

/// One store's server, not connected.
#[derive(Debug)]
pub(super) struct Server {
    address: MysqlAddress,
    pub name: String,
    pub database: String,
}

/// One connection, set up.
pub(super) struct Session {
    conn: Conn,
    server: Arc<Server>,
    pub abilities: Abilities,
    /// True when the connection is not to be used any more.
    pub broken: bool,
}

impl Server {
    pub fn parse(address: &MysqlAddress) -> Result<Server, SinkError> {
        let setup = |store: &str, message: String| SinkError::Setup { store: store.to_string(), message };
        let opts = Opts::from_url(address.url.expose()).map_err(|error| {
            setup("mysql", format!("{error}; a store's url is mysql://user:password@host:port/database"))
        })?;
        let name = format!(
            "mysql://{}@{}:{}/{}",
            opts.user().unwrap_or_default(),
            opts.ip_or_hostname(),
            opts.tcp_port(),
            opts.db_name().unwrap_or_default()
        );
        let database = opts.db_name().unwrap_or_default().to_string();
        if database.is_empty() {
            return Err(setup(
                &name,
                "the url names no database: mysql://user:password@host:port/database".to_string(),
            ));
        }
        Ok(Server { address: address.clone(), name, database })
    }

    /// Connects and sets the session up; creates the database where it is missing and the account may.
    pub async fn connect(self: &Arc<Self>) -> Result<Session, SinkError> {
        let opts: OptsBuilder = mysql_options(&self.address).map_err(|message| self.setup(message))?;
        let conn = match self.connect_with(opts.clone().into()).await {
            Err(Error::Server(error)) if error.code == 1049 => {
                let without = opts.clone().db_name(None::<String>);
                let mut conn = self.connect_with(without.into()).await.map_err(|error| self.error(error, None))?;
                let create = format!(
                    "CREATE DATABASE IF NOT EXISTS {} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
                    quote_name(&self.database)
                );
                conn.query_drop(create).await.map_err(|error| self.error(error, None))?;
                self.connect_with(opts.into()).await
            }
            other => other,
        };
        let conn = conn.map_err(|error| self.error(error, None))?;
        let abilities = Abilities { key_text: KeyText::Bytes, max_packet: 1 << 20, local_infile: false };
        let mut session = Session { conn, server: self.clone(), abilities, broken: false };
        for statement in SESSION_SETUP {
            session.execute(statement, None).await?;
        }
        session.abilities = session.look_around().await?;
        Ok(session)
    }

    async fn connect_with(&self, opts: Opts) -> Result<Conn, Error> {
        match timeout(CONNECT_DEADLINE, Conn::new(opts)).await {
            Ok(conn) => conn,
            Err(_) => Err(Error::Io(IoError::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no answer within {} s", CONNECT_DEADLINE.as_secs()),
            )))),
        }
    }

    pub fn unavailable(&self, message: impl Into<String>) -> SinkError {
        SinkError::Unavailable { store: self.name.clone(), message: message.into() }
    }

    pub fn setup(&self, message: impl Into<String>) -> SinkError {
        SinkError::Setup { store: self.name.clone(), message: message.into() }
    }

    /// What an error of the driver means for the caller.
    pub fn error(&self, error: Error, table: Option<&str>) -> SinkError {
        let message = error.to_string();
        match (&error, table) {
            (Error::Server(server), Some(table)) if matches!(server.code, 1205 | 3572) => {
                SinkError::Busy { table: table.to_string(), message }
            }
            (Error::Server(server), _) if is_passing(server.code, &server.message) => self.unavailable(message),
            // Rights may be taken from one table alone.
            (Error::Server(server), table) if is_setup(server.code) && !(server.code == 1142 && table.is_some()) => {
                self.setup(message)
            }
            (Error::Server(server), Some(table)) => SinkError::Table {
                table: table.to_string(),
                message: match hint(server.code) {
                    Some(hint) => format!("{message}; {hint}"),
                    None => message,
                },
            },
            (Error::Server(server), None) if server.code == 1146 => {
                SinkError::Unused { store: self.name.clone(), message }
            }
            (Error::Server(_), None) => self.setup(message),
            (Error::Io(IoError::Tls(_)), _) => self.setup(format!("{message}; {TLS_HINT}")),
            (Error::Url(_), _) => self.setup(message),
            (
                Error::Driver(
                    DriverError::UnknownAuthPlugin { .. }
                    | DriverError::MysqlOldPasswordDisabled
                    | DriverError::CleartextPluginDisabled
                    | DriverError::NoClientSslFlagFromServer
                    | DriverError::NoKeyFound,
                ),
                _,
            ) => self.setup(message),
            _ => self.unavailable(message),
        }
    }
}

/// Away, busy, full, read-only, shutting down, chosen as the victim of a deadlock: the same may succeed later.
fn is_passing(code: u16, message: &str) -> bool {
    match code {
        // Errors of the storage engine and of proxies say little; a disk that is full is among them.
        3
        | 1026
        | 1030
        | 1105
        | 1135
        | 9001
        | 1020
        | 1021
        | 1037
        | 1038
        | 1040
        | 1041
        | 1042
        | 1043
        | 1047
        | 1053
        | 1077..=1080
        | 1114
        | 1129
        | 1152
        | 1156..=1161
        | 1180
        | 1181
        | 1184
        | 1189
        | 1190
        | 1203
        | 1205
        | 1206
        | 1213
        | 1226
        | 1317
        | 1412
        | 1615
        | 1637
        | 1792
        | 1836
        | 1927
        | 1969
        | 2006
        | 2013
        | 3024
        | 3100
        | 3101
        | 3572
        | 4031 => true,
        // Several options hide behind one code; only --read-only and its like pass.
        1290 => message.contains("read") && message.contains("only"),
        _ => false,
    }
}

fn is_setup(code: u16) -> bool {
    matches!(
        code,
        1044 | 1045 | 1046 | 1049 | 1102 | 1130 | 1142 | 1143 | 1193 | 1227 | 1251 | 1290 | 1370 | 1396 | 1665 | 1698
    )
}

fn hint(code: u16) -> Option<&'static str> {
    match code {
        1146 => Some("the table was dropped by someone else; it is filled again"),
        1054 | 1136 => Some("the table was altered by someone else; it is filled again"),
        1153 | 1301 => Some("raise the server's max_allowed_packet"),
        1118 => Some("the tag has too many columns for one row"),
        _ => None,
    }
}

impl Session {
    async fn look_around(&mut self) -> Result<Abilities, SinkError> {
        let row = self.row("SELECT @@max_allowed_packet, @@local_infile").await?;
        let number =
            |index: usize| row.get(index).and_then(|cell| cell.as_deref()).and_then(|text| text.parse::<usize>().ok());
        let max_packet = number(0).unwrap_or(1 << 20);
        let local_infile = number(1).unwrap_or(0) == 1;
        // Asked by name, not by version: forks count versions as they like.
        let collations = self
            .rows(
                "SELECT COLLATION_NAME FROM information_schema.COLLATIONS \
                 WHERE COLLATION_NAME IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin') ORDER BY COLLATION_NAME DESC",
                None,
            )
            .await?;
        let collation = collations.into_iter().next().and_then(|mut row| row.pop()).flatten();
        let key_text = match collation.map(|name| String::from_utf8_lossy(&name).into_owned()) {
            Some(name) => KeyText::Collation(name),
            None => KeyText::Bytes,
        };
        Ok(Abilities { key_text, max_packet, local_infile })
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// True when the connection still answers.
    pub async fn is_alive(&mut self) -> bool {
        !self.broken && matches!(timeout(CONNECT_DEADLINE, self.conn.ping()).await, Ok(Ok(())))
    }

    /// Runs one statement that returns no rows.
    pub async fn execute(&mut self, sql: impl AsRef<[u8]>, table: Option<&str>) -> Result<(), SinkError> {
        let result = timeout(STATEMENT_DEADLINE, self.conn.query_drop(sql.as_ref())).await;
        self.settle(result, table)
    }

    /// How many rows the last statement has changed.
    pub fn changed_rows(&self) -> u64 {
        self.conn.affected_rows()
    }

    /// Each row of a query in turn, as texts.
    pub async fn each_row(
        &mut self,
        sql: &str,
        table: &str,
        mut take: impl FnMut(Vec<RawCell>) -> Result<(), String>,
    ) -> Result<(), SinkError> {
        let mut refused = None;
        let result = timeout(STATEMENT_DEADLINE, async {
            let mut result = self.conn.query_iter(sql).await?;
            while let Some(row) = result.next().await? {
                if refused.is_none() {
                    refused = take(row.unwrap().into_iter().map(cell_of).collect()).err();
                }
            }
            Ok(())
        })
        .await;
        self.settle(result, Some(table))?;
        refused.map_or(Ok(()), |message| Err(SinkError::Table { table: table.to_string(), message }))
    }

    /// All rows of a query as texts.
    pub async fn rows(&mut self, sql: impl AsRef<[u8]>, table: Option<&str>) -> Result<Vec<Vec<RawCell>>, SinkError> {
        let sql = sql.as_ref();
        let result = timeout(STATEMENT_DEADLINE, async {
            let mut result = self.conn.query_iter(sql).await?;
            let mut rows = Vec::new();
            while let Some(row) = result.next().await? {
                rows.push(row.unwrap().into_iter().map(cell_of).collect());
            }
            Ok(rows)
        })
        .await;
        self.settle(result, table)
    }

    /// All rows of a query over the `_tagflow_*` tables.
    pub async fn texts(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, SinkError> {
        let rows = self.rows(sql, None).await?;
        let text = |cell: RawCell| cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(rows.into_iter().map(|row| row.into_iter().map(text).collect()).collect())
    }

    /// The first row of a query; empty when there is none.
    pub async fn row(&mut self, sql: &str) -> Result<Vec<Option<String>>, SinkError> {
        Ok(self.texts(sql).await?.into_iter().next().unwrap_or_default())
    }

    /// LOAD DATA LOCAL with `chunks` in place of the file; warnings are errors, since LOCAL turns
    /// errors into warnings on MySQL.
    pub async fn load(
        &mut self,
        sql: &str,
        chunks: impl Iterator<Item = Vec<u8>> + Send + Sync + 'static,
        table: &str,
    ) -> Result<(), SinkError> {
        self.conn.set_infile_handler(async move {
            let data: InfileData = futures::stream::iter(chunks).map(|chunk| Ok(chunk.into())).boxed();
            Ok(data)
        });
        let result = timeout(STATEMENT_DEADLINE, self.conn.query_drop(sql)).await;
        if let Ok(Err(Error::Server(error))) = &result
            && matches!(error.code, 1148 | 3948 | 4166)
        {
            // Switched off since the session began, or by a proxy in between: the next try goes by REPLACE.
            self.abilities.local_infile = false;
            return Err(self.server.unavailable(format!("LOAD DATA LOCAL is switched off: {}", error.message)));
        }
        self.settle(result, Some(table))?;
        self.refuse_warnings(table).await
    }

    /// Runs one statement that writes rows of a tag; warnings are errors.
    pub async fn write(&mut self, sql: &[u8], table: &str) -> Result<(), SinkError> {
        if sql.len() >= self.abilities.max_packet {
            // A connection keeps the limit that it began with; the next one may have a higher one.
            self.broken = true;
            let message = format!(
                "a row takes {} bytes, more than the server's max_allowed_packet of {}; raise it",
                sql.len(),
                self.abilities.max_packet
            );
            return Err(SinkError::Table { table: table.to_string(), message });
        }
        self.execute(sql, Some(table)).await?;
        self.refuse_warnings(table).await
    }

    /// A warning of a write means that a value was bent to fit, which happens when someone has altered the table.
    async fn refuse_warnings(&mut self, table: &str) -> Result<(), SinkError> {
        if self.conn.get_warnings() == 0 {
            return Ok(());
        }
        for row in self.texts("SHOW WARNINGS").await? {
            let code = row.get(1).and_then(|code| code.as_deref()).unwrap_or_default();
            // 1592: not safe for statement-based replication. It says nothing of the data.
            if code != "1592" {
                let text = row.get(2).and_then(Option::as_deref).unwrap_or_default();
                return Err(SinkError::Table { table: table.to_string(), message: format!("warning {code}: {text}") });
            }
        }
        Ok(())
    }

    /// Ends the connection, politely if it still can.
    pub async fn close(self) {
        if !self.broken {
            let _ = timeout(Duration::from_secs(2), self.conn.disconnect()).await;
        }
    }

    fn settle<T>(
        &mut self,
        result: Result<Result<T, Error>, tokio::time::error::Elapsed>,
        table: Option<&str>,
    ) -> Result<T, SinkError> {
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.broken |= match &error {
                    Error::Server(server) => matches!(server.code, 1053 | 1927 | 2006 | 2013 | 4031),
                    _ => true,
                };
                Err(self.server.error(error, table))
            }
            Err(_) => {
                self.broken = true;
                Err(self.server.unavailable(format!("no answer within {} s", STATEMENT_DEADLINE.as_secs())))
            }
        }
    }
}

fn cell_of(value: Value) -> RawCell {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(bytes),
        // The text protocol sends bytes only; should a driver parse them, their SQL text is the same.
        other => Some(other.as_sql(true).trim_matches('\'').as_bytes().to_vec()),
    }
}

//! A table of a MySQL or MariaDB: read as a whole in chunks by its key, and between, where a column says when a row was
//! written, the rows written since.
//!
//! A whole look is one transaction that sees one state of the table. A look at what was written since goes back a little
//! behind the newest row, for transactions that end late; what it misses all the same, and rows that were deleted, are
//! found by the next whole look. Values come as the server's text in a session in UTC: DATETIME is wall time and stays
//! so, TIMESTAMP is an instant and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row, Value};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::differ::{Differ, json_text};
use super::{Looked, Outside, Setback};
use crate::catalog::{Polls, Stream};
use crate::config::MysqlAddress;
use crate::diagnostic::nearest;
use crate::mysql_options::mysql_options;

pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
const STATEMENT_DEADLINE: Duration = Duration::from_secs(600);
/// Rows of a chunk.
const CHUNK: usize = 5000;
/// How far a poll goes back behind the newest row that is known, in seconds.
const OVERLAP: u32 = 10;
/// In UTC, so that an instant has one text; the modes are those that literals here rely on.
const SESSION: [&str; 3] = [
    "SET NAMES utf8mb4",
    "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES'",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
];
/// Types whose values are no text.
pub(super) const BINARY: [&str; 16] = [
    "bit",
    "binary",
    "varbinary",
    "tinyblob",
    "blob",
    "mediumblob",
    "longblob",
    "geometry",
    "point",
    "linestring",
    "polygon",
    "multipoint",
    "multilinestring",
    "multipolygon",
    "geometrycollection",
    "vector",
];
const NUMBERS: [&str; 9] = ["tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double", "year"];

pub(super) struct MysqlTable {
    address: MysqlAddress,
    stream: Arc<Stream>,
    polls: Option<Polls>,
    resync: Duration,
    runtime: Option<Runtime>,
    session: Option<Session>,
    whole_due: Instant,
    poll_due: Instant,
    /// When the newest row that is known was written, as the server writes it.
    newest: Option<String>,
}

/// A connection, and what it said of the table.
struct Session {
    conn: Conn,
    /// The table, quoted.
    table: String,
    columns: Vec<TableColumn>,
    /// Places of the key's columns among `columns`.
    key: Vec<usize>,
    /// The place of the column that says when a row was written.
    written: Option<usize>,
}

struct TableColumn {
    name: String,
    data_type: String,
}

impl MysqlTable {
    pub(super) fn new(address: &MysqlAddress, stream: &Arc<Stream>, polls: Option<&Polls>, resync: Duration) -> Self {
        let now = Instant::now();
        MysqlTable {
            address: address.clone(),
            stream: Arc::clone(stream),
            polls: polls.cloned(),
            resync,
            runtime: None,
            session: None,
            whole_due: now,
            poll_due: now,
            newest: None,
        }
    }

    async fn session(&mut self) -> Result<&mut Session, Setback> {
        if self.session.is_none() {
            let session = connect(&self.address, &self.stream, self.polls.as_ref()).await?;
            self.session = Some(session);
        }
        self.session.as_mut().ok_or(Setback::Stopped)
    }

    async fn whole(&mut self, differ: &mut Differ<'_>) -> Result<(), Setback> {
        let stream = Arc::clone(&self.stream);
        let session = self.session().await?;
        session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY", &stream).await?;
        differ.begin();
        let credible = session.credible(&stream).await?;
        let mut last: Option<Vec<Value>> = None;
        let mut newest = None;
        loop {
            let rows = session.rows(&session.chunk_after(last.as_deref()), &stream).await?;
            let count = rows.len();
            for row in rows {
                let values = row.unwrap();
                session.note(&values, &credible, &mut newest);
                differ.row(session.json(&values)?)?;
                last = Some(session.key.iter().map(|place| values[*place].clone()).collect());
            }
            if count < CHUNK {
                break;
            }
        }
        session.run("COMMIT", &stream).await?;
        self.newest = newest.or(self.newest.take());
        differ.end()
    }

    /// The rows written since.
    async fn written(&mut self, differ: &mut Differ<'_>) -> Result<(), Setback> {
        let stream = Arc::clone(&self.stream);
        let mut newest = self.newest.clone();
        let session = self.session().await?;
        let credible = session.credible(&stream).await?;
        let rows = session.rows(&session.written_since(newest.as_deref()), &stream).await?;
        for row in rows {
            let values = row.unwrap();
            session.note(&values, &credible, &mut newest);
            differ.row(session.json(&values)?)?;
        }
        self.newest = newest;
        Ok(())
    }
}

impl Outside for MysqlTable {
    fn look(&mut self, differ: &mut Differ<'_>) -> Result<Looked, Setback> {
        let now = Instant::now();
        let is_whole = now >= self.whole_due;
        if !is_whole && (self.polls.is_none() || now < self.poll_due) {
            return Ok(Looked::Waiting);
        }
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Setback::Trouble(error.to_string()))?,
        };
        let outcome = runtime.block_on(async {
            match is_whole {
                true => self.whole(differ).await,
                false => self.written(differ).await,
            }
        });
        if outcome.is_err() || self.polls.is_none() {
            // Also dropping a connection needs the runtime.
            let session = self.session.take();
            runtime.block_on(async { drop(session) });
        }
        self.runtime = Some(runtime);
        outcome?;
        if is_whole {
            self.whole_due = Instant::now() + self.resync;
        }
        if let Some(polls) = &self.polls {
            self.poll_due = Instant::now() + polls.every;
        }
        Ok(if is_whole { Looked::Whole } else { Looked::UpToDate })
    }
}

async fn connect(address: &MysqlAddress, stream: &Stream, polls: Option<&Polls>) -> Result<Session, Setback> {
    let told = |message: String| format!("connection {:?}: {message}", stream.connection);
    // A table that is not there, or not as it is declared, may be on its way: others make it anew every night.
    let setup = |message: String| Setback::Trouble(told(message));
    let opts = mysql_options(address).map_err(|message| Setback::Failed(told(message)))?;
    let conn = match timeout(CONNECT_DEADLINE, Conn::new(opts)).await {
        Ok(conn) => conn.map_err(|error| setback(stream, &error))?,
        Err(_) => {
            let seconds = CONNECT_DEADLINE.as_secs();
            return Err(Setback::Trouble(format!("connection {:?}: no answer within {seconds} s", stream.connection)));
        }
    };
    let (database, name) = match stream.topic.split_once('.') {
        Some((database, name)) => (Some(database), name),
        None => (None, stream.topic.as_str()),
    };
    let table = match database {
        Some(database) => format!("{}.{}", quoted(database), quoted(name)),
        None => quoted(name),
    };
    let mut session = Session { conn, table, columns: Vec::new(), key: Vec::new(), written: None };
    for statement in SESSION {
        session.run(statement, stream).await?;
    }
    let place = format!(
        "TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        database.map_or("DATABASE()".to_string(), literal),
        literal(name)
    );
    let columns = session
        .texts(
            &format!(
                "SELECT COLUMN_NAME, LOWER(DATA_TYPE) FROM information_schema.COLUMNS WHERE {place} ORDER BY ORDINAL_POSITION"
            ),
            stream,
        )
        .await?;
    if columns.is_empty() {
        let message = format!("there is no table {:?} that the connection's user may read", stream.topic);
        return Err(setup(message));
    }
    let columns: Vec<(String, String)> = columns
        .into_iter()
        .filter_map(|row| row.try_into().ok().map(|[name, data_type]: [String; 2]| (name, data_type)))
        .collect();
    session.columns = readable_columns(stream, polls, &columns).map_err(setup)?;
    let place_of = |session: &Session, name: &str| {
        session.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    };
    session.key = stream.key.iter().filter_map(|name| place_of(&session, name)).collect();
    session.written = polls.and_then(|polls| place_of(&session, &polls.column));
    check_key(&mut session, stream, &place).await?;
    Ok(session)
}

/// The columns that can be read, when all that are needed are among them.
fn readable_columns(
    stream: &Stream,
    polls: Option<&Polls>,
    columns: &[(String, String)],
) -> Result<Vec<TableColumn>, String> {
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let type_of = |wanted: &str| columns.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let missing = |wanted: &str| {
        let help = match nearest(wanted, names.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("it has {}", names.join(", ")),
        };
        format!("the table {:?} has no column {wanted:?}; {help}", stream.topic)
    };
    for column in &stream.columns {
        let wanted = column.path.first().map_or("", String::as_str);
        let (_, data_type) = type_of(wanted).ok_or_else(|| missing(wanted))?;
        if BINARY.contains(&data_type.as_str()) {
            return Err(format!(
                "the column {wanted:?} of the table {:?} is of type {data_type}, which is no text; read a view of the \
                 table that has HEX({wanted})",
                stream.topic
            ));
        }
    }
    if let Some(polls) = polls {
        let (_, data_type) = type_of(&polls.column).ok_or_else(|| missing(&polls.column))?;
        if !matches!(data_type.as_str(), "datetime" | "timestamp") {
            return Err(format!(
                "the column {:?} that tells changes is of type {data_type}: it must be a DATETIME or TIMESTAMP",
                polls.column
            ));
        }
    }
    let readable = columns.iter().filter(|(_, data_type)| !BINARY.contains(&data_type.as_str()));
    Ok(readable.map(|(name, data_type)| TableColumn { name: name.clone(), data_type: data_type.clone() }).collect())
}

/// Chunks go by the key: rows of one key in two chunks would be lost. Of a view nothing can be known.
async fn check_key(session: &mut Session, stream: &Stream, place: &str) -> Result<(), Setback> {
    let kinds =
        session.texts(&format!("SELECT TABLE_TYPE FROM information_schema.TABLES WHERE {place}"), stream).await?;
    if !kinds.iter().flatten().any(|kind| kind == "BASE TABLE") {
        return Ok(());
    }
    let parts = format!(
        "SELECT INDEX_NAME, LOWER(COLUMN_NAME) FROM information_schema.STATISTICS WHERE {place} AND NON_UNIQUE = 0"
    );
    let mut indices: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in session.texts(&parts, stream).await? {
        if let [index, column] = row.as_slice() {
            indices.entry(index.clone()).or_default().insert(column.clone());
        }
    }
    let key: BTreeSet<String> = stream.key.iter().map(|name| name.to_lowercase()).collect();
    match indices.values().any(|columns| columns.is_subset(&key)) {
        true => Ok(()),
        false => Err(Setback::Trouble(format!(
            "the table {:?} has no primary key or unique index of the columns {}: write its primary key as `key`",
            stream.topic,
            stream.key.join(", ")
        ))),
    }
}

impl Session {
    async fn run(&mut self, sql: &str, stream: &Stream) -> Result<(), Setback> {
        within(stream, self.conn.query_drop(sql)).await
    }

    async fn rows(&mut self, sql: &str, stream: &Stream) -> Result<Vec<Row>, Setback> {
        within(stream, self.conn.query(sql)).await
    }

    async fn texts(&mut self, sql: &str, stream: &Stream) -> Result<Vec<Vec<String>>, Setback> {
        let text = |value: Value| match value {
            Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            other => other.as_sql(true),
        };
        let rows = self.rows(sql, stream).await?;
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
    }

    fn select(&self) -> String {
        let columns = self.columns.iter().map(|column| match column.data_type.as_str() {
            // Its own text has six digits; as a double it has all that tell it apart.
            "float" => format!("{} + 0e0", quoted(&column.name)),
            _ => quoted(&column.name),
        });
        format!("SELECT {} FROM {}", columns.collect::<Vec<_>>().join(", "), self.table)
    }

    fn chunk_after(&self, last: Option<&[Value]>) -> String {
        let key: Vec<String> = self.key.iter().map(|place| quoted(&self.columns[*place].name)).collect();
        let after = match last {
            None => String::new(),
            Some(last) => {
                let values: Vec<String> =
                    self.key.iter().zip(last).map(|(place, value)| self.value(*place, value)).collect();
                // (a, b) > (x, y), in the words that every server finds an index for.
                let step = |at: usize| {
                    let same = (0..at).map(|before| format!("{} = {} AND ", key[before], values[before]));
                    format!("({}{} > {})", same.collect::<String>(), key[at], values[at])
                };
                format!(" WHERE {}", (0..key.len()).map(step).collect::<Vec<_>>().join(" OR "))
            }
        };
        format!("{}{after} ORDER BY {} LIMIT {CHUNK}", self.select(), key.join(", "))
    }

    fn written_since(&self, newest: Option<&str>) -> String {
        let since = self.written.zip(newest).map(|(place, newest)| {
            let column = quoted(&self.columns[place].name);
            format!(" WHERE {column} >= CAST({} AS DATETIME(6)) - INTERVAL {OVERLAP} SECOND", literal(newest))
        });
        format!("{}{}", self.select(), since.unwrap_or_default())
    }

    /// A value as it is compared with its column: numbers must not be compared as text, or as doubles.
    fn value(&self, place: usize, value: &Value) -> String {
        match value {
            Value::Bytes(bytes) if NUMBERS.contains(&self.columns[place].data_type.as_str()) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            other => other.as_sql(false),
        }
    }

    /// The latest time at which a row can have been written: a day ahead, as DATETIME is of any zone.
    async fn credible(&mut self, stream: &Stream) -> Result<String, Setback> {
        let rows = self.texts("SELECT UTC_TIMESTAMP(6) + INTERVAL 1 DAY", stream).await?;
        Ok(rows.into_iter().flatten().next().unwrap_or_default())
    }

    /// Remembers the newest time at which a row was written. One that lies far ahead says nothing: after it no other would be
    /// the newest.
    fn note(&self, values: &[Value], credible: &str, newest: &mut Option<String>) {
        if let Some(Value::Bytes(bytes)) = self.written.and_then(|place| values.get(place)) {
            let text = String::from_utf8_lossy(bytes);
            if text.as_ref() <= credible && newest.as_deref().is_none_or(|newest| newest < text.as_ref()) {
                *newest = Some(text.into_owned());
            }
        }
    }

    /// A row as the log has it.
    fn json(&self, values: &[Value]) -> Result<String, Setback> {
        let mut fields = Vec::with_capacity(values.len());
        for (column, value) in self.columns.iter().zip(values) {
            let text = match value {
                Value::NULL => None,
                Value::Bytes(bytes) => Some(
                    std::str::from_utf8(bytes)
                        .map_err(|_| {
                            Setback::Failed(format!("the column {:?} of the table holds what is no text", column.name))
                        })?
                        .to_string(),
                ),
                other => Some(other.as_sql(true).trim_matches('\'').to_string()),
            };
            let value = match (text, column.data_type.as_str()) {
                (None, _) => "null".to_string(),
                (Some(text), "timestamp") => json_text(&format!("{text}Z")),
                // An object, so that a column's path may lead into it.
                (Some(text), "json") => text,
                (Some(text), _) => json_text(&text),
            };
            fields.push(format!("{}:{value}", json_text(&column.name)));
        }
        Ok(format!("{{{}}}", fields.join(",")))
    }
}

async fn within<T>(stream: &Stream, query: impl Future<Output = Result<T, Error>>) -> Result<T, Setback> {
    match timeout(STATEMENT_DEADLINE, query).await {
        Ok(outcome) => outcome.map_err(|error| setback(stream, &error)),
        Err(_) => {
            let seconds = STATEMENT_DEADLINE.as_secs();
            Err(Setback::Trouble(format!("connection {:?}: no answer within {seconds} s", stream.connection)))
        }
    }
}

/// What an error of the driver means: whatever the server says may be mended there, and is asked again.
fn setback(stream: &Stream, error: &Error) -> Setback {
    let message = format!("connection {:?}, table {:?}: {error}", stream.connection, stream.topic);
    match error {
        Error::Url(_) => Setback::Failed(message),
        _ => Setback::Trouble(message),
    }
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn literal(text: &str) -> String {
    Value::Bytes(text.as_bytes().to_vec()).as_sql(false)
}

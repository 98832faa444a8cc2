//! `tagflow.toml`, resolved: one profile chosen, `${ENV}` filled in, every value checked.
//!
//! Enters: text. Leaves: a [`Config`], or diagnostics. Knows no other module but the vocabulary of files:
//! `diagnostic`, `toml_walk`, `column_type`.

mod checkpoints;
mod connection;
mod load;
mod paths;
mod properties;
mod secrets;
mod settings;
mod tls;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use arrow::datatypes::DataType;
use chrono_tz::Tz;

use crate::diagnostic::Levels;

pub use load::load;
pub(crate) use load::{Origin, Outline, read};

/// The settings of a project under one profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The folder of `tagflow.toml`; all paths are below it.
    pub root: PathBuf,
    /// The profile that was chosen, if any.
    pub profile: Option<String>,
    /// What CURRENT_DATE, date_trunc and a bare TIMESTAMP mean.
    pub timezone: Tz,
    /// What tags describe, by name.
    pub entities: BTreeMap<String, Entity>,
    /// Where streams come from, by name.
    pub connections: BTreeMap<String, Connection>,
    /// Where tags go.
    pub store: Store,
    /// How the daemon works.
    pub engine: EngineConfig,
    /// Where the daemon answers.
    pub serve: ServeConfig,
    /// What becomes of warnings.
    pub lints: Levels,
}

/// What tags describe: a user, a device, a shop.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// The key column that every tag of it has.
    pub key: String,
    /// The key's type.
    pub key_type: DataType,
    /// For people.
    pub title: Option<String>,
}

/// Where streams come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// A Kafka cluster.
    Kafka {
        /// `host:port`, comma separated.
        brokers: String,
        /// Any librdkafka property, passed through as it is (`[connection.NAME.kafka]`).
        properties: BTreeMap<String, Secret>,
        /// Where a schema registry answers, with user and password where it wants them; no `/` at its end.
        registry: Option<Secret>,
    },
    /// JSON lines or CSV files.
    File {
        /// A folder; a stream's topic names a file or folder in it.
        path: PathBuf,
        /// Go on reading as files grow and appear, instead of ending.
        follow: bool,
    },
    /// A MySQL or MariaDB with tables to read: `mysql://user:password@host:port/database`.
    Mysql(MysqlAddress),
    /// The seeded shop of the demo: streams `orders`, `page_views` and `users` by topic.
    Generator(GeneratorConfig),
}

/// What the generator makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratorConfig {
    /// Live events a second, all streams together.
    pub rate: u64,
    /// The same seed gives the same history.
    pub seed: u64,
    /// Distinct registered users.
    pub users: u64,
    /// Days of history before the first live event.
    pub history_days: u32,
    /// Events of history, all streams together.
    pub history_events: u64,
}

/// Text that is never printed: `Debug` shows `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself, for the one who connects.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A database of a MySQL or MariaDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MysqlAddress {
    /// `mysql://user:password@host:port/database`.
    pub url: Secret,
    /// How it is encrypted, where the url does not say.
    pub tls: Tls,
}

impl MysqlAddress {
    /// With nothing but a url.
    pub fn plain(url: impl Into<String>) -> Self {
        MysqlAddress { url: Secret::new(url), tls: Tls::default() }
    }
}

/// Files in PEM; with any of them nothing goes unencrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities that the server's certificate must come from; those of the system unless given.
    pub ca: Option<PathBuf>,
    /// The client's certificate, with what lies between it and its authority.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// Where tags go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// MySQL or MariaDB.
    Mysql(MysqlAddress),
    /// `sqlite:PATH`, below the project's root unless absolute.
    Sqlite(PathBuf),
}

/// How the daemon works (`[engine]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Checkpoints and dead letters (`state_dir`, default `.tagflow`; below it one folder a profile); below the
    /// project's root unless absolute.
    pub state_dir: PathBuf,
    /// Where checkpoints lie (`checkpoints`, default in the state directory).
    pub checkpoints: CheckpointPlace,
    /// Time between checkpoints (default 30 s).
    pub checkpoint_interval: Duration,
    /// Which checkpoints stay: so many of the newest (`checkpoints_kept`, default 3), and all that are younger
    /// (`checkpoints_kept_for`, default 0 s).
    pub keeping: Keeping,
    /// Longest time between two flushes of changed rows (default 500 ms).
    pub flush_interval: Duration,
    /// Longest time that an epoch collects (default 100 ms).
    pub epoch_interval: Duration,
    /// Most rows of one epoch (default 131072).
    pub epoch_rows: usize,
    /// Worker threads and key shards; 0 takes one a core (default 0).
    pub shards: usize,
    /// How long a retired table is kept (default 7 days).
    pub grace_period: Duration,
    /// While running tags are further behind than this, fills wait for them (default 5 s).
    pub fill_lag: Duration,
    /// How long the daemon's right to write lasts unless it is renewed (default 6 s).
    pub lease: Duration,
    /// The most bytes of state of a tag whose header does not say (default none).
    pub state_limit: Option<u64>,
    /// The most memory of the process; what state does not fit goes to disk (default none: all state is in memory).
    pub memory_limit: Option<u64>,
    /// The most bytes of dead letters of a stream (default 128 MiB).
    pub dead_letters: u64,
}

/// Where checkpoints lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointPlace {
    /// In the state directory.
    StateDir,
    /// In a folder that other machines may see too, one below it for each profile.
    Folder(PathBuf),
    /// In an object store that speaks S3.
    S3(Box<S3Place>),
}

/// Part of an object store, and how it is reached; what is not said is asked of `AWS_*` in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Place {
    /// The bucket.
    pub bucket: String,
    /// What all names begin with, the profile's name included; no `/` at either end.
    pub prefix: String,
    /// Where the store answers, unless it is Amazon's.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// Whether an endpoint may be unencrypted.
    pub allow_http: Option<bool>,
    /// Whether the bucket is part of the host's name.
    pub virtual_hosted: Option<bool>,
    /// Who asks.
    pub access_key_id: Option<Secret>,
    /// What proves it.
    pub secret_access_key: Option<Secret>,
    /// What proves it for a while.
    pub session_token: Option<Secret>,
    /// How long one request may take.
    pub timeout: Duration,
}

/// Which checkpoints stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// So many of the newest.
    pub count: usize,
    /// And all that are younger.
    pub age: Duration,
}

/// Where the daemon answers (`[serve]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeConfig {
    /// `host:port`; loopback unless told (default `127.0.0.1:7070`).
    pub listen: String,
    /// What a request must bring; without one the console answers to this machine alone.
    pub token: Option<Secret>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig { listen: "127.0.0.1:7070".to_owned(), token: None }
    }
}

/// True for a host that only this machine reaches, as it is written in an address: a port may follow.
pub(crate) fn is_loopback(place: &str) -> bool {
    let host = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => place.split_once(':').map_or(place, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

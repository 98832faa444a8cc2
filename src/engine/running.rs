//! What runs, as a file: the fingerprints of tags whose tables there are, and the files that each was planned from.
//!
//! The daemon keeps it as `running.json` in its state directory, so that `tagflow plan` can say which file has changed a plan;
//! `tagflow plan --save` writes the same for where neither store nor state directory is at hand. Never holds `tagflow.toml`,
//! which may have secrets: of it only what plans depend on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Connection;
use crate::engine::desired::{Desired, PlannedTag};
use crate::engine::replays::Replays;
use crate::engine::rollbacks::Rollbacks;
use crate::engine::versions::Texts;
use crate::graph::Graph;
use crate::plan::wording::sql_type;
use crate::project::read_named;
use crate::sink::TagRegistration;
use crate::whole_file;

const FILE: &str = "running.json";
/// The version of the format; another one is refused.
const FORMAT: u32 = 1;
/// A fill of fewer rows tells nothing of how long one of many takes.
const TELLING_ROWS: u64 = 10_000;

/// What runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    format: u32,
    /// The version of tagflow that has planned it.
    pub tagflow: String,
    /// The project's time zone.
    pub timezone: String,
    /// Entities by name.
    pub entities: BTreeMap<String, EntityKey>,
    /// The kinds of connections, by name.
    pub connections: BTreeMap<String, String>,
    /// How often streams were replayed.
    pub replays: Replays,
    /// Tags that went back to a version before.
    #[serde(default)]
    pub rollbacks: Rollbacks,
    /// Versions before that are kept up to date, by tag.
    #[serde(default)]
    pub kept: BTreeMap<String, KeptVersion>,
    /// How fast the last fill was that says anything about it.
    pub fill: Option<FillSpeed>,
    /// Tags with tables, by name.
    pub tags: BTreeMap<String, RunningTag>,
    /// What the files hold, by their hashes: text, or base64 behind `base64:`.
    pub texts: BTreeMap<String, String>,
}

/// The key of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityKey {
    /// The column.
    pub key: String,
    /// Its SQL type.
    pub r#type: String,
}

/// A version that a tag can go back to at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptVersion {
    /// Its number.
    pub version: u64,
    /// The fingerprint of its plan.
    pub fingerprint: String,
}

/// How fast a fill was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillSpeed {
    /// Rows that it read.
    pub rows: u64,
    /// How long that took.
    pub millis: u64,
    /// Tags that it filled.
    pub tags: usize,
}

/// A tag with a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningTag {
    /// The fingerprint of the plan that its table shows.
    pub fingerprint: String,
    /// What is registered of it.
    pub registration: TagRegistration,
    /// Rows in the table, where that is known.
    pub rows: Option<u64>,
    /// Files that its plan was made of, with their hashes; none where they are not known.
    pub files: BTreeMap<PathBuf, String>,
}

impl FillSpeed {
    /// Of a fill, where it is worth remembering.
    pub fn of(rows: u64, took: Duration, tags: usize) -> Option<Self> {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        (rows >= TELLING_ROWS).then_some(FillSpeed { rows, millis, tags })
    }

    /// Rows a second.
    pub fn rows_per_second(&self) -> f64 {
        self.rows as f64 * 1000.0 / self.millis.max(1) as f64
    }
}

/// A file that is no such record.
fn unreadable(message: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_string())
}

impl Running {
    /// What a whole project is that runs as it stands in its files.
    pub fn of(desired: &Desired) -> Self {
        let mut running = Running::settings_of(desired);
        running.add_all(desired, desired.tags.values());
        running
    }

    /// What there is after this was known: tags of `running` that are planned as the project says now have its files; others with a
    /// table keep what was known of them.
    pub fn followed<'a>(
        &self,
        desired: &Desired,
        running: impl Iterator<Item = &'a PlannedTag>,
        has_table: impl Fn(&str) -> bool,
    ) -> Self {
        let mut next = Running::settings_of(desired);
        next.fill = self.fill;
        let is_wanted = |tag: &&PlannedTag| {
            let wanted = desired.tags.get(&tag.definition.name);
            wanted.is_some_and(|wanted| wanted.plan.fingerprint == tag.plan.fingerprint)
        };
        next.add_all(desired, running.filter(is_wanted));
        for (name, tag) in &self.tags {
            if has_table(name) && !next.tags.contains_key(name) {
                let own = tag.files.values().filter_map(|hash| self.texts.get_key_value(hash));
                next.texts.extend(own.map(|(hash, text)| (hash.clone(), text.clone())));
                next.tags.insert(name.clone(), tag.clone());
            }
        }
        next
    }

    fn settings_of(desired: &Desired) -> Self {
        let config = &desired.project.config;
        let entities = config.entities.iter().map(|(name, entity)| {
            let key = EntityKey { key: entity.key.clone(), r#type: sql_type(&entity.key_type) };
            (name.clone(), key)
        });
        let kind = |connection: &Connection| match connection {
            Connection::Kafka { registry: Some(_), .. } => "kafka with a registry",
            Connection::Kafka { .. } => "kafka",
            Connection::File { .. } => "file",
            Connection::Mysql(_) => "mysql",
            Connection::Generator(_) => "generator",
        };
        let connections = config.connections.iter();
        Running {
            format: FORMAT,
            tagflow: env!("CARGO_PKG_VERSION").to_string(),
            timezone: config.timezone.name().to_string(),
            entities: entities.collect(),
            connections: connections.map(|(name, connection)| (name.clone(), kind(connection).to_string())).collect(),
            replays: desired.replays.clone(),
            rollbacks: desired.rollbacks.clone(),
            ..Running::default()
        }
    }

    fn add_all<'a>(&mut self, desired: &Desired, tags: impl Iterator<Item = &'a PlannedTag>) {
        let graph = Graph::of(&desired.project);
        for tag in tags {
            let name = &tag.definition.name;
            let mut texts = desired.files_of(&graph, name);
            for file in graph.made_of(&tag.definition.file) {
                // What schemas name is no text of the project; one that is not there any more is a problem of the schema.
                if !desired.project.sources.contains_key(&file)
                    && let Ok(bytes) = read_named(&desired.project.config.root, &file)
                {
                    texts.insert(file, as_text(bytes));
                }
            }
            let known = RunningTag {
                fingerprint: tag.plan.fingerprint.clone(),
                registration: tag.registration.clone(),
                rows: None,
                files: self.add_texts(texts),
            };
            self.tags.insert(name.clone(), known);
        }
    }

    /// Takes texts of files; gives their hashes.
    pub fn add_texts(&mut self, texts: Texts) -> BTreeMap<PathBuf, String> {
        let mut hashes = BTreeMap::new();
        for (file, text) in texts {
            let hash = hash_of(&text);
            self.texts.entry(hash.clone()).or_insert(text);
            hashes.insert(file, hash);
        }
        hashes
    }

    /// What a daemon has left in its state directory; `None` where no daemon has run there.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn kept_in(state_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(state_dir.join(FILE)) {
            Ok(bytes) => Running::decode(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Leaves it in a state directory.
    ///
    /// # Errors
    /// When the directory takes no file.
    pub fn keep_in(&self, state_dir: &Path) -> io::Result<()> {
        whole_file::write(&state_dir.join(FILE), &self.encode()?)
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// Never for what was made by this module.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// What a file says.
    ///
    /// # Errors
    /// When it is none of [`encode`](Self::encode), or of another version.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let running: Running =
            serde_json::from_slice(bytes).map_err(|error| unreadable(format!("no state of tagflow: {error}")))?;
        match running.format {
            FORMAT => Ok(running),
            other => {
                Err(unreadable(format!("a state in format {other}; this version of tagflow reads format {FORMAT}")))
            }
        }
    }

    /// The bytes of the file with a hash.
    pub fn bytes_of(&self, hash: &str) -> Option<Vec<u8>> {
        let text = self.texts.get(hash)?;
        match text.strip_prefix(ENCODED) {
            Some(encoded) => STANDARD.decode(encoded).ok(),
            None => Some(text.clone().into_bytes()),
        }
    }
}

const ENCODED: &str = "base64:";

fn hash_of(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as [`Running::texts`] has them.
fn as_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| format!("{ENCODED}{}", STANDARD.encode(error.as_bytes())))
}

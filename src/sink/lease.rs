//! Who writes a store: the claim of a daemon, and the holder that it may find there.
//!
//! Enters: a process and what it may do to another one. Leaves: values that stores and messages share.

use std::fmt::{Display, Formatter};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One run of one daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Random, so that no later process is taken for this one.
    pub id: String,
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: u32,
}

impl Owner {
    /// This process, as a new owner.
    pub fn new() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_string());
        let host = host.or_else(|| std::env::var("HOSTNAME").ok()).filter(|name| !name.is_empty());
        Owner { id: random_name(), host: host.unwrap_or_else(|| "localhost".to_string()), pid: std::process::id() }
    }

    /// As it is written into lock files.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("an owner is texts and a number")
    }

    /// Out of a lock file; `None` when it is not what [`to_text`](Self::to_text) writes.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Default for Owner {
    fn default() -> Self {
        Owner::new()
    }
}

impl Display for Owner {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// What a daemon asks of a store when it opens it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Who asks.
    pub owner: Owner,
    /// How long the lease lasts unless it is renewed.
    pub length: Duration,
    /// Whose lease may be ended that has not run out.
    pub ends: Ends,
}

/// Whose lease may be ended before it runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ends {
    /// Nobody's.
    Nobody,
    /// That of the owner with this id, whose process is known to be gone.
    Owner(String),
    /// Anybody's.
    Anybody,
}

impl Claim {
    /// True when the lease of `holder` does not keep this claim out.
    pub fn may_end(&self, holder: &Owner) -> bool {
        match &self.ends {
            Ends::Nobody => holder.id == self.owner.id,
            Ends::Owner(id) => *id == holder.id || holder.id == self.owner.id,
            Ends::Anybody => true,
        }
    }
}

/// A random name, of an owner or a store.
pub fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A store that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Counts the writers of the store.
    pub generation: u64,
    /// The store's own name, random, made with it: a copied database has it too, another one never.
    pub store: String,
    /// The writer before, whether its lease had run out or was ended.
    pub before: Option<Owner>,
}

/// The daemon that holds a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub owner: Owner,
    /// Until when, as the store says; changes when the lease is renewed. `None` where the lease is a file's lock, which
    /// ends with its process and no sooner.
    pub expires_at: Option<String>,
    /// How long that is from now, by the store's clock.
    pub left: Option<Duration>,
}

impl Display for Holder {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.owner.fmt(f)?;
        match self.left {
            Some(left) => write!(f, ", whose lease runs out in {:.1} s", left.as_secs_f64()),
            None => Ok(()),
        }
    }
}

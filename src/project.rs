//! Everything below a project's root, read in one pass: settings, catalog, tags, folders.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::tag::{Folder, TagDefinition};

/// A project as its files say it.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// `tagflow.toml` under the chosen profile.
    pub config: Config,
    /// `schemas/`.
    pub catalog: Catalog,
    /// `tags/**/*.sql` by name; only those whose file and header are sound.
    pub tags: BTreeMap<String, TagDefinition>,
    /// `tags/**/_folder.toml` by path below `tags/` (`consumption/money`).
    pub folders: BTreeMap<String, Folder>,
    /// The text of every file that was read, for quoting.
    pub sources: BTreeMap<PathBuf, String>,
}

/// What reading a project gave: as much of it as is sound, and everything that is wrong.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `None` when `tagflow.toml` itself is unusable.
    pub project: Option<Project>,
    /// All problems of all files.
    pub diagnostics: Vec<Diagnostic>,
    /// Files that are there but could not be read.
    pub unreadable: std::collections::BTreeSet<PathBuf>,
    /// The text of every file that was read, for quoting, even when there is no project.
    pub sources: BTreeMap<PathBuf, String>,
}

/// Reads a project under a profile.
pub fn load(_root: &std::path::Path, _profile: Option<&str>) -> Loaded {
    Loaded { project: None, diagnostics: Vec::new(), unreadable: Default::default(), sources: BTreeMap::new() }
}

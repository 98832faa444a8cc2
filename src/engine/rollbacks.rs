//! Tags that went back to a version before, while their files say otherwise: `rollbacks.json` of the state directory.
//!
//! A rollback holds as long as the files give the plan that it was asked in place of; the version's own files are laid over
//! the project when it is planned, so that the daemon, a restart, `verify` and all others agree on what the tag is. Tags that
//! read it are planned over the same version.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::desired::{Desired, plan_only};
use crate::engine::state_dir::{change_json, read_json};
use crate::engine::versions::{files_of, laid_over};
use crate::graph::Graph;
use crate::project;

/// What each tag went back to.
pub type Rollbacks = BTreeMap<String, Rollback>;

/// What a tag went back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// The version.
    pub version: u64,
    /// The fingerprint of its plan.
    pub fingerprint: String,
    /// The files that it is made of.
    pub files: BTreeMap<PathBuf, String>,
    /// The fingerprint that the project's files give; `None` where they do not have the tag.
    pub instead_of: Option<String>,
    /// Who asked for it.
    pub by: Option<String>,
}

impl Rollback {
    /// True where the project's files say otherwise.
    pub fn holds_back(&self) -> bool {
        self.instead_of.as_ref() != Some(&self.fingerprint)
    }
}

const FILE: &str = "rollbacks.json";

/// What was asked for so far.
pub fn read(state_dir: &Path) -> io::Result<Rollbacks> {
    read_json(state_dir, FILE)
}

/// Asks for a tag to go back.
pub fn ask(state_dir: &Path, tag: &str, rollback: Rollback) -> io::Result<()> {
    change_json(state_dir, FILE, |rollbacks: &mut Rollbacks| drop(rollbacks.insert(tag.to_string(), rollback)))
}

/// Forgets those of some tags.
pub fn forget(state_dir: &Path, tags: &BTreeSet<String>) -> io::Result<()> {
    change_json(state_dir, FILE, |rollbacks: &mut Rollbacks| rollbacks.retain(|tag, _| !tags.contains(tag)))
}

/// Plans the tags that went back as they were then, and over them the tags that read them.
pub fn go_back(desired: &mut Desired, rollbacks: Rollbacks) {
    let of_files = |tag: &str| desired.tags.get(tag).map(|planned| planned.plan.fingerprint.clone());
    let in_force: Rollbacks =
        rollbacks.into_iter().filter(|(tag, rollback)| of_files(tag) == rollback.instead_of).collect();
    for (tag, rollback) in in_force {
        if rollback.holds_back() && !lay_over(desired, &tag, &rollback) {
            continue;
        }
        desired.rollbacks.insert(tag, rollback);
    }
}

/// False where the version's files do not give its plan any more.
fn lay_over(desired: &mut Desired, tag: &str, rollback: &Rollback) -> bool {
    let config = &desired.project.config;
    let texts = laid_over(&desired.project, tag, &rollback.files);
    let laid = project::load_over(&config.root, config.profile.as_deref(), &texts);
    let Some(laid) = laid.project else { return false };
    let Some(file) = laid.tags.get(tag).map(|definition| definition.file.clone()) else { return false };
    let graph = Graph::of(&laid);
    let dependents = graph.dependents(&BTreeSet::from([file.clone()]), laid.sources.keys().map(PathBuf::as_path));
    let is_concerned = |name: &str, of: &Path| name == tag || dependents.contains(of);
    let names = laid.tags.values().filter(|definition| is_concerned(&definition.name, &definition.file));
    let mut planned = plan_only(&laid, &names.map(|definition| definition.name.clone()).collect());
    if planned.get(tag).is_none_or(|planned| planned.plan.fingerprint != rollback.fingerprint) {
        return false;
    }
    // One that went back itself is what it went back to.
    planned.retain(|name, _| name == tag || !desired.rollbacks.contains_key(name));
    for (name, planned) in planned {
        desired.laid_over.insert(name.clone(), files_of(&laid, &graph, &name));
        desired.tags.insert(name, planned);
    }
    true
}

//! `tagflow check --since REF`: what a branch touches, and what depends on it.
//!
//! git says which files differ from where the branch left REF, committed or not; `graph` says who makes use of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cli::git::{git, left_at};
use crate::graph::Graph;
use crate::project::Project;

/// The files that a branch touches, below the project's folder, and those that depend on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Touched {
    /// Changed, new and deleted ones.
    pub(super) changed: BTreeSet<PathBuf>,
    /// The others that make use of them.
    pub(super) dependents: BTreeSet<PathBuf>,
}

impl Touched {
    /// Asks git, and follows the project's files.
    ///
    /// # Errors
    /// Why git cannot tell, for people.
    pub(super) fn since(reference: &str, root: &Path, project: Option<&Project>) -> Result<Touched, String> {
        let changed = changed(reference, root)?;
        let dependents = project.map_or_else(BTreeSet::new, |project| {
            let files = project.sources.keys().map(PathBuf::as_path);
            Graph::of(project).dependents(&changed, files)
        });
        Ok(Touched { changed, dependents })
    }

    /// True for files that are to be looked at.
    pub(super) fn holds(&self, file: &Path) -> bool {
        self.changed.contains(file) || self.dependents.contains(file)
    }
}

/// The files that differ between the commit at which the branch left `reference` and the folder as it is.
fn changed(reference: &str, root: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let base = left_at(reference, root)?;
    let diff = git(root, &["diff", "--name-only", "--no-renames", "--relative", "-z", &base, "--", "."])?;
    let new = git(root, &["ls-files", "--others", "--exclude-standard", "-z"])?;
    let mut files = BTreeSet::new();
    for found in [diff, new] {
        let names = found.output.map_err(|message| format!("git cannot tell what has changed: {message}"))?;
        files.extend(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from));
    }
    Ok(files)
}

//! `tagflow check --since REF`: what a branch touches, and what depends on it.
//!
//! git says which files differ from where the branch left REF, committed or not; `graph` says who makes use of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let git = |arguments: &[&str]| git(root, arguments);
    let there = git(&["rev-parse", "--is-inside-work-tree"])?;
    if there.trim() != Ok("true") {
        return Err(format!("--since needs a git repository, and {} is in none", shown(root)));
    }
    let commit = format!("{reference}^{{commit}}");
    if reference.starts_with('-') || git(&["rev-parse", "--verify", "--quiet", &commit])?.output.is_err() {
        return Err(format!(
            "git knows no commit \"{reference}\"; in CI fetch it first: git fetch origin {}",
            reference.trim_start_matches("origin/")
        ));
    }
    let base = git(&["merge-base", reference, "HEAD"])?;
    let Ok(base) = base.trim() else {
        return Err(format!(
            "the branch and \"{reference}\" have no common commit here; a shallow clone lacks it: fetch with depth 0"
        ));
    };
    let diff = git(&["diff", "--name-only", "--no-renames", "--relative", "-z", base, "--", "."])?;
    let new = git(&["ls-files", "--others", "--exclude-standard", "-z"])?;
    let mut files = BTreeSet::new();
    for found in [diff, new] {
        let names = found.output.map_err(|message| format!("git cannot tell what has changed: {message}"))?;
        files.extend(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from));
    }
    Ok(files)
}

/// What git has said: its output, or its complaint.
struct Said {
    output: Result<String, String>,
}

impl Said {
    fn trim(&self) -> Result<&str, ()> {
        self.output.as_deref().map(str::trim).map_err(|_| ())
    }
}

fn git(root: &Path, arguments: &[&str]) -> Result<Said, String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output();
    let output = output.map_err(|error| format!("--since needs git: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
    Ok(Said { output: if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) } })
}

fn shown(root: &Path) -> String {
    std::path::absolute(root).unwrap_or_else(|_| root.to_owned()).display().to_string()
}

//! What git knows of a project's folder.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What git has said: its output, or its complaint.
pub(super) struct Said {
    pub(super) output: Result<String, String>,
}

impl Said {
    fn trim(&self) -> Result<&str, ()> {
        self.output.as_deref().map(str::trim).map_err(|_| ())
    }
}

/// Asks git about a folder.
///
/// # Errors
/// Where there is no git.
pub(super) fn git(root: &Path, arguments: &[&str]) -> Result<Said, String> {
    run(Command::new("git").arg("-C").arg(root).args(arguments))
}

fn run(command: &mut Command) -> Result<Said, String> {
    let output = command.output().map_err(|error| format!("--since needs git: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
    Ok(Said { output: if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) } })
}

/// The commit at which the branch left `reference`.
///
/// # Errors
/// Why git cannot tell, for people.
pub(super) fn left_at(reference: &str, root: &Path) -> Result<String, String> {
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
    base.trim().map(str::to_string).map_err(|()| {
        format!(
            "the branch and \"{reference}\" have no common commit here; a shallow clone lacks it: fetch with depth 0"
        )
    })
}

/// Writes the project's folder into `folder` as it was at a commit; false where it was not there yet.
///
/// # Errors
/// What git complains of, for people.
pub(super) fn lay_out(commit: &str, root: &Path, folder: &Path) -> Result<bool, String> {
    let said = |said: Said| said.output.map_err(|message| format!("git cannot lay out {commit}: {message}"));
    let prefix = said(git(root, &["rev-parse", "--show-prefix"])?)?;
    let top = PathBuf::from(said(git(root, &["rev-parse", "--show-toplevel"])?)?);
    let tree = format!("{commit}:{}", prefix.trim_end_matches('/'));
    if git(root, &["cat-file", "-e", &tree])?.output.is_err() {
        return Ok(false);
    }
    // An index of its own: the one of the repository stays as it is.
    let index = folder.join(".index");
    let with_index =
        |arguments: &[&str]| run(Command::new("git").arg("-C").arg(&top).args(arguments).env("GIT_INDEX_FILE", &index));
    said(with_index(&["read-tree", &tree])?)?;
    let place = format!("--prefix={}/", folder.display());
    said(with_index(&["checkout-index", "--all", "--quiet", &place])?)?;
    Ok(true)
}

fn shown(root: &Path) -> String {
    std::path::absolute(root).unwrap_or_else(|_| root.to_owned()).display().to_string()
}

//! Who last touched which file of `tags/`, as far as git tells in time.
//!
//! Enters: a project's folder. Leaves: commits by file. Git is asked by those that nobody waits for: a start, a reload, a fill. The
//! epoch loop reads what they were told. A git that is slow or hangs is ended; tags of which it had not told by then have no author.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::tag;

/// How long git may take for all that it is asked at once.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);
/// What no name of a file begins with.
const MARK: char = '\u{1}';

/// The commit that last touched a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its hash.
    pub hash: String,
    /// Name and address of who wrote it.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
    /// False where the file differs from it.
    pub is_clean: bool,
}

/// Commits by the files that they were the last to touch, below the project's root.
pub type Commits = BTreeMap<PathBuf, Commit>;

/// The commits that last touched the files of `tags/`; none where the project is no git checkout.
pub fn commits_of_tags(root: &Path) -> Commits {
    ask(root, Instant::now() + DEADLINE).unwrap_or_else(|error| {
        // A machine without git is as good as a folder without a checkout.
        if error.kind() != io::ErrorKind::NotFound {
            warn!(%error, "git cannot be asked for commits");
        }
        Commits::new()
    })
}

fn ask(root: &Path, until: Instant) -> io::Result<Commits> {
    let place = git(root, &["rev-parse", "--show-prefix"], until)?;
    if !place.is_whole {
        return Ok(Commits::new());
    }
    let differing = git(root, &["diff", "--name-only", "-z", "HEAD", "--", tag::FOLDER], until)?;
    if !differing.is_whole {
        return Ok(Commits::new());
    }
    // One walk for all files, newest first. Of a merge those count that differ from all that it merges.
    let format = format!("--format={MARK}%H%x00%an <%ae>%x00%s");
    let log = ["log", "-c", "-z", "--name-only", "--no-renames", &format, "--", tag::FOLDER];
    let log = git(root, &log, until)?;
    let differing = differing.text.split_terminator('\0').collect();
    Ok(commits_from(&log.text, &differing, place.text.trim_end_matches('\n')))
}

/// The first commit of each file in a log, whose end may be missing. Names in it begin with that of the project's `place`.
fn commits_from(log: &str, differing: &BTreeSet<&str>, place: &str) -> Commits {
    let mut commits = Commits::new();
    let whole = log.rfind('\0').map_or("", |end| &log[..end]);
    let mut parts = whole.split('\0').map(|part| part.trim_start_matches('\n'));
    let mut last = ["", "", ""];
    while let Some(part) = parts.next() {
        if let Some(hash) = part.strip_prefix(MARK) {
            last = [hash, parts.next().unwrap_or_default(), parts.next().unwrap_or_default()];
        } else if let Some(file) = part.strip_prefix(place).filter(|file| !file.is_empty()) {
            let [hash, author, subject] = last.map(str::to_string);
            let commit = Commit { hash, author, subject, is_clean: !differing.contains(part) };
            commits.entry(PathBuf::from(file)).or_insert(commit);
        }
    }
    commits
}

/// What git has said.
struct Said {
    text: String,
    /// It came to its end, and well.
    is_whole: bool,
}

/// Asks git about a project.
fn git(root: &Path, arguments: &[&str], until: Instant) -> io::Result<Said> {
    // Into a file: a pipe stays open for as long as anything does that git has started.
    let mut output = tempfile::tempfile()?;
    let mut child = Command::new("git")
        .arg("-C")
        .arg(root)
        // What a user may have set otherwise.
        .args(["-c", "diff.relative=false", "-c", "log.showSignature=false"])
        .args(arguments)
        // The author may be at work in the same checkout.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let ended = loop {
        match child.try_wait()? {
            None if Instant::now() < until => std::thread::sleep(LOOK),
            ended => break ended,
        }
    };
    if ended.is_none() {
        warn!(?arguments, "git does not answer in time and is ended");
        end(child)?;
    }
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    let is_whole = ended.is_some_and(|status| status.success());
    Ok(Said { text: String::from_utf8_lossy(&bytes).into_owned(), is_whole })
}

/// Ends a process with all that it has started. One that hangs in the kernel is gone later, for which nobody waits.
fn end(mut child: Child) -> io::Result<()> {
    // SAFETY: a signal to the group of a child that was not waited for yet, so that its number is nobody else's.
    unsafe {
        libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL);
    }
    std::thread::Builder::new().name("git".to_string()).spawn(move || child.wait()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git_in(folder: &Path, arguments: &[&str]) {
        let who = ["-c", "user.name=Ann \u{e9}", "-c", "user.email=ann@example.com"];
        let output = Command::new("git").current_dir(folder).args(who).args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn last_commit_of_each_file_is_told_with_whether_the_file_differs_from_it() {
        let outer = tempfile::tempdir().unwrap();
        // A project may lie below the top of its repository.
        let root = outer.path().join("shop");
        let write = |file: &str, text: &str| {
            std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            std::fs::write(root.join(file), text).unwrap();
        };
        write("tags/a/one.sql", "1");
        assert_eq!(commits_of_tags(&root), Commits::new(), "no checkout");
        git_in(outer.path(), &["init", "-qb", "main"]);
        assert_eq!(commits_of_tags(&root), Commits::new(), "no commit");
        for file in ["tags/two.sql", "tags/three.sql", "tags/both.sql", "schemas/orders.toml"] {
            write(file, "first\n\n\n\nlast\n");
        }
        let commit = |message: &str| {
            git_in(outer.path(), &["add", "."]);
            git_in(outer.path(), &["commit", "-qm", message]);
        };
        commit("all of them: \"first\"\n\nmore words");
        write("tags/two.sql", "2");
        commit("two");
        git_in(outer.path(), &["checkout", "-qb", "side"]);
        write("tags/both.sql", "1st\n\n\n\nlast\n");
        commit("on the side");
        git_in(outer.path(), &["checkout", "-q", "main"]);
        write("tags/both.sql", "first\n\n\n\n2nd\n");
        commit("on main");
        git_in(outer.path(), &["merge", "-qm", "merged", "side"]);
        write("tags/three.sql", "3, not committed");
        write("tags/four.sql", "4, not known");

        let commits = commits_of_tags(&root);
        let told = |file: &str| {
            let commit = commits.get(Path::new(file))?;
            assert_eq!((commit.hash.len(), commit.author.as_str()), (40, "Ann \u{e9} <ann@example.com>"));
            Some((commit.subject.as_str(), commit.is_clean))
        };
        assert_eq!(told("tags/a/one.sql"), Some(("all of them: \"first\"", true)));
        assert_eq!(told("tags/two.sql"), Some(("two", true)));
        assert_eq!(told("tags/three.sql"), Some(("all of them: \"first\"", false)));
        assert_eq!(told("tags/both.sql"), Some(("merged", true)));
        assert_eq!(told("tags/four.sql"), None);
        assert_eq!(commits.len(), 4);
    }

    #[test]
    fn log_that_was_cut_off_tells_what_it_came_to() {
        let log = "\u{1}b\0Bob <b@b>\0second\0\0shop/tags/a.sql\0\u{1}a\0Ann <a@a>\0first\0\nshop/tags/a.sql\0shop/tags/b.sql\0shop/tags/c";
        let commits = commits_from(log, &BTreeSet::from(["shop/tags/b.sql"]), "shop/");
        let told: Vec<_> =
            commits.iter().map(|(file, commit)| (file.to_str(), &*commit.hash, commit.is_clean)).collect();
        assert_eq!(told, [(Some("tags/a.sql"), "b", true), (Some("tags/b.sql"), "a", false)]);
        assert_eq!(commits_from("\u{1}b\0Bob", &BTreeSet::new(), ""), Commits::new());
        assert_eq!(commits_from("", &BTreeSet::new(), ""), Commits::new());
    }
}

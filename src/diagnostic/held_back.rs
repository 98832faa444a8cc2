//! Problems that only follow from others: one mistake in a stream that two hundred tags read is one error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Diagnostic, Severity};

/// Files that are named in a note.
const MOST_NAMED: usize = 3;

/// The diagnostics without those that follow from the errors of other files, and for each of these files a note of
/// those that wait for it.
pub fn hold_back(diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let (following, mut told): (Vec<Diagnostic>, Vec<Diagnostic>) =
        diagnostics.into_iter().partition(|diagnostic| diagnostic.follows.is_some());
    let has_errors = |file: &Path, told: &[Diagnostic]| {
        told.iter().any(|diagnostic| diagnostic.severity == Severity::Error && diagnostic.file == file)
    };
    let leads: BTreeMap<PathBuf, &Diagnostic> = following.iter().map(|told| (told.file.clone(), told)).collect();
    // A view may follow from a stream, and a tag from the view: both wait for the stream.
    let root = |diagnostic: &Diagnostic| {
        let mut root = diagnostic.follows.clone()?;
        let mut seen = BTreeSet::new();
        while !has_errors(&root, &told) && seen.insert(root.clone()) {
            let Some(next) = leads.get(&root).and_then(|lead| lead.follows.clone()) else { break };
            root = next;
        }
        Some(root)
    };
    let mut waiting: BTreeMap<PathBuf, (&'static str, BTreeSet<&Path>)> = BTreeMap::new();
    for diagnostic in &following {
        let Some(root) = root(diagnostic) else { continue };
        waiting.entry(root).or_insert((diagnostic.code, BTreeSet::new())).1.insert(&diagnostic.file);
    }
    let notes: Vec<Diagnostic> = waiting
        .into_iter()
        .map(|(root, (code, files))| {
            let named: Vec<String> = files.iter().take(MOST_NAMED).map(|file| file.display().to_string()).collect();
            let more = match files.len().saturating_sub(MOST_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let verb = if files.len() == 1 { "waits" } else { "wait" };
            let message = format!("{}{more} {verb} for this file to be mended", named.join(", "));
            // Where nothing is wrong with the file itself, something must still keep the project from being accepted.
            let severity = if has_errors(&root, &told) { Severity::Note } else { Severity::Error };
            let note = Diagnostic { severity, ..Diagnostic::error(code, root, None, message) };
            note.help("mend this file and check again; what else is wrong in them is told here, too")
        })
        .collect();
    told.extend(notes);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn following(file: &str, follows: &str) -> Diagnostic {
        Diagnostic::error("T0817", file, 0..1, "cannot be read").follows(follows)
    }

    #[test]
    fn one_mistake_is_one_error_and_a_note_of_those_that_wait() {
        let mut told = vec![
            Diagnostic::error("T0301", "schemas/ev.toml", 3..4, "no type"),
            Diagnostic::error("T0811", "tags/a.sql", 3..4, "no column"),
            following("schemas/view.sql", "schemas/ev.toml"),
            following("tags/over_view.sql", "schemas/view.sql"),
        ];
        told.extend(["a", "b", "c"].map(|tag| following(&format!("tags/{tag}.sql"), "schemas/ev.toml")));
        let left = hold_back(told);
        let shown: Vec<(&str, &Path, &str)> =
            left.iter().map(|told| (told.code, told.file.as_path(), told.message.as_str())).collect();
        let message = "schemas/view.sql, tags/a.sql, tags/b.sql and 2 more wait for this file to be mended";
        assert_eq!(
            shown,
            [
                ("T0301", Path::new("schemas/ev.toml"), "no type"),
                ("T0811", Path::new("tags/a.sql"), "no column"),
                ("T0817", Path::new("schemas/ev.toml"), message),
            ]
        );
        assert_eq!(left[2].severity, Severity::Note);
    }

    #[test]
    fn what_follows_from_nothing_stays_an_error() {
        let left = hold_back(vec![following("tags/a.sql", "tags/b.sql"), following("tags/b.sql", "tags/a.sql")]);
        assert!(!left.is_empty() && left.iter().all(|told| told.severity == Severity::Error), "{left:?}");
    }
}

//! Edits that mend problems for certain, applied to the text of files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Diagnostic, Edit};

/// The files that are mended, with their new text, and how many problems that mends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mended {
    /// By file.
    pub texts: BTreeMap<PathBuf, String>,
    /// Problems of which all edits were made.
    pub problems: usize,
}

/// Makes the edits of all diagnostics that have some. A problem whose edits touch those of one before it is left: it is
/// looked at again once these are made.
pub fn mend<'a>(diagnostics: impl IntoIterator<Item = &'a Diagnostic>, sources: &BTreeMap<PathBuf, String>) -> Mended {
    let mut mended = Mended::default();
    let mut accepted: BTreeMap<&PathBuf, Vec<&Edit>> = BTreeMap::new();
    for diagnostic in diagnostics.into_iter().filter(|diagnostic| !diagnostic.fix.is_empty()) {
        let Some(text) = sources.get(&diagnostic.file) else { continue };
        let of_file = accepted.entry(&diagnostic.file).or_default();
        let is_within = |edit: &Edit| text.get(edit.span.clone()).is_some();
        let touches = |edit: &Edit| of_file.iter().any(|known| touch(known, edit));
        if diagnostic.fix.iter().all(|edit| is_within(edit) && !touches(edit)) {
            of_file.extend(&diagnostic.fix);
            mended.problems += 1;
        }
    }
    for (file, mut edits) in accepted.into_iter().filter(|(_, edits)| !edits.is_empty()) {
        let Some(mut text) = sources.get(file).cloned() else { continue };
        // From the end, so that places stay where they are.
        edits.sort_by_key(|edit| std::cmp::Reverse(edit.span.start));
        for edit in edits {
            let new = edit.text_in(&text);
            text.replace_range(edit.span.clone(), &new);
        }
        mended.texts.insert(file.clone(), text);
    }
    mended
}

impl Edit {
    /// What comes, with the line ends of the file's text.
    pub fn text_in(&self, text: &str) -> String {
        self.text.replace('\n', if text.contains("\r\n") { "\r\n" } else { "\n" })
    }
}

/// True where it matters which of two edits is made first.
fn touch(one: &Edit, other: &Edit) -> bool {
    one.span.start <= other.span.end && other.span.start <= one.span.end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(file: &str, edits: &[(std::ops::Range<usize>, &str)]) -> Diagnostic {
        let edits = edits.iter().map(|(span, text)| Edit { span: span.clone(), text: (*text).to_owned() });
        Diagnostic::error("T0710", file, 0..1, "wrong").fix(edits)
    }

    #[test]
    fn edits_of_a_file_are_made_together_and_never_over_one_another() {
        let sources = BTreeMap::from([(PathBuf::from("a.sql"), "one two three\r\n".to_owned())]);
        let diagnostics = [
            told("a.sql", &[(0..3, "1"), (8..13, "3\n")]),
            told("a.sql", &[(7..9, "x")]),
            told("a.sql", &[(4..7, "zwei")]),
            told("a.sql", &[(90..99, "behind the end")]),
            told("gone.sql", &[(0..1, "x")]),
        ];
        let mended = mend(&diagnostics, &sources);
        assert_eq!(mended.texts, BTreeMap::from([(PathBuf::from("a.sql"), "1 zwei 3\r\n\r\n".to_owned())]));
        assert_eq!(mended.problems, 2);
    }
}

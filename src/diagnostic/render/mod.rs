//! Diagnostics as text: for people, with the line quoted and the place underlined, and for programs.
//!
//! Enters: diagnostics and the text of the files. Leaves: text, in the order of files and places. The forms differ in
//! who reads them; what they say of one diagnostic is the same.

mod github;
mod human;
mod json;
mod junit;
mod sarif;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use github::render_github;
pub use human::render_human;
pub use json::render_json;
pub use junit::render_junit;
pub use sarif::render_sarif;

use super::{Diagnostic, Severity};

/// Line and column of a byte, both from 1, the column in characters.
pub fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Where a place begins and ends, in lines and columns; the end is the first character that is not meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    start: (usize, usize),
    end: (usize, usize),
}

impl Region {
    fn of_span(text: &str, span: &Range<usize>) -> Region {
        Region { start: position(text, span.start), end: position(text, span.end) }
    }

    /// None where the whole file is meant.
    fn of(diagnostic: &Diagnostic, sources: &BTreeMap<PathBuf, String>) -> Option<Region> {
        let (text, span) = place(diagnostic, sources)?;
        Some(Region::of_span(text, &span))
    }
}

fn sorted(diagnostics: &[Diagnostic]) -> Vec<&Diagnostic> {
    let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
    sorted.sort_by_key(|diagnostic| {
        let place = diagnostic.span.as_ref().map(|span| (span.start, span.end));
        (&diagnostic.file, diagnostic.severity == Severity::Note, place)
    });
    sorted
}

/// The text and the place in it: within the text, without line ends behind it, and at least one character wide where
/// there is one.
fn place<'a>(diagnostic: &Diagnostic, sources: &'a BTreeMap<PathBuf, String>) -> Option<(&'a str, Range<usize>)> {
    let text = sources.get(&diagnostic.file)?.as_str();
    let span = diagnostic.span.as_ref()?;
    let mut start = text.floor_char_boundary(span.start);
    let mut end = text.ceil_char_boundary(span.end.min(text.len())).max(start);
    end = start + text[start..end].trim_end().len();
    if start == end {
        match text[start..].chars().next().filter(|c| !is_line_end(*c)) {
            Some(next) => end += next.len_utf8(),
            // At the end of a line or of the text: the character before it.
            None => {
                start -= text[..start].chars().next_back().filter(|c| !is_line_end(*c)).map_or(0, char::len_utf8);
            }
        }
    }
    Some((text, start..end))
}

fn is_line_end(c: char) -> bool {
    c == '\n' || c == '\r'
}

/// What is wrong and what to do, for forms that have one text for both.
fn message_and_help(diagnostic: &Diagnostic) -> String {
    match &diagnostic.help {
        Some(help) => format!("{}\nhelp: {help}", diagnostic.message),
        None => diagnostic.message.clone(),
    }
}

fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
}

/// Paths are shown with `/` on every system.
fn shown(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

/// A file as those see it who start from where the command ran: below the project's folder.
fn below(folder: &Path, file: &Path) -> PathBuf {
    folder.join(file).components().filter(|part| *part != std::path::Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_shown_below_the_projects_folder() {
        for (folder, seen) in [(".", "tags/a.sql"), ("shop", "shop/tags/a.sql"), ("./shop/", "shop/tags/a.sql")] {
            assert_eq!(shown(&below(Path::new(folder), Path::new("tags/a.sql"))), seen);
        }
    }
}

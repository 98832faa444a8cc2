//! What is wrong in a file of the project: the author's errors, all collected, never the first only.
//!
//! The world's errors (network, disk, database) are each module's `Error` enum instead.

pub mod codes;
mod explanations;
mod fixes;
mod held_back;
mod lints;
mod render;

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

pub use explanations::{Explanation, explain, explanations};
pub use fixes::{Mended, mend};
pub use held_back::hold_back;
pub use lints::{LEVELS, LINTS, Level, Levels, levelled, lint_of};
pub use render::{position, render_github, render_human, render_json, render_junit, render_sarif};

/// How bad it is: an error keeps the project from being accepted, the others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The project is not accepted.
    Error,
    /// Accepted, but the author should look.
    Warning,
    /// Nothing is wrong here; it helps to read the others.
    Note,
}

/// Text to put in the place of bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edit {
    /// The bytes that go; none where text is put between two.
    pub span: Range<usize>,
    /// What comes.
    pub text: String,
}

/// One problem at one place of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable code such as `T0201`; the first two digits name the area (see `codes`).
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// The file, relative to the project's root.
    pub file: PathBuf,
    /// Bytes of the file that are meant; `None` when the whole file is.
    pub span: Option<Range<usize>>,
    /// What is wrong: lower case, no full stop, naming the object.
    pub message: String,
    /// What to write instead, or the nearest name.
    pub help: Option<String>,
    /// Edits of the file that mend it for certain; none where only the author can know.
    pub fix: Vec<Edit>,
    /// The file whose errors this one follows from.
    pub follows: Option<PathBuf>,
}

impl Diagnostic {
    /// An error.
    pub fn error(
        code: &'static str,
        file: impl Into<PathBuf>,
        span: impl Into<Option<Range<usize>>>,
        message: impl Into<String>,
    ) -> Self {
        Diagnostic {
            code,
            severity: Severity::Error,
            file: file.into(),
            span: span.into(),
            message: message.into(),
            help: None,
            fix: Vec::new(),
            follows: None,
        }
    }

    /// A warning.
    pub fn warning(
        code: &'static str,
        file: impl Into<PathBuf>,
        span: impl Into<Option<Range<usize>>>,
        message: impl Into<String>,
    ) -> Self {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, file, span, message) }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says from the errors of which file this one follows.
    #[must_use]
    pub fn follows(mut self, file: impl Into<PathBuf>) -> Self {
        self.follows = Some(file.into());
        self
    }

    /// Adds the edits that mend it for certain.
    #[must_use]
    pub fn fix(mut self, edits: impl IntoIterator<Item = Edit>) -> Self {
        self.fix.extend(edits);
        self
    }
}

/// The candidate closest to `name`, when it is close enough to be what was meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count().max(3) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

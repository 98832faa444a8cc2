//! What is wrong in a file of the project: the author's errors, all collected, never the first only.
//!
//! The world's errors (network, disk, database) are each module's `Error` enum instead.

pub mod codes;
mod explanations;
mod render;

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

pub use explanations::{Explanation, explain, explanations};
pub use render::{render_human, render_json};

/// How bad it is: an error keeps the project from being accepted, a warning does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The project is not accepted.
    Error,
    /// Accepted, but the author should look.
    Warning,
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

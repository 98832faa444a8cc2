//! JUnit XML: every file of the project is a case that passes, and every problem one of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Region, message_and_help, shown, sorted};
use crate::diagnostic::{Diagnostic, Severity, explain};
use crate::junit::{Case, Failure, Suite, render};

/// A suite a file. Errors are failures; warnings and notes pass, and are told in the output of their case.
pub fn render_junit(diagnostics: &[Diagnostic], sources: &BTreeMap<PathBuf, String>) -> String {
    let mut told: BTreeMap<&Path, Vec<&Diagnostic>> = BTreeMap::new();
    for diagnostic in sorted(diagnostics) {
        told.entry(&diagnostic.file).or_default().push(diagnostic);
    }
    let files: BTreeSet<&Path> = sources.keys().map(PathBuf::as_path).chain(told.keys().copied()).collect();
    let suites: Vec<Suite> = files
        .into_iter()
        .map(|file| {
            let name = shown(file);
            let of_file = told.get(file).map(Vec::as_slice).unwrap_or_default();
            let mut cases: Vec<Case> =
                of_file.iter().map(|diagnostic| case(diagnostic, sources, name.clone())).collect();
            if cases.is_empty() {
                cases.push(Case::passed(name.clone(), "no problems"));
            }
            Suite { name, cases }
        })
        .collect();
    render("tagflow check", &suites)
}

fn case(diagnostic: &Diagnostic, sources: &BTreeMap<PathBuf, String>, class: String) -> Case {
    let at = Region::of(diagnostic, sources)
        .map_or(String::new(), |region| format!(":{}:{}", region.start.0, region.start.1));
    let cause = explain(diagnostic.code).map_or_else(String::new, |entry| format!("\n\n{}", entry.cause()));
    let text = format!("{class}{at}: {}{cause}", message_and_help(diagnostic));
    let mut case = Case::passed(class, format!("{} {}", diagnostic.code, diagnostic.message));
    match diagnostic.severity {
        Severity::Error => {
            let message = diagnostic.message.clone();
            case.failure = Some(Failure { kind: diagnostic.code.to_string(), message, text });
        }
        Severity::Warning | Severity::Note => case.output = text,
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_fail_and_files_without_problems_pass() {
        let sources = ["tags/a.sql", "tags/b.sql"].map(|file| (PathBuf::from(file), "SELECT 1".to_owned()));
        let told = [
            Diagnostic::error("T0107", "tags/b.sql", 0..6, "wrong"),
            Diagnostic::warning("T0107", "tags/b.sql", 7..8, "doubtful"),
        ];
        let text = render_junit(&told, &BTreeMap::from(sources));
        assert!(text.contains("<testsuites name=\"tagflow check\" tests=\"3\" failures=\"1\" errors=\"0\">"), "{text}");
        assert!(text.contains("<testcase classname=\"tags/a.sql\" name=\"no problems\"/>"), "{text}");
        assert!(text.contains("<failure type=\"T0107\" message=\"wrong\">tags/b.sql:1:1: wrong"), "{text}");
        assert!(text.contains("<system-out>tags/b.sql:1:8: doubtful"), "{text}");
    }
}

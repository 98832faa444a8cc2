//! Diagnostics for people, with the line quoted and the place underlined, and for programs, as JSON.
//!
//! Enters: diagnostics and the text of the files. Leaves: text. Passwords that stand in a quoted line are masked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ariadne::{Color, Config, IndexType, Label, Report, ReportKind, Source};
use serde_json::{Value, json};

use super::{Diagnostic, Severity};

/// All diagnostics in the order of files and places, and a line that counts them. Empty when there are none.
pub fn render_human(diagnostics: &[Diagnostic], sources: &BTreeMap<PathBuf, String>, colour: bool) -> String {
    if diagnostics.is_empty() {
        return String::new();
    }
    let mut out = String::new();
    for diagnostic in sorted(diagnostics) {
        match place(diagnostic, sources) {
            Some((text, span)) => out.push_str(&quoted(diagnostic, text, span, colour)),
            None => out.push_str(&unquoted(diagnostic)),
        }
        out.push('\n');
    }
    out.push_str(&summary(diagnostics));
    out.push('\n');
    out
}

/// All diagnostics as a JSON array, in the order of files and places.
/// Lines and columns count from 1, columns in characters; both are null when the whole file is meant.
pub fn render_json(diagnostics: &[Diagnostic], sources: &BTreeMap<PathBuf, String>) -> String {
    let list: Vec<Value> = sorted(diagnostics)
        .into_iter()
        .map(|diagnostic| {
            let position = place(diagnostic, sources).map(|(text, span)| position(text, span.start));
            json!({
                "code": diagnostic.code,
                "severity": diagnostic.severity,
                "file": diagnostic.file,
                "line": position.map(|(line, _)| line),
                "column": position.map(|(_, column)| column),
                "span": diagnostic.span.as_ref().map(|span| json!([span.start, span.end])),
                "message": diagnostic.message,
                "help": diagnostic.help,
            })
        })
        .collect();
    format!("{:#}", Value::Array(list))
}

/// Line and column of a byte, both from 1, the column in characters.
pub fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn sorted(diagnostics: &[Diagnostic]) -> Vec<&Diagnostic> {
    let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
    sorted.sort_by_key(|diagnostic| (&diagnostic.file, diagnostic.span.as_ref().map(|span| (span.start, span.end))));
    sorted
}

/// The text and the place in it, kept within the text and at least one character wide where there is one.
fn place<'a>(diagnostic: &Diagnostic, sources: &'a BTreeMap<PathBuf, String>) -> Option<(&'a str, Range<usize>)> {
    let text = sources.get(&diagnostic.file)?.as_str();
    let span = diagnostic.span.as_ref()?;
    let mut start = text.floor_char_boundary(span.start);
    let mut end = text.ceil_char_boundary(span.end.min(text.len())).max(start);
    if start == end {
        match text[start..].chars().next().filter(|c| *c != '\n') {
            Some(next) => end += next.len_utf8(),
            // At the end of a line or of the text: the character before it.
            None => start -= text[..start].chars().next_back().filter(|c| *c != '\n').map_or(0, char::len_utf8),
        }
    }
    Some((text, start..end))
}

fn quoted(diagnostic: &Diagnostic, text: &str, span: Range<usize>, colour: bool) -> String {
    let file = shown(&diagnostic.file);
    let (kind, tint) = match diagnostic.severity {
        Severity::Error => (ReportKind::Custom("error", Color::Red), Color::Red),
        Severity::Warning => (ReportKind::Custom("warning", Color::Yellow), Color::Yellow),
    };
    let mut report = Report::build(kind, (file.clone(), span.clone()))
        .with_config(Config::default().with_index_type(IndexType::Byte).with_color(colour))
        .with_code(diagnostic.code)
        .with_message(&diagnostic.message)
        .with_label(Label::new((file.clone(), span)).with_color(tint));
    if let Some(help) = &diagnostic.help {
        report = report.with_help(help);
    }
    let mut out = Vec::new();
    // Writing into memory cannot fail; were it to, the plain form says the same.
    match report.finish().write((file, Source::from(mask_secrets(text))), &mut out) {
        Ok(()) => String::from_utf8_lossy(&out).lines().map(|line| format!("{}\n", line.trim_end())).collect(),
        Err(_) => unquoted(diagnostic),
    }
}

fn unquoted(diagnostic: &Diagnostic) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut out =
        format!("[{}] {severity}: {}\n   in {}\n", diagnostic.code, diagnostic.message, shown(&diagnostic.file));
    if let Some(help) = &diagnostic.help {
        out.push_str(&format!("   help: {help}\n"));
    }
    out
}

fn summary(diagnostics: &[Diagnostic]) -> String {
    let count = |severity| diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let files: BTreeSet<&PathBuf> = diagnostics.iter().map(|diagnostic| &diagnostic.file).collect();
    let parts: Vec<String> = [(count(Severity::Error), "error"), (count(Severity::Warning), "warning")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| plural(number, noun))
        .collect();
    format!("{} in {}", parts.join(" and "), plural(files.len(), "file"))
}

fn plural(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Paths are shown with `/` on every system.
fn shown(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

/// Replaces what looks like a password by as many `*` as it has bytes, so that places stay where they are.
fn mask_secrets(text: &str) -> String {
    text.split_inclusive('\n').map(mask_line).collect()
}

fn mask_line(line: &str) -> String {
    let mut hidden = Vec::new();
    // user:password@ of an address
    if let Some(scheme) = line.find("://") {
        let login_start = scheme + 3;
        let end = line[login_start..].find(['"', '\'', ' ']).map_or(line.len(), |end| login_start + end);
        if let Some(at) = line[login_start..end].rfind('@')
            && let Some(colon) = line[login_start..login_start + at].find(':')
        {
            hidden.push(login_start + colon + 1..login_start + at);
        }
    }
    // "sasl.password" = "…" and its like
    if let Some((key, _)) = line.split_once('=')
        && ["password", "secret", "token"].iter().any(|word| key.to_lowercase().contains(word))
        && let Some(open) = line[key.len()..].find(['"', '\'']).map(|open| key.len() + open + 1)
    {
        let close = line[open..].rfind(['"', '\'']).map_or(line.trim_end().len(), |close| open + close);
        hidden.push(open..close.max(open));
    }
    let mut masked = line.to_owned();
    for range in hidden {
        if !masked[range.clone()].starts_with("${") {
            let stars = "*".repeat(range.len());
            masked.replace_range(range, &stars);
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_quoted_lines_are_masked() {
        let text = "url = \"mysql://tags:hünter2@db/x\"\nurl = \"mysql://tags:${PASSWORD}@db/x\"\n\"sasl.password\" = \"abc\"\n";
        let masked = mask_secrets(text);
        assert_eq!(masked.len(), text.len());
        assert_eq!(
            masked,
            "url = \"mysql://tags:********@db/x\"\nurl = \"mysql://tags:${PASSWORD}@db/x\"\n\"sasl.password\" = \"***\"\n"
        );
    }

    #[test]
    fn json_names_line_and_column() {
        let file = PathBuf::from("tagflow.toml");
        let sources = BTreeMap::from([(file.clone(), "a = 1\nü = x\n".to_owned())]);
        let diagnostics = [Diagnostic::error("T0107", file, 11..12, "no value").help("write one")];
        let value: Value = serde_json::from_str(&render_json(&diagnostics, &sources)).unwrap();
        assert_eq!(value[0]["line"], 2);
        assert_eq!(value[0]["column"], 5);
        assert_eq!(value[0]["severity"], "error");
    }

    #[test]
    fn no_diagnostics_render_as_nothing() {
        assert_eq!(render_human(&[], &BTreeMap::new(), false), "");
    }

    #[test]
    fn places_outside_of_the_text_are_kept_within_it() {
        let file = PathBuf::from("a.sql");
        let sources = BTreeMap::from([(file.clone(), "SELECT".to_owned())]);
        let text = render_human(&[Diagnostic::error("T0401", file, 90..99, "ended")], &sources, false);
        assert!(text.contains("a.sql:1:6"), "{text}");
    }
}

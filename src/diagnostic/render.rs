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
    // The file that is quoted from: a broken file may have thousands of problems.
    let mut page: (String, Source<String>) = (String::new(), Source::from(String::new()));
    for diagnostic in sorted(diagnostics) {
        match place(diagnostic, sources) {
            Some((text, span)) => {
                let file = shown(&diagnostic.file);
                if page.0 != file {
                    page = (file, Source::from(mask_secrets(text)));
                }
                out.push_str(&quoted(diagnostic, &mut page, span, colour));
            }
            None => out.push_str(&unquoted(diagnostic)),
        }
        out.push('\n');
    }
    out.push_str(&summary(diagnostics));
    out.push('\n');
    out
}

/// All diagnostics as one JSON object, in the order of files and places: how many `errors` and `warnings`, and the
/// `diagnostics` themselves. Lines and columns count from 1, columns in characters, and the end is the first character
/// that is not meant; all four are null when the whole file is.
pub fn render_json(diagnostics: &[Diagnostic], sources: &BTreeMap<PathBuf, String>) -> String {
    let list: Vec<Value> = sorted(diagnostics)
        .into_iter()
        .map(|diagnostic| {
            let place = place(diagnostic, sources);
            let start = place.as_ref().map(|(text, span)| position(text, span.start));
            let end = place.as_ref().map(|(text, span)| position(text, span.end));
            json!({
                "code": diagnostic.code,
                "severity": diagnostic.severity,
                "file": shown(&diagnostic.file),
                "line": start.map(|(line, _)| line),
                "column": start.map(|(_, column)| column),
                "end_line": end.map(|(line, _)| line),
                "end_column": end.map(|(_, column)| column),
                "message": diagnostic.message,
                "help": diagnostic.help,
            })
        })
        .collect();
    let (errors, warnings) = (count(diagnostics, Severity::Error), count(diagnostics, Severity::Warning));
    format!("{:#}\n", json!({ "errors": errors, "warnings": warnings, "diagnostics": list }))
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

fn quoted(diagnostic: &Diagnostic, page: &mut (String, Source<String>), span: Range<usize>, colour: bool) -> String {
    let (kind, tint) = match diagnostic.severity {
        Severity::Error => (ReportKind::Error, Color::Red),
        Severity::Warning => (ReportKind::Warning, Color::Yellow),
    };
    // Masking keeps bytes where they are, but not characters: these are counted after it.
    let masked = page.1.text();
    let characters = |byte: usize| masked[..masked.floor_char_boundary(byte)].chars().count();
    let place = (page.0.clone(), characters(span.start)..characters(span.end));
    // Only a label that says something is underlined.
    let label = Label::new(place.clone()).with_message(diagnostic.help.as_deref().unwrap_or("here")).with_color(tint);
    let report = Report::build(kind, place)
        .with_config(Config::default().with_index_type(IndexType::Char).with_color(colour))
        .with_code(diagnostic.code)
        .with_message(&diagnostic.message)
        .with_label(label);
    let mut out = Vec::new();
    // Writing into memory cannot fail; were it to, the plain form says the same.
    match report.finish().write(page, &mut out) {
        Ok(()) => String::from_utf8_lossy(&out)
            .lines()
            .map(str::trim_end)
            .filter(|line| !matches!(line.trim(), "" | "│"))
            .map(|line| format!("{line}\n"))
            .collect(),
        Err(_) => unquoted(diagnostic),
    }
}

fn unquoted(diagnostic: &Diagnostic) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "Error",
        Severity::Warning => "Warning",
    };
    let mut out = format!("[{}] {severity}: {}\n", diagnostic.code, diagnostic.message);
    out.push_str(&format!("   ╭─[ {} ]\n", shown(&diagnostic.file)));
    if let Some(help) = &diagnostic.help {
        out.push_str(&format!("   │ {help}\n"));
    }
    out.push_str("───╯\n");
    out
}

fn summary(diagnostics: &[Diagnostic]) -> String {
    let files: BTreeSet<&PathBuf> = diagnostics.iter().map(|diagnostic| &diagnostic.file).collect();
    let parts: Vec<String> = [(Severity::Error, "error"), (Severity::Warning, "warning")]
        .into_iter()
        .map(|(severity, noun)| (count(diagnostics, severity), noun))
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| plural(number, noun))
        .collect();
    format!("{} in {}", parts.join(" and "), plural(files.len(), "file"))
}

fn count(diagnostics: &[Diagnostic], severity: Severity) -> usize {
    diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
}

fn plural(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Paths are shown with `/` on every system.
fn shown(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

/// Replaces what looks like a password by as many `*` as it has bytes, so that places stay where they are.
/// Control characters, which a terminal would obey, become `?`.
fn mask_secrets(text: &str) -> String {
    let printable = text.replace(|c: char| c.is_ascii_control() && !matches!(c, '\n' | '\r' | '\t'), "?");
    printable.split_inclusive('\n').map(mask_line).collect()
}

/// What names a secret in a key.
const SECRET_WORDS: &[&str] = &["password", "secret", "token", "key.pem"];

fn mask_line(line: &str) -> String {
    let quote = ['"', '\''];
    let mut hidden = Vec::new();
    // user:password@ of an address
    if let Some(scheme) = line.find("://") {
        let login_start = scheme + 3;
        let is_web = line[..scheme].ends_with("http") || line[..scheme].ends_with("https");
        // A password may have any characters; behind a link in a comment, an @ says nothing.
        let ends = |character: char| quote.contains(&character) || is_web && character == ' ';
        let end = line[login_start..].find(ends).map_or(line.len(), |end| login_start + end);
        if let Some(at) = line[login_start..end].rfind('@')
            && let Some(colon) = line[login_start..login_start + at].find(':')
        {
            hidden.push(login_start + colon + 1..login_start + at);
        }
    }
    // "sasl.password" = "…" and its like
    let lower = line.to_ascii_lowercase();
    let mut from = 0;
    while let Some(word) = SECRET_WORDS.iter().filter_map(|word| lower[from..].find(word)).min().map(|at| from + at)
        && let Some(equals) = line[word..].find('=').map(|equals| word + equals)
        && let Some(begin) = line[equals + 1..].find(|c: char| c != ' ').map(|begin| equals + 1 + begin)
    {
        let sign = line[begin..].chars().next().filter(|sign| quote.contains(sign));
        let open = begin + sign.map_or(0, char::len_utf8);
        // A number has no quotes.
        let ends = |c: char| sign.map_or(c.is_whitespace() || matches!(c, ',' | '}'), |sign| c == sign);
        let close = line[open..].find(ends).map_or(line.trim_end().len(), |close| open + close).max(open);
        hidden.push(open..close);
        from = close;
    }
    let mut masked = line.to_owned();
    for range in hidden {
        let secret = &masked[range.clone()];
        if !(secret.starts_with("${") && secret.ends_with('}')) {
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
        let text = "url = \"mysql://tags:hünter 2@db/x\"\nurl = \"mysql://tags:${PASSWORD}@db/x\"\nkafka = { \"sasl.password\" = \"abc\" }\nregistry = \"https://me:a/b@host\" # https://x:1 or me@host\npassword = 12345, token=\"\"\n";
        let masked = mask_secrets(text);
        assert_eq!(masked.len(), text.len());
        assert_eq!(
            masked,
            "url = \"mysql://tags:*********@db/x\"\nurl = \"mysql://tags:${PASSWORD}@db/x\"\nkafka = { \"sasl.password\" = \"***\" }\nregistry = \"https://me:***@host\" # https://x:1 or me@host\npassword = *****, token=\"\"\n"
        );
    }

    #[test]
    fn json_names_line_and_column() {
        let file = PathBuf::from("tagflow.toml");
        let sources = BTreeMap::from([(file.clone(), "a = 1\nü = x\n".to_owned())]);
        let diagnostics = [Diagnostic::error("T0107", file, 11..12, "no value").help("write one")];
        let value: Value = serde_json::from_str(&render_json(&diagnostics, &sources)).unwrap();
        assert_eq!(value["diagnostics"][0]["line"], 2);
        assert_eq!(value["diagnostics"][0]["column"], 5);
        assert_eq!(value["diagnostics"][0]["severity"], "error");
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

    #[test]
    fn any_span_of_any_text_can_be_rendered() {
        let file = PathBuf::from("a.sql");
        for text in ["", "\n", "a\r\nb", "标签\n\n\u{2028}x\u{85}é\n", "\u{feff}a = 1\t\u{1b}[31m\r\n\r\n"] {
            let sources = BTreeMap::from([(file.clone(), text.to_owned())]);
            for start in 0..text.len() + 2 {
                for end in start..text.len() + 3 {
                    let diagnostic = Diagnostic::error("T0401", &file, start..end, "wrong").help("mend it");
                    let rendered = render_human(&[diagnostic], &sources, false);
                    assert!(rendered.contains("wrong") && rendered.contains("mend it"), "{text:?} {start}..{end}");
                    assert!(!rendered.contains('\u{1b}'), "{text:?} {start}..{end}");
                }
            }
        }
    }
}

//! Diagnostics for people, with the line quoted and the place underlined. Passwords that stand in a quoted line are
//! masked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use ariadne::{Color, Config, IndexType, Label, Report, ReportKind, Source};

use super::{count, place, shown, sorted};
use crate::diagnostic::{Diagnostic, Severity, explain, lint_of};

/// All diagnostics in the order of files and places, and a line that counts them. The cause stands below the first of
/// each code. Empty when there are none.
pub fn render_human(diagnostics: &[Diagnostic], sources: &BTreeMap<PathBuf, String>, colour: bool) -> String {
    if diagnostics.is_empty() {
        return String::new();
    }
    let mut out = String::new();
    // The file that is quoted from: a broken file may have thousands of problems.
    let mut page: (String, Source<String>) = (String::new(), Source::from(String::new()));
    let mut told: BTreeSet<&str> = BTreeSet::new();
    for diagnostic in sorted(diagnostics) {
        let cause = if told.insert(diagnostic.code) { cause(diagnostic) } else { None };
        let cause = cause.as_deref();
        match place(diagnostic, sources) {
            Some((text, span)) => {
                let file = shown(&diagnostic.file);
                if page.0 != file {
                    page = (file, Source::from(mask_secrets(text)));
                }
                out.push_str(&quoted(diagnostic, cause, &mut page, span, colour));
            }
            None => out.push_str(&unquoted(diagnostic, cause)),
        }
        out.push('\n');
    }
    out.push_str(&summary(diagnostics));
    if let Some(first) = told.first() {
        out.push_str(&format!("\nmore of a code, with an example: tagflow check --explain {first}"));
    }
    out.push('\n');
    out
}

/// Why it is, and how it is silenced where it can be.
fn cause(diagnostic: &Diagnostic) -> Option<String> {
    let cause = explain(diagnostic.code)?.cause();
    let lint = lint_of(diagnostic.code).filter(|_| diagnostic.severity == Severity::Warning);
    Some(match lint {
        Some(lint) => {
            format!("{cause}\nWhere it is meant: lints.{lint} = \"allow\" in the header, or in tagflow.toml.")
        }
        None => cause.to_owned(),
    })
}

fn quoted(
    diagnostic: &Diagnostic,
    cause: Option<&str>,
    page: &mut (String, Source<String>),
    span: Range<usize>,
    colour: bool,
) -> String {
    let (kind, tint) = match diagnostic.severity {
        Severity::Error => (ReportKind::Error, Color::Red),
        Severity::Warning => (ReportKind::Warning, Color::Yellow),
        Severity::Note => (ReportKind::Custom("Note", Color::Blue), Color::Blue),
    };
    // Masking keeps bytes where they are, but not characters: these are counted after it.
    let masked = page.1.text();
    let characters = |byte: usize| masked[..masked.floor_char_boundary(byte)].chars().count();
    let place = (page.0.clone(), characters(span.start)..characters(span.end));
    // Only a label that says something is underlined.
    let label = Label::new(place.clone()).with_message(diagnostic.help.as_deref().unwrap_or("here")).with_color(tint);
    let mut report = Report::build(kind, place)
        .with_config(Config::default().with_index_type(IndexType::Char).with_color(colour))
        .with_code(diagnostic.code)
        .with_message(&diagnostic.message)
        .with_label(label);
    if let Some(cause) = cause {
        report = report.with_note(cause);
    }
    let mut out = Vec::new();
    // Writing into memory cannot fail; were it to, the plain form says the same.
    match report.finish().write(page, &mut out) {
        Ok(()) => String::from_utf8_lossy(&out)
            .lines()
            .map(str::trim_end)
            .filter(|line| !matches!(line.trim(), "" | "│"))
            .map(|line| format!("{line}\n"))
            .collect(),
        Err(_) => unquoted(diagnostic, cause),
    }
}

fn unquoted(diagnostic: &Diagnostic, cause: Option<&str>) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "Error",
        Severity::Warning => "Warning",
        Severity::Note => "Note",
    };
    let mut out = format!("[{}] {severity}: {}\n", diagnostic.code, diagnostic.message);
    out.push_str(&format!("   ╭─[ {} ]\n", shown(&diagnostic.file)));
    if let Some(help) = &diagnostic.help {
        out.push_str(&format!("   │ {help}\n"));
    }
    if let Some(cause) = cause {
        out.push_str(&format!("   │ Note: {}\n", cause.replace('\n', "\n   │       ")));
    }
    out.push_str("───╯\n");
    out
}

fn summary(diagnostics: &[Diagnostic]) -> String {
    let files: BTreeSet<&PathBuf> = diagnostics.iter().map(|diagnostic| &diagnostic.file).collect();
    let parts: Vec<String> = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")]
        .into_iter()
        .map(|(severity, noun)| (count(diagnostics, severity), noun))
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| plural(number, noun))
        .collect();
    format!("{} in {}", parts.join(" and "), plural(files.len(), "file"))
}

fn plural(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
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

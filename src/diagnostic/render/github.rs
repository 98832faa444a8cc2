//! Workflow commands of GitHub Actions: `::error file=…,line=…::message`, which it shows at the changed lines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Region, below, message_and_help, shown, sorted};
use crate::diagnostic::{Diagnostic, Severity, explain};

/// A line a diagnostic. `folder` is the project's, as it is called from where the workflow runs: GitHub finds the files
/// from there.
pub fn render_github(diagnostics: &[Diagnostic], sources: &BTreeMap<PathBuf, String>, folder: &Path) -> String {
    sorted(diagnostics).into_iter().map(|diagnostic| line(diagnostic, sources, folder)).collect()
}

fn line(diagnostic: &Diagnostic, sources: &BTreeMap<PathBuf, String>, folder: &Path) -> String {
    let command = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let title = explain(diagnostic.code).map_or("", |entry| entry.title());
    let mut properties = vec![("file", shown(&below(folder, &diagnostic.file)))];
    if let Some(Region { start, end }) = Region::of(diagnostic, sources) {
        properties.extend([("line", start.0.to_string()), ("endLine", end.0.to_string())]);
        // Columns are of one line.
        if start.0 == end.0 {
            properties.extend([("col", start.1.to_string()), ("endColumn", end.1.to_string())]);
        }
    }
    properties.push(("title", format!("{}: {title}", diagnostic.code)));
    let properties: Vec<String> =
        properties.iter().map(|(name, value)| format!("{name}={}", property(value))).collect();
    format!("::{command} {}::{}\n", properties.join(","), data(&message_and_help(diagnostic)))
}

/// What a message must not hold as it is.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What the value of a property must not hold either.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_is_one_line_with_its_signs_escaped() {
        let file = PathBuf::from("tags/50%, a:b.sql");
        let sources = BTreeMap::from([(file.clone(), "SELECT 1\nFROM x\n".to_owned())]);
        let told = [
            Diagnostic::error("T0107", &file, 9..13, "100% wrong:\r\nhere, ::error::").help("mend it"),
            Diagnostic::warning("T0107", &file, 0..13, "two lines"),
            Diagnostic::error("T0101", "tags/gone.sql", None, "cannot read this file"),
        ];
        assert_eq!(
            render_github(&told, &sources, Path::new("shop")),
            "::warning file=shop/tags/50%25%2C a%3Ab.sql,line=1,endLine=2,title=T0107%3A not a possible value::two lines\n\
             ::error file=shop/tags/50%25%2C a%3Ab.sql,line=2,endLine=2,col=1,endColumn=5,title=T0107%3A not a possible value\
             ::100%25 wrong:%0D%0Ahere, ::error::%0Ahelp: mend it\n\
             ::error file=shop/tags/gone.sql,title=T0101%3A a file or folder cannot be read::cannot read this file\n"
        );
    }
}

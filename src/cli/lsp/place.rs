//! Places of the protocol, which counts lines and UTF-16 units, and places of files, which are bytes.

use std::ops::Range;
use std::path::{Path, PathBuf};

use lsp_types::{DiagnosticSeverity, NumberOrString, Position, Uri};
use url::Url;

use crate::diagnostic::{Diagnostic, Severity};

/// The byte at a place; the end of the line, or of the text, for one that lies behind it.
pub(super) fn byte(text: &str, position: Position) -> usize {
    let line = usize::try_from(position.line).unwrap_or(usize::MAX);
    let start = match line {
        0 => 0,
        line => match text.match_indices('\n').nth(line - 1) {
            Some((at, _)) => at + 1,
            None => return text.len(),
        },
    };
    let mut units = position.character as usize;
    for (at, c) in text[start..].char_indices() {
        if units == 0 || c == '\n' || c == '\r' {
            return start + at;
        }
        units = units.saturating_sub(c.len_utf16());
    }
    text.len()
}

/// The place of a byte.
pub(super) fn position(text: &str, byte: usize) -> Position {
    let before = &text[..text.floor_char_boundary(byte)];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count();
    let character = before[start..].encode_utf16().count();
    Position::new(u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(character).unwrap_or(u32::MAX))
}

/// The place of some bytes.
pub(super) fn range(text: &str, bytes: Range<usize>) -> lsp_types::Range {
    lsp_types::Range::new(position(text, bytes.start), position(text, bytes.end))
}

/// The bytes that a problem is shown at: those that are meant, or the first line.
pub(super) fn bytes(told: &Diagnostic, text: &str) -> Range<usize> {
    told.span.clone().unwrap_or(0..text.find('\n').unwrap_or(text.len()))
}

/// A problem as an editor shows it: with what to do, in one text.
pub(super) fn diagnostic(told: &Diagnostic, text: &str) -> lsp_types::Diagnostic {
    let message = match &told.help {
        Some(help) => format!("{}\n{help}", told.message),
        None => told.message.clone(),
    };
    lsp_types::Diagnostic {
        range: range(text, bytes(told, text)),
        severity: Some(match told.severity {
            Severity::Error => DiagnosticSeverity::ERROR,
            Severity::Warning => DiagnosticSeverity::WARNING,
            Severity::Note => DiagnosticSeverity::INFORMATION,
        }),
        code: Some(NumberOrString::String(told.code.to_string())),
        source: Some("tagflow".to_string()),
        message,
        ..lsp_types::Diagnostic::default()
    }
}

/// The file of the project that an editor means.
pub(super) fn file_of(root: &Path, uri: &str) -> Option<PathBuf> {
    let path = Url::parse(uri).ok()?.to_file_path().ok()?;
    if let Ok(file) = path.strip_prefix(root) {
        return Some(file.to_owned());
    }
    // A folder may be reached by several names; the file itself may not be there yet.
    let folder = path.parent()?.canonicalize().ok()?;
    Some(folder.join(path.file_name()?).strip_prefix(root).ok()?.to_owned())
}

/// What an editor calls a file of the project.
pub(super) fn uri_of(root: &Path, file: &Path) -> Option<Uri> {
    Url::from_file_path(root.join(file)).ok()?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_units_of_utf_16() {
        let text = "a😀标\r\nx";
        for (at, line, character) in [(0, 0, 0), (1, 0, 1), (5, 0, 3), (8, 0, 4), (10, 1, 0), (11, 1, 1)] {
            assert_eq!(position(text, at), Position::new(line, character));
            assert_eq!(byte(text, Position::new(line, character)), at);
        }
        assert_eq!(byte(text, Position::new(0, 99)), 8);
        assert_eq!(byte(text, Position::new(9, 0)), text.len());
    }
}

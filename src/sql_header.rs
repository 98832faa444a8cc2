//! Finds the TOML header of a `.sql` file: `/* tag … */` or `/* view … */` before the query.
//!
//! Enters: the text of the file. Leaves: places in it, or diagnostics. Never looks inside the SQL.

use std::ops::Range;
use std::path::Path;

use crate::diagnostic::{Diagnostic, Edit, codes};

/// A `.sql` file cut in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlFile {
    /// The header's TOML, without the comment signs and the word; `None` where there is no header.
    pub(crate) toml: Option<Range<usize>>,
    /// True when nothing but comments stands in the file.
    pub(crate) is_blank: bool,
}

/// Cuts the file; `word` is `tag` or `view`. The header is the first block comment that begins with the word.
///
/// # Errors
/// A comment that does not end, or that only looks like a header.
pub(crate) fn cut(file: &Path, text: &str, word: &str) -> Result<SqlFile, Diagnostic> {
    let mut toml = None;
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '\u{feff}');
        at += rest.len() - trimmed.len();
        if trimmed.starts_with("--") {
            at += trimmed.find('\n').map_or(trimmed.len(), |newline| newline + 1);
        } else if let Some(inner) = trimmed.strip_prefix("/*") {
            // The star of `/*/` opens, and closes nothing.
            let Some(length) = inner.find("*/").map(|end| end + 2) else {
                return Err(Diagnostic::error(codes::HEADER, file, at..at + 2, "this comment has no end")
                    .help("close it with */"));
            };
            if let Some(found) = read_comment(file, text, at..at + length, word, toml.is_some())? {
                toml = Some(found);
            }
            at += length + 2;
        } else {
            return Ok(SqlFile { toml, is_blank: trimmed.is_empty() });
        }
    }
}

/// The TOML of a comment that is the header; `comment` starts at its sign and ends before the closing one.
fn read_comment(
    file: &Path,
    text: &str,
    comment: Range<usize>,
    word: &str,
    has_header: bool,
) -> Result<Option<Range<usize>>, Diagnostic> {
    let inner = &text[comment.start + 2..comment.end];
    let content = inner.trim_start_matches(|c: char| c.is_whitespace() || c == '*' || c == '!' || c == '+');
    let start = comment.end - content.len();
    let found = content.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    let place = start..start + found.len();
    let error = |message: String| Diagnostic::error(codes::HEADER, file, place.clone(), message);
    if found == word {
        if let Some(nested) = content.find("/*") {
            let nested = start + nested;
            let message = format!("the {word} header holds \"/*\", which starts a comment within a comment");
            return Err(Diagnostic::error(codes::HEADER, file, nested..nested + 2, message)
                .help("write the text without \"/*\""));
        }
        if has_header {
            return Err(error(format!("a second {word} header")).help("keep one header a file"));
        }
        return Ok(Some(place.end..comment.end));
    }
    // Prose may begin with any word; only what goes on like TOML was meant as a header.
    let goes_on_like_toml = content.contains('=');
    let lower = found.to_lowercase();
    if goes_on_like_toml && !has_header {
        let other = if word == "tag" { "view" } else { "tag" };
        if lower == other {
            let place = if other == "view" { "schemas/" } else { "tags/" };
            return Err(error(format!("this is the header of a {other}, but the file is that of a {word}"))
                .help(format!("write /* {word}, or move the file to {place}")));
        }
        let near = strsim::damerau_levenshtein(&lower, word) <= 1;
        let known = ["title", "description", "owner", "entity", "method", "status", "columns", "on_error"];
        if near {
            let fix = Edit { span: place.clone(), text: word.to_owned() };
            let problem = error(format!("\"{found}\" does not start a header"));
            return Err(problem.help(format!("did you mean /* {word}?")).fix([fix]));
        }
        if known.contains(&found) {
            return Err(error("this comment looks like a header, but does not begin with its word".to_owned())
                .help(format!("write /* {word} in its first line")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Option<String> {
        cut(Path::new("tags/a.sql"), text, "tag").unwrap().toml.map(|range| text[range].to_owned())
    }

    #[test]
    fn header_is_found_after_other_comments() {
        assert_eq!(
            toml("-- licence\n/* of the shop */\n/* tag\nowner = 'a'\n*/ SELECT 1"),
            Some("\nowner = 'a'\n".into())
        );
    }

    #[test]
    fn header_may_be_one_line() {
        assert_eq!(toml("/* tag title = 'x' */ SELECT 1"), Some(" title = 'x' ".into()));
    }

    #[test]
    fn sign_that_opens_a_comment_does_not_close_it() {
        assert_eq!(toml("/*/ */ /* tag x = 1 */ SELECT 1"), Some(" x = 1 ".into()));
        assert_eq!(cut(Path::new("a.sql"), "/*/", "tag").unwrap_err().message, "this comment has no end");
    }

    #[test]
    fn comment_within_the_query_is_no_header() {
        assert_eq!(toml("SELECT 1 /* tag title = 'x' */"), None);
    }

    #[test]
    fn file_of_comments_is_blank() {
        assert!(cut(Path::new("a.sql"), "/* tag */ -- nothing yet\n;\n", "tag").unwrap().is_blank);
        assert!(!cut(Path::new("a.sql"), "/* tag */ SELECT 1", "tag").unwrap().is_blank);
    }
}

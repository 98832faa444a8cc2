//! The SQL in a file, parsed, with places as bytes of the file.

use std::ops::Range;
use std::path::Path;

use datafusion::sql::sqlparser::ast::{Query, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, Tokenizer};

use crate::diagnostic::Diagnostic;
use crate::plan::codes;

/// A query that has more of a kind is refused.
const MOST_OPERATORS: usize = 1000;

/// The SQL of a file in the places that it has there.
#[derive(Debug)]
pub(crate) struct SqlText<'a> {
    file: &'a Path,
    /// As long as the file.
    text: String,
    lines: Vec<usize>,
}

impl<'a> SqlText<'a> {
    pub(crate) fn new(file: &'a Path, text: &str) -> Self {
        // Comments, the header among them, the parser skips by itself; a byte order mark it does not.
        let text = text.replace('\u{feff}', "   ");
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        SqlText { file, text, lines }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The query without blanks and comments around it.
    pub(crate) fn body(&self) -> Range<usize> {
        let mut rest = self.text.as_str();
        loop {
            rest = rest.trim_start();
            rest = match (rest.starts_with("--"), rest.strip_prefix("/*")) {
                (true, _) => rest.split_once('\n').map_or("", |(_, behind)| behind),
                (_, Some(comment)) => comment.split_once("*/").map_or("", |(_, behind)| behind),
                _ => break,
            };
        }
        let start = self.text.len() - rest.len();
        start..self.text.trim_end().len().max(start)
    }

    /// The first word of the query: where a problem of the whole is shown.
    pub(crate) fn first_word(&self) -> Range<usize> {
        self.word_at(self.body().start)
    }

    /// The word, or the sign, that begins at a byte.
    fn word_at(&self, start: usize) -> Range<usize> {
        let rest = self.text.get(start..).unwrap_or_default();
        let word = rest.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(rest.len());
        let first = rest.chars().next().map_or(0, char::len_utf8);
        start..start + word.max(first)
    }

    /// Bytes of a place of the parser's, whose columns count characters.
    pub(crate) fn byte(&self, location: Location) -> Option<usize> {
        let line = usize::try_from(location.line).ok()?.checked_sub(1)?;
        let start = *self.lines.get(line)?;
        let column = usize::try_from(location.column).ok()?.checked_sub(1)?;
        let text = &self.text[start..];
        Some(start + text.char_indices().nth(column).map_or(text.len(), |(at, _)| at))
    }

    /// Bytes of a span of the parser's.
    pub(crate) fn span(&self, span: Span) -> Range<usize> {
        match (self.byte(span.start), self.byte(span.end)) {
            (Some(start), Some(end)) if start < end => start..end,
            (Some(start), _) => self.word_at(start),
            _ => self.first_word(),
        }
    }

    /// The first place of a word, whatever its case; comments and quoted text are not looked into.
    pub(crate) fn find_word(&self, words: &[&str]) -> Option<Range<usize>> {
        let lower = self.text.to_ascii_lowercase();
        let is_word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let mut found: Vec<Range<usize>> = Vec::new();
        for word in words {
            let word = word.to_ascii_lowercase();
            let places = lower.match_indices(&word).map(|(at, _)| at..at + word.len());
            found.extend(places.filter(|place| {
                let before = place.start.checked_sub(1).and_then(|at| lower.as_bytes().get(at).copied());
                let line = &lower[lower[..place.start].rfind('\n').map_or(0, |at| at + 1)..place.start];
                !is_word(before) && !is_word(lower.as_bytes().get(place.end).copied()) && !line.contains("--")
            }));
        }
        found.into_iter().min_by_key(|place| place.start)
    }

    pub(crate) fn error(&self, code: &'static str, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.file, span, message)
    }

    pub(crate) fn warning(&self, code: &'static str, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(code, self.file, span, message)
    }

    /// The one query of the file.
    pub(crate) fn parse(&self) -> Result<Query, Vec<Diagnostic>> {
        if let Some(place) = self.too_long() {
            return Err(vec![
                self.error(
                    codes::SYNTAX,
                    place,
                    format!("the query has more than {MOST_OPERATORS} operators of a kind"),
                )
                .help("name parts of it in WITH, or write IN (…) for many OR"),
            ]);
        }
        let parsed =
            Parser::new(&GenericDialect {}).try_with_sql(&self.text).and_then(|mut parser| parser.parse_statements());
        let statements = parsed.map_err(|error| vec![self.syntax_error(&error)])?;
        let mut statements = statements.into_iter();
        match (statements.next(), statements.next()) {
            (None, _) => Err(vec![
                self.error(codes::NO_QUERY, self.body(), "the file has no query")
                    .help("write one SELECT behind the header, or set status = \"planned\" in it"),
            ]),
            (Some(_), Some(second)) => {
                let span = self.span(datafusion::sql::sqlparser::ast::Spanned::span(&second));
                Err(vec![
                    self.error(codes::NOT_ONE_QUERY, span, "a second statement in the file")
                        .help("one file is one query; put the other into a file of its own"),
                ])
            }
            (Some(Statement::Query(query)), None) => Ok(*query),
            (Some(other), None) => {
                let word = other.to_string().split_whitespace().next().unwrap_or_default().to_string();
                Err(vec![
                    self.error(codes::NOT_ONE_QUERY, self.first_word(), format!("{word} is no query"))
                        .help("a tag is one SELECT; its table is made by tagflow"),
                ])
            }
        }
    }

    /// Where the query has too many operators: a chain of them is as deep as it is long, and every step of planning
    /// and evaluating it needs stack.
    fn too_long(&self) -> Option<Range<usize>> {
        let tokens = Tokenizer::new(&GenericDialect {}, &self.text).tokenize_with_location().ok()?;
        let (mut arithmetic, mut logic) = (0, 0);
        for token in tokens {
            match &token.token {
                Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat => {
                    arithmetic += 1
                }
                Token::Word(word)
                    if matches!(word.keyword, Keyword::AND | Keyword::OR | Keyword::UNION | Keyword::NOT) =>
                {
                    logic += 1;
                }
                _ => {}
            }
            if arithmetic.max(logic) > MOST_OPERATORS {
                return Some(self.span(token.span));
            }
        }
        None
    }

    fn syntax_error(&self, error: &ParserError) -> Diagnostic {
        let (ParserError::ParserError(text) | ParserError::TokenizerError(text)) = error else {
            return self
                .error(codes::SYNTAX, self.first_word(), "the query is nested too deeply")
                .help("name parts of it in WITH");
        };
        let (message, place) = match text.rsplit_once(" at Line: ") {
            Some((message, place)) => (message, Some(place)),
            None => (text.as_str(), None),
        };
        let at = place.and_then(|place| {
            let (line, column) = place.split_once(", Column: ")?;
            let location = Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? };
            self.byte(location)
        });
        let end = self.body().end;
        let message = match message.strip_prefix("Expected: ").and_then(|rest| rest.split_once(", found: ")) {
            Some((expected, "EOF")) => format!("the query ends too early: expected {expected}"),
            Some((expected, found)) => format!("expected {expected}, found `{found}`"),
            None => message.replace("sql parser error: ", "").to_lowercase(),
        };
        let span = match at {
            Some(at) if at < end => self.word_at(at),
            _ => end.saturating_sub(1)..end,
        };
        let before = self.text[..span.start].trim_end();
        let diagnostic = self.error(codes::SYNTAX, span, message);
        if before.ends_with(',') {
            return diagnostic.help("there is a comma before it that may be too many");
        }
        diagnostic
    }
}

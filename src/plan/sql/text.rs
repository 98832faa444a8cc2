//! The SQL in a file, parsed, with places as bytes of the file.

use std::ops::Range;
use std::path::Path;

use datafusion::sql::sqlparser::ast::{Expr, Function, FunctionArguments, Query, Spanned, Statement};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, Tokenizer};

use crate::diagnostic::codes::NO_SQL;
use crate::diagnostic::{Diagnostic, Edit, nearest};
use crate::plan::codes;
use crate::plan::sql::dialect::Bound;
use crate::plan::sql::{times, windows};

/// What to write instead of a variable of another tool.
pub(crate) const WITHOUT_VARIABLES: &str = "write the value itself; NOW() and CURRENT_DATE are the clock";
/// A query that has more operators of a kind is refused.
const MOST_OPERATORS: usize = 1000;
/// More comparisons: a CASE has one for every branch, side by side.
const MOST_COMPARISONS: usize = 5000;
/// More casts and other rare things.
const MOST_CLAUSES: usize = 200;
/// More joins: planning them takes time by the cube of their number.
const MOST_JOINS: usize = 50;

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
        let header = leading_comments(text);
        let blank = text[..header].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' });
        let text = blank.collect::<String>() + &text[header..].replace('\u{feff}', "   ");
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

    /// Bytes of an expression with its brackets, of which the parser's spans leave some out.
    pub(crate) fn expr(&self, expr: &Expr) -> Range<usize> {
        if let Expr::BinaryOp { left, right, .. } = expr {
            let (left, right) = (self.expr(left), self.expr(right));
            // What the query had in other words has no place of its own.
            return if left.start < right.end { left.start..right.end } else { left };
        }
        let Range { mut start, mut end } = self.span(expr.span());
        let calls = matches!(expr, Expr::Function(function) if matches!(function.args, FunctionArguments::List(_)));
        if calls && !self.text[start..end].contains('(') {
            // `count(*)` has a span that ends with its name.
            let rest = self.text[end..].trim_start();
            end = if rest.starts_with('(') { self.text.len() - rest.len() + 1 } else { end };
        }
        let (mut unclosed, mut unopened, mut quote) = (0_usize, 0_usize, None);
        for letter in self.text[start..end].chars() {
            match (quote, letter) {
                (None, '\'' | '"' | '`') => quote = Some(letter),
                (Some(begun), letter) if begun == letter => quote = None,
                (None, '(') => unclosed += 1,
                (None, ')') if unclosed == 0 => unopened += 1,
                (None, ')') => unclosed -= 1,
                _ => {}
            }
        }
        for _ in 0..unclosed {
            end += self.text[end..].find(')').map_or(0, |at| at + 1);
        }
        for _ in 0..unopened {
            start = self.text[..start].rfind('(').unwrap_or(start);
        }
        start..end
    }

    /// Bytes of a call from its name to the bracket that closes it, without FILTER and OVER.
    pub(crate) fn call(&self, function: &Function) -> Range<usize> {
        let name = self.span(function.name.span());
        let (mut depth, mut quote) = (0_usize, None);
        for (at, letter) in self.text[name.end..].char_indices() {
            match (quote, letter) {
                (None, '\'' | '"' | '`') => quote = Some(letter),
                (Some(begun), letter) if begun == letter => quote = None,
                (None, '(') => depth += 1,
                (None, ')') if depth <= 1 => return name.start..name.end + at + 1,
                (None, ')') => depth -= 1,
                (None, letter) if depth == 0 && !letter.is_whitespace() => break,
                _ => {}
            }
        }
        name
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
                    "the query has more operators of a kind than one can follow".to_string(),
                )
                .help("name parts of it in WITH, or write IN (…) for many OR"),
            ]);
        }
        let tokens = Tokenizer::new(&Bound::default(), &self.text).tokenize_with_location();
        let tokens = tokens.map_err(|error| vec![self.syntax_error(&error.into())])?;
        let tokens = windows::written_out(self, tokens).map_err(|error| vec![error])?;
        let parsed = Parser::new(&Bound::default()).with_tokens_with_locations(tokens).parse_statements();
        let mut statements = parsed.map_err(|error| vec![self.syntax_error(&error)])?;
        times::write_out(&mut statements);
        let mut statements = statements.into_iter();
        match (statements.next(), statements.next()) {
            (None, _) => Err(vec![
                self.error(NO_SQL, self.body(), "the file has no query")
                    .help("write one SELECT behind the header, or set status = \"planned\" in it"),
            ]),
            (Some(_), Some(second)) => {
                let span = self.span(second.span());
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
        let tokens = Tokenizer::new(&Bound::default(), &self.text).tokenize_with_location().ok()?;
        let (mut operators, mut logic, mut clauses, mut comparisons, mut joins) = (0, 0, 0, 0, 0);
        for token in tokens {
            let (count, most) = match &token.token {
                // What separates is no chain, and a CASE or an IN may have many.
                Token::Whitespace(_)
                | Token::Comma
                | Token::Period
                | Token::Number(..)
                | Token::SingleQuotedString(_) => {
                    continue;
                }
                Token::LParen | Token::RParen | Token::RBracket | Token::SemiColon | Token::EOF => continue,
                Token::Eq | Token::DoubleEq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq => {
                    (&mut comparisons, MOST_COMPARISONS)
                }
                Token::Word(word) => match word.keyword {
                    Keyword::AND | Keyword::OR | Keyword::UNION | Keyword::NOT => (&mut logic, MOST_OPERATORS),
                    Keyword::JOIN | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::MINUS | Keyword::CROSS => {
                        (&mut joins, MOST_JOINS)
                    }
                    Keyword::COLLATE | Keyword::AT | Keyword::OVERLAPS | Keyword::SELECT => {
                        (&mut operators, MOST_OPERATORS)
                    }
                    Keyword::IS | Keyword::LIKE | Keyword::ILIKE | Keyword::BETWEEN | Keyword::IN | Keyword::RLIKE => {
                        (&mut comparisons, MOST_COMPARISONS)
                    }
                    _ => continue,
                },
                Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat => {
                    (&mut operators, MOST_OPERATORS)
                }
                // Casts, subscripts, bits, pipes: nobody writes hundreds.
                _ => (&mut clauses, MOST_CLAUSES),
            };
            *count += 1;
            if *count > most {
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
        if let Some(variable) = self.variable_at(span.start) {
            let message = format!("`{}` is a variable, and a tag has none", &self.text[variable.clone()]);
            return self.error(codes::PLACEHOLDER, variable, message).help(WITHOUT_VARIABLES);
        }
        let sign = self
            .text
            .get(span.clone())
            .and_then(|found| found.chars().next())
            .and_then(narrow)
            .filter(|(wide, _)| !wide.is_ascii());
        let fix = sign
            .map(|(wide, narrow)| Edit { span: span.start..span.start + wide.len_utf8(), text: narrow.to_string() });
        let is_open = message.starts_with("unterminated string literal");
        let diagnostic = self.error(codes::SYNTAX, span.clone(), message).fix(fix);
        if is_open {
            return diagnostic.help("close the text with a quote; one within it is written twice: 'it''s'");
        }
        match self.syntax_help(span) {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    }

    /// `${name}` of Hive or `{{ name }}` of a scheduler around a byte.
    fn variable_at(&self, at: usize) -> Option<Range<usize>> {
        let rest = self.text.get(at..)?.strip_prefix('{')?;
        let start = at - usize::from(self.text[..at].ends_with(['$', '{']));
        let end = at + 1 + rest.find('}')? + 1;
        Some(start..end + usize::from(self.text[end..].starts_with('}')))
    }

    /// What is often wrong where the parser stops.
    fn syntax_help(&self, span: Range<usize>) -> Option<String> {
        let found = &self.text[span.clone()];
        if let Some((wide, narrow)) = found.chars().next().and_then(narrow) {
            return Some(format!("`{wide}` is not the `{narrow}` of SQL: write `{narrow}`"));
        }
        let before = self.text[..span.start].trim_end();
        let word = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let earlier = before[..before.len() - word.len()].trim_end();
        // Not always as long.
        let last = word.to_uppercase();
        let upper = found.to_uppercase();
        if upper == "BY" && matches!(last.as_str(), "GROUP" | "ORDER") {
            return Some(format!("something is missing before {last} BY: a condition, or one side of it"));
        }
        if matches!(upper.as_str(), "GROUP" | "ORDER")
            && self.text[span.end..].trim_start().get(..2).is_none_or(|by| !by.eq_ignore_ascii_case("by"))
        {
            return Some(format!("write {upper} BY"));
        }
        if before.ends_with(',') {
            return Some("there is a comma before it that may be too many".to_string());
        }
        // Names are anything, so a word that is close to one of these is no proof.
        if let Some(near) = nearest(&upper, CLAUSES.iter().copied()).filter(|near| *near != upper) {
            return Some(format!("did you mean {near}?"));
        }
        if upper == "AS" || CLAUSES.contains(&upper.as_str()) {
            let (opened, closed) = (before.matches('(').count(), before.matches(')').count());
            return (opened > closed).then(|| format!("a bracket is not closed before `{found}`"));
        }
        if found == "(" && !last.is_empty() && earlier.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ')')
        {
            return Some(format!("a comma may be missing before `{word}`"));
        }
        None
    }
}

/// An expression out of text of ours.
pub(crate) fn expression(sql: &str) -> Option<Expr> {
    Parser::new(&Bound::default()).try_with_sql(sql).ok()?.parse_expr().ok()
}

/// Words with which a part of a query begins.
const CLAUSES: &[&str] = &["FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "JOIN", "UNION"];

/// Signs that text programs and Chinese keyboards write for those of SQL.
fn narrow(sign: char) -> Option<(char, char)> {
    let narrow = match sign {
        '‘' | '’' | '“' | '”' | '＇' | '＂' | '`' => '\'',
        '，' | '、' => ',',
        '。' => '.',
        '；' => ';',
        '（' => '(',
        '）' => ')',
        '＝' => '=',
        '＞' | '》' => '>',
        '＜' | '《' => '<',
        '－' | '–' | '—' => '-',
        '＊' | '×' => '*',
        _ => return None,
    };
    (sign != narrow).then_some((sign, narrow))
}

/// Bytes of blanks and comments before the query. A block comment ends at the first end: a header may hold `/*`.
fn leading_comments(text: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = text[at..].trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '\u{feff}');
        let start = text.len() - rest.len();
        let length = if rest.starts_with("--") {
            rest.find('\n').map_or(rest.len(), |end| end + 1)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.find("*/").map_or(rest.len(), |end| end + 4)
        } else {
            return start;
        };
        at = start + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::ast::{SelectItem, SetExpr};

    fn first_item(sql: &str) -> String {
        let text = SqlText::new(Path::new("tag.sql"), sql);
        let query = text.parse().unwrap();
        let SetExpr::Select(select) = *query.body else { panic!("no select") };
        let SelectItem::UnnamedExpr(expr) = &select.projection[0] else { panic!("no expression") };
        sql[text.expr(expr)].to_string()
    }

    #[test]
    fn expressions_are_underlined_with_their_brackets() {
        for expr in ["SUM(a)", "COUNT(*)", "a", "SUM(a) / COUNT(*)", "upper(concat('(', a))", "round(SUM(a), 2)"] {
            assert_eq!(first_item(&format!("/* tag */ SELECT {expr} FROM t")), expr);
            assert_eq!(first_item(&format!("SELECT {expr}, b FROM t")), expr);
            assert_eq!(first_item(&format!("SELECT {expr}\nFROM t")), expr);
        }
    }

    #[test]
    fn comments_before_the_query_may_hold_anything() {
        let sql = "\u{feff}-- 标签\n/* tag\ndescription = \"a/*b 中\" */\n/* more */ SELECT a FROM t";
        let text = SqlText::new(Path::new("tag.sql"), sql);
        assert!(text.parse().is_ok());
        assert_eq!(&sql[text.body()], "SELECT a FROM t");
    }
}

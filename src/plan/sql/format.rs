//! The SQL of a file in the common layout: its tokens and comments in their order, with other blanks between them.
//!
//! Enters: the text of a tag, view or function. Leaves: the text with its header as it was and its SQL laid out anew, or
//! why it is left as it is. Tokens are compared with the parser's own tokenizer, so that the meaning cannot change.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace};
use sqlformat::{Dialect, FormatOptions, QueryParams};

use super::dialect::Bound;
use super::text::SqlText;

/// What fits a line stays on it.
const WIDTH: usize = 100;
/// Layouts that do not settle are not taken.
const MOST_ROUNDS: usize = 4;
/// Words that are written in capitals. Others may be names of columns, which a table shows as they are written.
const CAPITALS: &[&str] = &[
    "ALL",
    "AND",
    "ANY",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "FILTER",
    "FIRST",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LAST",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "RETURN",
    "RETURNS",
    "RIGHT",
    "SELECT",
    "THEN",
    "UNION",
    "UNNEST",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

/// Lays the SQL out; the text comes back as it is where it is laid out already.
///
/// # Errors
/// Why the file is left as it is.
pub fn format(file: &Path, text: &str) -> Result<String, String> {
    let body = SqlText::new(file, text).body();
    // What has Windows' ends of lines keeps them.
    let is_windows = text.contains("\r\n");
    let sql = text[body.clone()].replace("\r\n", "\n");
    if sql.is_empty() {
        return Ok(text.to_string());
    }
    let tokens = tokens(&sql)?;
    let laid_out = settled(&sql, &tokens)?;
    if self::tokens(&laid_out).as_ref() != Ok(&tokens) {
        return Err("the formatter would change more than blanks in it".to_string());
    }
    let laid_out = laid_out + "\n";
    let laid_out = if is_windows { laid_out.replace('\n', "\r\n") } else { laid_out };
    Ok(format!("{}{laid_out}", &text[..body.start]))
}

/// Lays out until nothing changes any more.
fn settled(sql: &str, tokens: &[Token]) -> Result<String, String> {
    let words = tokens.iter().filter_map(|token| match token {
        Token::Word(word) => Some(word.value.as_str()),
        _ => None,
    });
    let kept: Vec<&str> = words.filter(|word| !CAPITALS.contains(&word.to_uppercase().as_str())).collect();
    let options = FormatOptions {
        uppercase: Some(true),
        ignore_case_convert: Some(kept),
        max_inline_block: WIDTH,
        max_inline_arguments: Some(WIDTH),
        max_inline_top_level: Some(WIDTH),
        joins_as_top_level: true,
        dialect: Dialect::PostgreSql,
        ..FormatOptions::default()
    };
    let mut before = sql.to_string();
    for _ in 0..MOST_ROUNDS {
        let laid_out = catch_unwind(AssertUnwindSafe(|| sqlformat::format(&before, &QueryParams::None, &options)));
        let laid_out = laid_out.map_err(|_| "the formatter cannot read it".to_string())?;
        let lines = laid_out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        let lines = lines.trim().to_string();
        if lines == before {
            return Ok(lines);
        }
        before = lines;
    }
    Err("no layout of it is stable".to_string())
}

/// True for texts that are the same query whatever their headers, comments and layout.
pub fn is_same_query(one: &str, other: &str) -> bool {
    let meant = |text: &str| -> Result<Vec<Token>, String> {
        let is_said = |token: &Token| !matches!(token, Token::Whitespace(_));
        Ok(tokens(text)?.into_iter().filter(is_said).collect())
    };
    match (meant(one), meant(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// The tokens and comments, with words that are not quoted in lower case: the case of those says nothing.
fn tokens(sql: &str) -> Result<Vec<Token>, String> {
    let tokens = Tokenizer::new(&Bound::default(), sql).tokenize();
    let tokens = tokens.map_err(|error| format!("it is no SQL: {error}"))?;
    let meant = tokens.into_iter().filter_map(|token| match token {
        Token::Whitespace(Whitespace::SingleLineComment { comment, prefix }) => {
            let comment = comment.trim_end().to_string();
            Some(Token::Whitespace(Whitespace::SingleLineComment { comment, prefix }))
        }
        comment @ Token::Whitespace(Whitespace::MultiLineComment(_)) => Some(comment),
        Token::Whitespace(_) => None,
        Token::Word(mut word) if word.quote_style.is_none() => {
            if CAPITALS.contains(&word.value.to_uppercase().as_str()) {
                word.value = word.value.to_uppercase();
            }
            Some(Token::Word(word))
        }
        other => Some(other),
    });
    Ok(meant.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(text: &str) -> Result<String, String> {
        format(Path::new("tags/a.sql"), text)
    }

    #[test]
    fn header_and_comments_stay_and_blanks_change() {
        let text = "/* tag\n  title =   'x' */\n-- why\nselect user_id,sum(Amount) as Total -- money\nfrom orders where Status='paid' and user_id is not null group by user_id";
        assert_eq!(
            laid_out(text).unwrap(),
            "/* tag\n  title =   'x' */\n-- why\nSELECT user_id, sum(Amount) AS Total -- money\nFROM orders\n\
             WHERE Status = 'paid' AND user_id IS NOT NULL\nGROUP BY user_id\n"
        );
    }

    #[test]
    fn what_is_laid_out_stays_as_it_is() {
        for file in ["SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id", "/* tag */\n", ""] {
            let once = laid_out(file).unwrap();
            assert_eq!(laid_out(&once).unwrap(), once);
        }
    }

    #[test]
    fn windows_line_ends_stay() {
        let once = laid_out("/* tag */\r\nselect a\r\nfrom t\r\n").unwrap();
        assert_eq!(once, "/* tag */\r\nSELECT a\r\nFROM t\r\n");
    }

    #[test]
    fn text_that_is_no_sql_is_left() {
        assert!(laid_out("SELECT 'open").unwrap_err().starts_with("it is no SQL: "));
    }
}

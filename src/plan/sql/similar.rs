//! SIMILAR TO: SQL's own patterns, as the regular expressions that they are short for. DataFusion would take them for
//! regular expressions as they are, where `%` and `_` are letters and any part of the text may match.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Query, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::foreign;
use crate::plan::sql::text::SqlText;

/// Writes every SIMILAR TO out; what cannot be is told.
pub(crate) fn write_out(text: &SqlText<'_>, query: &mut Query) -> Vec<Diagnostic> {
    let mut patterns = Patterns { text, problems: Vec::new() };
    let _ = VisitMut::visit(query, &mut patterns);
    patterns.problems
}

struct Patterns<'a> {
    text: &'a SqlText<'a>,
    problems: Vec<Diagnostic>,
}

impl VisitorMut for Patterns<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::SimilarTo { negated, expr: value, pattern, escape_char } = &*expr else {
            return ControlFlow::Continue(());
        };
        let escape = match escape_char.as_ref().map(|escape| &escape.value) {
            None => Some(Some('\\')),
            Some(Value::SingleQuotedString(escape)) => {
                let mut letters = escape.chars();
                let escape = letters.next();
                letters.next().is_none().then_some(escape)
            }
            Some(_) => None,
        };
        let regex = foreign::literal(pattern).zip(escape).and_then(|(pattern, escape)| regex(pattern, escape));
        let Some(regex) = regex else {
            let help = "write `regexp_like(value, '^(a|b)')`, or LIKE for `%` and `_` alone";
            let place = self.text.expr(pattern);
            let message = "SIMILAR TO needs a pattern that is text, and sound";
            self.problems.push(self.text.error(codes::FOREIGN, place, message).help(help));
            return ControlFlow::Continue(());
        };
        let matches = Expr::Nested(Box::new(Expr::BinaryOp {
            left: value.clone(),
            op: BinaryOperator::PGRegexMatch,
            right: Box::new(Expr::Value(ValueWithSpan::from(Value::SingleQuotedString(regex)))),
        }));
        *expr = if *negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(matches) } } else { matches };
        ControlFlow::Continue(())
    }
}

/// The regular expression that matches the whole text where the pattern does.
fn regex(pattern: &str, escape: Option<char>) -> Option<String> {
    let mut regex = "^(?s:".to_string();
    let mut letters = pattern.chars();
    let mut depth = 0_usize;
    let mut is_class = false;
    while let Some(letter) = letters.next() {
        match letter {
            letter if Some(letter) == escape => regex.push_str(&literally(letters.next()?)),
            ']' if is_class => {
                is_class = false;
                regex.push(']');
            }
            // `[a^b]` has no meaning of its own in SQL, and two signs of a kind one in regular expressions.
            '^' | '-' if is_class => regex.push(letter),
            // A class by name, `[[:alpha:]]`.
            '[' if is_class => return None,
            letter if is_class => regex.push_str(&literally(letter)),
            '[' => {
                is_class = true;
                regex.push('[');
            }
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '(' => {
                depth += 1;
                regex.push_str("(?:");
            }
            ')' => {
                depth = depth.checked_sub(1)?;
                regex.push(')');
            }
            '|' | '*' | '+' | '?' | '{' | '}' => regex.push(letter),
            letter => regex.push_str(&literally(letter)),
        }
    }
    regex.push_str(")$");
    (depth == 0 && !is_class).then_some(regex)
}

/// A letter that stands for itself.
fn literally(letter: char) -> String {
    if "\\.^$|?*+()[]{}-&~".contains(letter) { format!("\\{letter}") } else { letter.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_text() {
        let cases = [
            ("%(google|baidu)%", "^(?s:.*(?:google|baidu).*)$"),
            ("a|b", "^(?s:a|b)$"),
            ("a_c", "^(?s:a.c)$"),
            ("1.5+", "^(?s:1\\.5+)$"),
            ("50\\%", "^(?s:50%)$"),
            ("[a-z^%]{2,3}", "^(?s:[a-z^%]{2,3})$"),
            ("^a$", "^(?s:\\^a\\$)$"),
        ];
        for (pattern, meant) in cases {
            assert_eq!(regex(pattern, Some('\\')).as_deref(), Some(meant), "{pattern}");
        }
        assert_eq!(regex("50!%!!", Some('!')).as_deref(), Some("^(?s:50%!)$"));
        for unsound in ["(a", "a)", "[a", "a\\", "[[:digit:]]"] {
            assert_eq!(regex(unsound, Some('\\')), None, "{unsound}");
        }
    }
}

//! What DataFusion says of a query, in words for its author.

use std::ops::Range;

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use crate::diagnostic::{Diagnostic, nearest};
use crate::plan::codes;
use crate::plan::sql::quantified::OF_LIST;
use crate::plan::sql::text::SqlText;
use crate::plan::tied::{FAR_TIE, TIED_WINDOW};
use crate::plan::wording::{sql_message, without_prefix};

/// Where DataFusion says that it is.
pub(crate) fn place(text: &SqlText<'_>, error: &DataFusionError) -> Option<Range<usize>> {
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span)?;
    let location = |place: datafusion::common::Location| Location { line: place.line, column: place.column };
    Some(text.span(Span { start: location(span.start), end: location(span.end) }))
}

/// One diagnostic, at the best place that is known.
pub(crate) fn diagnostic(text: &SqlText<'_>, error: &DataFusionError, place: Option<Range<usize>>) -> Diagnostic {
    let at = |words: &[&str]| -> Range<usize> {
        place.clone().or_else(|| text.find_word(words)).unwrap_or_else(|| text.first_word())
    };
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema_error, _) = root {
        match schema_error.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let known: Vec<&str> = valid_fields.iter().map(|field| field.name()).collect();
                if known.contains(&OF_LIST) {
                    let message =
                        "a list of ANY or ALL that is tied to the row must be a plain SELECT … FROM … WHERE …";
                    let help = "aggregate it in place of ANY or ALL, `>= (SELECT MAX(…) …)`, or tie a list with GROUP BY by IN";
                    let place = text.find_word(&["all", "any", "some"]).unwrap_or_else(|| at(&[]));
                    return text.error(codes::SUBQUERY, place, message).help(help);
                }
                let diagnostic = text.error(
                    codes::UNKNOWN_COLUMN,
                    at(&[field.name()]),
                    format!("column `{}` is not there in this place", field.name()),
                );
                return match nearest(field.name(), known.iter().copied()) {
                    Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                    None => diagnostic.help(format!("there is: {}", known.join(", "))),
                };
            }
            SchemaError::AmbiguousReference { field } => {
                let message = format!("`{}` could be a column of several tables", field.name());
                return text
                    .error(codes::AMBIGUOUS, at(&[field.name()]), message)
                    .help("put the table's name before it");
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                let message = format!("column `{name}` is there twice");
                return text
                    .error(codes::AMBIGUOUS, at(&[name]), message)
                    .help("give one of them another name with AS");
            }
        }
    }
    let message = root.strip_backtrace();
    let message = without_prefix(&message).to_string();
    if let Some(column) = between(
        &message,
        "Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column \"",
        "\"",
    ) {
        return not_grouped(text, column, &at);
    }
    if message.contains("must appear in the GROUP BY clause") || message.contains("must be in GROUP BY") {
        let column = between(&message, "column \"", "\"").or_else(|| between(&message, "'", "'")).unwrap_or("a column");
        return not_grouped(text, column, &at);
    }
    if let Some(name) = between(&message, "Function '", "' failed to match any signature") {
        let help = "CAST the argument to a type that it takes, or give it as many as it takes";
        return text.error(codes::TYPES, at(&[name]), wrong_arguments(name, &message)).help(help);
    }
    if let Some((code, words, help)) = in_other_words(&message) {
        return text.error(code, at(&[]), words).help(help);
    }
    if let Some(comparison) = message.split("comparison operation ").nth(1) {
        return text
            .error(codes::TYPES, at(&[]), format!("two types cannot be compared: {}", sql_message(comparison)))
            .help("CAST one side to the type of the other; a time is compared with TIMESTAMP '2026-01-31 00:00:00'");
    }
    if let Some(name) =
        between(&message, "have the same name", "").and_then(|_| between(&message, "expression \"", "\""))
    {
        let short = name.rsplit('.').next().unwrap_or(name);
        return text
            .error(codes::AMBIGUOUS, at(&[short]), format!("`{short}` is selected twice"))
            .help("give one of them another name with AS, or leave it out");
    }
    text.error(codes::NOT_PLANNED, at(&[]), lower_first(&sql_message(message.lines().next().unwrap_or(&message))))
}

/// Messages that need other words.
fn in_other_words(message: &str) -> Option<(&'static str, String, &'static str)> {
    let said = |part: &str| message.to_lowercase().contains(part);
    if said("aggregate functions are not allowed in the where clause") {
        return Some((
            codes::AGGREGATE_PLACE,
            "an aggregate cannot be in WHERE".to_string(),
            "put the condition into HAVING",
        ));
    }
    if said("aggregate function calls cannot be nested") {
        let help = "aggregate in a sub-query first, then aggregate what it gives";
        return Some((codes::AGGREGATE_PLACE, "an aggregate cannot be inside another".to_string(), help));
    }
    if let Some(rest) = between(message, "non-boolean predicate '", "") {
        let (condition, found) = rest.split_once("' returning ")?;
        let short = condition.rsplit('.').next().unwrap_or(condition);
        let help = "compare it with something: `= 1`, `IS NOT NULL`";
        return Some((codes::TYPES, format!("`{short}` is {}, not a condition", sql_message(found)), help));
    }
    if let Some(value) = between(message, "Error parsing timestamp from '", "'") {
        let help = "write TIMESTAMP '2026-01-31 00:00:00' or DATE '2026-01-31'";
        return Some((codes::TYPES, format!("'{value}' is no time"), help));
    }
    if let Some(value) = between(message, "Cannot cast string '", "'") {
        let wanted = between(message, "to value of ", " type").unwrap_or("the other type");
        return Some((
            codes::TYPES,
            format!("'{value}' is no {wanted}"),
            "write a value of that type, or leave out the quotes",
        ));
    }
    if said("correlated scalar subquery must be aggregated") {
        let help = "aggregate it; for the latest row LEFT JOIN one that is numbered, \
                    ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY …) = 1, by the equality";
        return Some((codes::SUBQUERY, "a sub-query that is tied to the row must give one value".to_string(), help));
    }
    if said(TIED_WINDOW) {
        let help = "number the rows for all at once, PARTITION BY user_id, in a sub-query in FROM, and join it by the equality";
        let words = "a LIMIT or a window function of a sub-query that is tied to the row does not stream";
        return Some((codes::SUBQUERY, words.to_string(), help));
    }
    if said(FAR_TIE) {
        let help = "name a column of the sub-query between that is held equal to it, `o.user_id` in place of `u.user_id`, or join \
                    the tables of both in one sub-query";
        let words = "a sub-query in a sub-query is tied to the row around both";
        return Some((codes::SUBQUERY, words.to_string(), help));
    }
    if said("unary operator '-' only supports") {
        let help = "write `0 - n`; ranks are whole numbers without a sign";
        return Some((codes::TYPES, "`-` stands before what has no negative".to_string(), help));
    }
    if said("months are no length of time") {
        let help = "compare with days or hours: INTERVAL '30' DAY";
        return Some((codes::TYPES, "a difference of times is compared with months".to_string(), help));
    }
    if said("invalid interval arithmetic operation") {
        let help =
            "write `CAST(n || ' DAY' AS INTERVAL)` for n days; a DATE less a whole number goes back so many days";
        return Some((codes::TYPES, "an INTERVAL cannot be multiplied".to_string(), help));
    }
    if said("common type to coerce") || said("cannot coerce") || said("no function matches the given name") {
        let first = message.split(". ").next().unwrap_or(message);
        return Some((codes::TYPES, lower_first(first), "CAST one of them to the type that is wanted"));
    }
    None
}

fn not_grouped(text: &SqlText<'_>, column: &str, at: &dyn Fn(&[&str]) -> Range<usize>) -> Diagnostic {
    let short = column.rsplit('.').next().unwrap_or(column).trim_matches('"');
    text.error(codes::NOT_GROUPED, at(&[short]), format!("`{short}` is neither grouped nor inside an aggregate"))
        .help(format!("add `{short}` to GROUP BY, or write MAX({short})"))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    if after.is_empty() {
        return Some(&text[start..]);
    }
    let end = text[start..].find(after)?;
    Some(&text[start..start + end])
}

/// "`sum` does not take VARCHAR", from DataFusion's list of what it has tried.
fn wrong_arguments(name: &str, message: &str) -> String {
    let mut wanted: Vec<&str> = Vec::new();
    let mut found = None;
    for attempt in message.split("Function '").skip(2) {
        let one = between(attempt, "requires ", ",").or_else(|| between(attempt, "expects ", " but"));
        wanted.extend(one.filter(|one| !wanted.contains(one)));
        found = found.or_else(|| between(attempt, "received ", ".").or_else(|| between(attempt, "received ", ",")));
        found = found.or_else(|| attempt.split("received ").nth(1));
    }
    let found = found.map_or("these arguments", |found| found.split(" (").next().unwrap_or(found));
    if wanted.is_empty() {
        return sql_message(&format!("`{name}` does not take {found}"));
    }
    // Sums and means list every type of number that there is.
    if wanted.contains(&"Decimal") {
        let found = if found == "String" { "text".to_string() } else { sql_message(found) };
        return format!("`{name}` takes numbers, found {found}");
    }
    let wanted = wanted.join(" or ").replace("1 arguments", "1 argument");
    sql_message(&format!("`{name}` takes {wanted}, found {found}"))
}

fn lower_first(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

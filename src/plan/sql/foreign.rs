//! Spellings of Hive and MySQL that people paste, and what streams instead.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value, ValueWithSpan,
};

/// The arguments of a call, as they are written.
pub(crate) fn arguments(function: &Function) -> Vec<&Expr> {
    match &function.args {
        FunctionArguments::List(list) => list
            .args
            .iter()
            .filter_map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// What to write in the place of a function that DataFusion does not have.
pub(crate) fn instead_of(name: &str, function: &Function) -> Option<String> {
    let arguments = arguments(function);
    let text: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let text: Vec<&str> = text.iter().map(String::as_str).collect();
    let shift = |sign: &str, value: &str, amount: &Expr, unit: &str| match amount {
        Expr::Interval(interval) => format!("write `{value} {sign} {interval}`"),
        Expr::Value(_) => format!("write `{value} {sign} INTERVAL '{amount}' {unit}`"),
        _ => format!("write `{value} {sign} {amount} * INTERVAL '1' {unit}`"),
    };
    let part = |part: &str, value: &str| format!("write `date_part('{part}', {value})`");
    Some(match (name, text.as_slice()) {
        ("if" | "iff", [condition, yes, no]) => format!("write `CASE WHEN {condition} THEN {yes} ELSE {no} END`"),
        ("if" | "iff", [condition, yes]) => format!("write `CASE WHEN {condition} THEN {yes} END`"),
        ("date_sub" | "subdate", [value, _]) => shift("-", value, arguments[1], "DAY"),
        ("date_add" | "adddate", [value, _]) => shift("+", value, arguments[1], "DAY"),
        ("add_months", [value, _]) => shift("+", value, arguments[1], "MONTH"),
        ("datediff", [later, earlier]) => format!(
            "write `CAST({later} AS DATE) - CAST({earlier} AS DATE)`; to compare with today, put the column alone on one side: \
             `{earlier} >= CURRENT_DATE - INTERVAL '7' DAY`"
        ),
        ("get_json_object" | "json_extract" | "json_value", [_, path]) => {
            format!(
                "declare the field as a column in the schema: `name = {{ type = \"VARCHAR\", path = {} }}`",
                path.replace('\'', "\"")
            )
        }
        ("collect_set" | "collect_list" | "group_concat" | "wm_concat", [value, ..]) => {
            format!(
                "lists do not stream yet; COUNT(DISTINCT {value}) counts the values, ROW_NUMBER() … = 1 keeps the first"
            )
        }
        ("unix_timestamp", [value]) => part("epoch", value),
        ("unix_timestamp", []) => {
            "the clock can only be compared with in WHERE: `column >= NOW() - INTERVAL '7' DAY`".to_string()
        }
        ("from_unixtime", [value, ..]) => format!("write `to_timestamp_seconds({value})`"),
        ("year" | "month" | "day" | "hour" | "minute" | "second" | "quarter", [value]) => part(name, value),
        ("dayofmonth", [value]) => part("day", value),
        ("dayofweek" | "weekday", [value]) => part("dow", value),
        ("dayofyear", [value]) => part("doy", value),
        ("weekofyear", [value]) => part("week", value),
        ("curdate" | "sysdate" | "getdate" | "current_day", []) => "write `CURRENT_DATE`".to_string(),
        ("isnull", [value]) => format!("write `{value} IS NULL`"),
        ("instr" | "charindex", [value, part]) => format!("write `strpos({value}, {part})`"),
        ("locate", [part, value]) => format!("write `strpos({value}, {part})`"),
        ("size", [value]) => format!("write `cardinality({value})`"),
        ("len", [value]) => format!("write `length({value})`"),
        ("regexp" | "rlike", [value, pattern]) => format!("write `regexp_like({value}, {pattern})`"),
        ("str_to_date", [value, format]) => format!("write `to_date({value}, {format})`"),
        ("percentile" | "percentile_approx", [value, ..]) => {
            format!("percentiles do not stream yet; COUNT(*) FILTER (WHERE {value} > …) counts above a limit")
        }
        _ => return None,
    })
}

/// The text of a string literal.
pub(crate) fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text),
        _ => None,
    }
}

/// A date format as Java and Hive write it, in the way that DataFusion reads; `None` when it is none of theirs.
pub(crate) fn strftime(format: &str) -> Option<String> {
    if format.contains('%') || !["yyyy", "MM", "dd", "HH"].iter().any(|part| format.contains(part)) {
        return None;
    }
    let parts = [
        ("yyyy", "%Y"),
        ("MM", "%m"),
        ("dd", "%d"),
        ("HH", "%H"),
        ("mm", "%M"),
        ("ss", "%S"),
        ("SSS", "%3f"),
        ("yy", "%y"),
    ];
    Some(parts.iter().fold(format.to_string(), |format, (theirs, ours)| format.replace(theirs, ours)))
}

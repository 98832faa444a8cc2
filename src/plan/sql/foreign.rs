//! Spellings of Hive and MySQL that people paste, and what streams instead.

use chrono::format::{Item, StrftimeItems};
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
    let text: Vec<String> = arguments.iter().map(|argument| in_our_words(argument)).collect();
    let text: Vec<&str> = text.iter().map(String::as_str).collect();
    let shift = |sign: &str, value: &str, amount: &Expr, unit: &str| match amount {
        Expr::Interval(interval) => format!("write `{value} {sign} {interval}`"),
        Expr::Value(_) => format!("write `{value} {sign} INTERVAL '{amount}' {unit}`"),
        // Intervals cannot be multiplied.
        _ => format!("write `{value} {sign} CAST(concat({}, ' {unit}') AS INTERVAL)`", in_our_words(amount)),
    };
    let part = |part: &str, value: &str| format!("write `date_part('{part}', {value})`");
    Some(match (name, text.as_slice()) {
        ("if" | "iff", [condition, yes, no]) => format!("write `CASE WHEN {condition} THEN {yes} ELSE {no} END`"),
        ("if" | "iff", [condition, yes]) => format!("write `CASE WHEN {condition} THEN {yes} END`"),
        ("date_sub" | "subdate", [value, _]) => shift("-", value, arguments[1], "DAY"),
        ("date_add" | "adddate", [value, _]) => shift("+", value, arguments[1], "DAY"),
        ("add_months", [value, _]) => shift("+", value, arguments[1], "MONTH"),
        ("datediff", [later, earlier]) => format!(
            "write `CAST({later} AS DATE) - CAST({earlier} AS DATE)`; to compare with today, better put the column alone on one \
             side: `{earlier} >= CURRENT_DATE - INTERVAL '7' DAY`"
        ),
        ("get_json_object" | "json_extract" | "json_value" | "json_unquote", [value, _]) => {
            let keys = literal(arguments[1]).and_then(json_keys)?;
            format!(
                "write `json_get_str({value}, {keys})`; json_get_int, json_get_float and json_get_bool give other types"
            )
        }
        ("explode" | "flatten", [value]) => format!("write `unnest({value})`"),
        ("count_if" | "countif", [condition]) => format!("write `COUNT(*) FILTER (WHERE {condition})`"),
        ("every", [condition]) => format!("write `BOOL_AND({condition})`"),
        ("max_by" | "arg_max", [value, by]) => format!("write `LAST_VALUE({value} ORDER BY {by} NULLS FIRST)`"),
        ("min_by" | "arg_min", [value, by]) => format!("write `FIRST_VALUE({value} ORDER BY {by})`"),
        ("date", [value]) => format!("write `CAST({value} AS DATE)`"),
        ("last_day", [value]) => {
            format!("write `CAST(date_trunc('month', {value}) + INTERVAL '1' MONTH - INTERVAL '1' DAY AS DATE)`")
        }
        ("months_between", [later, earlier]) => format!(
            "write `(date_part('year', {later}) - date_part('year', {earlier})) * 12 + date_part('month', {later}) - \
             date_part('month', {earlier})`"
        ),
        ("timestampdiff", [_, earlier, later]) => {
            format!("write `CAST({later} AS DATE) - CAST({earlier} AS DATE)` for the days between them")
        }
        ("collect_set", [value]) => format!("write `ARRAY_AGG(DISTINCT {value})`"),
        ("collect_list", [value]) => format!("write `ARRAY_AGG({value})`, with ORDER BY behind the value for an order"),
        ("group_concat" | "wm_concat", [value, ..]) => {
            format!("write `STRING_AGG({value}, ',')`, with ORDER BY behind the comma for an order")
        }
        // A TIMESTAMP is wall time: only as an instant has it seconds since 1970.
        ("unix_timestamp" | "to_unix_timestamp", [value]) => {
            part("epoch", &format!("CAST({value} AS TIMESTAMP WITH TIME ZONE)"))
        }
        ("unix_timestamp" | "to_unix_timestamp", [value, _]) => {
            let format =
                literal(arguments[1]).map_or_else(|| text[1].to_string(), |format| format!("'{}'", strftime(format)));
            part("epoch", &format!("to_timestamp({value}, {format})"))
        }
        ("unix_timestamp", []) => {
            "the clock can only be compared with in WHERE: `column >= NOW() - INTERVAL '7' DAY`".to_string()
        }
        ("from_unixtime", [value]) => format!("write `to_timestamp_seconds({value})`"),
        ("from_unixtime", [value, _]) => {
            let format =
                literal(arguments[1]).map_or_else(|| text[1].to_string(), |format| format!("'{}'", strftime(format)));
            format!("write `to_char(to_timestamp_seconds({value}), {format})`")
        }
        ("year" | "month" | "day" | "hour" | "minute" | "second" | "quarter", [value]) => part(name, value),
        ("dayofmonth", [value]) => part("day", value),
        ("dayofweek", [value]) => format!("write `date_part('dow', {value}) + 1`"),
        ("weekday", [value]) => format!("write `date_part('isodow', {value}) - 1`"),
        ("dayofyear", [value]) => part("doy", value),
        ("weekofyear", [value]) => part("week", value),
        ("curdate" | "current_day", []) => "write `CURRENT_DATE`".to_string(),
        ("sysdate" | "getdate" | "localtimestamp", []) => "write `NOW()`".to_string(),
        ("isnull", [value]) => format!("write `{value} IS NULL`"),
        ("instr" | "charindex", [value, part]) => format!("write `strpos({value}, {part})`"),
        ("locate", [part, value]) => format!("write `strpos({value}, {part})`"),
        ("size", [value]) => format!("write `cardinality({value})`"),
        ("len", [value]) => format!("write `length({value})`"),
        ("regexp" | "rlike", [value, pattern]) => format!("write `regexp_like({value}, {pattern})`"),
        ("str_to_date", [value, format]) => format!("write `to_date({value}, {format})`"),
        ("percentile" | "percentile_approx", [value, part]) => {
            format!("write `PERCENTILE_CONT({part}) WITHIN GROUP (ORDER BY {value})`")
        }
        _ => return None,
    })
}

/// `$.a.b[0]` as the keys that lead there: `'a', 'b', 0`.
fn json_keys(path: &str) -> Option<String> {
    let mut keys = Vec::new();
    let mut rest = path.strip_prefix('$')?;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']')?;
            keys.push(index.parse::<u32>().map_or_else(|_| index.replace('"', "'"), |index| index.to_string()));
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            keys.push(format!("'{}'", &after[..end]));
            rest = &after[end..];
        }
    }
    (!keys.is_empty()).then(|| keys.join(", "))
}

/// The text of a string literal.
pub(crate) fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text),
        _ => None,
    }
}

/// The text of an argument, with what is not known here replaced where it has a name of its own.
fn in_our_words(expr: &Expr) -> String {
    if let Expr::Function(function) = expr {
        let name = function.name.to_string().to_lowercase();
        if let Some(instead) = instead_of(&name, function)
            && let Some(instead) = instead.strip_prefix("write `").and_then(|instead| instead.strip_suffix('`'))
        {
            return instead.to_string();
        }
    }
    expr.to_string()
}

/// Whose format of dates a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One that DataFusion reads.
    Ours,
    /// `yyyy-MM-dd`, which Hive and Spark have from Java.
    Java,
    /// `%Y-%m-%d %H:%i:%s`.
    Mysql,
    /// None that is known.
    Unknown,
}

/// Whose format of dates a text is.
pub(crate) fn format_language(format: &str) -> Format {
    if !format.contains('%') {
        let java = ["yyyy", "yy", "MM", "dd", "HH", "mm", "ss"].iter().any(|part| format.contains(part));
        return if java { Format::Java } else { Format::Ours };
    }
    // Minutes: every MySQL format of a time has them, and no other knows them.
    if format.contains("%i") {
        return Format::Mysql;
    }
    let known = StrftimeItems::new(format).all(|item| item != Item::Error);
    if known { Format::Ours } else { Format::Unknown }
}

/// A date format of Java or MySQL, in the way that DataFusion reads.
pub(crate) fn strftime(format: &str) -> String {
    match format_language(format) {
        Format::Ours | Format::Unknown => format.to_string(),
        Format::Java => java_to_strftime(format),
        Format::Mysql => mysql_to_strftime(format),
    }
}

fn java_to_strftime(format: &str) -> String {
    const PARTS: [(&str, &str); 12] = [
        ("yyyy", "%Y"),
        ("yy", "%y"),
        ("MMMM", "%B"),
        ("MMM", "%b"),
        ("MM", "%m"),
        ("dd", "%d"),
        ("HH", "%H"),
        ("hh", "%I"),
        ("mm", "%M"),
        ("SSS", "%3f"),
        ("ss", "%S"),
        ("EEEE", "%A"),
    ];
    let mut ours = String::new();
    let mut rest = format;
    while let Some(next) = rest.chars().next() {
        let part = PARTS.iter().find(|(theirs, _)| rest.starts_with(theirs));
        let length = part.map_or(next.len_utf8(), |(theirs, _)| theirs.len());
        match part {
            Some((_, part)) => ours.push_str(part),
            None if next == '\'' => {}
            None => ours.push(next),
        }
        rest = &rest[length..];
    }
    ours
}

fn mysql_to_strftime(format: &str) -> String {
    let mut ours = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            ours.push(letter);
            continue;
        }
        match letters.next() {
            Some('i') => ours.push_str("%M"),
            Some('s') => ours.push_str("%S"),
            Some('h') => ours.push_str("%I"),
            Some('M') => ours.push_str("%B"),
            Some('W') => ours.push_str("%A"),
            Some('c') => ours.push_str("%-m"),
            Some('r') => ours.push_str("%I:%M:%S %p"),
            Some('f') => ours.push_str("%6f"),
            Some(other) => ours.extend(['%', other]),
            None => ours.push('%'),
        }
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_paths_become_keys() {
        for (path, keys) in [("$.a.b", "'a', 'b'"), ("$.a[0].b", "'a', 0, 'b'"), ("$[\"a b\"]", "'a b'")] {
            assert_eq!(json_keys(path).as_deref(), Some(keys), "{path}");
        }
        assert_eq!((json_keys("a.b"), json_keys("$")), (None, None));
    }

    #[test]
    fn formats_of_java_and_mysql_become_ours() {
        let cases = [
            ("yyyy-MM-dd HH:mm:ss.SSS", "%Y-%m-%d %H:%M:%S.%3f"),
            ("yyyyMMddHHmmss", "%Y%m%d%H%M%S"),
            ("ssSSS", "%S%3f"),
            ("yy/MM", "%y/%m"),
            ("yyyy-MM-dd'T'HH", "%Y-%m-%dT%H"),
            ("%Y-%m-%d %H:%i:%s", "%Y-%m-%d %H:%M:%S"),
            ("%h:%i %p", "%I:%M %p"),
            ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S"),
        ];
        for (theirs, ours) in cases {
            assert_eq!(strftime(theirs), ours, "{theirs}");
            assert_eq!(format_language(ours), Format::Ours, "{ours}");
        }
        assert_eq!(format_language("%Y-%J"), Format::Unknown);
    }
}

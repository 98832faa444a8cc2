//! Spellings of Hive and MySQL that people paste, and what streams instead.

use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident,
    Value, ValueWithSpan,
};

use crate::plan::sql::date_formats;

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
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
            format!("write `{value} {sign} CAST({amount} || ' {unit}' AS INTERVAL)`")
        }
        _ => format!("write `{value} {sign} CAST(({}) || ' {unit}' AS INTERVAL)`", in_our_words(amount)),
    };
    let part = |part: &str, value: &str| format!("write `date_part('{part}', {})`", of_today(part, value));
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
        (
            "get_json_object"
            | "json_extract"
            | "json_value"
            | "json_extract_scalar"
            | "json_extract_string"
            | "get_json_string",
            [value, _],
        ) => format!("write `{}`", json_path(value, literal(arguments[1])?)?),
        // Its argument is JSON_EXTRACT, whose text is without quotes already.
        ("json_unquote", [value]) if value.contains("->>") => format!("write `{value}`"),
        ("explode" | "flatten", [value]) => format!("write `unnest({value})`"),
        ("count_if" | "countif", [condition]) => format!("write `COUNT(*) FILTER (WHERE {condition})`"),
        ("every", [condition]) => format!("write `BOOL_AND({condition})`"),
        ("max_by" | "arg_max", [value, by]) => format!("write `LAST_VALUE({value} ORDER BY {by} NULLS FIRST)`"),
        ("min_by" | "arg_min", [value, by]) => format!("write `FIRST_VALUE({value} ORDER BY {by})`"),
        ("date", [value]) if is_now(value) => "write `CURRENT_DATE`".to_string(),
        ("date", [value]) => format!("write `CAST({value} AS DATE)`"),
        ("last_day", [value]) => {
            format!("write `CAST(date_trunc('month', {value}) + INTERVAL '1' MONTH - INTERVAL '1' DAY AS DATE)`")
        }
        ("months_between", [later, earlier]) => format!("write `{}` for whole months", whole_months(later, earlier)),
        ("timestampdiff", [unit, earlier, later]) => {
            let seconds = |of: u32| format!("write `floor(EXTRACT(EPOCH FROM ({later} - {earlier})) / {of})`");
            match unit.to_lowercase().as_str() {
                "second" => seconds(1),
                "minute" => seconds(60),
                "hour" => seconds(3_600),
                "day" => seconds(86_400),
                "week" => seconds(604_800),
                "month" => format!("write `{}`", whole_months(later, earlier)),
                "quarter" => format!("write `floor(({}) / 3.0)`", whole_months(later, earlier)),
                "year" => format!("write `floor(({}) / 12.0)`", whole_months(later, earlier)),
                _ => return None,
            }
        }
        ("size", [_]) if is_call(arguments[0], "collect_set") => {
            let Expr::Function(set) = arguments[0] else { return None };
            format!("write `COUNT(DISTINCT {})`", in_our_words(self::arguments(set).first()?))
        }
        ("collect_set", [value]) => format!(
            "write `ARRAY_AGG(DISTINCT {value}) FILTER (WHERE {value} IS NOT NULL)`; for one text `STRING_AGG(DISTINCT {value}, \
             ',' ORDER BY {value})`"
        ),
        ("collect_list", [value]) => format!(
            "write `ARRAY_AGG({value} ORDER BY …) FILTER (WHERE {value} IS NOT NULL)`; for one text `STRING_AGG({value}, ',' \
             ORDER BY …)`"
        ),
        ("group_concat" | "wm_concat" | "listagg", [..]) => format!("write `{}`", string_agg(function)?),
        // A TIMESTAMP is wall time: only as an instant has it seconds since 1970.
        ("unix_timestamp" | "to_unix_timestamp", [value]) => {
            part("epoch", &format!("CAST({value} AS TIMESTAMP WITH TIME ZONE)"))
        }
        ("unix_timestamp" | "to_unix_timestamp", [value, _]) => {
            part("epoch", &format!("to_timestamp({value}, {})", format_of(arguments[1])))
        }
        ("unix_timestamp", []) => {
            "the clock can only be compared with in WHERE: `column >= NOW() - INTERVAL '7' DAY`".to_string()
        }
        ("from_unixtime", [value]) => format!("write `to_timestamp_seconds({value})`"),
        ("from_unixtime", [value, _]) => {
            format!("write `to_char(to_timestamp_seconds({value}), {})`", format_of(arguments[1]))
        }
        ("year" | "month" | "day" | "hour" | "minute" | "second" | "quarter", [value]) => part(name, value),
        ("dayofmonth", [value]) => part("day", value),
        ("dayofweek", [value]) => format!("write `date_part('dow', {}) + 1`", of_today("dow", value)),
        ("weekday", [value]) => format!("write `date_part('isodow', {}) - 1`", of_today("isodow", value)),
        ("dayofyear", [value]) => part("doy", value),
        ("weekofyear", [value]) => part("week", value),
        ("curdate" | "current_day", []) => "write `CURRENT_DATE`".to_string(),
        ("sysdate" | "getdate" | "localtimestamp", []) => "write `NOW()`".to_string(),
        ("isnull", [value]) => format!("write `{value} IS NULL`"),
        ("instr" | "charindex", [value, part]) => format!("write `strpos({value}, {part})`"),
        ("locate", [part, value]) => format!("write `strpos({value}, {part})`"),
        ("size", [value]) => format!("write `cardinality({value})`"),
        ("mod", [value, by]) => format!("write `{value} % {by}`"),
        ("pmod", [value, by]) => format!("write `({value} % {by} + {by}) % {by}`"),
        ("safe_divide", [value, by]) => format!("write `{value} / NULLIF({by}, 0)`"),
        ("regexp_extract", [value, pattern, ..]) => format!("write `regexp_match({value}, {pattern})[1]`"),
        ("regexp_contains", [value, pattern]) => format!("write `regexp_like({value}, {pattern})`"),
        ("sort_array", [value]) => format!("write `array_sort({value})`"),
        ("dayname", [value]) => format!("write `to_char({value}, '%A')`"),
        ("monthname", [value]) => format!("write `to_char({value}, '%B')`"),
        ("approx_count_distinct", [value]) => format!("write `COUNT(DISTINCT {value})`"),
        ("sign", [value]) => format!("write `signum({value})`"),
        ("lcase", [value]) => format!("write `lower({value})`"),
        ("ucase", [value]) => format!("write `upper({value})`"),
        ("ceiling", [value]) => format!("write `ceil({value})`"),
        ("truncate", [value, digits]) => format!("write `trunc({value}, {digits})`"),
        ("split", [value, separator]) => format!("write `string_to_array({value}, {separator})`"),
        ("std", [value]) => format!("write `STDDEV_POP({value})`"),
        ("variance", [value]) => {
            format!(
                "write `VAR_POP({value})`, which Hive and MySQL mean, or `VAR_SAMP({value})`, which PostgreSQL does"
            )
        }
        ("len", [value]) => format!("write `length({value})`"),
        ("regexp" | "rlike", [value, pattern]) => format!("write `regexp_like({value}, {pattern})`"),
        ("str_to_date", [value, _]) => format!("write `to_date({value}, {})`", format_of(arguments[1])),
        ("percentile" | "percentile_approx", [value, part]) => {
            format!("write `PERCENTILE_CONT({part}) WITHIN GROUP (ORDER BY {value})`")
        }
        _ => return None,
    })
}

/// Functions that are called otherwise here, or written otherwise, and give the very same.
const THE_SAME: &[&str] = &[
    "if",
    "iff",
    "count_if",
    "countif",
    "lcase",
    "ucase",
    "ceiling",
    "sign",
    "mod",
    "isnull",
    "instr",
    "charindex",
    "locate",
    "curdate",
    "year",
    "month",
    "day",
    "dayofmonth",
    "dayofyear",
    "hour",
    "minute",
    "second",
    "quarter",
    "get_json_object",
    "json_unquote",
    "regexp",
    "rlike",
    "truncate",
    "last_day",
];

/// True where [`instead_of`] is the same for certain, so that it can be put in the place of the call.
pub(crate) fn is_the_same(name: &str, function: &Function) -> bool {
    // Hive's DATE_SUB of a number of days makes a date of it; MySQL's of an INTERVAL is plain arithmetic.
    let is_of_interval = matches!(name, "date_sub" | "subdate" | "date_add" | "adddate")
        && arguments(function).iter().any(|argument| matches!(argument, Expr::Interval(_)));
    THE_SAME.contains(&name) || is_of_interval
}

/// The value at the path `$.a[0].b` of a JSON text: `payload->'a'->0->>'b'`.
pub(crate) fn json_path(value: &str, path: &str) -> Option<String> {
    arrows(value, &json_keys(path)?)
}

/// The keys of a path: `'a', 0, 'b'`. Paths to several values are not known.
pub(crate) fn json_keys(path: &str) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let mut rest = path.strip_prefix('$')?;
    while !rest.is_empty() {
        let (key, after) = if let Some(quoted) = rest.strip_prefix(".\"") {
            quoted.split_once('"')?
        } else if let Some(inner) = rest.strip_prefix('[') {
            inner.split_once(']')?
        } else {
            let named = rest.strip_prefix('.')?;
            named.split_at(named.find(['.', '[']).unwrap_or(named.len()))
        };
        if key.is_empty() || key.contains('*') {
            return None;
        }
        keys.push(match key.parse::<u32>() {
            Ok(index) if rest.starts_with('[') => index.to_string(),
            _ => json_key(key.trim_matches(['"', '\''])),
        });
        rest = after;
    }
    (!keys.is_empty()).then_some(keys)
}

/// A key as a literal.
pub(crate) fn json_key(key: &str) -> String {
    format!("'{}'", key.replace('\'', "''"))
}

/// `payload->'a'->>'b'`: objects by `->`, the text at last by `->>`.
pub(crate) fn arrows(value: &str, keys: &[String]) -> Option<String> {
    let (last, before) = keys.split_last()?;
    let before: String = before.iter().map(|key| format!("->{key}")).collect();
    let is_name = value.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '.' | '"' | '`'));
    let value = if is_name { value.to_string() } else { format!("({value})") };
    Some(format!("{value}{before}->>{last}"))
}

/// The months from one time to another that are full: one that has begun counts from its day on.
fn whole_months(later: &str, earlier: &str) -> String {
    format!(
        "(date_part('year', {later}) - date_part('year', {earlier})) * 12 + date_part('month', {later}) - date_part('month', \
         {earlier}) - CASE WHEN date_part('day', {later}) < date_part('day', {earlier}) THEN 1 ELSE 0 END"
    )
}

/// The word for a unit of time in `TIMESTAMPDIFF(MONTH, a, b)`, which is no column.
pub(crate) fn unit(function: &Function) -> Option<&Ident> {
    match arguments(function).first() {
        Some(Expr::Identifier(unit)) if is_call_named(function, "timestampdiff") => Some(unit),
        _ => None,
    }
}

/// GROUP_CONCAT and LISTAGG with all that is said in them.
fn string_agg(function: &Function) -> Option<String> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let distinct = if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) { "DISTINCT " } else { "" };
    let mut separator = "','".to_string();
    let mut order: Vec<String> = function.within_group.iter().map(ToString::to_string).collect();
    for clause in &list.clauses {
        match clause {
            FunctionArgumentClause::OrderBy(by) => order = by.iter().map(ToString::to_string).collect(),
            FunctionArgumentClause::Separator(text) => separator = text.to_string(),
            _ => return None,
        }
    }
    let mut values = arguments(function);
    // MySQL puts several values together, the others have the separator second.
    if !is_call_named(function, "group_concat") && values.len() == 2 {
        separator = values.pop()?.to_string();
    }
    let value = match values.as_slice() {
        [] => return None,
        [one] => in_our_words(one),
        several => format!("concat({})", several.iter().map(|one| in_our_words(one)).collect::<Vec<_>>().join(", ")),
    };
    let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
    Some(format!("STRING_AGG({distinct}{value}, {separator}{order})"))
}

fn is_call_named(function: &Function, name: &str) -> bool {
    function.name.to_string().eq_ignore_ascii_case(name)
}

fn is_call(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Function(function) if is_call_named(function, name))
}

fn is_now(value: &str) -> bool {
    matches!(value.to_lowercase().as_str(), "now()" | "current_timestamp" | "current_timestamp()")
}

/// The clock by the day where a part of it moves by days: NOW() cannot be taken apart.
fn of_today<'a>(part: &str, value: &'a str) -> &'a str {
    let is_of_time = matches!(part, "hour" | "minute" | "second" | "epoch");
    if is_now(value) && !is_of_time { "CURRENT_DATE" } else { value }
}

/// A format of dates as an argument, in the way that DataFusion reads where it is known.
fn format_of(format: &Expr) -> String {
    let ours = literal(format).and_then(|format| date_formats::in_ours(format, false));
    ours.map_or_else(|| format.to_string(), |ours| format!("'{ours}'"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_paths_become_keys() {
        for (path, keys) in [
            ("$.a.b", "payload->'a'->>'b'"),
            ("$.a[0].b", "payload->'a'->0->>'b'"),
            ("$[\"a b\"]", "payload->>'a b'"),
            ("$.\"it's\"", "payload->>'it''s'"),
        ] {
            assert_eq!(json_path("payload", path).as_deref(), Some(keys), "{path}");
        }
        assert_eq!((json_path("p", "a.b"), json_path("p", "$"), json_path("p", "$.a[*]")), (None, None, None));
    }
}

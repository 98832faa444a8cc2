//! Expressions and types for people: as SQL writes them.
//!
//! Enters: DataFusion's text of an expression, in which literals and casts carry arrow's names, or an arrow type.
//! Leaves: text that reads like SQL. What it does not know stays as it is.

use arrow::datatypes::{DataType, TimeUnit};
use chrono::DateTime;

/// A type as a schema file would write it.
pub fn sql_type(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "VARBINARY",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => return format!("DECIMAL({digits},{scale})"),
        DataType::Timestamp(unit, zone) => {
            let digits = digits_of(*unit);
            let zone = if zone.is_some() { " WITH TIME ZONE" } else { "" };
            return format!("TIMESTAMP({digits}){zone}");
        }
        DataType::List(element) | DataType::LargeList(element) => {
            return format!("{} ARRAY", sql_type(element.data_type()));
        }
        DataType::Struct(fields) => {
            let field =
                |field: &arrow::datatypes::FieldRef| format!("{} {}", field.name(), sql_type(field.data_type()));
            return format!("STRUCT<{}>", fields.iter().map(field).collect::<Vec<_>>().join(", "));
        }
        other => return other.to_string(),
    };
    name.to_string()
}

/// Digits of a second.
fn digits_of(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// An expression's text as SQL writes it.
pub fn sql_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word_end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, behind) = rest.split_at(word_end);
        if let Some((literal, after)) = behind.strip_prefix('(').and_then(|inside| literal(word, inside)) {
            out.push_str(&literal);
            rest = after;
            continue;
        }
        out.push_str(word);
        rest = behind;
        if word == "AS"
            && let Some(cast) = rest.strip_prefix(' ')
            && let Some((data_type, after)) = type_before_bracket(cast)
        {
            out.push(' ');
            out.push_str(&data_type);
            rest = after;
            continue;
        }
        let sign = rest.chars().next().map_or(0, char::len_utf8);
        out.push_str(&rest[..sign]);
        rest = &rest[sign..];
    }
    out
}

/// What DataFusion says, without the kind of error before it.
pub fn without_prefix(message: &str) -> &str {
    const KINDS: &[&str] =
        &["Error during planning: ", "This feature is not implemented: ", "Execution error: ", "Schema error: "];
    KINDS.iter().fold(message, |message, kind| message.trim_start_matches(kind))
}

/// What DataFusion says of an expression, with its types as SQL writes them too.
pub fn sql_message(text: &str) -> String {
    let text = sql_text(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find(|c: char| c.is_alphanumeric() || c == '_') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let with_size = rest[end..].strip_prefix('(').and_then(|size| Some(end + 2 + size.find(')')?));
        let lengths = with_size.into_iter().chain([end]);
        let mut types = lengths.filter_map(|length| Some((rest[..length].parse::<DataType>().ok()?, length)));
        match types.next() {
            Some((data_type, length)) => {
                out.push_str(&sql_type(&data_type));
                rest = &rest[length..];
            }
            None => {
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The type of a cast, up to the bracket that closes it.
fn type_before_bracket(text: &str) -> Option<(String, &str)> {
    let mut depth = 0_usize;
    let end = text.find(|c: char| {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return true,
            ')' => depth -= 1,
            _ => {}
        }
        false
    })?;
    let data_type: DataType = text[..end].parse().ok()?;
    Some((sql_type(&data_type), &text[end..]))
}

/// A literal whose type is `word`, from behind its bracket on, and what follows it.
fn literal<'t>(word: &str, inside: &'t str) -> Option<(String, &'t str)> {
    let quoted = |close: &str| inside.strip_prefix('"')?.split_once(close);
    let bare = || inside.split_once(')');
    let nothing = || bare().filter(|(value, _)| *value == "NULL").map(|(value, after)| (value.to_string(), after));
    match word {
        "Utf8" | "LargeUtf8" | "Utf8View" => match quoted("\")") {
            Some((value, after)) => Some((format!("'{}'", value.replace('\'', "''")), after)),
            None => nothing(),
        },
        "Boolean" | "Int8" | "Int16" | "Int32" | "Int64" | "UInt8" | "UInt16" | "UInt32" | "UInt64" | "Float32"
        | "Float64" => bare().map(|(value, after)| (value.to_string(), after)),
        "Date32" | "Date64" => match quoted("\")") {
            Some((value, after)) => Some((format!("DATE '{value}'"), after)),
            None => nothing(),
        },
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => decimal(inside),
        "TimestampSecond" => timestamp(inside, 1_000_000_000),
        "TimestampMillisecond" => timestamp(inside, 1_000_000),
        "TimestampMicrosecond" => timestamp(inside, 1_000),
        "TimestampNanosecond" => timestamp(inside, 1),
        "IntervalMonthDayNano" => interval(inside),
        _ => None,
    }
}

/// `10.50,12,2)`: the value, and how many digits it may have.
fn decimal(inside: &str) -> Option<(String, &str)> {
    let (value, size) = inside.split_once(',')?;
    let (_, after) = size.split_once(')')?;
    Some((value.to_string(), after))
}

/// `1767225600000, None)`, in units of so many nanoseconds.
fn timestamp(inside: &str, unit: i64) -> Option<(String, &str)> {
    let (value, rest) = inside.split_once(", ")?;
    let (zone, after) = match rest.strip_prefix("Some(") {
        Some(zoned) => zoned.split_once("))")?,
        None => ("", rest.strip_prefix("None)")?),
    };
    if value == "NULL" {
        return Some(("NULL".to_string(), after));
    }
    let per_second = 1_000_000_000 / unit;
    let ticks: i64 = value.parse().ok()?;
    let nanoseconds = u32::try_from(ticks.rem_euclid(per_second) * unit).ok()?;
    let time = DateTime::from_timestamp(ticks.div_euclid(per_second), nanoseconds)?.naive_utc();
    let shown = time.format("%Y-%m-%d %H:%M:%S%.f");
    Some((if zone.is_empty() { format!("TIMESTAMP '{shown}'") } else { format!("TIMESTAMP '{shown}Z'") }, after))
}

/// `"IntervalMonthDayNano { months: 0, days: 30, nanoseconds: 0 }")` is INTERVAL '30' DAY.
fn interval(inside: &str) -> Option<(String, &str)> {
    let (parts, after) = inside.strip_prefix("\"IntervalMonthDayNano { months: ")?.split_once(" }\")")?;
    let numbers: Vec<i64> = parts.split(", ").filter_map(|part| part.rsplit(' ').next()?.parse().ok()).collect();
    let [months, days, nanoseconds] = numbers[..] else { return None };
    let seconds = nanoseconds / 1_000_000_000;
    let units = [(months, "MONTH"), (days, "DAY")].into_iter().chain(match seconds {
        seconds if seconds % 86_400 == 0 => [(seconds / 86_400, "DAY")],
        seconds if seconds % 3_600 == 0 => [(seconds / 3_600, "HOUR")],
        seconds if seconds % 60 == 0 => [(seconds / 60, "MINUTE")],
        seconds => [(seconds, "SECOND")],
    });
    let shown: Vec<String> =
        units.filter(|(count, _)| *count != 0).map(|(count, unit)| format!("INTERVAL '{count}' {unit}")).collect();
    Some((if shown.is_empty() { "INTERVAL '0' SECOND".to_string() } else { shown.join(" + ") }, after))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, IntervalMonthDayNano};
    use datafusion::common::ScalarValue;
    use datafusion::logical_expr::{Expr, cast, col, lit};

    use super::*;

    fn shown(expr: Expr) -> String {
        sql_text(&expr.to_string())
    }

    #[test]
    fn literals_read_like_sql() {
        let interval = |months, days, nanoseconds| {
            lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds })))
        };
        let zone: Option<Arc<str>> = Some("UTC".into());
        let cases = [
            (col("a") * lit(100_i64), "a * 100"),
            (col("a") + lit("it's \"so\""), "a + 'it''s \"so\"'"),
            (lit(ScalarValue::LargeUtf8(Some("x".into()))), "'x'"),
            (lit(ScalarValue::Utf8(None)), "NULL"),
            (lit(ScalarValue::Int64(None)), "NULL"),
            (lit(true), "true"),
            (lit(1.5), "1.5"),
            (lit(ScalarValue::Decimal128(Some(-1_050), 12, 2)), "-10.50"),
            (lit(ScalarValue::Decimal128(Some(5), 12, 3)), "0.005"),
            (lit(ScalarValue::Decimal128(None, 12, 3)), "NULL"),
            (lit(ScalarValue::TimestampMillisecond(None, None)), "NULL"),
            (lit(ScalarValue::Date32(Some(20_454))), "DATE '2026-01-01'"),
            (
                lit(ScalarValue::TimestampMillisecond(Some(1_767_225_600_500), None)),
                "TIMESTAMP '2026-01-01 00:00:00.500'",
            ),
            (lit(ScalarValue::TimestampNanosecond(Some(-1_000_000_000), zone)), "TIMESTAMP '1969-12-31 23:59:59Z'"),
            (interval(0, 30, 0), "INTERVAL '30' DAY"),
            (interval(1, 0, 90_000_000_000), "INTERVAL '1' MONTH + INTERVAL '90' SECOND"),
            (interval(0, 0, 0), "INTERVAL '0' SECOND"),
        ];
        for (expr, expected) in cases {
            assert_eq!(shown(expr), expected);
        }
    }

    #[test]
    fn casts_name_the_types_of_schema_files() {
        let zoned = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let expr = cast(cast(col("a"), DataType::LargeUtf8), zoned);
        assert_eq!(shown(expr), "CAST(CAST(a AS VARCHAR) AS TIMESTAMP(3) WITH TIME ZONE)");
        assert_eq!(shown(cast(col("a"), DataType::Decimal128(12, 2))), "CAST(a AS DECIMAL(12,2))");
    }

    #[test]
    fn text_that_is_no_literal_stays() {
        for text in ["", "count(*)", "Int64", "Int64(", "x AS y", "标签 AS Int64(5", "Utf8(\"open", "max(a) AS b)"] {
            assert_eq!(sql_text(text), text);
        }
    }

    #[test]
    fn messages_name_types_as_sql_does() {
        let said = "two types cannot be compared: Timestamp(ms) > Int64, not Utf8(\"a\") or count(Int8)";
        let told = "two types cannot be compared: TIMESTAMP(3) > BIGINT, not 'a' or count(TINYINT)";
        assert_eq!(sql_message(said), told);
    }

    #[test]
    fn nested_types_read_like_sql() {
        let line = DataType::Struct(vec![Field::new("sku", DataType::Utf8, true)].into());
        let lines = DataType::List(Arc::new(Field::new_list_field(line, true)));
        assert_eq!(sql_type(&lines), "STRUCT<sku VARCHAR> ARRAY");
    }
}

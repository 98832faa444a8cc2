//! SQL type names, as files of a project write them, to arrow types.
//!
//! Enters: `"DECIMAL(12,2) NOT NULL"`. Leaves: an arrow type and whether NULL may be there, or what is wrong with it.
//! Shared by `config` (keys of entities) and `catalog` (columns of streams).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType as SqlType, ExactNumberInfo, TimezoneInfo};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::diagnostic::nearest;

/// Type names that a column may have, for messages and for guessing what was meant.
const KNOWN: &[&str] = &[
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "VARCHAR",
    "TEXT",
    "STRING",
    "DATE",
    "TIMESTAMP",
    "STRUCT",
];
/// What is made of them.
const COMPOSED: &str = "VARCHAR ARRAY and STRUCT<sku VARCHAR, price DECIMAL(12,2)> are made of them";

/// What is wrong with a type: the message, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeProblem {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// Reads a type and an optional `NOT NULL`; gives the arrow type and whether NULL may be there.
///
/// TIMESTAMP(p) becomes wall time (`Timestamp(unit, None)`), p being 3 unless given; TIMESTAMP WITH TIME ZONE an
/// instant in `timezone`.
///
/// # Errors
/// When the text is no SQL type, or one that a column cannot have.
pub fn parse_column_type(text: &str, timezone: Tz) -> Result<(DataType, bool), TypeProblem> {
    let unreadable = || TypeProblem {
        message: format!("\"{text}\" is not a column type"),
        help: match nearest(text.split(['(', ' ', '<']).next().unwrap_or_default(), KNOWN.iter().copied()) {
            Some("STRUCT") => {
                "write each field's name and its type: STRUCT<sku VARCHAR, price DECIMAL(12,2)>".to_owned()
            }
            Some(near) => format!("did you mean {near}?"),
            None => known_types(),
        },
    };
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().map_err(|_| unreadable())?;
    let mut parser = Parser::new(&GenericDialect {}).with_tokens(with_brackets(tokens));
    let sql_type = parser.parse_data_type().map_err(|_| unreadable())?;
    let not_null = parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]);
    // A bare NULL says what is so without it.
    let _ = !not_null && parser.parse_keyword(Keyword::NULL);
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(TypeProblem {
            message: format!("\"{}\" is not expected after a column type", next.token),
            help: "a column is its type, and NOT NULL where a value must be there".to_owned(),
        });
    }
    Ok((arrow_type(&sql_type, text, timezone, &unreadable)?, !not_null))
}

fn known_types() -> String {
    format!("known types: {}; {COMPOSED}", KNOWN.join(", "))
}

/// An array as the standard writes it, `VARCHAR ARRAY`, in the spelling that the parser knows everywhere: `VARCHAR[]`.
fn with_brackets(tokens: Vec<Token>) -> Vec<Token> {
    let is_array = |token: &Token| matches!(token, Token::Word(word) if word.keyword == Keyword::ARRAY);
    let mut tokens = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).peekable();
    let mut written = Vec::new();
    while let Some(token) = tokens.next() {
        match is_array(&token) && !written.is_empty() && tokens.peek() != Some(&Token::Lt) {
            true => written.extend([Token::LBracket, Token::RBracket]),
            false => written.push(token),
        }
    }
    written
}

fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

fn arrow_type(
    sql_type: &SqlType,
    text: &str,
    timezone: Tz,
    unreadable: &dyn Fn() -> TypeProblem,
) -> Result<DataType, TypeProblem> {
    let refuse = |help: &str| {
        Err(TypeProblem { message: format!("a column cannot have the type \"{text}\""), help: help.to_owned() })
    };
    Ok(match sql_type {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::TinyInt(_) => DataType::Int8,
        SqlType::SmallInt(_) | SqlType::Int2(_) => DataType::Int16,
        SqlType::MediumInt(_) | SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) => DataType::Int32,
        SqlType::BigInt(_) | SqlType::Int8(_) => DataType::Int64,
        SqlType::TinyIntUnsigned(_) => DataType::UInt8,
        SqlType::SmallIntUnsigned(_) | SqlType::Int2Unsigned(_) => DataType::UInt16,
        SqlType::MediumIntUnsigned(_)
        | SqlType::IntUnsigned(_)
        | SqlType::IntegerUnsigned(_)
        | SqlType::Int4Unsigned(_) => DataType::UInt32,
        SqlType::BigIntUnsigned(_) | SqlType::Int8Unsigned(_) => DataType::UInt64,
        SqlType::Real | SqlType::Float4 => DataType::Float32,
        // As the standard says: FLOAT(p) has at least p binary digits.
        SqlType::Float(ExactNumberInfo::Precision(digits)) if *digits > 24 => DataType::Float64,
        SqlType::Float(_) => DataType::Float32,
        SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 => DataType::Float64,
        SqlType::Decimal(size) | SqlType::Numeric(size) | SqlType::Dec(size) => decimal(*size, text)?,
        SqlType::Varchar(_)
        | SqlType::CharacterVarying(_)
        | SqlType::CharVarying(_)
        | SqlType::Nvarchar(_)
        | SqlType::Char(_)
        | SqlType::Character(_)
        | SqlType::Text
        | SqlType::String(_) => DataType::Utf8,
        SqlType::Date => DataType::Date32,
        SqlType::Timestamp(precision, zone) => {
            let unit = match precision.unwrap_or(3) {
                0 => TimeUnit::Second,
                1..=3 => TimeUnit::Millisecond,
                4..=6 => TimeUnit::Microsecond,
                7..=9 => TimeUnit::Nanosecond,
                _ => return refuse("a TIMESTAMP has at most 9 digits of a second: TIMESTAMP(9)"),
            };
            let instant = matches!(zone, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz);
            DataType::Timestamp(unit, instant.then(|| timezone.name().into()))
        }
        SqlType::Datetime(precision) => {
            let digits = precision.unwrap_or(3);
            return refuse(&format!("write TIMESTAMP({digits}): wall time in the project's zone"));
        }
        SqlType::Custom(..) => return Err(unreadable()),
        SqlType::Array(ArrayElemTypeDef::AngleBracket(element) | ArrayElemTypeDef::SquareBracket(element, _)) => {
            list_of(arrow_type(element, text, timezone, unreadable)?)
        }
        SqlType::Struct(fields, _) if !fields.is_empty() => {
            let mut named = Vec::new();
            for field in fields {
                let Some(name) = &field.field_name else {
                    return refuse("name the fields: STRUCT<sku VARCHAR, price DECIMAL(12,2)>");
                };
                let data_type = arrow_type(&field.field_type, text, timezone, unreadable)?;
                if named.iter().any(|known: &Field| *known.name() == name.value) {
                    return refuse("name each field once");
                }
                named.push(Field::new(&name.value, data_type, true));
            }
            DataType::Struct(named.into())
        }
        SqlType::JSON | SqlType::JSONB | SqlType::Struct(..) | SqlType::Array(_) | SqlType::Map(..) => {
            return refuse(
                "name the values inside as columns of their own: city = { type = \"VARCHAR\", path = \"$.address.city\" }",
            );
        }
        SqlType::Uuid => return refuse("write VARCHAR: a UUID is read as text"),
        _ => return refuse(&known_types()),
    })
}

fn decimal(size: ExactNumberInfo, text: &str) -> Result<DataType, TypeProblem> {
    let (precision, scale) = match size {
        ExactNumberInfo::None => {
            return Err(TypeProblem {
                message: format!("\"{text}\" does not say how many digits it has"),
                help: "write all digits and those after the point: DECIMAL(12,2)".to_owned(),
            });
        }
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) if scale >= 0 && scale.unsigned_abs() <= precision => {
            Ok(DataType::Decimal128(precision, scale))
        }
        _ => Err(TypeProblem {
            message: format!("\"{text}\" has more digits than a DECIMAL can have"),
            help: "at most 38 digits in all, of which those after the point are a part: DECIMAL(38,10)".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(DataType, bool), TypeProblem> {
        parse_column_type(text, chrono_tz::Asia::Shanghai)
    }

    #[test]
    fn sql_types_become_arrow_types() {
        let zone = || Some("Asia/Shanghai".into());
        for (text, expected) in [
            ("boolean", DataType::Boolean),
            ("TINYINT", DataType::Int8),
            ("SMALLINT UNSIGNED", DataType::UInt16),
            ("INT", DataType::Int32),
            ("BIGINT", DataType::Int64),
            ("BIGINT UNSIGNED", DataType::UInt64),
            ("FLOAT", DataType::Float32),
            ("FLOAT(53)", DataType::Float64),
            ("DOUBLE", DataType::Float64),
            ("DOUBLE PRECISION", DataType::Float64),
            ("DECIMAL(12,2)", DataType::Decimal128(12, 2)),
            ("NUMERIC(9)", DataType::Decimal128(9, 0)),
            ("VARCHAR(64)", DataType::Utf8),
            ("STRING", DataType::Utf8),
            ("DATE", DataType::Date32),
            ("TIMESTAMP", DataType::Timestamp(TimeUnit::Millisecond, None)),
            ("TIMESTAMP(0)", DataType::Timestamp(TimeUnit::Second, None)),
            ("TIMESTAMP(6)", DataType::Timestamp(TimeUnit::Microsecond, None)),
            ("TIMESTAMP(9)", DataType::Timestamp(TimeUnit::Nanosecond, None)),
            ("TIMESTAMP(3) WITH TIME ZONE", DataType::Timestamp(TimeUnit::Millisecond, zone())),
        ] {
            assert_eq!(read(text), Ok((expected, true)), "{text}");
        }
    }

    #[test]
    fn arrays_and_structs_hold_types() {
        let texts = || list_of(DataType::Utf8);
        for text in ["VARCHAR ARRAY", "ARRAY<VARCHAR>", "VARCHAR[]"] {
            assert_eq!(read(text), Ok((texts(), true)), "{text}");
        }
        assert_eq!(read("VARCHAR ARRAY ARRAY"), Ok((list_of(texts()), true)));
        assert_eq!(read("BIGINT ARRAY NOT NULL"), Ok((list_of(DataType::Int64), false)));
        let fields =
            vec![Field::new("sku", DataType::Utf8, true), Field::new("price", DataType::Decimal128(12, 2), true)];
        let line = DataType::Struct(fields.into());
        for text in
            ["STRUCT<sku VARCHAR, price DECIMAL(12,2)> ARRAY", "ARRAY<STRUCT<sku VARCHAR, price DECIMAL(12,2)>>"]
        {
            assert_eq!(read(text), Ok((list_of(line.clone()), true)), "{text}");
        }
        let nested = DataType::Struct(
            vec![Field::new("a", DataType::Int32, true), Field::new("b", list_of(texts()), true)].into(),
        );
        assert_eq!(read("STRUCT<a INT, b VARCHAR ARRAY ARRAY>"), Ok((nested, true)));
        assert_eq!(read("STRUCT<a INT, a INT>").unwrap_err().help, "name each field once");
        assert!(read("STRUCT<a, b INT").unwrap_err().help.contains("STRUCT<sku VARCHAR, price DECIMAL(12,2)>"));
        assert_eq!(read("ARRAY<JSON>").unwrap_err().message, "a column cannot have the type \"ARRAY<JSON>\"");
    }

    #[test]
    fn not_null_follows_the_type() {
        assert_eq!(read("BIGINT NOT NULL"), Ok((DataType::Int64, false)));
        assert_eq!(read("BIGINT NULL"), Ok((DataType::Int64, true)));
        assert_eq!(read("BIGINT PRIMARY KEY").unwrap_err().message, "\"PRIMARY\" is not expected after a column type");
    }

    #[test]
    fn misspelt_type_gets_the_nearest() {
        assert_eq!(read("BIGNIT").unwrap_err().help, "did you mean BIGINT?");
    }
}

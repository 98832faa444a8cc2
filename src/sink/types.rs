//! What an arrow type becomes in a store, said once for all stores.
//!
//! Enters: arrow types. Leaves: a [`StoreType`], or what the author should write instead. Knows no store's spelling.

use arrow::datatypes::{DataType, TimeUnit};

/// Scale that MySQL still takes.
const MAX_DECIMAL_SCALE: i8 = 30;
/// Digits that MySQL still takes.
const MAX_DECIMAL_PRECISION: u8 = 65;

/// The kind of a column in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreType {
    /// 0 or 1.
    Boolean,
    /// A whole number of that many bits.
    Int {
        /// 8, 16, 32 or 64.
        bits: u8,
        /// True when it has no sign.
        unsigned: bool,
    },
    /// A floating point number of 64 bits; NaN and infinity become NULL.
    Double,
    /// An exact number.
    Decimal {
        /// All its digits.
        precision: u8,
        /// Those behind the point.
        scale: u8,
    },
    /// Text that is never cut.
    Text,
    /// Bytes that are never cut.
    Bytes,
    /// A day, year 1 to 9999.
    Date,
    /// A time of day.
    Time {
        /// Digits behind the second, 3 or 6.
        digits: u8,
    },
    /// Wall time in the project's zone, year 1 to 9999.
    DateTime {
        /// Digits behind the second, 3 or 6; nanoseconds are cut to microseconds.
        digits: u8,
    },
    /// A list or a struct as JSON text.
    Json,
}

/// A type that no store holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct Unstorable {
    /// Which, and why not.
    pub message: String,
    /// What the author should write instead.
    pub help: String,
}

impl Unstorable {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Unstorable { message: message.into(), help: help.into() }
    }
}

impl StoreType {
    /// The kind that holds values of an arrow type.
    ///
    /// # Errors
    /// What cannot be stored, and what to write instead.
    pub fn of(data_type: &DataType) -> Result<StoreType, Unstorable> {
        let int = |bits, unsigned| Ok(StoreType::Int { bits, unsigned });
        match data_type {
            DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(StoreType::Text),
            DataType::Boolean => Ok(StoreType::Boolean),
            DataType::Int8 => int(8, false),
            DataType::Int16 => int(16, false),
            DataType::Int32 => int(32, false),
            DataType::Int64 => int(64, false),
            DataType::UInt8 => int(8, true),
            DataType::UInt16 => int(16, true),
            DataType::UInt32 => int(32, true),
            DataType::UInt64 => int(64, true),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Ok(StoreType::Double),
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => decimal(*precision, *scale),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Ok(StoreType::Bytes)
            }
            DataType::Date32 | DataType::Date64 => Ok(StoreType::Date),
            DataType::Time32(_) => Ok(StoreType::Time { digits: 3 }),
            DataType::Time64(_) => Ok(StoreType::Time { digits: 6 }),
            DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _) => Ok(StoreType::DateTime { digits: 3 }),
            DataType::Timestamp(_, _) => Ok(StoreType::DateTime { digits: 6 }),
            DataType::Dictionary(_, values) => StoreType::of(values),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                StoreType::of(item.data_type()).map(|_| StoreType::Json)
            }
            DataType::Struct(fields) => {
                fields.iter().try_for_each(|field| StoreType::of(field.data_type()).map(|_| ()))?;
                Ok(StoreType::Json)
            }
            DataType::Interval(_) | DataType::Duration(_) => Err(Unstorable::new(
                "a length of time has no column type in a database",
                "write `EXTRACT(EPOCH FROM (a - b))` for its seconds, or `CAST(a AS DATE) - CAST(b AS DATE)` for days",
            )),
            other => Err(Unstorable::new(
                format!("a value of type {other} has no column type in a database"),
                "cast it to VARCHAR",
            )),
        }
    }

    /// The kind of a key column.
    ///
    /// # Errors
    /// As [`StoreType::of`], and for what no primary key can hold.
    pub fn of_key(data_type: &DataType) -> Result<StoreType, Unstorable> {
        match StoreType::of(data_type)? {
            StoreType::Json => {
                let message = format!("a value of type {data_type} cannot be a key");
                Err(Unstorable::new(message, "take a column of plain values"))
            }
            kind => Ok(kind),
        }
    }
}

fn decimal(precision: u8, scale: i8) -> Result<StoreType, Unstorable> {
    let refused = |why: String| Unstorable::new(why, "cast it, for example to DECIMAL(38, 10)");
    if scale < 0 {
        return Err(refused(format!("DECIMAL({precision}, {scale}) has a negative scale, which no database takes")));
    }
    if scale > MAX_DECIMAL_SCALE || precision > MAX_DECIMAL_PRECISION {
        return Err(refused(format!(
            "DECIMAL({precision}, {scale}) is wider than MySQL's DECIMAL({MAX_DECIMAL_PRECISION}, {MAX_DECIMAL_SCALE})"
        )));
    }
    Ok(StoreType::Decimal { precision, scale: scale.unsigned_abs() })
}

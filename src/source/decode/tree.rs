//! What binary formats give beyond single values: arrays, records and maps, into columns of lists and structs or into
//! text.

use std::borrow::Cow;
use std::fmt::Write;

use chrono::{DateTime, NaiveDate};

use super::column::{ColumnBuilder, Misfit, Value};
use super::number;
use super::time::Moment;

/// A value with all that is in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree<'a> {
    Leaf(Value<'a>),
    List(Vec<Tree<'a>>),
    Object(Vec<(Cow<'a, str>, Tree<'a>)>),
}

impl<'a> Tree<'a> {
    pub(super) const MISSING: Tree<'static> = Tree::Leaf(Value::Missing);

    /// The value as a column takes it.
    #[inline]
    pub(super) fn value(&'a self) -> Value<'a> {
        match self {
            Tree::Leaf(value) => *value,
            Tree::List(_) | Tree::Object(_) => Value::Tree(self),
        }
    }
}

/// Gives a value to the columns that take it.
#[inline]
pub(super) fn put<'a>(values: &mut [Tree<'a>], slots: &[usize], tree: Tree<'a>) {
    if let [slot] = slots {
        values[*slot] = tree;
        return;
    }
    for slot in slots {
        values[*slot] = tree.clone();
    }
}

/// An empty vector with the room of `used`, for values that live elsewhere.
pub(super) fn emptied<'b>(mut used: Vec<Tree<'_>>) -> Vec<Tree<'b>> {
    used.clear();
    // In place: collecting nothing keeps the allocation.
    used.into_iter().map(|_| Tree::MISSING).collect()
}

/// Appends the elements of an array, or leaves `items` as they are.
pub(super) fn push_list(elements: &[Tree<'_>], items: &mut ColumnBuilder) -> Result<(), Misfit> {
    let before = items.len();
    let outcome = elements.iter().try_for_each(|element| items.push(element.value()));
    if outcome.is_err() {
        items.truncate(before);
    }
    outcome
}

/// Appends an object as row `row` of `fields`, or leaves them as they are. A field that is not there is NULL.
pub(super) fn push_struct(
    object: &[(Cow<'_, str>, Tree<'_>)],
    row: usize,
    fields: &mut [ColumnBuilder],
) -> Result<(), Misfit> {
    let outcome = fields.iter_mut().try_for_each(|field| {
        let exact = object.iter().rfind(|(name, _)| name == field.name());
        let found = exact.or_else(|| object.iter().rfind(|(name, _)| name.eq_ignore_ascii_case(field.name())));
        field.push(found.map_or(Value::Missing, |(_, tree)| tree.value()))
    });
    if outcome.is_err() {
        fields.iter_mut().for_each(|field| field.truncate(row));
    }
    outcome
}

/// The text that a VARCHAR column keeps of a value; JSON of what holds others.
pub(super) fn write_text(value: Value<'_>, out: &mut String) -> Result<(), Misfit> {
    let written = match value {
        Value::Missing | Value::Null => return Ok(()),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Number(text) | Value::Text(text) | Value::Field(text) | Value::Composite(text) => out.write_str(text),
        Value::NotAnObject(_) => return Err(Misfit::Expected("an object on its path")),
        Value::Integer(value) => write!(out, "{value}"),
        Value::Large(value) => write!(out, "{value}"),
        Value::Real(value) if value.is_finite() => write!(out, "{value}"),
        Value::Double(value) if value.is_finite() => write!(out, "{value}"),
        Value::Real(_) | Value::Double(_) => return Err(Misfit::Expected("a finite number")),
        Value::Decimal { unscaled, scale } => {
            let unscaled =
                number::from_big_endian(unscaled).map_err(|_| Misfit::Expected("a decimal of at most 38 digits"))?;
            if scale > 38 {
                return Err(Misfit::Expected("a decimal of at most 38 digits"));
            }
            number::write_decimal(unscaled, scale, out);
            Ok(())
        }
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => out.write_str(text),
            Err(_) => return Err(Misfit::Expected("bytes that are UTF-8 text")),
        },
        Value::Date(days) => match NaiveDate::from_epoch_days(days) {
            Some(date) => write!(out, "{date}"),
            None => return Err(Misfit::Expected("a date that has a year")),
        },
        Value::Instant(moment) => write!(out, "{}Z", written_moment(moment)?),
        Value::Wall(moment) => write!(out, "{}", written_moment(moment)?),
        Value::TimeOfDay(moment) if (0..86_400).contains(&moment.seconds) => {
            let text = written_moment(moment)?;
            out.write_str(text.rsplit('T').next().unwrap_or_default())
        }
        Value::TimeOfDay(_) => return Err(Misfit::Expected("a time of day")),
        Value::Uuid(bytes) => {
            for (at, byte) in bytes.iter().enumerate() {
                if matches!(at, 4 | 6 | 8 | 10) {
                    out.push('-');
                }
                // A String takes whatever is written to it.
                let _ = write!(out, "{byte:02x}");
            }
            Ok(())
        }
        Value::Symbol { name: Some(name), .. } => out.write_str(name),
        Value::Symbol { name: None, .. } => return Err(Misfit::Expected("a number of which the enum has a name")),
        Value::Tree(tree) => return write_json(tree, out),
    };
    written.map_err(|_| Misfit::OfType)
}

fn written_moment(moment: Moment) -> Result<String, Misfit> {
    let moment =
        DateTime::from_timestamp(moment.seconds, moment.nanos).ok_or(Misfit::Expected("a time with a year"))?;
    Ok(moment.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string())
}

fn write_json(tree: &Tree<'_>, out: &mut String) -> Result<(), Misfit> {
    match tree {
        Tree::Leaf(value) => match value {
            Value::Missing | Value::Null => out.push_str("null"),
            Value::Bool(_)
            | Value::Integer(_)
            | Value::Large(_)
            | Value::Real(_)
            | Value::Double(_)
            | Value::Decimal { .. } => write_text(*value, out)?,
            other => {
                let mut text = String::new();
                write_text(*other, &mut text)?;
                write_quoted(&text, out);
            }
        },
        Tree::List(elements) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_json(element, out)?;
            }
            out.push(']');
        }
        Tree::Object(fields) => {
            out.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_quoted(name, out);
                out.push(':');
                write_json(value, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn write_quoted(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// What messages show of a value, whatever it is.
pub(super) fn shown(value: Value<'_>) -> String {
    let mut text = String::new();
    match (value, write_text(value, &mut text)) {
        (Value::Bytes(bytes), Err(_)) => format!("{} bytes that are no text", bytes.len()),
        (Value::Symbol { number, .. }, _) => number.to_string(),
        (Value::Real(value), Err(_)) => value.to_string(),
        (Value::Double(value), Err(_)) => value.to_string(),
        (Value::Bytes(_), Ok(())) => format!("{text:?}"),
        (_, Ok(())) => text,
        (_, Err(_)) => "a value outside of what can be written".to_owned(),
    }
}

//! JSON arrays and objects into columns of lists and structs, element by element.
//!
//! What is given here has been scanned before, so it is JSON; that it may be none is still an error and no panic.

use super::column::{ColumnBuilder, Misfit, Value};
use super::scan::{self, Kind, Malformed, Scanner, Token};

/// Appends the elements of the array `json`, or leaves `items` as they are.
pub(super) fn push_list(json: &str, items: &mut ColumnBuilder) -> Result<(), Misfit> {
    let before = items.len();
    let outcome = each_element(json, items);
    if outcome.is_err() {
        items.truncate(before);
    }
    outcome
}

fn each_element(json: &str, items: &mut ColumnBuilder) -> Result<(), Misfit> {
    let mut scanner = Scanner::new(json);
    scanner.expect(b'[', "expected `[`").map_err(no_fit)?;
    if scanner.peek() == Some(b']') {
        return Ok(());
    }
    loop {
        let token = scanner.value(1).map_err(no_fit)?;
        push(token, json, items)?;
        if scanner.peek() != Some(b',') {
            return Ok(());
        }
        scanner.bump();
    }
}

/// Appends the object `json` as row `row` of `fields`, or leaves them as they are. A field that is not there is NULL; of
/// one given twice the last holds.
pub(super) fn push_struct(json: &str, row: usize, fields: &mut [ColumnBuilder]) -> Result<(), Misfit> {
    let outcome = each_field(json, fields);
    if outcome.is_err() {
        fields.iter_mut().for_each(|field| field.truncate(row));
    }
    outcome
}

fn each_field(json: &str, fields: &mut [ColumnBuilder]) -> Result<(), Misfit> {
    let mut scanner = Scanner::new(json);
    scanner.expect(b'{', "expected `{`").map_err(no_fit)?;
    let mut values = vec![Token::MISSING; fields.len()];
    // Where a field's exact name was seen, one of another case does not count.
    let mut is_exact = vec![false; fields.len()];
    while scanner.peek() == Some(b'"') {
        let key = scanner.key().map_err(no_fit)?;
        let value = scanner.value(1).map_err(no_fit)?;
        let mut name = String::new();
        scan::unescape(&json[key.span()], &mut name).map_err(|_| Misfit::OfType)?;
        let exact = fields.iter().position(|field| field.name() == name);
        let found = exact.or_else(|| fields.iter().position(|field| field.name().eq_ignore_ascii_case(&name)));
        if let Some(field) = found.filter(|field| exact.is_some() || !is_exact[*field]) {
            values[field] = value;
            is_exact[field] = exact.is_some();
        }
        if scanner.peek() == Some(b',') {
            scanner.bump();
            scanner.peek();
        }
    }
    for (field, token) in fields.iter_mut().zip(values) {
        push(token, json, field)?;
    }
    Ok(())
}

fn push(token: Token, json: &str, column: &mut ColumnBuilder) -> Result<(), Misfit> {
    let text = &json[if token.kind == Kind::Missing { 0..0 } else { token.span() }];
    let mut made = String::new();
    let value = match token.kind {
        Kind::Missing => Value::Missing,
        Kind::Null => Value::Null,
        Kind::True => Value::Bool(true),
        Kind::False => Value::Bool(false),
        Kind::Number => Value::Number(text),
        Kind::Text | Kind::Scratch => Value::Text(text),
        Kind::EscapedText => {
            scan::unescape(text, &mut made).map_err(|_| Misfit::OfType)?;
            Value::Text(&made)
        }
        Kind::Composite if column.keeps_json() => {
            scan::compact(text, &mut made);
            Value::Composite(&made)
        }
        Kind::Composite => Value::Composite(text),
        Kind::NotAnObject => Value::NotAnObject(text),
    };
    column.push(value)
}

fn no_fit(_: Malformed) -> Misfit {
    Misfit::OfType
}

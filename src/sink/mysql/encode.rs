//! Rows as MySQL reads them: literals of a statement, and lines of LOAD DATA.
//!
//! Enters: cells. Leaves: bytes. Relies on a session without NO_BACKSLASH_ESCAPES and with utf8mb4.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use chrono_tz::Tz;

use crate::sink::cells::{Cell, CellReader};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A name in backquotes.
pub(super) fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text literal.
pub(super) fn quote_text(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_text_literal(text, &mut out);
    String::from_utf8(out).expect("escaping adds ASCII to UTF-8")
}

/// A text literal or NULL.
pub(super) fn quote_optional(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_string(), quote_text)
}

/// `(…)` of literals.
pub(super) fn quote_row(texts: &[Option<String>]) -> String {
    let literals: Vec<String> = texts.iter().map(|text| quote_optional(text.as_deref())).collect();
    format!("({})", literals.join(", "))
}

/// Writes the rows of one batch.
pub(super) struct RowEncoder {
    readers: Vec<CellReader>,
    /// Values that became NULL because the store has none like them.
    pub nulled: u64,
}

impl RowEncoder {
    pub fn new(batch: &RecordBatch, zone: Tz) -> Result<RowEncoder, ArrowError> {
        let readers = batch.columns().iter().map(|column| CellReader::new(column, zone));
        Ok(RowEncoder { readers: readers.collect::<Result<_, _>>()?, nulled: 0 })
    }

    /// One line of LOAD DATA: fields behind tabs, `\N` for NULL, bytes in hexadecimal.
    pub fn write_line(&mut self, row: usize, out: &mut Vec<u8>) {
        for (index, reader) in self.readers.iter_mut().enumerate() {
            if index > 0 {
                out.push(b'\t');
            }
            match reader.cell(row) {
                Cell::Null => out.extend_from_slice(b"\\N"),
                Cell::Unfit => {
                    self.nulled += 1;
                    out.extend_from_slice(b"\\N");
                }
                Cell::Text(text) => write_field(text, out),
                Cell::Bytes(bytes) => write_hex(bytes, out),
                plain => write_plain(plain, out),
            }
        }
        out.push(b'\n');
    }

    /// One row of literals behind commas, without the parentheses.
    pub fn write_literals(&mut self, row: usize, out: &mut Vec<u8>) {
        for index in 0..self.readers.len() {
            if index > 0 {
                out.push(b',');
            }
            self.write_literal(index, row, out);
        }
    }

    /// The literal of one column.
    pub fn write_literal(&mut self, column: usize, row: usize, out: &mut Vec<u8>) {
        match self.readers[column].cell(row) {
            Cell::Null => out.extend_from_slice(b"NULL"),
            Cell::Unfit => {
                self.nulled += 1;
                out.extend_from_slice(b"NULL");
            }
            Cell::Moment(moment) => {
                out.push(b'\'');
                out.extend_from_slice(moment.as_bytes());
                out.push(b'\'');
            }
            Cell::Text(text) => write_text_literal(text, out),
            Cell::Bytes(bytes) => {
                out.extend_from_slice(b"x'");
                write_hex(bytes, out);
                out.push(b'\'');
            }
            plain => write_plain(plain, out),
        }
    }
}

/// What needs neither quotes in a line nor escapes anywhere.
fn write_plain(cell: Cell<'_>, out: &mut Vec<u8>) {
    let written = match cell {
        Cell::Int(value) => write!(out, "{value}"),
        Cell::UInt(value) => write!(out, "{value}"),
        // An exponent makes it a double; without one the server would take it for an exact number.
        Cell::Real(value) => write!(out, "{value:e}"),
        Cell::Digits(text) | Cell::Moment(text) => out.write_all(text.as_bytes()),
        Cell::Null | Cell::Unfit | Cell::Text(_) | Cell::Bytes(_) => unreachable!("written by the callers"),
    };
    written.expect("a Vec takes all that is written");
}

fn write_text_literal(text: &str, out: &mut Vec<u8>) {
    out.push(b'\'');
    write_escaped(text, out, |byte| match byte {
        b'\'' => Some(b'\''),
        b'\\' => Some(b'\\'),
        0 => Some(b'0'),
        _ => None,
    });
    out.push(b'\'');
}

fn write_field(text: &str, out: &mut Vec<u8>) {
    write_escaped(text, out, |byte| match byte {
        b'\t' => Some(b't'),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\\' => Some(b'\\'),
        0 => Some(b'0'),
        _ => None,
    });
}

/// Copies the stretches between the bytes that need a backslash.
fn write_escaped(text: &str, out: &mut Vec<u8>, escape: impl Fn(u8) -> Option<u8>) {
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if let Some(letter) = escape(*byte) {
            out.extend_from_slice(&bytes[start..at]);
            out.extend_from_slice(&[b'\\', letter]);
            start = at + 1;
        }
    }
    out.extend_from_slice(&bytes[start..]);
}

fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_break_out_of_their_quotes() {
        assert_eq!(quote_name("a`b"), "`a``b`");
        assert_eq!(quote_text("it's \\ \0 \"x\"\n"), "'it\\'s \\\\ \\0 \"x\"\n'");
        assert_eq!(quote_row(&[None, Some("a".to_string())]), "(NULL, 'a')");
    }
}

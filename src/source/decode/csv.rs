//! Comma separated values (RFC 4180), one record at a time.

use super::DecodeError;
use super::column::Value;
use crate::catalog::Stream;

/// Splits lines and knows which field is which column.
pub(crate) struct CsvReader {
    /// The name of each declared column in a header: its path joined by dots, and its own name.
    names: Vec<(String, String)>,
    /// Which field holds each declared column.
    places: Vec<Option<usize>>,
    /// How many fields a record must have.
    width: usize,
    fields: Vec<Field>,
    /// Quoted fields with doubled quotes, undone.
    scratch: String,
}

/// Where a field's text is.
#[derive(Debug, Clone, Copy)]
struct Field {
    start: usize,
    end: usize,
    is_quoted: bool,
    in_scratch: bool,
}

impl CsvReader {
    /// Fields are the declared columns in order.
    pub(crate) fn new(stream: &Stream) -> Self {
        CsvReader {
            names: stream.columns.iter().map(|column| (column.path.join("."), column.name.clone())).collect(),
            places: (0..stream.columns.len()).map(Some).collect(),
            width: stream.columns.len(),
            fields: Vec::new(),
            scratch: String::new(),
        }
    }

    /// Fields are what this line says.
    pub(crate) fn set_header(&mut self, line: &[u8]) -> Result<(), DecodeError> {
        let line = std::str::from_utf8(line).map_err(|_| DecodeError("the header line is no UTF-8".into()))?;
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        self.split(line)?;
        let header: Vec<&str> = self.fields.iter().map(|field| self.text_of(*field, line).trim()).collect();
        let place = |(path, name): &(String, String)| {
            let exact = |wanted: &str| header.iter().position(|field| *field == wanted);
            let any_case = |wanted: &str| {
                let wanted = wanted.to_lowercase();
                header.iter().position(|field| field.to_lowercase() == wanted)
            };
            exact(path).or_else(|| exact(name)).or_else(|| any_case(path)).or_else(|| any_case(name))
        };
        let places = self.names.iter().map(place).collect();
        self.width = header.len();
        self.places = places;
        Ok(())
    }

    /// Splits a record.
    pub(crate) fn read(&mut self, line: &str) -> Result<(), DecodeError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        self.split(line)?;
        if self.fields.len() != self.width {
            let (found, width) = (self.fields.len(), self.width);
            return Err(DecodeError(format!("expected {width} fields, found {found}")));
        }
        Ok(())
    }

    /// The value of a declared column in the record `text` that was just read.
    pub(super) fn value<'a>(&'a self, slot: usize, text: &'a str) -> Value<'a> {
        match self.places[slot] {
            None => Value::Missing,
            Some(place) => {
                let field = self.fields[place];
                match self.text_of(field, text) {
                    // Quotes tell empty text from no value; every other type than VARCHAR refuses it.
                    "" if field.is_quoted => Value::Text(""),
                    text => Value::Field(text),
                }
            }
        }
    }

    /// All fields of the record `text` that was just read; NULL is `None`.
    pub(crate) fn fields<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Option<&'a str>> {
        self.fields.iter().map(move |field| match self.text_of(*field, text) {
            "" if !field.is_quoted => None,
            text => Some(text),
        })
    }

    /// A declared column that the header does not name.
    pub(crate) fn missing(&self) -> Option<&str> {
        let missing = self.places.iter().position(Option::is_none)?;
        Some(&self.names[missing].1)
    }

    fn text_of<'a>(&'a self, field: Field, line: &'a str) -> &'a str {
        let source = if field.in_scratch { self.scratch.as_str() } else { line };
        &source[field.start..field.end]
    }

    fn split(&mut self, line: &str) -> Result<(), DecodeError> {
        self.fields.clear();
        self.scratch.clear();
        let mut at = 0;
        loop {
            let rest = &line[at..];
            if rest.starts_with('"') {
                at = self.quoted(line, at + 1)?;
            } else {
                let end = rest.find(',').map_or(line.len(), |comma| at + comma);
                self.fields.push(Field { start: at, end, is_quoted: false, in_scratch: false });
                at = end;
            }
            match line.as_bytes().get(at) {
                None => return Ok(()),
                Some(b',') => at += 1,
                Some(_) => return Err(DecodeError(format!("text after a closing quote at byte {at}"))),
            }
        }
    }

    /// A field whose opening quote was just before `start`; returns where it ends.
    fn quoted(&mut self, line: &str, start: usize) -> Result<usize, DecodeError> {
        let mut from = start;
        let scratch_start = self.scratch.len();
        let mut in_scratch = false;
        loop {
            let Some(quote) = line[from..].find('"').map(|quote| from + quote) else {
                return Err(DecodeError(format!("quote at byte {} is never closed", start - 1)));
            };
            if line.as_bytes().get(quote + 1) == Some(&b'"') {
                self.scratch.push_str(&line[from..=quote]);
                in_scratch = true;
                from = quote + 2;
                continue;
            }
            let field = if in_scratch {
                self.scratch.push_str(&line[from..quote]);
                Field { start: scratch_start, end: self.scratch.len(), is_quoted: true, in_scratch }
            } else {
                Field { start, end: quote, is_quoted: true, in_scratch }
            };
            self.fields.push(field);
            return Ok(quote + 1);
        }
    }
}

//! Rows in a CSV file beside a test: the first line names the columns, an empty field is NULL, a quoted one empty text.

use std::io::Cursor;
use std::ops::Range;

use crate::catalog::Stream;
use crate::source::decode::CsvReader;
use crate::source::{Line, LineReader};

/// Where something stands, and what is wrong with it.
pub(super) type Misplaced = (Range<usize>, String);

/// One row.
pub(super) struct CsvRow {
    /// Its place in the file.
    pub(super) span: Range<usize>,
    /// Its fields in the order of the header.
    pub(super) fields: Vec<Option<String>>,
}

/// The names of the columns and the rows of a file. `stream` has no columns of its own.
pub(super) fn read(text: &str, stream: &Stream) -> Result<(Vec<String>, Vec<CsvRow>), Misplaced> {
    let mut reader = CsvReader::new(stream);
    let mut lines = LineReader::over(Cursor::new(text.as_bytes()), true);
    let mut header: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    let told = |error: std::io::Error| (0..0, error.to_string());
    lines.seek(0, text.len() as u64).map_err(told)?;
    while let Line::Whole { start, next, text: line } = lines.next(false).map_err(told)? {
        let span = start as usize..next as usize;
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\n', '\r']);
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |error: crate::source::decode::DecodeError| (span.clone(), error.to_string());
        if header.is_none() {
            let line = line.strip_prefix('\u{feff}').unwrap_or(line);
            reader.set_header(line.as_bytes()).map_err(wrong)?;
            header = Some(reader.fields(line).map(|name| name.unwrap_or_default().trim().to_string()).collect());
            continue;
        }
        reader.read(line).map_err(wrong)?;
        let fields = reader.fields(line).map(|field| field.map(str::to_string)).collect();
        rows.push(CsvRow { span, fields });
    }
    match header {
        Some(header) => Ok((header, rows)),
        None => Err((0..text.len(), "the file is empty: its first line names the columns".to_string())),
    }
}

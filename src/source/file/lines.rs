//! The lines of a file with their byte positions; in CSV a quoted field may span several.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::regular_file::open_regular;

/// A CSV record whose quote is not closed within this is taken to be one bad line.
const LONGEST_QUOTED_RECORD: usize = 1 << 20;

/// What comes next in a file.
pub(crate) enum Line<'a> {
    /// A record with its line end, if it has one; the next one starts at `next`.
    Whole { start: u64, next: u64, text: &'a [u8] },
    /// A last line that may still grow.
    Unfinished,
    /// Nothing.
    End,
}

/// Reads a file up to a given byte.
pub(crate) struct LineReader<R = File> {
    reader: BufReader<R>,
    quotes: bool,
    at: u64,
    end: u64,
    line: Vec<u8>,
}

impl LineReader {
    pub(super) fn open(path: &Path, quotes: bool) -> io::Result<Self> {
        Ok(LineReader::over(open_regular(path)?, quotes))
    }
}

impl<R: Read + Seek> LineReader<R> {
    /// Reads what is not a file of its own.
    pub(crate) fn over(content: R, quotes: bool) -> Self {
        let reader = BufReader::with_capacity(256 << 10, content);
        LineReader { reader, quotes, at: 0, end: 0, line: Vec::new() }
    }

    /// Goes on at byte `at`; the file is taken to end at `end`.
    pub(crate) fn seek(&mut self, at: u64, end: u64) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(at))?;
        self.at = at;
        self.end = end;
        Ok(())
    }

    /// The next record. `waits_for_rest` says that a last line without an end is no record yet.
    pub(crate) fn next(&mut self, waits_for_rest: bool) -> io::Result<Line<'_>> {
        self.line.clear();
        let start = self.at;
        let mut first_line = 0;
        let mut open_quote = false;
        loop {
            let before = self.line.len();
            let left = self.end.saturating_sub(start + before as u64);
            (&mut self.reader).take(left).read_until(b'\n', &mut self.line)?;
            let added = &self.line[before..];
            let is_whole = added.last() == Some(&b'\n');
            if self.quotes {
                open_quote ^= added.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
            }
            if first_line == 0 {
                first_line = self.line.len();
            }
            if is_whole && !open_quote {
                break;
            }
            if is_whole && self.line.len() < LONGEST_QUOTED_RECORD {
                continue;
            }
            if !is_whole && waits_for_rest && !self.line.is_empty() {
                return Ok(Line::Unfinished);
            }
            if open_quote && first_line < self.line.len() {
                // One stray quote must not swallow the rest of the file: only its line is bad.
                self.line.truncate(first_line);
                self.reader.seek(SeekFrom::Start(start + first_line as u64))?;
            }
            break;
        }
        if self.line.is_empty() {
            return Ok(Line::End);
        }
        self.at = start + self.line.len() as u64;
        Ok(Line::Whole { start, next: self.at, text: &self.line })
    }
}

/// Where the last line starts that has no end yet; the file's length when all have one.
pub(super) fn last_line_start(path: &Path) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let mut file = open_regular(path)?;
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        (&mut file).take(end - start).read_to_end(&mut block)?;
        if let Some(place) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + place as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

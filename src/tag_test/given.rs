//! What comes in a test: rows by the names of their columns, and records as the topic has them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::Given;
use super::read::{Cells, Reading, object_text};
use super::rows::{by_columns, decoder, unquoted};
use crate::catalog::{Column, Format, Stream, place_of_name};
use crate::diagnostic::{codes, nearest};
use crate::source::decode::{RawRecord, instant};
use crate::toml_walk::{Section, in_order};

/// What an event may say beside the columns of its stream.
pub(crate) const MARKS: [&str; 5] = ["_partition", "_timestamp", "_key", "_raw", "_delete"];

/// The marks of an event.
#[derive(Default)]
struct Marks {
    partition: i32,
    timestamp: Option<i64>,
    key: Option<String>,
    raw: Option<String>,
    is_deleted: bool,
    /// Columns that are NULL where they have no value, whatever the defaults are.
    said: Vec<String>,
}

impl Reading<'_> {
    /// `[defaults.orders]`: what rows hold where they say nothing.
    pub(super) fn read_defaults(&mut self, root: &Section<'_>) {
        let Some(all) = self.walk.section(root, "defaults", "[defaults]") else { return };
        for key in in_order(all.table) {
            let name: &str = key.get_ref();
            let span = self.walk.at(key.span());
            let section = self.walk.section(&all, name, format!("[defaults.{name}]"));
            let (Some(section), Some(stream)) = (section, self.stream(name, span)) else { continue };
            let cells = self.cells(section.table, &[]);
            let file = self.file.to_path_buf();
            let cells = self.of_stream(&stream, cells, &file);
            self.check_row(&stream, &cells, &file);
            self.defaults.insert(stream.name.clone(), cells);
        }
    }

    /// All that `given` says.
    pub(super) fn given(&mut self, moment: &Section<'_>) -> Vec<Given> {
        let Some(all) = self.walk.section(moment, "given", "given") else { return Vec::new() };
        let mut given = Vec::new();
        for key in in_order(all.table) {
            let name: &str = key.get_ref();
            let Some(value) = all.table.get(name) else { continue };
            let span = self.walk.at(key.span());
            let Some(stream) = self.stream(name, span) else { continue };
            match value.get_ref() {
                DeValue::Array(items) => {
                    for item in items.iter() {
                        given.extend(self.event(&stream, item));
                    }
                }
                DeValue::String(csv) => {
                    let span = self.walk.at(value.span());
                    given.extend(self.events_of_csv(&stream, csv, span));
                }
                _ => self.walk.wrong_type("given", name, value, "an array of events, or the name of a CSV file"),
            }
        }
        given
    }

    /// A stream that the tag reads.
    pub(super) fn stream(&mut self, name: &str, span: Range<usize>) -> Option<Arc<Stream>> {
        let names = || self.streams.keys().map(String::as_str);
        if let Some(place) = place_of_name(names(), name) {
            return self.streams.values().nth(place).cloned();
        }
        let tag = &self.planned.definition.name;
        let reads = format!("the tag reads: {}", names().collect::<Vec<_>>().join(", "));
        let catalog = &self.desired.project.catalog;
        let (message, help) = if catalog.streams.contains_key(name) {
            (format!("the tag `{tag}` does not read the stream `{name}`"), reads)
        } else if catalog.views.contains_key(name) || name == "tags" {
            (format!("`{name}` is no stream: it is computed"), format!("give events of streams; {reads}"))
        } else {
            let help = match nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => reads,
            };
            (format!("there is no stream `{name}`"), help)
        };
        self.walk.error(codes::TEST_STREAM, span, message).help(help);
        None
    }

    fn event(&mut self, stream: &Arc<Stream>, item: &Spanned<DeValue<'_>>) -> Option<Given> {
        let span = self.walk.at(item.span());
        let file = self.file.to_path_buf();
        match item.get_ref() {
            DeValue::String(text) => {
                let marks = Marks { raw: Some(text.to_string()), ..Marks::default() };
                self.record(stream, marks, span)
            }
            DeValue::Table(table) => {
                let row = Section { label: "an event".to_string(), table, span: None, used: true, shadow: None };
                let marks = Marks {
                    partition: self.walk.integer(&row, "_partition", 0..=9999).unwrap_or_default() as i32,
                    timestamp: table
                        .get("_timestamp")
                        .and_then(|value| self.instant(value, "_timestamp"))
                        .map(|at| at / 1_000_000),
                    key: self.walk.string(&row, "_key"),
                    raw: self.walk.string(&row, "_raw"),
                    is_deleted: self.walk.boolean(&row, "_delete").unwrap_or_default(),
                    said: Vec::new(),
                };
                let cells = self.cells(table, &MARKS);
                self.marked(stream, marks, cells, (file, span))
            }
            _ => {
                let expected = "a table of columns, or a record in quotes";
                self.walk.wrong_type("given", &stream.name, item, expected);
                None
            }
        }
    }

    /// An event of which marks and columns are known.
    fn marked(
        &mut self,
        stream: &Arc<Stream>,
        marks: Marks,
        cells: Cells,
        (file, span): (PathBuf, Range<usize>),
    ) -> Option<Given> {
        let is_record = marks.raw.is_some() || marks.is_deleted && marks.key.is_some();
        if is_record {
            if let Some((name, _, span)) = cells.first() {
                let message = format!("a record as the topic has it says `{name}` itself");
                let help = "leave the column out, or write the row by its columns alone";
                self.problem(codes::TEST_VALUE, &file, span.clone(), message, help);
            }
            return self.record(stream, marks, span);
        }
        if marks.is_deleted && !stream.is_table() {
            let message = format!("events of `{}` are never deleted: it is no table", stream.name);
            self.problem(codes::TEST_VALUE, &file, span, message, "leave `_delete` out");
            return None;
        }
        let mut cells = self.of_stream(stream, cells, &file);
        let is_key = |name: &str| stream.key.iter().any(|key| key == name);
        if marks.is_deleted {
            let missing = stream.key.iter().find(|key| !cells.iter().any(|(name, ..)| name == *key));
            let more = cells.iter().find(|(name, ..)| !is_key(name));
            if missing.is_some() || more.is_some() {
                let message = "a row that is deleted is told by its key alone".to_string();
                let help = format!("the key of `{}`: {}", stream.name, stream.key.join(", "));
                self.problem(codes::TEST_VALUE, &file, span, message, &help);
                return None;
            }
        } else {
            if !self.check_row(stream, &cells, &file) {
                return None;
            }
            let defaults = self.defaults.get(&stream.name).cloned().unwrap_or_default();
            let is_said = |name: &String| {
                cells.iter().any(|(said, ..)| said == name)
                    || marks.said.iter().any(|said| said.eq_ignore_ascii_case(name))
            };
            let unsaid: Cells = defaults.into_iter().filter(|(name, ..)| !is_said(name)).collect();
            cells.extend(unsaid);
            if let Some(missing) = missing(stream, &cells) {
                let message = format!("the row has no `{missing}`, which is NOT NULL or a part of the key");
                let help = "write it, or the record as the topic has it: _raw = '{ … }'";
                self.problem(codes::TEST_VALUE, &file, span, message, help);
                return None;
            }
        }
        let object = object_text(&cells);
        let (key, payload) = if marks.is_deleted { (Some(object), None) } else { (marks.key, Some(object)) };
        let Marks { partition, timestamp, .. } = marks;
        Some(Given {
            stream: Arc::clone(stream),
            place: (file, span),
            partition,
            timestamp,
            key,
            payload,
            is_by_columns: true,
        })
    }

    /// A record as the topic has it.
    fn record(&mut self, stream: &Arc<Stream>, marks: Marks, span: Range<usize>) -> Option<Given> {
        let is_text = !matches!(stream.format, Format::Avro(_) | Format::Protobuf(_) | Format::Parquet);
        if !is_text || stream.kind.is_outside() {
            let message = format!("a record of `{}` cannot be written as text", stream.name);
            let help = "write the row by its columns: { user_id = 7, … }";
            let file = self.file.to_path_buf();
            self.problem(codes::TEST_VALUE, &file, span, message, help);
            return None;
        }
        let Marks { partition, timestamp, key, raw, .. } = marks;
        let place = (self.file.to_path_buf(), span);
        Some(Given { stream: Arc::clone(stream), place, partition, timestamp, key, payload: raw, is_by_columns: false })
    }

    fn events_of_csv(&mut self, stream: &Arc<Stream>, name: &str, span: Range<usize>) -> Vec<Given> {
        let Some((file, header, rows)) = self.csv(name, span) else { return Vec::new() };
        let mut given = Vec::new();
        for (span, cells) in rows {
            let (said, cells): (Cells, Cells) =
                cells.into_iter().partition(|(name, ..)| MARKS.contains(&name.as_str()));
            let text = |mark: &str| {
                let (_, json, _) = said.iter().find(|(name, ..)| name == mark)?;
                serde_json::from_str::<String>(json).ok()
            };
            let timestamp = text("_timestamp").map(|text| (instant(&text, self.zone).map(|at| at / 1_000_000), text));
            let partition = text("_partition").map(|text| (text.parse::<u16>().ok(), text));
            let is_deleted = text("_delete").map(|text| (text.parse::<bool>().ok(), text));
            for (mark, wrong) in [
                ("_timestamp", timestamp.as_ref().filter(|(found, _)| found.is_none()).map(|(_, text)| text)),
                ("_partition", partition.as_ref().filter(|(found, _)| found.is_none()).map(|(_, text)| text)),
                ("_delete", is_deleted.as_ref().filter(|(found, _)| found.is_none()).map(|(_, text)| text)),
            ] {
                if let Some(text) = wrong {
                    let message = format!("\"{text}\" is not a possible \"{mark}\"");
                    self.problem(codes::TEST_VALUE, &file, span.clone(), message, "");
                }
            }
            let marks = Marks {
                partition: partition.and_then(|(number, _)| number).unwrap_or_default().into(),
                timestamp: timestamp.and_then(|(at, _)| at),
                key: text("_key"),
                raw: text("_raw"),
                is_deleted: is_deleted.and_then(|(flag, _)| flag).unwrap_or_default(),
                said: header.clone(),
            };
            given.extend(self.marked(stream, marks, cells, (file.clone(), span)));
        }
        given
    }

    /// The cells of columns that the stream has, by their own names.
    fn of_stream(&mut self, stream: &Stream, cells: Cells, file: &Path) -> Cells {
        let names = stream.columns.iter().map(|column| column.name.as_str());
        let mut known = Cells::new();
        for (name, json, span) in cells {
            let Some(place) = place_of_name(names.clone(), &name) else {
                let help = match nearest(&name, names.clone().chain(MARKS)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("its columns: {}", names.clone().collect::<Vec<_>>().join(", ")),
                };
                let message = format!("the stream `{}` has no column `{name}`", stream.name);
                self.problem(codes::TEST_COLUMN, file, span, message, &help);
                continue;
            };
            let Column { name, data_type, .. } = &stream.columns[place];
            if known.iter().any(|(known, ..)| known == name) {
                self.problem(codes::TEST_VALUE, file, span, format!("the column `{name}` is there twice"), "");
                continue;
            }
            known.push((name.clone(), unquoted(json, data_type), span));
        }
        known
    }

    /// Looks whether every value fits its column, and tells of those that do not.
    fn check_row(&mut self, stream: &Stream, cells: &Cells, file: &Path) -> bool {
        let before = self.walk.diagnostics.len();
        let written = by_columns(stream);
        for cell in cells {
            let column = written.columns.iter().find(|column| column.name == cell.0).cloned();
            let Some(column) = column else { continue };
            let alone = Stream { columns: vec![column], key: Vec::new(), truncates: false, ..written.clone() };
            let object = object_text(std::slice::from_ref(cell));
            let payload = Some(object.as_bytes());
            let record = RawRecord { topic: "", partition: 0, offset: 0, timestamp: None, key: None, payload };
            if let Err(error) = decoder(&alone, &alone).and_then(|mut decoder| decoder.decode(&record)) {
                let message = format!("the value does not fit `{}`: {error}", stream.name);
                self.problem(codes::TEST_VALUE, file, cell.2.clone(), message, "");
            }
        }
        self.walk.diagnostics.len() == before
    }
}

/// A column that must have a value and has none.
fn missing<'a>(stream: &'a Stream, cells: &Cells) -> Option<&'a str> {
    let is_needed = |name: &str, nullable: bool| !nullable || stream.key.iter().any(|key| key == name);
    let mut needed = stream.columns.iter().filter(|column| is_needed(&column.name, column.nullable));
    needed.find(|column| !cells.iter().any(|(name, ..)| *name == column.name)).map(|column| column.name.as_str())
}

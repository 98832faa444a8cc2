//! Reads a test file: TOML with the place of everything at hand, and the CSV files that it names.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono_tz::Tz;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::rows::{RowReader, json_of, unquoted};
use super::{ExpectedChanges, ExpectedLetter, ExpectedRows, Suite, TagTest, TestFile, TestMoment, csv};
use crate::catalog::{Stream, place_of_name};
use crate::diagnostic::{Diagnostic, codes, nearest};
use crate::engine::desired::{Desired, PlannedTag};
use crate::inside::inside;
use crate::project::{self, TEST_FILE_END};
use crate::source::dead_letter::{Kind, Selection};
use crate::source::decode::instant;
use crate::toml_walk::{Section, Walk, in_order};

/// A value of a row: the name of its column, the value as JSON, and where it is written.
pub(super) type Cells = Vec<(String, String, Range<usize>)>;

/// Rows, each with where it is written.
pub(super) type PlacedRows = Vec<(Range<usize>, Cells)>;

/// What a test file is read with.
pub(super) struct Reading<'a> {
    pub(super) root: &'a Path,
    pub(super) walk: Walk<'a>,
    pub(super) file: &'a Path,
    pub(super) desired: &'a Desired,
    pub(super) planned: &'a PlannedTag,
    /// The streams that the tag reads.
    pub(super) streams: BTreeMap<String, Arc<Stream>>,
    /// By stream, what its rows hold where they say nothing.
    pub(super) defaults: BTreeMap<String, Cells>,
    pub(super) zone: Tz,
    /// CSV files that were read.
    pub(super) sources: BTreeMap<PathBuf, String>,
}

/// Reads one file and adds what it holds, or what is wrong with it.
pub(super) fn read_file(root: &Path, desired: &Desired, file: &Path, text: &str, suite: &mut Suite) {
    let tag = super::tag_beside(file);
    let definition = desired.project.tags.get(&tag);
    let Some(definition) = definition.filter(|found| found.file.parent() == file.parent()) else {
        // A tag whose file has errors is none of the project.
        if !desired.project.sources.contains_key(&file.with_file_name(format!("{tag}.sql"))) {
            let message = format!("there is no tag `{tag}` beside this file");
            let help = match nearest(&tag, desired.project.tags.keys().map(String::as_str)) {
                Some(near) => format!("did you mean {near}{TEST_FILE_END}? a test file lies beside its tag's"),
                None => format!("tests of tags/money/spend.sql are in tags/money/spend{TEST_FILE_END}"),
            };
            suite.diagnostics.push(Diagnostic::error(codes::TEST_TAG, file, None, message).help(help));
        }
        return;
    };
    let Some(planned) = desired.tags.get(&definition.name) else { return };
    let streams = planned.plan.sources().map(|(stream, _)| (stream.name.clone(), Arc::clone(stream))).collect();
    let mut reading = Reading {
        root,
        walk: Walk::new(file, text),
        file,
        desired,
        planned,
        streams,
        defaults: BTreeMap::new(),
        zone: desired.project.config.timezone,
        sources: BTreeMap::new(),
    };
    let table = reading.walk.parse(0..text.len());
    let (tests, declared) = table.map(|table| reading.tests(&table)).unwrap_or_default();
    suite.diagnostics.append(&mut reading.walk.diagnostics);
    suite.sources.append(&mut reading.sources);
    suite.files.push(TestFile { file: file.to_owned(), tag, tests, declared });
}

impl<'a> Reading<'a> {
    /// The sound tests of a file, and how many it has.
    fn tests(&mut self, table: &DeTable<'_>) -> (Vec<TagTest>, usize) {
        let section = Section::root("a test file", table);
        self.walk.check_keys(&section, &["defaults", "test"]);
        self.read_defaults(&section);
        let mut names = HashSet::new();
        let mut tests = Vec::new();
        let sections = self.tables(&section, "test", "[[test]]");
        let declared = sections.len();
        for (index, section) in sections.into_iter().enumerate() {
            let problems = self.walk.diagnostics.len();
            let test = self.test(&section, index);
            let name = test.as_ref().map(|test| test.name.clone()).unwrap_or_default();
            if !name.is_empty() && !names.insert(name.clone()) {
                let message = format!("there is a test \"{name}\" above already");
                self.walk
                    .error(codes::BAD_VALUE, section.span.clone(), message)
                    .help("a test's name is unique in its file");
            }
            tests.extend(test.filter(|_| self.walk.diagnostics.len() == problems));
        }
        (tests, declared)
    }

    fn test(&mut self, section: &Section<'_>, index: usize) -> Option<TagTest> {
        self.walk.check_keys(section, &["name", "columns", "moment"]);
        let name = match section.table.get("name") {
            Some(_) => self.walk.string(section, "name")?,
            None => {
                self.walk.missing(section, "name", "name = \"refunds are taken off\"");
                return None;
            }
        };
        let compared = self.compared(section);
        let mut moments: Vec<TestMoment> = Vec::new();
        for section in self.tables(section, "moment", "[[test.moment]]") {
            let Some(moment) = self.moment(&section) else { continue };
            if moments.last().is_some_and(|before| before.at > moment.at) {
                let span = section.table.get("at").map(|at| self.walk.at(at.span()));
                self.walk
                    .error(codes::TEST_CLOCK, span, "the clock of a moment lies before that of the one above")
                    .help("the clock never goes back: write moments in the order of their \"at\"");
            }
            moments.push(moment);
        }
        if moments.is_empty() && self.walk.is_sound() {
            self.walk
                .error(codes::MISSING_KEY, section.span.clone(), format!("the test \"{name}\" has no moment"))
                .help("add for example: [[test.moment]], at = 2026-03-01T12:00:00, given.orders = [ … ], rows = [ … ]");
        }
        let last = moments.len().saturating_sub(1);
        let ends = |(index, moment): (usize, &TestMoment)| {
            let says_more = moment.rows.is_some() || moment.changes.is_some() || !moment.dead_letters.is_empty();
            (moment.fails.is_some() && (index < last || says_more)).then(|| moment.span.clone())
        };
        if let Some(span) = moments.iter().enumerate().find_map(ends) {
            self.walk
                .error(codes::TEST_VALUE, span, "a tag that is set aside shows nothing more")
                .help("let the moment with \"fails\" be the last of its test, and expect nothing else there");
        }
        let mut partitions: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for stream in self.streams.keys() {
            partitions.insert(stream.clone(), BTreeSet::new());
        }
        for given in moments.iter().flat_map(|moment| &moment.given) {
            partitions.entry(given.stream.name.clone()).or_default().insert(given.partition);
        }
        // A topic has a partition, whether or not anything comes.
        for own in partitions.values_mut().filter(|own| own.is_empty()) {
            own.insert(0);
        }
        let span = section.span.clone().unwrap_or_default();
        Some(TagTest { name, index, span, compared, moments, partitions })
    }

    /// The value columns that a test looks at.
    fn compared(&mut self, section: &Section<'_>) -> Vec<usize> {
        let table = &self.planned.table;
        let all: Vec<usize> = (0..table.columns.len()).collect();
        let Some(value) = section.table.get("columns") else { return all };
        let Some(items) = value.get_ref().as_array() else {
            self.walk.wrong_type(&section.label, "columns", value, "an array of names");
            return all;
        };
        let mut compared = BTreeSet::new();
        for item in items.iter() {
            let Some(name) = item.get_ref().as_str() else {
                self.walk.wrong_type(&section.label, "columns", item, "an array of names");
                continue;
            };
            let span = self.walk.at(item.span());
            match self.column_of_tag(name, span) {
                Some(place) => compared.extend(place.checked_sub(table.key.len())),
                None => continue,
            }
        }
        compared.into_iter().collect()
    }

    fn moment(&mut self, section: &Section<'_>) -> Option<TestMoment> {
        self.walk.check_keys(section, &["at", "given", "rows", "changes", "dead_letters", "fails"]);
        let at = self.clock(section);
        let given = self.given(section);
        let rows = self.rows(section);
        let changes = self.changes(section);
        let dead_letters = self.letters(section);
        let fails = self.walk.string(section, "fails");
        let span = section.span.clone().unwrap_or_default();
        Some(TestMoment { span, at: at?, given, rows, changes, dead_letters, fails })
    }

    fn clock(&mut self, section: &Section<'_>) -> Option<i64> {
        let Some(value) = section.table.get("at") else {
            self.walk.missing(section, "at", "at = 2026-03-01T12:00:00");
            return None;
        };
        self.instant(value, "at")
    }

    /// A moment, in the project's zone unless it has an offset.
    pub(super) fn instant(&mut self, value: &Spanned<DeValue<'_>>, key: &str) -> Option<i64> {
        let text = match value.get_ref() {
            DeValue::Datetime(moment) => moment.to_string(),
            DeValue::String(text) => text.to_string(),
            other => other.type_str().to_string(),
        };
        let found = instant(&text, self.zone);
        if found.is_none() {
            let span = self.walk.at(value.span());
            let message = format!("\"{key}\" is no date and time of the zone {}", self.zone);
            let help = "write it as 2026-03-01T12:00:00, or with an offset: 2026-03-01T12:00:00+08:00";
            self.walk.error(codes::TEST_CLOCK, span, message).help(help);
        }
        found
    }

    fn rows(&mut self, section: &Section<'_>) -> Option<ExpectedRows> {
        let value = section.table.get("rows")?;
        let span = self.walk.at(value.span());
        let (rows, csv) = match value.get_ref() {
            DeValue::Array(items) => {
                let mut rows = Vec::new();
                for item in items.iter() {
                    let Some(table) = item.get_ref().as_table() else {
                        self.walk.wrong_type(
                            &section.label,
                            "rows",
                            item,
                            "an array of tables such as { user_id = 7 }",
                        );
                        continue;
                    };
                    let place = self.walk.at(item.span());
                    let cells = self.cells(table, &[]);
                    rows.push((place, cells));
                }
                (self.expected(rows, None), None)
            }
            DeValue::String(name) => {
                let (file, _, rows) = self.csv(name, span.clone())?;
                (self.expected(rows, Some(&file)), Some(file))
            }
            _ => {
                self.walk.wrong_type(&section.label, "rows", value, "an array of tables, or the name of a CSV file");
                return None;
            }
        };
        Some(ExpectedRows { span, rows: rows?, csv })
    }

    fn changes(&mut self, section: &Section<'_>) -> Option<ExpectedChanges> {
        let value = section.table.get("changes")?;
        let Some(items) = value.get_ref().as_array() else {
            self.walk.wrong_type(&section.label, "changes", value, "an array of tables");
            return None;
        };
        let (mut upserts, mut deletes) = (Vec::new(), Vec::new());
        for item in items.iter() {
            let Some(table) = item.get_ref().as_table() else {
                self.walk.wrong_type(&section.label, "changes", item, "an array of tables such as { user_id = 7 }");
                continue;
            };
            let row = Section { label: "a change".to_string(), table, span: None, used: true, shadow: None };
            let is_deleted = self.walk.boolean(&row, "_delete").unwrap_or_default();
            let place = self.walk.at(item.span());
            let cells = self.cells(table, &["_delete"]);
            if is_deleted { deletes.push((place, cells)) } else { upserts.push((place, cells)) }
        }
        let keys = self.planned.table.key.len();
        for (_, cells) in &deletes {
            for (name, _, span) in cells {
                if self.column_of_tag(name, span.clone()).is_some_and(|place| place >= keys) {
                    let message = format!("a row that is gone is told by its key: `{name}` is no part of it");
                    self.walk.error(codes::TEST_VALUE, span.clone(), message).help("leave it out");
                }
            }
        }
        let span = self.walk.at(value.span());
        let (upserts, deletes) = (self.expected(upserts, None), self.expected(deletes, None));
        let deletes = deletes?;
        let deletes = deletes.project(&(0..keys).collect::<Vec<_>>()).ok()?;
        Some(ExpectedChanges { span, upserts: upserts?, deletes })
    }

    fn letters(&mut self, section: &Section<'_>) -> Vec<ExpectedLetter> {
        let kinds = [("decode", Kind::Decode), ("late", Kind::Late), ("skip", Kind::Skip)];
        let tables = self.tables(section, "dead_letters", "dead_letters");
        let mut letters = Vec::new();
        for section in tables {
            self.walk.check_keys(&section, &["stream", "kind", "error", "partition", "offset"]);
            let stream = match self.walk.text(&section, "stream") {
                Some(text) => self.stream(&text.raw, text.span.clone()).map(|stream| stream.name.clone()),
                None => None,
            };
            let number = |walk: &mut Walk<'_>, key| walk.integer(&section, key, 0..=i64::MAX);
            let selection = Selection {
                stream,
                kind: self.walk.word(&section, "kind", &kinds),
                error: self.walk.string(&section, "error"),
                partition: number(&mut self.walk, "partition").and_then(|number| i32::try_from(number).ok()),
                offset: number(&mut self.walk, "offset"),
                ..Selection::default()
            };
            letters.push(ExpectedLetter { span: section.span.clone().unwrap_or_default(), selection });
        }
        letters
    }

    /// The tables of an array of tables.
    pub(super) fn tables<'t>(&mut self, section: &Section<'t>, key: &str, label: &str) -> Vec<Section<'t>> {
        let Some(value) = section.table.get(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.walk.wrong_type(&section.label, key, value, "an array of tables");
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let span = Some(self.walk.at(item.span()));
                    tables.push(Section { label: label.to_string(), table, span, used: true, shadow: None });
                }
                None => self.walk.wrong_type(&section.label, key, item, "an array of tables"),
            }
        }
        tables
    }

    /// The values of a row but those of some keys.
    pub(super) fn cells(&mut self, table: &DeTable<'_>, but: &[&str]) -> Cells {
        let mut cells = Cells::new();
        for key in in_order(table) {
            let name: &str = key.get_ref();
            let Some(value) = table.get(name).filter(|_| !but.contains(&name)) else { continue };
            match json_of(value.get_ref()) {
                Some(json) => cells.push((name.to_string(), json, self.walk.at(key.span().start..value.span().end))),
                None => {
                    let span = self.walk.at(value.span());
                    self.walk.error(codes::TEST_VALUE, span, format!("`{name}` is no number that a column holds"));
                }
            }
        }
        cells
    }

    /// The names of the columns and the rows of a CSV file beside the test file.
    pub(super) fn csv(&mut self, name: &str, span: Range<usize>) -> Option<(PathBuf, Vec<String>, PlacedRows)> {
        let Some(path) = inside(name) else {
            let message = format!("\"{name}\" is no path below the folder of the test");
            self.walk.error(codes::PATH_OUTSIDE, span, message).help("name a CSV file beside the test: \"orders.csv\"");
            return None;
        };
        let file = self.file.with_file_name(path);
        let read = project::read_named(self.root, &file);
        let text = match read.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_string()))
        {
            Ok(text) => text,
            Err(why) => {
                let message = format!("{} cannot be read: {why}", file.display());
                self.walk.error(codes::TEST_CSV, span, message).help("name a CSV file beside the test: \"orders.csv\"");
                return None;
            }
        };
        let nothing = Stream { columns: Vec::new(), ..super::rows::by_columns(self.streams.values().next()?) };
        let read = csv::read(&text, &nothing);
        self.sources.insert(file.clone(), text);
        let (header, rows) = match read {
            Ok(read) => read,
            Err((place, why)) => {
                self.walk.diagnostics.push(Diagnostic::error(codes::TEST_CSV, &file, place, why));
                return None;
            }
        };
        let cells = |row: csv::CsvRow| {
            let fields = header.iter().zip(row.fields);
            let json = |text: String| serde_json::Value::from(text).to_string();
            let cell = |(name, text): (&String, Option<String>)| Some((name.clone(), json(text?), row.span.clone()));
            (row.span.clone(), fields.filter_map(cell).collect())
        };
        let rows = rows.into_iter().map(cells).collect();
        Some((file, header.clone(), rows))
    }

    /// Rows of the tag's table. In `csv`, where they are not in the test file itself.
    fn expected(&mut self, rows: PlacedRows, csv: Option<&Path>) -> Option<RecordBatch> {
        let table = Arc::clone(&self.planned.table);
        let columns = table.key.iter().chain(&table.columns);
        let reader = RowReader::new(columns.map(|column| (column.name.clone(), column.data_type.clone())), self.zone);
        let file = csv.unwrap_or(self.file).to_path_buf();
        let mut batches = vec![reader.none()];
        let mut known = HashSet::new();
        let before = self.walk.diagnostics.len();
        for (span, cells) in rows {
            let mut object = Vec::new();
            let mut places = Vec::new();
            for (name, json, span) in &cells {
                let Some(place) = self.column_in(name, &file, span.clone()) else { continue };
                let column = table.key.iter().chain(&table.columns).nth(place)?;
                let name = &column.name;
                if places.contains(&place) {
                    self.problem(
                        codes::TEST_VALUE,
                        &file,
                        span.clone(),
                        format!("the column `{name}` is there twice"),
                        "",
                    );
                }
                places.push(place);
                object.push((name.clone(), unquoted(json.clone(), &column.data_type), span.clone()));
            }
            let missing = (0..table.key.len()).find(|place| !places.contains(place));
            if let Some(missing) = missing {
                let name = &table.key[missing].name;
                let message = format!("the row has no `{name}`, which is a part of its key");
                self.problem(
                    codes::TEST_VALUE,
                    &file,
                    span.clone(),
                    message,
                    "a row of a tag is told by its whole key",
                );
                continue;
            }
            match reader.row(&object_text(&object)) {
                Ok(row) => {
                    let options = FormatOptions::default();
                    let key: Result<Vec<String>, arrow::error::ArrowError> = row.columns()[..table.key.len()]
                        .iter()
                        .map(|column| Ok(ArrayFormatter::try_new(column, &options)?.value(0).to_string()))
                        .collect();
                    if !known.insert(key.ok()?) {
                        let message = "there is a row of this key above already".to_string();
                        self.problem(codes::TEST_VALUE, &file, span, message, "a tag has one row a key");
                        continue;
                    }
                    batches.push(row);
                }
                Err(why) => {
                    // The value that does not fit is told alone.
                    let alone = |cell: &&(String, String, Range<usize>)| {
                        reader.row(&object_text(std::slice::from_ref(*cell))).is_err()
                    };
                    let span = object.iter().find(alone).map_or(span, |(_, _, span)| span.clone());
                    self.problem(codes::TEST_VALUE, &file, span, format!("the row does not fit the tag: {why}"), "");
                }
            }
        }
        if self.walk.diagnostics.len() > before {
            return None;
        }
        concat_batches(&reader.none().schema(), &batches).ok()
    }

    /// Adds an error of this file or of a CSV file.
    pub(super) fn problem(&mut self, code: &'static str, file: &Path, span: Range<usize>, message: String, help: &str) {
        let problem = Diagnostic::error(code, file, span, message);
        self.walk.diagnostics.push(if help.is_empty() { problem } else { problem.help(help) });
    }

    fn column_of_tag(&mut self, name: &str, span: Range<usize>) -> Option<usize> {
        let file = self.file.to_path_buf();
        self.column_in(name, &file, span)
    }

    /// The place of a column of the tag's table.
    fn column_in(&mut self, name: &str, file: &Path, span: Range<usize>) -> Option<usize> {
        let table = Arc::clone(&self.planned.table);
        let names = table.key.iter().chain(&table.columns).map(|column| column.name.as_str());
        let found = place_of_name(names.clone(), name);
        if found.is_none() {
            let help = match nearest(name, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its columns: {}", names.collect::<Vec<_>>().join(", ")),
            };
            let message = format!("the tag `{}` has no column `{name}`", self.planned.definition.name);
            self.problem(codes::TEST_COLUMN, file, span, message, &help);
        }
        found
    }
}

/// Cells as one JSON object.
pub(super) fn object_text(cells: &[(String, String, Range<usize>)]) -> String {
    let member =
        |(name, json, _): &(String, String, Range<usize>)| format!("{}:{json}", serde_json::Value::from(name.as_str()));
    format!("{{{}}}", cells.iter().map(member).collect::<Vec<_>>().join(","))
}

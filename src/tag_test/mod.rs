//! Tests of tags: `NAME.test.toml` beside `NAME.sql` says which events come, where the clock stands, and what the tag's table
//! holds then.
//!
//! Enters: text of test files and the CSV files that they name; a planned project. Leaves: [`Suite`]s of sound tests with
//! [`Diagnostic`]s for the rest, and for each test an [`Outcome`]. A test runs by the daemon's own decoders and dataflow, and by
//! the batch answer: both must show what is expected. Never knows Kafka, a store, or the wall clock.

mod compare;
mod coverage;
mod csv;
mod given;
mod read;
mod record;
mod rows;
mod run;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono_tz::Tz;

pub use self::compare::{Failure, What};
pub use self::coverage::{Covered, Missing, Probes};
pub(crate) use self::given::MARKS;
pub use self::record::{Recorded, record};
pub use self::run::{Found, Outcome, Runner};
use crate::catalog::Stream;
use crate::delta::Clock;
use crate::diagnostic::{Diagnostic, codes};
use crate::engine::desired::Desired;
use crate::project::{self, TEST_FILE_END};
use crate::source::dead_letter::Selection;

/// The tests of a project.
#[derive(Debug, Clone)]
pub struct Suite {
    /// The project's zone.
    pub timezone: Tz,
    /// By file.
    pub files: Vec<TestFile>,
    /// All problems of all files.
    pub diagnostics: Vec<Diagnostic>,
    /// The text of every file that was read, for quoting.
    pub sources: BTreeMap<PathBuf, String>,
}

/// One test file.
#[derive(Debug, Clone)]
pub struct TestFile {
    /// Relative to the project's root.
    pub file: PathBuf,
    /// The tag beside it.
    pub tag: String,
    /// In the order of the file; those that are sound.
    pub tests: Vec<TagTest>,
    /// How many it has, sound or not.
    pub declared: usize,
}

/// One test.
#[derive(Debug, Clone)]
pub struct TagTest {
    /// What it is about; unique in its file.
    pub name: String,
    /// Its place among the `[[test]]` of its file.
    pub index: usize,
    /// Where it begins.
    pub span: Range<usize>,
    /// The value columns that are compared.
    pub compared: Vec<usize>,
    /// In the order of their clocks.
    pub moments: Vec<TestMoment>,
    /// The partitions of the streams.
    pub partitions: BTreeMap<String, std::collections::BTreeSet<i32>>,
}

/// A moment: the clock moves there, events come, and the table is looked at.
#[derive(Debug, Clone)]
pub struct TestMoment {
    /// Where it is written.
    pub span: Range<usize>,
    /// The clock.
    pub at: Clock,
    /// What has come since the moment before, in this order.
    pub given: Vec<Given>,
    /// The rows of the table.
    pub rows: Option<ExpectedRows>,
    /// What has changed since the moment before.
    pub changes: Option<ExpectedChanges>,
    /// Records that are put aside. Where nothing is said, none is.
    pub dead_letters: Vec<ExpectedLetter>,
    /// What the tag is set aside for.
    pub fails: Option<String>,
}

/// One record that comes.
#[derive(Debug, Clone)]
pub struct Given {
    /// Of this stream.
    pub stream: Arc<Stream>,
    /// Where it is written: a file and a place in it.
    pub place: (PathBuf, Range<usize>),
    /// The partition.
    pub partition: i32,
    /// The broker's time, milliseconds since the Unix epoch; the clock of its moment where nothing is said.
    pub timestamp: Option<i64>,
    /// The record's key.
    pub key: Option<String>,
    /// The record.
    pub payload: Option<String>,
    /// True where `payload` (or, of a deleted row, `key`) has the stream's columns by name, and is not a record as the topic
    /// has it.
    pub is_by_columns: bool,
}

/// Rows that are expected.
#[derive(Debug, Clone)]
pub struct ExpectedRows {
    /// Where they are written.
    pub span: Range<usize>,
    /// Key columns, then value columns.
    pub rows: RecordBatch,
    /// The CSV file that they are in.
    pub csv: Option<PathBuf>,
}

/// Changes that are expected.
#[derive(Debug, Clone)]
pub struct ExpectedChanges {
    /// Where they are written.
    pub span: Range<usize>,
    /// Rows that are new or have other values.
    pub upserts: RecordBatch,
    /// Keys that are gone.
    pub deletes: RecordBatch,
}

/// A dead letter that is expected.
#[derive(Debug, Clone)]
pub struct ExpectedLetter {
    /// Where it is written.
    pub span: Range<usize>,
    /// Which letters it may be.
    pub selection: Selection,
}

/// The tag that a test file is for, by its name.
fn tag_beside(file: &Path) -> String {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_suffix(TEST_FILE_END).unwrap_or_default().to_string()
}

/// The file of the tests of a tag, beside it.
pub fn file_beside(tag: &Path) -> PathBuf {
    let name = tag.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    tag.with_file_name(format!("{name}{TEST_FILE_END}"))
}

impl TagTest {
    /// True where nothing is said of what comes out.
    pub fn expects_nothing(&self) -> bool {
        let is_silent = |moment: &TestMoment| {
            moment.rows.is_none()
                && moment.changes.is_none()
                && moment.dead_letters.is_empty()
                && moment.fails.is_none()
        };
        self.moments.iter().all(is_silent)
    }
}

impl Suite {
    /// Reads the tests of those tags of a project that are asked for. Tests of tags that could not be planned are left out: what
    /// is wrong is told by the tags' own diagnostics.
    pub fn load(root: &Path, desired: &Desired, is_asked: &dyn Fn(&str) -> bool) -> Suite {
        Suite::load_over(root, &BTreeMap::new(), desired, is_asked)
    }

    /// [`Suite::load`], as if `texts` stood in those of its files.
    pub fn load_over(
        root: &Path,
        texts: &BTreeMap<PathBuf, String>,
        desired: &Desired,
        is_asked: &dyn Fn(&str) -> bool,
    ) -> Suite {
        let mut suite = Suite::read(root, texts, desired, is_asked);
        let silent = suite.files.iter().flat_map(|file| file.tests.iter().map(move |test| (file, test)));
        let problem = |(file, test): (&TestFile, &TagTest)| {
            let message = format!("the test \"{}\" expects nothing, so it cannot fail", test.name);
            let help =
                "write the rows that a moment must show: rows = [ … ]; `tagflow test --record` writes those it does";
            Diagnostic::error(codes::TEST_EXPECTS, &file.file, test.span.clone(), message).help(help)
        };
        let problems: Vec<Diagnostic> = silent.filter(|(_, test)| test.expects_nothing()).map(problem).collect();
        suite.diagnostics.extend(problems);
        suite
    }

    /// [`Suite::load`], where tests may expect nothing yet.
    pub fn load_to_record(root: &Path, desired: &Desired, is_asked: &dyn Fn(&str) -> bool) -> Suite {
        Suite::read(root, &BTreeMap::new(), desired, is_asked)
    }

    fn read(
        root: &Path,
        texts: &BTreeMap<PathBuf, String>,
        desired: &Desired,
        is_asked: &dyn Fn(&str) -> bool,
    ) -> Suite {
        let (mut sources, diagnostics) = project::read_tests(root, texts);
        sources.retain(|file, _| is_asked(&tag_beside(file)));
        let timezone = desired.project.config.timezone;
        let mut suite = Suite { timezone, files: Vec::new(), diagnostics, sources };
        for (file, text) in suite.sources.clone() {
            read::read_file(root, desired, &file, &text, &mut suite);
        }
        suite
    }
}

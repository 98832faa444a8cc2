//! `tagflow test`: runs the tests beside the tags by streaming and by batch. Exit code 0: all pass; 1: one fails; 2: one cannot
//! run.

mod human;
mod json;
mod junit;
mod record;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rayon::prelude::*;

use crate::cli::{FAILED, OK, ProjectArgs, USAGE, complain, load_with_drafts, no_project, print, use_colour};
use crate::diagnostic::{Diagnostic, Severity, nearest, render_human};
use crate::engine::desired::{Desired, PlannedTag};
use crate::project::{Loaded, TEST_FILE_END};
use crate::tag_test::{self, Covered, Outcome, Probes, Runner, Suite, TagTest, TestFile};

/// Arguments of `tagflow test`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Only the tests of these tags, by name, file or folder; all unless given.
    #[arg(value_name = "TAG|FILE")]
    what: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
    /// Write what is found into the test files as what is expected, where it is not; for you to read before you commit it.
    #[arg(long)]
    record: bool,
    /// Say which branches of CASE and which conditions of WHERE, HAVING and FILTER no test has looked at.
    #[arg(long)]
    coverage: bool,
    /// How many differing rows of each moment are shown.
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    show: usize,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Human,
    /// For programs.
    Json,
    /// JUnit XML, for GitLab, Jenkins and others that show tests.
    Junit,
}

/// What came of all tests.
struct Report {
    ran: Vec<Ran>,
    /// Tags of which no test was asked for or found.
    untested: Vec<String>,
    /// Tags that were asked for and cannot run, or whose tests cannot.
    broken: Vec<PathBuf>,
    /// Where it is wanted: of each tag with tests its conditions.
    coverage: Option<Vec<TagCoverage>>,
    took: Duration,
}

/// What the tests of a tag have seen of its conditions.
struct TagCoverage {
    tag: String,
    file: PathBuf,
    text: String,
    conditions: Vec<Covered>,
}

/// A test that was run.
struct Ran {
    file: TestFile,
    test: TagTest,
    /// Why it could not run, if it could not.
    outcome: Result<Outcome, String>,
    took: Duration,
}

impl Ran {
    fn passed(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|outcome| outcome.failures.is_empty())
    }
}

/// Runs the tests and prints.
pub fn run(args: &TestArgs, out: &mut dyn Write) -> u8 {
    match run_tests(args, out) {
        Ok(code) => code,
        Err(message) => {
            complain(message);
            USAGE
        }
    }
}

fn run_tests(args: &TestArgs, out: &mut dyn Write) -> Result<u8, String> {
    let begun = Instant::now();
    let (loaded, desired) = load_with_drafts(&args.project);
    let mut desired = desired.ok_or_else(|| no_project(&args.project.project))?;
    let wanted = wanted(args, &loaded)?;
    let declared = loaded.project.iter().flat_map(|project| project.tags.values());
    let mut broken: Vec<PathBuf> = declared
        .filter(|tag| wanted.contains(&tag.name) && !desired.tags.contains_key(&tag.name) && !tag.is_planned())
        .map(|tag| tag.file.clone())
        .collect();
    desired.tags.retain(|name, _| wanted.contains(name));
    let is_asked = |tag: &str| args.what.is_empty() || desired.tags.contains_key(tag);
    let read = if args.record { Suite::load_to_record } else { Suite::load };
    let mut suite = read(&args.project.project, &desired, &is_asked);
    let probes = args.coverage.then(|| Probes::new(&desired)).transpose().map_err(|error| error.strip_backtrace())?;
    let mut ran = run_all(&desired, &suite, probes.as_ref())?;
    if args.record {
        let written = record::write(&args.project.project, &desired, &suite, &ran)?;
        // Told aside: standard output is the report of the tests as they are now.
        let _ = std::io::stderr().write_all(written.as_bytes());
        suite = Suite::load(&args.project.project, &desired, &is_asked);
        ran = run_all(&desired, &suite, probes.as_ref())?;
    }
    tell(&loaded, &suite, &broken, use_colour(std::io::stderr().is_terminal()));
    broken.extend(suite.diagnostics.iter().map(|problem| problem.file.clone()));
    broken.sort();
    broken.dedup();
    let tested: Vec<&str> = suite.files.iter().filter(|file| file.declared > 0).map(|file| file.tag.as_str()).collect();
    let untested = desired.tags.keys().filter(|tag| !tested.contains(&tag.as_str())).cloned().collect();
    let coverage = probes.map(|probes| coverage(&desired, &probes, &ran));
    let report = Report { ran, untested, broken, coverage, took: begun.elapsed() };
    let text = match args.format {
        Format::Human => human::describe(&report, &suite, args.show, use_colour(std::io::stdout().is_terminal())),
        Format::Json => json::describe(&report, &suite),
        Format::Junit => junit::describe(&report, &suite, args.show),
    };
    print(out, &text);
    let cannot_run = !report.broken.is_empty() || report.ran.iter().any(|ran| ran.outcome.is_err());
    Ok(match cannot_run {
        true => USAGE,
        false if report.ran.iter().all(Ran::passed) => OK,
        false => FAILED,
    })
}

/// The tags that are asked for.
fn wanted(args: &TestArgs, loaded: &Loaded) -> Result<Vec<String>, String> {
    let tags = || loaded.project.iter().flat_map(|project| project.tags.values());
    let mut wanted = Vec::new();
    if args.what.is_empty() {
        wanted.extend(tags().map(|tag| tag.name.clone()));
    }
    let root = &args.project.project;
    for what in &args.what {
        if tags().any(|tag| tag.name == *what) {
            wanted.push(what.clone());
            continue;
        }
        // As it is written, or below the project's folder.
        let places = [PathBuf::from(what), root.join(what)];
        let asked: Vec<PathBuf> = places.iter().filter_map(|place| place.canonicalize().ok()).collect();
        let is_asked = |file: &Path| {
            let found = root.join(file).canonicalize();
            found.is_ok_and(|found| asked.iter().any(|asked| found.starts_with(asked)))
        };
        let before = wanted.len();
        let found = tags().filter(|tag| is_asked(&tag.file) || is_asked(&tag_test::file_beside(&tag.file)));
        wanted.extend(found.map(|tag| tag.name.clone()));
        if wanted.len() == before {
            let name = what.rsplit('/').next().unwrap_or(what);
            let name = name.strip_suffix(TEST_FILE_END).or(name.strip_suffix(".sql")).unwrap_or(name);
            let near = nearest(name, tags().map(|tag| tag.name.as_str()));
            let help = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Err(format!("there is no tag, and no file or folder of tags, `{what}`{help}"));
        }
    }
    Ok(wanted)
}

/// Tells on standard error what keeps tests from running: problems of test files, and of tags that were asked for.
fn tell(loaded: &Loaded, suite: &Suite, broken: &[PathBuf], colour: bool) {
    let is_of_broken = |problem: &&Diagnostic| problem.severity == Severity::Error && !broken.is_empty();
    let problems: Vec<Diagnostic> =
        loaded.diagnostics.iter().filter(is_of_broken).chain(&suite.diagnostics).cloned().collect();
    let mut sources = loaded.sources.clone();
    sources.extend(suite.sources.clone());
    let _ = std::io::stderr().write_all(render_human(&problems, &sources, colour).as_bytes());
}

/// Runs all tests, several at a time.
fn run_all(desired: &Desired, suite: &Suite, probes: Option<&Probes>) -> Result<Vec<Ran>, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no folder for dead letters: {error}"))?;
    let runner = Runner::new(desired, probes, folder.path()).map_err(|error| error.strip_backtrace())?;
    let all: Vec<(&TestFile, &TagTest)> =
        suite.files.iter().flat_map(|file| file.tests.iter().map(move |test| (file, test))).collect();
    let ran = |(file, test): (&TestFile, &TagTest)| {
        let begun = Instant::now();
        let outcome = runner.run(file, test);
        Ran { file: file.clone(), test: test.clone(), outcome, took: begun.elapsed() }
    };
    Ok(all.into_par_iter().map(ran).collect())
}

/// What the tests of each tag have seen.
fn coverage(desired: &Desired, probes: &Probes, ran: &[Ran]) -> Vec<TagCoverage> {
    let tested = desired.tags.values().filter(|planned| {
        let tag = &planned.definition.name;
        ran.iter().any(|ran| ran.file.tag == *tag)
    });
    let of_tag = |planned: &PlannedTag| {
        let tag = &planned.definition;
        let own = ran.iter().filter(|ran| ran.file.tag == tag.name);
        let hits = own.flat_map(|ran| &ran.outcome).flat_map(|outcome| &outcome.hits);
        let conditions = probes.of_tag(tag, hits);
        TagCoverage { tag: tag.name.clone(), file: tag.file.clone(), text: tag.text.clone(), conditions }
    };
    tested.map(of_tag).collect()
}

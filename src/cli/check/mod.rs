//! `tagflow check`: the first half of what the daemon does with the files, so that CI and daemon cannot disagree.

mod codes;
mod fix;
mod since;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::ValueEnum;

use self::codes::Codes;
use self::since::Touched;
use crate::cli::{FAILED, OK, ProjectArgs, USAGE, complain, load_over, plural, print, use_colour};
use crate::diagnostic::{Explanation, hold_back, render_github, render_human, render_json, render_junit, render_sarif};
use crate::engine::desired::{Desired, is_sound};
use crate::live;
use crate::project::Loaded;
use crate::tag_test::Suite;

/// Arguments of `tagflow check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: CheckFormat,
    /// Say what a code means, with an example before and after it is mended; looks at no project.
    #[arg(long, value_name = "CODE", value_parser = Codes, hide_possible_values = true)]
    explain: Option<Explanation>,
    /// Tell only of what differs from where the branch left REF, and of what depends on it: --since main.
    #[arg(long, value_name = "REF")]
    since: Option<String>,
    /// Ask Kafka, registries and databases too: topics, their newest records, whether tables can be made.
    #[arg(long)]
    live: bool,
    /// Mend what can be mended for certain.
    #[arg(long)]
    fix: bool,
    /// With --fix: show what would change, and change nothing.
    #[arg(long, requires = "fix")]
    diff: bool,
}

/// Who reads what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum CheckFormat {
    /// For people.
    #[default]
    Human,
    /// One object, for programs.
    Json,
    /// SARIF 2.1.0, for code scanning and editors.
    Sarif,
    /// Annotations of GitHub Actions.
    Github,
    /// JUnit XML, for GitLab, Jenkins and others that show tests.
    Junit,
}

/// Checks all files.
pub fn run(args: &CheckArgs, out: &mut dyn Write) -> u8 {
    if let Some(entry) = args.explain {
        let text = match args.format {
            CheckFormat::Json => {
                let object = serde_json::json!({ "code": entry.code, "title": entry.title(), "text": entry.text });
                format!("{object:#}\n")
            }
            _ => format!("{}\n", entry.text),
        };
        print(out, &text);
        return OK;
    }
    let look = |texts: &BTreeMap<PathBuf, String>| load_over(&args.project, texts);
    let (mut loaded, mut desired) = look(&BTreeMap::new());
    let root = &args.project.project;
    if args.fix {
        let fixed = fix::fix(&loaded, &|texts| look(texts).0);
        if args.diff {
            print(out, &fix::diff(&fixed));
            return if fixed.files.is_empty() { OK } else { FAILED };
        }
        if let Err(message) = fix::write(&fixed, root) {
            return complain(message);
        }
        say(format!("{} mended in {}", plural(fixed.problems, "problem"), plural(fixed.files.len(), "file")));
        (loaded, desired) = look(&BTreeMap::new());
    }
    if let Some(desired) = &desired {
        let tests = Suite::load(root, desired, &|_| true);
        loaded.diagnostics.extend(tests.diagnostics);
        loaded.sources.extend(tests.sources);
    }
    if let Some(desired) = desired.as_ref().filter(|_| args.live) {
        loaded.diagnostics.extend(live::check(&desired.project));
    }
    if let Some(reference) = &args.since {
        let touched = match Touched::since(reference, root, desired.as_ref().map(|desired| &desired.project)) {
            Ok(touched) => touched,
            Err(message) => {
                complain(message);
                return USAGE;
            }
        };
        // Without settings nothing else was looked at.
        let has_settings = loaded.project.is_some();
        loaded.diagnostics.retain(|diagnostic| !has_settings || touched.holds(&diagnostic.file));
        let Touched { changed, dependents } = &touched;
        let depend = if dependents.len() == 1 { "depends" } else { "depend" };
        say(format!(
            "looking at {} changed since {reference}, and {} that {depend} on them",
            plural(changed.len(), "file"),
            dependents.len()
        ));
    }
    loaded.diagnostics = hold_back(loaded.diagnostics);
    print(out, &report(args, &loaded, desired.as_ref()));
    if is_sound(&loaded.diagnostics) && loaded.project.is_some() { OK } else { FAILED }
}

/// What is no part of the report.
fn say(message: String) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

fn report(args: &CheckArgs, loaded: &Loaded, desired: Option<&Desired>) -> String {
    let Loaded { diagnostics, sources, .. } = loaded;
    let folder = &args.project.project;
    match args.format {
        CheckFormat::Human if diagnostics.is_empty() && args.since.is_some() => "no problems in them\n".to_string(),
        CheckFormat::Human if diagnostics.is_empty() => desired.map_or_else(String::new, praise),
        CheckFormat::Human => render_human(diagnostics, sources, use_colour(std::io::stdout().is_terminal())),
        CheckFormat::Json => render_json(diagnostics, sources),
        CheckFormat::Sarif => render_sarif(diagnostics, sources, folder),
        CheckFormat::Github => render_github(diagnostics, sources, folder),
        CheckFormat::Junit => render_junit(diagnostics, sources),
    }
}

/// What is said where nothing is wrong.
fn praise(desired: &Desired) -> String {
    let project = &desired.project;
    let tags = plural(project.tags.len(), "tag");
    let streams = plural(project.catalog.streams.len(), "stream");
    let views = plural(project.catalog.views.len(), "view");
    format!("{tags} ({} to run), {streams}, {views}: no problems\n", desired.tags.len())
}

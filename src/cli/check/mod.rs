//! `tagflow check`: the first half of what the daemon does with the files, so that CI and daemon cannot disagree.

mod codes;

use std::io::{IsTerminal, Write};

use clap::ValueEnum;

use self::codes::Codes;
use crate::cli::{FAILED, OK, ProjectArgs, load, print, use_colour};
use crate::diagnostic::{Explanation, render_github, render_human, render_json, render_junit, render_sarif};
use crate::engine::desired::{Desired, is_sound};
use crate::project::Loaded;

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
        print(out, &format!("{}\n", entry.text));
        return OK;
    }
    let (loaded, desired) = load(&args.project);
    print(out, &report(args, &loaded, desired.as_ref()));
    if is_sound(&loaded.diagnostics) && loaded.project.is_some() { OK } else { FAILED }
}

fn report(args: &CheckArgs, loaded: &Loaded, desired: Option<&Desired>) -> String {
    let Loaded { diagnostics, sources, .. } = loaded;
    let folder = &args.project.project;
    match args.format {
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
    let (tags, streams, views) = (project.tags.len(), project.catalog.streams.len(), project.catalog.views.len());
    let running = desired.tags.len();
    format!("{tags} tags ({running} to run), {streams} streams, {views} views: no problems\n")
}

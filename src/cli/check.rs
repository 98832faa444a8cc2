//! `tagflow check`: the first half of what the daemon does with the files, so that CI and daemon cannot disagree.

use std::io::{IsTerminal, Write};

use crate::cli::{FAILED, Format, OK, ProjectArgs, load, print, print_diagnostics, use_colour};
use crate::diagnostic::{Explanation, explain};
use crate::engine::desired::is_sound;

/// Arguments of `tagflow check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Say what a code means, with an example before and after it is mended; looks at no project.
    #[arg(long, value_name = "CODE", value_parser = known_code)]
    explain: Option<Explanation>,
}

fn known_code(code: &str) -> Result<Explanation, String> {
    explain(code).ok_or_else(|| "codes are T and four digits, as `tagflow check` prints them: T0504".to_string())
}

/// Checks all files.
pub fn run(args: &CheckArgs, out: &mut dyn Write) -> u8 {
    if let Some(entry) = args.explain {
        print(out, &format!("{}\n", entry.text));
        return OK;
    }
    let (loaded, desired) = load(&args.project);
    if args.format == Format::Human
        && let (Some(project), Some(desired)) = (&loaded.project, &desired)
        && loaded.diagnostics.is_empty()
    {
        let (tags, streams, views) = (project.tags.len(), project.catalog.streams.len(), project.catalog.views.len());
        let running = desired.tags.len();
        print(out, &format!("{tags} tags ({running} to run), {streams} streams, {views} views: no problems\n"));
    }
    print_diagnostics(&loaded, args.format, out, use_colour(std::io::stdout().is_terminal()));
    if is_sound(&loaded.diagnostics) && loaded.project.is_some() { OK } else { FAILED }
}

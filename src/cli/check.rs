//! `tagflow check`: the first half of what the daemon does with the files, so that CI and daemon cannot disagree.

use std::io::{IsTerminal, Write};

use crate::cli::{FAILED, Format, OK, ProjectArgs, load, print, print_diagnostics, use_colour};
use crate::engine::desired::is_sound;

/// Arguments of `tagflow check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Checks all files.
pub fn run(args: &CheckArgs, out: &mut dyn Write) -> u8 {
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

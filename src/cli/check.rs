//! `tagflow check`: the first half of what the daemon does with the files, so that CI and daemon cannot disagree.

use std::io::{IsTerminal, Write};

use crate::cli::{FAILED, Format, OK, ProjectArgs, load, print_diagnostics, use_colour};
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
    let (loaded, _) = load(&args.project);
    print_diagnostics(&loaded, args.format, out, use_colour(std::io::stdout().is_terminal()));
    if is_sound(&loaded.diagnostics) && loaded.project.is_some() { OK } else { FAILED }
}

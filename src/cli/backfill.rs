//! `tagflow backfill TAG`: the tag is filled again from history beside the table that runs, and takes its place.

use std::io::Write;

use serde_json::json;

use crate::cli::{FAILED, Format, OK, ProjectArgs, complain, load, no_project, report};
use crate::engine::daemon::BACKFILLS;

/// Arguments of `tagflow backfill`.
#[derive(Debug, clap::Args)]
pub struct BackfillArgs {
    /// The tags; those over the same connections are filled in one pass over their topics.
    #[arg(required = true, value_name = "TAG")]
    tags: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Leaves word for the daemon, which looks for it all the time; without one it counts from the next start on.
pub fn run(args: &BackfillArgs, out: &mut dyn Write) -> u8 {
    let (_, desired) = load(&args.project);
    let Some(desired) = desired else { return complain(no_project(&args.project.project)) };
    if let Some(unknown) = args.tags.iter().find(|tag| !desired.tags.contains_key(*tag)) {
        return complain(format!("there is no sound tag `{unknown}` in the project"));
    }
    let folder = desired.project.config.engine.state_dir.join(BACKFILLS);
    for tag in &args.tags {
        let file = folder.join(tag);
        if let Err(error) = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, "")) {
            complain(format!("{}: {error}", file.display()));
            return FAILED;
        }
    }
    let tags = args.tags.join("`, `");
    let words = format!("`{tags}`: filled again beside what runs; `tagflow status` tells how far it is\n");
    report(out, args.format, &words, &json!({ "filled_again": args.tags }));
    OK
}

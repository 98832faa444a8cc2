//! `tagflow accept TAG`: a new version whose history is too short may replace a complete one.

use std::io::Write;

use serde_json::json;

use crate::cli::{FAILED, Format, OK, ProjectArgs, complain, load, no_project, report};

/// Arguments of `tagflow accept`.
#[derive(Debug, clap::Args)]
pub struct AcceptArgs {
    /// The tag that waits.
    tag: String,
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Leaves word for the daemon, which looks for it as long as a tag waits.
pub fn run(args: &AcceptArgs, out: &mut dyn Write) -> u8 {
    let (_, desired) = load(&args.project);
    let Some(desired) = desired else { return complain(no_project(&args.project.project)) };
    let Some(planned) = desired.tags.get(&args.tag) else {
        return complain(format!("there is no sound tag `{}` in the project", args.tag));
    };
    let folder = desired.project.config.engine.state_dir.join("accepted");
    let file = folder.join(format!("{}.{}", args.tag, planned.plan.fingerprint));
    if let Err(error) = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, "")) {
        complain(format!("{}: {error}", file.display()));
        return FAILED;
    }
    let words = format!("`{}` will replace the version that runs, once it is filled again\n", args.tag);
    report(out, args.format, &words, &json!({ "accepted": args.tag }));
    OK
}

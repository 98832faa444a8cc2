//! `tagflow accept TAG`: a new version whose history is too short may replace a complete one.

use std::io::Write;

use crate::cli::{FAILED, OK, ProjectArgs, complain, load, print};

/// Arguments of `tagflow accept`.
#[derive(Debug, clap::Args)]
pub struct AcceptArgs {
    /// The tag that waits.
    tag: String,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Leaves word for the daemon, which looks for it as long as a tag waits.
pub fn run(args: &AcceptArgs, out: &mut dyn Write) -> u8 {
    let (_, desired) = load(&args.project);
    let Some(desired) = desired else { return complain("the project cannot be read; `tagflow check` says why") };
    let Some(planned) = desired.tags.get(&args.tag) else {
        return complain(format!("there is no sound tag `{}` in the project", args.tag));
    };
    let folder = desired.project.config.engine.state_dir.join("accepted");
    let file = folder.join(format!("{}.{}", args.tag, planned.plan.fingerprint));
    if let Err(error) = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, "")) {
        complain(format!("{}: {error}", file.display()));
        return FAILED;
    }
    print(out, &format!("`{}` will replace the version that runs, once it is filled again\n", args.tag));
    OK
}

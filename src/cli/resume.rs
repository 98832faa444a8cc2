//! `tagflow resume TAG`: a tag that was set aside is tried again.

use std::io::Write;

use serde_json::json;

use crate::cli::status::daemon_status;
use crate::cli::{FAILED, Format, OK, ProjectArgs, complain, no_project, report};
use crate::engine::daemon::RESUMED;
use crate::engine::status::TagState;
use crate::project;

/// Arguments of `tagflow resume`.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// The tag that was set aside.
    tag: String,
    #[command(flatten)]
    project: ProjectArgs,
    /// Where the daemon listens; the project's `serve.listen` unless given.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Leaves word for the daemon, which looks for it as long as a tag is set aside.
pub fn run(args: &ResumeArgs, out: &mut dyn Write) -> u8 {
    let Some(project) = project::load(&args.project.project, args.project.profile.as_deref()).project else {
        return complain(no_project(&args.project.project));
    };
    let mut config = project.config;
    config.serve.listen = args.address.clone().unwrap_or(config.serve.listen);
    let status = match daemon_status(&config.serve) {
        Ok((status, _)) => status,
        Err(error) => return complain(format!("{error}; a daemon that starts tries every tag")),
    };
    let Some(tag) = status.tags.iter().find(|tag| tag.tag == args.tag) else {
        return complain(format!("the daemon knows no tag `{}`", args.tag));
    };
    match tag.state {
        TagState::Failed => {}
        TagState::Waiting => return complain(format!("`{0}` waits for `tagflow accept {0}`", args.tag)),
        state => {
            let state = format!("{state:?}").to_lowercase();
            return complain(format!("`{}` is not set aside: it is {state}", args.tag));
        }
    }
    let folder = config.engine.state_dir.join(RESUMED);
    let file = folder.join(&args.tag);
    if let Err(error) = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, "")) {
        complain(format!("{}: {error}", file.display()));
        return FAILED;
    }
    let words = format!("`{}` is filled again; `tagflow status` tells how far it is\n", args.tag);
    report(out, args.format, &words, &json!({ "resumed": args.tag }));
    OK
}

//! `tagflow resume TAG`: a tag that was set aside is tried again.

use std::io::Write;

use crate::cli::status::daemon_status;
use crate::cli::{FAILED, OK, ProjectArgs, complain, print};
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
}

/// Leaves word for the daemon, which looks for it as long as a tag is set aside.
pub fn run(args: &ResumeArgs, out: &mut dyn Write) -> u8 {
    let Some(project) = project::load(&args.project.project, args.project.profile.as_deref()).project else {
        return complain("tagflow.toml cannot be read; `tagflow check` says why");
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
    print(out, &format!("`{}` is filled again; `tagflow status` tells how far it is\n", args.tag));
    OK
}

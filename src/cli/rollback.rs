//! `tagflow rollback TAG`: the version before is live again at once, as long as it is kept up to date.

use std::io::Write;

use serde_json::json;

use crate::cli::status::daemon_status;
use crate::cli::{FAILED, Format, OK, ProjectArgs, complain, load, no_project, report};
use crate::engine::desired::Desired;
use crate::engine::rollbacks::{self, Rollback};
use crate::engine::versions::plan_versions;
use crate::sink::open_store;
use crate::sink::versions::Version;

/// Arguments of `tagflow rollback`.
#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// The tag.
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

/// Leaves word for the daemon, which swaps the version in at its next epoch.
pub fn run(args: &RollbackArgs, out: &mut dyn Write) -> u8 {
    let (_, desired) = load(&args.project);
    let Some(desired) = desired else { return complain(no_project(&args.project.project)) };
    match roll_back(&desired, &args.tag) {
        Ok(version) => {
            let mut serve = desired.project.config.serve.clone();
            serve.listen = args.address.clone().unwrap_or(serve.listen);
            let daemon_runs = daemon_status(&serve).is_ok();
            let when = match daemon_runs {
                true => "at the daemon's next epoch; `tagflow status` shows it",
                false => "when the daemon starts",
            };
            let words = format!("`{}` goes back to version {version} {when}\n", args.tag);
            let object = json!({ "tag": args.tag, "version": version, "daemon_runs": daemon_runs });
            report(out, args.format, &words, &object);
            OK
        }
        Err(message) => {
            complain(message);
            FAILED
        }
    }
}

fn roll_back(desired: &Desired, tag: &str) -> Result<u64, String> {
    let config = &desired.project.config;
    let versions = open_store(&config.store, &config.root, config.timezone)
        .and_then(|mut store| store.versions())
        .map_err(|error| error.to_string())?;
    let own: Vec<Version> = versions.into_iter().filter(|version| version.tag == tag).collect();
    let Some(target) = own.iter().rev().find(|version| version.is_kept()) else { return Err(nothing_kept(tag, &own)) };
    let planned = plan_versions(&desired.project, [target]);
    if !planned.contains_key(&target.name()) {
        return Err(format!(
            "version {} of `{tag}` cannot be made again: streams that it reads have changed since; put the files back as \
             they were, and the tag is filled",
            target.version
        ));
    }
    let of_files = || desired.tags.get(tag).map(|planned| planned.plan.fingerprint.clone());
    let instead_of = match desired.rollbacks.get(tag) {
        Some(rollback) => rollback.instead_of.clone(),
        None => of_files(),
    };
    let rollback = Rollback {
        version: target.version,
        fingerprint: target.fingerprint.clone(),
        files: target.origin.files.clone(),
        instead_of,
        by: ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).filter(|user| !user.is_empty()),
    };
    rollbacks::ask(&config.engine.state_dir, tag, rollback)
        .map_err(|error| format!("{}: {error}", config.engine.state_dir.display()))?;
    Ok(target.version)
}

/// Why there is none to go back to.
fn nothing_kept(tag: &str, versions: &[Version]) -> String {
    let before = versions.iter().rev().find(|version| version.live_until.is_some());
    let why = match before {
        None if versions.is_empty() => return format!("the store knows no versions of a tag `{tag}`"),
        None => "it has had no other version".to_string(),
        Some(Version { version, ended: Some(reason), .. }) => {
            format!("version {version} is not kept up to date any more: {reason}")
        }
        Some(Version { version, .. }) => format!("version {version} is dropped, as its grace period is over"),
    };
    format!("`{tag}` has no version to go back to: {why}; put the file back as it was, and the tag is filled")
}

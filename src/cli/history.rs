//! `tagflow history TAG`: which versions were live when, who made them, and why. Reads the store; no daemon is needed.

use std::io::Write;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::cli::{FAILED, Format, OK, ProjectArgs, complain, no_project, print};
use crate::project;
use crate::sink::open_store;
use crate::sink::versions::Version;

/// Arguments of `tagflow history`.
#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// The tag.
    tag: String,
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One time during which a version was live.
#[derive(Debug, Serialize)]
struct Period<'v> {
    version: u64,
    plan: &'v str,
    live_from: String,
    live_until: Option<String>,
    who: Option<&'v str>,
    commit: Option<&'v str>,
    why: &'v str,
    /// `tagflow rollback` goes back to it.
    is_kept: bool,
    /// Where its rows are, where it is not live and they are still there.
    table: Option<&'v str>,
    /// Why it is not kept although its table is there.
    not_kept: Option<&'v str>,
}

/// Asks the store and prints.
pub fn run(args: &HistoryArgs, out: &mut dyn Write) -> u8 {
    let Some(project) = project::load(&args.project.project, args.project.profile.as_deref()).project else {
        return complain(no_project(&args.project.project));
    };
    let config = project.config;
    let versions = open_store(&config.store, &config.root, config.timezone).and_then(|mut store| store.versions());
    let versions = match versions {
        Ok(versions) => versions,
        Err(error) => return complain(error),
    };
    let own: Vec<&Version> = versions.iter().filter(|version| version.tag == args.tag).collect();
    if own.is_empty() {
        complain(format!("the store knows no versions of a tag `{}`", args.tag));
        return FAILED;
    }
    let periods: Vec<Period<'_>> = own.iter().map(|version| Period::of(version)).collect();
    match args.format {
        Format::Json => {
            let whole = serde_json::json!({ "tag": args.tag, "versions": periods });
            print(out, &format!("{whole:#}\n"));
        }
        Format::Human => print(out, &describe(&args.tag, &periods)),
    }
    OK
}

impl<'v> Period<'v> {
    fn of(version: &'v Version) -> Self {
        Period {
            version: version.version,
            plan: &version.fingerprint,
            live_from: time(version.live_from),
            live_until: version.live_until.map(time),
            who: version.origin.author.as_deref(),
            commit: version.git_commit.as_deref(),
            why: &version.origin.reason,
            is_kept: version.is_kept(),
            table: version.table.as_deref(),
            not_kept: version.ended.as_deref().filter(|_| version.table.is_some()),
        }
    }

    fn state(&self) -> String {
        match (&self.live_until, self.is_kept, self.not_kept) {
            (None, ..) => "live".to_string(),
            (_, true, _) => "kept: `tagflow rollback` goes back to it".to_string(),
            (_, _, Some(reason)) => format!("not kept: {reason}"),
            _ => String::new(),
        }
    }
}

fn describe(tag: &str, periods: &[Period<'_>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["version", "live from", "until", "who", "commit", "why", ""]);
    for period in periods.iter().rev() {
        let commit = period.commit.map_or("", |commit| commit.get(..10).unwrap_or(commit));
        table.add_row([
            &period.version.to_string(),
            &period.live_from,
            period.live_until.as_deref().unwrap_or(""),
            period.who.unwrap_or(""),
            commit,
            period.why,
            &period.state(),
        ]);
    }
    let gone = periods.last().and_then(|last| last.live_until.as_ref());
    let gone = gone.map_or_else(String::new, |since| format!("`{tag}` is not live since {since}\n"));
    format!("{table}\n{gone}")
}

fn time(millis: i64) -> String {
    let format = "%Y-%m-%dT%H:%M:%SZ";
    chrono::DateTime::from_timestamp_millis(millis).map_or_else(String::new, |time| time.format(format).to_string())
}

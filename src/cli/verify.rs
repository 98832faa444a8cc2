//! `tagflow verify`: compares every table with the batch answer over the events that it shows.

use std::io::Write;

use crate::cli::{FAILED, OK, ProjectArgs, complain, load, print};
use crate::engine::intake::World;
use crate::engine::verify::verify;
use crate::sink::open_store;

/// Arguments of `tagflow verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Only these tags; all unless given.
    tags: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Reads all events again; for use while no daemon runs.
pub fn run(args: &VerifyArgs, out: &mut dyn Write) -> u8 {
    let (_, desired) = load(&args.project);
    let Some(mut desired) = desired else {
        return complain("the project cannot be read; `tagflow check` says why");
    };
    if let Some(unknown) = args.tags.iter().find(|tag| !desired.tags.contains_key(*tag)) {
        return complain(format!("there is no sound tag `{unknown}` in the project"));
    }
    if !args.tags.is_empty() {
        desired.tags.retain(|name, _| args.tags.contains(name));
    }
    let config = &desired.project.config;
    let world = World::beside_the_daemon(config);
    let mut store = match open_store(&config.store, &config.root, config.timezone) {
        Ok(store) => store,
        Err(error) => return complain(error),
    };
    let verdicts = match verify(&desired, store.as_mut(), &world) {
        Ok(verdicts) => verdicts,
        Err(error) => return complain(error),
    };
    let mut wrong = 0;
    let mut failures = Vec::new();
    for verdict in &verdicts {
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        let judgement =
            if verdict.differences == 0 { "right".to_string() } else { format!("{} DIFFER", verdict.differences) };
        print(out, &format!("{:<28} {:>9} rows  {judgement}\n", verdict.tag, verdict.rows));
        for sample in &verdict.samples {
            print(out, &format!("    {}\n", sample.replace('\u{0}', "")));
        }
        wrong += usize::from(verdict.differences > 0);
    }
    // Behind the verdicts: they say nothing of the tables.
    for failure in &failures {
        print(out, &format!("not verified: {failure}\n"));
    }
    if wrong == 0 && failures.is_empty() && !verdicts.is_empty() { OK } else { FAILED }
}

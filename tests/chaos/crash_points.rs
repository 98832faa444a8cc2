//! A crash exactly at every place that the source calls a `crash_point`: between the steps of commits, renames,
//! checkpoints, fills and restores.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::run::Run;
use crate::schedule::Edit;

/// Longest time until a daemon gets to a point.
const PATIENCE: Duration = Duration::from_secs(60);

/// The names of all crash points in the source.
fn named_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the source") {
        let path = entry.expect("the source").path();
        if path.is_dir() {
            named_in(&path, names);
        } else {
            let text = fs::read_to_string(&path).expect("the source");
            let calls = text.split("crash_point(\"").skip(1);
            names.extend(calls.filter_map(|call| Some(call.split_once('"')?.0.to_string())));
        }
    }
}

pub fn crash_at_each(run: &mut Run<'_>) -> Result<(), String> {
    let mut points = BTreeSet::new();
    named_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut points);
    assert!(points.len() > 10, "the source is read wrongly: {points:?}");
    run.recover()?;
    // Each version is one that the tag never had before, so that it is filled.
    let mut fresh = (1..).map(|number| 9 * number + 1);
    for point in &points {
        let mut next = fresh.next().expect("there is no end of them");
        if point.starts_with("return.") {
            // The version that runs is the one that the tag goes back to.
            let live = run.threshold;
            run.edit(Edit::Over(next));
            run.recover()?;
            next = live;
        }
        run.note(&format!("crash at {point}"));
        run.daemon.kill();
        run.daemon.start_until(Some(point));
        // A change of a tag leads through a fill, a meeting and a rename, or back to its version before; a tag comes or
        // goes.
        run.edit(Edit::Over(next));
        run.edit(Edit::Extra);
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = run.daemon.ended() {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("the daemon does not get to the crash point {point}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        if status.code().is_some() {
            return Err(format!("the daemon ended with {status} before the crash point {point}"));
        }
        run.summary.kills += 1;
        run.recover()?;
    }
    Ok(())
}

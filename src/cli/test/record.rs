//! `tagflow test --record`: writes what was found into the test files, and says what.

use std::collections::BTreeMap;
use std::path::Path;

use super::Ran;
use crate::cli::plural;
use crate::engine::desired::Desired;
use crate::tag_test::{Outcome, Recorded, Suite, TagTest, record};

/// Writes the files below `root` and returns what was written, for people.
pub(super) fn write(root: &Path, desired: &Desired, suite: &Suite, ran: &[Ran]) -> Result<String, String> {
    let mut text = String::new();
    for file in &suite.files {
        let (Some(planned), Some(before)) = (desired.tags.get(&file.tag), suite.sources.get(&file.file)) else {
            continue;
        };
        let own = ran.iter().filter(|ran| ran.file.file == file.file);
        let outcomes: Vec<(&TagTest, &Outcome)> =
            own.filter_map(|ran| Some((&ran.test, ran.outcome.as_ref().ok()?))).collect();
        let told = |error: String| format!("{}: {error}", file.file.display());
        let recorded = record(before, planned, &outcomes).map_err(told)?;
        let Recorded { text: after, csv, written, left } = recorded;
        let mut files = BTreeMap::from([(file.file.clone(), after)]);
        files.extend(csv);
        for (path, content) in files {
            if suite.sources.get(&path) != Some(&content) {
                let failed = |error: std::io::Error| format!("{}: {error}", path.display());
                std::fs::write(root.join(&path), content).map_err(failed)?;
                text.push_str(&format!("written {}\n", path.display()));
            }
        }
        for (name, moments) in written {
            text.push_str(&format!("  \"{name}\": what is expected at {}\n", plural(moments, "moment")));
        }
        for (name, reason) in left {
            text.push_str(&format!("not recorded in {}: \"{name}\": {reason}\n", file.file.display()));
        }
    }
    Ok(match text.is_empty() {
        true => "nothing to record: everything is as expected\n".to_string(),
        false => format!("{text}read what was written before you commit it\n\n"),
    })
}

//! `tagflow check` over a thousand tags: reading, planning and lints, as in CI and at every reload.

use std::fs;
use std::path::Path;
use std::time::Instant;

use tagflow::diagnostic::Severity;
use tagflow::engine::desired::plan_project;
use tagflow::project;

use crate::Failure;

const TAGS: usize = 1_000;
/// The best of so many.
const RUNS: usize = 3;

/// Prints the milliseconds of a check of the sample project's tags, copied until there are a thousand.
pub fn run() -> Result<(), Failure> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir()?;
    fs::copy(sample.join("tagflow.toml"), folder.path().join("tagflow.toml"))?;
    fs::create_dir_all(folder.path().join("schemas"))?;
    fs::create_dir_all(folder.path().join("tags"))?;
    for entry in fs::read_dir(sample.join("schemas"))? {
        let entry = entry?;
        fs::copy(entry.path(), folder.path().join("schemas").join(entry.file_name()))?;
    }
    let loaded = project::load(sample, Some("demo"));
    let tags = loaded.project.ok_or("the sample project cannot be read")?.tags;
    for number in 0..TAGS {
        let tag = tags.values().nth(number % tags.len()).ok_or("the sample project has no tags")?;
        let text = format!("{}\n", tag.text.replace("tags.", "tags.t0_"));
        fs::write(folder.path().join(format!("tags/t{}_{}.sql", number / tags.len(), tag.name)), text)?;
    }
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let begun = Instant::now();
        let loaded = project::load(folder.path(), Some("demo"));
        let (desired, found) = plan_project(&loaded.project.ok_or("the project cannot be read")?);
        let errors = found.iter().filter(|told| told.severity == Severity::Error).count();
        if errors > 0 || desired.tags.len() != TAGS {
            return Err(format!("{} of {TAGS} tags, {errors} errors", desired.tags.len()).into());
        }
        best = best.min(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    println!("check of {TAGS} tags: {best:.0} ms");
    Ok(())
}

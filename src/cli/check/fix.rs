//! `tagflow check --fix`: mends what can be mended for certain; `--diff` shows it instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use similar::TextDiff;

use crate::diagnostic::mend;
use crate::project::Loaded;

/// What one mended file hides, the next look finds: so often at most.
const MOST_LOOKS: usize = 30;

/// What was mended.
pub(super) struct Fixed {
    /// Problems.
    pub(super) problems: usize,
    /// Files that differ, with their text before and after.
    pub(super) files: BTreeMap<PathBuf, (String, String)>,
}

/// Mends the files of a project until there is nothing more to mend. `look` reads them anew, with the texts that are not
/// written yet; what it found last is told.
pub(super) fn fix(first: &Loaded, look: &dyn Fn(&BTreeMap<PathBuf, String>) -> Loaded) -> Fixed {
    let mut fixed = Fixed { problems: 0, files: BTreeMap::new() };
    let mut texts = BTreeMap::new();
    let mut again;
    let mut loaded = first;
    for _ in 0..MOST_LOOKS {
        let mended = mend(&loaded.diagnostics, &loaded.sources);
        if mended.problems == 0 {
            break;
        }
        fixed.problems += mended.problems;
        texts.extend(mended.texts);
        again = look(&texts);
        loaded = &again;
    }
    for (file, after) in texts {
        let before = first.sources.get(&file).cloned().unwrap_or_default();
        fixed.files.insert(file, (before, after));
    }
    fixed
}

/// What would change, as a unified diff.
pub(super) fn diff(fixed: &Fixed) -> String {
    let of_file = |(file, (before, after)): (&PathBuf, &(String, String))| {
        let name = file.display();
        let diff = TextDiff::from_lines(before, after);
        diff.unified_diff().header(&format!("a/{name}"), &format!("b/{name}")).to_string()
    };
    fixed.files.iter().map(of_file).collect()
}

/// Writes the files.
///
/// # Errors
/// The first that cannot be written, in words.
pub(super) fn write(fixed: &Fixed, root: &Path) -> Result<(), String> {
    for (file, (_, after)) in &fixed.files {
        std::fs::write(root.join(file), after).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

//! Paths of `tagflow.toml`: what is read as data lies in the project; what the machine keeps may be named absolutely.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use crate::diagnostic::codes;
use crate::inside::{inside, leads_outside};
use crate::toml_walk::{Section, Walk};

/// A path of the project, absolute; `None` and an error when it is outside of `root`, also through links.
pub(super) fn path_inside(walk: &mut Walk<'_>, section: &Section<'_>, key: &str, root: &Path) -> Option<PathBuf> {
    let text = walk.text(section, key)?;
    let value = text.value.as_deref()?;
    // A path may also be written out from the machine's root on, and the project's folder itself is one.
    let relative = Path::new(value).strip_prefix(root).unwrap_or(Path::new(value));
    let found = match relative.to_str() {
        Some("" | ".") => Some(root.to_owned()),
        other => other.and_then(inside).map(|path| root.join(path)),
    };
    let found = found.filter(|path| !leads_outside(root, path));
    if found.is_none() {
        outside(walk, section, key, text.span, "write a path below the folder of tagflow.toml, without \"..\"");
    }
    found
}

/// A path below the project, or an absolute one where the machine keeps such files.
pub(super) fn path_of_machine(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    key: &str,
    value: &str,
    span: Range<usize>,
    root: &Path,
) -> Option<PathBuf> {
    if Path::new(value).components().any(|part| part == Component::ParentDir) {
        let help = "write a path below the folder of tagflow.toml, or an absolute one, without \"..\"";
        outside(walk, section, key, span, help);
        return None;
    }
    Some(root.join(value))
}

fn outside(walk: &mut Walk<'_>, section: &Section<'_>, key: &str, span: Range<usize>, help: &str) {
    let message = format!("\"{key}\" in {} leaves the project's folder", section.label);
    walk.error(codes::PATH_OUTSIDE, span, message).help(help);
}

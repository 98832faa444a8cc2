//! Paths that files of a project name: they stay below a folder, as they are written and through links.

use std::path::{Component, Path, PathBuf};

/// A path as it is written, without its dots; `None` when it is absolute, climbs, or names nothing.
pub(crate) fn inside(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let found: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    // Without the dots one file has one name.
    (stays && path.file_name().is_some() && !path.as_os_str().as_encoded_bytes().contains(&0)).then_some(found)
}

/// True when links lead from `path` out of `folder`. What is not there leads nowhere.
pub(crate) fn leads_outside(folder: &Path, path: &Path) -> bool {
    match (folder.canonicalize(), path.canonicalize()) {
        (Ok(folder), Ok(path)) => !path.starts_with(folder),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_that_leaves_its_folder_as_it_is_written_is_none() {
        assert_eq!(inside("./a/./b.json"), Some(PathBuf::from("a/b.json")));
        assert_eq!(inside("..a/b..c"), Some(PathBuf::from("..a/b..c")));
        for outside in ["/etc/passwd", "..", "a/../../b", "a/..", "", ".", "a\0b"] {
            assert_eq!(inside(outside), None, "{outside:?}");
        }
    }

    #[test]
    fn link_that_leaves_a_folder_is_told_from_one_within_it() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("project");
        std::fs::create_dir_all(folder.join("..data")).unwrap();
        std::fs::write(outer.path().join("secret"), "").unwrap();
        std::fs::write(folder.join("..data/file"), "").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
        link("..data/file", "within");
        link("../secret", "out");
        link("out", "out_by_a_step_more");
        link("nowhere", "nowhere_else");
        link("..", "up");
        for (name, expected) in [
            ("within", false),
            ("..data/file", false),
            ("out", true),
            ("out_by_a_step_more", true),
            ("nowhere_else", false),
            ("up", true),
            ("up/secret", true),
            ("up/project/within", false),
        ] {
            assert_eq!(leads_outside(&folder, &folder.join(name)), expected, "{name}");
        }
        link("project", "../alias");
        assert!(!leads_outside(&outer.path().join("alias"), &outer.path().join("alias/within")));
    }
}

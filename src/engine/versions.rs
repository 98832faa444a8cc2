//! Versions of tags: the files that one is made of, its plan made again out of them, and why one follows another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::catalog;
use crate::engine::commits::Commit;
use crate::engine::desired::{PlannedTag, plan_only};
use crate::graph::Graph;
use crate::project::{self, FUNCTIONS, Project};
use crate::sink::versions::{Origin, Version};
use crate::tag;

/// Files by their paths below the project's root.
pub type Texts = BTreeMap<PathBuf, String>;

/// The text of every file that a tag is made of: its own, and those of the streams, views, functions and tags that it uses.
pub fn files_of(project: &Project, graph: &Graph, tag: &str) -> Texts {
    let Some(definition) = project.tags.get(tag) else { return Texts::new() };
    let texts = graph
        .made_of(&definition.file)
        .into_iter()
        .filter_map(|file| Some((file.clone(), project.sources.get(&file)?.clone())));
    texts.collect()
}

/// The files of a version as they are laid over a project: streams are as they are now, since all tags share one reader of
/// each, and a tag's file is where the project has it now.
pub fn laid_over(project: &Project, tag: &str, files: &Texts) -> Texts {
    let place = |file: &Path| {
        let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let now = project.tags.get(&name).filter(|_| file.starts_with(tag::FOLDER));
        match now {
            Some(now) if name == tag || !project.sources.contains_key(file) => now.file.clone(),
            _ => file.to_path_buf(),
        }
    };
    let kept = files.iter().filter(|(file, _)| !is_stream(file));
    kept.map(|(file, text)| (place(file), text.clone())).collect()
}

fn is_stream(file: &Path) -> bool {
    file.starts_with(catalog::FOLDER) && file.extension().is_some_and(|extension| extension == "toml")
}

/// Plans of versions over the streams as the project lays them out now, by their names; those whose files do not give the
/// same plan any more are left out.
pub fn plan_versions<'v>(
    project: &Project,
    versions: impl IntoIterator<Item = &'v Version>,
) -> BTreeMap<String, PlannedTag> {
    // Versions whose files do not contradict each other are planned in one go.
    let mut groups: Vec<(Texts, Vec<&Version>)> = Vec::new();
    for version in versions {
        let texts = laid_over(project, &version.tag, &version.origin.files);
        let agrees = |known: &Texts| texts.iter().all(|(file, text)| known.get(file).is_none_or(|known| known == text));
        let has_tag = |members: &[&Version]| members.iter().any(|member| member.tag == version.tag);
        match groups.iter_mut().find(|(known, members)| agrees(known) && !has_tag(members)) {
            Some((known, members)) => {
                known.extend(texts);
                members.push(version);
            }
            None => groups.push((texts, vec![version])),
        }
    }
    let mut planned = BTreeMap::new();
    for (texts, members) in groups {
        let config = &project.config;
        let laid = project::load_over(&config.root, config.profile.as_deref(), &texts).project;
        let Some(laid) = laid else { continue };
        let mut plans = plan_only(&laid, &members.iter().map(|member| member.tag.clone()).collect());
        for member in members {
            let plan = plans.remove(&member.tag).filter(|planned| planned.plan.fingerprint == member.fingerprint);
            planned.extend(plan.map(|plan| (member.name(), plan)));
        }
    }
    planned
}

/// Why a version follows the one that was made of `before`: who changed what.
pub fn origin(tag_file: &Path, files: Texts, before: Option<&Texts>, commit: Option<&Commit>) -> Origin {
    let differs = |file: &&PathBuf| before.is_some_and(|before| before.get(*file) != files.get(*file));
    let all: BTreeSet<&PathBuf> = files.keys().chain(before.into_iter().flat_map(BTreeMap::keys)).collect();
    let changed: Vec<&PathBuf> = all.into_iter().filter(differs).collect();
    let of_own_file = || match commit.filter(|commit| commit.is_clean) {
        Some(commit) => (Some(commit.author.clone()), commit.subject.clone()),
        None if before.is_none() => (None, "new".to_string()),
        None => (None, format!("{} changed, not committed", tag_file.display())),
    };
    let (author, reason) = if before.is_none() || changed.iter().any(|file| *file == tag_file) {
        of_own_file()
    } else if changed.is_empty() {
        (None, "filled again".to_string())
    } else {
        (None, format!("{} changed", changed.iter().map(|file| called(file)).collect::<Vec<_>>().join(", ")))
    };
    Origin { author, reason, files }
}

/// What people call a file's content.
fn called(file: &Path) -> String {
    let name = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    if is_stream(file) {
        format!("schema of {name}")
    } else if file.starts_with(catalog::FOLDER) {
        format!("view {name}")
    } else if file.starts_with(FUNCTIONS) {
        format!("function {name}")
    } else {
        format!("tag {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(files: &[(&str, &str)]) -> Texts {
        files.iter().map(|(file, text)| (PathBuf::from(file), text.to_string())).collect()
    }

    #[test]
    fn reason_of_a_version_is_its_commit_or_what_has_changed_below_it() {
        let file = Path::new("tags/a/spend.sql");
        let old = [("tags/a/spend.sql", "1"), ("schemas/orders.toml", "2"), ("functions/band.sql", "3")];
        let commit = |is_clean| Commit {
            hash: "c".to_string(),
            author: "Ann <a@b.c>".to_string(),
            subject: "spend: net of refunds".to_string(),
            is_clean,
        };
        let of = |new: &[(&str, &str)], commit: Option<Commit>| {
            let origin = origin(file, texts(new), Some(&texts(&old)), commit.as_ref());
            (origin.author, origin.reason)
        };
        let changed = [("tags/a/spend.sql", "9"), old[1], old[2]];
        let ann = Some("Ann <a@b.c>".to_string());
        assert_eq!(of(&changed, Some(commit(true))), (ann, "spend: net of refunds".to_string()));
        let uncommitted = (None, "tags/a/spend.sql changed, not committed".to_string());
        assert_eq!(of(&changed, Some(commit(false))), uncommitted);
        assert_eq!(of(&changed, None), uncommitted);
        let below = [old[0], ("schemas/orders.toml", "9"), ("schemas/paid.sql", "4")];
        let reason = "function band, schema of orders, view paid changed";
        assert_eq!(of(&below, Some(commit(true))), (None, reason.to_string()));
        assert_eq!(of(&old, Some(commit(true))), (None, "filled again".to_string()));
        assert_eq!(origin(file, texts(&old), None, None).reason, "new");
    }
}

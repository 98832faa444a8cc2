//! Which files of a project make use of which: tags, views and functions of what they read and call, schemas of the files
//! that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::catalog::{self, files_named};
use crate::plan::sql::mentions;
use crate::project::{FUNCTIONS, Project, SETTINGS_FILE};
use crate::tag::{self, FOLDER_FILE};

/// The files that make use of others, by what these are called.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    users: BTreeMap<String, BTreeSet<PathBuf>>,
    /// What each file makes use of.
    uses: BTreeMap<PathBuf, BTreeSet<String>>,
    /// All files, those that schemas name among them, by what they are called.
    files: BTreeMap<String, BTreeSet<PathBuf>>,
}

impl Graph {
    /// Of all files of a project, sound or not.
    pub fn of(project: &Project) -> Graph {
        let mut graph = Graph::default();
        for (file, text) in &project.sources {
            graph.add(file);
            if file.extension().is_some_and(|extension| extension == "sql") {
                let found = mentions(file, text);
                let calls = found.functions.into_iter().map(|name| format!("{name}()"));
                found.relations.into_iter().chain(calls).for_each(|name| graph.note(file, name));
            } else {
                for attached in files_named(&BTreeMap::from([(file.clone(), text.clone())])) {
                    graph.add(&attached);
                    graph.note(file, called(&attached));
                }
            }
        }
        graph
    }

    fn add(&mut self, file: &Path) {
        self.files.entry(called(file)).or_default().insert(file.to_path_buf());
    }

    /// A file makes use of what is called so.
    fn note(&mut self, file: &Path, name: String) {
        self.users.entry(name.clone()).or_default().insert(file.to_path_buf());
        self.uses.entry(file.to_path_buf()).or_default().insert(name);
    }

    /// The files that make use of a file directly.
    pub fn readers_of(&self, file: &Path) -> BTreeSet<&Path> {
        let users = self.users.get(&called(file)).into_iter().flatten();
        users.map(PathBuf::as_path).filter(|user| *user != file).collect()
    }

    /// The files of which a file makes use, directly or through others, and the file itself.
    pub fn made_of(&self, file: &Path) -> BTreeSet<PathBuf> {
        let mut reached = BTreeSet::from([file.to_path_buf()]);
        let mut next = vec![file.to_path_buf()];
        while let Some(user) = next.pop() {
            let names = self.uses.get(&user).into_iter().flatten();
            let used = names.filter_map(|name| self.files.get(name)).flatten();
            next.extend(used.filter(|used| reached.insert((*used).clone())).cloned());
        }
        reached
    }

    /// The files that make use of any of these, directly or through others; `files` are all that the project has.
    pub fn dependents<'f>(
        &self,
        changed: &BTreeSet<PathBuf>,
        files: impl Iterator<Item = &'f Path>,
    ) -> BTreeSet<PathBuf> {
        let all: Vec<&Path> = files.collect();
        let mut reached: BTreeSet<PathBuf> = changed.clone();
        let mut next: Vec<PathBuf> = changed.iter().cloned().collect();
        while let Some(file) = next.pop() {
            let below = all.iter().copied().filter(|user| is_below(&file, user));
            let users: Vec<PathBuf> = self.readers_of(&file).into_iter().chain(below).map(Path::to_path_buf).collect();
            next.extend(users.into_iter().filter(|user| reached.insert(user.clone())));
        }
        reached.retain(|file| !changed.contains(file));
        reached
    }
}

/// True for files that a settings file is about: all for `tagflow.toml`, its folder's for `_folder.toml`.
fn is_below(settings: &Path, file: &Path) -> bool {
    settings == Path::new(SETTINGS_FILE)
        || settings.file_name().is_some_and(|name| name == FOLDER_FILE)
            && settings.parent().is_some_and(|folder| file.starts_with(folder))
}

/// What others call a file by.
fn called(file: &Path) -> String {
    let stem = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().to_lowercase());
    let is_sql = file.extension().is_some_and(|extension| extension == "sql");
    if file.starts_with(tag::FOLDER) && is_sql {
        format!("tags.{stem}")
    } else if file.starts_with(FUNCTIONS) && is_sql {
        format!("{stem}()")
    } else if file.starts_with(catalog::FOLDER) && (is_sql || file.extension().is_some_and(|found| found == "toml")) {
        stem
    } else {
        file.to_string_lossy().into_owned()
    }
}

//! Everything below a project's root, read in one pass: settings, catalog, tags, folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::catalog::{self, Attached, Catalog};
use crate::config::{self, Config, Outline};
use crate::diagnostic::{Diagnostic, Levels, codes, levelled};
use crate::inside::leads_outside;
use crate::regular_file::{MOST_OF_TEXT, read_regular};
use crate::tag::{self, Folder, TagDefinition, Tree};

/// A project as its files say it.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// `tagflow.toml` under the chosen profile.
    pub config: Config,
    /// `schemas/`.
    pub catalog: Catalog,
    /// `tags/**/*.sql` by name; only those whose file and header are sound.
    pub tags: BTreeMap<String, TagDefinition>,
    /// The text of `functions/*.sql` by file.
    pub functions: BTreeMap<PathBuf, String>,
    /// `tags/**/_folder.toml` by path below `tags/` (`consumption/money`).
    pub folders: BTreeMap<String, Folder>,
    /// The text of every file that was read, for quoting.
    pub sources: BTreeMap<PathBuf, String>,
    /// Streams and views (`orders`) and tags (`tags.spend_30d`) whose files are there but cannot be made out.
    pub broken: BTreeMap<String, PathBuf>,
}

/// What reading a project gave: as much of it as is sound, and everything that is wrong.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `None` when `tagflow.toml` itself is unusable.
    pub project: Option<Project>,
    /// All problems of all files.
    pub diagnostics: Vec<Diagnostic>,
    /// Files that are there but could not be read.
    pub unreadable: BTreeSet<PathBuf>,
    /// What changes when any file of the project does, and only then.
    pub fingerprint: String,
    /// The text of every file that was read, for quoting, even when there is no project.
    pub sources: BTreeMap<PathBuf, String>,
}

/// The file with a project's settings.
pub const SETTINGS_FILE: &str = "tagflow.toml";
/// How the names of files end that hold the tests of a tag.
pub const TEST_FILE_END: &str = ".test.toml";
/// The folder of the project's own functions.
pub(crate) const FUNCTIONS: &str = "functions";
/// What is said of a link that shows files of the machine to whoever reads a check's messages.
const LEADS_OUT: &str = "a symbolic link leads out of the project's folder";
/// Folders nested deeper than this are a loop of links.
const DEEPEST: usize = 32;
/// The most bytes of a file that one of the project names: all of it is in memory.
const MOST_OF_NAMED: u64 = 1 << 30;

/// Reads the project in the folder `root` under a profile, with the process's environment.
pub fn load(root: &Path, profile: Option<&str>) -> Loaded {
    load_over(root, profile, &BTreeMap::new())
}

/// [`load`], as if `texts` stood in those of its files: they are not written yet.
pub fn load_over(root: &Path, profile: Option<&str>, texts: &BTreeMap<PathBuf, String>) -> Loaded {
    load_all(root, profile, texts, &|name| std::env::var(name).ok())
}

/// [`load`], with environment variables from `env`.
pub fn load_with_env(root: &Path, profile: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Loaded {
    load_all(root, profile, &BTreeMap::new(), env)
}

/// [`load_over`] and [`load_with_env`] at once; texts may also be of files that are not there yet.
pub fn load_all(
    root: &Path,
    profile: Option<&str>,
    texts: &BTreeMap<PathBuf, String>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Loaded {
    let mut files = Files::new(root);
    files.read(Path::new(SETTINGS_FILE));
    files.read_folder(Path::new(catalog::FOLDER), &is_schema_file, 0);
    files.read_folder(Path::new(tag::FOLDER), &is_tag_file, 0);
    files.read_folder(Path::new(FUNCTIONS), &|name| name.ends_with(".sql"), 0);
    for (file, text) in texts.iter().filter(|(file, _)| is_read(file)) {
        files.unreadable.remove(file);
        files.diagnostics.retain(|told| told.file != *file);
        files.sources.insert(file.clone(), text.clone());
    }
    let attached = read_attached(root, &files.sources);
    load_files(files, &attached, profile, env)
}

/// Puts the tag of a file in place of the one of its name, if there is any, wherever the file lies; returns the tag's name, and
/// what is wrong with it.
pub fn put_tag(project: &mut Project, file: &Path, text: &str) -> (String, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let sources =
        BTreeMap::from([(Path::new(tag::FOLDER).join(file.file_name().unwrap_or_default()), text.to_owned())]);
    let tree = tag::load(&sources, &Outline::of(&project.config), &mut diagnostics);
    let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    for (name, mut tag) in tree.tags {
        file.clone_into(&mut tag.file);
        project.broken.remove(&format!("tags.{name}"));
        project.tags.insert(name, tag);
    }
    diagnostics.iter_mut().for_each(|problem| file.clone_into(&mut problem.file));
    (name, diagnostics)
}

/// The text of the test files below `tags/`, with `texts` in place of those of theirs, and what is wrong with those that cannot
/// be read.
pub fn read_tests(root: &Path, texts: &BTreeMap<PathBuf, String>) -> (BTreeMap<PathBuf, String>, Vec<Diagnostic>) {
    let mut files = Files::new(root);
    files.read_folder(Path::new(tag::FOLDER), &|name| name.ends_with(TEST_FILE_END), 0);
    for (file, text) in texts.iter().filter(|(file, _)| is_test_file(file)) {
        files.diagnostics.retain(|told| told.file != *file);
        files.sources.insert(file.clone(), text.clone());
    }
    (files.sources, files.diagnostics)
}

/// True for a file of tests, by where it is and what it is called.
pub fn is_test_file(file: &Path) -> bool {
    let name = file.file_name().map(|name| name.to_string_lossy());
    file.starts_with(tag::FOLDER) && name.is_some_and(|name| name.ends_with(TEST_FILE_END))
}

/// The bytes of a file that another one of the project names.
pub fn read_named(root: &Path, file: &Path) -> Result<Vec<u8>, String> {
    let path = root.join(file);
    match leads_outside(root, &path) {
        true => Err(LEADS_OUT.to_owned()),
        false => read_regular(&path, MOST_OF_NAMED).map_err(|error| error.to_string()),
    }
}

/// A project whose files are these, by their paths below a root that is nowhere.
#[cfg(any(test, feature = "mutations"))]
pub fn load_from_memory(contents: &BTreeMap<PathBuf, Vec<u8>>, env: &dyn Fn(&str) -> Option<String>) -> Loaded {
    let mut files = Files::new(Path::new("/nowhere"));
    let is_text = |file: &Path| file.extension().is_some_and(|extension| extension == "toml" || extension == "sql");
    for (file, bytes) in contents.iter().filter(|(file, _)| is_text(file)) {
        files.take(file, bytes.clone());
    }
    let of_file = |file: PathBuf| {
        let bytes = contents.get(&file).cloned().ok_or_else(|| "there is no such file".to_string());
        (file, bytes)
    };
    let attached = catalog::files_named(&files.sources).into_iter().map(of_file).collect();
    load_files(files, &attached, None, env)
}

fn load_files(
    files: Files<'_>,
    attached: &Attached,
    profile: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Loaded {
    let Files { root, sources, unreadable, mut diagnostics } = files;
    let settings = Path::new(SETTINGS_FILE);
    let (config, outline) = match sources.get(settings) {
        Some(text) => {
            let mut reading =
                config::read(text, settings, root, profile, env, Some(&catalog::connections_named(&sources)));
            diagnostics.append(&mut reading.diagnostics);
            (reading.config, reading.outline)
        }
        None => (None, Outline::unknown()),
    };
    let catalog = catalog::load(&sources, attached, &outline, &mut diagnostics);
    let tree = tag::load(&sources, &outline, &mut diagnostics);
    let functions = sources.iter().filter(|(file, _)| file.starts_with(FUNCTIONS));
    let functions = functions.map(|(file, text)| (file.clone(), text.clone())).collect();
    let broken = broken(sources.keys().chain(&unreadable), &catalog, &tree);
    let project = config.map(|config| Project {
        broken,
        config,
        catalog,
        tags: tree.tags,
        functions,
        folders: tree.folders,
        sources: sources.clone(),
    });
    if let Some(project) = &project {
        diagnostics = project.levelled(diagnostics);
    }
    let fingerprint = fingerprint(&sources, attached, &unreadable);
    Loaded { project, diagnostics, unreadable, fingerprint, sources }
}

impl Project {
    /// The diagnostics as the files want them: the header of a tag or view counts before `tagflow.toml`.
    pub(crate) fn levelled(&self, diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let tags = self.tags.values().map(|tag| (tag.file.as_path(), &tag.header.lints));
        let views = self.catalog.views.values().map(|view| (view.file.as_path(), &view.lints));
        let headers: BTreeMap<&Path, &Levels> = tags.chain(views).collect();
        levelled(diagnostics, |told| {
            headers.get(told.file.as_path()).copied().into_iter().chain([&self.config.lints]).collect()
        })
    }
}

/// What has a name among the files, and nothing else.
fn broken<'a>(files: impl Iterator<Item = &'a PathBuf>, catalog: &Catalog, tree: &Tree) -> BTreeMap<String, PathBuf> {
    let named = |file: &PathBuf| {
        let name = file.file_stem()?.to_string_lossy().into_owned();
        let (name, is_sound) = if file.starts_with(tag::FOLDER) && file.extension()? == "sql" {
            let is_sound = tree.tags.contains_key(&name);
            (format!("tags.{name}"), is_sound)
        } else if file.starts_with(catalog::FOLDER) {
            let is_sound = catalog.streams.contains_key(&name) || catalog.views.contains_key(&name);
            (name, is_sound)
        } else {
            return None;
        };
        (!is_sound).then(|| (name, file.clone()))
    };
    files.filter_map(named).collect()
}

/// The files that schema files name.
fn read_attached(root: &Path, sources: &BTreeMap<PathBuf, String>) -> Attached {
    let read = |file: PathBuf| {
        let bytes = read_named(root, &file);
        (file, bytes)
    };
    catalog::files_named(sources).into_iter().map(read).collect()
}

fn fingerprint(sources: &BTreeMap<PathBuf, String>, attached: &Attached, unreadable: &BTreeSet<PathBuf>) -> String {
    let mut hash = Sha256::new();
    let mut add = |path: &Path, kind: u8, bytes: &[u8]| {
        let name = path.as_os_str().as_encoded_bytes();
        for part in [&[kind], name, bytes] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    };
    sources.iter().for_each(|(path, text)| add(path, b's', text.as_bytes()));
    for (path, found) in attached {
        match found {
            Ok(bytes) => add(path, b'a', bytes),
            Err(reason) => add(path, b'e', reason.as_bytes()),
        }
    }
    unreadable.iter().for_each(|path| add(path, b'u', &[]));
    format!("{:x}", hash.finalize())
}

/// True for a file that is read with the project, where it is there.
fn is_read(file: &Path) -> bool {
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let is_wanted = match file.iter().next().and_then(|first| first.to_str()) {
        Some(SETTINGS_FILE) => file == Path::new(SETTINGS_FILE),
        Some(catalog::FOLDER) => is_schema_file(&name),
        Some(tag::FOLDER) => is_tag_file(&name),
        Some(FUNCTIONS) => name.ends_with(".sql"),
        _ => false,
    };
    is_wanted && !is_hidden(&name) && file.to_str().is_some()
}

fn is_schema_file(name: &str) -> bool {
    name.ends_with(".toml") || name.ends_with(".sql")
}

fn is_tag_file(name: &str) -> bool {
    name.ends_with(".sql") || name == tag::FOLDER_FILE
}

/// True for what editors and version control leave beside the files: `.a.sql.swp`, `a.sql~`, `..data`, `#a.sql#`.
fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with('~')
}

/// Files as they are read; paths are relative to the root.
struct Files<'a> {
    root: &'a Path,
    sources: BTreeMap<PathBuf, String>,
    unreadable: BTreeSet<PathBuf>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Files<'a> {
    fn new(root: &'a Path) -> Self {
        Files { root, sources: BTreeMap::new(), unreadable: BTreeSet::new(), diagnostics: Vec::new() }
    }

    fn read(&mut self, file: &Path) {
        if leads_outside(self.root, &self.root.join(file)) {
            return self.refuse(file, codes::PATH_OUTSIDE, LEADS_OUT.to_owned(), "put the file itself there");
        }
        match read_regular(&self.root.join(file), MOST_OF_TEXT) {
            Ok(bytes) => self.take(file, bytes),
            Err(error) if error.kind() == ErrorKind::NotFound && file == Path::new(SETTINGS_FILE) => {
                let message = "there is no tagflow.toml in this folder";
                let help = "run Tagflow in the project's folder, or start a project with `tagflow init`";
                self.diagnostics.push(Diagnostic::error(codes::UNREADABLE, file, None, message).help(help));
            }
            Err(error) => self.refuse(file, codes::UNREADABLE, format!("cannot read this file: {error}"), ""),
        }
    }

    fn take(&mut self, file: &Path, bytes: Vec<u8>) {
        match String::from_utf8(bytes) {
            Ok(text) => {
                self.sources.insert(file.to_owned(), text);
            }
            Err(error) => {
                let byte = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..byte].iter().filter(|byte| **byte == b'\n').count() + 1;
                let message = format!("this file is not UTF-8 text: see line {line}");
                self.refuse(file, codes::NOT_UTF8, message, "save it with the encoding UTF-8");
            }
        }
    }

    /// Reads the files of a folder and of those below it whose names are `wanted`. A folder that is not there is empty.
    fn read_folder(&mut self, folder: &Path, wanted: &dyn Fn(&str) -> bool, depth: usize) {
        if depth > DEEPEST {
            let help = "look for a symbolic link that leads back to a folder above it";
            self.refuse(folder, codes::UNREADABLE, format!("folders nested more than {DEEPEST} deep"), help);
            return;
        }
        if leads_outside(self.root, &self.root.join(folder)) {
            return self.refuse(folder, codes::PATH_OUTSIDE, LEADS_OUT.to_owned(), "put the folder itself there");
        }
        let entries =
            std::fs::read_dir(self.root.join(folder)).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound && depth == 0 => return,
            Err(error) => {
                self.refuse(folder, codes::UNREADABLE, format!("cannot read this folder: {error}"), "");
                return;
            }
        };
        let mut names: Vec<_> = entries.into_iter().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let path = folder.join(&name);
            let shown = name.to_string_lossy();
            if is_hidden(&shown) {
                continue;
            }
            // Links are followed: a mounted ConfigMap is made of them.
            let found = std::fs::metadata(self.root.join(&path));
            let is_folder = found.as_ref().is_ok_and(Metadata::is_dir);
            if !is_folder && !wanted(&shown) {
                continue;
            }
            match found {
                // Names are told to stores and programs, which take text alone.
                _ if name.to_str().is_none() => {
                    let kind = if is_folder { "folder" } else { "file" };
                    let message = format!("the name of this {kind} is not UTF-8");
                    self.refuse(&path, codes::UNREADABLE, message, &format!("rename the {kind}"));
                }
                Ok(_) if is_folder => self.read_folder(&path, wanted, depth + 1),
                Ok(_) => self.read(&path),
                Err(error) => self.refuse(&path, codes::UNREADABLE, format!("cannot read this file: {error}"), ""),
            }
        }
    }

    fn refuse(&mut self, path: &Path, code: &'static str, message: String, help: &str) {
        let diagnostic = Diagnostic::error(code, path, None, message);
        self.diagnostics.push(if help.is_empty() { diagnostic } else { diagnostic.help(help) });
        self.unreadable.insert(path.to_owned());
    }
}

//! What a project is compared with: what runs, a saved state of it, or the files as another branch has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::cli::git::{lay_out, left_at};
use crate::cli::variable_or_stand_in;
use crate::config::{Config, Store};
use crate::engine::desired::{Desired, plan_project};
use crate::engine::replays::Replays;
use crate::engine::rollbacks;
use crate::engine::running::{KeptVersion, Running, RunningTag};
use crate::project::{self, SETTINGS_FILE};
use crate::sink::versions::Version;
use crate::sink::{SinkError, TagProgress, TagRegistration, open_store};

/// What there is.
pub(super) struct Old {
    pub(super) running: Running,
    /// Where that is known from, for people.
    pub(super) source: String,
    /// What could not be learned.
    pub(super) remarks: Vec<String>,
    /// Its files, planned again, where they are known; of its tags those that are as they run.
    pub(super) files: Option<OldFiles>,
}

/// The files of what there is.
pub(super) struct OldFiles {
    pub(super) folder: TempDir,
    pub(super) profile: Option<String>,
    pub(super) desired: Desired,
}

impl OldFiles {
    /// Plans the files of a folder as if `texts` stood in those of them.
    pub(super) fn planned_with(&self, texts: &BTreeMap<PathBuf, String>) -> Option<Desired> {
        plan_folder(self.folder.path(), self.profile.as_deref(), texts, &self.desired.replays)
    }
}

/// What runs, by the store's registry and the daemon's notes.
///
/// # Errors
/// When neither can be read.
pub(super) fn running(desired: &Desired) -> Result<Old, String> {
    let config = &desired.project.config;
    let mut remarks = Vec::new();
    let state_dir = &config.engine.state_dir;
    let kept = Running::kept_in(state_dir).unwrap_or_else(|error| {
        remarks.push(format!("the daemon's notes in {} cannot be read: {error}", state_dir.display()));
        None
    });
    let (running, source) = match (read_store(config), kept) {
        (Ok(Some(registry)), kept) => (merged(desired, kept, registry), "what runs, by the store".to_string()),
        (Ok(None), _) => (Running::of(&nothing(desired)), "a store in which nothing has run yet".to_string()),
        (Err(error), Some(kept)) => {
            remarks.push(format!("the store was not asked: {error}"));
            (kept, format!("what runs, by the daemon's notes in {}", state_dir.display()))
        }
        (Err(error), None) => {
            return Err(format!(
                "what runs is not known: {error}; compare with a saved state (--state FILE) or with a branch (--since main)"
            ));
        }
    };
    Ok(with_files(running, source, remarks))
}

/// A state that `--save` has written.
///
/// # Errors
/// When the file is none.
pub(super) fn saved(file: &Path) -> Result<Old, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let running = Running::decode(&bytes).map_err(|error| format!("{} is {error}", file.display()))?;
    Ok(with_files(running, format!("the state in {}", file.display()), Vec::new()))
}

/// The files as they were where the branch left `reference`.
///
/// # Errors
/// Why git cannot tell, or what is wrong with the files of then.
pub(super) fn since(reference: &str, desired: &Desired) -> Result<Old, String> {
    let config = &desired.project.config;
    let commit = left_at(reference, &config.root)?;
    let short: String = commit.chars().take(9).collect();
    let source = format!("{reference}, where the branch left it ({short})");
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let profile = config.profile.clone();
    // Of a project that was not there yet there is nothing.
    let planned = lay_out(&commit, &config.root, folder.path())? && folder.path().join(SETTINGS_FILE).exists();
    if !planned {
        return Ok(Old { running: Running::of(&nothing(desired)), source, remarks: Vec::new(), files: None });
    }
    let Some(planned) = plan_folder(folder.path(), profile.as_deref(), &BTreeMap::new(), &desired.replays) else {
        return Err(format!("tagflow.toml of {source} cannot be read"));
    };
    let mut running = Running::of(&planned);
    // The files say nothing of how fast this machine is.
    running.fill = Running::kept_in(&config.engine.state_dir).ok().flatten().and_then(|kept| kept.fill);
    Ok(Old { running, source, remarks: Vec::new(), files: Some(OldFiles { folder, profile, desired: planned }) })
}

/// A project of the same settings without tags.
fn nothing(desired: &Desired) -> Desired {
    Desired { tags: BTreeMap::new(), laid_over: BTreeMap::new(), ..desired.clone() }
}

/// What the store tells of tags.
struct Registry {
    registrations: Vec<TagRegistration>,
    progress: Vec<TagProgress>,
    versions: Vec<Version>,
}

/// What the store tells of tables; `None` where nothing has run yet.
fn read_store(config: &Config) -> Result<Option<Registry>, String> {
    // Asking makes the file of a SQLite store, which is for the daemon to do.
    if let Store::Sqlite(path) = &config.store
        && !config.root.join(path).exists()
    {
        return Ok(None);
    }
    let read = || -> Result<Registry, SinkError> {
        let mut store = open_store(&config.store, &config.root, config.timezone)?;
        let (progress, registrations) = (store.progress()?, store.registrations()?);
        Ok(Registry { registrations, progress, versions: store.versions()? })
    };
    match read() {
        Ok(registry) => Ok(Some(registry)),
        Err(SinkError::Unused { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The registry's tags, with the files that the daemon has noted of the versions that their tables show, or the registry
/// itself remembers.
fn merged(desired: &Desired, kept: Option<Running>, registry: Registry) -> Running {
    let Registry { registrations, progress, versions } = registry;
    let mut running = kept.unwrap_or_else(|| Running::of(&nothing(desired)));
    let noted = std::mem::take(&mut running.tags);
    let mut progress: BTreeMap<String, TagProgress> =
        progress.into_iter().map(|progress| (progress.tag.clone(), progress)).collect();
    for registration in registrations {
        let Some(TagProgress { fingerprint, rows, .. }) = progress.remove(&registration.tag) else { continue };
        let of_daemon = noted.get(&registration.tag).filter(|noted| noted.fingerprint == fingerprint);
        let is_shown = |version: &&Version| {
            version.tag == registration.tag && version.live_until.is_none() && version.fingerprint == fingerprint
        };
        let files = match (of_daemon, versions.iter().find(is_shown)) {
            (Some(noted), _) => noted.files.clone(),
            (None, Some(version)) => running.add_texts(version.origin.files.clone()),
            (None, None) => BTreeMap::new(),
        };
        running
            .tags
            .insert(registration.tag.clone(), RunningTag { fingerprint, registration, rows: Some(rows), files });
    }
    // In the order of time: the last one counts.
    let followed = versions.into_iter().filter(Version::is_kept);
    running.kept =
        followed.map(|Version { tag, version, fingerprint, .. }| (tag, KeptVersion { version, fingerprint })).collect();
    running
}

/// With the files laid out and planned, as far as they are known.
fn with_files(running: Running, source: String, remarks: Vec<String>) -> Old {
    let files = plan_again(&running);
    Old { running, source, remarks, files }
}

fn plan_again(running: &Running) -> Option<OldFiles> {
    let mut files: BTreeMap<&Path, &str> = BTreeMap::new();
    // Where two tags run with different versions of a file the first has its own; the other will not be as it runs.
    for (file, hash) in running.tags.values().flat_map(|tag| &tag.files) {
        files.entry(file).or_insert(hash);
    }
    if files.is_empty() {
        return None;
    }
    let folder = tempfile::tempdir().ok()?;
    let write = |file: &Path, bytes: &[u8]| {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent()?).and_then(|()| std::fs::write(path, bytes)).ok()
    };
    // A state may come from anywhere: it writes nowhere else.
    let is_below = |file: &Path| file.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    for (file, hash) in files.into_iter().filter(|(file, _)| is_below(file)) {
        write(file, &running.bytes_of(hash)?)?;
    }
    write(Path::new(SETTINGS_FILE), settings_of(running).as_bytes())?;
    let mut desired = plan_folder(folder.path(), None, &BTreeMap::new(), &running.replays)?;
    desired.tags.retain(|name, planned| {
        running.tags.get(name).is_some_and(|known| known.fingerprint == planned.plan.fingerprint)
    });
    Some(OldFiles { folder, profile: None, desired })
}

/// Settings that plan alike; nobody connects by them.
fn settings_of(running: &Running) -> String {
    let text = |text: &str| toml::Value::String(text.to_string()).to_string();
    let mut settings = format!("timezone = {}\n[store]\nurl = \"sqlite:none.db\"\n", text(&running.timezone));
    for (name, entity) in &running.entities {
        let (key, kind) = (text(&entity.key), text(&entity.r#type));
        settings.push_str(&format!("[entity.{}]\nkey = {key}\ntype = {kind}\n", text(name)));
    }
    for (name, kind) in &running.connections {
        let rest = match kind.as_str() {
            "kafka" => "type = \"kafka\"\nbrokers = \"nowhere:9092\"",
            "file" => "type = \"file\"\npath = \".\"",
            "mysql" => "type = \"mysql\"\nurl = \"mysql://nobody@localhost:3306/nowhere\"",
            "generator" => "type = \"generator\"",
            _ => "type = \"kafka\"\nbrokers = \"nowhere:9092\"\nregistry = \"http://localhost:8081\"",
        };
        settings.push_str(&format!("[connection.{}]\n{rest}\n", text(name)));
    }
    settings
}

/// Plans a folder whose variables need not be set; `None` where its settings cannot be read.
fn plan_folder(
    folder: &Path,
    profile: Option<&str>,
    texts: &BTreeMap<PathBuf, String>,
    replays: &Replays,
) -> Option<Desired> {
    let project = project::load_all(folder, profile, texts, &variable_or_stand_in).project?;
    let (desired, _) = plan_project(&project);
    Some(after_replays(desired, replays))
}

/// A project as the daemon sees it that a state is of: with its tags that went back to a version before.
pub(super) fn with_words(desired: Desired, running: &Running) -> Desired {
    let mut desired = after_replays(desired, &running.replays);
    if desired.rollbacks.is_empty() {
        rollbacks::go_back(&mut desired, running.rollbacks.clone());
    }
    desired
}

/// A project whose streams were replayed so many times.
fn after_replays(mut desired: Desired, replays: &Replays) -> Desired {
    if desired.replays.is_empty() {
        desired.tags.values_mut().for_each(|tag| tag.plan = Arc::new(tag.plan.replayed(replays)));
        desired.replays.clone_from(replays);
    }
    desired
}

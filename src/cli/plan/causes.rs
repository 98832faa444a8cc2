//! Why a tag's plan is another: which of the files that it is made of have changed it.
//!
//! A file that differs need not be the cause: where several do, each is put alone into the old project, and counts where the
//! fingerprint turns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::old::Old;
use super::plan::Why;
use crate::catalog::Stream;
use crate::engine::desired::{Desired, PlannedTag};
use crate::engine::running::{Running, RunningTag};
use crate::plan::sql::format::is_same_query;
use crate::plan::wording::sql_type;

/// More files than these are named without trying each.
const TRIED: usize = 40;

/// What is asked of why plans differ.
pub(super) struct Causes<'a> {
    old: &'a Old,
    new: &'a Desired,
    /// The new project's files by tag.
    files: Running,
    /// The fingerprints of all tags of the old project with one file as it is now; `None` where that cannot be planned.
    tried: BTreeMap<PathBuf, Option<BTreeMap<String, String>>>,
}

impl<'a> Causes<'a> {
    pub(super) fn new(old: &'a Old, new: &'a Desired) -> Self {
        Causes { old, new, files: Running::of(new), tried: BTreeMap::new() }
    }

    /// Why a tag is filled again.
    pub(super) fn of(&mut self, known: &RunningTag, wanted: &PlannedTag) -> Vec<Why> {
        let mut causes = self.settings(known, wanted);
        let own = wanted.definition.file.as_path();
        if known.files.is_empty() {
            let is_same = is_same_query(&known.registration.sql, &wanted.definition.text);
            causes.push(match is_same {
                true => Why::unknown("what it reads, or its header: the files that it ran with are not known"),
                false => Why::of(own, "its query"),
            });
            return causes;
        }
        let differing = self.differing(known, wanted);
        let turning: Vec<&PathBuf> = match differing.len() {
            0 | 1 => differing.iter().collect(),
            _ => {
                let turning: Vec<&PathBuf> = differing.iter().filter(|file| self.turns(file, known, wanted)).collect();
                // None alone, all together.
                if turning.is_empty() { differing.iter().collect() } else { turning }
            }
        };
        causes.extend(turning.into_iter().map(|file| self.why(file, known, wanted)));
        if causes.is_empty() {
            let (then, now) = (&self.old.running.tagflow, env!("CARGO_PKG_VERSION"));
            causes.push(Why::unknown(&match then == now {
                true => "none of its files: it was planned by another build of tagflow".to_string(),
                false => format!("none of its files: tagflow {now} plans it otherwise than {then}"),
            }));
        }
        causes
    }

    fn settings(&self, known: &RunningTag, wanted: &PlannedTag) -> Vec<Why> {
        let settings = Path::new(crate::project::SETTINGS_FILE);
        let mut causes = Vec::new();
        let (then, now) = (&known.registration.timezone, &wanted.registration.timezone);
        if then != now {
            causes.push(Why::of(settings, &format!("timezone: {then} → {now}")));
        }
        let entity = &wanted.definition.entity;
        let (then, now) = (self.old.running.entities.get(entity), self.files.entities.get(entity));
        if then.is_some() && then != now {
            causes.push(Why::of(settings, &format!("the key of the entity `{entity}`")));
        }
        for (stream, _) in wanted.plan.sources() {
            let times = |running: &Running| running.replays.get(&stream.name).copied().unwrap_or_default();
            if times(&self.old.running) != times(&self.files) {
                causes.push(Why::unknown(&format!("dead letters of `{}` are replayed", stream.name)));
            }
        }
        causes
    }

    /// The files of a tag that are not what they were; its own under its new name.
    fn differing(&self, known: &RunningTag, wanted: &PlannedTag) -> BTreeSet<PathBuf> {
        let empty = BTreeMap::new();
        let now = self.files.tags.get(&wanted.definition.name).map_or(&empty, |tag| &tag.files);
        let (own, own_then) = (&wanted.definition.file, Path::new(&known.registration.file));
        let then = |file: &Path| known.files.get(if file == own { own_then } else { file });
        let changed = now.iter().filter(|(file, hash)| then(file) != Some(hash)).map(|(file, _)| file.clone());
        let gone = known.files.keys().filter(|file| *file != own_then && !now.contains_key(*file)).cloned();
        changed.chain(gone).collect()
    }

    /// True where this file alone makes another plan of the old project's tag.
    fn turns(&mut self, file: &Path, known: &RunningTag, wanted: &PlannedTag) -> bool {
        let tag = &wanted.definition.name;
        let (Some(files), Some(text)) = (&self.old.files, self.new.project.sources.get(file)) else { return true };
        if !self.tried.contains_key(file) && self.tried.len() >= TRIED {
            return true;
        }
        let tried = self.tried.entry(file.to_path_buf()).or_insert_with(|| {
            // A file that was moved stands where it stood.
            let then = match file == wanted.definition.file {
                true => PathBuf::from(&known.registration.file),
                false => file.to_path_buf(),
            };
            let planned = files.planned_with(&BTreeMap::from([(then, text.clone())]))?;
            Some(planned.tags.into_iter().map(|(name, tag)| (name, tag.plan.fingerprint.clone())).collect())
        });
        let Some(tried) = tried else { return true };
        tried.get(tag).is_none_or(|fingerprint| *fingerprint != known.fingerprint)
    }

    /// What a file is to a tag, and what of it has changed.
    fn why(&self, file: &Path, known: &RunningTag, wanted: &PlannedTag) -> Why {
        let name = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let is_sql = file.extension().is_some_and(|extension| extension == "sql");
        let first = file.iter().next().and_then(|first| first.to_str()).unwrap_or_default();
        let what = match (first, is_sql) {
            _ if *file == wanted.definition.file => {
                match is_same_query(&known.registration.sql, &wanted.definition.text) {
                    true => "its header".to_string(),
                    false => "its query".to_string(),
                }
            }
            ("tags", _) => format!("the tag `{name}`, which it reads"),
            ("functions", _) => format!("the function `{name}`"),
            (_, true) => format!("the view `{name}`"),
            _ => {
                let then = self.old.files.as_ref().and_then(|files| files.desired.project.catalog.streams.get(&name));
                let now = self.new.project.catalog.streams.get(&name);
                let read = wanted.plan.sources().find(|(stream, _)| stream.name == name).map(|(_, columns)| columns);
                let is_read = |column: usize| read.is_some_and(|read| read.contains(&column));
                let what = then.zip(now).map(|(then, now)| stream_changes(then, now, is_read)).unwrap_or_default();
                if what.is_empty() { format!("the stream `{name}`") } else { what.join(", ") }
            }
        };
        Why::of(file, &what)
    }
}

/// What of a stream has changed that a plan depends on which reads these columns of it.
fn stream_changes(then: &Stream, now: &Stream, is_read: impl Fn(usize) -> bool) -> Vec<String> {
    let mut changes = Vec::new();
    let mut key = |name: &str, differs: bool| {
        if differs {
            changes.push(name.to_string());
        }
    };
    key("connection", then.connection != now.connection);
    key("topic", then.topic != now.topic);
    key("format", then.format != now.format);
    key("kind", then.kind != now.kind);
    key("start", then.start != now.start);
    key("time", then.time != now.time);
    key("key", then.key != now.key);
    key("truncates", then.truncates != now.truncates);
    key("unique", then.unique != now.unique);
    for (place, column) in now.columns.iter().enumerate() {
        let name = &column.name;
        match then.columns.iter().find(|known| known.name == *name) {
            // A record without a value that must be there is a dead letter, whoever reads it.
            None if is_read(place) || !column.nullable => changes.push(format!("new column `{name}`")),
            Some(known) if known.nullable != column.nullable => {
                changes
                    .push(format!("column `{name}` {}", if column.nullable { "may be NULL" } else { "is NOT NULL" }));
            }
            Some(known) if is_read(place) && known.data_type != column.data_type => {
                let (then, now) = (sql_type(&known.data_type), sql_type(&column.data_type));
                changes.push(format!("column `{name}`: {then} → {now}"));
            }
            Some(known) if is_read(place) && known != column => changes.push(format!("column `{name}`")),
            _ => {}
        }
    }
    changes
}

//! The plan as data: what becomes of each tag, and what that costs. What is shown is made of this alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::causes::Causes;
use super::data::DataDiff;
use super::old::Old;
use crate::catalog::Stream;
use crate::engine::changes::{self, Change, change_of, complete_from, waits_for_accept};
use crate::engine::desired::{Desired, PlannedTag};
use crate::engine::history::{History, histories};
use crate::engine::running::RunningTag;
use crate::graph::Graph;
use crate::plan::columns::{definitions, touched};
use crate::sink::{ColumnRegistration, TagRegistration};

/// What a change of the files does.
#[derive(Debug, Serialize)]
pub(super) struct Plan {
    /// What the files are compared with.
    pub(super) compared_with: String,
    /// Tags of which there is something to tell, by what becomes of them, then by name.
    pub(super) tags: Vec<TagPlan>,
    /// Tags of which there is nothing to tell.
    pub(super) unchanged: usize,
    pub(super) fill: Option<Fill>,
    /// What a daemon will not do unasked, and what could not be learned.
    pub(super) remarks: Vec<String>,
}

/// What becomes of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    /// It is new, and filled.
    Added,
    /// It is filled again beside the version that runs, which it replaces.
    Changed,
    /// Its table is retired.
    Removed,
    /// Its file lies elsewhere; state and table stay.
    Moved,
    /// Something else is said of it; state and table stay.
    Metadata,
}

/// One tag.
#[derive(Debug, Serialize)]
pub(super) struct TagPlan {
    pub(super) tag: String,
    pub(super) fate: Fate,
    /// tag, segment or detail tag.
    pub(super) kind: &'static str,
    pub(super) file: String,
    /// Where the file was.
    pub(super) moved_from: Option<String>,
    /// Why its state is what it is.
    pub(super) why: Vec<Why>,
    /// Columns that are not what they were; of a new tag all.
    pub(super) columns: Vec<ColumnPlan>,
    /// What else is said of it.
    pub(super) metadata: Vec<String>,
    /// Tags that read it and are filled with it, with those of their columns that are not what they were.
    pub(super) downstream: Vec<Downstream>,
    /// Who its header says reads the table.
    pub(super) readers: Vec<String>,
    /// Streams that it is filled from.
    pub(super) streams: Vec<String>,
    /// Rows in the table as it is.
    pub(super) rows: Option<u64>,
    /// The version that it goes back to at once, without a fill, as that is kept up to date and has the same plan.
    pub(super) returns_to: Option<u64>,
    /// From when on the filled answer is complete, where history does not reach back as far as the query.
    pub(super) complete_from: Option<String>,
    /// It replaces a complete version only once `tagflow accept` lets it.
    pub(super) waits_for_accept: bool,
    /// How its values change.
    pub(super) data: Option<DataDiff>,
}

impl TagPlan {
    /// True where history is read for it.
    pub(super) fn is_filled(&self) -> bool {
        matches!(self.fate, Fate::Added | Fate::Changed) && self.returns_to.is_none()
    }
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Why {
    pub(super) file: Option<PathBuf>,
    pub(super) what: String,
}

impl Why {
    pub(super) fn of(file: &Path, what: &str) -> Self {
        Why { file: Some(file.to_path_buf()), what: what.to_string() }
    }

    pub(super) fn unknown(what: &str) -> Self {
        Why { file: None, what: what.to_string() }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.file {
            Some(file) => write!(formatter, "{}: {}", file.display(), self.what),
            None => formatter.write_str(&self.what),
        }
    }
}

/// A column that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ColumnPlan {
    pub(super) name: String,
    pub(super) change: ColumnChange,
}

/// What becomes of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ColumnChange {
    Added,
    Removed,
    /// It is computed otherwise, or of other rows.
    Computed,
}

/// A tag that reads another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Downstream {
    pub(super) tag: String,
    pub(super) kind: &'static str,
    pub(super) columns: Vec<String>,
}

/// What all fills read together, in one pass over each stream.
#[derive(Debug, Serialize)]
pub(super) struct Fill {
    pub(super) tags: usize,
    pub(super) streams: Vec<StreamHistory>,
    /// Records of all streams; `None` where that is not known of one.
    pub(super) records: Option<u64>,
    /// As the last fill that was large enough to tell has run.
    pub(super) rows_per_second: Option<f64>,
    pub(super) seconds: Option<f64>,
}

/// One stream.
#[derive(Debug, Serialize)]
pub(super) struct StreamHistory {
    pub(super) stream: String,
    pub(super) records: Option<u64>,
    /// Why that is not known.
    pub(super) unknown: Option<String>,
}

impl Plan {
    /// True where a daemon would do something.
    pub(super) fn has_changes(&self) -> bool {
        !self.tags.is_empty()
    }

    pub(super) fn count(&self, fate: Fate) -> usize {
        self.tags.iter().filter(|tag| tag.fate == fate).count()
    }
}

/// Compares; brokers are asked for the length of history unless `is_offline`.
pub(super) fn compare(old: &Old, new: &Desired, is_offline: bool) -> Plan {
    let shown = |name: &str| old.running.tags.get(name).map(|known| (known.fingerprint.as_str(), &known.registration));
    let changes: BTreeMap<&str, Change> =
        new.tags.iter().map(|(name, wanted)| (name.as_str(), change_of(shown(name), wanted))).collect();
    let mut causes = Causes::new(old, new);
    let readers = Readers::of(new);
    let mut tags = Vec::new();
    for (name, wanted) in &new.tags {
        let change = changes[name.as_str()];
        let known = old.running.tags.get(name);
        let moved_from = known.map(|known| known.registration.file.clone());
        let moved_from = moved_from.filter(|file| Path::new(file) != wanted.definition.file);
        let fate = match (change, &moved_from) {
            (Change::Added, _) => Fate::Added,
            (Change::Refilled, _) => Fate::Changed,
            (Change::Described, Some(_)) => Fate::Moved,
            (Change::Described, None) => Fate::Metadata,
            (Change::Unchanged, _) => continue,
        };
        let is_filled = matches!(fate, Fate::Added | Fate::Changed);
        let why = match (fate, known) {
            (Fate::Added, _) => vec![Why::of(&wanted.definition.file, "it is new")],
            (Fate::Changed, Some(known)) => causes.of(known, wanted),
            _ => vec![Why::unknown("the plan is the same")],
        };
        let is_touched = |reader: &&PlannedTag| {
            matches!(changes.get(reader.definition.name.as_str()), Some(Change::Refilled | Change::Added))
        };
        let downstream = readers.of_tag(new, wanted).into_iter().filter(is_touched).map(|reader| {
            let columns = columns(old, new, reader).into_iter().map(|column| column.name).collect();
            Downstream { tag: reader.definition.name.clone(), kind: kind(reader), columns }
        });
        tags.push(TagPlan {
            tag: name.clone(),
            fate,
            kind: kind(wanted),
            file: wanted.definition.file.display().to_string(),
            moved_from,
            why,
            columns: if is_filled { columns(old, new, wanted) } else { Vec::new() },
            metadata: known.map(|known| said(&known.registration, &wanted.registration, fate)).unwrap_or_default(),
            downstream: if is_filled { downstream.collect() } else { Vec::new() },
            readers: wanted.definition.header.readers.clone(),
            streams: wanted.plan.sources().map(|(stream, _)| stream.name.clone()).collect(),
            rows: known.and_then(|known| known.rows),
            returns_to: old
                .running
                .kept
                .get(name)
                .filter(|kept| is_filled && kept.fingerprint == wanted.plan.fingerprint)
                .map(|kept| kept.version),
            complete_from: None,
            waits_for_accept: false,
            data: None,
        });
    }
    tags.extend(
        old.running
            .tags
            .iter()
            .filter(|(name, _)| !new.tags.contains_key(*name))
            .map(|(name, known)| removed(old, new, name, known)),
    );
    let mut remarks = old.remarks.clone();
    let gone = tags.iter().filter(|tag| tag.fate == Fate::Removed).count();
    if changes::too_many_gone(gone, old.running.tags.len()) {
        remarks.push(format!(
            "{gone} of {} tags vanish at once: a running daemon removes none of them until it is started with \
             --accept-removals",
            old.running.tags.len()
        ));
    }
    let fill = fill(old, new, &mut tags, is_offline);
    tags.sort_by(|one, other| (one.fate, &one.tag).cmp(&(other.fate, &other.tag)));
    let unchanged = changes.values().filter(|change| **change == Change::Unchanged).count();
    Plan { compared_with: old.source.clone(), tags, unchanged, fill, remarks }
}

/// A tag that runs and should not.
fn removed(old: &Old, new: &Desired, name: &str, known: &RunningTag) -> TagPlan {
    let file = Path::new(&known.registration.file);
    let why = match new.project.tags.get(name) {
        Some(tag) => Why::of(&tag.file, "it is switched off by its status"),
        None => Why::of(file, "gone"),
    };
    let planned = old.files.as_ref().and_then(|files| files.desired.tags.get(name));
    TagPlan {
        tag: name.to_string(),
        fate: Fate::Removed,
        kind: kind_of(&known.registration.columns),
        file: known.registration.file.clone(),
        moved_from: None,
        why: vec![why],
        columns: Vec::new(),
        metadata: Vec::new(),
        downstream: Vec::new(),
        readers: planned.map(|planned| planned.definition.header.readers.clone()).unwrap_or_default(),
        streams: Vec::new(),
        rows: known.rows,
        returns_to: None,
        complete_from: None,
        waits_for_accept: false,
        data: None,
    }
}

fn kind(tag: &PlannedTag) -> &'static str {
    kind_of(&tag.registration.columns)
}

fn kind_of(columns: &[ColumnRegistration]) -> &'static str {
    match (columns.iter().filter(|column| column.is_key).count(), columns.iter().any(|column| !column.is_key)) {
        (1, true) => "tag",
        (1, false) => "segment",
        _ => "detail tag",
    }
}

/// The columns of a tag that are not what they were.
fn columns(old: &Old, new: &Desired, wanted: &PlannedTag) -> Vec<ColumnPlan> {
    let column = |name: &str, change| ColumnPlan { name: name.to_string(), change };
    let name = &wanted.definition.name;
    let now = value_names(&wanted.registration);
    let Some(known) = old.running.tags.get(name) else {
        return now.into_iter().map(|name| column(name, ColumnChange::Added)).collect();
    };
    let then = value_names(&known.registration);
    let planned = old.files.as_ref().and_then(|files| Some((files, files.desired.tags.get(name)?)));
    let touched = match planned {
        Some((files, planned)) => {
            fn names(tag: &PlannedTag) -> Vec<&str> {
                tag.logical.schema().fields().iter().map(|field| field.name().as_str()).collect()
            }
            let of_old = definitions(&planned.logical, &files.desired.project.catalog);
            let of_new = definitions(&wanted.logical, &new.project.catalog);
            let found = touched((&of_old, &names(planned)), (&of_new, &names(wanted)));
            found.into_iter().map(str::to_string).collect()
        }
        // Not known: any may be.
        None => now.iter().map(|name| name.to_string()).collect::<Vec<_>>(),
    };
    let gone = then.iter().filter(|name| !now.contains(name)).map(|name| column(name, ColumnChange::Removed));
    let others = now.iter().filter_map(|name| match then.contains(name) {
        false => Some(column(name, ColumnChange::Added)),
        true => touched.iter().any(|touched| touched == name).then(|| column(name, ColumnChange::Computed)),
    });
    others.chain(gone).collect()
}

/// The columns of a tag beside its key.
fn value_names(registration: &TagRegistration) -> Vec<&str> {
    registration.columns.iter().filter(|column| !column.is_key).map(|column| column.name.as_str()).collect()
}

/// What is said of a tag by now that was not said, in a few words each.
fn said(then: &TagRegistration, now: &TagRegistration, fate: Fate) -> Vec<String> {
    let mut said = Vec::new();
    let mut note = |what: &str, differs: bool| {
        if differs {
            said.push(what.to_string());
        }
    };
    note("title", then.title != now.title);
    note("description", then.description != now.description);
    note("owner", then.owner != now.owner);
    note("method", then.method != now.method);
    note("status", then.status != now.status);
    note("entity", then.entity != now.entity);
    note("folder", then.folder != now.folder || then.folder_titles != now.folder_titles);
    for column in &now.columns {
        let Some(known) = then.columns.iter().find(|known| known.name == column.name) else { continue };
        let name = &column.name;
        note(&format!("title of `{name}`"), known.title != column.title);
        note(&format!("unit of `{name}`"), known.unit != column.unit);
        note(&format!("default of `{name}`"), known.default != column.default);
        note(&format!("labels of `{name}`"), known.labels != column.labels);
    }
    if said.is_empty() && fate == Fate::Metadata {
        said.push("comments or layout".to_string());
    }
    said
}

/// Which tags read which.
struct Readers {
    graph: Graph,
}

impl Readers {
    fn of(desired: &Desired) -> Self {
        Readers { graph: Graph::of(&desired.project) }
    }

    /// The tags that read a tag, directly or through others.
    fn of_tag<'d>(&self, desired: &'d Desired, tag: &PlannedTag) -> Vec<&'d PlannedTag> {
        let file = BTreeSet::from([tag.definition.file.clone()]);
        let dependents = self.graph.dependents(&file, desired.project.sources.keys().map(PathBuf::as_path));
        desired.tags.values().filter(|reader| dependents.contains(&reader.definition.file)).collect()
    }
}

/// What the fills read, and what that means for each of the tags.
fn fill(old: &Old, new: &Desired, tags: &mut [TagPlan], is_offline: bool) -> Option<Fill> {
    let filled: Vec<&PlannedTag> =
        tags.iter().filter(|tag| tag.is_filled()).filter_map(|tag| new.tags.get(&tag.tag)).collect();
    if filled.is_empty() {
        return None;
    }
    let streams: BTreeMap<String, Arc<Stream>> = crate::engine::desired::streams(filled.iter().map(|tag| &*tag.plan));
    let found = match (is_offline, tempfile::tempdir()) {
        (false, Ok(folder)) => histories(&new.project, &streams, folder.path()),
        (true, _) => streams.keys().map(|name| (name.clone(), Err("not asked".to_string()))).collect(),
        (false, Err(error)) => streams.keys().map(|name| (name.clone(), Err(error.to_string()))).collect(),
    };
    let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
    for tag in tags.iter_mut().filter(|tag| tag.is_filled()) {
        let Some(wanted) = new.tags.get(&tag.tag) else { continue };
        let own = tag.streams.iter().filter_map(|stream| found.get(stream)?.as_ref().ok());
        let from = complete_from(&wanted.plan, own.flat_map(|history| history.cut.iter().copied()), now);
        let shown = old.running.tags.get(&tag.tag).map(|known| known.registration.complete_from);
        tag.waits_for_accept = waits_for_accept(from, shown);
        let at = from.and_then(chrono::DateTime::from_timestamp_millis);
        tag.complete_from = at.map(|at| at.with_timezone(&new.project.config.timezone).format("%F %T").to_string());
    }
    let records = found.values().map(|history| history.as_ref().ok().map(|history| history.records));
    let records = records.sum::<Option<u64>>();
    let rows_per_second = old.running.fill.map(|fill| fill.rows_per_second());
    let seconds = records.zip(rows_per_second).map(|(records, speed)| records as f64 / speed.max(1.0));
    let history = |(stream, history): (String, Result<History, String>)| StreamHistory {
        stream,
        records: history.as_ref().ok().map(|history| history.records),
        unknown: history.err(),
    };
    Some(Fill {
        tags: filled.len(),
        streams: found.into_iter().map(history).collect(),
        records,
        rows_per_second,
        seconds,
    })
}

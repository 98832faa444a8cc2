//! What the page shows, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::datatypes::DataType;
use serde::Serialize;

use crate::catalog::{SYSTEM_COLUMNS, Stream};
use crate::config::{Config, Store};
use crate::diagnostic::Diagnostic;
use crate::engine::desired::{Desired, PlannedTag};
use crate::plan::lineage::{columns_read, lineage};
use crate::plan::sql::QueryPlanner;
use crate::plan::wording::sql_type;
use crate::project::Project;
use crate::sink::{Sink, SinkError, TagProgress, open_store};
use crate::tag::TagDefinition;

/// The whole page.
#[derive(Debug, Serialize)]
pub(super) struct Catalogue {
    pub(super) name: String,
    pub(super) timezone: String,
    /// When the page was made, in the project's zone.
    pub(super) made: String,
    /// What was asked of the store, and what it said.
    pub(super) store: String,
    pub(super) entities: Vec<EntityDoc>,
    pub(super) folders: Vec<FolderDoc>,
    pub(super) tags: Vec<TagDoc>,
    pub(super) streams: Vec<StreamDoc>,
    pub(super) views: Vec<ViewDoc>,
}

#[derive(Debug, Serialize)]
pub(super) struct EntityDoc {
    name: String,
    title: Option<String>,
    key: String,
}

#[derive(Debug, Serialize)]
pub(super) struct FolderDoc {
    /// Below tags/, joined by `/`.
    path: String,
    title: Option<String>,
    order: Option<i64>,
    owner: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct TagDoc {
    name: String,
    title: Option<String>,
    description: Option<String>,
    owner: Option<String>,
    entity: String,
    method: Option<String>,
    status: String,
    folder: Vec<String>,
    file: String,
    sql: String,
    columns: Vec<ColumnDoc>,
    /// Streams, views and tags that its query names; tags as `tags.NAME`.
    reads: BTreeSet<String>,
    /// `stream.column`s that only decide which rows there are.
    decided_by: BTreeSet<String>,
    problems: Vec<String>,
    freshness: Option<FreshnessDoc>,
    /// The first rows of its table, as texts.
    sample: Option<Vec<Vec<Option<String>>>>,
}

#[derive(Debug, Serialize)]
struct ColumnDoc {
    name: String,
    sql_type: String,
    is_key: bool,
    title: Option<String>,
    unit: Option<String>,
    default: Option<String>,
    labels: BTreeMap<String, String>,
    /// `stream.column`s that its value is made of.
    made_of: BTreeSet<String>,
}

#[derive(Debug, Serialize)]
struct FreshnessDoc {
    /// The clock up to which the table is true, in the project's zone.
    true_at: String,
    /// How long that is before the page was made.
    behind: String,
    rows: u64,
    /// From when on the answer is complete, where history does not reach back far enough.
    complete_from: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct StreamDoc {
    name: String,
    title: Option<String>,
    kind: String,
    connection: String,
    topic: String,
    file: String,
    time: Option<String>,
    lateness: Option<String>,
    key: Vec<String>,
    columns: Vec<StreamColumnDoc>,
}

#[derive(Debug, Serialize)]
struct StreamColumnDoc {
    name: String,
    sql_type: String,
    nullable: bool,
    path: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ViewDoc {
    name: String,
    title: Option<String>,
    file: String,
    sql: String,
    reads: BTreeSet<String>,
}

/// What is shown of each table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Samples {
    /// So many rows at most.
    pub(super) rows: usize,
    /// Also whose they are.
    pub(super) with_keys: bool,
}

/// What stands where the key of a user is not shown.
const HIDDEN: &str = "•••";

/// Everything that is known; the store is asked where samples are wanted.
pub(super) fn of(desired: &Desired, diagnostics: &[Diagnostic], samples: Option<Samples>) -> Catalogue {
    let project = &desired.project;
    let config = &project.config;
    let planner = QueryPlanner::new(
        &project.catalog,
        &project.tags,
        &config.entities,
        &project.functions,
        config.timezone,
        &project.broken,
    );
    let reads = |file: &std::path::Path, text: &str| {
        planner.as_ref().map(|planner| planner.relations_read(file, text)).unwrap_or_default()
    };
    let tags = project.tags.values().map(|tag| {
        let told = diagnostics.iter().filter(|told| told.file == tag.file);
        let problems = told.map(|told| format!("{}: {}", told.code, told.message)).collect();
        tag_doc(tag, desired.tags.get(&tag.name), reads(&tag.file, &tag.text), problems)
    });
    let mut tags: Vec<TagDoc> = tags.collect();
    let store = match samples {
        None => "samples and freshness are left out: the store was not asked".to_string(),
        Some(samples) => match add_from_store(desired, &mut tags, samples) {
            Ok(()) if samples.rows == 0 => "freshness is that of the store".to_string(),
            Ok(()) if samples.with_keys => "samples and freshness are those of the store".to_string(),
            Ok(()) => "samples and freshness are those of the store; keys are hidden".to_string(),
            Err(reason) => format!("samples and freshness are left out: {reason}"),
        },
    };
    let entities = config.entities.iter().map(|(name, entity)| EntityDoc {
        name: name.clone(),
        title: entity.title.clone(),
        key: entity.key.clone(),
    });
    let folders = project.folders.iter().map(|(path, folder)| FolderDoc {
        path: path.clone(),
        title: folder.title.clone(),
        order: folder.order,
        owner: folder.owner.clone(),
    });
    let views = project.catalog.views.values().map(|view| ViewDoc {
        name: view.name.clone(),
        title: view.title.clone(),
        file: view.file.display().to_string(),
        sql: view.sql.clone(),
        reads: reads(&view.file, &view.sql),
    });
    Catalogue {
        name: name_of(config),
        timezone: config.timezone.name().to_string(),
        made: chrono::Utc::now().with_timezone(&config.timezone).format("%Y-%m-%d %H:%M").to_string(),
        store,
        entities: entities.collect(),
        folders: folders.collect(),
        tags,
        streams: project.catalog.streams.values().map(|stream| stream_doc(stream, project)).collect(),
        views: views.collect(),
    }
}

fn name_of(config: &Config) -> String {
    config.root.file_name().map_or_else(|| "tags".to_string(), |name| name.to_string_lossy().into_owned())
}

fn tag_doc(
    tag: &TagDefinition,
    planned: Option<&PlannedTag>,
    reads: BTreeSet<String>,
    problems: Vec<String>,
) -> TagDoc {
    let header = &tag.header;
    let word = |value: Option<serde_json::Value>| value.and_then(|value| Some(value.as_str()?.to_string()));
    let dotted = |(stream, column): &(String, String)| format!("{stream}.{column}");
    let (mut columns, mut decided_by) = (Vec::new(), BTreeSet::new());
    if let Some(planned) = planned {
        let made_of = lineage(&planned.logical);
        let fields = planned.logical.schema().fields();
        let of_column = |name: &str| {
            let place = fields.iter().position(|field| field.name() == name);
            place.and_then(|place| made_of.get(place)).into_iter().flatten().map(dotted).collect()
        };
        let table = planned.table.key.iter().chain(&planned.table.columns);
        let types: BTreeMap<&str, &DataType> = table.map(|column| (column.name.as_str(), &column.data_type)).collect();
        let data_type = |name: &str| types.get(name).copied().unwrap_or(&DataType::Null);
        columns = planned
            .registration
            .columns
            .iter()
            .map(|column| ColumnDoc {
                name: column.name.clone(),
                sql_type: sql_type(data_type(&column.name)),
                is_key: column.is_key,
                title: column.title.clone(),
                unit: column.unit.clone(),
                default: column.default.clone(),
                labels: column.labels.clone(),
                made_of: of_column(&column.name),
            })
            .collect();
        let made: BTreeSet<_> = made_of.into_iter().flatten().collect();
        decided_by = columns_read(&planned.logical).difference(&made).map(dotted).collect();
    }
    TagDoc {
        name: tag.name.clone(),
        title: header.title.clone(),
        description: header.description.clone(),
        owner: header.owner.clone(),
        entity: tag.entity.clone(),
        method: word(header.method.and_then(|method| serde_json::to_value(method).ok())),
        status: word(serde_json::to_value(header.status).ok()).unwrap_or_default(),
        folder: tag.folder.clone(),
        file: tag.file.display().to_string(),
        sql: tag.text.clone(),
        columns,
        reads,
        decided_by,
        problems,
        freshness: None,
        sample: None,
    }
}

fn stream_doc(stream: &Stream, project: &Project) -> StreamDoc {
    let schema = stream.schema();
    let declared = schema.fields().iter().filter(|field| !SYSTEM_COLUMNS.contains(&field.name().as_str()));
    let columns = declared.zip(&stream.columns).map(|(field, column)| StreamColumnDoc {
        name: field.name().clone(),
        sql_type: sql_type(field.data_type()),
        nullable: field.is_nullable(),
        path: column.path.join("."),
    });
    let kind = match stream.kind.word() {
        "" if stream.is_table() => "changes of a table",
        "" => "events",
        word => word,
    };
    let is_declared = project.config.connections.contains_key(&stream.connection);
    StreamDoc {
        name: stream.name.clone(),
        title: stream.title.clone(),
        kind: kind.to_string(),
        connection: format!("{}{}", stream.connection, if is_declared { "" } else { " (not declared)" }),
        topic: stream.topic.clone(),
        file: stream.file.display().to_string(),
        time: stream.time.as_ref().map(|time| time.column.clone()),
        lateness: stream.time.as_ref().map(|time| humantime::format_duration(time.lateness).to_string()),
        key: stream.key.clone(),
        columns: columns.collect(),
    }
}

/// Adds what the store knows, all of it or nothing.
fn add_from_store(desired: &Desired, tags: &mut [TagDoc], samples: Samples) -> Result<(), String> {
    let config = &desired.project.config;
    // Asking makes the file of a SQLite store, which is for the daemon to do.
    if let Store::Sqlite(path) = &config.store
        && !config.root.join(path).exists()
    {
        return Err("the store has no file yet".to_string());
    }
    read_store(desired, tags, samples).map_err(|error| error.to_string())
}

fn read_store(desired: &Desired, tags: &mut [TagDoc], samples: Samples) -> Result<(), SinkError> {
    let config = &desired.project.config;
    let now = chrono::Utc::now().timestamp_millis();
    let mut store = open_store(&config.store, &config.root, config.timezone)?;
    let progress: BTreeMap<String, TagProgress> =
        store.progress()?.into_iter().map(|progress| (progress.tag.clone(), progress)).collect();
    let complete: BTreeMap<String, Option<i64>> =
        store.registrations()?.into_iter().map(|told| (told.tag, told.complete_from)).collect();
    for tag in tags {
        let (Some(progress), Some(planned)) = (progress.get(&tag.name), desired.tags.get(&tag.name)) else { continue };
        let at = |millis: i64| {
            let moment = chrono::DateTime::from_timestamp_millis(millis).unwrap_or_default();
            moment.with_timezone(&config.timezone).format("%Y-%m-%d %H:%M:%S").to_string()
        };
        tag.freshness = Some(FreshnessDoc {
            true_at: at(progress.clock / 1_000_000),
            behind: told_length(now.saturating_sub(progress.clock / 1_000_000)),
            rows: progress.rows,
            complete_from: complete.get(&tag.name).copied().flatten().map(at),
        });
        let hidden = config.entities.get(&tag.entity).filter(|_| !samples.with_keys).map(|entity| entity.key.as_str());
        let shows_more = tag.columns.iter().any(|column| Some(column.name.as_str()) != hidden);
        // A table of another version of the tag has other columns.
        if samples.rows > 0 && shows_more && store.table_matches(&planned.table)? {
            tag.sample = Some(sample(&mut *store, planned, samples.rows, hidden)?);
        }
    }
    Ok(())
}

/// A length of time in its two largest units: `3days 4h`.
fn told_length(millis: i64) -> String {
    let seconds = Duration::from_secs(u64::try_from(millis / 1000).unwrap_or_default());
    let units = humantime::format_duration(seconds).to_string();
    units.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn sample(
    store: &mut dyn Sink,
    planned: &PlannedTag,
    most: usize,
    hidden: Option<&str>,
) -> Result<Vec<Vec<Option<String>>>, SinkError> {
    let shown = |(name, value): (String, Option<String>)| match Some(name.as_str()) == hidden {
        true => Some(HIDDEN.to_string()),
        false => value,
    };
    let rows = store.first_rows(&planned.table, most)?;
    Ok(rows.into_iter().map(|row| row.into_iter().map(shown).collect()).collect())
}

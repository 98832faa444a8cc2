//! The `_tagflow_*` tables: what other programs read, and what the sink itself keeps. The layout is stable; changes
//! count up `layout` in `_tagflow_meta`.
//!
//! Enters: registrations and progress. Leaves: rows of texts for those tables, and back. Knows no store's spelling.
//!
//! | table | columns |
//! |---|---|
//! | `_tagflow_meta` | one row: `id` = 1, `layout`, `generation` of the writer that owns the store, `next_retired`, `store_id` (random, tells this database from others) |
//! | `_tagflow_lease` | MySQL only, one row: `id` = 1, `owner` (random), `host` and `pid` of the daemon that writes, its `generation`, `expires_at` (UTC, by the database's clock) |
//! | `_tagflow_tags` | `tag`, `folder` (`consumption/money`), `folder_titles` (JSON list), `entity`, `version`, `git_commit`, `file`, `title`, `description`, `owner`, `method`, `status`, `table_name`, `sql_text`, `timezone`, `complete_from`, `row_count`, `true_at`, `updated_at`, `true_offsets` (JSON), `event_time`, `lost_records` (JSON) |
//! | `_tagflow_columns` | `tag`, `position` from 0, `name`, `sql_type`, `is_key`, `title`, `unit`, `default_value`, `labels` (JSON object) |
//! | `_tagflow_progress` | `tag` (`spend_30d@4` for a version that is not live any more), `table_name` (a tag that is being filled has a second row), `fingerprint`, `epoch`, `clock_ns`, `offsets` (JSON), `row_count`, `watermarks` (JSON, nanoseconds as the column of event time counts) |
//! | `_tagflow_retired` | `table_name`, `tag`, `retired_at` (UTC): tables kept aside until their grace period ends |
//! | `_tagflow_versions` | `tag`, `period` from 1, `version`, `fingerprint`, `git_commit`, `author`, `reason`, `files` (JSON, path to text), `live_from` and `live_until` (UTC), `table_name`, `ended`, `complete_from`, `lost_records`: what was live when, see [`versions`](super::versions) |
//! | `_tagflow_pending` | MySQL only: renames that were begun; empty between two calls (see [`mysql::swap`](super::mysql)) |
//!
//! `complete_from`, `true_at` and `updated_at` are DATETIME(3) in the time zone that `timezone` names: from when on the
//! answer is complete (NULL: always), the engine's clock that the rows show, and when the registration was written.
//! What the table of a tag shows is told by `true_at`, `true_offsets` (the next record of every partition) and `event_time`
//! (DATETIME(3) too: of each of its streams the newest event less the lateness, and of these the least; NULL where no stream
//! has an event time that the tag reads). Commits write them with the rows.
//! `lost_records` tells what the answer lacks since retention took it first: a list of `stream`, `partition`, `first` and
//! `next`, the record behind the last of them; NULL where it lacks nothing. `complete_from` lies behind them then.
//! `row_count` counts the tag's answer; rows whose key the index refused are in it.

use std::collections::BTreeMap;

use chrono::{NaiveDateTime, TimeZone};
use chrono_tz::Tz;

use super::cells::wall_time_text;
use super::{ColumnRegistration, TagProgress, TagRegistration};
use crate::delta::Lost;

/// Counts up when the `_tagflow_*` tables change their shape.
pub const LAYOUT: u64 = 7;

/// The values of a quoted column with the number of their rows. Some collations take `a` and `a ` as equal, which are
/// two values.
pub fn value_counts_sql(table: &str, column: &str) -> String {
    format!("SELECT {column}, COUNT(*) FROM {table} GROUP BY {column}, LENGTH({column})")
}

/// Columns of `_tagflow_tags` that a registration writes, in the order of [`tag_row`]; commits write the others.
pub const TAG_COLUMNS: [&str; 18] = [
    "tag",
    "folder",
    "folder_titles",
    "entity",
    "version",
    "git_commit",
    "file",
    "title",
    "description",
    "owner",
    "method",
    "status",
    "table_name",
    "sql_text",
    "timezone",
    "complete_from",
    "updated_at",
    "lost_records",
];

/// Columns of `_tagflow_columns`, in the order of [`column_rows`].
pub const COLUMN_COLUMNS: [&str; 9] =
    ["tag", "position", "name", "sql_type", "is_key", "title", "unit", "default_value", "labels"];

/// Columns of `_tagflow_progress`, in the order of [`progress_row`].
pub const PROGRESS_COLUMNS: [&str; 8] =
    ["tag", "table_name", "fingerprint", "epoch", "clock_ns", "offsets", "row_count", "watermarks"];

/// One row of texts; both stores turn the texts of number columns into numbers.
pub type Texts = Vec<Option<String>>;

/// True for the table that everybody reads: not for one that is being filled.
pub fn is_live(progress: &TagProgress, table: &str) -> bool {
    progress.tag == table
}

/// The name under which number `number` of the retired tables is kept: 64 characters at most, as MySQL has it.
pub fn retired_table(tag: &str, number: u64) -> String {
    let short: String = tag.chars().take(40).collect();
    format!("_tagflow_old_{short}_{number}")
}

/// The row of `_tagflow_tags`.
pub fn tag_row(registration: &TagRegistration, zone: Tz) -> Texts {
    let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or(0);
    let complete_from = registration.complete_from.map(|millis| wall_time_text(millis.saturating_mul(1_000_000), zone));
    let titles = serde_json::Value::from(registration.folder_titles.clone()).to_string();
    vec![
        Some(registration.tag.clone()),
        Some(registration.folder.clone()),
        Some(titles),
        Some(registration.entity.clone()),
        Some(registration.version.to_string()),
        registration.git_commit.clone(),
        Some(registration.file.clone()),
        registration.title.clone(),
        registration.description.clone(),
        registration.owner.clone(),
        registration.method.clone(),
        Some(registration.status.clone()),
        Some(registration.tag.clone()),
        Some(registration.sql.clone()),
        Some(registration.timezone.clone()),
        complete_from,
        Some(wall_time_text(now, zone)),
        (!registration.lost.is_empty()).then(|| lost_text(&registration.lost)),
    ]
}

fn lost_text(lost: &[Lost]) -> String {
    serde_json::to_string(lost).expect("they are texts and numbers")
}

/// The rows of `_tagflow_columns`.
pub fn column_rows(registration: &TagRegistration) -> Vec<Texts> {
    let row = |(position, column): (usize, &ColumnRegistration)| {
        let labels: serde_json::Map<String, serde_json::Value> =
            column.labels.iter().map(|(value, name)| (value.clone(), name.clone().into())).collect();
        vec![
            Some(registration.tag.clone()),
            Some(position.to_string()),
            Some(column.name.clone()),
            Some(column.sql_type.clone()),
            Some(u8::from(column.is_key).to_string()),
            column.title.clone(),
            column.unit.clone(),
            column.default.clone(),
            Some(serde_json::Value::from(labels).to_string()),
        ]
    };
    registration.columns.iter().enumerate().map(row).collect()
}

/// What the registry tells of how far a tag's table is: its `true_at`, `true_offsets` and `event_time`, the last of which
/// stays as it is where nothing newer is known.
pub fn truth(progress: &TagProgress, zone: Tz) -> [Option<String>; 3] {
    let event_time = progress.event_time.map(|millis| wall_time_text(millis.saturating_mul(1_000_000), zone));
    [Some(wall_time_text(progress.clock, zone)), Some(offsets_text(progress)), event_time]
}

fn offsets_text(progress: &TagProgress) -> String {
    serde_json::to_string(&progress.offsets).expect("offsets are a map of texts and numbers")
}

/// The row of `_tagflow_progress` for one table of the tag.
pub fn progress_row(progress: &TagProgress, table: &str) -> Texts {
    let watermarks = serde_json::to_string(&progress.watermarks).expect("watermarks are a map of texts and numbers");
    vec![
        Some(progress.tag.clone()),
        Some(table.to_string()),
        Some(progress.fingerprint.clone()),
        Some(progress.epoch.to_string()),
        Some(progress.clock.to_string()),
        Some(offsets_text(progress)),
        Some(progress.rows.to_string()),
        Some(watermarks),
    ]
}

/// The registrations out of the rows of both tables, `position` ascending in the second.
///
/// # Errors
/// Which cell is not what this layout writes.
pub fn registrations_from(tags: Vec<Texts>, columns: Vec<Texts>, zone: Tz) -> Result<Vec<TagRegistration>, String> {
    let mut by_tag: BTreeMap<String, Vec<ColumnRegistration>> = BTreeMap::new();
    for mut row in columns {
        let tag = required(&mut row, 0, "_tagflow_columns")?;
        let labels = required(&mut row, 8, "_tagflow_columns")?;
        by_tag.entry(tag).or_default().push(ColumnRegistration {
            name: required(&mut row, 2, "_tagflow_columns")?,
            sql_type: required(&mut row, 3, "_tagflow_columns")?,
            is_key: row[4].as_deref() == Some("1"),
            title: row[5].take(),
            unit: row[6].take(),
            default: row[7].take(),
            labels: serde_json::from_str(&labels).map_err(|error| format!("_tagflow_columns.labels: {error}"))?,
        });
    }
    let registration = |mut row: Texts| {
        let mut text = |index| required(&mut row, index, "_tagflow_tags");
        let (tag, folder, folder_titles) = (text(0)?, text(1)?, text(2)?);
        let (entity, version, file) = (text(3)?, text(4)?, text(6)?);
        let (status, sql, timezone) = (text(11)?, text(13)?, text(14)?);
        Ok(TagRegistration {
            columns: by_tag.remove(&tag).unwrap_or_default(),
            tag,
            folder,
            folder_titles: serde_json::from_str(&folder_titles)
                .map_err(|error| format!("_tagflow_tags.folder_titles: {error}"))?,
            entity,
            version: number(&version, "_tagflow_tags.version")?,
            git_commit: row[5].take(),
            file,
            title: row[7].take(),
            description: row[8].take(),
            owner: row[9].take(),
            method: row[10].take(),
            status,
            sql,
            // It was written in the zone of then.
            complete_from: row[15].take().map(|text| millis_of(&text, timezone.parse().unwrap_or(zone))).transpose()?,
            timezone,
            lost: match row[17].take() {
                Some(lost) => {
                    serde_json::from_str(&lost).map_err(|error| format!("_tagflow_tags.lost_records: {error}"))?
                }
                None => Vec::new(),
            },
        })
    };
    tags.into_iter().map(registration).collect()
}

/// Progress out of a row of `_tagflow_progress`, with the table it is about.
///
/// # Errors
/// Which cell is not what this layout writes.
pub fn progress_from(mut row: Texts) -> Result<(String, TagProgress), String> {
    let mut text = |index| required(&mut row, index, "_tagflow_progress");
    let (tag, table, fingerprint) = (text(0)?, text(1)?, text(2)?);
    let (epoch, clock, offsets, rows) = (text(3)?, text(4)?, text(5)?, text(6)?);
    // Layout 1 had none.
    let watermarks = row.get_mut(7).and_then(Option::take).map(|text| serde_json::from_str(&text)).transpose();
    let progress = TagProgress {
        tag,
        fingerprint,
        epoch: number(&epoch, "_tagflow_progress.epoch")?,
        offsets: serde_json::from_str(&offsets).map_err(|error| format!("_tagflow_progress.offsets: {error}"))?,
        clock: number(&clock, "_tagflow_progress.clock_ns")?,
        watermarks: watermarks.map_err(|error| format!("_tagflow_progress.watermarks: {error}"))?.unwrap_or_default(),
        event_time: None,
        rows: number(&rows, "_tagflow_progress.row_count")?,
    };
    Ok((table, progress))
}

pub(super) fn required(row: &mut Texts, index: usize, table: &str) -> Result<String, String> {
    row.get_mut(index).and_then(Option::take).ok_or_else(|| format!("{table}: column {index} is NULL"))
}

pub(super) fn number<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{what}: `{text}` is no such number"))
}

pub(super) fn millis_of(text: &str, zone: Tz) -> Result<i64, String> {
    let local = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
        .map_err(|error| format!("complete_from: `{text}`: {error}"))?;
    // Of an hour that the clocks repeat the later pass is meant: never claim more than is there.
    let instant = zone.from_local_datetime(&local).latest().map(|instant| instant.timestamp_millis());
    instant.ok_or_else(|| format!("complete_from: `{text}` does not exist in {zone}"))
}

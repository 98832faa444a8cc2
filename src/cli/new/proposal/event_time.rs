//! Which column says when an event happened, and how late events come.

use serde_json::{Map, Value};

use super::seen::instant;
use super::{ProposedColumn, Setting};
use crate::source::sample::Sampled;

/// The event time of a sample.
pub(super) struct Times {
    column: Option<String>,
    /// There were others.
    others: Vec<String>,
    /// Milliseconds by which an event lay behind one before it in its partition.
    lateness: i64,
}

/// Names that are most often meant, the best first.
const NAMES: &[&str] =
    &["event_time", "eventtime", "occurred_at", "time", "ts", "timestamp", "created_at", "createdat"];
/// Latenesses to choose from.
const STEPS: &[(&str, i64)] =
    &[("10s", 10_000), ("1m", 60_000), ("10m", 600_000), ("1h", 3_600_000), ("1d", 86_400_000)];

impl Times {
    /// Looks for it among the columns that are times, each with its path.
    pub(super) fn of(rows: &[(&Sampled, Map<String, Value>)], columns: &[(Vec<String>, ProposedColumn)]) -> Times {
        let times: Vec<&(Vec<String>, ProposedColumn)> =
            columns.iter().filter(|(_, column)| column.sql_type.starts_with("TIMESTAMP")).collect();
        let rank = |(path, column): &(Vec<String>, ProposedColumn)| {
            let name = column.name.to_lowercase();
            let place = NAMES.iter().position(|known| *known == name);
            let is_change =
                ["updated", "modified", "expire", "birth", "deleted"].iter().any(|word| name.contains(word));
            (missing(rows, path), is_change, path.len(), place.unwrap_or(NAMES.len()), distance(rows, path, column))
        };
        let best = times.iter().min_by_key(|time| rank(time));
        let column = best.map(|(_, column)| column.name.clone());
        let others = times.iter().map(|(_, other)| other.name.clone()).filter(|other| Some(other) != column.as_ref());
        Times { others: others.collect(), lateness: best.map_or(0, |(path, best)| lateness(rows, path, best)), column }
    }

    /// The `time` of the schema file.
    pub(super) fn setting(&self) -> Option<Setting> {
        let column = self.column.as_ref()?;
        let (lateness, _) = STEPS.iter().find(|(_, most)| self.lateness * 2 <= *most).or(STEPS.last())?;
        let value = format!("{{ column = {}, lateness = \"{lateness}\" }}", super::toml_text(column));
        let late = match self.lateness {
            0 => "the sample is in order".to_string(),
            late => format!("the sample has an event {} s behind one before it", (late + 999) / 1000),
        };
        let others = match self.others.is_empty() {
            true => String::new(),
            false => format!("unsure: it might be {}; ", self.others.join(", ")),
        };
        Some(Setting::new("time", value).with(format!("{others}{late}")))
    }
}

fn value<'a>(row: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(row.get(first)?, |value, name| value.get(name))
}

/// Milliseconds since 1970, of wall time as if it were UTC.
fn moment(row: &Map<String, Value>, path: &[String], column: &ProposedColumn) -> Option<i64> {
    match value(row, path)? {
        Value::String(text) => instant(text),
        Value::Number(number) => {
            let count = number.as_i64()?;
            Some(match column.format {
                Some("epoch_s") => count.saturating_mul(1000),
                Some("epoch_us") => count / 1000,
                _ => count,
            })
        }
        _ => None,
    }
}

/// Tenths of the records that lack it.
fn missing(rows: &[(&Sampled, Map<String, Value>)], path: &[String]) -> usize {
    let missing = rows.iter().filter(|(_, row)| value(row, path).is_none_or(Value::is_null)).count();
    missing * 10 / rows.len().max(1)
}

/// Days between it and the broker's time in most records.
fn distance(rows: &[(&Sampled, Map<String, Value>)], path: &[String], column: &ProposedColumn) -> i64 {
    let apart = |(record, row): &(&Sampled, Map<String, Value>)| {
        Some((moment(row, path, column)? - record.timestamp?).abs() / 86_400_000)
    };
    let mut apart: Vec<i64> = rows.iter().filter_map(apart).collect();
    apart.sort_unstable();
    apart.get(apart.len() / 2).copied().unwrap_or(0)
}

fn lateness(rows: &[(&Sampled, Map<String, Value>)], path: &[String], column: &ProposedColumn) -> i64 {
    let mut newest = std::collections::BTreeMap::new();
    let mut latest = 0;
    for (record, row) in rows {
        let Some(at) = moment(row, path, column) else { continue };
        let newest = newest.entry(record.partition).or_insert(at);
        latest = latest.max(*newest - at);
        *newest = (*newest).max(at);
    }
    latest
}

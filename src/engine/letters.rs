//! What operators leave out becomes dead letters of its stream: events that came too late for the windows of some tag, and
//! rows that a tag skips since an expression fails. Their records are told by the columns that were read.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tracing::error;

use crate::operator::graph::Graph;
use crate::operator::punctual::LateEvents;
use crate::operator::sound::FailedRows;
use crate::plan::clock::{as_integers, nanoseconds};
use crate::plan::wording::sql_text;
use crate::sink::versions::is_version_name;
use crate::source::DeadLetters;
use crate::source::decode::RawRecord;

/// Keeps what the last step of a graph has left out. An event that is late for several tags is kept once.
pub fn keep_left_out(graph: &Graph, dead_letters: &DeadLetters) {
    let mut late_for: LateFor<'_> = HashMap::new();
    let late_events: Vec<(&LateEvents, Vec<&str>)> =
        graph.late_events().map(|(late, tags)| (late, of_tags(tags))).filter(|(_, tags)| !tags.is_empty()).collect();
    for (late, tags) in &late_events {
        for place in places(late) {
            late_for.entry(place).or_default().extend(tags);
        }
    }
    for (late, tags) in &late_events {
        if let Err(error) = keep_late(late, tags, &late_for, dead_letters) {
            error!(stream = late.punctuality.stream, %error, "late events are not among the dead letters");
        }
    }
    for (failed, tags) in graph.failed_rows() {
        if let Err(error) = keep_failed(failed, &of_tags(tags), dead_letters) {
            error!(stream = failed.soundness.stream, %error, "skipped rows are not among the dead letters");
        }
    }
}

/// Without the versions that are kept beside their tags, which nobody reads.
fn of_tags(names: Vec<&str>) -> Vec<&str> {
    names.into_iter().filter(|name| !is_version_name(name)).collect()
}

/// The tags that a record was too late for, of operators with more or less patience: by stream, partition and offset.
type LateFor<'a> = HashMap<(&'a str, i32, i64), BTreeSet<&'a str>>;

/// The records of late events.
fn places(late: &LateEvents) -> impl Iterator<Item = (&str, i32, i64)> {
    let of = &late.punctuality;
    let partitions = late.events.column(of.partition).as_primitive::<Int32Type>().values().iter();
    let offsets = late.events.column(of.offset).as_primitive::<Int64Type>().values().iter();
    partitions.zip(offsets).map(|(partition, offset)| (of.stream.as_str(), *partition, *offset))
}

fn keep_late(
    late: &LateEvents,
    tags: &[&str],
    late_for: &LateFor<'_>,
    dead_letters: &DeadLetters,
) -> Result<(), ArrowError> {
    let of = &late.punctuality;
    let time = late.events.column(of.time);
    let times = as_integers(time)?;
    let unit = nanoseconds(time.data_type()).unwrap_or(1);
    let span =
        |nanoseconds: i64| humantime::format_duration(Duration::from_secs(nanoseconds.unsigned_abs() / 1_000_000_000));
    let schema = late.events.schema();
    let reason = |row: usize| {
        let behind = late.newest[row].saturating_sub(times.value(row).saturating_mul(unit));
        format!(
            "late: {} is {} behind the newest event of its partition, more than the {} that {} allow{}",
            schema.field(of.time).name(),
            span(behind),
            span(of.late_after),
            tags.join(", "),
            if tags.len() == 1 { "s" } else { "" },
        )
    };
    let place = [of.partition, of.offset, of.timestamp];
    each_record(&late.events, &of.topic, place, &[], |row, record| {
        let all = late_for.get(&(of.stream.as_str(), record.partition, record.offset));
        let all: Vec<&str> = all.into_iter().flatten().copied().collect();
        dead_letters.put_late(&of.stream, record, &all, &reason(row));
    })?;
    dead_letters.flush(&of.stream);
    Ok(())
}

fn keep_failed(failed: &FailedRows, tags: &[&str], dead_letters: &DeadLetters) -> Result<(), ArrowError> {
    let of = &failed.soundness;
    let place = [of.partition, of.offset, of.timestamp];
    let made_up: Vec<usize> = of.failures.iter().chain(&place).copied().collect();
    let fails = |row: usize, failure: usize| {
        let flags = failed.rows.column(failure).as_boolean();
        flags.is_valid(row) && flags.value(row)
    };
    each_record(&failed.rows, &of.topic, place, &made_up, |row, record| {
        let failures = of.failures.iter().zip(&of.texts).filter(|(failure, _)| fails(row, **failure));
        let texts: Vec<String> = failures.map(|(_, text)| format!("`{}`", sql_text(text))).collect();
        let reason = format!("{} cannot be computed", texts.join(" and "));
        tags.iter().for_each(|tag| dead_letters.put_skipped(&of.stream, record, tag, &reason));
    })?;
    dead_letters.flush(&of.stream);
    Ok(())
}

/// Shows every row as the record that it is of, told by all of its columns but those that are `made_up`.
fn each_record(
    rows: &RecordBatch,
    topic: &str,
    [partition, offset, timestamp]: [usize; 3],
    made_up: &[usize],
    mut show: impl FnMut(usize, &RawRecord<'_>),
) -> Result<(), ArrowError> {
    let options = FormatOptions::default();
    let columns = rows.columns().iter();
    let formatters: Vec<ArrayFormatter<'_>> =
        columns.map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
    let schema = rows.schema();
    let partitions = rows.column(partition).as_primitive::<Int32Type>();
    let offsets = rows.column(offset).as_primitive::<Int64Type>();
    let timestamps = rows.column(timestamp).as_primitive::<TimestampMillisecondType>();
    for row in 0..rows.num_rows() {
        let columns = schema.fields().iter().enumerate();
        let known = columns.filter(|(index, _)| !made_up.contains(index) && rows.column(*index).is_valid(row));
        let text: serde_json::Map<String, serde_json::Value> = known
            .map(|(index, field)| (field.name().clone(), formatters[index].value(row).to_string().into()))
            .collect();
        let payload = serde_json::Value::from(text).to_string();
        let record = RawRecord {
            topic,
            partition: partitions.value(row),
            offset: offsets.value(row),
            timestamp: timestamps.is_valid(row).then(|| timestamps.value(row)),
            key: None,
            payload: Some(payload.as_bytes()),
        };
        show(row, &record);
    }
    Ok(())
}

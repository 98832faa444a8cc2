//! Events that came too late for the windows of some tag: put among the dead letters of their stream.

use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tracing::error;

use crate::operator::graph::Graph;
use crate::operator::punctual::LateEvents;
use crate::plan::clock::{as_integers, nanoseconds};
use crate::source::DeadLetters;
use crate::source::decode::RawRecord;

/// Keeps what the last step of a graph found late. An event that is late for several tags is kept once.
pub fn keep_late_events(graph: &Graph, dead_letters: &DeadLetters) {
    for (late, tags) in graph.late_events() {
        if let Err(error) = keep(late, &tags, dead_letters) {
            error!(stream = late.punctuality.stream, %error, "late events are not among the dead letters");
        }
    }
}

fn keep(late: &LateEvents, tags: &[&str], dead_letters: &DeadLetters) -> Result<(), ArrowError> {
    let options = FormatOptions::default();
    let columns = late.events.columns().iter();
    let formatters: Vec<ArrayFormatter<'_>> =
        columns.map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
    let schema = late.events.schema();
    let of = &late.punctuality;
    let time = late.events.column(of.time);
    let times = as_integers(time)?;
    let unit = nanoseconds(time.data_type()).unwrap_or(1);
    let partitions = late.events.column(of.partition).as_primitive::<Int32Type>();
    let offsets = late.events.column(of.offset).as_primitive::<Int64Type>();
    let timestamps = late.events.column(of.timestamp).as_primitive::<TimestampMillisecondType>();
    let span =
        |nanoseconds: i64| humantime::format_duration(Duration::from_secs(nanoseconds.unsigned_abs() / 1_000_000_000));
    for (row, newest) in late.newest.iter().enumerate() {
        let columns = schema.fields().iter().enumerate();
        let known = columns.filter(|(index, _)| late.events.column(*index).is_valid(row));
        let text: serde_json::Map<String, serde_json::Value> = known
            .map(|(index, field)| (field.name().clone(), formatters[index].value(row).to_string().into()))
            .collect();
        let payload = serde_json::Value::from(text).to_string();
        let behind = newest.saturating_sub(times.value(row).saturating_mul(unit));
        let reason = format!(
            "late: {} is {} behind the newest event of its partition, more than the {} that {} allow{}",
            schema.field(of.time).name(),
            span(behind),
            span(of.late_after),
            tags.join(", "),
            if tags.len() == 1 { "s" } else { "" },
        );
        let record = RawRecord {
            topic: &of.topic,
            partition: partitions.value(row),
            offset: offsets.value(row),
            timestamp: timestamps.is_valid(row).then(|| timestamps.value(row)),
            key: None,
            payload: Some(payload.as_bytes()),
        };
        dead_letters.put_late(&of.stream, &record, &reason);
    }
    dead_letters.flush(&of.stream);
    Ok(())
}

//! The status as Prometheus metrics.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::engine::status::{ArchiveStatus, FillStatus, Status, TagState};

type Number = Gauge<f64, AtomicU64>;
type Labels = Vec<(&'static str, String)>;

/// Text in the OpenMetrics format. Totals are gauges here: they are copied from the status, which counts them.
pub(super) fn encode(status: &Status) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("tagflow");
    let mut number = |name: &str, help: &str, value: f64| {
        let gauge = Number::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    number("epoch", "number of the last epoch", status.epoch as f64);
    number("clock_seconds", "the engine's clock, seconds since the Unix epoch", status.clock as f64 / 1e3);
    number("events", "events taken since the start", status.events as f64);
    number("events_per_second", "events taken a second, lately", status.events_per_second);
    number("lag_records", "records known to wait at the sources", status.lag as f64);
    let delay = "how long the oldest known record has waited that is not in the store";
    number("delay_seconds", delay, status.delay_millis as f64 / 1e3);
    let fill = |value: fn(&FillStatus) -> f64| status.fill.as_ref().map_or(0.0, value);
    number("fill_rows", "rows that the fill under way has read", fill(|fill| fill.rows as f64));
    number("fill_lag_records", "records that the fill under way has to go", fill(|fill| fill.lag as f64));
    number("fill_held", "1 while a fill waits for running tags", fill(|fill| f64::from(fill.is_held)));
    let kept = status.kept.iter().map(|kept| kept.state_bytes).sum::<u64>();
    number("kept_versions", "versions before that are kept up to date", status.kept.len() as f64);
    number("kept_state_bytes", "bytes that they use, shared ones in full", kept as f64);
    number("state_rows", "keys and rows kept by all operators", status.state_rows as f64);
    number("state_bytes", "bytes in memory of all operators", status.state_bytes as f64);
    number("spilled_bytes", "bytes of operators that are out of memory", status.spilled_bytes as f64);
    number("pending_keys", "changed keys that wait for the store", status.pending_keys as f64);
    number("flush_seconds", "time that the last commit took", status.flush_millis as f64 / 1e3);
    number("commits", "commits since the start", status.commits as f64);
    number("written_rows", "rows written since the start", status.written as f64);
    number("rejected_keys", "rows left out because no index holds their key", status.rejected_keys as f64);
    number(
        "project_errors",
        "problems that keep the last reload from being accepted",
        status.project_errors.len() as f64,
    );
    number("troubles", "passing faults of sources and store", status.troubles.len() as f64);

    let mut family = |name: &str, help: &str, values: Vec<(Labels, f64)>| {
        let family = Family::<Labels, Number>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        registry.register(name, help, family);
    };
    let tags = |value: fn(&crate::engine::status::TagStatus) -> f64| -> Vec<(Labels, f64)> {
        status.tags.iter().map(|tag| (vec![("tag", tag.tag.clone())], value(tag))).collect()
    };
    family("tag_rows", "rows in a tag's table", tags(|tag| tag.rows as f64));
    family("tag_changes", "changed rows of a tag since the start", tags(|tag| tag.changes as f64));
    family("tag_state_rows", "keys and rows that a tag uses", tags(|tag| tag.state_rows as f64));
    family("tag_state_bytes", "bytes that a tag uses", tags(|tag| tag.state_bytes as f64));
    family("tag_null_keys", "rows left out because their key holds a NULL", tags(|tag| tag.null_keys as f64));
    family("tag_skipped_rows", "rows that a tag skipped since an expression failed", tags(|tag| tag.skipped as f64));
    family("tag_outside_labels", "values without a label in labelled columns", tags(|tag| tag.outside_labels as f64));
    family("tag_live", "1 while a tag's table follows", tags(|tag| f64::from(tag.state == TagState::Live)));
    family("tag_failed", "1 while a tag is set aside", tags(|tag| f64::from(tag.state == TagState::Failed)));
    let partitions = |value: fn(&crate::engine::status::PartitionStatus) -> f64| -> Vec<(Labels, f64)> {
        let labels = |partition: &crate::engine::status::PartitionStatus| {
            vec![("stream", partition.stream.clone()), ("partition", partition.partition.to_string())]
        };
        status.partitions.iter().map(|partition| (labels(partition), value(partition))).collect()
    };
    family(
        "partition_lag_records",
        "records known to wait",
        partitions(|partition| (partition.end_offset - partition.next_offset).max(0) as f64),
    );
    family(
        "partition_newest_seconds",
        "broker time of the newest record read, seconds since the Unix epoch",
        partitions(|partition| partition.newest_timestamp.unwrap_or(0) as f64 / 1e3),
    );
    let watermarks = status.watermarks.iter();
    family(
        "watermark_seconds",
        "up to when a stream is known in event time, seconds since the Unix epoch",
        watermarks.map(|(stream, millis)| (vec![("stream", stream.clone())], *millis as f64 / 1e3)).collect(),
    );
    let streams = |counts: &BTreeMap<String, u64>| -> Vec<(Labels, f64)> {
        counts.iter().map(|(stream, count)| (vec![("stream", stream.clone())], *count as f64)).collect()
    };
    family("dead_letters", "records that do not decode, and late events", streams(&status.dead_letters));
    let late = "events that came too late for a tag; they are among the dead letters";
    family("late_events", late, streams(&status.late_events));
    family("skipped_rows", "rows that tags skipped; they are among the dead letters", streams(&status.skipped));
    family("dead_letters_kept", "dead letters that are kept", streams(&status.letters_kept));
    family("dead_letters_dropped", "dead letters that went for newer ones", streams(&status.letters_dropped));
    family("dead_letters_lost", "dead letters that could not be written", streams(&status.letters_lost));
    family(
        "dead_letter_newest_seconds",
        "when the newest dead letter was put aside, seconds since the Unix epoch; to be alerted of",
        status
            .newest_letter
            .iter()
            .map(|(stream, millis)| (vec![("stream", stream.clone())], *millis as f64 / 1e3))
            .collect(),
    );
    family("null_values", "values that do not fit and are read as NULL", streams(&status.nulls));
    family("resent_records", "records dropped as sent again", streams(&status.resent));
    family("too_late_records", "records too late to tell whether they were sent again", streams(&status.too_late));
    let lost = "records that were gone before they were read, of streams that went on; to be alerted of";
    family("lost_records", lost, streams(&status.lost));
    let archives = |value: fn(&ArchiveStatus) -> f64| -> Vec<(Labels, f64)> {
        let labels = |archive: &ArchiveStatus| vec![("stream", archive.stream.clone())];
        status.archives.iter().map(|archive| (labels(archive), value(archive))).collect()
    };
    family("archive_records", "records in a stream's archive", archives(|archive| archive.records as f64));
    family("archive_lag_records", "records known to wait for the archive", archives(|archive| archive.lag as f64));
    family(
        "archive_newest_seconds",
        "broker time of the newest record in the archive, seconds since the Unix epoch",
        archives(|archive| archive.newest_timestamp.unwrap_or(0) as f64 / 1e3),
    );
    let failing = "1 while records cannot be archived; to be alerted of, before retention takes them";
    family("archive_failing", failing, archives(|archive| f64::from(archive.trouble.is_some())));
    family("archive_errors", "how often records could not be archived", archives(|archive| archive.errors as f64));
    let lost = "records that were gone before they were archived; to be alerted of";
    family("archive_lost_records", lost, archives(|archive| archive.lost as f64));
    let mut text = String::new();
    encode_text(&mut text, &registry)?;
    Ok(text)
}

//! `history` of a stream: files with records that its topic may not have any more.

use super::Start;
use crate::config::Origin;
use crate::diagnostic::codes;
use crate::inside::inside;
use crate::toml_walk::{Section, Walk};

/// Files with what the topic does not hold any more.
pub(super) fn read_history(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    origin: Origin,
    is_table: bool,
    start: Option<Start>,
) -> Option<String> {
    let value = section.table.get("history")?;
    let span = walk.at(value.span());
    let refusal = if !matches!(origin, Origin::Kafka { .. } | Origin::Unknown) {
        Some((format!("{} has \"history\", but does not come from Kafka", section.label), "remove it"))
    } else if is_table {
        Some((format!("{} has \"history\", but its records describe a table", section.label), "remove it"))
    } else if start.is_some_and(|start| start != Start::Earliest) {
        let message = format!("{} has \"history\", but does not start at its earliest record", section.label);
        Some((message, "remove \"start\": the files are read first, and the topic from where they end"))
    } else {
        None
    };
    if let Some((message, help)) = refusal {
        walk.error(codes::BAD_VALUE, span, message).help(help);
        return None;
    }
    let pattern = walk.string(section, "history")?;
    if inside(&pattern).is_none() {
        walk.error(codes::PATH_OUTSIDE, span, format!("\"history\" in {} leaves the project's folder", section.label))
            .help("write the files by a path in it, without \"..\": archive/orders/*.parquet");
        return None;
    }
    if let Err(error) = glob::Pattern::new(&pattern) {
        walk.error(codes::BAD_VALUE, span, format!("\"history\" in {} is no pattern: {error}", section.label))
            .help("write the files with * for any part of a name, and ** for any folders: archive/**/*.parquet");
        return None;
    }
    Some(pattern)
}

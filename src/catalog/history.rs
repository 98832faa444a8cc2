//! `history` and `archive` of a stream: files with records that its topic may not have any more, and where they are kept.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::load::place_of_key;
use super::{Archive, Column, Start, Stream};
use crate::config::Origin;
use crate::diagnostic::{Diagnostic, codes};
use crate::inside::inside;
use crate::toml_walk::{Section, Walk};

/// The column that readers of an archive make of its folders' names.
const DAY: &str = "dt";
/// How long records wait for their file where the schema does not say.
const EVERY: Duration = Duration::from_secs(600);
/// How large files become where it does not say.
const SIZE: u64 = 64 << 20;
/// Folders of the project that hold files of its own.
const OWN_FOLDERS: &[&str] = &["tags", "schemas", "functions"];

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
    if !may_have(walk, section, "history", origin, is_table, start) {
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

/// Where the daemon keeps the stream's records.
pub(super) fn read_archive(
    walk: &mut Walk<'_>,
    stream: &Section<'_>,
    origin: Origin,
    is_table: bool,
    start: Option<Start>,
    columns: &[Column],
) -> Option<Archive> {
    let value = stream.table.get("archive")?;
    let mut span = walk.at(value.span());
    if !may_have(walk, stream, "archive", origin, is_table, start) {
        return None;
    }
    let (mut every, mut size) = (Some(EVERY), Some(SIZE));
    let written = if value.get_ref().as_table().is_some() {
        let section = walk.section(stream, "archive", format!("\"archive\" of {}", stream.label))?;
        walk.check_keys(&section, &["path", "every", "size"]);
        if section.table.get("every").is_some() {
            every = walk.duration(&section, "every", Duration::from_secs(1));
        }
        if section.table.get("size").is_some() {
            size = walk.bytes(&section, "size");
        }
        match section.table.get("path") {
            Some(path) => span = walk.at(path.span()),
            None => walk.missing(&section, "path", "path = \"archive/orders\""),
        }
        walk.string(&section, "path")?
    } else {
        walk.string(stream, "archive")?
    };
    let Some(path) = inside(&written) else {
        walk.error(codes::PATH_OUTSIDE, span, format!("\"archive\" in {} leaves the project's folder", stream.label))
            .help("write a folder in it, without \"..\": archive = \"archive/orders\"");
        return None;
    };
    let first = path.components().next();
    if let Some(folder) = OWN_FOLDERS.iter().find(|own| first == Some(Component::Normal(own.as_ref()))) {
        walk.error(codes::BAD_VALUE, span, format!("\"archive\" in {} lies in {folder}/", stream.label))
            .help("that folder is for files of the project: write archive = \"archive/orders\"");
        return None;
    }
    if written.contains(['*', '?']) {
        walk.error(codes::BAD_VALUE, span, format!("\"archive\" in {} is a pattern", stream.label))
            .help("write the folder alone: the daemon writes its files, and reads them as the stream's history");
        return None;
    }
    if let Some(column) = columns.iter().find(|column| column.name.eq_ignore_ascii_case(DAY)) {
        let message = format!(
            "{} has an \"archive\" and a column \"{}\", which its folders dt=… hide",
            stream.label, column.name
        );
        walk.error(codes::BAD_VALUE, span, message)
            .help(format!("name the column otherwise: event_day = {{ type = \"…\", path = \"$.{}\" }}", column.name));
        return None;
    }
    Some(Archive { path, every: every?, size: size? })
}

/// True where a stream can be read out of files too; else why not is said.
fn may_have(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    key: &str,
    origin: Origin,
    is_table: bool,
    start: Option<Start>,
) -> bool {
    let refusal = if !matches!(origin, Origin::Kafka { .. } | Origin::Unknown) {
        Some((format!("{} has \"{key}\", but does not come from Kafka", section.label), "remove it"))
    } else if is_table {
        Some((format!("{} has \"{key}\", but its records describe a table", section.label), "remove it"))
    } else if start.is_some_and(|start| start != Start::Earliest) {
        let message = format!("{} has \"{key}\", but does not start at its earliest record", section.label);
        Some((message, "remove \"start\": files and topic are read from the first record that there is"))
    } else {
        None
    };
    let span = section.table.get(key).map(|value| walk.at(value.span()));
    match refusal {
        Some((message, help)) => walk.error(codes::BAD_VALUE, span, message).help(help),
        None => return true,
    }
    false
}

/// Tells of folders that would be taken for another stream's archive.
pub(super) fn check_archives(
    streams: &BTreeMap<String, Arc<Stream>>,
    sources: &BTreeMap<PathBuf, String>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut tell = |stream: &Stream, key: &str, message: String, help: String| {
        let span = sources.get(&stream.file).and_then(|text| place_of_key(&stream.file, text, key));
        diagnostics.push(Diagnostic::error(codes::BAD_VALUE, &stream.file, span, message).help(help));
    };
    let archives = || streams.values().filter_map(|stream| Some((stream, stream.archive.as_ref()?)));
    for (stream, archive) in archives() {
        for (other, theirs) in archives().take_while(|(other, _)| other.name != stream.name) {
            if archive.path.starts_with(&theirs.path) || theirs.path.starts_with(&archive.path) {
                let message = format!(
                    "the archives of the streams \"{}\" and \"{}\" lie in one another",
                    other.name, stream.name
                );
                let help = format!("give each a folder of its own: archive = \"archive/{}\"", stream.name);
                tell(stream, "archive", message, help);
            }
        }
    }
    for stream in streams.values() {
        let Some(pattern) = &stream.history else { continue };
        let is_plain = |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
        let folder: PathBuf = Path::new(pattern).components().take_while(is_plain).collect();
        let is_same = |other: &Stream| (&other.connection, &other.topic) == (&stream.connection, &stream.topic);
        for (other, archive) in archives() {
            if folder.starts_with(&archive.path) && !is_same(other) {
                let message = format!(
                    "\"history\" of the stream \"{}\" is the archive of the stream \"{}\", which has another topic",
                    stream.name, other.name
                );
                tell(stream, "history", message, "name files with records of its own topic".to_string());
            }
        }
    }
}

//! `tagflow status`: what the running daemon says of itself.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};

use crate::cli::{Format, OK, ProjectArgs, complain, no_project, print};
use crate::config::ServeConfig;
use crate::engine::status::{ArchiveStatus, FillStatus, RolledBack, Status, TagState, TagStatus};
use crate::project;

/// Arguments of `tagflow status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Where the daemon listens; the project's `serve.listen` unless given.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Asks and prints.
pub fn run(args: &StatusArgs, out: &mut dyn Write) -> u8 {
    let project = project::load(&args.project.project, args.project.profile.as_deref()).project;
    let mut serve = match (project, &args.address) {
        (Some(project), _) => project.config.serve,
        (None, Some(_)) => ServeConfig::default(),
        (None, None) => return complain(format!("{}, or give --address", no_project(&args.project.project))),
    };
    serve.listen = args.address.clone().unwrap_or(serve.listen);
    let (status, body) = match daemon_status(&serve) {
        Ok(answer) => answer,
        Err(error) => return complain(error),
    };
    match args.format {
        Format::Json => print(out, &format!("{}\n", serde_json::to_string_pretty(&status).unwrap_or(body))),
        Format::Human => print(out, &describe(&status)),
    }
    OK
}

/// The status of the daemon that listens there, also as it was sent.
pub(super) fn daemon_status(serve: &ServeConfig) -> Result<(Status, String), String> {
    let address = &serve.listen;
    let body = ask(serve, "/status").map_err(|error| format!("no daemon answers on {address}: {error}"))?;
    match serde_json::from_str(&body) {
        Ok(status) => Ok((status, body)),
        Err(error) => Err(format!("what answers on {address} is no tagflow daemon: {error}")),
    }
}

/// The most bytes of an answer: what listens there may be anything.
const MOST_OF_ANSWER: u64 = 256 << 20;

/// A GET over a plain socket: one or two headers are all that it takes.
fn ask(serve: &ServeConfig, path: &str) -> std::io::Result<String> {
    let place = reachable(&serve.listen);
    let mut stream = TcpStream::connect(&place)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let token = serve.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.expose()));
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {place}\r\n{}\r\n", token.unwrap_or_default())?;
    let mut answer = String::new();
    stream.take(MOST_OF_ANSWER).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_string()),
        Some("401") => Err(std::io::Error::other(match serve.token {
            Some(_) => "it wants another token than [serve] has",
            None => "it wants a token: [serve] of tagflow.toml has none",
        })),
        _ => Err(std::io::Error::other(head.lines().next().unwrap_or("an empty answer").to_string())),
    }
}

/// Where a daemon is asked that listens on every network of this machine.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_string(),
    }
}

/// Who listens on an address that a console was to have.
pub(super) fn who_listens(serve: &ServeConfig) -> String {
    let address = &serve.listen;
    match daemon_status(serve) {
        Ok((status, _)) => {
            let profile = status.profile.map_or(String::new(), |profile| format!(" of profile {profile}"));
            format!(
                "a tagflow daemon{profile} listens there, running since {}; stop it, or give this one another place with \
                 --listen HOST:PORT",
                time(status.started_at)
            )
        }
        Err(_) => format!(
            "another program listens on {address}; give this one another place with `listen` below [serve], or --listen"
        ),
    }
}

fn describe_fill(fill: &FillStatus) -> String {
    let left = fill.seconds_left.map(|seconds| Duration::from_secs(seconds.ceil() as u64));
    let left = left.map_or(String::new(), |left| format!(", about {} left", humantime::format_duration(left)));
    let held = if fill.is_held { "; it waits for the running tags" } else { "" };
    format!(
        "filling {}: {} rows read, {} to go, {:.0} rows/s{left}{held}\n",
        fill.tags.join(", "),
        fill.rows,
        fill.lag,
        fill.rows_per_second
    )
}

fn describe_rollback(tag: &TagStatus) -> String {
    let Some(RolledBack { version, by }) = &tag.rolled_back else { return String::new() };
    let by = by.as_ref().map_or(String::new(), |user| format!(" by {user}"));
    let until = "until its files change";
    if tag.version == *version {
        format!("rolled back to version {version}{by}, {until}")
    } else {
        format!("goes back to version {version}{by}, {until}")
    }
}

fn describe_archive(archive: &ArchiveStatus) -> String {
    let newest = archive.newest_timestamp.map_or(String::new(), |newest| format!(", the newest of {}", time(newest)));
    let ArchiveStatus { stream, path, records, lag, lost, .. } = archive;
    let lost = match lost {
        0 => String::new(),
        lost => format!("! {lost} records of {stream} were gone before they were archived\n"),
    };
    format!("{records} records of {stream} are in {path}{newest}; {lag} wait\n{lost}")
}

fn describe_spilled(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { format!(" and {} on disk", ByteSize(bytes)) }
}

/// For people: a line of figures, a table of tags, then what is wrong.
pub fn describe(status: &Status) -> String {
    let mut text = format!(
        "{:?} · epoch {} · {:.0} events/s · lag {} ({:.1} s) · state {}{} in {} keys · last commit {} ms\n",
        status.phase,
        status.epoch,
        status.events_per_second,
        status.lag,
        status.delay_millis as f64 / 1e3,
        ByteSize(status.state_bytes),
        describe_spilled(status.spilled_bytes),
        status.state_rows,
        status.flush_millis
    );
    if let Some(holder) = &status.holder {
        text.push_str(&format!("waiting for another daemon: {holder}\n"));
    }
    if let Some(fill) = &status.fill {
        text.push_str(&describe_fill(fill));
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["tag", "state", "rows", "changes/s", "keys", "memory", ""]);
    for tag in &status.tags {
        let state = format!("{:?}", tag.state).to_lowercase();
        let note = match (&tag.message, tag.complete_from) {
            (Some(message), _) if tag.state != TagState::Live => message.clone(),
            _ if tag.rolled_back.is_some() => describe_rollback(tag),
            (_, Some(from)) => format!("complete only from {}", time(from)),
            _ if tag.outside_labels > 0 => format!("{} values have no label", tag.outside_labels),
            _ => String::new(),
        };
        table.add_row([
            tag.tag.clone(),
            state,
            tag.rows.to_string(),
            format!("{:.0}", tag.changes_per_second),
            tag.state_rows.to_string(),
            ByteSize(tag.state_bytes).to_string(),
            note,
        ]);
    }
    for column in [2, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    text.push_str(&format!("{table}\n"));
    for kept in &status.kept {
        let size = ByteSize(kept.state_bytes);
        text.push_str(&format!(
            "`tagflow rollback {}` goes back to version {}: {} rows and {size} are kept up to date until {}\n",
            kept.tag,
            kept.version,
            kept.rows,
            time(kept.until)
        ));
    }
    for archive in &status.archives {
        text.push_str(&describe_archive(archive));
    }
    for (stream, put) in &status.dead_letters {
        let kept = status.letters_kept.get(stream).copied().unwrap_or_default();
        if kept == 0 && *put == 0 {
            continue;
        }
        let late = status.late_events.get(stream).map_or(String::new(), |late| format!(", {late} of them late events"));
        let skipped =
            status.skipped.get(stream).map_or(String::new(), |rows| format!(", {rows} of them skipped by tags"));
        text.push_str(&format!(
            "{kept} dead letters of {stream} are kept; {put} came since the start{late}{skipped}\n"
        ));
    }
    for (stream, count) in status.letters_dropped.iter().filter(|(_, count)| **count > 0) {
        text.push_str(&format!("{count} dead letters of {stream} went for newer ones\n"));
    }
    for (stream, count) in status.letters_lost.iter().filter(|(_, count)| **count > 0) {
        text.push_str(&format!("! {count} dead letters of {stream} could not be written\n"));
    }
    for (stream, count) in status.nulls.iter().filter(|(_, count)| **count > 0) {
        text.push_str(&format!("{count} values of {stream} read as NULL\n"));
    }
    for (stream, count) in status.resent.iter().filter(|(_, count)| **count > 0) {
        text.push_str(&format!("{count} records of {stream} dropped as sent again\n"));
    }
    for (stream, count) in status.too_late.iter().filter(|(_, count)| **count > 0) {
        text.push_str(&format!(
            "{count} records of {stream} dropped as too late to tell whether they were sent again\n"
        ));
    }
    let lost: BTreeMap<String, Vec<&str>> = status.tags.iter().fold(BTreeMap::new(), |mut lost, tag| {
        tag.lost.iter().for_each(|records| lost.entry(records.to_string()).or_default().push(&tag.tag));
        lost
    });
    for (records, tags) in lost {
        text.push_str(&format!("! {records} were gone before they were read: {} lacks them\n", tags.join(", ")));
    }
    for line in status.troubles.iter().chain(&status.project_errors) {
        text.push_str(&format!("! {line}\n"));
    }
    text
}

fn time(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).map_or_else(String::new, |time| time.to_rfc3339())
}

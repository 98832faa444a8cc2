//! `tagflow status`: what the running daemon says of itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};

use crate::cli::{Format, OK, ProjectArgs, complain, print};
use crate::engine::status::{Status, TagState};
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
    let address = match &args.address {
        Some(address) => address.clone(),
        None => match project::load(&args.project.project, args.project.profile.as_deref()).project {
            Some(project) => project.config.serve.listen,
            None => return complain("tagflow.toml cannot be read; `tagflow check` says why, or give --address"),
        },
    };
    let (status, body) = match daemon_status(&address) {
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
pub(super) fn daemon_status(address: &str) -> Result<(Status, String), String> {
    let body = ask(address, "/status").map_err(|error| format!("no daemon answers on {address}: {error}"))?;
    match serde_json::from_str(&body) {
        Ok(status) => Ok((status, body)),
        Err(error) => Err(format!("what answers on {address} is no tagflow daemon: {error}")),
    }
}

/// A GET over a plain socket: the daemon is on loopback, and one header is all that it takes.
fn ask(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.contains(" 200 ") {
        return Err(std::io::Error::other(head.lines().next().unwrap_or("an empty answer").to_string()));
    }
    Ok(body.to_string())
}

/// For people: a line of figures, a table of tags, then what is wrong.
pub fn describe(status: &Status) -> String {
    let mut text = format!(
        "{:?} · epoch {} · {:.0} events/s · lag {} · state {} in {} keys · last commit {} ms\n",
        status.phase,
        status.epoch,
        status.events_per_second,
        status.lag,
        ByteSize(status.state_bytes),
        status.state_rows,
        status.flush_millis
    );
    if let Some(holder) = &status.holder {
        text.push_str(&format!("waiting for another daemon: {holder}\n"));
    }
    if let Some(fill) = &status.fill {
        text.push_str(&format!("filling {}: {} rows read, {} to go\n", fill.tags.join(", "), fill.rows, fill.lag));
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["tag", "state", "rows", "changes/s", "keys", "memory", ""]);
    for tag in &status.tags {
        let state = format!("{:?}", tag.state).to_lowercase();
        let note = match (&tag.message, tag.complete_from) {
            (Some(message), _) if tag.state != TagState::Live => message.clone(),
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
    for (stream, count) in status.dead_letters.iter().filter(|(_, count)| **count > 0) {
        let late = status.late_events.get(stream).map_or(String::new(), |late| format!(", {late} of them late events"));
        let skipped =
            status.skipped.get(stream).map_or(String::new(), |rows| format!(", {rows} of them skipped by tags"));
        text.push_str(&format!("{count} dead letters of {stream}{late}{skipped}\n"));
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
    for line in status.troubles.iter().chain(&status.project_errors) {
        text.push_str(&format!("! {line}\n"));
    }
    text
}

fn time(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).map_or_else(String::new, |time| time.to_rfc3339())
}

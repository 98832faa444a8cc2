//! `tagflow dead-letters`: records that could not be taken, looked at and taken out while the daemon runs or not.

mod replay;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;

use chrono::DateTime;
use chrono_tz::Tz;
use comfy_table::{Table, presets};

use crate::cli::{Format, OK, ProjectArgs, USAGE, complain, no_project, print, report, time_of};
use crate::project::{self, Project};
use crate::source::dead_letter::{DeadLetter, FOLDER, Kind, LetterFiles, Selection};

/// Letters that are listed for people unless more are asked for.
const LISTED: usize = 50;
/// Characters of an error in the list.
const LONGEST_ERROR: usize = 100;

/// Arguments of `tagflow dead-letters`.
#[derive(Debug, clap::Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List dead letters, the newest last.
    List {
        #[command(flatten)]
        which: Which,
        /// Only so many of the newest; 50 for people and all for programs unless given.
        #[arg(long)]
        limit: Option<usize>,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show the letters of one record in full.
    Show {
        /// The stream.
        stream: String,
        /// The partition's number.
        partition: i32,
        /// The record's offset.
        offset: i64,
        #[command(flatten)]
        project: ProjectArgs,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Take the records that fit a mended schema into the tags, in their places: the tags that read them are filled again.
    Replay {
        #[command(flatten)]
        which: Which,
        /// Every letter of every stream.
        #[arg(long)]
        all: bool,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Take letters out for good: a record that is met again does not bring its letter back.
    Drop {
        #[command(flatten)]
        which: Which,
        /// Every letter of every stream.
        #[arg(long)]
        all: bool,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Which letters are meant.
#[derive(Debug, Clone, clap::Args)]
struct Which {
    #[command(flatten)]
    project: ProjectArgs,
    /// Of this stream.
    #[arg(long)]
    stream: Option<String>,
    /// Of this topic, or file.
    #[arg(long)]
    topic: Option<String>,
    /// Of this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// At this offset.
    #[arg(long)]
    offset: Option<i64>,
    /// Put aside for this reason.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Skipped by this tag, or too late for it.
    #[arg(long)]
    tag: Option<String>,
    /// Put aside at this time or later: 2026-01-31, 2026-01-31T08:00:00Z, or 2h for two hours ago.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Put aside before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// With this text in the error, whatever its case.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
}

impl Which {
    fn selection(&self, timezone: Tz) -> Result<Selection, String> {
        let time = |text: &Option<String>| text.as_ref().map(|text| time_of(text, timezone)).transpose();
        Ok(Selection {
            stream: self.stream.clone(),
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.offset,
            kind: self.kind,
            tag: self.tag.clone(),
            since: time(&self.since)?,
            until: time(&self.until)?,
            error: self.error.clone(),
        })
    }
}

/// Runs one of the commands.
pub fn run(args: &DeadLettersArgs, out: &mut dyn Write) -> u8 {
    match &args.command {
        Command::List { which, limit, format } => with_selection(which, |place, selection| {
            let limit = limit.unwrap_or(if *format == Format::Human { LISTED } else { usize::MAX });
            let (found, letters) = place.newest(selection, limit)?;
            let text = match format {
                Format::Human => table(&letters, found, place.timezone),
                Format::Json => json(&letters),
            };
            print(out, &text);
            Ok(OK)
        }),
        Command::Show { stream, partition, offset, project, format } => {
            let Some(place) = Place::of(project) else { return complain(no_project(&project.project)) };
            let selection = Selection {
                stream: Some(stream.clone()),
                partition: Some(*partition),
                offset: Some(*offset),
                ..Selection::default()
            };
            match place.newest(&selection, usize::MAX) {
                Err(error) => complain(place.unreadable(&error)),
                Ok((_, letters)) if letters.is_empty() => {
                    complain(format!("there is no dead letter of `{stream}`, partition {partition}, offset {offset}"))
                }
                Ok((_, letters)) => {
                    let whole = |letter: &DeadLetter| in_full(letter, place.timezone);
                    let text = match format {
                        Format::Human => letters.iter().map(whole).collect::<Vec<_>>().join("\n"),
                        Format::Json => json(&letters),
                    };
                    print(out, &text);
                    OK
                }
            }
        }
        Command::Replay { which, all, format } => replay::run(which, *all, *format, out),
        Command::Drop { which, all, format } => with_selection(which, |place, selection| {
            if selection.is_everything() && !all {
                complain("say which letters, or --all for every one");
                return Ok(USAGE);
            }
            let mut dropped = 0;
            for stream in place.streams(selection)? {
                dropped += LetterFiles::of(&place.dir, &stream).take_out(|letter| selection.holds(letter), false)?;
            }
            let words = format!("{dropped} dead letters dropped\n");
            report(out, *format, &words, &serde_json::json!({ "dropped": dropped }));
            Ok(OK)
        }),
    }
}

/// Why a command does nothing.
enum Refused {
    /// Its arguments cannot be read.
    Usage(String),
    /// What they ask for is not to be had.
    Failed(String),
}

impl Refused {
    /// Tells it, and gives the exit code.
    fn tell(self) -> u8 {
        match self {
            Refused::Failed(message) => complain(message),
            Refused::Usage(message) => {
                complain(message);
                USAGE
            }
        }
    }
}

/// Where a project keeps its letters.
struct Place {
    dir: PathBuf,
    timezone: Tz,
    /// The project's streams.
    streams: BTreeSet<String>,
    /// The project's tags.
    tags: BTreeSet<String>,
}

impl Place {
    fn of(project: &ProjectArgs) -> Option<Place> {
        let project = project::load(&project.project, project.profile.as_deref()).project?;
        Some(Place::in_project(&project))
    }

    fn in_project(project: &Project) -> Place {
        Place {
            dir: project.config.engine.state_dir.join(FOLDER),
            timezone: project.config.timezone,
            streams: project.catalog.streams.keys().cloned().collect(),
            tags: project.tags.keys().cloned().collect(),
        }
    }

    /// What is wrong with a selection that names what neither the project nor a letter knows.
    fn unknown(&self, selection: &Selection) -> io::Result<Option<String>> {
        let list = |known: &BTreeSet<String>| known.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        if let Some(stream) = selection.stream.as_ref().filter(|stream| !self.streams.contains(*stream))
            && !LetterFiles::streams(&self.dir)?.contains(stream)
        {
            return Ok(Some(format!("there is no stream `{stream}`; there are: {}", list(&self.streams))));
        }
        if let Some(tag) = selection.tag.as_ref().filter(|tag| !self.tags.contains(*tag))
            && self.newest(&Selection { tag: Some(tag.clone()), ..Selection::default() }, 0)?.0 == 0
        {
            return Ok(Some(format!("there is no tag `{tag}`; there are: {}", list(&self.tags))));
        }
        Ok(None)
    }

    /// The letters that are meant, where the place knows what they are told by.
    fn selection(&self, which: &Which) -> Result<Selection, Refused> {
        let selection = which.selection(self.timezone).map_err(Refused::Usage)?;
        match self.unknown(&selection).map_err(|error| Refused::Failed(self.unreadable(&error)))? {
            None => Ok(selection),
            Some(message) => Err(Refused::Failed(message)),
        }
    }

    fn unreadable(&self, error: &io::Error) -> String {
        format!("the dead letters in {}: {error}", self.dir.display())
    }

    fn streams(&self, selection: &Selection) -> io::Result<Vec<String>> {
        let mut streams = LetterFiles::streams(&self.dir)?;
        streams.retain(|stream| selection.stream.as_ref().is_none_or(|wanted| wanted == stream));
        Ok(streams)
    }

    /// How many letters are meant, and the newest of them, newest last.
    fn newest(&self, selection: &Selection, limit: usize) -> io::Result<(usize, Vec<DeadLetter>)> {
        let mut found = 0;
        let mut newest: Vec<DeadLetter> = Vec::new();
        for stream in self.streams(selection)? {
            LetterFiles::of(&self.dir, &stream).each(|letter| {
                if !selection.holds(&letter) {
                    return;
                }
                found += 1;
                newest.push(letter);
                // Sorted and cut now and then, so that what is not shown takes no memory.
                if newest.len() / 2 > limit {
                    keep_newest(&mut newest, limit);
                }
            })?;
        }
        keep_newest(&mut newest, limit);
        Ok((found, newest))
    }
}

fn keep_newest(letters: &mut Vec<DeadLetter>, limit: usize) {
    letters.sort_by_key(|letter| letter.at);
    letters.drain(..letters.len().saturating_sub(limit));
}

fn with_selection(which: &Which, run: impl FnOnce(&Place, &Selection) -> io::Result<u8>) -> u8 {
    let Some(place) = Place::of(&which.project) else { return complain(no_project(&which.project.project)) };
    match place.selection(which) {
        Ok(selection) => run(&place, &selection).unwrap_or_else(|error| complain(place.unreadable(&error))),
        Err(refused) => refused.tell(),
    }
}

fn json(letters: &[DeadLetter]) -> String {
    format!("{}\n", serde_json::to_string_pretty(letters).unwrap_or_default())
}

fn table(letters: &[DeadLetter], found: usize, timezone: Tz) -> String {
    if found == 0 {
        return "no dead letters\n".to_string();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["put aside", "stream", "partition", "offset", "kind", "error"]);
    for letter in letters {
        let kind = match &letter.tag {
            Some(tag) => format!("{} by {tag}", letter.kind.name()),
            None => letter.kind.name().to_string(),
        };
        let error = printable(&letter.error);
        let short: String = error.chars().take(LONGEST_ERROR).collect();
        let error = if short.len() < error.len() { format!("{short}…") } else { short };
        table.add_row([
            time(letter.at, timezone),
            letter.stream.clone(),
            letter.partition.to_string(),
            letter.offset.to_string(),
            kind,
            error,
        ]);
    }
    let shown = match letters.len() {
        shown if shown < found => format!("the newest {shown} of {found} dead letters"),
        _ => format!("{found} dead letters"),
    };
    format!("{table}\n{shown}\n")
}

fn in_full(letter: &DeadLetter, timezone: Tz) -> String {
    let bytes = |text: &Option<String>, coded: &Option<String>| match (text, coded) {
        (Some(text), _) => printable(text),
        (None, Some(coded)) => format!("(base64) {coded}"),
        (None, None) => "(none)".to_string(),
    };
    let mut lines = vec![
        ("stream", letter.stream.clone()),
        ("place", format!("topic {}, partition {}, offset {}", letter.topic, letter.partition, letter.offset)),
        ("kind", letter.kind.name().to_string()),
    ];
    lines.extend(letter.tag.clone().map(|tag| ("tag", tag)));
    lines.extend(Some(letter.late_for.join(", ")).filter(|tags| !tags.is_empty()).map(|tags| ("late for", tags)));
    lines.extend(letter.timestamp.map(|millis| ("written", time(millis, timezone))));
    lines.push(("put aside", time(letter.at, timezone)));
    lines.push(("error", printable(&letter.error)));
    lines.push(("key", bytes(&letter.key, &letter.key_base64)));
    lines.push(("record", bytes(&letter.raw, &letter.raw_base64)));
    lines.extend(letter.cut_from.map(|bytes| ("", format!("(only its beginning is kept; it has {bytes} bytes)"))));
    lines.into_iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}

/// Text from outside without what would steer a terminal.
fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(plain).collect()
}

fn time(millis: i64, timezone: Tz) -> String {
    DateTime::from_timestamp_millis(millis).map_or_else(
        || millis.to_string(),
        |time| time.with_timezone(&timezone).format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_instants_days_of_the_project_or_ages() {
        let shanghai = chrono_tz::Asia::Shanghai;
        assert_eq!(time_of("1970-01-02", shanghai), Ok(16 * 3_600_000));
        assert_eq!(time_of("1970-01-01T00:00:01Z", shanghai), Ok(1000));
        let now = || chrono::Utc::now().timestamp_millis();
        let (before, at, after) = (now(), time_of("2h", shanghai).unwrap(), now());
        assert!((before..=after).contains(&(at + 7_200_000)), "{before} {at} {after}");
        assert_eq!(
            time_of("yesterday", shanghai),
            Err("`yesterday` is no time: write 2026-01-31, 2026-01-31T08:00:00Z, or 2h for two hours ago".to_string())
        );
    }

    #[test]
    fn records_do_not_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J中\n"), "a\u{fffd}[2J中\n");
    }
}

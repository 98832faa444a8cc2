//! `tagflow dead-letters replay`: records that fit the schema by now are taken into the tags, in their places.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Place, Which};
use crate::catalog::Stream;
use crate::cli::{FAILED, Format, OK, USAGE, complain, load, report};
use crate::config::Connection;
use crate::delta::Offsets;
use crate::engine::desired::{Desired, is_sound, reads};
use crate::engine::intake::{Intake, Reads, World};
use crate::engine::replays;
use crate::source::dead_letter::{DeadLetter, Kind, LetterFiles, Selection};
use crate::source::decode::{Decoder, RawRecord};

/// How long a source may take to say where its partitions begin.
const ANSWER: Duration = Duration::from_secs(20);

/// Asks for the streams to be taken anew of which letters fit, and takes those letters out.
pub(super) fn run(which: &Which, all: bool, format: Format, out: &mut dyn Write) -> u8 {
    let (loaded, desired) = load(&which.project);
    let Some(desired) = desired.filter(|_| is_sound(&loaded.diagnostics)) else {
        return complain("the project has errors, and records are judged by its schemas: `tagflow check` tells them");
    };
    let place = Place::in_project(&desired.project);
    let selection = match place.selection(which) {
        Ok(selection) if all || !selection.is_everything() => selection,
        Ok(_) => {
            complain("say which letters, or --all for every one");
            return USAGE;
        }
        Err(refused) => return refused.tell(),
    };
    let streams = match place.streams(&selection) {
        Ok(streams) => streams,
        Err(error) => return complain(place.unreadable(&error)),
    };
    let (mut replayed, mut left) = (0, 0);
    let (mut words, mut objects) = (String::new(), Vec::new());
    for stream in &streams {
        match replay(&desired, &place, stream, &selection) {
            Ok(Outcome { letters: 0, .. }) => {}
            Ok(outcome) => {
                words.push_str(&outcome.describe(stream));
                objects
                    .push(json!({ "stream": stream, "fit": outcome.fit, "tags": outcome.tags, "stay": outcome.stay }));
                replayed += outcome.fit;
                left += outcome.letters - outcome.fit;
            }
            Err(message) => {
                // What was done before stays done.
                report(out, format, &words, &json!(objects));
                return complain(format!("{stream}: {message}"));
            }
        }
    }
    if replayed + left == 0 {
        words.push_str("no dead letters\n");
    }
    report(out, format, &words, &json!(objects));
    if replayed > 0 || left == 0 { OK } else { FAILED }
}

/// What became of the letters of one stream.
#[derive(Debug, Default)]
struct Outcome {
    letters: usize,
    /// Taken in.
    fit: usize,
    /// Tags that are filled again.
    tags: Vec<String>,
    /// Why letters stay, and how many for each reason.
    stay: BTreeMap<String, usize>,
}

impl Outcome {
    fn stay(&mut self, reason: impl Into<String>) {
        *self.stay.entry(reason.into()).or_default() += 1;
    }

    fn describe(&self, stream: &str) -> String {
        let mut text = String::new();
        if self.fit > 0 {
            let tags = self.tags.join(", ");
            text = format!(
                "{stream}: {} records fit now and are taken in, as these tags are filled again: {tags}\n",
                self.fit
            );
        }
        for (reason, letters) in &self.stay {
            text.push_str(&format!("{stream}: {letters} stay: {reason}\n"));
        }
        text
    }
}

fn replay(desired: &Desired, place: &Place, name: &str, selection: &Selection) -> Result<Outcome, String> {
    let files = LetterFiles::of(&place.dir, name);
    let failed = |error: io::Error| format!("its dead letters: {error}");
    let mut letters = Vec::new();
    files.each(|letter| letters.extend(Some(letter).filter(|letter| selection.holds(letter)))).map_err(failed)?;
    let mut outcome = Outcome { letters: letters.len(), ..Outcome::default() };
    letters.retain(|letter| {
        match letter.kind {
            Kind::Decode => return true,
            Kind::Late => outcome.stay(
                "late is late by the order of records, however often they are read; more lateness in the schema, or \
                 allowed_lateness in the header, fills the tag again with them",
            ),
            Kind::Skip => {
                outcome.stay("the tag's own expression fails on them; a mended tag is filled again with them")
            }
        }
        false
    });
    let mut streams = reads(desired.tags.values().map(|tag| tag.plan.as_ref()));
    streams.retain(|stream, _| stream == name);
    let Some((stream, columns)) = streams.get(name).cloned().filter(|_| !letters.is_empty()) else {
        letters.iter().for_each(|_| outcome.stay("no tag reads the stream"));
        return Ok(outcome);
    };
    if stream.kind.is_outside() {
        letters.iter().for_each(|_| outcome.stay("the table is read again by itself"));
        return Ok(outcome);
    }
    // Files have no record that did not decode.
    let of_topic = Reads::from([(name.to_string(), (Arc::new(stream.of_topic()), columns.clone()))]);
    let there = records_there(&desired.project.config, &of_topic, name)?;
    let columns: Vec<usize> = columns.into_iter().collect();
    let mut decoder = decoder(desired, &stream, &columns)?;
    let mut fit = std::collections::HashSet::new();
    for letter in &letters {
        let is_there = there.get(&letter.partition).is_some_and(|there| there.contains(&letter.offset));
        match fits(&mut decoder, letter) {
            _ if !is_there => outcome.stay("the topic does not hold them any more; their bytes are in the letters"),
            Err(error) => outcome.stay(error),
            Ok(()) => drop(fit.insert((letter.partition, letter.offset))),
        }
    }
    outcome.fit = letters.iter().filter(|letter| fit.contains(&(letter.partition, letter.offset))).count();
    if outcome.fit > 0 {
        let reading = desired.tags.iter().filter(|(_, tag)| tag.plan.sources().any(|(read, _)| read.name == name));
        outcome.tags = reading.map(|(tag, _)| tag.clone()).collect();
        // The word to the daemon first: a letter too many harms nobody.
        let state_dir = &desired.project.config.engine.state_dir;
        replays::ask(state_dir, name).map_err(|error| format!("{}: {error}", state_dir.display()))?;
        let is_taken_in = |letter: &DeadLetter| {
            letter.kind == Kind::Decode && selection.holds(letter) && fit.contains(&(letter.partition, letter.offset))
        };
        // Should it not fit after all, the fill that reads it writes its letter again.
        files.take_out(is_taken_in, true).map_err(failed)?;
    }
    Ok(outcome)
}

/// The offsets that the partitions of a stream hold.
fn records_there(
    config: &crate::config::Config,
    stream: &Reads,
    name: &str,
) -> Result<BTreeMap<i32, std::ops::Range<i64>>, String> {
    let world = World::beside_the_daemon(config);
    let mut intake = Intake::start(&world, stream, &Offsets::default(), None).map_err(|error| error.to_string())?;
    let deadline = Instant::now() + ANSWER;
    while !intake.is_announced(name) && !intake.is_finished() {
        intake.collect(Duration::from_millis(50), 1).map_err(|error| error.to_string())?;
        let trouble = intake.failed.get(name).or_else(|| intake.troubles.get(name));
        if let Some(reason) = trouble.filter(|_| Instant::now() > deadline || intake.failed.contains_key(name)) {
            return Err(format!("nobody can say which records are still there: {reason}"));
        }
        if Instant::now() > deadline {
            return Err("the source does not say which records are still there".to_string());
        }
    }
    Ok(intake.partitions.iter().map(|(partition, state)| (partition.number, state.beginning..state.end)).collect())
}

fn decoder(desired: &Desired, stream: &Stream, columns: &[usize]) -> Result<Decoder, String> {
    let mut decoder = Decoder::new(stream, columns).map_err(|error| error.to_string())?;
    let world = World::beside_the_daemon(&desired.project.config);
    if let Some(Connection::Kafka { registry: Some(address), .. }) = world.connections.get(&stream.connection) {
        decoder.set_schemas(world.context.registries.at(address));
    }
    Ok(decoder)
}

/// Whether the record of a letter decodes now.
fn fits(decoder: &mut Decoder, letter: &DeadLetter) -> Result<(), String> {
    if letter.cut_from.is_some() {
        // Only its beginning is here: the fill will tell.
        return Ok(());
    }
    let bytes = |text: &Option<String>, coded: &Option<String>| match (text, coded) {
        (Some(text), _) => Ok(Some(text.clone().into_bytes())),
        (None, Some(coded)) => {
            STANDARD.decode(coded).map(Some).map_err(|error| format!("the letter is damaged: {error}"))
        }
        (None, None) => Ok(None),
    };
    let (payload, key) = (bytes(&letter.raw, &letter.raw_base64)?, bytes(&letter.key, &letter.key_base64)?);
    decoder.prepare(payload.as_deref()).map_err(|error| error.0)?;
    let record = RawRecord {
        topic: &letter.topic,
        partition: letter.partition,
        offset: letter.offset,
        timestamp: letter.timestamp,
        key: key.as_deref(),
        payload: payload.as_deref(),
    };
    let decoded = decoder.decode(&record).map_err(|error| format!("they still do not fit: {error}"));
    // Nobody wants the row.
    decoder.finish();
    decoded
}

//! The short run, on stable: the corpus of each target as it is, then mutations of it. `TAGFLOW_MUTATIONS` says how many
//! files (messages are a hundred times as many), `TAGFLOW_MUTATIONS_SEED` which.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::{Mutator, check, checkpoint, record, tag_header};

/// A round that takes longer hangs, however slow the machine.
const LONGEST: Duration = Duration::from_secs(60);
/// A round that takes longer is kept to be looked at.
const SLOW: Duration = Duration::from_secs(2);
/// How many broken promises are shown.
const SHOWN: usize = 10;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn rounds() -> u64 {
    number("TAGFLOW_MUTATIONS").unwrap_or(100)
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a folder of the repository.
fn files(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![repository().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push((path.clone(), fs::read(path).unwrap())) }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{folder} is empty");
    found
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    files(&format!("fuzz/corpus/{target}")).into_iter().map(|(_, bytes)| bytes).collect()
}

/// Tries sound inputs as they are, then `rounds` of `mutated`, and tells all promises that were broken.
fn run(
    target: &str,
    sound: &[Vec<u8>],
    rounds: u64,
    mutated: impl Fn(&mut Mutator) -> Vec<u8>,
    try_one: fn(&[u8]) -> bool,
) {
    let seed = number("TAGFLOW_MUTATIONS_SEED").unwrap_or(7);
    let keep = |name: &str, input: &[u8]| {
        let folder = repository().join("fuzz/artifacts").join(target);
        let file = folder.join(name);
        fs::create_dir_all(folder).and_then(|()| fs::write(&file, input)).unwrap();
        file.display().to_string()
    };
    let broken = std::thread::scope(|scope| {
        let (watched, watch) = channel::<Vec<u8>>();
        // Nothing ends a thread that hangs but the end of the process.
        scope.spawn(move || {
            let mut current = Vec::new();
            loop {
                match watch.recv_timeout(LONGEST) {
                    Ok(input) => current = input,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!("{target}: no end within {LONGEST:?} of {}", keep("hang", &current));
                        std::process::abort();
                    }
                }
            }
        });
        let (mut broken, mut taken) = (Vec::new(), 0);
        let mut longest = (Duration::ZERO, String::new());
        let begun = Instant::now();
        for round in 0..sound.len() as u64 + rounds {
            let input = match sound.get(round as usize) {
                Some(sound) => sound.clone(),
                None => mutated(&mut Mutator::new(seed.wrapping_mul(1 << 32) + round)),
            };
            watched.send(input.clone()).unwrap();
            let started = Instant::now();
            match catch_unwind(|| try_one(&input)) {
                Ok(is_taken) => taken += u64::from(is_taken),
                Err(panic) => {
                    let told = panic.downcast_ref::<String>().cloned();
                    let told =
                        told.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
                    broken.push(format!("{told}\n  {}", keep(&format!("broken-{seed}-{round}"), &input)));
                }
            }
            let took = started.elapsed();
            if took > longest.0 {
                let kept = (took > SLOW).then(|| keep(&format!("slow-{seed}-{round}"), &input));
                longest = (took, kept.unwrap_or_else(|| format!("round {round}")));
            }
        }
        drop(watched);
        let (took, count) = (begun.elapsed(), sound.len() as u64 + rounds);
        println!(
            "{target}: seed {seed}, {count} inputs in {took:.1?}, {taken} taken, the longest {:.1?} ({})",
            longest.0, longest.1
        );
        // Changes that all are refused, or none, try nothing.
        assert!((count / 50..count - count / 50).contains(&taken), "{target}: {taken} of {count} were taken");
        broken
    });
    let shown: Vec<&String> = broken.iter().take(SHOWN).collect();
    assert!(broken.is_empty(), "{target}: {} broken promises, such as {shown:#?}", broken.len());
}

fn behind_first(mutator: &mut Mutator, sound: &[Vec<u8>]) -> Vec<u8> {
    let (input, other) = (mutator.one_of(sound), mutator.one_of(sound));
    mutator.behind_first(input, other)
}

#[test]
fn mutated_records_are_rows_that_plain_readers_agree_with_or_dead_letters() {
    let sound = corpus("record");
    run("record", &sound, rounds() * 100, |mutator| behind_first(mutator, &sound), record);
}

#[test]
fn mutated_checkpoints_are_read_as_what_they_say_or_refused() {
    let sound = corpus("checkpoint");
    run("checkpoint", &sound, rounds(), |mutator| behind_first(mutator, &sound), checkpoint);
}

fn words(mutator: &mut Mutator, sound: &[Vec<u8>]) -> Vec<u8> {
    let (input, other) = (mutator.one_of(sound), mutator.one_of(sound));
    mutator.words(input, other)
}

#[test]
fn mutated_tag_headers_are_tags_or_refused_at_a_place() {
    let mut sound = corpus("tag_header");
    sound.extend(
        files("tags").into_iter().filter(|(file, _)| file.extension().is_some_and(|e| e == "sql")).map(|f| f.1),
    );
    run("tag_header", &sound, rounds() * 10, |mutator| words(mutator, &sound), tag_header);
}

#[test]
fn mutated_schemas_and_settings_are_sound_or_refused_at_a_place() {
    let mut sound = corpus("check");
    sound.extend(files("tests/diagnostics/cases").into_iter().map(|(_, case)| case));
    // The line of a file's name stays as it is: it is no part of the file.
    let mutated = |mutator: &mut Mutator| {
        let case = String::from_utf8(mutator.one_of(&sound).clone()).unwrap();
        let other = String::from_utf8(mutator.one_of(&sound).clone()).unwrap();
        let files: Vec<&str> = case.split_inclusive("--- file: ").collect();
        let chosen = *mutator.one_of(&files);
        let mut input = Vec::new();
        for file in &files {
            match file.split_once('\n') {
                Some((name, text)) if std::ptr::eq(*file, chosen) => {
                    let (text, is_last) = match text.strip_suffix("--- file: ") {
                        Some(text) => (text, false),
                        None => (text, true),
                    };
                    input.extend(format!("{name}\n").into_bytes());
                    input.extend(mutator.words(text.as_bytes(), other.as_bytes()));
                    input.extend(if is_last { "" } else { "\n--- file: " }.bytes());
                }
                _ => input.extend(file.bytes()),
            }
        }
        input
    };
    run("check", &sound, rounds() * 2, mutated, check);
}

/// Queries of the tests with the files that they read, in the form of `check`'s input.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (_, tag) in files("tags").into_iter().filter(|(file, _)| file.extension().is_some_and(|e| e == "sql")) {
        queries.push((String::new(), String::from_utf8(tag).unwrap()));
    }
    for (file, text) in files("tests/sql") {
        let text = String::from_utf8(text).unwrap();
        let (head, cases) = text.split_once("\n--- ").unwrap();
        let mut schemas = String::new();
        for line in head.lines().take_while(|line| !line.starts_with("at ")) {
            if let Some(name) = line.strip_prefix("schema ") {
                schemas.push_str(&format!("--- file: schemas/{name}.toml\nconnection = \"shop\"\ntopic = \"{name}\"\nformat = \"json\"\n[columns]\n"));
            } else if let Some((name, function)) = line.strip_prefix("function ").and_then(|line| line.split_once(' '))
            {
                schemas.insert_str(0, &format!("--- file: functions/{name}.sql\n{function}\n"));
            } else if line.starts_with(' ') && line.contains(" = ") && !line.contains("unique = ") {
                schemas.push_str(&format!("{}\n", line.trim()));
            }
        }
        let mut before = String::new();
        for case in cases.split("\n--- ") {
            let (name, rest) = case.split_once('\n').unwrap();
            let sql = rest.split("\n=>").next().unwrap();
            let reads = if sql.contains("tags.") { format!("{schemas}{before}") } else { schemas.clone() };
            queries.push((reads, sql.to_string()));
            before.push_str(&format!("--- file: tags/{name}.sql\n{sql}\n"));
        }
        assert!(!before.is_empty(), "{}", file.display());
    }
    let orders = "--- file: schemas/orders.toml\nconnection = \"shop\"\ntopic = \"orders\"\nformat = \"json\"\n[columns]\n\
        order_id = \"BIGINT NOT NULL\"\nuser_id = \"BIGINT NOT NULL\"\nmember_id = \"BIGINT\"\namount = \"DECIMAL(12,2)\"\n\
        quantity = \"INT\"\nweight = \"DOUBLE\"\ncategory = \"VARCHAR\"\nstatus = \"VARCHAR\"\nChannel = \"VARCHAR\"\n\
        order_time = \"TIMESTAMP(3)\"\n--- file: schemas/paid_orders.sql\n\
        SELECT user_id, amount AS paid, order_time FROM orders WHERE status = 'paid'\n";
    for case in include_str!("../../tests/diagnostics/sql_mistakes.txt").split("--- ").skip(1) {
        queries.push((orders.to_string(), case.split_once('\n').unwrap().1.to_string()));
    }
    queries
}

#[test]
fn mutated_queries_stream_or_are_refused_at_a_place() {
    let queries = queries();
    assert!(queries.len() > 500, "{}", queries.len());
    let input = |files: &str, sql: &[u8]| [files.as_bytes(), b"--- file: tags/mutated.sql\n", sql].concat();
    let mutated = |mutator: &mut Mutator| {
        let ((files, sql), (_, other)) = (mutator.one_of(&queries).clone(), mutator.one_of(&queries).clone());
        input(&files, &mutator.words(sql.as_bytes(), other.as_bytes()))
    };
    // Of a hundred that are changed this much, a few are taken, or none.
    run("check", &[], rounds().max(300), mutated, check);
}

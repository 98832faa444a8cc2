//! The keys and words that files are read by, asked for by writing wrong ones, against those that stand here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::shape::{Object, Shape};
use super::*;
use crate::diagnostic::{Diagnostic, codes};
use crate::engine::desired::plan_project;
use crate::project::load_from_memory;
use crate::tag_test::Suite;

/// A name that is like no other.
const WRONG: &str = "zzqqxxzzqqxx";

/// Places of a file: what stands before and behind a line, and which table that line is in.
struct Place {
    file: &'static str,
    path: &'static str,
    around: &'static [(&'static str, &'static str)],
}

fn place(file: &'static str, path: &'static str, around: &'static [(&'static str, &'static str)]) -> Place {
    Place { file, path, around }
}

const STREAM: &str = "schemas/a.toml";
const TAG: &str = "tags/a.sql";
const TEST: &str = "tags/t.test.toml";
const LETTERS: &str = "[[test]]\nname = \"t\"\n[[test.moment]]\nat = 2026-03-01T12:00:00\n[[test.moment.dead_letters]]";

fn places() -> Vec<(Place, Object)> {
    let connections = &[
        ("[connection.a]\ntype = \"kafka\"", ""),
        ("[connection.a]\ntype = \"file\"", ""),
        ("[connection.a]\ntype = \"mysql\"", ""),
        ("[connection.a]\ntype = \"generator\"", ""),
        ("[connection.a]", ""),
    ];
    let of_profile = &[
        ("[profile.a.connection.b]\ntype = \"kafka\"", ""),
        ("[profile.a.connection.b]\ntype = \"file\"", ""),
        ("[profile.a.connection.b]\ntype = \"mysql\"", ""),
        ("[profile.a.connection.b]\ntype = \"generator\"", ""),
        ("[profile.a.connection.b]", ""),
    ];
    let streams = &[
        ("", ""),
        ("kind = \"file\"", ""),
        ("kind = \"mysql\"", ""),
        ("format = \"protobuf\"\ndescriptor = \"a.desc\"\nmessage = \"A\"", ""),
    ];
    let settings_places = [
        place("tagflow.toml", "", &[("", "")]),
        place("tagflow.toml", "entity.a", &[("[entity.a]", "")]),
        place("tagflow.toml", "connection.a", connections),
        place("tagflow.toml", "store", &[("[store]", "")]),
        place("tagflow.toml", "engine", &[("[engine]", "")]),
        place("tagflow.toml", "engine.checkpoints", &[("[engine.checkpoints]", "")]),
        place("tagflow.toml", "serve", &[("[serve]", "")]),
        place("tagflow.toml", "lints", &[("[lints]", "")]),
        place("tagflow.toml", "profile.a", &[("[profile.a]", "")]),
        place("tagflow.toml", "profile.a.connection.b", of_profile),
        place("tagflow.toml", "profile.a.store", &[("[profile.a.store]", "")]),
        place("tagflow.toml", "profile.a.engine", &[("[profile.a.engine]", "")]),
        place("tagflow.toml", "profile.a.serve", &[("[profile.a.serve]", "")]),
    ];
    let stream_places = [
        place(STREAM, "", streams),
        place(STREAM, "time", &[("[time]", "")]),
        place(STREAM, "unique", &[("[unique]", "")]),
        place(STREAM, "archive", &[("[archive]", "")]),
        place(STREAM, "changes", &[("kind = \"mysql\"\n[changes]", "")]),
        place(STREAM, "columns.a", &[("[columns.a]\ntype = \"TIMESTAMP\"", "")]),
    ];
    let tag_places = [
        place(TAG, "", &[("/* tag", "*/ SELECT 1")]),
        place(TAG, "lints", &[("/* tag\n[lints]", "*/ SELECT 1")]),
        place(TAG, "columns.a", &[("/* tag\n[columns.a]", "*/ SELECT 1")]),
    ];
    let view_places = [
        place("schemas/a.sql", "", &[("/* view", "*/ SELECT 1")]),
        place("schemas/a.sql", "lints", &[("/* view\n[lints]", "*/ SELECT 1")]),
    ];
    let test_places = [
        place(TEST, "", &[("", "")]),
        place(TEST, "test", &[("[[test]]", "")]),
        place(TEST, "test.moment", &[("[[test]]\nname = \"t\"\n[[test.moment]]", "")]),
        place(TEST, "test.moment.dead_letters", &[(LETTERS, "")]),
    ];
    let of = |places: Vec<Place>, keys: fn() -> Object| places.into_iter().map(move |place| (place, keys()));
    of(settings_places.into(), settings)
        .chain(of(stream_places.into(), stream))
        .chain(of(tag_places.into(), tag_header))
        .chain(of(view_places.into(), view))
        .chain(of(vec![place("tags/_folder.toml", "", &[("", "")])], folder))
        .chain(of(test_places.into(), tag_tests))
        .collect()
}

/// What is said of a line in each of a place's surroundings.
fn said(place: &Place, line: &str) -> Vec<Diagnostic> {
    let read = |(before, behind): &(&str, &str)| {
        let text = format!("{before}\n{line}\n{behind}");
        if place.file == TEST {
            return said_of_tests(text);
        }
        let files = BTreeMap::from([
            (PathBuf::from("tagflow.toml"), b"[connection.a]\ntype = \"kafka\"\n".to_vec()),
            (PathBuf::from(place.file), text.into_bytes()),
        ]);
        load_from_memory(&files, &|_| None).diagnostics
    };
    place.around.iter().flat_map(read).collect()
}

/// What is said of a file of tests, for which there must be a tag.
fn said_of_tests(text: String) -> Vec<Diagnostic> {
    let settings = "timezone = \"UTC\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n[connection.a]\ntype = \"kafka\"\n\
                    brokers = \"b:1\"\n[store]\nurl = \"sqlite:tags.db\"\n";
    let stream = "connection = \"a\"\ntopic = \"o\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n";
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";
    let files = [("tagflow.toml", settings), ("schemas/orders.toml", stream), ("tags/t.sql", tag)];
    let files = files.map(|(file, text)| (PathBuf::from(file), text.as_bytes().to_vec()));
    let project = load_from_memory(&files.into(), &|_| None).project.unwrap();
    let (desired, problems) = plan_project(&project);
    assert_eq!(problems, []);
    let texts = BTreeMap::from([(PathBuf::from(TEST), text)]);
    Suite::load_over(Path::new("/nowhere"), &texts, &desired, &|_| true).diagnostics
}

/// The names that the help of a diagnostic lists.
fn listed(help: Option<&str>, before: &str) -> BTreeSet<String> {
    let list = help.and_then(|help| help.strip_prefix(before)).unwrap_or_default();
    list.split(", ").filter(|name| !name.is_empty()).map(ToString::to_string).collect()
}

fn path(text: &str) -> Vec<String> {
    text.split('.').filter(|part| !part.is_empty()).map(ToString::to_string).collect()
}

#[test]
fn every_key_that_is_read_is_in_the_schema_and_no_other() {
    for (place, keys) in places() {
        let known: BTreeSet<String> = said(&place, &format!("{WRONG} = 1"))
            .iter()
            .filter(|told| told.code == codes::UNKNOWN_KEY && told.message.contains(WRONG))
            .flat_map(|told| listed(told.help.as_deref(), "known keys here: "))
            .collect();
        let here = keys.at(&path(place.path)).unwrap_or_else(|| panic!("{}: {}", place.file, place.path));
        let here: BTreeSet<String> = here.keys.iter().map(|key| key.name.to_string()).collect();
        assert_eq!(here, known, "{}: [{}]", place.file, place.path);
    }
}

#[test]
fn every_word_that_is_read_is_in_the_schema_and_no_other() {
    let mut compared = 0;
    for (place, keys) in places() {
        for key in &keys.at(&path(place.path)).unwrap().keys {
            let Shape::Word(words) = &key.shape else { continue };
            // The word that the surroundings have already is written twice then, which says nothing.
            let known: BTreeSet<String> = said(&place, &format!("{} = \"{WRONG}\"", key.name))
                .iter()
                .filter(|told| told.code == codes::BAD_VALUE && told.message.contains(WRONG))
                .flat_map(|told| listed(told.help.as_deref(), "possible are: "))
                .collect();
            let here: BTreeSet<String> = words.iter().map(ToString::to_string).collect();
            assert_eq!(here, known, "{}: {} in [{}]", place.file, key.name, place.path);
            compared += 1;
        }
    }
    assert!(compared > 10, "{compared}");
}

/// Every table of the schema is looked at by the tests above.
#[test]
fn every_table_of_the_schema_has_a_place() {
    fn tables(object: &Object, at: &str, found: &mut BTreeSet<String>) {
        found.insert(at.to_string());
        for key in &object.keys {
            below(&key.shape, &format!("{at}.{}", key.name), found);
        }
    }
    fn below(shape: &Shape, at: &str, found: &mut BTreeSet<String>) {
        match shape {
            // The author's own names stand in the others.
            Shape::Table(object) if !object.is_open => tables(object, at, found),
            Shape::List(of, _) => below(of, at, found),
            Shape::Named(of) => below(of, &format!("{at}.*"), found),
            Shape::Either(shapes) => shapes.iter().for_each(|shape| below(shape, at, found)),
            _ => {}
        }
    }
    let places = places();
    for keys in [settings, stream, tag_header, view, folder, tag_tests] {
        let mut found = BTreeSet::new();
        tables(&keys(), "", &mut found);
        let names = |object: &Object| object.keys.iter().map(|key| key.name).collect::<Vec<_>>();
        let of_file: BTreeSet<String> = places
            .iter()
            .filter(|(_, object)| names(object) == names(&keys()))
            .map(|(place, _)| {
                let parts = path(place.path).into_iter();
                parts.map(|part| if part.len() == 1 { ".*".to_string() } else { format!(".{part}") }).collect()
            })
            .collect();
        // The checkpoints of a profile are read by what reads those of the project.
        found.remove(".profile.*.engine.checkpoints");
        assert_eq!(found, of_file);
    }
}

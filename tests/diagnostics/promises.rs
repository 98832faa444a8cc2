//! What holds for every project, however wrong: values of the environment stay hidden, nothing is dropped in
//! silence, and programs get what `--format json` promises.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::Value;
use tagflow::cli::check;
use tagflow::diagnostic::{Diagnostic, render_human, render_json};
use tagflow::project::{Loaded, load_with_env};

use crate::{SETTINGS, load};

/// What every variable holds in [`no_message_shows_what_a_variable_holds`]; no message may show it, or part of it.
const HIDDEN: &str = "zq7 hidden(value";

fn project(settings: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("tagflow.toml".to_owned(), settings.to_owned())])
}

fn messages(loaded: &Loaded) -> Vec<&str> {
    loaded.diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect()
}

/// Every string value of the settings in turn becomes a variable that holds nonsense.
#[test]
fn no_message_shows_what_a_variable_holds() {
    let settings = format!(
        "{SETTINGS}\n[connection.shop.kafka]\n\"client.id\" = \"a\"\n[connection.demo]\ntype = \"generator\"\n\
         [engine]\nstate_dir = \"state\"\nflush_interval = \"1s\"\n[serve]\nlisten = \"127.0.0.1:1\"\n\
         [profile.p]\nconnection.shop = {{ type = \"file\", path = \"x\" }}\nstore.url = \"sqlite:x\"\n"
    );
    let pieces: Vec<&str> = settings.split('"').collect();
    let mut tried = 0;
    for value in (1..pieces.len()).step_by(2).filter(|value| pieces[value - 1].trim_end().ends_with('=')) {
        let mut changed = pieces.clone();
        changed[value] = "${NONSENSE}";
        let text = changed.join("\"");
        for profile in [None, Some("p")] {
            let root = tempfile::tempdir().unwrap();
            std::fs::write(root.path().join("tagflow.toml"), &text).unwrap();
            let loaded = load_with_env(root.path(), profile, &|_| Some(HIDDEN.to_owned()));
            for told in [
                render_human(&loaded.diagnostics, &loaded.sources, false),
                render_json(&loaded.diagnostics, &loaded.sources),
                format!("{:?}", loaded.diagnostics),
            ] {
                assert!(!told.contains("zq7") && !told.contains("hidden"), "{told}");
            }
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn number_that_no_property_can_hold_is_told() {
    let settings = SETTINGS.replace(
        "brokers = \"kafka:9092\"",
        "brokers = \"kafka:9092\"\nkafka = { \"fetch.max.bytes\" = 99999999999999999999 }",
    );
    let (_root, loaded) = load(&project(&settings), None);
    assert_eq!(
        messages(&loaded),
        ["\"fetch.max.bytes\" in the kafka properties of [connection.shop] is too large a number"]
    );
    let tag = "/* tag\n[columns.n]\ndefault = 99999999999999999999\n*/\nSELECT 1";
    let mut files = project(SETTINGS);
    files.insert("tags/n.sql".to_owned(), tag.to_owned());
    let (_root, loaded) = load(&files, None);
    assert_eq!(messages(&loaded), ["\"default\" in [columns.n] is too large a number"]);
}

#[test]
fn every_secret_of_a_quoted_line_is_masked() {
    let settings = SETTINGS.replace(
        "brokers = \"kafka:9092\"",
        "brokers = \"kafka:9092\"\nkafka = { \"sasl.password\" = \"first\", \"ssl.key.password\" = 'second', \"a\" = [1] }",
    );
    let (_root, loaded) = load(&project(&settings), None);
    let text = render_human(&loaded.diagnostics, &loaded.sources, false);
    assert!(text.contains("sasl.password") && text.contains("1 error and 2 warnings in 1 file"), "{text}");
    assert!(!text.contains("first") && !text.contains("second"), "{text}");
}

#[test]
fn file_whose_name_is_no_text_is_told_in_both_forms() {
    let (root, _) = load(&project(SETTINGS), None);
    std::fs::create_dir(root.path().join("tags")).unwrap();
    let name = Path::new(std::ffi::OsStr::from_bytes(b"caf\xe9.sql"));
    std::fs::write(root.path().join("tags").join(name), "SELECT 1").unwrap();
    let loaded = load_with_env(root.path(), None, &|_| None);
    let text = render_human(&loaded.diagnostics, &loaded.sources, false);
    assert!(text.contains("the name of this file is not UTF-8"), "{text}");
    let value: Value = serde_json::from_str(&render_json(&loaded.diagnostics, &loaded.sources)).unwrap();
    assert_eq!(value["diagnostics"][0]["file"], "tags/caf\u{fffd}.sql");
}

#[test]
fn json_is_one_object_whose_columns_count_characters() {
    let file = PathBuf::from("tags/a.sql");
    let sources = BTreeMap::from([(file.clone(), "SELECT '消费' AS 值\nFROM ordrs\n".to_owned())]);
    let orders = Diagnostic::error("T0810", &file, 28..33, "no such stream").help("orders");
    let whole = Diagnostic::warning("T0405", &file, None, "the whole file");
    let text = render_json(&[orders, whole], &sources);
    let mut value: Value = serde_json::from_str(&text).unwrap();
    for told in value["diagnostics"].as_array_mut().unwrap() {
        // As the page of codes says.
        told.as_object_mut().unwrap().remove("lint");
        let of_code = ["title", "cause"].map(|key| told.as_object_mut().unwrap().remove(key));
        assert!(of_code.iter().all(|text| text.as_ref().is_some_and(Value::is_string)), "{of_code:?}");
    }
    assert_eq!(
        value,
        serde_json::json!({
            "errors": 1,
            "warnings": 1,
            "diagnostics": [
                { "code": "T0405", "severity": "warning", "file": "tags/a.sql", "line": null, "column": null,
                  "end_line": null, "end_column": null, "message": "the whole file", "help": null, "fix": [] },
                { "code": "T0810", "severity": "error", "file": "tags/a.sql", "line": 2, "column": 6,
                  "end_line": 2, "end_column": 11, "message": "no such stream", "help": "orders", "fix": [] },
            ],
        })
    );
}

#[test]
fn file_of_nothing_but_mistakes_is_told_in_no_time() {
    let (_root, loaded) = load(&project(&format!("{SETTINGS}{}", " ]\n".repeat(20_000))), None);
    assert_eq!(loaded.diagnostics.len(), 51, "fifty, and that there are more");
    let keys: String = (0..5_000).map(|key| format!("k{key} = 1\n")).collect();
    let (_root, loaded) = load(&project(&format!("{keys}{SETTINGS}")), None);
    let begun = std::time::Instant::now();
    let text = render_human(&loaded.diagnostics, &loaded.sources, false);
    assert!(text.contains("\n5000 errors in 1 file\n"), "{}", &text[text.len() - 200..]);
    // Reading the file anew for each of them took minutes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn errors_and_warnings_are_counted_in_the_last_line() {
    let error = Diagnostic::error("T0101", "a.sql", None, "one");
    let warning = Diagnostic::warning("T0701", "b.sql", None, "two");
    let text = render_human(&[error.clone(), error, warning], &BTreeMap::new(), false);
    let counts = "\n2 errors and 1 warning in 2 files\n";
    let more = "more of a code, with an example: tagflow check --explain T0101\n";
    assert!(text.ends_with(&format!("{counts}{more}")), "{text}");
}

#[derive(Parser)]
struct Check {
    #[command(flatten)]
    args: check::CheckArgs,
}

pub(crate) fn run_check(root: &Path, more: &[&str]) -> (u8, String) {
    let mut words = vec!["check", "--project", root.to_str().unwrap()];
    words.extend(more);
    let mut out = Vec::new();
    let code = check::run(&Check::try_parse_from(words).unwrap().args, &mut out);
    (code, String::from_utf8(out).unwrap())
}

#[test]
fn check_ends_with_0_for_a_sound_project_and_1_for_one_with_errors() {
    let (root, _) = load(&project(SETTINGS), None);
    let (code, text) = run_check(root.path(), &[]);
    assert_eq!((code, text.as_str()), (0, "0 tags (0 to run), 0 streams, 0 views: no problems\n"));
    let (code, text) = run_check(root.path(), &["--format", "json"]);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["errors"], 0);

    let (code, text) = run_check(root.path(), &["--profile", "demo"]);
    assert_eq!(code, 1);
    assert!(text.contains("there is no profile \"demo\" in tagflow.toml"), "{text}");
    std::fs::write(root.path().join("tagflow.toml"), "timezone = 1").unwrap();
    let (code, text) = run_check(root.path(), &["--format", "json"]);
    assert_eq!(code, 1);
    assert!(serde_json::from_str::<Value>(&text).unwrap()["errors"].as_u64().unwrap() > 0);
}

#[test]
fn check_explains_a_code_whatever_the_project() {
    let (root, _) = load(&BTreeMap::new(), None);
    let (code, text) = run_check(root.path(), &["--explain", "t0504"]);
    assert_eq!(code, 0);
    assert!(text.starts_with("T0504: grouping sets\n") && text.ends_with("```\n"), "{text}");
    let unknown = Check::try_parse_from(["check", "--explain", "T9999"]).map(drop).unwrap_err().to_string();
    assert!(unknown.contains("Codes are T and four digits"), "{unknown}");
}

#[test]
fn what_is_nested_too_deeply_is_told_at_a_place() {
    let (_root, loaded) = load(&project(&format!("{SETTINGS}\nx = {}", "[".repeat(1_000))), None);
    let told: Vec<&Diagnostic> = loaded.diagnostics.iter().filter(|told| told.code == "T0103").collect();
    assert!(!told.is_empty() && told.iter().all(|told| told.span.is_some()), "{told:?}");
}

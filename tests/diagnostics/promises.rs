//! What holds for every project, however wrong: values of the environment stay hidden, nothing is dropped in
//! silence, programs get what `--format json` promises, and no file makes the loader panic.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
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
    assert!(text.contains("cannot be the name of a tag"), "{text}");
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
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value,
        serde_json::json!({
            "errors": 1,
            "warnings": 1,
            "diagnostics": [
                { "code": "T0405", "severity": "warning", "file": "tags/a.sql", "line": null, "column": null,
                  "end_line": null, "end_column": null, "message": "the whole file", "help": null },
                { "code": "T0810", "severity": "error", "file": "tags/a.sql", "line": 2, "column": 6,
                  "end_line": 2, "end_column": 11, "message": "no such stream", "help": "orders" },
            ],
        })
    );
}

#[test]
fn errors_and_warnings_are_counted_in_the_last_line() {
    let error = Diagnostic::error("T0101", "a.sql", None, "one");
    let warning = Diagnostic::warning("T0701", "b.sql", None, "two");
    let text = render_human(&[error.clone(), error, warning], &BTreeMap::new(), false);
    assert!(text.ends_with("\n2 errors and 1 warning in 2 files\n"), "{text}");
}

#[derive(Parser)]
struct Check {
    #[command(flatten)]
    args: check::CheckArgs,
}

fn run_check(root: &Path, more: &[&str]) -> (u8, String) {
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
    assert!(unknown.contains("codes are T and four digits"), "{unknown}");
}

/// A sound project that uses every kind of key, so that mutations reach every reader.
fn sound() -> BTreeMap<String, String> {
    let settings = format!(
        "{SETTINGS}\n[connection.shop.kafka]\nsecurity.protocol = \"SSL\"\n\"sasl.password\" = \"${{DB_PASSWORD}}\"\n\
         [engine]\nflush_interval = \"250ms\"\nshards = 2\nstate_dir = \"state\"\n[serve]\nlisten = \"127.0.0.1:70\"\n\
         [profile.demo]\nconnection.shop = {{ type = \"generator\", rate = 5 }}\nstore.url = \"sqlite:demo.db\"\n"
    );
    let schema = "title = \"订单\"\nconnection = \"shop\"\ntopic = \"shop.orders\"\nformat = \"json\"\n\
        time = { column = \"order_time\", lateness = \"10s\" }\nstart = 2026-01-31T00:00:00+08:00\n[columns]\n\
        user_id = \"BIGINT NOT NULL\"\namount = \"DECIMAL(12,2)\"\n\
        category = { type = \"VARCHAR\", path = \"$.item['a b']\" }\n\
        order_time = { type = \"TIMESTAMP(3)\", format = \"epoch_ms\" }\n";
    let tag = "/* tag\ntitle = \"近30天消费\"\nmethod = \"stat\"\nstatus = \"live\"\n[columns.spend]\nunit = \"CNY\"\n\
        default = 0\nlabels = { gold = \"金卡\" }\n*/\nSELECT user_id, SUM(amount) AS spend FROM orders GROUP BY user_id\n";
    [
        ("tagflow.toml", settings.as_str()),
        ("schemas/orders.toml", schema),
        ("schemas/paid.sql", "/* view\ntitle = \"Paid\"\n*/\nSELECT * FROM orders\n"),
        ("tags/money/spend.sql", tag),
        ("tags/money/_folder.toml", "title = \"消费\"\norder = 1\nowner = \"growth\"\n"),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into()
}

#[test]
fn mutated_project_files_never_panic() {
    let files = sound();
    let (root, loaded) = load(&files, Some("demo"));
    assert_eq!(loaded.diagnostics, []);
    let paths: Vec<&String> = files.keys().collect();
    let seed = std::env::var("TAGFLOW_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let mut random = StdRng::seed_from_u64(seed);
    let mut refused = 0;
    for round in 0..2_000 {
        let path = *paths.choose(&mut random).unwrap();
        let mut bytes = files[path].clone().into_bytes();
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..4) {
                0 if bytes.len() > 1 => drop(bytes.remove(at)),
                1 => bytes.insert(at, *b"\"'[]{}=.$#*/\\\n-9".choose(&mut random).unwrap()),
                2 => bytes[at] = random.random(),
                // At least one byte stays for the next change to fall on.
                _ => bytes.truncate(at.max(1)),
            }
        }
        std::fs::write(root.path().join(path), &bytes).unwrap();
        let told = std::panic::catch_unwind(|| {
            let loaded = load_with_env(root.path(), Some("demo"), &crate::environment);
            let json = render_json(&loaded.diagnostics, &loaded.sources);
            assert!(serde_json::from_str::<Value>(&json).is_ok());
            render_human(&loaded.diagnostics, &loaded.sources, true);
            loaded.diagnostics.len()
        });
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        refused += usize::from(told.unwrap_or_else(|_| panic!("seed {seed}, round {round}, {path}:\n{shown}")) > 0);
        std::fs::write(root.path().join(path), &files[path]).unwrap();
    }
    // Most mutations break something; a loader that says nothing of them would pass without this.
    assert!(refused > 1_000, "{refused} of 2,000 were refused");
}

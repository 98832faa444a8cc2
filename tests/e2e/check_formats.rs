//! What `tagflow check` writes for other programs, held against what they say that they read.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn format(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/formats").join(name)
}

/// A project with errors and warnings, whose names and texts have all kinds of signs.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        (
            "tagflow.toml",
            "timezone = \"UTC\"\nentity.user = { key = \"user_id\", type = \"BIGINT\" }\nstore.url = \"sqlite:tags.db\"\n\
             connection.shop = { type = \"generator\" }\n",
        ),
        (
            "schemas/orders.toml",
            "connection = \"shop\"\ntopic = \"shop.orders\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n\
             pieces = \"INT\"\n",
        ),
        ("tags/fine.sql", "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id"),
        ("tags/halves.sql", "SELECT user_id, MAX(pieces / 2) AS half FROM orders GROUP BY user_id"),
        (
            "tags/标 & \"签\".sql",
            "SELECT user_id, COUNT(*) AS n\nFROM orders\nWHERE 'a%b' < \u{7}pices GROUP BY user_id",
        ),
        ("tags/long.sql", "/* tag\ntitel = '<]]>'\n*/\nSELECT user_id, COUNT(*) AS n FROM ordrs GROUP BY user_id"),
    ];
    for (file, text) in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn check(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tagflow"));
    command.arg("check").args(arguments).current_dir(folder).output().unwrap()
}

/// Runs a validator with a document as its input.
fn validate(mut validator: Command, document: &[u8]) {
    let found = validator.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut running =
        found.unwrap_or_else(|error| panic!("{validator:?}: {error}; scripts/setup services installs it"));
    running.stdin.take().unwrap().write_all(document).unwrap();
    let output = running.wait_with_output().unwrap();
    let (said, text) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(document));
    assert!(output.status.success(), "{said}\n{text}");
}

#[test]
fn sarif_is_valid_by_its_schema() {
    let folder = project();
    let output = check(folder.path(), &["--format", "sarif"]);
    assert_eq!(output.status.code(), Some(1));
    let mut python = Command::new("python3");
    let program = "import json, sys, jsonschema; \
                   jsonschema.Draft7Validator(json.load(open(sys.argv[1]))).validate(json.load(sys.stdin))";
    python.args(["-c", program]).arg(format("sarif-2.1.0.json"));
    validate(python, &output.stdout);
    let log: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    let codes: Vec<&str> = results.iter().map(|result| result["ruleId"].as_str().unwrap()).collect();
    assert!(codes.contains(&"T0701") && codes.contains(&"T0104") && codes.contains(&"T0402"), "{codes:?}");
}

#[test]
fn junit_is_valid_by_the_common_xsd() {
    let folder = project();
    let output = check(folder.path(), &["--format", "junit"]);
    assert_eq!(output.status.code(), Some(1));
    let mut xmllint = Command::new("xmllint");
    xmllint.arg("--noout").arg("--schema").arg(format("junit-10.xsd")).arg("-");
    validate(xmllint, &output.stdout);
}

#[test]
fn annotations_of_github_name_files_from_where_the_workflow_runs() {
    let folder = project();
    let inside = folder.path().file_name().unwrap().to_str().unwrap();
    let output = check(folder.path().parent().unwrap(), &["--format", "github", "--project", inside]);
    let text = String::from_utf8(output.stdout).unwrap();
    let halves = format!(
        "::warning file={inside}/tags/halves.sql,line=1,endLine=1,col=21,endColumn=31,title=T0701%3A integer divided by \
         integer::an integer divided by an integer gives an integer: 1 / 3 = 0%0Ahelp: if a fraction is meant, write \
         `CAST(pieces AS DOUBLE) / 2`"
    );
    assert!(text.lines().any(|line| line == halves), "{text}");
    assert!(text.lines().all(|line| line.starts_with("::error ") || line.starts_with("::warning ")), "{text}");
}

#[test]
fn colours_are_for_terminals_alone() {
    let folder = project();
    let output = check(folder.path(), &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("T0104") && !text.contains('\u{1b}'), "{text}");
}

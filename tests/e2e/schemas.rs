//! The JSON Schemas that `tagflow schemas` writes, by a validator that is not ours, over files of the sample project.

use std::path::Path;
use std::process::{Command, Output};

/// Reads TOML as editors do before they look at a schema: dates and times are strings.
const PROGRAM: &str = "
import json, sys, tomllib, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)
wrong = 0
for file in sys.argv[2:]:
    told = json.loads(json.dumps(tomllib.load(open(file, 'rb')), default=str))
    for error in validator.iter_errors(told):
        wrong += 1
        print(file, error.json_path, error.message)
sys.exit(wrong > 0)
";

fn validate(schemas: &Path, schema: &str, files: &[impl AsRef<Path>]) -> Output {
    let mut python = Command::new("python3");
    python.args(["-c", PROGRAM]).arg(schemas.join(schema)).args(files.iter().map(|file| file.as_ref()));
    python.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn written() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tagflow"));
    let output = command.args(["schemas", "--output"]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    folder
}

#[test]
fn files_of_the_sample_project_are_valid_by_their_schemas() {
    let schemas = written();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (schema, pattern, least) in [
        ("tagflow.schema.json", "tagflow.toml", 1),
        ("stream.schema.json", "schemas/*.toml", 3),
        ("folder.schema.json", "tags/**/_folder.toml", 3),
        ("test.schema.json", "tags/**/*.test.toml", 20),
    ] {
        let files: Vec<_> = glob::glob(root.join(pattern).to_str().unwrap()).unwrap().map(Result::unwrap).collect();
        assert!(files.len() >= least, "{pattern}: {files:?}");
        let output = validate(schemas.path(), schema, &files);
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn what_a_file_of_tests_cannot_hold_is_invalid() {
    let schemas = written();
    let sound = "[defaults.orders]\nstatus = \"paid\"\n[[test]]\nname = \"n\"\n[[test.moment]]\nat = 2026-03-01T12:00:00\n\
                 given.orders = [{ order_id = 1, lines = [{ sku = \"a\" }], _partition = 3 }, '{\"order_id\": 2}']\n\
                 given.users = \"users.csv\"\nrows = [{ user_id = 7, n = 1 }]\nchanges = [{ user_id = 7, _delete = true }]\n\
                 dead_letters = [{ stream = \"orders\", kind = \"late\" }]\n";
    let file = schemas.path().join("a.test.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        validate(schemas.path(), "test.schema.json", &[&file])
    };
    let output = check(sound);
    assert!(output.status.success(), "{}", said(&output));
    for (from, to, place) in [
        ("name = \"n\"", "title = \"n\"", "$.test[0] "),
        ("at = 2026-03-01T12:00:00", "at = 12", "$.test[0].moment[0].at "),
        ("at = 2026-03-01T12:00:00\n", "", "$.test[0].moment[0] 'at' is a required property"),
        ("rows = [{ user_id = 7, n = 1 }]", "row = []", "$.test[0].moment[0] "),
        ("_partition = 3", "_partition = \"3\"", "$.test[0].moment[0].given.orders "),
        ("_delete = true", "_delete = \"yes\"", "$.test[0].moment[0].changes[0]"),
        ("kind = \"late\"", "kind = \"early\"", "$.test[0].moment[0].dead_letters[0].kind "),
        ("[defaults.orders]\nstatus = \"paid\"", "defaults = 7", "$.defaults "),
    ] {
        let output = check(&sound.replacen(from, to, 1));
        assert_eq!(output.status.code(), Some(1), "{to}");
        assert!(said(&output).contains(place), "{to}: {}", said(&output));
    }
}

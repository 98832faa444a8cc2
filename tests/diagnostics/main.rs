//! What a project's author is told. Every file of `cases/` holds a project with mistakes; the rendered text is
//! kept beside it in `snapshots/`. `INSTA_UPDATE=always cargo test --test diagnostics` writes them anew: read them.

mod explained;
mod files;
mod fixes;
mod layout;
mod lints;
mod memory;
mod plan;
mod projects;
mod promises;
mod since;
mod sql;
mod tag_tests;

use std::collections::BTreeMap;
use std::path::Path;

use tagflow::diagnostic::{Diagnostic, hold_back, render_human};
use tagflow::engine::desired::plan_project;
use tagflow::project::{Loaded, load_with_env};

/// What `tagflow.toml` is in cases that are not about it.
const SETTINGS: &str = r#"timezone = "Asia/Shanghai"

[entity.user]
key = "user_id"
type = "BIGINT"

[connection.shop]
type = "kafka"
brokers = "kafka:9092"

[connection.files]
type = "file"
path = "data"

[store]
url = "sqlite:tags.db"
"#;

/// The only variables that are set.
pub(crate) fn environment(name: &str) -> Option<String> {
    match name {
        "SHOP_KAFKA" => Some("kafka-1.example:9092".to_owned()),
        "DB_PASSWORD" => Some("p@ss/w%rd ".to_owned()),
        "NOT_AN_ADDRESS" => Some("hidden value".to_owned()),
        _ => None,
    }
}

/// Writes `files` into a new folder and loads it as a project.
pub(crate) fn load(files: &BTreeMap<String, String>, profile: Option<&str>) -> (tempfile::TempDir, Loaded) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // What is no text is a file of the repository.
        match text.strip_prefix("copy of ") {
            Some(file) => {
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file.trim_end());
                std::fs::copy(file, path).unwrap();
            }
            None => std::fs::write(path, text).unwrap(),
        }
    }
    let loaded = load_with_env(root.path(), profile, &environment);
    (root, loaded)
}

/// What `tagflow check` tells of a project.
fn all_problems(loaded: &Loaded) -> Vec<Diagnostic> {
    let planned = loaded.project.as_ref().map(|project| plan_project(project).1).unwrap_or_default();
    hold_back(loaded.diagnostics.iter().cloned().chain(planned).collect())
}

/// False for that nothing reads the view of the shop: it is there to be read, and most cases are about something else.
pub(crate) fn is_about_the_case(told: &Diagnostic) -> bool {
    told.code != tagflow::lint::codes::UNREAD || !told.file.ends_with("paid_orders.sql")
}

/// The files of a case, which begin with `--- file: PATH`, and the profile of a `--- profile: NAME` before them.
fn read_case(text: &str) -> (BTreeMap<String, String>, Option<String>) {
    let mut files = BTreeMap::from([("tagflow.toml".to_owned(), SETTINGS.to_owned())]);
    let mut profile = None;
    let mut current: Option<String> = None;
    for line in text.split_inclusive('\n') {
        if let Some(path) = line.strip_prefix("--- file: ") {
            let path = path.trim().to_owned();
            files.insert(path.clone(), String::new());
            current = Some(path);
        } else if let Some(name) = line.strip_prefix("--- profile: ") {
            profile = Some(name.trim().to_owned());
        } else if let Some(path) = &current {
            files.get_mut(path).unwrap().push_str(line);
        }
    }
    (files, profile)
}

#[test]
fn every_mistake_is_told_with_its_place_and_the_way_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder.join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut cases: Vec<_> =
        std::fs::read_dir(folder.join("cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    for case in cases {
        let (files, profile) = read_case(&std::fs::read_to_string(&case).unwrap());
        let (_root, loaded) = load(&files, profile.as_deref());
        let text = render_human(&all_problems(&loaded), &loaded.sources, false);
        assert!(!text.contains("hidden value"), "a value of the environment is shown");
        settings.bind(|| insta::assert_snapshot!(case.file_stem().unwrap().to_str().unwrap(), text));
    }
}

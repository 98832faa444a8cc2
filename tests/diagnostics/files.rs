//! Files and folders that a project should not have: what is told of them, and that none of them holds anybody up.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tagflow::diagnostic::{Diagnostic, render_human, render_json, render_sarif};
use tagflow::project::{Loaded, load_with_env, read_tests};

use crate::{SETTINGS, environment};

const TAG: &str = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";

/// A project of `tagflow.toml` alone, with the folders that others are read from.
fn project() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["tags", "schemas", "functions"] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
    }
    std::fs::write(root.path().join("tagflow.toml"), SETTINGS).unwrap();
    root
}

/// Loads a project, tests and all. Reading that waits for something is a failure.
fn load(root: &Path) -> (Loaded, Vec<Diagnostic>) {
    let (done, loaded) = std::sync::mpsc::channel();
    let root = root.to_owned();
    std::thread::spawn(move || {
        let _ = done.send((load_with_env(&root, None, &environment), read_tests(&root, &BTreeMap::new()).1));
    });
    loaded.recv_timeout(Duration::from_secs(30)).expect("a file of the project is waited for")
}

/// Codes, files and messages, in order.
fn told(diagnostics: &[Diagnostic]) -> Vec<String> {
    let line = |told: &Diagnostic| format!("{} {}: {}", told.code, told.file.display(), told.message);
    let mut lines: Vec<String> = diagnostics.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn file_or_folder_whose_name_is_no_text_is_refused_with_what_of_it_can_be_shown() {
    let root = project();
    let write = |path: &[u8], text: &str| {
        let path = root.path().join(OsStr::from_bytes(path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(b"tags/caf\xe9.sql", TAG);
    write(b"tags/bo\xeete/spend.sql", TAG);
    write(b"tags/money/_folder.toml", "title = 'Money'");
    write(b"tags/money/\xff.test.toml", "");
    write(b"tags/money/\xff.txt", "nobody reads this");
    write(b"schemas/\xfe.toml", "");
    write(b"schemas/\xfd.sql", "SELECT 1");
    write(b"functions/\xfc.sql", "");
    let (loaded, of_tests) = load(root.path());
    let expected = [
        "T0101 functions/\u{fffd}.sql: the name of this file is not UTF-8",
        "T0101 schemas/\u{fffd}.sql: the name of this file is not UTF-8",
        "T0101 schemas/\u{fffd}.toml: the name of this file is not UTF-8",
        "T0101 tags/bo\u{fffd}te: the name of this folder is not UTF-8",
        "T0101 tags/caf\u{fffd}.sql: the name of this file is not UTF-8",
    ];
    assert_eq!(told(&loaded.diagnostics), expected);
    let of_tests = told(&of_tests);
    assert!(of_tests.contains(&"T0101 tags/money/\u{fffd}.test.toml: the name of this file is not UTF-8".to_string()));
    let (diagnostics, sources) = (&loaded.diagnostics, &loaded.sources);
    for text in [
        render_human(diagnostics, sources, false),
        render_json(diagnostics, sources),
        render_sarif(diagnostics, sources, Path::new(".")),
    ] {
        assert!(text.contains("caf"), "{text}");
    }
    assert!(loaded.project.unwrap().tags.is_empty());
}

#[test]
fn pipe_device_or_huge_file_is_refused_and_nobody_waits_for_it() {
    let root = project();
    let place = |file: &str| root.path().join(file);
    for pipe in
        ["tags/a.sql", "tags/_folder.toml", "tags/a.test.toml", "schemas/orders.toml", "functions/f.sql", "pipe"]
    {
        assert!(Command::new("mkfifo").arg(place(pipe)).status().unwrap().success());
    }
    std::fs::File::create(place("tags/huge.sql")).unwrap().set_len(1 << 40).unwrap();
    let settings = SETTINGS.replace("kafka:9092", "${file:pipe}${file:/dev/zero}${file:tags/huge.sql}");
    std::fs::write(place("tagflow.toml"), settings).unwrap();
    std::fs::write(
        place("schemas/visits.toml"),
        "connection = \"shop\"\ntopic = \"visits\"\nformat = \"protobuf\"\ndescriptor = \"pipe\"\n\
         message = \"V\"\n[columns]\nuser_id = \"BIGINT\"\n",
    )
    .unwrap();
    let (loaded, of_tests) = load(root.path());
    let expected = [
        "T0101 functions/f.sql: cannot read this file: it is no regular file",
        "T0101 schemas/orders.toml: cannot read this file: it is no regular file",
        "T0101 tags/_folder.toml: cannot read this file: it is no regular file",
        "T0101 tags/a.sql: cannot read this file: it is no regular file",
        "T0101 tags/huge.sql: cannot read this file: it is larger than 4.0 MiB",
        "T0202 tagflow.toml: the file of ${file:/dev/zero} cannot be read: it is no regular file",
        "T0202 tagflow.toml: the file of ${file:pipe} cannot be read: it is no regular file",
        "T0202 tagflow.toml: the file of ${file:tags/huge.sql} cannot be read: it is larger than 64.0 KiB",
        "T0310 schemas/visits.toml: cannot read the file \"pipe\": it is no regular file",
    ];
    assert_eq!(told(&loaded.diagnostics), expected);
    assert_eq!(told(&of_tests), ["T0101 tags/a.test.toml: cannot read this file: it is no regular file"]);
}

#[test]
fn link_that_leads_out_of_the_project_is_refused_wherever_it_lies() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.sql");
    std::fs::write(&secret, TAG).unwrap();
    let root = project();
    let link = |to: &Path, file: &str| symlink(to, root.path().join(file)).unwrap();
    for file in ["tags/a.sql", "tags/a.test.toml", "schemas/orders.toml", "schemas/paid.sql", "functions/f.sql"] {
        link(&secret, file);
    }
    for folder in ["tags/more", "schemas/more", "functions/more"] {
        link(outside.path(), folder);
    }
    std::fs::create_dir(root.path().join("tags/money")).unwrap();
    link(&secret, "tags/money/_folder.toml");
    // By a step more, and by a name that leads up.
    link(Path::new("../tags/a.sql"), "schemas/seen.sql");
    link(Path::new("../.."), "tags/up");
    let (loaded, of_tests) = load(root.path());
    let leads_out = |file: &&str| format!("T0109 {file}: a symbolic link leads out of the project's folder");
    let expected = [
        "functions/f.sql",
        "functions/more",
        "schemas/more",
        "schemas/orders.toml",
        "schemas/paid.sql",
        "schemas/seen.sql",
        "tags/a.sql",
        "tags/money/_folder.toml",
        "tags/more",
        "tags/up",
    ];
    assert_eq!(told(&loaded.diagnostics), expected.iter().map(leads_out).collect::<Vec<_>>());
    assert!(told(&of_tests).contains(&leads_out(&"tags/a.test.toml")));
    let text = render_human(&loaded.diagnostics, &loaded.sources, false);
    assert!(!text.contains("COUNT"), "what lies outside is shown: {text}");

    // The settings themselves, and a whole folder in the place of one of the project's.
    let root = tempfile::tempdir().unwrap();
    symlink(&secret, root.path().join("tagflow.toml")).unwrap();
    symlink(outside.path(), root.path().join("tags")).unwrap();
    let (loaded, _) = load(root.path());
    assert_eq!(told(&loaded.diagnostics), [leads_out(&"tagflow.toml"), leads_out(&"tags")]);
}

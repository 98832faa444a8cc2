//! The arrows of ARCHITECTURE.md: which modules may not know which; and that the fuzz targets are made of what the daemon is made of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if folder.is_file() {
        return vec![folder.to_path_buf()];
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn imports_point_one_way() {
    let forbidden: [(&str, &[&str]); 15] = [
        ("delta.rs", &["crate::"]),
        ("graph.rs", &["crate::operator", "crate::source", "crate::sink", "crate::engine", "crate::cli"]),
        ("lint", &["crate::operator", "crate::source", "crate::sink", "crate::engine", "crate::cli", "std::fs"]),
        (
            "diagnostic",
            &["crate::engine", "crate::plan", "crate::operator", "crate::source", "crate::sink", "crate::tag"],
        ),
        (
            "config",
            &[
                "crate::catalog",
                "crate::tag",
                "crate::plan",
                "crate::operator",
                "crate::source",
                "crate::sink",
                "crate::engine",
            ],
        ),
        ("catalog", &["crate::tag", "crate::plan", "crate::operator", "crate::source", "crate::sink", "crate::engine"]),
        ("tag", &["crate::plan", "crate::operator", "crate::source", "crate::sink", "crate::engine"]),
        (
            "plan",
            &[
                "crate::operator",
                "crate::source",
                "crate::sink",
                "crate::engine",
                "crate::cli",
                "rdkafka",
                "mysql_async",
                "std::fs",
            ],
        ),
        (
            "operator",
            &[
                "crate::source",
                "crate::sink",
                "crate::engine",
                "rdkafka",
                "mysql_async",
                "tokio",
                "SystemTime",
                "Instant::now",
                "Utc::now",
            ],
        ),
        ("oracle.rs", &["crate::operator", "crate::source", "crate::sink", "crate::engine"]),
        ("source", &["crate::sink", "crate::plan", "crate::operator", "crate::engine", "crate::cli"]),
        ("sink", &["crate::source", "crate::plan", "crate::operator", "crate::engine", "crate::cli"]),
        ("engine", &["crate::cli", "crate::console", "crate::tag_test"]),
        (
            "tag_test",
            &["crate::cli", "crate::console", "rdkafka", "mysql_async", "SystemTime", "Instant::now", "Utc::now"],
        ),
        ("console", &["crate::operator", "crate::source", "crate::sink", "crate::plan", "crate::cli"]),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    for (module, words) in forbidden {
        for file in files(&root.join(module)) {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for (number, line) in code.enumerate() {
                for word in words.iter().filter(|word| line.contains(**word)) {
                    broken.push(format!("{}: `{word}` in statement {number}: {line}", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Name, version and checksum of all crates of a lock file that come from the registry.
fn locked(file: &str) -> BTreeSet<(String, String, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let lock: toml::Table = text.parse().unwrap();
    let of = |package: &toml::Value| {
        let text = |key: &str| Some(package.get(key)?.as_str()?.to_string());
        Some((text("name")?, text("version")?, text("checksum")?))
    };
    lock["package"].as_array().unwrap().iter().filter_map(of).collect()
}

#[test]
fn fuzz_targets_are_locked_to_the_crates_of_the_daemon() {
    let (own, of_fuzz) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let others: Vec<&str> = of_fuzz.difference(&own).map(|(name, ..)| name.as_str()).collect();
    let again = "cp Cargo.lock fuzz/Cargo.lock && (cd fuzz && cargo metadata --format-version 1 > /dev/null)";
    assert_eq!(others, ["arbitrary", "libfuzzer-sys"], "lock them anew: {again}");
}

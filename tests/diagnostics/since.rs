//! `tagflow check --since REF`: what a branch touches, and what depends on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::promises::run_check;
use crate::sql::ORDERS;

pub(crate) const HALF: &str = "SELECT user_id, MAX(quantity / 2) AS half FROM orders GROUP BY user_id";

pub(crate) fn git(root: &Path, arguments: &[&str]) {
    let who = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"];
    let output = Command::new("git").current_dir(root).args(who).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A project in a folder of a repository, with a warning in every tag, on a branch off `main`.
pub(crate) fn shop() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let files = [
        ("tagflow.toml", super::SETTINGS),
        ("schemas/orders.toml", ORDERS),
        ("schemas/visits.toml", &ORDERS.replace("shop.orders", "shop.visits")),
        ("schemas/paid.sql", "SELECT user_id, quantity FROM orders WHERE status = 'paid'"),
        ("functions/twice.sql", "CREATE FUNCTION twice(x INT) RETURNS INT RETURN x + x"),
        ("tags/of_orders.sql", HALF),
        ("tags/of_view.sql", &HALF.replace("FROM orders", "FROM paid")),
        ("tags/of_tag.sql", "SELECT user_id, half / 2 AS quarter FROM tags.of_view"),
        (
            "tags/of_function.sql",
            &HALF.replace("quantity / 2", "Twice(quantity) / 2").replace("FROM orders", "FROM visits"),
        ),
        ("tags/of_visits.sql", &HALF.replace("FROM orders", "FROM visits")),
    ];
    for (file, text) in files {
        let path = root.path().join("shop").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    git(root.path(), &["init", "-q", "-b", "main"]);
    git(root.path(), &["add", "."]);
    git(root.path(), &["commit", "-qm", "all"]);
    git(root.path(), &["checkout", "-qb", "branch"]);
    root
}

/// The files that something is told of.
fn told(root: &Path) -> Vec<String> {
    let (_, text) = run_check(&root.join("shop"), &["--since", "main", "--format", "json"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let files = value["diagnostics"].as_array().unwrap().iter();
    files.map(|told| told["file"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_change_is_followed_to_all_that_depend_on_it() {
    let append = |text: &str| format!("{text}\n-- changed\n");
    let cases: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("tags/of_visits.sql", &["tags/of_visits.sql"][..]),
        ("tags/of_view.sql", &["tags/of_tag.sql", "tags/of_view.sql"]),
        ("schemas/paid.sql", &["tags/of_tag.sql", "tags/of_view.sql"]),
        ("schemas/orders.toml", &["tags/of_orders.sql", "tags/of_tag.sql", "tags/of_view.sql"]),
        ("functions/twice.sql", &["tags/of_function.sql"]),
    ]);
    let root = shop();
    assert_eq!(told(root.path()), [""; 0], "nothing has changed");
    for (file, expected) in cases {
        let path = root.path().join("shop").join(file);
        let before = std::fs::read_to_string(&path).unwrap();
        let comment = if file.ends_with("toml") { format!("{before}\n# changed\n") } else { append(&before) };
        std::fs::write(&path, comment).unwrap();
        assert_eq!(told(root.path()), expected, "{file} is not committed");
        git(root.path(), &["commit", "-qam", "changed"]);
        assert_eq!(told(root.path()), expected, "{file} is committed");
        git(root.path(), &["reset", "-q", "--hard", "main"]);
    }
}

#[test]
fn new_files_are_looked_at_and_what_reads_a_deleted_one_is_told() {
    let root = shop();
    std::fs::write(root.path().join("shop/tags/new.sql"), HALF).unwrap();
    assert_eq!(told(root.path()), ["tags/new.sql"]);
    std::fs::remove_file(root.path().join("shop/schemas/visits.toml")).unwrap();
    assert_eq!(told(root.path()), ["tags/new.sql", "tags/of_function.sql", "tags/of_visits.sql"]);
    let (code, text) = run_check(&root.path().join("shop"), &["--since", "main"]);
    assert_eq!(code, 1);
    assert!(text.contains("there is no stream or view `visits`"), "{text}");
}

#[test]
fn settings_are_about_all_files() {
    let root = shop();
    let path = root.path().join("shop/tagflow.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("{text}\n# changed\n")).unwrap();
    assert_eq!(told(root.path()).len(), 5);
}

#[test]
fn what_main_has_changed_since_is_not_the_branchs() {
    let root = shop();
    git(root.path(), &["checkout", "-q", "main"]);
    std::fs::write(root.path().join("shop/tags/of_orders.sql"), format!("{HALF}\n-- by somebody else\n")).unwrap();
    git(root.path(), &["commit", "-qam", "on main"]);
    git(root.path(), &["checkout", "-q", "branch"]);
    assert_eq!(told(root.path()), [""; 0]);
}

#[test]
fn a_reference_that_is_none_and_a_folder_without_git_are_wrong_usage() {
    let root = shop();
    for reference in ["mian", "--help", ""] {
        let (code, text) = run_check(&root.path().join("shop"), &[&format!("--since={reference}")]);
        assert_eq!((code, text.as_str()), (2, ""), "{reference}");
    }
    std::fs::remove_dir_all(root.path().join(".git")).unwrap();
    assert_eq!(run_check(&root.path().join("shop"), &["--since", "main"]).0, 2);
}

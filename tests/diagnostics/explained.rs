//! The page of codes: every code has an entry, and what stands in an entry is true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tagflow::diagnostic::{Diagnostic, Explanation, Severity, codes, explanations};
use tagflow::engine::desired::plan_project;
use tagflow::tag_test::Suite;

use crate::sql::{ORDERS, VIEW};

/// Codes of which no file that is text is an example, or of which none is known.
const WITHOUT_EXAMPLE: [&str; 5] = [
    codes::UNREADABLE,
    codes::NOT_UTF8,
    codes::STREAMS,
    tagflow::plan::codes::NOT_STREAMED,
    tagflow::plan::codes::CLOCK_TYPES,
];

const PAGE_VIEWS: &str = r#"connection = "shop"
topic = "shop.page_views"
format = "json"
time = { column = "view_time" }
[columns]
user_id = "BIGINT NOT NULL"
page = "VARCHAR"
view_time = "TIMESTAMP(3)"
"#;

const CARTS: &str = r#"connection = "shop"
topic = "shop.carts"
format = "json"
time = { column = "cart_time" }
[columns]
cart_id = "BIGINT NOT NULL"
user_id = "BIGINT NOT NULL"
items = "VARCHAR ARRAY"
payload = "VARCHAR"
cart_time = "TIMESTAMP(3)"
"#;

/// Where a file without a name of its own stands.
const TAG: &str = "tags/example.sql";

/// The files of an entry before and after.
#[derive(Debug, Default)]
struct Example {
    before: BTreeMap<String, String>,
    after: BTreeMap<String, String>,
}

/// Fenced blocks behind `Before:` and `After:`; a first line `-- PATH` or `# PATH` is the file's name.
fn example(entry: &Explanation) -> Example {
    let mut example = Example::default();
    let parts = entry.text.split_once("\nBefore:\n").unwrap_or_default().1;
    let Some((before, after)) = parts.split_once("\nAfter:\n") else { return example };
    for (text, files) in [(before, &mut example.before), (after, &mut example.after)] {
        for block in text.split("```").skip(1).step_by(2) {
            let body = block.split_once('\n').unwrap().1;
            let named = body.lines().next().and_then(|line| line.strip_prefix("-- ").or(line.strip_prefix("# ")));
            // JSON has no comments.
            let is_json = named.is_some_and(|name| name.ends_with(".avsc"));
            let text = if is_json { body.split_once('\n').unwrap().1 } else { body };
            files.insert(named.unwrap_or(TAG).to_owned(), text.to_owned());
        }
    }
    example
}

/// What `tagflow check` says of the shop with some files more.
fn check(files: &BTreeMap<String, String>) -> Vec<Diagnostic> {
    let shop = [
        ("tagflow.toml", super::SETTINGS),
        ("schemas/orders.toml", ORDERS),
        ("schemas/page_views.toml", PAGE_VIEWS),
        ("schemas/carts.toml", CARTS),
        ("schemas/paid_orders.sql", VIEW),
    ];
    let mut all: BTreeMap<String, String> =
        shop.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
    all.extend(files.clone());
    let (folder, loaded) = super::load(&all, None);
    let Some(project) = &loaded.project else { return loaded.diagnostics };
    let (desired, planned) = plan_project(project);
    let tests = Suite::load(folder.path(), &desired, &|_| true).diagnostics;
    // Views and functions of examples are there to be told of.
    let is_told = |told: &Diagnostic| told.code != tagflow::lint::codes::UNREAD || told.file.starts_with("tags");
    loaded.diagnostics.into_iter().chain(planned).chain(tests).filter(is_told).collect()
}

fn all_codes() -> BTreeSet<&'static str> {
    let lists = [codes::ALL, tagflow::plan::codes::ALL, tagflow::lint::codes::ALL, tagflow::live::codes::ALL];
    lists.concat().into_iter().collect()
}

#[test]
fn every_code_has_an_entry_and_every_entry_a_code() {
    let explained: Vec<&str> = explanations().map(|entry| entry.code).collect();
    let known = all_codes();
    let lists = [codes::ALL, tagflow::plan::codes::ALL, tagflow::lint::codes::ALL, tagflow::live::codes::ALL];
    let constants: usize = lists.iter().map(|list| list.len()).sum();
    assert_eq!(known.len(), constants, "two constants are one code");
    for code in &known {
        assert!(
            explained.contains(code),
            "{code} is not explained: add `## {code}: title` to src/diagnostic/codes.md, with what it means, why, \
             and SQL behind `Before:` that gives it and behind `After:` that does not"
        );
    }
    for code in &explained {
        assert!(
            known.contains(code),
            "src/diagnostic/codes.md explains {code}, but no constant of a codes.rs is {code}"
        );
    }
    assert!(
        explained.is_sorted_by(|left, right| left < right),
        "the entries are in the order of their codes, each once"
    );
}

#[test]
fn every_example_gives_its_code_before_and_none_after() {
    let mut wrong = Vec::new();
    for entry in explanations() {
        let code = entry.code;
        let Example { before, after } = example(&entry);
        if before.is_empty() || after.is_empty() {
            // What the world says is in no file.
            if !WITHOUT_EXAMPLE.contains(&code) && !tagflow::live::codes::ALL.contains(&code) {
                wrong.push(format!("{code} needs an example behind `Before:` and one behind `After:`"));
            }
            continue;
        }
        // Where a tag is shown with what it reads, the example is of the tag.
        let is_shown = |found: &&Diagnostic| !before.contains_key(TAG) || found.file == Path::new(TAG);
        let found = check(&before);
        let found: BTreeSet<&str> = found.iter().filter(is_shown).map(|found| found.code).collect();
        if found != BTreeSet::from([code]) {
            wrong.push(format!("{code} before gives {found:?}"));
        }
        for left in check(&after) {
            if left.code == code || left.severity == Severity::Error {
                wrong.push(format!("{code} after gives {}: {}", left.code, left.message));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_code_of_a_golden_message_is_explained() {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics/snapshots");
    let known = all_codes();
    for file in std::fs::read_dir(snapshots).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("T0") {
            let code = text.get(at..at + 5).unwrap_or_default();
            if code[1..].bytes().all(|byte| byte.is_ascii_digit()) {
                assert!(known.contains(code), "{} has {code}, which no constant of a codes.rs is", path.display());
            }
        }
    }
}

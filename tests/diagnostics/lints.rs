//! Levels of lints.

use std::collections::{BTreeMap, BTreeSet};

use tagflow::diagnostic::{Diagnostic, LINTS, Severity, explain};
use tagflow::engine::desired::plan_project;

use crate::sql::{ORDERS, VIEW};

/// What is told of a shop with some files more, without notes.
fn told(settings: &str, files: &[(&str, &str)]) -> Vec<Diagnostic> {
    let settings = format!("{}{settings}", super::SETTINGS);
    let shop =
        [("tagflow.toml", settings.as_str()), ("schemas/orders.toml", ORDERS), ("schemas/paid_orders.sql", VIEW)];
    let all: BTreeMap<String, String> =
        shop.iter().chain(files).map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let (_folder, loaded) = super::load(&all, None);
    let planned = loaded.project.as_ref().map(|project| plan_project(project).1).unwrap_or_default();
    loaded.diagnostics.into_iter().chain(planned).filter(super::is_about_the_case).collect()
}

fn levels(found: &[Diagnostic]) -> Vec<(&str, Severity)> {
    found.iter().map(|told| (told.code, told.severity)).collect()
}

const HALVES: &str = "SELECT user_id, MAX(quantity / 2) AS half FROM orders GROUP BY user_id";

#[test]
fn the_header_counts_before_the_project_and_the_project_before_the_default() {
    let tag = |header: &str| format!("/* tag\n{header}\n*/\n{HALVES}");
    let of =
        |settings: &str, header: &str| levels(&told(settings, &[("tags/halves.sql", &tag(header))])).to_vec().len();
    assert_eq!(levels(&told("", &[("tags/halves.sql", HALVES)])), [("T0701", Severity::Warning)]);
    let deny = "[lints]\ninteger_division = \"deny\"\n";
    assert_eq!(levels(&told(deny, &[("tags/halves.sql", HALVES)])), [("T0701", Severity::Error)]);
    assert_eq!(of("[lints]\ninteger_division = \"allow\"\n", ""), 0);
    assert_eq!(of(deny, "lints.integer_division = \"allow\""), 0);
    let warned = told(deny, &[("tags/halves.sql", &tag("lints = { integer_division = \"warn\" }"))]);
    assert_eq!(levels(&warned), [("T0701", Severity::Warning)]);
}

#[test]
fn a_view_says_what_is_told_of_itself() {
    let view = "/* view\nlints.integer_division = \"allow\"\n*/\nSELECT user_id, quantity / 2 AS half FROM orders";
    let tag = "SELECT user_id, MAX(half) AS half FROM halves GROUP BY user_id";
    assert_eq!(told("", &[("schemas/halves.sql", view), ("tags/half.sql", tag)]), []);
}

#[test]
fn a_lint_that_is_none_and_a_level_that_is_none_are_told() {
    let found = told("[lints]\ninteger_divison = \"deny\"\nties = \"error\"\n", &[]);
    let messages: Vec<(&str, Option<&str>)> =
        found.iter().map(|told| (told.message.as_str(), told.help.as_deref())).collect();
    assert_eq!(
        messages,
        [
            ("unknown key \"integer_divison\" in [lints]", Some("did you mean \"integer_division\"?")),
            ("\"error\" is not a possible \"ties\" in [lints]", Some("possible are: allow, warn, deny")),
        ]
    );
}

#[test]
fn a_denied_lint_keeps_its_tag_from_running_and_no_other() {
    let settings = format!("{}[lints]\ninteger_division = \"deny\"\n", super::SETTINGS);
    let files = [
        ("tagflow.toml", settings.as_str()),
        ("schemas/orders.toml", ORDERS),
        ("tags/halves.sql", HALVES),
        ("tags/fine.sql", "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id"),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
    let (_folder, loaded) = super::load(&files, None);
    let (desired, _) = plan_project(&loaded.project.unwrap());
    assert_eq!(desired.tags.keys().collect::<Vec<_>>(), ["fine"]);
}

#[test]
fn every_lint_is_a_code_of_its_own() {
    let codes: BTreeSet<&str> = LINTS.iter().map(|(_, code)| *code).collect();
    assert_eq!(codes.len(), LINTS.len(), "two lints have one code");
    assert!(codes.iter().all(|code| explain(code).is_some()), "{codes:?}");
}

#[test]
fn owners_and_readers_are_asked_for_once_a_project_has_some_or_says_so() {
    let count = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";
    let with = |header: &str| format!("/* tag\n{header}\n*/\n{count}");
    let of = |settings: &str, files: &[(&str, &str)]| -> Vec<String> {
        told(settings, files).iter().map(|told| format!("{} {}", told.code, told.file.display())).collect()
    };
    assert_eq!(of("", &[("tags/a.sql", count)]), [""; 0]);
    assert_eq!(of("", &[("tags/a.sql", count), ("tags/b.sql", &with("owner = \"x\""))]), ["T0901 tags/a.sql"]);
    let folder = ("tags/money/_folder.toml", "owner = \"growth\"");
    assert_eq!(of("", &[("tags/money/deep/a.sql", count), folder]), [""; 0]);
    assert_eq!(of("[lints]\nno_owner = \"warn\"\n", &[("tags/a.sql", count)]), ["T0901 tags/a.sql"]);
    assert_eq!(of("", &[("tags/a.sql", count), ("tags/b.sql", &with("readers = [\"crm\"]"))]), ["T0902 tags/a.sql"]);
    let reader = with("readers = [\"crm\"]").replace(count, "SELECT user_id, n FROM tags.a");
    assert_eq!(of("", &[("tags/a.sql", count), ("tags/b.sql", &reader)]), [""; 0]);
    assert_eq!(of("[lints]\nunread = \"warn\"\n", &[("tags/a.sql", count)]), ["T0902 tags/a.sql"]);
    let function = "CREATE FUNCTION twice(x INT) RETURNS INT RETURN x + x";
    assert_eq!(of("", &[("functions/twice.sql", function)]), ["T0902 functions/twice.sql"]);
}

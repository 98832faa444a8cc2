//! `tagflow check --fix`: files before and after, and what `--diff` shows.

use std::collections::BTreeMap;
use std::path::Path;

use crate::promises::run_check;
use crate::sql::ORDERS;

/// A shop with some tags.
fn shop(tags: &[(&str, &str)]) -> tempfile::TempDir {
    let files = [("tagflow.toml", super::SETTINGS), ("schemas/orders.toml", ORDERS)];
    let files: BTreeMap<String, String> =
        files.iter().chain(tags).map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    super::load(&files, None).0
}

fn read(root: &Path, file: &str) -> String {
    std::fs::read_to_string(root.join(file)).unwrap()
}

/// Queries over the orders of a shop, before and after.
const CASES: &[(&str, &str)] = &[
    (
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE status = \"paid\" GROUP BY user_id",
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE status = 'paid' GROUP BY user_id",
    ),
    (
        "SELECT user_id，COUNT(*) AS n FROM orders WHERE quantity ＞ 3 GROUP BY user_id",
        "SELECT user_id,COUNT(*) AS n FROM orders WHERE quantity > 3 GROUP BY user_id",
    ),
    (
        "SELECT user_id, MAX(IF(status = 'paid', LCASE(category), 'it''s')) AS c FROM orders GROUP BY user_id",
        "SELECT user_id, MAX(CASE WHEN status = 'paid' THEN lower(category) ELSE 'it''s' END) AS c FROM orders GROUP BY user_id",
    ),
    (
        "SELECT user_id, CEILING(AVG(amount)) + COUNT(*) FILTER (WHERE LCASE(status) = ')') AS c FROM orders GROUP BY user_id",
        "SELECT user_id, ceil(AVG(amount)) + COUNT(*) FILTER (WHERE lower(status) = ')') AS c FROM orders GROUP BY user_id",
    ),
    (
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE order_time >= DATE_SUB(CURDATE(), INTERVAL 7 DAY) GROUP BY user_id",
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE order_time >= CURRENT_DATE - INTERVAL 7 DAY GROUP BY user_id",
    ),
    (
        "SELECT user_id, MAX(to_char(order_time, 'yyyy-MM-dd')) AS day FROM orders GROUP BY user_id",
        "SELECT user_id, MAX(to_char(order_time, '%Y-%m-%d')) AS day FROM orders GROUP BY user_id",
    ),
    (
        "/* Tag\ntitle = \"n\"\n*/ SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id",
        "/* tag\ntitle = \"n\"\n*/ SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id",
    ),
    (
        "SELECT * FROM (SELECT user_id, amount, \"Channel\" FROM orders) AS o WHERE amount > 5",
        "SELECT * FROM (SELECT user_id, amount, \"Channel\" FROM orders) AS o WHERE amount > 5",
    ),
];

#[test]
fn what_is_certain_is_mended_and_nothing_else() {
    for (before, after) in CASES {
        for line_end in ["\n", "\r\n"] {
            let (before, after) = (before.replace('\n', line_end), after.replace('\n', line_end));
            let root = shop(&[("tags/a.sql", &before)]);
            run_check(root.path(), &["--fix"]);
            assert_eq!(read(root.path(), "tags/a.sql"), after);
            run_check(root.path(), &["--fix"]);
            assert_eq!(read(root.path(), "tags/a.sql"), after, "a second time");
        }
    }
}

#[test]
fn a_star_is_written_out_as_the_columns_that_it_brings() {
    let table = "kind = \"kafka-upsert\"\nconnection = \"shop\"\ntopic = \"users\"\nformat = \"json\"\nkey = [\"user_id\"]\n\
                 [columns]\nuser_id = \"BIGINT NOT NULL\"\n\"Order\" = \"VARCHAR\"\ncity = \"VARCHAR\"\n";
    let root = shop(&[("schemas/users.toml", table), ("tags/a.sql", "SELECT * FROM users\nWHERE city = 'x'\n")]);
    let (code, text) = run_check(root.path(), &["--fix"]);
    assert_eq!(read(root.path(), "tags/a.sql"), "SELECT user_id, \"Order\", city FROM users\nWHERE city = 'x'\n");
    assert_eq!((code, text.as_str()), (0, "1 tag (1 to run), 2 streams, 0 views: no problems\n"));
}

#[test]
fn a_diff_shows_what_would_change_and_changes_nothing() {
    let (before, after) = CASES[0];
    let root = shop(&[("tags/a.sql", before)]);
    let (code, text) = run_check(root.path(), &["--fix", "--diff"]);
    assert_eq!(code, 1);
    assert!(text.starts_with("--- a/tags/a.sql\n+++ b/tags/a.sql\n"), "{text}");
    assert!(text.contains(&format!("-{before}")) && text.contains(&format!("+{after}")), "{text}");
    assert_eq!(read(root.path(), "tags/a.sql"), before);
    let root = shop(&[("tags/a.sql", after)]);
    assert_eq!(run_check(root.path(), &["--fix", "--diff"]), (0, String::new()));
}

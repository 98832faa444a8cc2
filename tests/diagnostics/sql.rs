//! Mistakes in the SQL of a tag: what is underlined, what is said, what is to be written instead.

use std::collections::BTreeMap;
use std::fmt::Write;

use tagflow::diagnostic::{Severity, lint_of};
use tagflow::engine::desired::plan_project;

pub(crate) const ORDERS: &str = r#"connection = "shop"
topic = "shop.orders"
format = "json"
time = { column = "order_time" }
[columns]
order_id = "BIGINT NOT NULL"
user_id = "BIGINT NOT NULL"
member_id = "BIGINT"
amount = "DECIMAL(12,2)"
quantity = "INT"
weight = "DOUBLE"
category = "VARCHAR"
status = "VARCHAR"
Channel = "VARCHAR"
order_time = "TIMESTAMP(3)"
"#;

pub(crate) const VIEW: &str = "SELECT user_id, amount AS paid, order_time FROM orders WHERE status = 'paid'";

/// The problems of one query, as `code: [what is underlined] message` and the help.
fn problems(sql: &str) -> String {
    let files = BTreeMap::from([
        ("tagflow.toml".to_owned(), super::SETTINGS.to_owned()),
        ("schemas/orders.toml".to_owned(), ORDERS.to_owned()),
        ("schemas/paid_orders.sql".to_owned(), VIEW.to_owned()),
        ("tags/tag.sql".to_owned(), sql.to_owned()),
    ]);
    let (_folder, loaded) = super::load(&files, None);
    let (_, planned) = plan_project(&loaded.project.unwrap());
    let diagnostics = loaded.diagnostics.into_iter().chain(planned).filter(super::is_about_the_case);
    let mut text = String::new();
    for diagnostic in diagnostics {
        let is_lint = diagnostic.severity != Severity::Warning || lint_of(diagnostic.code).is_some();
        assert!(is_lint, "a warning that no level can silence: {diagnostic:?}");
        let place = diagnostic.span.map_or("", |span| &sql[span]);
        writeln!(text, "{} {:?}: [{place}] {}", diagnostic.code, diagnostic.severity, diagnostic.message).unwrap();
        if let Some(help) = diagnostic.help {
            writeln!(text, "      help: {help}").unwrap();
        }
    }
    if text.is_empty() { "no problems\n".to_owned() } else { text }
}

/// Queries behind `--- what is wrong`.
fn cases() -> Vec<(String, String)> {
    let text = include_str!("sql_mistakes.txt");
    let cases = text.split("--- ").skip(1).map(|case| case.split_once('\n').unwrap());
    cases.map(|(name, sql)| (name.to_owned(), sql.trim_end().to_owned())).collect()
}

#[test]
fn every_mistake_in_sql_has_its_message() {
    let mut text = String::new();
    for (name, sql) in cases() {
        writeln!(text, "--- {name}\n{sql}\n{}", problems(&sql)).unwrap();
    }
    insta::assert_snapshot!("sql_mistakes", text);
}

#[test]
fn every_mistake_in_sql_is_found() {
    for (name, sql) in cases() {
        let found = problems(&sql);
        match name.split_once(": ") {
            Some(("fine", _)) => assert_eq!(found, "no problems\n", "{name}\n{sql}"),
            Some(("costly", _)) => {
                assert!(found.contains("Warning") && !found.contains("Error"), "{name}\n{sql}\n{found}")
            }
            _ => assert_ne!(found, "no problems\n", "{name}\n{sql}"),
        }
    }
}

#[test]
fn comments_and_byte_order_marks_before_the_query_do_no_harm() {
    let sql = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";
    for before in
        ["\u{feff}", "-- a licence\n", "/* tag\ntitle = \"中文\"\n*/\n-- and more\n", "/* a comment */ /* tag */ "]
    {
        assert_eq!(problems(&format!("{before}{sql}")), "no problems\n", "{before:?}");
        let wrong = problems(&format!("{before}{}", sql.replace("COUNT(*)", "MAX(amout)")));
        assert!(wrong.starts_with("T0811 Error: [amout]"), "{before:?}: {wrong}");
    }
}

#[test]
fn deep_nesting_is_told_and_does_not_overflow() {
    let deep = format!("SELECT user_id, {}1{} AS x FROM orders GROUP BY user_id", "(".repeat(5000), ")".repeat(5000));
    assert!(problems(&deep).contains("the query is nested too deeply"), "{}", problems(&deep));
    let long = format!("SELECT user_id, {} AS x FROM orders GROUP BY user_id", vec!["1"; 3000].join(" + "));
    problems(&long);
    // Chains that the parser does not count as nesting.
    let chains = ["1 = ", "1 < ", "1 | ", "1 ^ ", "1 AND ", "NOT ", "~ ", "1 BETWEEN 1 AND ", "'a' LIKE "];
    let chains = chains.map(|link| format!("{}1", link.repeat(20_000)));
    let casts = ["::int", " IS NULL", "[1]", " COLLATE a", " AT TIME ZONE 'UTC'"]
        .map(|link| format!("1{}", link.repeat(20_000)));
    let exprs = chains.into_iter().chain(casts);
    let queries = exprs.map(|expr| format!("SELECT user_id, MAX({expr}) AS x FROM orders GROUP BY user_id"));
    // What the parser tries twice at every depth.
    for word in ["ARRAY[", "CAST(", "EXTRACT(", "TRIM(", "SUBSTRING(", "INTERVAL (", "EXISTS(", "(", "POSITION("] {
        let wrong = format!("SELECT user_id, MAX({}amount]) AS x FROM orders GROUP BY user_id", word.repeat(40));
        let begun = std::time::Instant::now();
        assert!(problems(&wrong).contains(" Error: "), "{}", problems(&wrong));
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{word} takes {:?}", begun.elapsed());
    }
    let clauses = ["JOIN orders ", "INTERSECT SELECT user_id FROM orders ", "|> WHERE true "];
    let clauses = clauses.map(|clause| format!("SELECT user_id FROM orders {}", clause.repeat(20_000)));
    for sql in queries.chain(clauses) {
        assert!(problems(&sql).contains("more operators of a kind"), "{}", &sql[..80]);
    }
}

#[test]
fn problems_of_views_are_told_at_the_views() {
    let files = [
        ("tagflow.toml", super::SETTINGS),
        ("schemas/orders.toml", ORDERS),
        ("schemas/first.sql", "SELECT user_id FROM second"),
        ("schemas/second.sql", "SELECT user_id FROM First"),
        ("schemas/behind.sql", "SELECT user_id, amont FROM first"),
        ("schemas/misspelt.sql", "SELECT user_id, amont FROM orders"),
        ("schemas/mistyped.sql", "SELECT user_id FROM orders WHERE order_time > 5"),
        ("schemas/divides.sql", "SELECT user_id, quantity / 2 AS half FROM orders"),
        ("schemas/reads_divides.sql", "SELECT user_id, half FROM divides"),
        ("tags/tag.sql", "SELECT user_id, COUNT(*) AS n FROM misspelt GROUP BY user_id"),
        ("tags/fine.sql", "SELECT user_id, MAX(half) AS n FROM reads_divides GROUP BY user_id"),
    ];
    insta::assert_snapshot!("view_mistakes", told(&files));
}

#[test]
fn problems_of_functions_are_told_at_the_functions() {
    let files = [
        ("tagflow.toml", super::SETTINGS),
        ("schemas/orders.toml", ORDERS),
        ("functions/query.sql", "SELECT 1"),
        ("functions/other.sql", "CREATE FUNCTION another(x INT) RETURNS INT RETURN x"),
        ("functions/around.sql", "CREATE FUNCTION around(x INT) RETURNS INT RETURN again(x)"),
        ("functions/again.sql", "CREATE FUNCTION again(x INT) RETURNS INT RETURN around(around(x))"),
        ("functions/no_return.sql", "CREATE FUNCTION no_return(x INT) RETURNS INT AS 'x'"),
        ("functions/half.sql", "CREATE FUNCTION half(x INT) RETURNS INT RETURN x / 2"),
        ("functions/too_many.sql", "CREATE FUNCTION too_many(x INT) RETURNS INT RETURN half(x, 2)"),
        ("functions/broken.sql", "CREATE FUNCTION broken(x INT) RETURNS INT RETURN CASE WHEN x"),
        ("tags/called_wrong.sql", "SELECT user_id, half(DISTINCT 5) AS n FROM orders GROUP BY user_id"),
    ];
    let mistakes = told(&files);
    // Names are looked at once each function stands by itself.
    let names = [
        ("tagflow.toml", super::SETTINGS),
        ("schemas/orders.toml", ORDERS),
        ("functions/unknown_column.sql", "CREATE FUNCTION unknown_column(x INT) RETURNS INT RETURN x + y"),
        ("functions/unknown_function.sql", "CREATE FUNCTION unknown_function(x INT) RETURNS INT RETURN twice(x)"),
        ("functions/wrong_type.sql", "CREATE FUNCTION wrong_type(x INT) RETURNS INT RETURN x + DATE '2026-01-01' * 2"),
    ];
    insta::assert_snapshot!("function_mistakes", format!("{mistakes}\n{}", told(&names)));
}

/// The problems of a project, one a line.
fn told(files: &[(&str, &str)]) -> String {
    let files: BTreeMap<String, String> =
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let (_folder, loaded) = super::load(&files, None);
    let (_, planned) = plan_project(loaded.project.as_ref().unwrap());
    let problems: Vec<_> = loaded.diagnostics.into_iter().chain(planned).collect();
    let mut lines: Vec<String> = (problems.iter())
        .map(|problem| {
            let file = problem.file.to_string_lossy().into_owned();
            let place = problem.span.clone().map_or("", |span| &files[&file][span]);
            format!("{file} {} [{place}] {}", problem.code, problem.message)
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

#[test]
fn letters_whose_capitals_are_longer_do_no_harm() {
    let told = problems("SELECT o.user_id, COUNT(*) AS İKﬁß (SELECT o.user_id FROM orders o GROUP BY o.user_id");
    assert!(told.contains(" Error: "), "{told}");
}

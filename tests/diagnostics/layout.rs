//! `tagflow fmt` over the queries of the tests: none may lose anything, none may be unstable.

use std::path::Path;

use tagflow::plan::sql::format::format;

#[test]
fn every_query_of_the_tests_keeps_its_tokens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut queries = Vec::new();
    for entry in std::fs::read_dir(root.join("tests/sql")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("SELECT ") || line.starts_with("WITH "));
        queries.extend(lines.map(ToString::to_string));
    }
    assert!(queries.len() > 300, "{}", queries.len());
    let file = Path::new("tags/a.sql");
    let mut left = Vec::new();
    for query in &queries {
        match format(file, query) {
            Ok(once) => assert_eq!(format(file, &once).as_ref(), Ok(&once), "{query}"),
            Err(reason) => left.push(format!("{reason}: {query}")),
        }
    }
    assert!(left.len() * 100 <= queries.len(), "{} of {}:\n{}", left.len(), queries.len(), left.join("\n"));
}

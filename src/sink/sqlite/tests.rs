use super::contract::{self, Fixture, changes, none, progress, table_of};
use super::*;

struct File(tempfile::TempDir);

impl Fixture for File {
    fn closed(&self) -> Box<dyn Sink> {
        Box::new(SqliteSink::new(&self.0.path().join("made/by/open/tags.db"), chrono_tz::Asia::Shanghai))
    }
}

crate::sink_contract!(File(tempfile::tempdir().unwrap()));

#[test]
fn reading_needs_no_claim_and_writing_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = File(folder);
    let mut writer = file.open();
    let mut reader = SqliteSink::new(&file.0.path().join("made/by/open/tags.db"), Tz::UTC);
    assert_eq!(reader.progress().unwrap(), []);
    let error = reader.retire_table("level").unwrap_err().to_string();
    assert!(error.ends_with("tags.db: the store was not opened for writing"), "{error}");
    writer.retire_table("level").unwrap();
}

#[test]
fn text_that_is_no_database_is_a_setup_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tags.db");
    std::fs::write(&path, "this is a text file and not a database at all, whatever its name says. ".repeat(40))
        .unwrap();
    let error = SqliteSink::new(&path, Tz::UTC).open(&contract::claim()).unwrap_err();
    assert!(matches!(error, SinkError::Setup { .. }), "{error}");
    assert!(!error.is_retryable());
}

#[test]
fn store_that_nobody_has_opened_says_what_makes_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = SqliteSink::new(&folder.path().join("tags.db"), Tz::UTC);
    let error = sink.registrations().unwrap_err().to_string();
    assert!(error.contains("no such table: _tagflow_tags") && error.contains("`tagflow run` makes"), "{error}");
}

#[test]
fn view_of_another_program_follows_the_tag_over_a_swap() {
    let file = File(tempfile::tempdir().unwrap());
    let mut sink = file.open();
    let rows = contract::every_type().project(&[0, 1]).unwrap();
    let live = table_of("flags", 1, &rows);
    let filled = std::sync::Arc::new(TagTable { table: super::super::shadow_table("flags"), ..(*live).clone() });
    sink.create_table(&live).unwrap();
    let other = Connection::open(file.0.path().join("made/by/open/tags.db")).unwrap();
    other.execute_batch("CREATE VIEW flagged AS SELECT COUNT(*) AS users FROM flags").unwrap();
    sink.create_table(&filled).unwrap();
    sink.commit(&[changes(&filled, &rows, &none(&live, &rows), 1)]).unwrap();
    sink.swap_table(
        &filled.table,
        "flags",
        &progress("flags", 1, 8),
        &contract::register("flags", 1),
        &contract::origin(),
    )
    .unwrap();
    let users: i64 = other.query_row("SELECT users FROM flagged", [], |row| row.get(0)).unwrap();
    assert_eq!(users, 8);
}

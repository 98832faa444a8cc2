use super::contract::{self, Fixture};
use super::*;

struct File(tempfile::TempDir);

impl Fixture for File {
    fn open(&self) -> Box<dyn Sink> {
        let mut sink = SqliteSink::new(&self.0.path().join("made/by/open/tags.db"), chrono_tz::Asia::Shanghai);
        sink.open().unwrap();
        Box::new(sink)
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
    let error = SqliteSink::new(&path, Tz::UTC).open().unwrap_err();
    assert!(matches!(error, SinkError::Setup { .. }), "{error}");
    assert!(!error.is_retryable());
}

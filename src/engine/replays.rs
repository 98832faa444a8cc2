//! Streams whose records are to be taken anew, since records of them that were dead letters fit the schema by now.
//!
//! Where a record ends depends on those before it in its partition, on what was late by then, on what was sent again:
//! added behind the others it would end elsewhere, and a tag that is filled from the topic would count it twice. So a replay
//! is a refill: each stream has a count in `replays.json` of the state directory, and where it is not zero it is part of the
//! fingerprints of all tags that read the stream. Whatever then happens (kills, other reloads) is what happens to a
//! tag whose SQL has changed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::engine::state_dir::{change_json, read_json};

/// How often each stream was replayed; those that never were are not in it.
pub type Replays = BTreeMap<String, u64>;

const FILE: &str = "replays.json";

/// What was asked for so far.
pub fn read(state_dir: &Path) -> io::Result<Replays> {
    read_json(state_dir, FILE)
}

/// Asks for one more replay of a stream.
pub fn ask(state_dir: &Path, stream: &str) -> io::Result<()> {
    change_json(state_dir, FILE, |replays: &mut Replays| *replays.entry(stream.to_string()).or_default() += 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_are_counted_by_stream_and_a_file_that_is_no_json_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        assert_eq!(read(&state_dir).unwrap(), Replays::new());
        for stream in ["orders", "views", "orders"] {
            ask(&state_dir, stream).unwrap();
        }
        assert_eq!(read(&state_dir).unwrap(), Replays::from([("orders".into(), 2), ("views".into(), 1)]));
        std::fs::write(state_dir.join(FILE), "{").unwrap();
        assert!(read(&state_dir).is_err() && ask(&state_dir, "orders").is_err());
    }
}

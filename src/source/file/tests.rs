use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};

use super::*;
use crate::catalog::{Column, Stream, TimestampFormat};
use crate::config::Connection;
use crate::source::{DeadLetters, ReadRoom, SourceHandle, Tables, start_source};

const PATIENCE: Duration = Duration::from_secs(20);

struct Reading {
    events: Receiver<SourceEvent>,
    handle: SourceHandle,
    dead_letters: Arc<DeadLetters>,
}

fn stream(topic: &str, format: Format) -> Stream {
    let column = |name: &str, data_type| Column {
        name: name.into(),
        data_type,
        nullable: true,
        path: vec![name.into()],
        timestamp_format: TimestampFormat::Iso,
        misfits: Default::default(),
    };
    Stream {
        name: "orders".into(),
        file: "schemas/orders.toml".into(),
        title: None,
        connection: "files".into(),
        topic: topic.into(),
        format,
        timezone: chrono_tz::Tz::UTC,
        start: Start::Earliest,
        time: None,
        kind: Default::default(),
        key: vec![],
        truncates: false,
        on_lost: Default::default(),
        history: None,
        archive: None,
        unique: None,
        columns: vec![column("id", DataType::Int64), column("name", DataType::Utf8)],
    }
}

fn read_from(dir: &Path, stream: Stream, follow: bool, from: &[(i32, i64)], until: Option<&[(i32, i64)]>) -> Reading {
    let (sender, events) = sync_channel(4);
    let wall_clock: crate::source::WallClock = Arc::new(|| 0);
    let dead_letters = Arc::new(DeadLetters::new(dir.join(".dead-letters"), 1 << 20, wall_clock.clone()));
    let context = SourceContext {
        timezone: chrono_tz::UTC,
        root: "nowhere".into(),
        dead_letters: dead_letters.clone(),
        tables: Arc::new(Tables::new(dir)),
        state_dir: dir.join(".state"),
        wall_clock,
        registries: crate::source::Registries::default(),
    };
    let request = ReadRequest {
        stream: Arc::new(stream),
        columns: vec![0],
        from: from.iter().copied().collect(),
        until: until.map(|until| until.iter().copied().collect::<BTreeMap<_, _>>()),
        room: ReadRoom::default(),
    };
    let connection = Connection::File { path: dir.to_path_buf(), follow };
    let handle = start_source(request, &connection, &context, sender).unwrap();
    Reading { events, handle, dead_letters }
}

fn read(dir: &Path, topic: &str, follow: bool) -> Reading {
    read_from(dir, stream(topic, Format::Json), follow, &[], None)
}

impl Reading {
    fn event(&self) -> SourceEvent {
        self.events.recv_timeout(PATIENCE).expect("an event should come")
    }

    /// (id, offset) of the next rows, until there are that many.
    fn rows(&self, count: usize) -> Vec<(i64, i64)> {
        let mut rows = Vec::new();
        while rows.len() < count {
            match self.event() {
                SourceEvent::Batch(batch) => {
                    let ids = batch.batch.column(0).as_primitive::<Int64Type>();
                    rows.extend(ids.values().iter().copied().zip(batch.offsets));
                }
                SourceEvent::Partition { .. } | SourceEvent::Announced { .. } | SourceEvent::AtEnd { .. } => {}
                other => panic!("{other:?} after {rows:?}"),
            }
        }
        rows
    }

    /// All ids up to `Finished`, and where each partition ended.
    fn to_the_end(&self) -> (Vec<i64>, BTreeMap<i32, i64>) {
        let (mut ids, mut ends) = (Vec::new(), BTreeMap::new());
        loop {
            match self.event() {
                SourceEvent::Batch(batch) => {
                    ids.extend_from_slice(batch.batch.column(0).as_primitive::<Int64Type>().values());
                    ends.insert(batch.partition.number, batch.next_offset);
                }
                SourceEvent::Partition { .. } | SourceEvent::Announced { .. } | SourceEvent::AtEnd { .. } => {}
                SourceEvent::Finished { .. } => return (ids, ends),
                other => panic!("{other:?}"),
            }
        }
    }

    fn failure(&self) -> String {
        loop {
            match self.event() {
                SourceEvent::Failed { message, .. } => return message,
                SourceEvent::Finished { .. } => panic!("finished instead"),
                _ => {}
            }
        }
    }
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn file_is_read_to_its_end_with_the_bytes_as_offsets() {
    let dir = tempfile::tempdir().unwrap();
    append(&dir.path().join("orders.jsonl"), "{\"id\":1}\n\n{\"id\":\"x\"}\r\n{\"id\":2}");
    let reading = read(dir.path(), "orders.jsonl", false);
    assert_eq!(reading.rows(2), [(1, 0), (2, 22)]);
    assert!(matches!(reading.event(), SourceEvent::AtEnd { .. }));
    assert!(matches!(reading.event(), SourceEvent::Finished { .. }));
    let letters = reading.dead_letters.read("orders").unwrap();
    assert_eq!((letters.len(), letters[0].offset), (1, 10));
    assert_eq!(letters[0].error, "column \"id\": expected BIGINT, found \"x\"");
}

#[test]
fn folder_is_read_in_name_order_with_stable_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("orders");
    fs::create_dir(&folder).unwrap();
    append(&folder.join("b.jsonl"), "{\"id\":2}\n");
    append(&folder.join("a.jsonl"), "{\"id\":1}\n");
    append(&folder.join(".hidden"), "{\"id\":9}\n");
    let (ids, ends) = read(dir.path(), "orders", false).to_the_end();
    assert_eq!(ids, [1, 2]);
    let number = |name: &str| (crc32fast::hash(name.as_bytes()) & 0x7FFF_FFFF) as i32;
    assert_eq!(ends, BTreeMap::from([(number("a.jsonl"), 9), (number("b.jsonl"), 9)]));
    append(&folder.join("0.jsonl"), "{\"id\":3}\n");
    append(&folder.join("a.jsonl"), "{\"id\":4}\n");
    let from: Vec<(i32, i64)> = ends.into_iter().collect();
    let again = read_from(dir.path(), stream("orders", Format::Json), false, &from, None);
    assert_eq!(again.to_the_end().0, [3, 4]);
}

#[test]
fn follow_waits_for_the_rest_of_a_line_and_finds_new_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("orders");
    fs::create_dir(&folder).unwrap();
    append(&folder.join("a.jsonl"), "{\"id\":1}\n{\"id\"");
    let reading = read(dir.path(), "orders", true);
    assert_eq!(reading.rows(1), [(1, 0)]);
    // Whoever waits for what is there already must not wait for the rest of the line.
    assert!(matches!(reading.event(), SourceEvent::AtEnd { .. }));
    append(&folder.join("a.jsonl"), ":2}\n");
    assert_eq!(reading.rows(1), [(2, 9)]);
    append(&folder.join("b.jsonl"), "{\"id\":3}\n");
    assert_eq!(reading.rows(1), [(3, 0)]);
    reading.handle.stop();
    assert!(reading.dead_letters.read("orders").unwrap().is_empty());
}

#[test]
fn missing_file_is_waited_for_while_following() {
    let dir = tempfile::tempdir().unwrap();
    let reading = read(dir.path(), "late.jsonl", true);
    let SourceEvent::Trouble { message, .. } = reading.event() else { panic!("trouble should be told") };
    assert!(message.contains("late.jsonl: No such file"), "{message}");
    append(&dir.path().join("late.jsonl"), "{\"id\":1}\n");
    assert!(matches!(reading.event(), SourceEvent::Partition { .. } | SourceEvent::Recovered { .. }));
}

#[test]
fn missing_file_fails_a_read_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let message = read(dir.path(), "no.jsonl", false).failure();
    assert!(message.contains("no.jsonl: No such file"), "{message}");
}

#[test]
fn link_that_leads_out_of_the_connections_folder_is_not_read() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    append(&outside.path().join("secret.jsonl"), "{\"id\":7}\n");
    let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
    link(&outside.path().join("secret.jsonl"), "file.jsonl");
    link(outside.path(), "folder");
    for topic in ["file.jsonl", "folder", "folder/secret.jsonl"] {
        let expected = format!("{topic}: a symbolic link leads out of the connection's folder");
        let message = read(dir.path(), topic, false).failure();
        assert!(message.ends_with(&expected), "{message}");
    }
    // One that turns up among the files of a folder.
    fs::create_dir(dir.path().join("orders")).unwrap();
    append(&dir.path().join("orders/a.jsonl"), "{\"id\":1}\n");
    let reading = read(dir.path(), "orders", true);
    assert_eq!(reading.rows(1), [(1, 0)]);
    link(&outside.path().join("secret.jsonl"), "orders/b.jsonl");
    loop {
        match reading.event() {
            SourceEvent::Trouble { message, .. } => {
                assert!(
                    message.ends_with("orders: the symbolic link \"b.jsonl\" leads out of the folder"),
                    "{message}"
                );
                break;
            }
            SourceEvent::Batch(_) => panic!("what lies outside is read"),
            _ => {}
        }
    }
}

#[test]
fn pipe_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    assert!(std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap().success());
    for start in [Start::Earliest, Start::Latest] {
        let stream = Stream { start, ..stream("pipe", Format::Json) };
        let message = read_from(dir.path(), stream, false, &[], None).failure();
        assert!(message.ends_with("pipe: it is no regular file"), "{message}");
    }
}

#[test]
fn cut_or_replaced_file_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orders.jsonl");
    append(&path, "{\"id\":1}\n{\"id\":2}\n");
    let reading = read(dir.path(), "orders.jsonl", true);
    assert_eq!(reading.rows(2).len(), 2);
    fs::write(&path, "{\"id\":1}\n").unwrap();
    let message = reading.failure();
    assert!(message.ends_with("orders.jsonl has 9 bytes but had at least 18: it was cut"), "{message}");

    let reading = read(dir.path(), "orders.jsonl", true);
    assert_eq!(reading.rows(1).len(), 1);
    append(&dir.path().join("new"), "{\"id\":7}\n{\"id\":8}\n{\"id\":9}\n");
    fs::rename(dir.path().join("new"), &path).unwrap();
    assert!(reading.failure().ends_with("was replaced by another file while it was being read"));
}

#[test]
fn bounded_read_ends_exactly_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    append(&dir.path().join("orders.jsonl"), "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n");
    for (from, until, ids) in [(0, 18, vec![1, 2]), (9, 18, vec![2]), (9, 27, vec![2, 3]), (18, 18, vec![])] {
        let bounded =
            read_from(dir.path(), stream("orders.jsonl", Format::Json), true, &[(0, from)], Some(&[(0, until)]));
        assert_eq!(bounded.to_the_end().0, ids);
    }
}

#[test]
fn csv_header_names_the_fields_and_quotes_may_span_lines() {
    let dir = tempfile::tempdir().unwrap();
    let text = "name,id\n\"two\nlines\",1\nx,2\n\"stray,3\ny,4\n";
    append(&dir.path().join("orders.csv"), text);
    let reading = read_from(dir.path(), stream("orders.csv", Format::Csv), false, &[], None);
    let rows = reading.rows(3);
    assert_eq!(rows, [(1, 8), (2, 22), (4, 35)]);
    assert_eq!(reading.dead_letters.read("orders").unwrap()[0].raw.as_deref(), Some("\"stray,3\n"));
    // A restart in the middle reads the header again.
    let again = read_from(dir.path(), stream("orders.csv", Format::Csv), false, &[(0, 22)], None);
    assert_eq!(again.rows(2), [(2, 22), (4, 35)]);
}

#[test]
fn stop_is_prompt_even_when_nobody_takes_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    let line = "{\"id\":1}\n".repeat(20_000);
    fs::create_dir(dir.path().join("orders")).unwrap();
    for number in 0..8 {
        append(&dir.path().join(format!("orders/{number}.jsonl")), &line);
    }
    let reading = read(dir.path(), "orders", true);
    // The channel holds four events, so the source is waiting when it is stopped.
    let SourceEvent::Partition { .. } = reading.event() else { panic!("the first partition should be told") };
    let began = std::time::Instant::now();
    reading.handle.stop();
    // It gives up on its threads after 150 ms; the rest is for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

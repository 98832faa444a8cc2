use std::fs;
use std::sync::mpsc::{Receiver, sync_channel};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;

use super::*;
use crate::catalog::{Column, Format, Start, TimestampFormat};
use crate::source::{DeadLetters, ReadRoom, Registries, SourceHandle, start_source};

const PATIENCE: Duration = Duration::from_secs(20);

/// A project's folder with one table in a file, and the sources of one process.
struct World {
    folder: tempfile::TempDir,
    format: Format,
    context: SourceContext,
}

struct Reading {
    events: Receiver<SourceEvent>,
    _handle: SourceHandle,
    /// What the rows read so far make of the table.
    table: BTreeMap<String, String>,
    next: i64,
    is_announced: bool,
    trouble: Option<String>,
    failure: Option<String>,
    is_finished: bool,
}

fn context(folder: &Path) -> SourceContext {
    let wall_clock: WallClock = Arc::new(|| 7);
    SourceContext {
        timezone: chrono_tz::UTC,
        root: "nowhere".into(),
        dead_letters: Arc::new(DeadLetters::new(folder.join("dead-letters"), 1 << 20, wall_clock.clone())),
        tables: Arc::new(Tables::new(folder)),
        state_dir: folder.to_path_buf(),
        wall_clock,
        registries: Registries::default(),
    }
}

impl World {
    fn new(format: Format) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path());
        World { folder, format, context }
    }

    /// Everything in memory is gone.
    fn restart(&mut self) {
        self.context = context(self.folder.path());
    }

    fn write(&self, content: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join("draft"), content).unwrap();
        fs::rename(self.folder.path().join("draft"), self.folder.path().join("levels")).unwrap();
    }

    fn read_from(&self, next: Option<i64>, until: Option<i64>) -> Reading {
        let column = |name: &str, data_type| Column {
            name: name.into(),
            data_type,
            nullable: name != "id",
            path: vec![name.into()],
            timestamp_format: TimestampFormat::Iso,
            misfits: Default::default(),
        };
        let stream = Stream {
            name: "levels".into(),
            file: "schemas/levels.toml".into(),
            title: None,
            connection: "files".into(),
            topic: "levels".into(),
            format: self.format.clone(),
            timezone: chrono_tz::UTC,
            start: Start::Earliest,
            time: None,
            kind: Kind::File,
            key: vec!["id".into()],
            truncates: false,
            on_lost: Default::default(),
            history: None,
            archive: None,
            unique: None,
            columns: vec![
                column("id", DataType::Int64),
                column("level", DataType::Utf8),
                column("score", DataType::Float64),
            ],
        };
        let deleted = stream.schema().index_of(crate::catalog::DELETED).unwrap();
        let (sender, events) = sync_channel(64);
        let request = ReadRequest {
            stream: Arc::new(stream),
            columns: vec![0, 1, 2, deleted],
            from: next.map(|next| (0, next)).into_iter().collect(),
            until: until.map(|until| [(0, until)].into()),
            room: ReadRoom::default(),
        };
        let connection = Connection::File { path: self.folder.path().to_path_buf(), follow: false };
        let handle = start_source(request, &connection, &self.context, sender).unwrap();
        Reading {
            events,
            _handle: handle,
            table: BTreeMap::new(),
            next: -1,
            is_announced: false,
            trouble: None,
            failure: None,
            is_finished: false,
        }
    }

    fn read(&self) -> Reading {
        self.read_from(None, None)
    }

    fn letters(&self) -> Vec<String> {
        let letters = self.context.dead_letters.read("levels").unwrap();
        letters.iter().map(|letter| format!("{} {}", letter.offset, letter.error)).collect()
    }
}

impl Reading {
    fn take(&mut self) {
        match self.events.recv_timeout(PATIENCE).expect("an event should come") {
            SourceEvent::Batch(batch) => {
                self.next = batch.next_offset;
                let text = |column: usize, row| array_value_to_string(batch.batch.column(column), row).unwrap();
                for row in 0..batch.batch.num_rows() {
                    match text(3, row).as_str() {
                        "true" => drop(self.table.remove(&text(0, row))),
                        _ => drop(self.table.insert(text(0, row), format!("{} {}", text(1, row), text(2, row)))),
                    }
                }
            }
            SourceEvent::Partition { next, .. } => self.next = next,
            SourceEvent::Announced { .. } => self.is_announced = true,
            SourceEvent::Trouble { message, .. } => self.trouble = Some(message),
            SourceEvent::Recovered { .. } => self.trouble = None,
            SourceEvent::Failed { message, .. } => self.failure = Some(message),
            SourceEvent::Finished { .. } => self.is_finished = true,
            other => panic!("{other:?}"),
        }
    }

    fn until(&mut self, holds: impl Fn(&Reading) -> bool) {
        while !holds(self) {
            self.take();
        }
    }

    fn until_table(&mut self, rows: &str) {
        self.until(|reading| reading.shown() == rows);
    }

    fn shown(&self) -> String {
        let rows: Vec<String> =
            self.table.iter().map(|(id, row)| format!("{id} {row}").trim_end().to_string()).collect();
        rows.join(", ")
    }
}

#[test]
fn csv_table_follows_its_file_and_all_readers_see_the_same_offsets() {
    let mut world = World::new(Format::Csv);
    world.write("id,level,score,more\n1,gold,0.5,x\n2,\"a,b\",,y\n");
    let mut first = world.read();
    first.until(|reading| reading.is_announced);
    assert_eq!(first.shown(), "1 gold 0.5, 2 a,b");
    let mut second = world.read();
    second.until(|reading| reading.is_announced);
    assert_eq!((second.next, second.shown()), (first.next, first.shown()));

    world.write("more,ID,score,level\nx,1,0.5,silver\nz,3,1,\"\"\n");
    for reading in [&mut first, &mut second] {
        reading.until_table("1 silver 0.5, 3  1.0");
        assert_eq!(reading.next, 5);
    }
    // After a restart the log alone says what was; what has changed meanwhile follows.
    drop((first, second));
    world.restart();
    world.write("id,level,score\n3,x,1\n");
    let mut again = world.read_from(Some(2), None);
    again.until_table("3 x 1.0");
    let mut replayed = world.read_from(Some(1), Some(4));
    replayed.until(|reading| reading.is_finished);
    assert_eq!((replayed.next, replayed.shown().as_str()), (4, "1 silver 0.5, 2 a,b, 3  1.0"));
    assert_eq!(world.letters(), Vec::<String>::new());
}

#[test]
fn what_is_no_table_changes_nothing_and_is_trouble() {
    let world = World::new(Format::Csv);
    world.write("id,level,score\n1,gold,1\n");
    let mut reading = world.read();
    reading.until(|reading| reading.is_announced);
    let path = world.folder.path().join("levels");
    for (content, problem) in [
        (None, "No such file or directory (os error 2)"),
        (Some(""), "the file is empty: that is no table"),
        (Some("id,level\n1,gold\n"), "the first line names no column \"score\", only id, level"),
        (Some("id,level,score\n1,gold,1\n2,\"sil"), "the last line is cut"),
        (Some("id,level,score,Level\n"), "the first line names \"Level\" twice"),
    ] {
        match content {
            Some(content) => world.write(content),
            None => fs::remove_file(&path).unwrap(),
        }
        let expected = format!("{}: {problem}; the rows stay as they were", path.display());
        reading.until(|reading| reading.trouble.as_ref() == Some(&expected));
        assert_eq!(reading.shown(), "1 gold 1.0");
    }
    world.write("id,level,score\n2,gold,1\n");
    reading.until_table("2 gold 1.0");
    reading.until(|reading| reading.trouble.is_none());
    // That it is empty is said by a header without rows.
    world.write("id,level,score\n");
    reading.until_table("");
}

#[test]
fn link_that_leads_out_and_pipe_change_nothing_and_are_trouble() {
    let world = World::new(Format::Csv);
    world.write("id,level,score\n1,gold,1\n");
    let mut reading = world.read();
    reading.until(|reading| reading.is_announced);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "id,level,score\n7,secret,7\n").unwrap();
    let path = world.folder.path().join("levels");
    for (is_link, problem) in
        [(true, "a symbolic link leads out of the connection's folder"), (false, "it is no regular file")]
    {
        fs::remove_file(&path).unwrap();
        match is_link {
            true => std::os::unix::fs::symlink(outside.path().join("secret"), &path).unwrap(),
            false => assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()),
        }
        let expected = format!("{}: {problem}; the rows stay as they were", path.display());
        reading.until(|reading| reading.trouble.as_ref() == Some(&expected));
        assert_eq!(reading.shown(), "1 gold 1.0");
    }
    world.write("id,level,score\n2,gold,1\n");
    reading.until_table("2 gold 1.0");
}

#[test]
fn file_that_is_not_there_yet_is_waited_for() {
    let world = World::new(Format::Json);
    let mut reading = world.read();
    reading.until(|reading| reading.trouble.is_some());
    assert!(!reading.is_announced);
    world.write("{\"id\":1,\"level\":\"gold\"}");
    reading.until(|reading| reading.is_announced && reading.trouble.is_none());
    assert_eq!(reading.shown(), "1 gold");
}

#[test]
fn last_row_of_a_key_counts_and_what_is_no_row_is_a_dead_letter_once() {
    let mut world = World::new(Format::Json);
    let good = "{\"id\":1,\"level\":\"gold\"}\n{\"id\":\"01\",\"level\":\"silver\"}\n";
    let bad = "{\"id\":null,\"level\":\"x\"}\n[1]\n{\"id\":3,\"score\":\"high\"}\n";
    world.write(format!("{good}{bad}"));
    let mut reading = world.read();
    reading.until(|reading| reading.is_announced);
    assert_eq!(reading.shown(), "1 silver");
    let letters = [
        "0 column \"id\": expected BIGINT NOT NULL, found null",
        "1 no JSON object: invalid type: sequence, expected a map at line 1 column 0",
        "3 column \"score\": expected DOUBLE, found \"high\"",
    ];
    assert_eq!(world.letters(), letters);
    drop(reading);
    // Neither another look nor a restart tells them again.
    world.restart();
    world.write(format!("{bad}{good}{{\"id\":2}}\n"));
    let mut reading = world.read();
    reading.until_table("1 silver, 2");
    assert_eq!(reading.next, 5);
    assert_eq!(world.letters(), letters);
}

#[test]
fn parquet_table_follows_its_file() {
    let parquet = |ids: Vec<i64>, levels: Vec<Option<&str>>, scores: Vec<f64>| {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("score", Arc::new(Float64Array::from(scores))),
            ("id", Arc::new(Int64Array::from(ids))),
            ("Level", Arc::new(StringArray::from(levels))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    };
    let world = World::new(Format::Parquet);
    let whole = parquet(vec![1, 2], vec![Some("gold"), None], vec![0.1, 1e300]);
    world.write(&whole[..whole.len() - 1]);
    let mut reading = world.read();
    reading.until(|reading| reading.trouble.as_ref().is_some_and(|trouble| trouble.contains("no whole Parquet file")));
    world.write(&whole);
    reading.until(|reading| reading.is_announced);
    assert_eq!(reading.shown(), "1 gold 0.1, 2  1e300");
    world.write(parquet(vec![2, 3], vec![Some("a\"b\n"), Some("中")], vec![f64::NAN, -0.5]));
    reading.until_table("3 中 -0.5");
    assert_eq!(world.letters(), ["2 NaN and infinity are no values of a table"]);
}

#[test]
fn lost_log_is_a_failure_for_who_stands_in_the_middle_of_it() {
    let mut world = World::new(Format::Csv);
    world.write("id,level,score\n1,gold,1\n");
    world.read().until(|reading| reading.is_announced);
    fs::remove_dir_all(world.folder.path().join("tables")).unwrap();
    world.restart();
    let mut reading = world.read_from(Some(1), None);
    reading.until(|reading| reading.failure.is_some());
    let failure = reading.failure.unwrap();
    assert!(failure.contains("rows.log ends at 0, but had 1 records once: bring it back"), "{failure}");
}

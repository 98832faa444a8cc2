//! `memory_limit` holds for the process, whatever its state: keys leave memory, come back when they are asked for, and so
//! they do after a crash. A limit that leaves no room to work in is refused.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tagflow::engine::status::{Status, TagState};

use crate::shop::{PATIENCE, free_port};

/// Bytes of a note. Both tags keep it.
const NOTE: usize = 1_000;
/// Their notes alone, kept twice, are 120 MB, to which a debug build adds as much of its own.
const USERS: u64 = 60_000;
const LIMIT: u64 = 224 << 20;
/// The process is looked at between epochs: by so much it may have had more in between.
const ALLOWED: u64 = LIMIT / 20;

struct Project {
    folder: tempfile::TempDir,
    address: String,
}

struct Running<'a> {
    child: Child,
    project: &'a Project,
}

impl Project {
    fn new(limit: u64) -> Self {
        let project = Project { folder: tempfile::tempdir().unwrap(), address: format!("127.0.0.1:{}", free_port()) };
        for part in ["schemas", "tags", "data"] {
            fs::create_dir(project.path(part)).unwrap();
        }
        let settings = format!(
            "timezone = \"UTC\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n[connection.files]\ntype = \"file\"\n\
             path = \"data\"\nfollow = true\n[store]\nurl = \"sqlite:tags.db\"\n[serve]\nlisten = \"{}\"\n\
             [engine]\nmemory_limit = \"{limit}B\"\ncheckpoint_interval = \"1s\"\n",
            project.address
        );
        let schema = "connection = \"files\"\ntopic = \"notes.jsonl\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT\"\n\
                      note = \"VARCHAR\"\n";
        let several = "SELECT user_id, COUNT(DISTINCT note) AS notes FROM notes GROUP BY user_id \
                       HAVING COUNT(DISTINCT note) > 1";
        let last = "SELECT user_id, MIN(note) AS first_note FROM notes GROUP BY user_id HAVING COUNT(*) > 1";
        let files = [("tagflow.toml", settings.as_str()), ("schemas/notes.toml", schema)];
        for (file, text) in files.into_iter().chain([("tags/several.sql", several), ("tags/first.sql", last)]) {
            fs::write(project.path(file), text).unwrap();
        }
        project
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// One more note of each of these users, which nobody else has.
    fn append(&self, users: impl Iterator<Item = u64>, what: &str) {
        let file = fs::File::options().create(true).append(true).open(self.path("data/notes.jsonl")).unwrap();
        let mut file = std::io::BufWriter::new(file);
        for user in users {
            writeln!(file, "{{\"user_id\":{user},\"note\":\"{what} {user:>NOTE$}\"}}").unwrap();
        }
        file.flush().unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tagflow"));
        command.args(["run", "--project"]).arg(self.folder.path());
        command
    }

    fn start(&self) -> Running<'_> {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = self.command().stdout(Stdio::null()).stderr(log).spawn();
        Running { child: child.unwrap(), project: self }
    }

    fn ask(&self, sql: &str) -> Vec<(i64, String)> {
        let store = rusqlite::Connection::open(self.path("tags.db")).unwrap();
        let mut query = store.prepare(sql).unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// The tables say that these users, and no others, have two notes.
    fn compare(&self, users: impl Iterator<Item = u64>) {
        let expected: Vec<u64> = users.collect();
        let several = self.ask("SELECT user_id, CAST(notes AS TEXT) FROM several ORDER BY user_id");
        let expected_several: Vec<(i64, String)> =
            expected.iter().map(|user| (*user as i64, "2".to_string())).collect();
        assert!(several == expected_several, "{} rows, not {}", several.len(), expected_several.len());
        let first = self.ask("SELECT user_id, first_note FROM first ORDER BY user_id");
        let note = |user: &u64| (*user as i64, format!("first {user:>NOTE$}"));
        assert!(first == expected.iter().map(note).collect::<Vec<_>>(), "{} rows", first.len());
    }
}

impl Running<'_> {
    fn until(&mut self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        let mut seen = None;
        loop {
            let log = || fs::read_to_string(self.project.path("log")).unwrap();
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended: {}", log());
            let answer = ureq::get(format!("http://{}/status", self.project.address)).call();
            if let Ok(mut answer) = answer {
                let status: Status = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
                if holds(&status) {
                    return status;
                }
                seen = Some(status);
            }
            assert!(begun.elapsed() < PATIENCE, "still not: {what}\n{seen:#?}\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The most memory that it had since its start, as the kernel has counted it, is within the limit.
    fn has_kept_the_limit(&self) {
        let memory = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let most = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let most: u64 = most.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        assert!(most < LIMIT + ALLOWED, "{} MiB of {} MiB", most >> 20, LIMIT >> 20);
    }

    /// Both tags have so many rows, and a checkpoint of them: the store had them before.
    fn until_rows(&mut self, rows: u64) {
        let seen = self.until("both tags have that many rows", |status| {
            let is_there = |tag: &tagflow::engine::status::TagStatus| tag.state == TagState::Live && tag.rows == rows;
            status.tags.iter().filter(|tag| is_there(tag)).count() == 2 && status.lag == 0
        });
        self.until("a checkpoint of them", |status| status.checkpoint_epoch.is_some_and(|epoch| epoch >= seen.epoch));
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn process_stays_within_the_memory_limit_while_its_state_is_larger_and_right() {
    let project = Project::new(LIMIT);
    project.append(0..USERS, "first");
    let mut daemon = project.start();
    let filled = daemon.until("both tags are live", |status| {
        status.tags.iter().filter(|tag| tag.state == TagState::Live).count() == 2 && status.state_rows >= USERS
    });
    assert!(filled.spilled_bytes > USERS * NOTE as u64, "{} bytes are on disk", filled.spilled_bytes);
    // Those that were not seen for long are asked for, and a first one of them twice.
    project.append((100..9_100).step_by(3).chain([100]), "second");
    daemon.until_rows(3_000);
    daemon.has_kept_the_limit();
    drop(daemon);
    project.compare((100..9_100).step_by(3));

    let mut daemon = project.start();
    daemon.until("it goes on", |status| status.tags.iter().filter(|tag| tag.state == TagState::Live).count() == 2);
    project.append((50_000..56_000).step_by(3), "second");
    daemon.until_rows(5_000);
    daemon.has_kept_the_limit();
    drop(daemon);
    project.compare((100..9_100).step_by(3).chain((50_000..56_000).step_by(3)));
}

#[test]
fn memory_limit_that_leaves_no_room_to_work_in_is_refused() {
    let project = Project::new(48 << 20);
    let output = project.command().output().unwrap();
    assert!(!output.status.success());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("error: memory_limit is 48.0 MiB, of which the process takes "), "{log}");
    assert!(log.contains(" MiB before it holds anything: it needs "), "{log}");
}

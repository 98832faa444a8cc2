//! A tag whose state is over its limit is set aside alone, while it is filled and while it runs, and comes back.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tagflow::engine::daemon::{DaemonOptions, OtherDaemon, run};
use tagflow::engine::desired::plan_project;
use tagflow::engine::status::{SharedStatus, Status, TagState, read};

const PATIENCE: Duration = Duration::from_secs(60);

struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["schemas", "tags", "data"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        let project = Project(folder);
        project.write(
            "tagflow.toml",
            "timezone = \"UTC\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n[connection.files]\ntype = \"file\"\n\
             path = \"data\"\nfollow = true\n[store]\nurl = \"sqlite:tags.db\"\n[engine]\nstate_limit = \"1GB\"\n",
        );
        project.write(
            "schemas/orders.toml",
            "connection = \"files\"\ntopic = \"orders.jsonl\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT\"\n",
        );
        project
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    /// A tag of one entry a user, or of one for all.
    fn tag(&self, name: &str, limit: &str, sql: &str) {
        self.write(&format!("tags/{name}.sql"), &format!("/* tag\nstate_limit = \"{limit}\"\n*/\n{sql}"));
    }

    fn append(&self, users: std::ops::Range<u64>) {
        let file = fs::File::options().create(true).append(true).open(self.path("data/orders.jsonl")).unwrap();
        let mut file = std::io::BufWriter::new(file);
        users.for_each(|user| writeln!(file, "{{\"user_id\": {user}}}").unwrap());
        file.flush().unwrap();
    }
}

fn until(status: &SharedStatus, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
    let begun = Instant::now();
    loop {
        let now = read(status);
        if holds(&now) {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE, "still not: {what}\n{now:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn tag<'a>(status: &'a Status, name: &str) -> Option<&'a tagflow::engine::status::TagStatus> {
    status.tags.iter().find(|tag| tag.tag == name)
}

fn is(status: &Status, name: &str, state: TagState) -> bool {
    tag(status, name).is_some_and(|tag| tag.state == state)
}

fn rows(project: &Path, table: &str) -> i64 {
    let store = rusqlite::Connection::open(project.join("tags.db")).unwrap();
    store.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

const PER_USER: &str = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";
const FEW: &str = "SELECT user_id, COUNT(*) AS n FROM orders WHERE user_id < 10 GROUP BY user_id";

#[test]
fn tag_over_its_state_limit_is_set_aside_alone_and_comes_back_with_another_limit() {
    let project = Project::new();
    project.append(0..40_000);
    project.tag("greedy", "300kB", PER_USER);
    project.tag("growing", "1GB", &PER_USER.replace("COUNT(*)", "MAX(user_id)"));
    project.tag("calm", "1GB", FEW);
    let loaded = tagflow::project::load(project.0.path(), None);
    let (desired, problems) = plan_project(&loaded.project.unwrap());
    assert_eq!(desired.tags.len(), 3, "{problems:?}");
    let (status, shutdown) = (SharedStatus::default(), Arc::new(AtomicBool::new(false)));
    let options = DaemonOptions {
        desired,
        watched: Some(loaded.fingerprint),
        shutdown: Arc::clone(&shutdown),
        status: Arc::clone(&status),
        until_caught_up: false,
        accept_removals: false,
        other_daemon: OtherDaemon::Refuse,
    };
    let daemon = std::thread::Builder::new().stack_size(64 << 20).spawn(move || run(options)).unwrap();

    let seen = until(&status, "the greedy tag is set aside in its fill, the others live", |status| {
        is(status, "greedy", TagState::Failed)
            && is(status, "growing", TagState::Live)
            && is(status, "calm", TagState::Live)
    });
    let message = tag(&seen, "greedy").unwrap().message.clone().unwrap();
    assert!(message.contains("and its state_limit is 293.0 KiB: bound it by the clock"), "{message}");
    assert_eq!(rows(project.0.path(), "growing"), 40_000);

    // Another limit alone lets it in.
    project.tag("greedy", "1GB", PER_USER);
    until(&status, "the mended tag follows", |status| is(status, "greedy", TagState::Live));
    assert_eq!(rows(project.0.path(), "greedy"), 40_000);

    // One that runs keeps its table as it is.
    project.tag("growing", "300kB", &PER_USER.replace("COUNT(*)", "MAX(user_id)"));
    until(&status, "the tag that runs is set aside", |status| is(status, "growing", TagState::Failed));
    project.append(40_000..41_000);
    until(&status, "the others go on", |status| tag(status, "greedy").is_some_and(|tag| tag.rows == 41_000));
    let deadline = Instant::now() + PATIENCE;
    while rows(project.0.path(), "greedy") < 41_000 {
        assert!(Instant::now() < deadline, "the rows are not written");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(rows(project.0.path(), "growing"), 40_000);
    project.tag("growing", "1GB", &PER_USER.replace("COUNT(*)", "MAX(user_id)"));
    until(&status, "it follows again", |status| {
        is(status, "growing", TagState::Live) && tag(status, "growing").is_some_and(|tag| tag.rows == 41_000)
    });

    shutdown.store(true, Ordering::SeqCst);
    daemon.join().unwrap().unwrap();
}

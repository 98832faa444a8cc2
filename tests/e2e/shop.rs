//! Projects with topics and a database of their own, and the daemon as a process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tagflow::engine::status::{Status, TagState};

/// Longest wait for anything to become true; a slow machine passes, a broken daemon does not.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the end-to-end tests with `make test`"))
}

/// A copy of the sample project with topics and a database of its own.
pub struct Shop {
    pub folder: tempfile::TempDir,
    pub kafka: String,
    pub store: String,
    /// Variables that the processes have beside those of kafka and store.
    pub environment: Vec<(String, String)>,
}

impl Shop {
    pub fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for part in ["tags", "schemas"] {
            copy(&root.join(part), &folder.path().join(part));
        }
        let listen = format!("127.0.0.1:{}", free_port());
        let settings = fs::read_to_string(root.join("tagflow.toml")).unwrap();
        let settings = format!(
            "{settings}\n[serve]\nlisten = \"{listen}\"\n[engine]\ncheckpoint_interval = \"2s\"\nflush_interval = \"200ms\"\n"
        );
        fs::write(folder.path().join("tagflow.toml"), settings).unwrap();
        let id = format!("{name}_{}_{}", std::process::id(), free_port());
        for entry in fs::read_dir(folder.path().join("schemas")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap().replace("\"shop.", &format!("\"{id}."));
            fs::write(path, text).unwrap();
        }
        let server = environment("TAGFLOW_TEST_MYSQL");
        let (server, _) = server.rsplit_once('/').unwrap();
        let kafka = environment("TAGFLOW_TEST_KAFKA");
        Shop { folder, kafka, store: format!("{server}/{id}"), environment: Vec::new() }
    }

    /// A project of these files, with a database of its own.
    pub fn of(name: &str, files: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = format!("127.0.0.1:{}", free_port());
        let settings = format!(
            "timezone = \"Asia/Shanghai\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n\
             [connection.shop]\ntype = \"kafka\"\nbrokers = \"${{SHOP_KAFKA}}\"\n\
             [store]\nurl = \"${{TAGFLOW_STORE_URL}}\"\n[serve]\nlisten = \"{listen}\"\n\
             [engine]\ncheckpoint_interval = \"2s\"\nflush_interval = \"200ms\"\n[profile.demo-kafka]\n"
        );
        let files = files.iter().map(|(file, text)| (*file, text.as_str()));
        for (file, text) in files.chain([("tagflow.toml", settings.as_str())]) {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let server = environment("TAGFLOW_TEST_MYSQL");
        let (server, _) = server.rsplit_once('/').unwrap();
        let id = format!("{name}_{}_{}", std::process::id(), free_port());
        let kafka = environment("TAGFLOW_TEST_KAFKA");
        Shop { folder, kafka, store: format!("{server}/{id}"), environment: Vec::new() }
    }

    /// The same project as on another machine: with a state directory and a log of its own.
    pub fn elsewhere(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        for name in files.filter(|name| name != ".tagflow" && name != "log") {
            copy(&self.folder.path().join(&name), &folder.path().join(&name));
        }
        let (kafka, store, environment) = (self.kafka.clone(), self.store.clone(), self.environment.clone());
        Shop { folder, kafka, store, environment }
    }

    /// Waits until the rows of a tag, as `rows` reads them, are these.
    pub fn until_rows(&self, rows: &dyn Fn(&str) -> Vec<String>, tag: &str, expected: &[&str]) {
        let begun = Instant::now();
        while rows(tag) != expected {
            assert!(begun.elapsed() < PATIENCE, "{tag}: {:?}, not {expected:?}\n{}", rows(tag), self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tagflow"));
        command.args(arguments).args(["--profile", "demo-kafka", "--project"]).arg(self.folder.path());
        command.env("SHOP_KAFKA", &self.kafka).env("TAGFLOW_STORE_URL", &self.store);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Writes that many events of history to the topics.
    pub fn produce(&self, history: &str, seed: &str) {
        let output = self.output(&["produce", "--rate", "0", "--history", history, "--users", "2000", "--seed", seed]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn start(&self) -> Daemon<'_> {
        self.spawn(&["run"], None)
    }

    /// One more daemon on the same project, with a console of its own.
    pub fn start_beside(&self, option: &str) -> Daemon<'_> {
        let address = format!("127.0.0.1:{}", free_port());
        self.spawn(&["run", option, "--listen", &address], Some(address.clone()))
    }

    fn spawn(&self, arguments: &[&str], address: Option<String>) -> Daemon<'_> {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = self.command(arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Daemon { child, shop: self, address }
    }

    /// The first column of a query on the store, as text.
    pub fn registry(&self, sql: &str) -> Vec<String> {
        use mysql_async::prelude::Queryable;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = mysql_async::Conn::from_url(&self.store).await.unwrap();
            let rows: Vec<String> = connection.query(sql).await.unwrap();
            connection.disconnect().await.unwrap();
            rows
        })
    }

    pub fn until_registry(&self, sql: &str, expected: &str) {
        let begun = Instant::now();
        while self.registry(sql) != [expected] {
            assert!(begun.elapsed() < PATIENCE, "{sql}: {:?}, not {expected}\n{}", self.registry(sql), self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the daemon's console answers.
    pub fn get(&self, path: &str) -> String {
        let settings = fs::read_to_string(self.path("tagflow.toml")).unwrap();
        let listen = settings.lines().find_map(|line| line.strip_prefix("listen = \"")).unwrap();
        let address = format!("http://{}{path}", listen.trim_end_matches('"'));
        ureq::get(address).call().unwrap().body_mut().read_to_string().unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Every table equals the batch answer over the events that it shows.
    pub fn verify(&self) {
        let output = self.output(&["verify"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}\n{}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
    }
}

pub struct Daemon<'a> {
    child: Child,
    shop: &'a Shop,
    address: Option<String>,
}

impl Daemon<'_> {
    pub fn status(&mut self) -> Option<Status> {
        if let Some(code) = self.child.try_wait().unwrap() {
            panic!("the daemon has ended with {code}:\n{}", self.shop.log());
        }
        let mut arguments = vec!["status", "--format", "json"];
        arguments.extend(self.address.iter().flat_map(|address| ["--address", address]));
        let output = self.shop.output(&arguments);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Waits until the status says so.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| holds(status)) {
                return status.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "still not: {what}\n{status:#?}\n{}", self.shop.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until every tag follows and nothing waits anywhere.
    pub fn until_quiet(&mut self, tags: usize) -> Status {
        self.until("all tags are live and have caught up", |status| {
            let live = status.tags.iter().filter(|tag| tag.state == TagState::Live).count();
            live == tags
                && status.tags.len() == tags
                && status.fill.is_none()
                && status.lag == 0
                && status.pending_keys == 0
                && !status.partitions.is_empty()
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the end; the exit code.
    pub fn end(self, patience: Duration) -> i32 {
        self.end_while(patience, || {})
    }

    /// The same, while something is done again and again.
    pub fn end_while(mut self, patience: Duration, mut act: impl FnMut()) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(code) = self.child.try_wait().unwrap() {
                return code.code().unwrap_or(-1);
            }
            assert!(begun.elapsed() < patience, "it has not ended within {patience:?}\n{}", self.shop.log());
            act();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As Ctrl-C does.
    pub fn interrupt(mut self) {
        self.signal("INT");
        let code = self.child.wait().unwrap();
        assert!(code.success(), "the daemon ended with {code}:\n{}", self.shop.log());
    }

    /// As a crash does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with all that is in it, or a file.
fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(sent.success());
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

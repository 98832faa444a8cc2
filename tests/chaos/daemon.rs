//! The daemon as a process, with a wall clock of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use crate::servers::signal;

/// A project in a folder and the daemon over it.
pub struct Daemon {
    project: PathBuf,
    environment: [(&'static str, PathBuf); 2],
    child: Option<Child>,
    /// How long the log was when it was started.
    log_before: usize,
}

/// Compiles the library that moves the daemon's clock.
fn clock_library(folder: &Path) -> PathBuf {
    let library = folder.join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos/clock.rs");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"]).arg(&library).arg(source);
    assert!(rustc.status().expect("rustc can be run").success(), "the clock does not compile");
    library
}

impl Daemon {
    /// Not started yet.
    pub fn of(project: &Path) -> Self {
        let clock = project.join("clock");
        fs::write(&clock, "0").expect("a file in the project");
        let environment = [("LD_PRELOAD", clock_library(project)), ("CHAOS_CLOCK", clock)];
        Daemon { project: project.to_path_buf(), environment, child: None, log_before: 0 }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tagflow"));
        command.args(arguments).arg("--project").arg(&self.project).envs(self.environment.clone());
        command
    }

    pub fn log_file(&self) -> PathBuf {
        self.project.join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub fn start(&mut self) {
        self.start_until(None);
    }

    /// Starts it, to end as a crash does where the source says `crash_point`.
    pub fn start_until(&mut self, crash_point: Option<&str>) {
        if self.child.is_none() {
            self.log_before = self.log().len();
            let log = fs::File::options().create(true).append(true).open(self.log_file()).expect("the log");
            let mut command = self.command(&["run"]);
            command.envs(crash_point.map(|point| ("TAGFLOW_CRASH_AT", point)));
            let child = command.stdout(Stdio::null()).stderr(log).spawn();
            self.child = Some(child.expect("the daemon can be started"));
        }
    }

    pub fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            signal(child.id(), name);
        }
    }

    /// As a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    /// As supervisors do; `None` when it has not ended by then.
    pub fn stop(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal("-CONT");
        // Shells have what runs in the background ignore SIGINT until it says otherwise.
        self.signal("-TERM");
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// True when it has got so far that it hears Ctrl-C.
    pub fn listens(&self) -> bool {
        self.log().get(self.log_before..).is_some_and(|log| log.contains("tagflow is starting"))
    }

    /// How it has ended by itself, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("a child can be looked at")?;
        self.child = None;
        Some(status)
    }

    /// Moves its wall clock to so many seconds from the true one.
    pub fn set_clock(&self, seconds: i64) {
        // Written beside: it is read at every look at the clock.
        let (clock, beside) = (self.project.join("clock"), self.project.join("clock.new"));
        let written = fs::write(&beside, seconds.to_string()).and_then(|()| fs::rename(&beside, &clock));
        written.expect("the project can be written");
    }

    /// Every table against the batch answer of DataFusion.
    pub fn verify(&self) -> Output {
        self.command(&["verify"]).output().expect("tagflow verify can be run")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

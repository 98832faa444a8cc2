//! The daemon as a process, with a clock of its own where libfaketime is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use crate::servers::signal;

/// A project in a folder and the daemon over it.
pub struct Daemon {
    project: PathBuf,
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
}

/// libfaketime, as Debian and Fedora keep it.
fn faketime() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let files = folders.map(|folder| Path::new(folder).join("faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|file| file.exists())
}

impl Daemon {
    /// Not started yet.
    pub fn of(project: &Path, mut environment: Vec<(&'static str, String)>) -> Self {
        if let Some(library) = faketime() {
            let clock = project.join("clock");
            fs::write(&clock, "+0").expect("a file in the project");
            environment.extend([
                ("LD_PRELOAD", library.display().to_string()),
                ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
                ("FAKETIME_NO_CACHE", "1".to_string()),
                // Waits are as long as they are: only the wall clock is moved.
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_string()),
            ]);
        } else {
            eprintln!("libfaketime is not there: the clock is left alone");
        }
        Daemon { project: project.to_path_buf(), environment, child: None }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tagflow"));
        command.args(arguments).arg("--project").arg(&self.project).envs(self.environment.iter().cloned());
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
        if self.child.is_none() {
            let log = fs::File::options().create(true).append(true).open(self.log_file()).expect("the log");
            let child = self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn();
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

    /// As Ctrl-C does; `None` when it has not ended by then.
    pub fn stop(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal("-CONT");
        self.signal("-INT");
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// How it has ended by itself, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("a child can be looked at")?;
        self.child = None;
        Some(status)
    }

    /// Moves its wall clock to so many seconds from the true one; true where that can be done.
    pub fn set_clock(&self, seconds: i64) -> bool {
        let clock = self.project.join("clock");
        // Written beside: it is read at every look at the clock.
        let beside = self.project.join("clock.new");
        clock.exists() && fs::write(&beside, format!("{seconds:+}")).and_then(|()| fs::rename(&beside, &clock)).is_ok()
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

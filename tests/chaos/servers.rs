//! The real Kafka and MariaDB of `scripts/services`, killed, stopped for a while, and revived.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    Kafka,
    Mariadb,
}

impl Server {
    pub const BOTH: [Server; 2] = [Server::Kafka, Server::Mariadb];

    fn name(self) -> &'static str {
        match self {
            Server::Kafka => "kafka",
            Server::Mariadb => "mariadb",
        }
    }
}

pub fn environment(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run these tests with `make test` or `make chaos`"))
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
    // A process that has ended meanwhile needs none.
    sent.expect("`kill` is everywhere");
}

/// Both servers; whatever was done to them, they run when this is dropped.
pub struct Servers {
    folder: PathBuf,
    pub kafka: String,
    /// The MariaDB's URL without a database.
    pub mysql: String,
    reviving: Vec<(Server, Child)>,
}

impl Servers {
    /// Those that the environment names.
    pub fn given() -> Self {
        let url = environment("TAGFLOW_TEST_MYSQL");
        Servers {
            folder: environment("TAGFLOW_TEST_SERVICES").into(),
            kafka: environment("TAGFLOW_TEST_KAFKA"),
            mysql: url.rsplit_once('/').expect("the URL names a database").0.to_string(),
            reviving: Vec::new(),
        }
    }

    pub fn signal(&self, server: Server, name: &str) {
        let file = self.folder.join(server.name()).join("pid");
        if let Ok(pid) = fs::read_to_string(file) {
            signal(pid.trim().parse().expect("a process id"), name);
        }
    }

    /// Begins to start a server that was killed.
    pub fn revive(&mut self, server: Server) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
        let mut command = Command::new(script);
        command.args(["revive", "--dir"]).arg(&self.folder).arg(server.name());
        // What it says of a server that was killed again while it started is no news.
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.reviving.push((server, child.expect("scripts/services can be run")));
    }

    /// Ends a server as it should end; one that is only just starting is killed, since MariaDB hangs for ever when it is
    /// told to end then.
    pub fn stop(&mut self, server: Server) {
        self.reviving.retain_mut(|(_, child)| !matches!(child.try_wait(), Ok(Some(_))));
        if self.reviving.iter().any(|(reviving, _)| *reviving == server) {
            return self.signal(server, "-KILL");
        }
        let folder = self.folder.join(server.name());
        // Whoever revives it before it has ended would take it for one that runs.
        // There is no process to wait for where this fails.
        let _ = fs::copy(folder.join("pid"), folder.join("ending"));
        self.signal(server, "-TERM");
    }

    /// Both run and answer when this returns.
    pub fn heal(&mut self) {
        for server in Server::BOTH {
            self.signal(server, "-CONT");
        }
        self.await_revivals();
        for server in Server::BOTH {
            self.revive(server);
        }
        self.await_revivals();
    }

    fn await_revivals(&mut self) {
        for (_, mut child) in self.reviving.drain(..) {
            child.wait().expect("a child can be waited for");
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.heal();
    }
}

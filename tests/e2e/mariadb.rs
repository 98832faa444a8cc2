//! A MariaDB of one test alone, to be killed, stopped, filled up and set up otherwise.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;

pub struct Server {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    options: Vec<String>,
}

impl Server {
    pub fn install() -> Server {
        Server::with(&[])
    }

    /// One with further options on its command line.
    pub fn with(options: &[&str]) -> Server {
        let folder = tempfile::Builder::new().prefix("tagflow-mariadb-").tempdir().unwrap();
        Server::inside(folder, options)
    }

    /// One in a folder that is given.
    pub fn inside(folder: tempfile::TempDir, options: &[&str]) -> Server {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        // A starting server clears temporary tables away, also those of another server in the same folder.
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = options.iter().map(|option| option.to_string()).collect();
        let mut server = Server { folder, port, child: None, options };
        let mut install = Command::new("mariadb-install-db");
        install.env("TMPDIR", server.path("tmp")).arg("--no-defaults");
        install.arg(format!("--datadir={}", server.path("data").display()));
        install.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=16M"]);
        if is_root {
            // The server refuses to run as root; it runs as the package's user.
            assert!(Command::new("chown").arg("-R").arg("mysql").arg(server.folder()).status().unwrap().success());
            install.arg("--user=mysql");
        }
        let output = install.output().expect("MariaDB is installed, as by `scripts/setup services`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        server.start();
        server
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub fn start(&mut self) {
        let owner = std::fs::metadata(self.folder()).unwrap().uid();
        let child = Command::new("mariadbd")
            .arg("--no-defaults")
            .args((owner != 0).then_some("--user=mysql"))
            .arg(format!("--datadir={}", self.path("data").display()))
            .arg(format!("--socket={}", self.path("s.sock").display()))
            .arg(format!("--port={}", self.port))
            .env("TMPDIR", self.path("tmp"))
            .args(["--bind-address=127.0.0.1", "--local-infile=1", "--innodb-buffer-pool-size=32M"])
            .arg("--innodb-log-file-size=16M")
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.path("tmp/log")).unwrap())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(since.elapsed() < Duration::from_secs(60), "MariaDB does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("tmp/log")).unwrap_or_default()
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Once more, with other options.
    pub fn restart_with(&mut self, options: &[&str]) {
        self.kill();
        self.options = options.iter().map(|option| option.to_string()).collect();
        self.start();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// STOP leaves every connection open and silent; CONT lets the server go on.
    pub fn signal(&self, name: &str) {
        crate::shop::signal(self.child.as_ref().expect("it runs").id(), name);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// An address for root.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port)
    }

    /// Statements as root, by the server's own client; what they print, columns apart by tabs.
    pub fn run(&self, statements: &str) -> String {
        let output = self.client(statements);
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn client(&self, statements: &str) -> Output {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-uroot", "-h127.0.0.1", "--skip-column-names", "--batch"]);
        client.arg(format!("-P{}", self.port)).args(["-e", statements]).output().unwrap()
    }
}

/// A connection of another program, that stays open.
pub struct Other {
    runtime: tokio::runtime::Runtime,
    pub connection: mysql_async::Conn,
}

impl Other {
    pub fn to(url: &str) -> Result<Other, mysql_async::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(mysql_async::Conn::from_url(url))?;
        Ok(Other { runtime, connection })
    }

    pub fn run(&mut self, statement: &str) {
        self.runtime.block_on(self.connection.query_drop(statement)).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

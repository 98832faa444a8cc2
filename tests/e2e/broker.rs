//! A Kafka of one test alone, of one broker or two, to be killed, stopped, and set up otherwise.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::shop::{free_port, signal};

/// How long a broker may take to start.
const START: Duration = Duration::from_secs(90);
/// Part of an id that every storage of a cluster has.
const CLUSTER: &str = "dGFnZmxvdy10ZXN0cy1rcg";

pub struct Cluster {
    folder: tempfile::TempDir,
    brokers: Vec<Broker>,
}

struct Broker {
    /// Of the listener that is open to everybody.
    port: u16,
    /// Of those that were asked for, by name.
    others: Vec<(String, u16)>,
    child: Option<Child>,
}

/// How brokers are set up.
#[derive(Default)]
pub struct Setup<'a> {
    pub brokers: usize,
    /// Further listeners: SSL, SASL_SSL.
    pub listeners: &'a [&'a str],
    /// Lines of server.properties.
    pub properties: &'a str,
    /// Options of the storage's format.
    pub format: &'a [&'a str],
}

impl Cluster {
    /// One whose first broker is the controller too; in a folder that is given, with what its properties name.
    pub fn start(folder: tempfile::TempDir, setup: &Setup<'_>) -> Cluster {
        let controller = free_port();
        let mut cluster = Cluster { folder, brokers: Vec::new() };
        for id in 1..=setup.brokers.max(1) {
            let others: Vec<(String, u16)> =
                setup.listeners.iter().map(|name| (name.to_string(), free_port())).collect();
            let broker = Broker { port: free_port(), others, child: None };
            let own = if id == 1 { format!(",CONTROLLER://127.0.0.1:{controller}") } else { String::new() };
            let advertised: String = [("PLAINTEXT".to_string(), broker.port)]
                .iter()
                .chain(&broker.others)
                .map(|(name, port)| format!(",{name}://127.0.0.1:{port}"))
                .collect();
            let advertised = advertised.trim_start_matches(',');
            let roles = if id == 1 { "broker,controller" } else { "broker" };
            let settings = format!(
                "process.roles={roles}\nnode.id={id}\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
                 listeners={advertised}{own}\nadvertised.listeners={advertised}\n\
                 controller.listener.names=CONTROLLER\nlog.dirs={data}\n\
                 listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL\n\
                 inter.broker.listener.name=PLAINTEXT\n\
                 offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
                 transaction.state.log.min.isr=1\nbroker.session.timeout.ms=1500\nbroker.heartbeat.interval.ms=300\n\
                 replica.lag.time.max.ms=3000\nlog.retention.ms=-1\n{more}\n",
                data = cluster.path(&format!("data{id}")).display(),
                more = setup.properties,
            );
            let file = cluster.path(&format!("server{id}.properties"));
            std::fs::write(&file, settings).unwrap();
            let mut format = java("kafka.tools.StorageTool");
            format.args(["format", "-t", CLUSTER, "-c"]).arg(&file).args(setup.format);
            run(&mut format);
            cluster.brokers.push(broker);
            cluster.launch(id);
        }
        (1..=cluster.brokers.len()).for_each(|id| cluster.until_up(id));
        cluster
    }

    /// One without a folder or settings of its own.
    pub fn of(brokers: usize) -> Cluster {
        let folder = tempfile::Builder::new().prefix("tagflow-kafka-").tempdir().unwrap();
        Cluster::start(folder, &Setup { brokers, ..Setup::default() })
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn broker(&self, id: usize) -> &Broker {
        &self.brokers[id - 1]
    }

    pub fn launch(&mut self, id: usize) {
        let log = std::fs::File::create(self.path(&format!("log{id}"))).unwrap();
        let mut server = java("kafka.Kafka");
        server.arg(self.path(&format!("server{id}.properties"))).stdout(Stdio::null()).stderr(log);
        self.brokers[id - 1].child = Some(server.spawn().unwrap());
    }

    pub fn until_up(&self, id: usize) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.broker(id).port)).is_err() {
            let log = || std::fs::read_to_string(self.path(&format!("log{id}"))).unwrap_or_default();
            assert!(begun.elapsed() < START, "broker {id} does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// STOP leaves every connection open and silent; CONT lets it go on.
    pub fn signal(&self, id: usize, name: &str) {
        signal(self.broker(id).child.as_ref().expect("it runs").id(), name);
    }

    pub fn kill(&mut self, id: usize) {
        if let Some(mut child) = self.brokers[id - 1].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Where clients begin: the listeners that are open to everybody.
    pub fn bootstrap(&self) -> String {
        let places: Vec<String> = self.brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect();
        places.join(",")
    }

    /// The first broker's listener of a name.
    pub fn port_of(&self, listener: &str) -> u16 {
        self.brokers[0].others.iter().find(|(name, _)| name == listener).expect("such a listener").1
    }

    /// Runs one of Kafka's own tools against the cluster; what it prints.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let mut tool = java(class);
        run(tool.args(["--bootstrap-server", &self.bootstrap()]).args(arguments))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for id in 1..=self.brokers.len() {
            self.kill(id);
        }
    }
}

/// Starts soon rather than runs fast.
fn java(class: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars().join("*")).arg(class);
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("Java is installed, as by `scripts/setup services`");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {told}");
    told
}

/// Where `scripts/services` keeps Kafka.
pub fn jars() -> PathBuf {
    std::env::var("TAGFLOW_KAFKA_JARS")
        .map_or_else(|_| Path::new(&std::env::var("HOME").unwrap()).join(".cache/tagflow/kafka-4.1.0"), PathBuf::from)
}

//! TLS to a real MariaDB with authorities and certificates made by the test: what is trusted, and what is told where it is not.

use chrono_tz::Tz;
use tagflow::config::{MysqlAddress, Secret, Tls};
use tagflow::sink::mysql::MysqlSink;
use tagflow::sink::{Sink, SinkError};

use crate::certificates::{authority, certificate};
use crate::mariadb::Server;
use crate::mysql_sink::contract;
use crate::shop::Shop;
use crate::topic::Topic;

const SERVER: [(&str, &str); 3] = [("ssl-ca", "ours.pem"), ("ssl-cert", "server.pem"), ("ssl-key", "server-key.pem")];
const ACCOUNT: &str = "CREATE DATABASE shop; CREATE USER tagflow@'%' IDENTIFIED BY 'hunter2' REQUIRE X509; \
     GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP ON shop.* TO tagflow@'%'";

struct Secured {
    server: Server,
}

impl Secured {
    fn install() -> Secured {
        let folder = tempfile::Builder::new().prefix("tagflow-tls-").tempdir().unwrap();
        let path = folder.path().to_path_buf();
        authority(&path, "ours");
        authority(&path, "theirs");
        certificate(&path, "server", "ours", "IP:127.0.0.1", "30");
        certificate(&path, "client", "ours", "DNS:client", "30");
        certificate(&path, "expired", "ours", "IP:127.0.0.1", "-1");
        certificate(&path, "stranger", "theirs", "DNS:client", "30");
        let options = SERVER.map(|(option, file)| format!("--{option}={}", path.join(file).display()));
        let server = Server::inside(folder, &options.each_ref().map(String::as_str));
        server.run(ACCOUNT);
        Secured { server }
    }

    fn sink(&self, host: &str, ca: Option<&str>, client: Option<(&str, &str)>) -> MysqlSink {
        let url = format!("mysql://tagflow:hunter2@{host}:{}/shop", self.server.port());
        let tls = Tls {
            ca: ca.map(|file| self.server.path(file)),
            cert: client.map(|(cert, _)| self.server.path(cert)),
            key: client.map(|(_, key)| self.server.path(key)),
        };
        MysqlSink::new(&MysqlAddress { url: Secret::new(url), tls }, Tz::UTC).unwrap()
    }

    /// What a connection that is refused says: never a passing trouble, never the password.
    fn refused(&self, host: &str, ca: Option<&str>, client: Option<(&str, &str)>, words: &[&str]) {
        let error = self.sink(host, ca, client).open(&contract::claim()).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(matches!(error, SinkError::Setup { .. }), "{told}");
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{words:?}: {error}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn certificates_are_checked_on_both_sides_and_what_is_wrong_is_told() {
    let mut secured = Secured::install();
    let ours = Some(("client.pem", "client-key.pem"));
    let mut sink = secured.sink("127.0.0.1", Some("ours.pem"), ours);
    sink.open(&contract::claim()).unwrap();
    sink.renew().unwrap();

    secured.refused("127.0.0.1", None, None, &["Access denied for user 'tagflow'"]);
    secured.refused("127.0.0.1", Some("ours.pem"), None, &["Access denied for user 'tagflow'"]);
    let theirs = ["certificate verify failed", "[store] `ca` names the authority"];
    secured.refused("127.0.0.1", Some("theirs.pem"), ours, &theirs);
    secured.refused("localhost", Some("ours.pem"), ours, &["ostname mismatch", "the url's host"]);
    secured.refused("127.0.0.1", Some("nowhere.pem"), ours, &["nowhere.pem: No such file"]);
    secured.refused("127.0.0.1", Some("ours-key.pem"), ours, &["ours-key.pem: there is no certificate in PEM"]);
    let mixed = Some(("client.pem", "server-key.pem"));
    secured.refused("127.0.0.1", Some("ours.pem"), mixed, &["server-key.pem: it is not the key of", "client.pem"]);
    let no_key = Some(("client.pem", "client.pem"));
    secured.refused("127.0.0.1", Some("ours.pem"), no_key, &["there is no private key in PEM without a passphrase"]);
    let stranger = Some(("stranger.pem", "stranger-key.pem"));
    let error = secured.sink("127.0.0.1", Some("ours.pem"), stranger).open(&contract::claim()).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");

    // A server whose certificate has run out, and one that has none.
    secured.server.kill();
    std::fs::copy(secured.server.path("expired.pem"), secured.server.path("server.pem")).unwrap();
    std::fs::copy(secured.server.path("expired-key.pem"), secured.server.path("server-key.pem")).unwrap();
    secured.server.start();
    secured.refused("127.0.0.1", Some("ours.pem"), ours, &["certificate has expired"]);
    secured.server.restart_with(&["--skip-ssl"]);
    secured.refused("127.0.0.1", Some("ours.pem"), ours, &["SSL"]);
}

#[test]
fn project_over_tls_runs_and_is_verified() {
    let secured = Secured::install();
    let topic = Topic::with_partitions("tls", 1);
    topic.write(0, &(0..10).map(|user| (format!("{{\"user_id\": {user}}}"), None)).collect::<Vec<_>>());
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n",
        topic.name
    );
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id".to_string();
    let mut shop = Shop::of("tls", &[("schemas/orders.toml", schema), ("tags/visits.sql", tag)]);
    shop.store = format!("mysql://tagflow:hunter2@127.0.0.1:{}/shop", secured.server.port());
    let settings = std::fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    for file in ["ours.pem", "client.pem", "client-key.pem"] {
        std::fs::copy(secured.server.path(file), shop.path(file)).unwrap();
    }
    let files = format!(
        "[store]\nca = \"ours.pem\"\ncert = \"{}\"\nkey = \"client-key.pem\"\n",
        shop.path("client.pem").display()
    );
    std::fs::write(shop.path("tagflow.toml"), settings.replace("[store]\n", &files)).unwrap();
    let output = shop.output(&["run", "--until-caught-up"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !told.contains("hunter2"), "{told}");
    shop.verify();
    assert_eq!(secured.server.run("SELECT COUNT(*) FROM shop.visits"), "10\n");
}

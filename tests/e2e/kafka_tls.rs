//! Kafka over TLS with an authority, client certificates and logins of the test's own, against a real broker that allows
//! nothing that was not granted.

use crate::broker::{Cluster, Setup};
use crate::certificates::{authority, certificate};
use crate::shop::Shop;
use crate::topic::Topic;

const PASSWORD: &str = "not-to-be-seen-1";

fn secured() -> Cluster {
    let folder = tempfile::Builder::new().prefix("tagflow-kafka-tls-").tempdir().unwrap();
    let path = folder.path();
    authority(path, "ours");
    authority(path, "theirs");
    certificate(path, "server", "ours", "IP:127.0.0.1", "30");
    certificate(path, "client", "ours", "DNS:client", "30");
    certificate(path, "stranger", "theirs", "DNS:client", "30");
    let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
    std::fs::write(path.join("keystore.pem"), read("server-key.pem") + &read("server.pem")).unwrap();
    let file = |name: &str| path.join(name).display().to_string();
    let properties = format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
         ssl.client.auth=required\nlistener.name.sasl_ssl.ssl.client.auth=none\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
         listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
         required user_tagflow=\"{PASSWORD}\";\n\
         listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nsuper.users=User:ANONYMOUS\n",
        file("keystore.pem"),
        file("ours.pem")
    );
    let scram = format!("SCRAM-SHA-512=[name=tagflow,password={PASSWORD}]");
    let listeners = ["SSL", "SASL_SSL"];
    let format = ["--add-scram", scram.as_str()];
    Cluster::start(folder, &Setup { brokers: 1, listeners: &listeners, properties: &properties, format: &format })
}

impl Cluster {
    /// Lets a user do what README asks for, on one topic, and no more.
    fn grant(&self, user: &str, topic: &str) {
        let user = format!("User:{user}");
        let operations = ["--operation", "Read", "--operation", "Describe"];
        let arguments = [&["--add", "--allow-principal", &user, "--topic", topic][..], &operations].concat();
        self.tool("org.apache.kafka.tools.AclCommand", &arguments);
    }

    /// What a stream says that is read with these properties, and cannot be.
    fn refused(&self, topic: &Topic, address: String, properties: &[(&str, &str)], words: &[&str]) {
        let mut request = topic.request();
        // A stream that waits for its broker waits for records that there are.
        request.from.insert(0, 0);
        let mut reading = topic.read_at(address, request, properties);
        let told = reading.until_told();
        assert!(words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
        assert!(!told.contains("not-to-be-seen"), "{told}");
    }
}

#[test]
fn certificates_logins_and_rights_are_checked_and_what_is_wrong_is_told() {
    let cluster = secured();
    let topic = Topic::at(cluster.bootstrap(), "tls");
    topic.create(1);
    topic.write(
        0,
        &(0..10).map(|user| (format!("{{\"order_id\": {user}, \"user_id\": {user}}}"), None)).collect::<Vec<_>>(),
    );
    certificates(&cluster, &topic);
    logins(&cluster, &topic);
    project(&cluster, &topic);
}

fn certificates(cluster: &Cluster, topic: &Topic) {
    let file = |name: &str| cluster.path(name).display().to_string();
    let (ours, theirs) = (file("ours.pem"), file("theirs.pem"));
    let (client, client_key) = (file("client.pem"), file("client-key.pem"));
    let (stranger, stranger_key) = (file("stranger.pem"), file("stranger-key.pem"));
    let own = [("ssl.certificate.location", client.as_str()), ("ssl.key.location", client_key.as_str())];
    let address = |host: &str| format!("{host}:{}", cluster.port_of("SSL"));
    let refused = |host: &str, properties: &[(&str, &str)], words: &[&str]| {
        let all = [&[("security.protocol", "SSL")][..], properties].concat();
        cluster.refused(topic, address(host), &all, words);
    };
    let ca = ("ssl.ca.location", ours.as_str());
    refused("127.0.0.1", &[own[0], own[1]], &["certificate verify failed"]);
    refused("127.0.0.1", &[("ssl.ca.location", &theirs), own[0], own[1]], &["certificate verify failed"]);
    let by_name = [ca, own[0], own[1], ("broker.address.family", "v4")];
    refused("localhost", &by_name, &["certificate verify failed"]);
    refused("127.0.0.1", &[ca], &["certificate"]);
    let foreign = [("ssl.certificate.location", stranger.as_str()), ("ssl.key.location", stranger_key.as_str())];
    refused("127.0.0.1", &[ca, foreign[0], foreign[1]], &["certificate"]);
    // Known by its certificate, and allowed nothing yet.
    refused("127.0.0.1", &[ca, own[0], own[1]], &["Topic authorization failed"]);
    cluster.grant("CN=client", &topic.name);
    let all = [("security.protocol", "SSL"), ca, own[0], own[1]];
    topic.read_at(address("127.0.0.1"), topic.request(), &all).until_rows(10);
}

fn logins(cluster: &Cluster, topic: &Topic) {
    let ours = cluster.path("ours.pem").display().to_string();
    let address = format!("127.0.0.1:{}", cluster.port_of("SASL_SSL"));
    let login = |mechanism: &'static str, password: &'static str| {
        [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", ours.as_str()),
            ("sasl.mechanism", mechanism),
            ("sasl.username", "tagflow"),
            ("sasl.password", password),
        ]
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let wrong = login(mechanism, "not-to-be-seen-2");
        cluster.refused(topic, address.clone(), &wrong, &["Authentication failed"]);
    }
    cluster.refused(topic, address.clone(), &login("PLAIN", PASSWORD), &["Topic authorization failed"]);
    cluster.grant("tagflow", &topic.name);
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        topic.read_at(address.clone(), topic.request(), &login(mechanism, PASSWORD)).until_rows(10);
    }
}

/// By the keys of `tagflow.toml`, with the files of a project.
fn project(cluster: &Cluster, topic: &Topic) {
    let schema = format!(
        "connection = \"secured\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n",
        topic.name
    );
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id".to_string();
    let shop = Shop::of("kafka_tls", &[("schemas/orders.toml", schema), ("tags/visits.sql", tag)]);
    let connection = |brokers: u16, more: &str| {
        format!(
            "[connection.secured]\ntype = \"kafka\"\nbrokers = \"127.0.0.1:{brokers}\"\nca = \"tls/ours.pem\"\n{more}\n"
        )
    };
    let settings = std::fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    std::fs::create_dir(shop.path("tls")).unwrap();
    std::fs::copy(cluster.path("ours.pem"), shop.path("tls/ours.pem")).unwrap();
    std::fs::copy(cluster.path("client.pem"), shop.path("tls/client.pem")).unwrap();
    std::fs::write(shop.path("password"), format!("{PASSWORD}\n")).unwrap();
    let by_certificate = format!("cert = \"tls/client.pem\"\nkey = \"{}\"", cluster.path("client-key.pem").display());
    let by_password = "[connection.secured.kafka]\nsasl.mechanism = \"SCRAM-SHA-512\"\nsasl.username = \"tagflow\"\n\
                       sasl.password = \"${file:password}\"";
    for (listener, more) in [("SSL", by_certificate.as_str()), ("SASL_SSL", by_password)] {
        let own = format!("{settings}\n{}", connection(cluster.port_of(listener), more));
        std::fs::write(shop.path("tagflow.toml"), own).unwrap();
        topic.write(0, &[("{\"user_id\": 7}".to_string(), None)]);
        let output = shop.output(&["run", "--until-caught-up"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !told.contains(PASSWORD), "{told}");
        shop.verify();
    }
    assert_eq!(shop.registry("SELECT CAST(SUM(n) AS CHAR) FROM visits"), ["12"]);
}

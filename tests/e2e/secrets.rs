//! Secrets in every place that takes one, and everything that Tagflow says while it fails for them: none of them is in it.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::shop::{PATIENCE, Shop, environment, free_port};
use crate::topic::Topic;

/// By where they go. All begin alike; the characters are those that addresses escape.
const SECRETS: [(&str, &str); 7] = [
    ("STORE", "hush@store/1%"),
    ("KAFKA", "hush-kafka"),
    ("REGISTRY", "hush@registry/1%"),
    ("CRM", "hush@crm/1%"),
    ("TOKEN", "hush-token-of-the-console"),
    ("KEY", "hush-key-passphrase"),
    ("OAUTH", "hush-oauth-client"),
];

fn secret(place: &str) -> &'static str {
    SECRETS.iter().find(|(name, _)| *name == place).unwrap().1
}

/// A project whose tags read from places that refuse it, with a variable for each secret.
fn shop(topic: &Topic) -> Shop {
    let columns = "[columns]\nuser_id = \"BIGINT\"\n";
    let stream = |connection: &str| {
        format!("connection = \"{connection}\"\ntopic = \"{}\"\nformat = \"json\"\n{columns}", topic.name)
    };
    let avro = format!("connection = \"away\"\ntopic = \"{}\"\nformat = \"avro\"\n{columns}", topic.name);
    let users =
        "kind = \"mysql\"\nconnection = \"crm\"\ntable = \"users\"\nkey = [\"user_id\"]\n".to_string() + columns;
    let files = [
        ("schemas/orders.toml", stream("shop")),
        ("schemas/locked.toml", stream("locked")),
        ("schemas/keyed.toml", stream("keyed")),
        ("schemas/records.toml", avro),
        ("schemas/users.toml", users),
        ("tags/fine.sql", count("orders")),
    ];
    let shop = Shop::of("secrets", &files);
    let (server, user) = (environment("TAGFLOW_TEST_MYSQL"), "tagflow");
    let place = server.rsplit_once('@').unwrap().1.rsplit_once('/').unwrap().0;
    let settings = std::fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    let settings = settings.replace("[serve]\n", "[serve]\ntoken = \"${file:secrets/token}\"\n");
    let more = format!(
        "[profile.wrong]\nstore.url = \"mysql://{user}:${{STORE}}@{place}/{}\"\n\
         [profile.broken]\nstore.url = \"mysql://{user}:${{STORE}}@{place}\"\nserve.token = \"${{KAFKA}} x\"\n\
         connection.away = {{ type = \"kafka\", brokers = \"${{KAFKA}},,b\", registry = \"ftp://u:${{REGISTRY}}@h\" }}\n\
         [connection.locked]\ntype = \"kafka\"\nbrokers = \"${{SHOP_KAFKA}}\"\n\
         [connection.locked.kafka]\nsecurity.protocol = \"SASL_PLAINTEXT\"\nsasl.mechanism = \"PLAIN\"\n\
         sasl.username = \"tagflow\"\nsasl.password = \"${{KAFKA}}\"\n\
         [connection.keyed]\ntype = \"kafka\"\nbrokers = \"${{SHOP_KAFKA}}\"\n\
         [connection.keyed.kafka]\nsecurity.protocol = \"SASL_SSL\"\nsasl.mechanism = \"OAUTHBEARER\"\n\
         sasl.oauthbearer.method = \"oidc\"\nsasl.oauthbearer.client.id = \"tagflow\"\n\
         sasl.oauthbearer.client.secret = \"${{OAUTH}}\"\nsasl.oauthbearer.token.endpoint.url = \"http://127.0.0.1:{}\"\n\
         ssl.key.password = \"${{KEY}}\"\nssl.key.location = \"/nowhere\"\n\
         [connection.away]\ntype = \"kafka\"\nbrokers = \"${{SHOP_KAFKA}}\"\n\
         registry = \"http://analyst:${{REGISTRY}}@127.0.0.1:{}\"\n\
         [connection.crm]\ntype = \"mysql\"\nurl = \"mysql://{user}:${{CRM}}@{place}/crm\"\n",
        shop.store.rsplit_once('/').unwrap().1,
        free_port(),
        free_port()
    );
    std::fs::write(shop.path("tagflow.toml"), settings + &more).unwrap();
    std::fs::create_dir(shop.path("secrets")).unwrap();
    std::fs::write(shop.path("secrets/token"), secret("TOKEN")).unwrap();
    shop
}

fn count(stream: &str) -> String {
    format!("SELECT user_id, COUNT(*) AS n FROM {stream} WHERE user_id IS NOT NULL GROUP BY user_id")
}

/// The command with all secrets in its environment, and every word that any library has to say.
fn command(shop: &Shop, arguments: &[&str]) -> Command {
    let mut command = shop.command(arguments);
    command.envs(SECRETS).env("TAGFLOW_LOG", "trace").env("RUST_BACKTRACE", "1");
    command
}

/// What is said by mistake, each as it may be spelt: plain, in an address, as a login of HTTP. What nobody may read is named.
fn leaks(what: &str, told: &[u8]) -> Vec<String> {
    let told = String::from_utf8_lossy(told).to_lowercase();
    let spellings = SECRETS.iter().flat_map(|(place, secret)| {
        let escaped: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let logins = ["analyst", "tagflow"].map(|user| STANDARD.encode(format!("{user}:{secret}")));
        [secret.to_string(), escaped].into_iter().chain(logins).map(move |spelling| (place, spelling))
    });
    let found = spellings.filter(|(_, spelling)| told.contains(&spelling.to_lowercase()));
    found.map(|(place, spelling)| format!("{what} tells {place} as {spelling}")).collect()
}

struct Said(Vec<String>);

impl Said {
    fn look(&mut self, what: &str, told: &[u8]) {
        self.0.extend(leaks(what, told));
    }

    fn take(&mut self, what: &str, output: &Output) -> String {
        self.look(what, &output.stdout);
        self.look(what, &output.stderr);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    fn look_at_files(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.look_at_files(&path);
            } else if path.parent().is_some_and(|folder| !folder.ends_with("secrets")) {
                self.look(&path.display().to_string(), &std::fs::read(&path).unwrap());
            }
        }
    }
}

#[test]
fn no_secret_is_in_anything_that_is_said_or_kept() {
    let topic = Topic::with_partitions("secrets", 1);
    topic.write(0, &[("{\"user_id\": 1}".to_string(), None), ("\0\0\0\0\u{7}x".to_string(), None)]);
    let shop = shop(&topic);
    let mut said = Said(Vec::new());
    for format in ["human", "json"] {
        let output = command(&shop, &["check", "--format", format]).output().unwrap();
        assert!(output.status.success(), "{}", said.take("check", &output));
        said.take("check", &output);
    }
    let root = shop.folder.path();
    for (profile, command, expected) in [
        ("broken", "check", "is not an address of HTTP"),
        ("wrong", "run", "Access denied"),
        ("wrong", "verify", "Access denied"),
        ("wrong", "show 1", "Access denied"),
    ] {
        let mut refused = Command::new(env!("CARGO_BIN_EXE_tagflow"));
        refused.args(command.split(' ')).args(["--profile", profile, "--project"]).arg(root);
        refused.envs(SECRETS).env("TAGFLOW_LOG", "trace").env("SHOP_KAFKA", &shop.kafka);
        let told = said.take(command, &refused.env("TAGFLOW_STORE_URL", &shop.store).output().unwrap());
        assert!(told.contains(expected), "{expected}: {told}");
    }
    // One stream after the other that cannot be read, as a daemon says it everywhere.
    for (stream, expected) in [
        ("locked", "sasl"),
        ("keyed", "ssl"),
        ("records", "no answer from the schema registry"),
        ("users", "access denied"),
    ] {
        std::fs::write(shop.path("tags/refused.sql"), count(stream)).unwrap();
        let log = std::fs::File::create(shop.path("log")).unwrap();
        let mut child = command(&shop, &["run"]).stderr(log).spawn().unwrap();
        let begun = Instant::now();
        loop {
            let status = said.take("status", &command(&shop, &["status", "--format", "json"]).output().unwrap());
            if status.to_lowercase().contains(expected) && status.contains("\"live\"") {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{stream}: {status}\n{}", shop.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        for arguments in
            [&["status"][..], &["explain", "fine"], &["show", "1"], &["dead-letters", "list"], &["resume", "refused"]]
        {
            said.take(&arguments.join(" "), &command(&shop, arguments).output().unwrap());
        }
        for path in ["/", "/status", "/metrics", "/readyz"] {
            for token in [secret("TOKEN"), "another-token"] {
                let mut asked = ureq::get(address(&shop, path)).header("Authorization", format!("Bearer {token}"));
                asked = asked.config().http_status_as_error(false).build();
                said.look(path, asked.call().unwrap().body_mut().read_to_string().unwrap().as_bytes());
            }
        }
        crate::shop::signal(child.id(), "INT");
        child.wait().unwrap();
        said.look("the log", shop.log().as_bytes());
    }
    said.take("verify", &command(&shop, &["verify"]).output().unwrap());
    said.look_at_files(root);
    assert_eq!(said.0, [""; 0]);
}

fn address(shop: &Shop, path: &str) -> String {
    let settings = std::fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    let listen = settings.lines().find_map(|line| line.strip_prefix("listen = \"")).unwrap();
    format!("http://{}{path}", listen.trim_end_matches('"'))
}

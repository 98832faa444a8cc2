//! Checkpoints in an object store: a real S3 server, S3Proxy, started here by `scripts/object-store`. The state directory goes
//! with its machine, the server goes away, objects are damaged, the login is wrong.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tagflow::engine::status::Phase;

use crate::checkpoints::{TAGS, epochs, nothing_was_filled_again, shop, work};
use crate::shop::{Shop, free_port, signal};
use crate::topic::Topic;

/// Longest wait for the server, which is fetched within it, once a machine.
const PATIENCE: Duration = Duration::from_secs(180);
const KEY: &str = "tagflow-test";
const SECRET: &str = "not-to-be-seen-anywhere";
const BUCKET: &str = "tags";

/// A server of this test's own.
struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("buckets").join(BUCKET)).unwrap();
        let port = free_port();
        let mut server = Server { child: Self::run(port, folder.path()), port, folder };
        server.until_ready();
        server
    }

    fn run(port: u16, folder: &Path) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/object-store");
        let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new(script);
        command.arg(port.to_string()).arg(folder);
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn until_ready(&mut self) {
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the object store does not answer; see scripts/object-store");
            if let Some(code) = self.child.try_wait().unwrap() {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("the object store has ended with {code}:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = Self::run(self.port, self.folder.path());
        self.until_ready();
    }

    /// Lets a shop keep its checkpoints here.
    fn serve(&self, shop: &mut Shop) {
        let settings = format!(
            "[engine.checkpoints]\nurl = \"s3://{BUCKET}/shops/one\"\nendpoint = \"http://127.0.0.1:{}\"\nallow_http = true\n\
             access_key_id = \"${{SHOP_S3_KEY}}\"\nsecret_access_key = \"${{SHOP_S3_SECRET}}\"\n",
            self.port
        );
        let mut file = fs::File::options().append(true).open(shop.path("tagflow.toml")).unwrap();
        file.write_all(settings.as_bytes()).unwrap();
        let login = [("SHOP_S3_KEY", KEY), ("SHOP_S3_SECRET", SECRET)];
        shop.environment.extend(login.map(|(name, value)| (name.to_string(), value.to_string())));
    }

    /// Where the objects of that shop lie.
    fn objects(&self, part: &str) -> PathBuf {
        self.folder.path().join("buckets").join(BUCKET).join("shops/one/demo-kafka").join(part)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tells_no_secret(shop: &Shop) {
    assert!(!shop.log().contains(SECRET), "{}", shop.log());
}

#[test]
fn a_daemon_goes_on_from_an_object_store_without_its_state_directory_and_waits_for_one_that_is_away() {
    let mut server = Server::start();
    let mut shop = shop("s3");
    server.serve(&mut shop);
    shop.produce("20000", "1");
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    work(&shop, &mut daemon, 2..4);
    daemon.kill();
    assert!(!shop.path(".tagflow/demo-kafka/checkpoints").exists(), "a checkpoint lies in the state directory");

    // The machine is lost.
    fs::remove_dir_all(shop.path(".tagflow")).unwrap();
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    nothing_was_filled_again(&shop);

    // The store is away: that is told, and stops nothing.
    server.kill();
    shop.produce("300", "4");
    let away = daemon
        .until("the trouble shows", |status| status.troubles.iter().any(|trouble| trouble.starts_with("checkpoints:")));
    let told = away.troubles.concat();
    assert!(told.contains("s3://tags/shops/one/demo-kafka/") && told.contains("refused"), "{told}");
    shop.produce("300", "5");
    daemon.until_quiet(TAGS.len());
    server.start_again();
    daemon.until("the trouble is over", |status| status.troubles.is_empty());
    work(&shop, &mut daemon, 6..8);

    // It is away when the daemon starts: the tables stay as they are until it is back.
    daemon.kill();
    server.kill();
    let mut daemon = shop.start();
    let waiting = daemon.until("it waits", |status| !status.troubles.is_empty());
    assert_eq!(waiting.phase, Phase::Starting);
    server.start_again();
    daemon.until_quiet(TAGS.len());
    work(&shop, &mut daemon, 8..9);
    nothing_was_filled_again(&shop);

    // A server that answers nothing keeps no daemon from ending.
    signal(server.child.id(), "STOP");
    shop.produce("300", "9");
    daemon.until_quiet(TAGS.len());
    daemon.signal("TERM");
    assert_eq!(daemon.end(Duration::from_secs(10)), 0, "{}", shop.log());
    signal(server.child.id(), "CONT");
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    nothing_was_filled_again(&shop);
    daemon.interrupt();
    shop.verify();
    tells_no_secret(&shop);
}

#[test]
fn damaged_objects_are_told_and_passed_over_and_one_goes_back_to_an_older_checkpoint() {
    let server = Server::start();
    let mut shop = shop("s3damage");
    server.serve(&mut shop);
    shop.produce("20000", "1");
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    work(&shop, &mut daemon, 2..5);
    daemon.kill();
    let known = epochs(&shop);
    let output = shop.output(&["checkpoint", "verify"]);
    assert!(output.status.success(), "{output:?}");

    let manifest = server.objects("manifests").join(format!("{:020}", known[0]));
    let mut text = fs::read(&manifest).unwrap();
    text.truncate(text.len() / 2);
    fs::write(&manifest, text).unwrap();
    // Of the one before a file of its own is: what was loaded before it is found must go again.
    let text = fs::read_to_string(server.objects("manifests").join(format!("{:020}", known[1]))).unwrap();
    let body: serde_json::Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    let runs = body["operators"].as_object().unwrap().values().flat_map(|files| files["runs"].as_array().unwrap());
    let mut names = runs.flat_map(|run| run["segments"].as_array().unwrap()).filter_map(|file| file["name"].as_str());
    let own = names.rfind(|name| name.starts_with(&format!("{:020}-", known[1]))).unwrap();
    let segment = server.objects("segments").join(own);
    let mut bytes = fs::read(&segment).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&segment, bytes).unwrap();
    let output = shop.output(&["checkpoint", "verify"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success());
    assert!(told.contains("s3://tags/shops/one/demo-kafka/manifests/") && told.contains("sound"), "{told}");
    // What a writer of another version has left, and what a crashed one has.
    let newer = manifest.with_file_name(format!("{:020}", known[0] + 1));
    fs::write(&newer, "tagflow-checkpoint 99 0 00000000\n").unwrap();
    let left: Vec<PathBuf> = (0..1_100).map(|file| server.objects("segments").join(format!("left-{file}"))).collect();
    left.iter().for_each(|file| fs::write(file, "half").unwrap());
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    assert!(shop.log().contains("the checkpoint has format 99, this tagflow reads format"), "{}", shop.log());
    assert!(shop.log().contains("its checksum differs from the manifest's"), "{}", shop.log());
    nothing_was_filled_again(&shop);
    // Its files may be needed by the version that wrote it, so nothing is collected beside it.
    assert!(left.iter().all(|file| file.exists()));
    work(&shop, &mut daemon, 5..7);
    daemon.kill();
    let _ = fs::remove_file(&newer);

    // Whether the damaged ones are among those that are kept depends on how many were taken since.
    let oldest = epochs(&shop).into_iter().rfind(|epoch| !known[..2].contains(epoch)).unwrap();
    let output = shop.output(&["checkpoint", "restore", &oldest.to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(epochs(&shop).first(), Some(&oldest));
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    work(&shop, &mut daemon, 7..8);
    assert!(!left.iter().any(|file| file.exists()), "what nobody needs is still there");
    nothing_was_filled_again(&shop);
    daemon.interrupt();
    shop.verify();
    tells_no_secret(&shop);
}

#[test]
fn standby_on_another_machine_takes_up_what_the_first_one_wrote() {
    let server = Server::start();
    let mut shop = shop("s3standby");
    server.serve(&mut shop);
    shop.produce("20000", "1");
    let mut active = shop.start();
    active.until_quiet(TAGS.len());
    work(&shop, &mut active, 2..3);
    let elsewhere = shop.elsewhere();
    let mut standby = elsewhere.start_beside("--standby");
    standby.until("it waits", |status| status.phase == Phase::Standby);
    work(&shop, &mut active, 3..4);
    active.kill();
    shop.produce("300", "4");
    standby.until_quiet(TAGS.len());
    assert!(elsewhere.log().contains("the checkpoint is loaded"), "{}", elsewhere.log());
    work(&elsewhere, &mut standby, 5..6);
    nothing_was_filled_again(&shop);
    standby.interrupt();
    elsewhere.verify();
    tells_no_secret(&elsewhere);
}

#[test]
fn a_tag_over_a_table_outside_is_filled_anew_elsewhere_and_no_other_is() {
    let server = Server::start();
    let topic = Topic::with_partitions("s3table", 1);
    let schema = "[columns]\nuser_id = \"BIGINT NOT NULL\"\nlevel = \"BIGINT\"\n";
    let orders = format!("connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n{schema}", topic.name);
    let levels = "kind = \"file\"\nconnection = \"files\"\npath = \"levels.csv\"\nformat = \"csv\"\nkey = [\"level\"]\n\
                  [columns]\nlevel = \"BIGINT NOT NULL\"\nname = \"VARCHAR\"\n";
    let named =
        "SELECT o.user_id, MAX(l.name) AS name FROM orders o JOIN levels l ON o.level = l.level GROUP BY o.user_id";
    let files = [
        ("schemas/orders.toml", orders),
        ("schemas/levels.toml", levels.to_string()),
        ("tags/visits.sql", "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id".to_string()),
        ("tags/named.sql", named.to_string()),
        ("data/levels.csv", "level,name\n0,new\n1,old\n".to_string()),
    ];
    let mut shop = Shop::of("s3table", &files);
    server.serve(&mut shop);
    let settings = fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    let files = "[connection.files]\ntype = \"file\"\npath = \"data\"\n[store]";
    fs::write(shop.path("tagflow.toml"), settings.replace("[store]", files)).unwrap();
    let records = |users: std::ops::Range<u64>| -> Vec<_> {
        users.map(|user| (format!("{{\"user_id\": {user}, \"level\": {}}}", user % 2), None)).collect()
    };
    topic.write(0, &records(0..50));
    let mut active = shop.start();
    active.until_quiet(2);
    active.until("there is a checkpoint", |status| status.checkpoint_epoch.is_some());
    let elsewhere = shop.elsewhere();
    active.kill();
    topic.write(0, &records(50..60));
    let mut other = elsewhere.start();
    other.until_quiet(2);
    assert!(elsewhere.log().contains("whose log is elsewhere"), "{}", elsewhere.log());
    let versions = "SELECT GROUP_CONCAT(tag, ' ', version ORDER BY tag) FROM _tagflow_tags";
    shop.until_registry(versions, "named 2,visits 1");
    other.interrupt();
    elsewhere.verify();
}

#[test]
fn a_store_that_refuses_is_told_in_words_that_help_and_hold_no_secret() {
    let server = Server::start();
    let mut shop = shop("s3login");
    server.serve(&mut shop);
    let refused = |shop: &Shop, arguments: &[&str]| {
        let output = shop.output(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(!told.contains(SECRET) && !told.contains("not-that"), "{told}");
        told
    };
    let settings = fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    fs::write(shop.path("tagflow.toml"), settings.replace("s3://tags/", "s3://tegs/")).unwrap();
    let told = refused(&shop, &["checkpoint", "list"]);
    assert!(told.contains("s3://tegs/shops/one/demo-kafka/manifests: NoSuchBucket"), "{told}");
    fs::write(shop.path("tagflow.toml"), settings).unwrap();

    shop.environment.push(("SHOP_S3_SECRET".to_string(), "not-that".to_string()));
    let told = refused(&shop, &["checkpoint", "list"]);
    assert!(told.contains("SignatureDoesNotMatch") && told.contains("AWS_ACCESS_KEY_ID"), "{told}");
    // A daemon that starts says it at once, and ends.
    let told = refused(&shop, &["run"]);
    assert!(told.contains("SignatureDoesNotMatch"), "{told}");
}

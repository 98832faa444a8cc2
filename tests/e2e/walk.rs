//! The walk of the README: every command of its ```console blocks is run, in one shell, and what it prints is compared.
//!
//! In what is expected `…` stands for any text of a line, and alone on a line for any lines.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::broker::jars;
use crate::shop::{PATIENCE, environment, free_port};
use crate::topic::Topic;

/// The topic of the walk: a new project's.
const TOPIC: &str = "orders";
/// What stands for anything.
const ANY: &str = "…";
/// Longest wait for all commands together.
const WALK: Duration = Duration::from_secs(300);

/// A command, and what it is said to print.
struct Step {
    command: String,
    expected: Vec<String>,
}

/// The commands of all console blocks, in order.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = readme.lines();
    while lines.by_ref().any(|line| line == "```console") {
        for line in lines.by_ref().take_while(|line| *line != "```") {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_string(), expected: Vec::new() });
                continue;
            }
            let step = steps.last_mut().expect("a block begins with a command");
            match line.strip_prefix('>') {
                // A shell asks for more of the command before it prints anything.
                Some(more) if step.expected.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(more.strip_prefix(' ').unwrap_or(more));
                }
                _ => step.expected.push(line.trim_end().to_string()),
            }
        }
    }
    steps
}

/// True where a line is as expected.
fn is_like(line: &str, expected: &str) -> bool {
    let mut parts = expected.split(ANY);
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (number, part) in parts.iter().enumerate() {
        if number + 1 == parts.len() {
            return rest.ends_with(part);
        }
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

/// True where lines are as expected.
fn are_like(lines: &[&str], expected: &[String]) -> bool {
    match (lines, expected) {
        ([], []) => true,
        (_, [any, behind @ ..]) if any == ANY => (0..=lines.len()).any(|skipped| are_like(&lines[skipped..], behind)),
        ([line, lines @ ..], [expected, behind @ ..]) => is_like(line, expected) && are_like(lines, behind),
        _ => false,
    }
}

#[test]
fn what_is_expected_is_compared_but_for_what_differs_each_time() {
    let expected = ["a … c", ANY, "end"].map(str::to_string);
    assert!(are_like(&["a b c", "end"], &expected) && are_like(&["a … c", "1", "2", "end"], &expected));
    assert!(!are_like(&["a b", "end"], &expected) && !are_like(&["a b c", "end", "more"], &expected));
    assert!(!are_like(&["a b c"], &expected) && !are_like(&[], &expected));
    let steps = steps("```\n$ no\n```\n```console\n$ cat <<E\n> x\n>\n> E\n x\n$ true\n```\n");
    assert_eq!(steps.iter().map(|step| step.command.as_str()).collect::<Vec<_>>(), ["cat <<E\nx\n\nE", "true"]);
    assert_eq!(steps[0].expected, [" x"]);
}

/// Kafka's own producer under the name that its distribution gives it.
fn write_producer(folder: &Path) {
    let path = folder.join("kafka-console-producer.sh");
    let class = "org.apache.kafka.tools.ConsoleProducer";
    let text = format!("#!/bin/sh\nexec java -cp '{}' {class} \"$@\" 2> /dev/null\n", jars().join("*").display());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The topic of the walk, without what a walk before this one has written.
fn fresh_topic() -> Topic {
    let mut topic = Topic::named("walk");
    topic.name = TOPIC.to_string();
    block_on(topic.admin.delete_topics(&[TOPIC], &AdminOptions::new())).unwrap();
    let consumer: BaseConsumer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &topic.brokers).create().unwrap();
    let begun = Instant::now();
    let is_there = || {
        let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
        metadata.topics().iter().any(|found| found.name() == TOPIC)
    };
    while is_there() {
        assert!(begun.elapsed() < PATIENCE, "the topic is not deleted");
        std::thread::sleep(Duration::from_millis(100));
    }
    topic
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let steps = steps(&readme);
    assert!(steps.len() > 20, "the README has lost its walk");
    let _topic = fresh_topic();
    let folder = tempfile::tempdir().unwrap();
    let tools = tempfile::tempdir().unwrap();
    write_producer(tools.path());
    // Between the outputs stands what no command prints.
    let mark = format!("--- {} ---", folder.path().display());
    let script: String = steps.iter().map(|step| format!("{}\necho '{mark}' $?\n", step.command)).collect();
    let script_file = tools.path().join("walk.sh");
    fs::write(&script_file, script).unwrap();
    let output = tools.path().join("output");
    let printed = fs::File::create(&output).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tagflow")).parent().unwrap();
    let path = format!("{}:{}:{}", tools.path().display(), binary.display(), std::env::var("PATH").unwrap());
    let server = environment("TAGFLOW_TEST_MYSQL");
    let store = format!("{}/walk_{}_{}", server.rsplit_once('/').unwrap().0, std::process::id(), free_port());
    let mut shell = Command::new("bash")
        .arg(&script_file)
        .current_dir(folder.path())
        .env("PATH", path)
        .env("SHOP_KAFKA", environment("TAGFLOW_TEST_KAFKA"))
        .env("TAGFLOW_STORE_URL", store)
        .env_remove("TAGFLOW_PROFILE")
        .stdin(Stdio::null())
        .stdout(printed.try_clone().unwrap())
        .stderr(printed)
        .process_group(0)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = shell.try_wait().unwrap() {
            break Some(ended);
        }
        if begun.elapsed() >= WALK {
            // What it has started goes with it.
            let group = format!("-{}", shell.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            shell.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let text = fs::read_to_string(&output).unwrap();
    let log = fs::read_to_string(folder.path().join("shop/log")).unwrap_or_default();
    let mut rest = text.as_str();
    for Step { command, expected } in &steps {
        let Some((own, behind)) = rest.split_once(mark.as_str()) else {
            panic!("`{command}` has not ended ({ended:?}):\n{rest}\n{log}");
        };
        let lines: Vec<&str> = own.lines().map(str::trim_end).collect();
        assert!(
            are_like(&lines, expected),
            "$ {command}\nprints\n{}\nand not\n{}\n{log}",
            lines.join("\n"),
            expected.join("\n")
        );
        rest = behind.split_once('\n').map_or("", |(_, rest)| rest);
    }
    assert!(ended.is_some_and(|ended| ended.success()), "{text}");
}

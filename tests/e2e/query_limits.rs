//! `tagflow query` where there is much: memory, Ctrl-C, a reader that has seen enough, and files that are whole or not there.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::shop::{PATIENCE, signal};

/// Orders in a file, each with a text of 400 letters.
const ORDERS: usize = 60_000;

fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let settings = "timezone = \"UTC\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n[connection.files]\n\
                    type = \"file\"\npath = \"data\"\n[store]\nurl = \"sqlite:tags.db\"\n[engine]\nmemory_limit = \"20MB\"\n";
    let schema = "connection = \"files\"\ntopic = \"orders\"\nformat = \"json\"\n[columns]\nid = \"BIGINT\"\nnote = \"VARCHAR\"\n";
    for (file, text) in [("tagflow.toml", settings), ("schemas/orders.toml", schema)] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::create_dir(folder.path().join("data")).unwrap();
    let mut file = std::io::BufWriter::new(fs::File::create(folder.path().join("data/orders")).unwrap());
    for id in 0..ORDERS {
        // A permutation, so that the order of the file is none of the notes.
        let note = id * 7_919 % ORDERS;
        writeln!(file, "{{\"id\":{id},\"note\":\"{note:0400}\"}}").unwrap();
    }
    file.flush().unwrap();
    folder
}

fn query(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tagflow"));
    command.arg("query").args(arguments).arg("--project").arg(root).current_dir(root);
    command
}

fn rows(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn sorts_and_groups_beyond_the_limit_spill_and_a_join_beyond_it_is_refused() {
    let folder = project();
    let csv = |sql: &str| query(folder.path(), &[sql, "--format", "csv"]).output().unwrap();
    let sorted = rows(&csv("SELECT note, id FROM orders ORDER BY note"));
    assert_eq!(sorted.len(), ORDERS);
    assert!(sorted.is_sorted() && sorted[0].ends_with(",0"), "{}", sorted[0]);
    let groups = rows(&csv("SELECT note, COUNT(*) AS n FROM orders GROUP BY note"));
    assert!(groups.len() == ORDERS && groups.iter().all(|row| row.ends_with(",1")));

    let joined = csv("SELECT COUNT(*) AS n FROM orders a JOIN orders b ON a.note = b.note");
    let said = String::from_utf8_lossy(&joined.stderr);
    assert_eq!(joined.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: the query needs more memory than `memory_limit` has"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn ctrl_c_ends_a_query_at_once_and_leaves_no_file() {
    let folder = project();
    // More rows than anybody waits for, which come without a pause.
    let endless = "SELECT a.id, b.note FROM orders a CROSS JOIN (SELECT note FROM orders LIMIT 9999) b";
    let seen = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let before = seen().len();
    for format in ["csv", "parquet"] {
        let output = folder.path().join(format!("out.{format}"));
        let mut command = query(folder.path(), &[endless, "--format", format, "--output", output.to_str().unwrap()]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while seen().len() == before {
            assert!(begun.elapsed() < PATIENCE && child.try_wait().unwrap().is_none(), "nothing is written");
            std::thread::sleep(Duration::from_millis(20));
        }
        signal(child.id(), "INT");
        let asked = Instant::now();
        let code = child.wait().unwrap();
        assert_eq!(code.code(), Some(130));
        assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
        assert_eq!(seen().len(), before, "{:?}", seen());
    }
}

#[test]
fn reader_that_has_seen_enough_ends_the_query_without_an_error() {
    let folder = project();
    let endless = "SELECT a.id, b.note FROM orders a CROSS JOIN orders b";
    for format in ["csv", "json"] {
        let mut command = query(folder.path(), &[endless, "--format", format]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""), "{format}");
    }
}

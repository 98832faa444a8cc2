//! What `tagflow` writes for shells and for `man`, read by those that are there; and readers that close the pipe.

use std::process::{Command, Stdio};

fn tagflow(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tagflow"));
    command.args(arguments);
    command
}

/// Runs a program of the system; `None` where it is not there.
fn accepted(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    Some(said)
}

#[test]
fn completion_scripts_are_read_by_their_shells() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.path().join(shell);
        let output = tagflow(&["completions", shell]).output().unwrap();
        assert!(output.status.success());
        std::fs::write(&script, output.stdout).unwrap();
        let read = accepted(shell, &["-n", script.to_str().unwrap()]);
        assert!(read.is_some() || shell != "bash", "bash is everywhere");
    }
    // What bash offers for a beginning.
    let script = folder.path().join("bash");
    let asked = "source \"$1\"; COMP_WORDS=(tagflow dead-letters re); COMP_CWORD=2; _tagflow tagflow re dead-letters; echo \"${COMPREPLY[@]}\"";
    let offered = accepted("bash", &["-c", asked, "bash", script.to_str().unwrap()]);
    assert_eq!(offered.as_deref(), Some("replay\n"));
}

#[test]
fn manual_pages_are_read_by_man() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(tagflow(&["man"]).arg(&pages).output().unwrap().status.success());
    for page in ["tagflow.1", "tagflow-query.1", "tagflow-dead-letters-replay.1"] {
        let page = pages.join(page);
        if let Some(said) = accepted("mandoc", &["-T", "lint", "-W", "error", page.to_str().unwrap()]) {
            assert_eq!(said, "", "{}", page.display());
        }
        if let Some(text) = accepted("man", &["--warnings", "-l", page.to_str().unwrap()]) {
            assert!(text.contains("SYNOPSIS") && text.contains("--quiet") && !text.contains("warning:"), "{text}");
        }
    }
}

#[test]
fn reader_that_closes_the_pipe_is_no_error() {
    for arguments in [&["completions", "bash"][..], &["check", "--explain", "T0504"], &["--help"]] {
        let mut child = tagflow(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() && said.is_empty(), "{arguments:?}: {said}");
    }
}

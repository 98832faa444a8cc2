//! `tagflow lsp` as a process, spoken to by a client library of the protocol.

use std::path::Path;
use std::process::Command;

#[test]
fn client_library_is_served_and_what_is_no_message_ends_the_server() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("scripts/lsp-client"))
        .arg(root.join("tests/lsp/session.py"))
        .arg(env!("CARGO_BIN_EXE_tagflow"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    assert!(said.contains("Ran 11 tests"), "{said}");
}

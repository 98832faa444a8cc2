//! Authorities and certificates of a test, by the openssl of the machine.

use std::path::Path;
use std::process::Command;

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// NAME.pem and NAME-key.pem of an authority.
pub fn authority(folder: &Path, name: &str) {
    let (key, pem, subject) = (format!("{name}-key.pem"), format!("{name}.pem"), format!("/CN={name}"));
    let kind = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"];
    openssl(folder, &[&kind[..], &["-keyout", &key, "-out", &pem, "-subj", &subject]].concat());
}

/// The same of somebody whose names an authority has signed.
pub fn certificate(folder: &Path, name: &str, authority: &str, names: &str, days: &str) {
    let (key, pem, request) = (format!("{name}-key.pem"), format!("{name}.pem"), format!("{name}.csr"));
    let subject = format!("/CN={name}");
    let kind = ["req", "-newkey", "rsa:2048", "-nodes"];
    openssl(folder, &[&kind[..], &["-keyout", &key, "-out", &request, "-subj", &subject]].concat());
    std::fs::write(folder.join("names"), format!("subjectAltName={names}\n")).unwrap();
    let (ca, ca_key) = (format!("{authority}.pem"), format!("{authority}-key.pem"));
    let sign = ["x509", "-req", "-CAcreateserial", "-extfile", "names", "-days", days];
    openssl(folder, &[&sign[..], &["-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-out", &pem]].concat());
}

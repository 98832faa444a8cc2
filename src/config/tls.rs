//! `ca`, `cert` and `key` of a store or a connection.

use std::path::{Path, PathBuf};

use super::Tls;
use super::paths::path_of_machine;
use crate::diagnostic::codes;
use crate::toml_walk::{Section, Walk};

/// The keys, for lists of those that are known.
pub(super) const TLS_KEYS: [&str; 3] = ["ca", "cert", "key"];

/// Reads the files of one table.
pub(super) fn read_tls(walk: &mut Walk<'_>, section: &Section<'_>, root: &Path) -> Tls {
    let [ca, cert, key] = TLS_KEYS.map(|key| tls_file(walk, section, key, root));
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if let Some(value) = section.table.get(one)
            && section.table.get(other).is_none()
        {
            let message = format!("\"{one}\" in {} comes without \"{other}\"", section.label);
            walk.error(codes::MISSING_KEY, walk.at(value.span()), message)
                .help("a client certificate is two files: cert = \"client.pem\" and key = \"client-key.pem\"");
        }
    }
    Tls { ca, cert, key }
}

impl Tls {
    /// File by file what is given here, else what is given below.
    pub(super) fn over(self, below: Tls) -> Tls {
        Tls { ca: self.ca.or(below.ca), cert: self.cert.or(below.cert), key: self.key.or(below.key) }
    }
}

/// Below the project, or where the machine keeps such files.
fn tls_file(walk: &mut Walk<'_>, section: &Section<'_>, key: &str, root: &Path) -> Option<PathBuf> {
    let text = walk.text(section, key)?;
    path_of_machine(walk, section, key, text.value.as_deref()?, text.span, root)
}

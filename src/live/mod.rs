//! What the world says of a project: whether topics are there and their newest records decode, whether registries answer,
//! whether the store takes tables.
//!
//! Enters: a project. Leaves: diagnostics at the files that name what was asked. Records are read by the same readers and
//! decoders as the daemon's, into a folder of its own; nothing is committed, and of the store's tables none is touched.

pub mod codes;
mod streams;

use std::path::Path;
use std::time::Duration;

use crate::catalog::Format;
use crate::config::Connection;
use crate::diagnostic::Diagnostic;
use crate::project::{Project, SETTINGS_FILE};
use crate::sink::{StoreFault, try_store};
use crate::source::Registries;

/// Longest wait for any of them.
const PATIENCE: Duration = Duration::from_secs(10);
/// Newest records of a stream that are decoded.
const SAMPLE: i64 = 200;

/// Asks everything that the project names, at once.
pub fn check(project: &Project) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    std::thread::scope(|scope| {
        let streams = project.catalog.streams.values();
        let running: Vec<_> = streams.map(|stream| scope.spawn(move || streams::check(project, stream))).collect();
        found.extend(store(project));
        found.extend(registries(project));
        for thread in running {
            // A panic is one of ours: the other streams are told all the same.
            found.extend(thread.join().unwrap_or_default());
        }
    });
    found
}

/// Whether a table can be made, written, renamed and dropped.
fn store(project: &Project) -> Option<Diagnostic> {
    let fault = try_store(&project.config.store, &project.config.root).err()?;
    let settings = Path::new(SETTINGS_FILE);
    Some(match fault {
        StoreFault::Away(message) => Diagnostic::error(codes::STORE_AWAY, settings, None, message)
            .help("look at [store] in tagflow.toml, and whether the server runs and lets this machine in"),
        StoreFault::Refused { statement, message } => {
            let told = format!("the store does not let its account {statement}: {message}");
            Diagnostic::error(codes::STORE_RIGHTS, settings, None, told)
                .help("grant it what the README lists under \"Security\"")
        }
    })
}

/// Whether the registries of Avro streams answer.
fn registries(project: &Project) -> Vec<Diagnostic> {
    let known = Registries::default();
    let of_registry = project.catalog.streams.values().filter(|stream| stream.format == Format::Avro(None));
    let mut asked = Vec::new();
    let mut found = Vec::new();
    for stream in of_registry {
        let Some(Connection::Kafka { registry: Some(address), .. }) =
            project.config.connections.get(&stream.connection)
        else {
            continue;
        };
        if asked.contains(&&stream.connection) {
            continue;
        }
        asked.push(&stream.connection);
        // That an id is not known is an answer.
        if let Err(unavailable) = known.at(address).look_up(0) {
            let message = format!("the registry of the connection \"{}\": {unavailable}", stream.connection);
            found.push(
                Diagnostic::error(codes::REGISTRY_AWAY, SETTINGS_FILE, None, message)
                    .help("look at its address, and at user and password in it"),
            );
        }
    }
    found
}

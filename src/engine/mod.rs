//! Composes: the epoch loop, checkpoints, reload, fills, supervision.
//!
//! Enters: a planned project, its connections and its store. Leaves: committed tag tables and a status.
//! Threads: the epoch loop is one, each source has its own, the store has one, a fill has one, the reloader has one,
//! and each archive.
//! They meet in bounded channels; there is no other shared state but the status.

pub mod archiver;
pub mod changes;
pub mod checkpoint;
pub mod commits;
pub mod culprit;
pub mod daemon;
pub mod dataflow;
pub mod delay;
pub mod desired;
pub mod fill;
pub mod history;
pub mod intake;
pub mod labels;
pub mod letters;
pub mod memory;
#[cfg(test)]
mod protocol;
pub mod query;
pub mod reload;
pub mod replays;
pub mod rollbacks;
pub mod running;
pub mod scratch;
pub mod sizes;
pub mod state_dir;
pub mod status;
pub mod stop;
pub mod store;
pub mod verify;
pub mod versions;

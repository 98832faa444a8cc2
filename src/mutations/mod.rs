//! Hostile input, for tests: what decoders, tag headers, `check` and the reader of checkpoints do with bytes that nobody
//! meant.
//!
//! Enters: any bytes. Each of [`record`], [`tag_header`], [`check`] and [`checkpoint`] panics where what it tries breaks a
//! promise, and says whether the bytes were taken or refused, as they should be. `cargo test` runs them over mutations of
//! the corpus in `fuzz/corpus`, and `make fuzz` below libFuzzer, with the same [`Mutator`].

mod checkpoints;
mod mutator;
mod plain;
mod projects;
mod records;
#[cfg(test)]
mod tests;

pub use checkpoints::checkpoint;
pub use mutator::Mutator;
pub use projects::{check, tag_header};
pub use records::record;

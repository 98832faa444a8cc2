//! Tagflow keeps user tags true in real time: SQL files become live MySQL tables.
//!
//! Folders are in the order in which an event walks: `source` → `operator` (stepped by `engine`) → `sink`.
//! A tag file walks `tag` → `plan` → `engine`. `ARCHITECTURE.md` has the map and the invariants.

#![deny(clippy::unwrap_used)]
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(missing_docs)]

mod byte_cursor;
pub mod catalog;
pub mod cli;
pub mod column_type;
pub mod config;
pub mod console;
mod crash_point;
mod csv_line;
pub mod delta;
pub mod diagnostic;
pub mod engine;
mod file_lock;
pub mod graph;
mod inside;
pub mod junit;
pub mod lint;
pub mod live;
#[cfg(any(test, feature = "mutations"))]
pub mod mutations;
mod mysql_options;
pub mod operator;
pub mod oracle;
pub mod plan;
pub mod project;
mod regular_file;
pub mod sink;
pub mod source;
mod sql_header;
pub mod tag;
pub mod tag_test;
mod toml_walk;
mod whole_file;

//! The incremental operators and their keyed state. Synchronous; no clock of their own, no async, no I/O but to the scratch
//! files that they are given.
//!
//! Enters: one [`Delta`](crate::delta::Delta) per input and epoch, and the epoch's clock. Leaves: one delta per output.
//! After every step an operator's output, summed up over all steps, is the relation that its SQL means over all input
//! so far at that clock. State is cut into shards by the hash of its key; shards are stepped in parallel.

pub mod aggregate;
pub mod bisect;
pub mod changed;
pub mod clock_filter;
pub mod clock_flags;
pub mod clock_row;
pub mod cold;
pub mod due_rows;
pub mod error;
pub mod graph;
pub mod join;
pub mod map;
pub mod partitions;
pub mod punctual;
pub mod row_map;
pub mod rows;
pub mod seed;
pub mod sound;
pub mod state;
pub mod tiles;
pub mod top_rows;
pub mod unique;
pub mod unnest;
pub mod window;

pub use error::OperatorError;
pub use state::{StatePart, Stateful};

//! The incremental operators and their keyed state. Synchronous; no clock, no I/O, no async.

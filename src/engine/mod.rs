//! Composes: the epoch loop, checkpoints, reload, backfill, supervision.

//! From a tag's SQL to a flow plan that can be stepped; refuses what cannot stream. No I/O.
//!
//! Enters: a `TagDefinition` and the `Catalog`. Leaves: a [`flow::FlowPlan`], or diagnostics.
//! DataFusion parses, resolves, coerces and optimises; `compile` turns its logical plan into incremental operators.

pub mod bins;
mod casts;
pub mod changes;
pub mod clock;
pub mod codes;
pub mod columns;
pub mod compile;
pub mod counted_sets;
pub mod exact;
pub mod explain;
pub mod fallible;
pub mod far_times;
pub mod flow;
pub mod functions;
pub mod guards;
pub mod limits;
pub mod lineage;
pub mod marks;
pub mod memory;
pub mod mixed_times;
pub mod on_error;
pub mod paced;
mod rewriting;
pub mod session;
pub mod signed;
pub mod sound;
pub mod spans;
pub mod sql;
pub mod steps;
pub mod tied;
pub mod unique;
pub mod unnests;
pub mod watermark;
pub mod wording;
pub mod zone;
pub mod zone_days;

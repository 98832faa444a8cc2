//! Lints of a project as a whole: what is right in each file, and yet not what one would want beside the others.
//!
//! Enters: a project and its plans. Leaves: warnings, whose levels `project` knows. Lints of single queries are the
//! planner's, since only it knows types.

pub mod codes;
mod money;
mod owners;
mod readers;

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::plan::flow::FlowPlan;
use crate::project::Project;

/// What is to be said of a project; `plans` are those of its sound tags.
pub fn of_project(project: &Project, plans: &BTreeMap<&str, &FlowPlan>) -> Vec<Diagnostic> {
    let mut found = owners::missing(project);
    found.extend(readers::missing(project));
    found.extend(money::in_floats(project, plans));
    found
}

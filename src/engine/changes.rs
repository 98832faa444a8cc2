//! What becomes of tags when a project's files change. The daemon acts by it and `tagflow plan` tells of it, so that they
//! cannot disagree.

use crate::engine::desired::PlannedTag;
use crate::plan::flow::{FlowPlan, Reach};
use crate::sink::TagRegistration;

/// What becomes of a tag that should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has no table yet: it is filled.
    Added,
    /// Its plan is another: it is filled beside the version that runs, and replaces it.
    Refilled,
    /// State and table stay, and readers are told what else is said of it by now.
    Described,
    /// Nothing is done.
    Unchanged,
}

/// What becomes of a tag, given the fingerprint of the plan that its table shows and what is registered of it.
pub fn change_of(shown: Option<(&str, &TagRegistration)>, wanted: &PlannedTag) -> Change {
    match shown {
        None => Change::Added,
        Some((fingerprint, _)) if fingerprint != wanted.plan.fingerprint => Change::Refilled,
        Some((_, registered)) if !says_the_same(registered, &wanted.registration) => Change::Described,
        Some(_) => Change::Unchanged,
    }
}

/// True where files say the same of a tag; what only the store and the daemon know is left out.
fn says_the_same(one: &TagRegistration, other: &TagRegistration) -> bool {
    described(one) == described(other)
}

/// A registration as files alone tell it.
fn described(registration: &TagRegistration) -> TagRegistration {
    let mut told = registration.clone();
    (told.version, told.git_commit, told.complete_from) = (1, None, None);
    told.lost.clear();
    told.columns.iter_mut().for_each(|column| column.sql_type.clear());
    told
}

/// True where so many tags vanish at once that it is seldom meant: a folder that is not mounted looks like that.
pub fn too_many_gone(gone: usize, of: usize) -> bool {
    gone > 3 && gone * 2 > of
}

/// From when on an answer is complete, milliseconds since the Unix epoch, where partitions whose first records are gone or not
/// asked for begin at `cut`; `None` where it does not look back that far. `clock` is in nanoseconds.
pub fn complete_from(plan: &FlowPlan, cut: impl Iterator<Item = i64>, clock: i64) -> Option<i64> {
    let from = cut.max()?;
    match plan.reach {
        Reach::Within(reach) if from.saturating_mul(1_000_000) <= clock - reach => None,
        _ => Some(from),
    }
}

/// True where a filled version waits for `tagflow accept`: it is complete only from some time on, and the table that it would
/// replace from the beginning.
pub fn waits_for_accept(filled_from: Option<i64>, shown_from: Option<Option<i64>>) -> bool {
    filled_from.is_some() && shown_from == Some(None)
}

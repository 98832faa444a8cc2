//! The state of all operators: into a checkpoint, out of one, and from a graph that was filled beside this one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Graph, Operator, OutputId};
use crate::operator::{OperatorError, StatePart, Stateful};

/// State by the fingerprints of operators.
type State = BTreeMap<String, Vec<StatePart>>;

impl Operator {
    fn stateful(&self) -> Option<&dyn Stateful> {
        match self {
            Operator::Unique { operator, .. } => Some(operator.as_ref()),
            Operator::Seed(seed) => Some(seed),
            Operator::Punctual(punctual) => Some(punctual.as_ref()),
            Operator::ClockFilter(filter) => Some(filter.as_ref()),
            Operator::ClockFlags(flags) => Some(flags.as_ref()),
            Operator::ClockRow(row) => Some(row.as_ref()),
            Operator::Tiles(tiles) => Some(tiles.as_ref()),
            Operator::Aggregate(aggregate) => Some(aggregate.as_ref()),
            Operator::TopRows(top) => Some(top.state()),
            Operator::Window(window) => Some(window.state()),
            Operator::Join(join) => Some(join.as_ref()),
            Operator::Source(_) | Operator::Map(_) | Operator::Sound(_) | Operator::Unnest(_) | Operator::Union(_) => {
                None
            }
        }
    }

    fn stateful_mut(&mut self) -> Option<&mut dyn Stateful> {
        match self {
            Operator::Unique { operator, .. } => Some(operator.as_mut()),
            Operator::Seed(seed) => Some(seed),
            Operator::Punctual(punctual) => Some(punctual.as_mut()),
            Operator::ClockFilter(filter) => Some(filter.as_mut()),
            Operator::ClockFlags(flags) => Some(flags.as_mut()),
            Operator::ClockRow(row) => Some(row.as_mut()),
            Operator::Tiles(tiles) => Some(tiles.as_mut()),
            Operator::Aggregate(aggregate) => Some(aggregate.as_mut()),
            Operator::TopRows(top) => Some(top.state_mut()),
            Operator::Window(window) => Some(window.state_mut()),
            Operator::Join(join) => Some(join.as_mut()),
            Operator::Source(_) | Operator::Map(_) | Operator::Sound(_) | Operator::Unnest(_) | Operator::Union(_) => {
                None
            }
        }
    }
}

impl Graph {
    /// The state of every operator that has any.
    pub fn snapshot(&self) -> Result<State, OperatorError> {
        let mut snapshot = State::new();
        for node in &self.nodes {
            if let Some(operator) = node.operator.stateful() {
                snapshot.insert(node.fingerprint.clone(), operator.snapshot()?);
            }
        }
        Ok(snapshot)
    }

    /// What has changed in every operator with state since this was called last; all of what is new since. After an error
    /// the next changes are all.
    pub fn changes(&mut self) -> Result<State, OperatorError> {
        let mut changes = State::new();
        for node in &mut self.nodes {
            let Some(operator) = node.operator.stateful_mut() else { continue };
            match operator.changes() {
                Ok(parts) => drop(changes.insert(node.fingerprint.clone(), parts)),
                Err(error) => {
                    self.set_saved(false);
                    return Err(error);
                }
            }
        }
        Ok(changes)
    }

    /// Whether a checkpoint holds the state as it is: changes count from here on, or the next ones are all.
    pub fn set_saved(&mut self, is_saved: bool) {
        for operator in self.nodes.iter_mut().filter_map(|node| node.operator.stateful_mut()) {
            operator.set_saved(is_saved);
        }
    }

    /// Takes state over for all outputs that `fresh` names: operators of which nothing is loaded yet.
    pub fn load(&mut self, snapshot: &State, fresh: &BTreeSet<OutputId>) -> Result<(), OperatorError> {
        for node in &mut self.nodes {
            let wanted =
                |member: &str| fresh.contains(&OutputId { node: node.fingerprint.clone(), member: member.to_string() });
            let Some(parts) = snapshot.get(&node.fingerprint) else { continue };
            match &mut node.operator {
                Operator::Aggregate(aggregate) => aggregate.load_members(parts, &wanted)?,
                operator if wanted("") => match operator.stateful_mut() {
                    Some(operator) => operator.load(parts)?,
                    None => continue,
                },
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the tags of a graph that stands at the same epoch over, with their state.
    pub fn absorb(&mut self, filled: &Graph) -> Result<(), OperatorError> {
        let before = self.outputs();
        for (tag, output) in &filled.tags {
            self.add_tag(tag, &output.plan)?;
        }
        let fresh = self.outputs().difference(&before).cloned().collect();
        self.load(&filled.snapshot()?, &fresh)
    }
}

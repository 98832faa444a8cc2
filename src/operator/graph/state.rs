//! The state of all operators: into a checkpoint, out of one, and from a graph that was filled beside this one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Graph, Node, Operator, OutputId};
use crate::operator::cold::ColdRows;
use crate::operator::state::Extent;
use crate::operator::{OperatorError, StatePart, Stateful};

/// State by the fingerprints of operators.
type State = BTreeMap<String, Vec<StatePart>>;

/// Further rows of operators' tables, which are out of memory.
pub type Further = BTreeMap<String, Vec<ColdRows>>;

/// An operator cannot say what has changed in it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct ChangesFault {
    /// Why.
    pub error: OperatorError,
    /// The tags over it.
    pub tags: Vec<String>,
}

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

    pub(super) fn stateful_mut(&mut self) -> Option<&mut dyn Stateful> {
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

impl Node {
    /// All state that is out of memory, of the tables of these parts.
    fn cold_rows(&self, parts: &[StatePart]) -> Vec<ColdRows> {
        let tables: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
        self.operator.cold_rows(&tables)
    }

    /// Takes over what is wanted of parts that need not be of all tables.
    fn load(&mut self, parts: &[StatePart], wanted: &dyn Fn(&str) -> bool) -> Result<(), OperatorError> {
        match &mut self.operator {
            Operator::Aggregate(aggregate) => aggregate.load_members(parts, wanted),
            operator if wanted("") => operator.stateful_mut().map_or(Ok(()), |operator| operator.load(parts)),
            _ => Ok(()),
        }
    }
}

impl Graph {
    /// The state of every operator that has any, with what is out of memory.
    pub fn snapshot(&self) -> Result<State, OperatorError> {
        let mut snapshot = State::new();
        for node in &self.nodes {
            let Some(operator) = node.operator.stateful() else { continue };
            let mut parts = operator.snapshot()?;
            for rows in node.cold_rows(&parts) {
                for piece in rows {
                    parts.extend(piece?);
                }
            }
            snapshot.insert(node.fingerprint.clone(), parts);
        }
        Ok(snapshot)
    }

    /// What has changed in every operator with state since this was called last; all of what is new since. Of tables that
    /// are there as a whole the rows that are out of memory are read later. After an error the next changes are all.
    pub fn changes(&mut self) -> Result<(State, Further), ChangesFault> {
        let (mut changes, mut further) = (State::new(), Further::new());
        for node in &mut self.nodes {
            let room = self.room.as_ref().filter(|_| !node.is_saved);
            let operator = &mut node.operator;
            let taken = OperatorError::of_panic(|| {
                room.into_iter().for_each(|room| operator.spill_all(room));
                operator.stateful_mut().map(|operator| operator.changes()).transpose()
            });
            match taken.flatten() {
                Ok(None) => {}
                Ok(Some(parts)) => {
                    node.is_saved = true;
                    let whole = parts.iter().filter(|part| matches!(part.extent, Extent::Whole));
                    let whole: Vec<String> = whole.map(|part| part.name.clone()).collect();
                    further.insert(node.fingerprint.clone(), node.operator.cold_rows(&whole));
                    changes.insert(node.fingerprint.clone(), parts);
                }
                Err(error) => {
                    let fingerprint = node.fingerprint.clone();
                    self.set_saved(false);
                    let tags = self.users(&fingerprint).into_iter().map(str::to_string).collect();
                    return Err(ChangesFault { error, tags });
                }
            }
        }
        Ok((changes, further))
    }

    /// Whether a checkpoint holds the state as it is: changes count from here on, or the next ones are all.
    pub fn set_saved(&mut self, is_saved: bool) {
        self.nodes.iter_mut().for_each(|node| node.is_saved = is_saved);
        for operator in self.nodes.iter_mut().filter_map(|node| node.operator.stateful_mut()) {
            operator.set_saved(is_saved);
        }
    }

    /// Takes state over for all outputs that `fresh` names: operators of which nothing is loaded yet.
    pub fn load(&mut self, snapshot: &State, fresh: &BTreeSet<OutputId>) -> Result<(), OperatorError> {
        snapshot.iter().try_for_each(|(fingerprint, parts)| self.load_operator(fingerprint, parts, fresh))
    }

    /// Takes the state of one operator over, or a piece of it: keys of which nothing is loaded yet.
    pub fn load_operator(
        &mut self,
        fingerprint: &str,
        parts: &[StatePart],
        fresh: &BTreeSet<OutputId>,
    ) -> Result<(), OperatorError> {
        let Some(node) = self.nodes.iter_mut().find(|node| node.fingerprint == fingerprint) else { return Ok(()) };
        let id = |member: &str| OutputId { node: fingerprint.to_string(), member: member.to_string() };
        node.load(parts, &|member| fresh.contains(&id(member)))?;
        self.keep_in_room();
        Ok(())
    }

    /// Takes the tags of a graph that stands at the same epoch over, with their state: operators that are not here yet as
    /// they are, of the others what only they have.
    pub fn absorb(&mut self, filled: Graph) -> Result<(), OperatorError> {
        let before = self.outputs();
        let known: BTreeSet<String> = self.nodes.iter().map(|node| node.fingerprint.clone()).collect();
        for (tag, output) in &filled.tags {
            self.add_tag(tag, &output.plan)?;
        }
        let fresh = self.outputs().difference(&before).cloned().collect();
        for node in filled.nodes {
            let Some(operator) = node.operator.stateful() else { continue };
            if known.contains(&node.fingerprint) {
                let parts = operator.snapshot()?;
                self.load_operator(&node.fingerprint, &parts, &fresh)?;
                self.load_further(&node.fingerprint, &parts, node.cold_rows(&parts), &fresh)?;
            } else if let Some(own) = self.nodes.iter_mut().find(|own| own.fingerprint == node.fingerprint) {
                (own.operator, own.counted, own.is_saved) = (node.operator, node.counted, false);
            }
        }
        self.keep_in_room();
        Ok(())
    }

    /// Loads the rest of an operator's state piece by piece; `parts` are of all its tables.
    fn load_further(
        &mut self,
        fingerprint: &str,
        parts: &[StatePart],
        further: Vec<ColdRows>,
        fresh: &BTreeSet<OutputId>,
    ) -> Result<(), OperatorError> {
        for piece in further.into_iter().flatten() {
            let mut piece = piece?;
            for part in parts {
                if !piece.iter().any(|known| known.name == part.name) {
                    piece.push(part.without_rows());
                }
            }
            self.load_operator(fingerprint, &piece, fresh)?;
        }
        Ok(())
    }

    /// Takes the state of a graph over whose operators have the same meaning, and as much room.
    pub fn take_over(&mut self, other: Graph) -> Result<(), OperatorError> {
        self.room = other.room;
        let all = self.outputs();
        for node in other.nodes {
            let Some(operator) = node.operator.stateful() else { continue };
            let parts = operator.snapshot()?;
            self.load_operator(&node.fingerprint, &parts, &all)?;
            self.load_further(&node.fingerprint, &parts, node.cold_rows(&parts), &all)?;
        }
        Ok(())
    }
}

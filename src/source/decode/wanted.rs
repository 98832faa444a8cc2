//! The wanted columns by the names that lead to them.

use super::RowBuilder;
use crate::catalog::Stream;

/// A place in a record that paths lead to or through.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Columns whose path ends here.
    pub(super) slots: Vec<usize>,
    /// Columns whose path goes on from here.
    pub(super) below: Vec<usize>,
    /// Where paths go on, by name.
    pub(super) children: Vec<(String, Wanted)>,
}

impl Wanted {
    pub(super) fn new(stream: &Stream, rows: &RowBuilder) -> Self {
        let mut root = Wanted::default();
        for (slot, _) in rows.slots() {
            let mut at = &mut root;
            for name in &stream.columns[slot].path {
                at.below.push(slot);
                let place = match at.children.iter().position(|(known, _)| known == name) {
                    Some(place) => place,
                    None => {
                        at.children.push((name.clone(), Wanted::default()));
                        at.children.len() - 1
                    }
                };
                at = &mut at.children[place].1;
            }
            at.slots.push(slot);
        }
        root
    }
}

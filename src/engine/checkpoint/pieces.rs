//! The state of a checkpoint, read piece by piece, so that no operator's state needs to be in memory twice: about one file
//! at a time, with the keys of which newer runs have spoken.

use std::collections::{BTreeMap, btree_map};

use super::fold::Fold;
use super::manifest::{Manifest, OperatorFiles, SegmentFile};
use super::{CheckpointError, Checkpoints};
use crate::operator::StatePart;

/// Some of one operator's state.
#[derive(Debug)]
pub struct Piece<'a> {
    /// The operator.
    pub operator: &'a str,
    /// Parts of each of its tables, some without rows; keys that no other piece has.
    pub parts: Vec<StatePart>,
}

/// All pieces of a checkpoint; after an error there are no more.
pub struct Pieces<'a> {
    checkpoints: &'a Checkpoints,
    operators: btree_map::Iter<'a, String, OperatorFiles>,
    current: Option<OfOperator<'a>>,
}

struct OfOperator<'a> {
    operator: &'a str,
    fold: Fold,
    /// What is still to be read, from the newest run to the oldest, and whether it is the last of its run.
    files: Box<dyn Iterator<Item = (&'a SegmentFile, bool)> + 'a>,
    /// How many tables there are, and each of which a part was seen, without rows.
    tables: usize,
    seen: BTreeMap<String, StatePart>,
    waiting: Vec<StatePart>,
    is_given: bool,
}

impl Checkpoints {
    /// The state that a manifest speaks of; every file is what was written, or an error says what is wrong.
    pub fn pieces<'a>(&'a self, manifest: &'a Manifest) -> Pieces<'a> {
        Pieces { checkpoints: self, operators: manifest.operators.iter(), current: None }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, CheckpointError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let current = match &mut self.current {
                Some(current) => current,
                None => {
                    let (operator, files) = self.operators.next()?;
                    self.current.insert(OfOperator::new(operator, files))
                }
            };
            match current.next(self.checkpoints) {
                Some(Ok(parts)) => return Some(Ok(Piece { operator: current.operator, parts })),
                Some(Err(error)) => {
                    self.operators = Default::default();
                    self.current = None;
                    return Some(Err(error));
                }
                None => self.current = None,
            }
        }
    }
}

impl<'a> OfOperator<'a> {
    fn new(operator: &'a str, files: &'a OperatorFiles) -> Self {
        let of_run = |segments: &'a [SegmentFile]| {
            segments.iter().enumerate().map(move |(index, segment)| (segment, index + 1 == segments.len()))
        };
        OfOperator {
            operator,
            fold: Fold::new(&files.tables),
            files: Box::new(files.runs.iter().rev().flat_map(move |run| of_run(&run.segments))),
            tables: files.tables.len(),
            seen: BTreeMap::new(),
            waiting: Vec::new(),
            is_given: false,
        }
    }

    fn next(&mut self, checkpoints: &Checkpoints) -> Option<Result<Vec<StatePart>, CheckpointError>> {
        while let Some((segment, is_last)) = self.files.next() {
            let parts = checkpoints
                .read_segment(segment)
                .and_then(|parts| self.fold.add(parts).map_err(|reason| checkpoints.damaged(segment, reason)));
            match parts {
                Ok(parts) => self.waiting.extend(parts),
                Err(error) => return Some(Err(error)),
            }
            if is_last {
                self.fold.end_run();
            }
            for part in &self.waiting {
                if !self.seen.contains_key(&part.name) {
                    self.seen.insert(part.name.clone(), part.without_rows());
                }
            }
            // Files of this version begin with a part of each table; those of older ones need not.
            let is_complete = self.seen.len() == self.tables;
            if is_complete && !self.waiting.is_empty() {
                return Some(Ok(self.take()));
            }
        }
        (!self.waiting.is_empty() || !self.is_given).then(|| Ok(self.take()))
    }

    fn take(&mut self) -> Vec<StatePart> {
        self.is_given = true;
        let mut parts = std::mem::take(&mut self.waiting);
        let others = self.seen.iter().filter(|(name, _)| parts.iter().all(|part| part.name != **name));
        let others: Vec<StatePart> = others.map(|(_, part)| part.clone()).collect();
        parts.extend(others);
        parts
    }
}

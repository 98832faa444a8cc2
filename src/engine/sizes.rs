//! How much state tags have, and those that have more than they may.
//!
//! Counting looks at all state, so it is not done again before many times as long as it took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytesize::ByteSize;

use crate::engine::dataflow::TagFault;
use crate::operator::graph::Graph;
use crate::plan::flow::NodeIndex;

/// The shortest time between two counts.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two counts lies at least so many times what one takes.
const SHARE: u32 = 30;

/// The sizes of a graph's state as they were last counted.
#[derive(Debug, Default)]
pub struct StateSizes {
    counted: Option<Instant>,
    took: Duration,
    tags: BTreeMap<String, BTreeMap<NodeIndex, (usize, usize)>>,
    whole: (usize, usize),
    spilled: usize,
}

impl StateSizes {
    /// Counts, where it is time to; true where it did.
    pub fn count(&mut self, graph: &Graph) -> bool {
        let interval = INTERVAL.max(self.took.saturating_mul(SHARE));
        if self.counted.is_some_and(|counted| counted.elapsed() < interval) {
            return false;
        }
        let begun = Instant::now();
        self.tags = graph.tag_sizes();
        let sizes = graph.sizes();
        self.whole = (sizes.iter().map(|size| size.rows).sum(), sizes.iter().map(|size| size.bytes).sum());
        self.spilled = sizes.iter().map(|size| size.spilled).sum();
        self.took = begun.elapsed();
        self.counted = Some(Instant::now());
        true
    }

    /// Keys or rows of all operators, shared ones once, and their bytes in memory.
    pub fn whole(&self) -> (u64, u64) {
        (self.whole.0 as u64, self.whole.1 as u64)
    }

    /// Bytes of all operators that are out of memory.
    pub fn spilled(&self) -> u64 {
        self.spilled as u64
    }

    /// Those of the operators of a tag, by their indices in its plan.
    pub fn operators(&self, tag: &str) -> impl Iterator<Item = (NodeIndex, u64, u64)> {
        let operators = self.tags.get(tag).into_iter().flatten();
        operators.map(|(index, (rows, bytes))| (*index, *rows as u64, *bytes as u64))
    }

    /// Those of a tag, what it shares with others in full.
    pub fn of(&self, tag: &str) -> (u64, u64) {
        self.operators(tag).fold((0, 0), |sum, (_, rows, bytes)| (sum.0 + rows, sum.1 + bytes))
    }

    /// The tags whose state is over the limit that `limit` gives them.
    pub fn over_limit(&self, limit: impl Fn(&str) -> Option<u64>) -> Vec<TagFault> {
        let over = |tag: &String| {
            let (bytes, limit) = (self.of(tag).1, limit(tag)?);
            let reason = format!(
                "its state takes {}, and its state_limit is {}: bound it by the clock (WHERE order_time >= CURRENT_DATE - INTERVAL \
                 '90' DAY), aggregate before joining, or raise the limit; `tagflow explain {tag}` shows what takes it",
                ByteSize(bytes),
                ByteSize(limit)
            );
            (bytes > limit).then(|| TagFault::lasting(tag, reason))
        };
        self.tags.keys().filter_map(over).collect()
    }
}

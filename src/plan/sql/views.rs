//! The order in which views are planned: each after those that it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// For every view the views that it reads, with the first place of each.
pub(crate) type Reads = BTreeMap<String, BTreeMap<String, Range<usize>>>;

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// A view that reads nothing that is still to come.
    View(String),
    /// Views that read each other, each the next and the last the first.
    Circle(Vec<String>),
}

/// Every view once.
pub(crate) fn in_order(reads: &Reads) -> Vec<Next> {
    let mut order = Vec::new();
    let mut waiting: BTreeSet<&str> = reads.keys().map(String::as_str).collect();
    loop {
        let read = |view: &str| reads[view].keys().map(String::as_str);
        let ready: Vec<&str> =
            waiting.iter().copied().filter(|view| !read(view).any(|read| waiting.contains(read))).collect();
        if !ready.is_empty() {
            waiting.retain(|view| !ready.contains(view));
            order.extend(ready.into_iter().map(|view| Next::View(view.to_string())));
            continue;
        }
        let Some(first) = waiting.first() else { return order };
        // Every one waits for another: following them must come back to one that was seen.
        let mut path: Vec<&str> = vec![first];
        let circle = loop {
            let Some(next) = path.last().and_then(|last| read(last).find(|read| waiting.contains(read))) else {
                return order;
            };
            if let Some(start) = path.iter().position(|seen| *seen == next) {
                break path.split_off(start);
            }
            path.push(next);
        };
        waiting.retain(|view| !circle.contains(view));
        order.push(Next::Circle(circle.into_iter().map(str::to_string).collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(reads: &[(&str, &[&str])]) -> Vec<Next> {
        let reads = reads.iter().map(|(view, read)| {
            (view.to_string(), read.iter().map(|name| (name.to_string(), 0..1)).collect::<BTreeMap<_, _>>())
        });
        in_order(&reads.collect())
    }

    #[test]
    fn views_come_after_those_that_they_read() {
        let names = order(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &["orders"])]);
        assert_eq!(names, ["c", "b", "a"].map(|name| Next::View(name.to_string())));
    }

    #[test]
    fn circles_are_found_and_those_who_read_them_still_come() {
        let names = order(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &["d"]), ("e", &["a"])]);
        let circle = |names: &[&str]| Next::Circle(names.iter().map(|name| name.to_string()).collect());
        let view = |name: &str| Next::View(name.to_string());
        assert_eq!(names, [circle(&["b", "c"]), view("a"), view("e"), circle(&["d"])]);
    }
}

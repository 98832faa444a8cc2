//! Columns that tell what others are: a table's key tells the rest of its row, so that what is grouped by both is unique by
//! the key alone.
//!
//! What is said here, and of what is unique, is said of rows without NULL in the telling columns: of a tag's key those are
//! all rows that count.

use std::collections::BTreeSet;

use datafusion::logical_expr::Expr;

use super::{Compiler, NodeIndex};

/// Rows that agree in `by`, none of it NULL, agree in `of`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dependence {
    pub by: Vec<usize>,
    pub of: BTreeSet<usize>,
    /// Also where some of `by` is NULL in both.
    pub of_nulls: bool,
}

impl Dependence {
    /// The same of columns that stand elsewhere.
    pub(super) fn placed(&self, start: usize) -> Dependence {
        Dependence {
            by: self.by.iter().map(|column| column + start).collect(),
            of: self.of.iter().map(|column| column + start).collect(),
            of_nulls: self.of_nulls,
        }
    }
}

impl Compiler<'_> {
    /// All columns that are the same in rows that agree in `by`, of which nothing is NULL where that is said.
    fn told(&self, node: NodeIndex, by: &[usize], without_nulls: bool) -> BTreeSet<usize> {
        let facts = &self.facts[node];
        let given: BTreeSet<usize> = by.iter().copied().collect();
        let is_given = |columns: &[usize]| without_nulls && columns.iter().all(|column| given.contains(column));
        if facts.unique.iter().any(|unique| is_given(unique)) {
            return (0..facts.columns.fields().len()).collect();
        }
        let mut told = given.clone();
        loop {
            let known = told.len();
            for dependence in &facts.dependences {
                let follows = dependence.of_nulls && dependence.by.iter().all(|column| told.contains(column));
                if follows || is_given(&dependence.by) {
                    told.extend(&dependence.of);
                }
            }
            if told.len() == known {
                return told;
            }
        }
    }

    /// True where nothing but columns among `told` makes the value.
    fn is_told(&self, node: NodeIndex, expr: &Expr, told: &BTreeSet<usize>) -> bool {
        let is_known = |name: &str| self.facts[node].columns.index_of(name).is_ok_and(|index| told.contains(&index));
        expr.column_refs().iter().all(|column| is_known(&column.name))
    }

    /// Says what makes the rows of an aggregate by `keys` over `input` unique, and what its keys tell.
    pub(super) fn groups(&mut self, node: NodeIndex, input: NodeIndex, keys: &[Expr]) {
        let all = 0..self.facts[node].columns.fields().len();
        let by_all = Dependence { by: (0..keys.len()).collect(), of: all.collect(), of_nulls: true };
        self.facts[node].unique = self.telling(input, keys);
        self.facts[node].dependences = self.dependences_of(input, keys).into_iter().chain([by_all]).collect();
    }

    /// Of the keys of a GROUP BY over a node some that tell the others, the first ones and the last ones where there is a
    /// choice, and all.
    fn telling(&self, node: NodeIndex, keys: &[Expr]) -> Vec<Vec<usize>> {
        let columns: Vec<Option<usize>> = keys.iter().map(|key| self.injective(node, key)).collect();
        let without_told = |order: &[usize]| {
            let mut kept: BTreeSet<usize> = (0..keys.len()).collect();
            for key in order {
                kept.remove(key);
                let by: Vec<usize> = kept.iter().filter_map(|kept| columns[*kept]).collect();
                if !self.is_told(node, &keys[*key], &self.told(node, &by, true)) {
                    kept.insert(*key);
                }
            }
            kept.into_iter().collect::<Vec<usize>>()
        };
        let all: Vec<usize> = (0..keys.len()).collect();
        let backwards: Vec<usize> = all.iter().rev().copied().collect();
        let mut sets = vec![without_told(&backwards), without_told(&all), all];
        sets.dedup();
        sets
    }

    /// What is known of the columns `exprs` over a node.
    pub(super) fn dependences_of(&self, node: NodeIndex, exprs: &[Expr]) -> Vec<Dependence> {
        let place = |column: &usize| exprs.iter().position(|expr| self.plain(node, expr) == Some(*column));
        let facts = &self.facts[node];
        let carried = facts.dependences.iter().filter_map(|dependence| {
            let by = dependence.by.iter().map(place).collect::<Option<Vec<usize>>>()?;
            let told = self.told(node, &dependence.by, !dependence.of_nulls);
            let of = (0..exprs.len()).filter(|index| self.is_told(node, &exprs[*index], &told)).collect();
            Some(Dependence { by, of, of_nulls: dependence.of_nulls })
        });
        carried.collect()
    }

    /// What the columns of a node tell of each other where its rows become several, which differ in some columns.
    pub(super) fn dependences_without(&self, node: NodeIndex, differing: &[usize]) -> Vec<Dependence> {
        let facts = &self.facts[node];
        let all: BTreeSet<usize> = (0..facts.columns.fields().len()).collect();
        let unique = facts.unique.iter();
        let unique = unique.map(|by| Dependence { by: by.clone(), of: all.clone(), of_nulls: false });
        let known = unique.chain(facts.dependences.iter().cloned()).filter_map(|mut dependence| {
            dependence.of.retain(|column| !differing.contains(column));
            let is_kept = !dependence.by.iter().any(|column| differing.contains(column));
            is_kept.then_some(dependence)
        });
        known.collect()
    }
}

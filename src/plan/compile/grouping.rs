//! GROUPING SETS, ROLLUP and CUBE: an aggregate for each set, behind one another.

use arrow::datatypes::Field;
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, lit};

use super::{Compiler, Refusal, Relation};
use crate::plan::codes;

/// More sets than anyone writes by hand: CUBE of five columns.
const MOST_SETS: usize = 32;

/// The grouping sets of an aggregate.
pub(super) struct Sets {
    /// All expressions that some set groups by.
    pub(super) keys: Vec<Expr>,
    /// Each set as positions in `keys`.
    sets: Vec<Vec<usize>>,
}

impl Sets {
    /// `None` for an ordinary GROUP BY.
    pub(super) fn of(aggregate: &Aggregate) -> Result<Option<Sets>, Refusal> {
        let [Expr::GroupingSet(grouping)] = aggregate.group_expr.as_slice() else { return Ok(None) };
        let keys: Vec<Expr> = grouping.distinct_expr().into_iter().cloned().collect();
        let place = |expr: &Expr| keys.iter().position(|key| key == expr);
        let sets: Vec<Vec<usize>> = match grouping {
            GroupingSet::Rollup(exprs) => (0..=exprs.len()).map(|length| (0..length).collect()).collect(),
            GroupingSet::Cube(exprs) if exprs.len() < 8 => {
                let subset = |bits: usize| (0..exprs.len()).filter(|key| bits >> key & 1 == 1).collect();
                (0..1 << exprs.len()).map(subset).collect()
            }
            GroupingSet::Cube(_) => vec![vec![]; MOST_SETS + 1],
            GroupingSet::GroupingSets(sets) => sets.iter().map(|set| set.iter().filter_map(place).collect()).collect(),
        };
        let word = match grouping {
            GroupingSet::Rollup(_) => "rollup",
            GroupingSet::Cube(_) => "cube",
            GroupingSet::GroupingSets(_) => "group",
        };
        let refused = |message: &str, help: &str| Refusal::new(codes::GROUPING_SETS, message, help).at(word);
        if sets.len() > MOST_SETS {
            return Err(refused(
                "these are more than 32 grouping sets",
                "name those that are needed: GROUPING SETS ((…), (…))",
            ));
        }
        if sets.iter().any(Vec::is_empty) {
            return Err(refused(
                "the set () is of the whole population, which is nobody's tag",
                "put the key before it: GROUP BY user_id, ROLLUP (category)",
            ));
        }
        Ok(Some(Sets { keys, sets }))
    }

    /// Of which columns of the output the rows are unique. A row with NULL in a key is nobody's, so all keys together tell
    /// the rows apart where one set has them all.
    fn unique(&self) -> Vec<Vec<usize>> {
        let width = self.keys.len();
        let has_all = |set: &&Vec<usize>| (0..width).all(|key| set.contains(&key));
        let is_single = self.sets.iter().filter(has_all).count() == 1;
        let keys = is_single.then(|| (0..width).collect());
        keys.into_iter().chain([(0..=width).collect()]).collect()
    }

    /// What DataFusion calls the grouping id: a bit for each key that the set is without, the last key lowest, and above
    /// them how many sets before are the same.
    fn id(&self, set: usize) -> u64 {
        let width = self.keys.len();
        let is_same = |other: &&Vec<usize>| (0..width).all(|key| other.contains(&key) == self.sets[set].contains(&key));
        let earlier = self.sets[..set].iter().filter(is_same).count() as u64;
        let missing = (0..width).filter(|key| !self.sets[set].contains(key));
        missing.fold(earlier << width, |id, key| id | 1 << (width - 1 - key))
    }
}

impl Compiler<'_> {
    /// The rows of all sets: the keys, NULL where a set is without one, the grouping id, the aggregates. `fields` are so.
    pub(super) fn grouped_by_sets(
        &mut self,
        relation: &Relation,
        schema: &DFSchema,
        sets: &Sets,
        group_expr: &[Expr],
        aggr_expr: &[Expr],
        fields: Vec<Field>,
    ) -> Result<Relation, Refusal> {
        let width = group_expr.len();
        let mut inputs = Vec::new();
        for (number, set) in sets.sets.iter().enumerate() {
            let mut own: Vec<usize> = set.clone();
            own.sort_unstable();
            own.dedup();
            let keys: Vec<Expr> = own.iter().map(|key| group_expr[*key].clone()).collect();
            let of_set =
                own.iter().map(|key| fields[*key].clone()).chain(fields[width + 1..].iter().cloned()).collect();
            let node = self.grouped(relation.clone(), schema, &keys, aggr_expr, of_set)?;
            let key = |key: usize| match own.iter().position(|known| *known == key) {
                Some(place) => Ok(Expr::Column(self.column(node, place))),
                None => Ok(lit(ScalarValue::try_from(fields[key].data_type())?)),
            };
            let mut columns = (0..width).map(key).collect::<Result<Vec<Expr>, DataFusionError>>()?;
            columns.push(lit(ScalarValue::UInt64(Some(sets.id(number))).cast_to(fields[width].data_type())?));
            columns.extend((0..aggr_expr.len()).map(|value| Expr::Column(self.column(node, own.len() + value))));
            inputs.push(self.map(node, &columns, &[])?);
        }
        let node = self.union_node(inputs, fields);
        self.facts[node].unique = sets.unique();
        Ok(self.whole(node))
    }
}

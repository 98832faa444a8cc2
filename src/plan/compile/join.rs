//! Joins: both inputs as nodes, the equal keys over each, the rest of the condition over pairs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Column, DataFusionError, ExprSchema, JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, lit};

use super::dependence::Dependence;
use super::{Compiler, Facts, Refusal, Relation, canonical_columns, clock_in, substitute};
use crate::plan::flow::{FlowNode, JoinKind, JoinPlan, NodeIndex, NodeKind, fingerprint};
use crate::plan::{clock, codes};

/// A join of two nodes.
pub(super) struct Joined {
    pub kind: JoinKind,
    pub left: NodeIndex,
    pub right: NodeIndex,
    /// Equal expressions over the columns of the left and of the right.
    pub keys: Vec<(Expr, Expr)>,
    /// Over the columns of [`Compiler::pair_columns`].
    pub condition: Option<Expr>,
    pub null_equals_null: bool,
}

impl Compiler<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<Relation, Refusal> {
        if let Some(relation) = self.with_constants(join)? {
            return Ok(relation);
        }
        let (kind, swapped) = kind(join);
        self.join_as(join, kind, swapped)
    }

    /// The rows of an outer join without a partner, where conditions ask for them as in `LEFT JOIN … WHERE b.user_id IS NULL`,
    /// which are then settled: the other side is NULL. None where they ask something else.
    pub(super) fn without_partner(
        &mut self,
        plan: &LogicalPlan,
        conjuncts: &mut Vec<Expr>,
    ) -> Result<Option<Relation>, Refusal> {
        let (join, columns) = match plan {
            LogicalPlan::Join(join) => (join, None),
            LogicalPlan::Projection(projection) => match projection.input.as_ref() {
                LogicalPlan::Join(join) => (join, Some(projection)),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let (kept, other) = match join.join_type {
            JoinType::Left => (&join.left, &join.right),
            JoinType::Right => (&join.right, &join.left),
            _ => return Ok(None),
        };
        let of_join = |column: &Column| match columns {
            None => Some(column.clone()),
            Some(projection) => {
                let index = projection.schema.maybe_index_of_column(column)?;
                projection.expr[index].clone().unalias().try_as_col().cloned()
            }
        };
        // A partner has the key, and what is never NULL.
        let is_of_partners = |column: Column| {
            let is_key = join.on.iter().any(|(left, right)| [left, right].contains(&&Expr::Column(column.clone())));
            let is_key = is_key && join.null_equality == NullEquality::NullEqualsNothing;
            other.schema().field_from_column(&column).is_ok_and(|field| is_key || !field.is_nullable())
        };
        let asks = |conjunct: &Expr| match conjunct {
            Expr::IsNull(expr) => expr.try_as_col().and_then(of_join).is_some_and(is_of_partners),
            _ => false,
        };
        let asked = conjuncts.len();
        conjuncts.retain(|conjunct| !asks(conjunct));
        if conjuncts.len() == asked {
            return Ok(None);
        }
        let swapped = join.join_type == JoinType::Right;
        let mut relation = self.join_as(join, JoinKind::Anti, swapped)?;
        let own = kept.schema().fields().len();
        let nothing = other.schema().fields().iter();
        let nothing = nothing.map(|field| Ok(lit(ScalarValue::try_from(field.data_type())?)));
        let nothing = nothing.collect::<Result<Vec<Expr>, DataFusionError>>()?;
        relation.columns.truncate(own);
        let place = if swapped { 0 } else { own };
        relation.columns.splice(place..place, nothing);
        if let Some(projection) = columns {
            let columns = projection.expr.iter().map(|expr| substitute(expr, &join.schema, &relation.columns));
            relation.columns = columns.collect::<Result<_, _>>()?;
        }
        Ok(Some(relation))
    }

    fn join_as(&mut self, join: &Join, kind: JoinKind, swapped: bool) -> Result<Relation, Refusal> {
        let on: Vec<(&Expr, &Expr)> =
            join.on.iter().map(|(left, right)| if swapped { (right, left) } else { (left, right) }).collect();
        let (left_plan, right_plan) = if swapped { (&join.right, &join.left) } else { (&join.left, &join.right) };
        let mut left = self.relation(left_plan)?;
        let mut right = self.relation(right_plan)?;
        // NOT IN asks what is in the whole list.
        if !join.null_aware {
            self.carry_bounds(join, kind, (&mut left, left_plan.schema()), (&mut right, right_plan.schema()));
        }
        let left = self.narrow(left)?;
        let right = self.narrow(right)?;
        let key = |side: &Relation, schema, expr: &Expr| -> Result<Expr, Refusal> {
            let key = substitute(expr, schema, &side.columns)?;
            if clock::reads_clock(&key) { Err(clock_in("the condition of a join")) } else { Ok(key) }
        };
        let mut keys = on
            .iter()
            .map(|(of_left, of_right)| {
                Ok((key(&left, left_plan.schema(), of_left)?, key(&right, right_plan.schema(), of_right)?))
            })
            .collect::<Result<Vec<_>, Refusal>>()?;
        if keys.is_empty() {
            // Everything meets everything, which is bearable where that is one row, or a few constants.
            let is_small = |node: NodeIndex| self.is_one_row(node) || self.is_constant(node);
            if !is_small(left.node) && !is_small(right.node) {
                return Err(Refusal::new(
                    codes::JOIN,
                    "a join without an equality looks at every pair of rows there is",
                    "join by an equality of two columns: ON a.user_id = b.user_id",
                ));
            }
            keys.push((lit(0_i64), lit(0_i64)));
        }
        let condition = match &join.filter {
            None => None,
            Some(filter) => {
                let schema = left_plan.schema().join(right_plan.schema())?;
                let columns: Vec<Expr> = self
                    .pair_columns(left.node, right.node)
                    .fields()
                    .iter()
                    .map(|field| Expr::Column(Column::from_name(field.name())))
                    .collect();
                let condition = substitute(filter, &schema, &columns)?;
                if clock::reads_clock(&condition) {
                    return Err(clock_in("the condition of a join"));
                }
                Some(condition)
            }
        };
        if join.null_aware {
            return self.not_in(&left, &right, &keys, condition.is_some());
        }
        let null_equals_null = join.null_equality == NullEquality::NullEqualsNull;
        let (left, right) = (left.node, right.node);
        let node = self.joined(Joined { kind, left, right, keys, condition, null_equals_null })?;
        Ok(self.whole(node))
    }

    /// The columns of a pair: those of the left, then those of the right.
    pub(super) fn pair_columns(&self, left: NodeIndex, right: NodeIndex) -> SchemaRef {
        canonical_columns(&self.pair_fields(left, right))
    }

    fn pair_fields(&self, left: NodeIndex, right: NodeIndex) -> Vec<Field> {
        let fields = |node: NodeIndex| self.nodes[node].schema.fields().iter().map(|field| field.as_ref().clone());
        fields(left).chain(fields(right)).collect()
    }

    /// An input of a join by `keys` over it.
    fn input<'a>(
        &'a self,
        node: NodeIndex,
        keys: impl Iterator<Item = &'a Expr>,
        start: usize,
        null_equals_null: bool,
    ) -> Input<'a> {
        let placed = |columns: Vec<usize>| columns.into_iter().map(|column| column + start).collect();
        let column = |key: &Expr| self.merged(node, key).or_else(|| Some(vec![self.plain(node, key)?])).map(placed);
        Input { facts: &self.facts[node], keys: keys.map(column).collect(), start, null_equals_null }
    }

    /// The node of a join. Its columns are those of the pair, of the left, or of the left and a mark.
    /// Every row of the left with every row of the right, of which there is one.
    pub(super) fn beside_one_row(
        &mut self,
        kind: JoinKind,
        left: NodeIndex,
        right: NodeIndex,
    ) -> Result<NodeIndex, Refusal> {
        let keys = vec![(lit(0_i64), lit(0_i64))];
        self.joined(Joined { kind, left, right, keys, condition: None, null_equals_null: false })
    }

    pub(super) fn joined(&mut self, joined: Joined) -> Result<NodeIndex, Refusal> {
        let Joined { kind, left, right, keys, condition, null_equals_null } = joined;
        let left_keys = keys.iter().map(|(key, _)| self.scalar(left, key)).collect::<Result<Vec<_>, _>>()?;
        let right_keys = keys.iter().map(|(_, key)| self.scalar(right, key)).collect::<Result<Vec<_>, _>>()?;
        let width = self.facts[left].columns.fields().len();
        let pair_fields = self.pair_fields(left, right);
        let condition =
            condition.map(|condition| super::scalar_over(&canonical_columns(&pair_fields), &condition)).transpose()?;
        let texts = |keys: &[crate::plan::flow::Scalar]| keys.iter().map(|key| key.text.clone()).collect::<Vec<_>>();
        let output = fingerprint(&format!(
            "join {kind:?} {} by {:?} with {} by {:?} nulls {null_equals_null} where {:?}",
            self.facts[left].output,
            texts(&left_keys),
            self.facts[right].output,
            texts(&right_keys),
            condition.as_ref().map(|condition| &condition.text),
        ));
        let of_left = self.input(left, keys.iter().map(|(key, _)| key), 0, null_equals_null);
        let of_right = self.input(right, keys.iter().map(|(_, key)| key), width, null_equals_null);
        // Equal keys alone decide who is whose partner.
        let is_plain = condition.is_none() && of_left.keys.iter().chain(&of_right.keys).all(Option::is_some);
        let pairs = of_left.keys.iter().zip(&of_right.keys);
        let equal: Vec<(&[usize], &[usize])> =
            pairs.filter_map(|(left, right)| Some((left.as_deref()?, right.as_deref()?))).collect();
        let firsts: Vec<(usize, usize)> = equal.iter().map(|(left, right)| (left[0], right[0])).collect();
        let mut unique = unique(kind, &of_left, &of_right, &firsts);
        let mut merged: Vec<Vec<usize>> = of_left.merged();
        if kind.gives_pairs() {
            merged.extend(of_right.merged());
        }
        if kind == JoinKind::Full {
            if is_plain && of_left.is_single() && of_right.is_single() {
                merged.extend(equal.iter().map(|(left, right)| [*left, *right].concat()));
            } else {
                // A row of either side alone may have the key of the other's.
                unique.clear();
            }
        }
        let dependences = dependences(kind, &of_left, &of_right, &equal, is_plain);
        let reach = self.facts[left].reach.and(self.facts[right].reach);
        let out_fields: Vec<Field> = match kind {
            JoinKind::Semi | JoinKind::Anti => pair_fields[..width].to_vec(),
            JoinKind::Mark => {
                pair_fields[..width].iter().cloned().chain([Field::new("mark", DataType::Boolean, true)]).collect()
            }
            _ => pair_fields,
        };
        let out_fields: Vec<Field> = out_fields.into_iter().map(|field| field.with_nullable(true)).collect();
        let columns = canonical_columns(&out_fields);
        let facts = Facts { columns, unique, dependences, merged, reach, output: output.clone() };
        let node = FlowNode {
            fingerprint: output,
            inputs: vec![left, right],
            append_only: kind == JoinKind::Inner && self.nodes[left].append_only && self.nodes[right].append_only,
            schema: Arc::new(Schema::new(out_fields)),
            kind: NodeKind::Join(JoinPlan { kind, left_keys, right_keys, null_equals_null, condition }),
        };
        Ok(self.push(node, facts))
    }
}

/// What the join gives, and whether its inputs change places for it.
fn kind(join: &Join) -> (JoinKind, bool) {
    match join.join_type {
        JoinType::Inner => (JoinKind::Inner, false),
        JoinType::Left => (JoinKind::Left, false),
        JoinType::Right => (JoinKind::Right, false),
        JoinType::Full => (JoinKind::Full, false),
        JoinType::LeftSemi => (JoinKind::Semi, false),
        JoinType::RightSemi => (JoinKind::Semi, true),
        JoinType::LeftAnti => (JoinKind::Anti, false),
        JoinType::RightAnti => (JoinKind::Anti, true),
        JoinType::LeftMark => (JoinKind::Mark, false),
        JoinType::RightMark => (JoinKind::Mark, true),
    }
}

/// What is known of one input.
struct Input<'a> {
    facts: &'a Facts,
    /// Its columns that are join keys, where they stand in a pair: of keys that a FULL JOIN has merged all; `None` for
    /// expressions.
    keys: Vec<Option<Vec<usize>>>,
    /// Where its columns begin in a pair.
    start: usize,
    /// True where NULL keys match, of which a unique column may have several.
    null_equals_null: bool,
}

impl Input<'_> {
    fn is_key(&self, column: usize) -> bool {
        self.keys.iter().flatten().any(|key| key[0] == column)
    }

    /// True when no row of the other input has two partners here.
    fn is_single(&self) -> bool {
        !self.null_equals_null && self.unique().any(|unique| unique.iter().all(|column| self.is_key(*column)))
    }

    fn unique(&self) -> impl Iterator<Item = Vec<usize>> {
        self.facts.unique.iter().map(|unique| unique.iter().map(|column| column + self.start).collect())
    }

    fn merged(&self) -> Vec<Vec<usize>> {
        let placed = |columns: &Vec<usize>| columns.iter().map(|column| column + self.start).collect();
        self.facts.merged.iter().map(placed).collect()
    }

    fn columns(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.facts.columns.fields().len()
    }

    /// What its columns tell of each other. `is_extended` where rows of the other input may come out without a partner here.
    fn dependences(&self, is_extended: bool) -> impl Iterator<Item = Dependence> {
        let unique = self.unique().map(|by| Dependence { by, of: self.columns().collect(), of_nulls: false });
        let known = self.facts.dependences.iter().map(move |dependence| {
            let mut placed = dependence.placed(self.start);
            // A partner has a key that is not NULL, and so differs from no partner.
            placed.of_nulls &= !is_extended || placed.by.iter().any(|column| self.keys.contains(&Some(vec![*column])));
            placed
        });
        unique.chain(known)
    }
}

/// What columns of a pair tell of others.
fn dependences(
    kind: JoinKind,
    left: &Input<'_>,
    right: &Input<'_>,
    equal: &[(&[usize], &[usize])],
    is_plain: bool,
) -> Vec<Dependence> {
    if !kind.gives_pairs() {
        return left.facts.dependences.clone();
    }
    if left.null_equals_null {
        return Vec::new();
    }
    let mut known: Vec<Dependence> = Vec::new();
    // In a FULL JOIN rows without a partner may have NULL in the key.
    let shows_alone = kind == JoinKind::Full;
    for (input, is_extended) in [
        (left, matches!(kind, JoinKind::Right | JoinKind::Full)),
        (right, matches!(kind, JoinKind::Left | JoinKind::Full)),
    ] {
        known.extend(input.dependences(is_extended).map(|mut dependence| {
            dependence.of_nulls &= !shows_alone;
            dependence
        }));
    }
    if kind == JoinKind::Inner {
        for (left, right) in equal {
            if let ([left], [right]) = (left, right) {
                let tells = |by: usize, of: usize| Dependence { by: vec![by], of: [of].into(), of_nulls: true };
                known.extend([tells(*left, *right), tells(*right, *left)]);
            }
        }
    }
    // Whoever has the key has the partner.
    for (input, other, is_whole) in [
        (left, right, matches!(kind, JoinKind::Left | JoinKind::Full)),
        (right, left, matches!(kind, JoinKind::Right | JoinKind::Full)),
    ] {
        if is_whole && is_plain && other.is_single() {
            let keys = input.keys.iter().flatten();
            let of_nulls = !shows_alone && keys.clone().all(|key| key.len() == 1);
            known.push(Dependence { by: keys.map(|key| key[0]).collect(), of: other.columns().collect(), of_nulls });
        }
    }
    known
}

/// Sets of columns that are unique in the output.
fn unique(kind: JoinKind, left: &Input<'_>, right: &Input<'_>, equal: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = Vec::new();
    match kind {
        JoinKind::Semi | JoinKind::Anti | JoinKind::Mark => return left.facts.unique.clone(),
        JoinKind::Inner | JoinKind::Left if right.is_single() => sets.extend(left.unique()),
        JoinKind::Full if left.is_single() && right.is_single() => {
            // Rows of one side alone have its key; the other side's is NULL, which is nobody's.
            sets.push(equal.iter().map(|(left, _)| *left).collect());
        }
        _ => {}
    }
    if matches!(kind, JoinKind::Inner | JoinKind::Right) && left.is_single() {
        sets.extend(right.unique());
    }
    sets.extend(
        left.unique()
            .flat_map(|left| right.unique().map(move |right| left.iter().chain(&right).copied().collect::<Vec<_>>())),
    );
    if kind == JoinKind::Inner {
        // Equal columns stand for each other.
        let other = |column: usize| {
            let found = equal.iter().find(|(left, right)| *left == column || *right == column);
            found.map_or(column, |(left, right)| if *left == column { *right } else { *left })
        };
        let twins: Vec<Vec<usize>> = sets.iter().map(|set| set.iter().map(|column| other(*column)).collect()).collect();
        let smaller: Vec<Vec<usize>> = sets
            .iter()
            .map(|set| {
                let dropped = |column: &usize| equal.iter().any(|(left, right)| right == column && set.contains(left));
                set.iter().copied().filter(|column| !dropped(column)).collect()
            })
            .collect();
        sets.extend(smaller.into_iter().chain(twins));
    }
    sets.sort_by_key(Vec::len);
    sets.dedup();
    sets
}

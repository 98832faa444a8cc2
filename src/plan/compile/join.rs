//! Joins: both inputs as nodes, the equal keys over each, the rest of the condition over pairs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Column, JoinType, NullEquality};
use datafusion::logical_expr::{Expr, Join, lit};

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
        let (kind, swapped) = kind(join);
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
            // Everything meets everything, which is bearable where that is one row.
            if !self.is_one_row(left.node) && !self.is_one_row(right.node) {
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
        let plain_left: Vec<_> = keys.iter().map(|(key, _)| self.plain(left, key)).collect();
        let plain_right: Vec<_> = keys.iter().map(|(_, key)| self.plain(right, key)).collect();
        // Equal keys alone decide who is whose partner.
        let is_plain = condition.is_none() && plain_left.iter().chain(&plain_right).all(Option::is_some);
        let equal: Vec<(usize, usize)> = plain_left
            .iter()
            .zip(&plain_right)
            .filter_map(|(left, right)| Some(((*left)?, (*right)? + width)))
            .collect();
        let of_left = Input { unique: &self.facts[left].unique, keys: &plain_left, start: 0, null_equals_null };
        let of_right = Input { unique: &self.facts[right].unique, keys: &plain_right, start: width, null_equals_null };
        let mut unique = unique(kind, &of_left, &of_right, &equal);
        let is_merged = is_plain && of_left.is_single() && of_right.is_single();
        let merged = if kind == JoinKind::Full && is_merged { equal } else { Vec::new() };
        if kind == JoinKind::Full && !is_merged {
            // A row of either side alone may have the key of the other's.
            unique.clear();
        }
        let reach = self.facts[left].reach.and(self.facts[right].reach);
        let out_fields: Vec<Field> = match kind {
            JoinKind::Semi | JoinKind::Anti => pair_fields[..width].to_vec(),
            JoinKind::Mark => {
                pair_fields[..width].iter().cloned().chain([Field::new("mark", DataType::Boolean, true)]).collect()
            }
            _ => pair_fields,
        };
        let out_fields: Vec<Field> = out_fields.into_iter().map(|field| field.with_nullable(true)).collect();
        let facts = Facts { columns: canonical_columns(&out_fields), unique, merged, reach, output: output.clone() };
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
    unique: &'a [Vec<usize>],
    /// Its columns that are join keys; `None` for expressions.
    keys: &'a [Option<usize>],
    /// Where its columns begin in a pair.
    start: usize,
    /// True where NULL keys match, of which a unique column may have several.
    null_equals_null: bool,
}

impl Input<'_> {
    /// True when no row of the other input has two partners here.
    fn is_single(&self) -> bool {
        let is_key = |column: &usize| self.keys.contains(&Some(*column));
        !self.null_equals_null && self.unique.iter().any(|unique| unique.iter().all(is_key))
    }

    fn placed(&self) -> impl Iterator<Item = Vec<usize>> {
        self.unique.iter().map(|unique| unique.iter().map(|column| column + self.start).collect())
    }
}

/// Sets of columns that are unique in the output.
fn unique(kind: JoinKind, left: &Input<'_>, right: &Input<'_>, equal: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = Vec::new();
    match kind {
        JoinKind::Semi | JoinKind::Anti | JoinKind::Mark => return left.unique.to_vec(),
        JoinKind::Inner | JoinKind::Left if right.is_single() => sets.extend(left.placed()),
        JoinKind::Full if left.is_single() && right.is_single() => {
            // Rows of one side alone have its key; the other side's is NULL, which is nobody's.
            sets.push(equal.iter().map(|(left, _)| *left).collect());
        }
        _ => {}
    }
    if matches!(kind, JoinKind::Inner | JoinKind::Right) && left.is_single() {
        sets.extend(right.placed());
    }
    sets.extend(
        left.placed()
            .flat_map(|left| right.placed().map(move |right| left.iter().chain(&right).copied().collect::<Vec<_>>())),
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

//! What looks at the whole population: aggregates without GROUP BY, sub-queries that give one value, NOT IN.
//!
//! One row that always is there makes them ordinary: a seed. An aggregate over everything is one group, which the seed
//! keeps alive when nothing else is in it; one row meets every other row by a constant key.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, lit, not};

use super::join::Joined;
use super::{Compiler, Facts, Refusal, Relation, canonical_columns, readable, substitute};
use crate::plan::codes;
use crate::plan::flow::{FlowNode, JoinKind, NodeIndex, NodeKind, Reach, fingerprint};

/// Names the column of a node that stands for a sub-query in an expression that is not resolved yet.
const STANDS_FOR: &str = "#query";

/// The column of a node that `column` names, where it stands for a sub-query.
pub(super) fn stands_for(column: &Column) -> Option<usize> {
    column.name.strip_prefix(STANDS_FOR)?.parse().ok()
}

impl Compiler<'_> {
    /// True when a node never has more than one row.
    pub(super) fn is_one_row(&self, node: NodeIndex) -> bool {
        self.facts[node].unique.iter().any(Vec::is_empty)
    }

    /// Joins the values of sub-queries in the expressions to the relation; a column stands for each.
    pub(super) fn with_queries(
        &mut self,
        mut relation: Relation,
        exprs: &[Expr],
    ) -> Result<(Relation, Vec<Expr>), Refusal> {
        let mut queries: Vec<Arc<LogicalPlan>> = Vec::new();
        for expr in exprs {
            expr.apply(|expr| {
                if let Expr::ScalarSubquery(query) = expr
                    && query.outer_ref_columns.is_empty()
                    && !queries.contains(&query.subquery)
                {
                    queries.push(Arc::clone(&query.subquery));
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        let mut places = Vec::new();
        let width = relation.columns.len();
        for query in &queries {
            let value = self.relation(query)?;
            let value = self.narrow(value)?;
            if !self.is_one_row(value.node) {
                return Err(Refusal::new(
                    codes::SUBQUERY,
                    "a sub-query in an expression must give one row, and this one may give several",
                    "aggregate it without GROUP BY, or tie it to the row: WHERE b.user_id = a.user_id",
                ));
            }
            let rows = self.narrow(relation)?;
            let node = self.beside_one_row(JoinKind::Left, rows.node, value.node)?;
            places.push(self.facts[rows.node].columns.fields().len());
            relation = self.whole(node);
        }
        relation.columns.truncate(width);
        let replace = |expr: Expr| {
            let Expr::ScalarSubquery(query) = &expr else { return Ok(Transformed::no(expr)) };
            Ok(match queries.iter().position(|known| *known == query.subquery) {
                Some(index) => {
                    let place = Column::from_name(format!("{STANDS_FOR}{}", places[index]));
                    Transformed::yes(Expr::Column(place))
                }
                None => Transformed::no(expr),
            })
        };
        let exprs = exprs.iter().map(|expr| Ok(expr.clone().transform_down(replace)?.data));
        Ok((relation, exprs.collect::<Result<Vec<_>, DataFusionError>>()?))
    }

    /// `x NOT IN (…)` with SQL's NULLs: nobody is in an empty list; where the list has a NULL nobody is known not to be in
    /// it; otherwise x must be known and without a partner.
    pub(super) fn not_in(
        &mut self,
        left: &Relation,
        right: &Relation,
        keys: &[(Expr, Expr)],
        has_condition: bool,
    ) -> Result<Relation, Refusal> {
        let ([(of_left, of_right)], false) = (keys, has_condition) else {
            return Err(Refusal::new(
                codes::JOIN,
                "NOT IN of a sub-query that is tied to the row is never true once one NULL is there",
                "write WHERE NOT EXISTS (SELECT 1 FROM … WHERE b.user_id = a.user_id AND …)",
            ));
        };
        let anti = self.joined(Joined {
            kind: JoinKind::Anti,
            left: left.node,
            right: right.node,
            keys: keys.to_vec(),
            condition: None,
            null_equals_null: false,
        })?;
        let count = |expr: Expr| datafusion::functions_aggregate::expr_fn::count(expr);
        let counts = vec![count(lit(1_i64)), count(of_right.clone())];
        let list = Relation { columns: vec![], ..right.clone() };
        let counts = self.of_everything(list, counts, &[DataType::Int64, DataType::Int64])?;
        let counts = self.narrow(counts)?;
        let width = self.facts[anti].columns.fields().len();
        let node = self.beside_one_row(JoinKind::Left, anti, counts.node)?;
        let column = |index| Expr::Column(self.column(node, index));
        let (all, known) = (column(width), column(width + 1));
        let is_out = all.clone().eq(lit(0_i64)).or(of_left.clone().is_not_null().and(all.eq(known)));
        let mut relation = self.whole(node);
        relation.columns.truncate(width);
        relation.filters.push(is_out);
        Ok(relation)
    }

    /// An aggregate without GROUP BY: one row, also over nothing.
    pub(super) fn whole_aggregate(&mut self, relation: Relation, aggregate: &Aggregate) -> Result<Relation, Refusal> {
        let schema = aggregate.input.schema();
        let (relation, exprs) = self.with_queries(relation, &aggregate.aggr_expr)?;
        if let Some(relation) = self.whole_tiled(&relation, &exprs, aggregate)? {
            return Ok(relation);
        }
        let resolved = exprs.iter().map(|expr| substitute(expr, schema, &relation.columns));
        let columns = resolved.collect::<Result<Vec<_>, _>>()?;
        let settled = self.without_clock(Relation { columns, ..relation }, "an aggregate")?;
        let types: Vec<DataType> = aggregate.schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let calls = settled.columns.clone();
        self.of_everything(settled, calls, &types)
    }

    /// An aggregate without GROUP BY over tiles. Where nothing counts there is no group, and the seed stands alone.
    fn whole_tiled(
        &mut self,
        relation: &Relation,
        exprs: &[Expr],
        aggregate: &Aggregate,
    ) -> Result<Option<Relation>, Refusal> {
        let fields = aggregate.schema.fields().iter();
        let values = fields.map(|field| Field::new(readable(field.name()), field.data_type().clone(), true));
        let fields: Vec<Field> =
            std::iter::once(Field::new("everything", DataType::Int64, true)).chain(values).collect();
        let keys = [lit(0_i64)];
        let Some(group) = self.tiled(relation, aggregate.input.schema(), (&keys, exprs), &fields)? else {
            return Ok(None);
        };
        let left = self.seed();
        let node = self.beside_one_row(JoinKind::Left, left, group)?;
        self.facts[node].unique = vec![vec![]];
        let mut relation = self.whole(node);
        // Behind the seed and the constant key.
        relation.columns.drain(..2);
        for (value, call) in relation.columns.iter_mut().zip(exprs) {
            let is_count = |expr: &Expr| matches!(expr, Expr::AggregateFunction(call) if call.func.name() == "count");
            if is_count(&call.clone().unalias()) {
                let cases = vec![(Box::new(value.clone().is_not_null()), Box::new(value.clone()))];
                *value = Expr::Case(Case::new(None, cases, Some(Box::new(lit(0_i64)))));
            }
        }
        Ok(Some(relation))
    }

    /// Aggregate calls over all rows of a node that pass the relation's conditions; the columns of the result are theirs.
    fn of_everything(&mut self, relation: Relation, calls: Vec<Expr>, types: &[DataType]) -> Result<Relation, Refusal> {
        let mut needed: Vec<Expr> = Vec::new();
        for call in &calls {
            call.apply(|expr| {
                if matches!(expr, Expr::Column(_)) && !needed.contains(expr) {
                    needed.push(expr.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        let width = needed.len();
        let columns = needed.iter().cloned().chain([lit(false)]).collect();
        let rows = self.narrow(Relation { columns, ..relation })?.node;
        let fields: Vec<Field> =
            self.nodes[rows].schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let seed = self.seed();
        let nothing = fields[..width].iter().map(|field| Ok(lit(ScalarValue::try_from(field.data_type())?)));
        let nothing = nothing.chain([Ok(lit(true))]).collect::<Result<Vec<_>, DataFusionError>>()?;
        let seed = self.map(seed, &nothing, &[])?;
        let node = self.union_node(vec![rows, seed], fields);
        let is_seed = Expr::Column(self.column(node, width));
        let resolve = |expr: Expr| {
            Ok(match needed.iter().position(|known| *known == expr) {
                Some(index) => Transformed::yes(Expr::Column(self.column(node, index))),
                None => Transformed::no(expr),
            })
        };
        let calls = calls
            .into_iter()
            .map(|call| {
                let call = call.transform_up(resolve)?.data;
                let Expr::AggregateFunction(mut function) = call.unalias() else {
                    return Err(Refusal::new(
                        codes::AGGREGATE,
                        "this is no aggregate that streams",
                        "use COUNT or SUM",
                    ));
                };
                let own = not(is_seed.clone());
                let filter = function.params.filter.take();
                function.params.filter = Some(Box::new(match filter {
                    Some(filter) => own.and(*filter),
                    None => own,
                }));
                Ok(Expr::AggregateFunction(function))
            })
            .collect::<Result<Vec<_>, Refusal>>()?;
        let relation = self.whole(node);
        let schema = DFSchema::try_from(self.facts[node].columns.as_ref().clone())?;
        let fields = std::iter::once(Field::new("everything", DataType::Int64, true))
            .chain(
                types
                    .iter()
                    .enumerate()
                    .map(|(index, data_type)| Field::new(format!("value_{index}"), data_type.clone(), true)),
            )
            .collect();
        let group = self.grouped(relation, &schema, &[lit(0_i64)], &calls, fields)?;
        self.facts[group].unique = vec![vec![]];
        let mut relation = self.whole(group);
        relation.columns.remove(0);
        Ok(relation)
    }

    /// One row that always is there.
    pub(super) fn seed(&mut self) -> NodeIndex {
        self.one_row("seed", vec![Field::new("seed", DataType::Boolean, true)], NodeKind::Seed)
    }

    /// A node without inputs that gives one row, known by `text`.
    pub(super) fn one_row(&mut self, text: &str, fields: Vec<Field>, kind: NodeKind) -> NodeIndex {
        let output = fingerprint(text);
        let facts = Facts {
            columns: canonical_columns(&fields),
            unique: vec![vec![]],
            dependences: vec![],
            merged: vec![],
            reach: Reach::Within(0),
            output: output.clone(),
        };
        let node = FlowNode {
            fingerprint: output,
            inputs: vec![],
            append_only: matches!(kind, NodeKind::Seed),
            kind,
            schema: Arc::new(Schema::new(fields)),
        };
        self.push(node, facts)
    }
}

//! Operators with keyed state, and UNION ALL: what needs its input as a node, or takes filters and arguments over it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, Union};

use super::constants::constant;
use super::grouping::Sets;
use super::{Compiler, Facts, Refusal, Relation, canonical_columns, readable, substitute};
use crate::plan::flow::{
    AggregateCall, AggregateFunction, FlowNode, Member, NodeIndex, NodeKind, Reach, Scalar, fingerprint,
};
use crate::plan::{clock, codes};

/// More sets of unique columns of a UNION than anyone can choose from.
const MOST_SETS: usize = 8;

impl Compiler<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Relation, Refusal> {
        let sets = Sets::of(aggregate)?;
        let keys = sets.as_ref().map_or(&aggregate.group_expr, |sets| &sets.keys);
        let exprs: Vec<Expr> = keys.iter().chain(&aggregate.aggr_expr).cloned().collect();
        let relation = self.read_by(&aggregate.input, &exprs)?;
        if keys.is_empty() {
            return self.whole_aggregate(relation, aggregate);
        }
        let mut schema = aggregate.input.schema().as_ref().clone();
        let (mut relation, mut exprs) = self.with_queries(relation, &exprs)?;
        let fields = aggregate.schema.fields().iter();
        let fields: Vec<Field> =
            fields.map(|field| Field::new(readable(field.name()), field.data_type().clone(), true)).collect();
        let mut bounds = Vec::new();
        if sets.is_none() {
            let resolved = exprs[..keys.len()].iter().map(|key| substitute(key, &schema, &relation.columns));
            let resolved = resolved.collect::<Result<Vec<_>, _>>()?;
            bounds = Self::bounds_of_groups(&mut relation, &resolved);
            if let Some(node) = self.tiled(&relation, &schema, exprs.split_at(keys.len()), &fields)? {
                self.groups(node, relation.node, &resolved);
                return Ok(Relation { bounds, ..self.whole(node) });
            }
        }
        relation = self.settled(relation)?;
        if exprs.iter().any(clock::reads_clock) {
            let resolved = exprs.iter().map(|expr| substitute(expr, &schema, &relation.columns));
            let columns = resolved.collect::<Result<Vec<_>, _>>()?;
            let settled = self.without_clock(Relation { columns, ..relation }, "an aggregate")?;
            relation = self.whole(settled.node);
            exprs = settled.columns;
            schema = DFSchema::try_from(self.facts[relation.node].columns.as_ref().clone())?;
        }
        let schema = &schema;
        let (group_expr, aggr_expr) = exprs.split_at(keys.len());
        if let Some(sets) = &sets {
            return self.grouped_by_sets(&relation, schema, sets, group_expr, aggr_expr, fields);
        }
        let node = self.grouped(relation, schema, group_expr, aggr_expr, fields)?;
        Ok(Relation { bounds, ..self.whole(node) })
    }

    /// The node of an aggregate: `fields` are its keys, then its values.
    pub(super) fn grouped(
        &mut self,
        mut relation: Relation,
        schema: &DFSchema,
        group_expr: &[Expr],
        aggr_expr: &[Expr],
        fields: Vec<Field>,
    ) -> Result<NodeIndex, Refusal> {
        let resolve = |relation: &Relation, expr: &Expr| substitute(expr, schema, &relation.columns);
        let keys = group_expr.iter().map(|expr| resolve(&relation, expr)).collect::<Result<Vec<_>, _>>()?;
        let guarded = !relation.filters.is_empty() && keys.iter().any(|key| self.fallible(relation.node, key));
        if !relation.bounds.is_empty() || guarded {
            relation = self.materialise(relation)?;
        }
        let keys = group_expr.iter().map(|expr| resolve(&relation, expr)).collect::<Result<Vec<_>, _>>()?;
        let scalars = keys.iter().map(|key| self.scalar(relation.node, key)).collect::<Result<Vec<_>, _>>()?;
        let aggregates =
            aggr_expr.iter().map(|expr| self.aggregate_call(&relation, expr, schema)).collect::<Result<Vec<_>, _>>()?;
        let filter = self.filter_stages(relation.node, &relation.filters)?;
        let node = self.aggregate_node(relation.node, scalars, filter, None, aggregates, fields);
        self.groups(node, relation.node, &keys);
        Ok(node)
    }

    /// An aggregate over a node, whose rows may stand for several each.
    pub(super) fn aggregate_node(
        &mut self,
        input: NodeIndex,
        keys: Vec<Scalar>,
        filter: Vec<Scalar>,
        rows: Option<Scalar>,
        aggregates: Vec<AggregateCall>,
        fields: Vec<Field>,
    ) -> NodeIndex {
        let key_texts: Vec<&str> = keys.iter().map(|key| key.text.as_str()).collect();
        let identity = fingerprint(&format!("aggregate {} by {key_texts:?}", self.facts[input].output));
        let call_texts: Vec<String> = aggregates.iter().map(AggregateCall::text).collect();
        let filter_texts: Vec<&str> = filter.iter().map(|stage| stage.text.as_str()).collect();
        let rows_text = rows.as_ref().map_or_else(String::new, |rows| format!(" of {}", rows.text));
        let member = Member {
            fingerprint: fingerprint(&format!("member {filter_texts:?} {call_texts:?}{rows_text}")),
            filter,
            rows,
            aggregates,
        };
        let facts = Facts {
            columns: canonical_columns(&fields),
            unique: vec![(0..keys.len()).collect()],
            dependences: vec![],
            merged: vec![],
            reach: self.facts[input].reach,
            output: fingerprint(&format!("{identity} {}", member.fingerprint)),
        };
        let node = FlowNode {
            fingerprint: identity,
            inputs: vec![input],
            kind: NodeKind::Aggregate { keys, member },
            schema: Arc::new(Schema::new(fields)),
            append_only: false,
        };
        self.push(node, facts)
    }

    pub(super) fn aggregate_call(
        &self,
        relation: &Relation,
        expr: &Expr,
        schema: &DFSchema,
    ) -> Result<AggregateCall, Refusal> {
        let Expr::AggregateFunction(function) = expr.clone().unalias() else {
            return Err(Refusal::new(
                codes::AGGREGATE,
                format!("`{expr}` is not an aggregate that streams"),
                "use COUNT, SUM, AVG, MIN or MAX",
            ));
        };
        let params = &function.params;
        let name = function.func.name();
        // A column may stand for a sub-query, which is no part of the schema.
        let resolved = substitute(expr, schema, &relation.columns)?;
        let data_type = resolved.get_type(&DFSchema::try_from(self.facts[relation.node].columns.as_ref().clone())?)?;
        let kind = match (name, params.distinct) {
            ("count", false) => AggregateFunction::Count,
            ("count", true) => AggregateFunction::CountDistinct,
            ("sum", false) => AggregateFunction::Sum,
            ("avg", false) => AggregateFunction::Avg,
            ("min", _) => AggregateFunction::Min,
            ("max", _) => AggregateFunction::Max,
            _ => return self.collected_call(relation, &function, schema, &data_type),
        };
        let [argument] = params.args.as_slice() else {
            return self.collected_call(relation, &function, schema, &data_type);
        };
        let argument = substitute(argument, schema, &relation.columns)?;
        let filter = match &params.filter {
            Some(filter) => Some(substitute(filter, schema, &relation.columns)?),
            None => None,
        };
        let argument = if counts_rows(kind, &argument) { None } else { Some(self.scalar(relation.node, &argument)?) };
        let adds = matches!(kind, AggregateFunction::Sum | AggregateFunction::Avg);
        if adds && argument.as_ref().is_some_and(|argument| argument.data_type == DataType::Null) {
            let message = format!("{} of NULL is NULL, whatever the rows are", name.to_uppercase());
            return Err(Refusal::new(codes::AGGREGATE, message, "leave it out, or give it a column"));
        }
        let filter = filter.map(|filter| self.scalar(relation.node, &filter)).transpose()?;
        Ok(AggregateCall { function: kind, argument, collected: None, filter, merges: false, data_type })
    }

    pub(super) fn union(&mut self, union: &Union) -> Result<Relation, Refusal> {
        let mut relations = Vec::new();
        for input in &union.inputs {
            let mut relation = self.relation(input)?;
            for (index, field) in union.schema.fields().iter().enumerate() {
                let node_columns = DFSchema::try_from(self.facts[relation.node].columns.as_ref().clone())?;
                let column = relation.columns[index].clone();
                relation.columns[index] = column.cast_to(field.data_type(), &node_columns)?;
            }
            relations.push(relation);
        }
        let unique = self.unique_in_all(&relations);
        let bounds = Self::bounds_of_all(&mut relations);
        let inputs = relations.into_iter().map(|relation| Ok(self.narrow(relation)?.node));
        let inputs = inputs.collect::<Result<Vec<_>, Refusal>>()?;
        let fields = union.schema.fields().iter();
        let fields = fields.map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
        let node = self.union_node(inputs, fields);
        self.facts[node].unique = unique;
        let bound =
            |(column, comparison, clock_side)| (Expr::Column(self.column(node, column)), comparison, clock_side);
        Ok(Relation { bounds: bounds.into_iter().map(bound).collect(), ..self.whole(node) })
    }

    /// What is unique in the rows of several relations behind one another, where a constant says from which each is.
    fn unique_in_all(&self, relations: &[Relation]) -> Vec<Vec<usize>> {
        let width = relations.iter().map(|relation| relation.columns.len()).min().unwrap_or_default();
        let tells_apart = |column: &usize| {
            let mut constants = HashSet::new();
            relations.iter().all(|relation| {
                let value = constant(&relation.columns[*column]).filter(|value| !value.is_null());
                value.is_some_and(|value| constants.insert(value))
            })
        };
        let Some(teller) = (0..width).find(tells_apart) else { return Vec::new() };
        let mut sets: Vec<BTreeSet<usize>> = vec![BTreeSet::from([teller])];
        for relation in relations {
            let place = |column: &usize| {
                relation.columns.iter().position(|expr| self.injective(relation.node, expr) == Some(*column))
            };
            let unique = self.facts[relation.node].unique.iter();
            let own: Vec<BTreeSet<usize>> = unique.filter_map(|unique| unique.iter().map(place).collect()).collect();
            let both: BTreeSet<BTreeSet<usize>> =
                sets.iter().flat_map(|set| own.iter().map(move |own| set | own)).collect();
            sets = both.into_iter().collect();
            sets.sort_by_key(BTreeSet::len);
            sets.truncate(MOST_SETS);
        }
        sets.into_iter().map(|set| set.into_iter().collect()).collect()
    }

    /// The rows of several nodes with the same columns.
    pub(super) fn union_node(&mut self, inputs: Vec<NodeIndex>, fields: Vec<Field>) -> NodeIndex {
        let outputs: Vec<&str> = inputs.iter().map(|input| self.facts[*input].output.as_str()).collect();
        let output = match inputs.is_empty() {
            false => fingerprint(&format!("union {outputs:?}")),
            // Nothing is told apart by its columns alone.
            true => fingerprint(&format!("nothing of {:?}", fields.iter().map(Field::data_type).collect::<Vec<_>>())),
        };
        let reach = inputs.iter().map(|input| self.facts[*input].reach).fold(Reach::Within(0), Reach::and);
        let facts = Facts {
            columns: canonical_columns(&fields),
            unique: vec![],
            dependences: vec![],
            merged: vec![],
            reach,
            output: output.clone(),
        };
        let node = FlowNode {
            fingerprint: output,
            append_only: inputs.iter().all(|input| self.nodes[*input].append_only),
            inputs,
            kind: NodeKind::Union,
            schema: Arc::new(Schema::new(fields)),
        };
        self.push(node, facts)
    }
}

/// True where every row counts, whatever is in it: COUNT of a constant, unless that is NULL.
pub(super) fn counts_rows(function: AggregateFunction, argument: &Expr) -> bool {
    function == AggregateFunction::Count && matches!(argument, Expr::Literal(value, _) if !value.is_null())
}

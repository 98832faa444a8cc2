//! Aggregates whose comparisons with the clock move in steps: partial aggregates by key and step in place of rows.
//!
//! A call is split by the truth of the comparisons that it reads. Where that is settled, what is left of its argument and
//! its filter is the same for all rows of a step and is aggregated below; the aggregate above merges what counts now.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, lit, not};
use datafusion::optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};

use super::clocked::{Comparing, flag_column, flag_number, take_comparisons};
use super::{Compiler, Refusal, Relation, readable, scalar_over, substitute};
use crate::plan::clock::{self, ClockBound};
use crate::plan::flow::{AggregateCall, AggregateFunction, NodeIndex, NodeKind, Scalar, TilePlan};

/// A call that reads so many combinations of comparisons keeps rows.
const MOST_BRANCHES: usize = 8;

/// What an aggregate reads of a row.
#[derive(Debug, Clone, PartialEq)]
struct Read {
    argument: Expr,
    filter: Expr,
}

/// What is left of a call for the rows of which some comparisons have come out in one way.
struct Branch {
    /// How they have come out, over what stands for them.
    path: Vec<Expr>,
    read: Read,
}

/// A partial aggregate.
type Part = (AggregateFunction, Read);

/// A call as the merging of partial ones.
struct Merge {
    function: AggregateFunction,
    /// Which partial aggregate counts when.
    branches: Vec<(Vec<Expr>, usize)>,
}

/// All calls of an aggregate, split.
#[derive(Default)]
struct Split {
    parts: Vec<Part>,
    merges: Vec<Merge>,
}

impl Compiler<'_> {
    /// The node of an aggregate over tiles: its keys, then its values. `None` where rows must be kept instead, or nothing reads
    /// the clock.
    pub(super) fn tiled(
        &mut self,
        relation: &Relation,
        schema: &DFSchema,
        (group_expr, aggr_expr): (&[Expr], &[Expr]),
        fields: &[Field],
    ) -> Result<Option<NodeIndex>, Refusal> {
        let mut comparisons: Vec<Comparing> = Vec::new();
        let mut settled =
            |expr: &Expr| take_comparisons(&substitute(expr, schema, &relation.columns)?, &mut comparisons);
        let keys = group_expr.iter().map(&mut settled).collect::<Result<Vec<_>, _>>()?;
        let calls = aggr_expr.iter().map(&mut settled).collect::<Result<Vec<_>, _>>()?;
        let has_clock = !comparisons.is_empty() || !relation.bounds.is_empty();
        if !has_clock || calls.iter().any(clock::reads_clock) || keys.iter().any(|key| first_flag([key]).is_some()) {
            return Ok(None);
        }
        let mut clocks = relation.bounds.iter().chain(&comparisons);
        if keys.iter().any(clock::reads_clock) || !clocks.all(|comparing| self.is_stepped(relation, comparing)) {
            return Ok(None);
        }
        let waits = relation.bounds.iter().any(|(_, comparison, _)| !comparison.is_lower());
        if waits && keys.iter().any(|key| self.fallible(relation.node, key)) {
            return Ok(None);
        }
        let Some(split) = self.split_calls(relation, &calls, &comparisons, waits)? else { return Ok(None) };
        self.over_tiles(relation, &comparisons, &keys, &split, fields).map(Some)
    }

    /// True where the rows between two steps of the clock side are the many, and those that turn one by one few: they lie
    /// ahead of the clock.
    fn is_stepped(&self, relation: &Relation, (row, comparison, clock_side): &Comparing) -> bool {
        const SLACK: i64 = 3 * 86_400_000_000_000;
        match clock::clock_side(clock_side) {
            Ok((_, true)) => true,
            Ok((_, false)) if !comparison.is_lower() => {
                let bound = self.bound(relation.node, row, *comparison, clock_side).ok();
                let back = bound.and_then(|bound| bound.distance_back(self.timezone));
                back.is_some_and(|back| back <= SLACK)
            }
            _ => false,
        }
    }

    /// The partial aggregates that the calls need, and how each call merges them; `waits` where rows may come into sight later.
    fn split_calls(
        &self,
        relation: &Relation,
        calls: &[Expr],
        comparisons: &[Comparing],
        waits: bool,
    ) -> Result<Option<Split>, Refusal> {
        let columns = self.facts[relation.node].columns.fields().iter().map(|field| field.as_ref().clone());
        let flags = (0..comparisons.len()).map(|flag| Field::new(flag_column(flag).name, DataType::Boolean, true));
        let schema = DFSchema::try_from(Schema::new(columns.chain(flags).collect::<Vec<_>>()))?;
        let context = SimplifyContext::builder().with_schema(schema.into()).build();
        let simplifier = ExprSimplifier::new(context).with_canonicalize(false);
        let Split { mut parts, mut merges } = Split::default();
        for call in calls {
            let Expr::AggregateFunction(call) = call.clone().unalias() else { return Ok(None) };
            let [argument] = call.params.args.as_slice() else { return Ok(None) };
            let function = match (call.func.name(), call.params.distinct) {
                ("count", false) => AggregateFunction::Count,
                ("sum", false) => AggregateFunction::Sum,
                ("avg", false) => AggregateFunction::Avg,
                ("min", _) if self.nodes[relation.node].append_only => AggregateFunction::Min,
                ("max", _) if self.nodes[relation.node].append_only => AggregateFunction::Max,
                _ => return Ok(None),
            };
            let filter = call.params.filter.map_or(lit(true), |filter| *filter);
            let mut branches = Vec::new();
            let read = Read { argument: argument.clone(), filter };
            if !matches!(split(&simplifier, read, &[], &mut branches), Ok(true)) || branches.is_empty() {
                return Ok(None);
            }
            let mut merge = Merge { function, branches: Vec::new() };
            for Branch { path, mut read } in branches {
                if self.fallible(relation.node, &read.argument) || self.fallible(relation.node, &read.filter) {
                    // It must not be evaluated for rows that never count.
                    let is_there = |flag: &Expr| {
                        matches!(flag, Expr::Column(column)
                            if flag_number(column).is_some_and(|flag| comparisons[flag].1.is_lower()))
                    };
                    if waits || !path.iter().all(is_there) {
                        return Ok(None);
                    }
                    let conditions = path.iter().cloned().chain([read.filter]).filter(|expr| *expr != lit(true));
                    read.filter = conjunction(conditions).unwrap_or(lit(true));
                }
                // A sum and a count give both.
                let partial = if function == AggregateFunction::Avg { AggregateFunction::Sum } else { function };
                let part = (partial, read);
                let place = parts.iter().position(|known| *known == part).unwrap_or(parts.len());
                if place == parts.len() {
                    parts.push(part);
                }
                merge.branches.push((path, place));
            }
            let partial_type = |place: usize| -> Result<Option<DataType>, Refusal> {
                let (function, read) = &parts[place];
                let argument = self.scalar(relation.node, &read.argument)?;
                Ok(partial_call(*function, Some(argument), None).partial_type())
            };
            let types = merge.branches.iter().map(|(_, place)| partial_type(*place)).collect::<Result<Vec<_>, _>>()?;
            if types[0].is_none() || types.iter().any(|found| *found != types[0]) {
                return Ok(None);
            }
            merges.push(merge);
        }
        Ok(Some(Split { parts, merges }))
    }

    /// The tiles and the aggregate above them.
    fn over_tiles(
        &mut self,
        relation: &Relation,
        comparisons: &[Comparing],
        keys: &[Expr],
        Split { parts, merges }: &Split,
        fields: &[Field],
    ) -> Result<NodeIndex, Refusal> {
        let mut needed: Vec<Expr> = Vec::new();
        for expr in keys.iter().chain(parts.iter().flat_map(|(_, read)| [&read.argument, &read.filter])) {
            expr.apply(|expr| {
                if matches!(expr, Expr::Column(column) if flag_number(column).is_none()) && !needed.contains(expr) {
                    needed.push(expr.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        let read = needed.len();
        for (row, ..) in relation.bounds.iter().chain(comparisons) {
            if !needed.contains(row) {
                needed.push(row.clone());
            }
        }
        let places: HashMap<Expr, usize> =
            needed.iter().enumerate().map(|(index, expr)| (expr.clone(), index)).collect();
        let below = self.narrow(Relation { columns: needed, bounds: vec![], ..relation.clone() })?.node;
        let bind = |comparing: &Comparing| {
            let (row, comparison, clock_side) = comparing;
            self.bound(below, &Expr::Column(self.column(below, places[row])), *comparison, clock_side)
        };
        let bounds = relation.bounds.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let flags = comparisons.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let reach = if bounds.is_empty() { self.facts[below].reach } else { self.bounded_reach(relation, &bounds) };

        let mut columns: Vec<Field> =
            self.facts[below].columns.fields().iter().map(|field| field.as_ref().clone()).collect();
        let width = columns.len();
        columns.extend((0..flags.len()).map(|flag| Field::new(format!("#{}", width + flag), DataType::Boolean, true)));
        let columns = Schema::new(columns).into();
        let over = |expr: &Expr| -> Result<Scalar, Refusal> {
            let resolve = |expr: Expr| {
                let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
                let index = match flag_number(column) {
                    Some(flag) => width + flag,
                    None => *places
                        .get(&expr)
                        .filter(|place| **place < read)
                        .ok_or_else(|| DataFusionError::Internal(format!("column {column} is lost below tiles")))?,
                };
                Ok(Transformed::yes(Expr::Column(Column::from_name(format!("#{index}")))))
            };
            scalar_over(&columns, &expr.clone().transform_up(resolve)?.data)
        };
        let scalars = keys.iter().map(over).collect::<Result<Vec<_>, _>>()?;
        let mut tile_fields: Vec<Field> = fields[..keys.len()].to_vec();
        tile_fields.extend((0..flags.len()).map(|flag| Field::new(format!("clock_{flag}"), DataType::Boolean, true)));
        tile_fields.push(Field::new("rows", DataType::Int64, true));
        let mut calls = Vec::new();
        for (function, Read { argument, filter }) in parts {
            let named = readable(&self.named(relation.node, argument).schema_name().to_string());
            let counts_rows = *function == AggregateFunction::Count && matches!(argument, Expr::Literal(..));
            let argument = if counts_rows { None } else { Some(over(argument)?) };
            let filter = if *filter == lit(true) { None } else { Some(over(filter)?) };
            let call = partial_call(*function, argument, filter);
            let data_type = call
                .partial_type()
                .ok_or_else(|| DataFusionError::Internal(format!("{} has no partial aggregates", function.name())))?;
            tile_fields.push(Field::new(format!("{}({named})", function.name()), data_type.clone(), true));
            calls.push(AggregateCall { data_type, ..call });
        }
        let first_part = keys.len() + flags.len() + 1;
        let tiles =
            self.tiles(below, TilePlan { keys: scalars, bounds, flags, calls, timezone: self.timezone }, tile_fields);
        self.facts[tiles].reach = reach;
        self.merging(tiles, keys.len(), first_part, merges, fields)
    }

    fn tiles(&mut self, below: NodeIndex, plan: TilePlan, fields: Vec<Field>) -> NodeIndex {
        let keys: Vec<&str> = plan.keys.iter().map(|key| key.text.as_str()).collect();
        let texts = |bounds: &[ClockBound]| bounds.iter().map(ClockBound::text).collect::<Vec<_>>();
        let calls: Vec<String> = plan.calls.iter().map(AggregateCall::text).collect();
        let text = format!(
            "tiles {} by {keys:?} while {:?} flags {:?} {} of {calls:?}",
            self.facts[below].output,
            texts(&plan.bounds),
            texts(&plan.flags),
            self.timezone.name(),
        );
        self.over(below, &text, NodeKind::Tiles(plan), fields, vec![])
    }

    fn merging(
        &mut self,
        tiles: NodeIndex,
        keys: usize,
        first_part: usize,
        merges: &[Merge],
        fields: &[Field],
    ) -> Result<NodeIndex, Refusal> {
        let column = |index: usize| Expr::Column(self.column(tiles, index));
        let on_path = |path: &[Expr]| -> Result<Option<Expr>, DataFusionError> {
            let resolve = |expr: Expr| match &expr {
                Expr::Column(flag) => {
                    let flag = flag_number(flag).map(|flag| column(keys + flag));
                    Ok(flag.map_or(Transformed::no(expr), Transformed::yes))
                }
                _ => Ok(Transformed::no(expr)),
            };
            conjunction(path.to_vec()).map(|path| Ok(path.transform_up(resolve)?.data)).transpose()
        };
        let mut calls = Vec::new();
        for (Merge { function, branches }, field) in merges.iter().zip(&fields[keys..]) {
            let (argument, filter) = match branches.as_slice() {
                [(path, part)] => (column(first_part + part), on_path(path)?),
                several => {
                    let case = |(path, part): &(Vec<Expr>, usize)| {
                        let path = on_path(path)?.unwrap_or(lit(true));
                        Ok((Box::new(path), Box::new(column(first_part + part))))
                    };
                    let cases = several.iter().map(case).collect::<Result<Vec<_>, DataFusionError>>()?;
                    (Expr::Case(Case::new(None, cases, None)), None)
                }
            };
            let filter = filter.map(|filter| self.scalar(tiles, &filter)).transpose()?;
            calls.push(AggregateCall {
                merges: true,
                data_type: field.data_type().clone(),
                ..partial_call(*function, Some(self.scalar(tiles, &argument)?), filter)
            });
        }
        let scalars = (0..keys).map(|key| self.scalar(tiles, &column(key))).collect::<Result<Vec<_>, _>>()?;
        let rows = self.scalar(tiles, &column(first_part - 1))?;
        Ok(self.aggregate_node(tiles, scalars, vec![], Some(rows), calls, fields.to_vec()))
    }
}

fn partial_call(function: AggregateFunction, argument: Option<Scalar>, filter: Option<Scalar>) -> AggregateCall {
    AggregateCall { function, argument, collected: None, filter, merges: false, data_type: DataType::Null }
}

/// Splits by the truth of one comparison after the other; false where there are too many ways.
fn split(
    simplifier: &ExprSimplifier,
    read: Read,
    path: &[Expr],
    branches: &mut Vec<Branch>,
) -> Result<bool, DataFusionError> {
    let Some(flag) = first_flag([&read.filter, &read.argument]) else {
        branches.push(Branch { path: path.to_vec(), read });
        return Ok(branches.len() <= MOST_BRANCHES);
    };
    let [yes, no, unknown] = [Some(true), Some(false), None].map(|truth| assume(simplifier, &read, &flag, truth));
    let (yes, no, unknown) = (yes?, no?, unknown?);
    let column = Expr::Column(flag);
    let ways = if no == unknown {
        vec![(column.clone(), yes), (column.is_not_true(), no)]
    } else {
        vec![(column.clone(), yes), (not(column.clone()), no), (column.is_null(), unknown)]
    };
    for (condition, read) in ways {
        let Some(read) = read else { continue };
        let path: Vec<Expr> = path.iter().cloned().chain([condition]).collect();
        if !split(simplifier, read, &path, branches)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is read where a comparison has come out as `truth`; `None` where nothing counts.
fn assume(
    simplifier: &ExprSimplifier,
    read: &Read,
    flag: &Column,
    truth: Option<bool>,
) -> Result<Option<Read>, DataFusionError> {
    let settle = |expr: &Expr| -> Result<Expr, DataFusionError> {
        let known = expr.clone().transform_up(|expr| match &expr {
            Expr::Column(column) if column == flag => Ok(Transformed::yes(lit(ScalarValue::Boolean(truth)))),
            _ => Ok(Transformed::no(expr)),
        })?;
        let simple = simplifier.simplify(known.data)?;
        let without_dead = simple.transform_up(|expr| match expr {
            Expr::Case(mut case) if case.expr.is_none() => {
                let is_dead = |(when, _): &(Box<Expr>, Box<Expr>)| is_never_true(when);
                if !case.when_then_expr.iter().any(is_dead) {
                    return Ok(Transformed::no(Expr::Case(case)));
                }
                for (when, _) in &mut case.when_then_expr {
                    if is_never_true(when) {
                        **when = lit(false);
                    }
                }
                Ok(Transformed::yes(Expr::Case(case)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        simplifier.simplify(without_dead.data)
    };
    let read = Read { argument: settle(&read.argument)?, filter: settle(&read.filter)? };
    let counts = !is_never_true(&read.filter) && !matches!(&read.argument, Expr::Literal(value, _) if value.is_null());
    Ok(counts.then_some(read))
}

/// True for a condition that is false or NULL whatever the row.
fn is_never_true(condition: &Expr) -> bool {
    let is_out = |part: &Expr| matches!(part, Expr::Literal(value, _) if value.is_null() || *part == lit(false));
    split_conjunction(condition).into_iter().any(is_out)
}

/// What stands for a comparison in one of the expressions.
fn first_flag<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Option<Column> {
    let mut found = None;
    for expr in exprs {
        let walked: Result<_, DataFusionError> = expr.apply(|expr| {
            if let Expr::Column(column) = expr
                && flag_number(column).is_some()
            {
                found = Some(column.clone());
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        if found.is_some() || walked.is_err() {
            break;
        }
    }
    found
}

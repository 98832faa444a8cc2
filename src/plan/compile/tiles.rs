//! Aggregates whose comparisons with the clock move in steps: partial aggregates by key and step in place of rows.
//!
//! A call is split by the truth of the comparisons that it reads. Where that is settled, what is left of its argument and
//! its filter is the same for all rows of a step and is aggregated below; the aggregate above merges what counts now.

mod split;

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError};
use datafusion::functions::core::named_struct;
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, lit};

use self::split::{Merge, Read, Splitter, first_flag};
use super::clocked::{Comparing, below_comparisons, flag_number, take_comparisons};
use super::keyed::counts_rows;
use super::{Compiler, Refusal, Relation, readable, scalar_over, substitute};
use crate::plan::clock::{self, ClockBound};
use crate::plan::flow::{AggregateCall, AggregateFunction, NodeIndex, NodeKind, Scalar, TilePlan};

/// All that an aggregate reads, split.
struct Split {
    parts: Vec<(AggregateFunction, Read)>,
    merges: Vec<Merge>,
    /// How many rows count, where comparisons decide it.
    rows: Option<Merge>,
    /// What tiles are told apart by beside the keys.
    distinct: Option<Expr>,
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
        // Conditions on the clock that are no bounds count rows as a FILTER of every call does.
        let (turning, filters): (Vec<Expr>, Vec<Expr>) = relation.filters.iter().cloned().partition(clock::reads_clock);
        let turning = turning.iter().map(|filter| take_comparisons(filter, &mut comparisons));
        let turning = turning.collect::<Result<Vec<_>, _>>()?;
        let relation = &Relation { filters, ..relation.clone() };
        let mut clocks = relation.bounds.iter().chain(&comparisons).peekable();
        if clocks.peek().is_none()
            || !clocks.all(|comparing| self.is_stepped(relation, comparing))
            || calls.iter().chain(&keys).chain(&turning).any(clock::reads_clock)
            || keys.iter().any(|key| first_flag([key]).is_some())
        {
            return Ok(None);
        }
        let waits = relation.bounds.iter().any(|(_, comparison, _)| !comparison.is_lower());
        if waits && keys.iter().any(|key| self.fallible(relation.node, key)) {
            return Ok(None);
        }
        let condition = conjunction(turning).unwrap_or(lit(true));
        let Some(split) = self.split(relation.node, &calls, &condition, &comparisons, waits)? else { return Ok(None) };
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

    /// The partial aggregates that calls need over the rows for which a condition is true, and how each call merges them.
    fn split(
        &self,
        node: NodeIndex,
        calls: &[Expr],
        condition: &Expr,
        comparisons: &[Comparing],
        waits: bool,
    ) -> Result<Option<Split>, Refusal> {
        let mut splitter = Splitter::new(self, node, comparisons, waits)?;
        let mut merges = Vec::new();
        for call in calls {
            let Some(merge) = splitter.call(call, condition)? else { return Ok(None) };
            merges.push(merge);
        }
        let mut rows = None;
        if *condition != lit(true) {
            rows = splitter.rows(condition)?;
            if rows.is_none() {
                return Ok(None);
            }
        }
        let Splitter { parts, distinct, .. } = splitter;
        Ok(Some(Split { parts, merges, rows, distinct }))
    }

    /// The tiles and the aggregate above them.
    fn over_tiles(
        &mut self,
        relation: &Relation,
        comparisons: &[Comparing],
        keys: &[Expr],
        split: &Split,
        fields: &[Field],
    ) -> Result<NodeIndex, Refusal> {
        let Split { parts, distinct, .. } = split;
        let of_parts = parts.iter().flat_map(|(_, read)| [&read.argument, &read.filter]);
        let exprs = keys.iter().chain(distinct).chain(of_parts);
        let (needed, read) = below_comparisons(exprs, relation.bounds.iter().chain(comparisons))?;
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
        let scalars = keys.iter().chain(distinct).map(over).collect::<Result<Vec<_>, _>>()?;
        let mut tile_fields: Vec<Field> = fields[..keys.len()].to_vec();
        tile_fields.extend(distinct.iter().zip(&scalars[keys.len()..]).map(|(value, scalar)| {
            let name = readable(&self.named(relation.node, value).schema_name().to_string());
            Field::new(name, scalar.data_type.clone(), true)
        }));
        tile_fields.extend((0..flags.len()).map(|flag| Field::new(format!("clock_{flag}"), DataType::Boolean, true)));
        tile_fields.push(Field::new("rows", DataType::Int64, true));
        let mut calls = Vec::new();
        for (function, Read { argument, filter }) in parts {
            let named = readable(&self.named(relation.node, argument).schema_name().to_string());
            let argument = if counts_rows(*function, argument) { None } else { Some(over(argument)?) };
            let filter = if *filter == lit(true) { None } else { Some(over(filter)?) };
            let call = partial_call(*function, argument, filter);
            let data_type = call
                .partial_type()
                .ok_or_else(|| DataFusionError::Internal(format!("{} has no partial aggregates", function.name())))?;
            tile_fields.push(Field::new(format!("{}({named})", function.name()), data_type.clone(), true));
            calls.push(AggregateCall { data_type, ..call });
        }
        let first_part = scalars.len() + flags.len() + 1;
        let tiles =
            self.tiles(below, TilePlan { keys: scalars, bounds, flags, calls, timezone: self.timezone }, tile_fields);
        self.facts[tiles].reach = reach;
        self.merging(tiles, keys.len(), first_part, split, fields)
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
        split: &Split,
        fields: &[Field],
    ) -> Result<NodeIndex, Refusal> {
        let first_flag = keys + usize::from(split.distinct.is_some());
        let column = |index: usize| Expr::Column(self.column(tiles, index));
        let on_path = |path: &[Expr]| -> Result<Option<Expr>, DataFusionError> {
            let resolve = |expr: Expr| match &expr {
                Expr::Column(flag) => {
                    let flag = flag_number(flag).map(|flag| column(first_flag + flag));
                    Ok(flag.map_or(Transformed::no(expr), Transformed::yes))
                }
                _ => Ok(Transformed::no(expr)),
            };
            conjunction(path.to_vec()).map(|path| Ok(path.transform_up(resolve)?.data)).transpose()
        };
        let by_case =
            |branches: &[(Vec<Expr>, usize)], part: &dyn Fn(usize) -> Expr| -> Result<Expr, DataFusionError> {
                let case = |(path, place): &(Vec<Expr>, usize)| {
                    Ok((Box::new(on_path(path)?.unwrap_or(lit(true))), Box::new(part(*place))))
                };
                let cases = branches.iter().map(case).collect::<Result<Vec<_>, DataFusionError>>()?;
                Ok(Expr::Case(Case::new(None, cases, None)))
            };
        let mut calls = Vec::new();
        for (Merge { function, branches }, field) in split.merges.iter().zip(&fields[keys..]) {
            let part = |place: usize| match function {
                AggregateFunction::CountDistinct => {
                    named_struct().call(vec![lit("value"), column(keys), lit("count"), column(first_part + place)])
                }
                _ => column(first_part + place),
            };
            let (argument, filter) = match branches.as_slice() {
                [(path, place)] => (part(*place), on_path(path)?),
                several => (by_case(several, &part)?, None),
            };
            let filter = filter.map(|filter| self.scalar(tiles, &filter)).transpose()?;
            calls.push(AggregateCall {
                merges: true,
                data_type: field.data_type().clone(),
                ..partial_call(*function, Some(self.scalar(tiles, &argument)?), filter)
            });
        }
        let rows = match &split.rows {
            None => column(first_part - 1),
            Some(Merge { branches, .. }) => by_case(branches, &|place| column(first_part + place))?,
        };
        let scalars = (0..keys).map(|key| self.scalar(tiles, &column(key))).collect::<Result<Vec<_>, _>>()?;
        let rows = self.scalar(tiles, &rows)?;
        Ok(self.aggregate_node(tiles, scalars, vec![], Some(rows), calls, fields.to_vec()))
    }
}

fn partial_call(function: AggregateFunction, argument: Option<Scalar>, filter: Option<Scalar>) -> AggregateCall {
    AggregateCall { function, argument, collected: None, filter, merges: false, data_type: DataType::Null }
}

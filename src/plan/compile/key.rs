//! The end of a plan: the tag's key, proven from what makes its rows unique, and its columns.

use std::collections::BTreeSet;

use datafusion::common::DFSchema;
use datafusion::logical_expr::{Aggregate, Expr};
use datafusion::physical_expr::utils::collect_columns;

use super::{Compiler, KeyRequirement, Refusal, Relation};
use crate::plan::codes;
use crate::plan::flow::{FlowNode, FlowPlan, NodeIndex, NodeKind, OutputColumn, Ranking, fingerprint};
use crate::plan::wording::sql_type;

impl Compiler<'_> {
    pub(super) fn finish(
        mut self,
        relation: Relation,
        schema: &DFSchema,
        required: &KeyRequirement,
    ) -> Result<FlowPlan, Refusal> {
        let entity_position =
            schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(&required.column));
        let mut key_positions = self.key_positions(&relation, required, entity_position)?;
        let entity_position = match entity_position {
            Some(position) if key_positions.contains(&position) => position,
            // What is unique by a part of the key is unique by the key.
            Some(position) if !self.is_of_several(relation.node, &relation.columns[position]) => position,
            Some(_) => {
                return Err(Refusal::new(
                    codes::OTHER_KEY,
                    format!("`{}` is selected, but the rows are not unique by it", required.column),
                    format!("put `{}` into GROUP BY (or PARTITION BY)", required.column),
                ));
            }
            None if self.is_one_row(relation.node) => {
                return Err(Refusal::new(
                    codes::NOBODYS,
                    "an aggregate over the whole population is not keyed by anyone",
                    "add GROUP BY with the entity's key",
                ));
            }
            None => {
                return Err(Refusal::new(
                    codes::NO_KEY,
                    format!("the tag has no column `{}`, the key of entity `{}`", required.column, required.entity),
                    format!("select and group by `{}`", required.column),
                ));
            }
        };
        let found = schema.field(entity_position).data_type();
        if *found != required.data_type {
            return Err(Refusal::new(
                codes::KEY_TYPE,
                format!(
                    "`{}` is {}, but the key of the entity `{}` is {}",
                    required.column,
                    sql_type(found),
                    required.entity,
                    sql_type(&required.data_type)
                ),
                "declare the column in the schema with the entity's type",
            ));
        }
        key_positions.sort_unstable();
        key_positions.retain(|position| *position != entity_position);
        key_positions.insert(0, entity_position);

        let relation = self.materialise(relation)?;
        let output = |position: usize| OutputColumn {
            name: schema.field(position).name().clone(),
            index: position,
            data_type: schema.field(position).data_type().clone(),
        };
        let key: Vec<OutputColumn> = key_positions.iter().map(|position| output(*position)).collect();
        let columns: Vec<OutputColumn> =
            (0..relation.columns.len()).filter(|position| !key_positions.contains(position)).map(output).collect();
        let names: Vec<String> =
            key.iter().chain(&columns).map(|column| format!("{} {}", column.name, column.data_type)).collect();
        let facts = &self.facts[relation.node];
        let whole = fingerprint(&format!("tag {} {} {names:?}", facts.output, key.len()));
        let reach = facts.reach;
        let keep = relation.node;
        self.nodes.truncate(keep + 1);
        Ok(FlowPlan { nodes: self.nodes, key, columns, fingerprint: whole, reach })
    }

    /// The merged columns of which the expression takes whichever is there: COALESCE(a.k, b.k), which DataFusion may write
    /// as a CASE.
    pub(super) fn merged(&self, node: NodeIndex, expr: &Expr) -> Option<Vec<usize>> {
        let parts = whichever_is_there(expr).into_iter();
        let columns = parts.map(|part| self.plain(node, part)).collect::<Option<BTreeSet<usize>>>()?;
        let is_it =
            |merged: &&Vec<usize>| merged.len() == columns.len() && merged.iter().all(|of| columns.contains(of));
        self.facts[node].merged.iter().find(is_it).cloned()
    }

    /// True where a value is made of several rows, so that whose it is would be left to chance.
    fn is_of_several(&self, node: NodeIndex, expr: &Expr) -> bool {
        expr.column_refs().iter().any(|column| {
            let index = self.facts[node].columns.index_of(&column.name);
            index.is_ok_and(|index| self.is_aggregated(node, index))
        })
    }

    fn is_aggregated(&self, node: NodeIndex, column: usize) -> bool {
        let FlowNode { kind, inputs, .. } = &self.nodes[node];
        let width = |input: usize| self.facts[inputs[input]].columns.fields().len();
        match kind {
            NodeKind::Aggregate { keys, .. } => column >= keys.len(),
            NodeKind::Map { columns: Some(columns), .. } => {
                let mut read = collect_columns(&columns[column].expr).into_iter();
                read.any(|read| self.is_aggregated(inputs[0], read.index()))
            }
            NodeKind::Join(_) if column < width(0) => self.is_aggregated(inputs[0], column),
            NodeKind::Join(_) if column < width(0) + width(1) => self.is_aggregated(inputs[1], column - width(0)),
            NodeKind::Union => inputs.iter().any(|input| self.is_aggregated(*input, column)),
            NodeKind::Window { .. }
            | NodeKind::TopRows { .. }
            | NodeKind::ClockFilter { .. }
            | NodeKind::ClockFlags { .. }
                if column < width(0) =>
            {
                self.is_aggregated(inputs[0], column)
            }
            _ => false,
        }
    }

    /// Where the columns stand that make the rows unique, the entity's key among them where there is a choice.
    fn key_positions(
        &self,
        relation: &Relation,
        required: &KeyRequirement,
        entity: Option<usize>,
    ) -> Result<Vec<usize>, Refusal> {
        let candidates = &self.facts[relation.node].unique;
        // A column that a filter holds at one value tells no rows apart.
        let fixed: Vec<usize> =
            relation.filters.iter().filter_map(|filter| self.fixed(relation.node, filter)).collect();
        let mut missing = None;
        let mut found: Option<Vec<usize>> = None;
        for unique in candidates {
            let telling = unique.iter().filter(|column| !fixed.contains(column));
            let selected = |column: &usize| {
                relation.columns.iter().position(|expr| self.injective(relation.node, expr) == Some(*column))
            };
            let mut positions = Vec::new();
            let unselected = telling.into_iter().find(|column| match selected(column) {
                Some(position) if positions.contains(&position) => false,
                Some(position) => {
                    positions.push(position);
                    false
                }
                None => true,
            });
            match unselected {
                None if entity.is_none_or(|entity| positions.contains(&entity)) => return Ok(positions),
                None => found = found.or(Some(positions)),
                Some(column) => missing = missing.or(Some(*column)),
            }
        }
        if let Some(found) = found {
            return Ok(found);
        }
        Err(match missing {
            Some(column) => {
                let name = self.nodes[relation.node].schema.field(column).name().clone();
                if name == Aggregate::INTERNAL_GROUPING_ID {
                    return Err(Refusal::new(
                        codes::GROUPING_SETS,
                        "several grouping sets give rows of the same key",
                        "let one set have all keys of the others, as GROUP BY user_id, ROLLUP (category) does, or take one row \
                         a user out of them: MAX(s) FILTER (WHERE g = 1) … GROUP BY user_id around it",
                    )
                    .at("group"));
                }
                if name == "row_number" {
                    return Err(several_first_rows(Ranking::RowNumber));
                }
                Refusal::new(
                    codes::KEY_NOT_SELECTED,
                    format!("the rows are unique by `{name}`, which is not in the SELECT list"),
                    format!("select `{name}`, or take it out of GROUP BY / PARTITION BY"),
                )
            }
            None => self.first_rows_by(relation.node).map(several_first_rows).unwrap_or_else(|| {
                Refusal::new(
                    codes::NOT_UNIQUE,
                    "nothing makes the rows of this tag unique",
                    format!(
                        "GROUP BY {}, or keep one row each with ROW_NUMBER() OVER (PARTITION BY {} ORDER BY …) = 1",
                        required.column, required.column
                    ),
                )
            }),
        })
    }

    /// What numbers the rows, for the first ones of partitions.
    fn first_rows_by(&self, node: NodeIndex) -> Option<Ranking> {
        let node = &self.nodes[node];
        match &node.kind {
            NodeKind::TopRows { first, .. } => Some(first.by),
            NodeKind::Map { .. } | NodeKind::ClockFilter { .. } => self.first_rows_by(node.inputs[0]),
            _ => None,
        }
    }

    /// The node's column of which the expression is a one-to-one image.
    pub(super) fn injective(&self, node: NodeIndex, expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Cast(cast) => {
                let column = self.injective(node, &cast.expr)?;
                let from = self.facts[node].columns.field(column).data_type();
                crate::plan::fallible::is_widening(from, cast.field.data_type()).then_some(column)
            }
            other => self.merged(node, other).map(|merged| merged[0]).or_else(|| self.plain(node, other)),
        }
    }
}

/// The parts of which the expression is the first that is not NULL; itself where it is nothing of the kind.
fn whichever_is_there(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Alias(alias) => whichever_is_there(&alias.expr),
        Expr::ScalarFunction(function) if function.name() == "coalesce" => {
            function.args.iter().flat_map(whichever_is_there).collect()
        }
        Expr::Case(case) if case.expr.is_none() => {
            let branches = case.when_then_expr.iter();
            let is_whole = branches.clone().all(|(when, then)| **when == Expr::IsNotNull(then.clone()));
            match &case.else_expr {
                Some(other) if is_whole => {
                    branches.map(|(_, then)| then).chain([other]).flat_map(|part| whichever_is_there(part)).collect()
                }
                _ => vec![expr],
            }
        }
        _ => vec![expr],
    }
}

fn several_first_rows(by: Ranking) -> Refusal {
    if by != Ranking::RowNumber {
        let name = by.name().to_uppercase();
        let message =
            format!("{name}() gives rows that are equal in the order the same number, so that several may be first");
        return Refusal::new(codes::KEY_NOT_SELECTED, message, "keep one row each with ROW_NUMBER() … = 1")
            .at(by.name());
    }
    Refusal::new(
        codes::KEY_NOT_SELECTED,
        "several rows of each partition are kept, told apart by ROW_NUMBER(), which is not in the SELECT list",
        "select the number too, or keep one row each with `= 1`",
    )
}

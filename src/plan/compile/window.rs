//! Window functions: ROW_NUMBER() … = 1 as the first row of each partition, all others over whole partitions.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Field, Schema};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, LogicalPlan, Window};
use datafusion::physical_planner::create_window_expr;

use super::{Compiler, Facts, Refusal, Relation, canonical_columns, clock_in, is_first_rank, substitute};
use crate::plan::flow::{FlowNode, NodeIndex, NodeKind, Scalar, WindowCall, fingerprint};
use crate::plan::{clock, codes};

/// The order within a partition.
type Order = Vec<(Scalar, SortOptions)>;

/// Where the windows of a plan are of which a filter above keeps the first row of each partition alone.
pub(super) fn first_row_windows(plan: &LogicalPlan) -> Result<HashSet<usize>, DataFusionError> {
    let mut found = HashSet::new();
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::Filter(filter) = plan
            && let Some(window) = numbered_by(filter)
        {
            found.insert(address(window));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn address(window: &Window) -> usize {
    std::ptr::from_ref(window) as usize
}

/// The window whose ROW_NUMBER a filter compares with 1.
fn numbered_by(filter: &Filter) -> Option<&Window> {
    let schema = filter.input.schema();
    let ranks = split_conjunction(&filter.predicate).into_iter().filter_map(|conjunct| {
        let columns = conjunct.column_refs();
        let [column] = columns.into_iter().collect::<Vec<_>>()[..] else { return None };
        is_first_rank(conjunct, column).then(|| schema.maybe_index_of_column(column)).flatten()
    });
    ranks.into_iter().find_map(|index| window_of(&filter.input, index))
}

/// The window with one ROW_NUMBER, whose column stands at `index` above projections.
fn window_of(plan: &LogicalPlan, index: usize) -> Option<&Window> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => window_of(&alias.input, index),
        LogicalPlan::Projection(projection) => match projection.expr.get(index)?.clone().unalias() {
            Expr::Column(column) => {
                window_of(&projection.input, projection.input.schema().maybe_index_of_column(&column)?)
            }
            _ => None,
        },
        LogicalPlan::Window(window) => {
            let [only] = window.window_expr.as_slice() else { return None };
            let plain = function(only).is_some_and(|function| is_row_number(&function));
            (plain && index == window.input.schema().fields().len()).then_some(window)
        }
        _ => None,
    }
}

fn function(expr: &Expr) -> Option<WindowFunction> {
    match expr.clone().unalias() {
        Expr::WindowFunction(function) => Some(*function),
        _ => None,
    }
}

fn is_row_number(function: &WindowFunction) -> bool {
    function.fun.name() == "row_number" && function.params.filter.is_none()
}

impl Compiler<'_> {
    pub(super) fn window(&mut self, window: &Window) -> Result<Relation, Refusal> {
        let relation = self.relation(&window.input)?;
        let input = self.narrow(relation)?;
        let schema = window.input.schema();
        let mut functions = Vec::new();
        for expr in &window.window_expr {
            let resolved = substitute(expr, schema, &input.columns)?;
            if clock::reads_clock(&resolved) {
                return Err(clock_in("a window function"));
            }
            let function = function(&resolved).ok_or_else(|| {
                Refusal::new(codes::WINDOW, format!("`{expr}` is no window function"), "write a function with OVER (…)")
            })?;
            functions.push(function);
        }
        if self.first_rows.contains(&address(window)) {
            return self.top_row(&input, &functions[0]);
        }
        // What has the same partitions and order is computed together, the rest on top of it.
        let mut columns = input.columns;
        let mut left: Vec<(usize, WindowFunction)> = functions.into_iter().enumerate().collect();
        let mut places = vec![0; left.len()];
        let mut node = input.node;
        while let Some((_, first)) = left.first().cloned() {
            let same = |function: &WindowFunction| {
                function.params.partition_by == first.params.partition_by
                    && function.params.order_by == first.params.order_by
            };
            let (now, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, function)| same(function));
            let start = self.facts[node].columns.fields().len();
            for (offset, (index, _)) in now.iter().enumerate() {
                places[*index] = start + offset;
            }
            node = self.window_node(node, &now.into_iter().map(|(_, function)| function).collect::<Vec<_>>())?;
            left = later;
        }
        columns.extend(places.into_iter().map(|place| Expr::Column(self.column(node, place))));
        Ok(Relation { node, columns, filters: vec![], bounds: vec![], unranked: None })
    }

    /// Partition and order of a function over the columns of a node.
    fn placement(&self, node: NodeIndex, function: &WindowFunction) -> Result<(Vec<Scalar>, Order), Refusal> {
        let params = &function.params;
        let partition = params.partition_by.iter().map(|expr| self.scalar(node, expr)).collect::<Result<_, _>>()?;
        let order = params
            .order_by
            .iter()
            .map(|sort| {
                let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
                Ok((self.scalar(node, &sort.expr)?, options))
            })
            .collect::<Result<_, Refusal>>()?;
        Ok((partition, order))
    }

    /// Columns of the node that are the partition, if they are nothing more.
    fn plain_partition(&self, node: NodeIndex, function: &WindowFunction) -> Option<Vec<usize>> {
        function.params.partition_by.iter().map(|expr| self.plain(node, expr)).collect()
    }

    fn top_row(&mut self, input: &Relation, function: &WindowFunction) -> Result<Relation, Refusal> {
        let (partition, order) = self.placement(input.node, function)?;
        let text = format!("top {}", placement_text(&self.facts[input.node].output, &partition, &order));
        let output = fingerprint(&text);
        let mut fields: Vec<Field> =
            self.nodes[input.node].schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.push(Field::new("row_number", arrow::datatypes::DataType::UInt64, true));
        let mut unique = self.facts[input.node].unique.clone();
        unique.splice(0..0, self.plain_partition(input.node, function));
        let facts = Facts {
            columns: canonical_columns(&fields),
            unique,
            merged: vec![],
            reach: self.facts[input.node].reach,
            output: output.clone(),
        };
        let node = FlowNode {
            fingerprint: output,
            inputs: vec![input.node],
            kind: NodeKind::TopRow { partition, order },
            schema: Arc::new(Schema::new(fields)),
            append_only: false,
        };
        let node = self.push(node, facts);
        let mut relation = self.whole(node);
        relation.unranked = Some(self.column(node, input.columns.len()));
        Ok(relation)
    }

    /// Functions of the same partitions and order over all columns of a node.
    fn window_node(&mut self, input: NodeIndex, functions: &[WindowFunction]) -> Result<NodeIndex, Refusal> {
        let (partition, order) = self.placement(input, &functions[0])?;
        let schema = DFSchema::try_from(self.facts[input].columns.as_ref().clone())?;
        let mut fields: Vec<Field> =
            self.nodes[input].schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let width = fields.len();
        let mut unique = self.facts[input].unique.clone();
        let mut calls = Vec::new();
        for (offset, function) in functions.iter().enumerate() {
            let expr = Expr::WindowFunction(Box::new(function.clone()));
            let data_type = expr.get_type(&schema)?;
            let context = PhysicalPlanningContext::default();
            let physical = create_window_expr(&expr, &schema, &ExecutionProps::new(), &context)?;
            fields.push(Field::new(function.fun.name(), data_type.clone(), true));
            calls.push(WindowCall { text: expr.to_string(), expr: physical, data_type });
            if is_row_number(function)
                && let Some(mut partition) = self.plain_partition(input, function)
            {
                partition.push(width + offset);
                unique.push(partition);
            }
        }
        let texts: Vec<&str> = calls.iter().map(|call| call.text.as_str()).collect();
        let output = fingerprint(&format!("window {} {texts:?}", self.facts[input].output));
        let facts = Facts {
            columns: canonical_columns(&fields),
            unique,
            merged: vec![],
            reach: self.facts[input].reach,
            output: output.clone(),
        };
        let node = FlowNode {
            fingerprint: output,
            inputs: vec![input],
            kind: NodeKind::Window { partition, order, calls },
            schema: Arc::new(Schema::new(fields)),
            append_only: false,
        };
        Ok(self.push(node, facts))
    }
}

fn placement_text(input: &str, partition: &[Scalar], order: &Order) -> String {
    format!(
        "{input} by {:?} order {:?}",
        partition.iter().map(|key| &key.text).collect::<Vec<_>>(),
        order.iter().map(|(key, options)| format!("{} {options:?}", key.text)).collect::<Vec<_>>(),
    )
}

//! Window functions: the first rows of each partition where a filter keeps no others, all else over whole partitions.

use std::collections::HashSet;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, Window, WindowFrame, WindowFrameBound,
    WindowFunctionDefinition,
};
use datafusion::physical_planner::create_window_expr;

use super::dependence::Dependence;
use super::{Compiler, Refusal, Relation, clock_in, substitute};
use crate::plan::flow::{FirstRows, NodeIndex, NodeKind, Ranking, Scalar, WindowCall};
use crate::plan::{clock, codes};

/// The order within a partition.
type Order = Vec<(Scalar, SortOptions)>;

/// What a filter keeps of the window below it.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    /// The window's address: it is compiled next.
    window: usize,
    /// Which of its functions is compared.
    function: usize,
    /// The highest rank that is kept.
    most: u64,
    /// False where no rank is read but by the comparison that `most` says.
    is_read: bool,
    /// What else the filter asks of the rows.
    pub(super) rest: Vec<Expr>,
}

fn address(window: &Window) -> usize {
    std::ptr::from_ref(window) as usize
}

/// The limit that a filter is to a window of ranks below it. `read` are the columns of the filter's output that anyone
/// reads, `None` for all of them.
pub(super) fn limit(filter: &Filter, read: Option<&HashSet<Column>>) -> Option<Limit> {
    let schema = filter.input.schema();
    let conjuncts = split_conjunction(&filter.predicate);
    let limits = conjuncts.iter().filter_map(|conjunct| {
        let columns = conjunct.column_refs();
        let [column] = columns.into_iter().collect::<Vec<_>>()[..] else { return None };
        let most = most(conjunct, column).filter(|most| *most > 0)?;
        let (window, function) = window_of(&filter.input, schema.maybe_index_of_column(column)?)?;
        Some((window, function, most, column))
    });
    let (window, function, most, column) = limits.min_by_key(|(_, _, most, _)| *most)?;
    let rest: Vec<Expr> = conjuncts
        .iter()
        .filter(|conjunct| !is_no_more_than(conjunct, column, most))
        .map(|conjunct| (*conjunct).clone())
        .collect();
    // Of several ranks each may be read under a name of its own.
    let is_alone = window.window_expr.len() == 1;
    let is_looked_at = rest.iter().any(|conjunct| conjunct.column_refs().contains(column));
    let is_read = !is_alone || is_looked_at || read.is_none_or(|read| read.contains(column));
    Some(Limit { window: address(window), function, most, is_read, rest })
}

/// True for a condition that holds of every row whose rank is at most `most`.
fn is_no_more_than(conjunct: &Expr, column: &Column, most: u64) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = conjunct else { return false };
    matches!(left.as_ref(), Expr::Column(left) if left == column)
        && match (op, number(right)) {
            (Operator::LtEq, Some(limit)) => limit >= most,
            (Operator::Lt, Some(limit)) => limit > most,
            (Operator::Eq, Some(1)) => most == 1,
            _ => false,
        }
}

fn number(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Literal(value, _) => match value.cast_to(&DataType::UInt64) {
            Ok(ScalarValue::UInt64(number)) => number,
            _ => None,
        },
        _ => None,
    }
}

/// The highest rank for which a condition on it alone may hold.
fn most(condition: &Expr, rank: &Column) -> Option<u64> {
    let is_rank = |expr: &Expr| matches!(expr, Expr::Column(column) if column == rank);
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Some(most(left, rank)?.max(most(right, rank)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let (left, right) = (most(left, rank), most(right, rank));
            left.into_iter().chain(right).min()
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, limit) = if is_rank(left) {
                (*op, number(right)?)
            } else if is_rank(right) {
                (op.swap()?, number(left)?)
            } else {
                return None;
            };
            match op {
                Operator::Eq | Operator::LtEq => Some(limit),
                Operator::Lt => limit.checked_sub(1),
                _ => None,
            }
        }
        Expr::InList(list) if !list.negated && is_rank(&list.expr) => {
            let numbers: Option<Vec<u64>> = list.list.iter().map(number).collect();
            numbers?.into_iter().max()
        }
        Expr::Between(between) if !between.negated && is_rank(&between.expr) => number(&between.high),
        _ => None,
    }
}

/// The window whose functions are all ranks, of which one stands at `index` above projections.
fn window_of(plan: &LogicalPlan, index: usize) -> Option<(&Window, usize)> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => window_of(&alias.input, index),
        LogicalPlan::Projection(projection) => match projection.expr.get(index)?.clone().unalias() {
            Expr::Column(column) => {
                window_of(&projection.input, projection.input.schema().maybe_index_of_column(&column)?)
            }
            _ => None,
        },
        LogicalPlan::Window(window) => {
            let functions: Option<Vec<WindowFunction>> = window.window_expr.iter().map(function).collect();
            let functions = functions?;
            let same = |function: &WindowFunction| {
                ranking(function).is_some()
                    && function.params.partition_by == functions[0].params.partition_by
                    && function.params.order_by == functions[0].params.order_by
            };
            let place = index.checked_sub(window.input.schema().fields().len())?;
            functions.iter().all(same).then_some((window, place))
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

fn ranking(function: &WindowFunction) -> Option<Ranking> {
    let known = [Ranking::RowNumber, Ranking::Rank, Ranking::DenseRank];
    let named = known.into_iter().find(|ranking| ranking.name() == function.fun.name());
    named.filter(|_| function.params.filter.is_none())
}

impl Compiler<'_> {
    pub(super) fn window(&mut self, window: &Window) -> Result<Relation, Refusal> {
        // The limit is this window's, not one's below it.
        let limit = self.limit.take_if(|limit| limit.window == address(window));
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
        if let Some(limit) = limit {
            return self.top_rows(input, &functions, &limit);
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
        Ok(Relation { node, columns, filters: vec![], bounds: vec![] })
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

    /// The first rows by one of several ranks of the same partitions and order.
    fn top_rows(&mut self, input: Relation, functions: &[WindowFunction], limit: &Limit) -> Result<Relation, Refusal> {
        let (partition, order) = self.placement(input.node, &functions[0])?;
        let rankings: Vec<Ranking> = functions.iter().filter_map(ranking).collect();
        let ranks = if limit.is_read { rankings.clone() } else { vec![] };
        let first = FirstRows { by: rankings[limit.function], most: limit.most, ranks };
        let placement = placement_text(&self.facts[input.node].output, &partition, &order);
        let text = format!("top {placement} {first:?}");
        let mut fields: Vec<Field> =
            self.nodes[input.node].schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let width = fields.len();
        fields.extend(first.ranks.iter().map(|rank| Field::new(rank.name(), DataType::UInt64, true)));
        let mut unique = self.facts[input.node].unique.clone();
        let mut dependences = self.facts[input.node].dependences.clone();
        if let Some(partition) = self.plain_partition(input.node, &functions[0]) {
            if first.by == Ranking::RowNumber && first.most == 1 {
                let of = (0..fields.len()).collect();
                dependences.push(Dependence { by: partition.clone(), of, of_nulls: true });
                unique.insert(0, partition);
            } else if let Some(number) = first.ranks.iter().position(|rank| *rank == Ranking::RowNumber) {
                unique.push(partition.into_iter().chain([width + number]).collect());
            }
        }
        let node = self.over(input.node, &text, NodeKind::TopRows { partition, order, first }, fields, unique);
        self.facts[node].dependences = dependences;
        let mut columns: Vec<Expr> = input
            .columns
            .iter()
            .map(|column| match self.plain(input.node, column) {
                Some(index) => Expr::Column(self.column(node, index)),
                None => column.clone(),
            })
            .collect();
        columns.extend((0..rankings.len()).map(|rank| match limit.is_read {
            true => Expr::Column(self.column(node, width + rank)),
            // Nobody asks which it is.
            false => Expr::Literal(ScalarValue::UInt64(Some(1)), None),
        }));
        Ok(Relation { node, columns, filters: vec![], bounds: vec![] })
    }

    /// Functions of the same partitions and order over all columns of a node.
    fn window_node(&mut self, input: NodeIndex, functions: &[WindowFunction]) -> Result<NodeIndex, Refusal> {
        let (partition, order) = self.placement(input, &functions[0])?;
        let schema = DFSchema::try_from(self.facts[input].columns.as_ref().clone())?;
        let mut fields: Vec<Field> =
            self.nodes[input].schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let width = fields.len();
        let mut unique = self.facts[input].unique.clone();
        let mut dependences = self.facts[input].dependences.clone();
        let mut calls = Vec::new();
        for (offset, function) in functions.iter().enumerate() {
            let expr = Expr::WindowFunction(Box::new(function.clone()));
            let data_type = expr.get_type(&schema)?;
            let context = PhysicalPlanningContext::default();
            let physical = create_window_expr(&expr, &schema, &ExecutionProps::new(), &context)?;
            fields.push(Field::new(function.fun.name(), data_type.clone(), true));
            calls.push(WindowCall { text: expr.to_string(), expr: physical, data_type });
            if ranking(function) == Some(Ranking::RowNumber)
                && let Some(mut partition) = self.plain_partition(input, function)
            {
                partition.push(width + offset);
                unique.push(partition);
            }
            if is_one_a_partition(function)
                && let Some(by) = self.plain_partition(input, function)
            {
                dependences.push(Dependence { by, of: [width + offset].into(), of_nulls: true });
            }
        }
        let texts: Vec<&str> = calls.iter().map(|call| call.text.as_str()).collect();
        let text = format!("window {} {texts:?}", self.facts[input].output);
        let node = self.over(input, &text, NodeKind::Window { partition, order, calls }, fields, unique);
        self.facts[node].dependences = dependences;
        Ok(node)
    }
}

/// True where all rows of a partition have the same value: that of the whole, or of the row that is the first for all.
fn is_one_a_partition(function: &WindowFunction) -> bool {
    let params = &function.params;
    let WindowFrame { start_bound, end_bound, .. } = &params.window_frame;
    let is_from_start = start_bound.is_unbounded();
    let is_aggregate = matches!(function.fun, WindowFunctionDefinition::AggregateUDF(_));
    match function.fun.name() {
        "first_value" => {
            let sees_first = end_bound.is_unbounded() || *end_bound == WindowFrameBound::CurrentRow;
            let takes_nulls = params.null_treatment != Some(NullTreatment::IgnoreNulls);
            is_from_start && sees_first && takes_nulls && params.filter.is_none()
        }
        "last_value" => is_from_start && end_bound.is_unbounded(),
        _ => is_aggregate && is_from_start && end_bound.is_unbounded(),
    }
}

fn placement_text(input: &str, partition: &[Scalar], order: &Order) -> String {
    format!(
        "{input} by {:?} order {:?}",
        partition.iter().map(|key| &key.text).collect::<Vec<_>>(),
        order.iter().map(|(key, options)| format!("{} {options:?}", key.text)).collect::<Vec<_>>(),
    )
}

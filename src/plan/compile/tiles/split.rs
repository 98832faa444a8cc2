//! Aggregate calls split by the truth of the comparisons that they read, into calls that do not read the clock.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, lit, not};
use datafusion::optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};

use super::partial_call;
use crate::plan::compile::clocked::{Comparing, flag_column, flag_number};
use crate::plan::compile::{Compiler, Refusal};
use crate::plan::flow::{AggregateFunction, NodeIndex};

/// A call that reads so many combinations of comparisons keeps rows.
const MOST_BRANCHES: usize = 8;

/// What an aggregate reads of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Read {
    pub(super) argument: Expr,
    pub(super) filter: Expr,
}

/// What is left of a call for the rows of which some comparisons have come out in one way.
struct Branch {
    /// How they have come out, over what stands for them.
    path: Vec<Expr>,
    read: Read,
}

/// A call as the merging of partial ones.
pub(super) struct Merge {
    pub(super) function: AggregateFunction,
    /// Which partial aggregate counts when.
    pub(super) branches: Vec<(Vec<Expr>, usize)>,
}

/// Splits calls over one node.
pub(super) struct Splitter<'a> {
    compiler: &'a Compiler<'a>,
    node: NodeIndex,
    comparisons: &'a [Comparing],
    /// True where rows may come into sight later.
    waits: bool,
    simplifier: ExprSimplifier,
    /// The partial aggregates that are needed so far.
    pub(super) parts: Vec<(AggregateFunction, Read)>,
    /// The value of which the different ones are counted: tiles are told apart by it.
    pub(super) distinct: Option<Expr>,
}

impl<'a> Splitter<'a> {
    pub(super) fn new(
        compiler: &'a Compiler<'a>,
        node: NodeIndex,
        comparisons: &'a [Comparing],
        waits: bool,
    ) -> Result<Self, Refusal> {
        let columns = compiler.facts[node].columns.fields().iter().map(|field| field.as_ref().clone());
        let flags = (0..comparisons.len()).map(|flag| Field::new(flag_column(flag).name, DataType::Boolean, true));
        let schema = DFSchema::try_from(Schema::new(columns.chain(flags).collect::<Vec<_>>()))?;
        let context = SimplifyContext::builder().with_schema(schema.into()).build();
        let simplifier = ExprSimplifier::new(context).with_canonicalize(false);
        Ok(Splitter { compiler, node, comparisons, waits, simplifier, parts: Vec::new(), distinct: None })
    }

    /// Splits a call over the rows for which a condition is true; `None` where it needs the rows themselves.
    pub(super) fn call(&mut self, call: &Expr, condition: &Expr) -> Result<Option<Merge>, Refusal> {
        let Expr::AggregateFunction(call) = call.clone().unalias() else { return Ok(None) };
        let [argument] = call.params.args.as_slice() else { return Ok(None) };
        let append_only = self.compiler.nodes[self.node].append_only;
        let function = match (call.func.name(), call.params.distinct) {
            ("count", false) => AggregateFunction::Count,
            ("count", true) => AggregateFunction::CountDistinct,
            ("sum", false) => AggregateFunction::Sum,
            ("avg", false) => AggregateFunction::Avg,
            ("min", _) if append_only => AggregateFunction::Min,
            ("max", _) if append_only => AggregateFunction::Max,
            _ => return Ok(None),
        };
        let filter = [Some(condition.clone()), call.params.filter.map(|filter| *filter)].into_iter().flatten();
        let filter = conjunction(filter.filter(|filter| *filter != lit(true))).unwrap_or(lit(true));
        self.merge(function, Read { argument: argument.clone(), filter })
    }

    /// How many rows there are for which a condition is true.
    pub(super) fn rows(&mut self, condition: &Expr) -> Result<Option<Merge>, Refusal> {
        self.merge(AggregateFunction::Count, Read { argument: lit(1_i64), filter: condition.clone() })
    }

    fn merge(&mut self, function: AggregateFunction, read: Read) -> Result<Option<Merge>, Refusal> {
        let mut branches = Vec::new();
        if !matches!(self.split(read, &[], &mut branches), Ok(true)) || branches.is_empty() {
            return Ok(None);
        }
        let partial = match function {
            // A sum and how many values it is of give both.
            AggregateFunction::Avg => AggregateFunction::Sum,
            AggregateFunction::CountDistinct => AggregateFunction::Count,
            other => other,
        };
        let mut merge = Merge { function, branches: Vec::new() };
        let mut partial_type = None;
        for Branch { path, mut read } in branches {
            let is_fallible = |expr: &Expr| self.compiler.fallible(self.node, expr);
            if is_fallible(&read.argument) || is_fallible(&read.filter) {
                // It must not be evaluated for rows that never count.
                if self.waits
                    || function == AggregateFunction::CountDistinct
                    || !path.iter().all(|flag| self.is_lower(flag))
                {
                    return Ok(None);
                }
                let conditions = path.iter().cloned().chain([read.filter]).filter(|expr| *expr != lit(true));
                read.filter = conjunction(conditions).unwrap_or(lit(true));
            }
            if function == AggregateFunction::CountDistinct
                && *self.distinct.get_or_insert_with(|| read.argument.clone()) != read.argument
            {
                return Ok(None);
            }
            let argument = self.compiler.scalar(self.node, &read.argument)?;
            let found = partial_call(partial, Some(argument), None).partial_type();
            if found.is_none() || *partial_type.get_or_insert_with(|| found.clone()) != found {
                return Ok(None);
            }
            let part = (partial, read);
            let place = self.parts.iter().position(|known| *known == part).unwrap_or(self.parts.len());
            if place == self.parts.len() {
                self.parts.push(part);
            }
            merge.branches.push((path, place));
        }
        Ok(Some(merge))
    }

    /// True for a comparison that, once it is false, is so for ever.
    fn is_lower(&self, condition: &Expr) -> bool {
        let Expr::Column(column) = condition else { return false };
        flag_number(column).is_some_and(|flag| self.comparisons[flag].1.is_lower())
    }

    /// Splits by the truth of one comparison after the other; false where there are too many ways.
    fn split(&self, read: Read, path: &[Expr], branches: &mut Vec<Branch>) -> Result<bool, DataFusionError> {
        let Some(flag) = first_flag([&read.filter, &read.argument]) else {
            branches.push(Branch { path: path.to_vec(), read });
            return Ok(branches.len() <= MOST_BRANCHES);
        };
        let [yes, no, unknown] = [Some(true), Some(false), None].map(|truth| self.assume(&read, &flag, truth));
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
            if !self.split(read, &path, branches)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is read where a comparison has come out as `truth`; `None` where nothing counts.
    fn assume(&self, read: &Read, flag: &Column, truth: Option<bool>) -> Result<Option<Read>, DataFusionError> {
        let settle = |expr: &Expr| -> Result<Expr, DataFusionError> {
            let known = expr.clone().transform_up(|expr| match &expr {
                Expr::Column(column) if column == flag => Ok(Transformed::yes(lit(ScalarValue::Boolean(truth)))),
                _ => Ok(Transformed::no(expr)),
            })?;
            let simple = self.simplifier.simplify(known.data)?;
            let without_dead = simple.transform_up(|expr| match expr {
                Expr::Case(mut case) if case.expr.is_none() => {
                    if !case.when_then_expr.iter().any(|(when, _)| is_never_true(when)) {
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
            self.simplifier.simplify(without_dead.data)
        };
        let read = Read { argument: settle(&read.argument)?, filter: settle(&read.filter)? };
        let is_nothing = matches!(&read.argument, Expr::Literal(value, _) if value.is_null());
        Ok((!is_nothing && !is_never_true(&read.filter)).then_some(read))
    }
}

/// True for a condition that is false or NULL whatever the row.
fn is_never_true(condition: &Expr) -> bool {
    let is_out = |part: &Expr| matches!(part, Expr::Literal(value, _) if value.is_null() || *part == lit(false));
    split_conjunction(condition).into_iter().any(is_out)
}

/// What stands for a comparison in one of the expressions.
pub(super) fn first_flag<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Option<Column> {
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

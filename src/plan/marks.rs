//! EXISTS and IN of a sub-query as values: in the SELECT list, in CASE, in an aggregate, under NOT and OR.
//!
//! DataFusion knows what to do with them in WHERE alone: there a join marks the rows that have a partner. The same join is put
//! below any other expression. IN is not that mark where NULL is about: x IN (…) is NULL, not false, where the list is not
//! empty and x is NULL, or where the list has a NULL and no partner of x.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::{bool_or, count};
use datafusion::logical_expr::expr::{Case, Exists, InSubquery};
use datafusion::logical_expr::utils::{split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
    Subquery, lit, not,
};
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The rule; runs before DataFusion's own for WHERE.
#[derive(Debug)]
pub struct Marks;

impl OptimizerRule for Marks {
    fn name(&self) -> &str {
        "marks"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let marked = match &plan {
            LogicalPlan::Projection(projection) => in_projection(projection, config)?,
            LogicalPlan::Aggregate(aggregate) => in_aggregate(aggregate, config)?,
            LogicalPlan::Filter(filter) => in_filter(filter, config)?,
            _ => None,
        };
        Ok(match marked {
            Some(marked) => Transformed::yes(marked),
            None => Transformed::no(plan),
        })
    }
}

fn in_projection(projection: &Projection, config: &dyn OptimizerConfig) -> Result<Option<LogicalPlan>> {
    let mut marking = Marking::over(&projection.input, config);
    let exprs = projection.expr.iter().map(|expr| marking.value(expr.clone(), false));
    let exprs = exprs.collect::<Result<Vec<Expr>>>()?;
    if !marking.has_marked {
        return Ok(None);
    }
    let named = exprs.into_iter().zip(projection.schema.iter());
    let named = named.zip(&projection.expr).map(|((value, (qualifier, field)), known)| match value == *known {
        true => value,
        false => value.unalias().alias_qualified(qualifier.cloned(), field.name()),
    });
    let named = named.collect();
    Ok(Some(LogicalPlan::Projection(Projection::try_new(named, Arc::new(marking.input))?)))
}

fn in_aggregate(aggregate: &Aggregate, config: &dyn OptimizerConfig) -> Result<Option<LogicalPlan>> {
    let mut marking = Marking::over(&aggregate.input, config);
    let mut values = |exprs: &[Expr]| {
        let values = exprs.iter().map(|expr| {
            let value = marking.value(expr.clone(), false)?;
            let name = expr.schema_name().to_string();
            Ok(if value == *expr { value } else { value.unalias().alias(name) })
        });
        values.collect::<Result<Vec<Expr>>>()
    };
    let (keys, calls) = (values(&aggregate.group_expr)?, values(&aggregate.aggr_expr)?);
    if !marking.has_marked {
        return Ok(None);
    }
    let schema = Arc::clone(&aggregate.schema);
    let marked = Aggregate::try_new_with_schema(Arc::new(marking.input), keys, calls, schema)?;
    Ok(Some(LogicalPlan::Aggregate(marked)))
}

/// What DataFusion's rule does not do right in WHERE: IN where it is not the condition itself, NOT IN of a list that is each
/// row's own, and EXISTS of rows that are the same for everybody.
fn in_filter(filter: &Filter, config: &dyn OptimizerConfig) -> Result<Option<LogicalPlan>> {
    let mut marking = Marking::over(&filter.input, config);
    marking.leaves_conditions = true;
    let mut conjuncts = Vec::new();
    for conjunct in split_conjunction_owned(filter.predicate.clone()) {
        let inner = if let Expr::Not(inner) = &conjunct { inner } else { &conjunct };
        conjuncts.push(match inner {
            Expr::InSubquery(within) if !is_tied_not_in(within, &conjunct) => conjunct,
            Expr::Exists(exists) if is_tied(&exists.subquery) => conjunct,
            _ => marking.value(conjunct, true)?,
        });
    }
    let (Some(predicate), true) = (conjuncts.into_iter().reduce(Expr::and), marking.has_marked) else {
        return Ok(None);
    };
    let columns = filter.input.schema().columns().into_iter().map(Expr::Column);
    Ok(Some(LogicalPlanBuilder::from(marking.input).filter(predicate)?.project(columns)?.build()?))
}

/// Expressions over an input to which marks are added.
struct Marking<'a> {
    input: LogicalPlan,
    config: &'a dyn OptimizerConfig,
    has_marked: bool,
    /// A mark that is as good as the value, since NULL counts as false there, is left to DataFusion.
    leaves_conditions: bool,
    known: HashMap<Expr, Expr>,
}

impl<'a> Marking<'a> {
    fn over(input: &Arc<LogicalPlan>, config: &'a dyn OptimizerConfig) -> Self {
        let input = LogicalPlan::clone(input);
        Marking { input, config, has_marked: false, leaves_conditions: false, known: HashMap::new() }
    }

    /// The expression with marks for what it asks of sub-queries; `is_condition` where NULL counts as false.
    fn value(&mut self, expr: Expr, is_condition: bool) -> Result<Expr> {
        if !expr.exists(|expr| Ok(matches!(expr, Expr::Exists(_) | Expr::InSubquery(_))))? {
            return Ok(expr);
        }
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let (left, right) = (self.value(*left, is_condition)?, self.value(*right, is_condition)?);
                Ok(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
            }
            Expr::Case(case) if case.expr.is_none() => {
                let mut branches = Vec::new();
                for (when, then) in case.when_then_expr {
                    branches.push((Box::new(self.value(*when, true)?), Box::new(self.value(*then, false)?)));
                }
                let other = case.else_expr.map(|other| self.value(*other, false)).transpose()?;
                Ok(Expr::Case(Case { expr: None, when_then_expr: branches, else_expr: other.map(Box::new) }))
            }
            Expr::AggregateFunction(mut function) => {
                let filter = function.params.filter.take();
                let filter = filter.map(|filter| self.value(*filter, true)).transpose()?;
                let args = std::mem::take(&mut function.params.args).into_iter();
                function.params.args = args.map(|argument| self.value(argument, false)).collect::<Result<_>>()?;
                function.params.filter = filter.map(Box::new);
                Ok(Expr::AggregateFunction(function))
            }
            Expr::Exists(exists) if !is_tied(&exists.subquery) => {
                self.has_marked = true;
                any_row(&exists)
            }
            Expr::Exists(_) if self.leaves_conditions => Ok(expr),
            Expr::Exists(_) => self.mark(expr),
            Expr::InSubquery(within) if is_condition && !within.negated => {
                if self.leaves_conditions {
                    return Ok(Expr::InSubquery(within));
                }
                self.mark(Expr::InSubquery(within))
            }
            Expr::InSubquery(within) => self.within(within),
            other => {
                let inner = |expr: Expr| Ok(Transformed::yes(self.value(expr, false)?));
                Ok(other.map_children(inner)?.data)
            }
        }
    }

    /// IN with its NULLs.
    fn within(&mut self, within: InSubquery) -> Result<Expr> {
        let InSubquery { expr, subquery, negated } = within;
        let may_be_null = expr.nullable(self.input.schema().as_ref())?;
        let may_have_nulls = may_have_nulls(&subquery.subquery);
        let is_in = self.mark(Expr::InSubquery(InSubquery::new(expr.clone(), subquery.clone(), false)))?;
        if is_in.exists(|expr| Ok(matches!(expr, Expr::InSubquery(_))))? {
            return Ok(Expr::InSubquery(InSubquery { expr, subquery, negated }));
        }
        let mut cases = vec![(Box::new(is_in), Box::new(lit(true)))];
        let nothing = || Box::new(Expr::Literal(ScalarValue::Boolean(None), None));
        if may_be_null || may_have_nulls {
            let nulls = nulls_of(&subquery)?;
            if may_be_null {
                cases.push((Box::new(expr.is_null().and(nulls.clone().is_not_null())), nothing()));
            }
            if may_have_nulls {
                cases.push((Box::new(nulls), nothing()));
            }
        }
        let value = Expr::Case(Case::new(None, cases, Some(Box::new(lit(false)))));
        Ok(if negated { not(value) } else { value })
    }

    /// The mark of a question, which is left as it is where no join answers it.
    fn mark(&mut self, question: Expr) -> Result<Expr> {
        if let Some(known) = self.known.get(&question) {
            return Ok(known.clone());
        }
        // Inside another expression DataFusion marks rows in place of dropping them.
        let inside = Expr::IsTrue(Box::new(question.clone()));
        let filter = LogicalPlan::Filter(Filter::try_new(inside, Arc::new(self.input.clone()))?);
        let mut plan = DecorrelatePredicateSubquery::new().rewrite(filter, self.config)?.data;
        if let LogicalPlan::Projection(projection) = plan {
            plan = Arc::unwrap_or_clone(projection.input);
        }
        let LogicalPlan::Filter(Filter { predicate: Expr::IsTrue(mark), input, .. }) = plan else {
            return Ok(question);
        };
        if mark.exists(|expr| Ok(matches!(expr, Expr::Exists(_) | Expr::InSubquery(_))))? {
            return Ok(question);
        }
        self.input = Arc::unwrap_or_clone(input);
        self.has_marked = true;
        self.known.insert(question, (*mark).clone());
        Ok(*mark)
    }
}

/// True where what a sub-query gives is each row's own.
fn is_tied(subquery: &Subquery) -> bool {
    !subquery.outer_ref_columns.is_empty()
}

/// True of NOT IN with a tied list.
fn is_tied_not_in(within: &InSubquery, conjunct: &Expr) -> bool {
    within.negated != matches!(conjunct, Expr::Not(_)) && is_tied(&within.subquery)
}

/// Whether there is any row, of which the population has one answer.
fn any_row(exists: &Exists) -> Result<Expr> {
    let rows = count(lit(1_i64)).alias("#rows");
    let plan = LogicalPlanBuilder::from(Arc::clone(&exists.subquery.subquery))
        .aggregate(Vec::<Expr>::new(), vec![rows])?
        .project(vec![Expr::Column(Column::from_name("#rows")).gt(lit(0_i64)).alias("#is_any")])?
        .build()?;
    let is_any = Expr::ScalarSubquery(exists.subquery.with_plan(Arc::new(plan)));
    Ok(if exists.negated { is_any.is_not_true() } else { is_any.is_true() })
}

/// True where the list of an IN may have NULL in it.
fn may_have_nulls(list: &LogicalPlan) -> bool {
    let Some((qualifier, field)) = list.schema().iter().next() else { return true };
    field.is_nullable() && !is_never_null(list, &Column::new(qualifier.cloned(), field.name()))
}

/// True where a condition says so of a column.
fn is_never_null(plan: &LogicalPlan, column: &Column) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.maybe_index_of_column(column);
            index.is_some_and(|index| is_never_null(&alias.input, &alias.input.schema().columns()[index]))
        }
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(column);
            let below = index.map(|index| projection.expr[index].clone().unalias());
            matches!(below, Some(Expr::Column(below)) if is_never_null(&projection.input, &below))
        }
        LogicalPlan::Filter(filter) => {
            let says = Expr::IsNotNull(Box::new(Expr::Column(column.clone())));
            split_conjunction(&filter.predicate).contains(&&says) || is_never_null(&filter.input, column)
        }
        _ => false,
    }
}

/// Whether the list of an IN has a NULL in it; NULL where it is empty. It changes when that does, not with every row.
fn nulls_of(list: &Subquery) -> Result<Expr> {
    const IS_NULL: &str = "#is_null";
    let Some(first) = list.subquery.schema().columns().into_iter().next() else { return Ok(lit(false)) };
    let is_null = || Expr::Column(Column::from_name(IS_NULL));
    let plan = LogicalPlanBuilder::from(Arc::clone(&list.subquery))
        .project(vec![Expr::Column(first).is_null().alias(IS_NULL)])?
        .aggregate(vec![is_null()], Vec::<Expr>::new())?
        .aggregate(Vec::<Expr>::new(), vec![bool_or(is_null())])?
        .build()?;
    Ok(Expr::ScalarSubquery(list.with_plan(Arc::new(plan))))
}

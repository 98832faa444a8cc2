//! Integers that are divided by integers: 1 / 3 = 0, which MySQL and Hive do not say.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Query, Visit, VisitMut, Visitor, VisitorMut};
use datafusion::sql::sqlparser::parser::Parser;

use crate::plan::sql::dialect::Bound;

/// Divisions of one query that are looked at.
const MOST_DIVISIONS: usize = 50;

/// Divisions of two integers in the query itself, not in the views that it reads.
///
/// Only a plan knows types, and only the syntax tree places: a division is one of integers when there is one less in
/// the plan of the query that casts its left side.
pub(crate) fn of_integers(
    query: &Query,
    plan: &LogicalPlan,
    plan_again: impl Fn(Query) -> Option<LogicalPlan>,
) -> Vec<ast::Expr> {
    let all = count(plan);
    if all == 0 {
        return Vec::new();
    }
    let mut divisions = Divisions::default();
    let _ = Visit::visit(query, &mut divisions);
    let is_one_of_integers = |division: &ast::Expr| {
        let mut changed = query.clone();
        let _ = VisitMut::visit(&mut changed, &mut CastLeft { division: division.to_string() });
        plan_again(changed).is_some_and(|plan| count(&plan) < all)
    };
    divisions.0.into_iter().filter(is_one_of_integers).collect()
}

fn count(plan: &LogicalPlan) -> usize {
    let mut found = 0;
    let walked = plan.apply_with_subqueries(|plan| {
        let mut schema = datafusion::logical_expr::utils::merge_schema(&plan.inputs());
        schema.merge(plan.schema());
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) = expr {
                    let integer = |side: &Expr| side.get_type(&schema).is_ok_and(|data_type| data_type.is_integer());
                    found += usize::from(integer(left) && integer(right));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_or(0, |_| found)
}

/// Divisions that are written differently.
#[derive(Default)]
struct Divisions(Vec<ast::Expr>);

impl Visitor for Divisions {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::BinaryOp { op: BinaryOperator::Divide, .. } = expr
            && self.0.len() < MOST_DIVISIONS
            && !self.0.iter().any(|known| known.to_string() == expr.to_string())
        {
            self.0.push(expr.clone());
        }
        ControlFlow::Continue(())
    }
}

/// Casts the left side of one division, wherever it is written.
struct CastLeft {
    division: String,
}

impl VisitorMut for CastLeft {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::BinaryOp { op: BinaryOperator::Divide, left, .. } = &*expr
            && expr.to_string() == self.division
            && let Some(cast) = cast_to_double(left)
            && let ast::Expr::BinaryOp { left, .. } = expr
        {
            **left = cast;
        }
        ControlFlow::Continue(())
    }
}

fn cast_to_double(expr: &ast::Expr) -> Option<ast::Expr> {
    let mut cast = Parser::new(&Bound::default()).try_with_sql("CAST(NULL AS DOUBLE)").ok()?.parse_expr().ok()?;
    if let ast::Expr::Cast { expr: inner, .. } = &mut cast {
        **inner = expr.clone();
    }
    Some(cast)
}

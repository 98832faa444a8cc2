//! Expressions of a query that its plan shows to be of a kind.
//!
//! Only a plan knows types and what may be NULL, and only the syntax tree knows places: an expression is one of the kind
//! when the plan has one less of them once something else stands in its place.

use std::ops::ControlFlow;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, Query, Spanned, Visit, VisitMut, Visitor, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::Span;

/// Expressions of one query that are looked at.
const MOST_CANDIDATES: usize = 50;

/// A kind of expression.
pub(crate) struct Kind<'a> {
    /// Whether an expression of a plan is of it, over the columns of a schema.
    pub(crate) is_of: &'a dyn Fn(&Expr, &DFSchema) -> bool,
    /// What to write in the place of an expression of the text that may be of it; nothing for those that cannot be.
    pub(crate) instead: &'a dyn Fn(&ast::Expr) -> Option<ast::Expr>,
}

/// The expressions of a kind in the query itself, not in the views and functions that it uses; of several that are
/// written alike the first.
pub(crate) fn find(
    query: &Query,
    plan: &LogicalPlan,
    kind: &Kind<'_>,
    plan_again: &dyn Fn(Query) -> Option<LogicalPlan>,
) -> Vec<ast::Expr> {
    let all = count(plan, kind);
    if all == 0 {
        return Vec::new();
    }
    let mut candidates = Candidates { kind, found: Vec::new() };
    let _ = Visit::visit(query, &mut candidates);
    let is_of_kind = |candidate: &ast::Expr| {
        let mut changed = query.clone();
        let _ = VisitMut::visit(&mut changed, &mut Replace { written: candidate.to_string(), kind });
        plan_again(changed).is_some_and(|plan| count(&plan, kind) < all)
    };
    candidates.found.into_iter().filter(is_of_kind).collect()
}

fn count(plan: &LogicalPlan, kind: &Kind<'_>) -> usize {
    let mut found = 0;
    let walked = plan.apply_with_subqueries(|plan| {
        let mut schema = datafusion::logical_expr::utils::merge_schema(&plan.inputs());
        schema.merge(plan.schema());
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                found += usize::from((kind.is_of)(expr, &schema));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    // What cannot be walked has been told as an error.
    walked.map_or(0, |_| found)
}

struct Candidates<'a> {
    kind: &'a Kind<'a>,
    found: Vec<ast::Expr>,
}

impl Visitor for Candidates<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if self.found.len() < MOST_CANDIDATES
            // What a function of the project is made of has no place here.
            && expr.span() != Span::empty()
            && (self.kind.instead)(expr).is_some()
            && !self.found.iter().any(|known| known.to_string() == expr.to_string())
        {
            self.found.push(expr.clone());
        }
        ControlFlow::Continue(())
    }
}

/// Puts something else in the place of one expression, wherever it is written.
struct Replace<'a> {
    written: String,
    kind: &'a Kind<'a>,
}

impl VisitorMut for Replace<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if let Some(instead) = (self.kind.instead)(expr)
            && expr.to_string() == self.written
        {
            *expr = instead;
        }
        ControlFlow::Continue(())
    }
}

//! ANY, SOME and ALL over a sub-query, in other words: `= ANY` is IN, `<> ALL` is NOT IN, and what is greater than all is greater
//! than the greatest.

use std::ops::ControlFlow;

use datafusion::execution::context::SessionState;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, TableFactor, Visit, VisitMut, Visitor,
    VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::plan::sql::calls::call;
use crate::plan::sql::grouped::is_aggregate;

/// What the values of a list are called that is aggregated from outside.
pub(crate) const OF_LIST: &str = "#of_list";

/// Writes all of them out that compare with `=`, `<>`, `<`, `<=`, `>` or `>=` where that has a meaning.
pub(crate) fn write_out(query: &mut Query, state: &SessionState) {
    let _ = VisitMut::visit(query, &mut Quantified { state });
}

struct Quantified<'a> {
    state: &'a SessionState,
}

impl VisitorMut for Quantified<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let (left, op, right, of_all) = match &*expr {
            Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, false),
            Expr::AllOp { left, compare_op, right } => (left, compare_op, right, true),
            _ => return ControlFlow::Continue(()),
        };
        let Expr::Subquery(list) = right.as_ref() else { return ControlFlow::Continue(()) };
        let in_other_words = match (op, of_all) {
            (BinaryOperator::Eq, false) | (BinaryOperator::NotEq, true) => {
                Some(Expr::InSubquery { expr: left.clone(), subquery: list.clone(), negated: of_all })
            }
            _ => self.with_extreme(left, op, list, of_all),
        };
        if let Some(in_other_words) = in_other_words {
            *expr = in_other_words;
        }
        ControlFlow::Continue(())
    }
}

impl Quantified<'_> {
    /// A comparison with the least or the greatest of a list. Nothing is asked of an empty list; where the list has a NULL, or
    /// the value is one, what is not decided by the others is not known.
    fn with_extreme(&self, value: &Expr, op: &BinaryOperator, list: &Query, of_all: bool) -> Option<Expr> {
        let is_above = match op {
            BinaryOperator::Gt | BinaryOperator::GtEq => true,
            BinaryOperator::Lt | BinaryOperator::LtEq => false,
            _ => return None,
        };
        let kind = self.kind(list);
        let nested = Expr::Nested(Box::new(value.clone()));
        if kind == Kind::OneRow {
            let (left, right) = (Box::new(nested), Box::new(Expr::Subquery(Box::new(list.clone()))));
            return Some(Expr::Nested(Box::new(Expr::BinaryOp { left, op: op.clone(), right })));
        }
        let extreme = if is_above == of_all { "max" } else { "min" };
        let extreme = aggregated(list, kind, |value| call(extreme, vec![value], vec![]))?;
        let nulls = aggregated(list, kind, |value| call("bool_or", vec![Expr::IsNull(Box::new(value))], vec![]))?;
        let (is_decided, decided) = if of_all { ("NOT", "FALSE") } else { ("", "TRUE") };
        let otherwise = if of_all { "TRUE" } else { "FALSE" };
        let form = format!(
            "CASE WHEN {is_decided} (\"#value\" {op} \"#extreme\") THEN {decided} WHEN \"#nulls\" IS NULL THEN {otherwise} \
             WHEN \"#value\" IS NULL OR \"#nulls\" THEN NULL ELSE {otherwise} END"
        );
        let mut comparison = parser(&form)?.parse_expr().ok()?;
        let parts = [("#value", nested), ("#extreme", extreme), ("#nulls", nulls)];
        let _ = VisitMut::visit(&mut comparison, &mut Filled { parts: &parts });
        Some(comparison)
    }

    fn kind(&self, list: &Query) -> Kind {
        let SetExpr::Select(select) = list.body.as_ref() else { return Kind::Other };
        let is_plain = list.with.is_none()
            && list.limit_clause.is_none()
            && list.fetch.is_none()
            && select.distinct.is_none()
            && select.having.is_none()
            && select.qualify.is_none()
            && matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        let mut contents = Contents { state: self.state, has_aggregate: false, has_others: false };
        let _ = select.projection.visit(&mut contents);
        match contents {
            Contents { has_others: false, has_aggregate, .. } if is_plain && value_of(select).is_some() => {
                if has_aggregate {
                    Kind::OneRow
                } else {
                    Kind::Plain
                }
            }
            _ => Kind::Other,
        }
    }
}

/// How the rows of a list come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An aggregate over everything that its FROM and WHERE give.
    OneRow,
    /// One value of each row of them: it may be aggregated in its place, where it may be tied to the row around it.
    Plain,
    Other,
}

/// What a SELECT list makes use of.
struct Contents<'a> {
    state: &'a SessionState,
    has_aggregate: bool,
    /// Windows and sub-queries.
    has_others: bool,
}

impl Visitor for Contents<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => {
                self.has_aggregate |= is_aggregate(function, self.state);
                self.has_others |= function.over.is_some();
            }
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => self.has_others = true,
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The only expression that is selected.
fn value_of(select: &Select) -> Option<&Expr> {
    match select.projection.as_slice() {
        [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] => Some(value),
        _ => None,
    }
}

/// A sub-query for an aggregate of the values of a list.
fn aggregated(list: &Query, kind: Kind, of: impl Fn(Expr) -> Expr) -> Option<Expr> {
    let mut query = match kind {
        Kind::Plain => Query { order_by: None, ..list.clone() },
        Kind::OneRow | Kind::Other => {
            let form = format!("SELECT \"{OF_LIST}\" FROM (SELECT 1) AS \"#list\" (\"{OF_LIST}\")");
            let mut query = *parser(&form)?.parse_query().ok()?;
            let SetExpr::Select(select) = query.body.as_mut() else { return None };
            if let TableFactor::Derived { subquery, .. } = &mut select.from.first_mut()?.relation {
                **subquery = list.clone();
            }
            query
        }
    };
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let value = of(value_of(select)?.clone());
    select.projection = vec![SelectItem::UnnamedExpr(value)];
    Some(Expr::Subquery(Box::new(query)))
}

fn parser(form: &str) -> Option<Parser<'_>> {
    Parser::new(&GenericDialect {}).try_with_sql(form).ok()
}

/// Puts expressions into a form, in the place of their names.
struct Filled<'a> {
    parts: &'a [(&'static str, Expr)],
}

impl VisitorMut for Filled<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr
            && let Some((_, part)) = self.parts.iter().find(|(name, _)| ident.value == *name)
        {
            *expr = part.clone();
        }
        ControlFlow::Continue(())
    }
}

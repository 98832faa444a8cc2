//! ANY, SOME and ALL over a sub-query, in other words: `= ANY` is IN, `<> ALL` is NOT IN, and what is greater than all is greater
//! than the greatest.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Query, SetExpr, TableFactor, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// Writes all of them out that compare with `=`, `<>`, `<`, `<=`, `>` or `>=` where that has a meaning.
pub(crate) fn write_out(query: &mut Query) {
    let _ = VisitMut::visit(query, &mut Quantified);
}

struct Quantified;

impl VisitorMut for Quantified {
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
            _ => with_extreme(left, op, list, of_all),
        };
        if let Some(in_other_words) = in_other_words {
            *expr = in_other_words;
        }
        ControlFlow::Continue(())
    }
}

/// A comparison with the least or the greatest of a list. Nothing is asked of an empty list; where the list has a NULL, or the
/// value is one, what is not decided by the others is not known.
fn with_extreme(value: &Expr, op: &BinaryOperator, list: &Query, of_all: bool) -> Option<Expr> {
    let is_above = match op {
        BinaryOperator::Gt | BinaryOperator::GtEq => true,
        BinaryOperator::Lt | BinaryOperator::LtEq => false,
        _ => return None,
    };
    let extreme = if is_above == of_all { "MAX" } else { "MIN" };
    let (is_decided, decided) = if of_all { ("NOT", "FALSE") } else { ("", "TRUE") };
    let otherwise = if of_all { "TRUE" } else { "FALSE" };
    let nulls = "(SELECT BOOL_OR(\"#of_list\" IS NULL) FROM (SELECT 1) AS \"#list\" (\"#of_list\"))";
    let form = format!(
        "CASE WHEN {is_decided} (\"#value\" {op} (SELECT {extreme}(\"#of_list\") FROM (SELECT 1) AS \"#list\" (\"#of_list\"))) \
         THEN {decided} WHEN {nulls} IS NULL THEN {otherwise} WHEN \"#value\" IS NULL OR {nulls} THEN NULL ELSE {otherwise} END"
    );
    let mut comparison = Parser::new(&GenericDialect {}).try_with_sql(&form).ok()?.parse_expr().ok()?;
    let _ = VisitMut::visit(&mut comparison, &mut Filled { value, list });
    Some(comparison)
}

/// Puts the value and the list into a form.
struct Filled<'a> {
    value: &'a Expr,
    list: &'a Query,
}

impl VisitorMut for Filled<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Identifier(ident) if ident.value == "#value") {
            *expr = Expr::Nested(Box::new(self.value.clone()));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor
            && alias.name.value == "#list"
            && matches!(subquery.body.as_ref(), SetExpr::Select(select) if select.from.is_empty())
        {
            **subquery = self.list.clone();
        }
        ControlFlow::Continue(())
    }
}

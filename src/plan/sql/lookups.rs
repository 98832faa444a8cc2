//! Sub-queries for one value that give one row without an aggregate: of a table by its key, or the first of an order. They
//! are written as the aggregates that give the same, which DataFusion asks for.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, LimitClause, OrderByKind, Query, Select, SelectItem, SetExpr, Value,
};

use crate::plan::sql::calls::call;
use crate::plan::sql::grouped::place;
use crate::plan::sql::relations::Relation;

/// True where a query gives one row at most: WHERE holds the key of its only table at values of the row around it.
pub(crate) fn gives_one_row(select: &Select, relations: &[Relation]) -> bool {
    let [relation] = relations else { return false };
    let mut held = Vec::new();
    if let Some(condition) = &select.selection {
        hold(condition, relations, &mut held);
    }
    let key = &relation.columns.key;
    !key.is_empty() && key.iter().all(|column| held.contains(column))
}

/// The columns that a condition holds at values that are none of the relation's.
fn hold(condition: &Expr, relations: &[Relation], held: &mut Vec<String>) {
    match condition {
        Expr::Nested(inner) => hold(inner, relations, held),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            hold(left, relations, held);
            hold(right, relations, held);
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            for (one, other) in [(left, right), (right, left)] {
                let is_own =
                    !matches!(other.as_ref(), Expr::Value(_) | Expr::Identifier(_) | Expr::CompoundIdentifier(_))
                        || place(other, relations).is_some();
                if let (Some((_, column)), false) = (place(one, relations), is_own) {
                    held.push(column);
                }
            }
        }
        _ => {}
    }
}

/// Writes a sub-query for one value as an aggregate: `is_single` where it gives one row by itself, `is_tied` where it is about
/// a row of the query around it.
pub(crate) fn write_out(query: &mut Query, is_single: bool, is_tied: bool) {
    let is_first = is_tied && is_first_of_order(query);
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_mut_slice()
    else {
        return;
    };
    if !is_single && !is_first || select.distinct.is_some() || select.having.is_some() {
        return;
    }
    let order = match query.order_by.take().map(|order| order.kind) {
        Some(OrderByKind::Expressions(order)) if !is_single => order,
        _ => Vec::new(),
    };
    query.limit_clause = None;
    let name = if order.is_empty() { "max" } else { "first_value" };
    let inner = std::mem::replace(value, Expr::Value(Value::Null.into()));
    *value = call(name, vec![inner], order);
}

/// ORDER BY … LIMIT 1.
fn is_first_of_order(query: &Query) -> bool {
    let has_order = query.order_by.as_ref().is_some_and(|order| matches!(order.kind, OrderByKind::Expressions(_)));
    let Some(LimitClause::LimitOffset { limit: Some(Expr::Value(limit)), offset: None, limit_by }) =
        &query.limit_clause
    else {
        return false;
    };
    has_order && limit_by.is_empty() && limit.value.to_string() == "1" && query.with.is_none()
}

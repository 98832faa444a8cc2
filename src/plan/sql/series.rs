//! `FROM generate_series(1, 30) AS d(n)`: the elements of a list that a function of the same name gives. Joined by a condition
//! they are a relation like any other, where they are the same for every row.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Query, Select, SetExpr, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::plan::sql::calls::call;
use crate::plan::sql::unsupported::keeps_pairs;

/// Writes it out as UNNEST.
pub(crate) fn write_out(query: &mut Query) {
    let _ = VisitMut::visit(query, &mut Series);
}

struct Series;

impl VisitorMut for Series {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
            if !keeps_pairs(&join.join_operator) {
                as_sub_query(&mut join.relation);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: Some(arguments), .. } = &*factor else {
            return ControlFlow::Continue(());
        };
        let name = name.to_string().to_lowercase();
        if !["generate_series", "range"].contains(&name.as_str()) {
            return ControlFlow::Continue(());
        }
        let values = arguments.args.iter().map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
            _ => None,
        });
        let Some(values) = values.collect::<Option<Vec<_>>>() else { return ControlFlow::Continue(()) };
        *factor = TableFactor::UNNEST {
            alias: alias.clone(),
            array_exprs: vec![call(&name, values, vec![])],
            with_offset: false,
            with_offset_alias: None,
            with_ordinality: false,
        };
        ControlFlow::Continue(())
    }
}

/// Puts elements that read no columns into a sub-query of their own.
fn as_sub_query(relation: &mut TableFactor) {
    let TableFactor::UNNEST { array_exprs, alias, .. } = &*relation else { return };
    if array_exprs.iter().any(|list| list.visit(&mut Columns).is_break()) {
        return;
    }
    let parsed =
        Parser::new(&GenericDialect {}).try_with_sql("SELECT * FROM t").and_then(|mut parser| parser.parse_query());
    let Ok(mut query) = parsed else { return };
    let alias = alias.clone();
    if let SetExpr::Select(select) = query.body.as_mut()
        && let Some(from) = select.from.first_mut()
    {
        std::mem::swap(&mut from.relation, relation);
        *relation = TableFactor::Derived { lateral: false, subquery: query, alias, sample: None };
    }
}

/// Breaks at the first column.
struct Columns;

impl Visitor for Columns {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

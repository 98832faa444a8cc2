//! `FROM generate_series(1, 30) AS d(n)`: the elements of a list that a function of the same name gives.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{FunctionArg, FunctionArgExpr, Query, TableFactor, VisitMut, VisitorMut};

use crate::plan::sql::calls::call;

/// Writes it out as UNNEST.
pub(crate) fn write_out(query: &mut Query) {
    let _ = VisitMut::visit(query, &mut Series);
}

struct Series;

impl VisitorMut for Series {
    type Break = ();

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

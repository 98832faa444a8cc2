//! Which expression an error of DataFusion is about, where DataFusion does not say.
//!
//! An expression is it when the query without it (NULL in its place) no longer fails in the same way.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Value, Visit, VisitMut, Visitor, VisitorMut};

/// Queries of more expressions are not searched.
const MOST_EXPRESSIONS: usize = 1000;
/// How often a query is planned anew in search of one place.
const MOST_ATTEMPTS: usize = 200;

/// The smallest expression without which the query is no longer `as_wrong`.
pub(crate) fn find(query: &Query, as_wrong: impl Fn(Query) -> bool) -> Option<Expr> {
    let mut all = All::default();
    let _ = Visit::visit(query, &mut all);
    if all.expressions.len() > MOST_EXPRESSIONS {
        return None;
    }
    let mut attempts = 0;
    let mut mends = |index: usize| {
        attempts += 1;
        attempts <= MOST_ATTEMPTS && !as_wrong(without(query, index))
    };
    let mut parent = None;
    let mut found = None;
    loop {
        let children = all.expressions.iter().enumerate().filter(|(_, (above, _))| *above == parent);
        let mending: Vec<usize> = children.map(|(index, _)| index).filter(|index| mends(*index)).collect();
        // Where each of several parts mends it, the fault is that they do not go together.
        match mending.as_slice() {
            [only] => {
                found = Some(*only);
                parent = Some(*only);
            }
            [first, ..] if found.is_none() => {
                found = Some(*first);
                parent = Some(*first);
            }
            _ => return found.map(|index| all.expressions[index].1.clone()),
        }
    }
}

/// All expressions in the order of the text, each with the one around it.
#[derive(Default)]
struct All {
    expressions: Vec<(Option<usize>, Expr)>,
    around: Vec<usize>,
}

impl Visitor for All {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.expressions.len() > MOST_EXPRESSIONS {
            return ControlFlow::Break(());
        }
        self.expressions.push((self.around.last().copied(), expr.clone()));
        self.around.push(self.expressions.len() - 1);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<()> {
        self.around.pop();
        ControlFlow::Continue(())
    }
}

fn without(query: &Query, index: usize) -> Query {
    let mut query = query.clone();
    let _ = VisitMut::visit(&mut query, &mut Without { left: index });
    query
}

struct Without {
    left: usize,
}

impl VisitorMut for Without {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.left == 0 {
            *expr = Expr::Value(Value::Null.into());
            return ControlFlow::Break(());
        }
        self.left -= 1;
        ControlFlow::Continue(())
    }
}

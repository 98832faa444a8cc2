//! JSON arrows: the parser reads `payload->>'a' IS NULL` as `payload->>('a' IS NULL)`. Here they bind tighter than
//! everything but casts and subscripts, as everyone means them.

use std::mem;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value, VisitMut, VisitorMut};

/// Gives each arrow the operands that stand beside it.
pub(crate) fn bind(tree: &mut impl VisitMut) {
    let _ = VisitMut::visit(tree, &mut Arrows);
}

struct Arrows;

impl VisitorMut for Arrows {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::BinaryOp { left, op, right } = expr else { return ControlFlow::Continue(()) };
        if !is_arrow(op) || (first_operand(left).is_none() && first_operand(right).is_none()) {
            return ControlFlow::Continue(());
        }
        let op = op.clone();
        let object = mem::replace(left.as_mut(), nothing());
        let mut whole = mem::replace(right.as_mut(), nothing());
        // `a = b->>'c' = d` came as `(a = b)->>('c' = d)`, and becomes `(a = (b->>'c')) = d`.
        at_edge(&mut whole, first_operand, |key| {
            let mut before = object;
            at_edge(&mut before, last_operand, |object| Expr::BinaryOp {
                left: Box::new(object),
                op,
                right: Box::new(key),
            });
            before
        });
        *expr = whole;
        ControlFlow::Continue(())
    }
}

fn is_arrow(op: &BinaryOperator) -> bool {
    matches!(op, BinaryOperator::Arrow | BinaryOperator::LongArrow)
}

/// What an expression is made of for the moment in which it is taken apart.
fn nothing() -> Expr {
    Expr::Value(Value::Null.into())
}

/// Puts another expression into the place of the outermost operand on one side.
fn at_edge(expr: &mut Expr, operand: fn(&mut Expr) -> Option<&mut Expr>, put: impl FnOnce(Expr) -> Expr) {
    if let Some(inner) = operand(expr) {
        return at_edge(inner, operand, put);
    }
    *expr = put(mem::replace(expr, nothing()));
}

/// What an expression that binds looser than an arrow begins with.
fn first_operand(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::BinaryOp { op, .. } if is_arrow(op) => None,
        Expr::BinaryOp { left, .. } | Expr::AnyOp { left, .. } | Expr::AllOp { left, .. } => Some(left),
        Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsDistinctFrom(inner, _)
        | Expr::IsNotDistinctFrom(inner, _)
        | Expr::Between { expr: inner, .. }
        | Expr::InList { expr: inner, .. }
        | Expr::InSubquery { expr: inner, .. }
        | Expr::Like { expr: inner, .. }
        | Expr::ILike { expr: inner, .. }
        | Expr::RLike { expr: inner, .. }
        | Expr::SimilarTo { expr: inner, .. } => Some(inner),
        _ => None,
    }
}

/// What it ends with.
fn last_operand(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::BinaryOp { op, .. } if is_arrow(op) => None,
        Expr::BinaryOp { right, .. } => Some(right),
        Expr::IsDistinctFrom(_, inner)
        | Expr::IsNotDistinctFrom(_, inner)
        | Expr::Between { high: inner, .. }
        | Expr::Like { pattern: inner, .. }
        | Expr::ILike { pattern: inner, .. }
        | Expr::RLike { pattern: inner, .. }
        | Expr::SimilarTo { pattern: inner, .. } => Some(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    /// Brackets around every operator and nothing else.
    struct Bracketed;

    impl VisitorMut for Bracketed {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            *expr = match mem::replace(expr, nothing()) {
                Expr::Nested(inner) => *inner,
                operator @ Expr::BinaryOp { .. } => Expr::Nested(Box::new(operator)),
                other => other,
            };
            ControlFlow::Continue(())
        }
    }

    #[test]
    fn arrows_bind_tighter_than_what_stands_around_them() {
        let cases = [
            ("p->>'a' IS NOT NULL", "(p->>'a') IS NOT NULL"),
            ("p->'a'->>'b' = 'x'", "(p->'a'->>'b') = 'x'"),
            ("'x' = p->>'a'", "'x' = (p->>'a')"),
            ("p->>'a' = q->>'a' AND p->>'b' IN ('1', '2')", "(p->>'a') = (q->>'a') AND (p->>'b') IN ('1', '2')"),
            ("p->>'a' || p->>'b' LIKE 'x%'", "(p->>'a') || (p->>'b') LIKE 'x%'"),
            ("NOT p->>'a' = 'x' OR p->>'b' > '1'", "NOT (p->>'a') = 'x' OR (p->>'b') > '1'"),
            ("n BETWEEN 1 AND p->'n'", "n BETWEEN 1 AND (p->'n')"),
            ("p->'n' + 1 > 2", "(p->'n') + 1 > 2"),
            ("p->>('a' || 'b')", "p->>('a' || 'b')"),
            ("p->>'a' IS DISTINCT FROM q->>'a'", "(p->>'a') IS DISTINCT FROM (q->>'a')"),
        ];
        let parse = |text: &str| Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
        for (written, meant) in cases {
            let (mut bound, mut meant) = (parse(written), parse(meant));
            bind(&mut bound);
            let _ = VisitMut::visit(&mut bound, &mut Bracketed);
            let _ = VisitMut::visit(&mut meant, &mut Bracketed);
            assert_eq!(bound.to_string(), meant.to_string(), "{written}");
        }
    }
}

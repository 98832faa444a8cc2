//! USING and NATURAL JOIN written out as ON: the columns of USING are one column of all tables of the FROM, whatever their
//! number, and NATURAL ties by what is declared, not by the system columns of streams.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident, JoinConstraint, JoinOperator, SelectItem};

use crate::plan::sql::calls;
use crate::plan::sql::relations::{Relation, find, respell};

/// A column of USING: what its name alone means.
#[derive(Debug, Clone)]
pub(crate) struct Merged {
    pub(crate) name: String,
    pub(crate) value: Expr,
}

/// Writes out what a join says by names: `left` and `right` are what it joins, `merged` the columns of the USINGs before it,
/// which it adds to. It is left alone where columns are not known.
pub(crate) fn written_out(
    operator: &mut JoinOperator,
    left: &[Relation],
    right: &[Relation],
    merged: &mut Vec<Merged>,
) -> Option<()> {
    let is_known = |relation: &Relation| relation.name.is_some() && !relation.columns.open;
    if !left.iter().chain(right).all(is_known) {
        return None;
    }
    let side = side(operator);
    let constraint = constraint(operator)?;
    let names: Vec<String> = match constraint {
        JoinConstraint::Using(names) => {
            let known = right.iter().flat_map(|relation| relation.columns.names.iter().map(String::as_str));
            let known: Vec<&str> = known.collect();
            let named = names.iter().map(|name| find(name.0.last()?.as_ident()?, known.iter().copied()));
            named.map(|name| name.map(str::to_string)).collect::<Option<_>>()?
        }
        JoinConstraint::Natural => in_both(left, right),
        _ => return None,
    };
    let pairs = names.into_iter().map(|name| {
        let known = merged.iter().find(|merged| merged.name == name).map(|merged| merged.value.clone());
        Some((known.or_else(|| the_only(&name, left))?, the_only(&name, right)?, name))
    });
    let pairs = pairs.collect::<Option<Vec<(Expr, Expr, String)>>>()?;
    let equal = pairs.iter().map(|(left, right, _)| binary(left, BinaryOperator::Eq, right));
    *constraint = JoinConstraint::On(equal.reduce(|left, right| binary(&left, BinaryOperator::And, &right))?);
    for (left, right, name) in pairs {
        merged.retain(|merged| merged.name != name);
        let value = match side {
            Side::Left => left,
            Side::Right => right,
            Side::Both => coalesce(left, right),
        };
        merged.push(Merged { name, value });
    }
    Some(())
}

/// Puts what a column of USING means in the place of its name, which it keeps in a SELECT list.
pub(crate) fn item(item: SelectItem, merged: &[Merged]) -> SelectItem {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => match meant(&ident, merged) {
            Some(expr @ Expr::CompoundIdentifier(_)) => SelectItem::UnnamedExpr(expr),
            Some(expr) => SelectItem::ExprWithAlias { expr, alias: ident },
            None => SelectItem::UnnamedExpr(Expr::Identifier(ident)),
        },
        other => other,
    }
}

/// What a name alone means, at its place.
pub(crate) fn meant(ident: &Ident, merged: &[Merged]) -> Option<Expr> {
    let name = find(ident, merged.iter().map(|merged| merged.name.as_str()))?;
    let mut value = merged.iter().find(|merged| merged.name == name)?.value.clone();
    if let Expr::CompoundIdentifier(parts) = &mut value {
        parts.iter_mut().for_each(|part| part.span = ident.span);
    }
    Some(value)
}

/// Of which side a column of USING is never without a row.
#[derive(Debug, Clone, Copy)]
enum Side {
    Left,
    Right,
    Both,
}

fn side(operator: &JoinOperator) -> Side {
    match operator {
        JoinOperator::Right(_)
        | JoinOperator::RightOuter(_)
        | JoinOperator::RightSemi(_)
        | JoinOperator::RightAnti(_) => Side::Right,
        JoinOperator::FullOuter(_) => Side::Both,
        _ => Side::Left,
    }
}

pub(crate) fn is_natural(operator: &mut JoinOperator) -> bool {
    constraint(operator).is_some_and(|constraint| matches!(constraint, JoinConstraint::Natural))
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

/// Columns that both sides declare, in the order of the left.
fn in_both(left: &[Relation], right: &[Relation]) -> Vec<String> {
    let is_visible =
        |of: &Relation, name: &String| of.columns.names.contains(name) && !of.columns.hidden.contains(name);
    let mut names: Vec<String> = Vec::new();
    for relation in left {
        let shared = relation.columns.names.iter().filter(|name| is_visible(relation, name));
        let shared = shared.filter(|name| right.iter().any(|right| is_visible(right, name)));
        names.extend(shared.filter(|name| !names.contains(*name)).cloned().collect::<Vec<_>>());
    }
    names
}

/// The column of a name that one of the relations has.
fn the_only(name: &str, relations: &[Relation]) -> Option<Expr> {
    let mut having = relations.iter().filter(|relation| relation.columns.names.iter().any(|known| known == name));
    let (Some(relation), None) = (having.next(), having.next()) else { return None };
    let [table, column] = [relation.name.as_deref()?, name].map(|name| {
        let mut ident = Ident::new(name);
        respell(&mut ident, name);
        ident
    });
    Some(Expr::CompoundIdentifier(vec![table, column]))
}

fn binary(left: &Expr, op: BinaryOperator, right: &Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left.clone()), op, right: Box::new(right.clone()) }
}

fn coalesce(left: Expr, right: Expr) -> Expr {
    calls::call("coalesce", vec![left, right], vec![])
}

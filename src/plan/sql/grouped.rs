//! GROUP BY of a table's key alone, or of what a join holds equal to it: the key tells the rest of the table's row, so whatever
//! else of it is selected is grouped by too, as PostgreSQL and MySQL have it.

use std::ops::ControlFlow;

use datafusion::execution::context::SessionState;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, GroupByExpr, Ident, JoinConstraint, JoinOperator, Select, SelectItem,
    SelectItemQualifiedWildcardKind, Visit, Visitor,
};

use crate::plan::sql::relations::{Relation, declared, respell};

/// Adds to GROUP BY what its keys of tables tell; names are spelt as they are declared.
pub(crate) fn with_told(select: &mut Select, relations: &[Relation], state: &SessionState) {
    let GroupByExpr::Expressions(keys, modifiers) = &select.group_by else { return };
    let is_plain = |key: &Expr| !matches!(key, Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_));
    if keys.is_empty() || !modifiers.is_empty() || !keys.iter().all(is_plain) {
        return;
    }
    let grouped: Vec<Place> = keys.iter().filter_map(|key| place(by_position(key, select), relations)).collect();
    let known = with_equal(grouped.clone(), select, relations);
    let mut used = Used { relations, state, inside: 0, places: Vec::new() };
    for item in &select.projection {
        used.item(item);
    }
    let _ = select.having.visit(&mut used);
    let _ = select.qualify.visit(&mut used);
    let mut added: Vec<Place> = Vec::new();
    for place in used.places {
        if is_told(place.0, relations, &known) && !grouped.contains(&place) && !added.contains(&place) {
            added.push(place);
        }
    }
    let added = added.into_iter().filter_map(|(relation, column)| {
        let names = [relations[relation].name.as_deref()?, &column].map(|name| {
            let mut ident = Ident::new(name);
            respell(&mut ident, name);
            ident
        });
        Some(Expr::CompoundIdentifier(names.to_vec()))
    });
    let added: Vec<Expr> = added.collect();
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        keys.extend(added);
    }
}

/// Number of a relation, and its column.
type Place = (usize, String);

/// True where the key of a relation is among the places.
fn is_told(relation: usize, relations: &[Relation], known: &[Place]) -> bool {
    let key = &relations[relation].columns.key;
    !key.is_empty() && key.iter().all(|column| known.contains(&(relation, column.clone())))
}

/// The places, with those that joins and conditions hold equal to them and those of the rows that they tell.
fn with_equal(mut known: Vec<Place>, select: &Select, relations: &[Relation]) -> Vec<Place> {
    let equalities = Equalities::of(select, relations);
    loop {
        let before = known.len();
        for (from, to) in &equalities.0 {
            if from.iter().all(|place| known.contains(place)) {
                known.extend(to.iter().filter(|place| !known.contains(place)).cloned().collect::<Vec<_>>());
            }
        }
        for (number, relation) in relations.iter().enumerate() {
            if !is_told(number, relations, &known) {
                continue;
            }
            let columns = relation.columns.names.iter().map(|column| (number, column.clone()));
            known.extend(columns.filter(|place| !known.contains(place)).collect::<Vec<_>>());
        }
        if known.len() == before {
            return known;
        }
    }
}

/// Who knows the places on the left knows those on the right.
struct Equalities(Vec<(Vec<Place>, Vec<Place>)>);

impl Equalities {
    fn of(select: &Select, relations: &[Relation]) -> Self {
        let mut equalities = Equalities(Vec::new());
        let conditions = |condition: &Expr| {
            let mut found = Vec::new();
            let is_all = equal_places(condition, relations, &mut found);
            (found, is_all)
        };
        if let Some(condition) = &select.selection {
            equalities.both_ways(conditions(condition).0);
        }
        for join in select.from.iter().flat_map(|from| &from.joins) {
            match &join.join_operator {
                JoinOperator::Join(JoinConstraint::On(condition))
                | JoinOperator::Inner(JoinConstraint::On(condition)) => {
                    equalities.both_ways(conditions(condition).0);
                }
                JoinOperator::Left(JoinConstraint::On(condition))
                | JoinOperator::LeftOuter(JoinConstraint::On(condition)) => {
                    // By a further condition a row may have no partner where its equal has one.
                    if let (found, true) = conditions(condition) {
                        equalities.one_way(found);
                    }
                }
                _ => {}
            }
        }
        equalities
    }

    fn both_ways(&mut self, equal: Vec<(Place, Place)>) {
        for (one, other) in equal {
            self.0.push((vec![one.clone()], vec![other.clone()]));
            self.0.push((vec![other], vec![one]));
        }
    }

    /// From the relations on the left of a join to the one on its right, which comes later.
    fn one_way(&mut self, equal: Vec<(Place, Place)>) {
        let ordered = equal.into_iter().map(|(one, other)| if one.0 < other.0 { (one, other) } else { (other, one) });
        self.0.push(ordered.unzip());
    }
}

/// Collects the columns that a condition holds equal; true where it does nothing else.
fn equal_places(condition: &Expr, relations: &[Relation], found: &mut Vec<(Place, Place)>) -> bool {
    match condition {
        Expr::Nested(inner) => equal_places(inner, relations, found),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let is_left_all = equal_places(left, relations, found);
            equal_places(right, relations, found) && is_left_all
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let both = place(left, relations).zip(place(right, relations));
            found.extend(both.clone());
            both.is_some()
        }
        _ => false,
    }
}

/// The column that an expression is.
pub(crate) fn place(expr: &Expr, relations: &[Relation]) -> Option<Place> {
    match expr {
        Expr::Nested(inner) => place(inner, relations),
        Expr::Identifier(column) => {
            let name = declared(column);
            let mut having = relations.iter().enumerate().filter(|(_, known)| known.columns.names.contains(&name));
            match (having.next(), having.next()) {
                (Some((relation, _)), None) => Some((relation, name)),
                _ => None,
            }
        }
        Expr::CompoundIdentifier(parts) => {
            let [table, column] = parts.as_slice() else { return None };
            let table = declared(table);
            let relation = relations.iter().position(|relation| relation.name.as_ref() == Some(&table))?;
            Some((relation, declared(column)))
        }
        _ => None,
    }
}

/// `GROUP BY 1` is the first of the SELECT list.
fn by_position<'a>(key: &'a Expr, select: &'a Select) -> &'a Expr {
    let Expr::Value(number) = key else { return key };
    let number = number.value.to_string().parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    match number.and_then(|number| select.projection.get(number)) {
        Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => expr,
        _ => key,
    }
}

/// Columns that are used outside of aggregates.
struct Used<'a> {
    relations: &'a [Relation],
    state: &'a SessionState,
    /// So many aggregates are around.
    inside: usize,
    places: Vec<Place>,
}

impl Used<'_> {
    fn item(&mut self, item: &SelectItem) {
        let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item else {
            let _ = item.visit(self);
            return;
        };
        let name = name.0.last().and_then(|name| name.as_ident()).map(declared);
        if let Some(number) = self.relations.iter().position(|relation| relation.name == name) {
            let columns = &self.relations[number].columns;
            let visible = columns.names.iter().filter(|name| !columns.hidden.contains(*name));
            self.places.extend(visible.map(|column| (number, column.clone())));
        }
    }
}

/// True for an aggregate that is no window function.
pub(crate) fn is_aggregate(function: &Function, state: &SessionState) -> bool {
    let name = function.name.to_string().to_lowercase();
    function.over.is_none() && state.aggregate_functions().contains_key(&name)
}

impl Visitor for Used<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) if is_aggregate(function, self.state) => self.inside += 1,
            _ if self.inside == 0 => self.places.extend(place(expr, self.relations)),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Function(function) if is_aggregate(function, self.state)) {
            self.inside -= 1;
        }
        ControlFlow::Continue(())
    }
}

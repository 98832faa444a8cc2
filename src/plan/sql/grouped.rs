//! GROUP BY of a table's key alone: the key tells the rest of the table's row, so whatever else of it is selected is grouped by
//! too, as PostgreSQL and MySQL have it.

use std::ops::ControlFlow;

use datafusion::execution::context::SessionState;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, GroupByExpr, Ident, Select, SelectItem, SelectItemQualifiedWildcardKind, Visit, Visitor,
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
    let is_told = |relation: usize| {
        let key = &relations[relation].columns.key;
        !key.is_empty() && key.iter().all(|column| grouped.contains(&(relation, column.clone())))
    };
    let mut used = Used { relations, state, inside: 0, places: Vec::new() };
    for item in &select.projection {
        used.item(item);
    }
    let _ = select.having.visit(&mut used);
    let _ = select.qualify.visit(&mut used);
    let mut added: Vec<Place> = Vec::new();
    for place in used.places {
        if is_told(place.0) && !grouped.contains(&place) && !added.contains(&place) {
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

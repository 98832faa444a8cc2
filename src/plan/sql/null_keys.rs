//! Rows with NULL in the tag's key: they are nobody's and left out, which the query should say.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::flow::OutputColumn;
use crate::plan::sql::text::SqlText;

/// One warning for all columns of a key that may be NULL and that no condition looks at.
pub(crate) fn left_out(text: &SqlText<'_>, plan: &LogicalPlan, key: &[OutputColumn]) -> Option<Diagnostic> {
    let origins = Origins::of(plan)?;
    let open: Vec<&OutputColumn> = key
        .iter()
        .filter(|column| plan.schema().field(column.index).is_nullable() && !origins.are_looked_at(&column.name))
        .collect();
    let (first, entity) = (&open.first()?.name, &key.first()?.name);
    let names = open.iter().map(|column| format!("`{}`", column.name)).collect::<Vec<_>>().join(" and ");
    let (message, help) = if first == entity {
        let message = format!("{names} may be NULL; such rows are nobody's tag and are left out");
        (message, format!("say so with `WHERE {first} IS NOT NULL`, which also saves their state"))
    } else {
        let value = if matches!(open[0].data_type, DataType::Utf8) { "'none'" } else { "…" };
        let message = format!("{names} of the key may be NULL; such rows are left out");
        (
            message,
            format!(
                "keep them with `COALESCE({first}, {value}) AS {first}`, or say so with `WHERE {first} IS NOT NULL`"
            ),
        )
    };
    let span = text.find_word(&[first]).unwrap_or_else(|| text.first_word());
    Some(text.warning(codes::NULL_KEY, span, message).help(help))
}

/// What the columns of a plan were made of, by name in small letters, and what conditions look at.
#[derive(Default)]
pub(crate) struct Origins {
    made_of: Vec<(String, BTreeSet<String>)>,
    looked_at: BTreeSet<String>,
}

impl Origins {
    /// None where a FULL JOIN has NULLs on either side, which COALESCE takes away.
    pub(crate) fn of(plan: &LogicalPlan) -> Option<Origins> {
        let mut origins = Origins::default();
        let mut merges = false;
        let names = |expr: &Expr| -> BTreeSet<String> {
            expr.column_refs().iter().map(|column| column.name.to_lowercase()).collect()
        };
        let walked = plan.apply_with_subqueries(|plan| {
            plan.apply_expressions(|expr| {
                let name = match expr {
                    Expr::Column(_) => None,
                    Expr::Alias(alias) => Some(alias.name.to_lowercase()),
                    other => Some(other.schema_name().to_string().to_lowercase()),
                };
                origins.made_of.extend(name.map(|name| (name, names(expr))));
                Ok(TreeNodeRecursion::Continue)
            })?;
            merges |= matches!(plan, LogicalPlan::Join(join) if join.join_type == JoinType::Full);
            if let LogicalPlan::Filter(filter) = plan {
                origins.looked_at.extend(names(&filter.predicate));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        (walked.is_ok() && !merges).then_some(origins)
    }

    /// True where a condition is about the column, or about what it was made of.
    pub(crate) fn are_looked_at(&self, column: &str) -> bool {
        let mut names = BTreeSet::from([column.to_lowercase()]);
        loop {
            let known = names.len();
            let origins = self.made_of.iter().filter(|(made, _)| names.contains(made)).flat_map(|(_, of)| of);
            let origins: Vec<String> = origins.cloned().collect();
            names.extend(origins);
            if names.len() == known {
                return !names.is_disjoint(&self.looked_at);
            }
        }
    }
}

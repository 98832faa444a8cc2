//! What each column of a query is computed by, as texts to compare: which columns does a change of the query touch?
//!
//! Enters: an optimised logical plan. Leaves: a fingerprint for each column and one for which rows there are. Equal fingerprints
//! are the same computation; different ones may be the same in another spelling.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::catalog::Catalog;
use crate::plan::flow::fingerprint;

/// How a query computes its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definitions {
    /// What decides which rows there are.
    pub rows: String,
    /// For each column, in order, what its value is computed by.
    pub columns: Vec<String>,
}

/// How a plan over the streams of a catalog computes its rows.
pub fn definitions(plan: &LogicalPlan, catalog: &Catalog) -> Definitions {
    let inputs: Vec<Definitions> = plan.inputs().into_iter().map(|input| definitions(input, catalog)).collect();
    let below = Below { plan, inputs: &inputs, catalog };
    let all_rows = || inputs.iter().map(|input| input.rows.as_str()).collect::<Vec<_>>().join(" ");
    let both = |rows: &[&str]| fingerprint(&format!("{} {}", all_rows(), rows.join(" ")));
    let side_by_side = || inputs.iter().flat_map(|input| input.columns.clone()).collect::<Vec<_>>();
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = scan.table_name.table();
            let stream = catalog.streams.get(table);
            let column = |name: &String, data_type: &arrow::datatypes::DataType| {
                let declared = stream.and_then(|stream| {
                    let place = stream.schema().index_of(name).ok()?;
                    stream.columns.get(place).map(|column| format!("{column:?}"))
                });
                fingerprint(&format!("{table} {name} {data_type} {}", declared.unwrap_or_default()))
            };
            let fields = scan.projected_schema.fields().iter();
            let from = stream.map(|stream| format!("{} {} {:?}", stream.connection, stream.topic, stream.start));
            Definitions {
                rows: fingerprint(&format!("{} {:?} {from:?}", scan.table_name, scan.filters)),
                columns: fields.map(|field| column(field.name(), field.data_type())).collect(),
            }
        }
        LogicalPlan::Projection(projection) => Definitions { rows: all_rows(), columns: below.texts(&projection.expr) },
        LogicalPlan::Filter(filter) => {
            Definitions { rows: both(&[&below.text(&filter.predicate)]), columns: side_by_side() }
        }
        LogicalPlan::Aggregate(aggregate) => {
            let mut columns = below.texts(&aggregate.group_expr);
            let rows = fingerprint(&format!("groups {} of {}", columns.join(" "), all_rows()));
            columns.extend(below.texts(&aggregate.aggr_expr));
            // Grouping sets have columns of their own.
            columns.resize_with(aggregate.schema.fields().len(), || rows.clone());
            Definitions { rows, columns }
        }
        LogicalPlan::Window(window) => {
            let mut columns = side_by_side();
            columns.extend(below.texts(&window.window_expr));
            Definitions { rows: all_rows(), columns }
        }
        LogicalPlan::SubqueryAlias(_) => Definitions { rows: all_rows(), columns: side_by_side() },
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => Definitions { rows: all_rows(), columns: side_by_side() },
        LogicalPlan::Union(union) => {
            let width = union.schema.fields().len();
            let at = |place: usize| {
                let parts = inputs.iter().filter_map(|input| input.columns.get(place));
                fingerprint(&parts.map(String::as_str).collect::<Vec<_>>().join(" "))
            };
            Definitions { rows: both(&["union"]), columns: (0..width).map(at).collect() }
        }
        other => {
            let expressions: Vec<String> = other.expressions().iter().map(|expr| below.text(expr)).collect();
            let kind = match other {
                LogicalPlan::Join(join) => format!("{:?} {:?}", join.join_type, join.null_equality),
                other => other.display().to_string(),
            };
            let rows = both(&[&kind, &expressions.join(" ")]);
            let mut columns = side_by_side();
            if columns.len() != other.schema().fields().len() {
                columns.truncate(other.schema().fields().len());
                columns.resize_with(other.schema().fields().len(), || rows.clone());
            }
            Definitions { rows, columns }
        }
    }
}

/// The names of columns that differ between two ways to compute a table: all of them where its rows are others.
pub fn touched<'n>(
    (old, old_names): (&Definitions, &[&'n str]),
    (new, new_names): (&Definitions, &[&'n str]),
) -> Vec<&'n str> {
    let of_old = |name: &str| old_names.iter().position(|known| *known == name).and_then(|at| old.columns.get(at));
    let is_touched = |(at, name): (usize, &&str)| {
        old.rows != new.rows || of_old(name).is_none_or(|known| Some(known) != new.columns.get(at))
    };
    new_names.iter().enumerate().filter(|(at, name)| is_touched((*at, name))).map(|(_, name)| *name).collect()
}

/// A node with how its inputs are computed.
struct Below<'p> {
    plan: &'p LogicalPlan,
    inputs: &'p [Definitions],
    catalog: &'p Catalog,
}

impl Below<'_> {
    fn texts(&self, expressions: &[Expr]) -> Vec<String> {
        expressions.iter().map(|expr| self.text(expr)).collect()
    }

    /// An expression with what its columns are computed by in their places.
    fn text(&self, expr: &Expr) -> String {
        let replaced = expr.clone().unalias_nested().data.transform(|part| {
            Ok(match &part {
                Expr::Column(column) => Transformed::yes(Expr::Column(Column::from_name(self.definition(column)))),
                Expr::ScalarSubquery(query) => Transformed::yes(self.of_query(&part, &query.subquery)),
                Expr::Exists(exists) => Transformed::yes(self.of_query(&part, &exists.subquery.subquery)),
                Expr::InSubquery(query) => Transformed::yes(self.of_query(&part, &query.subquery.subquery)),
                _ => Transformed::no(part),
            })
        });
        // The visit itself never fails.
        fingerprint(&replaced.map_or_else(|_| expr.to_string(), |replaced| replaced.data.to_string()))
    }

    fn definition(&self, column: &Column) -> String {
        let inputs = self.plan.inputs();
        let found = inputs.iter().zip(self.inputs).find_map(|(input, definitions)| {
            let place = input.schema().index_of_column(column).ok()?;
            definitions.columns.get(place).cloned()
        });
        found.unwrap_or_else(|| column.to_string())
    }

    fn of_query(&self, expr: &Expr, query: &LogicalPlan) -> Expr {
        let Definitions { rows, columns } = definitions(query, self.catalog);
        Expr::Column(Column::from_name(fingerprint(&format!("{expr} {rows} {}", columns.join(" ")))))
    }
}

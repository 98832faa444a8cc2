//! Values that are read as another type, with a result that nobody means: a list as text, a length of time as a number,
//! text as a number; and parts of times that are not known, which only a row would tell.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::create_physical_expr;

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::text::SqlText;

/// What a misread value is told by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Misread {
    /// Text made of a list, by this function.
    List(&'static str),
    /// A number made of a length of time.
    LengthAsNumber,
    /// A sum or mean of lengths of time.
    LengthsTotal(String),
    /// Text that is compared with a number, and its name if it is a column.
    TextAsNumber(Option<String>),
    /// A part of a time, and the function that would take it.
    Part(String, String),
}

/// What is misread in a plan whose types are still as the author wrote them.
pub(crate) fn find(text: &SqlText<'_>, plan: &LogicalPlan) -> Vec<Diagnostic> {
    let mut found: Vec<Misread> = Vec::new();
    // What cannot be walked has been told as an error.
    let _ = plan.apply_with_subqueries(|plan| {
        let mut schema = datafusion::logical_expr::utils::merge_schema(&plan.inputs());
        schema.merge(plan.schema());
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                let misread = misread(expr, &schema);
                found.extend(misread.filter(|misread| !found.contains(misread)));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found.iter().map(|misread| told(text, misread)).collect()
}

fn misread(expr: &Expr, schema: &DFSchema) -> Option<Misread> {
    let data_type = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Null);
    let is_length = |expr: &Expr| matches!(data_type(expr), DataType::Duration(_));
    match expr {
        Expr::ScalarFunction(function) => match function.name() {
            name @ ("concat" | "concat_ws") => {
                let is_list = |expr: &&Expr| {
                    use DataType::{FixedSizeList, LargeList, List};
                    matches!(data_type(expr), List(_) | LargeList(_) | FixedSizeList(..))
                };
                let lists = function.args.iter().filter(is_list).count();
                let name = if name == "concat" { "concat" } else { "concat_ws" };
                let is_misread = lists > 0 && (lists < function.args.len() || name == "concat_ws");
                is_misread.then_some(Misread::List(name))
            }
            "date_part" | "date_trunc" => unknown_part(function),
            _ => None,
        },
        Expr::AggregateFunction(function) if matches!(function.func.name(), "sum" | "avg") => {
            let is_total = function.params.args.first().is_some_and(is_length);
            is_total.then(|| Misread::LengthsTotal(function.func.name().to_string()))
        }
        Expr::Cast(cast) if cast.field.data_type().is_numeric() && is_length(&cast.expr) => {
            Some(Misread::LengthAsNumber)
        }
        Expr::TryCast(cast) if cast.field.data_type().is_numeric() && is_length(&cast.expr) => {
            Some(Misread::LengthAsNumber)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            text_as_number(&[left, right], &data_type)
        }
        Expr::Between(Between { expr, low, high, .. }) => text_as_number(&[expr, low, high], &data_type),
        Expr::InList(InList { expr, list, .. }) => {
            text_as_number(&list.iter().chain([expr.as_ref()]).collect::<Vec<_>>(), &data_type)
        }
        _ => None,
    }
}

/// Text in a comparison of numbers. That of a literal is looked at while the query is planned.
fn text_as_number(sides: &[&Expr], data_type: &dyn Fn(&Expr) -> DataType) -> Option<Misread> {
    let is_text = |side: &&&Expr| data_type(side).is_string() && !matches!(side, Expr::Literal(..));
    let text = sides.iter().find(is_text)?;
    let has_numbers = sides.iter().any(|side| data_type(side).is_numeric());
    let name = match text {
        Expr::Column(column) => Some(column.name.clone()),
        _ => None,
    };
    has_numbers.then_some(Misread::TextAsNumber(name))
}

/// A part that the function does not take: it would say so at the first row.
fn unknown_part(function: &ScalarFunction) -> Option<Misread> {
    let Some(part @ Expr::Literal(ScalarValue::Utf8(Some(name)), _)) = function.args.first() else { return None };
    let any = Expr::Literal(ScalarValue::TimestampNanosecond(Some(0), None), None);
    let call = ScalarFunction::new_udf(function.func.clone(), vec![part.clone(), any]);
    let empty = DFSchema::empty();
    let context = PhysicalPlanningContext::default();
    let expr = create_physical_expr(&Expr::ScalarFunction(call), &empty, &ExecutionProps::new(), &context).ok()?;
    let no_row = RecordBatch::new_empty(std::sync::Arc::new(Schema::empty()));
    expr.evaluate(&no_row).is_err().then(|| Misread::Part(name.clone(), function.name().to_string()))
}

fn told(text: &SqlText<'_>, misread: &Misread) -> Diagnostic {
    let place = |words: &[&str]| -> Range<usize> { text.find_word(words).unwrap_or_else(|| text.first_word()) };
    match misread {
        Misread::List(function) => {
            let message = format!("`{function}` would write a list with its brackets: `[a, b]`");
            let help = "write `array_to_string(list, ',')`, or make one text at once: `STRING_AGG(DISTINCT category, ',' ORDER BY category)`";
            text.error(codes::TYPES, place(&[function]), message).help(help)
        }
        Misread::LengthAsNumber => {
            let message = "a length of time as a number counts parts of a second: milliseconds, or nanoseconds";
            let help =
                "write `EXTRACT(EPOCH FROM (a - b))` for its seconds, `CAST(a AS DATE) - CAST(b AS DATE)` for days";
            text.error(codes::TYPES, place(&["cast", "try_cast"]), message).help(help)
        }
        Misread::LengthsTotal(function) => {
            let message = format!("`{function}` does not take lengths of time");
            let help = format!("write `{}(EXTRACT(EPOCH FROM (a - b)))` for seconds", function.to_uppercase());
            text.error(codes::TYPES, place(&[function]), message).help(help)
        }
        Misread::TextAsNumber(name) => {
            let (words, value) = match name {
                Some(name) => (vec![name.as_str()], format!("`{name}` is text and")),
                None => (vec!["where", "having", "case", "filter"], "text".to_string()),
            };
            let message = format!("{value} is compared with a number: text that is no number stops the tag");
            let help = "write `TRY_CAST(… AS DOUBLE)` around the text, which gives NULL where it is no number, or quote the number";
            text.error(codes::TYPES, place(&words), message).help(help)
        }
        Misread::Part(part, function) => {
            let message = format!("`{function}` knows no part `{}`", part.to_lowercase());
            let help = match function.as_str() {
                "date_trunc" => "it knows year, quarter, month, week, day, hour, minute, second",
                _ => {
                    "it knows year, isoyear, quarter, month, week (ISO's), day, doy, dow (Sunday is 0), isodow (Monday is 1), hour, minute, second, epoch"
                }
            };
            text.error(codes::TYPES, place(&[part]), message).help(help)
        }
    }
}

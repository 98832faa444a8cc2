//! Expressions that give NULL instead of failing, and those that tell of which rows one fails.
//!
//! A guard stands for one expression over the values of its arguments, which are guarded themselves. It evaluates whole
//! batches; only where one fails is it cut in halves until the rows are found that do. What a row gives thus depends on
//! the row alone, not on those beside it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TryCast, Volatility, lit, when,
};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use crate::plan::clock::reads_clock;
use crate::plan::fallible::may_fail;

/// How names of functions begin that give NULL where an expression fails.
const VALUE: &str = "null_on_error[";
/// How names of functions begin that tell whether it fails.
const FAILURE: &str = "fails[";

/// True of the name of a guard, which never fails.
pub fn is_guard(function: &str) -> bool {
    function.starts_with(VALUE) || function.starts_with(FAILURE)
}

/// The expression with NULL in the place of every part of it that fails.
pub fn null_on_error(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(expr.transform_up(|expr| guard_value(expr, schema))?.data)
}

/// One expression whose parts are guarded.
pub fn guard_value(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !is_guarded(&expr, schema) {
        return Ok(Transformed::no(expr));
    }
    match expr {
        Expr::Cast(cast) => Ok(Transformed::yes(Expr::TryCast(TryCast::new_from_field(cast.expr, cast.field)))),
        other => Ok(Transformed::yes(guard(&other, Tells::Value, schema)?)),
    }
}

/// True of an expression that may fail by itself. What reads no column fails when it is planned, and what reads the clock
/// is the clock's own side.
fn is_guarded(expr: &Expr, schema: &DFSchema) -> bool {
    let is_one = match expr {
        Expr::BinaryExpr(_) | Expr::Cast(_) | Expr::Negative(_) | Expr::SimilarTo(_) => true,
        Expr::ScalarFunction(function) => !function.name().starts_with('#'),
        _ => false,
    };
    is_one && may_fail(expr, schema) && expr.any_column_refs() && !reads_clock(expr)
}

/// A boolean expression, never NULL where one fails, that is true of the rows for which evaluating `expr` fails; `None`
/// where it never does. Conditions spare what stands behind them as SQL reads: from left to right.
pub fn failure(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let spared_unless = |condition: &Expr, spares: bool, behind: Option<Expr>| -> Result<Option<Expr>> {
        let Some(behind) = behind else { return Ok(None) };
        if reads_clock(condition) {
            // What a row is must not depend on when it is looked at.
            return Ok(Some(behind));
        }
        let condition = Box::new(null_on_error(condition.clone(), schema)?);
        let reached = if spares { Expr::IsNotFalse(condition) } else { Expr::IsNotTrue(condition) };
        Ok(Some(reached.and(behind)))
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let behind = spared_unless(left, *op == Operator::And, failure(right, schema)?)?;
            Ok(either(failure(left, schema)?, behind))
        }
        Expr::Case(case) => case_failure(case, schema),
        Expr::ScalarFunction(function) if function.name() == "coalesce" => {
            let mut behind = None;
            for argument in function.args.iter().rev() {
                let missing = Expr::IsNull(Box::new(argument.clone()));
                behind = either(failure(argument, schema)?, spared_unless(&missing, true, behind)?);
            }
            Ok(behind)
        }
        Expr::AggregateFunction(function) => {
            let params = &function.params;
            let mut values = None;
            for value in params.args.iter().chain(params.order_by.iter().map(|sort| &sort.expr)) {
                values = either(values, failure(value, schema)?);
            }
            match params.filter.as_deref() {
                None => Ok(values),
                Some(filter) => Ok(either(failure(filter, schema)?, spared_unless(filter, true, values)?)),
            }
        }
        _ => {
            let mut parts = None;
            expr.apply_children(|part| {
                parts = either(parts.take(), failure(part, schema)?);
                Ok(TreeNodeRecursion::Continue)
            })?;
            if !is_guarded(expr, schema) {
                return Ok(parts);
            }
            let whole = guard(expr, Tells::Failure, schema)?;
            let whole = whole.map_children(|part| part.transform_up(|expr| guard_value(expr, schema)))?.data;
            Ok(either(parts, Some(whole)))
        }
    }
}

/// A value is computed where the conditions before it do not hold and its own does.
fn case_failure(case: &Case, schema: &DFSchema) -> Result<Option<Expr>> {
    let mut behind = case.else_expr.as_ref().map(|other| failure(other, schema)).transpose()?.flatten();
    for (condition, value) in case.when_then_expr.iter().rev() {
        let holds = match &case.expr {
            Some(base) => base.as_ref().clone().eq(condition.as_ref().clone()),
            None => condition.as_ref().clone(),
        };
        let value = failure(value, schema)?;
        let chosen = match (value, behind) {
            (None, None) => None,
            (value, behind) if reads_clock(&holds) => either(value, behind),
            (value, behind) => {
                let holds = null_on_error(holds, schema)?;
                let value = value.unwrap_or_else(|| lit(false));
                Some(when(holds, value).otherwise(behind.unwrap_or_else(|| lit(false)))?)
            }
        };
        behind = either(failure(condition, schema)?, chosen);
    }
    let base = case.expr.as_ref().map(|base| failure(base, schema)).transpose()?.flatten();
    Ok(either(base, behind))
}

fn either(one: Option<Expr>, other: Option<Expr>) -> Option<Expr> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.or(other)),
        (one, other) => one.or(other),
    }
}

/// The call of a guard in the place of an expression; constants stay inside, since some functions want to see them.
fn guard(expr: &Expr, tells: Tells, schema: &DFSchema) -> Result<Expr> {
    let mut arguments = Vec::new();
    let mut fields = Vec::new();
    let inner = expr.clone().map_children(|part| {
        if matches!(part, Expr::Literal(..)) {
            return Ok(Transformed::no(part));
        }
        let name = format!("${}", arguments.len());
        fields.push(Field::new(&name, part.get_type(schema)?, true));
        arguments.push(part);
        Ok(Transformed::yes(Expr::Column(Column::from_name(name))))
    })?;
    let arguments_schema = Arc::new(Schema::new(fields));
    let inner_schema = DFSchema::try_from(arguments_schema.as_ref().clone())?;
    let context = PhysicalPlanningContext::default();
    let guard = Guard {
        name: format!("{}{}]", if tells == Tells::Value { VALUE } else { FAILURE }, inner.data),
        tells,
        data_type: inner.data.get_type(&inner_schema)?,
        expr: create_physical_expr(&inner.data, &inner_schema, &ExecutionProps::new(), &context)?,
        arguments: arguments_schema,
        signature: Signature::any(arguments.len(), Volatility::Immutable),
    };
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(guard)), arguments)))
}

/// What a guard gives of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Tells {
    /// The value, NULL where there is none.
    Value,
    /// Whether there is none.
    Failure,
}

/// One expression that may fail, over the values of its arguments.
#[derive(Debug, Clone)]
struct Guard {
    name: String,
    tells: Tells,
    expr: Arc<dyn PhysicalExpr>,
    arguments: SchemaRef,
    data_type: DataType,
    signature: Signature,
}

// The name holds the text of the expression, and with the types of its arguments all that it depends on.
impl PartialEq for Guard {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.arguments == other.arguments
    }
}

impl Eq for Guard {}

impl Hash for Guard {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Guard {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.tells {
            Tells::Value => self.data_type.clone(),
            Tells::Failure => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|value| value.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.arguments), arrays, &options)?;
        let values = self.evaluate(&batch)?;
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?)),
            false => Ok(ColumnarValue::Array(values)),
        }
    }
}

impl Guard {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let rows = batch.num_rows();
        let values = self.expr.evaluate(batch).and_then(|values| values.into_array(rows));
        match (values, self.tells) {
            (Ok(values), Tells::Value) => Ok(values),
            (Ok(values), Tells::Failure) => Ok(Arc::new(BooleanArray::from(vec![false; values.len()]))),
            (Err(_), Tells::Value) if rows <= 1 => Ok(new_null_array(&self.data_type, rows)),
            (Err(_), Tells::Failure) if rows <= 1 => Ok(Arc::new(BooleanArray::from(vec![true; rows]))),
            (Err(_), _) => {
                let half = rows / 2;
                let first = self.evaluate(&batch.slice(0, half))?;
                let second = self.evaluate(&batch.slice(half, rows - half))?;
                Ok(concat(&[first.as_ref(), second.as_ref()])?)
            }
        }
    }
}

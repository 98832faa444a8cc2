//! Which expressions may fail on some row.
//!
//! Tags share operators but not faults: what may fail is evaluated for one tag alone, over the rows it has kept.

use arrow::datatypes::{DataType, Schema};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};

use crate::plan::casts::TOLD_APART;
use crate::plan::guards::is_guard;

/// True unless the expression is known never to fail.
pub fn is_fallible(expr: &Expr, schema: &Schema) -> bool {
    let Ok(schema) = DFSchema::try_from(schema.clone()) else { return true };
    let mut fallible = false;
    let walked = expr.apply(|expr| {
        fallible |= !is_safe_node(expr, &schema);
        Ok(if fallible { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    fallible || walked.is_err()
}

/// True unless the expression itself, whatever its parts do, is known never to fail.
pub fn may_fail(expr: &Expr, schema: &DFSchema) -> bool {
    !is_safe_node(expr, schema)
}

fn is_safe_node(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::Case(_)
        | Expr::Like(_) => true,
        Expr::BinaryExpr(BinaryExpr { left, op, .. }) => match op {
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::And
            | Operator::Or
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
            | Operator::StringConcat => true,
            Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide => {
                left.get_type(schema).is_ok_and(|data_type| data_type.is_floating())
            }
            _ => false,
        },
        Expr::Cast(cast) => {
            let to = cast.field.data_type();
            cast.expr.get_type(schema).is_ok_and(|from| {
                is_widening(&from, to)
                    || matches!((&from, to), (DataType::Timestamp(..), DataType::Date32) | (_, DataType::Utf8))
                    || (from.is_integer() || from.is_decimal()) && to.is_floating()
            })
        }
        Expr::TryCast(_) => true,
        Expr::ScalarFunction(function) if is_guard(function.name()) => true,
        Expr::ScalarFunction(function) => matches!(
            function.name(),
            "date_part"
                | "wall_time"
                | "instant"
                | "finer_timestamp"
                | "zone_bin"
                | "lower"
                | "upper"
                | "character_length"
                | "coalesce"
                | "nullif"
                | "btrim"
                | "ltrim"
                | "rtrim"
                | "concat"
                | "starts_with"
                | "ends_with"
                | "contains"
                | TOLD_APART
        ),
        _ => false,
    }
}

/// True when every value of `from` has an image of its own in `to`.
pub fn is_widening(from: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Utf8};
    let width = |data_type: &DataType| match data_type {
        Int8 | UInt8 => Some(1),
        Int16 | UInt16 => Some(2),
        Int32 | UInt32 => Some(4),
        Int64 | UInt64 => Some(8),
        _ => None,
    };
    if from == to {
        return true;
    }
    match (from, to) {
        (Decimal128(p, s), Decimal128(wide_p, wide_s)) => {
            wide_s >= s && i16::from(*wide_p) - i16::from(*wide_s) >= i16::from(*p) - i16::from(*s)
        }
        (from, Decimal128(precision, scale)) if from.is_integer() => {
            // Digits of the largest value.
            let digits = match width(from) {
                Some(1) => 3,
                Some(2) => 5,
                Some(4) => 10,
                _ => 20,
            };
            i16::from(*precision) - i16::from(*scale) >= digits
        }
        (from, Float64) => width(from).is_some_and(|width| width <= 4) || *from == DataType::Float32,
        (from, Utf8) => width(from).is_some() || matches!(from, DataType::LargeUtf8 | DataType::Utf8View),
        (from, to) => match (width(from), width(to)) {
            (Some(narrow), Some(wide)) => {
                narrow <= wide && from.is_signed_integer() == to.is_signed_integer()
                    || narrow < wide && to.is_signed_integer()
            }
            _ => false,
        },
    }
}

//! Aggregates beyond COUNT, SUM, AVG, MIN and MAX: computed anew from all rows of a group by DataFusion's function.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::functions::core::named_struct;
use datafusion::logical_expr::expr::{AggregateFunction as Call, NullTreatment};
use datafusion::logical_expr::{Expr, ExprSchemable, lit};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::{Compiler, Refusal, Relation, physical, substitute};
use crate::plan::codes;
use crate::plan::flow::{AggregateCall, AggregateFunction};
use crate::plan::functions::{is_any_of_several, is_ordered};
use crate::plan::wording::{sql_message, without_prefix};

/// Constants stay what they are: a percentile or a separator is read when the function is made.
enum Argument {
    Constant(Expr),
    /// The field that holds it.
    Kept(String),
}

/// The fields of the struct that a function reads.
struct Kept {
    schema: DFSchema,
    fields: Vec<Field>,
    /// Names and values in turn.
    exprs: Vec<Expr>,
}

impl Kept {
    fn add(&mut self, expr: Expr) -> Result<String, Refusal> {
        // DISTINCT wants to see that it is ordered by the value itself.
        if let Some(known) = self.exprs.iter().skip(1).step_by(2).position(|known| *known == expr) {
            return Ok(self.fields[known].name().clone());
        }
        let name = format!("c{}", self.fields.len());
        self.fields.push(Field::new(&name, expr.get_type(&self.schema)?, true));
        self.exprs.extend([lit(name.as_str()), expr]);
        Ok(name)
    }
}

impl Compiler<'_> {
    /// The call as a function over structs that hold its arguments, and then the columns of its order.
    pub(super) fn collected_call(
        &self,
        relation: &Relation,
        call: &Call,
        schema: &DFSchema,
        data_type: &DataType,
    ) -> Result<AggregateCall, Refusal> {
        let params = &call.params;
        let name = call.func.name();
        let upper = name.to_uppercase();
        if is_any_of_several(name) {
            return Err(Refusal::new(
                codes::AGGREGATE,
                format!("{upper} depends on the order of its input, which a stream does not have"),
                "write one that does not: MIN or MAX for any value, percentile_cont for a percentile",
            )
            .at(name));
        }
        if name == "bit_xor" && params.distinct {
            // DataFusion's batch answer leaves the DISTINCT out: nothing could be checked against it.
            return Err(Refusal::new(
                codes::AGGREGATE,
                "BIT_XOR(DISTINCT …) does not stream",
                "group by the value first in a sub-query, then aggregate",
            )
            .at(name));
        }
        if is_ordered(name) && params.order_by.is_empty() && !matches!(name, "array_agg" | "string_agg") {
            return Err(Refusal::new(
                codes::ORDERED_AGGREGATE,
                format!("{upper} without ORDER BY is any of the values"),
                format!("say which comes first: {name}(… ORDER BY …)"),
            )
            .at(name));
        }
        let resolve = |expr: &Expr| substitute(expr, schema, &relation.columns);
        let node_columns = DFSchema::try_from(self.facts[relation.node].columns.as_ref().clone())?;
        let mut kept = Kept { schema: node_columns, fields: Vec::new(), exprs: Vec::new() };
        let mut arguments = Vec::new();
        for argument in &params.args {
            arguments.push(match resolve(argument)? {
                constant @ Expr::Literal(..) => Argument::Constant(constant),
                expr => Argument::Kept(kept.add(expr)?),
            });
        }
        let mut order: Vec<(String, SortOptions)> = Vec::new();
        if is_ordered(name) || call.func.supports_within_group_clause() {
            for sort in &params.order_by {
                let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
                order.push((kept.add(resolve(&sort.expr)?)?, options));
            }
            // Ties are broken by the values themselves; of a percentile they make no difference.
            for argument in arguments.iter().filter(|_| is_ordered(name)) {
                if let Argument::Kept(field) = argument
                    && order.iter().all(|(known, _)| known != field)
                {
                    order.push((field.clone(), SortOptions { descending: false, nulls_first: true }));
                }
            }
        }
        if kept.fields.is_empty() {
            kept.add(lit(true))?;
        }
        let struct_schema = Arc::new(Schema::new(kept.fields));
        let struct_columns = DFSchema::try_from(struct_schema.as_ref().clone())?;
        let read = |argument: &Argument| -> Result<Arc<dyn PhysicalExpr>, Refusal> {
            match argument {
                Argument::Constant(constant) => physical(constant, &struct_columns),
                Argument::Kept(field) => Ok(col(field, &struct_schema)?),
            }
        };
        let sorts =
            order.iter().map(|(field, options)| Ok(PhysicalSortExpr::new(col(field, &struct_schema)?, *options)));
        let ignore_nulls = matches!(params.null_treatment, Some(NullTreatment::IgnoreNulls));
        let arguments = arguments.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let sorts = sorts.collect::<Result<Vec<_>, Refusal>>()?;
        let function = AggregateExprBuilder::new(Arc::clone(&call.func), arguments)
            .schema(Arc::clone(&struct_schema))
            .alias(Expr::AggregateFunction(call.clone()).to_string())
            .with_ignore_nulls(ignore_nulls)
            .with_distinct(params.distinct)
            .order_by(sorts)
            .build()?;
        if let Err(error) = function.create_accumulator() {
            return Err(Refusal::new(
                codes::AGGREGATE,
                format!(
                    "{upper} cannot be computed like this: {}",
                    sql_message(without_prefix(&error.strip_backtrace()))
                ),
                "aggregate one expression; for several columns concat_ws('|', a, b)",
            )
            .at(name));
        }
        let argument = self.scalar(relation.node, &named_struct().call(kept.exprs))?;
        let filter =
            params.filter.as_deref().map(|filter| self.scalar(relation.node, &resolve(filter)?)).transpose()?;
        Ok(AggregateCall {
            function: AggregateFunction::Collected,
            argument: Some(argument),
            collected: Some(Arc::new(function)),
            filter,
            merges: false,
            data_type: data_type.clone(),
        })
    }
}

//! UNNEST: the elements of lists as rows, the fields of structs as columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::{Expr, Unnest};

use super::{Compiler, Refusal, Relation};
use crate::plan::codes;
use crate::plan::flow::NodeKind;
use crate::plan::unnests::is_one_level;

impl Compiler<'_> {
    pub(super) fn unnest(&mut self, unnest: &Unnest) -> Result<Relation, Refusal> {
        let relation = self.relation(&unnest.input)?;
        let input = self.narrow(relation)?;
        let refused = |message: &str, help: &str| Err(Refusal::new(codes::TABLE_FUNCTION, message, help).at("unnest"));
        if !is_one_level(unnest) {
            return refused(
                "this UNNEST takes several levels of a list apart at once",
                "write one UNNEST a level: FROM (SELECT user_id, unnest(lists) AS list FROM …) CROSS JOIN UNNEST(list) AS t(item)",
            );
        }
        let keeps_empty = unnest.options.expand_empty_as_null();
        let lists: Vec<usize> = unnest.list_type_columns.iter().map(|(index, _)| *index).collect();
        let mut fields = Vec::new();
        for (index, field) in self.nodes[input.node].schema.fields().iter().enumerate() {
            let element = match field.data_type() {
                DataType::List(element) if lists.contains(&index) => element.data_type().clone(),
                _ if lists.contains(&index) => {
                    return refused("this is no list that streams", "UNNEST a column of an ARRAY type");
                }
                other => other.clone(),
            };
            fields.push(Field::new(field.name(), element, true));
        }
        let node = if lists.is_empty() {
            input.node
        } else {
            let text = format!("unnest {} {lists:?} {keeps_empty}", self.facts[input.node].output);
            // Nothing is unique: an element may be in a list twice.
            self.over(input.node, &text, NodeKind::Unnest { lists, keeps_empty }, fields, vec![])
        };
        let mut columns = Vec::new();
        for index in 0..input.columns.len() {
            let column = Expr::Column(self.column(node, index));
            let fields = match self.facts[node].columns.field(index).data_type() {
                DataType::Struct(fields) if unnest.struct_type_columns.contains(&index) => fields.clone(),
                _ => {
                    columns.push(column);
                    continue;
                }
            };
            let field =
                |field: &Arc<Field>| datafusion::functions::core::expr_fn::get_field(column.clone(), field.name());
            columns.extend(fields.iter().map(field));
        }
        Ok(Relation { node, columns, filters: vec![], bounds: vec![] })
    }
}

//! UNNEST: the elements of lists as rows, the fields of structs as columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::{Expr, Unnest};

use super::constants::is_of_different;
use super::{Compiler, Refusal, Relation};
use crate::plan::codes;
use crate::plan::flow::NodeKind;
use crate::plan::unnests::is_one_level;

impl Compiler<'_> {
    pub(super) fn unnest(&mut self, unnest: &Unnest) -> Result<Relation, Refusal> {
        let relation = self.relation(&unnest.input)?;
        let refused = |message: &str, help: &str| Err(Refusal::new(codes::TABLE_FUNCTION, message, help).at("unnest"));
        if !is_one_level(unnest) {
            return refused(
                "this UNNEST takes several levels of a list apart at once",
                "write one UNNEST a level: FROM (SELECT user_id, unnest(lists) AS list FROM …) CROSS JOIN UNNEST(list) AS t(item)",
            );
        }
        let keeps_empty = unnest.options.expand_empty_as_null();
        let lists: Vec<usize> = unnest.list_type_columns.iter().map(|(index, _)| *index).collect();
        let Relation { node, columns: taken, .. } = self.taken_apart(relation, lists, keeps_empty)?;
        let mut columns = Vec::new();
        for index in 0..taken.len() {
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

    /// A row for each element of lists, which are written out side by side.
    pub(super) fn taken_apart(
        &mut self,
        relation: Relation,
        lists: Vec<usize>,
        keeps_empty: bool,
    ) -> Result<Relation, Refusal> {
        // An element may be in a list twice, unless it is one that is known.
        let telling = lists.iter().copied().filter(|list| is_of_different(&relation.columns[*list]));
        let telling: Vec<usize> = telling.collect();
        let input = self.narrow(relation)?;
        let mut fields = Vec::new();
        for (index, field) in self.nodes[input.node].schema.fields().iter().enumerate() {
            let element = match field.data_type() {
                DataType::List(element) if lists.contains(&index) => element.data_type().clone(),
                _ if lists.contains(&index) => {
                    let message = "this is no list that streams";
                    return Err(
                        Refusal::new(codes::TABLE_FUNCTION, message, "UNNEST a column of an ARRAY type").at("unnest")
                    );
                }
                other => other.clone(),
            };
            fields.push(Field::new(field.name(), element, true));
        }
        if lists.is_empty() {
            return Ok(input);
        }
        let text = format!("unnest {} {lists:?} {keeps_empty}", self.facts[input.node].output);
        let rows = self.facts[input.node].unique.iter();
        let rows = rows.filter(|unique| !unique.iter().any(|column| lists.contains(column)));
        let with_element = |rows: &Vec<usize>| {
            let elements = telling.iter().map(|element| rows.iter().copied().chain([*element]).collect());
            elements.collect::<Vec<Vec<usize>>>()
        };
        let unique = rows.flat_map(with_element).collect();
        let dependences = self.dependences_without(input.node, &lists);
        let node = self.over(input.node, &text, NodeKind::Unnest { lists, keeps_empty }, fields, unique);
        self.facts[node].dependences = dependences;
        Ok(self.whole(node))
    }
}

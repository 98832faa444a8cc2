//! Rows of which nothing fails: the operator that leaves the others out.

use datafusion::common::DataFusionError;
use datafusion::logical_expr::Expr;

use super::{Compiler, Refusal, Relation, substitute};
use crate::plan::flow::{NodeKind, Soundness};
use crate::plan::sound::Sound;

impl Compiler<'_> {
    /// Bounds by the clock stay above: whether a row fails does not depend on when it is looked at.
    pub(super) fn sound(&mut self, sound: &Sound) -> Result<Relation, Refusal> {
        let relation = self.relation(&sound.input)?;
        let relation = self.settled(relation)?;
        let schema = sound.input.schema();
        let over_columns = |expr: &Expr| substitute(expr, schema, &relation.columns);
        let failures = sound.failures.iter().map(over_columns).collect::<Result<Vec<_>, _>>()?;
        let places = sound.place.iter().map(over_columns).collect::<Result<Vec<_>, _>>()?;
        let width = relation.columns.len();
        let mut exprs = relation.columns.clone();
        for expr in relation.bounds.iter().map(|(row, ..)| row).chain(&failures).chain(&places) {
            if !exprs.contains(expr) {
                exprs.push(expr.clone());
            }
        }
        let input = self.map(relation.node, &exprs, &relation.filters)?;
        let position = |expr: &Expr| {
            let found = exprs.iter().position(|column| column == expr);
            found.ok_or_else(|| Refusal::from(DataFusionError::Internal(format!("{expr} is not among the columns"))))
        };
        let [partition, offset, timestamp] = places.as_slice() else {
            return Err(DataFusionError::Internal("a place has three parts".to_string()).into());
        };
        let soundness = Soundness {
            topic: self.stream(&sound.stream)?.topic.clone(),
            stream: sound.stream.clone(),
            failures: failures.iter().map(position).collect::<Result<_, _>>()?,
            texts: sound.texts.clone(),
            partition: position(partition)?,
            offset: position(offset)?,
            timestamp: position(timestamp)?,
        };
        let text = format!("sound {} {soundness:?}", self.facts[input].output);
        let fields = self.nodes[input].schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let unique = self.facts[input].unique.clone();
        let node = self.over(input, &text, NodeKind::Sound(soundness), fields, unique);
        let column = |expr: &Expr| Ok(Expr::Column(self.column(node, position(expr)?)));
        let bounds =
            relation.bounds.iter().map(|(row, comparison, clock)| Ok((column(row)?, *comparison, clock.clone())));
        Ok(Relation {
            node,
            bounds: bounds.collect::<Result<_, Refusal>>()?,
            columns: exprs[..width].iter().map(column).collect::<Result<_, Refusal>>()?,
            filters: vec![],
        })
    }
}

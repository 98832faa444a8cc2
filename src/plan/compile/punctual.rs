//! Windows that close: the operator that leaves late events out, and watermark bounds that are put above an aggregate.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::Expr;

use super::clocked::Comparing;
use super::{Compiler, Facts, Refusal, Relation};
use crate::catalog::Stream;
use crate::plan::clock::Comparison;
use crate::plan::flow::{FlowNode, NodeIndex, NodeKind, Punctuality, fingerprint};
use crate::plan::watermark;

impl Compiler<'_> {
    /// The records of a stream that are not late.
    pub(super) fn punctual(
        &mut self,
        source: NodeIndex,
        stream: &Stream,
        late_after: i64,
    ) -> Result<NodeIndex, Refusal> {
        let Some(time) = &stream.time else {
            return Err(DataFusionError::Internal(format!("`{}` has no event time", stream.name)).into());
        };
        let schema = stream.schema();
        let place = |column: &str| schema.index_of(column).map_err(DataFusionError::from);
        let punctuality = Punctuality {
            stream: stream.name.clone(),
            topic: stream.topic.clone(),
            time: place(&time.column)?,
            partition: place("_partition")?,
            offset: place("_offset")?,
            timestamp: place("_timestamp")?,
            late_after,
            lateness: i64::try_from(time.lateness.as_nanos()).unwrap_or(i64::MAX),
        };
        let facts = self.facts[source].clone();
        let output = fingerprint(&format!("punctual {} {punctuality:?}", facts.output));
        let node = FlowNode {
            fingerprint: output.clone(),
            inputs: vec![source],
            kind: NodeKind::Punctual(punctuality),
            schema: Arc::clone(&self.nodes[source].schema),
            append_only: true,
        };
        Ok(self.push(node, Facts { output, ..facts }))
    }

    /// Takes those bounds by watermarks out of a relation that say the same of its groups, over the columns of the groups:
    /// which are shown is then asked of one row a group, and not of every event.
    pub(super) fn bounds_of_groups(relation: &mut Relation, keys: &[Expr]) -> Vec<Comparing> {
        let mut of_groups = Vec::new();
        relation.bounds.retain(|(row, comparison, clock_side)| {
            let of_group = watermark::stream_of(clock_side).and_then(|_| over_keys(row, keys));
            let stays = of_group.is_none();
            of_groups.extend(of_group.map(|row| (row, *comparison, clock_side.clone())));
            stays
        });
        of_groups
    }

    /// Takes those bounds by watermarks out of the inputs of a union that all of them have of one column.
    pub(super) fn bounds_of_all(relations: &mut [Relation]) -> Vec<(usize, Comparison, Expr)> {
        let of_columns = |relation: &Relation| -> Vec<(usize, Comparison, Expr)> {
            let of_column = |(row, comparison, clock_side): &Comparing| {
                watermark::stream_of(clock_side)?;
                let column = relation.columns.iter().position(|column| column == row)?;
                Some((column, *comparison, clock_side.clone()))
            };
            relation.bounds.iter().filter_map(of_column).collect()
        };
        let mut all: Vec<Vec<(usize, Comparison, Expr)>> = relations.iter().map(of_columns).collect();
        let mut common = all.pop().unwrap_or_default();
        common.retain(|bound| all.iter().all(|others| others.contains(bound)));
        for relation in relations {
            let Relation { columns, bounds, .. } = relation;
            bounds.retain(|(row, comparison, clock_side)| {
                !common
                    .iter()
                    .any(|(column, with, side)| columns[*column] == *row && with == comparison && side == clock_side)
            });
        }
        common
    }
}

/// The expression over the columns of an aggregate, if it reads nothing but its keys.
fn over_keys(expr: &Expr, keys: &[Expr]) -> Option<Expr> {
    let mut reads_more = false;
    let replaced = expr.clone().transform_down(|expr| {
        if let Some(key) = keys.iter().position(|key| *key == expr) {
            let column = Expr::Column(Column::from_name(format!("#{key}")));
            return Ok(Transformed::new(column, true, TreeNodeRecursion::Jump));
        }
        reads_more |= matches!(expr, Expr::Column(_));
        Ok(Transformed::no(expr))
    });
    replaced.ok().map(|replaced| replaced.data).filter(|_| !reads_more)
}

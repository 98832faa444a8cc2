//! An operator that panics sets aside the tags over it, and no others.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono_tz::Asia::Shanghai;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{Volatility, create_udf};
use datafusion::physical_expr::ScalarFunctionExpr;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tagflow::operator::OperatorError;
use tagflow::operator::cold::{Scratch, ScratchFile};
use tagflow::operator::graph::{Graph, Room};
use tagflow::operator::state::Extent;
use tagflow::plan::flow::{FlowPlan, NodeKind};

use crate::bounded::plan;
use crate::events;

#[test]
fn operator_that_panics_fails_its_own_tags() {
    let catalog = events::catalog(Shanghai);
    let sound = plan("SELECT user_id, COUNT(*) AS n FROM page_views GROUP BY user_id", &catalog, Shanghai);
    let wrong = "SELECT user_id, COUNT(*) AS n FROM orders WHERE quantity > 1 GROUP BY user_id";
    let mut wrong = FlowPlan::clone(&plan(wrong, &catalog, Shanghai));
    let panics =
        create_udf("panics", vec![], DataType::Boolean, Volatility::Volatile, Arc::new(|_| panic!("on purpose")));
    let returned = Arc::new(Field::new("panics", DataType::Boolean, true));
    let panics = ScalarFunctionExpr::new("panics", Arc::new(panics), vec![], returned, Arc::new(ConfigOptions::new()));
    let panics: Arc<dyn datafusion::physical_expr::PhysicalExpr> = Arc::new(panics);
    let filters = wrong.nodes.iter_mut().filter_map(|node| match &mut node.kind {
        NodeKind::Map { filter, .. } => filter.first_mut(),
        NodeKind::Aggregate { member, .. } => member.filter.first_mut(),
        _ => None,
    });
    let changed = filters.map(|filter| filter.expr = Arc::clone(&panics)).count();
    assert_eq!(changed, 1, "{wrong:?}");
    let mut graph = Graph::new(2, Shanghai);
    graph.add_tag("sound", &sound).unwrap();
    graph.add_tag("wrong", &Arc::new(wrong)).unwrap();
    let now = 1_790_000_000_000;
    let mut random = StdRng::seed_from_u64(1);
    let mut batch = |stream: &str| events::batch(&catalog.streams[stream], 40, now, 0, &mut random);
    let batches = ["orders", "page_views"].map(|stream| (stream.to_string(), batch(stream)));
    let mut deltas = graph.step(&HashMap::from(batches), now * 1_000_000);
    match deltas.remove("wrong") {
        Some(Err(OperatorError::Panicked(text))) => assert_eq!(text, "on purpose"),
        other => panic!("{other:?}"),
    }
    assert!(deltas.remove("sound").unwrap().unwrap().num_rows() > 0);
    graph.remove_tag("wrong");
    let later = graph.step(&HashMap::new(), (now + 1) * 1_000_000);
    assert_eq!(later["sound"].as_ref().unwrap().num_rows(), 0);
}

/// Panics once, and then has no room.
#[derive(Debug, Default)]
struct Faulty(AtomicBool);

impl Scratch for Faulty {
    fn file(&self) -> io::Result<Arc<dyn ScratchFile>> {
        assert!(self.0.swap(true, Ordering::SeqCst), "on purpose");
        Err(io::ErrorKind::StorageFull.into())
    }
}

#[test]
fn operator_that_panics_while_a_checkpoint_is_taken_fails_its_own_tags() {
    let catalog = events::catalog(Shanghai);
    let mut graph = Graph::new(2, Shanghai);
    for stream in ["orders", "page_views"] {
        let sql = format!("SELECT user_id, COUNT(*) AS n FROM {stream} GROUP BY user_id");
        graph.add_tag(stream, &plan(&sql, &catalog, Shanghai)).unwrap();
    }
    let now = 1_790_000_000_000;
    let mut random = StdRng::seed_from_u64(1);
    let mut batch = |stream: &str| events::batch(&catalog.streams[stream], 40, now, 0, &mut random);
    let batches = ["orders", "page_views"].map(|stream| (stream.to_string(), batch(stream)));
    graph.step(&HashMap::from(batches), now * 1_000_000);
    // All that can is to leave memory before all of it is written.
    graph.set_room(Room { scratch: Arc::new(Faulty::default()), bytes: 0, is_urgent: false });
    let fault = graph.changes().unwrap_err();
    assert!(matches!(&fault.error, OperatorError::Panicked(text) if text == "on purpose"), "{fault:?}");
    assert_eq!(fault.tags.len(), 1, "{fault:?}");
    graph.remove_tag(&fault.tags[0]);
    let (state, _) = graph.changes().unwrap();
    let all: usize = state.values().flatten().map(|part| part.batch.num_rows()).sum();
    assert!(all > 0 && state.values().flatten().all(|part| matches!(part.extent, Extent::Whole)), "{state:?}");
}

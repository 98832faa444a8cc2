//! State that must not grow with the number of events.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use chrono_tz::Asia::Shanghai;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tagflow::operator::graph::Graph;
use tagflow::plan::compile::{KeyRequirement, compile};
use tagflow::plan::flow::NodeKind;
use tagflow::plan::session::{optimise, session_state};

use crate::events;

/// Rows kept by all operators of a kind after so many days of events.
fn rows_kept(sql: &str, days: i64, kind: impl Fn(&NodeKind) -> bool) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let catalog = events::catalog(Shanghai);
    let state = session_state(&catalog, Shanghai).unwrap();
    let logical = runtime.block_on(state.create_logical_plan(sql)).and_then(|plan| optimise(&state, plan)).unwrap();
    let key = KeyRequirement { entity: "user".into(), column: "user_id".into(), data_type: DataType::Int64 };
    let plan = Arc::new(compile(&logical, &catalog, Shanghai, &key).unwrap());
    let mut graph = Graph::new(2, Shanghai);
    graph.add_tag("tag", &plan).unwrap();
    graph.note_partitions(events::partitions(&catalog).iter());
    let mut random = StdRng::seed_from_u64(1);
    for day in 0..days {
        let now = 1_790_000_000_000 + day * events::DAY;
        let batches = catalog
            .streams
            .values()
            .map(|stream| (stream.name.clone(), events::batch(stream, 40, now, day * 40, &mut random)));
        let batches: HashMap<_, _> = batches.collect();
        graph.step(&batches, now * 1_000_000)["tag"].as_ref().unwrap();
    }
    let of_kind: Vec<&str> =
        plan.nodes.iter().filter(|node| kind(&node.kind)).map(|node| node.fingerprint.as_str()).collect();
    assert!(!of_kind.is_empty(), "{sql}");
    graph.sizes().iter().filter(|size| of_kind.contains(&size.node.as_str())).map(|size| size.rows).sum()
}

#[test]
fn first_rows_of_events_are_all_that_is_kept() {
    let sql = "SELECT user_id, n, order_id FROM (SELECT user_id, order_id, ROW_NUMBER() OVER (PARTITION BY user_id \
               ORDER BY order_id DESC) AS n FROM orders) WHERE n <= 3";
    // 25 users and those without a key; equal rows are kept as one.
    let kept = rows_kept(sql, 100, |kind| matches!(kind, NodeKind::TopRows { .. }));
    assert!((26..=3 * 26).contains(&kept), "{kept} rows");
    let ranked = "SELECT user_id, COUNT(*) AS n FROM (SELECT user_id, RANK() OVER (PARTITION BY user_id ORDER BY order_id) AS r \
                  FROM orders) WHERE r <= 4 GROUP BY user_id";
    let (some, more) =
        [60, 200].map(|days| rows_kept(ranked, days, |kind| matches!(kind, NodeKind::TopRows { .. }))).into();
    assert!(more <= some + 30, "{some} rows after 60 days, {more} after 200");
}

#[test]
fn resent_records_are_known_by_those_of_the_last_hours_alone() {
    let sql = "SELECT user_id, COUNT(*) AS n FROM payments GROUP BY user_id";
    let [some, more] = [300, 900].map(|days| rows_kept(sql, days, |kind| matches!(kind, NodeKind::Unique { .. })));
    // What is forgotten is looked for every 4096 records; five hours hold some 60.
    assert!(more < 4096 + 1000, "{some} event times after 12,000 records, {more} after 36,000");
}

#[test]
fn bound_on_one_side_of_an_interval_join_bounds_both() {
    let sql = "SELECT o.user_id, COUNT(*) AS n FROM orders o JOIN page_views v ON o.user_id = v.user_id \
               AND v.view_time BETWEEN o.order_time - INTERVAL '2' DAY AND o.order_time + INTERVAL '2' DAY \
               WHERE o.order_time >= NOW() - INTERVAL '7' DAY GROUP BY o.user_id";
    let is_join = |kind: &NodeKind| matches!(kind, NodeKind::Join(_));
    let (some, more) = [60, 200].map(|days| rows_kept(sql, days, is_join)).into();
    // Events of the year 9999 are never too old.
    assert!(more < some + 200, "{some} rows after 60 days, {more} after 200");
}

//! State that must not grow with the number of events.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, TimestampMillisecondArray, new_null_array};
use arrow::datatypes::DataType;
use chrono_tz::America::New_York;
use chrono_tz::Asia::Shanghai;
use chrono_tz::Tz;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tagflow::catalog::Catalog;
use tagflow::operator::graph::Graph;
use tagflow::plan::compile::{KeyRequirement, compile};
use tagflow::plan::flow::{FlowPlan, NodeKind};
use tagflow::plan::session::{optimise, session_state};
use tagflow::plan::steps::most_tiles;

use crate::events;

pub(crate) fn plan(sql: &str, catalog: &Catalog, timezone: Tz) -> Arc<FlowPlan> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let state = session_state(catalog, timezone).unwrap();
    let logical = runtime.block_on(state.create_logical_plan(sql)).and_then(|plan| optimise(&state, plan)).unwrap();
    let key = KeyRequirement { entity: "user".into(), column: "user_id".into(), data_type: DataType::Int64 };
    Arc::new(compile(&logical, catalog, timezone, &key).unwrap())
}

/// Rows kept by all operators of a kind after so many days of events.
fn rows_kept(sql: &str, days: i64, kind: impl Fn(&NodeKind) -> bool) -> usize {
    let catalog = events::catalog(Shanghai);
    let plan = plan(sql, &catalog, Shanghai);
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
    rows_of(&graph, &plan, kind)
}

fn rows_of(graph: &Graph, plan: &FlowPlan, kind: impl Fn(&NodeKind) -> bool) -> usize {
    let of_kind: Vec<&str> =
        plan.nodes.iter().filter(|node| kind(&node.kind)).map(|node| node.fingerprint.as_str()).collect();
    assert!(!of_kind.is_empty(), "{plan:?}");
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

/// The tiles of three users after so many orders of each of the last `days` days, and as many as `explain` allows them.
fn tiles(sql: &str, timezone: Tz, days: i64, orders_a_day: usize) -> (usize, usize) {
    let catalog = events::catalog(timezone);
    let plan = plan(sql, &catalog, timezone);
    let mut graph = Graph::new(2, timezone);
    graph.add_tag("tag", &plan).unwrap();
    let mut random = StdRng::seed_from_u64(1);
    // Over a change of the clocks of New York.
    let begin = 1_772_000_000_000;
    for day in 0..days {
        let now = begin + day * events::DAY;
        let batch = orders(&catalog, orders_a_day, now, &mut random);
        graph.step(&HashMap::from([("orders".to_string(), batch)]), now * 1_000_000)["tag"].as_ref().unwrap();
    }
    let allowed = plan.nodes.iter().find_map(|node| match &node.kind {
        NodeKind::Tiles(tiles) => most_tiles(tiles),
        _ => None,
    });
    let rows_are_kept = |node: &NodeKind| matches!(node, NodeKind::ClockFilter { .. } | NodeKind::ClockFlags { .. });
    assert!(!plan.nodes.iter().any(|node| rows_are_kept(&node.kind)), "{sql}");
    (rows_of(&graph, &plan, |kind| matches!(kind, NodeKind::Tiles(_))), 3 * allowed.unwrap())
}

/// Orders of three users in the day before `now`, wall time of a zone west of UTC.
fn orders(catalog: &Catalog, rows: usize, now: i64, random: &mut StdRng) -> RecordBatch {
    let schema = catalog.streams["orders"].schema();
    let column = |field: &arrow::datatypes::FieldRef| -> ArrayRef {
        match field.name().as_str() {
            "user_id" => Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| row % 3))),
            "amount" => {
                let amounts = Decimal128Array::from_iter_values((0..rows as i128).map(|row| row % 1000));
                Arc::new(amounts.with_precision_and_scale(12, 2).unwrap())
            }
            "order_time" => {
                let time = |_| now - random.random_range(0..events::DAY);
                Arc::new(TimestampMillisecondArray::from_iter_values((0..rows).map(time)))
            }
            _ => new_null_array(field.data_type(), rows),
        }
    };
    let columns = schema.fields().iter().map(column).collect();
    let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(nullable.collect::<Vec<_>>())), columns).unwrap()
}

#[test]
fn thirty_days_by_the_hour_are_720_tiles_whatever_the_number_of_events() {
    let sql = "SELECT user_id, SUM(amount) AS s, COUNT(*) AS n, MAX(amount) AS m FROM orders \
               WHERE order_time >= date_trunc('hour', NOW()) - INTERVAL '720' HOUR GROUP BY user_id";
    // 100,000 events; the hour that has begun is one more.
    let (kept, allowed) = tiles(sql, Shanghai, 50, 2_000);
    assert_eq!(allowed, 3 * 721);
    assert!((3 * 700..=allowed).contains(&kept), "{kept} tiles");
    let (again, _) = tiles(sql, Shanghai, 200, 500);
    assert!(again <= allowed, "{again} tiles");
}

#[test]
fn sums_of_four_lengths_side_by_side_are_one_state() {
    let sum =
        |days: u32| format!("SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '{days}' DAY) AS d{days}");
    let sql = format!("SELECT user_id, {}, {}, {}, {} FROM orders GROUP BY user_id", sum(1), sum(7), sum(30), sum(90));
    for timezone in [Shanghai, New_York] {
        let (kept, allowed) = tiles(&sql, timezone, 130, 100);
        // A tile a day, and the day that has begun.
        assert!(allowed <= 3 * 93, "{allowed} are allowed");
        assert!((3 * 88..=allowed).contains(&kept), "{kept} tiles, {timezone}");
    }
    // Extremes keep what no longer turns as one tile a key.
    let (kept, allowed) = tiles(&sql.replace("SUM", "MAX"), Shanghai, 130, 100);
    assert!((3 * 89..=allowed).contains(&kept), "{kept} tiles");
}

#[test]
fn steps_of_a_month_and_of_a_minute_are_counted() {
    let sql = "SELECT user_id, COUNT(*) AS n FROM orders WHERE order_time >= {} GROUP BY user_id";
    let allowed = |clock: &str| tiles(&sql.replace("{}", clock), New_York, 1, 10).1 / 3;
    assert_eq!(allowed("CURRENT_DATE - INTERVAL '30' DAY"), 31);
    assert_eq!(allowed("CURRENT_DATE"), 1);
    assert_eq!(allowed("CURRENT_DATE - INTERVAL '1' MONTH"), 32);
    assert_eq!(allowed("date_trunc('month', NOW()) - INTERVAL '2' MONTH"), 3);
    assert_eq!(allowed("date_trunc('minute', NOW()) - INTERVAL '2' HOUR"), 121);
    assert_eq!(allowed("CURRENT_DATE - INTERVAL '400' DAY"), 401);
}

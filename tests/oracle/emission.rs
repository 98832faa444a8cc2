//! Windows that close, and events that are too late for them.

use chrono_tz::Tz;
use tagflow::plan::flow::{FlowNode, NodeKind};

use crate::harness::Run;
use crate::seeds;

/// Name, header, query.
const TAGS: &[(&str, &str, &str)] = &[
    (
        "daily",
        "emit = \"on_close\"",
        "SELECT user_id, window_start, window_end, COUNT(*) AS orders, SUM(amount) AS spent
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' DAY))
         GROUP BY user_id, window_start, window_end",
    ),
    (
        "daily_by_start_alone",
        "emit = \"on_close\"\nallowed_lateness = \"1h\"",
        "SELECT user_id, window_start, MAX(amount) AS most
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' DAY))
         WHERE status = 'paid' GROUP BY user_id, window_start",
    ),
    (
        "best_closed_day",
        "emit = \"on_close\"",
        "SELECT user_id, MAX(orders) AS most FROM (
             SELECT user_id, window_start, COUNT(*) AS orders
             FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' DAY))
             GROUP BY user_id, window_start)
         GROUP BY user_id",
    ),
    (
        "rows_of_closed_windows",
        "emit = \"on_close\"",
        "SELECT user_id, COUNT(DISTINCT category) AS categories
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '6' HOUR)) GROUP BY user_id",
    ),
    (
        "hopping",
        "emit = \"on_close\"\nallowed_lateness = \"1d\"",
        "SELECT user_id, window_end, COUNT(*) AS views, SUM(duration_ms) AS spent
         FROM TABLE(HOP(TABLE page_views, DESCRIPTOR(view_time), INTERVAL '12' HOUR, INTERVAL '1' DAY))
         WHERE page <> 'home' GROUP BY user_id, window_end",
    ),
    (
        "sessions",
        "emit = \"on_close\"",
        "SELECT user_id, window_start, window_end, COUNT(*) AS views
         FROM TABLE(SESSION(TABLE page_views PARTITION BY user_id, DESCRIPTOR(view_time), INTERVAL '6' HOUR))
         GROUP BY user_id, window_start, window_end",
    ),
    (
        "recent_closed_days",
        "emit = \"on_close\"",
        "SELECT user_id, SUM(spent) AS spent FROM (
             SELECT user_id, window_end, SUM(amount) AS spent
             FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' DAY))
             GROUP BY user_id, window_end)
         WHERE window_end >= CURRENT_DATE - INTERVAL '30' DAY GROUP BY user_id",
    ),
    (
        "recent_rows_of_closed_windows",
        "emit = \"on_close\"",
        "SELECT user_id, SUM(amount) AS spent, COUNT(*) AS orders
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '6' HOUR))
         WHERE order_time >= CURRENT_DATE - INTERVAL '7' DAY GROUP BY user_id",
    ),
    (
        "of_a_renaming_query",
        "emit = \"on_close\"",
        "SELECT user_id, window_start, COUNT(*) AS n
         FROM TABLE(TUMBLE((SELECT user_id, order_time AS happened FROM orders WHERE amount > 0), DESCRIPTOR(happened), INTERVAL '1' DAY))
         GROUP BY user_id, window_start",
    ),
    (
        "of_two_streams",
        "emit = \"on_close\"\nallowed_lateness = \"1h\"",
        "SELECT user_id, window_start, COUNT(*) AS n
         FROM TABLE(TUMBLE((SELECT user_id, order_time AS happened FROM orders UNION ALL SELECT user_id, view_time FROM page_views),
                           DESCRIPTOR(happened), INTERVAL '1' DAY))
         GROUP BY user_id, window_start",
    ),
    (
        "joined_in_a_window",
        "emit = \"on_close\"",
        "SELECT o.user_id, o.window_start, COUNT(*) AS n
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' DAY)) o
         JOIN TABLE(TUMBLE(TABLE page_views, DESCRIPTOR(view_time), INTERVAL '1' DAY)) v
           ON o.user_id = v.user_id AND o.window_start = v.window_start
         GROUP BY o.user_id, o.window_start",
    ),
    (
        "until_late",
        "allowed_lateness = \"1d\"",
        "SELECT user_id, window_start, COUNT(*) AS n, SUM(weight) AS weight
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' DAY))
         GROUP BY user_id, window_start",
    ),
    (
        "for_good",
        "emit = \"on_change\"",
        "SELECT user_id, window_start, COUNT(*) AS n
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' DAY))
         GROUP BY user_id, window_start",
    ),
    (
        "of_a_tag_that_closes",
        "emit = \"on_change\"",
        "SELECT user_id, COUNT(*) AS days, MAX(spent) AS best FROM tags.daily GROUP BY user_id",
    ),
    (
        "of_a_stream_with_resent_records",
        "emit = \"on_close\"\nallowed_lateness = \"1h\"",
        "SELECT user_id, window_start, COUNT(*) AS n, SUM(amount) AS spent
         FROM TABLE(TUMBLE(TABLE payments, DESCRIPTOR(pay_time), INTERVAL '1' HOUR))
         WHERE method = 'card' GROUP BY user_id, window_start",
    ),
    (
        "shown_early",
        "emit = \"on_close\"\nearly = \"1d\"",
        "SELECT user_id, window_start, COUNT(*) AS n, MIN(amount) AS least
         FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '7' DAY))
         GROUP BY user_id, window_start",
    ),
    (
        "above_the_average_of_a_step",
        "recompute_every = \"1d\"",
        "SELECT user_id, SUM(amount) AS spent FROM orders GROUP BY user_id
         HAVING SUM(amount) > (SELECT AVG(spent) FROM (SELECT user_id, SUM(amount) AS spent FROM orders GROUP BY user_id))",
    ),
    (
        "tenth_of_a_step",
        "recompute_every = \"1h\"",
        "SELECT user_id, NTILE(10) OVER (ORDER BY spent) AS tenth
         FROM (SELECT user_id, SUM(amount) AS spent FROM orders GROUP BY user_id)",
    ),
    (
        "share_of_all_and_own_latest",
        "recompute_every = \"1d\"",
        "SELECT o.user_id, COUNT(*) AS n, MAX(t.total) AS total
         FROM orders o CROSS JOIN (SELECT COUNT(*) AS total FROM page_views) t
         WHERE o.amount = (SELECT MAX(i.amount) FROM orders i WHERE i.user_id = o.user_id) GROUP BY o.user_id",
    ),
];

/// Tags as they stand in files.
fn tags() -> Vec<(String, String)> {
    let file = |(name, header, sql): &(&str, &str, &str)| {
        (
            name.to_string(),
            format!(
                "/* tag
{header}
*/
{sql}"
            ),
        )
    };
    TAGS.iter().map(file).collect()
}

fn planned(seed: u64, timezone: Tz, tags: &[(String, String)]) -> Run {
    let run = Run::of_accepted(seed, timezone, tags);
    assert_eq!(run.tags(), tags.len(), "some are refused");
    run
}

#[test]
fn closed_windows_equal_the_batch_answer_over_punctual_events() {
    for seed in seeds() {
        let timezone = if seed % 2 == 0 { chrono_tz::Asia::Shanghai } else { chrono_tz::America::New_York };
        println!("seed {seed}, {timezone}: run it alone with TAGFLOW_ORACLE_SEED={seed}");
        planned(seed, timezone, &tags()).check();
    }
}

#[test]
fn closed_window_shows_once_and_does_not_change() {
    let mut shown = 0;
    for seed in seeds() {
        let mut run = planned(seed, chrono_tz::Asia::Shanghai, &tags()[..1]);
        run.check();
        assert_eq!(run.retractions("daily"), 0, "seed {seed}");
        shown += run.rows("daily");
    }
    assert!(shown > 0, "no window has closed");
}

#[test]
fn groups_are_asked_whether_they_have_closed_and_not_their_events() {
    let run = planned(1, chrono_tz::Asia::Shanghai, &tags());
    let waits_for_groups = |tag: &str| {
        let plan = run.plan(tag);
        let closing = |node: &&FlowNode| match &node.kind {
            NodeKind::ClockFilter { bounds } => bounds.iter().any(|bound| bound.clock.stream().is_some()),
            _ => false,
        };
        let closing = plan.nodes.iter().find(closing).expect("a node at which windows close");
        let mut below = &plan.nodes[closing.inputs[0]];
        while let NodeKind::Map { .. } = below.kind {
            below = &plan.nodes[below.inputs[0]];
        }
        matches!(below.kind, NodeKind::Aggregate { .. })
    };
    for tag in ["daily", "daily_by_start_alone", "best_closed_day", "hopping", "recent_closed_days"] {
        assert!(waits_for_groups(tag), "{}", tagflow::plan::explain::describe(tag, run.plan(tag), &[], &[]));
    }
    assert!(!waits_for_groups("rows_of_closed_windows"));
    let keeps_tiles = |tag: &str| run.plan(tag).nodes.iter().any(|node| matches!(node.kind, NodeKind::Tiles(_)));
    assert!(keeps_tiles("recent_closed_days"), "a bound by the day keeps the events of closed windows");
}

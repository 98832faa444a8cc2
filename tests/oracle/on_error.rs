//! Tags that go on where a row fails, over random events.

use crate::harness::Run;
use crate::seeds;

/// What is done of a failing row, and a query of which many rows fail.
const TAGS: &[(&str, &str)] = &[
    ("null", "SELECT user_id, SUM(100 / quantity) AS each, COUNT(order_id % quantity) AS n FROM orders GROUP BY user_id"),
    ("null", "SELECT user_id, MAX(amount / quantity) AS most, MIN(CAST(category AS INT)) AS code FROM orders GROUP BY user_id"),
    ("null", "SELECT user_id, SUM(amount) / SUM(quantity - 1) AS each FROM orders WHERE order_time >= NOW() - INTERVAL '7' DAY GROUP BY user_id"),
    ("null", "SELECT o.user_id, COUNT(*) AS n FROM orders o JOIN page_views v ON v.user_id = o.user_id AND v.duration_ms / o.quantity > 100
              GROUP BY o.user_id"),
    ("null", "SELECT user_id, 10 / (quantity - 1) AS part FROM (
                SELECT user_id, quantity, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY order_id / quantity, order_id) AS place FROM orders)
              WHERE place = 1"),
    ("skip", "SELECT user_id, SUM(100 / quantity) AS each, COUNT(order_id % (quantity - 1)) AS n FROM orders GROUP BY user_id"),
    ("skip", "SELECT user_id, COUNT(*) AS n FROM orders WHERE status = 'paid' AND amount / quantity > 20 GROUP BY user_id"),
    ("skip", "SELECT user_id, 100 / (quantity - 2) AS bucket, SUM(weight) AS total FROM orders
              WHERE order_time >= CURRENT_DATE - INTERVAL '20' DAY GROUP BY user_id, bucket"),
    ("skip", "SELECT user_id, COUNT(*) FILTER (WHERE 8 / quantity > 2) AS small,
                     SUM(CASE WHEN quantity > 1 THEN 10 / (quantity - 2) END) AS some
              FROM orders WHERE order_time >= NOW() - INTERVAL '9' DAY GROUP BY user_id"),
    ("skip", "SELECT user_id, amount FROM (
                SELECT user_id, amount, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY 10 / quantity DESC, order_id) AS place FROM orders)
              WHERE place = 1"),
    ("skip", "SELECT user_id, window_start, SUM(10 / quantity) AS each
              FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' DAY)) GROUP BY user_id, window_start"),
];

#[test]
fn tags_that_go_on_where_rows_fail_equal_their_batch_answer() {
    let text = |(at, (on_error, sql)): (usize, &(&str, &str))| {
        (format!("{on_error}_{at}"), format!("/* tag\non_error = \"{on_error}\"\n*/\n{sql}"))
    };
    let tags: Vec<(String, String)> = TAGS.iter().enumerate().map(text).collect();
    for seed in seeds() {
        println!("seed {seed}: run it alone with TAGFLOW_ORACLE_SEED={seed}");
        let mut run = Run::of_accepted(seed, chrono_tz::Asia::Shanghai, &tags);
        assert_eq!(run.tags(), TAGS.len(), "some are refused");
        run.check();
    }
}

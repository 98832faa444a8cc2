//! Every kind of SQL that streams, as tags of `user_id`.

pub const ALL: &[(&str, &str)] = &[
    ("count_all", "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id"),
    (
        "sums",
        "SELECT user_id, SUM(amount) AS a, SUM(quantity) AS q, SUM(weight) AS w, AVG(amount) AS aa, AVG(quantity) AS aq, \
         AVG(weight) AS aw FROM orders GROUP BY user_id",
    ),
    (
        "extremes",
        "SELECT user_id, MIN(amount) AS a, MAX(order_time) AS t, MIN(category) AS c, MAX(weight) AS w, MAX(quantity) AS q \
         FROM orders GROUP BY user_id",
    ),
    (
        "distinct_counts",
        "SELECT user_id, COUNT(DISTINCT category) AS c, COUNT(DISTINCT CAST(order_time AS DATE)) AS d, \
         COUNT(DISTINCT quantity) FILTER (WHERE status = 'paid') AS q FROM orders GROUP BY user_id",
    ),
    (
        "filtered",
        "SELECT user_id, SUM(amount) FILTER (WHERE status = 'paid') AS paid, COUNT(*) FILTER (WHERE status = 'refunded') AS r, \
         COUNT(amount) AS given FROM orders WHERE user_id IS NOT NULL AND quantity > 0 GROUP BY user_id",
    ),
    (
        "vip",
        "SELECT user_id, CASE WHEN SUM(amount) > 1000 THEN 'gold' WHEN SUM(amount) > 300 THEN 'silver' ELSE 'none' END AS level, \
         SUM(amount) / NULLIF(COUNT(*), 0) AS per_order FROM orders GROUP BY user_id",
    ),
    (
        "ordered_by_what_is_held_equal",
        "SELECT user_id, MIN(q) AS q, STRING_AGG(page, ',' ORDER BY page) AS pages FROM (SELECT user_id, page, CASE WHEN page NOT IN \
         (SELECT category FROM orders WHERE category IS NOT NULL) THEN 'cart' ELSE 'item' END AS q FROM page_views) v \
         WHERE q = page GROUP BY user_id",
    ),
    ("having", "SELECT user_id FROM orders GROUP BY user_id HAVING COUNT(*) BETWEEN 2 AND 5 AND SUM(amount) > 100"),
    ("distinct_users", "SELECT DISTINCT user_id FROM orders WHERE status = 'refunded'"),
    ("guarded_division", "SELECT user_id, SUM(100 / quantity) AS x FROM orders WHERE quantity <> 0 GROUP BY user_id"),
    (
        "per_day",
        "SELECT user_id, CAST(order_time AS DATE) AS day, SUM(amount) AS spend FROM orders WHERE order_time IS NOT NULL \
         GROUP BY user_id, CAST(order_time AS DATE)",
    ),
    (
        "week_by_row",
        "SELECT user_id, SUM(amount) AS spend, COUNT(*) AS n FROM orders WHERE order_time >= NOW() - INTERVAL '7' DAY GROUP BY user_id",
    ),
    (
        "month_by_day",
        "SELECT user_id, SUM(amount) AS spend, MAX(amount) AS most, COUNT(DISTINCT category) AS c, AVG(weight) AS w FROM orders \
         WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY GROUP BY user_id",
    ),
    (
        "days_since",
        "SELECT user_id, CURRENT_DATE - CAST(MAX(order_time) AS DATE) AS days, date_trunc('hour', NOW()) AS as_of, \
         CASE WHEN CURRENT_DATE - CAST(MAX(order_time) AS DATE) > 10 THEN 'lapsed' WHEN MAX(order_time) >= NOW() - INTERVAL '2' DAY \
         THEN 'active' ELSE 'quiet' END AS life FROM orders GROUP BY user_id",
    ),
    ("as_of", "SELECT user_id, CURRENT_DATE AS today FROM orders GROUP BY user_id"),
    (
        "same_month",
        "SELECT user_id, COUNT(*) AS n, AVG(CURRENT_DATE - CAST(order_time AS DATE)) AS age FROM orders \
         WHERE date_part('month', order_time) = date_part('month', CURRENT_DATE) GROUP BY user_id",
    ),
    (
        "by_age",
        "SELECT user_id, CURRENT_DATE - CAST(order_time AS DATE) AS age, COUNT(*) AS n, MAX(amount) AS most FROM orders \
         WHERE CURRENT_DATE - CAST(order_time AS DATE) < 20 GROUP BY user_id, CURRENT_DATE - CAST(order_time AS DATE)",
    ),
    (
        "decayed",
        "SELECT user_id, SUM(weight / (1 + (CURRENT_DATE - CAST(order_time AS DATE)))) AS decayed FROM orders \
         WHERE order_time >= CURRENT_DATE - INTERVAL '10' DAY AND order_time <= NOW() GROUP BY user_id \
         HAVING CURRENT_DATE - CAST(MIN(order_time) AS DATE) >= 2",
    ),
    (
        "by_hour",
        "SELECT user_id, COUNT(*) AS n FROM page_views WHERE view_time >= date_trunc('hour', NOW()) - INTERVAL '24' HOUR \
         AND view_time < date_trunc('hour', NOW()) GROUP BY user_id",
    ),
    (
        "between_clock",
        "SELECT user_id, SUM(amount) AS spend, MIN(weight) AS w FROM orders \
         WHERE order_time BETWEEN NOW() - INTERVAL '14' DAY AND NOW() - INTERVAL '1' DAY AND status = 'paid' GROUP BY user_id",
    ),
    (
        "today",
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE CAST(order_time AS DATE) = CURRENT_DATE GROUP BY user_id",
    ),
    (
        "months",
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE order_time > CURRENT_DATE - INTERVAL '1' MONTH AND order_time <= NOW() GROUP BY user_id",
    ),
    (
        "clock_moved_to_row",
        "SELECT user_id, SUM(quantity) AS q FROM orders WHERE order_time + INTERVAL '3' DAY > NOW() GROUP BY user_id",
    ),
    (
        "favourite",
        "SELECT user_id, category FROM (SELECT user_id, category, ROW_NUMBER() OVER (PARTITION BY user_id \
         ORDER BY n DESC, category) AS rn FROM (SELECT user_id, category, COUNT(*) AS n FROM orders \
         WHERE category IS NOT NULL GROUP BY user_id, category)) WHERE rn = 1",
    ),
    (
        "favourite_30d",
        "WITH counted AS (SELECT user_id, category, SUM(amount) AS spend FROM orders WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY \
         GROUP BY user_id, category), ranked AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY spend DESC NULLS LAST) AS rn FROM counted) \
         SELECT user_id, category, spend FROM ranked WHERE rn = 1 AND spend > 10",
    ),
    (
        "latest_device",
        "SELECT user_id, device, view_time FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY view_time DESC NULLS LAST) AS rn \
         FROM page_views WHERE user_id IS NOT NULL) WHERE rn = 1",
    ),
    (
        "touchpoints",
        "SELECT user_id, COUNT(*) AS n, MAX(at) AS last, MIN(kind) AS k FROM (SELECT user_id, order_time AS at, 'order' AS kind FROM orders \
         UNION ALL SELECT user_id, view_time, 'view' FROM page_views WHERE duration_ms > 10) GROUP BY user_id",
    ),
    (
        "union_window",
        "SELECT user_id, SUM(v) AS v FROM (SELECT user_id, quantity AS v, order_time AS t FROM orders UNION ALL \
         SELECT user_id, duration_ms, view_time FROM page_views) WHERE t >= NOW() - INTERVAL '10' DAY GROUP BY user_id",
    ),
    (
        "aggregate_of_aggregate",
        "SELECT user_id, MAX(spend) AS best_day, MIN(spend) AS worst_day, AVG(spend) AS mean, COUNT(*) AS days, COUNT(DISTINCT n) AS dn, SUM(w) AS w \
         FROM (SELECT user_id, CAST(order_time AS DATE) AS day, SUM(amount) AS spend, COUNT(*) AS n, SUM(weight) AS w FROM orders GROUP BY user_id, CAST(order_time AS DATE)) \
         GROUP BY user_id",
    ),
    (
        "clock_over_aggregate",
        "SELECT user_id, last_order FROM (SELECT user_id, MAX(order_time) AS last_order FROM orders GROUP BY user_id) \
         WHERE last_order >= NOW() - INTERVAL '20' DAY",
    ),
    (
        "lapsed",
        "SELECT user_id FROM (SELECT user_id, MAX(order_time) AS last_order FROM orders GROUP BY user_id) \
         WHERE last_order < NOW() - INTERVAL '5' DAY",
    ),
    (
        "lapsed_by_having",
        "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id HAVING MAX(order_time) < NOW() - INTERVAL '5' DAY AND COUNT(*) > 1",
    ),
    (
        "scalar_functions",
        "SELECT user_id, COUNT(DISTINCT upper(trim(category))) AS c, SUM(length(page)) AS p, MAX(date_part('hour', t)) AS h, \
         MIN(to_char(t, '%Y-%m')) AS m, COUNT(*) FILTER (WHERE category LIKE '%o%') AS o \
         FROM (SELECT user_id, category, 'x' AS page, order_time AS t FROM orders) GROUP BY user_id",
    ),
    (
        "grouped_by_expression",
        "SELECT user_id, quantity % 3 AS bucket, COALESCE(status, '?') AS s, COUNT(*) AS n FROM orders GROUP BY user_id, quantity % 3, COALESCE(status, '?')",
    ),
    (
        "night_owl",
        "SELECT user_id, COUNT(*) FILTER (WHERE date_part('hour', view_time) >= 22 OR date_part('hour', view_time) < 5) * 100 / COUNT(*) AS pct \
         FROM page_views GROUP BY user_id HAVING COUNT(*) > 1",
    ),
    (
        "first_order",
        "SELECT user_id, order_id, amount FROM (SELECT user_id, order_id, amount, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY order_time, order_id) AS rn \
         FROM orders WHERE order_time >= NOW() - INTERVAL '15' DAY) WHERE rn <= 1",
    ),
    (
        "top_three",
        "SELECT user_id, n, category, spend FROM (SELECT user_id, category, spend, ROW_NUMBER() OVER (PARTITION BY user_id \
         ORDER BY spend DESC NULLS LAST, category) AS n FROM (SELECT user_id, category, SUM(amount) AS spend FROM orders \
         GROUP BY user_id, category)) WHERE n <= 3",
    ),
    (
        "ranks",
        "SELECT user_id, category, RANK() OVER w AS r, DENSE_RANK() OVER w AS d, PERCENT_RANK() OVER w AS p, \
         CUME_DIST() OVER w AS c, NTILE(3) OVER w AS t, COUNT(*) OVER (PARTITION BY user_id) AS n FROM \
         (SELECT user_id, category, COUNT(*) AS orders FROM orders GROUP BY user_id, category) \
         WINDOW w AS (PARTITION BY user_id ORDER BY orders DESC)",
    ),
    (
        "days_since_the_order_before",
        "SELECT user_id, day, before, day - before AS gap, next, first, last, running FROM (SELECT user_id, day, \
         LAG(day) OVER w AS before, LEAD(day, 2, DATE '2000-01-01') OVER w AS next, FIRST_VALUE(day) OVER w AS first, \
         LAST_VALUE(day) OVER (PARTITION BY user_id ORDER BY day ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS last, \
         SUM(spend) OVER w AS running FROM \
         (SELECT user_id, CAST(order_time AS DATE) AS day, SUM(amount) AS spend FROM orders GROUP BY user_id, CAST(order_time AS DATE)) \
         WINDOW w AS (PARTITION BY user_id ORDER BY day))",
    ),
    (
        "longest_streak",
        "SELECT user_id, MAX(days) AS longest FROM (SELECT user_id, island, COUNT(*) AS days FROM \
         (SELECT user_id, date_part('epoch', day) / 86400 - ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY day) AS island \
         FROM (SELECT DISTINCT user_id, CAST(order_time AS DATE) AS day FROM orders WHERE order_time IS NOT NULL)) \
         GROUP BY user_id, island) GROUP BY user_id",
    ),
    (
        "window_over_events",
        "SELECT user_id, MAX(gap) AS longest_gap, SUM(big) AS big FROM (SELECT user_id, \
         order_time - LAG(order_time) OVER (PARTITION BY user_id ORDER BY order_time) AS gap, \
         CASE WHEN amount > AVG(amount) OVER (PARTITION BY user_id) THEN 1 ELSE 0 END AS big FROM orders \
         WHERE order_time < TIMESTAMP '2200-01-01 00:00:00') GROUP BY user_id",
    ),
    (
        "window_that_expires",
        "SELECT user_id, amount, order_id FROM (SELECT user_id, amount, order_id, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY amount DESC \
         NULLS LAST) AS n, RANK() OVER (PARTITION BY user_id ORDER BY quantity) AS r FROM orders WHERE order_time >= NOW() - INTERVAL '9' DAY) \
         WHERE n = 1 AND r < 3",
    ),
    (
        "share_of_all",
        "SELECT user_id, spend, RANK() OVER (ORDER BY spend DESC) AS place, NTILE(4) OVER (ORDER BY spend DESC, user_id) AS quarter \
         FROM (SELECT user_id, SUM(amount) AS spend FROM orders GROUP BY user_id)",
    ),
    (
        "statistics",
        "SELECT user_id, STDDEV(weight) AS s, STDDEV_POP(amount) AS p, VAR_POP(quantity) AS v, VAR_SAMP(weight) AS w, \
         CORR(weight, quantity) AS c, COVAR_SAMP(weight, quantity) AS cs, COVAR_POP(quantity, weight) AS cp, \
         REGR_SLOPE(quantity, order_id) AS slope, REGR_COUNT(weight, quantity) AS rc FROM orders GROUP BY user_id",
    ),
    (
        "medians",
        "SELECT user_id, MEDIAN(amount) AS m, MEDIAN(quantity) FILTER (WHERE status = 'paid') AS q, \
         percentile_cont(weight, 0.9) AS p, percentile_cont(0.25) WITHIN GROUP (ORDER BY weight) AS w, \
         COUNT(*) AS n, SUM(amount) AS s FROM orders GROUP BY user_id",
    ),
    (
        "bits_and_bools",
        "SELECT user_id, bool_and(status = 'paid') AS a, bool_or(amount > 100) AS o, bit_and(quantity) AS ba, bit_or(quantity) AS bo, \
         bit_xor(quantity) AS bx FROM orders GROUP BY user_id",
    ),
    ("list", "SELECT user_id, array_agg(category) AS c FROM orders WHERE category IS NOT NULL GROUP BY user_id"),
    ("list_with_nulls", "SELECT user_id, array_agg(category) AS c, COUNT(*) AS n FROM orders GROUP BY user_id"),
    ("different", "SELECT user_id, array_agg(DISTINCT category) AS c, SUM(amount) AS s FROM orders GROUP BY user_id"),
    ("ranked_list", "SELECT user_id, array_agg(category ORDER BY amount DESC) AS ranked FROM orders GROUP BY user_id"),
    (
        "joined_text",
        "SELECT user_id, string_agg(category, '|' ORDER BY order_time) AS text FROM orders WHERE category IS NOT NULL GROUP BY user_id",
    ),
    (
        "texts_in_two_orders",
        "SELECT user_id, STRING_AGG(DISTINCT category, '|' ORDER BY category) AS categories, COUNT(*) AS n, \
         ARRAY_AGG(status ORDER BY order_time DESC) AS states, FIRST_VALUE(order_id ORDER BY amount) AS cheapest \
         FROM orders GROUP BY user_id",
    ),
    ("states", "SELECT user_id, string_agg(DISTINCT status, ',') AS states FROM orders GROUP BY user_id"),
    (
        "first_and_last",
        "SELECT user_id, first_value(category ORDER BY order_time) AS f, last_value(category ORDER BY order_time NULLS FIRST) AS l, \
         first_value(amount ORDER BY quantity DESC, order_id) IGNORE NULLS AS a, nth_value(status, 2 ORDER BY order_id) AS second \
         FROM orders GROUP BY user_id",
    ),
    (
        "distinct_sums",
        "SELECT user_id, SUM(DISTINCT quantity) AS s, AVG(DISTINCT quantity) AS a, COUNT(DISTINCT category) AS c, \
         approx_distinct(category) AS d FROM orders GROUP BY user_id",
    ),
    (
        "median_that_expires",
        "SELECT user_id, MEDIAN(amount) AS m, array_agg(quantity ORDER BY order_time) AS q FROM orders \
         WHERE order_time >= NOW() - INTERVAL '12' DAY GROUP BY user_id",
    ),
    (
        "median_of_counts",
        "SELECT user_id, MEDIAN(n) AS m, STDDEV(spend) AS s FROM (SELECT user_id, category, COUNT(*) AS n, SUM(amount) AS spend FROM orders \
         GROUP BY user_id, category) GROUP BY user_id",
    ),
    (
        "joined_counts",
        "SELECT a.user_id, a.spend, b.views FROM (SELECT user_id, SUM(amount) AS spend FROM orders GROUP BY user_id) a \
         JOIN (SELECT user_id, COUNT(*) AS views FROM page_views GROUP BY user_id) b ON a.user_id = b.user_id",
    ),
    (
        "left_joined",
        "SELECT a.user_id, a.spend, b.views FROM (SELECT user_id, SUM(amount) AS spend FROM orders GROUP BY user_id) a \
         LEFT JOIN (SELECT user_id, COUNT(*) AS views FROM page_views GROUP BY user_id HAVING COUNT(*) > 2) b \
         ON a.user_id = b.user_id AND a.spend > b.views",
    ),
    (
        "right_joined",
        "SELECT b.user_id, a.spend, b.views FROM (SELECT user_id, SUM(amount) AS spend FROM orders WHERE status = 'paid' GROUP BY user_id) a \
         RIGHT JOIN (SELECT user_id, COUNT(*) AS views FROM page_views GROUP BY user_id) b ON a.user_id = b.user_id",
    ),
    (
        "full_joined",
        "SELECT COALESCE(a.user_id, b.user_id) AS user_id, a.spend, b.views FROM \
         (SELECT user_id, SUM(amount) AS spend FROM orders WHERE status = 'paid' GROUP BY user_id) a \
         FULL JOIN (SELECT user_id, COUNT(*) AS views FROM page_views WHERE page = 'home' GROUP BY user_id) b ON a.user_id = b.user_id",
    ),
    (
        "stream_joined_with_stream",
        "SELECT o.user_id, COUNT(*) AS n, SUM(o.amount) AS s FROM orders o JOIN page_views v ON o.user_id = v.user_id \
         AND v.view_time <= o.order_time AND v.view_time >= o.order_time - INTERVAL '2' DAY GROUP BY o.user_id",
    ),
    (
        "self_join",
        "SELECT a.user_id, COUNT(*) AS n FROM orders a JOIN orders b ON a.user_id = b.user_id AND a.category = b.category \
         AND a.order_id < b.order_id GROUP BY a.user_id",
    ),
    (
        "orders_without_view",
        "SELECT user_id, COUNT(*) AS n, SUM(amount) AS s FROM orders o WHERE NOT EXISTS \
         (SELECT 1 FROM page_views v WHERE v.user_id = o.user_id AND v.duration_ms > o.quantity * 30) GROUP BY user_id",
    ),
    (
        "orders_with_view",
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE user_id IN (SELECT user_id FROM page_views WHERE page = 'cart') GROUP BY user_id",
    ),
    (
        "with_view_or_large",
        "SELECT user_id, COUNT(*) AS n FROM orders o WHERE amount > 300 OR EXISTS \
         (SELECT 1 FROM page_views v WHERE v.user_id = o.user_id AND page = 'cart') GROUP BY user_id",
    ),
    (
        "above_own_mean",
        "SELECT o.user_id, COUNT(*) AS n FROM orders o WHERE o.amount > (SELECT AVG(b.amount) FROM orders b WHERE b.user_id = o.user_id) \
         GROUP BY o.user_id",
    ),
    (
        "joined_clocks",
        "SELECT a.user_id, a.week, b.month FROM (SELECT user_id, SUM(amount) AS week FROM orders WHERE order_time >= NOW() - INTERVAL '7' DAY \
         GROUP BY user_id) a LEFT JOIN (SELECT user_id, SUM(amount) AS month FROM orders WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY \
         GROUP BY user_id) b ON a.user_id = b.user_id",
    ),
    (
        "union_of_users",
        "SELECT user_id FROM orders WHERE status = 'paid' UNION SELECT user_id FROM page_views WHERE page = 'cart'",
    ),
    (
        "intersection",
        "SELECT user_id FROM orders WHERE status = 'paid' INTERSECT SELECT user_id FROM page_views WHERE page = 'cart'",
    ),
    (
        "difference",
        "SELECT user_id FROM orders WHERE quantity > 2 EXCEPT SELECT user_id FROM page_views WHERE page = 'cart'",
    ),
    (
        "three_joined",
        "SELECT a.user_id, a.n, b.v, c.last FROM (SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id) a \
         LEFT JOIN (SELECT user_id, COUNT(*) AS v FROM page_views GROUP BY user_id) b ON b.user_id = a.user_id \
         LEFT JOIN (SELECT user_id, category AS last FROM (SELECT user_id, category, ROW_NUMBER() OVER (PARTITION BY user_id \
         ORDER BY order_time DESC, order_id) AS n FROM orders) WHERE n = 1) c ON c.user_id = a.user_id",
    ),
    (
        "whole_rows_joined",
        "SELECT a.user_id, COUNT(*) AS n, MIN(b.view_time) AS t FROM (SELECT * FROM orders) a JOIN (SELECT * FROM page_views) b \
         ON a.user_id = b.user_id AND a.quantity = b.duration_ms / 40 GROUP BY a.user_id",
    ),
    (
        "lapsed_by_itself",
        "SELECT user_id, MAX(order_time) AS last, MAX(order_time) < NOW() - INTERVAL '30' DAY AS lapsed, MAX(order_time) >= CURRENT_DATE AS today FROM orders GROUP BY user_id",
    ),
    (
        "clock_in_filter",
        "SELECT user_id, SUM(amount) FILTER (WHERE order_time >= NOW() - INTERVAL '1' DAY) AS d1, SUM(amount) FILTER (WHERE order_time >= NOW() - INTERVAL '7' DAY) AS d7, COUNT(*) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY AND status = 'paid') AS d30, SUM(amount) AS whole FROM orders GROUP BY user_id",
    ),
    (
        "clock_in_case",
        "SELECT user_id, SUM(CASE WHEN order_time >= NOW() - INTERVAL '7' DAY THEN amount ELSE 0 END) AS week, AVG(CASE WHEN order_time < CURRENT_DATE THEN weight END) AS before, COUNT(DISTINCT CASE WHEN NOT (order_time >= NOW() - INTERVAL '3' DAY) THEN category END) AS c FROM orders GROUP BY user_id",
    ),
    (
        "clock_under_or",
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE order_time >= NOW() - INTERVAL '7' DAY OR amount > 300 OR status = 'refunded' AND NOT order_time < CURRENT_DATE - INTERVAL '2' DAY GROUP BY user_id",
    ),
    (
        "clock_not_between",
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE order_time NOT BETWEEN NOW() - INTERVAL '14' DAY AND NOW() - INTERVAL '2' DAY AND CAST(order_time AS DATE) <> CURRENT_DATE GROUP BY user_id",
    ),
    (
        "clock_in_having",
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE order_time < NOW() GROUP BY user_id HAVING MAX(order_time) < NOW() - INTERVAL '3' DAY OR COUNT(*) > 4 AND MIN(order_time) >= CURRENT_DATE - INTERVAL '20' DAY",
    ),
    (
        "clock_in_group",
        "SELECT user_id, age, COUNT(*) AS n FROM (SELECT user_id, CASE WHEN order_time >= NOW() - INTERVAL '1' DAY THEN 'new' WHEN order_time >= CURRENT_DATE - INTERVAL '10' DAY THEN 'recent' WHEN order_time IS NULL THEN 'unknown' ELSE 'old' END AS age FROM orders WHERE amount > 20) GROUP BY user_id, age",
    ),
    (
        "clock_in_latest",
        "SELECT user_id, category, order_time >= NOW() - INTERVAL '7' DAY AS fresh FROM (SELECT user_id, category, order_time, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY order_time DESC, order_id) AS n FROM orders WHERE order_time >= NOW() - INTERVAL '20' DAY) WHERE n = 1",
    ),
    (
        "clock_over_join",
        "SELECT a.user_id, a.last >= NOW() - INTERVAL '5' DAY AND b.seen < CURRENT_DATE AS back FROM (SELECT user_id, MAX(order_time) AS last FROM orders GROUP BY user_id) a JOIN (SELECT user_id, MAX(view_time) AS seen FROM page_views GROUP BY user_id) b ON a.user_id = b.user_id",
    ),
    (
        "clock_in_list",
        "SELECT user_id, STRING_AGG(category, ',' ORDER BY order_id) FILTER (WHERE order_time >= NOW() - INTERVAL '9' DAY) AS bought FROM orders GROUP BY user_id",
    ),
    (
        "clock_then_clock",
        "SELECT user_id, n, lately FROM (SELECT user_id, COUNT(*) AS n, MAX(order_time) AS last, COUNT(*) FILTER (WHERE order_time >= date_trunc('hour', NOW()) - INTERVAL '12' HOUR) AS lately FROM orders WHERE order_time >= NOW() - INTERVAL '20' DAY OR quantity = 1 GROUP BY user_id) WHERE last >= CURRENT_DATE - INTERVAL '2' DAY",
    ),
    (
        "clock_union",
        "SELECT user_id, SUM(n) AS n FROM (SELECT user_id, CASE WHEN order_time >= NOW() - INTERVAL '2' DAY THEN 2 ELSE 1 END AS n FROM orders UNION ALL SELECT user_id, CASE WHEN view_time >= CURRENT_DATE THEN 3 ELSE 0 END AS n FROM page_views) GROUP BY user_id",
    ),
    (
        "clock_windowed",
        "SELECT user_id, MAX(run) AS longest FROM (SELECT user_id, ROW_NUMBER() OVER (PARTITION BY user_id, fresh ORDER BY order_time, order_id) AS run FROM (SELECT user_id, order_id, order_time, order_time >= NOW() - INTERVAL '6' DAY AS fresh FROM orders)) GROUP BY user_id",
    ),
    (
        "above_the_average",
        "SELECT user_id, SUM(amount) AS spend FROM orders GROUP BY user_id HAVING SUM(amount) > (SELECT AVG(t) FROM (SELECT SUM(amount) AS t FROM orders GROUP BY user_id))",
    ),
    (
        "share_of_all_again",
        "SELECT user_id, COUNT(*) AS n, (SELECT COUNT(*) FROM orders) AS whole, CAST(SUM(weight) AS DOUBLE) / NULLIF((SELECT MAX(weight) FROM orders WHERE status = 'paid'), 0) AS part FROM orders GROUP BY user_id",
    ),
    (
        "orders_above_mean",
        "SELECT user_id, COUNT(*) AS n, SUM(amount) FILTER (WHERE quantity >= (SELECT MIN(quantity) FROM orders)) AS a FROM orders WHERE amount > (SELECT AVG(amount) FROM orders WHERE order_time >= NOW() - INTERVAL '9' DAY) GROUP BY user_id",
    ),
    (
        "above_median",
        "SELECT user_id, spend, (SELECT MAX(weight) FROM orders) AS w FROM (SELECT user_id, SUM(amount) AS spend FROM orders GROUP BY user_id) WHERE spend >= (SELECT MEDIAN(amount) FROM orders)",
    ),
    (
        "empty_population",
        "SELECT user_id, COUNT(*) AS n, (SELECT SUM(amount) FROM orders WHERE amount < -1000000) AS nothing, (SELECT COUNT(*) FROM page_views WHERE page = 'nowhere') AS zero FROM orders GROUP BY user_id",
    ),
    (
        "crossed_with_one",
        "SELECT a.user_id, a.n, b.most, a.n = b.most AS is_most FROM (SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id) a CROSS JOIN (SELECT MAX(m) AS most, MIN(m) AS least FROM (SELECT COUNT(*) AS m FROM orders GROUP BY user_id)) b WHERE a.n >= b.least",
    ),
    (
        "not_in_orders",
        "SELECT user_id, COUNT(*) AS n FROM page_views WHERE user_id NOT IN (SELECT user_id FROM orders WHERE status = 'refunded') GROUP BY user_id",
    ),
    (
        "not_in_known",
        "SELECT user_id, COUNT(*) AS n FROM page_views WHERE user_id NOT IN (SELECT user_id FROM orders WHERE user_id IS NOT NULL AND quantity > 2) GROUP BY user_id",
    ),
    (
        "not_in_nothing",
        "SELECT user_id, COUNT(*) AS n FROM page_views WHERE page NOT IN (SELECT category FROM orders WHERE amount < -5000000) GROUP BY user_id",
    ),
    (
        "not_in_rare_null",
        "SELECT user_id, COUNT(*) AS n FROM page_views WHERE page NOT IN (SELECT CASE WHEN quantity = 1 AND status = 'refunded' THEN category ELSE 'cart' END FROM orders WHERE order_time >= NOW() - INTERVAL '4' DAY) GROUP BY user_id",
    ),
    (
        "joined_with_nothing",
        "SELECT a.user_id, a.n, b.n AS m FROM (SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id) a LEFT JOIN \
         (SELECT user_id, COUNT(*) AS n FROM page_views WHERE 1 = 2 GROUP BY user_id) b ON a.user_id = b.user_id",
    ),
    (
        "top_orders",
        "SELECT user_id, n, order_id, amount FROM (SELECT user_id, order_id, amount, ROW_NUMBER() OVER (PARTITION BY user_id \
         ORDER BY amount DESC NULLS LAST, order_id) AS n FROM orders) WHERE n <= 3",
    ),
    (
        "top_orders_unnumbered",
        "SELECT user_id, SUM(amount) AS best, COUNT(*) AS n, STRING_AGG(category, ',' ORDER BY category) AS c FROM (SELECT user_id, amount, category, \
         ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY amount DESC NULLS LAST) AS n FROM orders) WHERE n < 4 GROUP BY user_id",
    ),
    (
        "second_order",
        "SELECT user_id, order_id, order_time FROM (SELECT user_id, order_id, order_time, ROW_NUMBER() OVER (PARTITION BY user_id \
         ORDER BY order_time, order_id) AS n FROM orders) WHERE n = 2",
    ),
    (
        "ranked_ties",
        "SELECT user_id, r, COUNT(*) AS n, SUM(amount) AS s FROM (SELECT user_id, amount, RANK() OVER (PARTITION BY user_id \
         ORDER BY quantity DESC) AS r FROM orders) WHERE r <= 3 GROUP BY user_id, r",
    ),
    (
        "densely_ranked",
        "SELECT user_id, d, COUNT(*) AS n, MIN(order_id) AS o FROM (SELECT user_id, order_id, DENSE_RANK() OVER (PARTITION BY user_id \
         ORDER BY quantity, status) AS d FROM orders) WHERE d BETWEEN 2 AND 3 GROUP BY user_id, d",
    ),
    (
        "ranked_unread",
        "SELECT user_id, COUNT(*) AS n, SUM(amount) AS s FROM (SELECT user_id, amount, RANK() OVER (PARTITION BY user_id \
         ORDER BY quantity DESC NULLS LAST, category) AS r FROM orders) WHERE r < 3 GROUP BY user_id",
    ),
    (
        "top_categories",
        "SELECT user_id, category, spend, r FROM (SELECT user_id, category, spend, RANK() OVER (PARTITION BY user_id \
         ORDER BY orders DESC) AS r FROM (SELECT user_id, category, SUM(amount) AS spend, COUNT(*) AS orders FROM orders \
         WHERE category IS NOT NULL GROUP BY user_id, category)) WHERE r <= 2",
    ),
    (
        "top_categories_unnumbered",
        "SELECT user_id, category, spend FROM (SELECT user_id, category, spend, DENSE_RANK() OVER (PARTITION BY user_id \
         ORDER BY spend DESC) AS r FROM (SELECT user_id, category, SUM(amount) AS spend FROM orders \
         WHERE category IS NOT NULL GROUP BY user_id, category)) WHERE r IN (1, 2)",
    ),
    (
        "ranks_side_by_side",
        "SELECT user_id, category, n, r, d FROM (SELECT user_id, category, ROW_NUMBER() OVER w AS n, RANK() OVER w AS r, DENSE_RANK() OVER w AS d \
         FROM (SELECT user_id, category, COUNT(*) AS orders FROM orders GROUP BY user_id, category) \
         WINDOW w AS (PARTITION BY user_id ORDER BY orders DESC)) WHERE r <= 3 AND n <> 2",
    ),
    (
        "numbers_beside_ranks",
        "SELECT user_id, n, r, d, amount FROM (SELECT user_id, amount, ROW_NUMBER() OVER w AS n, RANK() OVER w AS r, DENSE_RANK() OVER w AS d \
         FROM orders WINDOW w AS (PARTITION BY user_id ORDER BY quantity)) WHERE d <= 2",
    ),
    (
        "top_of_the_week",
        "SELECT user_id, n, amount FROM (SELECT user_id, amount, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY amount DESC) AS n \
         FROM orders WHERE order_time >= NOW() - INTERVAL '7' DAY) WHERE n <= 2 OR n = 4",
    ),
    (
        "best_users",
        "SELECT user_id, spend FROM (SELECT user_id, spend, RANK() OVER (ORDER BY spend DESC NULLS LAST) AS place FROM \
         (SELECT user_id, SUM(amount) AS spend FROM orders GROUP BY user_id)) WHERE place <= 5",
    ),
    (
        "first_and_all",
        "WITH numbered AS (SELECT user_id, quantity, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY order_time, order_id) AS n FROM orders), \
         few AS (SELECT user_id, SUM(quantity) AS q FROM numbered WHERE n <= 3 GROUP BY user_id), \
         whole AS (SELECT user_id, SUM(quantity * n) AS q FROM numbered GROUP BY user_id) \
         SELECT a.user_id, a.q AS few, b.q AS whole FROM few a JOIN whole b ON a.user_id = b.user_id",
    ),
    (
        "unnested",
        "SELECT user_id, COUNT(*) AS n, COUNT(item) AS given, COUNT(DISTINCT item) AS different FROM \
         (SELECT user_id, unnest(items) AS item FROM carts) GROUP BY user_id",
    ),
    (
        "unnested_in_from",
        "SELECT c.user_id, t.item, COUNT(*) AS n, MAX(c.cart_time) AS last FROM carts c, UNNEST(c.items) AS t(item) \
         WHERE t.item <> 'books' AND c.cart_id > 3 GROUP BY c.user_id, t.item",
    ),
    (
        "unnested_structs",
        "SELECT user_id, SUM(line['pieces']) AS pieces, MIN(line['sku']) AS sku, COUNT(*) FILTER (WHERE line IS NULL) AS gaps \
         FROM carts CROSS JOIN UNNEST(lines) AS t(line) WHERE cart_time >= NOW() - INTERVAL '20' DAY GROUP BY user_id",
    ),
    (
        "unnested_side_by_side",
        "SELECT user_id, COUNT(item) AS items, COUNT(line) AS lines, COUNT(*) AS n, SUM(line['pieces']) FILTER (WHERE item = 'toys') AS p \
         FROM carts CROSS JOIN UNNEST(items, lines) AS t(item, line) GROUP BY user_id",
    ),
    (
        "unnested_twice",
        "SELECT user_id, item, SUM(line['pieces']) AS p, COUNT(*) AS n FROM carts, UNNEST(items) AS t(item), UNNEST(lines) AS u(line) \
         WHERE item IS NOT NULL GROUP BY user_id, item",
    ),
    (
        "left_unnested",
        "SELECT user_id, COUNT(*) AS n, COUNT(item) AS i, COUNT(DISTINCT cart_id) AS c FROM carts LEFT JOIN UNNEST(items) AS t(item) ON TRUE GROUP BY user_id",
    ),
    (
        "unnested_fields",
        "SELECT user_id, SUM(\"s.pieces\") AS p FROM (SELECT user_id, unnest(s) FROM (SELECT user_id, unnest(lines) AS s FROM carts)) GROUP BY user_id",
    ),
    (
        "unnested_aggregate",
        "SELECT user_id, COUNT(*) AS n, MAX(c) AS c FROM (SELECT user_id, unnest(cs) AS c FROM (SELECT user_id, array_agg(DISTINCT category) AS cs \
         FROM orders WHERE category IS NOT NULL GROUP BY user_id)) GROUP BY user_id",
    ),
    (
        "favourite_item",
        "SELECT user_id, item, n FROM (SELECT user_id, item, COUNT(*) AS n, RANK() OVER (PARTITION BY user_id ORDER BY COUNT(*) DESC) AS r \
         FROM carts, UNNEST(items) AS t(item) WHERE item IS NOT NULL GROUP BY user_id, item) WHERE r <= 2",
    ),
    (
        "list_functions",
        "SELECT user_id, MAX(cardinality(items)) AS most, BOOL_OR(array_has(items, '食品')) AS food FROM carts GROUP BY user_id",
    ),
    (
        "latest_carts",
        "SELECT user_id, n, items, lines FROM (SELECT user_id, items, lines, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY cart_time DESC, cart_id) AS n \
         FROM carts) WHERE n <= 2",
    ),
    (
        "grouping_sets",
        "SELECT user_id, category, SUM(amount) AS s, COUNT(*) AS n, grouping(category) AS g FROM orders WHERE quantity > 0 \
         GROUP BY GROUPING SETS ((user_id, category), (user_id))",
    ),
    (
        "rolled_up",
        "SELECT user_id, MAX(s) FILTER (WHERE g = 0) AS best, MAX(s) FILTER (WHERE g = 1) AS per_category, MAX(s) FILTER (WHERE g = 3) AS whole \
         FROM (SELECT user_id, category, status, SUM(amount) AS s, grouping(category, status) AS g FROM orders \
         WHERE order_time >= NOW() - INTERVAL '25' DAY GROUP BY user_id, ROLLUP (category, status)) GROUP BY user_id",
    ),
    (
        "cubed",
        "SELECT user_id, g, COUNT(*) AS n, SUM(s) AS s, MAX(q) AS q FROM (SELECT user_id, grouping(category, day) AS g, SUM(amount) AS s, \
         COUNT(DISTINCT quantity) AS q FROM (SELECT user_id, category, amount, quantity, CAST(order_time AS DATE) AS day FROM orders) \
         GROUP BY user_id, CUBE (category, day) HAVING COUNT(*) > 1) GROUP BY user_id, g",
    ),
    (
        "sets_twice",
        "SELECT user_id, COUNT(*) AS n, SUM(c) AS c FROM (SELECT user_id, status, COUNT(*) AS c FROM orders \
         GROUP BY GROUPING SETS ((user_id, status), (status, user_id), (user_id), (status))) GROUP BY user_id",
    ),
    (
        "interval_join",
        "SELECT o.user_id, COUNT(*) AS n, SUM(o.amount) AS s FROM orders o JOIN page_views v ON o.user_id = v.user_id AND v.view_time BETWEEN o.order_time - INTERVAL '2' DAY AND o.order_time WHERE o.order_time >= NOW() - INTERVAL '7' DAY GROUP BY o.user_id",
    ),
    (
        "interval_join_by_day",
        "SELECT o.user_id, COUNT(*) AS n, MIN(v.view_time) AS t FROM orders o JOIN page_views v ON o.user_id = v.user_id AND v.view_time >= o.order_time AND v.view_time < o.order_time + INTERVAL '36' HOUR WHERE v.view_time >= CURRENT_DATE - INTERVAL '5' DAY GROUP BY o.user_id",
    ),
    (
        "interval_left_join",
        "SELECT o.user_id, COUNT(*) AS n, COUNT(v.page) AS seen FROM (SELECT * FROM orders WHERE order_time >= date_trunc('hour', NOW()) - INTERVAL '6' DAY) o LEFT JOIN page_views v ON o.user_id = v.user_id AND o.order_time < v.view_time + INTERVAL '1' DAY AND v.page = 'cart' GROUP BY o.user_id",
    ),
    (
        "interval_right_join",
        "SELECT v.user_id, COUNT(*) AS n, COUNT(o.order_id) AS bought FROM orders o RIGHT JOIN (SELECT * FROM page_views WHERE view_time > NOW() - INTERVAL '4' DAY) v ON o.user_id = v.user_id AND o.order_time BETWEEN v.view_time AND v.view_time + INTERVAL '1' MONTH GROUP BY v.user_id",
    ),
    (
        "interval_full_join",
        "SELECT COALESCE(o.user_id, v.user_id) AS user_id, COUNT(*) AS n FROM (SELECT * FROM orders WHERE order_time >= NOW() - INTERVAL '8' DAY) o FULL JOIN page_views v ON o.user_id = v.user_id AND v.view_time BETWEEN o.order_time - INTERVAL '1' DAY AND o.order_time GROUP BY COALESCE(o.user_id, v.user_id)",
    ),
    (
        "interval_exists",
        "SELECT user_id, COUNT(*) AS n FROM orders o WHERE order_time >= NOW() - INTERVAL '9' DAY AND EXISTS (SELECT 1 FROM page_views v WHERE v.user_id = o.user_id AND v.view_time >= o.order_time - INTERVAL '1' DAY AND v.view_time <= o.order_time) GROUP BY user_id",
    ),
    (
        "interval_exists_back",
        "SELECT user_id, COUNT(*) AS n FROM orders o WHERE EXISTS (SELECT 1 FROM page_views v WHERE v.user_id = o.user_id AND v.view_time >= NOW() - INTERVAL '3' DAY AND v.view_time <= o.order_time + INTERVAL '5' DAY) GROUP BY user_id",
    ),
    (
        "interval_not_exists",
        "SELECT user_id, COUNT(*) AS n FROM orders o WHERE order_time >= CURRENT_DATE - INTERVAL '12' DAY AND NOT EXISTS (SELECT 1 FROM page_views v WHERE v.user_id = o.user_id AND v.view_time BETWEEN o.order_time AND o.order_time + INTERVAL '12' HOUR) GROUP BY user_id",
    ),
    (
        "interval_self_join",
        "SELECT a.user_id, COUNT(*) AS n FROM orders a JOIN orders b ON a.user_id = b.user_id AND b.order_time > a.order_time AND b.order_time <= a.order_time + INTERVAL '3' DAY WHERE a.order_time >= NOW() - INTERVAL '10' DAY AND b.quantity > 1 GROUP BY a.user_id",
    ),
    (
        "json_values",
        "SELECT user_id, MAX(json_get_str(payload, 'a', 'b')) AS b, SUM(json_get_int(payload, 'n')) AS n, MIN(json_get_float(payload, 'f')) AS f, BOOL_OR(json_get_bool(payload, 'ok')) AS ok, COUNT(*) FILTER (WHERE json_contains(payload, 'a')) AS a, MAX(json_length(payload)) AS l FROM carts GROUP BY user_id",
    ),
    (
        "json_grouped",
        "SELECT user_id, payload->'a'->>'b' AS b, COUNT(*) AS n FROM carts WHERE json_get(payload, 'n')::BIGINT > 2 OR json_get_str(payload, 'a', 'b') IS NOT NULL GROUP BY user_id, payload->'a'->>'b'",
    ),
    (
        "json_unnested",
        "SELECT user_id, COUNT(*) AS n, COUNT(DISTINCT item) AS d FROM carts, UNNEST(json_get_array(payload, 'l')) AS t(item) WHERE cart_time >= NOW() - INTERVAL '10' DAY GROUP BY user_id",
    ),
    (
        "resent_sums",
        "SELECT user_id, COUNT(*) AS n, SUM(amount) AS a, MIN(amount) AS least, MAX(amount) AS most FROM payments GROUP BY user_id",
    ),
    (
        "resent_by_payment",
        "SELECT user_id, payment_id, method, COUNT(*) AS n, MAX(pay_time) AS t FROM payments GROUP BY user_id, payment_id, method",
    ),
    (
        "resent_filtered",
        "SELECT user_id, COUNT(*) AS n FROM payments WHERE method = 'card' AND pay_time >= TIMESTAMP '2026-09-22 00:00:00' \
         GROUP BY user_id",
    ),
    (
        "resent_places",
        "SELECT user_id, MAX(_offset) AS o, COUNT(DISTINCT _partition) AS p, MAX(_timestamp) AS t, COUNT(_key) AS k, MAX(_topic) AS c \
         FROM payments GROUP BY user_id",
    ),
    (
        "resent_latest",
        "SELECT user_id, payment_id, amount FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY pay_time DESC, \
         payment_id) AS n FROM payments WHERE pay_time IS NOT NULL) WHERE n = 1",
    ),
    (
        "resent_joined",
        "SELECT a.user_id, COUNT(*) AS n FROM payments a JOIN payments b ON a.payment_id = b.payment_id AND a.method = b.method \
         GROUP BY a.user_id",
    ),
    (
        "resent_recent",
        "SELECT user_id, SUM(amount) AS a FROM payments WHERE pay_time >= NOW() - INTERVAL '3' DAY GROUP BY user_id",
    ),
];

//! Aggregates whose comparisons with the clock move in steps: each must be kept as tiles, and equal its batch answer.

/// Tags that are kept as tiles.
pub const TILED: &[(&str, &str)] = &[
    (
        "month_in_days",
        "SELECT user_id, SUM(amount) AS s, COUNT(*) AS n, COUNT(amount) AS c, AVG(amount) AS a, MIN(amount) AS l, MAX(weight) AS h \
         FROM orders WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY GROUP BY user_id",
    ),
    (
        "doubles_and_integers",
        "SELECT user_id, SUM(weight) AS w, AVG(weight) AS aw, SUM(quantity) AS q, AVG(quantity) AS aq, MAX(category) AS c \
         FROM orders WHERE order_time > date_trunc('hour', NOW()) - INTERVAL '200' HOUR GROUP BY user_id",
    ),
    (
        "four_sums_side_by_side",
        "SELECT user_id, SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '1' DAY) AS d1, \
         SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '7' DAY) AS d7, \
         SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY) AS d30, \
         SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '90' DAY) AS d90, COUNT(*) AS n FROM orders GROUP BY user_id",
    ),
    (
        "sums_by_case",
        "SELECT user_id, SUM(CASE WHEN order_time >= CURRENT_DATE - INTERVAL '7' DAY THEN amount ELSE 0 END) AS a, \
         SUM(CASE WHEN order_time >= CURRENT_DATE - INTERVAL '7' DAY AND status = 'paid' THEN amount ELSE 0 END) AS b, \
         SUM(CASE WHEN status = 'paid' AND order_time >= CURRENT_DATE - INTERVAL '15' DAY THEN amount END) AS c, \
         COUNT(CASE WHEN order_time < CURRENT_DATE - INTERVAL '15' DAY THEN 1 END) AS d, \
         AVG(CASE WHEN order_time < CURRENT_DATE THEN quantity ELSE 100 END) AS e, \
         MAX(CASE WHEN order_time >= CURRENT_DATE THEN category WHEN order_time >= CURRENT_DATE - INTERVAL '3' DAY THEN status END) AS f \
         FROM orders GROUP BY user_id",
    ),
    (
        "steps_under_or_and_not",
        "SELECT user_id, COUNT(*) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '3' DAY OR status = 'paid') AS a, \
         SUM(amount) FILTER (WHERE NOT (order_time >= CURRENT_DATE - INTERVAL '9' DAY AND quantity > 2)) AS b, \
         SUM(amount) FILTER (WHERE CAST(order_time AS DATE) <> CURRENT_DATE) AS c, \
         COUNT(*) FILTER (WHERE order_time IS NULL) AS d, \
         MIN(quantity) FILTER (WHERE order_time BETWEEN CURRENT_DATE - INTERVAL '9' DAY AND CURRENT_DATE - INTERVAL '2' DAY) AS e \
         FROM orders WHERE quantity > 0 GROUP BY user_id",
    ),
    (
        "between_two_hours",
        "SELECT user_id, SUM(duration_ms) AS s, COUNT(*) AS n, MIN(page) AS p FROM page_views \
         WHERE view_time >= date_trunc('hour', NOW()) - INTERVAL '48' HOUR AND view_time < date_trunc('hour', NOW()) \
         AND device <> 'web' GROUP BY user_id",
    ),
    (
        "bounds_and_flags",
        "SELECT user_id, category, SUM(amount) AS s, SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '7' DAY) AS w, \
         AVG(weight) FILTER (WHERE order_time < CURRENT_DATE - INTERVAL '7' DAY) AS b FROM orders \
         WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY AND order_time <= NOW() GROUP BY user_id, category",
    ),
    (
        "today_by_step",
        "SELECT user_id, COUNT(*) AS n, SUM(weight) AS w FROM orders WHERE CAST(order_time AS DATE) = CURRENT_DATE GROUP BY user_id",
    ),
    (
        "old_ones_for_ever",
        "SELECT user_id, COUNT(*) AS n, SUM(weight) AS w, MAX(amount) AS m FROM orders WHERE order_time < CURRENT_DATE GROUP BY user_id",
    ),
    (
        "calendar_month",
        "SELECT user_id, COUNT(*) AS n, SUM(amount) AS s FROM orders WHERE order_time >= date_trunc('month', NOW()) GROUP BY user_id",
    ),
    (
        "weeks_and_months",
        "SELECT user_id, COUNT(*) FILTER (WHERE order_time >= date_trunc('week', NOW())) AS w, \
         COUNT(*) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '1' MONTH) AS m, \
         SUM(amount * quantity) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '1' MONTH AND status = 'paid') AS p \
         FROM orders GROUP BY user_id",
    ),
    (
        "having_over_tiles",
        "SELECT user_id, SUM(amount) / COUNT(*) AS mean FROM orders WHERE order_time >= CURRENT_DATE - INTERVAL '10' DAY \
         GROUP BY user_id HAVING SUM(amount) > 100 AND COUNT(*) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '2' DAY) > 0",
    ),
    (
        "tiles_of_days",
        "SELECT user_id, SUM(s) AS s, COUNT(*) AS days, AVG(n) AS n, COUNT(*) FILTER (WHERE day >= CURRENT_DATE - INTERVAL '5' DAY) AS recent \
         FROM (SELECT user_id, CAST(order_time AS DATE) AS day, SUM(amount) AS s, COUNT(*) AS n, SUM(weight) AS w FROM orders \
         GROUP BY user_id, CAST(order_time AS DATE)) WHERE day >= CURRENT_DATE - INTERVAL '20' DAY GROUP BY user_id",
    ),
    (
        "tiles_of_latest",
        "SELECT user_id, COUNT(*) AS n, SUM(w) AS w, AVG(a) AS a FROM (SELECT user_id, category, MAX(order_time) AS last, SUM(weight) AS w, \
         MAX(amount) AS a FROM orders GROUP BY user_id, category) WHERE last >= CURRENT_DATE - INTERVAL '12' DAY GROUP BY user_id",
    ),
    (
        "tiles_of_two_streams",
        "SELECT user_id, COUNT(kind) AS n, SUM(v) FILTER (WHERE t >= CURRENT_DATE - INTERVAL '4' DAY) AS v FROM \
         (SELECT user_id, order_time AS t, 'order' AS kind, quantity AS v FROM orders UNION ALL \
         SELECT user_id, view_time, page, duration_ms FROM page_views) WHERE t >= CURRENT_DATE - INTERVAL '14' DAY GROUP BY user_id",
    ),
    (
        "favourite_by_tiles",
        "SELECT user_id, category, spend FROM (SELECT user_id, category, spend, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY spend DESC NULLS LAST, category) AS n \
         FROM (SELECT user_id, category, SUM(amount) AS spend FROM orders WHERE order_time >= date_trunc('hour', NOW()) - INTERVAL '720' HOUR \
         GROUP BY user_id, category)) WHERE n <= 2",
    ),
    (
        "days_of_tiles",
        "SELECT user_id, CAST(order_time AS DATE) AS day, SUM(amount) AS s, MAX(quantity) AS q FROM orders \
         WHERE order_time >= CURRENT_DATE - INTERVAL '9' DAY AND order_time IS NOT NULL GROUP BY user_id, CAST(order_time AS DATE)",
    ),
    (
        "different_values",
        "SELECT user_id, COUNT(DISTINCT category) AS c, SUM(amount) AS s, COUNT(DISTINCT category) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '7' DAY) AS w, \
         COUNT(DISTINCT category) FILTER (WHERE status = 'paid' AND order_time < CURRENT_DATE) AS p, MAX(weight) AS m FROM orders \
         WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY GROUP BY user_id",
    ),
    (
        "active_days",
        "SELECT user_id, COUNT(DISTINCT CAST(view_time AS DATE)) AS days, COUNT(*) AS n FROM page_views \
         WHERE view_time >= CURRENT_DATE - INTERVAL '30' DAY GROUP BY user_id",
    ),
    (
        "different_by_case",
        "SELECT user_id, COUNT(DISTINCT CASE WHEN order_time >= CURRENT_DATE - INTERVAL '9' DAY THEN quantity END) AS c, \
         COUNT(DISTINCT quantity) AS q FROM orders GROUP BY user_id",
    ),
    (
        "different_over_retractions",
        "SELECT user_id, COUNT(DISTINCT n) AS c, COUNT(*) AS days FROM (SELECT user_id, CAST(order_time AS DATE) AS day, COUNT(*) AS n, \
         SUM(weight) AS w FROM orders GROUP BY user_id, CAST(order_time AS DATE)) WHERE day >= CURRENT_DATE - INTERVAL '20' DAY GROUP BY user_id",
    ),
    ("users_of_the_week", "SELECT DISTINCT user_id FROM orders WHERE order_time >= CURRENT_DATE - INTERVAL '7' DAY"),
    (
        "where_or",
        "SELECT user_id, COUNT(*) AS n, SUM(amount) AS s, MIN(category) AS c, COUNT(DISTINCT status) AS d FROM orders \
         WHERE order_time >= CURRENT_DATE - INTERVAL '7' DAY OR status = 'refunded' GROUP BY user_id",
    ),
    (
        "where_not",
        "SELECT user_id, COUNT(*) AS n, MAX(amount) AS m, SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '20' DAY) AS s FROM orders \
         WHERE NOT (order_time >= CURRENT_DATE - INTERVAL '10' DAY AND quantity > 1) AND order_time >= CURRENT_DATE - INTERVAL '40' DAY GROUP BY user_id",
    ),
    (
        "where_another_day",
        "SELECT user_id, status, SUM(weight) AS w FROM orders WHERE CAST(order_time AS DATE) <> CURRENT_DATE AND quantity IS NOT NULL \
         GROUP BY user_id, status",
    ),
    (
        "where_two_ways",
        "SELECT user_id, COUNT(*) AS n, AVG(amount) AS a FROM orders WHERE order_time >= CURRENT_DATE - INTERVAL '3' DAY AND status = 'paid' \
         OR order_time < CURRENT_DATE - INTERVAL '20' DAY GROUP BY user_id HAVING COUNT(*) > 1",
    ),
    (
        "above_the_month",
        "SELECT user_id, SUM(amount) AS s FROM orders GROUP BY user_id HAVING SUM(amount) > (SELECT AVG(amount) FROM orders \
         WHERE order_time >= CURRENT_DATE - INTERVAL '9' DAY AND quantity > 1)",
    ),
    (
        "population_of_steps",
        "SELECT user_id, COUNT(*) AS n, (SELECT COUNT(*) FROM page_views WHERE CAST(view_time AS DATE) = CURRENT_DATE) AS views, \
         (SELECT SUM(amount) FROM orders WHERE order_time >= date_trunc('hour', NOW()) - INTERVAL '1' HOUR AND amount > 400) AS s, \
         (SELECT COUNT(DISTINCT user_id) FROM orders WHERE order_time >= date_trunc('hour', NOW())) AS u FROM orders GROUP BY user_id",
    ),
];

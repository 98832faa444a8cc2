/* tag
title       = "流失风险"
description = "A segment: customers whose latest order is more than 20 days back"
owner       = "risk"
method      = "rule"
*/
WITH latest AS (
  SELECT user_id, MAX(order_time) AS last_order, COUNT(*) AS orders
  FROM paid_orders
  GROUP BY user_id
)
SELECT user_id, last_order, orders
FROM latest
WHERE last_order < CURRENT_DATE - INTERVAL '20' DAY

/* tag
title       = "偏好品类"
description = "The category with the most orders in 60 days; the larger sum decides between equals"
owner       = "recommendation"
method      = "mining"
*/
WITH counted AS (
  SELECT user_id, category, COUNT(*) AS orders, SUM(amount) AS spend
  FROM paid_orders
  WHERE order_time >= CURRENT_DATE - INTERVAL '60' DAY
    AND category IS NOT NULL
  GROUP BY user_id, category
), ranked AS (
  SELECT user_id, category, orders,
         ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY orders DESC, spend DESC NULLS LAST, category) AS n
  FROM counted
)
SELECT user_id, category AS favourite_category, orders
FROM ranked
WHERE n = 1

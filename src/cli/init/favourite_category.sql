/* tag
title       = "Favourite category"
description = "The category of most orders"
*/
WITH
counted AS (
  SELECT user_id, category, COUNT(*) AS orders
  FROM orders
  WHERE status = 'paid' AND user_id IS NOT NULL
  GROUP BY user_id, category
),
ranked AS (
  SELECT user_id, category, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY orders DESC, category) AS n
  FROM counted
)
SELECT user_id, category AS favourite_category
FROM ranked
WHERE n = 1

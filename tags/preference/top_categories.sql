/* tag
title       = "偏好品类前三"
description = "The three categories that a user spends most on, one row each"
owner       = "growth"
method      = "stat"
*/
SELECT user_id, place, category, spend
FROM (
  SELECT user_id, category, spend,
         ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY spend DESC NULLS LAST, category) AS place
  FROM (
    SELECT user_id, category, SUM(amount) AS spend
    FROM orders
    WHERE category IS NOT NULL AND user_id IS NOT NULL
    GROUP BY user_id, category
  )
)
WHERE place <= 3

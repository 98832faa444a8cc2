/* tag
title       = "最近出现"
description = "The last sign of life, order or page view"
method      = "stat"
*/
WITH signs AS (
  SELECT user_id, order_time AS at FROM orders WHERE user_id IS NOT NULL
  UNION ALL
  SELECT user_id, view_time FROM page_views WHERE user_id IS NOT NULL
)
SELECT user_id, MAX(at) AS last_seen, COUNT(*) AS signs
FROM signs
GROUP BY user_id

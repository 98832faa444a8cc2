/* tag
title       = "浏览转化"
description = "Orders for every hundred page views of the last 30 days; users who only look have 0"
owner       = "growth"
method      = "stat"
[columns.conversion]
title = "转化率"
unit  = "%"
*/
SELECT v.user_id,
       100.0 * COALESCE(o.orders, 0) / NULLIF(v.views, 0) AS conversion
FROM (
  SELECT user_id, COUNT(*) AS views
  FROM page_views
  WHERE view_time >= CURRENT_DATE - INTERVAL '30' DAY AND user_id IS NOT NULL
  GROUP BY user_id
) v
LEFT JOIN (
  SELECT user_id, COUNT(*) AS orders
  FROM orders
  WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY AND status = 'paid' AND user_id IS NOT NULL
  GROUP BY user_id
) o ON o.user_id = v.user_id

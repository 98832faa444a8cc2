/* tag
title       = "近30天活跃天数"
description = "Days with at least one page view"
method      = "stat"
[columns.active_days]
unit = "days"
*/
SELECT user_id, COUNT(DISTINCT CAST(view_time AS DATE)) AS active_days
FROM page_views
WHERE view_time >= CURRENT_DATE - INTERVAL '30' DAY
  AND user_id IS NOT NULL
GROUP BY user_id

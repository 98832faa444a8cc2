/* tag
title       = "近24小时浏览"
description = "Page views and time on pages in the last 24 full hours"
method      = "stat"
[columns.minutes]
unit = "min"
*/
SELECT user_id,
       COUNT(*)                                    AS views,
       CAST(SUM(duration_ms) AS DOUBLE) / 60000.0  AS minutes
FROM page_views
WHERE view_time >= date_trunc('hour', NOW()) - INTERVAL '24' HOUR
  AND view_time <  date_trunc('hour', NOW())
  AND user_id IS NOT NULL
GROUP BY user_id

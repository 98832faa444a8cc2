/* tag
title       = "5分钟内活跃"
description = "Page views of the last five minutes; a user drops out by the minute, whether or not anything happens"
method      = "stat"
*/
SELECT user_id, COUNT(*) AS views, MAX(view_time) AS last_view
FROM page_views
WHERE view_time >= date_trunc('minute', NOW()) - INTERVAL '5' MINUTE
  AND user_id IS NOT NULL
GROUP BY user_id

/* tag
title       = "访问会话"
description = "Visits since yesterday: page views at most 30 minutes apart, with how long each visit took"
owner       = "growth"
method      = "stat"
[columns.seconds]
unit = "s"
*/
SELECT user_id,
       window_start,
       COUNT(*) AS views,
       date_part('epoch', CAST(MAX(view_time) AS TIMESTAMP WITH TIME ZONE))
         - date_part('epoch', CAST(MIN(view_time) AS TIMESTAMP WITH TIME ZONE)) AS seconds
FROM TABLE(SESSION(
  TABLE (SELECT * FROM page_views WHERE user_id IS NOT NULL AND view_time >= CURRENT_DATE - INTERVAL '1' DAY)
    PARTITION BY user_id,
  DESCRIPTOR(view_time),
  INTERVAL '30' MINUTE))
GROUP BY user_id, window_start

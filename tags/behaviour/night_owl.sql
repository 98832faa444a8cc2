/* tag
title       = "夜猫子"
description = "Share of page views between 22 and 5 o'clock, of users with more than ten"
method      = "stat"
[columns.night_share]
unit = "%"
*/
SELECT user_id,
       COUNT(*) FILTER (WHERE date_part('hour', view_time) >= 22 OR date_part('hour', view_time) < 5) * 100.0
         / NULLIF(COUNT(*), 0) AS night_share
FROM page_views
WHERE user_id IS NOT NULL
GROUP BY user_id
HAVING COUNT(*) > 10

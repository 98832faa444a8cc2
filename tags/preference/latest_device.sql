/* tag
title       = "最近使用设备"
description = "The device of the latest page view"
method      = "stat"
*/
SELECT user_id, device AS latest_device
FROM (
  SELECT user_id, device,
         ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY view_time DESC NULLS LAST, view_id DESC) AS n
  FROM page_views
  WHERE user_id IS NOT NULL
) AS views
WHERE n = 1

/* tag
title       = "偏好渠道"
description = "The channel of most orders"
method      = "stat"
*/
WITH counted AS (
  SELECT user_id, channel, COUNT(*) AS orders FROM paid_orders WHERE channel IS NOT NULL GROUP BY user_id, channel
), ranked AS (
  SELECT user_id, channel, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY orders DESC, channel) AS n FROM counted
)
SELECT user_id, channel AS favourite_channel
FROM ranked
WHERE n = 1

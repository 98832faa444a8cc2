/* tag
title       = "购买品类数"
description = "Different categories bought in 90 days"
method      = "stat"
*/
SELECT user_id, COUNT(DISTINCT category) AS categories
FROM paid_orders
WHERE order_time >= CURRENT_DATE - INTERVAL '90' DAY
GROUP BY user_id

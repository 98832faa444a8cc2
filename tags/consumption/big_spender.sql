/* tag
title       = "高价值用户"
description = "A segment: users who spent more than 3000 on at least three orders in 30 days"
method      = "rule"
*/
SELECT user_id
FROM paid_orders
WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY
GROUP BY user_id
HAVING SUM(amount) > 3000 AND COUNT(*) >= 3

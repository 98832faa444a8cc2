/* tag
title       = "近30天消费"
description = "Money spent in the last 30 days, refunds taken off"
owner       = "growth"
method      = "stat"
[columns.spend_30d]
title = "金额"
unit  = "CNY"
*/
SELECT user_id, SUM(amount) AS spend_30d
FROM orders
WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY
  AND user_id IS NOT NULL
GROUP BY user_id

/* tag
title       = "Spend in 30 days"
description = "Money spent in the last 30 days, refunds taken off"
[columns.spend_30d]
unit = "CNY"
*/
SELECT user_id, SUM(amount) AS spend_30d
FROM orders
WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY AND user_id IS NOT NULL
GROUP BY user_id

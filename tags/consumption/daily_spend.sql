/* tag
title       = "每日消费"
description = "Money spent on each day: a detail tag, one row a user and day"
method      = "stat"
[columns.spend]
unit = "CNY"
*/
SELECT user_id,
       CAST(order_time AS DATE) AS day,
       SUM(amount)              AS spend,
       COUNT(*)                 AS orders
FROM paid_orders
WHERE order_time IS NOT NULL
GROUP BY user_id, CAST(order_time AS DATE)

/* tag
title       = "近7天订单数"
description = "Orders of the last seven days, to the second"
method      = "stat"
*/
SELECT user_id, COUNT(*) AS orders_7d, MAX(amount) AS largest_order
FROM paid_orders
WHERE order_time >= NOW() - INTERVAL '7' DAY
GROUP BY user_id

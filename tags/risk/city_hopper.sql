/* tag
title       = "多地下单"
description = "Different cities of the orders of a week; three and more are looked at"
owner       = "risk"
method      = "rule"
*/
SELECT user_id, COUNT(DISTINCT city) AS cities
FROM paid_orders
WHERE order_time >= NOW() - INTERVAL '7' DAY
GROUP BY user_id
HAVING COUNT(DISTINCT city) >= 3

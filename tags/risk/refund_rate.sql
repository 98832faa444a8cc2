/* tag
title       = "退款率"
description = "Refunds per hundred orders, of users with at least three orders"
owner       = "risk"
method      = "stat"
[columns.refund_rate]
unit = "%"
*/
SELECT user_id,
       COUNT(*) FILTER (WHERE status = 'refunded') AS refunds,
       COUNT(*) FILTER (WHERE status = 'refunded') * 100.0
         / NULLIF(COUNT(*) FILTER (WHERE status = 'paid'), 0) AS refund_rate
FROM orders
WHERE user_id IS NOT NULL
GROUP BY user_id
HAVING COUNT(*) FILTER (WHERE status = 'paid') >= 3

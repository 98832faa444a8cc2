/* tag
title       = "会员等级"
description = "By the money spent in 90 days"
owner       = "growth"
method      = "rule"
[columns.vip_level]
title   = "等级"
default = "none"
labels  = { diamond = "钻石", gold = "金卡", silver = "银卡", none = "普通" }
*/
SELECT user_id,
       CASE
         WHEN SUM(amount) >= 20000 THEN 'diamond'
         WHEN SUM(amount) >= 5000  THEN 'gold'
         WHEN SUM(amount) >= 1000  THEN 'silver'
         ELSE 'none'
       END AS vip_level
FROM orders
WHERE order_time >= CURRENT_DATE - INTERVAL '90' DAY
  AND user_id IS NOT NULL
GROUP BY user_id

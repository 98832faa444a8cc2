/* tag
title       = "累计消费"
description = "Money ever spent, number of orders, and the mean of an order"
method      = "stat"
[columns.spend_total]
unit = "CNY"
[columns.mean_order]
unit = "CNY"
*/
SELECT user_id,
       SUM(amount) AS spend_total,
       COUNT(*)    AS orders,
       AVG(amount) AS mean_order
FROM paid_orders
GROUP BY user_id

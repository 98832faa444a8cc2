/* tag
title       = "最近一单"
description = "The latest order: when, how much, which category"
method      = "stat"
[columns.amount]
unit = "CNY"
*/
WITH numbered AS (
  SELECT user_id, order_id, order_time, amount, category,
         ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY order_time DESC NULLS LAST, order_id DESC) AS n
  FROM paid_orders
)
SELECT user_id, order_time AS last_order_time, amount, category
FROM numbered
WHERE n = 1

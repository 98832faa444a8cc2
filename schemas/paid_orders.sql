/* view
title = "Orders of known users, without refunds"
*/
SELECT order_id, user_id, amount, category, city, channel, order_time
FROM orders
WHERE status = 'paid' AND user_id IS NOT NULL

/* tag
title       = "新用户"
description = "A segment: users registered in the last seven days"
method      = "rule"
*/
SELECT user_id
FROM users
WHERE registered_at >= CURRENT_DATE - INTERVAL '7' DAY
GROUP BY user_id

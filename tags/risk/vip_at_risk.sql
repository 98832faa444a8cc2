/* tag
title       = "高价值流失风险"
description = "Gold and silver customers who have not ordered for a while, and since when"
owner       = "retention"
method      = "rule"
*/
SELECT v.user_id, v.vip_level, l.last_order
FROM tags.vip_level v
JOIN tags.lapsing l ON l.user_id = v.user_id
WHERE v.vip_level IN ('gold', 'silver')

/* tag
title       = "{title}"
description = "How many in the last seven days"
{owner}
*/
-- CURRENT_DATE moves at midnight. For full hours: date_trunc('hour', NOW()) - INTERVAL '24' HOUR.
SELECT {key_as}, COUNT(*) AS {name}
FROM {stream}
WHERE {time} >= CURRENT_DATE - INTERVAL '7' DAY{and_key}
GROUP BY {key}

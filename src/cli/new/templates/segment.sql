/* tag
title       = "{title}"
description = "Who came at least three times in the last 30 days"
{owner}
method      = "rule"
*/
-- A tag of nothing but the key is a segment: whoever has a row is in.
SELECT {key_as}
FROM {stream}
WHERE {time} >= CURRENT_DATE - INTERVAL '30' DAY{and_key}
GROUP BY {key}
HAVING COUNT(*) >= 3

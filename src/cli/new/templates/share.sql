/* tag
title       = "{title}"
description = "How many of a hundred events of the last 90 days are of one kind"
{owner}
[columns.{name}]
unit = "%"
*/
-- Write your own value of {by} in place of 'refunded'. 100.0 makes it a fraction: integers alone would be cut.
-- NULLIF is for who has no event; without it `check` asks what a division by zero should give.
SELECT {key_as},
       COUNT(*) FILTER (WHERE {by} = 'refunded') * 100.0 / NULLIF(COUNT(*), 0) AS {name},
       COUNT(*) AS events
FROM {stream}
WHERE {time} >= CURRENT_DATE - INTERVAL '90' DAY{and_key}
GROUP BY {key}
HAVING COUNT(*) >= 3

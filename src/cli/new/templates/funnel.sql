/* tag
title       = "{title}"
description = "The furthest step of the last 30 days; a step counts behind the one before it alone"
{owner}
[columns.{name}]
labels = { 0 = "none", 1 = "saw it", 2 = "put it into the cart", 3 = "bought it" }
*/
-- Write your own values of {by} in place of 'view', 'cart' and 'pay'.
WITH steps AS (
  SELECT {key_as},
         MIN({time}) FILTER (WHERE {by} = 'view') AS saw,
         MAX({time}) FILTER (WHERE {by} = 'cart') AS chose,
         MAX({time}) FILTER (WHERE {by} = 'pay')  AS bought
  FROM {stream}
  WHERE {time} >= CURRENT_DATE - INTERVAL '30' DAY{and_key}
  GROUP BY {key}
)
-- A comparison with a step that never came is NULL, which is no WHEN's case.
SELECT {entity_key},
       CASE
         WHEN saw <= chose AND chose <= bought THEN 3
         WHEN saw <= chose THEN 2
         WHEN saw IS NOT NULL THEN 1
         ELSE 0
       END AS {name}
FROM steps

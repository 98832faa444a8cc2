/* tag
title       = "{title}"
description = "The sum of each day: a detail tag, one row a {entity} and day"
{owner}
*/
-- A further column of the key makes a detail tag, a table of its own; it is bounded by the clock as any other.
SELECT {key_as}, CAST({time} AS DATE) AS day, SUM({amount}) AS {name}, COUNT(*) AS events
FROM {stream}
WHERE {time} >= CURRENT_DATE - INTERVAL '90' DAY
  AND {time} IS NOT NULL{and_key}
GROUP BY {key}, CAST({time} AS DATE)

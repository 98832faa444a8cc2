/* tag
title       = "{title}"
description = "The value seen most often in the last 60 days"
{owner}
*/
WITH counted AS (
  SELECT {key_as}, {by}, COUNT(*) AS events, MAX({time}) AS latest
  FROM {stream}
  WHERE {time} >= CURRENT_DATE - INTERVAL '60' DAY
    AND {by} IS NOT NULL{and_key}
  GROUP BY {key}, {by}
), ranked AS (
  -- Every ORDER BY that decides a value should end with what tells equals apart, so that the answer is never by chance.
  SELECT {entity_key}, {by}, events,
         ROW_NUMBER() OVER (PARTITION BY {entity_key} ORDER BY events DESC, latest DESC NULLS LAST, {by}) AS place
  FROM counted
)
SELECT {entity_key}, {by} AS {name}, events
FROM ranked
WHERE place = 1

/* tag
title       = "{title}"
description = "The longest run of days, one after the other, in the last 90 days"
{owner}
[columns.{name}]
unit = "days"
*/
WITH days AS (
  SELECT DISTINCT {key_as}, CAST({time} AS DATE) AS day
  FROM {stream}
  WHERE {time} >= CURRENT_DATE - INTERVAL '90' DAY{and_key}
), numbered AS (
  -- Days of one run lie as far apart as their numbers: their difference is the same for the whole run.
  SELECT {entity_key},
         (day - DATE '2000-01-01') - ROW_NUMBER() OVER (PARTITION BY {entity_key} ORDER BY day) AS run
  FROM days
), runs AS (
  SELECT {entity_key}, run, COUNT(*) AS days FROM numbered GROUP BY {entity_key}, run
)
SELECT {entity_key}, MAX(days) AS {name}
FROM runs
GROUP BY {entity_key}

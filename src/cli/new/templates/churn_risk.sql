/* tag
title       = "{title}"
description = "By the days since the latest event: active, cooling, lapsed"
{owner}
method      = "rule"
[columns.{name}]
labels = { active = "active", cooling = "cooling down", lapsed = "lapsed" }
*/
WITH latest AS (
  SELECT {key_as}, MAX({time}) AS last_event, COUNT(*) AS events
  FROM {stream}{where_key}
  GROUP BY {key}
)
-- The value turns at midnight though nothing happens: a clock may stand in CASE as in WHERE.
SELECT {entity_key},
       CASE
         WHEN last_event >= CURRENT_DATE - INTERVAL '14' DAY THEN 'active'
         WHEN last_event >= CURRENT_DATE - INTERVAL '45' DAY THEN 'cooling'
         ELSE 'lapsed'
       END AS {name},
       last_event
FROM latest
-- Who came once and went is no customer lost.
WHERE events >= 2

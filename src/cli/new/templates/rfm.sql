/* tag
title       = "{title}"
description = "Recency, frequency and money of a year, 1 to 3 each; 333 is the best"
{owner}
method      = "rule"
*/
WITH year AS (
  SELECT {key_as}, MAX({time}) AS latest, COUNT(*) AS events, SUM({amount}) AS total
  FROM {stream}
  WHERE {time} >= CURRENT_DATE - INTERVAL '365' DAY{and_key}
  GROUP BY {key}
), scored AS (
  -- Set the bounds by what your own users do: each score should hold about a third of them.
  SELECT {entity_key},
         CASE WHEN latest >= CURRENT_DATE - INTERVAL '7' DAY THEN 3
              WHEN latest >= CURRENT_DATE - INTERVAL '30' DAY THEN 2
              ELSE 1 END AS recency,
         CASE WHEN events >= 10 THEN 3 WHEN events >= 3 THEN 2 ELSE 1 END AS frequency,
         CASE WHEN total >= 5000 THEN 3 WHEN total >= 1000 THEN 2 ELSE 1 END AS monetary
  FROM year
)
SELECT {entity_key}, recency, frequency, monetary,
       recency * 100 + frequency * 10 + monetary AS {name}
FROM scored

/* tag
title       = "{title}"
description = "The three values with the largest sums, one row each: a detail tag"
{owner}
*/
-- Its key is ({entity_key}, place): left out of profiles, for lists of a page.
WITH summed AS (
  SELECT {key_as}, {by}, SUM({amount}) AS total
  FROM {stream}
  WHERE {by} IS NOT NULL{and_key}
  GROUP BY {key}, {by}
), ranked AS (
  SELECT {entity_key}, {by}, total,
         ROW_NUMBER() OVER (PARTITION BY {entity_key} ORDER BY total DESC NULLS LAST, {by}) AS place
  FROM summed
)
SELECT {entity_key}, place, {by} AS {name}, total
FROM ranked
WHERE place <= 3

/* tag
title       = "{title}"
description = "What the latest one says"
{owner}
*/
WITH numbered AS (
  -- The last words of ORDER BY tell equals apart, so that the answer is never by chance.
  SELECT {key_as}, {time} AS {name}{columns},
         ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY {time} DESC NULLS LAST{ties}) AS place
  FROM {stream}{where_key}
)
SELECT {entity_key}, {name}{columns}
FROM numbered
WHERE place = 1

/* tag
title       = "{title}"
description = "The sum over the last 30 days"
{owner}
*/
-- One row a {entity}: GROUP BY says what the key is.
-- CURRENT_DATE moves at midnight: what is older drops out by itself, whether or not anything happens. With NOW() it
-- would do so to the second, and every row would have to be kept for it.
SELECT {key_as}, SUM({amount}) AS {name}
FROM {stream}
WHERE {time} >= CURRENT_DATE - INTERVAL '30' DAY{and_key}
GROUP BY {key}

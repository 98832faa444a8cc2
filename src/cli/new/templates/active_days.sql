/* tag
title       = "{title}"
description = "On how many of the last 30 days there was anything"
{owner}
[columns.{name}]
unit = "days"
*/
-- A day is one of the project's time zone.
SELECT {key_as}, COUNT(DISTINCT CAST({time} AS DATE)) AS {name}
FROM {stream}
WHERE {time} >= CURRENT_DATE - INTERVAL '30' DAY{and_key}
GROUP BY {key}

/* tag
title       = "{title}"
description = "Visits since yesterday: events at most 30 minutes apart; a detail tag, one row a visit"
{owner}
*/
SELECT {key_as}, window_start, MAX({time}) AS last_event, COUNT(*) AS {name}
FROM TABLE(SESSION(
  TABLE (SELECT * FROM {stream} WHERE {time} >= CURRENT_DATE - INTERVAL '1' DAY{and_key}) PARTITION BY {key},
  DESCRIPTOR({time}),
  INTERVAL '30' MINUTE))
GROUP BY {key}, window_start

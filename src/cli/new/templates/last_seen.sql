/* tag
title       = "{title}"
description = "When something was last seen, and how often so far"
{owner}
*/
SELECT {key_as}, MAX({time}) AS {name}, COUNT(*) AS events
FROM {stream}{where_key}
GROUP BY {key}

/* tag
title       = "{title}"
description = "All that ever was: the sum, how many, and the mean"
{owner}
*/
-- Without a bound in time it counts from the beginning of the topic: `_tagflow_tags.complete_from` tells from when on.
SELECT {key_as},
       SUM({amount}) AS {name},
       COUNT(*)      AS events,
       AVG({amount}) AS mean
FROM {stream}{where_key}
GROUP BY {key}

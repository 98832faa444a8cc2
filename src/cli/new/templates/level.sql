/* tag
title       = "{title}"
description = "By the sum of the last 90 days"
{owner}
method      = "rule"
[columns.{name}]
default = "none"
labels  = { gold = "Gold", silver = "Silver", bronze = "Bronze", none = "None" }
*/
-- Values that are not among the labels are counted: nobody has to notice a misspelt one.
SELECT {key_as},
       CASE
         WHEN SUM({amount}) >= 5000 THEN 'gold'
         WHEN SUM({amount}) >= 1000 THEN 'silver'
         WHEN SUM({amount}) >= 100  THEN 'bronze'
         ELSE 'none'
       END AS {name}
FROM {stream}
WHERE {time} >= CURRENT_DATE - INTERVAL '90' DAY{and_key}
GROUP BY {key}

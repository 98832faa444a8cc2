/* tag
title       = "年代"
description = "The decade of birth, as in 90后"
method      = "rule"
*/
SELECT user_id,
       CAST(date_part('year', MAX(birthday)) AS BIGINT) % 100
         - CAST(date_part('year', MAX(birthday)) AS BIGINT) % 10 AS birth_decade
FROM users
WHERE birthday IS NOT NULL
GROUP BY user_id

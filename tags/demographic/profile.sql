/* tag
title       = "基本资料"
description = "What the user said at the latest registration"
owner       = "crm"
method      = "manual"
[columns.gender]
labels = { male = "男", female = "女", unknown = "未知" }
*/
SELECT user_id, name, gender, birthday, city, registered_at
FROM (
  SELECT user_id, name, gender, birthday, city, registered_at,
         ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY registered_at DESC NULLS LAST, name, gender, birthday, city) AS n
  FROM users
) AS registrations
WHERE n = 1

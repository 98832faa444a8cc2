//! Orders in Kafka joined with tables outside: in a MariaDB, in a CSV and a Parquet file, in a topic of upserts. All of
//! them change while the daemon runs and while it does not; what tags show is what the same SQL gives over the tables.

use std::cell::Cell;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use mysql_async::prelude::Queryable;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::shop::{PATIENCE, Shop, environment, free_port};

const TAGS: [(&str, &str); 5] = [
    (
        "spend",
        "SELECT o.user_id, MAX(l.title) AS title, SUM(o.amount) AS spend FROM orders o JOIN users u ON u.id = o.user_id \
         JOIN levels l ON l.level = u.level GROUP BY o.user_id",
    ),
    ("member", "SELECT id AS user_id, level, score, since, seen FROM users"),
    (
        "basket",
        "SELECT o.user_id, SUM(o.amount * p.price) AS worth FROM orders o JOIN prices p ON p.shop = o.shop AND p.sku = o.sku \
         GROUP BY o.user_id",
    ),
    ("town", "SELECT u.id AS user_id, c.name FROM users u LEFT JOIN cities c ON c.code = u.city"),
    ("vip", "SELECT user_id, vip FROM vips WHERE vip > 0"),
];

struct World {
    shop: Shop,
    /// Names of this test's topics and databases begin with it.
    id: String,
    server: String,
    producer: BaseProducer,
    orders: Cell<i64>,
}

impl World {
    fn new() -> Self {
        let server = environment("TAGFLOW_TEST_MYSQL");
        let server = server.rsplit_once('/').unwrap().0.to_string();
        let id = format!("tables_{}_{}", std::process::id(), free_port());
        let kafka = environment("TAGFLOW_TEST_KAFKA");
        let producer = crate::topic::producer(&kafka, &[]);
        let folder = tempfile::tempdir().unwrap();
        for part in ["schemas", "tags", "data"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        let settings = format!(
            "timezone = \"Asia/Shanghai\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n\
             [connection.shop]\ntype = \"kafka\"\nbrokers = \"${{SHOP_KAFKA}}\"\n\
             [connection.crm]\ntype = \"mysql\"\nurl = \"{server}/{id}_crm\"\n\
             [connection.files]\ntype = \"file\"\npath = \"data\"\n[store]\nurl = \"${{TAGFLOW_STORE_URL}}\"\n\
             [profile.demo-kafka]\n[serve]\nlisten = \"127.0.0.1:{}\"\n\
             [engine]\ncheckpoint_interval = \"1s\"\nflush_interval = \"100ms\"\n",
            free_port()
        );
        fs::write(folder.path().join("tagflow.toml"), settings).unwrap();
        let schemas = [
            (
                "orders",
                format!("connection = \"shop\"\ntopic = \"{id}.orders\"\nformat = \"json\"\n"),
                "user_id = \"BIGINT\"\namount = \"DECIMAL(12,2)\"\nshop = \"VARCHAR\"\nsku = \"BIGINT\"\n",
            ),
            (
                "users",
                "kind = \"mysql\"\nconnection = \"crm\"\ntable = \"users\"\nkey = [\"id\"]\nresync = \"2s\"\n\
                 changes = { column = \"updated_at\", every = \"200ms\" }\n"
                    .to_string(),
                "id = \"BIGINT\"\nlevel = \"VARCHAR\"\ncity = \"VARCHAR\"\nscore = \"DOUBLE\"\nsince = \"TIMESTAMP(3)\"\n\
                 seen = \"TIMESTAMP(3) WITH TIME ZONE\"\n",
            ),
            (
                "prices",
                format!(
                    "kind = \"mysql\"\nconnection = \"crm\"\ntable = \"{id}_crm.prices\"\nkey = [\"shop\", \"sku\"]\n\
                     resync = \"1s\"\n"
                ),
                "shop = \"VARCHAR\"\nsku = \"BIGINT\"\nprice = \"DECIMAL(10,3)\"\n",
            ),
            (
                "levels",
                "kind = \"file\"\nconnection = \"files\"\npath = \"levels.csv\"\nformat = \"csv\"\nkey = [\"level\"]\n"
                    .to_string(),
                "level = \"VARCHAR\"\ntitle = \"VARCHAR\"\n",
            ),
            (
                "cities",
                "kind = \"file\"\nconnection = \"files\"\npath = \"cities.parquet\"\nformat = \"parquet\"\nkey = [\"code\"]\n"
                    .to_string(),
                "code = \"VARCHAR\"\nname = \"VARCHAR\"\n",
            ),
            (
                "vips",
                format!(
                    "kind = \"kafka-upsert\"\nconnection = \"shop\"\ntopic = \"{id}.vips\"\nformat = \"json\"\nkey = [\"user_id\"]\n"
                ),
                "user_id = \"BIGINT\"\nvip = \"INT\"\n",
            ),
        ];
        for (name, head, columns) in schemas {
            fs::write(folder.path().join(format!("schemas/{name}.toml")), format!("{head}[columns]\n{columns}"))
                .unwrap();
        }
        for (name, sql) in TAGS {
            fs::write(folder.path().join(format!("tags/{name}.sql")), sql).unwrap();
        }
        let store = format!("{server}/{id}_tags");
        World {
            shop: Shop { folder, kafka, store, environment: Vec::new() },
            id,
            server,
            producer,
            orders: Cell::new(0),
        }
    }

    /// Runs statements in the database that is read; the last one's first column.
    fn sql(&self, statements: &[&str]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = mysql_async::Conn::from_url(&self.server).await.unwrap();
            connection
                .query_drop(format!(
                    "CREATE DATABASE IF NOT EXISTS {}_crm CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
                    self.id
                ))
                .await
                .unwrap();
            connection.query_drop(format!("USE {}_crm", self.id)).await.unwrap();
            let mut found = Vec::new();
            for statement in statements {
                found = connection.query(*statement).await.unwrap();
            }
            connection.disconnect().await.unwrap();
            found
        })
    }

    fn send(&self, topic: &str, key: Option<&str>, payload: Option<&str>) {
        let topic = format!("{}.{topic}", self.id);
        let mut record = BaseRecord::<str, str>::to(&topic);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        self.producer.send(record).unwrap();
    }

    /// Orders of the first users, to the topic and, for the sake of comparison, to the database.
    fn order(&self, count: i64) {
        let mut values = Vec::new();
        let first = self.orders.replace(self.orders.get() + count);
        for number in first..first + count {
            let (user, shop, sku) = (number % 97, ["a", "b'\\", "é"][number as usize % 3], number % 2500);
            let cents = number * 37 % 10_000;
            let amount = format!("{}.{:02}", cents / 100, cents % 100);
            let record = serde_json::json!({ "user_id": user, "amount": amount, "shop": shop, "sku": sku });
            self.send("orders", None, Some(&record.to_string()));
            let shop = shop.replace('\\', "\\\\").replace('\'', "''");
            values.push(format!("({user}, {amount}, '{shop}', {sku})"));
        }
        self.producer.flush(PATIENCE).unwrap();
        self.sql(&[&format!("INSERT INTO orders VALUES {}", values.join(", "))]);
    }

    /// The newest value of each user; none is a tombstone.
    fn vips(&self, values: &[(i64, Option<i64>)]) {
        for (user, vip) in values {
            let key = [user.to_string(), serde_json::json!({ "user_id": user }).to_string()];
            let row = vip.map(|vip| serde_json::json!({ "user_id": user, "vip": vip }).to_string());
            self.send("vips", Some(&key[*user as usize % 2]), row.as_deref());
            let statement = match vip {
                Some(vip) => format!("REPLACE INTO vips VALUES ({user}, {vip})"),
                None => format!("DELETE FROM vips WHERE user_id = {user}"),
            };
            self.sql(&[&statement]);
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    fn replace(&self, file: &str, content: impl AsRef<[u8]>) {
        let draft = self.shop.path("draft");
        fs::write(&draft, content).unwrap();
        fs::rename(draft, self.shop.path(&format!("data/{file}"))).unwrap();
    }

    fn levels(&self, rows: &[(&str, &str)]) {
        let lines: Vec<String> = rows.iter().map(|(level, title)| format!("\"{title}\",{level}\n")).collect();
        self.replace("levels.csv", format!("title,level\n{}", lines.concat()));
        self.copy("levels", "level", "title", rows);
    }

    fn cities(&self, rows: &[(&str, &str)]) {
        let column = |texts: Vec<&str>| Arc::new(StringArray::from(texts)) as ArrayRef;
        let columns = [
            ("code", column(rows.iter().map(|(code, _)| *code).collect())),
            ("name", column(rows.iter().map(|(_, name)| *name).collect())),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        self.replace("cities.parquet", bytes);
        self.copy("cities", "code", "name", rows);
    }

    /// What a file holds, in the database too.
    fn copy(&self, table: &str, key: &str, value: &str, rows: &[(&str, &str)]) {
        let values: Vec<String> = rows.iter().map(|(key, value)| format!("('{key}', '{value}')")).collect();
        let make = format!("CREATE TABLE {table} ({key} VARCHAR(20), {value} VARCHAR(50))");
        self.sql(&[
            &format!("DROP TABLE IF EXISTS {table}"),
            &make,
            &format!("INSERT INTO {table} VALUES {}", values.join(", ")),
        ]);
    }

    /// Waits until every tag's table is what the query gives over the tables themselves.
    fn until_equal(&self) {
        let rows = |select: &str| {
            let all = format!("SELECT CONCAT_WS('|', {select}");
            self.sql(&[&all])
        };
        let tags = format!("{}_tags", self.id);
        let wall = "CONVERT_TZ(seen, @@session.time_zone, '+08:00')";
        let pairs = [
            (
                format!("user_id, title, spend) FROM {tags}.spend ORDER BY user_id"),
                "o.user_id, MAX(l.title), SUM(o.amount)) FROM orders o JOIN users u ON u.id = o.user_id \
                 JOIN levels l ON l.level = u.level GROUP BY o.user_id ORDER BY o.user_id"
                    .to_string(),
            ),
            (
                format!("user_id, level, score + 0e0, since, seen) FROM {tags}.member ORDER BY user_id"),
                format!("id, level, score + 0e0, since, {wall}) FROM users ORDER BY id"),
            ),
            (
                format!("user_id, worth + 0) FROM {tags}.basket ORDER BY user_id"),
                "o.user_id, SUM(o.amount * p.price) + 0) FROM orders o \
                 JOIN prices p ON p.shop = o.shop AND p.sku = o.sku GROUP BY o.user_id ORDER BY o.user_id"
                    .to_string(),
            ),
            (
                format!("user_id, name) FROM {tags}.town ORDER BY user_id"),
                "u.id, c.name) FROM users u LEFT JOIN cities c ON c.code = u.city ORDER BY u.id".to_string(),
            ),
            (
                format!("user_id, vip) FROM {tags}.vip ORDER BY user_id"),
                "user_id, vip) FROM vips WHERE vip > 0 ORDER BY user_id".to_string(),
            ),
        ];
        let begun = Instant::now();
        for (shown, meant) in pairs {
            loop {
                let (found, expected) = (rows(&shown), rows(&meant));
                if found == expected && !found.is_empty() {
                    break;
                }
                let differing = found.iter().filter(|row| !expected.contains(row)).take(3).collect::<Vec<_>>();
                let lacking = expected.iter().filter(|row| !found.contains(row)).take(3).collect::<Vec<_>>();
                assert!(
                    begun.elapsed() < PATIENCE,
                    "{shown}: {} rows, not {}; {differing:?} instead of {lacking:?}\n{}",
                    found.len(),
                    expected.len(),
                    self.shop.log()
                );
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

#[test]
fn tags_over_tables_outside_are_what_sql_says_over_the_tables_whatever_happens_meanwhile() {
    let world = World::new();
    world.sql(&[
        "CREATE TABLE orders (user_id BIGINT, amount DECIMAL(12,2), shop VARCHAR(20), sku BIGINT)",
        "CREATE TABLE vips (user_id BIGINT PRIMARY KEY, vip INT)",
        "CREATE TABLE users (id BIGINT PRIMARY KEY, level VARCHAR(20), city VARCHAR(20), score FLOAT, since DATETIME(3), \
         seen TIMESTAMP(3) NULL, photo BLOB, updated_at TIMESTAMP(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3))",
        "INSERT INTO users (id, level, city, score, since, seen, photo) SELECT seq, ELT(1 + seq % 3, 'gold', 'silver', NULL), \
         CONCAT('c', seq % 5), seq / 7, '2024-03-10 02:30:00.125' + INTERVAL seq MINUTE, \
         '2024-03-10 02:30:00.125' + INTERVAL seq HOUR, x'00ff' FROM seq_0_to_11999",
        // Beyond what a double tells apart.
        "INSERT INTO users (id, level) VALUES (9007199254740993, 'gold'), (9007199254740992, 'silver')",
        "CREATE TABLE prices (shop VARCHAR(20) COLLATE utf8mb4_bin, sku BIGINT, price DECIMAL(10,3), PRIMARY KEY (shop, sku)) \
         DEFAULT CHARSET utf8mb4",
        "INSERT INTO prices SELECT 'a', seq, seq / 8 FROM seq_1_to_2500",
        "INSERT INTO prices SELECT 'b''\\\\', seq, seq / 3 FROM seq_1_to_2600",
        "INSERT INTO prices SELECT 'é', seq, seq / 9 FROM seq_1_to_2700",
    ]);
    world.levels(&[("gold", "金卡"), ("silver", "a \"\" b")]);
    world.sql(&["UPDATE levels SET title = 'a \" b' WHERE level = 'silver'"]);
    world.cities(&[("c1", "上海"), ("c2", "北京")]);
    world.vips(&[(1, Some(5)), (2, Some(6)), (3, Some(0)), (1, Some(7)), (2, None)]);
    world.order(300);
    let mut daemon = world.shop.start();
    daemon.until_quiet(TAGS.len());
    world.until_equal();

    // Everything changes while it runs; rows that were deleted are found by reading the whole table.
    world.sql(&[
        "UPDATE users SET level = 'silver' WHERE id % 10 = 0",
        "INSERT INTO users (id, level, city) VALUES (20000, 'gold', 'c2')",
        "DELETE FROM users WHERE id BETWEEN 5 AND 9 OR id = 9007199254740992",
        "UPDATE prices SET price = price + 1 WHERE sku < 100",
    ]);
    world.levels(&[("gold", "黄金"), ("silver", "白银")]);
    world.cities(&[("c2", "北京"), ("c3", "广州")]);
    world.vips(&[(1, None), (2, Some(9)), (4, Some(1))]);
    world.order(200);
    world.until_equal();

    // A crash in the middle of changes, others while nobody looks.
    world.sql(&["UPDATE users SET score = score * 2", "DELETE FROM prices WHERE shop = 'a' AND sku % 2 = 0"]);
    world.levels(&[("gold", "金"), ("silver", "银")]);
    std::thread::sleep(Duration::from_millis(700));
    daemon.kill();
    world.sql(&[
        "UPDATE users SET level = 'gold', seen = '2024-10-27 01:30:00' WHERE id % 7 = 0",
        "DELETE FROM users WHERE id % 11 = 3",
    ]);
    world.vips(&[(2, None), (5, Some(2))]);
    world.cities(&[("c4", "深圳")]);
    world.order(100);
    let mut daemon = world.shop.start();
    world.until_equal();
    daemon.until_quiet(TAGS.len());

    // What is away or wrong changes nothing, and is told.
    fs::rename(world.shop.path("data/levels.csv"), world.shop.path("data/levels.old")).unwrap();
    daemon.until("the file is missed", |status| format!("{status:?}").contains("the rows stay as they were"));
    world.order(50);
    world.until_equal();
    fs::rename(world.shop.path("data/levels.old"), world.shop.path("data/levels.csv")).unwrap();
    daemon.until("the file is back", |status| !format!("{status:?}").contains("the rows stay as they were"));
    // Tables that are made anew every night are away for a while; others look at them meanwhile.
    world.sql(&["RENAME TABLE prices TO prices_aside"]);
    daemon.until("the table is missed", |status| format!("{status:?}").contains("there is no table"));
    world.sql(&["RENAME TABLE prices_aside TO prices", "UPDATE prices SET price = price + 1 WHERE sku < 50"]);
    world.until_equal();
    // A row that says it was written far ahead keeps no other from being seen by the next poll, long before a whole look.
    fs::write(
        world.shop.path("schemas/users.toml"),
        fs::read_to_string(world.shop.path("schemas/users.toml")).unwrap().replace("\"2s\"", "\"1h\""),
    )
    .unwrap();
    daemon.until_quiet(TAGS.len());
    world.sql(&["UPDATE users SET level = 'gold', updated_at = '2037-01-01' WHERE id = 101"]);
    world.until_equal();
    world.sql(&["UPDATE users SET level = 'silver' WHERE id = 102"]);
    world.until_equal();
    daemon.interrupt();
    world.shop.verify();

    // Without the state the tables are read anew, and all tags are filled.
    fs::remove_dir_all(world.shop.path(".tagflow")).unwrap();
    world.sql(&["UPDATE users SET score = 1 WHERE id < 50"]);
    let mut daemon = world.shop.start();
    daemon.until_quiet(TAGS.len());
    world.until_equal();
    daemon.interrupt();
    world.shop.verify();

    // Queries and plans read them too, without a daemon.
    let answer = |arguments: &[&str]| {
        let output = world.shop.output(arguments);
        assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let gold = "FROM users u JOIN levels l ON l.level = u.level WHERE l.level = 'gold'";
    let counted = answer(&["query", &format!("SELECT COUNT(*) AS n {gold}"), "--format", "csv"]);
    assert_eq!(counted, format!("n\n{}\n", world.sql(&[&format!("SELECT CONCAT(COUNT(*)) {gold}")])[0]));
    let town = "SELECT u.id AS user_id, c.name || '!' AS name FROM users u LEFT JOIN cities c ON c.code = u.city";
    fs::write(world.shop.path("tags/town.sql"), town).unwrap();
    let plan = answer(&["plan", "--data", "--sample", "100%", "--format", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let data = &plan["tags"][0]["data"];
    let named = world.sql(&["SELECT CONCAT(COUNT(*)) FROM users u JOIN cities c ON c.code = u.city"]);
    assert_eq!(
        (data["changed"].to_string(), &data["appear"], &data["vanish"]),
        (named[0].clone(), &0.into(), &0.into())
    );
    world.sql(&[&format!("DROP DATABASE {}_tags", world.id), &format!("DROP DATABASE {}_crm", world.id)]);
}

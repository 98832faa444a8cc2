//! `tagflow test` as a process: what it prints of tests that fail or cannot run, what it records, and its exit codes.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::sql::ORDERS;

const SPEND: &str = "SELECT user_id, SUM(amount) AS spend, MAX(category) AS category FROM orders \
                     WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY GROUP BY user_id";

/// A project with one tag, `tags/spend.sql`, and these files.
struct Bench {
    root: TempDir,
}

/// What a run says.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let bench = Bench { root };
        let shop = [("tagflow.toml", super::SETTINGS), ("schemas/orders.toml", ORDERS), ("tags/spend.sql", SPEND)];
        for (path, text) in shop.iter().chain(files) {
            bench.write(path, text);
        }
        bench
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tagflow"));
        let output = command.arg("test").args(arguments).current_dir(self.root.path()).env_clear().output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The text without what differs from run to run.
fn untimed(text: &str) -> String {
    let line = |line: &str| match line.rsplit_once(" in ") {
        Some((before, time)) if time.ends_with(" s") => format!("{before} in … s\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

const FAILING: &str = r#"
[defaults.orders]
user_id = 7

[[test]]
name = "this one passes"
[[test.moment]]
at = 2026-03-01T12:00:00
given.orders = [{ order_id = 1, amount = 10.50, order_time = 2026-03-01T10:00:00 }]
rows = [{ user_id = 7, spend = 10.50 }]

[[test]]
name = "rows that are missing, too many and different"
[[test.moment]]
at = 2026-03-01T12:00:00
given.orders = [
  { order_id = 1, amount = 10.50, category = "toys", order_time = 2026-03-01T10:00:00 },
  { order_id = 2, amount = 3, user_id = 8, category = "NULL", order_time = 2026-03-01T10:00:00 },
  { order_id = 3, amount = 4, user_id = 10, category = "", order_time = 2026-03-01T10:00:00 },
]
rows = [
  { user_id = 7, spend = 10.50, category = "books" },
  { user_id = 8, spend = 3 },
  { user_id = 9, spend = 1.00, category = "food" },
]

[[test]]
name = "changes are not those that come"
[[test.moment]]
at = 2026-03-01T12:00:00
given.orders = [
  { order_id = 1, amount = 10.50, order_time = 2026-03-01T10:00:00 },
  { order_id = 2, amount = 3, user_id = 8, order_time = 2026-02-25T10:00:00 },
]
changes = [
  { user_id = 7, spend = 10.50 },
  { user_id = 8, spend = 3.00 },
]
[[test.moment]]
at = 2026-03-28T00:00:00
changes = [
  { user_id = 7, spend = 0 },
]

[[test]]
name = "dead letters that nobody expects, and one that does not come"
[[test.moment]]
at = 2026-03-01T12:00:00
given.orders = [
  '{"order_id": 1, "user_id": 7, "amount": "ten"}',
  '{"order_id": "x", "user_id": 7, "amount": "ten"}',
]
dead_letters = [
  { stream = "orders", error = "order_id" },
  { stream = "orders", kind = "late" },
]
"#;

#[test]
fn failing_tests_show_what_is_missing_extra_and_changed() {
    let bench = Bench::new(&[("tags/spend.test.toml", FAILING)]);
    let said = bench.run(&[]);
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""));
    golden("tag_test_failures", &untimed(&said.out));
    assert!(!said.out.contains('\u{1b}'), "colours are for terminals");

    let json: serde_json::Value = serde_json::from_str(&bench.run(&["spend", "--format", "json"]).out).unwrap();
    assert_eq!((json["passed"].as_u64(), json["failed"].as_u64()), (Some(1), Some(3)));
    let failure = &json["tests"][1]["failures"][0];
    assert_eq!(failure["kind"], "rows");
    assert_eq!(failure["differences"][0]["expected"]["category"], "books");
    assert_eq!(failure["differences"][0]["found"]["category"], "toys");
    assert_eq!(failure["line"], 21);

    let junit = bench.run(&["--format", "junit"]).out;
    assert!(junit.contains("<testsuites name=\"tagflow test\" tests=\"4\" failures=\"3\" errors=\"0\">"), "{junit}");
    assert!(junit.contains("<testcase classname=\"tags/spend.test.toml\" name=\"this one passes\" time="), "{junit}");
    assert!(
        junit.contains("message=\"2026-03-01 12:00:00 (tags/spend.test.toml:21): the rows are not as expected\""),
        "{junit}"
    );
}

#[test]
fn recorded_file_passes_and_keeps_everything_else() {
    let bench = Bench::new(&[("tags/spend.test.toml", &format!("# kept\n{FAILING}# kept too\n"))]);
    let said = bench.run(&["--record"]);
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    assert!(said.err.starts_with("written tags/spend.test.toml\n"), "{}", said.err);
    golden("tag_test_recorded", &bench.read("tags/spend.test.toml"));
    assert_eq!(bench.run(&[]).code, Some(0));
    let before = bench.read("tags/spend.test.toml");
    assert_eq!(bench.run(&["--record"]).err, "nothing to record: everything is as expected\n");
    assert_eq!(bench.read("tags/spend.test.toml"), before);
}

#[test]
fn files_with_mistakes_cannot_run_and_the_others_do() {
    let sound = "[[test]]\nname = \"a\"\n[[test.moment]]\nat = 2026-03-01T12:00:00\nrows = []\n";
    let broken = r#"[defaults.orders]
amuont = 1

[[test]]
name = "a"
[[test.moment]]
at = 2026-03-01T12:00:00
given.orders = [
  { order_id = 1, user_id = 7, amount = 10.555 },
  { user_id = 7 },
  { order_id = 3, user_id = 7, _delete = true },
]
given.views = []
rows = [
  { user_id = 7, spend = "much" },
  { user_id = 8, spned = 1 },
  { spend = 1 },
  { user_id = 9 },
  { user_id = 9 },
]
[[test.moment]]
at = 2026-02-01T12:00:00
changes = [{ user_id = 7, spend = 1, _delete = true }]

[[test]]
name = "a"
[[test.moment]]
at = "tomorrow"
dead_letters = [{ stream = "orders", kind = "lost" }]
rows = "../secret.csv"

[[test]]
name = "nothing"
[[test.moment]]
at = 2026-03-01T12:00:00
rows = "none.csv"

[[tests]]
"#;
    let files = [("tags/spend.test.toml", sound), ("tags/total.sql", SPEND), ("tags/total.test.toml", broken)];
    let bench = Bench::new(&files);
    let said = bench.run(&[]);
    assert_eq!(said.code, Some(2));
    golden("tag_test_mistakes", &format!("{}{}", said.err, untimed(&said.out)));
    // Only what is asked for counts.
    assert_eq!(bench.run(&["spend"]).code, Some(0));
    assert_eq!(bench.run(&["tags/spend.test.toml"]).code, Some(0));
    assert_eq!(bench.run(&["tags/total.sql"]).code, Some(2));
    let unknown = bench.run(&["spent"]);
    assert_eq!(unknown.code, Some(2));
    assert_eq!(unknown.err, "error: there is no tag, and no file or folder of tags, `spent`; did you mean `spend`?\n");
}

const THINGS: &str = r#"connection = "shop"
topic = "shop.things"
format = "json"
time = { column = "at" }
[columns]
user_id = "BIGINT NOT NULL"
name = "VARCHAR"
price = "DECIMAL(30,10)"
weight = "DOUBLE"
is_new = "BOOLEAN"
day = "DATE"
at = "TIMESTAMP(6)"
seen = "TIMESTAMP(3) WITH TIME ZONE"
words = "VARCHAR ARRAY"
"#;

const LATEST: &str = "SELECT user_id, name, price, weight, is_new, day, at, seen, words, seconds FROM (SELECT user_id, name, \
    price, weight, is_new, day, at, seen, words, CAST(date_part('second', at) AS REAL) AS seconds, \
    ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY at DESC NULLS LAST, name, price, weight, is_new, day, seen) AS n \
    FROM things WHERE at >= CURRENT_DATE - INTERVAL '2' DAY) WHERE n = 1";

/// Tests of random events that expect nothing yet, every other one out of a CSV file.
fn random_tests(random: &mut rand::rngs::StdRng) -> String {
    use rand::Rng;
    let texts = [
        "a",
        "",
        "NULL",
        "it's \\\"quoted\\\"",
        "line\\nbreak",
        " led by a blank",
        "a,b",
        "标签",
        "1",
        "true",
        "# no comment",
    ];
    let mut file = String::new();
    for test in 0..5 {
        file.push_str(&format!("[[test]]\nname = \"test {test}\"\n"));
        for day in 1..4 {
            file.push_str(&format!("[[test.moment]] # day {day}\nat = 2026-03-0{day}T12:00:00\ngiven.things = [\n"));
            for _ in 0..random.random_range(0..5) {
                let mut row = vec![format!("user_id = {}", random.random_range(1..6))];
                let mut say = |text: String, random: &mut rand::rngs::StdRng| {
                    if random.random_bool(0.8) {
                        row.push(text);
                    }
                };
                let text = texts[random.random_range(0..texts.len())];
                say(format!("name = \"{text}\""), random);
                say(
                    format!(
                        "price = {}.{:010}",
                        random.random_range(-9_999_999_i64..9_999_999),
                        random.random_range(0..9_999_999)
                    ),
                    random,
                );
                say(format!("weight = {:?}", f64::from(random.random_range(-1000..1000)) / 7.0), random);
                say(format!("is_new = {}", random.random_bool(0.5)), random);
                say(format!("day = 2026-02-{:02}", random.random_range(1..29)), random);
                let second = random.random_range(0..60);
                say(
                    format!(
                        "at = 2026-03-0{}T0{}:30:{second:02}.25",
                        random.random_range(1..4),
                        random.random_range(0..10)
                    ),
                    random,
                );
                say(format!("seen = 2026-03-01T10:00:{second:02}Z"), random);
                say(format!("words = [\"{text}\", \"b\"]"), random);
                file.push_str(&format!("  {{ {} }},\n", row.join(", ")));
            }
            file.push_str("]\n");
        }
    }
    file
}

#[test]
fn recorded_file_passes_whatever_the_values_are() {
    use rand::SeedableRng;
    for seed in 0..2 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let tests = random_tests(&mut random);
        let bench = Bench::new(&[
            ("schemas/things.toml", THINGS),
            ("tags/latest.sql", LATEST),
            ("tags/latest.test.toml", &tests),
        ]);
        assert_eq!(bench.run(&["latest"]).code, Some(2), "seed {seed}: a test that expects nothing cannot fail");
        let said = bench.run(&["latest", "--record"]);
        assert_eq!(
            said.code,
            Some(0),
            "seed {seed}: {}\n{}\n{}",
            said.out,
            said.err,
            bench.read("tags/latest.test.toml")
        );
        let recorded = bench.read("tags/latest.test.toml");
        assert_eq!(bench.run(&["latest"]).code, Some(0), "seed {seed}: {recorded}");
        assert!(
            recorded.contains("[[test.moment]] # day 2\n") && recorded.matches("rows = [").count() == 15,
            "{recorded}"
        );
        // What was recorded is looked at: another key is another row.
        let row = "rows = [\n  { user_id = ";
        bench.write("tags/latest.test.toml", &recorded.replacen(row, &format!("{row}99"), 1));
        assert_eq!(bench.run(&["latest"]).code, Some(1), "seed {seed}");
    }
}

#[test]
fn rows_of_a_csv_file_are_recorded_into_it() {
    let test = "[[test]]\nname = \"a\"\n[[test.moment]]\nat = 2026-03-01T12:00:00\n\
                given.orders = \"orders.csv\"\nrows = \"rows.csv\"\n";
    let orders = "order_id,user_id,amount,category,order_time\n1,7,10.50,\"a,b\",2026-03-01 10:00:00\n\
                  2,8,3,,2026-03-01 10:00:00\n3,9,1,\"\",2026-03-01 10:00:00\n";
    let bench =
        Bench::new(&[("tags/spend.test.toml", test), ("tags/orders.csv", orders), ("tags/rows.csv", "user_id\n")]);
    assert_eq!(bench.run(&[]).code, Some(1));
    let said = bench.run(&["--record"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(bench.read("tags/rows.csv"), "user_id,spend,category\n7,10.50,\"a,b\"\n8,3.00,\n9,1.00,\"\"\n");
    assert_eq!(bench.read("tags/spend.test.toml"), test);
}

#[test]
fn coverage_names_what_no_test_has_looked_at() {
    let sql = "SELECT user_id,\n  COUNT(*) FILTER (WHERE status = 'paid') AS paid,\n  CASE\n    WHEN SUM(amount) > 100 THEN 'big'\n\
               \x20   WHEN SUM(amount) > 10 THEN 'middle'\n    ELSE 'small'\n  END AS size\nFROM orders\n\
               WHERE category IS NOT NULL\n  AND quantity > 0\nGROUP BY user_id\nHAVING COUNT(*) > 0\n";
    let tests = r#"[defaults.orders]
status = "paid"
category = "toys"
quantity = 1

[[test]]
name = "sizes"
[[test.moment]]
at = 2026-03-01T12:00:00
given.orders = [
  { order_id = 1, user_id = 7, amount = 500 },
  { order_id = 2, user_id = 8, amount = 5, status = "refunded" },
  { order_id = 3, user_id = 9, amount = 5, quantity = 0 },
]
rows = [
  { user_id = 7, paid = 1, size = "big" },
  { user_id = 8, paid = 0, size = "small" },
]
"#;
    let bench = Bench::new(&[("tags/size.sql", sql), ("tags/size.test.toml", tests)]);
    let said = bench.run(&["size", "--coverage"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    golden("tag_test_coverage", &untimed(&said.out));
    let json: serde_json::Value =
        serde_json::from_str(&bench.run(&["size", "--coverage", "--format", "json"]).out).unwrap();
    let conditions = json["coverage"][0]["conditions"].as_array().unwrap();
    let missing: Vec<_> =
        conditions.iter().filter(|one| one["covered"] == false).map(|one| one["line"].as_u64()).collect();
    assert_eq!(missing, [Some(5), Some(9), Some(12)]);
}

#[test]
fn tag_that_is_set_aside_may_be_expected_to_be() {
    let sql = "SELECT user_id, MAX(amount / quantity) AS price FROM orders GROUP BY user_id";
    let tests = r#"[[test]]
name = "nothing is sold without a piece"
[[test.moment]]
at = 2026-03-01T12:00:00
given.orders = [
  { order_id = 1, user_id = 7, amount = 500, quantity = 1 },
  { order_id = 2, user_id = 8, amount = 5, quantity = 0 },
]
fails = "Divide by zero"
"#;
    let bench = Bench::new(&[("tags/price.sql", sql), ("tags/price.test.toml", tests)]);
    let said = bench.run(&["price"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    bench.write("tags/price.test.toml", &tests.replace("fails = \"Divide by zero\"", "rows = []"));
    let said = bench.run(&["price"]);
    assert_eq!(said.code, Some(1));
    let place = "(tags/price.test.toml:7): the tag is set aside: ";
    assert!(said.out.contains(place) && said.out.contains("Divide by zero"), "{}", said.out);
    bench.write("tags/price.test.toml", &tests.replace("quantity = 0", "quantity = 2"));
    let said = bench.run(&["price"]);
    assert!(said.code == Some(1) && said.out.contains("was to be set aside for \"Divide by zero\""), "{}", said.out);
}

/// Changes of a table as each tool writes them: a row that is new, one that is another, one that is gone, and what is none.
const CHANGES: [(&str, [&str; 4]); 3] = [
    (
        "debezium-json",
        [
            r#"{"payload":{"before":null,"after":{"user_id":2,"city":"Köln"},"op":"c","source":{"table":"users"}}}"#,
            r#"{"before":null,"after":{"user_id":1,"city":"Berlin"},"op":"u"}"#,
            r#"{"before":{"user_id":2,"city":"Köln"},"after":null,"op":"d"}"#,
            r#"{"after":{"user_id":"x","city":null},"op":"c"}"#,
        ],
    ),
    (
        "maxwell-json",
        [
            r#"{"database":"shop","table":"users","type":"insert","ts":1,"data":{"user_id":2,"city":"Köln"}}"#,
            r#"{"database":"shop","table":"users","type":"update","ts":2,"data":{"user_id":1,"city":"Berlin"},"old":{"city":"Bonn"}}"#,
            r#"{"database":"shop","table":"users","type":"delete","ts":3,"data":{"user_id":2,"city":"Köln"}}"#,
            r#"{"database":"shop","table":"users","type":"insert","ts":4,"data":{"user_id":"x","city":null}}"#,
        ],
    ),
    (
        "canal-json",
        [
            r#"{"database":"shop","table":"users","type":"INSERT","isDdl":false,"data":[{"user_id":"2","city":"Köln"}]}"#,
            r#"{"database":"shop","table":"users","type":"UPDATE","isDdl":false,"data":[{"user_id":"1","city":"Berlin"}],"old":[{"city":"Bonn"}]}"#,
            r#"{"database":"shop","table":"users","type":"DELETE","isDdl":false,"data":[{"user_id":"2","city":"Köln"}]}"#,
            r#"{"database":"shop","table":"users","type":"INSERT","isDdl":false,"data":[{"user_id":"x","city":null}]}"#,
        ],
    ),
];

#[test]
fn changes_of_a_table_are_given_as_rows_or_as_the_topic_has_them() {
    for (format, [new, other, gone, wrong]) in CHANGES {
        let schema = format!(
            "connection = \"shop\"\ntopic = \"users\"\nformat = \"{format}\"\nkey = [\"user_id\"]\n[columns]\n\
             user_id = \"BIGINT NOT NULL\"\ncity = \"VARCHAR\"\n"
        );
        let tests = format!(
            "[[test]]\nname = \"rows come, change and go\"\n\
             [[test.moment]]\nat = 2026-03-01T12:00:00\n\
             given.users = [{{ user_id = 1, city = \"Bonn\" }}, '{new}']\n\
             rows = [{{ user_id = 1, city = \"Bonn\" }}, {{ user_id = 2, city = \"Köln\" }}]\n\
             [[test.moment]]\nat = 2026-03-01T12:00:10\ngiven.users = ['{other}', '{gone}']\n\
             changes = [{{ user_id = 1, city = \"Berlin\" }}, {{ user_id = 2, _delete = true }}]\n\
             [[test.moment]]\nat = 2026-03-01T12:00:20\ngiven.users = ['{wrong}', {{ user_id = 1, _delete = true }}]\n\
             dead_letters = [{{ stream = \"users\", error = \"user_id\" }}]\nrows = []\n"
        );
        let bench = Bench::new(&[
            ("schemas/users.toml", &schema),
            ("tags/cities.sql", "SELECT user_id, city FROM users"),
            ("tags/cities.test.toml", &tests),
        ]);
        let said = bench.run(&["cities"]);
        assert_eq!(said.code, Some(0), "{format}: {}{}", said.out, said.err);
        // That it could fail is shown by one row that is another.
        bench.write("tags/cities.test.toml", &tests.replace("city = \"Berlin\"", "city = \"Bremen\""));
        let said = bench.run(&["cities"]);
        assert!(said.code == Some(1) && said.out.contains("Bremen"), "{format}: {}{}", said.out, said.err);
    }
}

//! Every template over every kind of thing that a tag reads, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::Parser;

use super::templates::{TEMPLATES, Template};
use super::*;
use crate::cli::{FAILED, OK, ProjectArgs, USAGE, load};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    new: NewArgs,
}

const SETTINGS: &str = "timezone = \"Asia/Shanghai\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n\
    [connection.files]\ntype = \"file\"\npath = \"data\"\n[store]\nurl = \"sqlite:tags.db\"\n";
const ORDERS: &str = "connection = \"files\"\ntopic = \"orders.json\"\nformat = \"json\"\n\
    time = { column = \"order_time\", lateness = \"10s\" }\n[columns]\norder_id = \"BIGINT NOT NULL\"\n\
    user_id = \"BIGINT\"\namount = \"DECIMAL(12,2)\"\ncategory = \"VARCHAR\"\n\
    order_time = { type = \"TIMESTAMP(3)\", format = \"epoch_ms\" }\n";
/// A stream in which nothing is called as one would like it, and times are instants.
const AWKWARD: &str = "connection = \"files\"\ntopic = \"odd.json\"\nformat = \"json\"\n[columns]\n\
    Buyer = \"BIGINT NOT NULL\"\n\"order\" = \"DOUBLE\"\n\"Kind of it\" = \"VARCHAR\"\n\
    at = \"TIMESTAMP(3) WITH TIME ZONE\"\n";

fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("tagflow.toml", SETTINGS),
        ("schemas/orders.toml", ORDERS),
        ("schemas/awkward.toml", AWKWARD),
        (
            "schemas/paid.sql",
            "SELECT user_id, amount, category, order_time FROM orders WHERE amount > 0 AND user_id IS NOT NULL",
        ),
        (
            "tags/daily_spend.sql",
            "/* tag owner = 'me' */ SELECT user_id, CAST(order_time AS DATE) AS day, MAX(category) AS kind, SUM(amount) AS spend, \
             MAX(order_time) AS at FROM paid WHERE order_time IS NOT NULL GROUP BY user_id, CAST(order_time AS DATE)",
        ),
    ];
    for (file, text) in files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn new(root: &Path, arguments: &str) -> (u8, String) {
    let words = ["new"].into_iter().chain(arguments.split(' ')).chain(["--project", root.to_str().unwrap()]);
    let mut out = Vec::new();
    let code = run(&Line::parse_from(words).new, &mut out);
    (code, String::from_utf8(out).unwrap())
}

fn problems(root: &Path) -> Vec<String> {
    let (loaded, _) = load(&ProjectArgs { project: root.to_owned(), profile: None });
    loaded.diagnostics.iter().map(|told| format!("{} {}: {}", told.file.display(), told.code, told.message)).collect()
}

#[test]
fn every_template_has_no_problems_over_streams_views_and_tags() {
    let folder = project();
    let project = crate::project::load(folder.path(), None).project.unwrap();
    let root = folder.path().to_str().unwrap();
    for source in ["orders", "awkward --key Buyer", "paid", "tags.daily_spend"] {
        let place = source.split([' ', '.']).next_back().unwrap().to_lowercase();
        for Template { name, .. } in TEMPLATES {
            let line =
                format!("new tag made/{name}_{place} --template {name} --owner me --from {source} --project {root}");
            let What::Tag(args) = Line::parse_from(line.split(' ')).new.what else { panic!("{line}") };
            let mut out = Vec::new();
            let file = tag::write(&args, &project, &mut out).unwrap_or_else(|_| panic!("{line}"));
            assert_eq!(file, Path::new(&format!("tags/made/{name}_{place}.sql")));
        }
    }
    assert_eq!(problems(folder.path()), Vec::<String>::new());
}

#[test]
fn columns_are_those_that_the_schema_means() {
    let folder = project();
    let (code, out) = new(folder.path(), "tag spend --template rolling_sum --from orders --format json");
    assert_eq!(code, OK, "{out}");
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["file"], "tags/spend.sql");
    let facts: BTreeMap<&str, &str> = said["facts"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect();
    let expected = [
        ("amount", "amount"),
        ("entity", "user"),
        ("from", "orders"),
        ("key", "user_id"),
        ("template", "rolling_sum"),
        ("time", "order_time"),
    ];
    assert_eq!(facts, BTreeMap::from(expected));
    let text = fs::read_to_string(folder.path().join("tags/spend.sql")).unwrap();
    let sql: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("SELECT")).collect();
    assert_eq!(
        sql.join("\n"),
        "SELECT user_id, SUM(amount) AS spend\nFROM orders\nWHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY \
         AND user_id IS NOT NULL\nGROUP BY user_id"
    );
}

#[test]
fn nothing_is_written_over_and_nothing_outside() {
    let folder = project();
    fs::write(folder.path().join("tags/mine.sql"), "my own").unwrap();
    fs::write(folder.path().join("schemas/mine.toml"), "my own").unwrap();
    for line in [
        "tag mine --template last_seen --from orders",
        "tag a/daily_spend --template last_seen --from orders",
        "tag ../../escaped --template last_seen --from orders",
        "tag /tmp/escaped --template last_seen --from orders",
        "tag Upper --template last_seen --from orders",
        "tag user_id --template last_seen --from orders",
        "tag a --template no_such --from orders",
        "tag a --from orders",
        "tag a --template last_seen",
        "tag a --template last_seen --from no_such",
        "tag a --template last_seen --from orders;DROP",
        "tag a --template last_seen --from awkward",
        "tag a --template rolling_sum --from orders --amount category",
        "tag a --template rolling_sum --from orders --amount no_such",
        "tag a --template rolling_sum --from orders --entity no_such",
        "schema mine",
        "schema paid",
        "schema ../escaped",
        "schema a --connection no_such",
        "schema a --from-mysql users",
    ] {
        assert_eq!(new(folder.path(), line), (USAGE, String::new()), "{line}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("tags/mine.sql")).unwrap(), "my own");
    assert_eq!(fs::read_to_string(folder.path().join("schemas/mine.toml")).unwrap(), "my own");
    assert!(!folder.path().join("tags/a.sql").exists() && !folder.path().join("schemas/a.toml").exists());
}

#[test]
fn schema_to_fill_in_has_no_problems() {
    let folder = project();
    let (code, out) = new(folder.path(), "schema clicks --topic shop.clicks");
    assert_eq!((code, out.as_str()), (OK, "written schemas/clicks.toml\n"));
    assert_eq!(problems(folder.path()), Vec::<String>::new());
}

#[test]
fn schema_of_a_file_is_proposed_and_fits_it() {
    let folder = project();
    fs::create_dir(folder.path().join("data")).unwrap();
    let row = |n: i64| {
        format!(
            "{{\"id\":{n},\"buyer\":{{\"id\":{n},\"city\":\"B\"}},\"price\":{n}.5,\"at\":\"2026-01-02T03:04:05Z\",\
             \"paidAt\":{},\"tags\":[\"a\"],\"lines\":[{{\"sku\":\"x\",\"n\":1}}],\"odd\":{},\"_v\":1,\"gone\":null}}\n",
            1_700_000_000_000_i64 + n,
            if n == 1 { "1" } else { "\"x\"" }
        )
    };
    let rows: String = (1..=3).map(row).collect();
    fs::write(folder.path().join("data/raw.json"), rows).unwrap();
    let (code, out) = new(folder.path(), "schema raw --from-topic raw.json");
    assert_eq!(code, OK, "{out}");
    assert!(out.contains("3 of 3 sampled records fit it"), "{out}");
    assert!(out.contains("look at the 4 columns that are marked \"unsure\""), "{out}");
    let text = fs::read_to_string(folder.path().join("schemas/raw.toml")).unwrap();
    let columns: Vec<&str> = text.split_once("[columns]\n").unwrap().1.lines().collect();
    assert_eq!(
        columns,
        [
            "id         = \"BIGINT\"",
            "buyer_id   = { type = \"BIGINT\", path = \"$.buyer.id\" }",
            "buyer_city = { type = \"VARCHAR\", path = \"$.buyer.city\" }",
            "price      = \"DECIMAL(12,2)\"  # unsure: 1 digits after the point in the sample; a record with more is a dead letter",
            "at         = \"TIMESTAMP(3)\"",
            "paidAt     = { type = \"TIMESTAMP(3)\", format = \"epoch_ms\" }",
            "tags       = \"VARCHAR ARRAY\"",
            "lines      = \"STRUCT<sku VARCHAR, n BIGINT> ARRAY\"  # unsure: fields and types of the sample; read it by CROSS JOIN UNNEST",
            "odd        = \"VARCHAR\"  # unsure: the sample has values of several kinds there",
            "v          = { type = \"BIGINT\", path = \"$._v\" }",
            "gone       = \"VARCHAR\"  # unsure: it was null in all of the sample",
        ]
    );
    assert!(
        text.contains("time       = { column = \"at\", lateness = \"10s\" }  # unsure: it might be paidAt; "),
        "{text}"
    );
    assert_eq!(problems(folder.path()), Vec::<String>::new());
    let (code, _) = new(folder.path(), "schema none --from-topic none.json");
    assert_eq!(code, FAILED);
}

#[test]
fn schema_of_csv_and_of_changes_is_proposed_with_its_format() {
    let folder = project();
    fs::create_dir(folder.path().join("data")).unwrap();
    let envelope = |id: i64| {
        format!(
            "{{\"payload\":{{\"op\":\"c\",\"before\":null,\"after\":{{\"id\":{id},\"name\":\"n\"}},\"source\":{{}}}}}}\n"
        )
    };
    for (file, text, format, columns) in [
        ("raw.csv", "id,name,paid\n1,a,2.50\n2,\"b, c\",3\n".to_string(), "csv", 3),
        ("debezium.json", (1..3).map(envelope).collect(), "debezium-json", 2),
        (
            "canal.json",
            "{\"data\":[{\"id\":\"1\",\"name\":\"n\"}],\"isDdl\":false,\"type\":\"INSERT\",\"pkNames\":[\"id\"]}\n"
                .to_string(),
            "canal-json",
            2,
        ),
        (
            "maxwell.json",
            "{\"database\":\"d\",\"table\":\"t\",\"type\":\"insert\",\"data\":{\"id\":1,\"name\":\"n\"}}\n".to_string(),
            "maxwell-json",
            2,
        ),
    ] {
        fs::write(folder.path().join("data").join(file), text).unwrap();
        let name = file.replace('.', "_");
        let (code, out) = new(folder.path(), &format!("schema {name} --from-topic {file} --format json"));
        assert_eq!(code, OK, "{file}: {out}\n{:?}", problems(folder.path()));
        let said: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(said["facts"]["columns"], columns, "{file}: {out}");
        assert_eq!(said["facts"]["decoded"], said["facts"]["sampled"], "{file}: {out}");
        let text = fs::read_to_string(folder.path().join(format!("schemas/{name}.toml"))).unwrap();
        assert!(text.contains(&format!("= \"{format}\"\n")), "{text}");
    }
    assert_eq!(problems(folder.path()), Vec::<String>::new());
}

#[test]
fn names_are_quoted_where_sql_would_misread_them() {
    for plain in ["user_id", "status", "day", "Amount"] {
        assert_eq!(ident(plain), plain);
    }
    assert_eq!(ident("order"), "\"order\"");
    assert_eq!(ident("a b\"c"), "\"a b\"\"c\"");
    assert_eq!(ident("金额"), "\"金额\"");
}

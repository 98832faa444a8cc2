//! What `explain` says of memory, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use tagflow::engine::desired::plan_project;
use tagflow::plan::explain::{as_json, describe};
use tagflow::plan::memory::Memory;

const STREAM: &str = "connection = \"shop\"\nformat = \"json\"\ntime = { column = \"at\", lateness = \"10s\" }\n";
const COLUMNS: &str = "[columns]\norder_id = \"BIGINT\"\nuser_id = \"BIGINT\"\namount = \"DECIMAL(12,2)\"\nweight = \"DOUBLE\"\n\
                       category = \"VARCHAR\"\nat = \"TIMESTAMP(3)\"\n";

const TAGS: [(&str, &str); 8] = [
    (
        "sums",
        "SELECT user_id, SUM(amount) AS a, AVG(weight) AS w, COUNT(*) AS n, MAX(at) AS t FROM orders GROUP BY user_id",
    ),
    ("by_category", "SELECT user_id, category, COUNT(DISTINCT order_id) AS n FROM orders GROUP BY user_id, category"),
    (
        "latest",
        "SELECT user_id, category FROM (SELECT user_id, category, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY at DESC, \
         order_id) AS n FROM orders) WHERE n = 1",
    ),
    (
        "gaps",
        "SELECT user_id, order_id, MAX(before) AS b FROM (SELECT user_id, order_id, LAG(at) OVER (PARTITION BY user_id ORDER BY \
         at, order_id) AS before FROM orders) GROUP BY user_id, order_id",
    ),
    (
        "pairs",
        "SELECT o.user_id, COUNT(*) AS n FROM orders o JOIN payments p ON o.order_id = p.order_id GROUP BY o.user_id",
    ),
    ("week", "SELECT user_id, COUNT(*) AS n FROM orders WHERE at >= NOW() - INTERVAL '7' DAY GROUP BY user_id"),
    (
        "month",
        "SELECT user_id, SUM(amount) AS a FROM orders WHERE at >= CURRENT_DATE - INTERVAL '30' DAY GROUP BY user_id",
    ),
    ("unique", "SELECT user_id, MAX(amount) AS most FROM payments GROUP BY user_id"),
];

#[test]
fn explain_states_memory_for_each_key_and_row() {
    let unique = "unique = { columns = [\"order_id\", \"category\"], within = \"1d\" }\n";
    let mut files = BTreeMap::from([
        ("tagflow.toml".to_owned(), super::SETTINGS.to_owned()),
        ("schemas/orders.toml".to_owned(), format!("topic = \"orders\"\n{STREAM}{COLUMNS}")),
        ("schemas/payments.toml".to_owned(), format!("topic = \"payments\"\n{STREAM}{unique}{COLUMNS}")),
    ]);
    files.extend(TAGS.map(|(name, sql)| (format!("tags/{name}.sql"), sql.to_owned())));
    let (_folder, loaded) = super::load(&files, None);
    let (desired, problems) = plan_project(&loaded.project.unwrap());
    assert_eq!(desired.tags.len(), TAGS.len(), "{problems:?}");
    let mut text = String::new();
    for (name, tag) in &desired.tags {
        let plan = &tag.plan;
        let memory: Vec<_> = (0..plan.nodes.len()).map(|index| Memory::estimate(plan, index)).collect();
        writeln!(text, "{}", describe(name, plan, &[], &memory)).unwrap();
        if name == "sums" {
            let counted: Vec<_> =
                memory.iter().map(|memory| memory.map(|memory| memory.counted(982_134, 88_392_060))).collect();
            writeln!(text, "counted:\n{}", describe(name, plan, &[], &counted)).unwrap();
            writeln!(text, "{:#}\n", as_json(name, plan, &[], &counted)).unwrap();
        }
    }
    insta::assert_snapshot!("memory", text);
}

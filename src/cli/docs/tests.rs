//! What the page holds, and that nothing in it is more than text.

use super::*;
use crate::cli::ProjectArgs;

const HOSTILE: &str = "</script><script>alert(1)</script><!-- & \" ' \\u2028";

fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        (
            "tagflow.toml",
            "timezone = \"Asia/Shanghai\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n[connection.files]\n\
             type = \"file\"\npath = \"data\"\n[store]\nurl = \"sqlite:tags.db\"\n"
                .to_string(),
        ),
        (
            "schemas/orders.toml",
            "connection = \"files\"\ntopic = \"o.json\"\nformat = \"json\"\ntime = { column = \"at\" }\n[columns]\n\
             user_id = \"BIGINT NOT NULL\"\namount = \"DECIMAL(12,2)\"\nstatus = \"VARCHAR\"\nat = \"TIMESTAMP(3)\"\n"
                .to_string(),
        ),
        ("schemas/paid.sql", "SELECT user_id, amount, at FROM orders WHERE status = 'paid'".to_string()),
        (
            "tags/money/spend.sql",
            format!(
                "/* tag\ntitle = 'Spend'\ndescription = '''{HOSTILE}'''\n*/\nSELECT user_id, SUM(amount) AS spend\nFROM paid\n\
                 WHERE at >= CURRENT_DATE - INTERVAL '30' DAY\nGROUP BY user_id"
            ),
        ),
        (
            "tags/rich.sql",
            "SELECT s.user_id, s.spend * 2 AS twice, (SELECT MAX(spend) FROM tags.spend) AS most FROM tags.spend s"
                .to_string(),
        ),
    ];
    for (file, text) in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn built(samples: Option<Samples>) -> (serde_json::Value, String) {
    let folder = project();
    let (loaded, desired) = load(&ProjectArgs { project: folder.path().to_owned(), profile: None });
    let catalogue = catalogue::of(&desired.unwrap(), &loaded.diagnostics, samples);
    assert!(!folder.path().join("tags.db").exists(), "asking makes no store");
    (serde_json::to_value(&catalogue).unwrap(), page::html(&catalogue))
}

#[test]
fn every_column_names_the_columns_of_streams_that_it_is_made_of() {
    let (said, _) = built(None);
    let tag = |name: &str| said["tags"].as_array().unwrap().iter().find(|tag| tag["name"] == name).unwrap().clone();
    let spend = tag("spend");
    assert_eq!(spend["reads"], json!(["paid"]));
    assert_eq!(spend["folder"], json!(["money"]));
    assert_eq!(spend["columns"][0]["made_of"], json!(["orders.user_id"]));
    assert_eq!(spend["columns"][1]["made_of"], json!(["orders.amount"]));
    assert_eq!(spend["decided_by"], json!(["orders.at", "orders.status"]));
    let rich = tag("rich");
    assert_eq!(rich["reads"], json!(["tags.spend"]));
    assert_eq!(rich["columns"][1]["made_of"], json!(["orders.amount"]));
    assert_eq!(rich["columns"][2]["made_of"], json!(["orders.amount"]));
}

#[test]
fn store_that_is_not_there_is_told() {
    assert_eq!(
        built(Some(Samples { rows: 5, with_keys: false })).0["store"],
        "samples and freshness are left out: the store has no file yet"
    );
}

#[test]
fn hostile_text_ends_no_element_and_the_page_fetches_nothing() {
    let (said, page) = built(None);
    assert_eq!(
        said["tags"].as_array().unwrap().iter().find(|tag| tag["name"] == "spend").unwrap()["description"],
        HOSTILE
    );
    assert_eq!(page.matches("<script").count(), 2, "its data and its own script");
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(!page.contains("<!--"));
    assert!(page.contains("Content-Security-Policy") && page.contains("default-src 'none'"));
    for fetching in ["src=", "href=\"http", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML"] {
        assert!(!page.contains(fetching), "{fetching}");
    }
}

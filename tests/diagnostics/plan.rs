//! `tagflow plan` without any server: compared with a branch or a saved state.

use std::path::Path;

use clap::Parser;
use serde_json::Value;
use tagflow::cli::{ProjectArgs, load, plan};
use tagflow::engine::running::Running;

use crate::since::{HALF, git, shop};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: plan::PlanArgs,
}

/// The exit code, and what was printed.
fn run(root: &Path, arguments: &[&str]) -> (u8, String) {
    let project = root.join("shop").display().to_string();
    let words = ["plan", "--project", &project, "--offline"].into_iter().chain(arguments.iter().copied());
    let mut out = Vec::new();
    let code = plan::run(&Command::parse_from(words).args, &mut out);
    (code, String::from_utf8(out).unwrap())
}

fn json(root: &Path, arguments: &[&str]) -> Value {
    let (code, text) = run(root, &[arguments, &["--format", "json"]].concat());
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// `tag fate why; why` of each tag that the plan tells of.
fn told(plan: &Value) -> Vec<String> {
    let tags = plan["tags"].as_array().unwrap().iter();
    let why = |why: &Value| match why["file"].as_str() {
        Some(file) => format!("{file}: {}", why["what"].as_str().unwrap()),
        None => why["what"].as_str().unwrap().to_string(),
    };
    let line = |tag: &Value| {
        let causes: Vec<String> = tag["why"].as_array().unwrap().iter().map(why).collect();
        format!("{} {} {}", tag["tag"].as_str().unwrap(), tag["fate"].as_str().unwrap(), causes.join("; "))
    };
    tags.map(line).collect()
}

fn edit(root: &Path, file: &str, change: impl Fn(&str) -> String) {
    let path = root.join("shop").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(path, change(&text)).unwrap();
}

#[test]
fn the_files_that_changed_a_plan_are_named_and_no_others() {
    let root = shop();
    let root = root.path();
    assert_eq!(told(&json(root, &["--since", "main"])), [""; 0]);

    edit(root, "schemas/paid.sql", |text| text.replace("'paid'", "'sent'"));
    // A comment changes no plan.
    edit(root, "schemas/orders.toml", |text| format!("{text}\n# changed\n"));
    edit(root, "tags/of_view.sql", |text| format!("/* tag\ntitle = \"Half\"\n*/\n{text}"));
    let plan = json(root, &["--since", "main"]);
    let view = "schemas/paid.sql: the view `paid`";
    assert_eq!(told(&plan), [format!("of_tag changed {view}"), format!("of_view changed {view}")]);
    let of_view = &plan["tags"][1];
    assert_eq!(of_view["metadata"], serde_json::json!(["title"]));
    assert_eq!(of_view["downstream"][0]["tag"], "of_tag");
    assert_eq!(of_view["columns"], serde_json::json!([{ "name": "half", "change": "computed" }]));
    assert_eq!(plan["unchanged"], 3);

    git(root, &["checkout", "-q", "."]);
    edit(root, "functions/twice.sql", |text| text.replace("x + x", "x * 2"));
    assert_eq!(
        told(&json(root, &["--since", "main"])),
        ["of_function changed functions/twice.sql: the function `twice`"]
    );

    git(root, &["checkout", "-q", "."]);
    edit(root, "schemas/visits.toml", |text| text.replace("\"INT\"", "\"BIGINT\""));
    let column = "schemas/visits.toml: column `quantity`: INT → BIGINT";
    assert_eq!(
        told(&json(root, &["--since", "main"])),
        [format!("of_function changed {column}"), format!("of_visits changed {column}")]
    );

    git(root, &["checkout", "-q", "."]);
    edit(root, "tagflow.toml", |text| text.replace("Asia/Shanghai", "Europe/Berlin"));
    let zone = "tagflow.toml: timezone: Asia/Shanghai → Europe/Berlin";
    let plan = json(root, &["--since", "main"]);
    assert!(
        plan["tags"].as_array().unwrap().len() == 5 && told(&plan).iter().all(|told| told.ends_with(zone)),
        "{plan:#}"
    );
}

#[test]
fn what_leaves_the_plan_as_it_is_keeps_state_and_table() {
    let root = shop();
    let root = root.path();
    edit(root, "tags/of_visits.sql", |text| format!("-- a comment\n{}", text.replace(' ', "  ")));
    std::fs::create_dir(root.join("shop/tags/halves")).unwrap();
    std::fs::rename(root.join("shop/tags/of_orders.sql"), root.join("shop/tags/halves/of_orders.sql")).unwrap();
    std::fs::remove_file(root.join("shop/tags/of_function.sql")).unwrap();
    edit(root, "tags/new.sql", |_| HALF.to_string());
    let plan = json(root, &["--since", "main"]);
    assert_eq!(
        told(&plan),
        [
            "new added tags/new.sql: it is new",
            "of_function removed tags/of_function.sql: gone",
            "of_orders moved the plan is the same",
            "of_visits metadata the plan is the same",
        ]
    );
    assert_eq!(plan["tags"][2]["moved_from"], "tags/of_orders.sql");
    assert_eq!(plan["tags"][3]["metadata"], serde_json::json!(["comments or layout"]));
    assert_eq!((plan["unchanged"].as_u64(), plan["fill"]["tags"].as_u64()), (Some(2), Some(1)));
}

#[test]
fn columns_that_are_computed_as_before_are_not_told() {
    let root = shop();
    let root = root.path();
    let two = |most: &str, least: &str| {
        format!("SELECT user_id, MAX({most}) AS most, MIN({least}) AS least FROM orders GROUP BY user_id")
    };
    edit(root, "tags/of_orders.sql", |_| two("quantity", "quantity"));
    git(root, &["commit", "-qam", "two columns"]);
    git(root, &["branch", "-qf", "main"]);
    let columns = |sql: &str| {
        edit(root, "tags/of_orders.sql", |_| sql.to_string());
        let plan = json(root, &["--since", "main"]);
        let columns = plan["tags"][0]["columns"].as_array().unwrap().clone();
        columns.iter().map(|column| column["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(columns(&two("quantity", "quantity + 1")), ["least"]);
    assert_eq!(columns(&two("quantity", "quantity").replace(" GROUP", " WHERE quantity > 1 GROUP")), ["most", "least"]);
    assert_eq!(columns(&two("quantity", "quantity").replace("least", "fewest")), ["fewest", "least"]);
}

#[test]
fn saved_state_stands_for_what_runs() {
    let root = shop();
    let root = root.path();
    let state = root.join("state.json");
    let args = ProjectArgs { project: root.join("shop"), profile: None };
    let running = Running::of(&load(&args).1.unwrap());
    std::fs::write(&state, running.encode().unwrap()).unwrap();
    let state = ["--state", state.to_str().unwrap()];
    assert_eq!(told(&json(root, &state)), [""; 0]);
    assert!(
        !String::from_utf8(running.encode().unwrap()).unwrap().contains("kafka:9092"),
        "nothing of where it connects"
    );

    edit(root, "schemas/paid.sql", |text| text.replace("'paid'", "'sent'"));
    edit(root, "tags/of_visits.sql", |text| text.replace("/ 2", "/ 4"));
    let plan = json(root, &state);
    assert_eq!(
        told(&plan),
        [
            "of_tag changed schemas/paid.sql: the view `paid`",
            "of_view changed schemas/paid.sql: the view `paid`",
            "of_visits changed tags/of_visits.sql: its query",
        ]
    );
    let (code, text) = run(root, &[&state[..], &["--detailed-exitcode"]].concat());
    assert_eq!(code, 4, "{text}");
    let expected = "\
~ of_tag                      tag, filled again beside the running version, then swapped in
    why: schemas/paid.sql: the view `paid`
    columns: quarter
~ of_view                     tag, filled again beside the running version, then swapped in
    why: schemas/paid.sql: the view `paid`
    columns: half
    downstream: tag of_tag (quarter)
~ of_visits                   tag, filled again beside the running version, then swapped in
    why: tags/of_visits.sql: its query
    columns: half

3 changed, 2 unchanged
to fill them these records are read, in one pass: an unknown number of orders (not asked), an unknown number of visits \
(not asked); how long that takes is not known, as no fill of 10,000 records or more was measured yet
";
    assert_eq!(text.split_once("\n\n").unwrap().1, expected);
    let (_, text) = run(root, &[&state[..], &["--format", "markdown"]].concat());
    let text = text.replace(&root.join("state.json").display().to_string(), "FILE");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("plan_markdown", text));
}

#[test]
fn tags_that_vanish_at_once_are_told_as_the_daemon_sees_it() {
    let root = shop();
    let root = root.path();
    for tag in ["of_function", "of_orders", "of_tag", "of_visits"] {
        std::fs::remove_file(root.join(format!("shop/tags/{tag}.sql"))).unwrap();
    }
    let plan = json(root, &["--since", "main"]);
    assert_eq!(
        plan["remarks"][0],
        "4 of 5 tags vanish at once: a running daemon removes none of them until it is started with --accept-removals"
    );
}

#[test]
fn what_cannot_be_compared_is_an_error_that_says_what_to_do() {
    let root = shop();
    let root = root.path();
    assert_eq!(run(root, &["--since", "mian"]).0, 2);
    let state = root.join("state.json");
    for wrong in ["", "{}", "{\"format\": 9}", "[1"] {
        std::fs::write(&state, wrong).unwrap();
        assert_eq!(run(root, &["--state", state.to_str().unwrap()]), (1, String::new()), "{wrong}");
    }
    edit(root, "tags/of_view.sql", |text| text.replace("half", "hlaf"));
    let (code, text) = run(root, &["--since", "main", "--format", "json"]);
    let errors: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 1);
    assert!(errors["errors"][0].as_str().unwrap().starts_with("tags/of_tag.sql: column `half`"), "{errors}");
    let (code, text) = run(root, &["--since", "main", "--format", "markdown"]);
    assert!(code == 1 && text.contains("the project has errors, nothing would change"), "{text}");
}

//! A whole session of an editor, by the client's side of the protocol.

use std::time::{Duration, Instant};

use lsp_server::RequestId;
use serde_json::{Value, json};

use super::*;

/// Longest wait for anything; planning in a debug build on a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

struct Editor {
    connection: Connection,
    folder: tempfile::TempDir,
    next: i32,
    /// What was last told of each file.
    told: BTreeMap<String, Vec<Value>>,
    serving: Option<std::thread::JoinHandle<Result<(), String>>>,
}

impl Editor {
    fn open(files: &[(&str, &str)]) -> Editor {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let (server, connection) = Connection::memory();
        let project = ProjectArgs { project: folder.path().to_owned(), profile: None };
        let serving = std::thread::spawn(move || serve(server, &project));
        let mut editor = Editor { connection, folder, next: 0, told: BTreeMap::new(), serving: Some(serving) };
        let capabilities = editor.ask("initialize", json!({ "capabilities": {} }));
        assert_eq!(capabilities["capabilities"]["hoverProvider"], true);
        editor.tell("initialized", json!({}));
        // Of every open text it is told how it is once the project is planned.
        editor.write("notes.txt", "");
        editor.until("notes.txt", |_| true);
        editor
    }

    fn uri(&self, file: &str) -> String {
        uri_of(&self.folder.path().canonicalize().unwrap(), Path::new(file)).unwrap().to_string()
    }

    fn tell(&self, method: &str, params: Value) {
        self.connection.sender.send(Notification::new(method.to_string(), params).into()).unwrap();
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = RequestId::from(self.next);
        self.connection.sender.send(Request::new(id.clone(), method.to_string(), params).into()).unwrap();
        loop {
            match self.connection.receiver.recv_timeout(PATIENCE).unwrap() {
                Message::Response(response) if response.id == id => {
                    return serde_json::to_value(response).unwrap()["result"].clone();
                }
                Message::Notification(notification) => self.note(notification),
                other => panic!("{other:?}"),
            }
        }
    }

    fn note(&mut self, notification: Notification) {
        let uri = notification.params["uri"].as_str().unwrap_or_default().to_string();
        let file = uri.strip_prefix(&self.uri("")).unwrap_or(&uri).trim_start_matches('/').to_string();
        self.told.insert(file, notification.params["diagnostics"].as_array().cloned().unwrap_or_default());
    }

    /// Waits until what is told of a file is so.
    fn until(&mut self, file: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            if let Some(told) = self.told.get(file).filter(|told| holds(told)) {
                return told.clone();
            }
            let left = PATIENCE.checked_sub(begun.elapsed()).unwrap_or_else(|| panic!("{:?}", self.told));
            if let Ok(Message::Notification(notification)) = self.connection.receiver.recv_timeout(left) {
                self.note(notification);
            }
        }
    }

    fn write(&mut self, file: &str, text: &str) {
        let uri = self.uri(file);
        self.tell(
            "textDocument/didOpen",
            json!({ "textDocument": { "uri": uri, "languageId": "sql", "version": 1, "text": text } }),
        );
    }

    /// Asks about the place of `|` in a text that is open from now on.
    fn at(&mut self, method: &str, file: &str, marked: &str) -> Value {
        let byte = marked.find('|').unwrap();
        let text = marked.replacen('|', "", 1);
        self.write(file, &text);
        let uri = self.uri(file);
        let position = place::position(&text, byte);
        self.ask(method, json!({ "textDocument": { "uri": uri }, "position": position }))
    }

    fn labels(&mut self, file: &str, marked: &str) -> Vec<String> {
        let items = self.at("textDocument/completion", file, marked);
        items.as_array().unwrap().iter().map(|item| item["label"].as_str().unwrap().to_string()).collect()
    }

    fn hover(&mut self, file: &str, marked: &str) -> String {
        self.at("textDocument/hover", file, marked)["contents"]["value"].as_str().unwrap_or_default().to_string()
    }

    fn definition(&mut self, file: &str, marked: &str) -> (String, u64) {
        let found = self.at("textDocument/definition", file, marked);
        let uri = found["uri"].as_str().unwrap_or_default();
        let root = self.uri("");
        (
            uri.strip_prefix(&root).unwrap_or(uri).trim_start_matches('/').to_string(),
            found["range"]["start"]["line"].as_u64().unwrap_or(999),
        )
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.ask("shutdown", Value::Null);
        self.tell("exit", Value::Null);
        assert_eq!(self.serving.take().unwrap().join().unwrap(), Ok(()));
    }
}

fn shop() -> Editor {
    Editor::open(&[
        (
            "tagflow.toml",
            "timezone = \"UTC\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n[connection.shop]\ntype = \"kafka\"\n\
             brokers = \"${NO_SUCH_VARIABLE}\"\n[store]\nurl = \"${NO_SUCH_URL}\"\n",
        ),
        (
            "schemas/orders.toml",
            "title = \"Orders\"\nconnection = \"shop\"\ntopic = \"orders\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n\
             amount = \"DECIMAL(12,2)\"\n",
        ),
        ("functions/twice.sql", "CREATE FUNCTION twice(x BIGINT) RETURNS BIGINT RETURN x * 2"),
        (
            "tags/spend.sql",
            "/* tag\ntitle = \"Spend\"\n[columns.spend]\nunit = \"CNY\"\n*/\nSELECT user_id, SUM(amount) AS spend FROM orders GROUP BY user_id\n",
        ),
    ])
}

#[test]
fn problems_are_told_while_typing_and_gone_when_they_are_mended() {
    let mut editor = shop();
    let wrong = "/* tag */\nSELECT user_id, SUM(amout) AS s FROM orders GROUP BY user_id";
    editor.write("tags/typed.sql", wrong);
    let told = editor.until("tags/typed.sql", |told| !told.is_empty());
    assert_eq!(told[0]["code"], "T0811", "{told:?}");
    assert_eq!(told[0]["range"]["start"], json!({ "line": 1, "character": 20 }));
    assert!(told[0]["message"].as_str().unwrap().contains("did you mean `amount`?"), "{told:?}");
    let uri = editor.uri("tags/typed.sql");
    let mended = json!([{ "text": wrong.replace("amout", "amount") }]);
    editor.tell(
        "textDocument/didChange",
        json!({ "textDocument": { "uri": uri, "version": 2 }, "contentChanges": mended }),
    );
    editor.until("tags/typed.sql", |told| told.is_empty());
    assert!(!editor.folder.path().join("tags/typed.sql").exists(), "nothing was saved");
}

#[test]
fn streams_columns_functions_and_tags_are_completed() {
    let mut editor = shop();
    // The text that is being typed may be planned by now, and is a tag itself then.
    let labels = editor.labels("tags/a.sql", "/* tag */ SELECT 1 FROM |");
    assert!(labels.contains(&"orders".to_string()) && labels.contains(&"tags.spend".to_string()), "{labels:?}");
    let labels = editor.labels("tags/a.sql", "SELECT 1 FROM tags.sp|");
    assert!(labels.contains(&"spend".to_string()) && !labels.contains(&"orders".to_string()), "{labels:?}");
    let labels = editor.labels("tags/a.sql", "SELECT o.| FROM orders o");
    assert_eq!(labels[..2], ["user_id", "amount"]);
    let labels = editor.labels("tags/a.sql", "SELECT | FROM orders");
    for known in ["amount", "orders", "date_trunc", "sum", "twice", "CASE"] {
        assert!(labels.contains(&known.to_string()), "{known}: {labels:?}");
    }
    assert_eq!(
        editor.labels("tags/a.sql", "/* tag\nstatus = \"|\" */ SELECT 1"),
        ["planned", "draft", "live", "deprecated"]
    );
    assert_eq!(
        editor.labels("tags/a.sql", "/* tag\n[columns.a]\n| */ SELECT 1"),
        ["title", "unit", "default", "labels"]
    );
    assert_eq!(editor.labels("schemas/b.toml", "connection = |"), ["shop"]);
    assert_eq!(editor.labels("schemas/b.toml", "time = { |"), ["column", "lateness", "idle"]);
    assert!(editor.labels("tagflow.toml", "[engine]\n|").contains(&"memory_limit".to_string()));
}

#[test]
fn hover_tells_types_and_documentation() {
    let mut editor = shop();
    assert!(editor.hover("tags/a.sql", "SELECT am|ount FROM orders").starts_with("`amount` DECIMAL(12,2)"));
    assert!(editor.hover("tags/a.sql", "SELECT amount FROM ord|ers").contains("stream `orders`\n\nOrders"));
    let tag = editor.hover("tags/a.sql", "SELECT 1 FROM tags.sp|end");
    assert!(
        tag.starts_with("tag `tags.spend`\n\nSpend") && tag.contains("| spend | DECIMAL(22,2) | in CNY |"),
        "{tag}"
    );
    let function = editor.hover("tags/a.sql", "SELECT ab|s(1)");
    assert!(function.starts_with("function `abs`\n\n```sql\nabs(numeric_expression)\n```"), "{function}");
    assert_eq!(editor.hover("schemas/b.toml", "form|at = \"json\""), "`format`: how a record's bytes are read");
    assert_eq!(editor.hover("tags/a.sql", "SELECT 'am|ount' FROM orders"), "");
}

#[test]
fn definitions_are_found() {
    let mut editor = shop();
    assert_eq!(editor.definition("tags/a.sql", "SELECT am|ount FROM orders"), ("schemas/orders.toml".into(), 6));
    assert_eq!(editor.definition("tags/a.sql", "SELECT 1 FROM or|ders"), ("schemas/orders.toml".into(), 0));
    assert_eq!(editor.definition("tags/a.sql", "SELECT 1 FROM tags.sp|end"), ("tags/spend.sql".into(), 0));
    assert_eq!(editor.definition("tags/a.sql", "SELECT tw|ice(1)"), ("functions/twice.sql".into(), 0));
    assert_eq!(editor.definition("tags/a.sql", "WITH x AS (SELECT 1)\nSELECT 1 FROM |x"), ("tags/a.sql".into(), 0));
    assert_eq!(editor.definition("schemas/b.toml", "connection = \"sh|op\""), ("tagflow.toml".into(), 4));
}

#[test]
fn text_is_laid_out_and_what_is_not_served_is_refused() {
    let mut editor = shop();
    editor.write("tags/a.sql", "select user_id from orders group by user_id");
    let uri = editor.uri("tags/a.sql");
    let edits = editor.ask("textDocument/formatting", json!({ "textDocument": { "uri": uri }, "options": {} }));
    assert_eq!(edits[0]["newText"], "SELECT user_id\nFROM orders\nGROUP BY user_id\n");
    for params in [
        json!({}),
        json!({ "textDocument": { "uri": uri } }),
        json!({ "textDocument": { "uri": "file:///elsewhere/a.sql" }, "position": { "line": 0, "character": 0 } }),
    ] {
        assert_eq!(editor.ask("textDocument/hover", params), Value::Null);
    }
    assert_eq!(editor.ask("textDocument/rename", json!({})), Value::Null);
    let far = json!({ "textDocument": { "uri": uri }, "position": { "line": 4000000, "character": 4000000 } });
    assert!(editor.ask("textDocument/hover", far).is_object(), "a place behind the end is the end");
}

//! The page of `tagflow docs` in a real browser, opened from its file.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::shop::Shop;
use crate::topic::Topic;

/// What a browser makes of the page at a fragment of its address, as HTML.
fn shown(page: &Path, fragment: &str, options: &[&str]) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-quic", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(options)
        .arg(format!("file://{}{fragment}", page.display()))
        .output()
        .expect("chromium must be there: `scripts/setup services` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn page_shows_tags_streams_and_findings_and_no_markup_of_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("shop");
    let tagflow = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_tagflow")).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    tagflow(&["init", "shop"]);
    let hostile = "<img src=x onerror=\"document.title='broken'\"></script><script>document.title='broken'</script>";
    let tag = format!(
        "/* tag\ntitle = \"Buyers\"\nowner = \"growth\"\ndescription = '''{hostile}''' */\n\
         SELECT user_id, MAX(amount) AS largest FROM orders WHERE status = 'paid' AND user_id IS NOT NULL GROUP BY user_id"
    );
    fs::write(root.join("tags/buyers.sql"), tag).unwrap();
    tagflow(&["docs", "--project", "shop", "--output", "site"]);
    let page = folder.path().join("site/index.html");

    let tag = shown(&page, "#tag/buyers", &[]);
    assert!(tag.contains("<title>buyers · shop</title>"), "{tag}");
    assert!(tag.contains("<h1>Buyers</h1>") && tag.contains("<dd>growth</dd>"), "{tag}");
    assert!(tag.contains("&lt;img src=x onerror=") && !tag.contains("<img"), "{tag}");
    assert!(
        tag.contains("<span class=\"k\">SELECT</span>") && tag.contains("<span class=\"s\">'paid'</span>"),
        "{tag}"
    );
    assert!(tag.contains("data-from=\"s:orders.amount\" data-to=\"t.largest\""), "{tag}");
    assert!(tag.contains("class=\"weak\" data-from=\"s:orders.status\""), "{tag}");
    // On a phone it is the same page.
    let phone = shown(&page, "#stream/orders", &["--window-size=390,800"]);
    assert!(
        phone.contains("<a href=\"#tag/buyers\">buyers</a>") && phone.contains("<td class=\"code\">order_time"),
        "{phone}"
    );
    let found = shown(&page, "#search/buyers%20GROWTH", &[]);
    assert!(found.contains("1 of 3 tags have \"buyers GROWTH\"."), "{found}");
    assert!(shown(&page, "#tag/none", &[]).contains("The catalogue has no tag \"none\"."));
}

#[test]
fn live_store_gives_freshness_and_samples_and_whose_they_are_only_when_asked() {
    let topic = Topic::with_partitions("docs", 1);
    let order = |user: &str, city: &str, amount: i64| {
        (format!("{{\"user_id\":\"{user}\",\"city\":{city},\"amount\":{amount}}}"), None)
    };
    topic.write(0, &[order("ann", "\"<b>Bonn</b>\"", 7), order("bob", "null", 12), order("bob", "null", 30)]);
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"VARCHAR NOT NULL\"\n\
         city = \"VARCHAR\"\namount = \"BIGINT\"\n",
        topic.name
    );
    let spent = "SELECT user_id, MAX(city) AS city, SUM(amount) AS spent FROM orders GROUP BY user_id";
    let many = "SELECT user_id FROM orders GROUP BY user_id HAVING COUNT(*) > 1";
    let files = [("schemas/orders.toml", schema), ("tags/spent.sql", spent.into()), ("tags/many.sql", many.into())];
    let shop = Shop::of("docs", &files);
    let settings = fs::read_to_string(shop.path("tagflow.toml")).unwrap().replace("BIGINT", "VARCHAR");
    fs::write(shop.path("tagflow.toml"), settings).unwrap();
    let tagflow = |arguments: &[&str]| {
        let output = shop.output(arguments);
        assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    tagflow(&["run", "--until-caught-up"]);
    let site = shop.path("site");
    let docs = |options: &[&str]| {
        let said = tagflow(&[&["docs", "--output", site.to_str().unwrap()], options].concat());
        (said, fs::read_to_string(site.join("index.html")).unwrap())
    };
    let page = site.join("index.html");

    let (said, html) = docs(&[]);
    assert!(said.contains("samples and freshness are those of the store; keys are hidden"), "{said}");
    assert!(!html.contains("\"ann\"") && !html.contains("\"bob\""), "no user is named");
    let tag = shown(&page, "#tag/spent", &[]);
    for cell in ["•••", "&lt;b&gt;Bonn&lt;/b&gt;", "7", "42"] {
        assert!(tag.contains(&format!("<td class=\"code\">{cell}</td>")), "{cell}: {tag}");
    }
    assert!(
        tag.contains(">Sample</h2>")
            && tag.contains("<td class=\"null\">NULL</td>")
            && tag.contains("<dt>rows</dt><dd>2</dd>"),
        "{tag}"
    );
    assert!(shown(&page, "", &[]).contains("2 tags over 1 stream and 0 views."));
    assert!(tag.contains("<dt>true up to</dt>") && tag.contains(" before this page was made</dd>"), "{tag}");
    let segment = shown(&page, "#tag/many", &[]);
    assert!(segment.contains("<dt>rows</dt><dd>1</dd>") && !segment.contains(">Sample</h2>"), "{segment}");

    let (_, html) = docs(&["--keys", "--samples", "1"]);
    assert!(html.contains("[[\"ann\",") && !html.contains("[\"bob\","), "one row, and whose it is");
    let (said, html) = docs(&["--samples", "0"]);
    assert!(
        said.contains("freshness is that of the store") && !html.contains("Bonn") && html.contains("\"true_at\":"),
        "{said}"
    );
    let (said, html) = docs(&["--offline"]);
    assert!(
        said.contains("the store was not asked") && !html.contains("Bonn") && !html.contains("\"true_at\":"),
        "{said}"
    );

    // A store that is away is no reason to have no catalogue.
    let mut away = shop.command(&["docs", "--output", site.to_str().unwrap()]);
    away.env("TAGFLOW_STORE_URL", "mysql://tagflow:geheim99@127.0.0.1:1/tags");
    let output = away.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("samples and freshness are left out: "), "{output:?}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("left out: ") && !html.contains("geheim99") && !said.contains("geheim99"), "{said}");
}

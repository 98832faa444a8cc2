//! The page of `tagflow docs` in a real browser, opened from its file.

use std::fs;
use std::path::Path;
use std::process::Command;

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

//! A git that hangs: versions have no author then, and no tag waits for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::shop::Shop;
use crate::topic::Topic;

fn visits(count: &str) -> String {
    format!("SELECT user_id, {count} AS n FROM visits GROUP BY user_id")
}

#[test]
fn git_that_hangs_is_ended_with_all_that_it_has_started_and_tags_go_on_without_it() {
    let topic = Topic::with_partitions("hung-git", 1);
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n",
        topic.name
    );
    let mut shop = Shop::of("hung_git", &[("schemas/visits.toml", schema), ("tags/visited.sql", visits("COUNT(*)"))]);
    let started = shop.path("started");
    let git = shop.path("bin/git");
    fs::create_dir(shop.path("bin")).unwrap();
    fs::write(&git, format!("#!/bin/sh\nsleep 1000 &\necho $$ $! >> {}\nwait\n", started.display())).unwrap();
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", shop.path("bin").display(), crate::shop::environment("PATH"));
    shop.environment = vec![("PATH".to_string(), path)];
    topic.write(0, &[("{\"user_id\":1}".to_string(), None)]);

    let mut daemon = shop.start();
    daemon.until_quiet(1);
    fs::write(shop.path("tags/visited.sql"), visits("10 * COUNT(*)")).unwrap();
    shop.until_registry("SELECT CONCAT(user_id, ' ', n) FROM visited", "1 10");
    // A title alone is told without a fill.
    fs::write(shop.path("tags/visited.sql"), format!("/* tag\ntitle = \"T\"\n*/\n{}", visits("10 * COUNT(*)")))
        .unwrap();
    shop.until_registry("SELECT title FROM _tagflow_tags WHERE title IS NOT NULL", "T");
    topic.write(0, &[("{\"user_id\":1}".to_string(), None)]);
    shop.until_registry("SELECT CONCAT(user_id, ' ', n) FROM visited", "1 20");
    daemon.interrupt();

    let of_versions =
        "SELECT CONCAT_WS(' ', version, git_commit, author, reason) FROM _tagflow_versions ORDER BY period";
    assert_eq!(shop.registry(of_versions), ["1 new", "2 tags/visited.sql changed, not committed"]);
    let started = fs::read_to_string(started).unwrap();
    assert!(started.lines().count() >= 4, "the start, two fills and two reloads have asked: {started}");
    for process in started.split_whitespace() {
        let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        assert!(command.is_empty(), "{process} runs still: {}", String::from_utf8_lossy(&command));
    }
    shop.verify();
}

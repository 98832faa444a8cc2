//! Records that retention took before they were read: a clear stop, or a stream that goes on and says what its tags lack.

use std::collections::BTreeMap;
use std::sync::Arc;

use tagflow::catalog::OnLost;
use tagflow::source::SourceEvent;

use crate::shop::Shop;
use crate::topic::Topic;

fn schema(topic: &str, more: &str) -> String {
    format!(
        "connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\n{more}\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n"
    )
}

fn write(topic: &Topic, users: std::ops::Range<i64>) {
    topic.write(0, &users.map(|user| (format!("{{\"user_id\": {user}}}"), None)).collect::<Vec<_>>());
}

#[test]
fn stream_stands_still_before_what_is_lost_and_goes_on_behind_it_where_it_is_told_to() {
    let topic = Topic::with_partitions("lost", 1);
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";
    let files = [("schemas/orders.toml", schema(&topic.name, "")), ("tags/visits.sql", tag.to_string())];
    let shop = Shop::of("lost_records", &files);
    let count = "SELECT CAST(COUNT(*) AS CHAR) FROM visits";
    write(&topic, 0..10);
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    daemon.interrupt();
    write(&topic, 10..20);
    topic.delete_before(0, 14);

    let mut daemon = shop.start();
    let told = daemon.until("the stream stands still", |status| !status.troubles.is_empty());
    let gone = "partition 0: records 10 to 13 are gone (the topic now begins at 14); nothing was skipped";
    assert!(told.troubles[0].contains(gone) && told.troubles[0].contains("on_lost"), "{:?}", told.troubles);
    assert_eq!(shop.registry(count), ["10"]);
    assert!(told.lost.is_empty() && told.tags[0].lost.is_empty());

    // It is told while it runs.
    std::fs::write(shop.path("schemas/orders.toml"), schema(&topic.name, "on_lost = \"skip\"")).unwrap();
    shop.until_registry(count, "16");
    let status = daemon.until("it says what is lost and goes on", |status| {
        status.lost.get("orders") == Some(&4) && status.troubles.is_empty()
    });
    let lost = &status.tags[0].lost;
    assert_eq!((lost.len(), lost[0].partition, lost[0].first, lost[0].next), (1, 0, 10, 14));
    assert!(status.tags[0].complete_from.is_some());
    assert!(shop.get("/metrics").contains("tagflow_lost_records{stream=\"orders\"} 4.0\n"));
    let said = String::from_utf8(shop.output(&["status"]).stdout).unwrap();
    assert!(
        said.contains("! records 10 to 13 of stream `orders` partition 0 were gone before they were read"),
        "{said}"
    );
    let registry = "SELECT lost_records FROM _tagflow_tags WHERE complete_from IS NOT NULL";
    let row = "[{\"stream\":\"orders\",\"partition\":0,\"first\":10,\"next\":14}]";
    assert_eq!(shop.registry(registry), [row]);
    daemon.interrupt();

    // It is known after a restart still, and over once the tag has been filled from what there is.
    let mut daemon = shop.start();
    daemon.until("what is lost is known", |status| status.tags.iter().any(|tag| tag.lost.len() == 1));
    assert_eq!(shop.registry(registry), [row]);
    std::fs::write(shop.path("tags/visits.sql"), format!("{tag} HAVING COUNT(*) > 0")).unwrap();
    shop.until_registry("SELECT CAST(version AS CHAR) FROM _tagflow_tags WHERE lost_records IS NULL", "2");
    daemon.until("nothing is told any more", |status| status.tags.iter().all(|tag| tag.lost.is_empty()));
    shop.until_registry(count, "6");
}

#[test]
fn records_that_go_under_a_slow_reader_are_skipped_and_told() {
    let topic = Topic::with_partitions("skipped", 1);
    topic.write_ids(0, 0..200_000);
    let small =
        [("queued.min.messages", "1000"), ("queued.max.messages.kbytes", "64"), ("max.partition.fetch.bytes", "16384")];
    let mut request = topic.request();
    Arc::make_mut(&mut request.stream).on_lost = OnLost::Skip;
    let mut reading = topic.read_with(request, &small);
    while reading.count() == 0 {
        reading.step();
    }
    topic.delete_before(0, 199_990);
    let lost = loop {
        match reading.step() {
            Some(SourceEvent::Lost(lost)) => break lost,
            None | Some(SourceEvent::Partition { .. }) => {}
            Some(other) => panic!("{other:?}"),
        }
    };
    assert_eq!((lost.first, lost.next), (reading.count() as i64, 199_990));
    reading.until_rows(lost.first as usize + 10);
    assert_eq!(reading.ids(0), (0..lost.first).chain(199_990..200_000).collect::<Vec<_>>());
}

#[test]
fn read_with_an_end_is_whole_or_fails_whatever_the_stream_says() {
    let topic = Topic::with_partitions("whole", 1);
    topic.write_ids(0, 0..10);
    topic.delete_before(0, 6);
    let mut request = topic.request();
    Arc::make_mut(&mut request.stream).on_lost = OnLost::Skip;
    request.from = BTreeMap::from([(0, 4)]);
    request.until = Some(BTreeMap::from([(0, 10)]));
    let message = topic.read(request).until_failed();
    assert!(message.contains("records 4 to 5 are gone"), "{message}");
}

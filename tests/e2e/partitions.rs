//! Partitions that a topic gets while its tags run and others are filled: read from their first record, once.

use std::fs;

use crate::fills::{order, rows, shop_with};
use crate::topic::Topic;

#[test]
fn partitions_that_are_added_are_read_from_their_beginning_through_a_fill_and_a_kill() {
    let (topic, later) = (Topic::with_partitions("more", 1), Topic::named("more-later"));
    let shop = shop_with("more", &topic, "");
    let schema = fs::read_to_string(shop.path("schemas/orders.toml")).unwrap();
    fs::write(shop.path("schemas/refunds.toml"), schema.replace(&topic.name, &later.name)).unwrap();
    let orders = |users: std::ops::Range<i64>| users.map(|user| order(user, 1)).collect::<Vec<_>>();
    topic.write(0, &orders(0..3));
    let mut daemon = shop.start();
    daemon.until_quiet(1);

    // The fill has read what there is of one topic, and waits for the other one, while the first is given partitions.
    let net = "SELECT user_id, SUM(amount) AS v FROM (SELECT user_id, amount FROM orders UNION ALL \
                SELECT user_id, amount FROM refunds) GROUP BY user_id";
    fs::write(shop.path("tags/net.sql"), net).unwrap();
    daemon.until("the fill is under way", |status| status.fill.as_ref().is_some_and(|fill| fill.rows == 3));
    topic.grow(3);
    topic.write(1, &orders(0..2));
    topic.write(2, &orders(1..3));
    later.create(1);
    later.write(0, &orders(2..4));
    let of_tag = |tag: &str| rows(&shop, tag);
    shop.until_rows(&of_tag, "spent", &["0 2", "1 3", "2 2"]);
    daemon.until("it is filled", |status| status.fill.is_none() && status.tags.len() == 2);
    shop.until_rows(&of_tag, "net", &["0 2", "1 3", "2 3", "3 1"]);

    // Whether a checkpoint has the new partitions by now or not.
    daemon.kill();
    for partition in 0..3 {
        topic.write(partition, &orders(0..1));
    }
    let mut daemon = shop.start();
    let status = daemon.until_quiet(2);
    assert_eq!(of_tag("spent"), ["0 5", "1 3", "2 2"]);
    assert_eq!(of_tag("net"), ["0 5", "1 3", "2 3", "3 1"]);
    assert!(status.tags.iter().all(|tag| tag.version == 1), "{:?}", status.tags);
    assert_eq!(shop.log().matches("the filled tags follow now").count(), 2, "{}", shop.log());
    daemon.interrupt();
    shop.verify();
}

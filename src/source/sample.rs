//! A few records of a topic as they are, for whoever wants to know what they look like.
//!
//! Enters: a connection and a topic, or a table. Leaves: raw records, the newest of each partition where a broker can be
//! asked for them; or the columns that a database declares. Decodes nothing, keeps nothing, waits for nobody for long.

use std::path::Path;

use super::file::first_lines;
use super::generator::{Shop, ShopStream};
use super::{WallClock, kafka};
use crate::config::Connection;

pub use super::table::{DescribedColumn, DescribedTable, describe, is_binary};

/// A record that nobody has looked into.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sampled {
    /// The partition's number.
    pub partition: i32,
    /// Its offset, or its place in the sample.
    pub offset: i64,
    /// Broker time in milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record itself; `None` for a tombstone.
    pub payload: Option<Vec<u8>>,
}

/// At most about `most` records of a topic, in the order of each partition.
///
/// # Errors
/// Why there is no sample, and what to do.
pub fn sample(
    connection: &Connection,
    topic: &str,
    most: usize,
    wall_clock: &WallClock,
) -> Result<Vec<Sampled>, String> {
    match connection {
        Connection::Kafka { brokers, properties, .. } => kafka::sample(brokers, properties, topic, most),
        Connection::File { path, .. } => sample_file(path, topic, most),
        Connection::Generator(config) => {
            let name = topic.rsplit(['.', '/']).next().unwrap_or(topic);
            let stream = ShopStream::named(name).ok_or_else(|| {
                format!(
                    "the generator has no stream {name:?}, only {}",
                    ShopStream::ALL.map(ShopStream::name).join(", ")
                )
            })?;
            let shop = Shop::new(config, wall_clock());
            let end = shop.available(stream, wall_clock());
            let first = end.saturating_sub(i64::try_from(most).unwrap_or(i64::MAX)).max(0);
            Ok((first..end)
                .map(|offset| Sampled {
                    offset,
                    timestamp: Some(shop.arrival_ms(stream, offset)),
                    payload: Some(shop.generate(stream, offset)),
                    ..Sampled::default()
                })
                .collect())
        }
        Connection::Mysql(_) => Err("a database has no topics: `--from-mysql TABLE` looks at a table".to_string()),
    }
}

fn sample_file(root: &Path, topic: &str, most: usize) -> Result<Vec<Sampled>, String> {
    let lines = first_lines(root, topic, most)?;
    let record = |(place, line): (usize, Vec<u8>)| Sampled {
        offset: i64::try_from(place).unwrap_or(i64::MAX),
        payload: Some(line),
        ..Sampled::default()
    };
    Ok(lines.into_iter().enumerate().map(record).collect())
}

//! How much of their streams' history a fill would read, and from when on: asked of the brokers, without reading it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::Stream;
use crate::config::Connection;
use crate::delta::{Offsets, Partition};
use crate::engine::intake::{Intake, Reads};
use crate::engine::query::world;
use crate::project::Project;

/// Longest wait for a stream.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a fill finds of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Records from where the stream begins to its end.
    pub records: u64,
    /// Broker times, milliseconds since the Unix epoch, of the first records of partitions whose first ever are gone or not asked
    /// for.
    pub cut: Vec<i64>,
}

/// The history of each stream, or why it is not known. What reading leaves behind goes to `folder`.
pub fn histories(
    project: &Project,
    streams: &BTreeMap<String, Arc<Stream>>,
    folder: &Path,
) -> BTreeMap<String, Result<History, String>> {
    std::thread::scope(|scope| {
        let asked = streams.iter().map(|(name, stream)| {
            let folder = folder.join(name);
            (name, scope.spawn(move || history(project, stream, &folder)))
        });
        let asked: Vec<_> = asked.collect();
        let heard = asked.into_iter().map(|(name, thread)| {
            let found = thread.join().unwrap_or_else(|_| Err("a panic while it was asked: this is a bug".to_string()));
            (name.clone(), found)
        });
        heard.collect()
    })
}

fn history(project: &Project, stream: &Arc<Stream>, folder: &Path) -> Result<History, String> {
    if stream.kind.is_outside() {
        return Err("its rows are not counted beforehand".to_string());
    }
    // Offsets of files are bytes.
    if matches!(project.config.connections.get(&stream.connection), Some(Connection::File { .. })) {
        return Err("lines of files are not counted beforehand".to_string());
    }
    let column = stream.schema().index_of("_offset").map_err(|error| error.to_string())?;
    let reads = Reads::from([(stream.name.clone(), (Arc::clone(stream), BTreeSet::from([column])))]);
    let world = world(&project.config, stream, folder);
    let mut intake = Intake::start(&world, &reads, &Offsets::default(), None).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    // Where reading has begun in each partition.
    let mut first: BTreeMap<Partition, i64> = BTreeMap::new();
    loop {
        let arrived = intake.collect(Duration::from_millis(20), 1).map_err(|error| error.to_string())?;
        for (partition, next) in arrived.next {
            first.entry(partition.as_ref().clone()).or_insert(next);
        }
        if let Some(reason) = intake.failed.values().next() {
            return Err(reason.clone());
        }
        // Of a partition that is cut the first record tells from when on it is there.
        let has_told = |(partition, state): (&Partition, &crate::engine::intake::PartitionState)| {
            first.get(partition).is_none_or(|first| *first == 0 || *first >= state.first_end)
                || state.first_timestamp.is_some()
        };
        let is_known = intake.is_announced(&stream.name) && intake.partitions.iter().all(has_told);
        if is_known || intake.is_caught_up() && intake.troubles.is_empty() {
            break;
        }
        if begun.elapsed() >= PATIENCE {
            let trouble = intake.troubles.values().next().cloned();
            return Err(trouble.unwrap_or_else(|| format!("no answer within {} s", PATIENCE.as_secs())));
        }
    }
    let now = chrono::Utc::now().timestamp_millis();
    let mut found = History::default();
    for (partition, state) in &intake.partitions {
        let begin = first.get(partition).copied().unwrap_or_default();
        found.records += u64::try_from(state.first_end - begin).unwrap_or_default();
        if begin > 0 {
            found.cut.push(state.first_timestamp.unwrap_or(now));
        }
    }
    Ok(found)
}

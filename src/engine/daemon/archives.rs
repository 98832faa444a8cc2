//! Archives: one thread for each stream that has one, as the project says now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::{Daemon, DaemonError};
use crate::catalog::Stream;
use crate::engine::archiver::Archiver;
use crate::engine::intake::World;
use crate::engine::memory::MemoryPlan;
use crate::engine::status::ArchiveStatus;
use crate::engine::stop::Stop;
use crate::sink::lease::random_name;
use crate::source::archive::Writer;

/// The threads, by stream.
pub(super) struct Archives {
    running: BTreeMap<String, Archiver>,
    writer: Arc<Writer>,
    is_begun: bool,
}

impl Default for Archives {
    fn default() -> Self {
        Archives { running: BTreeMap::new(), writer: Arc::new(Writer::new(random_name())), is_begun: false }
    }
}

impl Archives {
    /// What each says of itself.
    pub(super) fn status(&self) -> Vec<ArchiveStatus> {
        self.running.values().map(Archiver::status).collect()
    }

    /// What keeps records from being archived.
    pub(super) fn troubles(&self) -> Vec<String> {
        let told = |status: ArchiveStatus| Some(format!("archive of stream `{}`: {}", status.stream, status.trouble?));
        self.status().into_iter().filter_map(told).collect()
    }

    /// Lets these streams be archived, and no others. One whose stream has changed ends before it begins anew, also where the change
    /// is taken back meanwhile: it has been told.
    fn follow(
        &mut self,
        wanted: &[&Arc<Stream>],
        world: &World,
        memory: Option<&MemoryPlan>,
    ) -> Result<(), DaemonError> {
        let is_wanted =
            |archiver: &Archiver| !archiver.is_ending() && wanted.iter().any(|stream| *stream == archiver.stream());
        for archiver in self.running.values().filter(|archiver| !is_wanted(archiver)) {
            archiver.end(true);
        }
        self.running.retain(|_, archiver| is_wanted(archiver) || !archiver.has_ended());
        self.is_begun = true;
        for stream in wanted {
            if self.running.contains_key(&stream.name) {
                continue;
            }
            info!(stream = stream.name, "the stream is archived from now on");
            let archiver = Archiver::start(world, stream, &self.writer, memory.cloned(), wanted.len());
            let archiver = archiver.map_err(|source| DaemonError::Io {
                what: format!("the archive's thread of {}", stream.name),
                source,
            })?;
            self.running.insert(stream.name.clone(), archiver);
        }
        Ok(())
    }

    /// Lets all end; `is_finishing` once what they have read is in files.
    pub(super) fn end(&self, is_finishing: bool) {
        self.running.values().for_each(|archiver| archiver.end(is_finishing));
    }

    /// Waits for those that end. A disk that does not answer keeps no daemon from ending: the next one begins at the last commit.
    pub(super) fn wait(&self, stop: &Stop) {
        while !self.running.values().all(Archiver::has_ended) && !stop.is_over() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Archives {
    /// A daemon that ends by a fault may not be the one that writes any more.
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Daemon {
    /// Lets those archives be kept that the project names.
    pub(super) fn follow_archives(&mut self) -> Result<(), DaemonError> {
        let streams = self.desired.project.catalog.streams.values();
        let wanted: Vec<&Arc<Stream>> = streams.filter(|stream| stream.archive.is_some()).collect();
        self.archives.follow(&wanted, &self.world, self.memory.as_ref())
    }

    /// True when archives hold, or will when they end, all that was there when they began.
    pub(super) fn are_archived(&self) -> bool {
        self.archives.is_begun && self.archives.running.values().all(Archiver::is_caught_up)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::engine::archiver::tests::project;

    #[test]
    fn archive_that_is_changed_and_changed_back_while_it_ends_begins_anew() {
        let root = tempfile::tempdir().unwrap();
        let ((world, past), (_, other)) = (project(root.path(), "past"), project(root.path(), "other"));
        let mut archives = Archives::default();
        archives.follow(&[&past], &world, None).unwrap();
        archives.follow(&[&other], &world, None).unwrap();
        let begun = Instant::now();
        let mut is_kept = false;
        while !is_kept {
            archives.follow(&[&past], &world, None).unwrap();
            is_kept = archives.running.values().any(|archiver| !archiver.is_ending() && !archiver.has_ended());
            assert!(begun.elapsed() < Duration::from_secs(30), "nothing is archived");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(archives.running["orders"].stream(), &past);
    }
}

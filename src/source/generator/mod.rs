//! The demo shop as a source: its history at full speed, then live events at a steady rate.
//!
//! Enters: a seed and the moment of the first start (the epoch), which is kept in `<state>/generator.json`. Leaves:
//! JSON records, decoded like any others. Record n of a stream is a pure function of both, its time included, so a
//! reader may start again at any offset and gets the same records.

mod shop;
mod words;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::batch::PartitionBatcher;
use super::emit::{Emitter, Stopped};
use super::{ReadRequest, SourceContext, SourceError, SourceEvent, spawn};
use crate::catalog::{Format, Start};
use crate::config::GeneratorConfig;
use crate::delta::Partition;
use crate::diagnostic::nearest;

pub use self::shop::{Shop, ShopStream};

/// How often live records are handed out.
const TICK: Duration = Duration::from_millis(20);

/// Starts the one thread of a generated stream.
pub(super) fn start(
    request: ReadRequest,
    config: &GeneratorConfig,
    context: &SourceContext,
    emitter: Emitter,
) -> Result<Vec<std::thread::JoinHandle<()>>, SourceError> {
    let name = request.stream.name.clone();
    let setup = |message: String| SourceError::Setup { stream: name.clone(), message };
    let topic = &request.stream.topic;
    let last = topic.rsplit(['.', '/']).next().unwrap_or(topic);
    let stream = ShopStream::named(last).ok_or_else(|| {
        let names = ShopStream::ALL.map(ShopStream::name);
        let near = nearest(last, names).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        setup(format!("the generator has no stream {last:?}, only {}{near}", names.join(", ")))
    })?;
    if request.stream.format != Format::Json {
        return Err(setup("the generator makes JSON: the stream's format must be \"json\"".into()));
    }
    let path = context.state_dir.join("generator.json");
    let epoch_ms = match epoch(&path, config, (context.wall_clock)()) {
        Ok(Ok(epoch_ms)) => epoch_ms,
        Ok(Err(message)) => return Err(setup(message)),
        Err(error) => return Err(SourceError::Io { stream: name.clone(), path, error }),
    };
    let shop = Shop::new(config, epoch_ms);
    let source = GeneratorSource { shop, stream, request, context: context.clone(), emitter };
    let teller = source.emitter.clone();
    Ok(vec![spawn(&teller, "demo", move || source.read())?])
}

/// What must not change between two starts.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    epoch_ms: i64,
    rate: u64,
    seed: u64,
    users: u64,
    history_days: u32,
    history_events: u64,
}

impl Kept {
    fn new(config: &GeneratorConfig, epoch_ms: i64) -> Self {
        let GeneratorConfig { rate, seed, users, history_days, history_events } = *config;
        Kept { epoch_ms, rate, seed, users, history_days, history_events }
    }
}

/// The epoch of the first start, or `now_ms` when this is it. The inner error is the author's.
fn epoch(path: &Path, config: &GeneratorConfig, now_ms: i64) -> io::Result<Result<i64, String>> {
    if !path.exists() {
        create_once(path, &serde_json::to_vec(&Kept::new(config, now_ms))?)?;
    }
    let kept: Kept = match serde_json::from_slice(&fs::read(path)?) {
        Ok(kept) => kept,
        Err(error) => return Ok(Err(format!("{} is damaged ({error}); restore it or start anew", path.display()))),
    };
    if kept == Kept::new(config, kept.epoch_ms) {
        return Ok(Ok(kept.epoch_ms));
    }
    let path = path.display();
    let Kept { rate, seed, users, history_days, history_events, .. } = kept;
    Ok(Err(format!(
        "the generator was first started with other settings, which its records depend on (rate = {rate}, \
         seed = {seed}, users = {users}, history_days = {history_days}, history_events = {history_events}): \
         set them back, or remove {path} together with the rest of the state to start anew"
    )))
}

/// Creates a file with all of its content, or leaves the one that another stream has just made.
fn create_once(path: &Path, content: &[u8]) -> io::Result<()> {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let draft: PathBuf = path.with_extension(format!("{}.{count}.new", std::process::id()));
    let mut file = fs::File::create(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    // A link is made with its content or not at all, and never over another file.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

struct GeneratorSource {
    shop: Shop,
    stream: ShopStream,
    request: ReadRequest,
    context: SourceContext,
    emitter: Emitter,
}

impl GeneratorSource {
    fn read(&self) -> Result<(), Stopped> {
        let request = &self.request;
        let until = request.until.as_ref().map(|until| until.get(&0).copied().unwrap_or(0));
        let end = self.end();
        let next = match (request.from.get(&0), request.stream.start) {
            (Some(next), _) => *next,
            (None, Start::Earliest) => 0,
            (None, Start::Latest) => end,
            (None, Start::Timestamp(at)) => self.shop.first_at(self.stream, at).min(end),
        };
        let partition = Arc::new(Partition { stream: request.stream.name.clone(), number: 0 });
        self.emitter.send(SourceEvent::Partition { partition, beginning: 0, end, next })?;
        self.emitter.announced()?;
        let topic = request.stream.topic.as_str().into();
        let mut batcher = PartitionBatcher::new(request, &self.context, topic, 0, next)
            .map_err(|error| self.emitter.failed(error.to_string()))?;
        let mut record = Vec::new();
        loop {
            let end = self.end();
            let stop_at = until.unwrap_or(end).min(end);
            for offset in batcher.next_offset()..stop_at {
                record.clear();
                self.shop.write(self.stream, offset, &mut record);
                let at = self.shop.arrival_ms(self.stream, offset);
                batcher.push(offset, offset + 1, Some(at), None, Some(&record));
                if batcher.is_full()
                    && let Some(batch) = batcher.take(end)
                {
                    self.emitter.batch(batch)?;
                }
            }
            if let Some(batch) = batcher.take(end) {
                self.emitter.batch(batch)?;
            }
            if until.is_some_and(|until| batcher.next_offset() >= until) {
                return self.emitter.finished();
            }
            self.emitter.stop().wait(TICK)?;
        }
    }

    /// The offset behind the last record that has happened by now.
    fn end(&self) -> i64 {
        self.shop.available(self.stream, (self.context.wall_clock)())
    }
}

#[cfg(test)]
mod tests;

//! One stream: whether it is there, and whether its newest records decode.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{PATIENCE, SAMPLE, codes};
use crate::catalog::{Start, Stream, place_of_key};
use crate::config::Connection;
use crate::diagnostic::Diagnostic;
use crate::project::Project;
use crate::source::{
    DeadLetters, ReadRequest, ReadRoom, Registries, SourceContext, SourceEvent, Tables, WallClock, start_source,
};

/// Events that may wait for us.
const WAITING: usize = 64;
/// Room for the dead letters of a sample.
const LETTERS: u64 = 16 << 20;

/// What is wrong with a stream, as the world has it.
pub(super) fn check(project: &Project, stream: &Arc<Stream>) -> Option<Diagnostic> {
    let connection = project.config.connections.get(&stream.connection)?;
    if matches!(connection, Connection::Generator(_)) {
        return None;
    }
    let mut asked = Asked::new(project, stream, connection);
    let found = match stream.kind.is_outside() {
        true => asked.table(),
        false => asked.topic(),
    };
    asked.clear();
    found.err()
}

/// A stream that is asked.
struct Asked<'a> {
    project: &'a Project,
    stream: &'a Arc<Stream>,
    connection: &'a Connection,
    context: SourceContext,
}

/// What was read of a stream.
#[derive(Default)]
struct Heard {
    /// Where partitions begin and end.
    partitions: BTreeMap<i32, (i64, i64)>,
    rows: usize,
    trouble: Option<String>,
}

impl<'a> Asked<'a> {
    fn new(project: &'a Project, stream: &'a Arc<Stream>, connection: &'a Connection) -> Self {
        let folder = folder(&stream.name);
        let wall_clock: WallClock = Arc::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
        let context = SourceContext {
            timezone: project.config.timezone,
            root: project.config.root.clone(),
            dead_letters: Arc::new(DeadLetters::new(&folder, LETTERS, Arc::clone(&wall_clock))),
            tables: Arc::new(Tables::new(&folder)),
            state_dir: folder,
            wall_clock,
            registries: Registries::default(),
        };
        Asked { project, stream, connection, context }
    }

    /// Removes what reading has left behind.
    fn clear(&self) {
        // A folder that is still there takes room, and does no harm.
        let _ = std::fs::remove_dir_all(&self.context.state_dir);
    }

    fn told(&self, code: &'static str, message: String, help: &str) -> Diagnostic {
        let text = self.project.sources.get(&self.stream.file).map(String::as_str).unwrap_or_default();
        let keys = ["topic", "path", "table", "connection"];
        let place = keys.iter().find_map(|key| place_of_key(&self.stream.file, text, key));
        Diagnostic::error(code, &self.stream.file, place, message).help(help)
    }

    fn away(&self, message: &str) -> Diagnostic {
        let message = format!("the stream `{}` cannot be read: {message}", self.stream.name);
        let help =
            format!("look at [connection.{}] in tagflow.toml, and whether the server runs", self.stream.connection);
        self.told(codes::SOURCE_AWAY, message, &help)
    }

    /// Reads until `is_enough` says so, or the reading ends.
    fn read(
        &self,
        request: ReadRequest,
        is_enough: &dyn Fn(&SourceEvent, &Heard) -> bool,
    ) -> Result<Heard, Diagnostic> {
        let (events, received) = sync_channel(WAITING);
        let handle = start_source(request, self.connection, &self.context, events);
        let handle = handle.map_err(|error| self.away(&error.to_string()))?;
        let heard = self.hear(&received, is_enough);
        drop(handle);
        heard
    }

    fn hear(
        &self,
        received: &Receiver<SourceEvent>,
        is_enough: &dyn Fn(&SourceEvent, &Heard) -> bool,
    ) -> Result<Heard, Diagnostic> {
        let mut heard = Heard::default();
        let begun = Instant::now();
        loop {
            let event = match received.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => {
                    let silence = format!("no answer within {} s", PATIENCE.as_secs());
                    return Err(self.away(heard.trouble.as_deref().unwrap_or(&silence)));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(heard),
            };
            match &event {
                SourceEvent::Failed { message, .. } => return Err(self.away(message)),
                SourceEvent::Trouble { message, .. } => heard.trouble = Some(message.clone()),
                SourceEvent::Recovered { .. } => heard.trouble = None,
                SourceEvent::Missing { .. } => {
                    let message = format!("the topic \"{}\" does not exist", self.stream.topic);
                    let help = "create it, or mend its name; until then the daemon waits for it";
                    return Err(self.told(codes::TOPIC_MISSING, message, help));
                }
                SourceEvent::Partition { partition, beginning, end, .. } => {
                    heard.partitions.insert(partition.number, (*beginning, *end));
                }
                SourceEvent::Batch(batch) => heard.rows += batch.batch.num_rows(),
                SourceEvent::Finished { .. } => return Ok(heard),
                SourceEvent::Announced { .. } | SourceEvent::AtEnd { .. } | SourceEvent::Lost(_) => {}
            }
            if is_enough(&event, &heard) {
                return Ok(heard);
            }
        }
    }

    fn request(
        &self,
        stream: &Arc<Stream>,
        from: BTreeMap<i32, i64>,
        until: Option<BTreeMap<i32, i64>>,
    ) -> ReadRequest {
        ReadRequest {
            stream: Arc::clone(stream),
            columns: (0..stream.columns.len()).collect(),
            from,
            until,
            room: ReadRoom::default(),
        }
    }

    /// A table outside: one that answers with its first rows, or as empty, is there and as it is declared.
    fn table(&mut self) -> Result<(), Diagnostic> {
        let request = self.request(self.stream, BTreeMap::new(), None);
        let heard = self.read(request, &|event, heard| matches!(event, SourceEvent::AtEnd { .. }) || heard.rows > 0)?;
        self.sampled(heard.rows)
    }

    /// A topic, or files that take the place of one: where it ends, then its newest records.
    fn topic(&mut self) -> Result<(), Diagnostic> {
        let is_kafka = matches!(self.connection, Connection::Kafka { .. });
        if !is_kafka {
            let request = self.request(self.stream, BTreeMap::new(), None);
            let most = usize::try_from(SAMPLE).unwrap_or(usize::MAX);
            let heard =
                self.read(request, &|event, heard| matches!(event, SourceEvent::AtEnd { .. }) || heard.rows >= most)?;
            return self.sampled(heard.rows);
        }
        let latest = Arc::new(Stream { start: Start::Latest, ..self.stream.as_ref().clone() });
        let request = self.request(&latest, BTreeMap::new(), None);
        let heard = self.read(request, &|event, _| matches!(event, SourceEvent::Announced { .. }))?;
        let filled = heard.partitions.iter().filter(|(_, (beginning, end))| beginning < end);
        let filled: Vec<(i32, i64, i64)> =
            filled.map(|(number, (beginning, end))| (*number, *beginning, *end)).collect();
        let each = SAMPLE / i64::try_from(filled.len().max(1)).unwrap_or(SAMPLE);
        let from =
            heard.partitions.iter().map(|(number, (beginning, end))| (*number, (*beginning).max(end - each.max(1))));
        let until = heard.partitions.iter().map(|(number, (_, end))| (*number, *end)).collect();
        if filled.is_empty() {
            return self.sampled(0);
        }
        let request = self.request(self.stream, from.collect(), Some(until));
        let heard = self.read(request, &|_, _| false)?;
        self.sampled(heard.rows)
    }

    /// What became of the records that were read.
    fn sampled(&self, rows: usize) -> Result<(), Diagnostic> {
        let name = &self.stream.name;
        let letters = self.context.dead_letters.read(name);
        let letters = letters.map_err(|error| self.away(&format!("its dead letters: {error}")))?;
        let Some(first) = letters.first() else {
            if rows > 0 {
                return Ok(());
            }
            let message = format!("the stream `{name}` has no records yet: nothing tells whether they will decode");
            let note = self.told(codes::NO_RECORDS, message, "check again once there are some");
            return Err(Diagnostic { severity: crate::diagnostic::Severity::Note, ..note });
        };
        let all = rows + letters.len();
        let message = format!(
            "{} of the newest {all} records of `{name}` do not decode; the first is partition {}, offset {}: {}",
            letters.len(),
            first.partition,
            first.offset,
            first.error
        );
        let help = "mend the schema, or have the producer mend the records; such a record is a dead letter";
        let told = self.told(codes::UNDECODABLE, message, help);
        // Where most are fine the records are wrong, and not the schema.
        let severity = match letters.len() * 2 >= all {
            true => crate::diagnostic::Severity::Error,
            false => crate::diagnostic::Severity::Warning,
        };
        Err(Diagnostic { severity, ..told })
    }
}

/// A folder of nobody else's.
fn folder(stream: &str) -> PathBuf {
    let number: u64 = rand::random();
    std::env::temp_dir().join(format!("tagflow-check-{number:016x}-{stream}"))
}

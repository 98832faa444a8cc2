//! The commit protocol as a model: every interleaving of its steps, of crashes and of lost connections is tried.
//!
//! This is the protocol's specification; `engine::daemon`, `engine::store` and `sink::mysql` carry it out.
//!
//! - **Take**: a daemon takes the next event; the keys that it changes are pending.
//! - **Flush**: what is pending is drained together with where the daemon stands. One flush is under way at a time, events
//!   are taken on meanwhile. The flush is tried again until its transaction is known to be committed.
//! - **Transaction**: it begins by locking the writer's generation; one of another generation ends the daemon. Then rows,
//!   then progress, then COMMIT, whose answer may be lost: it may be carried out later, and keeps the lock until then.
//! - **Checkpoint**: captured where the daemon stands, written by and by, and published once the store has confirmed
//!   that much. It is whole or absent.
//! - **Start**: a daemon claims the store by counting the generation up, reads the progress, loads the newest checkpoint
//!   that does not lie behind it, and takes the events up to it in silence. Without such a checkpoint it fills a new
//!   table from the first event on, at least up to the progress, and swaps it in.
//!
//! What holds in every state: the rows are what the events before the progress give; the progress never goes back; a
//! commit is of the generation that owns the store; and whatever has happened, a daemon that is left alone gets to
//! the end.

use std::collections::{HashMap, VecDeque};

/// The keys of events; a row is the number of its key's events.
type Events = [usize; 2];
const KEYS: usize = 2;
/// Two daemons over one project, each with a state directory of its own.
const DAEMONS: usize = 2;

type Rows = [u8; KEYS];

/// The rows that the first `taken` events give.
fn answer(events: &Events, taken: u8) -> Rows {
    let mut rows = Rows::default();
    events[..usize::from(taken)].iter().for_each(|key| rows[*key] += 1);
    rows
}

/// The rules of which each is needed; the tests break one after the other.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// A transaction looks at the generation.
    fenced: bool,
    /// Rows and progress are committed together.
    together: bool,
    /// Events up to the progress are taken in silence.
    silent: bool,
    /// A checkpoint is published when the store has confirmed what it holds.
    awaited: bool,
    /// A checkpoint behind the progress is not loaded.
    refused: bool,
}

const ALL: Rules = Rules { fenced: true, together: true, silent: true, awaited: true, refused: true };

/// Changed keys with their new rows, and the progress that becomes true with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flush {
    rows: [Option<u8>; KEYS],
    progress: u8,
}

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stage {
    /// It holds the lock of the generation.
    Begun,
    Rows,
    Progress,
    /// COMMIT was sent: from here on the server alone decides.
    Sent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Transaction {
    generation: u8,
    flush: Flush,
    stage: Stage,
    /// The daemon that still waits for the answer.
    client: Option<usize>,
}

/// The database: what is committed, and the transaction that holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Store {
    generation: u8,
    rows: Rows,
    progress: u8,
    open: Option<Transaction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Down,
    /// It has claimed the store.
    Claimed,
    Running,
    /// It has found a newer generation.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Daemon {
    phase: Phase,
    generation: u8,
    taken: u8,
    pending: [bool; KEYS],
    flush: Option<Flush>,
    /// The progress that the store has confirmed to it.
    confirmed: u8,
    /// A checkpoint that is being written.
    writing: Option<u8>,
    /// The newest one on disk: the events that its state has taken.
    checkpoint: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    events: Events,
    store: Store,
    daemons: [Daemon; DAEMONS],
    /// Crashes and lost connections that may still happen.
    faults: u8,
    /// Starts that may still happen.
    starts: u8,
}

impl Daemon {
    fn down(checkpoint: Option<u8>) -> Self {
        Daemon {
            phase: Phase::Down,
            generation: 0,
            taken: 0,
            pending: [false; KEYS],
            flush: None,
            confirmed: 0,
            writing: None,
            checkpoint,
        }
    }

    /// It ends, saying so: nothing that it still holds matters.
    fn refuse(&mut self) {
        *self = Daemon { phase: Phase::Refused, ..Daemon::down(self.checkpoint) };
    }
}

impl World {
    fn first(events: Events, faults: u8, starts: u8) -> Self {
        let store = Store { generation: 0, rows: Rows::default(), progress: 0, open: None };
        World { events, store, daemons: [Daemon::down(None); DAEMONS], faults, starts }
    }

    /// Every world that one step leads to.
    fn next(&self, rules: Rules) -> Vec<World> {
        let mut worlds = Vec::new();
        for daemon in 0..DAEMONS {
            worlds.extend(self.start(daemon));
            worlds.extend(self.restore(daemon, rules));
            worlds.extend(self.take(daemon));
            worlds.extend(self.flush(daemon));
            worlds.extend(self.begin(daemon, rules));
            worlds.extend(self.advance(daemon, rules));
            worlds.extend(self.capture(daemon));
            worlds.extend(self.publish(daemon, rules));
            worlds.extend(self.crash(daemon));
        }
        worlds.extend(self.decide(rules));
        worlds.extend(self.lose_connection());
        worlds
    }

    fn with(&self, daemon: usize, change: impl FnOnce(&mut Daemon)) -> World {
        let mut world = *self;
        change(&mut world.daemons[daemon]);
        world
    }

    /// Claims the store, which waits for the lock.
    fn start(&self, daemon: usize) -> Option<World> {
        let can = self.daemons[daemon].phase == Phase::Down && self.starts > 0 && self.store.open.is_none();
        can.then(|| {
            let mut world = *self;
            world.starts -= 1;
            world.store.generation += 1;
            let generation = world.store.generation;
            let checkpoint = self.daemons[daemon].checkpoint;
            world.daemons[daemon] = Daemon { phase: Phase::Claimed, generation, ..Daemon::down(checkpoint) };
            world
        })
    }

    /// To where the store is: from a checkpoint, or by a fill that is swapped in.
    fn restore(&self, daemon: usize, rules: Rules) -> Option<World> {
        let known = self.daemons[daemon];
        if known.phase != Phase::Claimed {
            return None;
        }
        let mut world = self.with(daemon, |daemon| daemon.phase = Phase::Running);
        let progress = self.store.progress;
        world.daemons[daemon].confirmed = progress;
        match known.checkpoint.filter(|checkpoint| *checkpoint <= progress || !rules.refused) {
            Some(checkpoint) if rules.silent => world.daemons[daemon].taken = checkpoint.max(progress),
            Some(checkpoint) => world.daemons[daemon].taken = checkpoint,
            // Swaps are fenced too: under a lock, and by the generation.
            None if self.store.open.is_some() => return None,
            None if self.store.generation != known.generation && rules.fenced => {
                world.daemons[daemon].refuse();
            }
            None => {
                world.daemons[daemon].taken = progress;
                world.store.rows = answer(&self.events, progress);
            }
        }
        Some(world)
    }

    fn take(&self, daemon: usize) -> Option<World> {
        let known = self.daemons[daemon];
        let key = *self.events.get(usize::from(known.taken))?;
        (known.phase == Phase::Running).then(|| {
            self.with(daemon, |daemon| {
                daemon.taken += 1;
                daemon.pending[key] = true;
            })
        })
    }

    fn flush(&self, daemon: usize) -> Option<World> {
        let known = self.daemons[daemon];
        let can = known.phase == Phase::Running && known.flush.is_none() && known.pending != [false; KEYS];
        can.then(|| {
            let rows = answer(&self.events, known.taken);
            let rows = std::array::from_fn(|key| known.pending[key].then_some(rows[key]));
            self.with(daemon, |daemon| {
                daemon.flush = Some(Flush { rows, progress: daemon.taken });
                daemon.pending = [false; KEYS];
            })
        })
    }

    fn begin(&self, daemon: usize, rules: Rules) -> Option<World> {
        let known = self.daemons[daemon];
        let flush = known.flush.filter(|_| known.phase == Phase::Running && self.store.open.is_none())?;
        if rules.fenced && self.store.generation != known.generation {
            return Some(self.with(daemon, Daemon::refuse));
        }
        let mut world = *self;
        let client = Some(daemon);
        world.store.open = Some(Transaction { generation: known.generation, flush, stage: Stage::Begun, client });
        Some(world)
    }

    /// The next statement of a transaction.
    fn advance(&self, daemon: usize, rules: Rules) -> Option<World> {
        let open = self.store.open.filter(|open| open.client == Some(daemon))?;
        let stage = match open.stage {
            Stage::Begun => Stage::Rows,
            Stage::Rows => Stage::Progress,
            Stage::Progress => Stage::Sent,
            Stage::Sent => return None,
        };
        let mut world = *self;
        if stage == Stage::Rows && !rules.together {
            world.store.write_rows(&open.flush);
        }
        world.store.open = Some(Transaction { stage, ..open });
        Some(world)
    }

    /// The server carries COMMIT out; who waits for it hears of it.
    fn decide(&self, rules: Rules) -> Option<World> {
        let open = self.store.open.filter(|open| open.stage == Stage::Sent)?;
        let mut world = *self;
        if rules.together {
            world.store.write_rows(&open.flush);
        }
        world.store.progress = open.flush.progress;
        world.store.open = None;
        if let Some(client) = open.client {
            world.daemons[client].flush = None;
            world.daemons[client].confirmed = open.flush.progress;
        }
        Some(world)
    }

    fn capture(&self, daemon: usize) -> Option<World> {
        let known = self.daemons[daemon];
        let can = known.phase == Phase::Running && known.writing.is_none() && known.checkpoint != Some(known.taken);
        can.then(|| self.with(daemon, |daemon| daemon.writing = Some(daemon.taken)))
    }

    fn publish(&self, daemon: usize, rules: Rules) -> Option<World> {
        let known = self.daemons[daemon];
        let written = known.writing.filter(|written| *written <= known.confirmed || !rules.awaited)?;
        Some(self.with(daemon, |daemon| {
            daemon.checkpoint = Some(written);
            daemon.writing = None;
        }))
    }

    /// The process ends; its connection with it. One that was refused ends too, and may be started again.
    fn crash(&self, daemon: usize) -> Option<World> {
        let known = self.daemons[daemon];
        if known.phase == Phase::Down || self.faults == 0 {
            return None;
        }
        let mut world = *self;
        world.faults -= 1;
        world.store.forget_client(daemon);
        world.daemons[daemon] = Daemon::down(known.checkpoint);
        Some(world)
    }

    /// The connection goes, or the server dies and comes back; the daemon will try the same flush again.
    fn lose_connection(&self) -> Option<World> {
        let client = self.store.open?.client.filter(|_| self.faults > 0)?;
        let mut world = *self;
        world.faults -= 1;
        world.store.forget_client(client);
        Some(world)
    }

    /// What is wrong with this world, as `before` led to it.
    fn wrong(&self, before: &World) -> Option<&'static str> {
        if self.store.rows != answer(&self.events, self.store.progress) {
            return Some("the rows are not those of the progress");
        }
        if self.store.progress < before.store.progress {
            return Some("the progress went back");
        }
        let has_committed = before.store.open.filter(|_| self.store.progress != before.store.progress);
        if has_committed.is_some_and(|open| open.generation != before.store.generation) {
            return Some("a stale daemon has written");
        }
        None
    }

    fn is_at_end(&self) -> bool {
        usize::from(self.store.progress) == self.events.len()
    }

    /// True when somebody can still go on without a start.
    fn is_alive(&self) -> bool {
        let owner = |daemon: &Daemon| {
            matches!(daemon.phase, Phase::Claimed | Phase::Running) && daemon.generation == self.store.generation
        };
        self.daemons.iter().any(owner)
    }
}

impl Store {
    fn write_rows(&mut self, flush: &Flush) {
        for (row, new) in self.rows.iter_mut().zip(flush.rows) {
            *row = new.unwrap_or(*row);
        }
    }

    /// A transaction whose client is gone is rolled back, unless COMMIT is on its way: that may yet be carried out.
    fn forget_client(&mut self, client: usize) {
        if let Some(open) = self.open.filter(|open| open.client == Some(client)) {
            self.open = (open.stage == Stage::Sent).then_some(Transaction { client: None, ..open });
        }
    }
}

/// Walks through every world that can be reached. The number of them, or what is wrong with one.
fn explore(rules: Rules, events: Events, faults: u8, starts: u8) -> Result<usize, String> {
    let first = World::first(events, faults, starts);
    let mut known: HashMap<World, usize> = HashMap::from([(first, 0)]);
    let mut worlds = vec![first];
    let mut reached_from: Vec<Vec<usize>> = vec![Vec::new()];
    let mut queue = VecDeque::from([0]);
    while let Some(index) = queue.pop_front() {
        let world = worlds[index];
        for next in world.next(rules) {
            if let Some(wrong) = next.wrong(&world) {
                return Err(format!("{wrong}: from {world:?} to {next:?}"));
            }
            let reached = *known.entry(next).or_insert_with(|| {
                worlds.push(next);
                reached_from.push(Vec::new());
                queue.push_back(worlds.len() - 1);
                worlds.len() - 1
            });
            reached_from[reached].push(index);
        }
    }
    // Backwards from the ends: every world with an owner that is alive must be among those that lead there.
    let mut leads_to_end: Vec<bool> = worlds.iter().map(World::is_at_end).collect();
    let mut queue: Vec<usize> = (0..worlds.len()).filter(|index| leads_to_end[*index]).collect();
    while let Some(index) = queue.pop() {
        for before in &reached_from[index] {
            if !std::mem::replace(&mut leads_to_end[*before], true) {
                queue.push(*before);
            }
        }
    }
    let stuck = worlds.iter().zip(&leads_to_end).find(|(world, leads)| world.is_alive() && !**leads);
    match stuck {
        Some((world, _)) => Err(format!("a change is lost: {world:?} never gets to the end")),
        None => Ok(worlds.len()),
    }
}

#[test]
fn no_interleaving_of_steps_crashes_and_lost_connections_breaks_the_protocol() {
    for (events, faults, starts) in [([0, 0], 2, 2), ([0, 1], 1, 3)] {
        let worlds = explore(ALL, events, faults, starts).unwrap();
        assert!(worlds > 10_000, "only {worlds} worlds");
    }
}

#[test]
fn without_the_fence_a_stale_daemon_writes() {
    let error = explore(Rules { fenced: false, ..ALL }, [0, 1], 1, 2).unwrap_err();
    assert!(error.starts_with("a stale daemon has written"), "{error}");
}

#[test]
fn rows_that_are_committed_before_their_progress_are_seen_without_it() {
    let error = explore(Rules { together: false, ..ALL }, [0, 1], 1, 2).unwrap_err();
    assert!(error.starts_with("the rows are not those of the progress"), "{error}");
}

#[test]
fn replay_that_is_not_silent_takes_values_back() {
    let error = explore(Rules { silent: false, ..ALL }, [0, 1], 1, 2).unwrap_err();
    assert!(error.starts_with("the rows are not those of the progress"), "{error}");
}

#[test]
fn checkpoint_ahead_of_the_store_loses_changes_unless_it_is_refused() {
    // Two rules against one danger: each is enough, without both rows are wrong.
    explore(Rules { awaited: false, ..ALL }, [0, 1], 1, 2).unwrap();
    explore(Rules { refused: false, ..ALL }, [0, 1], 1, 2).unwrap();
    let error = explore(Rules { awaited: false, refused: false, ..ALL }, [0, 1], 1, 2).unwrap_err();
    assert!(error.starts_with("a change is lost") || error.starts_with("the rows are not"), "{error}");
}

//! What is done to a run, drawn from a seed: the same seed gives the same schedule.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::expected::THRESHOLDS;
use crate::servers::Server;

/// What can be killed, stopped and frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    Daemon,
    Server(Server),
}

/// An edit of the project's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// The tag `over` counts from another threshold.
    Over(i64),
    /// The file of the tag `over` has an error.
    Break,
    /// It has none any more.
    Mend,
    /// The tag `extra` comes, or goes.
    Extra,
    /// The file of factors, which is a table, gets other rows.
    Factors,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// As a crash does.
    Kill(Process),
    /// As an operator does: the process may end as it should.
    Stop(Process),
    Start(Process),
    /// SIGSTOP: alive, and silent.
    Freeze(Process),
    Thaw(Process),
    Edit(Edit),
    /// The daemon's wall clock is this many seconds away from the true one.
    Clock(i64),
    /// So many events at once.
    Burst(u64),
}

/// When to do what, from the beginning of a round on.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub at: Duration,
    pub act: Act,
}

/// One round of `faults` faults; all that is down or broken is mended by its end.
pub fn round(rng: &mut StdRng, faults: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = Duration::ZERO;
    for _ in 0..faults {
        at += Duration::from_millis(rng.random_range(100..2_500));
        let until = |rng: &mut StdRng, most: u64| at + Duration::from_millis(rng.random_range(0..most));
        let server = Process::Server(Server::BOTH[rng.random_range(0..2)]);
        let (act, undone) = match rng.random_range(0..100) {
            0..42 => (Act::Kill(Process::Daemon), Some((until(rng, 1_500), Act::Start(Process::Daemon)))),
            42..48 => (Act::Stop(Process::Daemon), Some((until(rng, 1_500), Act::Start(Process::Daemon)))),
            48..54 => (Act::Freeze(Process::Daemon), Some((until(rng, 4_000), Act::Thaw(Process::Daemon)))),
            54..68 => (Act::Kill(server), Some((until(rng, 3_000), Act::Start(server)))),
            68..71 => (Act::Stop(server), Some((until(rng, 3_000), Act::Start(server)))),
            71..75 => (Act::Freeze(server), Some((until(rng, 4_000), Act::Thaw(server)))),
            75..80 => (Act::Edit(Edit::Over(THRESHOLDS[rng.random_range(0..THRESHOLDS.len())])), None),
            80..84 => (Act::Edit(Edit::Break), Some((until(rng, 3_000), Act::Edit(Edit::Mend)))),
            84..88 => (Act::Edit(Edit::Extra), None),
            88..93 => (Act::Edit(Edit::Factors), None),
            93..96 => (Act::Clock(rng.random_range(-15..=15)), None),
            _ => (Act::Burst(rng.random_range(500..4_000)), None),
        };
        steps.push(Step { at, act });
        steps.extend(undone.map(|(at, act)| Step { at, act }));
    }
    steps.sort_by_key(|step| step.at);
    steps
}

//! Faults at random against the real Kafka, the real MariaDB and the real binary, from a seed: kills, stops, freezes,
//! edits, clock steps, bursts. All the while a reader compares every table with what plain Rust makes of exactly the
//! events that the table's progress names; nothing here knows the engine, nor DataFusion.
//!
//! `make chaos N=1000 SEED=7` is the long run. It kills the servers that the environment names.

mod crash_points;
mod daemon;
mod events;
mod expected;
mod reader;
mod run;
mod schedule;
mod servers;

use std::io::Write;
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use run::{Summary, run};
use servers::Server;

/// Faults of a run in `make test`.
const SHORT: usize = 15;
/// Faults of one run of a long one: the next begins anew, with a seed of its own.
const LIFE: usize = 100;

/// One run kills the servers of another.
static ALONE: Mutex<()> = Mutex::new(());

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Past the harness, which shows what is printed of failures alone.
fn tell(seed: u64, summary: &Summary, begun: Instant) {
    let restarts = |server| summary.restarts.get(&server).copied().unwrap_or_default();
    let told = writeln!(
        std::io::stderr(),
        "seed {seed}: {} kills and {} stops of the daemon, {} restarts of Kafka, {} of MariaDB, {} freezes, {} edits, \
         {} clock steps; {} events, {} snapshots, {} rows checked; 0 wrong rows, 0 values that went back, {} panics; \
         longest recovery {:.1} s; {:.0} s in all",
        summary.kills,
        summary.stops,
        restarts(Server::Kafka),
        restarts(Server::Mariadb),
        summary.freezes,
        summary.edits,
        summary.clock_steps,
        summary.events,
        summary.snapshots,
        summary.rows_checked,
        summary.panics,
        summary.longest_recovery.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    told.expect("the harness has an end to write to");
}

#[test]
fn tables_are_true_through_faults_of_a_fixed_seed() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let begun = Instant::now();
    tell(1, &run(1, "make chaos N=15 SEED=1", |run| run.rounds(SHORT)), begun);
}

#[test]
fn tables_are_true_through_faults_of_a_random_seed() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let begun = Instant::now();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let first = number("TAGFLOW_CHAOS_SEED").unwrap_or(clock);
    let faults = number("TAGFLOW_CHAOS_FAULTS").map_or(SHORT, |faults| faults as usize);
    let mut whole = Summary::default();
    for (life, begins) in (0..faults).step_by(LIFE).enumerate() {
        let (seed, begun) = (first + life as u64, Instant::now());
        let faults = LIFE.min(faults - begins);
        let summary = run(seed, &format!("make chaos N={faults} SEED={seed}"), |run| run.rounds(faults));
        tell(seed, &summary, begun);
        whole.add(&summary);
    }
    if faults > LIFE {
        tell(first, &whole, begun);
    }
}

#[test]
fn tables_are_true_after_a_crash_at_every_step_of_the_commit_protocol() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let begun = Instant::now();
    let again = "scripts/with-services cargo test --test chaos every_step";
    tell(0, &run(0, again, crash_points::crash_at_each), begun);
}

//! `tagflow demo`: the sample project on a screen that follows it, without any server, or with Kafka and MariaDB.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cli::run::{shutdown_flag, startable};
use crate::cli::screen::{Follower, Screen};
use crate::cli::{OK, ProjectArgs, complain, produce};
use crate::config::GeneratorConfig;
use crate::console;
use crate::engine::daemon::{self, DaemonOptions, OtherDaemon};
use crate::engine::status::{Phase, SharedStatus, read};

/// Expressions are evaluated recursively, also deep ones.
const STACK: usize = 64 << 20;

/// Arguments of `tagflow demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// The folder of tagflow.toml.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    project: PathBuf,
    /// With the Kafka and MariaDB of profile `demo-kafka` instead of the embedded generator and SQLite.
    #[arg(long)]
    kafka: bool,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Live events a second that are written to Kafka (with --kafka).
    #[arg(long, default_value_t = 500)]
    rate: u64,
}

/// Runs the daemon and shows what it does.
pub fn run(args: &DemoArgs) -> u8 {
    let profile = if args.kafka { "demo-kafka" } else { "demo" };
    let project = ProjectArgs { project: args.project.clone(), profile: Some(profile.to_string()) };
    let (loaded, desired) = match startable(&project) {
        Ok(startable) => startable,
        Err(code) => return code,
    };
    let status = SharedStatus::default();
    let stop = shutdown_flag();
    let console = match console::start("127.0.0.1:0", None, Arc::clone(&status)) {
        Ok(console) => console,
        Err(error) => return complain(format!("the console cannot listen: {error}")),
    };
    let producer = args.kafka.then(|| {
        let (config, catalog, stop) =
            (desired.project.config.clone(), desired.project.catalog.clone(), Arc::clone(&stop));
        let generator =
            GeneratorConfig { rate: args.rate, seed: 42, users: 20_000, history_days: 45, history_events: 200_000 };
        std::thread::spawn(move || produce::produce(&config, &catalog, &generator, &stop))
    });
    let follower = Follower::new(&desired);
    let options = DaemonOptions {
        desired,
        watched: Some(loaded.fingerprint.clone()),
        shutdown: Arc::clone(&stop),
        status: Arc::clone(&status),
        until_caught_up: false,
        accept_removals: false,
        other_daemon: OtherDaemon::Refuse,
    };
    let daemon =
        std::thread::Builder::new().name("engine".to_string()).stack_size(STACK).spawn(move || daemon::run(options));
    let daemon = match daemon {
        Ok(daemon) => daemon,
        Err(error) => return complain(format!("the engine's thread: {error}")),
    };
    watch(args, &status, &stop, follower, &console.address.to_string(), || daemon.is_finished());
    stop.store(true, Ordering::SeqCst);
    if let Some(Err(error)) = producer.and_then(|producer| producer.join().ok()) {
        complain(format!("the shop's events could not be written to Kafka: {error}"));
    }
    match daemon.join() {
        Ok(Ok(())) => {
            let _ = writeln!(std::io::stdout(), "stopped; the next start goes on from here");
            OK
        }
        Ok(Err(error)) => complain(error),
        Err(_) => complain("the engine panicked"),
    }
}

fn watch(
    args: &DemoArgs,
    status: &SharedStatus,
    stop: &AtomicBool,
    mut follower: Follower,
    address: &str,
    ended: impl Fn() -> bool,
) {
    let begun = Instant::now();
    let mut screen = Screen::new(std::io::stdout().is_terminal());
    while !stop.load(Ordering::SeqCst) && !ended() {
        if args.seconds.is_some_and(|seconds| begun.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
        let status = read(status);
        if status.phase == Phase::Running {
            follower.look();
        }
        screen.draw(&status, &follower, address);
        std::thread::sleep(screen.interval());
    }
    screen.close();
}

//! `tagflow run`: the daemon, with its console, until Ctrl-C or SIGTERM.

use std::io::{ErrorKind, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{error, info, warn};

use crate::cli::status::who_listens;
use crate::cli::{FAILED, Format, OK, OTHER_DAEMON, ProjectArgs, complain, load, print_diagnostics, use_colour};
use crate::console;
use crate::engine::daemon::{self, DaemonOptions, OtherDaemon};
use crate::engine::desired::{Desired, is_sound};
use crate::engine::status::SharedStatus;
use crate::project::Loaded;

/// Expressions are evaluated recursively, also deep ones.
const STACK: usize = 64 << 20;

/// Arguments of `tagflow run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Do not watch the project's files.
    #[arg(long)]
    no_reload: bool,
    /// Stop once everything that is there now is in the store.
    #[arg(long)]
    until_caught_up: bool,
    /// Let most of the tags be removed at once.
    #[arg(long)]
    accept_removals: bool,
    /// Wait while another daemon writes the store, and take over as soon as it is gone.
    #[arg(long, conflicts_with = "take_over")]
    standby: bool,
    /// Take the store from a daemon that writes it now; that one ends.
    #[arg(long)]
    take_over: bool,
    /// Where the console listens instead of the project's `serve.listen`.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
}

/// A flag that Ctrl-C and SIGTERM set; a second signal ends the process at once.
pub fn shutdown_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&flag);
    let waiting = std::thread::Builder::new().name("signals".to_string()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return error!(%error, "signals are not heard"),
        };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (mut interrupt, mut terminate) =
                match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
                    (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
                    _ => return error!("signals are not heard"),
                };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if shared.swap(true, Ordering::SeqCst) {
                    std::process::exit(i32::from(FAILED));
                }
                info!("stopping; once more ends it at once");
            }
        });
    });
    if let Err(error) = waiting {
        error!(%error, "signals are not heard");
    }
    flag
}

/// The project, if the daemon can start with it; broken tags are left out and told.
pub fn startable(args: &ProjectArgs) -> Result<(Loaded, Desired), u8> {
    let (loaded, desired) = load(args);
    let colour = use_colour(std::io::stderr().is_terminal());
    if !is_sound(&loaded.diagnostics) || desired.is_none() {
        print_diagnostics(&loaded, Format::Human, &mut std::io::stderr(), colour);
    }
    match desired {
        Some(desired) if is_sound(&loaded.diagnostics) => Ok((loaded, desired)),
        Some(desired) if !desired.tags.is_empty() => {
            warn!("the project has errors; the tags without errors run, tables of the others stay as they are");
            Ok((loaded, desired))
        }
        _ => Err(FAILED),
    }
}

/// Runs the daemon.
pub fn run(args: &RunArgs) -> u8 {
    let (loaded, desired) = match startable(&args.project) {
        Ok(startable) => startable,
        Err(code) => return code,
    };
    let status = SharedStatus::default();
    let shutdown = shutdown_flag();
    let mut serve = desired.project.config.serve.clone();
    serve.listen = args.listen.clone().unwrap_or(serve.listen);
    let console = match console::start(&serve.listen, serve.token.as_ref(), Arc::clone(&status)) {
        Ok(console) => console,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            return complain(format!("the console cannot listen on {}: {}", serve.listen, who_listens(&serve)));
        }
        Err(error) => return complain(format!("the console cannot listen on {}: {error}", serve.listen)),
    };
    info!(tags = desired.tags.len(), console = %format!("http://{}", console.address), "tagflow is starting");
    let options = DaemonOptions {
        desired,
        watched: (!args.no_reload).then(|| loaded.fingerprint.clone()),
        shutdown,
        status,
        until_caught_up: args.until_caught_up,
        accept_removals: args.accept_removals,
        other_daemon: match (args.standby, args.take_over) {
            (true, _) => OtherDaemon::WaitFor,
            (_, true) => OtherDaemon::Replace,
            _ => OtherDaemon::Refuse,
        },
    };
    let engine =
        std::thread::Builder::new().name("engine".to_string()).stack_size(STACK).spawn(|| daemon::run(options));
    let engine = match engine {
        Ok(engine) => engine,
        Err(error) => return complain(format!("the engine's thread: {error}")),
    };
    match engine.join() {
        Err(_) => complain("the engine panicked"),
        Ok(Ok(())) => {
            info!("stopped");
            OK
        }
        Ok(Err(error)) if error.is_other_daemon() => {
            complain(error);
            OTHER_DAEMON
        }
        Ok(Err(error)) => complain(error),
    }
}

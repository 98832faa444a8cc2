//! Connections of the console, whoever they are from: few, short, and none at the cost of another.
//!
//! Each answers one request within a deadline. Beyond a number of them the oldest goes for a new one, once it has had its
//! time: those of honest clients are over in milliseconds, so that clients which send slowly, or never, keep nobody else
//! waiting for long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

/// Most connections at a time.
const MOST: usize = 256;
/// What a connection is left at least, also while others wait.
const FAIR: Duration = Duration::from_secs(1);
/// How often it is looked for room.
const TURN: Duration = Duration::from_millis(5);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may take from its beginning to its end.
const WHOLE: Duration = Duration::from_secs(15);
/// Most bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// Pause after the system gave no connection: it is out of files most often.
const NO_CONNECTION: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let mut tasks = JoinSet::new();
    let mut oldest_first: VecDeque<(Instant, AbortHandle)> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "the console gets no connection");
                sleep(NO_CONNECTION).await;
                continue;
            }
        };
        while !has_room(&mut tasks, &mut oldest_first) {
            sleep(TURN).await;
        }
        oldest_first.push_back((Instant::now(), tasks.spawn(answer(stream, router.clone()))));
        // Those that are there come before those that are still to be let in.
        yield_now().await;
    }
}

/// True when one more connection can be taken; the oldest goes for it once it has had its time.
fn has_room(tasks: &mut JoinSet<()>, oldest_first: &mut VecDeque<(Instant, AbortHandle)>) -> bool {
    // A panic in one of them has been told by its thread's hook, and concerns nobody else.
    while tasks.try_join_next().is_some() {}
    oldest_first.retain(|(_, task)| !task.is_finished());
    if oldest_first.len() < MOST {
        return true;
    }
    let is_over = oldest_first.front().is_some_and(|(since, _)| since.elapsed() > FAIR);
    if is_over && let Some((_, oldest)) = oldest_first.pop_front() {
        oldest.abort();
    }
    is_over
}

async fn answer(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        // Who has said all may close that way at once, and still hears the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(WHOLE, connection).await {
        Ok(Ok(())) => {}
        // What a client does wrong is its own concern.
        Ok(Err(error)) => tracing::trace!(%error, "a request was not answered"),
        Err(_) => tracing::trace!("a request took too long"),
    }
}

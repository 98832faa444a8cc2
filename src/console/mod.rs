//! HTTP: health, metrics, status. Reads the engine's status and nothing else, and nothing can be changed by it.

mod access;
mod connections;
mod metrics;

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::oneshot;

use self::access::Access;
use crate::config::Secret;
use crate::engine::status::{Phase, SharedStatus, read};

/// The console while it listens. Dropping it ends it.
#[derive(Debug)]
pub struct Console {
    /// Where it listens: the port is the one that it was given where `0` was asked for.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Listens on `host:port`; beyond this machine only with a token.
pub fn start(listen: &str, token: Option<&Secret>, status: SharedStatus) -> io::Result<Console> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    if token.is_none() && !address.ip().to_canonical().is_loopback() {
        return Err(io::Error::other(NO_TOKEN));
    }
    let router = router(status, Access::new(token));
    let (stop, stopped) = oneshot::channel::<()>();
    // Short turns, so that a flood of connections keeps nobody from being read.
    let runtime = tokio::runtime::Builder::new_current_thread().event_interval(8).enable_all().build()?;
    let thread = std::thread::Builder::new().name("console".to_string()).spawn(move || {
        runtime.block_on(async {
            let listener = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(%error, "the console cannot listen"),
            };
            tokio::select! {
                () = connections::serve(listener, router) => {}
                _ = stopped => {}
            }
        });
    })?;
    Ok(Console { address, stop: Some(stop), thread: Some(thread) })
}

/// Why a console does not start that everybody could reach.
const NO_TOKEN: &str = "beyond this machine it wants a token: write token = \"${TAGFLOW_TOKEN}\" below [serve]";

impl Drop for Console {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the console panicked");
        }
    }
}

fn router(status: SharedStatus, access: Access) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_page))
        .route("/status", get(async |State(status): State<SharedStatus>| Json(read(&status))))
        .with_state(status)
        .layer(from_fn_with_state(access, check_access))
}

async fn check_access(State(access): State<Access>, request: Request<Body>, next: Next) -> Response {
    match access.refusal(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// Ready when tags follow and no first fill is under way: what a load balancer or a rollout waits for.
async fn ready(State(status): State<SharedStatus>) -> impl IntoResponse {
    let status = read(&status);
    if status.phase == Phase::Running && status.fill.is_none() {
        (StatusCode::OK, "ready\n".to_string())
    } else {
        let phase =
            if status.fill.is_some() { "filling".to_string() } else { format!("{:?}", status.phase).to_lowercase() };
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {phase}\n"))
    }
}

async fn metrics_page(State(status): State<SharedStatus>) -> impl IntoResponse {
    match metrics::encode(&read(&status)) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::engine::status::{Status, TagStatus, update};

    fn ask(console: &Console, path: &str) -> String {
        ask_with(console, path, "")
    }

    fn ask_with(console: &Console, path: &str, headers: &str) -> String {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", console.address.port())).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn console_answers_what_the_status_says() {
        let status = SharedStatus::default();
        let console = start("127.0.0.1:0", None, status.clone()).unwrap();
        assert!(ask(&console, "/healthz").starts_with("HTTP/1.1 200"));
        assert!(ask(&console, "/readyz").starts_with("HTTP/1.1 503"));
        update(&status, |status| {
            status.phase = Phase::Running;
            status.tags = vec![TagStatus { tag: "spend_30d".to_string(), rows: 7, ..TagStatus::default() }];
        });
        assert!(ask(&console, "/readyz").starts_with("HTTP/1.1 200"));
        assert!(ask(&console, "/metrics").contains("tagflow_tag_rows{tag=\"spend_30d\"} 7.0\n"));
        let answer = ask(&console, "/status");
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let told: Status = serde_json::from_str(body.trim()).unwrap();
        assert_eq!(told.tags[0].rows, 7);
        assert!(ask(&console, "/nothing").starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn client_that_closes_its_half_at_once_hears_the_answer() {
        let console = start("127.0.0.1:0", None, SharedStatus::default()).unwrap();
        let ask = || {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", console.address.port())).unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        };
        // The end of what is sent must reach the console at any moment of its work.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| ask()));
            }
        });
    }

    #[test]
    fn console_that_others_can_reach_wants_a_token_of_everybody() {
        let error = start("0.0.0.0:0", None, SharedStatus::default()).unwrap_err();
        assert_eq!(error.to_string(), NO_TOKEN);
        let token = Secret::new("a-token-of-the-test");
        for listen in ["0.0.0.0:0", "127.0.0.1:0"] {
            let console = start(listen, Some(&token), SharedStatus::default()).unwrap();
            for path in ["/metrics", "/status", "/nothing"] {
                assert!(ask(&console, path).starts_with("HTTP/1.1 401"), "{path}");
            }
            assert!(ask(&console, "/healthz").starts_with("HTTP/1.1 200"));
            let answer = ask_with(&console, "/metrics", "Authorization: Bearer a-token-of-the-test\r\n");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
}

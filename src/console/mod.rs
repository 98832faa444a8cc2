//! HTTP: health, metrics, status. Reads the engine's status and nothing else.

mod metrics;

use std::net::SocketAddr;
use std::thread::JoinHandle;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::oneshot;

use crate::engine::status::{Phase, SharedStatus, read};

/// The console while it listens. Dropping it ends it.
#[derive(Debug)]
pub struct Console {
    /// Where it listens: the port is the one that it was given where `0` was asked for.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Listens on `host:port`.
pub fn start(listen: &str, status: SharedStatus) -> std::io::Result<Console> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("console".to_string()).spawn(move || {
        runtime.block_on(async {
            let listener = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(%error, "the console cannot listen"),
            };
            tokio::select! {
                served = axum::serve(listener, router(status)).into_future() => {
                    if let Err(error) = served {
                        tracing::error!(%error, "the console has ended");
                    }
                }
                _ = stopped => {}
            }
        });
    })?;
    Ok(Console { address, stop: Some(stop), thread: Some(thread) })
}

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

fn router(status: SharedStatus) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_page))
        .route("/status", get(async |State(status): State<SharedStatus>| Json(read(&status))))
        .with_state(status)
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
        let mut stream = std::net::TcpStream::connect(console.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn console_answers_what_the_status_says() {
        let status = SharedStatus::default();
        let console = start("127.0.0.1:0", status.clone()).unwrap();
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
}

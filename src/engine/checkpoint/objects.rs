//! Checkpoints in an object store. A file is one object that is written by one request: it is whole or absent, and what is
//! cut off leaves nothing.
//!
//! Enters: names and bytes. Leaves: the same, or what the store says in few words. What it answers is never passed on as it
//! is, since it may quote the request that it refused, with headers that hold secrets.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::{Path, PathPart};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use tokio::runtime::Runtime;

use super::place::Place;
use super::{CheckpointError, MANIFESTS};
use crate::config::{S3Place, Secret};
use crate::engine::stop::Stop;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request is repeated that failed in passing; who asked for it repeats it for longer, and says so.
const REPEATS: Duration = Duration::from_secs(5);
/// How many objects are asked for at a time.
const AT_ONCE: usize = 16;
/// What S3 calls faults that pass.
const PASSING: [&str; 5] = ["InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown"];
/// What it calls logins that it does not take.
const LOGIN: [&str; 6] = [
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
];
/// The longest text of a store that is passed on.
const LONGEST_WORDS: usize = 200;

/// Part of an object store.
#[derive(Debug)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The store in messages: `s3://tags`.
    name: String,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
    stop: Arc<Stop>,
}

impl Objects {
    /// A bucket of S3, or of what speaks like it. Nothing is asked yet.
    pub fn s3(place: &S3Place, stop: Arc<Stop>) -> Result<Self, CheckpointError> {
        let name = format!("s3://{}", place.bucket);
        match s3_builder(place).build() {
            Ok(store) => Objects::of(Arc::new(store), &place.prefix, name, stop),
            Err(error) => {
                let source = std::io::Error::new(ErrorKind::InvalidInput, innermost(&error).to_string());
                Err(CheckpointError::Io { file: name, source })
            }
        }
    }

    /// What lies below `prefix` in a store that messages call `name`. Once `stop` is over nothing is waited for.
    pub fn of(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        name: String,
        stop: Arc<Stop>,
    ) -> Result<Self, CheckpointError> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("objects").enable_all().build();
        let runtime = runtime.map_err(|source| CheckpointError::Io { file: name.clone(), source })?;
        Ok(Objects { store, prefix: Path::from(prefix), name, runtime: Some(runtime), stop })
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(name.split('/').filter(|part| !part.is_empty()).map(PathPart::from)).collect()
    }

    fn wait_for<T, E: Into<Refusal>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, Refusal> {
        let gives_up = async {
            while !self.stop.is_over() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let runtime = self.runtime.as_ref().expect("it is there until this is dropped");
        runtime.block_on(async {
            tokio::select! {
                outcome = work => outcome.map_err(Into::into),
                () = gives_up => {
                    let words = "it does not answer, and the daemon stops".to_string();
                    Err(Refusal { kind: ErrorKind::NotConnected, words, is_missing: false })
                }
            }
        })
    }

    fn failed(&self, name: &str) -> impl FnOnce(Refusal) -> CheckpointError {
        let file = self.describe(name);
        move |refusal| CheckpointError::Io { file, source: std::io::Error::new(refusal.kind, refusal.words) }
    }

    async fn bytes(&self, name: &str, most: u64) -> object_store::Result<Option<Vec<u8>>> {
        let found = self.store.get(&self.path(name)).await?;
        if found.meta.size > most {
            return Ok(None);
        }
        Ok(Some(found.bytes().await?.into()))
    }

    fn whole(&self, name: &str, outcome: Result<Option<Vec<u8>>, Refusal>) -> Result<Vec<u8>, CheckpointError> {
        let damaged = |reason: &str| CheckpointError::Damaged { file: self.describe(name), reason: reason.to_string() };
        match outcome {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(damaged("it is longer than it should be")),
            Err(refusal) if refusal.is_missing => Err(damaged("it is missing")),
            Err(refusal) => Err(self.failed(name)(refusal)),
        }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // A name server that does not answer would be waited for otherwise.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Place for Objects {
    fn describe(&self, name: &str) -> String {
        format!("{}/{}", self.name, self.path(name))
    }

    fn put(&self, name: &str, bytes: &Bytes) -> Result<(), CheckpointError> {
        let put = async { self.store.put(&self.path(name), PutPayload::from(bytes.clone())).await };
        self.wait_for(put).map(drop).map_err(self.failed(name))
    }

    fn get(&self, name: &str, most: u64) -> Result<Vec<u8>, CheckpointError> {
        self.whole(name, self.wait_for(self.bytes(name, most)))
    }

    fn get_all(&self, names: &[String], most: u64) -> Result<Vec<Result<Vec<u8>, CheckpointError>>, CheckpointError> {
        let each = stream::iter(names).map(|name| async move {
            match self.bytes(name, most).await.map_err(Refusal::from) {
                Err(refusal) if !refusal.is_missing => Err(refusal),
                outcome => Ok(outcome),
            }
        });
        let all: Vec<_> = self.wait_for(each.buffered(AT_ONCE).try_collect()).map_err(self.failed(MANIFESTS))?;
        Ok(names.iter().zip(all).map(|(name, outcome)| self.whole(name, outcome)).collect())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, CheckpointError> {
        let path = self.path(folder);
        let found = self.wait_for(self.store.list_with_delimiter(Some(&path))).map_err(self.failed(folder))?;
        let locations = found.objects.into_iter().map(|object| object.location).chain(found.common_prefixes);
        // A store may hold an object that stands for the folder itself.
        let name = |location: Path| Some(location.prefix_match(&path)?.next()?.as_ref().to_string());
        Ok(locations.filter_map(name).collect())
    }

    fn remove(&self, names: &[String]) -> Result<(), CheckpointError> {
        let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
        let removed = self.store.delete_stream(stream::iter(paths).boxed());
        let is_there =
            |outcome: &object_store::Result<Path>| !matches!(outcome, Err(object_store::Error::NotFound { .. }));
        let removed =
            removed.filter(move |outcome| std::future::ready(is_there(outcome))).try_for_each(|_| async { Ok(()) });
        self.wait_for(removed).map_err(self.failed(names.first().map_or("", String::as_str)))
    }
}

/// What is set in the file goes before what `AWS_*` says, group by group: half of a login is none.
fn s3_builder(place: &S3Place) -> AmazonS3Builder {
    use AmazonS3ConfigKey::{AccessKeyId, Client, Endpoint, S3Endpoint, SecretAccessKey, Token};
    let mut builder = AmazonS3Builder::new();
    let is_replaced = |key: &AmazonS3ConfigKey| match key {
        AccessKeyId | SecretAccessKey | Token => place.access_key_id.is_some(),
        Endpoint | S3Endpoint => place.endpoint.is_some(),
        AmazonS3ConfigKey::Bucket => true,
        _ => false,
    };
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        if name.starts_with("AWS_")
            && let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()
            && !is_replaced(&key)
        {
            builder = builder.with_config(key, value);
        }
    }
    let duration = |duration: Duration| humantime::format_duration(duration).to_string();
    builder = builder
        .with_bucket_name(&place.bucket)
        .with_config(Client(ClientConfigKey::Timeout), duration(place.timeout))
        .with_config(Client(ClientConfigKey::ConnectTimeout), duration(CONNECT.min(place.timeout)))
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(1),
                base: 2.0,
            },
            max_retries: 3,
            retry_timeout: REPEATS,
        });
    let is_virtual = place.virtual_hosted.unwrap_or_default();
    if let Some(virtual_hosted) = place.virtual_hosted {
        builder = builder.with_virtual_hosted_style_request(virtual_hosted);
    }
    if let Some(endpoint) = &place.endpoint {
        let endpoint = if is_virtual { of_bucket(endpoint, &place.bucket) } else { endpoint.clone() };
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &place.region {
        builder = builder.with_region(region);
    }
    if let Some(allow_http) = place.allow_http {
        builder = builder.with_allow_http(allow_http);
    }
    let secrets = [
        (AccessKeyId, &place.access_key_id),
        (SecretAccessKey, &place.secret_access_key),
        (Token, &place.session_token),
    ];
    for (key, secret) in secrets {
        if let Some(secret) = secret.as_ref().map(Secret::expose) {
            builder = builder.with_config(key, secret);
        }
    }
    builder
}

/// An endpoint with the bucket before its host.
fn of_bucket(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{bucket}.{rest}"),
        None => endpoint.to_string(),
    }
}

/// What a store says when it does not do what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub kind: ErrorKind,
    pub words: String,
    /// The object is not there; the bucket is.
    pub is_missing: bool,
}

impl From<object_store::Error> for Refusal {
    fn from(error: object_store::Error) -> Self {
        let error = &error;
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        let text = error.to_string();
        let code = between(&text, "<Code>", "</Code>").or_else(|| between(&text, "(code: ", ")"));
        let message = between(&text, "<Message>", "</Message>");
        let mut words: Vec<&str> = code.into_iter().chain(message).map(first_line).collect();
        let innermost = innermost(error).to_string();
        if words.is_empty() {
            // Behind the status may stand a page of whatever answers here.
            let status = innermost.strip_prefix("Server returned non-2xx status code: ");
            words.push(
                status.map_or(first_line(&innermost), |status| first_line(status.split(": ").next().unwrap_or(status))),
            );
        }
        let is_login = matches!(error, PermissionDenied { .. } | Unauthenticated { .. })
            || code.is_some_and(|code| LOGIN.contains(&code));
        let kind = match code {
            Some("NoSuchBucket") => ErrorKind::NotFound,
            _ if is_login => {
                words.push(
                    "look at the credentials, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and at what they may do",
                );
                ErrorKind::PermissionDenied
            }
            Some(code) if !PASSING.contains(&code) => ErrorKind::InvalidInput,
            _ => ErrorKind::NotConnected,
        };
        if text.contains("/latest/api/token") || text.contains("/latest/meta-data") {
            words.push("no AWS_ACCESS_KEY_ID is set, and this machine has no role that would stand for it");
        }
        let is_missing = matches!(error, NotFound { .. }) && code != Some("NoSuchBucket");
        Refusal { kind, words: words.join(": "), is_missing }
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}

fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    &line[..line.floor_char_boundary(LONGEST_WORDS)]
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

//! Who may ask: the holder of the token, or where there is none, whoever is on this machine.
//!
//! A page in a browser on this machine is not: a name of its own that resolves to loopback (DNS rebinding) would make the
//! console's answers its own, so names of other hosts are refused.

use axum::body::Body;
use axum::http::uri::Authority;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{Secret, is_loopback};

/// What needs no token: a load balancer and the machinery that starts containers have none.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// What a request must show.
#[derive(Clone)]
pub(super) enum Access {
    /// The token, of which only the digest is kept: it is compared as a whole, whatever the length of what is sent.
    Token([u8; 32]),
    /// That it was meant for this machine.
    Loopback,
}

impl Access {
    pub(super) fn new(token: Option<&Secret>) -> Access {
        token.map_or(Access::Loopback, |token| Access::Token(Sha256::digest(token.expose()).into()))
    }

    /// Why a request is refused.
    pub(super) fn refusal(&self, request: &Request<Body>) -> Option<Response> {
        match self {
            _ if OPEN.contains(&request.uri().path()) => None,
            Access::Token(digest) => {
                let sent = request.headers().get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
                let sent: [u8; 32] = Sha256::digest(sent.unwrap_or_default()).into();
                let is_right: bool = digest.ct_eq(&sent).into();
                let refused = || {
                    let asks = [(header::WWW_AUTHENTICATE, "Bearer realm=\"tagflow\"")];
                    (StatusCode::UNAUTHORIZED, asks, "this console wants its token: Authorization: Bearer …\n")
                };
                (!is_right).then(|| refused().into_response())
            }
            Access::Loopback => {
                let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
                let target = request.uri().authority().map(Authority::as_str);
                let is_ours = host.into_iter().chain(target).all(is_loopback);
                let message = "this console without a token answers to localhost alone\n";
                (!is_ours).then(|| (StatusCode::MISDIRECTED_REQUEST, message).into_response())
            }
        }
    }
}

/// What follows the word Bearer, whose case does not matter.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (word, token) = value.split_at_checked(7)?;
    word.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(access: &Access, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        access.refusal(&request.body(Body::empty()).unwrap()).map_or(200, |refused| refused.status().as_u16())
    }

    #[test]
    fn holder_of_the_token_is_let_in_and_nobody_else() {
        let access = Access::new(Some(&Secret::new("a-token-of-the-test")));
        let with = |value: &str| status(&access, "/metrics", &[("authorization", value)]);
        for right in ["Bearer a-token-of-the-test", "bearer  a-token-of-the-test "] {
            assert_eq!(with(right), 200, "{right}");
        }
        let wrong =
            ["", "Bearer", "Bearer ", "a-token-of-the-test", "Basic a-token-of-the-test", "Bearer A-token-of-the-test"];
        for wrong in wrong.into_iter().chain(["Bearer a-token-of-the-tes", "Bearer a-token-of-the-test2", "Béarer x"])
        {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        assert_eq!(status(&access, "/status", &[("host", "localhost")]), 401);
        assert_eq!(status(&access, "/anything", &[]), 401);
        for open in OPEN {
            assert_eq!(status(&access, open, &[("host", "10.0.0.7:7070")]), 200);
        }
        for closed in ["/healthz/", "/healthz/../status", "//healthz", "/status?/healthz"] {
            assert_eq!(status(&access, closed, &[]), 401, "{closed}");
        }
    }

    #[test]
    fn names_of_other_hosts_are_refused_where_there_is_no_token() {
        let access = Access::new(None);
        for ours in ["localhost", "LOCALHOST:7070", "127.0.0.1", "127.0.0.1:7070", "127.9.9.9", "[::1]:7070"] {
            assert_eq!(status(&access, "/status", &[("host", ours)]), 200, "{ours}");
        }
        assert_eq!(status(&access, "/status", &[]), 200, "no browser leaves its host out");
        let theirs =
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:7070", "0.0.0.0"];
        for theirs in theirs.into_iter().chain(["localhost@evil.example", "", "localhost/", "10.0.0.7", "[::2]"]) {
            assert_eq!(status(&access, "/status", &[("host", theirs)]), 421, "{theirs}");
        }
        assert_eq!(status(&access, "http://evil.example/status", &[("host", "localhost")]), 421);
        assert_eq!(status(&access, "/healthz", &[("host", "evil.example")]), 200);
    }
}

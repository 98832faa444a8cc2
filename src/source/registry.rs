//! A schema registry over HTTP, as Confluent's API has it; Apicurio, Karapace and Redpanda answer alike.
//!
//! Enters: the id that a record begins with. Leaves: its schema, once and for all; that there is none; or that the
//! registry cannot be asked now. Asks when an id is first seen, and keeps the answer for all streams of a connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use url::Url;

use super::decode::{Lookup, Schemas, Unavailable};
use crate::catalog::AvroSchema;
use crate::config::Secret;

/// Longest time for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest time for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an id counts as unknown before it is asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// Most unknown ids that are remembered: anybody who writes to a topic can make them up.
const MOST_UNKNOWN: usize = 10_000;
/// Longest answer.
const MOST_BYTES: u64 = 16 << 20;
/// Most schemas that one may refer to, those of its references included.
const MOST_REFERENCES: usize = 256;
/// What the API says, beside 404, of a schema, subject or version that is not there.
const NOT_FOUND: [u32; 3] = [40401, 40402, 40403];

/// The registries of all connections, by their addresses.
#[derive(Clone, Default)]
pub struct Registries(Arc<Mutex<BTreeMap<String, Arc<Registry>>>>);

impl Registries {
    /// The registry at an address, which may hold user and password.
    pub fn at(&self, address: &Secret) -> Arc<dyn Schemas> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = known.entry(address.expose().to_owned()).or_insert_with(|| Arc::new(Registry::new(address)));
        Arc::clone(registry) as Arc<dyn Schemas>
    }
}

/// One registry.
struct Registry {
    agent: Agent,
    /// Where it answers, without user and password; messages show it.
    base: String,
    /// What it wants to know of us.
    authorization: Option<Secret>,
    known: Mutex<Known>,
}

/// What is known of ids.
#[derive(Default)]
struct Known {
    answers: HashMap<u32, Arc<Lookup>>,
    /// When an id was unknown.
    unknown: HashMap<u32, Instant>,
}

/// What the registry says of a schema.
#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    references: Option<Vec<Reference>>,
}

/// Another schema whose names one uses.
#[derive(Deserialize)]
struct Reference {
    subject: String,
    version: i64,
}

/// What the registry says when it refuses.
#[derive(Deserialize)]
struct Refusal {
    error_code: u32,
}

impl Registry {
    fn new(address: &Secret) -> Self {
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(ANSWER))
            .http_status_as_error(false)
            .user_agent("tagflow")
            .tls_config(tls)
            .build();
        let (base, authorization) = without_login(address.expose());
        Registry { agent: config.into(), base, authorization, known: Mutex::default() }
    }

    /// What the registry has at `path`; `None` when it says that there is nothing.
    fn get(&self, path: &str) -> Result<Option<Answer>, Unavailable> {
        let base = &self.base;
        let away = |error: ureq::Error| Unavailable(format!("no answer from the schema registry at {base}: {error}"));
        let mut request = self.agent.get(format!("{base}{path}"));
        request = request.header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization.expose());
        }
        let mut response = request.call().map_err(away)?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(MOST_BYTES).read_to_string().map_err(away)?;
        if status == StatusCode::OK {
            return serde_json::from_str(&body).map(Some).map_err(|error| {
                Unavailable(format!("the schema registry at {base} answers {path} with what is no schema: {error}"))
            });
        }
        // A proxy's page, or a wrong address, says 404 as well: that is no word of the registry's.
        let refusal = serde_json::from_str::<Refusal>(&body);
        if status == StatusCode::NOT_FOUND && refusal.is_ok_and(|refusal| NOT_FOUND.contains(&refusal.error_code)) {
            return Ok(None);
        }
        Err(Unavailable(format!("the schema registry at {base} answers {path} with {status}")))
    }

    fn ask(&self, id: u32) -> Result<Lookup, Unavailable> {
        let Some(answer) = self.get(&format!("/schemas/ids/{id}"))? else { return Ok(Lookup::Unknown) };
        if let Some(kind) = answer.kind.as_deref().filter(|kind| *kind != "AVRO") {
            return Ok(Lookup::Unusable(format!("it is {kind}, not AVRO")));
        }
        let mut texts = Vec::new();
        if let Some(reason) = self.collect(&answer, &mut Vec::new(), &mut texts)? {
            return Ok(Lookup::Unusable(reason));
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        Ok(match AvroSchema::parse(&texts) {
            Ok(schema) => Lookup::Schema(Arc::new(schema)),
            Err(reason) => Lookup::Unusable(reason),
        })
    }

    /// Adds the text of a schema to `texts`, behind those that it refers to; gives why that is impossible.
    fn collect(
        &self,
        answer: &Answer,
        seen: &mut Vec<(String, i64)>,
        texts: &mut Vec<String>,
    ) -> Result<Option<String>, Unavailable> {
        for Reference { subject, version } in answer.references.iter().flatten() {
            let place = (subject.clone(), *version);
            if seen.contains(&place) {
                continue;
            }
            if seen.len() >= MOST_REFERENCES {
                return Ok(Some(format!("it refers to more than {MOST_REFERENCES} others")));
            }
            seen.push(place);
            let escaped: String = url::form_urlencoded::byte_serialize(subject.as_bytes()).collect();
            let escaped = escaped.replace('+', "%20");
            let Some(referred) = self.get(&format!("/subjects/{escaped}/versions/{version}"))? else {
                return Ok(Some(format!("it refers to version {version} of {subject:?}, which is not there")));
            };
            if let Some(reason) = self.collect(&referred, seen, texts)? {
                return Ok(Some(reason));
            }
        }
        texts.push(answer.schema.clone());
        Ok(None)
    }

    fn remembered(&self, id: u32) -> Option<Arc<Lookup>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.answers.get(&id) {
            return Some(Arc::clone(answer));
        }
        let is_unknown = known.unknown.get(&id).is_some_and(|since| since.elapsed() < UNKNOWN_FOR);
        is_unknown.then(|| Arc::new(Lookup::Unknown))
    }
}

impl Schemas for Registry {
    fn look_up(&self, id: u32) -> Result<Arc<Lookup>, Unavailable> {
        if let Some(answer) = self.remembered(id) {
            return Ok(answer);
        }
        // Nobody else waits meanwhile: two readers may ask for the same.
        let answer = Arc::new(self.ask(id)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *answer == Lookup::Unknown {
            if known.unknown.len() >= MOST_UNKNOWN {
                known.unknown.clear();
            }
            known.unknown.insert(id, Instant::now());
        } else {
            known.unknown.remove(&id);
            known.answers.insert(id, Arc::clone(&answer));
        }
        Ok(answer)
    }
}

/// The address without user and password, and the header that brings them.
fn without_login(address: &str) -> (String, Option<Secret>) {
    let Ok(mut url) = Url::parse(address) else { return (address.to_owned(), None) };
    let decoded = |text: &str| -> String {
        // Of what a form escapes, only percent sequences are special here.
        let text = text.replace('+', "%2B").replace('&', "%26");
        url::form_urlencoded::parse(format!("v={text}").as_bytes()).map(|(_, value)| value.into_owned()).collect()
    };
    let login = (!url.username().is_empty() || url.password().is_some()).then(|| {
        let login = format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
        Secret::new(format!("Basic {}", STANDARD.encode(login)))
    });
    // An address with a host can always lose them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    (url.as_str().trim_end_matches('/').to_owned(), login)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    /// A registry that gives these answers by path, and says which requests it got. It ends with the test.
    fn serve(answers: &[(&str, u16, &str)]) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers: Vec<(String, u16, String)> =
            answers.iter().map(|(path, status, body)| (path.to_string(), *status, body.to_string())).collect();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let path = head[0].split(' ').nth(1).unwrap().to_owned();
                let found = answers.iter().find(|(known, ..)| *known == path);
                let (status, body) = found.map_or((500, "{}"), |(_, status, body)| (*status, body.as_str()));
                let login = head.iter().find(|line| line.to_lowercase().starts_with("authorization:"));
                seen.lock().unwrap().push(format!("{path} {}", login.cloned().unwrap_or_default()));
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (address, requests)
    }

    fn registry(address: &str) -> Registry {
        Registry::new(&Secret::new(address))
    }

    #[test]
    fn schema_is_asked_for_once_and_with_its_references() {
        let (address, requests) = serve(&[
            (
                "/apis/ccompat/v7/schemas/ids/7",
                200,
                r#"{"schema":"{\"type\":\"record\",\"name\":\"O\",\"fields\":[{\"name\":\"id\",\"type\":\"Id\"}]}",
                    "references":[{"name":"Id","subject":"shop/id","version":2}]}"#,
            ),
            (
                "/apis/ccompat/v7/subjects/shop%2Fid/versions/2",
                200,
                r#"{"schema":"{\"type\":\"fixed\",\"name\":\"Id\",\"size\":4}"}"#,
            ),
        ]);
        let registry = registry(&format!("http://analyst:p%40ss+w@{address}/apis/ccompat/v7"));
        for _ in 0..3 {
            assert!(matches!(*registry.look_up(7).unwrap(), Lookup::Schema(_)));
        }
        let requests = requests.lock().unwrap();
        let login = format!("authorization: Basic {}", STANDARD.encode("analyst:p@ss+w"));
        assert_eq!(
            requests.iter().map(|request| request.to_lowercase()).collect::<Vec<_>>(),
            [
                format!("/apis/ccompat/v7/schemas/ids/7 {}", login.to_lowercase()),
                format!("/apis/ccompat/v7/subjects/shop%2fid/versions/2 {}", login.to_lowercase()),
            ]
        );
    }

    #[test]
    fn only_the_registrys_own_word_makes_an_id_unknown() {
        let (address, requests) = serve(&[
            ("/schemas/ids/1", 404, r#"{"error_code":40403,"message":"Schema not found"}"#),
            ("/schemas/ids/2", 404, "<html>no such page</html>"),
            ("/schemas/ids/3", 401, r#"{"error_code":40101}"#),
            ("/schemas/ids/4", 200, "<html>log in</html>"),
            ("/schemas/ids/5", 200, r#"{"schema":"syntax = \"proto3\";","schemaType":"PROTOBUF"}"#),
            ("/schemas/ids/6", 200, r#"{"schema":"{}"}"#),
        ]);
        let registry = registry(&format!("http://user:not-to-be-seen@{address}"));
        assert_eq!(*registry.look_up(1).unwrap(), Lookup::Unknown);
        assert_eq!(*registry.look_up(1).unwrap(), Lookup::Unknown);
        assert_eq!(requests.lock().unwrap().len(), 1, "an unknown id is remembered for a while");
        let message = |id| registry.look_up(id).unwrap_err().to_string();
        let base = format!("the schema registry at http://{address} answers /schemas/ids");
        assert_eq!(message(2), format!("{base}/2 with 404 Not Found"));
        assert_eq!(message(3), format!("{base}/3 with 401 Unauthorized"));
        assert!(message(4).starts_with(&format!("{base}/4 with what is no schema: expected value")), "{}", message(4));
        assert_eq!(*registry.look_up(5).unwrap(), Lookup::Unusable("it is PROTOBUF, not AVRO".into()));
        assert_eq!(*registry.look_up(6).unwrap(), Lookup::Unusable("a type without its \"type\"".into()));
    }

    #[test]
    fn registry_that_is_away_is_unavailable_and_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let registry = registry(&format!("http://user:not-to-be-seen@{address}/"));
        for _ in 0..2 {
            let message = registry.look_up(1).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("no answer from the schema registry at http://{address}: ")),
                "{message}"
            );
            assert!(!message.contains("not-to-be-seen"));
        }
    }

    #[test]
    fn connections_of_one_address_share_what_is_known() {
        let registries = Registries::default();
        let one = registries.at(&Secret::new("http://registry:8081"));
        let same = registries.at(&Secret::new("http://registry:8081"));
        let other = registries.at(&Secret::new("http://other:8081"));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
    }
}

//! The console of a real daemon: what hostile clients do shows in their own answers and nowhere else.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::shop::{Shop, free_port};

/// How long a client may be kept at most: the console's own deadline, and time for a busy machine.
const LONGEST: Duration = Duration::from_secs(40);
const TOKEN: &str = "a-token-of-the-console-test";

/// A project that needs no server.
fn shop(serve: &str) -> Shop {
    let schema = "connection = \"shop\"\ntopic = \"shop.orders\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT\"\n";
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";
    let shop = Shop::of("console", &[("schemas/orders.toml", schema.into()), ("tags/visits.sql", tag.into())]);
    let settings = format!(
        "timezone = \"UTC\"\nentity.user = {{ key = \"user_id\", type = \"BIGINT\" }}\nstore.url = \"sqlite:tags.db\"\n\
         connection.shop = {{ type = \"generator\", history_events = 1000, rate = 100 }}\nprofile.demo-kafka = {{}}\n\
         [serve]\n{serve}\n"
    );
    std::fs::write(shop.path("tagflow.toml"), settings).unwrap();
    shop
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONGEST)).unwrap();
    stream.set_write_timeout(Some(LONGEST)).unwrap();
    stream
}

/// Sends all of it, or as much as is taken, and reads what comes back until the end.
fn send(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    let _ = stream.write_all(request).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let kind = error.kind();
        let is_cut = !matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        assert!(is_cut, "no end of the answer to {:?}", String::from_utf8_lossy(&request[..request.len().min(200)]));
    }
    answer
}

fn get(port: u16, path: &str) -> String {
    String::from_utf8_lossy(&send(port, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())).into()
}

/// Bytes of memory, open files and threads of a process.
fn measure(pid: u32) -> (u64, usize, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    (number("VmRSS:") << 10, files, number("Threads:"))
}

/// Requests that are wrong in a way of their own, and what must not be among the answers.
fn oddities() -> Vec<Vec<u8>> {
    let line = |target: &[u8]| [b"GET ", target, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat();
    let long = |length| "a".repeat(length);
    let many_headers: String = (0..5_000).map(|number| format!("X-{number}: y\r\n")).collect();
    let mut all: Vec<Vec<u8>> = [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/status/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/status%00.html",
        "/status\0",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "*",
        "/\u{202e}status",
    ]
    .map(|target| line(target.as_bytes()))
    .into();
    all.push(line(b"/\xff\xfe\x80status"));
    all.push(line(format!("/status?{}", long(1 << 20)).as_bytes()));
    all.push(line(format!("/{}", long(8 << 20)).as_bytes()));
    all.push(format!("GET /status HTTP/1.1\r\n{many_headers}\r\n").into_bytes());
    all.push(format!("GET /status HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", long(1 << 20)).into_bytes());
    all.push(format!("{} / HTTP/1.1\r\n\r\n", long(100_000)).into_bytes());
    all.push(b"GET /status HTTP/1.1\r\nHost: localhost\r\nX: \xff\xfe\0\r\n\r\n".to_vec());
    all.push(b"GET /status HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n".to_vec());
    all.push(b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\nx".to_vec());
    all.push(b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".to_vec());
    all.push(
        b"PUT /status HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec(),
    );
    all.push(b"GET /status HTTP/9.9\r\n\r\n".to_vec());
    all.push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
    all.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    all.push(vec![0; 100_000]);
    all.push(b"\r\n".repeat(50_000));
    all.push(Vec::new());
    all
}

/// One of the requests above with bytes changed, left out, doubled or cut off.
fn mutated(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    bytes.truncate(4096);
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..4) {
            0 if at < bytes.len() => bytes[at] = random.random(),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.insert(at, random.random()),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn hostile_requests_are_answered_or_cut_off_and_keep_nobody_else_waiting() {
    let port = free_port();
    let shop = shop(&format!("listen = \"127.0.0.1:{port}\""));
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    let pid = daemon.pid();
    get(port, "/status");
    let (memory, files, threads) = measure(pid);
    let is_over = AtomicBool::new(false);
    let ours = std::thread::scope(|scope| {
        let honest = scope.spawn(|| {
            let (mut answered, mut longest) = (0, Duration::ZERO);
            while !is_over.load(Ordering::SeqCst) {
                let asked = Instant::now();
                // On a busy machine one may be the oldest of many: whoever tries again is answered.
                let is_answered = (0..5).any(|_| get(port, "/status").starts_with("HTTP/1.1 200"));
                assert!(is_answered, "after {answered} answers");
                answered += 1;
                longest = longest.max(asked.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            (answered, longest)
        });
        let attacked = scope.spawn(|| attack(port)).join();
        is_over.store(true, Ordering::SeqCst);
        let ours = honest.join().unwrap();
        attacked.unwrap();
        ours
    });
    let (answered, longest) = ours;
    assert!(answered > 100, "{answered}");
    assert!(longest < Duration::from_secs(20), "an honest client waited {longest:?}");
    let begun = Instant::now();
    while measure(pid).1 > files + 8 {
        assert!(begun.elapsed() < LONGEST, "connections are left open: {:?}", measure(pid));
        std::thread::sleep(Duration::from_millis(100));
    }
    let (memory_then, _, threads_then) = measure(pid);
    assert!(memory_then < memory + (64 << 20), "{memory} bytes before, {memory_then} then");
    assert_eq!(threads_then, threads);
    daemon.until("the daemon follows as before", |status| status.tags[0].rows > 0);
    daemon.interrupt();
    assert!(!shop.log().contains("panicked"), "{}", shop.log());
}

fn attack(port: u16) {
    let seed = 1;
    let odd = oddities();
    let valid: Vec<Vec<u8>> = ["/status", "/metrics", "/readyz"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n").into_bytes())
        .into();
    for request in &odd {
        let answer = String::from_utf8_lossy(&send(port, request)).into_owned();
        assert!(!answer.contains("root:"), "{answer}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 ") || answer.starts_with("HTTP/1.0 "), "{answer}");
    }
    std::thread::scope(|scope| {
        // Those that send a byte now and then, and are never done.
        scope.spawn(|| {
            let mut slow: Vec<TcpStream> = (0..500).map(|_| connect(port)).collect();
            for byte in b"GET /status HT".chunks(1) {
                slow.iter_mut().for_each(|stream| drop(stream.write_all(byte)));
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        // Those that take no answer.
        scope.spawn(|| {
            let deaf: Vec<TcpStream> = (0..200)
                .map(|_| {
                    let mut stream = connect(port);
                    let _ = stream.write_all(&valid[0].repeat(2_000));
                    stream
                })
                .collect();
            std::thread::sleep(Duration::from_secs(2));
            drop(deaf);
        });
        // A header without an end.
        scope.spawn(|| {
            let mut stream = connect(port);
            let begun = stream.write_all(b"GET /status HTTP/1.1\r\nX: ").is_ok();
            let taken = (0..100).take_while(|_| stream.write_all(&[b'a'; 1 << 20]).is_ok()).count();
            assert!(begun && taken < 100, "100 MB of header were taken");
        });
        scope.spawn(|| {
            for _ in 0..2_000 {
                drop(connect(port));
            }
        });
        for worker in 0..2 {
            let seeds = [&odd[..], &valid].concat();
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed + worker);
                for _ in 0..1_500 {
                    send(port, &mutated(&mut random, &seeds));
                }
            });
        }
    });
}

#[test]
fn token_is_asked_of_everybody_and_brought_by_the_commands() {
    let port = free_port();
    let shop = shop(&format!("listen = \"0.0.0.0:{port}\"\ntoken = \"${{file:token}}\""));
    std::fs::write(shop.path("token"), format!("{TOKEN}\n")).unwrap();
    let mut daemon = shop.start();
    // By `tagflow status`, which reads the same file.
    daemon.until_quiet(1);
    for path in ["/status", "/metrics", "/"] {
        let answer = get(port, path);
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer:?}");
    }
    assert!(get(port, "/readyz").starts_with("HTTP/1.1 200"));
    let with = format!("GET /metrics HTTP/1.1\r\nHost: tagflow:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let answer = String::from_utf8_lossy(&send(port, with.as_bytes())).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("tagflow_tag_rows"), "{answer}");
    std::fs::write(shop.path("token"), "another-token-of-the-test").unwrap();
    let output = shop.output(&["status"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("wants another token than [serve] has"), "{told}");
    assert!(!shop.log().contains(TOKEN));
}

#[test]
fn console_that_cannot_listen_says_who_does() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let shop = shop(&format!("listen = \"127.0.0.1:{port}\""));
    let refused = |arguments: &[&str]| {
        let output = shop.output(arguments);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    std::thread::scope(|scope| {
        // What listens there is no daemon, and hangs up.
        scope.spawn(|| drop(taken.accept()));
        let told = refused(&["run"]);
        assert!(told.contains(&format!("another program listens on 127.0.0.1:{port}")), "{told}");
    });
    drop(taken);
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    let told = refused(&["run"]);
    assert!(told.contains("a tagflow daemon of profile demo-kafka listens there, running since "), "{told}");
    let told = refused(&["run", "--listen", "0.0.0.0:0"]);
    assert!(told.contains("beyond this machine it wants a token"), "{told}");
}

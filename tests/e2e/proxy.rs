//! Stands between a client and a MySQL server, and cuts connections exactly at a COMMIT.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// The packet of the statement COMMIT: its length, its number, the command, the text.
const COMMIT: &[u8] = b"\x07\0\0\0\x03COMMIT";

/// Where the next COMMIT is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// The server never gets it.
    Before = 1,
    /// The server answers it, and the client never gets the answer.
    After,
}

#[derive(Default)]
struct Plan {
    cut: AtomicU8,
    cuts: AtomicUsize,
}

pub struct Proxy {
    pub port: u16,
    plan: Arc<Plan>,
}

impl Proxy {
    /// Until the test ends.
    pub fn to(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Arc::new(Plan::default());
        let shared = Arc::clone(&plan);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let (up, down) = ((client.try_clone(), server.try_clone()), (server, client));
                let (Ok(from), Ok(to)) = up else { continue };
                let plan = Arc::clone(&shared);
                std::thread::spawn(move || requests(from, to, &plan));
                std::thread::spawn(move || pipe(down.0, down.1));
            }
        });
        Proxy { port, plan }
    }

    pub fn cut(&self, cut: Cut) {
        self.plan.cut.store(cut as u8, Ordering::SeqCst);
    }

    pub fn cuts(&self) -> usize {
        self.plan.cuts.load(Ordering::SeqCst)
    }
}

fn pipe(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn requests(mut client: TcpStream, mut server: TcpStream, plan: &Plan) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        let cut = if bytes[..length] == *COMMIT { plan.cut.swap(0, Ordering::SeqCst) } else { 0 };
        if cut == Cut::After as u8 {
            // No answer gets back from here on.
            let _ = client.shutdown(Shutdown::Write);
        }
        if cut == Cut::Before as u8 || server.write_all(&bytes[..length]).is_err() {
            plan.cuts.fetch_add(usize::from(cut != 0), Ordering::SeqCst);
            break;
        }
        if cut == Cut::After as u8 {
            // The server closes when it has read all that was sent, which is after the COMMIT.
            let _ = server.shutdown(Shutdown::Write);
            plan.cuts.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}

//! Messages over two streams of bytes: a head that says how long the text behind it is, and the text.
//!
//! Reading ends for good with what breaks that form, since nobody knows where the next message would begin.

use std::io::{BufRead, Read, Write};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use lsp_server::{Connection, Message};

/// The longest line of a head.
const LONGEST_LINE: u64 = 4 << 10;
/// The longest text; that of a file and what is around it is far shorter.
const LONGEST_TEXT: u64 = 64 << 20;

/// The threads that read and write.
pub(super) struct Pipe {
    writer: JoinHandle<()>,
    broken: Arc<OnceLock<String>>,
}

/// A connection over two streams.
///
/// # Errors
/// No thread can be started.
pub(super) fn connect(
    input: impl BufRead + Send + 'static,
    output: impl Write + Send + 'static,
) -> std::io::Result<(Connection, Pipe)> {
    let (sender, to_write) = unbounded();
    let (arrived, receiver) = unbounded();
    let broken = Arc::new(OnceLock::new());
    let (of_reader, of_writer) = (Arc::clone(&broken), Arc::clone(&broken));
    Builder::new().name("read".to_string()).spawn(move || read_all(input, &arrived, &of_reader))?;
    let writer = Builder::new().name("write".to_string()).spawn(move || write_all(output, &to_write, &of_writer))?;
    Ok((Connection { sender, receiver }, Pipe { writer, broken }))
}

impl Pipe {
    /// Waits until everything is written; nobody may hold a sender of the connection any more.
    ///
    /// # Errors
    /// What could not be read or written, which also closes the connection.
    pub(super) fn close(self) -> Result<(), String> {
        self.writer.join().map_err(|_| "the thread that writes has panicked".to_string())?;
        self.broken.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }
}

fn read_all(mut input: impl BufRead, arrived: &Sender<Message>, broken: &OnceLock<String>) {
    loop {
        match read(&mut input) {
            Ok(Some(message)) => {
                if arrived.send(message).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(reason) => {
                // The first reason is the cause of the others.
                let _ = broken.set(reason);
                return;
            }
        }
    }
}

/// The next message; none at the end.
fn read(input: &mut impl BufRead) -> Result<Option<Message>, String> {
    let mut length = None;
    for at in 0.. {
        let mut line = Vec::new();
        input.take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
        if line.is_empty() && at == 0 {
            return Ok(None);
        }
        let is_whole = line.ends_with(b"\n");
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if is_whole && line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').filter(|_| is_whole).ok_or_else(|| {
            format!("`{}` is not the head of a message, such as `Content-Length: 52`", line.escape_debug())
        })?;
        if name.eq_ignore_ascii_case("Content-Length") {
            length = value.trim().parse().ok().filter(|length| *length <= LONGEST_TEXT);
            length.ok_or_else(|| {
                format!("a message has `{}`: at most {LONGEST_TEXT} bytes are read", line.escape_debug())
            })?;
        }
    }
    let length: u64 = length.ok_or("the head of a message does not say its Content-Length")?;
    // Memory is taken as bytes come, not as they are promised.
    let mut text = Vec::new();
    let arrived = input.take(length).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if (arrived as u64) < length {
        return Err(format!("a message ends after {arrived} of {length} bytes"));
    }
    match serde_json::from_slice(&text) {
        Ok(message) => Ok(Some(message)),
        Err(error) => Err(format!("a message is not JSON-RPC: {error}")),
    }
}

fn write_all(mut output: impl Write, messages: &Receiver<Message>, broken: &OnceLock<String>) {
    for message in messages {
        // What nobody reads any more is dropped until the reader's end says that nobody writes either.
        if broken.get().is_none()
            && let Err(error) = message.write(&mut output)
        {
            let _ = broken.set(error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The methods that are read, and why reading ends.
    fn arrived(bytes: &[u8]) -> (Vec<String>, Result<(), String>) {
        let (connection, pipe) = connect(std::io::Cursor::new(bytes.to_vec()), std::io::sink()).unwrap();
        let Connection { sender, receiver } = connection;
        let methods = receiver.into_iter().map(|message| match message {
            Message::Notification(notification) => notification.method,
            other => format!("{other:?}"),
        });
        let methods = methods.collect();
        drop(sender);
        (methods, pipe.close())
    }

    #[test]
    fn messages_are_read_to_their_end_and_what_is_none_is_told() {
        let whole = "Content-Length: 30\r\n\r\n{\"jsonrpc\":\"2.0\",\"method\":\"a\"}".to_string();
        let by_newline = whole.replace('\r', "").replace("Content-Length: ", "X-Y: z\ncontent-length:");
        assert_eq!(arrived(format!("{whole}{by_newline}").as_bytes()), (vec!["a".into(), "a".into()], Ok(())));
        assert_eq!(arrived(b""), (vec![], Ok(())));
        let long = "x".repeat(9000);
        for (bytes, reason) in [
            ("hello\r\n", "`hello` is not the head of a message, such as `Content-Length: 52`"),
            ("Content-Length: 5", "`Content-Length: 5` is not the head of a message, such as `Content-Length: 52`"),
            (
                "Content-Length: 99999999999999\r\n\r\n",
                "a message has `Content-Length: 99999999999999`: at most 67108864 bytes are read",
            ),
            ("Content-Length: -1\r\n\r\n", "a message has `Content-Length: -1`: at most 67108864 bytes are read"),
            ("X: 1\r\n\r\n{}", "the head of a message does not say its Content-Length"),
            ("Content-Length: 60\r\n\r\n{\"jsonrpc\"", "a message ends after 10 of 60 bytes"),
            ("Content-Length: 2\r\n\r\n[]", "a message is not JSON-RPC: "),
            ("Content-Length: 1\r\n\r\n\u{1}", "a message is not JSON-RPC: "),
            (&long, &format!("`{}` is not the head", "x".repeat(4096))),
        ] {
            let (methods, end) = arrived(format!("{whole}{bytes}").as_bytes());
            assert_eq!(methods, ["a"]);
            assert!(end.as_ref().is_err_and(|told| told.starts_with(reason)), "{bytes}: {end:?}");
        }
    }
}

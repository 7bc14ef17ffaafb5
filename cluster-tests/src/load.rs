//! A load generator: one thread, many kept-alive connections, one request repeated.
//!
//! It costs the machine as little as it can, because it shares the processors with the server:
//! requests are rendered once, responses are parsed in place, and one readiness queue serves all
//! connections. Every response is checked (status, length, and every byte of a body); a connection
//! has one request under way at a time, never more.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::error::{During, Error, Result};
use crate::http::{BodyEnd, parse_head, request_head};
use crate::stats::{Latencies, micros};

const BUFFER_BYTES: usize = 16 << 10;
/// A server that answers nobody for this long has failed.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// What to ask, how often and for how long.
pub struct Load<'a> {
    /// The server.
    pub addr: SocketAddr,
    /// GET or HEAD.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// How many connections ask at once.
    pub connections: usize,
    /// How long they ask.
    pub duration: Duration,
    /// The content of every response: of GET the body, of HEAD only its length counts.
    pub content: &'a [u8],
}

/// What came of it.
pub struct Outcome {
    /// Responses a second.
    pub per_second: f64,
    /// From each request's first byte sent to its response's last byte received.
    pub latencies: Latencies,
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    sent_at: Instant,
}

impl Load<'_> {
    /// Asks, and measures.
    pub fn run(&self) -> Result<Outcome> {
        let request = request_head(self.addr, self.method, self.path, self.headers, 0).into_bytes();
        let mut poll = Poll::new().during(|| "make a readiness queue".into())?;
        let mut connections = (0..self.connections)
            .map(|at| self.connect(&poll, Token(at)))
            .collect::<Result<Vec<_>>>()?;
        let started = Instant::now();
        for connection in &mut connections {
            self.ask(connection, &request)?;
        }
        let mut events = Events::with_capacity(self.connections.max(1));
        let mut samples = Vec::with_capacity(1 << 20);
        let mut last_answer = started;
        while started.elapsed() < self.duration {
            let polled = poll.poll(&mut events, Some(Duration::from_millis(50)));
            match polled {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.during(|| "wait for responses".into())?,
            }
            for event in &events {
                let Some(connection) = connections.get_mut(event.token().0) else {
                    continue;
                };
                if self.read(connection)? {
                    last_answer = Instant::now();
                    samples.push(micros(last_answer - connection.sent_at));
                    self.ask(connection, &request)?;
                }
            }
            if last_answer.elapsed() > SILENCE_LIMIT {
                return Err(self.wrong(&format!("no answer for {SILENCE_LIMIT:?}")));
            }
        }
        let per_second = samples.len() as f64 / started.elapsed().as_secs_f64();
        Ok(Outcome { per_second, latencies: Latencies::from_micros(samples) })
    }

    fn connect(&self, poll: &Poll, token: Token) -> Result<Connection> {
        let step = || format!("connect to {}", self.addr);
        let stream = StdStream::connect_timeout(&self.addr, Duration::from_secs(10))
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .and_then(|stream| stream.set_nonblocking(true).map(|()| stream))
            .during(step)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, token, Interest::READABLE).during(step)?;
        let buffer = vec![0; BUFFER_BYTES + self.content.len()];
        Ok(Connection { stream, buffer, filled: 0, sent_at: Instant::now() })
    }

    fn ask(&self, connection: &mut Connection, request: &[u8]) -> Result<()> {
        connection.filled = 0;
        connection.sent_at = Instant::now();
        // A request fits the socket's buffer: the previous one was answered, so the buffer is
        // empty.
        match connection.stream.write(request).during(|| "send a request".into())? {
            sent if sent == request.len() => Ok(()),
            _ => Err(self.wrong("the request was sent only in part")),
        }
    }

    /// Reads what there is; says whether the response is whole.
    fn read(&self, connection: &mut Connection) -> Result<bool> {
        loop {
            let space = &mut connection.buffer[connection.filled..];
            if space.is_empty() {
                return Err(self.wrong("the response is too long"));
            }
            let wanted = space.len();
            let count = match connection.stream.read(space) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.during(|| "receive a response".into())?,
            };
            if count == 0 {
                return Err(self.wrong("the server closed a kept-alive connection"));
            }
            connection.filled += count;
            if self.is_whole(&connection.buffer[..connection.filled])? {
                return Ok(true);
            }
            // A short read has emptied the socket: what comes later raises a new event.
            if count < wanted {
                return Ok(false);
            }
        }
    }

    fn is_whole(&self, bytes: &[u8]) -> Result<bool> {
        let Some((head, length)) = parse_head(bytes)? else {
            return Ok(false);
        };
        if head.status != 200 {
            return Err(self.wrong(&format!("status {}", head.status)));
        }
        if head.closes || head.body != BodyEnd::Length(self.content.len() as u64) {
            return Err(self.wrong(&format!("unexpected head: {head:?}")));
        }
        let body = &bytes[length..];
        let expected = if self.method == "HEAD" { &[] } else { self.content };
        if body.len() < expected.len() {
            return Ok(false);
        }
        if body != expected {
            return Err(self.wrong("the body's bytes differ"));
        }
        Ok(true)
    }

    fn wrong(&self, what: &str) -> Error {
        Error::Wrong(format!("{} {}: {what}", self.method, self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Serves `answer` to every request of two connections, until they close.
    fn serve(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for peer in listener.incoming().take(2) {
                let mut peer = peer.unwrap();
                thread::spawn(move || {
                    let mut request = [0; 1024];
                    while peer.read(&mut request).is_ok_and(|count| count > 0) {
                        if peer.write_all(answer).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        addr
    }

    fn load(addr: SocketAddr, method: &'static str, content: &'static [u8]) -> Result<Outcome> {
        let duration = Duration::from_millis(200);
        Load { addr, method, path: "/x", headers: &[], connections: 2, duration, content }.run()
    }

    #[test]
    fn every_answer_is_counted_and_timed() {
        let addr = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let outcome = load(addr, "GET", b"hello").unwrap();
        let count = outcome.latencies.count() as f64;
        assert!(count > 10.0);
        // The rate is over the whole time, which is the duration and at most the last wait more.
        assert!(outcome.per_second <= count / 0.2 && outcome.per_second > count / 2.0);
        assert!(outcome.latencies.percentile_ms(100.0) > 0.0);
    }

    #[test]
    fn a_head_answer_is_its_head() {
        let addr = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        assert!(load(addr, "HEAD", b"hello").unwrap().latencies.count() > 10);
    }

    #[test]
    fn wrong_bytes_lengths_and_statuses_end_the_run() {
        let error = |answer| load(serve(answer), "GET", b"hello").err().unwrap().to_string();
        assert!(error(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhallo").contains("differ"));
        assert!(error(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell").contains("unexpected"));
        assert!(error(b"HTTP/1.1 500 no\r\nContent-Length: 5\r\n\r\nhello").contains("status 500"));
    }
}

//! A load generator: one thread, many kept-alive connections, one request each at a time.
//!
//! It costs the machine as little as it can, because it shares the processors with the server:
//! requests are rendered into reused buffers, responses are parsed in place, and one readiness queue
//! serves all connections. Every response is judged by whoever asked ([`Traffic`]); a connection has
//! one request under way at a time, never more.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::error::{During, Error, Result};
use crate::http::{BodyEnd, Head, parse_head, request_head};
use crate::stats::{Latencies, micros};

const BUFFER_BYTES: usize = 16 << 10;
/// Servers that answer nobody for this long have failed.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// What connections ask, and what they make of the answers.
pub trait Traffic {
    /// Makes `request` the next request of a connection; it holds the previous one. A request is
    /// smaller than a socket's buffer. False: this connection has nothing more to ask.
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool;

    /// Whether a response is whole, of which `body` is there so far. A wrong one is an error, and
    /// ends the run.
    fn judge(&mut self, connection: usize, head: &Head, body: &[u8]) -> Result<bool>;

    /// The longest body that a right answer has.
    fn body_bytes_max(&self) -> usize;
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
    request: Vec<u8>,
    buffer: Vec<u8>,
    filled: usize,
    sent_at: Instant,
}

/// Opens a connection to each address and lets it ask, one request after another, for so long or
/// until there is nothing more to ask.
pub fn drive(
    addrs: &[SocketAddr],
    duration: Duration,
    traffic: &mut impl Traffic,
) -> Result<Outcome> {
    let mut poll = Poll::new().during(|| "make a readiness queue".into())?;
    let buffer_bytes = BUFFER_BYTES + traffic.body_bytes_max();
    let mut connections = addrs
        .iter()
        .enumerate()
        .map(|(at, addr)| connect(*addr, &poll, Token(at), buffer_bytes))
        .collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let mut asking = 0;
    for (at, connection) in connections.iter_mut().enumerate() {
        asking += usize::from(connection.ask(at, traffic)?);
    }
    let mut events = Events::with_capacity(connections.len().max(1));
    let mut samples = Vec::with_capacity(1 << 20);
    let mut last_answer = started;
    while asking > 0 && started.elapsed() < duration {
        let polled = poll.poll(&mut events, Some(Duration::from_millis(50)));
        match polled {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.during(|| "wait for responses".into())?,
        }
        for event in &events {
            let at = event.token().0;
            let Some(connection) = connections.get_mut(at) else {
                continue;
            };
            if connection.read(at, traffic)? {
                last_answer = Instant::now();
                samples.push(micros(last_answer - connection.sent_at));
                asking -= usize::from(!connection.ask(at, traffic)?);
            }
        }
        if last_answer.elapsed() > SILENCE_LIMIT {
            return Err(Error::Wrong(format!("no answer for {SILENCE_LIMIT:?}")));
        }
    }
    let per_second = samples.len() as f64 / started.elapsed().as_secs_f64();
    Ok(Outcome { per_second, latencies: Latencies::from_micros(samples) })
}

fn connect(addr: SocketAddr, poll: &Poll, token: Token, buffer_bytes: usize) -> Result<Connection> {
    let step = || format!("connect to {addr}");
    let stream = StdStream::connect_timeout(&addr, Duration::from_secs(10))
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .and_then(|stream| stream.set_nonblocking(true).map(|()| stream))
        .during(step)?;
    let mut stream = TcpStream::from_std(stream);
    poll.registry().register(&mut stream, token, Interest::READABLE).during(step)?;
    let buffer = vec![0; buffer_bytes];
    Ok(Connection { stream, request: Vec::new(), buffer, filled: 0, sent_at: Instant::now() })
}

impl Connection {
    /// Sends the next request; false when there is none.
    fn ask(&mut self, at: usize, traffic: &mut impl Traffic) -> Result<bool> {
        self.filled = 0;
        if !traffic.ask(at, &mut self.request) {
            return Ok(false);
        }
        self.sent_at = Instant::now();
        // A request fits the socket's buffer: the previous one was answered, so the buffer is
        // empty.
        match self.stream.write(&self.request).during(|| "send a request".into())? {
            sent if sent == self.request.len() => Ok(true),
            _ => Err(self.wrong("it was sent only in part")),
        }
    }

    /// Reads what there is; says whether the response is whole.
    fn read(&mut self, at: usize, traffic: &mut impl Traffic) -> Result<bool> {
        loop {
            let space = &mut self.buffer[self.filled..];
            if space.is_empty() {
                return Err(self.wrong("the response is too long"));
            }
            let wanted = space.len();
            let count = match self.stream.read(space) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.during(|| "receive a response".into())?,
            };
            if count == 0 {
                return Err(self.wrong("the server closed a kept-alive connection"));
            }
            self.filled += count;
            if let Some((head, length)) = parse_head(&self.buffer[..self.filled])? {
                let body = &self.buffer[length..self.filled];
                let judged = traffic.judge(at, &head, body);
                if judged.map_err(|error| self.wrong(&error.to_string()))? {
                    return Ok(true);
                }
            }
            // A short read has emptied the socket: what comes later raises a new event.
            if count < wanted {
                return Ok(false);
            }
        }
    }

    /// Names the request that it was about.
    fn wrong(&self, what: &str) -> Error {
        let line = self.request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        Error::Wrong(format!("{}: {what}", line.trim_end_matches(" HTTP/1.1")))
    }
}

/// One GET or HEAD, repeated: what to ask, how often and for how long. Status, length, and every
/// byte of a body are checked.
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

impl Load<'_> {
    /// Asks, and measures.
    pub fn run(&self) -> Result<Outcome> {
        let rendered = request_head(self.addr, self.method, self.path, self.headers, 0);
        let mut traffic = Repeated { load: self, rendered: rendered.into_bytes() };
        drive(&vec![self.addr; self.connections], self.duration, &mut traffic)
    }
}

struct Repeated<'a> {
    load: &'a Load<'a>,
    rendered: Vec<u8>,
}

impl Traffic for Repeated<'_> {
    fn ask(&mut self, _connection: usize, request: &mut Vec<u8>) -> bool {
        if request.is_empty() {
            request.extend_from_slice(&self.rendered);
        }
        true
    }

    fn judge(&mut self, _connection: usize, head: &Head, body: &[u8]) -> Result<bool> {
        if head.status != 200 {
            return Err(Error::Wrong(format!("status {}", head.status)));
        }
        let content = self.load.content;
        if head.closes || head.body != BodyEnd::Length(content.len() as u64) {
            return Err(Error::Wrong(format!("unexpected head: {head:?}")));
        }
        let expected = if self.load.method == "HEAD" { &[] } else { content };
        if body.len() < expected.len() {
            return Ok(false);
        }
        if body != expected {
            return Err(Error::Wrong("the body's bytes differ".into()));
        }
        Ok(true)
    }

    fn body_bytes_max(&self) -> usize {
        self.load.content.len()
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

    /// Three requests a connection, each with a body of its own.
    struct Numbered(Vec<usize>);

    impl Traffic for Numbered {
        fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool {
            let number = self.0[connection];
            self.0[connection] += 1;
            request.clear();
            request.extend_from_slice(
                format!("PUT /{number} HTTP/1.1\r\nContent-Length: 1\r\n\r\n{number}").as_bytes(),
            );
            number < 3
        }

        fn judge(&mut self, _connection: usize, head: &Head, _body: &[u8]) -> Result<bool> {
            match head.status {
                201 => Ok(true),
                status => Err(Error::Wrong(format!("status {status}"))),
            }
        }

        fn body_bytes_max(&self) -> usize {
            0
        }
    }

    #[test]
    fn traffic_ends_when_there_is_nothing_more_to_ask_and_names_what_went_wrong() {
        let addrs = [serve(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"); 2];
        let outcome = drive(&addrs, Duration::from_secs(20), &mut Numbered(vec![0; 2])).unwrap();
        assert_eq!(outcome.latencies.count(), 6);
        let addrs = [serve(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n")];
        let error = drive(&addrs, Duration::from_secs(20), &mut Numbered(vec![1])).err().unwrap();
        assert_eq!(error.to_string(), "PUT /1: status 503");
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

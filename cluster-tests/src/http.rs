//! A lean HTTP/1.1 client over one blocking, kept-alive connection.
//!
//! It is made for measuring: a body is sent from borrowed slices and received into one reused
//! buffer, so the client costs little beside the server. It follows no redirects, knows no TLS and
//! never pipelines. Everything it waits for has a limit in time; heads and small bodies have a
//! limit in size.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{During, Error, Result};

const READ_BUFFER_BYTES: usize = 256 << 10;
const HEAD_BYTES_MAX: usize = 32 << 10;
const SMALL_BODY_BYTES_MAX: usize = 8 << 20;
/// Long, because a server may answer an upload only after it has synced gigabytes that others sent
/// at once.
const IO_LIMIT: Duration = Duration::from_secs(600);

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// How the body's end is found.
    pub body: BodyEnd,
    /// The Location header.
    pub location: Option<String>,
    /// The Range header: of an upload, which bytes it has.
    pub range: Option<String>,
    /// Whether the server will close the connection.
    pub closes: bool,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// When the server closes the connection.
    Close,
}

/// A whole response with a small body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status and headers.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
}

/// A connection to one server; opened again when the server closes it between two exchanges.
pub struct Connection {
    addr: SocketAddr,
    limit: Duration,
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    closed: bool,
}

impl Connection {
    /// Connects.
    pub fn open(addr: SocketAddr) -> Result<Self> {
        Self::open_within(addr, IO_LIMIT)
    }

    /// Connects; waits for the server no longer than `limit` at a time.
    pub fn open_within(addr: SocketAddr, limit: Duration) -> Result<Self> {
        let stream = connect(addr, limit)?;
        let buffer = vec![0; READ_BUFFER_BYTES];
        Ok(Self { addr, limit, stream, buffer, start: 0, end: 0, closed: false })
    }

    /// Sends a request whose body is `parts` in a row, and reads the response's small body.
    pub fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        parts: &[&[u8]],
    ) -> Result<Answer> {
        let head = self.send(method, path, headers, parts)?;
        let mut body = Vec::new();
        self.receive(method, &head, |bytes| {
            body.extend_from_slice(bytes);
            if body.len() > SMALL_BODY_BYTES_MAX {
                return Err(Error::Wrong(format!("{method} {path}: the body is too long")));
            }
            Ok(())
        })?;
        Ok(Answer { head, body })
    }

    /// As [`Self::exchange`], and refuses every status but `status`.
    pub fn expect(
        &mut self,
        status: u16,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        parts: &[&[u8]],
    ) -> Result<Answer> {
        let answer = self.exchange(method, path, headers, parts)?;
        if answer.head.status != status {
            let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]);
            return Err(Error::Status {
                step: format!("{method} {path}"),
                status: answer.head.status,
                body: body.into_owned(),
            });
        }
        Ok(answer)
    }

    /// Sends a request and reads the head of its response. The body must then be read with
    /// [`Self::receive`].
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        parts: &[&[u8]],
    ) -> Result<Head> {
        if self.closed {
            self.stream = connect(self.addr, self.limit)?;
            (self.start, self.end, self.closed) = (0, 0, false);
        }
        let step = || format!("send {method} {path}");
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut first = request_head(self.addr, method, path, headers, length).into_bytes();
        // A small body travels with its head: one write, one segment.
        let small = length <= 16 << 10;
        if small {
            parts.iter().for_each(|part| first.extend_from_slice(part));
        }
        self.stream.write_all(&first).during(step)?;
        if !small {
            for part in parts {
                self.stream.write_all(part).during(step)?;
            }
        }
        let head = self.read_head(method, path)?;
        self.closed = head.closes;
        Ok(head)
    }

    /// Reads the body that follows `head`, piece by piece, and returns its length.
    pub fn receive(
        &mut self,
        method: &str,
        head: &Head,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<u64> {
        if method == "HEAD" || matches!(head.status, 204 | 304) {
            return Ok(0);
        }
        match head.body {
            BodyEnd::Length(length) => {
                self.receive_exactly(length, &mut sink)?;
                Ok(length)
            }
            BodyEnd::Close => {
                let mut total = 0;
                while self.start < self.end || self.fill()? > 0 {
                    let piece = &self.buffer[self.start..self.end];
                    total += piece.len() as u64;
                    self.start = self.end;
                    sink(piece)?;
                }
                self.closed = true;
                Ok(total)
            }
            BodyEnd::Chunked => self.receive_chunks(&mut sink),
        }
    }

    fn receive_chunks(&mut self, sink: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let mut total = 0;
        loop {
            let line = self.read_line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = u64::from_str_radix(digits, 16)
                .map_err(|_| Error::Wrong(format!("not a chunk's length: {line:?}")))?;
            if length == 0 {
                // Trailers, up to the empty line.
                while !self.read_line()?.is_empty() {}
                return Ok(total);
            }
            self.receive_exactly(length, sink)?;
            total += length;
            if !self.read_line()?.is_empty() {
                return Err(Error::Wrong("a chunk is longer than it says".into()));
            }
        }
    }

    fn receive_exactly(
        &mut self,
        length: u64,
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut left = length;
        while left > 0 {
            if self.start == self.end && self.fill()? == 0 {
                return Err(Error::Wrong(format!("the body ended {left} bytes early")));
            }
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.end - self.start);
            let piece = &self.buffer[self.start..self.start + here];
            self.start += here;
            left -= here as u64;
            sink(piece)?;
        }
        Ok(())
    }

    fn read_head(&mut self, method: &str, path: &str) -> Result<Head> {
        loop {
            let bytes = &self.buffer[self.start..self.end];
            if let Some((head, length)) = parse_head(bytes)? {
                self.start += length;
                // 1xx responses precede the one that counts.
                if head.status >= 200 {
                    return Ok(head);
                }
                continue;
            }
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(Error::Wrong(format!("{method} {path}: the head is too long")));
            }
            if self.fill()? == 0 {
                return Err(Error::Wrong(format!("{method} {path}: closed without an answer")));
            }
        }
    }

    fn read_line(&mut self) -> Result<String> {
        loop {
            let bytes = &self.buffer[self.start..self.end];
            if let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&bytes[..at]).trim_end().to_owned();
                self.start += at + 1;
                return Ok(line);
            }
            if bytes.len() > HEAD_BYTES_MAX || self.fill()? == 0 {
                return Err(Error::Wrong("a chunked body breaks off".into()));
            }
        }
    }

    /// Reads more into the buffer; what is there and not yet taken stays. 0 says that the server
    /// closed.
    fn fill(&mut self) -> Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let addr = self.addr;
        let read = self.stream.read(&mut self.buffer[self.end..]);
        let count = read.during(|| format!("receive from {addr}"))?;
        self.end += count;
        Ok(count)
    }
}

fn connect(addr: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, limit.min(Duration::from_secs(10)));
    let stream = stream.during(|| format!("connect to {addr}"))?;
    stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(limit)))
        .and_then(|()| stream.set_write_timeout(Some(limit)))
        .during(|| format!("set up the connection to {addr}"))?;
    Ok(stream)
}

/// The head of a request, up to and with its empty line.
pub fn request_head(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: usize,
) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if length > 0 || matches!(method, "POST" | "PUT" | "PATCH") {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head.push_str("\r\n");
    head
}

/// The head at the beginning of `bytes` and its length; `None` while it is not whole.
pub fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>> {
    let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..at])
        .map_err(|_| Error::Wrong("the response's head is not text".into()))?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Error::Wrong(format!("not a response: {first:?}")))?;
    let mut head =
        Head { status, body: BodyEnd::Close, location: None, range: None, closes: false };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") && head.body != BodyEnd::Chunked {
            let length = value
                .parse()
                .map_err(|_| Error::Wrong(format!("not a Content-Length: {value:?}")))?;
            head.body = BodyEnd::Length(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.body = BodyEnd::Chunked;
        } else if name.eq_ignore_ascii_case("location") {
            head.location = Some(value.to_owned());
        } else if name.eq_ignore_ascii_case("range") {
            head.range = Some(value.to_owned());
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some((head, at + 4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// A server that reads one request (up to `request_ends`) for each answer and then gives that
    /// answer.
    fn scripted(answers: Vec<(&'static str, &'static [u8])>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut peer = listener.accept().unwrap().0;
            for (request_ends, answer) in answers {
                let mut seen = Vec::new();
                let mut byte = [0];
                while !seen.ends_with(request_ends.as_bytes()) {
                    peer.read_exact(&mut byte).unwrap();
                    seen.push(byte[0]);
                }
                // In two pieces: a head or a chunk may arrive in parts.
                let (first, second) = answer.split_at(answer.len() / 2);
                peer.write_all(first).unwrap();
                peer.write_all(second).unwrap();
            }
        });
        addr
    }

    #[test]
    fn bodies_with_a_length_in_chunks_and_until_close_share_a_connection() {
        let addr = scripted(vec![
            ("\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"),
            ("\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n\
                Transfer-Encoding: chunked\r\n\r\n4;x=y\r\nde\r\n\r\n10\r\n0123456789abcdef\r\n0\r\nT: 1\r\n\r\n"),
            ("\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nto the end"),
        ]);
        let mut connection = Connection::open(addr).unwrap();
        let answer = connection.exchange("GET", "/a", &[], &[]).unwrap();
        assert_eq!((answer.head.status, answer.body.as_slice()), (200, b"abc".as_slice()));
        let answer = connection.exchange("GET", "/b", &[("Accept", "x/y")], &[]).unwrap();
        assert_eq!(answer.head.status, 404);
        assert_eq!(answer.body, b"de\r\n0123456789abcdef");
        let answer = connection.exchange("GET", "/c", &[], &[]).unwrap();
        assert_eq!(answer.body, b"to the end");
    }

    #[test]
    fn a_head_request_has_no_body_whatever_its_length() {
        let addr = scripted(vec![
            ("\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"),
            (
                "Content-Length: 4\r\n\r\nwxyz",
                b"HTTP/1.1 201 Created\r\nLocation: /v2/up?a=b\r\nContent-Length: 0\r\n\r\n",
            ),
        ]);
        let mut connection = Connection::open(addr).unwrap();
        let answer = connection.expect(200, "HEAD", "/a", &[], &[]).unwrap();
        assert_eq!(answer.head.body, BodyEnd::Length(900));
        let answer = connection.expect(201, "PUT", "/a", &[], &[b"wx", b"yz"]).unwrap();
        assert_eq!(answer.head.location.as_deref(), Some("/v2/up?a=b"));
    }

    #[test]
    fn a_refusal_names_the_exchange_and_what_was_said() {
        let addr =
            scripted(vec![("\r\n\r\n", b"HTTP/1.1 400 Bad\r\nContent-Length: 5\r\n\r\nno no")]);
        let mut connection = Connection::open(addr).unwrap();
        let error = connection.expect(200, "GET", "/a", &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "GET /a: status 400: no no");
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        let addr = scripted(vec![("\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")]);
        let mut connection = Connection::open(addr).unwrap();
        let error = connection.exchange("GET", "/a", &[], &[]).unwrap_err();
        assert!(error.to_string().contains("2 bytes early"), "{error}");
    }

    #[test]
    fn heads_are_parsed_or_refused() {
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap(), None);
        assert!(parse_head(b"SMTP\r\n\r\n").is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
        let (head, length) =
            parse_head(b"HTTP/1.0 503 x\r\nCONNECTION: Close\r\n\r\nbody").unwrap().unwrap();
        assert!(head.closes && head.status == 503 && head.body == BodyEnd::Close);
        assert_eq!(length, 37);
    }
}

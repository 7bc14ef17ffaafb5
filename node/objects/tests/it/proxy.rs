//! A network that fails as it is told: a proxy between the store and a server, one request a connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The server does it, and nobody learns of it.
    LoseAnswer,
    /// A bit of the request's body flips.
    Damage,
    /// The connection breaks after so many bytes of the request's body.
    CutRequest(usize),
    /// The connection breaks after so many bytes of the answer.
    CutAnswer(usize),
    /// The server never sees it; this is the answer.
    Answer(String),
}

/// A fault for the next request whose head contains all these words.
type Planned = (Vec<String>, Fault);

pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

struct Shared {
    server: String,
    planned: Mutex<VecDeque<Planned>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An answer as S3 gives errors.
pub(crate) fn refusal(status: &str, headers: &str, code: &str) -> Fault {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
    Fault::Answer(format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n{headers}Connection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

impl Proxy {
    pub(crate) async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared { server: server.to_owned(), planned: Mutex::default() });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let shared = Arc::clone(&shared);
                    // A connection that breaks is the client's to notice.
                    tokio::spawn(async move { shared.serve(client).await.ok() });
                }
            }
        });
        Self { address, shared, accepting }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Plans a fault for each of the next `times` requests whose heads contain the words.
    pub(crate) fn plan(&self, times: usize, words: &[&str], fault: &Fault) {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let planned = std::iter::repeat_n((words, fault.clone()), times);
        self.shared.planned.lock().unwrap().extend(planned);
    }

    /// Planned faults that no request has met.
    pub(crate) fn left(&self) -> usize {
        self.shared.planned.lock().unwrap().len()
    }

    pub(crate) fn calm(&self) {
        self.shared.planned.lock().unwrap().clear();
    }
}

impl Shared {
    fn fault_for(&self, head: &str) -> Option<Fault> {
        let mut planned = self.planned.lock().unwrap();
        let met =
            planned.iter().position(|(words, _)| words.iter().all(|word| head.contains(word)));
        met.and_then(|index| planned.remove(index)).map(|(_, fault)| fault)
    }

    async fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if client.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let fault = self.fault_for(&head);
        if let Some(Fault::Answer(answer)) = &fault {
            client.write_all(answer.as_bytes()).await?;
            client.shutdown().await?;
            // What is still on its way would turn the answer into a reset.
            while client.read(&mut [0; 65536]).await? > 0 {}
            return Ok(());
        }
        let mut server = TcpStream::connect(&self.server).await?;
        server.write_all(head.as_bytes()).await?;
        server.write_all(b"\r\nConnection: close\r\n\r\n").await?;
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let request_max = if let Some(Fault::CutRequest(max)) = fault { max } else { usize::MAX };
        let answer_max = match fault {
            Some(Fault::LoseAnswer) => 0,
            Some(Fault::CutAnswer(max)) => max,
            _ => usize::MAX,
        };
        let body = bytes.split_off(end + 4);
        let flip = u8::from(matches!(fault, Some(Fault::Damage)));
        tokio::select! {
            // The rest of a request never ends the exchange, except where it is cut.
            cut = up(body, from_client, to_server, request_max, flip) => cut,
            done = down(from_server, to_client, answer_max) => done,
        }
    }
}

/// Passes the request's body on, until `max` bytes of it; its first byte has the bits of `flip` flipped.
async fn up(
    mut bytes: Vec<u8>,
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    max: usize,
    flip: u8,
) -> std::io::Result<()> {
    let mut passed = 0;
    loop {
        if let Some(first) = bytes.first_mut().filter(|_| passed == 0) {
            *first ^= flip;
        }
        let now = bytes.len().min(max - passed);
        server.write_all(&bytes[..now]).await?;
        passed += now;
        if passed == max {
            return Ok(());
        }
        bytes.clear();
        if client.read_buf(&mut bytes).await? == 0 {
            std::future::pending::<()>().await;
        }
    }
}

/// Passes the answer on, until `max` bytes of it; all of it is awaited, so that what it tells of is done.
async fn down(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    max: usize,
) -> std::io::Result<()> {
    let (mut bytes, mut passed) = (Vec::new(), 0);
    while server.read_buf(&mut bytes).await? > 0 {
        // Being told to go on is not yet the answer.
        if bytes.starts_with(b"HTTP/1.1 100") {
            client.write_all(&bytes).await?;
        } else {
            let now = bytes.len().min(max - passed);
            client.write_all(&bytes[..now]).await?;
            passed += now;
        }
        bytes.clear();
    }
    client.shutdown().await
}

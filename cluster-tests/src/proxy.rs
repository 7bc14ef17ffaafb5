//! A link that misbehaves on demand: a proxy between somebody and a server.
//!
//! Guarantees: bytes arrive in order and unchanged, or not at all; what it does wrong begins and ends when it is told to,
//! for connections that exist already too. It ends with its owner. Must not know: what the bytes mean, but for answering
//! in HTTP on behalf of a server that is said to be overloaded.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{During, Result};

/// What travels at once; with a delay each piece takes that long, so this over the delay is the link's speed.
const PIECE_BYTES: usize = 64 << 10;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Each piece takes so long.
    Delay(Duration),
    /// Connections break, new ones too.
    Cut,
    /// About one request in three is answered 503 instead of reaching the server.
    Overload,
    /// About one answer in three gets lost, after the server has done what was asked; the connection breaks.
    LoseAnswers,
}

struct Shared {
    server: SocketAddr,
    over: AtomicBool,
    trouble: Mutex<Trouble>,
    connections: Mutex<HashMap<u64, TcpStream>>,
    /// Counts what may go wrong, to choose one in three.
    occasions: AtomicU64,
}

/// The proxy.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens on a free loopback address and passes connections on to `server`.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).during(|| "listen as a proxy".into())?;
        let address = listener.local_addr().during(|| "listen as a proxy".into())?;
        let shared = Arc::new(Shared {
            server,
            over: AtomicBool::new(false),
            trouble: Mutex::default(),
            connections: Mutex::default(),
            occasions: AtomicU64::new(0),
        });
        let accepting = shared.clone();
        thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is wrong from now on.
    pub fn set(&self, trouble: Trouble) {
        *locked(&self.shared.trouble) = trouble;
        if trouble == Trouble::Cut {
            self.shared.cut();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, CONNECT_LIMIT);
    }
}

impl Shared {
    fn trouble(&self) -> Trouble {
        *locked(&self.trouble)
    }

    fn cut(&self) {
        for (_, connection) in locked(&self.connections).drain() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn strikes(&self) -> bool {
        self.occasions.fetch_add(1, Ordering::Relaxed).is_multiple_of(3)
    }

    /// Passes on what one side sends until it ends or something breaks; then both sides end.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, is_request: bool) {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            match self.trouble() {
                Trouble::Delay(delay) => thread::sleep(delay),
                Trouble::Cut => break,
                Trouble::Overload if is_request && self.strikes() => {
                    let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
                    let _ = write!(
                        from,
                        "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    break;
                }
                Trouble::LoseAnswers if !is_request && self.strikes() => break,
                _ => {}
            }
            if to.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn pass(self: &Arc<Self>, number: u64, client: TcpStream) -> std::io::Result<()> {
        let server = TcpStream::connect_timeout(&self.server, CONNECT_LIMIT)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        locked(&self.connections).insert(number, client.try_clone()?);
        let (request, answer) = (self.clone(), self.clone());
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || request.pump(from, to, true));
        thread::spawn(move || {
            answer.pump(server, client, false);
            locked(&answer.connections).remove(&number);
        });
        Ok(())
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, client) in (0..).zip(listener.incoming()) {
        if shared.over.load(Ordering::Acquire) {
            return;
        }
        // A connection that cannot be passed on is dropped, which its client sees.
        if let Ok(client) = client
            && shared.trouble() != Trouble::Cut
        {
            let _ = shared.pass(number, client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the next one.
    fn successor() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for peer in listener.incoming() {
                thread::spawn(move || {
                    let mut peer = peer.unwrap();
                    let mut byte = [0];
                    while peer.read_exact(&mut byte).is_ok() {
                        byte[0] += 1;
                        if peer.write_all(&byte).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    fn ask(stream: &mut TcpStream, byte: u8) -> Option<u8> {
        stream.write_all(&[byte]).ok()?;
        let mut answer = [0];
        stream.read_exact(&mut answer).ok()?;
        Some(answer[0])
    }

    #[test]
    fn bytes_pass_and_troubles_come_and_go() {
        let proxy = Proxy::start(successor()).unwrap();
        let open = || TcpStream::connect(proxy.address()).unwrap();
        let mut stream = open();
        assert_eq!(ask(&mut stream, 1), Some(2));
        proxy.set(Trouble::Delay(Duration::from_millis(1)));
        assert_eq!(ask(&mut stream, 2), Some(3));

        proxy.set(Trouble::Cut);
        assert_eq!(ask(&mut stream, 3), None, "an open connection breaks");
        assert_eq!(ask(&mut open(), 3), None, "and new ones do not come about");
        proxy.set(Trouble::LoseAnswers);
        let answers: Vec<_> = (0..9).map(|_| ask(&mut open(), 4)).collect();
        assert!(answers.contains(&None) && answers.contains(&Some(5)), "{answers:?}");

        proxy.set(Trouble::Overload);
        let mut refused = 0;
        for _ in 0..9 {
            let mut stream = open();
            stream.write_all(&[6]).unwrap();
            let mut answer = [0; 12];
            let count = stream.read(&mut answer).unwrap();
            refused += usize::from(&answer[..count] == b"HTTP/1.1 503");
        }
        assert_eq!(refused, 3);
        proxy.set(Trouble::None);
        assert_eq!(ask(&mut open(), 7), Some(8));
    }
}

//! What is open on an HTTP/2 connection, and whether it goes on.
//!
//! A reader of HTTP/2 decides when it takes the next bytes of each answer, and answers wait without anything being written
//! to the socket. So neither a write's deadline nor the connection's pings tell of a reader that takes nothing.
//!
//! Guarantees: an answer whose reader takes nothing for the deadline is broken off, and what it held (a file, memory) is
//! freed then; a connection with nothing open is told to end after a while. Must not know: what answers hold.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Smaller answers hold nothing but their own bytes.
const WATCHED_BYTES_MIN: u64 = 64 << 10;

/// The requests of a connection that are not answered to the end.
#[derive(Clone, Default)]
pub(super) struct Open(Arc<OpenInner>);

#[derive(Default)]
struct OpenInner {
    count: AtomicUsize,
    /// Counts requests that came.
    came: AtomicU64,
    changed: Notify,
}

impl Open {
    /// A request came.
    pub(super) fn begin(&self) -> Request {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.came.fetch_add(1, Ordering::Relaxed);
        Request(self.0.clone())
    }

    /// Completes once nothing was open for so long.
    pub(super) async fn is_idle_for(&self, time: Duration) {
        loop {
            let came = self.0.came.load(Ordering::Relaxed);
            let changed = self.0.changed.notified();
            if self.0.count.load(Ordering::Relaxed) > 0 {
                changed.await;
                continue;
            }
            tokio::time::sleep(time).await;
            let is_idle = self.0.count.load(Ordering::Relaxed) == 0;
            if is_idle && self.0.came.load(Ordering::Relaxed) == came {
                return;
            }
        }
    }
}

/// A request, from its head to its answer's last byte.
pub(super) struct Request(Arc<OpenInner>);

impl Drop for Request {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

/// The answer, which counts as open until its last byte is taken, and breaks off if its reader takes nothing for `patience`.
pub(super) fn watched(response: Response, request: Request, patience: Duration) -> Response {
    response.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        let is_small = body.size_hint().upper().is_some_and(|most| most < WATCHED_BYTES_MIN);
        let slot = Arc::new(Slot {
            body: Mutex::new(Some(body)),
            began: Instant::now(),
            asked_millis: AtomicU64::new(0),
            awaits_reader: AtomicBool::new(true),
        });
        let watcher = (!is_small).then(|| {
            let watcher = tokio::spawn(break_off(Arc::downgrade(&slot), patience));
            watcher.abort_handle()
        });
        Body::new(Watched { slot, watcher, _request: request })
    })
}

/// The answer, which counts as open until its last byte is taken.
pub(super) fn counted(response: Response, request: Request) -> Response {
    response.map(|body| match body.is_end_stream() {
        true => body,
        false => Body::new(Counted { body, _request: request }),
    })
}

struct Counted {
    body: Body,
    _request: Request,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, where both its reader and its watcher reach it.
struct Slot {
    /// `None` once it was broken off.
    body: Mutex<Option<Body>>,
    began: Instant,
    /// When the reader last asked for something, since `began`.
    asked_millis: AtomicU64,
    /// Whether it got that and has not asked since. Otherwise the answer itself is what is waited for.
    awaits_reader: AtomicBool,
}

impl Slot {
    fn body(&self) -> MutexGuard<'_, Option<Body>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when the reader is waited for.
    fn reader_awaited_since(&self) -> Instant {
        match self.awaits_reader.load(Ordering::Relaxed) {
            true => self.began + Duration::from_millis(self.asked_millis.load(Ordering::Relaxed)),
            false => Instant::now(),
        }
    }
}

async fn break_off(slot: Weak<Slot>, patience: Duration) {
    loop {
        let Some(since) = slot.upgrade().map(|slot| slot.reader_awaited_since()) else { return };
        let over = since + patience;
        if over <= Instant::now() {
            break;
        }
        tokio::time::sleep_until(over).await;
    }
    if let Some(slot) = slot.upgrade() {
        tracing::debug!("an answer was broken off: its reader took nothing for {patience:?}");
        drop(slot.body().take());
    }
}

struct Watched {
    slot: Arc<Slot>,
    watcher: Option<tokio::task::AbortHandle>,
    _request: Request,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let millis = u64::try_from(self.slot.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.slot.asked_millis.store(millis, Ordering::Relaxed);
        let polled = match self.slot.body().as_mut() {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => {
                Poll::Ready(Some(Err(axum::Error::new("the reader took nothing for too long"))))
            }
        };
        self.slot.awaits_reader.store(polled.is_ready(), Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.slot.body().as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.slot.body().as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Large parts, as long as anybody takes them; `held` is true while they are there.
    fn endless(held: &Arc<AtomicBool>) -> Response {
        struct Held(Arc<AtomicBool>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Relaxed);
            }
        }
        held.store(true, Ordering::Relaxed);
        let file = Held(held.clone());
        let parts = stream::repeat_with(move || {
            let _ = &file;
            Ok::<_, std::io::Error>(Bytes::from_static(&[1; 1 << 16]))
        });
        Response::new(Body::from_stream(parts))
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_reader_does_not_take_is_freed() {
        let (open, held) = (Open::default(), Arc::new(AtomicBool::new(false)));
        let answer = watched(endless(&held), open.begin(), PATIENCE);
        let mut body = answer.into_body().into_data_stream();
        for _ in 0..5 {
            tokio::time::sleep(PATIENCE / 2).await;
            assert_eq!(body.next().await.unwrap().unwrap().len(), 1 << 16);
        }
        assert!(held.load(Ordering::Relaxed));
        tokio::time::sleep(PATIENCE * 2).await;
        assert!(!held.load(Ordering::Relaxed), "the file is still open");
        assert!(body.next().await.unwrap().is_err(), "an answer must not end as if it were whole");
        drop(body);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_nothing_to_give_is_waited_for() {
        let (send, receive) = tokio::sync::mpsc::unbounded_channel();
        let parts = stream::unfold(receive, async |mut parts| {
            Some((Ok::<_, std::io::Error>(parts.recv().await?), parts))
        });
        let answer = Response::new(Body::from_stream(parts));
        let answer = watched(answer, Open::default().begin(), PATIENCE);
        let mut body = answer.into_body().into_data_stream();
        assert!(body.next().now_or_never().is_none());
        tokio::time::sleep(PATIENCE * 5).await;
        send.send(Bytes::from_static(b"at last")).unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), "at last");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_once_its_answers_are_taken() {
        let (open, held) = (Open::default(), Arc::new(AtomicBool::new(false)));
        let answer = watched(endless(&held), open.begin(), PATIENCE * 100);
        let idle = tokio::spawn({
            let open = open.clone();
            async move { open.is_idle_for(PATIENCE).await }
        });
        tokio::time::sleep(PATIENCE * 5).await;
        assert!(!idle.is_finished(), "an answer is open");
        drop(answer);
        tokio::time::sleep(PATIENCE / 2).await;
        drop(open.begin());
        tokio::time::sleep(PATIENCE * 3 / 4).await;
        assert!(!idle.is_finished(), "a request came in between");
        tokio::time::timeout(PATIENCE * 2, idle).await.unwrap().unwrap();
    }
}

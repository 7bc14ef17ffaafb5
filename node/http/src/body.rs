//! Bodies on their way in and out.
//!
//! Guarantees: an outgoing body announces its exact length and fails, rather than ends early, if fewer bytes come; an
//! incoming body that falls silent for too long, or comes too slowly, breaks off; bodies that are read whole take a bounded memory together.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body::{Frame, SizeHint};
use nora_app::ports::{BoxError, ByteStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::downloads::Place;
use crate::metrics::Metrics;

/// A stream of bytes whose whole length is known.
struct SizedBody {
    stream: ByteStream,
    left: u64,
    metrics: Arc<Metrics>,
    _place: Place,
}

impl http_body::Body for SizedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        match self.stream.as_mut().poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(bytes))) => {
                let count = bytes.len() as u64;
                if count > self.left {
                    return Poll::Ready(Some(Err("more bytes than announced".into())));
                }
                self.left -= count;
                self.metrics.bytes_sent(count);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready(Some(Err(error))) => {
                // The status line is gone already: breaking the connection is all that can tell the client.
                tracing::warn!(%error, "a blob could not be sent whole");
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => Poll::Ready(Some(Err("fewer bytes than announced".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A body of exactly `length` bytes, which keeps its place among the downloads until it is sent.
pub(crate) fn sized(stream: ByteStream, length: u64, metrics: Arc<Metrics>, place: Place) -> Body {
    Body::new(SizedBody { stream, left: length, metrics, _place: place })
}

/// How fast a request's body must come.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The longest silence.
    pub idle: Duration,
    /// What it must bring on the average of each such time that was spent waiting for it.
    pub bytes_per_second_min: u64,
}

/// A request's body as it comes in.
struct Coming {
    stream: BodyDataStream,
    pace: Pace,
    /// For how long it was waited for since the pace was last looked at, and what it brought meanwhile.
    waited: Duration,
    brought: u64,
}

impl Coming {
    /// The next part; `None` after the last.
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        let Pace { idle, bytes_per_second_min } = self.pace;
        // Only what the client takes counts: the node may be slow with what has come.
        let begun = Instant::now();
        let bytes = match tokio::time::timeout(idle, self.stream.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(bytes))) => bytes,
            Ok(Some(Err(error))) => return Some(Err(Box::new(error))),
            Err(_) => return Some(Err("the client sent nothing for too long".into())),
        };
        self.waited += begun.elapsed();
        self.brought += bytes.len() as u64;
        if self.waited >= idle {
            let least = u128::from(bytes_per_second_min) * self.waited.as_millis() / 1_000;
            if u128::from(self.brought) < least {
                return Some(Err("the client sent too slowly".into()));
            }
            (self.waited, self.brought) = (Duration::ZERO, 0);
        }
        Some(Ok(bytes))
    }
}

/// A request's body as use cases take it.
pub fn incoming(body: Body, pace: Pace, metrics: Arc<Metrics>) -> ByteStream {
    let stream = body.into_data_stream();
    let coming = Coming { stream, pace, waited: Duration::ZERO, brought: 0 };
    Box::pin(futures_util::stream::unfold(Some(coming), move |coming| {
        let metrics = metrics.clone();
        async move {
            let mut coming = coming?;
            let part = coming.next().await?;
            if let Ok(bytes) = &part {
                metrics.bytes_received(bytes.len() as u64);
            }
            let goes_on = part.is_ok();
            Some((part, goes_on.then_some(coming)))
        }
    }))
}

/// A body that remembers whether its client broke it off.
struct Watched {
    body: Body,
    broken: Arc<AtomicBool>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.broken.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body, and what tells afterwards whether its client broke it off: by leaving, or by framing it wrongly.
pub fn watched(body: Body) -> (Body, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    (Body::new(Watched { body, broken: broken.clone() }), broken)
}

/// How much of a refused body is read and thrown away. A client that is still sending when its connection closes may
/// never see why: the unread bytes make the kernel reset the connection, and the answer goes with it.
const DISCARD_BYTES_MAX: u64 = 16 << 20;

/// Takes in what a client still sends of a body that was refused, within a limit.
pub async fn discard(mut body: ByteStream) {
    let mut discarded = 0;
    while let Some(Ok(part)) = body.next().await {
        discarded += part.len() as u64;
        if discarded > DISCARD_BYTES_MAX {
            return;
        }
    }
}

/// Bytes of an answer, and the room that they take in a budget until the client has them.
struct Counted {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An answer's bytes, which count in a budget until they are sent.
pub fn counted(bytes: Vec<u8>, room: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Counted { bytes, _room: room })
}

/// What bodies that are read whole, or answers that are made whole, take together, of all clients.
#[derive(Clone, Debug)]
pub struct Budget {
    room: Arc<Semaphore>,
    bytes: usize,
}

/// How long a body waits for others to be done. Clients try again after a 503, so waiting long would only add up.
const PATIENCE: Duration = Duration::from_secs(2);

impl Budget {
    /// So many bytes.
    pub fn of(bytes: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(bytes)), bytes }
    }

    /// Takes room for so many bytes, or for all that there is if they are more. Waits a little for others to be done.
    pub async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Unread> {
        let bytes = u32::try_from(bytes.min(self.bytes)).map_err(|_| Unread::Busy)?;
        let taken = self.room.clone().acquire_many_owned(bytes);
        match tokio::time::timeout(PATIENCE, taken).await {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(_)) | Err(_) => Err(Unread::Busy),
        }
    }
}

/// A body that was read whole. Its bytes count in the budget for as long as this is there.
#[derive(Debug)]
pub struct Whole {
    /// The bytes.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read whole.
#[derive(Debug)]
pub enum Unread {
    /// It broke off.
    Broken(BoxError),
    /// It is longer than it may be.
    TooLong,
    /// Other bodies take all memory that there is for them.
    Busy,
}

/// Reads a whole body of at most `bytes_max`. Room for it is taken as its bytes come: what a client only announces keeps
/// nobody out.
pub async fn read_whole(
    mut body: ByteStream,
    bytes_max: usize,
    budget: &Budget,
) -> Result<Whole, Unread> {
    let mut first = None;
    let mut all = Vec::new();
    let mut room: Option<OwnedSemaphorePermit> = None;
    while let Some(part) = body.next().await {
        let part = part.map_err(Unread::Broken)?;
        let so_far = first.as_ref().map_or(all.len(), Bytes::len);
        if so_far + part.len() > bytes_max {
            drop((first, all, room));
            discard(body).await;
            return Err(Unread::TooLong);
        }
        let taken = match budget.take(part.len()).await {
            Ok(taken) => taken,
            Err(busy) => {
                // What is held goes first: others wait for it. The client reads the answer once it has sent the rest.
                drop((first, all, room));
                discard(body).await;
                return Err(busy);
            }
        };
        match &mut room {
            Some(room) => room.merge(taken),
            None => room = Some(taken),
        }
        // Most manifests come in one part, which is kept as it is.
        match first.take() {
            None if all.is_empty() => first = Some(part),
            None => all.extend_from_slice(&part),
            Some(one) => {
                all.extend_from_slice(&one);
                all.extend_from_slice(&part);
            }
        }
    }
    Ok(Whole { bytes: first.unwrap_or_else(|| Bytes::from(all)), _room: room })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::sync::mpsc;

    use super::*;

    fn whole(bytes: usize) -> ByteStream {
        Box::pin(stream::iter([Ok(Bytes::from(vec![1; bytes]))]))
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_take_no_more_together_than_their_budget() {
        let budget = Budget::of(100);
        let (send, receive) = mpsc::unbounded_channel();
        let slow = stream::unfold(receive, async |mut parts| Some((parts.recv().await?, parts)));
        let slow = tokio::spawn({
            let budget = budget.clone();
            async move { read_whole(Box::pin(slow), 1_000, &budget).await }
        });
        for _ in 0..2 {
            send.send(Ok(Bytes::from(vec![2; 40]))).unwrap();
        }
        while budget.room.available_permits() > 20 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(read_whole(whole(30), 1_000, &budget).await, Err(Unread::Busy)));
        let read = Arc::new(AtomicBool::new(false));
        let parts = [Bytes::from(vec![3; 30]), Bytes::from(vec![3; 5])];
        let last = read.clone();
        let parts = stream::iter(parts).map(move |part| {
            last.store(part.len() == 5, Ordering::Relaxed);
            Ok(part)
        });
        assert!(matches!(read_whole(Box::pin(parts), 1_000, &budget).await, Err(Unread::Busy)));
        assert!(
            read.load(Ordering::Relaxed),
            "a client that still sends would never see the answer"
        );
        let small = read_whole(whole(20), 1_000, &budget).await.unwrap();
        assert_eq!(budget.room.available_permits(), 0);
        drop(small);

        drop(send);
        let slow = slow.await.unwrap().unwrap();
        assert_eq!(slow.bytes, vec![2; 80]);
        assert_eq!(budget.room.available_permits(), 20, "what was read counts while it is used");
        drop(slow);
        assert_eq!(read_whole(whole(100), 1_000, &budget).await.unwrap().bytes.len(), 100);
        assert!(matches!(read_whole(whole(101), 100, &budget).await, Err(Unread::TooLong)));
        assert_eq!(budget.room.available_permits(), 100);
    }

    const PACE: Pace = Pace { idle: Duration::from_secs(10), bytes_per_second_min: 100 };

    /// What comes of a body that brings so many bytes each second, if each part is used for so long.
    async fn brought(bytes: usize, seconds: usize, used_for: Duration) -> Result<usize, String> {
        let parts = stream::iter(0..seconds).then(move |_| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, BoxError>(Bytes::from(vec![1; bytes]))
        });
        let metrics = Arc::new(Metrics::new(Vec::new()));
        let mut body = incoming(Body::from_stream(parts), PACE, metrics);
        let mut count = 0;
        while let Some(part) = body.next().await {
            count += part.map_err(|error| error.to_string())?.len();
            tokio::time::sleep(used_for).await;
        }
        Ok(count)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_broken_off() {
        let quick = Duration::ZERO;
        assert_eq!(brought(1, 9, quick).await, Ok(9), "a short one may");
        let broken = brought(1, 1_000, quick).await.unwrap_err();
        assert_eq!(broken, "the client sent too slowly");
        assert_eq!(brought(100, 1_000, quick).await, Ok(100_000));
        let slow = Duration::from_secs(60);
        assert_eq!(brought(100, 100, slow).await, Ok(10_000), "the node's own time does not count");
    }
}

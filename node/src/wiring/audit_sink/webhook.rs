//! The policy's webhook: whoever leads sends it every entry.
//!
//! Guarantees: entries come in order; what was not answered with a success is sent again; what was is noted in the
//! replicated log, and a node that begins to lead goes on after it. Nothing of a lead that is over is remembered.

use nora_domain::ConsumerName;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nora_app::Registry;
use nora_cluster::Cluster;
use tracing::{debug, info, warn};

use super::trouble::Trouble;
use super::{Failed, Gap, PAGE, lines, ticks};
use crate::identity::Policies;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends entries to the policy's webhook while this node leads.
pub(in crate::wiring) async fn to_webhook(
    registry: Registry,
    policies: Arc<Policies>,
    cluster: Arc<Cluster>,
) {
    let client = match reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
    {
        Ok(client) => client,
        Err(error) => {
            warn!(%error, "audit entries are sent nowhere");
            return;
        }
    };
    let mut sender = Sender::new(client, registry);
    let mut ticks = ticks();
    let mut more = false;
    loop {
        // All that waits is sent at once; before each page it is asked again who leads, and where it goes.
        if !more {
            ticks.tick().await;
        }
        let status = cluster.status();
        let url = policies.in_force().policy().document().audit.webhook.clone();
        let leads = status.leader == Some(status.node);
        more = sender.turn(url.filter(|_| leads), status.term).await;
    }
}

/// The name under which the cluster notes how far the webhook is.
fn consumer() -> Result<ConsumerName, nora_app::Error> {
    ConsumerName::parse("audit-webhook").map_err(|error| nora_app::Error::Internal {
        what: "the audit webhook has no valid name",
        source: Some(Box::new(error)),
    })
}

/// An error with its causes, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// How far the webhook is, as this node knows while it leads.
#[derive(Clone, Copy)]
struct Delivery {
    term: u64,
    /// Number of the last entry that was taken.
    taken: u64,
    /// Number that the replicated log knows of.
    noted: u64,
}

/// A page that was taken.
struct Sent {
    first: u64,
    newest: u64,
    entries: u64,
    more: bool,
}

struct Sender {
    client: reqwest::Client,
    registry: Registry,
    url: Option<String>,
    delivery: Option<Delivery>,
    sending: Trouble,
    noting: Trouble,
}

impl Sender {
    fn new(client: reqwest::Client, registry: Registry) -> Self {
        let (sending, noting) = (Trouble::default(), Trouble::default());
        Self { client, registry, url: None, delivery: None, sending, noting }
    }

    /// Sends a page to where this node, if it leads in this term, is to send entries; true if there is another one.
    async fn turn(&mut self, url: Option<String>, term: u64) -> bool {
        let Some(url) = url else {
            // Others may send entries from here on, and this node later goes on after those.
            self.delivery = None;
            self.url = None;
            return false;
        };
        if self.url.as_ref() != Some(&url) {
            // Nothing is known against this one.
            self.sending = Trouble::default();
            self.url = Some(url.clone());
        }
        if self.delivery.is_none_or(|delivery| delivery.term != term) {
            self.delivery = self.begin(term).await;
        }
        self.note().await;
        let Some(delivery) = self.delivery else { return false };
        if self.sending.is_pausing(Instant::now()) {
            return false;
        }
        match self.send(&url, delivery.taken).await {
            Ok(None) => false,
            Ok(Some(sent)) => {
                self.delivery = Some(Delivery { taken: sent.newest, ..delivery });
                self.sending.took(sent.entries);
                // Whoever has taken nothing yet gets what is kept, and misses nothing.
                if delivery.taken > 0
                    && let Some(Gap { after, before }) = Gap::between(delivery.taken, sent.first)
                {
                    warn!(after, before, "audit entries were dropped before the webhook took them");
                }
                self.note().await;
                if !sent.more
                    && let Some(entries) = self.sending.over()
                {
                    info!(entries, "the audit webhook takes entries again");
                }
                sent.more
            }
            Err(error) => {
                if self.sending.failed(Instant::now()) {
                    warn!(%error, "the audit webhook takes no entries; sending again");
                }
                false
            }
        }
    }

    /// Where to go on: after what any leader before this one has noted.
    async fn begin(&self, term: u64) -> Option<Delivery> {
        let read = match consumer() {
            Ok(consumer) => self.registry.cursor(consumer).await.map(|cursor| cursor.number),
            Err(error) => Err(error),
        };
        match read {
            Ok(taken) => Some(Delivery { term, taken, noted: taken }),
            Err(error) => {
                debug!(%error, "it cannot be read yet how far the audit webhook is");
                None
            }
        }
    }

    /// Sends the page after an entry; `None` if there is nothing.
    async fn send(&self, url: &str, after: u64) -> Result<Option<Sent>, Failed> {
        let page = self.registry.journal_entries(after, PAGE).await?;
        let (Some((first, _)), Some((newest, _))) = (page.items.first(), page.items.last()) else {
            return Ok(None);
        };
        let text = lines(&page.items);
        // Much of the journal is no caller's doing, and has no line.
        if !text.is_empty() {
            let request = self.client.post(url).header("content-type", "application/x-ndjson");
            let answer = request.body(text).send().await;
            let status = answer.map_err(|error| chain(&error.without_url()))?.status();
            if !status.is_success() {
                return Err(format!("it answers {status}").into());
            }
        }
        let entries = page.items.len() as u64;
        Ok(Some(Sent { first: *first, newest: *newest, entries, more: page.more }))
    }

    /// Lets the cluster know how far the webhook is. Entries are sent whether or not that can be done: this node does not
    /// forget it while it leads.
    async fn note(&mut self) {
        let Some(delivery) = &mut self.delivery else { return };
        if delivery.noted == delivery.taken || self.noting.is_pausing(Instant::now()) {
            return;
        }
        let noted = match consumer() {
            Ok(consumer) => self.registry.advance_cursor(consumer, delivery.taken).await,
            Err(error) => Err(error),
        };
        match noted {
            Ok(()) => {
                delivery.noted = delivery.taken;
                if self.noting.over().is_some() {
                    info!("it is noted again how far the audit webhook is");
                }
            }
            Err(error) => {
                if self.noting.failed(Instant::now()) {
                    warn!(%error, "it cannot be noted how far the audit webhook is; another leader would send entries again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU16, Ordering};

    use http::StatusCode;
    use tokio::net::TcpListener;

    use crate::wiring::audit_sink::tests::{FOUNDING, drop_all, refuse};
    use crate::world::World;

    /// Something that takes entries, or does not.
    struct Receiver {
        url: String,
        status: Arc<AtomicU16>,
        bodies: Arc<Mutex<Vec<String>>>,
    }

    impl Receiver {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let status = Arc::new(AtomicU16::new(200));
            let bodies = Arc::new(Mutex::new(Vec::new()));
            let (answer, taken) = (status.clone(), bodies.clone());
            let router = axum::Router::new().fallback(move |body: String| {
                taken.lock().unwrap().push(body);
                let status = StatusCode::from_u16(answer.load(Ordering::Relaxed)).unwrap();
                async move { status }
            });
            tokio::spawn(async move { axum::serve(listener, router).await });
            Self { url, status, bodies }
        }

        fn answers(&self, status: u16) {
            self.status.store(status, Ordering::Relaxed);
        }

        /// The first and the last number of each body since this was last asked.
        fn seen(&self) -> Vec<(u64, u64)> {
            let bodies = std::mem::take(&mut *self.bodies.lock().unwrap());
            let seen = bodies.iter().map(|body| {
                let numbers = body.lines().map(|line| {
                    let line: serde_json::Value = serde_json::from_str(line).unwrap();
                    line["number"].as_u64().unwrap() - FOUNDING
                });
                let numbers: Vec<_> = numbers.collect();
                assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
                (numbers[0], numbers[numbers.len() - 1])
            });
            seen.collect()
        }
    }

    /// How far the cluster knows the webhook to be, counted from the founding on.
    async fn noted(world: &World) -> u64 {
        let cursor = world.registry.cursor(consumer().unwrap()).await.unwrap();
        cursor.number.saturating_sub(FOUNDING)
    }

    fn sender(world: &World) -> Sender {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Sender::new(client, world.registry.clone())
    }

    #[tokio::test]
    async fn all_that_is_kept_is_sent_and_another_leader_goes_on_after_it() {
        let (world, receiver) = (World::without_policy(true).await, Receiver::new().await);
        let url = || Some(receiver.url.clone());
        let page = PAGE as u64;
        refuse(&world, 2 * PAGE + 1).await;
        let mut first = sender(&world);
        for is_more in [true, true, false, false] {
            assert_eq!(first.turn(url(), 1).await, is_more);
        }
        // What the founding left comes first, and has no lines.
        let (one, two) = (page - FOUNDING, 2 * page - FOUNDING);
        let all = [(1, one), (one + 1, two), (two + 1, 2 * page + 1)];
        assert_eq!(receiver.seen(), all);
        assert_eq!(noted(&world).await, 2 * page + 1);

        let mut other = sender(&world);
        first.turn(None, 2).await;
        other.turn(url(), 2).await;
        assert!(receiver.seen().is_empty());
        refuse(&world, 1).await;
        other.turn(url(), 2).await;
        assert_eq!(receiver.seen(), [(2 * page + 2, 2 * page + 2)]);
        // The first one leads again: what the other sent is not sent again, whether or not it saw that it did not lead.
        first.turn(url(), 3).await;
        refuse(&world, 1).await;
        first.turn(url(), 3).await;
        assert_eq!(receiver.seen(), [(2 * page + 3, 2 * page + 3)]);
        other.turn(url(), 4).await;
        assert!(receiver.seen().is_empty());
    }

    #[tokio::test]
    async fn who_takes_nothing_is_left_alone_for_a_while_and_another_is_not() {
        let (world, receiver) = (World::without_policy(true).await, Receiver::new().await);
        let mut sender = sender(&world);
        refuse(&world, 2).await;
        receiver.answers(500);
        for _ in 0..2 {
            assert!(!sender.turn(Some(receiver.url.clone()), 1).await);
        }
        assert_eq!(receiver.seen(), [(1, 2)], "the second turn is in the pause");
        assert_eq!(noted(&world).await, 0);
        receiver.answers(204);
        sender.turn(Some(format!("{}other", receiver.url)), 1).await;
        assert_eq!(receiver.seen(), [(1, 2)]);
        assert_eq!(noted(&world).await, 2);
        // Nobody is there.
        refuse(&world, 1).await;
        sender.turn(Some("http://127.0.0.1:1/".to_owned()), 1).await;
        assert!(sender.sending.is_pausing(Instant::now()));
        assert_eq!(noted(&world).await, 2);
    }

    #[tokio::test]
    async fn what_retention_dropped_is_passed_over() {
        let (world, receiver) = (World::without_policy(true).await, Receiver::new().await);
        let mut sender = sender(&world);
        refuse(&world, 3).await;
        drop_all(&world).await;
        refuse(&world, 2).await;
        sender.turn(Some(receiver.url.clone()), 1).await;
        // Sealing and forgetting have three entries of their own.
        assert_eq!(receiver.seen(), [(7, 8)]);
    }
}

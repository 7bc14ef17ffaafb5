//! The policy's webhook: whoever leads sends it every entry.
//!
//! Guarantees: entries come in order; what was not answered with a success is sent again; what was is noted in the
//! replicated log, and a node that begins to lead goes on after it. Nothing of a lead that is over is remembered. Each
//! request is signed as Standard Webhooks are (<https://www.standardwebhooks.com>), and carries no other credential.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nora_app::Registry;
use nora_app::jobs::{Job, Schedule, Turn, job};
use nora_cluster::Cluster;
use nora_domain::ConsumerName;
use nora_egress::Egress;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::trouble::Trouble;
use super::{Failed, Gap, INTERVAL, PAGE, lines};
use nora_identity::Guard;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The leader's job that sends entries to the policy's webhook.
pub(in crate::wiring) fn to_webhook(
    registry: Registry,
    guard: Arc<Guard>,
    cluster: Arc<Cluster>,
    egress: Egress,
) -> Arc<dyn Job> {
    let policies = guard.policies().clone();
    let sender = Arc::new(Mutex::new(Sender::new(egress, registry, guard)));
    job(Schedule::every("audit-webhook", INTERVAL).on_leader(), move || {
        let (sender, policies, cluster) = (sender.clone(), policies.clone(), cluster.clone());
        async move {
            // Before each page it is asked again who leads, and where entries go.
            let status = cluster.status();
            let url = policies.in_force().policy().document().audit.webhook.clone();
            let leads = status.leader == Some(status.node);
            sender.lock().await.turn(url.filter(|_| leads), status.term).await
        }
    })
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
    egress: Egress,
    registry: Registry,
    guard: Arc<Guard>,
    delivery: Option<Delivery>,
    noting: Trouble,
}

impl Sender {
    fn new(egress: Egress, registry: Registry, guard: Arc<Guard>) -> Self {
        Self { egress, registry, guard, delivery: None, noting: Trouble::default() }
    }

    /// Sends a page to where this node, if it leads in this term, is to send entries.
    async fn turn(&mut self, url: Option<String>, term: u64) -> Result<Turn, Failed> {
        let Some(url) = url else {
            // Others may send entries from here on, and this node later goes on after those.
            self.delivery = None;
            return Ok(Turn::done());
        };
        let delivery = match self.delivery.filter(|delivery| delivery.term == term) {
            Some(delivery) => delivery,
            None => self.begin(term).await?,
        };
        self.delivery = Some(delivery);
        self.note().await;
        let Some(sent) = self.send(&url, delivery.taken).await? else { return Ok(Turn::done()) };
        if let Some(delivery) = &mut self.delivery {
            delivery.taken = sent.newest;
        }
        // A webhook that has taken nothing yet gets what is kept, and misses nothing.
        if delivery.taken > 0
            && let Some(Gap { after, before }) = Gap::between(delivery.taken, sent.first)
        {
            warn!(after, before, "audit entries were dropped before the webhook took them");
        }
        self.note().await;
        Ok(Turn::more_if(sent.more).count("sent", sent.entries))
    }

    /// Where to go on: after what any leader before this one has noted.
    async fn begin(&self, term: u64) -> Result<Delivery, Failed> {
        let taken = self.registry.journal().cursor(consumer()?).await?.number;
        Ok(Delivery { term, taken, noted: taken })
    }

    /// Sends the page after an entry; `None` if there is nothing.
    async fn send(&self, url: &str, after: u64) -> Result<Option<Sent>, Failed> {
        let page = self.registry.journal().entries(after, PAGE).await?;
        let (Some((first, _)), Some((newest, _))) = (page.items.first(), page.items.last()) else {
            return Ok(None);
        };
        let text = lines(&page.items);
        // Much of the journal is no caller's doing, and has no line.
        if !text.is_empty() {
            // The same when the same entries are sent again. With entries that came meanwhile it is another request.
            let id = format!("audit-{first}-{newest}");
            let at = self.guard.wall_now().0 / 1_000;
            let mut request = self.egress.post(url).map_err(|refused| refused.to_string())?;
            request = request
                .timeout(TIMEOUT)
                .header("content-type", "application/x-ndjson")
                .header("webhook-id", &id)
                .header("webhook-timestamp", at);
            if let Some(signature) = self.guard.sign_webhook(&id, at, text.as_bytes()).await? {
                request = request.header("webhook-signature", signature);
            }
            let answer = request.body(text).send().await;
            let status = answer.map_err(|error| chain(&error.without_url()))?.status();
            if !status.is_success() {
                return Err(format!("the webhook answers {status}").into());
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
            Ok(consumer) => self.registry.journal().advance(consumer, delivery.taken).await,
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
    use std::sync::Mutex as StdMutex;
    use std::sync::atomic::{AtomicU16, Ordering};

    use aws_lc_rs::hmac;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use http::{HeaderMap, StatusCode};
    use nora_app::jobs::Next;
    use tokio::net::TcpListener;

    use crate::wiring::audit_sink::tests::{FOUNDING, drop_all, refuse};
    use nora_http::testkit::World;

    /// Something that takes entries, or does not.
    struct Receiver {
        url: String,
        status: Arc<AtomicU16>,
        bodies: Arc<StdMutex<Vec<String>>>,
        /// Of the last request: id, time, signature and body.
        signed: Arc<StdMutex<[String; 4]>>,
    }

    impl Receiver {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let status = Arc::new(AtomicU16::new(200));
            let bodies = Arc::new(StdMutex::new(Vec::new()));
            let signed = Arc::new(StdMutex::new(Default::default()));
            let (answer, taken, shown) = (status.clone(), bodies.clone(), signed.clone());
            let router = axum::Router::new().fallback(move |headers: HeaderMap, body: String| {
                let header = |name: &str| headers[name].to_str().unwrap().to_owned();
                let [id, at, signature] =
                    ["webhook-id", "webhook-timestamp", "webhook-signature"].map(header);
                *shown.lock().unwrap() = [id, at, signature, body.clone()];
                taken.lock().unwrap().push(body);
                let status = StatusCode::from_u16(answer.load(Ordering::Relaxed)).unwrap();
                async move { status }
            });
            tokio::spawn(async move { axum::serve(listener, router).await });
            Self { url, status, bodies, signed }
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
        let cursor = world.registry.journal().cursor(consumer().unwrap()).await.unwrap();
        cursor.number.saturating_sub(FOUNDING)
    }

    fn sender(world: &World) -> Sender {
        let egress = Egress::new(|address| address.is_loopback(), TIMEOUT).unwrap();
        Sender::new(egress, world.registry.clone(), world.guard.clone())
    }

    #[tokio::test]
    async fn a_receiver_tells_whose_requests_they_are() {
        let (world, receiver) = (World::without_policy(true).await, Receiver::new().await);
        refuse(&world, 2).await;
        receiver.answers(500);
        sender(&world).turn(Some(receiver.url.clone()), 1).await.unwrap_err();
        let first = receiver.signed.lock().unwrap().clone();
        receiver.answers(200);
        sender(&world).turn(Some(receiver.url.clone()), 1).await.unwrap();
        let [id, at, signature, body] = receiver.signed.lock().unwrap().clone();
        assert_eq!(
            (&first[0], &first[3]),
            (&id, &body),
            "the same entries are sent again under the same id"
        );
        // What a receiver does, with nothing but the key that an administrator has given it.
        let key = world.guard.webhook_key().await.unwrap().unwrap();
        let key = BASE64.decode(key.strip_prefix("whsec_").unwrap()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let shown = BASE64.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&key, format!("{id}.{at}.{body}").as_bytes(), &shown).unwrap();
        hmac::verify(&key, format!("{id}.{at}.{body} ").as_bytes(), &shown).unwrap_err();
    }

    #[tokio::test]
    async fn an_address_that_may_not_be_called_gets_nothing() {
        let (world, receiver) = (World::without_policy(true).await, Receiver::new().await);
        refuse(&world, 1).await;
        let egress = Egress::new(|_| false, TIMEOUT).unwrap();
        let mut sender = Sender::new(egress, world.registry.clone(), world.guard.clone());
        let refused = sender.turn(Some(receiver.url.clone()), 1).await.unwrap_err();
        assert!(refused.to_string().contains("server.egress_networks"), "{refused}");
        assert!(receiver.seen().is_empty());
        assert_eq!(noted(&world).await, 0, "the entries wait");
    }

    #[tokio::test]
    async fn all_that_is_kept_is_sent_and_another_leader_goes_on_after_it() {
        let (world, receiver) = (World::without_policy(true).await, Receiver::new().await);
        let url = || Some(receiver.url.clone());
        let page = PAGE as u64;
        refuse(&world, 2 * PAGE + 1).await;
        let mut first = sender(&world);
        for next in [Next::AtOnce, Next::AtOnce, Next::Scheduled, Next::Scheduled] {
            assert_eq!(first.turn(url(), 1).await.unwrap().next, next);
        }
        // What the founding left comes first, and has no lines.
        let (one, two) = (page - FOUNDING, 2 * page - FOUNDING);
        let all = [(1, one), (one + 1, two), (two + 1, 2 * page + 1)];
        assert_eq!(receiver.seen(), all);
        assert_eq!(noted(&world).await, 2 * page + 1);

        let mut other = sender(&world);
        first.turn(None, 2).await.unwrap();
        other.turn(url(), 2).await.unwrap();
        assert!(receiver.seen().is_empty());
        refuse(&world, 1).await;
        other.turn(url(), 2).await.unwrap();
        assert_eq!(receiver.seen(), [(2 * page + 2, 2 * page + 2)]);
        // The first one leads again: what the other sent is not sent again, whether or not it saw that it did not lead.
        first.turn(url(), 3).await.unwrap();
        refuse(&world, 1).await;
        first.turn(url(), 3).await.unwrap();
        assert_eq!(receiver.seen(), [(2 * page + 3, 2 * page + 3)]);
        other.turn(url(), 4).await.unwrap();
        assert!(receiver.seen().is_empty());
    }

    #[tokio::test]
    async fn entries_that_a_webhook_refuses_are_sent_again_and_to_another_one() {
        let (world, receiver) = (World::without_policy(true).await, Receiver::new().await);
        let mut sender = sender(&world);
        refuse(&world, 2).await;
        receiver.answers(500);
        for _ in 0..2 {
            let error = sender.turn(Some(receiver.url.clone()), 1).await.unwrap_err();
            assert!(error.to_string().contains("500"), "{error}");
            assert_eq!(receiver.seen(), [(1, 2)]);
        }
        assert_eq!(noted(&world).await, 0);
        receiver.answers(204);
        sender.turn(Some(format!("{}other", receiver.url)), 1).await.unwrap();
        assert_eq!(receiver.seen(), [(1, 2)]);
        assert_eq!(noted(&world).await, 2);
        // Nobody is there.
        refuse(&world, 1).await;
        sender.turn(Some("http://127.0.0.1:1/".to_owned()), 1).await.unwrap_err();
        assert_eq!(noted(&world).await, 2);
    }

    #[tokio::test]
    async fn what_retention_dropped_is_passed_over() {
        let (world, receiver) = (World::without_policy(true).await, Receiver::new().await);
        let mut sender = sender(&world);
        refuse(&world, 3).await;
        drop_all(&world).await;
        refuse(&world, 2).await;
        sender.turn(Some(receiver.url.clone()), 1).await.unwrap();
        // Sealing and forgetting have three entries of their own.
        assert_eq!(receiver.seen(), [(7, 8)]);
    }
}

//! Images of which each request goes to another node: the blob through one, the manifest through the
//! next, both pulled from the third, and the nodes take turns.
//!
//! What one node has acknowledged, every other must know at once. Each status and each byte is
//! checked; whatever is wrong is counted, named, and makes the run fail.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nora_cluster_tests::content::Image;
use nora_cluster_tests::error::{Error, Result};
use nora_cluster_tests::phase::together;
use nora_cluster_tests::registry::Registry;
use nora_cluster_tests::stats::{Latencies, micros};

use crate::bench::{Bench, clients};
use crate::report::{Bar, Measure, Table, Unit};

const REPOSITORY: &str = "bench/relay";
/// So many are named; the others are counted.
const NAMED_MAX: usize = 10;

/// An empty table of this part.
pub fn table() -> Table {
    Table::new("Blob through one node, manifest through the next, pull from the third", &["nora"])
}

/// The orders in which three nodes can be asked.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [2, 1, 0], [1, 0, 2]];

/// Measures.
pub fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let args = &bench.args;
    let running = bench.cluster("relay", 3, None)?;
    let addrs = running.http();
    let base = bench.source.image();
    Registry::open(addrs[0])?.push_image(REPOSITORY, &base)?;
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let client = |_: usize, mut nodes: Vec<Registry>| {
        let mut samples = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= args.relays {
                return Ok(samples);
            }
            let image = bench.source.image_over(&base);
            let order = ORDERS[number % ORDERS.len()];
            let started = Instant::now();
            match relay(&mut nodes, order, &image) {
                Ok(()) => samples.push(micros(started.elapsed())),
                Err(error) => {
                    let text = format!("image {number} through nodes {order:?}: {error}");
                    wrong.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                    // What is left of the answer must not be taken for the next one.
                    nodes = connect(&addrs)?;
                }
            }
        }
    };
    let work = || together(args.relay_clients, |_| connect(&addrs), client);
    let ((samples, took), seen) = bench.observe(table, running.pids(), work)?;
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    let samples: Vec<u32> = samples.into_iter().flatten().collect();
    let rate = samples.len() as f64 / took.as_secs_f64();
    table.add(0, Measure::new("images", Unit::Count), args.relays as f64);
    let failed = Measure::new("images of which something was wrong", Unit::Count);
    table.add(0, failed.bar(Bar::AtMost(0.0)), wrong.len() as f64);
    let title = format!("images, {}", clients(args.relay_clients));
    table.add(0, Measure::new(title, Unit::PerS), rate);
    let latencies = Latencies::from_micros(samples);
    for per_cent in [50.0, 99.0] {
        let measure = Measure::new(format!("one image: p{per_cent}"), Unit::Ms);
        table.add(0, measure, latencies.percentile_ms(per_cent));
    }
    running.record(table, 0, "", &seen)?;
    if wrong.is_empty() {
        return running.end();
    }
    let named = wrong.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("; ");
    Err(Error::Wrong(format!("{} of {} images: {named}", wrong.len(), args.relays)))
}

fn connect(addrs: &[SocketAddr]) -> Result<Vec<Registry>> {
    addrs.iter().map(|addr| Registry::open(*addr)).collect()
}

fn relay(nodes: &mut [Registry], order: [usize; 3], image: &Image) -> Result<()> {
    let [first, second, third] = order;
    let layer: [&[u8]; 1] = [&image.layer.0];
    nodes[first].push_blob(REPOSITORY, &image.layer.1, &layer)?;
    nodes[second].push_manifest(REPOSITORY, &image.tag, &image.manifest)?;
    nodes[third].verify_manifest(REPOSITORY, &image.tag, &image.manifest)?;
    nodes[third].verify_blob(REPOSITORY, &image.layer.1, &layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_another_and_has_each_node_once() {
        let mut orders = ORDERS.to_vec();
        orders.sort();
        orders.dedup();
        assert_eq!(orders.len(), 6);
        for mut order in ORDERS {
            order.sort();
            assert_eq!(order, [0, 1, 2]);
        }
    }
}

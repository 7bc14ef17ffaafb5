//! The whole surface over the ports in memory.

mod audit;
mod challenges;
mod isolation;
mod openapi;
mod permissions;
mod proxies;
mod quotas;
mod sessions;
mod toy;

use axum::body::Body;
use http::StatusCode;

use super::*;

/// What an address takes of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// What its page says.
    Page(Access),
    /// A right in the repository that it names.
    Right,
}

/// Every address, as the OpenAPI document writes it, with its methods as far as a table has them.
fn addresses() -> Vec<(&'static str, Takes, &'static [&'static str])> {
    let pages = PAGES.iter().map(|page| (page.path, Takes::Page(page.access), [].as_slice()));
    let of_formats = SURFACES.iter().flat_map(|surface| surface.addresses).map(|address| {
        let takes = match address.route {
            "Ping" => Takes::Page(Access::Recognised),
            _ => Takes::Right,
        };
        (address.path, takes, address.methods)
    });
    pages.chain(of_formats).collect()
}

async fn ask(router: Router, path: &str) -> StatusCode {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    let answer = router.oneshot(request).await.unwrap();
    assert!(answer.headers().contains_key("content-security-policy"), "{path}");
    answer.status()
}

#[tokio::test]
async fn requests_wait_for_the_node_to_enter_its_cluster() {
    let entered = watch::Sender::new(None);
    let waiting = waiting_router(entered.subscribe());
    assert_eq!(ask(waiting.clone(), "/ready").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(waiting.clone(), "/health").await, StatusCode::OK);
    let asked = tokio::spawn(ask(waiting.clone(), "/v2/"));
    while entered.receiver_count() < 3 {
        tokio::task::yield_now().await;
    }
    entered.send_replace(Some(Router::new().route("/v2/", get(async || "whole"))));
    assert_eq!(asked.await.unwrap(), StatusCode::OK);

    // Its stop comes first.
    let entered = watch::Sender::new(None);
    let asked = tokio::spawn(ask(waiting_router(entered.subscribe()), "/v2/"));
    while entered.receiver_count() < 2 {
        tokio::task::yield_now().await;
    }
    drop(entered);
    assert_eq!(asked.await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
}

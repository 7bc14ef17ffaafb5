//! The OpenAPI document of the HTTP surface: for people who read it and for programs that make clients from it.
//!
//! Written by hand, beside this file, since routes and documents are made in several ways and no macro sees all of them.
//! Guarantees: it is of this version, and the same for everybody. That it names every route and describes answers as they
//! are, the tests hold.
//!
//! Must not know: who asks, and anything of this node or its policy.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

/// The document, with its version put in.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    Bytes::from(include_str!("openapi.json").replace("@version@", env!("CARGO_PKG_VERSION")))
});

/// `GET /api/openapi.json`.
pub(super) async fn document() -> Response {
    // Another version of this program says something else at the same address.
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")];
    (headers, DOCUMENT.clone()).into_response()
}

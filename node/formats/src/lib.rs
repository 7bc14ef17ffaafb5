//! The ecosystems' documents: parse, validate, render. One folder each.
//!
//! A format turns what a client sent into domain words and domain words into the documents that its clients expect.
//!
//! Must not know: I/O, async, HTTP servers, or where anything is stored.

pub mod oci;

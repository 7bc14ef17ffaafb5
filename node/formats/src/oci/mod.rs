//! OCI distribution 1.1 and its Docker ancestor.

pub mod annotations;
pub mod errors;
pub mod manifest;
pub mod name;
pub mod render;

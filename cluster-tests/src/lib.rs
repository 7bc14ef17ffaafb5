//! Real processes, real clients, conformance and benchmarks.

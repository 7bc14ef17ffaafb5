//! The shell: configuration, wiring, HTTP.

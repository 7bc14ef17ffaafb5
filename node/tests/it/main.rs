//! Integration tests of the binary and its HTTP surface.

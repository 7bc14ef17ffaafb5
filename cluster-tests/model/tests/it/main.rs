//! The state space of each world, explored whole, and every planted bug found.
#![allow(clippy::print_stdout, reason = "figures for whoever reads the output")]

mod explored;

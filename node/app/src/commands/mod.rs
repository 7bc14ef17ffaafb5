//! Use cases that change something. Each reads as the sentence that describes it; none calls a query.
//!
//! A caller that must not leave a command half done when its client hangs up runs it in a task of its own.

mod journal;

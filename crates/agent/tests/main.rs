//! The agent beside a server, and against hostile trees.
//!
//! One program: each more would be linked with everything below it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod hostile;
mod restoring;
mod saving;
mod service;

//! The service over both catalogues, with servers that end at random.
//!
//! One program: each more would be linked with everything below it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod change_map;
mod collection;
mod decade;
mod export;
mod notification;
mod policies;
mod regions;
mod rush;
mod sweep;
mod verification;

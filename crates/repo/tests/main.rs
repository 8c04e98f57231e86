//! The repository as its callers see it, against stores that fail, lie and die.
//!
//! One program: each more would be linked with everything below it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "a list of changes may hold one"
)]

mod ailing;
mod cancel;
mod change_map;
mod collect;
mod common;
mod crash;
mod damage;
mod distant;
mod file_calls;
mod golden;
mod index;
mod locality;
mod model;
mod online;
mod parity;
mod remote;
mod rotate;
mod round_trip;
mod s3;
mod s3_answers;
mod sharing;
mod store;
mod stored;
mod tree;
mod tree_damage;
mod tree_model;
mod trees;
mod verify;
mod zombie;

//! The sources against real disks, folders, guests and libvirt.
//!
//! One program: each more would be linked with everything below it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "a list of ranges may have one"
)]

mod common;
mod disks;
mod folders;
mod guest_agent;
mod guest_booted;
mod guest_faults;
mod guests;
mod inventory;
mod libvirt;
mod libvirt_booted;
mod libvirt_faults;
mod moments;
mod power;
mod sharing;

//! Trees of files as archives: the pax form of tar, written and read.
//!
//! [`head`] gives the bytes that stand before an entry's data, by the entry alone: so whoever
//! knows the entries knows where each lies in the archive, and may begin anywhere. [`Reader`]
//! takes such an archive apart again. It believes nothing: names that would lead out of the
//! tree, lengths that do not fit and checksums that are wrong are errors.
//!
//! What tar has no field for is in pax records: names and numbers of any length, nanoseconds,
//! extended attributes (`SCHILY.xattr.`), access control lists as text too (`SCHILY.acl.`), and
//! holes (GNU's sparse format 1.0).
//!
//! `core` writes archives, `cli` reads them.
//!
//! Source: POSIX.1-2024, `pax`, "ustar Interchange Format" and "pax Extended Header"; the
//! manual of GNU tar, "Storing Sparse Files"; `star(5)` for the records of extended attributes.

#![cfg_attr(
    test,
    allow(
        clippy::single_range_in_vec_init,
        reason = "a file of one part is told by one range"
    )
)]

mod acl;
mod block;
mod entry;
mod error;
mod pax;
mod read;
mod sparse;
mod write;

pub use block::{BLOCK_BYTES, padding};
pub use entry::{Content, Entry, is_entry_name};
pub use error::{Error, Result};
pub use read::Reader;
pub use sparse::{RANGES_MAX, is_sparse, ranges_of};
pub use write::{END_BYTES, head, stored_bytes};

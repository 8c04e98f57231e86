//! The line between two servers by which a backup is replicated.
//!
//! The server that has the backup opens a connection and answers; the one that
//! is to have the replica asks: how large a disk is, where its data lies, what
//! has changed since an earlier backup, what the ids of blocks are under its own
//! key, and for the bytes of those that it lacks. So the writing side runs the
//! same pipeline as for any other disk, and what is right is decided in one place.
//!
//! Nothing on the line can be read, changed, repeated or put in another order
//! without notice ([`handshake`](Keys), `sealed`). A connection may end at any
//! time: questions that are not answered are asked again on the next one.
//! `docs/REPLICATION.md` describes every byte. `core` is the only user; the bytes
//! of a connection are made by whoever speaks HTTP.

mod answering;
mod asking;
mod error;
mod frame;
mod handshake;
mod limit;
mod message;
mod sealed;

pub use answering::{Answered, Disks, answer};
pub use asking::Line;
pub use error::{Error, Result};
pub use handshake::{End, EphemeralKey, Keys, PUBLIC_KEY_BYTES};
pub use limit::Limit;
pub use sealed::{Connection, Stream};

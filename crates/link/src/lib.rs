//! The line between two servers by which a backup is replicated, and between an
//! agent and its server.
//!
//! Who has the bytes opens a connection and answers; the server that is to have
//! them asks: how large a disk is, where its data lies, what has changed since an
//! earlier backup, what the ids of blocks are under its own key, and for the bytes
//! of those that it lacks. So the writing side runs the same pipeline as for any
//! other disk or tree, and what is right is decided in one place.
//!
//! Nothing on the line can be read, changed, repeated or put in another order
//! without notice ([`handshake`](Keys), `sealed`). A connection may end at any
//! time: questions that are not answered are asked again on the next one.
//! `docs/REPLICATION.md` and `docs/AGENT.md` describe every byte. `core` asks, `core`
//! and `agent` answer; the bytes of a connection are made by whoever speaks HTTP.

mod answering;
mod asking;
pub mod enrolment;
mod error;
mod frame;
mod handshake;
mod limit;
mod message;
mod sealed;

pub use answering::{Answered, Disks, Held, Host, HostEnd, PiecesWanted, Taken, answer};
pub use asking::Line;
pub use error::{Error, Result};
pub use handshake::{End, EphemeralKey, Instance, Keys, PUBLIC_KEY_BYTES, Purpose};
pub use limit::Limit;
pub use message::ChunkKeys;
pub use message::tree::{SelectedPath, Selection, Target};
pub use sealed::{Connection, Stream};

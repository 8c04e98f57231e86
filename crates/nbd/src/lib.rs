//! Serves a disk by the Network Block Device protocol: QEMU boots from it,
//! `nbdcopy` reads it, `nbdfuse` mounts it.
//!
//! The server side, and only that: fixed newstyle negotiation, structured
//! replies, `base:allocation`, read-only disks and ones to write to
//! ([`Overlay`]). Where the connection comes from, who may use it and which
//! disk it serves is up to the caller: `core` opens disks of backups, `server`
//! hands connections over. Source for every message: the NBD project's `doc/proto.md`.
//!
//! The client is not trusted: whatever it sends, it gets an answer or loses its
//! connection, and never holds more than the named limits.

mod error;
mod handshake;
mod overlay;
mod reply;
mod transmission;
mod wire;

use std::fmt;
use std::sync::Arc;

use cairn_types::disk::{DiskReader, DiskWriter};
use tokio::io::{AsyncRead, AsyncWrite};

pub use error::{Error, Result};
pub use overlay::Overlay;

/// A disk as it is served.
#[derive(Clone)]
pub enum Disk {
    /// One that nobody can write to.
    ReadOnly(Arc<dyn DiskReader>),
    /// One to write to.
    Writable(Arc<dyn DiskWriter>),
}

impl Disk {
    fn reader(&self) -> &dyn DiskReader {
        match self {
            Self::ReadOnly(disk) => disk.as_ref(),
            Self::Writable(disk) => disk.as_ref(),
        }
    }

    fn writer(&self) -> Option<&dyn DiskWriter> {
        match self {
            Self::ReadOnly(_) => None,
            Self::Writable(disk) => Some(disk.as_ref()),
        }
    }

    /// The disk's size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.reader().size_bytes()
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly(_) => "ReadOnly",
            Self::Writable(_) => "Writable",
        })
    }
}

/// Serves a disk to whoever is at the other end of a stream, until they have enough
/// of it. Must be called on a runtime; the disk is read off its async threads.
///
/// Errors: `Invalid` the client broke the protocol; `Transient` the stream
/// broke, or the client did not say what it wants for a long time.
pub async fn serve<S>(stream: S, disk: Disk) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut stream = stream;
    match handshake::negotiate(&mut stream, &disk).await? {
        Some(agreed) => transmission::run(stream, disk, agreed).await,
        None => Ok(()),
    }
}

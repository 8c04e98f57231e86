//! A client of the Network Block Device protocol, enough of it to read and
//! write a disk that `qemu-nbd` or a running QEMU serves: fixed newstyle negotiation, structured
//! replies, block status by `base:allocation` or a dirty bitmap.
//!
//! The server is not trusted: whatever it answers, the client returns an error
//! or a right result, never panics, and never holds more than the named limits.
//! Source for every constant: the NBD project's `doc/proto.md`.

mod connection;
mod pool;
mod wire;

pub(crate) use connection::{Connection, Context};
pub(crate) use pool::{MAX_CONNECTIONS, Pool};

use std::io;

/// Bytes that one read or write moves at most.
pub(crate) const MAX_TRANSFER_BYTES: u32 = 4 << 20;
/// Bytes that one question about allocation covers: the most of whole 64 KiB that the length field holds.
const MAX_STATUS_BYTES: u32 = u32::MAX - 0xffff;
/// Bytes that one request for zeros covers.
const MAX_ZEROES_BYTES: u32 = 1 << 30;
/// Bytes of one option reply, of which export names and texts are the longest.
const MAX_OPTION_BYTES: u32 = 64 << 10;
/// Option replies read before the negotiation is given up.
const MAX_OPTION_REPLIES: usize = 64;
/// Bytes of one reply about allocation: as many extents as QEMU sends at most, and the context id.
const MAX_STATUS_REPLY_BYTES: u32 = (1 << 20) + 4;
/// Bytes of an error reply: the message, and what stands around it.
const MAX_ERROR_REPLY_BYTES: u32 = 4096 + 14;
/// Chunks that the reply to one request may come in.
const MAX_REPLY_CHUNKS: usize = 16_384;

/// Why a request was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NbdError {
    /// The connection failed.
    #[error("the connection to the NBD server failed")]
    Io(#[from] io::Error),
    /// The server broke the protocol.
    #[error("the NBD server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The server answered with an error; the connection stays usable.
    #[error("the NBD server answered with error {code} {message}")]
    Refused {
        /// An `errno` of the protocol.
        code: u32,
        /// What the server said, if it did.
        message: String,
    },
}

impl NbdError {
    /// Whether the connection can go on after it.
    fn is_answer(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl From<NbdError> for io::Error {
    fn from(error: NbdError) -> Self {
        match error {
            NbdError::Io(error) => error,
            NbdError::Protocol(_) => io::Error::new(io::ErrorKind::InvalidData, error),
            // The protocol's errors have the numbers of Linux.
            NbdError::Refused { code, .. } => match i32::try_from(code) {
                Ok(code @ (1 | 5 | 12 | 22 | 28 | 75 | 95)) => io::Error::from_raw_os_error(code),
                _ => io::Error::other(error),
            },
        }
    }
}

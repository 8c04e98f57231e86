//! Why a line cannot be used, or not for what was asked.

use std::io;

use cairn_types::Kind;
use cairn_types::disk::{DiskError, DiskOperation};

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a line cannot be used, or not for what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection ended, or nothing comes any more.
    #[error("the connection to the other end was lost")]
    Lost(#[source] Option<io::Error>),
    /// What came was not written by who knows the keys, or not for here and now.
    #[error("what came from the other end is not authentic")]
    NotAuthentic,
    /// What came is no message, or not the one that was due.
    #[error("what came from the other end is not understood: {0}")]
    Malformed(&'static str),
    /// The other end speaks another version.
    #[error("the other end speaks version {found} of the protocol, this one {known}")]
    Version {
        /// What it speaks.
        found: u16,
        /// What this end speaks.
        known: u16,
    },
    /// What has come is another agent with the same identity, or the same on a host that was
    /// started again.
    #[error(
        "the connection is of another host with the same identity, or of the same since it was started again"
    )]
    OtherInstance,
    /// The other end could not do what it was asked.
    #[error("the other end failed: {text}")]
    Elsewhere {
        /// What to do about it.
        kind: Kind,
        /// Why, in its words.
        text: String,
    },
    /// The work was asked to stop.
    #[error("stopped as asked")]
    Cancelled,
}

impl Error {
    /// What a caller should do about it.
    pub const fn kind(&self) -> Kind {
        match self {
            // Whoever broke in is shut out with the connection; the next may be better.
            Self::Lost(_) | Self::NotAuthentic | Self::OtherInstance => Kind::Transient,
            Self::Malformed(_) | Self::Version { .. } => Kind::Invalid,
            Self::Elsewhere { kind, .. } => *kind,
            Self::Cancelled => Kind::Cancelled,
        }
    }

    /// The same as the failure of a disk.
    pub(crate) fn of_disk(self, disk: &str, operation: DiskOperation, offset: u64) -> DiskError {
        let kind = match self.kind() {
            Kind::Transient | Kind::Cancelled => io::ErrorKind::ConnectionReset,
            Kind::NotFound => io::ErrorKind::NotFound,
            Kind::Denied => io::ErrorKind::PermissionDenied,
            Kind::Corrupt => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::InvalidInput,
        };
        DiskError {
            disk: disk.to_owned(),
            operation,
            offset,
            length: 0,
            source: io::Error::new(kind, self),
        }
    }
}

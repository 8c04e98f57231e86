//! Why a connection ended before its time.

use std::io;

use cairn_types::Kind;

/// What a call of this crate gives.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream broke.
    #[error("the connection of an NBD client broke")]
    Io(#[from] io::Error),
    /// The client broke the protocol in a way that leaves nothing to answer.
    #[error("an NBD client broke the protocol: {0}")]
    Protocol(&'static str),
    /// The client did not finish the negotiation.
    #[error("an NBD client did not say within {seconds} s what it wants")]
    TooSlow {
        /// How long it was waited for.
        seconds: u64,
    },
    /// There is no room for what is written to the disk.
    #[error("cannot keep what is written to the disk")]
    Scratch(#[source] io::Error),
}

impl Error {
    /// What a caller should do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Protocol(_) => Kind::Invalid,
            Self::Io(_) | Self::TooSlow { .. } => Kind::Transient,
            Self::Scratch(error) if error.kind() == io::ErrorKind::StorageFull => Kind::Exhausted,
            Self::Scratch(_) => Kind::Transient,
        }
    }
}

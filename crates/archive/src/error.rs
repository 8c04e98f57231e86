//! Why an archive could not be read.

use std::io;

use cairn_types::Kind;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The archive's bytes do not come.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// It is not what an archive is.
    #[error("the archive is damaged at byte {at}: {why}")]
    Damaged {
        /// Where.
        at: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// An entry has a name that leads out of the archive's tree.
    #[error("the archive has the name {path:?}, which would lead out of it")]
    BadName {
        /// The name.
        path: String,
    },
}

impl Error {
    /// What a caller should do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read(_) => Kind::Transient,
            Self::Damaged { .. } | Self::BadName { .. } => Kind::Corrupt,
        }
    }
}

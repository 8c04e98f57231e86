//! What can go wrong with the trail.

use std::path::PathBuf;

use cairn_types::Kind;

/// What a call of this crate gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with the trail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {what} {path}")]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A line is not what was written there.
    #[error("{path}, line {line}: {problem}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file of the trail is not there.
    #[error("{path} is missing: the trail goes on behind it")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The head that was kept elsewhere is not in the trail.
    #[error("the head kept from an earlier check, {head}, is not in the trail: lines were removed")]
    HeadGone {
        /// The head's code.
        head: String,
    },
    /// The trail's writer has ended.
    #[error("the audit trail is closed")]
    Closed,
}

impl Error {
    /// What a caller should do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Kind::Exhausted
            }
            Self::File { .. } | Self::Closed => Kind::Transient,
            Self::Broken { .. } | Self::Missing { .. } | Self::HeadGone { .. } => Kind::Corrupt,
        }
    }

    pub(crate) fn file(
        what: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

//! Why the repository could not do what it was asked.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use cairn_types::disk::DiskError;
use cairn_types::tree::TreeGone;
use cairn_types::{BackupId, Kind, ProjectId};

use crate::chunk::ChunkId;
use crate::store::Answer;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the repository could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A master key in text form is wrong.
    #[error("a master key is 64 hexadecimal digits")]
    InvalidMasterKey,
    /// The repository was made with another master key.
    #[error("the master key does not open {object}")]
    WrongMasterKey {
        /// What was to be opened.
        object: String,
    },
    /// There is no repository in the store.
    #[error("there is no repository here")]
    NoRepository,
    /// The store already holds a repository.
    #[error("there is a repository here already")]
    RepositoryExists,
    /// An object was written by a newer version.
    #[error("{object} has format {found}; this version reads format {known}")]
    UnknownFormat {
        /// The object.
        object: String,
        /// The format that it names.
        found: u16,
        /// The newest format that can be read.
        known: u16,
    },
    /// Another process has given the repository another master key.
    #[error("somebody else has just given the repository another master key")]
    KeyReplaced,
    /// Another process has become the repository's writer.
    #[error("another process has opened the repository for writing: this one writes no more")]
    Fenced,
    /// The repository was opened for reading.
    #[error("the repository is open for reading only")]
    ReadOnly,
    /// A listing lacks what is there.
    #[error("the store's listing lacks {object}, which is there")]
    StaleListing {
        /// The object.
        object: String,
    },
    /// What a backup needs is not known, so nothing can be removed.
    #[error("nothing is removed: backup {backup} cannot be read in full")]
    Unreadable {
        /// The backup.
        backup: BackupId,
        /// What is wrong with it.
        #[source]
        source: Box<Error>,
    },
    /// The project has nothing in the repository.
    #[error("project {project} has nothing in the repository")]
    NoProject {
        /// The project.
        project: ProjectId,
    },
    /// There is no such backup.
    #[error("there is no backup {backup}")]
    NoBackup {
        /// The backup.
        backup: BackupId,
    },
    /// The backup exists already, or is being written.
    #[error("backup {backup} exists or is being written")]
    BackupExists {
        /// The backup.
        backup: BackupId,
    },
    /// A collection needs the project to itself, and somebody is at work in it.
    #[error("the project's repository is in use")]
    InUse,
    /// A group has no bytes of its own to restore.
    #[error("backup {backup} is a group of disks, not a disk")]
    NotADisk {
        /// The backup.
        backup: BackupId,
    },
    /// Only a tree of files has entries.
    #[error("backup {backup} is not a tree of files")]
    NotATree {
        /// The backup.
        backup: BackupId,
    },
    /// A tree of files could not be read or written, other than one entry of it.
    #[error("cannot {action} {}", shown(path))]
    Tree {
        /// What was being done.
        action: &'static str,
        /// The path in the tree; empty for its own directory.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A restore was asked for an entry that the backup does not have.
    #[error("backup {backup} holds no {path:?}")]
    NoEntry {
        /// The backup.
        backup: BackupId,
        /// The path that was asked for.
        path: String,
    },
    /// The target of a restore is smaller than the disk.
    #[error("the target has {target_bytes} bytes, the disk {disk_bytes}")]
    TargetTooSmall {
        /// The target's size.
        target_bytes: u64,
        /// The disk's size.
        disk_bytes: u64,
    },
    /// What was restored reads back as something else.
    #[error("what was restored of backup {backup} does not read back as the disk that was saved")]
    RestoreDiffers {
        /// The backup.
        backup: BackupId,
    },
    /// An entry that was restored reads back as something else.
    #[error("{path:?} does not read back as what was saved")]
    TreeDiffers {
        /// Its path.
        path: String,
    },
    /// An object is not what was stored.
    #[error("{object} is damaged: {problem}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An object that something refers to is gone.
    #[error("{object} is missing")]
    Missing {
        /// The object.
        object: String,
    },
    /// A chunk that a backup needs is in no pack.
    #[error("chunk {id} is in no pack")]
    NoChunk {
        /// The chunk.
        id: ChunkId,
    },
    /// A stored chunk is not what its id names.
    #[error("chunk {id} is damaged: {problem}")]
    DamagedChunk {
        /// The chunk.
        id: ChunkId,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A group of more disks than a manifest takes.
    #[error("a group of {disks} disks; {limit} is the limit")]
    GroupTooLarge {
        /// How many were given.
        disks: usize,
        /// How many may be.
        limit: usize,
    },
    /// The disk gave other bytes when it was read again.
    #[error("the disk changed at byte {offset} while it was read")]
    DiskChanged {
        /// Where, in bytes.
        offset: u64,
    },
    /// Another session was storing a part of the tree too, and did not get to it.
    #[error("another backup that was storing the same bytes gave up")]
    GivenUp,
    /// Sealed bytes did not open to what went in; nothing was stored of them.
    #[error("a frame did not open to what was sealed: this machine's memory or processor fails")]
    FrameDiffers,
    /// The object store failed.
    #[error("cannot {action} {object}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// To which object.
        object: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The folder of a local store cannot be used.
    #[error("cannot {action} {path}")]
    Folder {
        /// What was being done.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The bucket of a remote store cannot be used.
    #[error("cannot use the bucket {bucket}")]
    Bucket {
        /// The bucket, and where in it.
        bucket: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// Another process works on the local store.
    #[error("another process has {path} open for writing")]
    FolderLocked {
        /// The store's folder.
        path: PathBuf,
    },
    /// A file of the local index cannot be used.
    #[error("cannot {action} {path} of the local index")]
    LocalIndex {
        /// What was being done.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of the local index is not what was written. The index is made
    /// anew from the repository when it is used next.
    #[error("{path} of the local index is damaged: {problem}")]
    LocalIndexDamaged {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The local index must be made anew, and somebody still uses it.
    #[error("the local index must be made anew, and others still work with it")]
    UnsoundIndexInUse,
    /// The disk could not be read or written.
    #[error("the disk failed")]
    Disk(#[from] DiskError),
    /// The work was asked to stop.
    #[error("stopped as asked")]
    Cancelled,
    /// A worker ended without an answer.
    #[error("a worker thread ended without an answer")]
    WorkerLost,
}

/// A path in a tree, as it is told of.
fn shown(path: &str) -> String {
    match path {
        "" => "the top folder".to_owned(),
        path => format!("{path:?}"),
    }
}

impl Error {
    /// What a caller should do about it; the only thing callers branch on.
    pub fn kind(&self) -> Kind {
        match self {
            Self::InvalidMasterKey
            | Self::UnknownFormat { .. }
            | Self::NotADisk { .. }
            | Self::NotATree { .. }
            | Self::GroupTooLarge { .. }
            | Self::TargetTooSmall { .. } => Kind::Invalid,
            Self::WrongMasterKey { .. } | Self::ReadOnly => Kind::Denied,
            Self::NoRepository
            | Self::NoProject { .. }
            | Self::NoBackup { .. }
            | Self::NoEntry { .. } => Kind::NotFound,
            Self::RepositoryExists
            | Self::BackupExists { .. }
            | Self::InUse
            | Self::KeyReplaced
            | Self::Fenced
            | Self::FolderLocked { .. } => Kind::Conflict,
            Self::RestoreDiffers { .. }
            | Self::TreeDiffers { .. }
            | Self::Damaged { .. }
            | Self::Missing { .. }
            | Self::NoChunk { .. }
            | Self::DamagedChunk { .. }
            | Self::FrameDiffers => Kind::Corrupt,
            Self::Store { source, .. } | Self::Bucket { source, .. } => store_kind(source),
            Self::Folder { source, .. } => io_kind(source),
            // It is a cache: what it fails by says nothing of what the repository holds.
            Self::LocalIndex { source, .. } => match io_kind(source) {
                Kind::Corrupt | Kind::NotFound | Kind::Invalid => Kind::Transient,
                kind => kind,
            },
            Self::LocalIndexDamaged { .. } | Self::UnsoundIndexInUse => Kind::Transient,
            Self::Tree { source, .. } => tree_io_kind(source),
            // A disk that is itself a backup fails by an error of the repository.
            Self::Disk(failed) => match failed.source.get_ref().map(|inner| inner.downcast_ref()) {
                Some(Some(inner)) => Self::kind(inner),
                _ => io_kind(&failed.source),
            },
            Self::DiskChanged { .. } | Self::GivenUp | Self::StaleListing { .. } => Kind::Transient,
            Self::Unreadable { source, .. } => source.kind(),
            Self::Cancelled => Kind::Cancelled,
            Self::WorkerLost => Kind::Bug,
        }
    }

    /// Whether a tree failed as a whole: it is itself a backup that cannot be read, or at
    /// the other end of a line that is lost.
    pub(crate) fn is_of_the_whole_tree(&self) -> bool {
        let Self::Tree { source, .. } = self else {
            return false;
        };
        let inner = source.get_ref();
        inner.is_some_and(|inner| inner.is::<Self>() || inner.is::<TreeGone>())
    }
}

impl Error {
    /// Whether a local index that failed so must not be relied on any more: its
    /// bytes cannot be had, or may not be the ones that were written.
    pub(crate) fn is_unsound_index(&self) -> bool {
        match self {
            Self::LocalIndexDamaged { .. } => true,
            Self::LocalIndex { action, .. } => *action == "read",
            _ => false,
        }
    }
}

/// What a failure of the object store asks of the caller. An object that is
/// missing where one was named is `Transient` here: callers who know that it
/// must exist, or may not, say so before they get here.
fn store_kind(error: &object_store::Error) -> Kind {
    use object_store::Error as Store;
    match error {
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => Kind::Denied,
        Store::AlreadyExists { .. } | Store::Precondition { .. } => Kind::Conflict,
        Store::NotSupported { .. } | Store::NotImplemented { .. } => Kind::Invalid,
        Store::InvalidPath { .. } => Kind::Bug,
        other => match Answer::behind(other).map(|answer| answer.status) {
            Some(401 | 403) => Kind::Denied,
            // "Insufficient Storage".
            Some(507) => Kind::Exhausted,
            Some(_) => Kind::Transient,
            None => io_cause(other).map_or(Kind::Transient, store_io_kind),
        },
    }
}

/// The system's error behind an error of the store, if there is one.
fn io_cause(error: &object_store::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

/// As `io_kind`, but of the store only the medium's own error means damage:
/// what else may be wrong there says nothing of what it holds.
fn store_io_kind(error: &io::Error) -> Kind {
    match io_kind(error) {
        Kind::Corrupt if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            Kind::Corrupt
        }
        Kind::Corrupt | Kind::NotFound | Kind::Invalid => Kind::Transient,
        kind => kind,
    }
}

/// As `io_kind`; a process that has too much open may have less open later.
/// A tree that is itself a backup fails by an error of the repository.
fn tree_io_kind(error: &io::Error) -> Kind {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    if exhausted.contains(&error.raw_os_error()) {
        return Kind::Exhausted;
    }
    let inner = error.get_ref();
    if let Some(gone) = inner.and_then(|inner| inner.downcast_ref::<TreeGone>()) {
        return gone.kind;
    }
    match inner.and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.kind(),
        None => io_kind(error),
    }
}

/// What a failed system call asks of the caller; a disk that does not give its bytes is `Corrupt`.
fn io_kind(error: &io::Error) -> Kind {
    use io::ErrorKind as Io;
    match error.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge | Io::OutOfMemory => Kind::Exhausted,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
        Io::NotFound => Kind::NotFound,
        Io::Interrupted
        | Io::TimedOut
        | Io::WouldBlock
        | Io::ResourceBusy
        | Io::BrokenPipe
        | Io::ConnectionAborted
        | Io::ConnectionRefused
        | Io::ConnectionReset
        | Io::NotConnected => Kind::Transient,
        Io::InvalidInput => Kind::Invalid,
        _ => Kind::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store_error(kind: io::ErrorKind) -> Error {
        Error::Store {
            action: "write",
            object: "x".into(),
            source: object_store::Error::Generic {
                store: "test",
                source: io::Error::from(kind).into(),
            },
        }
    }

    #[test]
    fn a_full_store_is_told_from_one_that_stumbled() {
        assert_eq!(
            store_error(io::ErrorKind::StorageFull).kind(),
            Kind::Exhausted
        );
        assert_eq!(store_error(io::ErrorKind::Other).kind(), Kind::Transient);
        assert_eq!(
            store_error(io::ErrorKind::PermissionDenied).kind(),
            Kind::Denied
        );
    }
}

//! The repository: where the bytes of backups are kept.
//!
//! It cuts disks into chunks, stores each chunk once, compressed and sealed, in
//! immutable packs over any object store, and gives disks back exactly as they
//! were or not at all. `docs/FORMAT.md` describes every byte of it.
//!
//! The pure half (`chunk whole seal frame pack tree index manifest receipt`) does no
//! I/O; the other half (`write read stored collect verify check store`) does little else. A
//! backup exists if and only if its receipt does: packs are written first, then
//! the index, the manifest and the receipt, each durable before the next, and
//! deletion goes backwards. What makes each pair of operations safe beside the
//! other is in `docs/CONCURRENCY.md`.

mod base;
mod buffer;
mod bulk;
mod changes;
mod check;
mod chunk;
mod codec;
mod collect;
mod error;
mod filetree;
mod frame;
mod frame_cache;
mod frames;
mod index;
mod index_files;
mod keys;
mod known;
mod log;
mod look;
mod losses;
mod manifest;
mod marks;
mod objects;
mod pack;
mod packer;
mod parity;
mod project;
mod random;
mod read;
mod receipt;
mod removal;
mod repair;
mod repository;
mod restore;
mod rewrite;
mod scan;
mod seal;
mod store;
mod stored;
mod stored_backup;
mod tree;
mod upload;
mod verify;
mod whole;
mod workers;
mod write;

pub use cairn_types::VerifyLevel;
pub use check::{CheckReport, check_whole};
pub use chunk::{ChunkId, block_id};
pub use collect::Collected;
pub use error::{Error, Result};
pub use filetree::{
    Cutter, PieceRead, PieceReader, Problem, ProblemKind, RestoreTree, TreeSummary, WriteTree,
    WrittenTree,
};
pub use keys::{MasterKey, RootKey};
pub use look::Found;
pub use manifest::Child;
pub use pack::{NotAPackId, PackId};
pub use parity::{Parity, Protected};
pub use project::{Listed, OnPack, Project};
pub use repair::Repaired;
pub use repository::Repository;
pub use restore::Restored;
pub use store::{
    Creation, FileCall, LimitedStore, Limits, LocalStore, RemoteStore, RetryPolicy, S3Config,
    S3Credentials, S3Store, Watch,
};
pub use stored_backup::StoredBackup;
pub use tree::Root;
pub use verify::{Hurt, VerifyReport};
pub use write::{WriteDisk, Written};

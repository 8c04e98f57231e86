//! Trees of files: saved as one list of entries per directory, restored, and walked.
//!
//! A file of up to `PIECE_BYTES_MAX` is one chunk; a larger one is cut where its
//! own bytes say (`cut`), so that what is inserted in the middle changes few
//! chunks. A directory's entries are a list (`entry`, `list`) whose nodes are
//! chunks too, so that a directory that has not changed is the same node in
//! every backup. `docs/FORMAT.md` describes every byte of it.

mod compare;
mod content;
mod cut;
mod directory;
mod distant;
mod entry;
mod list;
mod old;
mod pieces;
mod queue;
mod restore;
mod store;
mod stored;
mod summary;
mod walk;
mod window;
mod write;

pub use cut::Cutter;
pub use pieces::{PieceRead, PieceReader};
pub use restore::RestoreTree;
pub use summary::{Problem, ProblemKind, TreeSummary};
pub use write::{WriteTree, WrittenTree};

pub(crate) use entry::{Held, NodeRef, Piece, Record};
pub(crate) use list::ListKind;
pub(crate) use restore::restore_tree;
pub(crate) use store::DEPTH_MAX;
pub(crate) use stored::open_tree;
pub(crate) use summary::{decode_summary, encode_summary};
pub(crate) use walk::{branch, leaf, piece_leaf, walk};
pub(crate) use write::{text, write_tree};

/// Bytes of a file in one chunk, at most.
pub(crate) const PIECE_BYTES_MAX: usize = 512 << 10;

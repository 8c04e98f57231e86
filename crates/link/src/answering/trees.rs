//! Answering for the files of a host. Every question names what it asks about by its
//! path, so that nothing but the numbers of trees is lost with a connection; directories
//! that were asked about last are kept open.

mod directory;
mod files;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::Kind;
use cairn_types::disk::BlockId;
use cairn_types::tree::{DistantPiece, FileReader, TreeReader};

use super::Answerer;
use crate::message::tree::{Selection, TreeQuestion};
use crate::message::tree_answer::TreeAnswer;
use crate::message::{Answer, ChunkKeys, Question};
use directory::Directories;

/// Trees that are open at a time on a connection.
const TREES_MAX: usize = 64;

/// The host whose files are asked about.
pub trait Host: Send + Sync + 'static {
    /// Opens what of its files is selected. May block.
    fn open(&self, selection: &Selection) -> io::Result<Arc<dyn TreeReader>>;

    /// The id of plain bytes under the other end's key; zero for zeros.
    fn id(&self, keys: &ChunkKeys, plain: &[u8]) -> BlockId;

    /// Of what pieces a file is, cut as the other end cuts.
    fn pieces(&self, keys: &ChunkKeys, wanted: PiecesWanted<'_>) -> io::Result<Vec<DistantPiece>>;
}

/// The pieces of a file that are wanted.
#[derive(Clone, Copy)]
pub struct PiecesWanted<'f> {
    /// The file.
    pub file: &'f dyn FileReader,
    /// How long it was when it was asked.
    pub size_bytes: u64,
    /// Where the first piece starts.
    pub from: u64,
    /// No piece is begun behind so many.
    pub pieces_max: usize,
    /// No piece is begun behind so many bytes that had to be read.
    pub bytes_max: u64,
}

/// A host as all its connections share it.
pub struct HostEnd {
    host: Arc<dyn Host>,
}

impl HostEnd {
    /// This host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }
}

/// What a connection has opened.
pub(super) struct Session {
    keys: ChunkKeys,
    end: Arc<HostEnd>,
    open: Mutex<HashMap<u32, Arc<Tree>>>,
}

struct Tree {
    directories: Directories,
}

impl Session {
    pub fn new(keys: ChunkKeys, end: Arc<HostEnd>) -> Self {
        Self {
            keys,
            end,
            open: Mutex::default(),
        }
    }

    fn host(&self) -> &dyn Host {
        &*self.end.host
    }

    fn tree(&self, number: u32) -> Option<Arc<Tree>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&number).cloned()
    }

    fn open(&self, number: u32, selection: &Selection) -> io::Result<TreeAnswer> {
        let reader = self.host().open(selection)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= TREES_MAX {
            return Err(io::Error::other("too many trees are open"));
        }
        let directories = Directories::new(reader);
        open.insert(number, Arc::new(Tree { directories }));
        Ok(TreeAnswer::Opened)
    }

    fn ask(&self, number: u32, question: TreeQuestion) -> io::Result<TreeAnswer> {
        if let TreeQuestion::Open(selection) = &question {
            return self.open(number, selection);
        }
        let Some(tree) = self.tree(number) else {
            return Ok(TreeAnswer::NotOpen);
        };
        match question {
            TreeQuestion::Open(_) => unreachable!("it was answered above"),
            TreeQuestion::List { path, after } => tree.list(&path, &after),
            TreeQuestion::About { path } => tree.about(&path),
            TreeQuestion::Files { path, names } => self.files(&tree, &path, &names),
            TreeQuestion::Pieces { path, from } => self.more_pieces(&tree, &path, from),
            TreeQuestion::Read { path, ranges } => tree.read(&path, &ranges),
            TreeQuestion::Ids { path, ranges } => self.ids(&tree, &path, &ranges),
        }
    }
}

impl Answerer for Session {
    fn is_alone(&self, question: &Question) -> bool {
        // What is asked next may be about the tree that is opened now.
        matches!(
            question,
            Question::Tree {
                question: TreeQuestion::Open(_),
                ..
            }
        )
    }

    fn answer(&self, question: Question) -> Result<Answer, (Kind, String)> {
        let Question::Tree { tree, question } = question else {
            return Err((Kind::Invalid, "there are no disks here".to_owned()));
        };
        let answer = self.ask(tree, question);
        let refused = |error: io::Error| TreeAnswer::Refused(error.into());
        Ok(Answer::Tree(answer.unwrap_or_else(refused)))
    }
}

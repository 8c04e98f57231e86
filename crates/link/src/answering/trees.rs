//! Answering for the files of a host. Every question names what it asks about by its
//! path, so that nothing but the numbers of trees is lost with a connection; directories
//! that were asked about last are kept open.

mod directory;
mod files;
mod held;
mod writing;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cairn_types::disk::BlockId;
use cairn_types::tree::{DistantPiece, FileReader, TreeReader, TreeWriter};
use cairn_types::{Kind, Timestamp};

use super::Answerer;
use crate::message::tree::{Selection, Target, TreeQuestion};
use crate::message::tree_answer::TreeAnswer;
use crate::message::{Answer, ChunkKeys, Question};
use directory::Directories;
pub use held::Held;
use writing::{Turns, Writing};

/// Trees that are open at a time on a connection.
const TREES_MAX: usize = 64;

/// The host whose files are asked about.
pub trait Host: Send + Sync + 'static {
    /// The time by the clock that its files are stamped by.
    fn now(&self) -> Timestamp;

    /// Brings its applications to rest, for so long at most, or until they are let go. May block.
    ///
    /// Errors: why they are not at rest; they go on.
    fn freeze(&self, held: Duration) -> io::Result<Held>;

    /// Opens what of its files is selected. May block.
    fn open(&self, selection: &Selection) -> io::Result<Arc<dyn TreeReader>>;

    /// Opens a folder of it to restore into. May block.
    fn open_target(&self, target: &Target) -> io::Result<Arc<dyn TreeWriter>>;

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
    /// The targets that are written to, by their paths.
    writing: Turns,
}

impl HostEnd {
    /// This host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        let writing = Turns::default();
        Self { host, writing }
    }
}

/// What a connection has opened.
pub(super) struct Session {
    keys: ChunkKeys,
    end: Arc<HostEnd>,
    open: Mutex<HashMap<u32, Arc<Tree>>>,
    /// What is at rest until it is let go, or the connection ends.
    held: Mutex<Option<Held>>,
}

struct Tree {
    directories: Directories,
    /// Of a target: what is being written.
    writing: Option<Writing>,
}

impl Session {
    pub fn new(keys: ChunkKeys, end: Arc<HostEnd>) -> Self {
        Self {
            keys,
            end,
            open: Mutex::default(),
            held: Mutex::default(),
        }
    }

    fn host(&self) -> &dyn Host {
        &*self.end.host
    }

    fn tree(&self, number: u32) -> Option<Arc<Tree>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&number).cloned()
    }

    /// Opens a tree, unless it is open: several may find out that it is not.
    fn open(&self, number: u32, open: impl FnOnce() -> io::Result<Tree>) -> io::Result<TreeAnswer> {
        if self.tree(number).is_some() {
            return Ok(TreeAnswer::Opened);
        }
        let tree = Arc::new(open()?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= TREES_MAX {
            return Err(io::Error::other("too many trees are open"));
        }
        open.insert(number, tree);
        Ok(TreeAnswer::Opened)
    }

    fn open_selection(&self, selection: &Selection) -> io::Result<Tree> {
        let reader = self.host().open(selection)?;
        Ok(Tree {
            directories: Directories::new(reader),
            writing: None,
        })
    }

    fn open_target(&self, target: &Target) -> io::Result<Tree> {
        let writer = self.host().open_target(target)?;
        let turn = self.end.writing.of(&target.path);
        Ok(Tree {
            directories: Directories::new(writer.clone()),
            writing: Some(Writing::new(writer, turn)),
        })
    }

    fn freeze(&self, held_ms: u64) -> io::Result<TreeAnswer> {
        // Whoever has them go on on this connection waits until they are at rest.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = self.host().freeze(Duration::from_millis(held_ms))?;
        let count = begun.count;
        *held = Some(begun);
        Ok(TreeAnswer::Frozen(count))
    }

    fn thaw(&self) -> io::Result<TreeAnswer> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.take().map_or(Ok(0), Held::let_go)?;
        Ok(TreeAnswer::Thawed(count))
    }

    fn ask(&self, number: u32, question: TreeQuestion) -> io::Result<TreeAnswer> {
        match &question {
            TreeQuestion::Open(selection) => {
                return self.open(number, || self.open_selection(selection));
            }
            TreeQuestion::Time => return Ok(TreeAnswer::Time(self.host().now().as_micros())),
            TreeQuestion::Freeze { held_ms } => return self.freeze(*held_ms),
            TreeQuestion::Thaw => return self.thaw(),
            TreeQuestion::OpenTarget(target) => {
                return self.open(number, || self.open_target(target));
            }
            _ => {}
        }
        let Some(tree) = self.tree(number) else {
            return Ok(TreeAnswer::NotOpen);
        };
        match question {
            TreeQuestion::Time
            | TreeQuestion::Freeze { .. }
            | TreeQuestion::Thaw
            | TreeQuestion::Open(_)
            | TreeQuestion::OpenTarget(_) => unreachable!("it was answered above"),
            TreeQuestion::Write(packed) => tree.write(&packed),
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
        let Question::Tree { question, .. } = question else {
            return false;
        };
        // What is asked next may be about the tree that is opened now, or what is written.
        matches!(
            question,
            TreeQuestion::Open(_) | TreeQuestion::OpenTarget(_) | TreeQuestion::Write(_)
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

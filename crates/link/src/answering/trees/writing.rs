//! Writing into a folder that is restored into. A batch whose answer was lost comes again:
//! all that follows the first of its steps comes again then too, in the same order.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cairn_types::tree::{DirectoryWriter, FileWriter, TreeWriter};

use super::Tree;
use super::directory::above;
use crate::message::Reader;
use crate::message::tree_answer::{Packed, TreeAnswer, WriteFailed};
use crate::message::write::{Act, Step};

/// Directories and files that stay open, of each.
const OPEN_MAX: usize = 64;

/// Who may write to a target: one connection at a time, so that what one has not done
/// yet when it ends is not done beside what the next one does.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<Mutex<()>>>>);

impl Turns {
    pub fn of(&self, target: &str) -> Arc<Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(target).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(target.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }
}

/// A target that is being written.
pub(super) struct Writing {
    tree: Arc<dyn TreeWriter>,
    turn: Arc<Mutex<()>>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    directories: Recent<Arc<dyn DirectoryWriter>>,
    files: Recent<Arc<dyn FileWriter>>,
    /// What failed: batches that were on their way already counted on it.
    failed: Option<WriteFailed>,
}

/// What was used last, by its path.
struct Recent<T>(VecDeque<(Vec<u8>, T)>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Clone> Recent<T> {
    fn find(&mut self, path: &[u8]) -> Option<T> {
        let at = self.0.iter().rposition(|(of, _)| of == path)?;
        let found = self.0.remove(at)?;
        let value = found.1.clone();
        self.0.push_back(found);
        Some(value)
    }

    fn keep(&mut self, path: &[u8], value: T) -> T {
        self.forget(path);
        if self.0.len() >= OPEN_MAX {
            self.0.pop_front();
        }
        self.0.push_back((path.to_vec(), value.clone()));
        value
    }

    fn forget(&mut self, path: &[u8]) {
        self.0.retain(|(of, _)| of != path);
    }
}

impl Writing {
    pub fn new(tree: Arc<dyn TreeWriter>, turn: Arc<Mutex<()>>) -> Self {
        let open = Mutex::default();
        Self { tree, turn, open }
    }

    fn directory(&self, open: &mut Open, path: &[u8]) -> io::Result<Arc<dyn DirectoryWriter>> {
        match open.directories.find(path) {
            Some(directory) => Ok(directory),
            None => Ok(open.directories.keep(path, self.tree.directory(path)?)),
        }
    }

    fn file(&self, open: &mut Open, path: &[u8]) -> io::Result<Arc<dyn FileWriter>> {
        if let Some(file) = open.files.find(path) {
            return Ok(file);
        }
        let (directory, name) = above(path).ok_or(io::ErrorKind::InvalidInput)?;
        let file = self.directory(open, directory)?.open_file(name)?;
        Ok(open.files.keep(path, file))
    }

    fn step(&self, open: &mut Open, step: &Step<'_>) -> io::Result<()> {
        let path = &step.path[..];
        match &step.act {
            Act::Flush => return self.tree.flush(),
            Act::SetOwn(metadata, xattrs) => {
                return self.directory(open, path)?.set_own(metadata, xattrs);
            }
            Act::Write { offset, data } => {
                return self.file(open, path)?.write_at(*offset, data);
            }
            Act::Finish(metadata, xattrs) => {
                let file = self.file(open, path)?;
                open.files.forget(path);
                return file.finish(metadata, xattrs);
            }
            _ => {}
        }
        let (directory, name) = above(path).ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.directory(open, directory)?;
        // What is open may be what goes now.
        open.files.forget(path);
        match &step.act {
            Act::CreateDirectory => directory.create_directory(name),
            Act::CreateFile { size_bytes } => {
                open.files
                    .keep(path, directory.create_file(name, *size_bytes)?);
                Ok(())
            }
            Act::Symlink(target) => directory.create_symlink(name, target),
            Act::Special(metadata) => directory.create_special(name, metadata),
            Act::Link(first) => directory.create_link(name, first),
            Act::Set(metadata, xattrs) => directory.set(name, metadata, xattrs),
            Act::Flush | Act::SetOwn(..) | Act::Write { .. } | Act::Finish(..) => {
                unreachable!("it was done above")
            }
        }
    }
}

impl Tree {
    pub fn write(&self, packed: &Packed) -> io::Result<TreeAnswer> {
        let Some(writing) = &self.writing else {
            return Err(io::ErrorKind::PermissionDenied.into());
        };
        let plain = packed.unpack().map_err(io::Error::other)?;
        let _turn = writing.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = writing.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failed) = &open.failed {
            return Ok(TreeAnswer::Written(Err(failed.clone())));
        }
        let mut reader = Reader(&plain);
        while let Some(step) = Step::next(&mut reader).map_err(io::Error::other)? {
            if let Err(error) = writing.step(&mut open, &step) {
                let failed = WriteFailed {
                    path: step.path.into_owned(),
                    refused: error.into(),
                };
                open.failed = Some(failed.clone());
                return Ok(TreeAnswer::Written(Err(failed)));
            }
        }
        Ok(TreeAnswer::Written(Ok(())))
    }
}

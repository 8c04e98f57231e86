//! A folder of the agent's host that is restored into. What is to be done is gathered in
//! batches and sent without waiting for what became of it; whoever reads what was written
//! waits for all of it first.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cairn_types::tree::{
    DirectoryReader, DirectoryWriter, DistantDirectory, DistantFile, FileRange, FileReader,
    FileWriter, Metadata, Names, TreeReader, TreeWriter, Xattr,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::Shared;
use super::pipe::{self, Entry, Failure, WAITING_MAX};
use super::tree::{Remote, RemoteDirectory, gone};
use crate::error::Error;
use crate::frame::FRAME_BYTES;
use crate::message::tree::{Target, TreeQuestion};
use crate::message::tree_answer::{About, Packed};
use crate::message::write::{Act, Step};

/// A batch goes out once it has so many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// The folder.
pub(super) struct RemoteTarget(Arc<Inner>);

struct Inner {
    tree: Arc<Remote>,
    /// What is gathered, and where it goes; held while a batch goes there, so that none
    /// overtakes another.
    gathered: Mutex<Gathered>,
    failure: Arc<Failure>,
    /// Ends with it.
    _writing: JoinSet<()>,
}

struct Gathered {
    plain: Vec<u8>,
    /// Whether files were written since all was settled.
    files: bool,
    pipe: mpsc::Sender<Entry>,
}

impl RemoteTarget {
    pub fn new(shared: &Arc<Shared>, target: Target) -> Self {
        let tree = Arc::new(Remote::new(shared, TreeQuestion::OpenTarget(target)));
        let (pipe, entries) = mpsc::channel(WAITING_MAX);
        let (failure, mut writing) = (Arc::<Failure>::default(), JoinSet::new());
        let work = pipe::write(tree.clone(), entries, failure.clone());
        writing.spawn_on(work, &shared.handle);
        Self(Arc::new(Inner {
            tree,
            gathered: Mutex::new(Gathered {
                plain: Vec::new(),
                files: false,
                pipe,
            }),
            failure,
            _writing: writing,
        }))
    }
}

impl Inner {
    /// Has something done, some time.
    fn push(&self, path: &[u8], act: Act<'_>) -> io::Result<()> {
        self.failure.check()?;
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        gathered.files |= matches!(
            act,
            Act::CreateFile { .. } | Act::Write { .. } | Act::Finish(..)
        );
        let before = gathered.plain.len();
        let step = Step {
            path: path.into(),
            act,
        };
        step.encode(&mut gathered.plain);
        if gathered.plain.len() > FRAME_BYTES {
            let last = gathered.plain.split_off(before);
            self.send(&mut gathered)?;
            gathered.plain = last;
        }
        match gathered.plain.len() >= BATCH_BYTES {
            true => self.send(&mut gathered),
            false => Ok(()),
        }
    }

    fn send(&self, gathered: &mut Gathered) -> io::Result<()> {
        if gathered.plain.is_empty() {
            return Ok(());
        }
        let packed = Packed::pack(&gathered.plain);
        gathered.plain.clear();
        self.hand_over(gathered, Entry::Batch(packed))
    }

    fn hand_over(&self, gathered: &Gathered, entry: Entry) -> io::Result<()> {
        let handed = self
            .tree
            .shared()
            .handle
            .block_on(gathered.pipe.send(entry));
        handed.map_err(|_| gone(Error::Lost(None)))
    }

    /// Returns when all that was to be done is done.
    fn settle(&self) -> io::Result<()> {
        let (told, settled) = oneshot::channel();
        {
            let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            self.send(&mut gathered)?;
            self.hand_over(&gathered, Entry::Barrier(told))?;
            gathered.files = false;
        }
        let settled = self.tree.shared().handle.block_on(settled);
        settled.map_err(|_| gone(Error::Lost(None)))?;
        self.failure.check()
    }

    /// Returns when no file is being written; nobody else begins one meanwhile.
    fn settle_files(&self) -> io::Result<()> {
        let gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let files = gathered.files;
        drop(gathered);
        match files {
            true => self.settle(),
            false => Ok(()),
        }
    }

    fn directory(self: &Arc<Self>, path: &[u8]) -> Arc<TargetDirectory> {
        Arc::new(TargetDirectory {
            target: Arc::clone(self),
            path: path.to_vec(),
            read: OnceLock::new(),
        })
    }
}

impl TreeReader for RemoteTarget {
    fn root(&self) -> io::Result<Arc<dyn DirectoryReader>> {
        Ok(self.0.directory(b""))
    }
}

impl TreeWriter for RemoteTarget {
    fn directory(&self, path: &[u8]) -> io::Result<Arc<dyn DirectoryWriter>> {
        Ok(self.0.directory(path))
    }

    fn flush(&self) -> io::Result<()> {
        self.0.push(b"", Act::Flush)?;
        self.0.settle()
    }
}

/// A directory of it: nothing is asked before somebody wants to read.
struct TargetDirectory {
    target: Arc<Inner>,
    path: Vec<u8>,
    /// What is in it, as it was when that was first asked for.
    read: OnceLock<RemoteDirectory>,
}

impl TargetDirectory {
    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        match &self.path[..] {
            [] => name.to_vec(),
            path => [path, name].join(&b'/'),
        }
    }

    fn read(&self) -> io::Result<&RemoteDirectory> {
        if let Some(read) = self.read.get() {
            return Ok(read);
        }
        self.target.settle()?;
        let read = self.target.tree.open_directory(self.path.clone())?;
        Ok(self.read.get_or_init(|| read))
    }

    /// What the directory is now.
    fn about(&self) -> io::Result<About> {
        self.target.settle()?;
        self.target.tree.about(self.path.clone())
    }
}

impl DirectoryReader for TargetDirectory {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.about()?.metadata)
    }

    fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        Ok(self.about()?.xattrs?)
    }

    fn names(&self) -> io::Result<Names> {
        self.read()?.names()
    }

    fn metadata_of(&self, name: &[u8]) -> io::Result<Metadata> {
        self.read()?.metadata_of(name)
    }

    fn xattrs_of(&self, name: &[u8]) -> io::Result<Vec<Xattr>> {
        self.read()?.xattrs_of(name)
    }

    fn directory(&self, name: &[u8]) -> io::Result<Arc<dyn DirectoryReader>> {
        Ok(self.target.directory(&self.path_of(name)))
    }

    fn file(&self, name: &[u8]) -> io::Result<Arc<dyn FileReader>> {
        self.read()?.file(name)
    }

    fn link_target(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.read()?.link_target(name)
    }

    fn distant(&self) -> Option<&dyn DistantDirectory> {
        Some(self)
    }
}

impl DistantDirectory for TargetDirectory {
    fn files(&self, names: &[&[u8]]) -> io::Result<Vec<io::Result<DistantFile>>> {
        self.read()?.files(names)
    }

    fn more_pieces(&self, name: &[u8], from: u64) -> io::Result<DistantFile> {
        self.read()?.more_pieces(name, from)
    }

    fn read(&self, ranges: &[FileRange<'_>]) -> io::Result<Vec<io::Result<Vec<u8>>>> {
        DistantDirectory::read(TargetDirectory::read(self)?, ranges)
    }

    fn ids(&self, ranges: &[FileRange<'_>]) -> io::Result<Vec<io::Result<Option<[u8; 32]>>>> {
        TargetDirectory::read(self)?.ids(ranges)
    }
}

impl DirectoryWriter for TargetDirectory {
    fn create_directory(&self, name: &[u8]) -> io::Result<()> {
        self.target.push(&self.path_of(name), Act::CreateDirectory)
    }

    fn create_file(&self, name: &[u8], size_bytes: u64) -> io::Result<Arc<dyn FileWriter>> {
        let path = self.path_of(name);
        self.target.push(&path, Act::CreateFile { size_bytes })?;
        self.open_file(name)
    }

    fn open_file(&self, name: &[u8]) -> io::Result<Arc<dyn FileWriter>> {
        Ok(Arc::new(TargetFile {
            target: self.target.clone(),
            path: self.path_of(name),
        }))
    }

    fn create_symlink(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        self.target.push(&self.path_of(name), Act::Symlink(target))
    }

    fn create_special(&self, name: &[u8], metadata: &Metadata) -> io::Result<()> {
        let act = Act::Special(*metadata);
        self.target.push(&self.path_of(name), act)
    }

    fn create_link(&self, name: &[u8], path: &[u8]) -> io::Result<()> {
        // A file is not written any more once it has another name, and what was not answered
        // may come again.
        self.target.settle_files()?;
        self.target
            .push(&self.path_of(name), Act::Link(path.into()))
    }

    fn set(&self, name: &[u8], metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()> {
        let act = Act::Set(*metadata, xattrs.to_vec());
        self.target.push(&self.path_of(name), act)
    }

    fn set_own(&self, metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()> {
        let act = Act::SetOwn(*metadata, xattrs.to_vec());
        self.target.push(&self.path, act)
    }
}

/// A file of it.
struct TargetFile {
    target: Arc<Inner>,
    path: Vec<u8>,
}

impl FileWriter for TargetFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // With what stands before it, a part fits a batch.
        for (number, data) in (0..).zip(data.chunks(FRAME_BYTES / 2)) {
            let offset = offset + number * (FRAME_BYTES / 2) as u64;
            self.target.push(&self.path, Act::Write { offset, data })?;
        }
        Ok(())
    }

    fn finish(&self, metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()> {
        let act = Act::Finish(*metadata, xattrs.to_vec());
        self.target.push(&self.path, act)
    }
}

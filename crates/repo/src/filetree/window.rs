//! Writing what a restore has planned: files, on all cores and in the order of
//! the store. Hard links come behind the files.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cairn_types::tree::{DirectoryWriter, FileWriter, Metadata, Xattr};

use crate::bulk::{Frame, Wanted};
use crate::chunk::{ChunkId, is_zero};
use crate::error::{Error, Result};
use crate::filetree::restore::{Session, failed, join};
use crate::workers::{self, lock};

/// Runs of zeros from this length on are not written: they become holes.
const HOLE_BYTES: usize = 32 << 10;

/// A file that is to be written.
pub(crate) struct Target {
    pub directory: Arc<[u8]>,
    pub name: Box<[u8]>,
    pub metadata: Metadata,
    pub xattrs: Vec<Xattr>,
    /// Pieces that are not written yet, and one while more are being planned.
    pub left: AtomicUsize,
    /// Open from the first piece to the last.
    pub writer: Mutex<Option<Arc<dyn FileWriter>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Purpose {
    pub file: u32,
    pub offset: u64,
    pub bytes: u32,
}

/// What is planned and not written yet.
#[derive(Default)]
pub(crate) struct Window {
    pub files: Vec<Arc<Target>>,
    /// Each piece, with the number of its file and its place in that.
    pub pieces: Vec<(ChunkId, Purpose)>,
    /// Files without pieces, by number.
    pub empty: Vec<usize>,
    pub links: Vec<Link>,
}

/// A name of a file that has another.
pub(crate) struct Link {
    pub directory: Arc<[u8]>,
    pub name: Box<[u8]>,
    /// The other's path.
    pub first: Arc<[u8]>,
}

impl Window {
    /// Writes what was planned, on all cores.
    pub fn write(self, session: &Arc<Session>) -> Result<()> {
        let batch = Arc::new(Batch {
            session: session.clone(),
            files: self.files,
            empty: self.empty,
            next_empty: AtomicUsize::new(0),
        });
        let this = batch.clone();
        let count = workers::count(batch.empty.len() as u64);
        let empty = workers::run(count, &session.stop, move || this.make_empty());
        session.handle.block_on(empty)?;
        session.bulk().read(self.pieces, move || {
            let (batch, mut last) = (batch.clone(), None);
            move |frame: &Frame<'_>, wanted: &[Wanted<Purpose>]| {
                batch.write_pieces(frame, wanted, &mut last)
            }
        })?;
        for link in self.links {
            session.stop.check()?;
            let path = join(&link.directory, &link.name);
            let writer = session.open(&link.directory)?;
            let linked = writer.create_link(&link.name, &link.first);
            linked.map_err(failed("link", &path))?;
            session.stop.progress().count_entry();
        }
        Ok(())
    }
}

/// A window that is being written.
struct Batch {
    session: Arc<Session>,
    files: Vec<Arc<Target>>,
    empty: Vec<usize>,
    next_empty: AtomicUsize,
}

/// The directory that a worker wrote to last: the next file is often in it too.
type Last = Option<(Arc<[u8]>, Arc<dyn DirectoryWriter>)>;

impl Batch {
    fn make_empty(&self) -> Result<()> {
        let (session, mut last) = (&self.session, None);
        let next = || self.next_empty.fetch_add(1, Ordering::Relaxed);
        while let Some(file) = self.empty.get(next()) {
            session.stop.check()?;
            let target = &self.files[*file];
            let writer = self.writer(target, &mut last)?;
            self.finish(target, &*writer)?;
        }
        Ok(())
    }

    fn write_pieces(
        &self,
        frame: &Frame<'_>,
        wanted: &[Wanted<Purpose>],
        last: &mut Last,
    ) -> Result<()> {
        for piece in wanted {
            let plain = &frame.plain[frame.find(piece)?];
            if plain.len() != piece.purpose.bytes as usize {
                return Err(Error::DamagedChunk {
                    id: piece.id,
                    problem: "its length is not its place's",
                });
            }
            self.write(piece.purpose, plain, last)?;
        }
        Ok(())
    }

    fn write(&self, purpose: Purpose, plain: &[u8], last: &mut Last) -> Result<()> {
        let target = &self.files[purpose.file as usize];
        let writer = self.writer(target, last)?;
        let written = write_but_zeros(&*writer, purpose.offset, plain);
        written.map_err(|source| failed("write", &target.path())(source))?;
        self.session.count(plain.len() as u64);
        if target.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(target, &*writer)?;
        }
        Ok(())
    }

    /// The file, created for its first piece.
    fn writer(&self, target: &Target, last: &mut Last) -> Result<Arc<dyn FileWriter>> {
        let mut open = lock(&target.writer);
        if let Some(writer) = &*open {
            return Ok(writer.clone());
        }
        let directory = match last {
            Some((path, directory)) if *path == target.directory => directory.clone(),
            _ => {
                let opened = self.session.open(&target.directory)?;
                *last = Some((target.directory.clone(), opened.clone()));
                opened
            }
        };
        let created = directory.create_file(&target.name, target.metadata.size_bytes);
        let writer = created.map_err(|source| failed("create", &target.path())(source))?;
        self.session.stop.progress().count_entry();
        *open = Some(writer.clone());
        Ok(writer)
    }

    fn finish(&self, target: &Target, writer: &dyn FileWriter) -> Result<()> {
        let set = writer.finish(&target.metadata, &target.xattrs);
        *lock(&target.writer) = None;
        set.map_err(|source| failed("finish", &target.path())(source))
    }
}

impl Target {
    fn path(&self) -> Vec<u8> {
        join(&self.directory, &self.name)
    }
}

/// Writes a piece into a new file, without the long runs of zeros in it.
fn write_but_zeros(writer: &dyn FileWriter, offset: u64, plain: &[u8]) -> io::Result<()> {
    let mut data = 0..0;
    for start in (0..plain.len()).step_by(HOLE_BYTES) {
        let end = plain.len().min(start + HOLE_BYTES);
        let hole = end - start == HOLE_BYTES && is_zero(&plain[start..end]);
        if !hole {
            data.end = end;
            continue;
        }
        if !data.is_empty() {
            writer.write_at(offset + data.start as u64, &plain[data.clone()])?;
        }
        data = end..end;
    }
    match data.is_empty() {
        true => Ok(()),
        false => writer.write_at(offset + data.start as u64, &plain[data]),
    }
}

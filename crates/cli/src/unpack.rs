//! A directory out of a backup, written below a directory of this machine.
//!
//! What comes is believed nothing: each entry is created in a directory that was opened from the
//! target on, without a link on the way (`target.rs`), and nothing that is there is replaced. So
//! whatever the backup holds, nothing outside of the target is touched.

mod target;

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cairn_archive::{Content, Entry, Reader};
use cairn_types::FileProblems;
use cairn_types::tree::{EntryKind, Metadata, Xattr};
use serde::Serialize;
use tokio::sync::mpsc;

use self::target::{Refused, Target};
use crate::Error;
use crate::transfer::Transfer;

/// Pieces of an archive that wait to be written.
const PIECES_MAX: usize = 16;
/// Bytes of a file that are written at a time.
const WRITE_BYTES: usize = 1 << 20;

/// What was written.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Unpacked {
    pub files: u64,
    pub directories: u64,
    /// Links, pipes and devices.
    pub others: u64,
    /// Bytes of files, holes counted.
    pub size_bytes: u64,
    /// What the user, or the file system, did not allow.
    pub refused: Refused,
    /// What did not come, because it cannot be read in the backup.
    pub left_out: Option<FileProblems>,
}

/// Writes the archive that comes below a directory, which is made, or is empty.
pub(crate) async fn unpack(mut transfer: Transfer<'_>, target: &Path) -> Result<Unpacked, Error> {
    let root = prepare(target)?;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let writing = tokio::task::spawn_blocking(move || {
        let pieces = Pieces {
            receiver,
            piece: Box::new([]),
            at: 0,
        };
        write(pieces, root)
    });
    let received = async {
        while let Some((_, piece)) = transfer.next().await? {
            // Who does not take it any more has failed, and says why.
            if sender.send(piece.as_ref().into()).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let received = received.await;
    drop(sender);
    let written = writing.await.map_err(io::Error::other)?;
    let mut done = received.and(written).map_err(|error| match error {
        // Of an entry it is told where it is.
        Error::Output(source) => failed(target)(source),
        other => other,
    })?;
    done.left_out = transfer.left_out;
    Ok(done)
}

fn failed(target: &Path) -> impl Fn(io::Error) -> Error {
    |source| Error::Write {
        path: target.to_owned(),
        source,
    }
}

/// Opens the target.
fn prepare(target: &Path) -> Result<OwnedFd, Error> {
    match std::fs::create_dir(target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let wrong = |what| Error::Usage(format!("{} {what}", target.display()));
            let mut entries = std::fs::read_dir(target).map_err(|_| wrong("is no directory"))?;
            if entries.next().is_some() {
                return Err(wrong("is not empty"));
            }
        }
        made => made.map_err(failed(target))?,
    }
    let root = std::fs::File::open(target).map_err(failed(target))?;
    Ok(root.into())
}

/// Pieces of bytes as one row.
struct Pieces {
    receiver: mpsc::Receiver<Box<[u8]>>,
    piece: Box<[u8]>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Some(piece) = self.receiver.blocking_recv() else {
                return Ok(0);
            };
            (self.piece, self.at) = (piece, 0);
        }
        let length = buffer.len().min(self.piece.len() - self.at);
        buffer[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// A directory that is not done: what it is to become when all in it is written.
struct Unfinished {
    path: Vec<u8>,
    metadata: Metadata,
    xattrs: Vec<Xattr>,
}

impl Unfinished {
    /// Whether something at this path is in it.
    fn holds(&self, path: &[u8]) -> bool {
        let rest = path.strip_prefix(&self.path[..]);
        self.path.is_empty() || rest.is_some_and(|rest| rest.starts_with(b"/"))
    }

    /// Whether its owner can still work in it then.
    fn stays_open(&self) -> bool {
        self.metadata.mode & 0o700 == 0o700
    }
}

/// Writes an archive below a directory.
fn write(archive: impl Read, root: OwnedFd) -> Result<Unpacked, Error> {
    let mut writer = Writer {
        target: Target::new(root),
        done: Unpacked::default(),
        open: Vec::new(),
        late: Vec::new(),
    };
    let mut archive = Reader::new(archive);
    while let Some(entry) = archive.next_entry()? {
        let path = entry.path.clone();
        let failed = |source| Error::Unpack {
            path: PathBuf::from(String::from_utf8_lossy(&path).into_owned()),
            source,
        };
        writer.leave(&path).map_err(failed)?;
        writer.entry(entry, &mut archive).map_err(failed)?;
    }
    let finished = writer.finish();
    finished.map_err(Error::from)
}

struct Writer {
    target: Target,
    done: Unpacked,
    /// The directories on the way down to the entry before.
    open: Vec<Unfinished>,
    /// Those that one cannot work in any more once they are as they should be.
    late: Vec<Unfinished>,
}

impl Writer {
    /// Finishes the directories that an entry is not in.
    fn leave(&mut self, path: &[u8]) -> io::Result<()> {
        while self.open.last().is_some_and(|last| !last.holds(path)) {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        match self.open.pop() {
            Some(last) if last.stays_open() => {
                self.target
                    .set_directory(&last.path, &last.metadata, &last.xattrs)
            }
            Some(last) => {
                self.late.push(last);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn finish(mut self) -> io::Result<Unpacked> {
        while !self.open.is_empty() {
            self.close()?;
        }
        for last in &self.late {
            self.target
                .set_directory(&last.path, &last.metadata, &last.xattrs)?;
        }
        self.done.refused = self.target.finish()?;
        Ok(self.done)
    }

    fn entry(&mut self, entry: Entry, archive: &mut Reader<impl Read>) -> io::Result<()> {
        let Entry {
            path,
            metadata,
            xattrs,
            content,
        } = entry;
        if metadata.kind == EntryKind::Directory {
            if !path.is_empty() {
                self.target.create_directory(&path)?;
                self.done.directories += 1;
            }
            self.open.push(Unfinished {
                path,
                metadata,
                xattrs,
            });
            return Ok(());
        }
        match content {
            Content::Data(ranges) => {
                let file = self.target.create_file(&path)?;
                for range in ranges {
                    copy(archive, &file, range)?;
                }
                self.target.finish_file(&file, &metadata, &xattrs)?;
                self.done.files += 1;
                self.done.size_bytes += metadata.size_bytes;
            }
            Content::Link(first) => {
                self.target.create_link(&path, &first)?;
                self.done.others += 1;
            }
            Content::Target(target) => {
                self.target.create_symlink(&path, &target)?;
                self.target.set(&path, &metadata, &xattrs)?;
                self.done.others += 1;
            }
            Content::Nothing => {
                if self.target.create_special(&path, &metadata)? {
                    self.target.set(&path, &metadata, &xattrs)?;
                    self.done.others += 1;
                }
            }
        }
        Ok(())
    }
}

fn copy(
    archive: &mut Reader<impl Read>,
    file: &std::fs::File,
    range: std::ops::Range<u64>,
) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    let (mut at, end) = (range.start, range.end);
    let mut buffer = vec![0; WRITE_BYTES.min((end - at) as usize)];
    while at < end {
        let length = buffer.len().min((end - at) as usize);
        archive.read_exact(&mut buffer[..length])?;
        file.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

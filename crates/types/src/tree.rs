//! A tree of files as the data plane sees it: directories of named entries.
//! The real trees live in `source`.
//!
//! Names are bytes, 1 to 255 of them, without `/` and NUL, and never `.` or
//! `..`. A path is names joined by `/`; that of the tree's own directory is empty.

mod name;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::Kind;

pub use name::{read_name, write_name};

/// Bytes in a name at most.
pub const NAME_BYTES_MAX: usize = 255;

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A device that is read by characters.
    CharacterDevice,
    /// A device that is read by blocks.
    BlockDevice,
}

/// An instant as file systems keep it: seconds since 1970 UTC, and nanoseconds after that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileTime {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// Below 1,000,000,000.
    pub nanoseconds: u32,
}

/// What a file system says of an entry, apart from its name and extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: EntryKind,
    /// The twelve permission bits.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The length of a file; 0 for anything else.
    pub size_bytes: u64,
    /// When its content changed; may be set by anyone.
    pub modified: FileTime,
    /// When anything of it changed; set by the system alone.
    pub changed: FileTime,
    /// Its number in the file system.
    pub inode: u64,
    /// Whether it is a file that has other names too.
    pub linked: bool,
    /// The major and minor number of a device; 0 for anything else.
    pub device: (u32, u32),
}

/// An extended attribute; access control lists are some of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Its name with the namespace, 1 to 255 bytes.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// The names in a directory, in the order of their bytes. A million of them
/// take some 30 MB.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    /// Where each starts, and how long it is.
    spans: Vec<(u32, u8)>,
}

/// A name that no entry can have, or more names than fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a directory holds a name that no entry can have, or too many")]
pub struct NamesError;

impl Names {
    /// Gathers names, which come in any order.
    ///
    /// Errors: one is no name (`is_name`), or there are 4 GiB of them.
    pub fn collect<N: AsRef<[u8]>>(names: impl Iterator<Item = N>) -> Result<Self, NamesError> {
        let mut gathered = Self::default();
        for name in names {
            gathered.push(name.as_ref())?;
        }
        gathered.sort();
        Ok(gathered)
    }

    /// Adds a name; `sort` puts it in its place.
    ///
    /// Errors: as `collect`.
    pub fn push(&mut self, name: &[u8]) -> Result<(), NamesError> {
        let start = u32::try_from(self.bytes.len()).map_err(|_| NamesError)?;
        if !is_name(name) {
            return Err(NamesError);
        }
        self.bytes.extend_from_slice(name);
        self.spans.push((start, name.len() as u8));
        Ok(())
    }

    /// Puts the names in the order of their bytes.
    pub fn sort(&mut self) {
        let bytes = &self.bytes;
        self.spans
            .sort_unstable_by(|a, b| slice(bytes, *a).cmp(slice(bytes, *b)));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// One of them.
    pub fn get(&self, index: usize) -> &[u8] {
        slice(&self.bytes, self.spans[index])
    }

    /// The place of the first behind a name, whether or not that is there.
    pub fn place_behind(&self, name: &[u8]) -> usize {
        self.spans
            .partition_point(|span| slice(&self.bytes, *span) <= name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| slice(&self.bytes, *span))
    }
}

fn slice(bytes: &[u8], (start, length): (u32, u8)) -> &[u8] {
    &bytes[start as usize..start as usize + usize::from(length)]
}

/// Whether an entry can have this name.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// A tree to be saved. What fails, fails by what the system said; the caller knows the path.
pub trait TreeReader: Send + Sync {
    /// Opens the tree's own directory.
    fn root(&self) -> io::Result<Arc<dyn DirectoryReader>>;
}

/// An open directory of a tree. Nothing here follows a symbolic link.
pub trait DirectoryReader: Send + Sync {
    /// What the directory itself is.
    fn metadata(&self) -> io::Result<Metadata>;

    /// The directory's own extended attributes, sorted.
    fn xattrs(&self) -> io::Result<Vec<Xattr>>;

    /// The names in it, sorted.
    fn names(&self) -> io::Result<Names>;

    /// What an entry is.
    fn metadata_of(&self, name: &[u8]) -> io::Result<Metadata>;

    /// The extended attributes of an entry that is neither a file nor a directory, sorted.
    fn xattrs_of(&self, name: &[u8]) -> io::Result<Vec<Xattr>>;

    /// Opens a directory in it.
    fn directory(&self, name: &[u8]) -> io::Result<Arc<dyn DirectoryReader>>;

    /// Opens a file in it.
    fn file(&self, name: &[u8]) -> io::Result<Arc<dyn FileReader>>;

    /// Where a symbolic link points.
    fn link_target(&self, name: &[u8]) -> io::Result<Vec<u8>>;

    /// The same as one at the other end of a slow line, if it is there.
    fn distant(&self) -> Option<&dyn DistantDirectory> {
        None
    }
}

/// Ranges of files that a [`DistantDirectory`] is asked for at a time.
pub const RANGES_MAX: usize = 512;
/// Bytes of files that a [`DistantDirectory`] is asked for at a time.
pub const RANGES_BYTES_MAX: usize = 8 << 20;

/// A directory at the other end of a slow line. It tells of many files at a time of what
/// pieces they are, so that only those have to come over that are not stored already, and
/// nobody waits for the line once for each file.
pub trait DistantDirectory: Send + Sync {
    /// What each of these files is, and its first pieces; in their order.
    fn files(&self, names: &[&[u8]]) -> io::Result<Vec<io::Result<DistantFile>>>;

    /// What a file is, and its pieces from this byte on, which the ones told before end at.
    fn more_pieces(&self, name: &[u8], from: u64) -> io::Result<DistantFile>;

    /// The bytes of these ranges, in their order: fewer than asked for where the file ends.
    /// At most [`RANGES_MAX`] and [`RANGES_BYTES_MAX`].
    fn read(&self, ranges: &[FileRange<'_>]) -> io::Result<Vec<io::Result<Vec<u8>>>>;

    /// The ids of the bytes of these ranges, in their order; that of zeros is zero, and there
    /// is none where the file ends before. At most [`RANGES_MAX`].
    fn ids(&self, ranges: &[FileRange<'_>]) -> io::Result<Vec<io::Result<Option<[u8; 32]>>>>;
}

/// A part of a file in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRange<'n> {
    /// The file's name.
    pub name: &'n [u8],
    /// Where the range starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// What is told of a file at the other end of a line.
#[derive(Debug)]
pub struct DistantFile {
    /// What it is.
    pub metadata: Metadata,
    /// Its extended attributes, sorted; of a file that ends later, none.
    pub xattrs: io::Result<Vec<Xattr>>,
    /// Its pieces, one behind the other.
    pub pieces: Vec<DistantPiece>,
    /// Whether there are no further pieces.
    pub ended: bool,
    /// Whether it was the same before and after it was read for this.
    pub stable: bool,
}

/// A piece of a file at the other end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DistantPiece {
    /// The id of its bytes under a key that both ends have; zero for zeros.
    pub id: [u8; 32],
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// A tree cannot be read or written any further, whatever of it is asked for: the reason
/// of an error of which no entry is to blame.
#[derive(Debug, thiserror::Error)]
#[error("the tree cannot be reached")]
pub struct TreeGone {
    /// What to do about it.
    pub kind: Kind,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// An entry could not be written, and whoever hears of it asked for something else: what is
/// written without waiting fails later.
#[derive(Debug, thiserror::Error)]
#[error("an entry could not be written")]
pub struct EntryFailed {
    /// The entry, by its path in the tree.
    pub path: Vec<u8>,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl From<EntryFailed> for io::Error {
    fn from(failed: EntryFailed) -> Self {
        Self::new(failed.source.kind(), failed)
    }
}

/// An open file of a tree.
pub trait FileReader: Send + Sync {
    /// What it is now.
    fn metadata(&self) -> io::Result<Metadata>;

    /// Its extended attributes, sorted.
    fn xattrs(&self) -> io::Result<Vec<Xattr>>;

    /// The first bytes from `offset` on that may be anything but zeros; nothing
    /// if none follow.
    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>>;

    /// Reads into `buffer`, all of it unless the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A tree to be restored into. What it held before may be read too.
pub trait TreeWriter: TreeReader {
    /// Opens a directory that is in the tree, by its path.
    fn directory(&self, path: &[u8]) -> io::Result<Arc<dyn DirectoryWriter>>;

    /// Returns when everything written is durable.
    fn flush(&self) -> io::Result<()>;
}

/// An open directory of a tree that is restored. What is created takes the
/// place of what had its name; only a directory is never removed for it, and
/// nothing here follows a symbolic link.
pub trait DirectoryWriter: DirectoryReader {
    /// Makes a directory, or finds the one that is there.
    fn create_directory(&self, name: &[u8]) -> io::Result<()>;

    /// Makes an empty file that its owner alone may read, and that is to become so long. A block device
    /// that is there may be taken for one, if it is of that size: then it is zeros.
    fn create_file(&self, name: &[u8], size_bytes: u64) -> io::Result<Arc<dyn FileWriter>>;

    /// Opens a file that was made here before, and is not finished, to be written further.
    fn open_file(&self, name: &[u8]) -> io::Result<Arc<dyn FileWriter>>;

    /// Makes a symbolic link.
    fn create_symlink(&self, name: &[u8], target: &[u8]) -> io::Result<()>;

    /// Makes a pipe, a socket's name or a device. Where the user or the file system does not allow
    /// it, there is none afterwards.
    fn create_special(&self, name: &[u8], metadata: &Metadata) -> io::Result<()>;

    /// Makes another name of a file that is in the tree, by that one's path.
    fn create_link(&self, name: &[u8], path: &[u8]) -> io::Result<()>;

    /// Sets owner, mode, extended attributes and the time of modification of an
    /// entry that is neither a file nor a directory, if it could be made. What the user or the file
    /// system does not allow to be set stays as it is.
    fn set(&self, name: &[u8], metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()>;

    /// As `set`, of the directory itself.
    fn set_own(&self, metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()>;
}

/// An open file that is restored.
pub trait FileWriter: Send + Sync {
    /// Writes all of `data`.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Called once after the last write: gives it its length, and then what `set` gives other entries.
    fn finish(&self, metadata: &Metadata, xattrs: &[Xattr]) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_their_bytes() {
        let names = Names::collect([&b"b"[..], b"\xff", b"a", b"B", b"ab"].iter()).unwrap();
        let sorted: Vec<_> = names.iter().collect();
        assert_eq!(sorted, [&b"B"[..], b"a", b"ab", b"b", b"\xff"]);
        let behind = |name: &[u8]| names.place_behind(name);
        assert_eq!(
            (behind(b""), behind(b"a"), behind(b"aa"), behind(b"\xff")),
            (0, 2, 2, 5)
        );
    }

    #[test]
    fn what_would_lead_out_of_a_directory_is_no_name() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'x'; 256]] {
            assert!(!is_name(name), "{name:?}");
            assert_eq!(Names::default().push(name), Err(NamesError));
        }
        for name in [&b"..."[..], b" ", b"\n", b"\xff\xfe", &[b'x'; 255]] {
            assert!(is_name(name), "{name:?}");
        }
    }
}

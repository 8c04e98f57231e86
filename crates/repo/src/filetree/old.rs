//! The tree of the backup before, beside the one that is read: which entries
//! need not be read again.

use std::ops::Range;

use cairn_types::Kind;
use cairn_types::tree::{FileTime, Metadata};

use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::filetree::entry::{NodeRef, Record};
use crate::filetree::list::{ListKind, entries};
use crate::filetree::walk::branch;
use crate::read::ChunkReader;

/// File systems may keep times this coarsely: what changed at the time of a
/// reading may change again afterwards and show the same time.
/// Source: FAT keeps even seconds; NFS servers and the kernel's clock are finer.
const TICK_SECONDS: i64 = 2;

/// Whether what was saved with `old` is what has the metadata `new` now. What
/// changed from `read_at` on, when the backup began that saved it, proves nothing.
pub(crate) fn is_unchanged(old: &Metadata, new: &Metadata, read_at: FileTime) -> bool {
    let limit = FileTime {
        seconds: read_at.seconds.saturating_sub(TICK_SECONDS),
        ..read_at
    };
    old == new && new.changed < limit
}

/// A directory as the backup before has it.
#[derive(Debug)]
pub(crate) struct OldDirectory {
    leaves: Vec<(Box<[u8]>, ChunkId)>,
}

/// Goes through a directory of the backup before in the order of the names.
pub(crate) struct OldCursor<'o> {
    directory: &'o OldDirectory,
    /// The leaf to be read when this one is through.
    next: usize,
    leaf: OldLeaf,
    at: usize,
}

#[derive(Default)]
struct OldLeaf {
    bytes: Vec<u8>,
    entries: Vec<(Range<usize>, Record)>,
}

/// An entry of the backup before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OldEntry<'a> {
    pub record: &'a Record,
    /// The entry as it is encoded.
    pub encoded: &'a [u8],
}

impl OldDirectory {
    /// Reads where the directory's entries are; nothing if that is damaged,
    /// and all is read anew.
    pub fn open(reader: &mut ChunkReader, top: NodeRef) -> Result<Option<Self>> {
        let mut leaves = Vec::new();
        match gather(reader, top, Box::default(), &mut leaves) {
            Ok(()) => Ok(Some(Self { leaves })),
            Err(error) => unless_damaged(error).map(|()| None),
        }
    }

    /// Starts at the first name that is asked for.
    pub fn cursor(&self, first: &[u8]) -> OldCursor<'_> {
        let behind = self.leaves.partition_point(|(name, _)| **name <= *first);
        OldCursor {
            directory: self,
            next: behind.saturating_sub(1),
            leaf: OldLeaf::default(),
            at: 0,
        }
    }
}

fn gather(
    reader: &mut ChunkReader,
    node: NodeRef,
    first_name: Box<[u8]>,
    leaves: &mut Vec<(Box<[u8]>, ChunkId)>,
) -> Result<()> {
    if node.level == 0 {
        leaves.push((first_name, node.id));
        return Ok(());
    }
    for below in branch(reader, ListKind::Entries, node)? {
        gather(reader, below.node, below.first_name, leaves)?;
    }
    Ok(())
}

/// What is damaged of the backup before is no reason to fail: it is read anew.
pub(crate) fn unless_damaged(error: Error) -> Result<()> {
    if error.kind() == Kind::Corrupt {
        tracing::warn!(%error, "The backup before is damaged here: files are read again.");
        Ok(())
    } else {
        Err(error)
    }
}

impl OldCursor<'_> {
    /// The entry of this name, if there is one. Names are asked for in their order.
    pub fn find(&mut self, reader: &mut ChunkReader, name: &[u8]) -> Result<Option<OldEntry<'_>>> {
        loop {
            while let Some((range, _)) = self.leaf.entries.get(self.at) {
                let encoded = &self.leaf.bytes[range.clone()];
                if encoded[1..=usize::from(encoded[0])] >= *name {
                    break;
                }
                self.at += 1;
            }
            if self.at < self.leaf.entries.len() {
                break;
            }
            let Some((first, id)) = self.directory.leaves.get(self.next) else {
                return Ok(None);
            };
            if **first > *name {
                return Ok(None);
            }
            self.next += 1;
            self.load(reader, *id)?;
        }
        let (range, record) = &self.leaf.entries[self.at];
        let encoded = &self.leaf.bytes[range.clone()];
        let found = encoded[1..=usize::from(encoded[0])] == *name;
        Ok(found.then_some(OldEntry { record, encoded }))
    }

    /// Reads a leaf; one that is damaged has no entries.
    fn load(&mut self, reader: &mut ChunkReader, id: ChunkId) -> Result<()> {
        (self.at, self.leaf) = (0, OldLeaf::default());
        match reader.node_bytes(id) {
            Ok(bytes) => self.leaf.bytes.extend_from_slice(bytes),
            Err(error) => return unless_damaged(error),
        }
        let damaged = |problem: crate::codec::Malformed| {
            let problem = problem.0;
            unless_damaged(Error::DamagedChunk { id, problem })
        };
        let listed = match entries(&self.leaf.bytes) {
            Ok(listed) => listed,
            Err(problem) => return damaged(problem),
        };
        let mut found = Vec::new();
        let mut at = self.leaf.bytes.len() - listed.bytes_left();
        for entry in listed {
            match entry {
                Ok(entry) => {
                    found.push((at..at + entry.encoded.len(), entry.record));
                    at += entry.encoded.len();
                }
                Err(problem) => return damaged(problem),
            }
        }
        self.leaf.entries = found;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cairn_types::tree::EntryKind;

    use super::*;

    fn at(seconds: i64) -> FileTime {
        FileTime {
            seconds,
            nanoseconds: 0,
        }
    }

    fn file(changed: FileTime) -> Metadata {
        Metadata {
            kind: EntryKind::File,
            mode: 0o644,
            uid: 1,
            gid: 1,
            size_bytes: 5,
            modified: at(50),
            changed,
            inode: 9,
            linked: false,
            device: (0, 0),
        }
    }

    #[test]
    fn borg_3536_same_second_edit() {
        // Saved at second 100, edited in the same second: all metadata is the same.
        assert!(!is_unchanged(&file(at(100)), &file(at(100)), at(100)));
        assert!(!is_unchanged(&file(at(99)), &file(at(99)), at(100)));
        assert!(is_unchanged(&file(at(97)), &file(at(97)), at(100)));
    }

    #[test]
    fn any_difference_is_one() {
        let old = file(at(10));
        let changes: [fn(&mut Metadata); 6] = [
            |new| new.size_bytes += 1,
            |new| new.modified.nanoseconds = 1,
            |new| new.changed.seconds += 1,
            |new| new.inode += 1,
            |new| new.mode = 0o600,
            |new| new.kind = EntryKind::Fifo,
        ];
        for change in changes {
            let mut new = old;
            change(&mut new);
            assert!(!is_unchanged(&old, &new, at(100)), "{new:?}");
        }
    }
}

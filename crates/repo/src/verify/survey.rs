//! The survey of what backups need: each tree is walked past all damage, so that
//! what is lost is named and nothing else is. Blocks; called by one worker.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use cairn_types::{ByteRange, Kind, LOST_PARTS_MAX, Lost};

use crate::chunk::{ChunkId, ChunkKey};
use crate::error::{Error, Result};
use crate::filetree::{
    DEPTH_MAX, Held, ListKind, NodeRef, Piece, Record, branch, leaf, piece_leaf, text,
};
use crate::frame::FrameKey;
use crate::known::Known;
use crate::manifest::Content;
use crate::read::ChunkReader;
use crate::tree::{FANOUT, Geometry};
use crate::workers::Stop;

/// Bytes of a path that are told, at most.
const PATH_BYTES_MAX: usize = 1024;

/// What is wrong with a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The first thing that is.
    pub problem: String,
    pub lost: Lost,
}

/// The survey of one backup after the other. What several need is walked once.
pub(crate) struct Survey {
    known: Arc<Known>,
    stop: Arc<Stop>,
    /// Frames that do not open.
    bad: Arc<HashSet<FrameKey>>,
    /// Nodes below which all is well.
    clean: HashSet<ChunkId>,
    /// Packs that hold anything of what was walked.
    packs: BTreeSet<u32>,
    /// What is wrong with the backup that is being walked.
    problem: Option<String>,
    lost: Lost,
    /// Where the last lost range ends, whether or not it is named.
    lost_until: u64,
}

impl Survey {
    pub fn new(known: Arc<Known>, stop: Arc<Stop>, bad: Arc<HashSet<FrameKey>>) -> Self {
        Self {
            known,
            stop,
            bad,
            clean: HashSet::new(),
            packs: BTreeSet::new(),
            problem: None,
            lost: Lost::default(),
            lost_until: 0,
        }
    }

    /// The packs that hold anything of the backups so far.
    pub fn into_packs(self) -> BTreeSet<u32> {
        self.packs
    }

    /// What of a backup's content is lost; nothing, if it is whole. The disks
    /// of a group are backups of their own.
    pub fn look(&mut self, reader: &mut ChunkReader, content: &Content) -> Result<Option<Loss>> {
        match content {
            Content::Disk { geometry, top, .. } if geometry.size_bytes > 0 => {
                let place = (geometry.height(), 0);
                if self.have(&[*top])?[0] {
                    self.disk(reader, *geometry, *top, place)?;
                } else {
                    self.lose_range(0..geometry.size_bytes);
                }
            }
            Content::Tree(tree) => {
                self.entry(reader, &tree.top, &mut Vec::new(), 0)?;
            }
            Content::Disk { .. } | Content::Group(_) => {}
        }
        let (problem, lost) = (self.problem.take(), std::mem::take(&mut self.lost));
        self.lost_until = 0;
        Ok(problem.map(|problem| Loss { problem, lost }))
    }

    /// Walks below a node that is there, and tells whether all is. Its place is
    /// its level, and its number among the nodes of that level.
    fn disk(
        &mut self,
        reader: &mut ChunkReader,
        geometry: Geometry,
        id: ChunkId,
        (level, index): (u8, u64),
    ) -> Result<bool> {
        let range = |level, index: u64| {
            let span = geometry.span(level);
            let start = index.saturating_mul(span);
            start..start.saturating_add(span)
        };
        let here = range(level, index);
        let in_disk = |range: Range<u64>| range.start..range.end.min(geometry.size_bytes);
        // What hangs over the end of this disk was not walked for a larger one.
        let inside = here.end <= geometry.size_bytes;
        if id.is_zero() || inside && self.clean.contains(&id) {
            return Ok(true);
        }
        self.stop.check()?;
        let Some(children) = self.or_lost(reader.node(id, level))? else {
            self.lose_range(in_disk(here));
            return Ok(false);
        };
        let there = self.have(&children)?;
        let mut whole = true;
        for (slot, (child, there)) in (0..).zip(children.into_iter().zip(there)) {
            let place = (level - 1, index * FANOUT as u64 + slot);
            let below = range(place.0, place.1);
            if !child.is_zero() && below.start >= geometry.size_bytes {
                self.note("it names data behind the end of the disk");
                self.lost.everything = true;
                whole = false;
            } else if !there {
                self.lose_range(in_disk(below));
                whole = false;
            } else if level > 1 {
                whole &= self.disk(reader, geometry, child, place)?;
            }
        }
        if whole && inside {
            self.clean.insert(id);
        }
        Ok(whole)
    }

    /// Walks an entry of a tree of files.
    fn entry(
        &mut self,
        reader: &mut ChunkReader,
        record: &Record,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<bool> {
        let whole = match &record.held {
            Held::Pieces(pieces) => self.have_pieces(pieces)?,
            Held::PieceList(list) => self.piece_list(reader, *list)?,
            Held::Directory(_) if depth > DEPTH_MAX => {
                self.note("it lies in too many directories");
                false
            }
            Held::Directory(list) => return self.directory(reader, *list, path, depth),
            Held::Target(_) | Held::Nothing => true,
        };
        if !whole {
            self.lose_path(path, "");
        }
        Ok(whole)
    }

    fn directory(
        &mut self,
        reader: &mut ChunkReader,
        node: NodeRef,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<bool> {
        if self.clean.contains(&node.id) {
            return Ok(true);
        }
        self.stop.check()?;
        if !self.have(&[node.id])?[0] {
            self.lose_path(path, "/");
            return Ok(false);
        }
        let mut whole = true;
        if node.level > 0 {
            let below = branch(reader, ListKind::Entries, node);
            let Some(below) = self.or_lost(below)? else {
                self.lose_path(path, "/");
                return Ok(false);
            };
            for part in below {
                whole &= self.directory(reader, part.node, path, depth)?;
            }
        } else {
            let Some(entries) = self.or_lost(leaf(reader, node.id))? else {
                self.lose_path(path, "/");
                return Ok(false);
            };
            for entry in entries {
                let above = path.len();
                if above > 0 {
                    path.push(b'/');
                }
                path.extend_from_slice(&entry.name);
                whole &= self.entry(reader, &entry.record, path, depth + 1)?;
                path.truncate(above);
            }
        }
        if whole {
            self.clean.insert(node.id);
        }
        Ok(whole)
    }

    /// Whether all pieces of a file are there.
    fn piece_list(&mut self, reader: &mut ChunkReader, node: NodeRef) -> Result<bool> {
        if self.clean.contains(&node.id) {
            return Ok(true);
        }
        self.stop.check()?;
        if !self.have(&[node.id])?[0] {
            return Ok(false);
        }
        let mut whole = true;
        if node.level == 0 {
            match self.or_lost(piece_leaf(reader, node.id))? {
                Some(pieces) => whole = self.have_pieces(&pieces)?,
                None => whole = false,
            }
        } else {
            match self.or_lost(branch(reader, ListKind::Pieces, node))? {
                // All of them, damaged or not: their packs are wanted too.
                Some(below) => {
                    for part in below {
                        whole &= self.piece_list(reader, part.node)?;
                    }
                }
                None => whole = false,
            }
        }
        if whole {
            self.clean.insert(node.id);
        }
        Ok(whole)
    }

    fn have_pieces(&mut self, pieces: &[Piece]) -> Result<bool> {
        let ids: Vec<ChunkId> = pieces.iter().map(|piece| piece.id).collect();
        Ok(self.have(&ids)?.into_iter().all(|there| there))
    }

    /// Which of these chunks are stored in frames that are not known to be bad.
    fn have(&mut self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let stored: Vec<&ChunkId> = ids.iter().filter(|id| !id.is_zero()).collect();
        let keys: Vec<ChunkKey> = stored.iter().map(|id| id.key()).collect();
        let known = self.known.clone();
        let mut places = known.index().get_many(&keys)?.into_iter();
        let mut there = Vec::with_capacity(ids.len());
        for id in ids {
            if id.is_zero() {
                there.push(true);
                continue;
            }
            let place = places.next().flatten();
            let Some(place) = place else {
                self.note(&Error::NoChunk { id: *id }.to_string());
                there.push(false);
                continue;
            };
            self.packs.insert(place.pack);
            let is_bad = !self.bad.is_empty()
                && match known.index().pack(place.pack)? {
                    Some(pack) => {
                        let frame = pack.frame_of(place.chunk).0;
                        self.bad.contains(&(place.pack, frame))
                    }
                    None => true,
                };
            if is_bad {
                let problem = "its frame is damaged";
                self.note(&Error::DamagedChunk { id: *id, problem }.to_string());
            }
            there.push(!is_bad);
        }
        Ok(there)
    }

    /// Nothing where something is damaged; a store that stumbles stays an error.
    fn or_lost<T>(&mut self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == Kind::Corrupt => {
                self.note(&error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn note(&mut self, problem: &str) {
        if self.problem.is_none() {
            self.problem = Some(problem.to_owned());
        }
    }

    fn lose_range(&mut self, range: Range<u64>) {
        add_range(&mut self.lost, &mut self.lost_until, range);
    }

    /// Adds a file, or a folder of which not all is known.
    fn lose_path(&mut self, path: &[u8], ending: &str) {
        let path = &path[..path.len().min(PATH_BYTES_MAX)];
        self.lost.add_path(text(path) + ending);
    }
}

/// Adds bytes of a disk to what is lost of it; they come in the disk's order, and
/// `until` is where the last ones end.
fn add_range(lost: &mut Lost, until: &mut u64, range: Range<u64>) {
    let length = range.end - range.start;
    let follows = lost.bytes > 0 && *until == range.start;
    lost.bytes += length;
    *until = range.end;
    if follows && lost.ranges_left_out > 0 {
        return;
    }
    if let Some(last) = lost.ranges.last_mut().filter(|_| follows) {
        last.length += length;
    } else if lost.ranges.len() < LOST_PARTS_MAX {
        let offset = range.start;
        lost.ranges.push(ByteRange { offset, length });
    } else {
        lost.ranges_left_out += 1;
    }
}

#[cfg(test)]
#[path = "survey/tests.rs"]
mod tests;

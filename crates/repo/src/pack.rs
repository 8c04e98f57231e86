//! Packs: immutable objects of about 64 MiB that hold frames.
//!
//! A pack is a header (magic, format, its id), its frames, a sealed table of
//! the frames and the chunks in them, and a trailer that tells the table's
//! length and the hash of it all; so it can be read without any index. The
//! pack's id, drawn at random, is the salt of its key.

use std::fmt;
use std::ops::Range;

use crate::chunk::{ChunkId, ChunkKind};
use crate::codec::{Malformed, Reader};
use crate::error::Result;
use crate::frame::{
    FRAME_BYTES, FRAME_CHUNKS_MAX, FrameBuilder, FrameCoder, HEADER_BYTES, STORED_BYTES_MAX,
    Unsealed, kind_and_length, read_kind_and_length,
};
use crate::keys::{Place, ProjectKeys};
use crate::seal::{FORMAT, LAST_COUNTER, OpenError, SealKey, Sealer, TAG_BYTES, check_format};
use crate::whole::HASH_BYTES;

/// A pack gets no more frames once it has this size.
pub(crate) const PACK_BYTES: u64 = 64 << 20;
/// Chunks in a pack at most, before one more frame.
pub(crate) const PACK_CHUNKS: usize = 64 << 10;
/// Bytes in front of the first frame.
pub(crate) const PACK_HEADER_BYTES: usize = 8 + 2 + 16;
/// Bytes behind the table: its length, and the hash of all before.
pub(crate) const TRAILER_BYTES: usize = 4 + HASH_BYTES;
/// Bytes of a sealed table at most.
pub(crate) const TABLE_BYTES_MAX: usize =
    4 + FRAMES_MAX * 10 + (PACK_CHUNKS + FRAME_CHUNKS_MAX) * 36 + TAG_BYTES;

/// Frames in a pack at most: their numbers have 16 bits in the index.
const FRAMES_MAX: usize = 1 << 16;
const HEADER_MAGIC: [u8; 8] = *b"CAIRNPAK";

/// The random name of a pack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub [u8; 16]);

impl PackId {
    /// Reads the 32 hexadecimal digits that name a pack's object.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok()?;
        Some(Self(id))
    }
}

/// A text that is no pack's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pack's id is 32 hexadecimal digits")]
pub struct NotAPackId;

impl std::str::FromStr for PackId {
    type Err = NotAPackId;

    fn from_str(text: &str) -> Result<Self, NotAPackId> {
        Self::from_hex(text).ok_or(NotAPackId)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({self})")
    }
}

/// The key of a pack for reading it, and what its pieces are bound to.
pub(crate) struct PackSeal {
    pub key: SealKey,
    bound: Vec<u8>,
}

impl PackSeal {
    pub fn new(keys: &ProjectKeys, place: &Place, pack: PackId) -> Self {
        let bound = [&place.bound("pack")[..], &pack.0].concat();
        Self {
            key: SealKey::derive(&keys.packs, &pack.0),
            bound,
        }
    }

    /// What a frame is bound to: its pack, number and header.
    pub fn bound_to_frame(&self, number: u32, header: &[u8]) -> Vec<u8> {
        [&self.bound[..], &number.to_le_bytes(), header].concat()
    }

    fn bound_to_table(&self) -> Vec<u8> {
        [&self.bound[..], b"table"].concat()
    }
}

/// A pack that is being made: what its table says so far, and the hash of its bytes.
///
/// It hands its bytes out as they come, from the first on. Where one of its
/// functions fails the pack is of no use any more.
pub(crate) struct NewPack {
    id: PackId,
    sealer: Sealer,
    /// Opens what was sealed, by the way that readers take.
    seal: PackSeal,
    table: PackTable,
    hash: blake3::Hasher,
}

impl NewPack {
    /// Begins a pack: `out` gets the bytes in front of its first frame.
    pub fn begin(keys: &ProjectKeys, place: &Place, out: &mut Vec<u8>) -> Self {
        let sealer = Sealer::new(&keys.packs);
        let id = PackId(sealer.salt());
        let header = header(id);
        out.extend_from_slice(&header);
        let mut hash = blake3::Hasher::new();
        hash.update(&header);
        Self {
            id,
            sealer,
            seal: PackSeal::new(keys, place, id),
            table: PackTable::default(),
            hash,
        }
    }

    pub fn id(&self) -> PackId {
        self.id
    }

    /// Bytes of the pack so far.
    pub fn length(&self) -> u64 {
        self.hash.count()
    }

    /// Whether it is to take no more frames.
    pub fn is_full(&self) -> bool {
        self.length() >= PACK_BYTES || !self.table.has_room()
    }

    /// Adds the frame's chunks and empties it: `out` gets the bytes of the sealed frame.
    ///
    /// Errors: `Corrupt` what was sealed does not open to the same bytes.
    pub fn append(
        &mut self,
        coder: &mut FrameCoder,
        frame: &mut FrameBuilder,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let (start, offset) = (out.len(), self.length());
        coder.seal(frame, &mut self.sealer, &self.seal, out)?;
        let stored = &out[start..];
        self.table.push(offset, stored.len(), frame.chunks());
        self.hash.update(stored);
        frame.clear();
        Ok(())
    }

    /// Adds the frame that `coder` has unsealed, with these chunks.
    ///
    /// Errors: as `append`.
    pub fn append_again(
        &mut self,
        coder: &mut FrameCoder,
        unsealed: Unsealed,
        chunks: &[ChunkEntry],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let (start, offset) = (out.len(), self.length());
        coder.seal_again(unsealed, &mut self.sealer, &self.seal, out)?;
        let stored = &out[start..];
        self.table.push(offset, stored.len(), chunks);
        self.hash.update(stored);
        Ok(())
    }

    /// Ends the pack: `out` gets the table and the trailer. Returns what the pack
    /// holds, and its length.
    pub fn end(mut self, out: &mut Vec<u8>) -> (PackTable, u64) {
        let start = out.len();
        self.table.encode(out);
        let bound = self.seal.bound_to_table();
        self.sealer.seal_last(&bound, out, start);
        let length =
            u32::try_from(out.len() - start).expect("a table's frames and chunks are limited");
        out.extend_from_slice(&length.to_le_bytes());
        self.hash.update(&out[start..]);
        out.extend_from_slice(self.hash.finalize().as_bytes());
        (self.table, self.hash.count() + HASH_BYTES as u64)
    }
}

/// A chunk as a pack's table lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    pub id: ChunkId,
    pub kind: ChunkKind,
    /// Its plain bytes.
    pub length: u32,
}

/// A frame as a pack's table lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameEntry {
    /// Where its header starts, from the start of the pack.
    pub offset: u32,
    /// Its stored bytes, header included.
    pub length: u32,
    /// Which chunk of the table is its first; the rest follow, up to the next frame's.
    pub first_chunk: u32,
}

impl FrameEntry {
    /// Where it lies in the pack.
    pub fn range(&self) -> Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.length)
    }
}

/// What a pack holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PackTable {
    pub frames: Vec<FrameEntry>,
    pub chunks: Vec<ChunkEntry>,
}

impl PackTable {
    /// Adds the next frame.
    pub fn push(&mut self, offset: u64, length: usize, chunks: &[ChunkEntry]) {
        self.frames.push(FrameEntry {
            offset: u32::try_from(offset).expect("a pack is far smaller than 4 GiB"),
            length: u32::try_from(length).expect("a frame is far smaller than 4 GiB"),
            first_chunk: u32::try_from(self.chunks.len()).expect("a pack's chunks are limited"),
        });
        self.chunks.extend_from_slice(chunks);
    }

    /// Whether the pack may take one more frame.
    pub fn has_room(&self) -> bool {
        self.frames.len() < FRAMES_MAX && self.chunks.len() < PACK_CHUNKS
    }

    /// How many bytes `encode` makes.
    pub fn encoded_bytes(&self) -> usize {
        4 + self.frames.len() * 10 + self.chunks.len() * 36
    }

    /// The chunks of a frame, by their places in `chunks`.
    pub fn chunks_of(&self, frame: usize) -> Range<usize> {
        let start = self.frames[frame].first_chunk as usize;
        let end = self
            .frames
            .get(frame + 1)
            .map_or(self.chunks.len(), |f| f.first_chunk as usize);
        start..end
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        for (number, frame) in self.frames.iter().enumerate() {
            out.extend_from_slice(&frame.offset.to_le_bytes());
            out.extend_from_slice(&frame.length.to_le_bytes());
            out.extend_from_slice(&(self.chunks_of(number).len() as u16).to_le_bytes());
        }
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.id.0);
            out.extend_from_slice(&kind_and_length(chunk.kind, chunk.length).to_le_bytes());
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let count = reader.length(FRAMES_MAX)?;
        let mut table = Self::default();
        let mut counts = Vec::with_capacity(count);
        let mut chunks = 0;
        let mut end = PACK_HEADER_BYTES as u64;
        for _ in 0..count {
            let frame = FrameEntry {
                offset: reader.u32()?,
                length: reader.u32()?,
                first_chunk: chunks,
            };
            let inside = usize::from(reader.u16()?);
            let length = frame.length as usize;
            if u64::from(frame.offset) != end
                || !(HEADER_BYTES..=STORED_BYTES_MAX).contains(&length)
            {
                return Err(Malformed("its frames do not follow each other"));
            }
            if inside == 0 || inside > FRAME_CHUNKS_MAX {
                return Err(Malformed("a frame has too few or too many chunks"));
            }
            end += u64::from(frame.length);
            chunks += inside as u32;
            if chunks as usize > PACK_CHUNKS + FRAME_CHUNKS_MAX {
                return Err(Malformed("it has too many chunks"));
            }
            counts.push(inside);
            table.frames.push(frame);
        }
        for inside in counts {
            let mut plain_bytes = 0;
            for _ in 0..inside {
                let id = ChunkId(reader.array()?);
                let (kind, length) = read_kind_and_length(reader.u32()?)?;
                plain_bytes += length as usize;
                table.chunks.push(ChunkEntry { id, kind, length });
            }
            if plain_bytes > FRAME_BYTES {
                return Err(Malformed("a frame holds too much"));
            }
        }
        reader.finish()?;
        Ok(table)
    }
}

/// The bytes in front of the first frame.
fn header(pack: PackId) -> Vec<u8> {
    [&HEADER_MAGIC[..], &FORMAT.to_le_bytes(), &pack.0].concat()
}

/// Whether these are the first bytes of this pack.
pub(crate) fn check_header(pack: PackId, bytes: &[u8]) -> Result<(), OpenError> {
    let mut reader = Reader::new(bytes);
    if reader.array()? != HEADER_MAGIC {
        return Err(OpenError::Malformed("it is no pack"));
    }
    check_format(reader.u16()?)?;
    if reader.array()? != pack.0 {
        return Err(OpenError::Malformed("it is another pack"));
    }
    Ok(())
}

/// The length of the sealed table, from the trailer.
pub(crate) fn read_trailer(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut reader = Reader::new(bytes);
    let length = reader.length(TABLE_BYTES_MAX)?;
    reader.take(HASH_BYTES)?;
    reader.finish()?;
    Ok(length)
}

/// Opens the sealed table of a pack that is `pack_bytes` long.
pub(crate) fn open_table(
    seal: &PackSeal,
    sealed: &[u8],
    pack_bytes: u64,
) -> Result<PackTable, Malformed> {
    let mut plain = Vec::new();
    seal.key
        .open(LAST_COUNTER, &seal.bound_to_table(), sealed, &mut plain)
        .map_err(|_| Malformed("its table's seal is broken"))?;
    let table = PackTable::decode(&plain)?;
    let frames: u64 = table
        .frames
        .iter()
        .map(|frame| u64::from(frame.length))
        .sum();
    let whole = (PACK_HEADER_BYTES + sealed.len() + TRAILER_BYTES) as u64 + frames;
    if whole == pack_bytes {
        Ok(table)
    } else {
        Err(Malformed("its length is not its table's"))
    }
}

#[cfg(test)]
#[path = "pack/tests.rs"]
mod tests;

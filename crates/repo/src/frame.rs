//! Frames: up to 4 MiB of chunks that are compressed and sealed together.
//!
//! A frame describes itself: behind its chunks its plain bytes hold a table of
//! their kinds and lengths. On the wire a frame is a header in clear (codec,
//! plain length, sealed length), which its seal covers, and the sealed bytes.

use std::io::Cursor;
use std::ops::Range;

use zstd_safe::{CCtx, CParameter, DCtx};

use crate::buffer::Buffer;
use crate::chunk::{ChunkId, ChunkKind};
use crate::codec::{Malformed, Reader};
use crate::error::{Error, Result};
use crate::pack::{ChunkEntry, PackSeal};
use crate::seal::{NotAuthentic, Sealer, TAG_BYTES};

/// A frame: its pack's number in the index, and its own in the pack.
pub(crate) type FrameKey = (u32, u16);

/// Bytes of chunks in a frame at most.
pub(crate) const FRAME_BYTES: usize = 4 << 20;
/// Chunks in a frame at most.
pub(crate) const FRAME_CHUNKS_MAX: usize = 4096;
/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 9;
/// Bytes of a stored frame at most.
pub(crate) const STORED_BYTES_MAX: usize = HEADER_BYTES + PLAIN_BYTES_MAX + TAG_BYTES;

/// Bytes of an opened frame at most.
pub(crate) const PLAIN_BYTES_MAX: usize = FRAME_BYTES + 4 * FRAME_CHUNKS_MAX + 2;

/// How zstd is to compress: a level, and what it takes to find matches by.
#[derive(Debug, Clone, Copy)]
struct Effort {
    level: i32,
    hash_log: u32,
    match_bytes: u32,
}

/// For what compresses well. The tables fit the cache of a core better than
/// those of level 3 as it is: a tenth faster, and no byte larger.
const THOROUGH: Effort = Effort {
    level: 3,
    hash_log: 17,
    match_bytes: 5,
};
/// For the rest, where more takes three times as long for a hundredth of the
/// bytes; what does not compress at all it finds out at once. The table of level 1
/// as it is finds a twentieth less, in hardly less time.
const FAST: Effort = Effort {
    level: 1,
    hash_log: 17,
    match_bytes: 6,
};
/// Matches are found all over a frame.
const WINDOW_LOG: u32 = FRAME_BYTES.ilog2();
const CHAIN_LOG: u32 = 13;
/// A frame is tried by pieces of this size ...
const SAMPLE_BYTES: usize = 16 << 10;
/// ... at this many places.
const SAMPLES: usize = 4;
const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const KIND_NODE: u32 = 1 << 31;

/// A chunk's kind and length in one word, as frames and pack tables hold it.
pub(crate) fn kind_and_length(kind: ChunkKind, length: u32) -> u32 {
    match kind {
        ChunkKind::Block => length,
        ChunkKind::Node => length | KIND_NODE,
    }
}

/// Reads what `kind_and_length` made.
pub(crate) fn read_kind_and_length(word: u32) -> Result<(ChunkKind, u32), Malformed> {
    let kind = if word & KIND_NODE == 0 {
        ChunkKind::Block
    } else {
        ChunkKind::Node
    };
    match word & !KIND_NODE {
        0 => Err(Malformed("a chunk is empty")),
        length if length as usize > FRAME_BYTES => Err(Malformed("a chunk is larger than a frame")),
        length => Ok((kind, length)),
    }
}

/// Chunks gathered for a frame.
#[derive(Debug, Default)]
pub(crate) struct FrameBuilder {
    plain: Vec<u8>,
    chunks: Vec<ChunkEntry>,
}

impl FrameBuilder {
    /// Whether a chunk of this length still fits.
    pub fn fits(&self, length: usize) -> bool {
        self.chunks.len() < FRAME_CHUNKS_MAX && self.plain.len() + length <= FRAME_BYTES
    }

    pub fn push(&mut self, id: ChunkId, kind: ChunkKind, plain: &[u8]) {
        debug_assert!(
            self.fits(plain.len()),
            "the caller asks whether a chunk fits"
        );
        let length = u32::try_from(plain.len()).expect("a chunk fits a frame");
        self.plain.extend_from_slice(plain);
        self.chunks.push(ChunkEntry { id, kind, length });
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes of chunks in it.
    pub fn plain_bytes(&self) -> u64 {
        self.plain.len() as u64
    }

    pub fn chunks(&self) -> &[ChunkEntry] {
        &self.chunks
    }

    /// Appends the table that makes the plain bytes complete.
    fn close(&mut self) {
        for chunk in &self.chunks {
            let word = kind_and_length(chunk.kind, chunk.length);
            self.plain.extend_from_slice(&word.to_le_bytes());
        }
        let count = u16::try_from(self.chunks.len()).expect("a frame's chunks are limited");
        self.plain.extend_from_slice(&count.to_le_bytes());
    }

    /// Makes it empty, keeping its memory.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.chunks.clear();
    }
}

/// Compresses, seals and opens frames, with memory that is used again.
pub(crate) struct FrameCoder {
    compressor: CCtx<'static>,
    fast_compressor: CCtx<'static>,
    decompressor: DCtx<'static>,
    sealed_text: Vec<u8>,
    plain: Vec<u8>,
}

impl FrameCoder {
    pub fn new() -> Self {
        Self {
            compressor: compressor(THOROUGH),
            fast_compressor: compressor(FAST),
            decompressor: DCtx::create(),
            sealed_text: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// Appends the frame to `out` as the next of its pack, having opened it
    /// again with `seal` and compared it with the plain bytes.
    ///
    /// Errors: `Corrupt` what was sealed does not open to the same bytes.
    pub fn seal(
        &mut self,
        frame: &mut FrameBuilder,
        sealer: &mut Sealer,
        seal: &PackSeal,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        frame.close();
        let start = out.len();
        out.resize(start + HEADER_BYTES, 0);
        let codec = self.compress(&frame.plain, out);
        let sealed_bytes = out.len() - start - HEADER_BYTES + TAG_BYTES;
        let header = &mut out[start..start + HEADER_BYTES];
        header[0] = codec;
        header[1..5].copy_from_slice(&length_u32(frame.plain.len()).to_le_bytes());
        header[5..9].copy_from_slice(&length_u32(sealed_bytes).to_le_bytes());
        let number = sealer.next();
        let bound = seal.bound_to_frame(number, header);
        sealer.seal(&bound, out, start + HEADER_BYTES);
        match self.open(seal, number, &out[start..]) {
            Ok(opened) if opened.plain == frame.plain => Ok(()),
            _ => Err(Error::FrameDiffers),
        }
    }

    /// Takes the seal off a stored frame and keeps what was under it, to be
    /// sealed again as it is.
    pub fn unseal(
        &mut self,
        seal: &PackSeal,
        number: u32,
        stored: &[u8],
    ) -> Result<Unsealed, Malformed> {
        let (header, sealed) = split(stored)?;
        let bound = seal.bound_to_frame(number, header);
        seal.key
            .open(number, &bound, sealed, &mut self.sealed_text)
            .map_err(|NotAuthentic| Malformed("a frame's seal is broken"))?;
        let header = header.try_into().expect("it was split off at this length");
        Ok(Unsealed { header })
    }

    /// Appends the frame that was unsealed last to `out` as the next of another
    /// pack, having opened it again with `seal` and compared.
    ///
    /// Errors: `Corrupt` what was sealed does not open to the same bytes.
    pub fn seal_again(
        &mut self,
        Unsealed { header }: Unsealed,
        sealer: &mut Sealer,
        seal: &PackSeal,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.extend_from_slice(&header);
        let start = out.len();
        out.extend_from_slice(&self.sealed_text);
        let number = sealer.next();
        let bound = seal.bound_to_frame(number, &header);
        sealer.seal(&bound, out, start);
        let opened = seal
            .key
            .open(number, &bound, &out[start..], &mut self.plain);
        if opened.is_ok() && self.plain == self.sealed_text {
            Ok(())
        } else {
            Err(Error::FrameDiffers)
        }
    }

    /// Appends `plain` to `out`, compressed if that makes it smaller by a thirty-second at least.
    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> u8 {
        let limit = plain.len() - plain.len() / 32;
        let compressor = if self.compresses_well(plain) {
            &mut self.compressor
        } else {
            &mut self.fast_compressor
        };
        let start = out.len();
        out.reserve(zstd_safe::compress_bound(plain.len()));
        let mut packed = Cursor::new(&mut *out);
        packed.set_position(start as u64);
        match compressor.compress2(&mut packed, plain) {
            Ok(length) if length <= limit => CODEC_ZSTD,
            _ => {
                out.truncate(start);
                out.extend_from_slice(plain);
                CODEC_RAW
            }
        }
    }

    /// Whether pieces of a frame become less than half as long.
    fn compresses_well(&mut self, plain: &[u8]) -> bool {
        let step = plain.len() / SAMPLES;
        if step < SAMPLE_BYTES {
            return true;
        }
        let pieces = plain.chunks_exact(step).map(|part| {
            let piece = &part[(step - SAMPLE_BYTES) / 2..][..SAMPLE_BYTES];
            let mut scratch = [0; SAMPLE_BYTES];
            let packed = self.fast_compressor.compress2(&mut scratch[..], piece);
            packed.unwrap_or(SAMPLE_BYTES)
        });
        pieces.sum::<usize>() < SAMPLES * SAMPLE_BYTES / 2
    }

    /// Opens a stored frame.
    pub fn open(
        &mut self,
        seal: &PackSeal,
        number: u32,
        stored: &[u8],
    ) -> Result<PlainFrame<'_>, Malformed> {
        let (header, sealed) = split(stored)?;
        let mut fields = Reader::new(header);
        let codec = fields.u8()?;
        let plain_bytes = fields.length(PLAIN_BYTES_MAX)?;
        let bound = seal.bound_to_frame(number, header);
        let text = if codec == CODEC_RAW {
            &mut self.plain
        } else {
            &mut self.sealed_text
        };
        seal.key
            .open(number, &bound, sealed, text)
            .map_err(|NotAuthentic| Malformed("a frame's seal is broken"))?;
        match codec {
            CODEC_RAW => {}
            CODEC_ZSTD => {
                self.plain.clear();
                self.plain.reserve(plain_bytes);
                self.decompressor
                    .decompress(&mut self.plain, &self.sealed_text)
                    .map_err(|_| Malformed("a frame does not decompress"))?;
            }
            _ => return Err(Malformed("a frame has an unknown codec")),
        }
        if self.plain.len() != plain_bytes {
            return Err(Malformed("a frame has another length than it says"));
        }
        Ok(PlainFrame { plain: &self.plain })
    }

    /// Opens a stored frame into a buffer that stays with it.
    pub fn open_in(
        &mut self,
        mut buffer: Buffer,
        (seal, number): (&PackSeal, u32),
        stored: &[u8],
    ) -> Result<OwnedFrame, Malformed> {
        let chunks = self.open(seal, number, stored)?.chunks()?;
        std::mem::swap(&mut self.plain, &mut *buffer);
        let plain = buffer;
        Ok(OwnedFrame { plain, chunks })
    }
}

/// A stored frame's header and its sealed bytes, which are as long as it says.
fn split(stored: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut reader = Reader::new(stored);
    let header = reader.take(HEADER_BYTES)?;
    let mut lengths = Reader::new(&header[5..]);
    let sealed = reader.take(lengths.length(STORED_BYTES_MAX)?)?;
    reader.finish()?;
    Ok((header, sealed))
}

fn compressor(effort: Effort) -> CCtx<'static> {
    let mut compressor = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(effort.level),
        CParameter::WindowLog(WINDOW_LOG),
        CParameter::HashLog(effort.hash_log),
        CParameter::ChainLog(CHAIN_LOG),
        CParameter::MinMatch(effort.match_bytes),
    ] {
        compressor
            .set_parameter(parameter)
            .expect("it is within the codec's bounds");
    }
    compressor
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("a frame is far smaller than 4 GiB")
}

/// The header of a frame whose seal is off; the coder has the rest.
pub(crate) struct Unsealed {
    header: [u8; HEADER_BYTES],
}

/// An opened frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlainFrame<'a> {
    plain: &'a [u8],
}

impl<'a> PlainFrame<'a> {
    pub fn bytes(&self) -> &'a [u8] {
        self.plain
    }

    /// The chunks in their order, as ranges of the bytes.
    pub fn chunks(&self) -> Result<Vec<(ChunkKind, Range<usize>)>, Malformed> {
        chunk_table(self.plain)
    }
}

/// An opened frame that is kept for a while.
#[derive(Debug)]
pub(crate) struct OwnedFrame {
    plain: Buffer,
    chunks: Vec<(ChunkKind, Range<usize>)>,
}

impl OwnedFrame {
    /// A frame without chunks.
    #[cfg(test)]
    pub fn empty(plain: Buffer) -> Self {
        let chunks = Vec::new();
        Self { plain, chunks }
    }

    pub fn chunk(&self, slot: u16) -> Option<(ChunkKind, &[u8])> {
        let (kind, range) = self.chunks.get(usize::from(slot))?;
        Some((*kind, &self.plain[range.clone()]))
    }
}

/// Reads the table at the end of a frame's plain bytes; it must account for every byte.
fn chunk_table(plain: &[u8]) -> Result<Vec<(ChunkKind, Range<usize>)>, Malformed> {
    let (front, count) = plain
        .split_last_chunk::<2>()
        .ok_or(Malformed("a frame is cut short"))?;
    let count = usize::from(u16::from_le_bytes(*count));
    if count > FRAME_CHUNKS_MAX {
        return Err(Malformed("a frame has too many chunks"));
    }
    let table_start = front
        .len()
        .checked_sub(4 * count)
        .ok_or(Malformed("a frame is cut short"))?;
    let mut words = Reader::new(&front[table_start..]);
    let mut chunks = Vec::with_capacity(count);
    let mut start = 0;
    for _ in 0..count {
        let (kind, length) = read_kind_and_length(words.u32()?)?;
        let end = start + length as usize;
        chunks.push((kind, start..end));
        start = end;
    }
    if start == table_start {
        Ok(chunks)
    } else {
        Err(Malformed("a frame's table does not add up"))
    }
}

#[cfg(test)]
#[path = "frame/tests.rs"]
mod tests;

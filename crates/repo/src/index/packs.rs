//! The registry of packs: a number, an id and a length for each pack that the
//! index has met, and a file with the frames of each.
//!
//! Records are in memory, 40 bytes a pack; frames are read when they are asked for.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use crate::codec::Reader;
use crate::error::Result;
use crate::pack::{FrameEntry, PackId};

use super::PackInfo;
use super::files::Files;

const PACKS_FILE: &str = "packs";
const FRAMES_FILE: &str = "frames";
pub(super) const FILE_NAMES: [&str; 2] = [PACKS_FILE, FRAMES_FILE];
const RECORD_BYTES: usize = 16 + 8 + 8 + 4 + 4 + HASH_BYTES;
const FRAME_BYTES: usize = 12;
const HASH_BYTES: usize = 16;
/// Packs whose frames are kept after use: some 2 KiB each.
const FRAMES_KEPT: usize = 1024;

/// A pack in the registry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub id: PackId,
    pub stored_bytes: u64,
    /// Where its frames lie in their file.
    frames_at: u64,
    pub chunks: u32,
    frames: u32,
}

impl Record {
    /// The record of a pack whose frames are still in memory.
    pub fn new(pack: &PackInfo) -> Self {
        Self {
            id: pack.id,
            stored_bytes: pack.stored_bytes,
            frames_at: 0,
            chunks: pack.chunks,
            frames: u32::try_from(pack.frames.len()).expect("a pack's frames are limited"),
        }
    }

    fn frames_bytes(&self) -> usize {
        self.frames as usize * FRAME_BYTES + HASH_BYTES
    }

    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.stored_bytes.to_le_bytes());
        out.extend_from_slice(&self.frames_at.to_le_bytes());
        out.extend_from_slice(&self.chunks.to_le_bytes());
        out.extend_from_slice(&self.frames.to_le_bytes());
        let hash = short_hash(&out[start..]);
        out.extend_from_slice(&hash);
    }

    fn read(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let (body, hash) = bytes.split_last_chunk::<HASH_BYTES>()?;
        if short_hash(body) != *hash {
            return None;
        }
        let mut reader = Reader::new(body);
        let read = |reader: &mut Reader<'_>| {
            Ok::<_, crate::codec::Malformed>(Self {
                id: PackId(reader.array()?),
                stored_bytes: reader.u64()?,
                frames_at: reader.u64()?,
                chunks: reader.u32()?,
                frames: reader.u32()?,
            })
        };
        read(&mut reader).ok()
    }
}

/// A pack whose frames are not in their file yet.
pub(super) type FreshPack = (Record, Arc<PackInfo>);

/// The files of the registry. They only grow, and are only valid as far as the
/// state file says.
#[derive(Debug)]
pub(super) struct PackFiles {
    files: Arc<Files>,
    packs: File,
    frames: File,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    packs: HashMap<u32, Arc<PackInfo>>,
    order: VecDeque<u32>,
}

impl PackFiles {
    pub fn open(files: &Arc<Files>) -> Result<Self> {
        Ok(Self {
            packs: files.open_or_create(PACKS_FILE)?,
            frames: files.open_or_create(FRAMES_FILE)?,
            files: files.clone(),
            kept: Mutex::default(),
        })
    }

    /// The first records, all of which must be whole.
    pub fn read(&self, count: u32, frames_bytes: u64) -> Result<Vec<Record>> {
        let damaged = |problem| self.files.damaged(PACKS_FILE, problem);
        let end = u64::from(count) * RECORD_BYTES as u64;
        if self.files.length(PACKS_FILE, &self.packs)? < end
            || self.files.length(FRAMES_FILE, &self.frames)? < frames_bytes
        {
            return Err(damaged("it is cut short"));
        }
        let (mut records, mut rest) = (Vec::with_capacity(count as usize), Vec::new());
        self.files
            .read_hashed(PACKS_FILE, &self.packs, 0..end, |bytes| {
                rest.extend_from_slice(bytes);
                let (whole, part) = rest.as_chunks::<RECORD_BYTES>();
                records.extend(whole.iter().map_while(Record::read));
                rest = part.to_vec();
            })?;
        if records.len() == count as usize {
            Ok(records)
        } else {
            Err(damaged("a record is another"))
        }
    }

    /// Writes records and frames behind the first ones, sets where the frames
    /// are, and returns where they end. Durable when it returns.
    pub fn append(&self, first: u32, frames_at: u64, packs: &mut [FreshPack]) -> Result<u64> {
        let (mut records, mut frames) = (Vec::new(), Vec::new());
        for (record, pack) in packs {
            record.frames_at = frames_at + frames.len() as u64;
            record.write(&mut records);
            let start = frames.len();
            for frame in &pack.frames {
                frames.extend_from_slice(&frame.offset.to_le_bytes());
                frames.extend_from_slice(&frame.length.to_le_bytes());
                frames.extend_from_slice(&frame.first_chunk.to_le_bytes());
            }
            let hash = frames_hash(pack.id, &frames[start..]);
            frames.extend_from_slice(&hash);
        }
        let at = u64::from(first) * RECORD_BYTES as u64;
        self.files
            .write_at(FRAMES_FILE, &self.frames, &frames, frames_at)?;
        self.files.write_at(PACKS_FILE, &self.packs, &records, at)?;
        self.files.sync(FRAMES_FILE, &self.frames)?;
        self.files.sync(PACKS_FILE, &self.packs)?;
        Ok(frames_at + frames.len() as u64)
    }

    /// A pack with its frames.
    pub fn info(&self, number: u32, record: &Record) -> Result<Arc<PackInfo>> {
        if let Some(kept) = self.lock().packs.get(&number) {
            return Ok(kept.clone());
        }
        let mut bytes = vec![0; record.frames_bytes()];
        self.files
            .read_at(FRAMES_FILE, &self.frames, &mut bytes, record.frames_at)?;
        let info = Arc::new(self.decode(record, &bytes)?);
        let mut kept = self.lock();
        if kept.packs.insert(number, info.clone()).is_none() {
            kept.order.push_back(number);
            if kept.order.len() > FRAMES_KEPT
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.packs.remove(&oldest);
            }
        }
        Ok(info)
    }

    fn decode(&self, record: &Record, bytes: &[u8]) -> Result<PackInfo> {
        let damaged = || {
            self.files
                .damaged(FRAMES_FILE, "a pack's frames are others")
        };
        let (body, hash) = bytes.split_last_chunk::<HASH_BYTES>().ok_or_else(damaged)?;
        if frames_hash(record.id, body) != *hash {
            return Err(damaged());
        }
        let mut reader = Reader::new(body);
        let mut frames = Vec::with_capacity(record.frames as usize);
        for _ in 0..record.frames {
            let mut word = || reader.u32().map_err(|_| damaged());
            frames.push(FrameEntry {
                offset: word()?,
                length: word()?,
                first_chunk: word()?,
            });
        }
        Ok(PackInfo {
            id: record.id,
            stored_bytes: record.stored_bytes,
            frames: frames.into_boxed_slice(),
            chunks: record.chunks,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn short_hash(bytes: &[u8]) -> [u8; HASH_BYTES] {
    let hash = blake3::hash(bytes);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// What a pack's frames must hash to, which is not what another pack's do.
fn frames_hash(id: PackId, frames: &[u8]) -> [u8; HASH_BYTES] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&id.0);
    let hash = blake3::keyed_hash(&key, frames);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// The packs of an index, by number and by id.
#[derive(Debug, Default)]
pub(super) struct Packs {
    records: Vec<Record>,
    /// A bit for each number: whether the pack is there.
    live: Vec<u64>,
    by_id: HashMap<PackId, u32>,
    /// Chunks of the packs that are there.
    chunks: u64,
}

impl Packs {
    pub fn len(&self) -> u32 {
        u32::try_from(self.records.len()).expect("packs of 64 MiB do not reach 2^32")
    }

    pub fn push(&mut self, record: Record, live: bool) {
        let number = self.len();
        if number.is_multiple_of(64) {
            self.live.push(0);
        }
        if live {
            self.live[number as usize / 64] |= 1 << (number % 64);
            self.by_id.insert(record.id, number);
            self.chunks += u64::from(record.chunks);
        }
        self.records.push(record);
    }

    pub fn get(&self, number: u32) -> Option<&Record> {
        self.records.get(number as usize)
    }

    pub fn set(&mut self, number: u32, record: Record) {
        self.records[number as usize] = record;
    }

    pub fn is_live(&self, number: u32) -> bool {
        let word = self.live.get(number as usize / 64);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    pub fn number(&self, id: PackId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// Marks a pack as gone.
    pub fn remove(&mut self, id: PackId) {
        if let Some(number) = self.by_id.remove(&id) {
            self.live[number as usize / 64] &= !(1 << (number % 64));
            self.chunks -= u64::from(self.records[number as usize].chunks);
        }
    }

    /// How many packs are there.
    pub fn there(&self) -> u32 {
        u32::try_from(self.by_id.len()).expect("there are no more than were given numbers")
    }

    /// How many packs are gone.
    pub fn gone(&self) -> u32 {
        self.len() - self.there()
    }

    /// A bit for each number: whether the pack is there.
    pub fn live(&self) -> &[u64] {
        &self.live
    }

    /// Chunks of the packs that are there.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }
}

//! The state file: which files of the local index are valid and how far, and
//! which index objects of the store are in them.

use std::collections::BTreeSet;

use crate::codec::{Malformed, Reader};

use super::run::RunId;

pub(super) const STATE_FILE: &str = "state";
const MAGIC: [u8; 8] = *b"CAIRNLIX";
const VERSION: u16 = 1;
/// Runs, and words of the bitmap, and names at most in a file that is to be believed.
const COUNT_MAX: usize = 1 << 28;

/// The name of an index object: 32 hexadecimal digits.
pub(super) type ObjectName = [u8; 16];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// Runs with their numbers of entries, oldest first.
    pub runs: Vec<(RunId, u64)>,
    /// Records of packs, and bytes of frames, that are valid.
    pub packs: u32,
    pub frames_bytes: u64,
    /// A bit for each pack: whether it was there.
    pub live: Vec<u64>,
    /// Index objects whose packs are all in the registry.
    pub taken: BTreeSet<ObjectName>,
}

impl Saved {
    pub fn encode(&self, bound: &[u8; 32]) -> Vec<u8> {
        let mut out = [&MAGIC[..], &VERSION.to_le_bytes(), bound].concat();
        let count = |out: &mut Vec<u8>, count: usize| {
            let count = u32::try_from(count).expect("counts are limited");
            out.extend_from_slice(&count.to_le_bytes());
        };
        count(&mut out, self.runs.len());
        for (id, entries) in &self.runs {
            out.extend_from_slice(id);
            out.extend_from_slice(&entries.to_le_bytes());
        }
        out.extend_from_slice(&self.packs.to_le_bytes());
        out.extend_from_slice(&self.frames_bytes.to_le_bytes());
        count(&mut out, self.live.len());
        out.extend(self.live.iter().flat_map(|word| word.to_le_bytes()));
        count(&mut out, self.taken.len());
        out.extend(self.taken.iter().flatten());
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    pub fn decode(bytes: &[u8], bound: &[u8; 32]) -> Result<Self, Malformed> {
        let (body, hash) = bytes
            .split_last_chunk::<32>()
            .ok_or(Malformed("it is cut short"))?;
        if blake3::hash(body) != *hash {
            return Err(Malformed("it is another"));
        }
        let mut reader = Reader::new(body);
        if reader.array()? != MAGIC || reader.u16()? != VERSION || reader.array()? != *bound {
            return Err(Malformed("it is of something else"));
        }
        let mut saved = Self::default();
        for _ in 0..reader.length(COUNT_MAX)? {
            saved.runs.push((reader.array()?, reader.u64()?));
        }
        saved.packs = reader.u32()?;
        saved.frames_bytes = reader.u64()?;
        for _ in 0..reader.length(COUNT_MAX)? {
            saved.live.push(reader.u64()?);
        }
        for _ in 0..reader.length(COUNT_MAX)? {
            saved.taken.insert(reader.array()?);
        }
        reader.finish()?;
        if saved.live.len() == saved.packs.div_ceil(64) as usize {
            Ok(saved)
        } else {
            Err(Malformed("its counts do not agree"))
        }
    }
}

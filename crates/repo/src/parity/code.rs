//! The code itself: parity objects out of packs, and packs out of what is left of
//! a group. Blocks; all of a group goes through memory in stripes.
//!
//! Nothing that is made here is there before all of it is known to be right:
//! parity of packs that have the hash they end in, a pack that has its own hash,
//! id and table.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};
use tokio::runtime::Handle;

use crate::buffer::BufferPool;
use crate::check::Reading;
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::frames::or_damaged;
use crate::index::IndexedPack;
use crate::pack::{self, PACK_HEADER_BYTES, PackId, PackSeal, TABLE_BYTES_MAX, TRAILER_BYTES};
use crate::project::{Inner, READS};
use crate::store::pack_path;
use crate::upload::Upload;
use crate::workers::Stop;

use super::group::{Group, Member};

/// Bytes of each shard that are in memory at a time, twice: read, and in the code's own space.
const STRIPE_BYTES: u64 = 512 << 10;
/// A pack's last bytes, which hold its table.
const TAIL_BYTES: usize = TABLE_BYTES_MAX + TRAILER_BYTES;
const COUNTS: &str = "the numbers of shards are limited";
const SHARDS: &str = "all shards of a stripe have its length";

/// Who works on a group.
pub(super) struct Coder {
    pub project: Arc<Inner>,
    pub handle: Handle,
    pub stop: Arc<Stop>,
    pub buffers: Arc<BufferPool>,
}

/// An object that is read in stripes: where it is, where in it the shard
/// begins, and how much of the shard is there; the rest is zeros.
struct Source {
    path: Path,
    start: u64,
    bytes: u64,
}

impl Coder {
    /// Writes a group's parity objects, which are durable then. Returns the packs
    /// that cannot be protected because they are not whole; if there are any,
    /// nothing was written.
    pub fn protect(&self, group: &Group) -> Result<Vec<PackId>> {
        let objects = (0..group.parity).map(|number| ParityObject::begin(self, group, number));
        let mut objects: Vec<ParityObject> = objects.collect::<Result<_>>()?;
        let done = self.encode(group, &mut objects);
        let written = match done {
            Ok(hurt) if hurt.is_empty() => {
                let mut objects = objects.iter_mut();
                objects.try_for_each(|object| object.complete(self, group.object_bytes()))
            }
            Ok(hurt) => {
                self.abort(objects.iter_mut().map(|object| &mut object.upload));
                return Ok(hurt);
            }
            Err(error) => Err(error),
        };
        if written.is_err() {
            self.abort(objects.iter_mut().map(|object| &mut object.upload));
        }
        written.map(|()| Vec::new())
    }

    fn encode(&self, group: &Group, objects: &mut [ParityObject]) -> Result<Vec<PackId>> {
        let sources: Vec<Source> = group.members.iter().map(|m| self.pack(m)).collect();
        let mut readings: Vec<Reading> = sources.iter().map(|_| Reading::default()).collect();
        let counts = (sources.len(), objects.len());
        let mut encoder = ReedSolomonEncoder::new(counts.0, counts.1, STRIPE_BYTES as usize);
        let encoder = encoder.as_mut().expect(COUNTS);
        for (offset, length) in stripes(group) {
            encoder
                .reset(counts.0, counts.1, length as usize)
                .expect(COUNTS);
            let pieces = self.read(&sources, offset, length)?;
            for (piece, reading) in pieces.iter().zip(&mut readings) {
                reading.add(piece.as_deref());
                encoder
                    .add_original_shard(padded(piece, length))
                    .expect(SHARDS);
            }
            let coded = encoder.encode().expect(SHARDS);
            for (shard, object) in coded.recovery_iter().zip(&mut *objects) {
                object.add(self, shard)?;
            }
        }
        let hurt = group.members.iter().zip(readings);
        let hurt = hurt.filter(|(_, reading)| !reading.is_whole());
        Ok(hurt.map(|(member, _)| member.pack).collect())
    }

    /// Makes the packs that are not among the whole ones anew. Those that turn out
    /// right are durable in their places then, and returned.
    pub fn rebuild(
        &self,
        group: &Group,
        whole: &BTreeSet<PackId>,
        parity: &BTreeSet<u8>,
    ) -> Result<Vec<IndexedPack>> {
        let lost = (0..).zip(&group.members);
        let lost = lost.filter(|(_, member)| !whole.contains(&member.pack));
        let mut lost: Vec<(usize, RebuiltPack)> = lost
            .map(|(at, member)| (at, RebuiltPack::new(self, *member)))
            .collect();
        let decoded = self.decode(group, whole, parity, &mut lost);
        if let Err(error) = decoded {
            self.abort(lost.iter_mut().map(|(_, pack)| &mut pack.upload));
            return Err(error);
        }
        let mut rebuilt = Vec::new();
        for (_, mut pack) in lost {
            let id = pack.member.pack;
            match pack.check(self) {
                Ok(indexed) => {
                    let done = pack.upload.complete(&self.project.objects);
                    if let Err(error) = self.handle.block_on(done) {
                        self.abort([&mut pack.upload].into_iter());
                        return Err(error);
                    }
                    rebuilt.push(indexed);
                }
                Err(Malformed(problem)) => {
                    tracing::error!(pack.id = %id, problem, "A pack cannot be made anew.");
                    self.abort([&mut pack.upload].into_iter());
                }
            }
        }
        Ok(rebuilt)
    }

    fn decode(
        &self,
        group: &Group,
        whole: &BTreeSet<PackId>,
        parity: &BTreeSet<u8>,
        lost: &mut [(usize, RebuiltPack)],
    ) -> Result<()> {
        let members = (0..).zip(&group.members);
        let members: Vec<(usize, &Member)> = members
            .filter(|(_, member)| whole.contains(&member.pack))
            .collect();
        let parity: Vec<u8> = parity.iter().copied().take(lost.len()).collect();
        let packs = members.iter().map(|(_, member)| self.pack(member));
        let others = parity.iter().map(|number| Source {
            path: group.path(&self.project, *number),
            start: group.header_bytes(),
            bytes: group.shard_bytes(),
        });
        let sources: Vec<Source> = packs.chain(others).collect();
        let counts = (group.members.len(), usize::from(group.parity));
        let mut decoder = ReedSolomonDecoder::new(counts.0, counts.1, STRIPE_BYTES as usize);
        let decoder = decoder.as_mut().expect(COUNTS);
        for (offset, length) in stripes(group) {
            decoder
                .reset(counts.0, counts.1, length as usize)
                .expect(COUNTS);
            let pieces = self.read(&sources, offset, length)?;
            let (of_packs, of_parity) = pieces.split_at(members.len());
            for ((at, _), piece) in members.iter().zip(of_packs) {
                let shard = padded(piece, length);
                decoder.add_original_shard(*at, shard).expect(SHARDS);
            }
            for (number, piece) in parity.iter().zip(of_parity) {
                let (number, shard) = (usize::from(*number), padded(piece, length));
                decoder.add_recovery_shard(number, shard).expect(SHARDS);
            }
            let decoded = decoder
                .decode()
                .expect("there are as many shards as it takes");
            for (at, pack) in &mut *lost {
                let shard = decoded
                    .restored_original(*at)
                    .expect("it was left out above");
                pack.add(self, offset, shard)?;
            }
        }
        Ok(())
    }

    fn pack(&self, member: &Member) -> Source {
        Source {
            path: pack_path(self.project.place.project, member.pack),
            start: 0,
            bytes: member.bytes,
        }
    }

    /// Reads a stripe of each source; nothing where it cannot be had.
    fn read(&self, sources: &[Source], offset: u64, length: u64) -> Result<Vec<Option<Bytes>>> {
        self.stop.check()?;
        let reads = sources.iter().map(|source| {
            let objects = self.project.objects.clone();
            let path = source.path.clone();
            let range = offset.min(source.bytes)..(offset + length).min(source.bytes);
            let range = source.start + range.start..source.start + range.end;
            async move {
                if range.is_empty() {
                    return Ok(Some(Bytes::new()));
                }
                or_damaged(objects.get_range(&path, range).await)
            }
        });
        let reads: Vec<_> = reads.collect();
        let pieces = stream::iter(reads).buffered(READS).try_collect();
        let pieces: Vec<Option<Bytes>> = self.handle.block_on(pieces)?;
        let bytes = pieces.iter().flatten().map(|piece| piece.len() as u64);
        self.stop.progress().advance(bytes.sum());
        Ok(pieces)
    }

    fn abort<'u>(&self, uploads: impl Iterator<Item = &'u mut Upload>) {
        for upload in uploads {
            self.handle.block_on(upload.abort(&self.project.objects));
        }
    }
}

/// Where each stripe of a group begins, and its length.
fn stripes(group: &Group) -> impl Iterator<Item = (u64, u64)> {
    let end = group.shard_bytes();
    let starts = (0..end).step_by(STRIPE_BYTES as usize);
    starts.map(move |start| (start, STRIPE_BYTES.min(end - start)))
}

/// A piece with zeros up to the stripe's length.
fn padded(piece: &Option<Bytes>, length: u64) -> Vec<u8> {
    let mut shard = Vec::with_capacity(length as usize);
    shard.extend_from_slice(piece.as_deref().unwrap_or_default());
    shard.resize(length as usize, 0);
    shard
}

/// A parity object on its way to the store.
struct ParityObject {
    upload: Upload,
    hasher: blake3::Hasher,
}

impl ParityObject {
    fn begin(coder: &Coder, group: &Group, number: u8) -> Result<Self> {
        let mut object = Self {
            upload: Upload::new(group.path(&coder.project, number), &coder.buffers),
            hasher: blake3::Hasher::new(),
        };
        object.add(coder, &group.header(number))?;
        Ok(object)
    }

    fn add(&mut self, coder: &Coder, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        let added = self.upload.add(bytes, &coder.project.objects);
        coder.handle.block_on(added)
    }

    fn complete(&mut self, coder: &Coder, bytes: u64) -> Result<()> {
        let hash = self.hasher.finalize();
        let (objects, path) = (&coder.project.objects, self.upload.path.clone());
        coder.handle.block_on(async {
            self.upload.add(hash.as_bytes(), objects).await?;
            self.upload.complete(objects).await?;
            if objects.size(&path).await? == bytes {
                return Ok(());
            }
            Err(Error::Damaged {
                object: path.to_string(),
                problem: "the store cut it short",
            })
        })
    }
}

/// A pack that is made anew.
struct RebuiltPack {
    member: Member,
    upload: Upload,
    reading: Reading,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl RebuiltPack {
    fn new(coder: &Coder, member: Member) -> Self {
        let path = pack_path(coder.project.place.project, member.pack);
        Self {
            member,
            upload: Upload::new(path, &coder.buffers),
            reading: Reading::default(),
            head: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// Adds its part of a stripe.
    fn add(&mut self, coder: &Coder, offset: u64, shard: &[u8]) -> Result<()> {
        let left = self.member.bytes.saturating_sub(offset);
        let shard = &shard[..shard.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        self.reading.add(Some(shard));
        let missing = PACK_HEADER_BYTES - self.head.len();
        self.head.extend(&shard[..missing.min(shard.len())]);
        self.tail.extend_from_slice(shard);
        let before = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..before);
        let added = self.upload.add(shard, &coder.project.objects);
        coder.handle.block_on(added)
    }

    /// What the pack holds, if it is the pack that it should be.
    fn check(&mut self, coder: &Coder) -> Result<IndexedPack, Malformed> {
        let Member { pack: id, bytes } = self.member;
        if !std::mem::take(&mut self.reading).is_whole() {
            return Err(Malformed("its bytes are not those that were written"));
        }
        pack::check_header(id, &self.head).map_err(|_| Malformed("it is another pack"))?;
        let cut = |at: Option<usize>| at.ok_or(Malformed("it is cut short"));
        let trailer_at = cut(self.tail.len().checked_sub(TRAILER_BYTES))?;
        let table_bytes = pack::read_trailer(&self.tail[trailer_at..])?;
        let sealed = &self.tail[cut(trailer_at.checked_sub(table_bytes))?..trailer_at];
        let seal = PackSeal::new(&coder.project.keys, &coder.project.place, id);
        Ok(IndexedPack {
            id,
            stored_bytes: bytes,
            table: pack::open_table(&seal, sealed, bytes)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(shards: &[Vec<u8>], range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
        let mut encoder = ReedSolomonEncoder::new(shards.len(), 2, range.len()).unwrap();
        for shard in shards {
            encoder.add_original_shard(&shard[range.clone()]).unwrap();
        }
        let coded = encoder.encode().unwrap();
        coded.recovery_iter().map(<[u8]>::to_vec).collect()
    }

    /// What other versions have written must be what this one reads.
    #[test]
    fn the_code_stays_what_it_is_however_it_is_cut_into_stripes() {
        let byte = |shard: usize, at: usize| (at * 7 + shard * 31 + at * at / 5) as u8;
        let shards: Vec<Vec<u8>> = (0..5)
            .map(|shard| (0..192).map(|at| byte(shard, at)).collect())
            .collect();
        let whole = encode(&shards, 0..192);
        let mut pieces = vec![Vec::new(); 2];
        for start in [0, 64, 128] {
            let stripe = encode(&shards, start..start + 64);
            pieces
                .iter_mut()
                .zip(stripe)
                .for_each(|(all, piece)| all.extend(piece));
        }
        assert_eq!(whole, pieces);
        let hash = blake3::hash(&whole.concat());
        assert_eq!(
            hash.to_hex().as_str(),
            "a7e69174101ed62779393f05277c54b32713d51e40bdb105d0889a952055e9aa"
        );
    }
}

//! One thread's part of a backup: it reads pieces of the disk, hashes their
//! blocks, and stores those that nobody has in frames of its own.

use std::sync::atomic::Ordering;

use cairn_types::disk::{BLOCKS_MAX, DistantDisk};

use crate::base::Base;
use crate::chunk::{ChunkId, ChunkKey, ChunkKind};
use crate::error::{Error, Result};
use crate::frame::{FrameBuilder, FrameCoder};
use crate::known::Standing;
use crate::read::ChunkReader;
use crate::scan::{BlockRead, Piece, slot_of};
use crate::tree::{FANOUT, encode_node};
use crate::workers::lock;

use super::{Deferred, Session};

/// One thread's part: its frames and the memory it uses again.
pub(super) struct Worker<'s> {
    session: &'s Session,
    coder: FrameCoder,
    blocks: FrameBuilder,
    nodes: FrameBuilder,
    /// Reads the nodes of the base.
    reader: ChunkReader,
}

impl<'s> Worker<'s> {
    pub fn new(session: &'s Session) -> Self {
        let (blocks, nodes) = Default::default();
        Self {
            session,
            coder: FrameCoder::new(),
            blocks,
            nodes,
            reader: ChunkReader::new(session.project.clone(), session.known.clone()),
        }
    }

    pub fn run(mut self) -> Result<()> {
        let mut buffer = Vec::new();
        while let Some(piece) = self.session.scan.next_piece()? {
            self.session.stop.check()?;
            self.store_piece(&piece, &mut buffer)?;
        }
        self.flush()
    }

    fn store_piece(&mut self, piece: &Piece, buffer: &mut Vec<u8>) -> Result<()> {
        let session = self.session;
        let (hasher, scan) = (&session.project.keys.hasher, &session.scan);
        let mut ids = [ChunkId::ZERO; FANOUT];
        let mut bytes_before = 0;
        if let Ok(base) = &session.base {
            ids = base.leaf(&mut self.reader, piece.index)?;
            bytes_before = base.geometry.data_bytes(piece.index, &ids);
            self.store_missing(base, piece, &ids, buffer)?;
        }
        let read_bytes = if let Some(distant) = scan.reader.distant() {
            self.store_distant(distant, piece, &mut ids)?
        } else {
            let with = (hasher, &*session.stop);
            scan.read_piece(piece, &mut ids, with, buffer, |blocks| {
                self.store_blocks(blocks)
            })?
        };
        session.read_bytes.fetch_add(read_bytes, Ordering::Relaxed);
        let bytes = scan.geometry.data_bytes(piece.index, &ids);
        // Both together never go below zero: what a base holds is counted from the start.
        session.data_bytes.fetch_add(bytes, Ordering::Relaxed);
        session
            .data_bytes
            .fetch_sub(bytes_before, Ordering::Relaxed);
        let leaf = match encode_node(1, &ids) {
            None => ChunkId::ZERO,
            Some(encoded) => {
                let id = hasher.id(ChunkKind::Node, &encoded);
                self.store_node(id, &encoded)?;
                id
            }
        };
        let mut tree = lock(&session.tree);
        tree.set_leaf(piece.index, leaf);
        Ok(())
    }

    /// Reads and stores the unchanged blocks beside changed ones that are in no pack any more.
    fn store_missing(
        &mut self,
        base: &Base,
        piece: &Piece,
        ids: &[ChunkId; FANOUT],
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        let session = self.session;
        let is_changed = |block| piece.changed.iter().any(|range| range.contains(&block));
        let blocks = (piece.index * FANOUT as u64..).zip(*ids);
        let unchanged: Vec<_> = blocks
            .filter(|(block, id)| !id.is_zero() && !is_changed(*block))
            .collect();
        let keys: Vec<_> = unchanged.iter().map(|(_, id)| id.key()).collect();
        let places = session.known.index().get_many(&keys)?;
        for ((block, id), place) in unchanged.into_iter().zip(places) {
            if place.is_some() {
                continue;
            }
            let plain = session.scan.read_blocks(block..block + 1, buffer)?;
            session
                .read_bytes
                .fetch_add(plain.len() as u64, Ordering::Relaxed);
            base.compare(&self.reader, (block, id), plain)?;
            self.store_blocks(&[BlockRead { block, id, plain }])?;
        }
        Ok(())
    }

    fn store_blocks(&mut self, blocks: &[BlockRead<'_>]) -> Result<()> {
        let keys: Vec<ChunkKey> = blocks.iter().map(|block| block.id.key()).collect();
        let session = self.session.packer.session();
        let standings = self.session.known.claim(session, &keys)?;
        for (read, standing) in blocks.iter().zip(standings) {
            let must_store = match standing {
                Standing::Settled => false,
                Standing::Claimed => true,
                Standing::Elsewhere => !self.session.defer(read.block, read.id.key()),
            };
            if must_store {
                let packer = &self.session.packer;
                let chunk = (read.id, ChunkKind::Block);
                packer.push(&mut self.coder, &mut self.blocks, chunk, read.plain)?;
            }
        }
        Ok(())
    }

    /// Stores a piece of a disk at the other end of a line: of the blocks that may have
    /// changed the ids come over, and the bytes of those that nobody has. Returns how many.
    fn store_distant(
        &mut self,
        distant: &dyn DistantDisk,
        piece: &Piece,
        ids: &mut [ChunkId; FANOUT],
    ) -> Result<u64> {
        let session = self.session;
        let scan = &session.scan;
        for block in piece.changed.iter().cloned().flatten() {
            ids[slot_of(block)] = ChunkId::ZERO;
        }
        let blocks: Vec<u64> = piece.runs.iter().cloned().flatten().collect();
        let told = distant.block_ids(&blocks)?;
        let mut data = Vec::with_capacity(blocks.len());
        for (block, id) in blocks.iter().zip(told) {
            ids[slot_of(*block)] = ChunkId(id);
            if !ids[slot_of(*block)].is_zero() {
                data.push((*block, ChunkId(id)));
            }
        }
        let wanted = self.unknown(&data)?;
        let length = |block: &u64| {
            let range = scan.geometry.block_range(*block);
            range.end - range.start
        };
        let coming: u64 = wanted.iter().map(|(block, _)| length(block)).sum();
        let looked_at: u64 = blocks.iter().map(length).sum();
        session.stop.progress().advance(looked_at - coming);
        let mut read_bytes = 0;
        for wanted in wanted.chunks(BLOCKS_MAX) {
            session.stop.check()?;
            let asked: Vec<u64> = wanted.iter().map(|(block, _)| *block).collect();
            for ((block, id), plain) in wanted.iter().zip(distant.read_blocks(&asked)?) {
                if session.project.keys.hasher.id(ChunkKind::Block, &plain) != *id {
                    let offset = scan.geometry.block_range(*block).start;
                    return Err(Error::DiskChanged { offset });
                }
                read_bytes += plain.len() as u64;
                session.stop.progress().advance(plain.len() as u64);
                let chunk = (*id, ChunkKind::Block);
                let packer = &session.packer;
                packer.push(&mut self.coder, &mut self.blocks, chunk, &plain)?;
            }
        }
        Ok(read_bytes)
    }

    /// Claims chunks, and returns those of the blocks that this session must store.
    fn unknown(&self, blocks: &[(u64, ChunkId)]) -> Result<Vec<(u64, ChunkId)>> {
        let keys: Vec<ChunkKey> = blocks.iter().map(|(_, id)| id.key()).collect();
        let session = self.session.packer.session();
        let standings = self.session.known.claim(session, &keys)?;
        let must_store = |((block, id), standing): &(&(u64, ChunkId), Standing)| match standing {
            Standing::Settled => false,
            Standing::Claimed => true,
            Standing::Elsewhere => !self.session.defer(*block, id.key()),
        };
        let unknown = blocks.iter().zip(standings).filter(must_store);
        Ok(unknown.map(|(block, _)| *block).collect())
    }

    /// Nodes are small: one that another session is storing is stored again.
    pub fn store_node(&mut self, id: ChunkId, encoded: &[u8]) -> Result<()> {
        let packer = &self.session.packer;
        let known = &self.session.known;
        if known.claim_anyway(packer.session(), id.key())? {
            let chunk = (id, ChunkKind::Node);
            packer.push(&mut self.coder, &mut self.nodes, chunk, encoded)?;
        }
        Ok(())
    }

    /// Reads again and stores the blocks that another session did not get to store.
    pub fn store_given_up(mut self, blocks: &[Deferred]) -> Result<()> {
        let mut buffer = Vec::new();
        let session = self.session;
        for deferred in blocks {
            session.stop.check()?;
            let block = deferred.block;
            let plain = session.scan.read_blocks(block..block + 1, &mut buffer)?;
            let id = session.project.keys.hasher.id(ChunkKind::Block, plain);
            if id.key() != deferred.key {
                return Err(Error::DiskChanged {
                    offset: session.scan.geometry.block_range(block).start,
                });
            }
            self.store_blocks(&[BlockRead { block, id, plain }])?;
        }
        self.flush()
    }

    pub fn flush(&mut self) -> Result<()> {
        self.session
            .packer
            .store(&mut self.coder, &mut self.blocks)?;
        self.session.packer.store(&mut self.coder, &mut self.nodes)
    }
}

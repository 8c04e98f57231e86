//! The log: what was committed to it and not written back yet is replayed in memory.
//!
//! It is a circle of records. The last one says how far back those reach whose changes may not stand in their places yet;
//! from there on they are gone through twice: first for buffers that were given up later, to which nothing is
//! to be replayed, then for the changes. What cannot be told for sure is not replayed at all.

use std::sync::Arc;

use cairn_types::Kind;

use super::superblock::Superblock;
use super::view::View;
use crate::error::{Error, Result};
use crate::file_system::Log;
use crate::volume::Volume;

mod inode;
mod record;
mod replay;
mod transaction;

use record::{BLOCK_BYTES, Circle, Header, IN_FLIGHT};
use replay::Replay;
use transaction::Open;

/// The longest log; the format allows no longer one.
const LOG_BYTES_MAX: u64 = 2 << 30;
/// Of an operation: the file system was unmounted.
const UNMOUNT: u8 = 0x20;

/// The volume as a mount would make it, or as it is where that cannot be told.
///
/// Errors: those that another try may not meet. Were they passed over, the same disk would be
/// one thing now and another one later.
pub(super) fn load(volume: &Arc<Volume>, superblock: &Superblock) -> Result<(View, Log)> {
    match replay(volume, superblock) {
        Err(error) if error.kind() != Kind::Transient => {
            Ok((View::new(Arc::clone(volume)), Log::Dirty))
        }
        loaded => loaded,
    }
}

fn replay(volume: &Arc<Volume>, superblock: &Superblock) -> Result<(View, Log)> {
    let view = View::new(Arc::clone(volume));
    let blocks = u64::from(superblock.log_blocks);
    if superblock.log_start == 0 || blocks == 0 {
        // It lies on another disk.
        return Ok((view, Log::Dirty));
    }
    let bytes = blocks * u64::from(superblock.block_bytes);
    if bytes > LOG_BYTES_MAX {
        return Err(bad("it is too long"));
    }
    let circle = Circle {
        volume,
        start: superblock.block_start(superblock.log_start, blocks)?,
        count: bytes / BLOCK_BYTES,
    };
    if circle.cycle(0)? == 0 {
        // Nothing was ever written to it.
        return Ok((view, Log::Clean));
    }
    let head = circle.head()?;
    if is_unmounted(&circle, head)? {
        return Ok((view, Log::Clean));
    }
    if !superblock.has_checksums {
        // Version 4, which leaves open what was written back already, and of which no Linux tells any more
        // whether it is replayed rightly.
        return Ok((view, Log::Dirty));
    }
    let last = last_whole(&circle, head)?;
    let mut replay = Replay::new(view, superblock.clone());
    each_transaction(&circle, &last, &mut |transaction| replay.note(&transaction))?;
    each_transaction(&circle, &last, &mut |transaction| replay.apply(transaction))?;
    Ok(replay.finish())
}

/// Whether the last record says that the file system was unmounted.
fn is_unmounted(circle: &Circle<'_>, head: u64) -> Result<bool> {
    let Some((header, to_head)) = circle.header_before(head)? else {
        return Ok(false);
    };
    if header.operations != 1 || header.blocks() != to_head {
        return Ok(false);
    }
    let operation = circle.read(header.block + header.headers, 1)?;
    Ok(operation[9] & UNMOUNT != 0)
}

/// The last record that a crash left whole, with all that were written before it. Only of
/// those that are on their way together some may be torn.
fn last_whole(circle: &Circle<'_>, head: u64) -> Result<Header> {
    let mut found: Vec<(Header, u64)> = Vec::new();
    let mut end = head;
    while found.len() <= IN_FLIGHT {
        let Some((header, to_end)) = circle.header_before(end)? else {
            break;
        };
        // What lies before the tail may be overwritten already.
        let tail = found.first().map_or(header.tail, |(newest, _)| newest.tail);
        let newer = found.last().map_or(u64::MAX, |(newer, _)| newer.lsn);
        if header.lsn < tail || header.lsn >= newer {
            break;
        }
        end = header.block;
        found.push((header, to_end));
    }
    let mut last = None;
    for (header, to_end) in found.into_iter().rev() {
        if header.blocks() != to_end || circle.body(&header)?.is_none() {
            break;
        }
        last = Some(header);
    }
    last.ok_or_else(|| bad("its end is damaged"))
}

/// Goes through all that was committed between the tail and the last record.
fn each_transaction(
    circle: &Circle<'_>,
    last: &Header,
    committed: &mut dyn FnMut(transaction::Transaction) -> Result<()>,
) -> Result<()> {
    let mut open = Open::default();
    let (mut block, mut lsn) = (last.tail & 0xffff_ffff, last.tail);
    let mut left = circle.count;
    loop {
        let header = circle.header(block)?;
        let header = header.filter(|header| header.block == block && header.lsn >= lsn);
        let header = header.ok_or_else(|| bad("a record is missing"))?;
        let body = circle.body(&header)?;
        let body = body.ok_or_else(|| bad("a record is damaged"))?;
        open.record(header.lsn, header.operations, &body, committed)?;
        if header.lsn == last.lsn {
            return Ok(());
        }
        let blocks = header.blocks();
        left = left
            .checked_sub(blocks)
            .ok_or_else(|| bad("it goes round in a circle"))?;
        (block, lsn) = ((block + blocks) % circle.count, header.lsn + 1);
    }
}

fn bad(why: &'static str) -> Error {
    Error::damaged("the log", why)
}

//! The GUID partition table: a header and a list at the beginning, and the same at the end of the disk.
//!
//! Source: UEFI Specification 2.10, 5.3.

use std::sync::Arc;

use cairn_types::disk::DiskReader;

use super::{PARTITIONS_MAX, SECTOR_BYTES, Slot, sectors};
use crate::bytes::{crc32, le16, le32, le64};
use crate::error::{Error, Result};

/// How long a header is at least.
const HEADER_BYTES: usize = 92;
/// How long the list may be: 8192 entries of the usual 128 bytes.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// The partitions by the first of the two tables that is whole.
///
/// Errors: neither is; more partitions than there may be.
pub(super) fn read(disk: &Arc<dyn DiskReader>) -> Result<Vec<Slot>> {
    let size_bytes = disk.size_bytes();
    for at_end in [false, true] {
        for sector_bytes in SECTOR_BYTES {
            let last = (size_bytes / sector_bytes).saturating_sub(1);
            let sector = if at_end { last } else { 1 };
            if sector == 0 || sector > last {
                continue;
            }
            if let Some(list) = list(disk, sector, sector_bytes)? {
                return slots(&list, sector_bytes, size_bytes);
            }
        }
    }
    Err(Error::damaged(
        "the partition table",
        "neither of its two copies is whole",
    ))
}

/// The entries of a table, and how long each is.
struct List {
    bytes: Vec<u8>,
    entry_bytes: usize,
}

/// The list of the header in a sector; nothing if either is not whole.
fn list(disk: &Arc<dyn DiskReader>, sector: u64, sector_bytes: u64) -> Result<Option<List>> {
    let mut header = [0; 512];
    disk.read_at(sector * sector_bytes, &mut header)?;
    let length = le32(&header, 12) as usize;
    if !header.starts_with(b"EFI PART") || !(HEADER_BYTES..=header.len()).contains(&length) {
        return Ok(None);
    }
    let sum = crc32(&[&header[..16], &[0; 4], &header[20..length]]);
    if sum != le32(&header, 16) || le64(&header, 24) != sector {
        return Ok(None);
    }
    let (entries, entry_bytes) = (le32(&header, 80), le32(&header, 84));
    let list_bytes = u64::from(entries) * u64::from(entry_bytes);
    let fits = entry_bytes >= 128 && entry_bytes % 8 == 0 && list_bytes <= LIST_BYTES_MAX;
    let start = le64(&header, 72).checked_mul(sector_bytes);
    let end = start.and_then(|start| start.checked_add(list_bytes));
    let (Some(start), true) = (
        start,
        fits && end.is_some_and(|end| end <= disk.size_bytes()),
    ) else {
        return Ok(None);
    };
    let mut bytes = vec![0; list_bytes as usize];
    disk.read_at(start, &mut bytes)?;
    Ok((crc32(&[&bytes]) == le32(&header, 88)).then_some(List {
        bytes,
        entry_bytes: entry_bytes as usize,
    }))
}

fn slots(list: &List, sector_bytes: u64, size_bytes: u64) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for (index, entry) in list.bytes.chunks_exact(list.entry_bytes).enumerate() {
        let is_used = entry[..16].iter().any(|byte| *byte != 0);
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        // One that does not lie on the disk, or nowhere, is none for Linux either.
        let range = sectors(first, last.saturating_add(1), sector_bytes, size_bytes);
        let Some(range) = range.filter(|_| is_used) else {
            continue;
        };
        if slots.len() >= PARTITIONS_MAX {
            return Err(Error::TooLarge {
                what: "the number of partitions",
                limit: PARTITIONS_MAX as u64,
            });
        }
        let name: Vec<u16> = (56..128).step_by(2).map(|at| le16(entry, at)).collect();
        let end = name.iter().position(|one| *one == 0).unwrap_or(name.len());
        let name = String::from_utf16_lossy(&name[..end]);
        slots.push((index as u32 + 1, range, (!name.is_empty()).then_some(name)));
    }
    Ok(slots)
}

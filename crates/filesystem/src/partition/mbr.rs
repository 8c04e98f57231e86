//! The older table: four entries in the first sector, one of which may begin a chain of
//! sectors with an entry each.

use std::sync::Arc;

use cairn_types::disk::DiskReader;

use super::{Slot, sectors};
use crate::bytes::le32;
use crate::error::Result;

const TABLE: usize = 446;
const ENTRY_BYTES: usize = 16;
/// Sectors of the chain that are followed, as many as Linux does.
const CHAIN_MAX: u32 = 100;

/// The type of an entry that only says: there is a GPT.
const PROTECTIVE: u8 = 0xee;
/// The types of one that begins a chain.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

struct Record {
    status: u8,
    kind: u8,
    first: u64,
    count: u64,
}

impl Record {
    fn is_used(&self) -> bool {
        self.kind != 0 && self.count != 0
    }

    fn is_extended(&self) -> bool {
        EXTENDED.contains(&self.kind)
    }
}

fn records(sector: &[u8; 512]) -> [Record; 4] {
    std::array::from_fn(|index| {
        let entry = &sector[TABLE + index * ENTRY_BYTES..][..ENTRY_BYTES];
        Record {
            status: entry[0],
            kind: entry[4],
            first: u64::from(le32(entry, 8)),
            count: u64::from(le32(entry, 12)),
        }
    })
}

fn has_signature(sector: &[u8; 512]) -> bool {
    sector[510..] == [0x55, 0xaa]
}

/// Whether the first sector of a disk says that it has a GPT.
pub(super) fn is_protective(sector: &[u8; 512]) -> bool {
    let mut records = records(sector).into_iter();
    has_signature(sector) && records.any(|record| record.kind == PROTECTIVE)
}

/// Whether the first sector of a disk is a table with something in it.
pub(super) fn is_table(sector: &[u8; 512]) -> bool {
    let records = records(sector);
    has_signature(sector)
        && records
            .iter()
            .all(|record| matches!(record.status, 0 | 0x80))
        && records.iter().any(Record::is_used)
}

/// The partitions. Those of the first sector are 1 to 4, those of the chain 5 and above; what only begins
/// the chain is none.
pub(super) fn read(disk: &Arc<dyn DiskReader>, sector_bytes: u64) -> Result<Vec<Slot>> {
    let size_bytes = disk.size_bytes();
    let range = |first: u64, count: u64| sectors(first, first + count, sector_bytes, size_bytes);
    let mut sector = [0; 512];
    disk.read_at(0, &mut sector)?;
    let mut slots: Vec<Slot> = Vec::new();
    let mut extended = None;
    for (number, record) in (1..).zip(records(&sector)) {
        if record.is_used() && record.is_extended() {
            extended.get_or_insert(record.first);
        } else if let Some(range) = range(record.first, record.count).filter(|_| record.is_used()) {
            slots.push((number, range, None));
        }
    }
    let Some(extended) = extended else {
        return Ok(slots);
    };
    let (mut at, mut number) = (extended, 5);
    for _ in 0..CHAIN_MAX {
        let Some(place) = range(at, 1).filter(|_| at != 0) else {
            break;
        };
        disk.read_at(place.start, &mut sector)?;
        if !has_signature(&sector) {
            break;
        }
        // Numbers in it count from it, those of the next sector from the first of the chain.
        let mut next = None;
        for record in records(&sector).into_iter().filter(Record::is_used) {
            if record.is_extended() {
                next.get_or_insert(extended + record.first);
            } else if let Some(range) = range(at + record.first, record.count) {
                slots.push((number, range, None));
                number += 1;
            }
        }
        let Some(next) = next else {
            break;
        };
        at = next;
    }
    Ok(slots)
}

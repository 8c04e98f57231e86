//! How a disk is divided: by GPT, by MBR, or not at all.

use std::ops::Range;
use std::sync::Arc;

use cairn_types::disk::DiskReader;

use crate::content::{self, Content, Found};
use crate::error::{Error, Result};
use crate::path::{self, shown};

mod gpt;
mod mbr;

/// Partitions of a disk at most; Linux has numbers for no more.
pub const PARTITIONS_MAX: usize = 256;

/// Sizes of sectors that disks have. Nothing on a disk says which; tables count in them.
const SECTOR_BYTES: [u64; 2] = [512, 4096];

/// By what a disk is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A GUID partition table.
    Gpt,
    /// The older table of four, with chains of further ones.
    Mbr,
    /// Nothing: the whole disk is one.
    Whole,
}

/// A part of a disk, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux counts; 0 for the whole disk.
    pub number: u32,
    /// The bytes that it has.
    pub range: Range<u64>,
    /// Its name in the table, if it has one there.
    pub name: Option<String>,
    /// What is in it.
    pub found: Found,
}

/// How a disk is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// By what.
    pub scheme: Scheme,
    /// The partitions, by their numbers; the only one is number 0 if the whole disk is one.
    pub partitions: Vec<Partition>,
}

/// An entry of a table: its number, its bytes, its name.
type Slot = (u32, Range<u64>, Option<String>);

impl Layout {
    /// Reads the table of a disk, and the beginning of each partition.
    ///
    /// Errors: `Corrupt` a table that is there is damaged; `Exhausted` it has more partitions than
    /// [`PARTITIONS_MAX`]; what the disk says.
    pub fn read(disk: &Arc<dyn DiskReader>) -> Result<Self> {
        let size_bytes = disk.size_bytes();
        let mut sector = [0; 512];
        if size_bytes >= sector.len() as u64 {
            disk.read_at(0, &mut sector)?;
        }
        if mbr::is_protective(&sector) {
            let slots = gpt::read(disk)?;
            return Self::new(disk, Scheme::Gpt, slots);
        }
        let whole = content::find(disk, &(0..size_bytes))?;
        // The boot sectors of FAT and NTFS end like a table; other file systems leave room for one before
        // them, and what is left of an older one counts less than a table does.
        let is_boot_sector = matches!(whole.content, Content::Vfat | Content::Ntfs);
        if !is_boot_sector && mbr::is_table(&sector) {
            return Self::by_mbr(disk);
        }
        Ok(Self {
            scheme: Scheme::Whole,
            partitions: vec![Partition {
                number: 0,
                range: 0..size_bytes,
                name: None,
                found: whole,
            }],
        })
    }

    /// Where 512 bytes for a sector find nothing known and 4096 do, these are right.
    fn by_mbr(disk: &Arc<dyn DiskReader>) -> Result<Self> {
        let mut first = None;
        for sector_bytes in SECTOR_BYTES {
            let read =
                mbr::read(disk, sector_bytes).and_then(|slots| Self::new(disk, Scheme::Mbr, slots));
            let is_known = read.as_ref().is_ok_and(|layout| {
                let mut partitions = layout.partitions.iter();
                partitions.any(|one| one.found.content != Content::Unknown)
            });
            if is_known {
                return read;
            }
            first.get_or_insert(read);
        }
        first.expect("there is a size of sectors")
    }

    fn new(disk: &Arc<dyn DiskReader>, scheme: Scheme, slots: Vec<Slot>) -> Result<Self> {
        let mut partitions = Vec::with_capacity(slots.len());
        for (number, range, name) in slots {
            let found = content::find(disk, &range)?;
            partitions.push(Partition {
                number,
                range,
                name,
                found,
            });
        }
        Ok(Self { scheme, partitions })
    }

    /// The partition that a path names by its first name, `p` and a number, and the rest of the path; on a disk
    /// without partitions the whole path is the rest.
    ///
    /// Errors: `Invalid` the disk has partitions and the path names none; `NotFound` not this one.
    pub fn locate<'p>(&self, path: &'p [u8]) -> Result<(&Partition, &'p [u8])> {
        path::check(path)?;
        if self.scheme == Scheme::Whole {
            let whole = self.partitions.first().ok_or(Error::NoPartitionNamed)?;
            return Ok((whole, path));
        }
        let start = path.iter().position(|byte| *byte != b'/');
        let path = &path[start.unwrap_or(path.len())..];
        let end = path.iter().position(|byte| *byte == b'/');
        let (name, rest) = path.split_at(end.unwrap_or(path.len()));
        let digits = name.strip_prefix(b"p").unwrap_or_default();
        let is_number = (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        let number = shown(digits).parse().ok().filter(|_| is_number);
        let number = number.ok_or(Error::NoPartitionNamed)?;
        let found = self.partitions.iter().find(|one| one.number == number);
        Ok((found.ok_or(Error::NoPartition { number })?, rest))
    }
}

/// Bytes by the first sector and the one behind the last, if they lie on a disk.
fn sectors(first: u64, end: u64, sector_bytes: u64, size_bytes: u64) -> Option<Range<u64>> {
    let start = first.checked_mul(sector_bytes)?;
    let end = end.checked_mul(sector_bytes)?;
    (start < end && end <= size_bytes).then_some(start..end)
}

//! A disk as a qcow2 image that nobody has written: where each byte of it lies follows from where
//! the disk has data, so that any range can be made without those before it.
//!
//! In its order: the header, the L1 table, the refcount table and its blocks, an L2 table for
//! each 512 MiB of the disk that hold data, and the clusters of data as they come on the disk. What
//! is all hole takes no space. Memory holds two numbers for each L2 table (2 MiB for a full disk of
//! 64 TiB), and the map of the one that was needed last.
//!
//! Source: QEMU's `docs/interop/qcow2.txt`.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::disk::{DiskError, DiskReader};

/// Bytes of a cluster.
pub(super) const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
/// The largest disk that there is an image of. Source: QEMU, which takes no L1 table beyond 32 MiB.
pub(super) const DISK_BYTES_MAX: u64 = 1 << 51;
/// Clusters of the disk that an L2 table maps: as many as it has entries of eight bytes.
const TABLE_CLUSTERS: u64 = CLUSTER_BYTES / 8;
/// Bytes of the disk that an L2 table maps.
const TABLE_SPAN: u64 = TABLE_CLUSTERS * CLUSTER_BYTES;
/// Clusters of the image that a refcount block counts, by two bytes each.
const BLOCK_CLUSTERS: u64 = CLUSTER_BYTES / 2;
/// An image's size is a number of these.
const SECTOR_BYTES: u64 = 512;
/// In an entry of a table: what it points to is nobody else's.
const COPIED: u64 = 1 << 63;
/// Bytes of the header. Behind it stands the end of its extensions, eight bytes of zeros.
const HEADER_BYTES: u32 = 104;

/// Where what lies in the image of a disk. Holds nothing open.
#[derive(Debug)]
pub(crate) struct Map {
    size_bytes: u64,
    /// The L2 tables that there are, by what they map, each with the number of clusters before it.
    tables: Vec<(u64, u64)>,
    places: Places,
}

/// The first cluster of everything in the image.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    l1: u64,
    refcount_table: u64,
    refcount_blocks: u64,
    l2: u64,
    data: u64,
    end: u64,
}

/// Which clusters that an L2 table maps hold data: a bit for each.
type Bits = [u64; TABLE_CLUSTERS as usize / 64];

impl Map {
    /// Asks a disk, of at most [`DISK_BYTES_MAX`], where its data lies.
    ///
    /// Errors: those of the disk.
    pub(crate) fn of(disk: &dyn DiskReader) -> Result<Self, DiskError> {
        let size_bytes = disk.size_bytes();
        let (mut tables, mut data, mut at) = (Vec::new(), 0, 0);
        while let Some(start) = data_from(disk, at)? {
            let table = start / TABLE_SPAN;
            let bits = bits_of(disk, table)?;
            tables.push((table, data));
            data += bits
                .iter()
                .map(|word| u64::from(word.count_ones()))
                .sum::<u64>();
            at = (table + 1).saturating_mul(TABLE_SPAN);
        }
        Ok(Self::new(size_bytes, tables, data))
    }

    fn new(size_bytes: u64, tables: Vec<(u64, u64)>, data: u64) -> Self {
        let places = Places::new(size_bytes, tables.len() as u64, data);
        Self {
            size_bytes,
            tables,
            places,
        }
    }

    /// How long the image is.
    pub(crate) const fn image_bytes(&self) -> u64 {
        self.places.end * CLUSTER_BYTES
    }

    /// The place of the table that maps a cluster of data.
    fn table_of(&self, ordinal: u64) -> usize {
        self.tables
            .partition_point(|(_, before)| *before <= ordinal)
            - 1
    }

    fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CLUSTER_BYTES as usize);
        let mut put = |field: &[u8]| bytes.extend_from_slice(field);
        let tables = l1_entries(self.size_bytes);
        put(b"QFI\xfb");
        put(&3_u32.to_be_bytes());
        // No backing file.
        put(&[0; 12]);
        put(&CLUSTER_BITS.to_be_bytes());
        put(&self.size_bytes.next_multiple_of(SECTOR_BYTES).to_be_bytes());
        // Not encrypted.
        put(&[0; 4]);
        put(&u32::try_from(tables)
            .expect("a disk has at most 2^51 bytes")
            .to_be_bytes());
        put(&(self.places.l1 * CLUSTER_BYTES).to_be_bytes());
        put(&(self.places.refcount_table * CLUSTER_BYTES).to_be_bytes());
        let length = self.places.refcount_blocks - self.places.refcount_table;
        put(&u32::try_from(length)
            .expect("a disk has at most 2^51 bytes")
            .to_be_bytes());
        // No snapshots, and no features beyond version 3.
        put(&[0; 12 + 24]);
        // Refcounts of 2^4 bits.
        put(&4_u32.to_be_bytes());
        put(&HEADER_BYTES.to_be_bytes());
        bytes.resize(CLUSTER_BYTES as usize, 0);
        bytes
    }

    /// A cluster of a table of places: `entry` says what of each number.
    fn numbers(cluster: u64, entry: impl Fn(u64) -> u64) -> Vec<u8> {
        let first = cluster * TABLE_CLUSTERS;
        let entries = (first..first + TABLE_CLUSTERS).map(entry);
        entries.flat_map(u64::to_be_bytes).collect()
    }

    fn l1(&self, cluster: u64) -> Vec<u8> {
        Self::numbers(cluster, |table| {
            let found = self
                .tables
                .binary_search_by_key(&table, |(number, _)| *number);
            found.map_or(0, |place| {
                ((self.places.l2 + place as u64) * CLUSTER_BYTES) | COPIED
            })
        })
    }

    fn refcount_table(&self, cluster: u64) -> Vec<u8> {
        let blocks = self.places.l2 - self.places.refcount_blocks;
        Self::numbers(cluster, |block| match block < blocks {
            true => (self.places.refcount_blocks + block) * CLUSTER_BYTES,
            false => 0,
        })
    }

    /// Everything in the image is there once.
    fn refcount_block(&self, block: u64) -> Vec<u8> {
        let first = block * BLOCK_CLUSTERS;
        let counts =
            (first..first + BLOCK_CLUSTERS).map(|cluster| u16::from(cluster < self.places.end));
        counts.flat_map(u16::to_be_bytes).collect()
    }

    fn l2(&self, place: usize, bits: &Bits) -> Vec<u8> {
        let mut ordinal = self.tables[place].1;
        let mut bytes = Vec::with_capacity(CLUSTER_BYTES as usize);
        for cluster in 0..TABLE_CLUSTERS {
            let entry = match is_set(bits, cluster) {
                true => {
                    ordinal += 1;
                    ((self.places.data + ordinal - 1) * CLUSTER_BYTES) | COPIED
                }
                false => 0,
            };
            bytes.extend_from_slice(&entry.to_be_bytes());
        }
        bytes
    }
}

impl Places {
    fn new(size_bytes: u64, l2_tables: u64, data: u64) -> Self {
        let l1 = 1;
        let refcount_table = l1 + l1_entries(size_bytes).div_ceil(TABLE_CLUSTERS);
        let others = refcount_table + l2_tables + data;
        // The blocks count themselves and their table too: more of them until all are counted.
        let (mut blocks, mut table) = (0, 0);
        loop {
            let wanted = (others + blocks + table).div_ceil(BLOCK_CLUSTERS);
            let wanted_table = wanted.div_ceil(TABLE_CLUSTERS);
            if (wanted, wanted_table) == (blocks, table) {
                break;
            }
            (blocks, table) = (wanted, wanted_table);
        }
        let refcount_blocks = refcount_table + table;
        let l2 = refcount_blocks + blocks;
        let data_start = l2 + l2_tables;
        Self {
            l1,
            refcount_table,
            refcount_blocks,
            l2,
            data: data_start,
            end: data_start + data,
        }
    }
}

const fn l1_entries(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(TABLE_SPAN)
}

const fn is_set(bits: &Bits, cluster: u64) -> bool {
    bits[cluster as usize / 64] >> (cluster % 64) & 1 == 1
}

/// The first byte from an offset on that may be anything but zero.
fn data_from(disk: &dyn DiskReader, from: u64) -> Result<Option<u64>, DiskError> {
    let mut at = from;
    while at < disk.size_bytes() {
        let extent = disk.extent_at(at)?;
        if extent.data {
            return Ok(Some(at));
        }
        at = extent.end();
    }
    Ok(None)
}

/// Which of the clusters that an L2 table maps hold data.
fn bits_of(disk: &dyn DiskReader, table: u64) -> Result<Box<Bits>, DiskError> {
    let mut bits = Box::new([0; TABLE_CLUSTERS as usize / 64]);
    let start = table * TABLE_SPAN;
    let end = start.saturating_add(TABLE_SPAN).min(disk.size_bytes());
    let mut at = start;
    while at < end {
        let extent = disk.extent_at(at)?;
        let until = extent.end().min(end);
        if extent.data {
            let (first, last) = (at - start, until - start - 1);
            for cluster in first / CLUSTER_BYTES..=last / CLUSTER_BYTES {
                bits[cluster as usize / 64] |= 1 << (cluster % 64);
            }
        }
        at = until;
    }
    Ok(bits)
}

/// A part of an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// These bytes.
    Made(Vec<u8>),
    /// This range of the disk.
    Disk(Range<u64>),
    /// So many zeros, behind the disk's end.
    Zeros(u64),
}

/// The image of a disk.
pub(crate) struct Image {
    map: Arc<Map>,
    disk: Arc<dyn DiskReader>,
    /// The map of the L2 table that was needed last, by its place.
    last: Mutex<Option<(usize, Arc<Bits>)>>,
}

impl Image {
    pub(crate) fn new(map: Arc<Map>, disk: Arc<dyn DiskReader>) -> Self {
        Self {
            map,
            disk,
            last: Mutex::default(),
        }
    }

    /// What the image has from an offset before its end on, at most `limit` bytes of it.
    ///
    /// Errors: those of the disk.
    pub(crate) fn part(&self, offset: u64, limit: u64) -> Result<Part, DiskError> {
        let (cluster, inside) = (offset / CLUSTER_BYTES, offset % CLUSTER_BYTES);
        let map = &*self.map;
        let places = &map.places;
        if cluster >= places.data {
            return self.data(cluster - places.data, inside, limit);
        }
        let made = if cluster >= places.l2 {
            let place = (cluster - places.l2) as usize;
            map.l2(place, &*self.bits(place)?)
        } else if cluster >= places.refcount_blocks {
            map.refcount_block(cluster - places.refcount_blocks)
        } else if cluster >= places.refcount_table {
            map.refcount_table(cluster - places.refcount_table)
        } else if cluster >= places.l1 {
            map.l1(cluster - places.l1)
        } else {
            map.header()
        };
        let end = CLUSTER_BYTES.min(inside.saturating_add(limit));
        Ok(Part::Made(made[inside as usize..end as usize].to_vec()))
    }

    /// The clusters of data from one on, as far as they lie together on the disk.
    fn data(&self, ordinal: u64, inside: u64, limit: u64) -> Result<Part, DiskError> {
        let place = self.map.table_of(ordinal);
        let (table, before) = self.map.tables[place];
        let bits = self.bits(place)?;
        let first =
            nth_set(&bits, ordinal - before).expect("the map counted the clusters of this table");
        let run = (first..TABLE_CLUSTERS).take_while(|cluster| is_set(&bits, *cluster));
        let table_start = table * TABLE_SPAN;
        let start = table_start + first * CLUSTER_BYTES + inside;
        let end = table_start + (first + run.count() as u64) * CLUSTER_BYTES;
        let size_bytes = self.map.size_bytes;
        if start >= size_bytes {
            return Ok(Part::Zeros((end - start).min(limit)));
        }
        Ok(Part::Disk(
            start..end.min(size_bytes).min(start.saturating_add(limit)),
        ))
    }

    fn bits(&self, place: usize) -> Result<Arc<Bits>, DiskError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((kept, bits)) = &*last
            && *kept == place
        {
            return Ok(Arc::clone(bits));
        }
        let table = self.map.tables[place].0;
        let bits: Arc<Bits> = Arc::from(bits_of(&*self.disk, table)?);
        *last = Some((place, Arc::clone(&bits)));
        Ok(bits)
    }
}

/// The place of the bit that is set behind `before` others that are.
fn nth_set(bits: &Bits, before: u64) -> Option<u64> {
    let mut left = before;
    for (number, word) in bits.iter().enumerate() {
        let here = u64::from(word.count_ones());
        if left >= here {
            left -= here;
            continue;
        }
        let mut set = (0..64).filter(|bit| word >> bit & 1 == 1);
        return Some(number as u64 * 64 + set.nth(left as usize)?);
    }
    None
}

#[cfg(test)]
mod tests;

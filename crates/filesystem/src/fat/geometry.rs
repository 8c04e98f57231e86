//! Where tables, directories and clusters lie, by the boot sector.

use crate::bytes::{le16, le32};
use crate::error::{Error, Result};

/// How wide an entry of the table is, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Bits12,
    Bits16,
    Bits32,
}

/// What follows a cluster.
pub(super) enum Next {
    Cluster(u64),
    End,
}

/// What the boot sector says, checked.
#[derive(Debug, Clone)]
pub(crate) struct Geometry {
    pub(super) width: Width,
    pub(super) cluster_bytes: u64,
    /// The directory of a fixed length that FAT12 and FAT16 begin with; of FAT32, where the clusters begin.
    pub(super) root_start: u64,
    pub(super) root_bytes: usize,
    /// The first cluster of the uppermost directory of FAT32.
    pub(super) root_cluster: u64,
    table_start: u64,
    clusters_start: u64,
    clusters: u64,
}

impl Geometry {
    pub(crate) fn is_32(&self) -> bool {
        self.width == Width::Bits32
    }

    /// Errors: it is no boot sector of this kind.
    pub(crate) fn parse(boot: &[u8]) -> Result<Self> {
        let bad = |why| Error::damaged("the boot sector", why);
        let sector = u64::from(le16(boot, 11));
        let per_cluster = u64::from(boot[13]);
        let reserved = u64::from(le16(boot, 14));
        let tables = u64::from(boot[16]);
        let root_entries = u64::from(le16(boot, 17));
        if !matches!(sector, 512 | 1024 | 2048 | 4096) || !per_cluster.is_power_of_two() {
            return Err(bad("the size of a sector or of a cluster is wrong"));
        }
        if reserved == 0 || !(1..=4).contains(&tables) || !(boot[21] >= 0xf8 || boot[21] == 0xf0) {
            return Err(bad("it is none of FAT"));
        }
        let either = |small: u16, large: u32| match small {
            0 => u64::from(large),
            small => u64::from(small),
        };
        let total = either(le16(boot, 19), le32(boot, 32));
        let is_32 = le16(boot, 22) == 0;
        let table = either(le16(boot, 22), le32(boot, 36));
        let root_sectors = (root_entries * 32).div_ceil(sector);
        let root_sector = reserved + tables * table;
        let data = total.checked_sub(root_sector + root_sectors);
        let clusters = data.unwrap_or(0) / per_cluster;
        if clusters == 0 || table == 0 || is_32 == (root_entries != 0) {
            return Err(bad("its sizes do not go together"));
        }
        let width = match (is_32, clusters) {
            (true, _) => Width::Bits32,
            (false, ..4085) => Width::Bits12,
            (false, ..65525) => Width::Bits16,
            (false, _) => return Err(bad("it has too many clusters")),
        };
        let bits = match width {
            Width::Bits12 => 12,
            Width::Bits16 => 16,
            Width::Bits32 => 32,
        };
        // FAT32 may name one of its tables as the one that counts.
        let flags = le16(boot, 40);
        let active = if is_32 && flags & 0x80 != 0 {
            u64::from(flags & 0xf)
        } else {
            0
        };
        if active >= tables {
            return Err(bad("it names a table that is not there"));
        }
        let in_table = (table * sector * 8 / bits).saturating_sub(2);
        Ok(Self {
            width,
            cluster_bytes: per_cluster * sector,
            root_start: root_sector * sector,
            root_bytes: (root_entries * 32) as usize,
            root_cluster: if is_32 { u64::from(le32(boot, 44)) } else { 0 },
            table_start: (reserved + active * table) * sector,
            clusters_start: (root_sector + root_sectors) * sector,
            clusters: clusters.min(in_table).min(0x0fff_fff4),
        })
    }

    /// Where a cluster lies.
    pub(super) fn cluster_start(&self, cluster: u64) -> Result<u64> {
        if !(2..self.clusters + 2).contains(&cluster) {
            return Err(Error::damaged(
                format!("cluster {cluster}"),
                "there is no such one",
            ));
        }
        Ok(self.clusters_start + (cluster - 2) * self.cluster_bytes)
    }

    /// Where a cluster's entry in the table lies, and whether it has 4 bytes.
    pub(super) fn table_entry(&self, cluster: u64) -> (u64, bool) {
        let within = match self.width {
            Width::Bits12 => cluster + cluster / 2,
            Width::Bits16 => cluster * 2,
            Width::Bits32 => cluster * 4,
        };
        (self.table_start + within, self.width == Width::Bits32)
    }

    /// What a cluster's entry says.
    pub(super) fn next(&self, cluster: u64, entry: u32) -> Result<Next> {
        let (value, end) = match self.width {
            Width::Bits12 if cluster % 2 == 1 => (entry >> 4 & 0xfff, 0xff8),
            Width::Bits12 => (entry & 0xfff, 0xff8),
            Width::Bits16 => (entry & 0xffff, 0xfff8),
            Width::Bits32 => (entry & 0x0fff_ffff, 0x0fff_fff8),
        };
        if value >= end {
            return Ok(Next::End);
        }
        let next = u64::from(value);
        self.cluster_start(next)?;
        Ok(Next::Cluster(next))
    }
}

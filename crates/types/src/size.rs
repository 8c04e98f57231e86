//! Sizes. Inside Cairn a size is a number of bytes; CBR speaks of GB and MB,
//! by which it means 2^30 and 2^20 bytes.

/// Bytes in what CBR calls a GB.
pub const BYTES_PER_GB: u64 = 1 << 30;
/// Bytes in what CBR calls an MB.
pub const BYTES_PER_MB: u64 = 1 << 20;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// The size in GB, rounded up: what a resource of this size occupies of a vault.
    pub const fn gb_ceil(self) -> u64 {
        self.0.div_ceil(BYTES_PER_GB)
    }

    /// The size in MB, rounded up.
    pub const fn mb_ceil(self) -> u64 {
        self.0.div_ceil(BYTES_PER_MB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_a_unit_counts_as_a_whole_one() {
        assert_eq!(ByteCount(0).gb_ceil(), 0);
        assert_eq!(ByteCount(1).gb_ceil(), 1);
        assert_eq!(ByteCount(BYTES_PER_GB).gb_ceil(), 1);
        assert_eq!(ByteCount(BYTES_PER_GB + 1).gb_ceil(), 2);
        assert_eq!(ByteCount(u64::MAX).mb_ceil(), 1 << 44);
    }
}

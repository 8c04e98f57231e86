//! What is measured: the rows of the tables.

use std::collections::BTreeMap;

/// One thing that is measured; less is better in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// The first backup, into an empty repository.
    Full,
    /// The second generation, with nothing to tell what has changed.
    Incremental,
    /// The second generation, with a list of what has changed.
    Hinted,
    /// The second generation again, with a list that says: nothing.
    HintedAgain,
    /// The same again, with nothing to tell so.
    Again,
    /// The second generation, onto an empty place.
    Restore,
    /// Every byte of the repository.
    Verify,
    /// The first generation is deleted and its space comes back.
    Delete,
    /// The repository after the first backup.
    FullBytes,
    /// By how much the second backup makes it grow.
    Growth,
    /// What the unchanged disk adds to it.
    HintedAgainBytes,
    /// The most memory of the first backup ...
    FullPeak,
    /// ... of the second ...
    IncrementalPeak,
    /// ... of the one with a list of changes ...
    HintedPeak,
    /// ... of the unchanged one ...
    HintedAgainPeak,
    /// ... of the restore ...
    RestorePeak,
    /// ... of the verification ...
    VerifyPeak,
    /// ... and of the deletion.
    DeletePeak,
    /// `cp` of the second generation, holes kept.
    Copy,
    /// Decompressing what the full backup compressed, on all cores.
    Decompress,
    /// Reading and compressing the first generation's data at zstd level 3, on all cores.
    Compress,
    /// BLAKE3 over the first generation's data, on all cores.
    Hash,
    /// Reading, compressing and sealing the blocks that the second generation changed, on all cores.
    ChangedOnly,
}

/// What a figure counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Mebibytes,
}

/// What one round of one tool measured: seconds, or bytes.
pub type Figures = BTreeMap<Figure, f64>;

impl Figure {
    pub fn unit(self) -> Unit {
        match self {
            Self::FullBytes
            | Self::Growth
            | Self::HintedAgainBytes
            | Self::FullPeak
            | Self::IncrementalPeak
            | Self::HintedPeak
            | Self::HintedAgainPeak
            | Self::RestorePeak
            | Self::VerifyPeak
            | Self::DeletePeak => Unit::Mebibytes,
            _ => Unit::Seconds,
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Full => "full, s",
            Self::Incremental => "incremental, s",
            Self::Hinted => "incremental with change map, s",
            Self::HintedAgain => "unchanged with change map, s",
            Self::Again => "unchanged, s",
            Self::Restore => "restore, s",
            Self::Verify => "full verification, s",
            Self::Delete => "deletion and collection, s",
            Self::FullBytes => "repository, MiB",
            Self::Growth => "growth, MiB",
            Self::HintedAgainBytes => "growth, unchanged, MiB",
            Self::FullPeak => "memory, full, MiB",
            Self::IncrementalPeak => "memory, incremental, MiB",
            Self::HintedPeak => "memory, with change map, MiB",
            Self::HintedAgainPeak => "memory, unchanged, MiB",
            Self::RestorePeak => "memory, restore, MiB",
            Self::VerifyPeak => "memory, verification, MiB",
            Self::DeletePeak => "memory, deletion, MiB",
            Self::Copy => "cp, s",
            Self::Decompress => "decompression alone, s",
            Self::Compress => "compression alone, s",
            Self::Hash => "BLAKE3 alone, s",
            Self::ChangedOnly => "the changed blocks alone, s",
        }
    }
}

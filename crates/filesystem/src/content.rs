//! What a range of a disk holds, told by its first bytes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use cairn_types::disk::DiskReader;

use crate::bytes::{be16, le16, le32, le64, padded_text, uuid_text};
use crate::error::Result;
use crate::ext::{self, Superblock};
use crate::fat;

/// As much as all kinds are told by: btrfs has its superblock behind 64 KiB.
const HEAD_BYTES: u64 = 64 * 1024 + 4096;

/// What a range of a disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Content {
    /// ext2.
    Ext2,
    /// ext3.
    Ext3,
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// FAT of 12, 16 or 32 bits.
    Vfat,
    /// Swapped memory of Linux.
    Swap,
    /// A physical volume of LVM.
    Lvm,
    /// An encrypted volume (LUKS).
    Luks,
    /// btrfs.
    Btrfs,
    /// NTFS.
    Ntfs,
    /// Something else, or nothing.
    Unknown,
}

impl Content {
    /// The name, as `blkid` has it where it knows it too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Vfat => "vfat",
            Self::Swap => "swap",
            Self::Lvm => "lvm",
            Self::Luks => "luks",
            Self::Btrfs => "btrfs",
            Self::Ntfs => "ntfs",
            Self::Unknown => "unknown",
        }
    }

    /// Whether `FileSystem::open` may open it.
    pub const fn is_readable(self) -> bool {
        matches!(
            self,
            Self::Ext2 | Self::Ext3 | Self::Ext4 | Self::Xfs | Self::Vfat
        )
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was found in a range, and what it calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub content: Content,
    /// Its label, if it has one.
    pub label: Option<String>,
    /// What identifies it, as `blkid` writes it, if anything does.
    pub uuid: Option<String>,
}

impl Found {
    fn new(content: Content, label: Option<String>, uuid: Option<String>) -> Self {
        Self {
            content,
            label,
            uuid,
        }
    }
}

/// Tells what a range holds; the caller has made sure that it lies on the disk.
pub(crate) fn find(disk: &Arc<dyn DiskReader>, range: &Range<u64>) -> Result<Found> {
    let length = HEAD_BYTES.min(range.end - range.start);
    let mut head = vec![0; length as usize];
    disk.read_at(range.start, &mut head)?;
    // Nothing that is told by a byte behind a short range is there.
    head.resize(HEAD_BYTES as usize, 0);
    let found = volume(&head)
        .or_else(|| xfs(&head))
        .or_else(|| ext(&head))
        .or_else(|| btrfs(&head))
        .or_else(|| swap(&head))
        .or_else(|| fat(&head));
    Ok(found.unwrap_or(Found::new(Content::Unknown, None, None)))
}

/// What is no file system, and NTFS.
fn volume(head: &[u8]) -> Option<Found> {
    if head.starts_with(b"LUKS\xba\xbe") {
        let label = (be16(head, 6) == 2).then(|| padded_text(&head[24..72]));
        let uuid = padded_text(&head[168..208]);
        return Some(Found::new(Content::Luks, label.flatten(), uuid));
    }
    for label in head[..2048].chunks_exact(512) {
        if label.starts_with(b"LABELONE") && label[24..].starts_with(b"LVM2 001") {
            let uuid = padded_text(&label[32..64]);
            return Some(Found::new(Content::Lvm, None, uuid));
        }
    }
    if &head[3..11] == b"NTFS    " {
        let serial = format!("{:016X}", le64(head, 0x48));
        return Some(Found::new(Content::Ntfs, None, Some(serial)));
    }
    None
}

fn xfs(head: &[u8]) -> Option<Found> {
    head.starts_with(b"XFSB").then(|| {
        Found::new(
            Content::Xfs,
            padded_text(&head[108..120]),
            uuid_text(&head[32..48]),
        )
    })
}

fn ext(head: &[u8]) -> Option<Found> {
    let superblock = &head[ext::SUPERBLOCK_OFFSET as usize..][..ext::SUPERBLOCK_BYTES];
    let content = match Superblock::generation(superblock)? {
        2 => Content::Ext2,
        3 => Content::Ext3,
        _ => Content::Ext4,
    };
    Some(Found::new(
        content,
        padded_text(&superblock[0x78..0x88]),
        uuid_text(&superblock[0x68..0x78]),
    ))
}

fn btrfs(head: &[u8]) -> Option<Found> {
    let superblock = &head[64 * 1024..];
    (&superblock[0x40..0x48] == b"_BHRfS_M").then(|| {
        Found::new(
            Content::Btrfs,
            padded_text(&superblock[0x12b..0x22b]),
            uuid_text(&superblock[0x20..0x30]),
        )
    })
}

/// The signature stands at the end of the first page, whose size depends on the processor.
fn swap(head: &[u8]) -> Option<Found> {
    let is_swap = [4096, 8192, 16384, 32768, 65536]
        .into_iter()
        .any(|page| &head[page - 10..page] == b"SWAPSPACE2");
    is_swap.then(|| {
        Found::new(
            Content::Swap,
            padded_text(&head[1052..1068]),
            uuid_text(&head[1036..1052]),
        )
    })
}

fn fat(head: &[u8]) -> Option<Found> {
    let geometry = fat::Geometry::parse(&head[..512]).ok()?;
    let (signature, serial, label) = if geometry.is_32() {
        (0x42, 0x43, 0x47)
    } else {
        (0x26, 0x27, 0x2b)
    };
    if head[signature] != 0x29 {
        return Some(Found::new(Content::Vfat, None, None));
    }
    let uuid = format!(
        "{:04X}-{:04X}",
        le32(head, serial) >> 16,
        le16(head, serial)
    );
    let label = padded_text(&head[label..label + 11]).filter(|label| label != "NO NAME");
    Some(Found::new(Content::Vfat, label, Some(uuid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told by bytes at these places.
    fn found(places: &[(usize, &[u8])]) -> (Content, Option<String>, Option<String>) {
        let mut head = vec![0; HEAD_BYTES as usize];
        for (at, bytes) in places {
            head[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        let found = volume(&head).or_else(|| btrfs(&head));
        let found = found.unwrap_or(Found::new(Content::Unknown, None, None));
        (found.content, found.label, found.uuid)
    }

    #[test]
    fn what_is_not_read_is_told_apart() {
        let text = |text: &str| Some(text.to_owned());
        let uuid = "6f3c0a52-0ad5-4a5c-9f0e-2f1f1d0a9b11";
        let luks = found(&[
            (0, b"LUKS\xba\xbe\0\x02"),
            (24, b"secret"),
            (168, uuid.as_bytes()),
        ]);
        assert_eq!(luks, (Content::Luks, text("secret"), text(uuid)));
        // Version 1 has no label: other things stand there.
        let luks = found(&[
            (0, b"LUKS\xba\xbe\0\x01"),
            (24, b"xts-plain64"),
            (168, uuid.as_bytes()),
        ]);
        assert_eq!(luks, (Content::Luks, None, text(uuid)));
        let id = "abcdefghijklmnopqrstuvwxyz012345";
        for sector in [0, 512, 1536] {
            let label: [(usize, &[u8]); 3] = [
                (sector, b"LABELONE"),
                (sector + 24, b"LVM2 001"),
                (sector + 32, id.as_bytes()),
            ];
            assert_eq!(found(&label), (Content::Lvm, None, text(id)));
        }
        let ntfs = found(&[
            (3, b"NTFS    "),
            (0x48, &[0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 1]),
        ]);
        assert_eq!(ntfs, (Content::Ntfs, None, text("0123456789ABCDEF")));
        let start = 64 * 1024;
        let btrfs = found(&[
            (start + 0x40, b"_BHRfS_M"),
            (start + 0x12b, b"pool"),
            (start + 0x20, &[0x11; 16]),
        ]);
        let uuid = text("11111111-1111-1111-1111-111111111111");
        assert_eq!(btrfs, (Content::Btrfs, text("pool"), uuid));
        assert_eq!(found(&[]).0, Content::Unknown);
    }
}

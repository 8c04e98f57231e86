//! The scratch file of a disk: what the guest overwrites during a backup is
//! kept there first. It has no name, so that it is gone when QEMU and Cairn
//! have closed it, and a size that it never grows beyond.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cairn_types::disk::Because;

/// Clusters of 64 KiB: the blocks in which QEMU keeps what is overwritten.
const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
/// Bytes of a disk that one entry of the first table covers: a cluster of entries of 8 bytes.
const BYTES_A_TABLE: u64 = CLUSTER_BYTES / 8 * CLUSTER_BYTES;
/// Bytes of the largest disk: its first table takes half of the smallest scratch file.
const MAX_DISK_BYTES: u64 = 1 << 49;
/// Bytes of scratch space that are worth beginning with.
const MIN_BYTES: u64 = 16 << 20;
/// Of the free space all scratch files of a backup may use this part: the images grow as well.
const PART_OF_FREE: u64 = 2;

/// How large each of `count` scratch files in `folder` may become; some of them need less.
///
/// Errors: `StorageFull` too little is free.
pub(super) fn limit(folder: &Path, count: u64) -> io::Result<u64> {
    let system = rustix::fs::statvfs(folder)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let each = free / PART_OF_FREE / count.max(1);
    if each < MIN_BYTES {
        let needed = MIN_BYTES.saturating_mul(PART_OF_FREE).saturating_mul(count);
        return Err(no_room("the folder of its images", free, needed));
    }
    Ok(each - each % CLUSTER_BYTES)
}

/// Too little is free for scratch files.
pub(crate) fn no_room(place: &str, free: u64, needed: u64) -> io::Error {
    let mib = |bytes: u64| bytes >> 20;
    let why = format!(
        "{} MiB are free for scratch files in {place}, {} MiB are needed",
        mib(free),
        mib(needed)
    );
    Because::error(io::ErrorKind::StorageFull, why)
}

/// An empty qcow2 image of a disk of `disk_bytes` in a file of `limit_bytes`, most of it a hole.
/// Source: QEMU, `docs/interop/qcow2.txt`.
pub(super) fn create(folder: &Path, disk_bytes: u64, limit_bytes: u64) -> io::Result<File> {
    if disk_bytes > MAX_DISK_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let file = tempfile::tempfile_in(folder)?;
    file.set_len(limit_bytes)?;
    let tables = disk_bytes.div_ceil(BYTES_A_TABLE);
    // The header, the table of reference counts, a block of them, and then the first table.
    let (counts, block, first) = (CLUSTER_BYTES, 2 * CLUSTER_BYTES, 3 * CLUSTER_BYTES);
    let used = 3 + (tables * 8).div_ceil(CLUSTER_BYTES);
    let mut header = Vec::with_capacity(112);
    let number = |header: &mut Vec<u8>, number: u32| header.extend(number.to_be_bytes());
    let long = |header: &mut Vec<u8>, number: u64| header.extend(number.to_be_bytes());
    header.extend(b"QFI\xfb");
    number(&mut header, 3);
    long(&mut header, 0); // No backing file,
    number(&mut header, 0); // and no name of one.
    number(&mut header, CLUSTER_BITS);
    long(&mut header, disk_bytes);
    number(&mut header, 0); // Not encrypted.
    number(
        &mut header,
        u32::try_from(tables).expect("no larger than the largest disk's"),
    );
    long(&mut header, first);
    long(&mut header, counts);
    number(&mut header, 1); // The table of reference counts has one cluster.
    number(&mut header, 0); // No snapshots,
    long(&mut header, 0); // and no table of them.
    long(&mut header, 0); // No incompatible features.
    long(&mut header, 1); // Reference counts may be late: nobody reads it after a crash.
    long(&mut header, 0); // No features that are switched off by writing.
    number(&mut header, 4); // Reference counts of 16 bits.
    number(&mut header, 104); // The length of this header.
    long(&mut header, 0); // No extensions.
    file.write_all_at(&header, 0)?;
    file.write_all_at(&block.to_be_bytes(), counts)?;
    let one = 1_u16.to_be_bytes();
    let ones: Vec<u8> = (0..used).flat_map(|_| one).collect();
    file.write_all_at(&ones, block)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    #[test]
    fn qemu_finds_nothing_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        for disk_bytes in [0, 512, 1 << 30, (20 << 40) + 512, MAX_DISK_BYTES] {
            let file = create(folder.path(), disk_bytes, MIN_BYTES).unwrap();
            for check in [&["check", "-f", "qcow2"][..], &["info", "-f", "qcow2"]] {
                let said = Command::new("qemu-img")
                    .args(check)
                    .arg("/dev/stdin")
                    .stdin(Stdio::from(OwnedFd::from(file.try_clone().unwrap())))
                    .output()
                    .unwrap();
                assert!(said.status.success(), "a disk of {disk_bytes}");
                let said = String::from_utf8_lossy(&said.stdout);
                let right = said.contains("No errors were found")
                    || said.contains(&format!("({disk_bytes} bytes)"));
                assert!(right, "{disk_bytes}: {said}");
            }
        }
    }

    #[test]
    fn it_takes_no_more_than_half_of_what_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let system = rustix::fs::statvfs(folder.path()).unwrap();
        let free = system.f_bavail * system.f_frsize;
        assert!(limit(folder.path(), 4).unwrap() <= free / 7);
        let error = limit(folder.path(), u64::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

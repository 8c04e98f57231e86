//! Logs with bytes changed: torn as by a loss of power, and shaped to do harm, under a checksum that was made anew.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_filesystem::{FileSystem, Log};
use cairn_types::Kind;
use cairn_types::disk::{DiskError, DiskOperation, DiskReader, Extent};
use crc::{CRC_32_ISCSI, Crc};
use proptest::prelude::*;

use crate::common::damaged::{READ_MAX, change, look, open};
use crate::common::{
    ChangedDisk, MemoryDisk, Numbers, RawDisk, open as open_file, run, seed, text,
};
use crate::compare;
use crate::image::{Image, Mounted, inode_start, mounts_are_excused};
use crate::tree::Plan;

const BLOCK: u64 = 512;
const CHECKSUM: u64 = 32;
const MAGIC: u64 = 0xfeed_babe;

fn number(disk: &dyn DiskReader, offset: u64, length: usize) -> u64 {
    let mut bytes = [0; 8];
    disk.read_at(offset, &mut bytes[8 - length..]).unwrap();
    u64::from_be_bytes(bytes)
}

/// How many blocks of its own the log has.
pub fn log_blocks(disk: &dyn DiskReader) -> u64 {
    number(disk, 96, 4) * number(disk, 4, 4) / BLOCK
}

/// The records that are to be replayed: their numbers, and where they begin, in bytes of the disk.
pub fn active(disk: &dyn DiskReader) -> BTreeMap<u64, u64> {
    let (block_bytes, first) = (number(disk, 4, 4), number(disk, 48, 8));
    let (group_blocks, in_group) = (number(disk, 84, 4), number(disk, 124, 1));
    let linear = (first >> in_group) * group_blocks + (first & ((1 << in_group) - 1));
    let start = linear * block_bytes;
    let all: BTreeMap<u64, u64> = (start..start + log_blocks(disk) * BLOCK)
        .step_by(BLOCK as usize)
        .filter(|at| number(disk, *at, 4) == MAGIC)
        .map(|at| (number(disk, at + 16, 8), at))
        .collect();
    let Some((_, last)) = all.last_key_value() else {
        return all;
    };
    let tail = number(disk, last + 24, 8);
    all.range(tail..).map(|(lsn, at)| (*lsn, *at)).collect()
}

/// How many headers a record has.
fn headers(disk: &dyn DiskReader, start: u64) -> u64 {
    number(disk, start + 320, 4).div_ceil(32 << 10).clamp(1, 8)
}

/// Changes bytes of a record, most where it is described what it holds.
fn change_record(disk: &mut ChangedDisk<'_>, start: u64, numbers: &mut Numbers) {
    let length = number(disk, start + 12, 4);
    let before = headers(disk, start);
    for _ in 0..1 + numbers.below(6) {
        let at = match numbers.below(8) {
            // Cycles stand in front of blocks, and their content in the header.
            0 => start + 44 + numbers.below(256),
            1 => start + *numbers.one_of(&[8, 12, 16, 24, 40, 320]) + numbers.below(8),
            2..5 => start + before * BLOCK + numbers.below(400.min(length.max(1))),
            _ => start + before * BLOCK + numbers.below(length.max(1)),
        };
        if at % BLOCK < 4 && at > start + before * BLOCK {
            continue;
        }
        let at = at.min(disk.size_bytes() - 1);
        let byte = *numbers.one_of(&[0, 1, 2, 0x3b, 0x3c, 0x40, 0x7f, 0xff]);
        disk.change(at, byte);
    }
    let (length, headers) = (
        number(disk, start + 12, 4).min(1 << 20),
        headers(disk, start),
    );
    for at in start + CHECKSUM..start + CHECKSUM + 4 {
        disk.change(at, 0);
    }
    let crc = Crc::<u32>::new(&CRC_32_ISCSI);
    let mut sum = crc.digest();
    let mut add = |from: u64, length: u64| {
        let mut bytes = vec![0; length as usize];
        // What reaches behind the disk has no checksum that could be right.
        if disk.read_at(from, &mut bytes).is_ok() {
            sum.update(&bytes);
        }
    };
    add(start, 328);
    for header in 1..headers.min(length.div_ceil(32 << 10)) {
        add(start + header * BLOCK, 260);
    }
    add(start + headers * BLOCK, length);
    for (offset, byte) in (0..).zip(sum.finalize().to_le_bytes()) {
        disk.change(start + CHECKSUM + offset, byte);
    }
}

/// What a loss of power does to records that are on their way to the log together.
#[derive(Debug, Clone, Copy)]
enum Torn {
    /// A byte of the last but so many is another.
    Byte(usize),
    /// A block of the last but so many is the one that was there before.
    Block(usize),
    /// The first block of the last was not written.
    Header,
}

fn tear(file: &Path, torn: Torn) {
    let disk = RawDisk::open(file);
    let records: Vec<u64> = active(&disk).into_values().rev().collect();
    let (Torn::Byte(index) | Torn::Block(index)) = torn else {
        let file = File::options().write(true).open(file).unwrap();
        return file.write_all_at(&[0; BLOCK as usize], records[0]).unwrap();
    };
    let body = records[index] + headers(&disk, records[index]) * BLOCK;
    let file = File::options().write(true).open(file).unwrap();
    if let Torn::Byte(_) = torn {
        let byte = number(&disk, body + 20, 1) as u8;
        file.write_all_at(&[!byte], body + 20).unwrap();
    } else {
        let cycle = number(&disk, body, 4) as u32;
        file.write_all_at(&(cycle - 1).to_be_bytes(), body).unwrap();
    }
}

#[test]
fn records_that_a_loss_of_power_tore_are_passed_over_as_by_linux() {
    if mounts_are_excused() {
        return;
    }
    let seed = seed();
    let all = [
        Torn::Byte(0),
        Torn::Block(0),
        Torn::Header,
        Torn::Byte(2),
        Torn::Block(2),
    ];
    for (index, torn) in (0..).zip(all) {
        let mut numbers = Numbers::new(seed.wrapping_add(index));
        let image = Image::xfs_cut("-b size=4096", 300, &mut numbers);
        println!("{torn:?}");
        tear(&image.file, torn);
        let file_system = open_file(&image.file);
        assert_eq!(file_system.log(), Log::Replayed);
        let mounted = Mounted::copy_of(&image);
        compare::with_mount(&file_system, mounted.path(), &mut numbers);
    }
    // What was on its way together is not so long.
    let mut numbers = Numbers::new(seed);
    let image = Image::xfs_cut("-b size=4096", 1500, &mut numbers);
    let before = open_file(&image.file).log();
    tear(&image.file, Torn::Byte(12));
    assert_eq!(
        (before, open_file(&image.file).log()),
        (Log::Replayed, Log::Dirty)
    );
}

/// A disk of which a number of reads succeed, and then none.
struct Failing {
    disk: RawDisk,
    left: AtomicU64,
}

impl DiskReader for Failing {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        self.disk.extent_at(offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let less = |left: u64| left.checked_sub(1);
        match self
            .left
            .try_update(Ordering::Relaxed, Ordering::Relaxed, less)
        {
            Ok(_) => self.disk.read_at(offset, buffer),
            Err(_) => Err(DiskError {
                disk: "test".to_owned(),
                operation: DiskOperation::Read,
                offset,
                length: buffer.len() as u64,
                source: ErrorKind::TimedOut.into(),
            }),
        }
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Else the same disk would be one thing now and another one later.
#[test]
fn a_log_that_cannot_be_read_now_is_not_passed_over() {
    if mounts_are_excused() {
        return;
    }
    let image = Image::xfs_cut("-b size=4096", 300, &mut Numbers::new(seed()));
    let opened_after = |reads| {
        let disk = RawDisk::open(&image.file);
        let (size_bytes, left) = (disk.size_bytes(), AtomicU64::new(reads));
        FileSystem::open(Arc::new(Failing { disk, left }), 0..size_bytes)
    };
    for reads in 0.. {
        match opened_after(reads) {
            Ok(file_system) => {
                assert_eq!(file_system.log(), Log::Replayed);
                assert!(reads > 2, "the log was read");
                break;
            }
            Err(error) => assert_eq!(error.kind(), Kind::Transient, "{reads}: {error}"),
        }
    }
}

/// An inode that says that it was written back after what the log has of it.
#[test]
fn what_is_newer_than_the_log_stays() {
    if mounts_are_excused() {
        return;
    }
    let mut numbers = Numbers::new(seed());
    let image = Image::xfs("-b size=4096", &Plan::USUAL, &mut numbers);
    let mounted = Mounted::new(&image.file, &["noatime"]);
    let path = mounted.path().join("pieces");
    let number = path.metadata().unwrap().ino();
    std::fs::set_permissions(&path, Permissions::from_mode(0o123)).unwrap();
    run("xfs_io", &["-x", "-c", "shutdown -f", text(mounted.path())]);
    drop(mounted);
    assert_eq!(
        open_file(&image.file)
            .entry(b"pieces")
            .unwrap()
            .metadata
            .mode,
        0o123
    );

    let last = active(&RawDisk::open(&image.file)).into_keys().next_back();
    let file = File::options()
        .read(true)
        .write(true)
        .open(&image.file)
        .unwrap();
    let start = inode_start(&image.file, number);
    let mut inode = vec![0; 512];
    file.read_exact_at(&mut inode, start).unwrap();
    inode[2..4].copy_from_slice(&0o100321u16.to_be_bytes());
    inode[112..120].copy_from_slice(&(last.unwrap() + 1).to_be_bytes());
    inode[100..104].fill(0);
    let sum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(&inode);
    inode[100..104].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&inode, start).unwrap();

    let file_system = open_file(&image.file);
    assert_eq!(file_system.log(), Log::Replayed);
    assert_eq!(file_system.entry(b"pieces").unwrap().metadata.mode, 0o321);
    let mounted = Mounted::copy_of(&image);
    compare::with_mount(&file_system, mounted.path(), &mut numbers);
}

fn check(disk: ChangedDisk<'static>, numbers: &mut Numbers) -> Option<Log> {
    let (disk, opened) = open(disk);
    let log = match opened {
        Ok(file_system) => {
            look(&file_system, numbers);
            Some(file_system.log())
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    };
    let read_bytes = disk.0.read_bytes.load(Ordering::Relaxed);
    assert!(read_bytes < READ_MAX, "{read_bytes} bytes were read");
    log
}

#[test]
fn a_damaged_log_of_xfs_keeps_nothing_from_being_read() {
    if mounts_are_excused() {
        return;
    }
    let mut numbers = Numbers::new(seed());
    let options = "--unsupported -b size=4096 -l size=6m";
    let image = Image::xfs_cut(options, 200, &mut numbers);
    let disk: &'static MemoryDisk = Box::leak(Box::new(MemoryDisk::load(&image.file)));
    let records: Vec<u64> = active(&ChangedDisk::new(disk)).into_values().collect();
    assert!(records.len() > 3, "the log is too short");
    let whole = check(ChangedDisk::new(disk), &mut numbers);
    assert_eq!(whole, Some(Log::Replayed));
    let seen = Cell::new((0, 0));
    proptest!(ProptestConfig { failure_persistence: None, ..Default::default() }, |(seed: u64)| {
        let mut numbers = Numbers::new(seed);
        // The checksums are right, so that it is the content that has to be doubted.
        let mut changed = ChangedDisk::new(disk);
        for _ in 0..1 + numbers.below(3) {
            change_record(&mut changed, *numbers.one_of(&records), &mut numbers);
        }
        let log = check(changed, &mut numbers);
        // Nothing but the log was changed, and that keeps no disk from being opened.
        prop_assert!(log.is_some());
        let (replayed, dirty) = seen.get();
        seen.set(match log {
            Some(Log::Replayed) => (replayed + 1, dirty),
            _ => (replayed, dirty + 1),
        });
        // Anything anywhere.
        check(change(disk, &mut numbers), &mut numbers);
    });
    let (replayed, dirty) = seen.get();
    println!("{replayed} logs were replayed, {dirty} were not");
    assert!(replayed > 0 && dirty > 0, "one of the two never happened");
}

//! Disks with a few bytes changed: whatever they say, nothing panics, nothing goes on for ever, little is
//! read, and where structures have checksums nothing wrong is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use cairn_filesystem::Layout;
use cairn_types::disk::DiskReader;
use proptest::prelude::*;

use common::damaged::{READ_MAX, Seen, Shared, change, look, open};
use common::made::{self, Amount};
use common::{ChangedDisk, MemoryDisk, Numbers, PAGE, run, text};

/// Changed disks for each case of a test.
const DISKS: u64 = 4;

const AMOUNT: Amount = Amount {
    names: 300,
    file_bytes: 3000,
    links: true,
};

fn ext(kind: &str, options: &str) -> MemoryDisk {
    let made = made::ext(kind, options, 4 << 20, AMOUNT, &mut Numbers::new(1));
    MemoryDisk::load(&made.file)
}

fn xfs(options: &str) -> MemoryDisk {
    MemoryDisk::load(&made::xfs(options, AMOUNT, &mut Numbers::new(2)).file)
}

fn fat(options: &str, size_bytes: u64) -> MemoryDisk {
    let amount = Amount {
        links: false,
        ..AMOUNT
    };
    let made = made::fat(options, size_bytes, amount, &mut Numbers::new(3));
    MemoryDisk::load(&made.file)
}

/// One with something in its journal.
fn with_journal(options: &str, open: &str) -> MemoryDisk {
    let made = made::ext("ext4", options, 4 << 20, AMOUNT, &mut Numbers::new(4));
    let data = made.folder.path().join("data");
    made::write(&data, &vec![7; 12 << 10]);
    let commands = made.folder.path().join("commands");
    let mut list = format!("{open}\n");
    for block in (2000..2400).step_by(40) {
        let blocks: Vec<String> = (block..block + 12).map(|block| block.to_string()).collect();
        list += &format!(
            "jw -b {} {}\njw -r {block}\n",
            blocks.join(","),
            text(&data)
        );
    }
    made::write(&commands, format!("{list}jc\n").as_bytes());
    run("debugfs", &["-w", "-f", text(&commands), text(&made.file)]);
    MemoryDisk::load(&made.file)
}

fn check_disk(disk: &'static MemoryDisk, seed: u64, original: Option<&Seen>) {
    let mut numbers = Numbers::new(seed);
    for _ in 0..DISKS {
        let mut changed = change(disk, &mut numbers);
        if original.is_some() {
            // That ext4 has checksums at all stands in one bit, which none of them covers then.
            let features = 1024 + 0x64;
            changed.restore(features..features + 4);
        }
        let (disk, opened) = open(changed);
        match opened {
            Ok(file_system) => {
                let seen = look(&file_system, &mut numbers);
                if let Some(original) = original {
                    assert_nothing_wrong(original, &seen);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let read_bytes = disk.0.read_bytes.load(Ordering::Relaxed);
        assert!(read_bytes < READ_MAX, "{read_bytes} bytes were read");
    }
}

/// What is told is what it was: there may be less, and nothing else.
fn assert_nothing_wrong(original: &Seen, seen: &Seen) {
    for (path, (entry, _)) in seen {
        let before = original.get(path);
        let before = before.unwrap_or_else(|| panic!("{} was never there", path.escape_ascii()));
        assert_eq!(entry, &before.0, "{}", path.escape_ascii());
    }
}

fn whole(disk: &'static MemoryDisk) -> Seen {
    let (_, opened) = open(ChangedDisk::new(disk));
    let seen = look(&opened.unwrap(), &mut Numbers::new(0));
    assert!(seen.len() > 300, "too little is there: {}", seen.len());
    seen
}

macro_rules! damaged {
    ($($name:ident: $disk:expr, checksums: $checksums:expr;)*) => {$(
        #[test]
        fn $name() {
            static DISK: LazyLock<MemoryDisk> = LazyLock::new(|| $disk);
            let original = whole(&DISK);
            let original = $checksums.then_some(&original);
            proptest!(ProptestConfig { failure_persistence: None, ..Default::default() }, |(seed: u64)| {
                check_disk(&DISK, seed, original);
            });
        }
    )*};
}

damaged! {
    a_damaged_ext2: ext("ext2", "-b 1024"), checksums: false;
    a_damaged_ext4: ext("ext4", "-b 1024"), checksums: true;
    a_damaged_ext4_without_checksums:
        ext("ext4", "-b 1024 -O ^metadata_csum,^has_journal"), checksums: false;
    a_damaged_ext4_with_content_in_inodes:
        ext("ext4", "-b 1024 -O ^metadata_csum,inline_data,meta_bg,^resize_inode,^has_journal -I 512"),
        checksums: false;
    a_damaged_journal: with_journal("-b 1024 -O ^metadata_csum", "jo"), checksums: false;
    a_damaged_journal_with_checksums: with_journal("-b 1024", "jo -c -v 3"), checksums: true;
    a_damaged_xfs_of_version_4: xfs("-m crc=0 -b size=1024"), checksums: false;
    a_damaged_xfs_of_version_5: xfs("-b size=1024"), checksums: true;
    a_damaged_fat12: fat("-F 12", 2 << 20), checksums: false;
    a_damaged_fat16: fat("-F 16 -s 1", 8 << 20), checksums: false;
    a_damaged_fat32: fat("-F 32 -s 1", 34 << 20), checksums: false;
}

/// Tables with random entries, which a program would not write.
fn divided(numbers: &mut Numbers) -> MemoryDisk {
    let mut disk = MemoryDisk {
        pages: Default::default(),
        size_bytes: numbers.below(8 << 20),
    };
    let mut sector = |number: u64, numbers: &mut Numbers| {
        let page = disk
            .pages
            .entry(number * 512 / PAGE as u64)
            .or_insert_with(|| Box::new([0; PAGE]));
        let sector = &mut page[number as usize * 512 % PAGE..][..512];
        for entry in 0..4 {
            let at = 446 + entry * 16;
            sector[at + 4] = *numbers.one_of(&[0, 5, 0x0f, 0x83, 0x83]);
            let first = *numbers.one_of(&[0, 1, 2, 5, u64::from(u32::MAX)]);
            sector[at + 8..at + 12].copy_from_slice(&(first as u32).to_le_bytes());
            let count = *numbers.one_of(&[0, 1, 100, u64::from(u32::MAX)]);
            sector[at + 12..at + 16].copy_from_slice(&(count as u32).to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
    };
    for number in 0..12 {
        sector(number, numbers);
    }
    disk
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_table_that_goes_in_circles_ends(seed: u64) {
        let disk: &'static MemoryDisk = Box::leak(Box::new(divided(&mut Numbers::new(seed))));
        let disk: Arc<dyn DiskReader> = Arc::new(Shared(ChangedDisk::new(disk)));
        let layout = Layout::read(&disk).unwrap();
        prop_assert!(layout.partitions.len() <= 4 + 4 * 100);
        let numbers: HashSet<u32> = layout.partitions.iter().map(|one| one.number).collect();
        prop_assert_eq!(numbers.len(), layout.partitions.len());
        for partition in &layout.partitions {
            prop_assert!(partition.range.start < partition.range.end);
            prop_assert!(partition.range.end <= disk.size_bytes());
        }
    }

    #[test]
    fn a_damaged_gpt_is_told_or_right(seed: u64) {
        static DISK: LazyLock<MemoryDisk> = LazyLock::new(|| {
            let folder = common::folder();
            let file = folder.path().join("disk");
            common::create(&file, 4 << 20);
            let script = folder.path().join("script");
            made::write(&script, b"label: gpt\nsize=1MiB, name=one\nsize=64KiB\n5: size=128KiB\n");
            let commands = folder.path().join("commands");
            made::write(&commands, format!("I\n{}\nw\n", text(&script)).as_bytes());
            let shell = format!("fdisk {} < {}", text(&file), text(&commands));
            run("sh", &["-c", &shell]);
            MemoryDisk::load(&file)
        });
        let whole: Arc<dyn DiskReader> = Arc::new(Shared(ChangedDisk::new(&DISK)));
        let whole = Layout::read(&whole).unwrap();
        prop_assert_eq!(whole.partitions.len(), 3);
        let mut numbers = Numbers::new(seed);
        for _ in 0..DISKS {
            let mut disk = change(&DISK, &mut numbers);
            // What says that there is such a table has no checksum.
            disk.restore(446..512);
            let disk: Arc<dyn DiskReader> = Arc::new(Shared(disk));
            match Layout::read(&disk) {
                Ok(layout) => {
                    let ranges = |layout: &Layout| -> Vec<_> {
                        let partitions = layout.partitions.iter();
                        partitions.map(|one| (one.number, one.range.clone(), one.name.clone())).collect()
                    };
                    prop_assert_eq!(ranges(&layout), ranges(&whole));
                }
                Err(error) => prop_assert_eq!(error.kind(), cairn_types::Kind::Corrupt),
            }
        }
    }
}

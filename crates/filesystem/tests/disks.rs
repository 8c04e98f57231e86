//! Disks with partitions, and FAT, as the programs make them that everybody uses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use cairn_filesystem::{Content, Error, FileSystem, Layout, Scheme};
use cairn_types::Kind;
use cairn_types::disk::DiskReader;
use cairn_types::tree::EntryKind;
use tempfile::TempDir;

use common::made::{self, Amount};
use common::{Numbers, RawDisk, create, folder, open, run, seed, text};

const AMOUNT: Amount = Amount {
    names: 200,
    file_bytes: 20_000,
    links: false,
};
const MIB: u64 = 1 << 20;

/// A disk that `fdisk` divided.
struct Disk {
    file: PathBuf,
    sector_bytes: u64,
    folder: TempDir,
}

impl Disk {
    fn new(size_bytes: u64, sector_bytes: u64, script: &str) -> Self {
        let folder = folder();
        let disk = Self {
            file: folder.path().join("disk"),
            sector_bytes,
            folder,
        };
        create(&disk.file, size_bytes);
        let file = disk.folder.path().join("script");
        made::write(&file, script.as_bytes());
        disk.fdisk(&format!("I\n{}\nw\n", text(&file)));
        disk
    }

    fn fdisk(&self, commands: &str) {
        let mut fdisk = Command::new("fdisk")
            .args([
                "--sector-size",
                &self.sector_bytes.to_string(),
                text(&self.file),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("fdisk is installed");
        let mut input = fdisk.stdin.take().unwrap();
        input.write_all(commands.as_bytes()).unwrap();
        drop(input);
        assert!(fdisk.wait().unwrap().success(), "{commands}");
    }

    fn put(&self, image: &Path, offset: u64) {
        let (from, to) = (
            format!("if={}", text(image)),
            format!("of={}", text(&self.file)),
        );
        let seek = format!("seek={offset}");
        let how = "conv=notrunc,sparse";
        run(
            "dd",
            &[
                "status=none",
                "bs=64K",
                "oflag=seek_bytes",
                how,
                &seek,
                &from,
                &to,
            ],
        );
    }

    fn reader(&self) -> Arc<dyn DiskReader> {
        Arc::new(RawDisk::open(&self.file))
    }

    fn layout(&self) -> Layout {
        Layout::read(&self.reader()).unwrap()
    }

    /// The numbers, first bytes and lengths that `fdisk` tells.
    fn expected(&self) -> Vec<(u32, u64, u64)> {
        let file = self.folder.path().join("dump");
        self.fdisk(&format!("O\n{}\nq\n", text(&file)));
        let dump = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let number = |line: &str, key: &str| -> u64 {
            let value = line.split(key).nth(1).unwrap();
            value
                .trim()
                .split([',', ' '])
                .next()
                .unwrap()
                .parse()
                .unwrap()
        };
        dump.lines()
            .filter(|line| line.starts_with(text(&self.file)))
            // The one that only holds others is none to be read.
            .filter(|line| !line.contains("type=5"))
            .map(|line| {
                let name = line.split(':').next().unwrap().trim();
                let index = name
                    .strip_prefix(text(&self.file))
                    .unwrap()
                    .parse()
                    .unwrap();
                let sectors = |key| number(line, key) * self.sector_bytes;
                (index, sectors("start="), sectors("size="))
            })
            .collect()
    }
}

fn places(layout: &Layout) -> Vec<(u32, u64, u64)> {
    let partitions = layout.partitions.iter();
    partitions
        .map(|one| (one.number, one.range.start, one.range.end - one.range.start))
        .collect()
}

/// What `blkid` says of a file system in a file.
fn blkid(file: &Path, key: &str) -> Option<String> {
    let output = Command::new("blkid")
        .args([
            "--probe",
            "--match-tag",
            key,
            "--output",
            "value",
            text(file),
        ])
        .output()
        .unwrap();
    let value = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn assert_same_as_blkid(layout: &Layout, number: u32, file: &Path) {
    let found = &layout
        .partitions
        .iter()
        .find(|one| one.number == number)
        .unwrap()
        .found;
    assert_eq!(Some(found.content.name().to_owned()), blkid(file, "TYPE"));
    assert_eq!(found.label, blkid(file, "LABEL"));
    assert_eq!(found.uuid, blkid(file, "UUID"));
}

#[test]
fn a_disk_with_a_gpt_is_divided_as_it_says() {
    let mut numbers = Numbers::new(seed());
    let fat = made::fat("-F 16 -n BOOT", 16 * MIB, AMOUNT, &mut numbers);
    let ext = made::ext("ext4", "-L root", 32 * MIB, AMOUNT, &mut numbers);
    let ext2 = made::ext("ext2", "", 16 * MIB, AMOUNT, &mut numbers);
    let xfs = made::xfs("-L data", AMOUNT, &mut numbers);
    let swap = fat.folder.path().join("swap");
    create(&swap, 8 * MIB);
    run("mkswap", &["--quiet", "--label", "exchange", text(&swap)]);
    for sector_bytes in [512, 4096] {
        let script = "label: gpt\nsize=16MiB, name=\"EFI system\"\nsize=32MiB, name=\"größe\"\nsize=8MiB\n\
            start=100MiB, size=320MiB\n7: size=16MiB\n9: size=1MiB\n";
        let disk = Disk::new(500 * MIB, sector_bytes, script);
        let layout = disk.layout();
        assert_eq!(layout.scheme, Scheme::Gpt);
        assert_eq!(places(&layout), disk.expected());
        let images = [
            (1, &fat.file),
            (2, &ext.file),
            (3, &swap),
            (4, &xfs.file),
            (7, &ext2.file),
        ];
        for (number, image) in images {
            let (partition, _) = layout.locate(format!("p{number}").as_bytes()).unwrap();
            disk.put(image, partition.range.start);
        }
        let layout = disk.layout();
        for (number, image) in images {
            assert_same_as_blkid(&layout, number, image);
        }
        let names: Vec<_> = layout
            .partitions
            .iter()
            .map(|one| one.name.as_deref())
            .collect();
        assert_eq!(names[..3], [Some("EFI system"), Some("größe"), None]);
        assert_eq!(layout.partitions[5].found.content, Content::Unknown);
        assert_files(&disk, &layout, b"/p1", &fat.source);
        assert_files(&disk, &layout, b"/p2", &ext.source);
        assert_files(&disk, &layout, b"p4/", &xfs.source);
        assert_files(&disk, &layout, b"/p7/", &ext2.source);
    }
}

/// Opens what a path names, and looks at a file in it.
fn assert_files(disk: &Disk, layout: &Layout, path: &[u8], source: &Path) {
    let (partition, rest) = layout.locate(path).unwrap();
    assert!(partition.found.content.is_readable());
    let file_system = FileSystem::open(disk.reader(), partition.range.clone()).unwrap();
    assert_same_files(&file_system, source);
    assert_eq!(
        file_system.entry(rest).unwrap().metadata.kind,
        EntryKind::Directory
    );
}

fn assert_same_files(file_system: &FileSystem, source: &Path) {
    let mut found = BTreeMap::new();
    for (path, entry) in file_system.walk(b"/").unwrap() {
        let path = String::from_utf8(path).unwrap();
        if entry.unwrap().metadata.kind == EntryKind::File {
            let file = file_system.file(path.as_bytes()).unwrap();
            let mut bytes = vec![0; file.size_bytes() as usize];
            assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
            found.insert(path, bytes);
        }
    }
    let mut expected = BTreeMap::new();
    for directory in fs::read_dir(source).unwrap() {
        for entry in fs::read_dir(directory.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("/{}", text(path.strip_prefix(source).unwrap()));
            expected.insert(name, fs::read(path).unwrap());
        }
    }
    assert!(
        found.keys().eq(expected.keys()),
        "{:?} {:?}",
        found.keys(),
        expected.keys()
    );
    for (path, bytes) in expected {
        assert!(found[&path] == bytes, "{path} differs");
    }
}

#[test]
fn a_gpt_is_read_from_whichever_copy_is_whole() {
    let script = "label: gpt\nsize=2MiB, name=first\nsize=3MiB\n";
    let disk = Disk::new(16 * MIB, 512, script);
    let whole = disk.layout();
    assert_eq!(whole.partitions.len(), 2);
    let file = File::options().write(true).open(&disk.file).unwrap();
    // In the list of the first copy, and then in its header.
    for offset in [1024 + 60, 512 + 20] {
        file.write_all_at(&[0x55], offset).unwrap();
        assert_eq!(disk.layout(), whole);
    }
    file.write_all_at(&[0x55], 16 * MIB - 512 + 20).unwrap();
    let error = Layout::read(&disk.reader()).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(
        error.to_string().contains("neither of its two copies"),
        "{error}"
    );
}

#[test]
fn a_disk_with_an_mbr_is_divided_as_it_says() {
    let mut numbers = Numbers::new(seed());
    let ext = made::ext("ext3", "-L root", 16 * MIB, AMOUNT, &mut numbers);
    let script =
        "label: dos\nsize=16MiB, bootable\nsize=4MiB\ntype=5\nsize=2MiB\nsize=16MiB\nsize=1MiB\n";
    for sector_bytes in [512, 4096] {
        let disk = Disk::new(64 * MIB, sector_bytes, script);
        let expected = disk.expected();
        let numbers: Vec<u32> = expected.iter().map(|(number, ..)| *number).collect();
        assert_eq!(numbers, [1, 2, 5, 6, 7]);
        for (number, start, _) in &expected {
            if matches!(number, 1 | 6) {
                disk.put(&ext.file, *start);
            }
        }
        let layout = disk.layout();
        assert_eq!(layout.scheme, Scheme::Mbr);
        assert_eq!(places(&layout), expected);
        assert_same_as_blkid(&layout, 6, &ext.file);
        assert_files(&disk, &layout, b"/p1", &ext.source);
        assert_files(&disk, &layout, b"/p6", &ext.source);
    }
}

#[test]
fn paths_begin_with_a_partition_where_there_are_some() {
    let disk = Disk::new(16 * MIB, 512, "label: gpt\nsize=1MiB\n12: size=1MiB\n");
    let layout = disk.layout();
    let located = |path: &'static [u8]| {
        let located = layout.locate(path);
        located.map(|(partition, rest)| (partition.number, rest))
    };
    assert_eq!(
        located(b"/p1/etc/passwd").unwrap(),
        (1, &b"/etc/passwd"[..])
    );
    assert_eq!(located(b"p12").unwrap(), (12, &b""[..]));
    assert!(matches!(
        located(b"/p2/x").unwrap_err(),
        Error::NoPartition { number: 2 }
    ));
    for path in [
        &b"/"[..],
        b"",
        b"/etc",
        b"/p",
        b"/p+1",
        b"/p1x/",
        b"/p99999999999",
    ] {
        let error = located(path).unwrap_err();
        assert!(matches!(error, Error::NoPartitionNamed), "{error}");
    }
}

#[test]
fn a_disk_without_partitions_is_one() {
    let mut numbers = Numbers::new(seed());
    let all = [
        made::ext("ext4", "-L whole", 16 * MIB, AMOUNT, &mut numbers),
        made::fat("-F 32 -n WHOLE", 40 * MIB, AMOUNT, &mut numbers),
        made::fat("-F 12", 8 * MIB, AMOUNT, &mut numbers),
        made::xfs("-L whole", AMOUNT, &mut numbers),
    ];
    for made in all {
        let disk = RawDisk::open(&made.file);
        let size_bytes = disk.size_bytes();
        let disk: Arc<dyn DiskReader> = Arc::new(disk);
        let layout = Layout::read(&disk).unwrap();
        assert_eq!(layout.scheme, Scheme::Whole);
        assert_eq!(places(&layout), [(0, 0, size_bytes)]);
        assert_same_as_blkid(&layout, 0, &made.file);
        let (partition, rest) = layout.locate(b"/few").unwrap();
        assert_eq!(rest, b"/few");
        let file_system = FileSystem::open(disk, partition.range.clone()).unwrap();
        assert_eq!(
            file_system.entry(rest).unwrap().metadata.kind,
            EntryKind::Directory
        );
    }
}

#[test]
fn a_disk_without_anything_is_no_error() {
    for size_bytes in [0, 1, 511, 512, 1000, 4096, 70_000] {
        let folder = folder();
        let file = folder.path().join("disk");
        create(&file, size_bytes);
        let disk: Arc<dyn DiskReader> = Arc::new(RawDisk::open(&file));
        let layout = Layout::read(&disk).unwrap();
        assert_eq!(layout.partitions[0].found.content, Content::Unknown);
        let error = FileSystem::open(disk, 0..size_bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no file system that can be read: unknown"
        );
    }
}

#[test]
fn fat_of_every_width_is_read_as_it_was_written() {
    let seed = seed();
    let all = [
        ("-F 12 -s 1", 1),
        ("-F 12 -s 8", 8),
        ("-F 16 -s 2", 32),
        ("-F 16 -s 4 -r 512", 64),
        ("-F 32 -s 1", 40),
        ("-F 32 -s 8 -f 1", 300),
        ("-F 16 -S 4096", 100),
    ];
    for (index, (options, mib)) in all.into_iter().enumerate() {
        println!("{options}");
        let mut numbers = Numbers::new(seed.wrapping_add(index as u64));
        let names = if mib == 1 { 60 } else { 400 };
        let made = made::fat(options, mib * MIB, Amount { names, ..AMOUNT }, &mut numbers);
        assert_same_files(&open(&made.file), &made.source);
        scatter(&made, mib, &mut numbers);
        let file_system = open(&made.file);
        assert_same_files(&file_system, &made.source);
        for path in ["few", "scattered/large"] {
            let there = fs::metadata(made.source.join(path)).unwrap();
            let entry = file_system.entry(path.as_bytes()).unwrap();
            let modified = there
                .modified()
                .unwrap()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap();
            // Times have a resolution of two seconds.
            let apart = entry
                .metadata
                .modified
                .seconds
                .abs_diff(modified.as_secs() as i64);
            assert!(apart <= 2, "{path}: {apart} s apart");
        }
        assert_eq!(
            file_system.entry(b"FEW").unwrap().metadata.kind,
            EntryKind::Directory
        );
    }
}

/// Removes every second of many small files, and writes one over what they had.
fn scatter(made: &made::Made, mib: u64, numbers: &mut Numbers) {
    let folder = made.source.join("scattered");
    fs::create_dir(&folder).unwrap();
    let piece = numbers.bytes(9000);
    let count = if mib == 1 { 8 } else { 60 };
    for index in 0..count {
        made::write(&folder.join(format!("piece {index}")), &piece);
    }
    mtools(made, &["mcopy", "-s", "-m", "-Q"], &[text(&folder), "::/"]);
    let mut removed = Vec::new();
    for index in (0..count).step_by(2) {
        fs::remove_file(folder.join(format!("piece {index}"))).unwrap();
        removed.push(format!("::/scattered/piece {index}"));
    }
    let removed: Vec<&str> = removed.iter().map(String::as_str).collect();
    mtools(made, &["mdel"], &removed);
    let large = folder.join("large");
    made::write(&large, &numbers.bytes(count * 5000));
    mtools(
        made,
        &["mcopy", "-m", "-Q"],
        &[text(&large), "::/scattered/large"],
    );
}

fn mtools(made: &made::Made, program: &[&str], arguments: &[&str]) {
    let image = ["-i", text(&made.file)];
    let all = [&["LC_ALL=C.UTF-8", "TZ=UTC"], program, &image, arguments].concat();
    run("env", &all);
}

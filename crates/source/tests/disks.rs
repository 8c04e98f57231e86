//! What `cairn_types::disk` asks of a disk, on every kind of image; the
//! reference for what an image holds is `qemu-img convert`.

use std::os::unix::fs::{FileExt, MetadataExt};

use cairn_types::Kind;
use cairn_types::disk::{DiskReader, DiskWriter, Extent};

use crate::common::{Lab, MIB, noise};

/// Every run from the start to the end of a disk.
fn extents(disk: &dyn DiskReader) -> Vec<Extent> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at < disk.size_bytes() {
        let extent = disk.extent_at(at).unwrap();
        assert_eq!(extent.offset, at);
        assert!(extent.length > 0 && extent.end() <= disk.size_bytes());
        at = extent.end();
        all.push(extent);
    }
    all
}

/// A disk that holds exactly `expected`.
fn assert_holds(disk: &dyn DiskReader, expected: &[u8]) {
    assert_eq!(disk.size_bytes(), expected.len() as u64);
    for extent in extents(disk) {
        let range = extent.offset as usize..extent.end() as usize;
        assert!(
            extent.data || expected[range].iter().all(|byte| *byte == 0),
            "{extent:?}"
        );
    }
    // In pieces of no particular size, from several threads at once.
    std::thread::scope(|threads| {
        for first in 0..3 {
            threads.spawn(move || {
                let step = 300_007;
                for at in (0..expected.len()).step_by(step).skip(first).step_by(3) {
                    let mut piece = vec![0xaa; step.min(expected.len() - at)];
                    disk.read_at(at as u64, &mut piece).unwrap();
                    assert!(piece == expected[at..at + piece.len()], "at {at}");
                }
            });
        }
    });
    assert!(disk.read_at(disk.size_bytes(), &mut [0]).is_err());
    disk.check_unchanged().unwrap();
}

/// A disk image with data at both ends and a hole between them.
fn sparse(lab: &Lab, name: &str, size_bytes: u64) {
    let file = lab.create(name, size_bytes);
    let ends = size_bytes.min(200_000) as usize;
    file.write_all_at(&noise(1, ends), 0).unwrap();
    file.write_all_at(&noise(2, ends), size_bytes - ends as u64)
        .unwrap();
}

/// One image of every kind.
fn images(lab: &Lab) -> Vec<&'static str> {
    sparse(lab, "sparse.img", 40 * MIB);
    lab.create("dense.raw", 0)
        .write_all_at(&noise(3, 5_000_011), 0)
        .unwrap();
    lab.create("sector.img", 0)
        .write_all_at(&noise(4, 512), 0)
        .unwrap();
    lab.create("empty.img", 3 * MIB);
    lab.create("nothing.img", 0);
    lab.qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "sparse.img",
        "plain.qcow2",
    ]);
    lab.qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-c",
        "dense.raw",
        "small.qcow2",
    ]);
    lab.qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "sector.img",
        "sector.qcow2",
    ]);
    lab.qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-o",
        "compat=0.10",
        "old.qcow2",
        "7M",
    ]);
    lab.qemu_io("old.qcow2", &["write -P 0x31 3M 70k"]);
    // A chain of three: a raw base, an image upon it, and a longer one upon that.
    let below = [
        "create",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "sparse.img",
        "middle.qcow2",
    ];
    lab.qemu_img(&below);
    lab.qemu_io("middle.qcow2", &["write -P 0x41 1M 300k", "write -z 0 64k"]);
    lab.folder("deep");
    let top = [
        "create",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "../middle.qcow2",
    ];
    lab.qemu_img(&[&top[..], &["deep/top.qcow2", "48M"]].concat());
    lab.qemu_io(
        "deep/top.qcow2",
        &["write -P 0x42 20M 1M", "write -z 1M 128k"],
    );
    vec![
        "sparse.img",
        "dense.raw",
        "sector.img",
        "empty.img",
        "nothing.img",
        "plain.qcow2",
        "small.qcow2",
        "sector.qcow2",
        "old.qcow2",
        "middle.qcow2",
        "deep/top.qcow2",
    ]
}

#[test]
fn every_kind_reads_as_qemu_reads_it() {
    let lab = Lab::new();
    for name in images(&lab) {
        let expected = lab.content(name);
        assert_holds(&*lab.reader(name), &expected);
    }
}

#[test]
fn every_kind_takes_what_is_written() {
    let lab = Lab::new();
    for name in images(&lab) {
        let mut expected = lab.content(name);
        let disk = lab.writer(name);
        assert_holds(&*disk, &expected);
        let size = expected.len();
        for (seed, at, length) in [
            (5, 0, 3),
            (6, size / 3, 900_001),
            (7, size.saturating_sub(513), 513),
        ] {
            let data = noise(seed, length.min(size - at));
            disk.write_at(at as u64, &data).unwrap();
            expected[at..at + data.len()].copy_from_slice(&data);
        }
        let (zero_at, zeros) = (size / 2, size / 7);
        disk.write_zeroes(zero_at as u64, zeros as u64).unwrap();
        expected[zero_at..zero_at + zeros].fill(0);
        disk.write_at(zero_at as u64, &expected[..size.min(1)])
            .unwrap();
        expected.copy_within(..size.min(1), zero_at);
        disk.flush().unwrap();
        assert_holds(&*disk, &expected);
        drop(disk);
        assert!(lab.content(name) == expected, "{name}");
        if name.ends_with(".qcow2") {
            lab.qemu_img(&["check", name]);
        }
    }
}

#[test]
fn a_disk_never_grows() {
    let lab = Lab::new();
    for name in images(&lab) {
        let disk = lab.writer(name);
        let size = disk.size_bytes();
        assert!(disk.write_at(size, &[1]).is_err(), "{name}");
        assert!(
            disk.write_at(size.saturating_sub(1), &[1; 2]).is_err(),
            "{name}"
        );
        assert!(disk.write_zeroes(size, 1).is_err(), "{name}");
        assert!(disk.write_zeroes(u64::MAX, 2).is_err(), "{name}");
        disk.flush().unwrap();
        assert_eq!(disk.size_bytes(), size);
        drop(disk);
        assert_eq!(lab.content(name).len() as u64, size);
    }
}

#[test]
fn zeros_give_the_space_back() {
    let lab = Lab::new();
    lab.create("full.img", 0)
        .write_all_at(&noise(8, 4 << 20), 0)
        .unwrap();
    let disk = lab.writer("full.img");
    disk.write_zeroes(MIB, 2 * MIB).unwrap();
    disk.flush().unwrap();
    let found = extents(&*disk);
    assert_eq!(
        found.iter().map(|extent| extent.data).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!((found[1].offset, found[1].length), (MIB, 2 * MIB));
    assert!(lab.metadata("full.img").blocks() * 512 <= 2 * MIB + 64 * 1024);
}

#[test]
fn a_hole_of_sixteen_tebibytes_is_one_extent() {
    let lab = Lab::new();
    let size = 16 << 40;
    lab.qemu_img(&["create", "-f", "qcow2", "huge.qcow2", "16T"]);
    // A whole file of 16 TiB is more than ext4 takes with blocks of 4 KiB.
    lab.create("huge.img", 15 << 40);
    for (name, size) in [("huge.qcow2", size), ("huge.img", 15 << 40)] {
        let disk = lab.writer(name);
        let whole = Extent {
            offset: 0,
            length: size,
            data: false,
        };
        assert_eq!(disk.extent_at(0).unwrap(), whole, "{name}");
        disk.write_zeroes(0, size).unwrap();
        disk.write_at(size - 512, &noise(9, 512)).unwrap();
        disk.flush().unwrap();
        let found = extents(&*disk);
        assert_eq!(found.len(), 2, "{name}: {found:?}");
        assert!(!found[0].data && found[1].data, "{name}");
        let mut last = [0; 512];
        disk.read_at(size - 512, &mut last).unwrap();
        assert_eq!(last[..], noise(9, 512));
        drop(disk);
        assert!(
            lab.metadata(name).blocks() * 512 < 4 * MIB,
            "{name} must stay small"
        );
    }
}

#[test]
fn a_block_that_cannot_be_read_is_an_error_of_its_place_alone() {
    let lab = Lab::new();
    // Compressible, or else the clusters would be stored as they are.
    let content: Vec<u8> = noise(1, 2 << 20)
        .into_iter()
        .flat_map(|byte| [byte; 4])
        .collect();
    lab.create("whole.img", 0)
        .write_all_at(&content, 0)
        .unwrap();
    lab.qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-c",
        "whole.img",
        "hurt.qcow2",
    ]);
    // The compressed clusters lie behind the tables: spoil the last of them.
    let file = lab.edit("hurt.qcow2");
    let end = file.metadata().unwrap().len();
    let start = end.saturating_sub(150_000).next_multiple_of(512);
    file.write_all_at(&vec![0x5a; (end - start) as usize], start)
        .unwrap();
    let disk = lab.reader("hurt.qcow2");
    let mut buffer = vec![0; 4096];
    disk.read_at(0, &mut buffer).unwrap();
    assert_eq!(buffer, content[..4096]);
    let error = disk.read_at(8 * MIB - 4096, &mut buffer).unwrap_err();
    assert_eq!(
        (error.disk.as_str(), error.offset, error.length),
        ("hurt.qcow2", 8 * MIB - 4096, 4096)
    );
    disk.read_at(0, &mut buffer)
        .expect("the disk stays open for the rest");
}

#[test]
fn a_change_while_reading_is_noticed() {
    let lab = Lab::new();
    sparse(&lab, "base.img", 2 * MIB);
    lab.qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "base.img",
        "top.qcow2",
    ]);
    sparse(&lab, "other.img", 2 * MIB);
    let (raw, top) = (lab.reader("base.img"), lab.reader("top.qcow2"));
    raw.check_unchanged().unwrap();
    top.check_unchanged().unwrap();
    // Somebody who asks for no lock.
    lab.edit("base.img").write_all_at(b"x", 7).unwrap();
    assert!(raw.check_unchanged().is_err());
    assert!(
        top.check_unchanged().is_err(),
        "the base is part of the disk"
    );

    let replaced = lab.reader("other.img");
    lab.create("new.img", 2 * MIB);
    lab.rename("new.img", "other.img");
    assert!(replaced.check_unchanged().is_err());
}

#[test]
fn what_is_no_image_is_refused_with_a_reason() {
    let lab = Lab::new();
    lab.create("text.qcow2", 0)
        .write_all_at(b"hello", 0)
        .unwrap();
    lab.create("noise.qcow2", 0)
        .write_all_at(&noise(1, 4096), 0)
        .unwrap();
    sparse(&lab, "base.img", MIB);
    lab.qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "base.img",
        "orphan.qcow2",
    ]);
    lab.remove("base.img");
    lab.qemu_img(&["create", "-f", "qcow2", "far.qcow2", "1M"]);
    let far = [
        "rebase",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "nbd://127.0.0.1:1/x",
        "far.qcow2",
    ];
    lab.qemu_img(&far);
    // Two images that are built upon each other.
    for (name, other) in [("a.qcow2", "b.qcow2"), ("b.qcow2", "a.qcow2")] {
        lab.qemu_img(&[
            "create", "-f", "qcow2", "-u", "-F", "qcow2", "-b", other, name, "1M",
        ]);
    }
    // To open a pipe is to wait for its other end.
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, lab.path("pipe"), kind, mode, 0).unwrap();
    lab.qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-u",
        "-F",
        "raw",
        "-b",
        "pipe",
        "piped.qcow2",
        "1M",
    ]);
    // A header that only QEMU finds fault with: clusters of 2^40 bytes.
    lab.qemu_img(&["create", "-f", "qcow2", "odd.qcow2", "1M"]);
    lab.edit("odd.qcow2")
        .write_all_at(&40_u32.to_be_bytes(), 20)
        .unwrap();
    for (name, says) in [
        ("text.qcow2", "too short"),
        ("noise.qcow2", "does not start like"),
        ("orphan.qcow2", "base.img is missing"),
        ("far.qcow2", "not a local file"),
        ("odd.qcow2", "luster size"),
        ("piped.qcow2", "cannot open"),
        ("a.qcow2", "more than 64 files"),
    ] {
        let error = lab.inventory().open_reader(lab.id(name)).err().expect(name);
        assert_eq!(error.kind(), Kind::Invalid, "{name}: {error}");
        assert!(error.to_string().contains(says), "{name}: {error}");
    }
}

/// The writer's half of a disk is also its reader's half.
#[test]
fn a_writer_sees_its_own_changes_in_the_extents() {
    let lab = Lab::new();
    lab.qemu_img(&["create", "-f", "qcow2", "w.qcow2", "8M"]);
    let disk = lab.writer("w.qcow2");
    let data_bytes = |disk: &dyn DiskWriter| -> u64 {
        extents(disk)
            .iter()
            .filter(|extent| extent.data)
            .map(|extent| extent.length)
            .sum()
    };
    assert_eq!(data_bytes(&*disk), 0);
    disk.write_at(0, &noise(1, 65_536)).unwrap();
    assert_eq!(data_bytes(&*disk), 65_536);
    disk.write_zeroes(0, 65_536).unwrap();
    assert_eq!(data_bytes(&*disk), 0);
}

//! Generated ext and XFS file systems: every entry and every byte is what a mount of a copy shows.
//!
//! Mounting takes root and loop devices. Where that is not permitted the test fails, unless
//! `CAIRN_NO_MOUNTS=1` excuses it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changes;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod damaged_logs;
mod image;
mod tree;

use std::path::Path;
use std::process::Command;

use cairn_filesystem::{Content, Log};

use common::made::{self, Amount};
use common::{Numbers, RawDisk, open, run, seed, text};
use image::{Image, Mounted, mounts_are_excused};
use tree::Plan;

/// The features of 25 file systems of the ext family, and how each is filled.
#[rustfmt::skip]
const EXT: [(&str, &str, Plan); 25] = [
    ("ext4", "-b 1024", Plan::USUAL),
    ("ext4", "-b 2048", Plan::USUAL),
    ("ext4", "-b 4096", Plan::USUAL),
    ("ext2", "-b 1024", Plan::USUAL),
    ("ext2", "-b 4096", Plan::FRAGMENTED),
    ("ext3", "-b 1024", Plan::FRAGMENTED),
    ("ext3", "-b 4096 -I 128", Plan::USUAL),
    ("ext4", "-b 1024 -O ^has_journal", Plan::MANY_NAMES),
    ("ext4", "-b 4096 -O ^has_journal", Plan::MANY_NAMES),
    ("ext4", "-b 1024 -O inline_data", Plan::USUAL),
    ("ext4", "-b 4096 -O inline_data -I 512", Plan::USUAL),
    ("ext4", "-b 1024 -O bigalloc -C 16384", Plan::USUAL),
    ("ext4", "-b 4096 -O bigalloc -C 65536", Plan::FRAGMENTED),
    ("ext4", "-b 4096 -O ^64bit", Plan::FRAGMENTED),
    ("ext4", "-b 1024 -O ^64bit,^metadata_csum", Plan::FRAGMENTED),
    ("ext4", "-b 4096 -O ^extent,^64bit", Plan::FRAGMENTED),
    ("ext4", "-b 1024 -O meta_bg,^resize_inode", Plan::MANY_NAMES),
    ("ext4", "-b 1024 -O sparse_super2,^resize_inode -N 40000", Plan::MANY_NAMES),
    ("ext4", "-b 1024 -O large_dir,encrypt,metadata_csum_seed", Plan::USUAL),
    ("ext4", "-b 4096 -O ^flex_bg,uninit_bg,^metadata_csum", Plan::USUAL),
    ("ext4", "-b 4096", Plan::DIRTY),
    ("ext4", "-b 1024 -O ^64bit,^metadata_csum", Plan::DIRTY),
    ("ext3", "-b 1024", Plan::DIRTY),
    ("ext4", "-b 1024 -O bigalloc,inline_data -C 4096", Plan::DIRTY),
    ("ext4", "-b 4096 -O metadata_csum_seed,ea_inode,fast_commit", Plan::FROZEN),
];

/// The same of 25 file systems of XFS that Linux can mount.
#[rustfmt::skip]
const XFS: [(&str, Plan); 25] = [
    ("-b size=4096", Plan::USUAL),
    ("-b size=1024", Plan::USUAL),
    ("-b size=2048 -n size=8192", Plan::USUAL),
    ("-b size=1024 -n size=16384", Plan::MANY_NAMES),
    ("-b size=1024", Plan::MANY_NAMES),
    ("-b size=4096", Plan::MANY_NAMES),
    ("-b size=1024", Plan::FRAGMENTED),
    ("-b size=4096", Plan::FRAGMENTED),
    ("-b size=4096 -m reflink=0,rmapbt=1", Plan::FRAGMENTED),
    ("-b size=4096 -i size=2048", Plan::FRAGMENTED),
    ("-b size=4096 -m reflink=1,bigtime=1 -i nrext64=1", Plan::FRAGMENTED),
    ("-b size=1024 -m reflink=1 -i nrext64=1,sparse=1", Plan::USUAL),
    ("-b size=4096 -m bigtime=0,inobtcount=0 -i sparse=0", Plan::USUAL),
    ("-b size=4096 -m finobt=0,reflink=0", Plan::USUAL),
    ("-b size=1024 -n size=65536", Plan::MANY_NAMES),
    ("-b size=4096 -s size=4096 -i maxpct=5", Plan::USUAL),
    ("-b size=1024 -i attr=2 -l size=64m", Plan::USUAL),
    ("-b size=2048", Plan::FRAGMENTED),
    ("-b size=2048 -i size=1024", Plan::MANY_NAMES),
    ("-b size=1024 -m rmapbt=1 -i nrext64=1", Plan::FRAGMENTED),
    ("-b size=4096 -n size=65536", Plan::MANY_NAMES),
    ("-b size=4096 -i size=1024", Plan::USUAL),
    ("-b size=1024 -m bigtime=0", Plan::FRAGMENTED),
    ("-b size=4096 -m reflink=1", Plan::FROZEN),
    ("-b size=1024 -m reflink=1", Plan::FROZEN),
];

#[test]
fn ext_file_systems_are_read_as_linux_reads_them() {
    if mounts_are_excused() {
        return;
    }
    let seed = seed();
    for (index, (kind, options, plan)) in EXT.iter().enumerate() {
        println!("{kind} {options} {plan:?}");
        let mut numbers = Numbers::new(seed.wrapping_add(index as u64));
        let image = Image::ext(kind, options, plan, &mut numbers);
        let file_system = open(&image.file);
        let log = if plan.dirty {
            Log::Replayed
        } else {
            Log::Clean
        };
        assert_eq!(file_system.log(), log, "{kind} {options}");
        let mounted = Mounted::copy_of(&image);
        compare::with_mount(&file_system, mounted.path(), &mut numbers);
    }
}

#[test]
fn xfs_is_read_as_linux_reads_it() {
    if mounts_are_excused() {
        return;
    }
    let seed = seed();
    let mut forms = Vec::new();
    for (index, (options, plan)) in XFS.iter().enumerate() {
        println!("xfs {options} {plan:?}");
        let mut numbers = Numbers::new(seed.wrapping_add(1000 + index as u64));
        let image = Image::xfs(options, plan, &mut numbers);
        let file_system = open(&image.file);
        assert_eq!(file_system.found().content, Content::Xfs);
        // Freezing writes everything back and leaves a note for a recovery.
        let log = if plan.frozen {
            Log::Replayed
        } else {
            Log::Clean
        };
        assert_eq!(file_system.log(), log, "{options}");
        let mounted = Mounted::copy_of(&image);
        let inodes = compare::with_mount(&file_system, mounted.path(), &mut numbers);
        drop(mounted);
        forms.extend(
            inodes
                .into_iter()
                .map(|inode| image::form(&image.file, inode)),
        );
    }
    // The type as modes have it; the content in the inode (1), by a list (2) or a tree (3) of extents.
    for form in [(4, 1), (4, 2), (4, 3), (8, 2), (8, 3), (10, 1), (10, 2)] {
        assert!(forms.contains(&form), "no inode was kept as {form:?}");
    }
}

const AMOUNT: Amount = Amount {
    names: 5000,
    file_bytes: 20_000,
    links: true,
};

/// Version 4 is made by `mkfs.xfs` with its content, since not every Linux mounts it any more.
#[test]
fn xfs_of_version_4_is_read_as_it_was_made() {
    let seed = seed();
    let all = [
        "-b size=4096 -n ftype=0",
        "-b size=4096 -n ftype=1",
        "-b size=1024 -n ftype=0",
        "-b size=512 -n ftype=1",
        "-b size=1024 -n size=8192",
        "-b size=2048 -i size=512,attr=1",
    ];
    for (index, options) in all.iter().enumerate() {
        println!("xfs of version 4 {options}");
        let mut numbers = Numbers::new(seed.wrapping_add(2000 + index as u64));
        let made = made::xfs(&format!("-m crc=0 {options}"), AMOUNT, &mut numbers);
        let file_system = open(&made.file);
        assert_eq!(file_system.log(), Log::Clean);
        compare::with_source(&file_system, &made.source);
    }
}

/// Options of file systems that are cut off. The smallest logs go round several times.
const CUT: [&str; 12] = [
    "-b size=4096",
    "-b size=1024 -d size=304m",
    "-b size=2048 -n size=8192",
    "-b size=1024 -m rmapbt=1 -i nrext64=1",
    "-b size=4096 -m bigtime=0,reflink=0",
    "-b size=4096 -i size=1024,sparse=0",
    "--unsupported -b size=4096 -l size=6m",
    "--unsupported -b size=4096 -l size=13m -m rmapbt=1",
    "--unsupported -b size=1024 -l size=6m",
    "--unsupported -b size=1024 -n size=4096 -l size=6m,sunit=64",
    "-b size=4096 -s size=4096",
    "-b size=4096 -l su=256k",
];

/// How often each is made; `CAIRN_XFS_LOGS` says otherwise.
const CUTS: u64 = 2;

#[test]
fn logs_of_xfs_are_replayed_as_linux_does_it() {
    if mounts_are_excused() {
        return;
    }
    let rounds = std::env::var("CAIRN_XFS_LOGS").map_or(CUTS, |count| {
        count.parse().expect("CAIRN_XFS_LOGS is a number")
    });
    let seed = seed();
    let all = (0..rounds).flat_map(|_| CUT);
    let mut went_round = 0;
    for (index, options) in all.enumerate() {
        let mut numbers = Numbers::new(seed.wrapping_add(3000 + index as u64));
        let changes = *numbers.one_of(&[30, 300, 1500]);
        println!("image {index}: xfs {options}, {changes} changes");
        let image = Image::xfs_cut(options, changes, &mut numbers);
        let file_system = open(&image.file);
        let mounted = Mounted::copy_of(&image);
        assert_eq!(file_system.log(), Log::Replayed);
        compare::with_mount(&file_system, mounted.path(), &mut numbers);
        let mut cycles = damaged_logs::active(&RawDisk::open(&image.file))
            .into_keys()
            .map(|lsn| lsn >> 32);
        went_round += u32::from(cycles.next() < cycles.next_back());
    }
    println!("{went_round} logs go over their end");
    assert!(went_round > 0, "no log goes over its end");
}

#[test]
fn a_copy_of_xfs_in_use_is_read_as_linux_recovers_it() {
    if mounts_are_excused() {
        return;
    }
    let mut numbers = Numbers::new(seed());
    let image = Image::xfs("-b size=4096", &Plan::DIRTY, &mut numbers);
    let file_system = open(&image.file);
    assert_eq!(file_system.log(), Log::Replayed);
    let mounted = Mounted::copy_of(&image);
    compare::with_mount(&file_system, mounted.path(), &mut numbers);
    drop(mounted);
    // A mount empties it, and an unmount says so.
    drop(Mounted::new(&image.file, &[]));
    assert_eq!(open(&image.file).log(), Log::Clean);
}

/// What a test leaves behind is taken away with the folder.
fn copy(from: &Path, to: &Path) {
    run("cp", &["--sparse=always", text(from), text(to)]);
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

//! Trees of files that have everything file systems keep in different ways.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, Timespec, Timestamps, fallocate, makedev,
    mknodat, utimensat,
};

use crate::common::Numbers;

/// How a file system is filled, and left.
#[derive(Debug)]
pub struct Plan {
    /// Files and directories of all kinds.
    files: usize,
    /// Names in one directory.
    names: usize,
    /// Pieces of one file, with holes between.
    pieces: u64,
    /// Copied while it is mounted, with its journal full.
    pub dirty: bool,
    /// Copied while it is frozen.
    pub frozen: bool,
    /// How large a file system of the ext family is.
    pub ext_bytes: u64,
}

impl Plan {
    pub const USUAL: Self = Self {
        files: 250,
        names: 300,
        pieces: 40,
        dirty: false,
        frozen: false,
        ext_bytes: 64 << 20,
    };
    pub const MANY_NAMES: Self = Self {
        files: 100,
        names: 9000,
        ..Self::USUAL
    };
    pub const FRAGMENTED: Self = Self {
        files: 150,
        pieces: 4000,
        ext_bytes: 256 << 20,
        ..Self::USUAL
    };
    pub const DIRTY: Self = Self {
        dirty: true,
        ..Self::USUAL
    };
    pub const FROZEN: Self = Self {
        frozen: true,
        ..Self::USUAL
    };
}

const ODD_NAMES: [&[u8]; 14] = [
    b"a name with blanks ",
    b" ",
    b"-rf",
    b"...",
    b".hidden",
    b"new\nline",
    b"tab\tbell\x07",
    b"quo\"te's",
    b"back\\slash",
    "größe".as_bytes(),
    "日本語のファイル".as_bytes(),
    "🗄".as_bytes(),
    b"no utf-8 \xff\xfe\x80",
    &[b'x'; 255],
];

/// Fills an empty file system.
pub fn grow(root: &Path, plan: &Plan, numbers: &mut Numbers) {
    let mut directories = vec![root.to_owned()];
    for name in ODD_NAMES {
        let path = root.join(OsString::from_vec(name.to_vec()));
        if numbers.one_in(3) {
            fs::create_dir(&path).unwrap();
            directories.push(path);
        } else {
            write_file(&path, numbers);
        }
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for index in 0..plan.files {
        let parent = numbers.one_of(&directories).clone();
        let path = parent.join(format!("{}{index}", numbers.one_of(&["f", "file-", "Ä"])));
        match numbers.below(20) {
            0..3 => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
            }
            3..6 => write_link(&path, numbers),
            6 => write_special(&path, numbers),
            7 if !files.is_empty() => fs::hard_link(numbers.one_of(&files), &path).unwrap(),
            _ => {
                write_file(&path, numbers);
                files.push(path.clone());
            }
        }
        dress(&path, numbers);
    }
    deep(root);
    crowd(root, plan.names, numbers);
    scatter(root, plan.pieces, numbers);
    for directory in directories.iter().skip(1) {
        dress(directory, numbers);
    }
}

/// Changes some of what is there, so that a journal has something to say.
pub fn change(root: &Path, numbers: &mut Numbers) {
    for index in 0..60 {
        fs::rename(
            root.join(format!("crowd/{}", crowd_name(index))),
            root.join(format!("moved{index}")),
        )
        .unwrap();
        write_file(&root.join(format!("crowd/new{index}")), numbers);
    }
    for index in 60..120 {
        fs::remove_file(root.join(format!("crowd/{}", crowd_name(index)))).unwrap();
    }
    fs::remove_dir_all(root.join("deep")).unwrap();
    fs::create_dir(root.join("after")).unwrap();
    for index in 0..200 {
        write_file(&root.join(format!("after/{index}")), numbers);
    }
    scatter(&root.join("after"), 500, numbers);
}

fn write_file(path: &Path, numbers: &mut Numbers) {
    let file = File::create(path).unwrap();
    let length = match numbers.below(12) {
        0 => 0,
        1 => numbers.below(60),
        2 => 60 + numbers.below(4),
        3 => 64 + numbers.below(120),
        4 => 1024 * (1 + numbers.below(8)),
        5..10 => numbers.below(9000),
        _ => numbers.below(300_000),
    };
    file.write_all_at(&numbers.bytes(length as usize), 0)
        .unwrap();
    if numbers.one_in(10) {
        // A hole, and something behind it.
        let offset = numbers.below(4 << 20);
        file.write_all_at(&numbers.bytes(3000), offset).unwrap();
    }
    if numbers.one_in(20) {
        let length = file.metadata().unwrap().len();
        file.set_len(length / 2).unwrap();
        file.set_len(length + numbers.below(100_000)).unwrap();
    }
}

fn write_link(path: &Path, numbers: &mut Numbers) {
    // What fits into inodes of all sizes, and what does not.
    let length = *numbers.one_of(&[
        1, 20, 58, 59, 60, 61, 150, 156, 157, 300, 336, 337, 900, 1023,
    ]);
    let mut target = "../".repeat(length / 3 + 1).into_bytes();
    target.truncate(length);
    symlink(OsString::from_vec(target), path).unwrap();
}

fn write_special(path: &Path, numbers: &mut Numbers) {
    let (kind, major, minor) = *numbers.one_of(&[
        (FileType::Fifo, 0, 0),
        (FileType::Socket, 0, 0),
        (FileType::CharacterDevice, 1, 3),
        (FileType::CharacterDevice, 511, 255),
        (FileType::BlockDevice, 8, 17),
        (FileType::BlockDevice, 259, 70_000),
    ]);
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, path, kind, mode, makedev(major, minor)).unwrap();
}

/// Gives an entry an owner, a mode and a time.
fn dress(path: &Path, numbers: &mut Numbers) {
    let is_link = path.symlink_metadata().unwrap().is_symlink();
    let owner = *numbers.one_of(&[0, 1000, 65_534, 65_536, 4_000_000_000]);
    lchown(path, Some(owner), Some(owner / 2)).unwrap();
    if !is_link {
        let mode = *numbers.one_of(&[0o644, 0o755, 0o4755, 0o2070, 0o1777, 0]);
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let time = Timespec {
        tv_sec: *numbers.one_of(&[
            -1,
            -2_000_000_000,
            0,
            1_795_000_000,
            2_147_483_648,
            4_000_000_000,
        ]),
        tv_nsec: numbers.below(1_000_000_000) as i64,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Directories in directories, as many as fit into a path.
fn deep(root: &Path) {
    let mut path = root.join("deep");
    fs::create_dir(&path).unwrap();
    for level in 0..35 {
        path.push(format!("{level:0100}"));
        fs::create_dir(&path).unwrap();
    }
    File::create(path.join("bottom")).unwrap();
}

fn crowd_name(index: usize) -> String {
    let width = 10 + index * 7 % 60;
    format!("{index:0width$}-name")
}

/// Many names in one directory, some of them gone again. Between them are directories of their own, so that
/// blocks of the large one do not lie together.
fn crowd(root: &Path, names: usize, numbers: &mut Numbers) {
    let (crowd, others) = (root.join("crowd"), root.join("others"));
    fs::create_dir(&crowd).unwrap();
    fs::create_dir(&others).unwrap();
    for index in 0..names {
        let file = File::create(crowd.join(crowd_name(index))).unwrap();
        if index % 8 == 0 {
            file.write_all_at(&numbers.bytes(700), 0).unwrap();
        }
        if index % 50 == 0 {
            file.sync_all().unwrap();
            File::create(others.join(crowd_name(index))).unwrap();
        }
    }
    for index in (0..names).skip(120).step_by(3) {
        fs::remove_file(crowd.join(crowd_name(index))).unwrap();
    }
}

/// Files with many extents: pieces with holes between, room that was never written, room that was given back.
fn scatter(root: &Path, pieces: u64, numbers: &mut Numbers) {
    const PIECE: u64 = 4096;
    let file = File::create(root.join("pieces")).unwrap();
    for index in 0..pieces {
        let offset = index * 3 * PIECE + numbers.below(PIECE);
        file.write_all_at(&numbers.bytes(900), offset).unwrap();
    }
    // ext2, ext3 and files without extents have neither.
    let file = File::create(root.join("room")).unwrap();
    if fallocate(&file, FallocateFlags::empty(), 0, 600_000).is_ok() {
        for _ in 0..20 {
            let offset = numbers.below(590_000);
            file.write_all_at(&numbers.bytes(5000), offset).unwrap();
        }
        let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, holes, 100_000, 50_000).unwrap();
        fallocate(&file, FallocateFlags::KEEP_SIZE, 700_000, 100_000).unwrap();
    }
    let file = File::create(root.join("large and sparse")).unwrap();
    // As far as tables of blocks of 1 KiB reach.
    for offset in [0, 300_000, 70 << 20, (16 << 30) - 5] {
        file.write_all_at(b"here", offset).unwrap();
    }
}

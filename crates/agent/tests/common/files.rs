//! Folders of files: generated ones, and a comparer that knows nothing of the code that
//! it checks.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::noise;

/// Numbers that are the same for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

pub fn put(path: &Path, data: &[u8]) {
    fs::File::create(path).unwrap().write_all(data).unwrap();
}

/// A name that an entry can have, often an unpleasant one.
fn name(random: &mut Random, number: usize) -> Vec<u8> {
    let mut name = match random.below(9) {
        0 => b"line\nbreak".to_vec(),
        1 => vec![0xff, 0xfe, b'x'],
        2 => vec![b'n'; 255 - 6],
        3 => b" ".to_vec(),
        4 => b"...".to_vec(),
        5 => "ünï-näme".as_bytes().to_vec(),
        6 => b"-rf *".to_vec(),
        7 => b"a\\b\"'$(x)".to_vec(),
        _ => b"plain".to_vec(),
    };
    name.extend_from_slice(format!("{number:x}").as_bytes());
    name
}

/// Fills a folder with a generated tree, and returns its files.
pub fn generate(root: &Path, seed: u64) -> Vec<PathBuf> {
    let mut random = Random::new(seed);
    let (mut directories, mut files) = (vec![root.to_owned()], Vec::new());
    let mut made = vec![root.to_owned()];
    let count = 4 + random.below(36);
    for number in 0..count {
        let above = directories[random.below(directories.len())].clone();
        let path = above.join(OsStr::from_bytes(&name(&mut random, number)));
        match random.below(12) {
            0..=2 => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
                made.push(path);
            }
            3 if !files.is_empty() => {
                let first: &PathBuf = &files[random.below(files.len())];
                fs::hard_link(first, &path).unwrap();
            }
            4 => {
                let targets = ["/etc/passwd", "..", "../../..", "missing", "/", "."];
                symlink(targets[random.below(targets.len())], &path).unwrap();
                decorate_link(&path, &mut random);
            }
            5 => special(&path, &mut random),
            6 => sparse(&path, &mut random),
            _ => {
                let longest = [10, 4000, 70_000, 1_500_000][random.below(4)];
                let length = random.below(longest);
                put(&path, &content(&mut random, length));
                decorate(&path, &mut random);
                files.push(path.clone());
                made.push(path);
            }
        }
    }
    if random.one_in(8) {
        deep(&directories[random.below(directories.len())]);
    }
    // What is below first: a directory's time and mode are set when it is full.
    for path in made.iter().rev() {
        decorate(path, &mut random);
    }
    files
}

fn content(random: &mut Random, length: usize) -> Vec<u8> {
    match random.below(4) {
        0 => vec![0; length],
        1 => b"again and ".iter().copied().cycle().take(length).collect(),
        _ => noise(random.next(), length),
    }
}

fn special(path: &Path, random: &mut Random) {
    let is_root = rustix::process::geteuid().is_root();
    let (kind, device) = match random.below(if is_root { 4 } else { 2 }) {
        0 => (FileType::Fifo, 0),
        1 => (FileType::Socket, 0),
        2 => (FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        _ => (FileType::BlockDevice, rustix::fs::makedev(7, 200)),
    };
    // Where devices cannot be made, as in many containers, there is a pipe.
    let made = rustix::fs::mknodat(CWD, path, kind, Mode::from(0o640), device);
    made.or_else(|_| rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from(0o640), 0))
        .unwrap();
}

fn sparse(path: &Path, random: &mut Random) {
    let mut file = fs::File::create(path).unwrap();
    for _ in 0..random.below(3) {
        let hole = i64::try_from(random.below(3 << 20)).unwrap();
        file.seek(SeekFrom::Current(hole)).unwrap();
        file.write_all(&noise(random.next(), 5000)).unwrap();
    }
    let end = file.stream_position().unwrap() + random.below(1 << 20) as u64;
    file.set_len(end).unwrap();
}

/// Many directories in each other.
fn deep(above: &Path) {
    let mut path = above.join("deep");
    for _ in 0..60 {
        fs::create_dir(&path).unwrap();
        path = path.join("d");
    }
    put(&path, b"at the bottom");
}

fn decorate_link(path: &Path, random: &mut Random) {
    set_time(path, random);
}

/// Gives a file or a directory a mode, owners, attributes and a time.
fn decorate(path: &Path, random: &mut Random) {
    let is_directory = fs::symlink_metadata(path).unwrap().is_dir();
    let is_root = rustix::process::geteuid().is_root();
    if is_root && random.one_in(3) {
        let owner = u32::try_from(random.below(70_000)).unwrap();
        std::os::unix::fs::lchown(path, Some(owner), Some(owner / 2)).unwrap();
    }
    let attributes = [
        ("user.note", noise(random.next(), 20)),
        ("user.empty", Vec::new()),
        ("user.large", vec![b'v'; 3000]),
    ];
    for (name, value) in attributes {
        if random.one_in(6) {
            rustix::fs::setxattr(path, name, &value, XattrFlags::empty()).unwrap();
        }
    }
    if random.one_in(6) {
        // An access control list: user::rw, user:1000:r, group::r, mask::r, other::-.
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in [
            (1_u16, 6_u16, u32::MAX),
            (2, 4, 1000),
            (4, 4, u32::MAX),
            (16, 4, u32::MAX),
            (32, 0, u32::MAX),
        ] {
            list.extend_from_slice(&tag.to_le_bytes());
            list.extend_from_slice(&permissions.to_le_bytes());
            list.extend_from_slice(&id.to_le_bytes());
        }
        let name = "system.posix_acl_access";
        // Not every file system has them.
        let _ = rustix::fs::setxattr(path, name, &list, XattrFlags::empty());
    } else {
        let modes = [0o644, 0o600, 0o4755, 0o2711, 0o1777, 0o444, 0o755];
        let mode = modes[random.below(modes.len())] | if is_directory { 0o700 } else { 0 };
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    set_time(path, random);
}

fn set_time(path: &Path, random: &mut Random) {
    let time = rustix::fs::Timespec {
        tv_sec: i64::from(random.next() as u32) - 100_000,
        tv_nsec: (random.next() % 1_000_000_000).cast_signed(),
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(CWD, path, &times, flags).unwrap();
}

/// All that can be asked of a folder's entries, as text, by their paths. Names of one file
/// say which is the first.
pub fn snapshot(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let (mut found, mut firsts) = (BTreeMap::new(), BTreeMap::new());
    look(root, root, &mut found);
    found
        .into_iter()
        .map(|(path, (inode, text))| {
            let first = firsts.entry(inode).or_insert_with(|| path.clone());
            let text = format!("{text} first name {:?}", OsStr::from_bytes(first));
            (path, text)
        })
        .collect()
}

fn look(root: &Path, path: &Path, found: &mut BTreeMap<Vec<u8>, (u64, String)>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        format!(
            "file of {} {}",
            metadata.len(),
            hash(&fs::read(path).unwrap())
        )
    } else if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("link to {:?}", fs::read_link(path).unwrap())
    } else {
        format!("special {:o} {}", metadata.mode(), metadata.rdev())
    };
    let text = format!(
        "{what} mode {:o} owner {} {} time {} {} attributes {:?}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        xattrs(path),
    );
    let below = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
    found.insert(below.to_vec(), (metadata.ino(), text));
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            look(root, &entry.unwrap().path(), found);
        }
    }
}

/// Not a good hash: one that differs where bytes do by accident.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn xattrs(path: &Path) -> Vec<(String, u64)> {
    let mut names = vec![0; 4096];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else {
        return Vec::new();
    };
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    let value_of = |name: &str| {
        let mut value = vec![0; 8192];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        (name.to_owned(), hash(&value[..length]))
    };
    let mut found: Vec<_> = names.split_terminator('\0').map(value_of).collect();
    found.sort();
    found
}

/// Two folders must be the same; names the first entries that are not.
pub fn assert_same(one: &Path, other: &Path, what: &str) {
    let (one, other) = (snapshot(one), snapshot(other));
    let paths: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differ = paths
        .into_iter()
        .filter(|path| one.get(*path) != other.get(*path));
    let shown = differ.map(|path| {
        let shown = OsStr::from_bytes(path);
        format!("{shown:?}: {:?}, {:?}", one.get(path), other.get(path))
    });
    let shown: Vec<String> = shown.take(5).collect();
    assert!(shown.is_empty(), "{what}: {}", shown.join("\n"));
}

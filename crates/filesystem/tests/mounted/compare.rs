//! What is read, beside what Linux shows.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use cairn_filesystem::{Entry, FileSystem};
use cairn_types::tree::EntryKind;
use rustix::fs::{SeekFrom, major, minor, seek};

use crate::common::Numbers;

/// Compares everything; says the numbers of the inodes.
pub fn with_mount(file_system: &FileSystem, mount: &Path, numbers: &mut Numbers) -> Vec<u64> {
    let found = walk(file_system);
    let mut inodes = Vec::new();
    let root = file_system.entry(b"/").unwrap();
    assert_same_entry(b"/", &root, mount, true);
    let mut expected = BTreeMap::new();
    gather(mount, b"/", &mut expected);
    assert_same_names(&found, &expected);
    for (path, entry) in &found {
        let there = mount.join(OsStr::from_bytes(&path[1..]));
        assert_same_entry(path, entry, &there, true);
        assert_eq!(&file_system.entry(path).unwrap(), entry, "{}", shown(path));
        assert_same_content(file_system, path, entry, &there, numbers);
        inodes.push(entry.metadata.inode);
    }
    let directories = found
        .iter()
        .filter(|(_, entry)| entry.metadata.kind == EntryKind::Directory);
    for (path, _) in directories {
        assert_pages(file_system, path, numbers);
    }
    assert_resolved(file_system, mount, &found);
    inodes
}

/// Compares everything but what is made anew with a copy: numbers, times, counts of links.
pub fn with_source(file_system: &FileSystem, source: &Path) {
    let found = walk(file_system);
    let mut expected = BTreeMap::new();
    gather(source, b"/", &mut expected);
    assert_same_names(&found, &expected);
    let mut numbers = Numbers::new(0);
    for (path, entry) in &found {
        let there = source.join(OsStr::from_bytes(&path[1..]));
        assert_same_entry(path, entry, &there, false);
        assert_same_content(file_system, path, entry, &there, &mut numbers);
    }
}

fn walk(file_system: &FileSystem) -> BTreeMap<Vec<u8>, Entry> {
    let mut found = BTreeMap::new();
    for (path, entry) in file_system.walk(b"/").unwrap() {
        let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", shown(&path)));
        assert!(
            found.insert(path.clone(), entry).is_none(),
            "{} comes twice",
            shown(&path)
        );
    }
    found
}

/// All paths below a folder.
fn gather(folder: &Path, path: &[u8], all: &mut BTreeMap<Vec<u8>, ()>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let mut path = path.to_vec();
        path.extend_from_slice(entry.file_name().as_bytes());
        all.insert(path.clone(), ());
        if entry.file_type().unwrap().is_dir() {
            path.push(b'/');
            gather(&entry.path(), &path, all);
        }
    }
}

fn assert_same_names(found: &BTreeMap<Vec<u8>, Entry>, expected: &BTreeMap<Vec<u8>, ()>) {
    for path in expected.keys() {
        assert!(found.contains_key(path), "{} is missing", shown(path));
    }
    for path in found.keys() {
        assert!(expected.contains_key(path), "{} is too many", shown(path));
    }
    assert!(found.len() > 100, "too little to compare: {}", found.len());
}

fn assert_same_entry(path: &[u8], entry: &Entry, there: &Path, exactly: bool) {
    let expected = there.symlink_metadata().unwrap();
    let (metadata, name) = (&entry.metadata, shown(path));
    let kind = match expected.mode() >> 12 {
        0o01 => EntryKind::Fifo,
        0o02 => EntryKind::CharacterDevice,
        0o04 => EntryKind::Directory,
        0o06 => EntryKind::BlockDevice,
        0o10 => EntryKind::File,
        0o12 => EntryKind::Symlink,
        _ => EntryKind::Socket,
    };
    assert_eq!(metadata.kind, kind, "{name}");
    let last = path.rsplit(|byte| *byte == b'/').next().unwrap();
    assert_eq!(entry.name, last, "{name}");
    assert_eq!(u32::from(metadata.mode), expected.mode() & 0o7777, "{name}");
    assert_eq!(
        (metadata.uid, metadata.gid),
        (expected.uid(), expected.gid()),
        "{name}"
    );
    let size_bytes = if kind == EntryKind::File {
        expected.len()
    } else {
        0
    };
    assert_eq!(metadata.size_bytes, size_bytes, "{name}");
    let device = (major(expected.rdev()), minor(expected.rdev()));
    assert_eq!(metadata.device, device, "{name}");
    if exactly {
        let modified = (
            metadata.modified.seconds,
            i64::from(metadata.modified.nanoseconds),
        );
        assert_eq!(
            modified,
            (expected.mtime(), expected.mtime_nsec()),
            "{name}"
        );
        let changed = (
            metadata.changed.seconds,
            i64::from(metadata.changed.nanoseconds),
        );
        assert_eq!(changed, (expected.ctime(), expected.ctime_nsec()), "{name}");
        assert_eq!(metadata.inode, expected.ino(), "{name}");
        assert_eq!(u64::from(entry.links), expected.nlink(), "{name}");
    }
}

fn assert_same_content(
    file_system: &FileSystem,
    path: &[u8],
    entry: &Entry,
    there: &Path,
    numbers: &mut Numbers,
) {
    let name = shown(path);
    match entry.metadata.kind {
        EntryKind::Symlink => {
            let expected = fs::read_link(there).unwrap();
            let target = file_system.read_link(path).unwrap();
            assert_eq!(
                shown(&target),
                shown(expected.as_os_str().as_bytes()),
                "{name}"
            );
        }
        EntryKind::File => {
            let file = file_system.file(path).unwrap();
            let expected = File::open(there).unwrap();
            assert_same_extents(&name, &file, &expected);
            assert_same_bytes(&name, &file, &expected, numbers);
        }
        _ => {
            assert!(file_system.file(path).is_err(), "{name}");
            assert!(file_system.read_link(path).is_err(), "{name}");
        }
    }
}

/// The first byte of data from an offset on, as Linux says.
fn data_from(file: &File, offset: u64) -> Option<u64> {
    match seek(file.as_fd(), SeekFrom::Data(offset)) {
        Ok(start) => Some(start),
        Err(error) => {
            assert_eq!(io::Error::from(error).raw_os_error(), Some(6), "ENXIO");
            None
        }
    }
}

/// What is a hole here has no data there.
fn assert_same_extents(name: &str, file: &cairn_filesystem::File, expected: &File) {
    let (mut offset, mut data_bytes) = (0, 0);
    while offset < file.size_bytes() {
        let extent = file.extent_at(offset).unwrap();
        assert_eq!(extent.offset, offset, "{name}");
        assert!(extent.length > 0, "{name}");
        if extent.data {
            data_bytes += extent.length;
        }
        offset = extent.end();
    }
    assert_eq!(offset, file.size_bytes(), "{name}");
    // What is in the inode takes no blocks.
    let stored = expected.metadata().unwrap().blocks() * 512;
    assert!(
        data_bytes <= stored.max(2048),
        "{name}: {data_bytes} of data in {stored}"
    );
}

fn assert_same_bytes(
    name: &str,
    file: &cairn_filesystem::File,
    expected: &File,
    numbers: &mut Numbers,
) {
    let size_bytes = file.size_bytes();
    let mut here = vec![0; 200_000];
    let mut there = vec![0; here.len()];
    let mut offset = 0;
    while offset < size_bytes {
        let length = 1 + numbers.below(here.len() as u64) as usize;
        let read = file.read_at(offset, &mut here[..length]).unwrap();
        assert_eq!(
            read as u64,
            (size_bytes - offset).min(length as u64),
            "{name}"
        );
        expected.read_exact_at(&mut there[..read], offset).unwrap();
        if here[..read] != there[..read] {
            let at = here.iter().zip(&there).position(|(a, b)| a != b).unwrap();
            panic!("{name} differs at byte {}", offset + at as u64);
        }
        offset += read as u64;
        // Of a large hole not all is read.
        if size_bytes > 64 << 20 && here[..read].iter().all(|byte| *byte == 0) {
            let next = data_from(expected, offset).unwrap_or(size_bytes);
            offset = offset.max(next.saturating_sub(10_000));
        }
    }
    assert_eq!(file.read_at(size_bytes, &mut here).unwrap(), 0, "{name}");
    let before = size_bytes.saturating_sub(numbers.below(5000));
    let read = file.read_at(before, &mut here).unwrap();
    assert_eq!(read as u64, size_bytes - before, "{name}");
}

/// Pages of any size are together the whole, in order.
fn assert_pages(file_system: &FileSystem, path: &[u8], numbers: &mut Numbers) {
    let whole = file_system.list(path, None, usize::MAX).unwrap();
    assert!(whole.next.is_none() && whole.unreadable.is_empty());
    assert!(whole.entries.is_sorted_by(|a, b| a.name < b.name));
    let limit = 1 + numbers.below(whole.entries.len() as u64 + 2) as usize;
    let mut entries = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = file_system.list(path, after.as_deref(), limit).unwrap();
        assert!(page.entries.len() <= limit);
        entries.extend(page.entries);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(entries, whole.entries, "{}", shown(path));
}

/// What Linux finds behind links is found, and nothing else is.
fn assert_resolved(file_system: &FileSystem, mount: &Path, found: &BTreeMap<Vec<u8>, Entry>) {
    let links = found
        .iter()
        .filter(|(_, entry)| entry.metadata.kind == EntryKind::Symlink);
    for (path, _) in links {
        // The targets are `../..` and so on, cut anywhere; Linux would leave the mount at its top.
        let target = file_system.read_link(path).unwrap();
        let up = target
            .split(|byte| *byte == b'/')
            .filter(|name| *name == b"..")
            .count();
        let depth = path.split(|byte| *byte == b'/').count() - 2;
        let there = mount.join(OsStr::from_bytes(&path[1..]));
        let resolved = file_system.resolve(path);
        if up > depth {
            assert_eq!(
                resolved.unwrap_or_default().first(),
                Some(&b'/'),
                "{}",
                shown(path)
            );
        } else if let Ok(expected) = there.canonicalize() {
            let expected = expected
                .strip_prefix(mount.canonicalize().unwrap())
                .unwrap()
                .to_owned();
            let resolved = resolved.unwrap();
            assert_eq!(
                &resolved[1..],
                expected.as_os_str().as_bytes(),
                "{}",
                shown(path)
            );
        }
    }
}

fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

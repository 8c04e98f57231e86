//! Directories that no real file system has: very large ones, and circles.

use std::collections::BTreeSet;

use cairn_types::disk::{DiskError, Extent};

use super::*;
use crate::driver::{Hint, Run, Visit};

/// A disk without a byte.
struct Nothing;

impl DiskReader for Nothing {
    fn size_bytes(&self) -> u64 {
        0
    }

    fn extent_at(&self, _offset: u64) -> Result<Extent, DiskError> {
        unreachable!("nothing lies before the end")
    }

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> Result<(), DiskError> {
        unreachable!("nothing lies before the end")
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Every node is a directory; each has the names that are given for its number.
struct Directories(Vec<Vec<(Vec<u8>, u64)>>);

impl Driver for Directories {
    fn root(&self) -> u64 {
        0
    }

    fn node(&self, id: u64) -> Result<Node> {
        let metadata = Metadata {
            kind: EntryKind::Directory,
            mode: 0,
            uid: 0,
            gid: 0,
            size_bytes: 0,
            modified: Default::default(),
            changed: Default::default(),
            inode: id,
            linked: false,
            device: (0, 0),
        };
        Ok(Node {
            id,
            metadata,
            links: 1,
            content_bytes: 0,
            raw: Vec::new(),
        })
    }

    fn names(&self, directory: &Node, visit: &mut Visit<'_>) -> Result<()> {
        for (name, id) in self.0.get(directory.id as usize).into_iter().flatten() {
            if visit(name, *id)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn map(&self, _node: &Node, _offset: u64, _hint: &mut Hint) -> Result<Run> {
        unreachable!("there are no files")
    }

    fn link_target(&self, _node: &Node) -> Result<Vec<u8>> {
        unreachable!("there are no links")
    }
}

fn file_system(directories: Vec<Vec<(Vec<u8>, u64)>>) -> FileSystem {
    let volume = Volume::new(Arc::new(Nothing), 0..0).unwrap();
    let found = Found {
        content: Content::Unknown,
        label: None,
        uuid: None,
    };
    let driver = Box::new(Directories(directories));
    FileSystem(Arc::new(Inner::new(
        driver,
        Arc::new(volume),
        found,
        Log::Clean,
    )))
}

fn names(file_system: &FileSystem, limit: usize) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = file_system.list(b"/", after.as_deref(), limit).unwrap();
        assert!(!page.entries.is_empty() && page.entries.len() <= limit);
        names.extend(page.entries.into_iter().map(|entry| entry.name));
        after = page.next;
        if after.is_none() {
            return names;
        }
    }
}

#[test]
fn a_directory_that_no_window_holds_is_listed_whole_and_in_order() {
    // A permutation, so that no window is filled in order; and every hundredth name twice.
    const COUNT: u64 = 150_000;
    let name = |index: u64| format!("{}", index * 7919 % COUNT).into_bytes();
    let mut all: Vec<_> = (0..COUNT).map(|index| (name(index), 1)).collect();
    all.extend((0..COUNT).step_by(100).map(|index| (name(index), 2)));
    let expected: BTreeSet<Vec<u8>> = all.iter().map(|(name, _)| name.clone()).collect();
    let file_system = file_system(vec![all]);
    for limit in [1000, 65_536, usize::MAX] {
        assert!(names(&file_system, limit).iter().eq(&expected), "{limit}");
    }
    // Names are found wherever they are, and what is not there is not.
    for index in [0, 1, 77_777, COUNT - 1] {
        assert_eq!(file_system.entry(&name(index)).unwrap().name, name(index));
    }
    let error = file_system.entry(b"150000").unwrap_err();
    assert_eq!(error.kind(), cairn_types::Kind::NotFound);
}

#[test]
fn circles_of_directories_end() {
    let entry = |name: &str, id| (name.as_bytes().to_vec(), id);
    let file_system = file_system(vec![
        vec![entry("a", 1), entry("self", 0)],
        vec![entry("b", 2), entry("twin", 2)],
        vec![entry("up", 1), entry("top", 0)],
    ]);
    assert_eq!(file_system.entry(b"/a/b").unwrap().metadata.inode, 2);
    for path in ["/self", "/a/b/up", "/a/b/top", "/a/b/up/b"] {
        let error = file_system.entry(path.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{path}: {error}");
    }
    let walked: Vec<_> = file_system
        .walk(b"/")
        .unwrap()
        .map(|(path, entry)| (String::from_utf8(path).unwrap(), entry.is_ok()))
        .collect();
    let walked: Vec<_> = walked
        .iter()
        .map(|(path, ok)| (path.as_str(), *ok))
        .collect();
    let expected = [
        ("/a", true),
        ("/a/b", true),
        ("/a/b/top", false),
        ("/a/b/up", false),
        ("/a/twin", false),
        ("/self", false),
    ];
    assert_eq!(walked, expected);
}

#[test]
fn a_name_that_none_can_have_is_an_error_and_no_path() {
    for name in [&b"a/b"[..], b"/", b"a\0b", b""] {
        let file_system = file_system(vec![vec![(name.to_vec(), 1)]]);
        let error = file_system.list(b"/", None, 10).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
    // The directory itself and the one above are no entries.
    let own = vec![(b".".to_vec(), 0), (b"..".to_vec(), 0), (b"x".to_vec(), 1)];
    assert_eq!(names(&file_system(vec![own]), 10), [b"x"]);
}

#[test]
fn paths_that_are_none_are_refused() {
    let file_system = file_system(vec![vec![(b"a".to_vec(), 1)]]);
    let long = vec![b'/'; path::PATH_BYTES_MAX + 1];
    for path in [&b"/a/.."[..], b"..", b"a\0", &long] {
        let error = file_system.entry(path).unwrap_err();
        assert!(matches!(error, Error::BadPath { .. }), "{error}");
    }
    for path in [&b"a"[..], b"/a", b"//a/", b"./a/."] {
        assert_eq!(file_system.entry(path).unwrap().name, b"a");
    }
    assert_eq!(file_system.resolve(b"../a/../../a").unwrap(), b"/a");
    assert_eq!(file_system.resolve(b"").unwrap(), b"/");
}

//! What the tests of trees share: folders with every kind of entry, and a
//! comparer that knows nothing of the code that it checks.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use cairn_repo::{RestoreTree, Result, TreeSummary, WriteTree, WrittenTree};
use cairn_testkit::{Folder, FolderOptions};
use cairn_types::tree::TreeReader;
use cairn_types::{BackupId, Progress, Timestamp};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use crate::common::{World, noise, text};

/// When every backup of these tests starts, in seconds.
pub const STARTED_AT: i64 = 1000;

/// A folder that goes when the test ends.
pub type Files = TempFolder;

pub struct TempFolder(tempfile::TempDir);

impl TempFolder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

pub fn folder(files: &Files) -> Folder {
    Folder::open(files.path(), FolderOptions::default()).unwrap()
}

pub fn job(world: &World, tree: impl TreeReader + 'static, parent: Option<BackupId>) -> WriteTree {
    WriteTree {
        info: world.info(STARTED_AT),
        parent,
        reader: Arc::new(tree),
        started_at: Timestamp::from_micros(STARTED_AT * 1_000_000),
        progress: Arc::new(Progress::default()),
        reread_all: false,
    }
}

pub async fn save(
    world: &World,
    tree: impl TreeReader + 'static,
    parent: Option<BackupId>,
) -> Result<(BackupId, WrittenTree)> {
    let job = job(world, tree, parent);
    let id = job.info.id;
    Ok((id, world.project.write_tree(job).await?))
}

pub async fn restore(world: &World, backup: BackupId, target: &Files) -> Result<TreeSummary> {
    restore_part(world, backup, b"", target).await
}

pub async fn restore_part(
    world: &World,
    backup: BackupId,
    path: &[u8],
    target: &Files,
) -> Result<TreeSummary> {
    world
        .project
        .restore_tree(restore_job(backup, path, target))
        .await
}

pub fn restore_job(backup: BackupId, path: &[u8], target: &Files) -> RestoreTree {
    RestoreTree {
        backup,
        path: path.to_vec(),
        target: Arc::new(folder(target)),
        progress: Arc::new(Progress::default()),
    }
}

/// The paths of all packs in the store.
pub async fn packs(world: &World) -> Vec<String> {
    let listed: Vec<_> = world.store.list(None).try_collect().await.unwrap();
    let paths = listed.into_iter().map(|object| object.location.to_string());
    paths.filter(|path| path.contains("/packs/")).collect()
}

pub async fn remove_packs(world: &World) {
    for pack in packs(world).await {
        world.store.delete(&pack.into()).await.unwrap();
    }
}

pub fn put(path: &Path, data: &[u8]) {
    fs::File::create(path).unwrap().write_all(data).unwrap();
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as _,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

/// Fills a folder with every kind of entry and of name.
pub fn fill(root: &Path) {
    let name = |bytes: &[u8]| root.join(std::ffi::OsStr::from_bytes(bytes));
    put(&root.join("empty"), b"");
    put(&root.join("small"), b"bytes");
    put(&root.join("zeros"), &[0; 100_000]);
    put(&root.join("piece"), &noise(1, 512 << 10));
    put(&root.join("two pieces"), &noise(2, (512 << 10) + 1));
    put(
        &root.join("large"),
        &[noise(3, 5 << 20), text(4, 5 << 20)].concat(),
    );
    put(&name(b"\xff\xfe not text \n"), b"odd");
    put(&name(&[b'n'; 255]), b"long");
    put(&root.join("mode"), b"mode");
    fs::set_permissions(root.join("mode"), PermissionsExt::from_mode(0o4751)).unwrap();
    let mut sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.seek(SeekFrom::Start(40 << 20)).unwrap();
    sparse.write_all(&noise(5, 70_000)).unwrap();
    sparse.set_len(90 << 20).unwrap();
    fs::create_dir_all(root.join("a/b/c/d")).unwrap();
    put(&root.join("a/b/c/d/deep"), b"deep");
    fs::create_dir(root.join("nothing")).unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for number in 0..1500 {
        put(&root.join(format!("many/{number:04}")), &text(number, 50));
    }
    std::os::unix::fs::symlink("a/b/nowhere", root.join("link")).unwrap();
    std::os::unix::fs::symlink("/", root.join("root")).unwrap();
    fs::hard_link(root.join("small"), root.join("a/same")).unwrap();
    fs::hard_link(root.join("large"), root.join("a/also large")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), 0o640.into()).unwrap();
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let (path, flags) = (root.join("small"), rustix::fs::XattrFlags::empty());
    rustix::fs::setxattr(&path, "user.note", b"value", flags).unwrap();
    rustix::fs::setxattr(root.join("a"), "user.empty", b"", flags).unwrap();
    set_time(&root.join("small"), -5, 7);
    set_time(&root.join("link"), 1_000_000, 999_999_999);
    set_time(&root.join("a/b"), 77, 1);
    fs::set_permissions(root.join("a/b"), PermissionsExt::from_mode(0o555)).unwrap();
}

/// All that can be asked of an entry, as text, by its path. Names of one file
/// have the number of the first in it.
pub fn snapshot(root: &Path) -> BTreeMap<String, String> {
    let (mut found, mut inodes) = (BTreeMap::new(), BTreeMap::new());
    look(root, root, &mut found);
    for (path, text) in &mut found {
        let inode = fs::symlink_metadata(root.join(unescape(path)))
            .unwrap()
            .ino();
        let first = inodes.entry(inode).or_insert_with(|| path.clone());
        text.push_str(&format!(" first name {first}"));
    }
    found
}

/// Two folders must be the same; names the first entries that are not.
pub fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (snapshot(one), snapshot(other));
    let paths: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differ = paths
        .into_iter()
        .filter(|path| one.get(*path) != other.get(*path));
    let shown = differ.map(|path| format!("{path}: {:?}, {:?}", one.get(path), other.get(path)));
    let shown: Vec<String> = shown.take(5).collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}

fn escape(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

fn unescape(text: &str) -> std::ffi::OsString {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let hex = [*high, *low];
                let hex = std::str::from_utf8(&hex).unwrap();
                (u8::from_str_radix(hex, 16).unwrap(), tail)
            }
            (b'\\', [b'n', tail @ ..]) => (b'\n', tail),
            (b'\\', [b't', tail @ ..]) => (b'\t', tail),
            (b'\\', [b'r', tail @ ..]) => (b'\r', tail),
            (b'\\', [other, tail @ ..]) => (*other, tail),
            (other, tail) => (*other, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

fn look(root: &Path, path: &Path, found: &mut BTreeMap<String, String>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        let bytes = fs::read(path).unwrap();
        format!("file {}", blake3::hash(&bytes))
    } else if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("link to {:?}", fs::read_link(path).unwrap())
    } else {
        format!(
            "fifo {} socket {} device {}",
            kind.is_fifo(),
            kind.is_socket(),
            metadata.rdev()
        )
    };
    let attributes = match kind.is_symlink() {
        true => Vec::new(),
        false => xattrs(path),
    };
    let text = format!(
        "{what} mode {:o} owner {} {} time {} {} attributes {attributes:?}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    );
    found.insert(escape(path.strip_prefix(root).unwrap()), text);
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            look(root, &entry.unwrap().path(), found);
        }
    }
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::listxattr(path, &mut names[..]).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    let mut found: Vec<_> = names
        .split_terminator('\0')
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
            (name.to_owned(), value[..length].to_vec())
        })
        .collect();
    found.sort();
    found
}

//! Shares that are written to while they are read, on file systems that can hold still.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cairn_source::{Folder, Inventory, Moment, ShareConfig, SourceConfig};
use cairn_types::tree::{DirectoryReader, TreeReader};

/// A file system of its own, mounted until it is dropped.
struct Mounted {
    folder: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(std::process::Stdio::null());
    command.status().unwrap().success()
}

impl Mounted {
    fn new(make: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::File::create(&image)
            .unwrap()
            .set_len(512 << 20)
            .unwrap();
        let (program, options) = make.split_first().unwrap();
        let arguments = [options, &[image.to_str().unwrap()]].concat();
        assert!(run(program, &arguments), "{program} is there");
        let mount = folder.path().join("mount");
        fs::create_dir(&mount).unwrap();
        let places = [image.to_str().unwrap(), mount.to_str().unwrap()];
        let options = [&["-o", "loop"][..], &places].concat();
        assert!(run("mount", &options), "mounting needs root");
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let path = self.path();
        let unmounted = run("umount", &[path.to_str().unwrap()]);
        assert!(
            unmounted || std::thread::panicking(),
            "nothing is open in it"
        );
    }
}

fn inventory(path: &Path) -> Inventory {
    let share = ShareConfig {
        name: "home".into(),
        path: path.to_owned(),
        project: None,
        exclude: Vec::new(),
        cross_file_systems: false,
        tags: BTreeMap::new(),
    };
    Inventory::new(vec![SourceConfig::Share(share)]).unwrap()
}

fn open(inventory: &Inventory) -> Folder {
    let id = inventory.list().unwrap()[0].id;
    inventory.open_share(id).unwrap()
}

fn names(directory: &Arc<dyn DirectoryReader>) -> Vec<String> {
    let names = directory.names().unwrap();
    let text = |name| String::from_utf8_lossy(name).into_owned();
    names.iter().map(text).collect()
}

fn first_byte(directory: &Arc<dyn DirectoryReader>, name: &str) -> u8 {
    let mut byte = [0];
    let file = directory.file(name.as_bytes()).unwrap();
    file.read_at(0, &mut byte).unwrap();
    byte[0]
}

fn overwrite(path: &Path, byte: u8) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[byte; 4096], 0).unwrap();
}

fn put(path: &Path, byte: u8, length: usize) {
    let file = fs::File::create(path).unwrap();
    file.write_all_at(&vec![byte; length], 0).unwrap();
}

/// What is in the uppermost folder of the file system.
fn listed(mounted: &Mounted) -> Vec<String> {
    let entries = fs::read_dir(mounted.path()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn on_btrfs_a_share_is_read_from_a_snapshot() {
    let mounted = Mounted::new(&["mkfs.btrfs", "-q"]);
    let share = mounted.path().join("share");
    fs::create_dir_all(share.join("below")).unwrap();
    put(&share.join("small"), b'a', 10);
    put(&share.join("below/large"), b'a', 1 << 20);
    let inner = share.join("inner");
    assert!(run(
        "btrfs",
        &["subvolume", "create", inner.to_str().unwrap()]
    ));
    put(&inner.join("file"), b'a', 10);

    let inventory = inventory(&share);
    let before = open(&inventory).root().unwrap().metadata().unwrap();
    let folder = open(&inventory);
    assert_eq!(folder.moment(), Moment::Snapshot);
    put(&share.join("later"), b'b', 10);
    overwrite(&share.join("small"), b'b');
    overwrite(&share.join("below/large"), b'b');
    fs::remove_file(inner.join("file")).unwrap();
    let root = folder.root().unwrap();
    // Other subvolumes are other file systems, which are not gone into.
    assert_eq!(names(&root), ["below", "inner", "small"]);
    assert!(names(&root.directory(b"inner").unwrap()).is_empty());
    assert_eq!(first_byte(&root, "small"), b'a');
    let below = root.directory(b"below").unwrap();
    assert_eq!(first_byte(&below, "large"), b'a');
    // It is told apart from nothing: what has not changed since is not read again.
    assert_eq!(root.metadata().unwrap(), before);
    assert_eq!(listed(&mounted).len(), 2);

    drop((folder, root, below));
    assert_eq!(listed(&mounted), ["share"]);
}

#[test]
fn a_snapshot_that_a_crash_left_goes_and_is_never_saved() {
    let mounted = Mounted::new(&["mkfs.btrfs", "-q"]);
    put(&mounted.path().join("file"), b'a', 10);
    let inventory = inventory(&mounted.path());
    let folder = open(&inventory);
    let left = listed(&mounted).remove(0);
    drop(folder);
    let (of, name) = (mounted.path(), mounted.path().join(&left));
    let places = [of.to_str().unwrap(), name.to_str().unwrap()];
    assert!(run(
        "btrfs",
        &[&["subvolume", "snapshot", "-r"][..], &places].concat()
    ));
    put(&of.join("later"), b'a', 10);
    let folder = open(&inventory);
    assert_eq!(names(&folder.root().unwrap()), ["file", "later"]);
    assert_eq!(listed(&mounted), [left.as_str(), "file", "later"]);
    drop(folder);
    assert_eq!(listed(&mounted), ["file", "later"]);
}

#[test]
fn on_xfs_each_large_file_is_read_from_a_clone() {
    let mounted = Mounted::new(&["mkfs.xfs", "-q"]);
    let file = mounted.path().join("large");
    put(&file, b'a', 1 << 20);
    rustix::fs::setxattr(&file, c"user.mark", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    let folder = open(&inventory(&mounted.path()));
    assert_eq!(folder.moment(), Moment::EachFile);
    let open = folder.root().unwrap().file(b"large").unwrap();
    let before = open.metadata().unwrap();
    overwrite(&file, b'b');
    let mut byte = [0];
    open.read_at(0, &mut byte).unwrap();
    assert_eq!((byte[0], open.metadata().unwrap()), (b'a', before));
    assert_eq!(open.xattrs().unwrap()[0].name, b"user.mark");
    assert_eq!(listed(&mounted), ["large"]);
}

#[test]
fn elsewhere_a_share_is_read_as_it_is() {
    let mounted = Mounted::new(&["mkfs.ext4", "-q"]);
    let folder = open(&inventory(&mounted.path()));
    assert_eq!(folder.moment(), Moment::None);
}

//! Folders of files as trees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cairn_source::{
    Folder, FolderOptions, Inventory, ProtectableStatus, ShareConfig, SourceConfig,
};
use cairn_types::tree::{EntryKind, TreeReader, TreeWriter};
use cairn_types::{Kind, ResourceType};

use crate::common::Lab;

fn share(path: PathBuf, exclude: &[&str]) -> ShareConfig {
    ShareConfig {
        name: "home".into(),
        path,
        project: None,
        exclude: exclude
            .iter()
            .map(|pattern| (*pattern).to_owned())
            .collect(),
        cross_file_systems: false,
        tags: BTreeMap::new(),
    }
}

fn inventory(share: ShareConfig) -> Inventory {
    Inventory::new(vec![SourceConfig::Share(share)]).unwrap()
}

fn put(path: &Path, data: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::create(path).unwrap();
    std::io::Write::write_all(&mut file, data.as_bytes()).unwrap();
}

/// The paths of all that a tree shows.
fn paths(tree: &dyn TreeReader) -> Vec<String> {
    let (mut found, mut left) = (Vec::new(), vec![(String::new(), tree.root().unwrap())]);
    while let Some((path, directory)) = left.pop() {
        for name in directory.names().unwrap().iter() {
            let below = format!("{path}{}", String::from_utf8_lossy(name));
            if directory.metadata_of(name).unwrap().kind == EntryKind::Directory {
                left.push((format!("{below}/"), directory.directory(name).unwrap()));
            }
            found.push(below);
        }
    }
    found.sort();
    found
}

#[test]
fn a_share_is_listed_and_opened() {
    let lab = Lab::new();
    put(&lab.path("files/a"), "a");
    let inventory = inventory(share(lab.path("files"), &[]));
    let [found] = &inventory.list().unwrap()[..] else {
        panic!("there is one share");
    };
    assert_eq!(found.resource_type, ResourceType::Turbo);
    assert_eq!(
        (&*found.name, found.status),
        ("home", ProtectableStatus::Available)
    );
    assert_eq!(paths(&inventory.open_share(found.id).unwrap()), ["a"]);
    let not_a_disk = inventory.open_reader(found.id).err().unwrap();
    assert_eq!(not_a_disk.kind(), Kind::Invalid);
    fs::remove_dir_all(lab.path("files")).unwrap();
    assert_eq!(
        inventory.list().unwrap()[0].status,
        ProtectableStatus::Missing
    );
    let gone = inventory.open_share(found.id).err().unwrap();
    assert_eq!(gone.kind(), Kind::NotFound);
}

#[test]
fn what_is_excluded_is_not_there() {
    let lab = Lab::new();
    for path in [
        "a.tmp",
        "keep",
        "cache/x",
        "b/cache/y",
        "b/c.tmp",
        "b/keep.tmp.not",
    ] {
        put(&lab.path("files").join(path), "x");
    }
    let inventory = inventory(share(lab.path("files"), &["*.tmp", "**/cache"]));
    let id = inventory.list().unwrap()[0].id;
    let found = paths(&inventory.open_share(id).unwrap());
    assert_eq!(found, ["b", "b/c.tmp", "b/keep.tmp.not", "keep"]);
}

#[test]
fn another_file_system_is_an_empty_directory() {
    let Ok(folder) = Folder::open(Path::new("/"), FolderOptions::default()) else {
        panic!("everyone may open the root");
    };
    let root = folder.root().unwrap();
    let own = root.directory(b"proc").unwrap();
    assert!(
        own.names().unwrap().is_empty(),
        "/proc is another file system"
    );
    let options = FolderOptions {
        cross_file_systems: true,
        ..FolderOptions::default()
    };
    let crossing = Folder::open(Path::new("/"), options).unwrap();
    let proc = crossing.root().unwrap().directory(b"proc").unwrap();
    assert!(!proc.names().unwrap().is_empty());
}

#[test]
fn nothing_leads_out_of_a_folder() {
    let lab = Lab::new();
    put(&lab.path("outside/secret"), "secret");
    fs::create_dir_all(lab.path("files")).unwrap();
    symlink(lab.path("outside"), lab.path("files/link")).unwrap();
    symlink(lab.path("outside/secret"), lab.path("files/file")).unwrap();
    let folder = Folder::open(&lab.path("files"), FolderOptions::default()).unwrap();
    let root = folder.root().unwrap();
    assert!(root.directory(b"link").is_err());
    assert!(root.file(b"file").is_err());
    assert_eq!(root.metadata_of(b"link").unwrap().kind, EntryKind::Symlink);
    for path in [&b"link"[..], b"link/below", b"file"] {
        assert!(TreeWriter::directory(&folder, path).is_err());
    }
    let own = TreeWriter::directory(&folder, b"").unwrap();
    assert!(own.create_link(b"stolen", b"link/secret").is_err());
    for path in [&b"../outside"[..], b"..", b"a/../.."] {
        assert!(TreeWriter::directory(&folder, path).is_err(), "{path:?}");
    }
    assert!(own.create_link(b"stolen", b"../outside/secret").is_err());
    for name in [
        &b"../outside/new"[..],
        b"link/new",
        b"..",
        b".",
        b"/tmp/new",
    ] {
        let about = root.metadata_of(name).is_err() && root.xattrs_of(name).is_err();
        assert!(about && root.link_target(name).is_err(), "{name:?}");
        assert!(root.file(name).is_err() && root.directory(name).is_err());
        assert!(own.create_file(name, 0).is_err() && own.open_file(name).is_err());
        assert!(own.create_directory(name).is_err());
        assert!(own.create_symlink(name, b"x").is_err());
        assert!(own.create_link(name, b"file").is_err());
        let metadata = root.metadata().unwrap();
        let pipe = cairn_types::tree::Metadata {
            kind: EntryKind::Fifo,
            ..metadata
        };
        assert!(own.create_special(name, &pipe).is_err());
        assert!(own.set(name, &metadata, &[]).is_err());
    }
    for folder in ["link", "../outside", "a/../..", "."] {
        let inventory = inventory(share(lab.path("files"), &[]));
        let id = inventory.list().unwrap()[0].id;
        let opened = inventory.open_share_writer(id, folder);
        assert!(opened.is_err(), "{folder}");
    }
    assert_eq!(fs::read_dir(lab.path("outside")).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_not_finished_is_written_further() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("files")).unwrap();
    let folder = Folder::open(&lab.path("files"), FolderOptions::default()).unwrap();
    let own = TreeWriter::directory(&folder, b"").unwrap();
    let metadata = |size_bytes| cairn_types::tree::Metadata {
        kind: EntryKind::File,
        size_bytes,
        mode: 0o640,
        ..folder.root().unwrap().metadata().unwrap()
    };
    own.create_file(b"f", 3)
        .unwrap()
        .write_at(0, b"one")
        .unwrap();
    let again = own.open_file(b"f").unwrap();
    again.write_at(3, b" two and more").unwrap();
    again.finish(&metadata(7), &[]).unwrap();
    assert_eq!(fs::read(lab.path("files/f")).unwrap(), b"one two");
    // One of two names is not gone on with: the other may be anywhere.
    fs::hard_link(lab.path("files/f"), lab.path("elsewhere")).unwrap();
    assert!(own.open_file(b"f").is_err());
    std::os::unix::fs::symlink("f", lab.path("files/link")).unwrap();
    assert!(own.open_file(b"link").is_err());
}

#[test]
fn a_folder_below_a_share_is_made() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("files")).unwrap();
    let inventory = inventory(share(lab.path("files"), &[]));
    let id = inventory.list().unwrap()[0].id;
    let folder = inventory
        .open_share_writer(id, "/back/from yesterday/")
        .unwrap();
    let own = TreeWriter::directory(&folder, b"").unwrap();
    own.create_file(b"f", 3).unwrap();
    assert!(lab.path("files/back/from yesterday/f").exists());
}

#[test]
fn a_device_that_is_there_is_not_made_anew() {
    let lab = Lab::new();
    let (files, node) = (lab.path("files"), lab.path("files/null"));
    fs::create_dir_all(&files).unwrap();
    let made = std::process::Command::new("mknod")
        .arg(&node)
        .args(["c", "1", "3"])
        .status();
    if !made.unwrap().success() {
        return; // Only root may make one.
    }
    let folder = Folder::open(&files, FolderOptions::default()).unwrap();
    let own = TreeWriter::directory(&folder, b"").unwrap();
    let saved = own.metadata_of(b"null").unwrap();
    own.create_special(b"null", &saved).unwrap();
    assert_eq!(own.metadata_of(b"null").unwrap().inode, saved.inode);
    // One that has another name may be somewhere else too.
    fs::hard_link(&node, lab.path("elsewhere")).unwrap();
    own.create_special(b"null", &saved).unwrap();
    assert_ne!(own.metadata_of(b"null").unwrap().inode, saved.inode);
    let other = cairn_types::tree::Metadata {
        device: (1, 5),
        ..saved
    };
    own.create_special(b"null", &other).unwrap();
    assert_eq!(own.metadata_of(b"null").unwrap().device, (1, 5));
}

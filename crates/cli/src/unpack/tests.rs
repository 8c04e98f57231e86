//! Archives that are unpacked: what they hold comes out, and nothing outside is touched.
#![allow(clippy::single_range_in_vec_init)]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use cairn_archive::{END_BYTES, head, stored_bytes};
use cairn_types::tree::FileTime;
use tempfile::TempDir;

use super::*;

fn metadata(kind: EntryKind, mode: u16, size_bytes: u64) -> Metadata {
    Metadata {
        kind,
        mode,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        size_bytes,
        modified: FileTime {
            seconds: 1_000_000,
            nanoseconds: 5,
        },
        changed: FileTime::default(),
        inode: 0,
        linked: false,
        device: (0, 0),
    }
}

fn entry(path: &str, content: Content) -> Entry {
    let kind = match &content {
        Content::Data(_) | Content::Link(_) => EntryKind::File,
        Content::Target(_) => EntryKind::Symlink,
        Content::Nothing => EntryKind::Directory,
    };
    let mode = if kind == EntryKind::Directory {
        0o755
    } else {
        0o640
    };
    Entry {
        path: path.as_bytes().to_vec(),
        metadata: metadata(kind, mode, content.data_bytes()),
        xattrs: Vec::new(),
        content,
    }
}

fn directory(path: &str) -> Entry {
    entry(path, Content::Nothing)
}

fn file(path: &str) -> Entry {
    entry(path, Content::Data(vec![0..3]))
}

fn link(path: &str, target: &Path) -> Entry {
    entry(
        path,
        Content::Target(target.as_os_str().as_encoded_bytes().to_vec()),
    )
}

/// An archive of these entries, every byte of data being `x`.
fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let start = bytes.len() as u64;
        let head = head(entry);
        let end = start + stored_bytes(head.len(), entry);
        bytes.extend(head);
        bytes.resize(bytes.len() + entry.content.data_bytes() as usize, b'x');
        bytes.resize(end as usize, 0);
    }
    bytes.resize(bytes.len() + END_BYTES as usize, 0);
    bytes
}

/// A folder with the target in it and something beside.
struct Stage {
    folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("target")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        let mut kept = File::create(folder.path().join("outside/kept")).unwrap();
        io::Write::write_all(&mut kept, b"kept").unwrap();
        Self { folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn unpack(&self, entries: &[Entry]) -> Result<Unpacked, Error> {
        let root = prepare(&self.at("target"))?;
        write(&archive(entries)[..], root)
    }

    /// What is outside of the target is as it was.
    fn check(&self) {
        let names = |path: &str| {
            let mut names: Vec<_> = fs::read_dir(self.at(path))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["outside", "target"]);
        assert_eq!(names("outside"), ["kept"]);
        assert_eq!(fs::read(self.at("outside/kept")).unwrap(), b"kept");
        assert_eq!(fs::metadata(self.at("outside/kept")).unwrap().nlink(), 1);
        let mode = fs::metadata(self.at("outside"))
            .unwrap()
            .permissions()
            .mode();
        assert_ne!(mode & 0o777, 0);
    }
}

#[test]
fn what_is_in_an_archive_comes_out() {
    let stage = Stage::new();
    let mut sparse = entry("a/sparse", Content::Data(vec![4096..4100]));
    sparse.metadata.size_bytes = 1 << 20;
    let mut closed = directory("a/closed");
    closed.metadata.mode = 0o000;
    let mut pipe = entry("pipe", Content::Nothing);
    pipe.metadata.kind = EntryKind::Fifo;
    pipe.metadata.mode = 0o640;
    let mut top = directory("");
    top.metadata.mode = 0o700;
    let done = stage
        .unpack(&[
            top,
            directory("a"),
            closed,
            file("a/closed/file"),
            sparse,
            link("a/to", Path::new("../nowhere")),
            entry("again", Content::Link(b"a/closed/file".to_vec())),
            pipe,
        ])
        .unwrap();
    assert_eq!((done.files, done.directories, done.others), (2, 2, 3));
    assert_eq!(done.refused, Refused::default());
    let about = |path: &str| fs::symlink_metadata(stage.at("target").join(path)).unwrap();
    assert_eq!(about("").mode() & 0o7777, 0o700);
    assert_eq!(about("a/closed").mode() & 0o7777, 0);
    for path in ["", "a", "a/closed", "a/sparse", "a/to", "pipe", "again"] {
        assert_eq!(
            (about(path).mtime(), about(path).mtime_nsec()),
            (1_000_000, 5),
            "{path}"
        );
    }
    assert_eq!(about("again").nlink(), 2);
    assert_eq!(about("pipe").mode() & 0o170_777, 0o010_640);
    let sparse = fs::read(stage.at("target/a/sparse")).unwrap();
    assert_eq!(
        (sparse.len(), &sparse[4095..4101]),
        (1 << 20, &b"\0xxxx\0"[..])
    );
    assert!(about("a/sparse").blocks() * 512 < 1 << 19);
    assert_eq!(
        fs::read_link(stage.at("target/a/to")).unwrap(),
        Path::new("../nowhere")
    );
    fs::set_permissions(
        stage.at("target/a/closed"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    stage.check();
}

#[test]
fn nothing_goes_over_a_link_that_came_before() {
    for target in ["outside", "target", "."] {
        let stage = Stage::new();
        let to = match target {
            "." => PathBuf::from("."),
            target => stage.at(target),
        };
        let over = [
            file("a/made"),
            directory("a/made"),
            link("a/made", Path::new("x")),
            entry("a/made", Content::Link(b"first".to_vec())),
            entry("made", Content::Link(b"a/kept".to_vec())),
            file("a"),
            directory("a"),
        ];
        for bad in over {
            let stage_entries = [directory(""), file("first"), link("a", &to), bad.clone()];
            let failed = stage.unpack(&stage_entries);
            assert!(failed.is_err(), "{:?} over a link to {target}", bad.path);
            stage.check();
            fs::remove_dir_all(stage.at("target")).unwrap();
            fs::create_dir(stage.at("target")).unwrap();
        }
    }
}

#[test]
fn a_directory_that_others_replace_by_a_link_is_not_followed() {
    let stage = Stage::new();
    let root = prepare(&stage.at("target")).unwrap();
    let mut target = Target::new(root);
    target.create_directory(b"a").unwrap();
    fs::remove_dir(stage.at("target/a")).unwrap();
    symlink(stage.at("outside"), stage.at("target/a")).unwrap();
    let closed = metadata(EntryKind::Directory, 0, 0);
    assert!(target.create_file(b"a/made").is_err());
    assert!(target.set_directory(b"a", &closed, &[]).is_err());
    stage.check();
}

#[test]
fn names_that_lead_out_are_refused() {
    let names = [
        "../made",
        "/made",
        "a/../../made",
        "..",
        "a/..",
        "./../made",
        "a//made",
    ];
    for name in names {
        let stage = Stage::new();
        for bad in [
            file(name),
            directory(name),
            link(name, Path::new("x")),
            entry("b", Content::Link(name.into())),
        ] {
            assert!(stage.unpack(&[directory("a"), bad]).is_err(), "{name}");
            stage.check();
            fs::remove_dir_all(stage.at("target")).unwrap();
            fs::create_dir(stage.at("target")).unwrap();
        }
        let mut target = Target::new(prepare(&stage.at("target")).unwrap());
        target.create_directory(b"a").unwrap();
        assert!(target.create_file(name.as_bytes()).is_err(), "{name}");
        assert!(target.create_link(b"b", name.as_bytes()).is_err(), "{name}");
        stage.check();
    }
}

#[test]
fn what_is_there_is_not_replaced() {
    let stage = Stage::new();
    assert!(stage.unpack(&[file("a"), file("a")]).is_err());
    assert!(matches!(prepare(&stage.at("target")), Err(Error::Usage(_))));
    assert!(matches!(
        prepare(&stage.at("outside/kept")),
        Err(Error::Usage(_))
    ));
    assert!(prepare(&stage.at("target/new")).is_ok());
    stage.check();
}

#[test]
fn a_path_may_be_longer_than_the_system_takes_at_once() {
    let stage = Stage::new();
    let name = "n".repeat(200);
    let mut entries = Vec::new();
    let mut path = name.clone();
    for _ in 0..60 {
        entries.push(directory(&path));
        path = format!("{path}/{name}");
    }
    entries.push(file(&path));
    let done = stage.unpack(&entries).unwrap();
    assert_eq!((done.files, done.directories), (1, 60));
    stage.check();
}

#[test]
fn an_archive_that_breaks_off_is_an_error() {
    let stage = Stage::new();
    let bytes = archive(&[directory(""), file("a")]);
    let root = prepare(&stage.at("target")).unwrap();
    let cut = write(&bytes[..bytes.len() - 1], root);
    assert!(matches!(cut, Err(Error::Archive(_))));
}

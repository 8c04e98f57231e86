//! Trees saved by an agent and restored by it: equal to what was saved, and nothing
//! outside of the target is touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_agent::Rules;
use cairn_types::Kind;

use crate::common::files::{assert_same, generate, put, snapshot};
use crate::common::{Link, Server, noise};

const LATER: i64 = 100_000_000_000;

/// A target with folders beside it that nobody may touch.
struct Guarded {
    folder: tempfile::TempDir,
    before: BTreeMap<Vec<u8>, String>,
}

impl Guarded {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["beside", "target", "target2"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        put(&folder.path().join("beside/file"), b"guarded");
        put(&folder.path().join("passwd"), b"guarded too");
        let before = Self::outside(folder.path());
        Self { folder, before }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    fn outside(folder: &Path) -> BTreeMap<Vec<u8>, String> {
        let mut found = snapshot(folder);
        found.retain(|path, _| !path.starts_with(b"target/") && path != b"target");
        // The folder itself has the target in it.
        found.remove(&b""[..]);
        found
    }

    fn check(&self, what: &str) {
        let now = Self::outside(self.folder.path());
        assert!(now == self.before, "{what}: something outside has changed");
    }
}

/// How many trees are tried, and from which on.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("CAIRN_AGENT_TREES");
    let count = count.map_or(24, |count| count.parse().unwrap());
    let first = std::env::var("CAIRN_AGENT_SEED");
    let first = first.map_or(0, |first| first.parse().unwrap());
    first..first + count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_trees_are_restored_by_the_agent() {
    let server = Server::new().await;
    for seed in seeds() {
        let files = tempfile::tempdir().unwrap();
        generate(files.path(), seed);
        let guarded = Guarded::new();
        // Half of the targets hold another tree already.
        let is_fresh = seed % 2 == 0;
        if !is_fresh {
            generate(&guarded.target(), seed / 2);
            make_way(files.path(), &guarded.target());
        }
        let what = format!("seed {seed}");
        let link = Link::new(&server, Rules::default());
        let broken = seed % 3 == 0;
        let connecting = link.keep_connecting(seed, if broken { 4 << 20 } else { u64::MAX >> 1 });
        let saved = server.save(link.tree(&[files.path()]), None, LATER).await;
        let (backup, written) = saved.expect(&what);
        assert_eq!(written.summary.listed, [], "{what}");
        let from = (backup, files.path());
        let restored = server.restore_there(&link, from, &guarded.target()).await;
        let summary = restored.expect(&what);
        assert_eq!(summary.listed, [], "{what}");
        guarded.check(&what);
        if is_fresh {
            assert_same(files.path(), &guarded.target(), &what);
        } else {
            assert_holds(files.path(), &guarded.target(), &what);
        }
        drop(connecting);
        link.line.close();
    }
}

/// Takes out of a target what makes no way: a directory where none was saved, a block
/// device where a file was.
fn make_way(source: &Path, target: &Path) {
    for entry in fs::read_dir(target).unwrap() {
        let entry = entry.unwrap();
        let was = fs::symlink_metadata(source.join(entry.file_name()));
        let is_directory = entry.file_type().unwrap().is_dir();
        let is_device = entry.file_type().unwrap().is_block_device();
        match was {
            Ok(was) if is_directory && !was.is_dir() => fs::remove_dir_all(entry.path()).unwrap(),
            Ok(was) if is_device && was.is_file() => fs::remove_file(entry.path()).unwrap(),
            Ok(_) if is_directory => make_way(&source.join(entry.file_name()), &entry.path()),
            _ => {}
        }
    }
}

/// All of a source is in a target, which may hold more.
fn assert_holds(source: &Path, target: &Path, what: &str) {
    let (source, target) = (snapshot(source), snapshot(target));
    for (path, text) in &source {
        let shown = String::from_utf8_lossy(path);
        assert_eq!(target.get(path), Some(text), "{what}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_in_a_target_lead_nowhere() {
    let (server, files, guarded) = (
        Server::new().await,
        tempfile::tempdir().unwrap(),
        Guarded::new(),
    );
    fs::create_dir_all(files.path().join("a/b")).unwrap();
    put(&files.path().join("a/b/file"), b"new");
    put(&files.path().join("passwd"), b"mine");
    let link = Link::connected(&server).await;
    let tree = link.tree(&[files.path()]);
    let (backup, _) = server.save(tree, None, LATER).await.unwrap();
    // Where a directory and a file are to be there are links that lead out.
    let target = guarded.target();
    std::os::unix::fs::symlink(guarded.folder.path().join("beside"), target.join("a")).unwrap();
    std::os::unix::fs::symlink("../passwd", target.join("passwd")).unwrap();
    let from = (backup, files.path());
    server.restore_there(&link, from, &target).await.unwrap();
    assert_same(files.path(), &target, "links were in the way");
    guarded.check("links were in the way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_files_do_not_each_wait_for_the_line() {
    let (server, files) = (Server::new().await, tempfile::tempdir().unwrap());
    for number in 0..3000 {
        let folder = files.path().join(format!("{}", number / 1000));
        fs::create_dir_all(&folder).unwrap();
        put(&folder.join(format!("{number}")), &noise(number, 300));
    }
    let link = Link::connected(&server).await;
    let tree = link.tree(&[files.path()]);
    let (backup, _) = server.save(tree, None, LATER).await.unwrap();
    link.take_asked();
    let target = tempfile::tempdir().unwrap();
    let from = (backup, files.path());
    server
        .restore_there(&link, from, target.path())
        .await
        .unwrap();
    assert_same(files.path(), target.path(), "many files");
    // Some questions for each thousand files, however many they are.
    let asked = link.take_asked();
    assert!(asked < 100, "{asked} questions");
}

/// A batch may go over again so many times, and not a restore.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_may_lose_any_number_of_connections() {
    let (server, target) = (Server::new().await, tempfile::tempdir().unwrap());
    let link = Link::new(&server, Rules::default());
    let connecting = link.keep_connecting(1, 1);
    let writer = link.line.open_tree_writer(cairn_link::Target {
        path: target.path().to_str().unwrap().to_owned(),
    });
    let this = Arc::clone(&link);
    let write = move || {
        let root = cairn_types::tree::TreeWriter::directory(&*writer, b"").unwrap();
        for number in 0.. {
            let name = format!("{number}");
            root.create_directory(name.as_bytes()).unwrap();
            // Waits for what was to be done.
            root.metadata().unwrap();
            if this.connections.load(Ordering::Relaxed) > 1100 {
                return number + 1;
            }
        }
        unreachable!("connections are made all the time")
    };
    let made = tokio::task::spawn_blocking(write).await.unwrap();
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), made);
    drop(connecting);
    link.line.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_hosts_owner_forbids_is_not_written() {
    let (server, files) = (Server::new().await, tempfile::tempdir().unwrap());
    put(&files.path().join("file"), b"x");
    let allowed = tempfile::tempdir().unwrap();
    let rules = |allow_restore| Rules {
        allow_restore,
        allow_paths: [files.path(), allowed.path()]
            .map(|path| path.to_str().unwrap().to_owned())
            .into(),
        ..Rules::default()
    };
    let link = Link::new(&server, rules(true));
    link.connect(u64::MAX).await;
    let tree = link.tree(&[files.path()]);
    let (backup, _) = server.save(tree, None, LATER).await.unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), allowed.path().join("link")).unwrap();
    let refused = |to: PathBuf, link: &Link| {
        let (server, from) = (&server, (backup, files.path()));
        let link = link.line.clone();
        async move {
            let target = link.open_tree_writer(cairn_link::Target {
                path: to.to_str().unwrap().to_owned(),
            });
            let failed = server.restore_into(from.0, from.1, target).await;
            assert_eq!(failed.unwrap_err().kind(), Kind::Denied, "{}", to.display());
        }
    };
    refused(outside.path().to_owned(), &link).await;
    refused(allowed.path().join("link"), &link).await;
    refused(allowed.path().join("new/../../x"), &link).await;
    let deeper = allowed.path().join("new/deeper");
    let from = (backup, files.path());
    server.restore_there(&link, from, &deeper).await.unwrap();
    assert_same(files.path(), &deeper, "where it is allowed");
    let link = Link::new(&server, rules(false));
    link.connect(u64::MAX).await;
    refused(deeper, &link).await;
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// Else whoever may change a folder above the target could lead the next connection elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_is_reached_over_no_link() {
    let (server, files) = (Server::new().await, tempfile::tempdir().unwrap());
    put(&files.path().join("file"), b"x");
    let link = Link::connected(&server).await;
    let tree = link.tree(&[files.path()]);
    let (backup, _) = server.save(tree, None, LATER).await.unwrap();
    let (outside, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let linked = target.path().join("link");
    std::os::unix::fs::symlink(outside.path(), &linked).unwrap();
    for path in [linked.clone(), linked.join("deeper")] {
        let from = (backup, files.path());
        let failed = server.restore_there(&link, from, &path).await;
        let failed = failed.unwrap_err();
        assert_eq!(failed.kind(), Kind::Denied, "{failed:?}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_written_fails_the_restore_by_its_path() {
    let (server, files, target) = (
        Server::new().await,
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    put(&files.path().join("name"), &noise(1, 3 << 20));
    // Others before and behind it: a link waits for what was written before it.
    put(&files.path().join("a"), b"first");
    fs::hard_link(files.path().join("a"), files.path().join("linked")).unwrap();
    put(&files.path().join("z"), b"last");
    let link = Link::connected(&server).await;
    let tree = link.tree(&[files.path()]);
    let (backup, _) = server.save(tree, None, LATER).await.unwrap();
    // A directory is never removed for a file.
    fs::create_dir_all(target.path().join("name/full")).unwrap();
    let from = (backup, files.path());
    let failed = server.restore_there(&link, from, target.path()).await;
    let failed = failed.unwrap_err();
    assert_eq!(failed.to_string(), "cannot restore \"name\"");
    let why = std::error::Error::source(&failed).unwrap().to_string();
    assert!(why.starts_with("Is a directory"), "{why}");
    assert!(target.path().join("name/full").is_dir());
}

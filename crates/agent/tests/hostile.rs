//! Files that change while they are read, folders that are swapped for links while they
//! are written, and hosts that lie.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_agent::{FileHost, Rules};
use cairn_link::{ChunkKeys, Held, Host, PiecesWanted, Selection, Target};
use cairn_repo::ProblemKind;
use cairn_types::Timestamp;
use cairn_types::disk::BlockId;
use cairn_types::tree::{DistantPiece, TreeReader, TreeWriter};

use crate::common::files::{Random, assert_same, generate, put, snapshot};
use crate::common::{Link, Server, noise};

const LATER: i64 = 100_000_000_000;

type Meddle = dyn Fn(&mut Vec<DistantPiece>) + Send + Sync;

/// A host that does something each time that it has told the pieces of a file.
struct Meddling {
    host: FileHost,
    meddle: Box<Meddle>,
}

impl Meddling {
    fn new(meddle: impl Fn(&mut Vec<DistantPiece>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            host: crate::common::host(Rules::default()),
            meddle: Box::new(meddle),
        })
    }
}

impl Host for Meddling {
    fn now(&self) -> Timestamp {
        self.host.now()
    }
    fn freeze(&self, held: Duration) -> io::Result<Held> {
        self.host.freeze(held)
    }
    fn open(&self, selection: &Selection) -> io::Result<Arc<dyn TreeReader>> {
        self.host.open(selection)
    }
    fn open_target(&self, target: &Target) -> io::Result<Arc<dyn TreeWriter>> {
        self.host.open_target(target)
    }
    fn id(&self, keys: &ChunkKeys, plain: &[u8]) -> BlockId {
        self.host.id(keys, plain)
    }
    fn pieces(&self, keys: &ChunkKeys, wanted: PiecesWanted<'_>) -> io::Result<Vec<DistantPiece>> {
        let mut pieces = self.host.pieces(keys, wanted)?;
        (self.meddle)(&mut pieces);
        Ok(pieces)
    }
}

/// Saves and restores the only file of a folder; gives it, and what was said of it.
async fn back(server: &Server, link: &Link, folder: &Path) -> (Vec<u8>, Vec<ProblemKind>) {
    let tree = link.tree(&[folder]);
    let (backup, written) = server.save(tree, None, LATER).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    server.restore(backup, folder, target.path()).await.unwrap();
    let problems = written.summary.listed.iter().map(|problem| problem.kind);
    let problems = problems.collect();
    (fs::read(target.path().join("file")).unwrap(), problems)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_behind_its_ids_is_what_came_over() {
    let (server, folder) = (Server::new().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("file");
    put(&path, &noise(1, 3 << 20));
    // Each time that its pieces were told, the file is another, of the same size.
    let (version, meddled) = (AtomicU64::new(2), path.clone());
    let always = Meddling::new(move |_| {
        let version = version.fetch_add(1, Ordering::Relaxed);
        put(&meddled, &noise(version, 3 << 20));
    });
    let link = Link::to(&server, always);
    link.connect(u64::MAX).await;
    let (restored, problems) = back(&server, &link, folder.path()).await;
    assert_eq!(problems, [ProblemKind::Changed]);
    assert!(
        restored == fs::read(&path).unwrap(),
        "it is what it was when it was sent"
    );

    // If that happens once, the second reading is whole.
    let (done, meddled) = (AtomicBool::new(false), path.clone());
    let once = Meddling::new(move |_| {
        if !done.swap(true, Ordering::Relaxed) {
            put(&meddled, &noise(99, 2 << 20));
        }
    });
    put(&path, &noise(98, 3 << 20));
    let link = Link::to(&server, once);
    link.connect(u64::MAX).await;
    let (restored, problems) = back(&server, &link, folder.path()).await;
    assert_eq!(problems, []);
    assert!(restored == noise(99, 2 << 20));

    // What is gone by then is no problem; what is shorter is as short as it is.
    let meddled = path.clone();
    let vanishing = Meddling::new(move |_| {
        let _ = fs::remove_file(&meddled);
    });
    put(&path, &noise(97, 3 << 20));
    let link = Link::to(&server, vanishing);
    link.connect(u64::MAX).await;
    let tree = link.tree(&[folder.path()]);
    let (_, written) = server.save(tree, None, LATER).await.unwrap();
    assert_eq!((written.summary.files, written.summary.problems), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_lies_harms_its_own_backup_alone() {
    let (server, folder) = (Server::new().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("file");
    let plain = noise(5, 700_000);
    put(&path, &plain);
    // It says that its pieces are others: what comes is stored as what it is.
    let lying = Meddling::new(|pieces| {
        for piece in pieces {
            piece.id = [7; 32];
        }
    });
    let link = Link::to(&server, lying);
    link.connect(u64::MAX).await;
    let (restored, problems) = back(&server, &link, folder.path()).await;
    assert!(restored == plain);
    assert_eq!(problems, [ProblemKind::Changed]);
    // Nobody who has such bytes later is told that they are stored.
    let honest = Link::connected(&server).await;
    let (restored, problems) = back(&server, &honest, folder.path()).await;
    assert!(restored == plain && problems.is_empty());

    // Lengths that no file has end it at once, or cost that file.
    let lies: [fn(&mut Vec<DistantPiece>); 3] = [
        |pieces| pieces.iter_mut().for_each(|piece| piece.bytes = u64::MAX),
        |pieces| pieces.iter_mut().for_each(|piece| piece.bytes = 0),
        |pieces| pieces.iter_mut().for_each(|piece| piece.bytes = 1 << 40),
    ];
    for lie in lies {
        let link = Link::to(&server, Meddling::new(lie));
        link.connect(u64::MAX).await;
        let tree = link.tree(&[folder.path()]);
        let (_, written) = server.save(tree, None, LATER).await.unwrap();
        assert_eq!((written.summary.files, written.summary.problems), (0, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_that_changes_all_the_time_is_saved_and_restored() {
    let server = Server::new().await;
    let folder = tempfile::tempdir().unwrap();
    let files = generate(folder.path(), 7);
    for number in 0..200 {
        put(
            &folder.path().join(format!("more{number}")),
            &noise(number, 20_000),
        );
    }
    let link = Link::connected(&server).await;
    let stop = AtomicBool::new(false);
    let backups = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(3);
            while !stop.load(Ordering::Relaxed) {
                change(folder.path(), &files, &mut random);
            }
        });
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            let mut parent = None;
            for _ in 0..4 {
                let tree = link.tree(&[folder.path()]);
                let saved = handle
                    .block_on(server.save(tree, parent, 1_000_000))
                    .unwrap();
                parent = Some(saved.0);
                backups.lock().unwrap().push(saved.0);
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
    for backup in backups.into_inner().unwrap() {
        let target = tempfile::tempdir().unwrap();
        server
            .restore(backup, folder.path(), target.path())
            .await
            .unwrap();
    }
}

fn change(folder: &Path, files: &[PathBuf], random: &mut Random) {
    let number = random.below(200);
    let path = folder.join(format!("more{number}"));
    match random.below(5) {
        0 => drop(fs::remove_file(&path)),
        1 => drop(fs::rename(
            &path,
            folder.join(format!("more{}", random.below(200))),
        )),
        2 if !files.is_empty() => {
            let file = &files[random.below(files.len())];
            drop(fs::OpenOptions::new().write(true).open(file).map(|file| {
                let _ = file.set_len(random.below(2_000_000) as u64);
            }));
        }
        3 => {
            let _ = fs::remove_file(&path);
            let _ = std::os::unix::fs::symlink("/etc", &path);
        }
        _ => {
            // Over a link of before this would write elsewhere.
            let _ = fs::remove_file(&path);
            let made = fs::File::create_new(&path);
            drop(made.map(|mut file| {
                use std::io::Write;
                let _ = file.write_all(&noise(random.next(), random.below(90_000)));
            }));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_swapped_for_links_lead_no_write_out() {
    let server = Server::new().await;
    let files = tempfile::tempdir().unwrap();
    for folder in 0..6 {
        let path = files.path().join(format!("d{folder}/inner"));
        fs::create_dir_all(&path).unwrap();
        for number in 0..60 {
            put(&path.join(format!("{number}")), &noise(number, 9000));
        }
    }
    let link = Link::connected(&server).await;
    let tree = link.tree(&[files.path()]);
    let (backup, _) = server.save(tree, None, LATER).await.unwrap();
    let lab = tempfile::tempdir().unwrap();
    let (outside, target) = (lab.path().join("outside"), lab.path().join("target"));
    fs::create_dir_all(outside.join("inner")).unwrap();
    put(&outside.join("inner/3"), b"guarded");
    let before = snapshot(&outside);
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(9);
            while !stop.load(Ordering::Relaxed) {
                swap(&target, &outside, &mut random, &swaps);
            }
        });
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            // It fails or not, as the swaps hit; what counts is where it wrote.
            for _ in 0..12 {
                let from = (backup, files.path());
                let restoring = server.restore_there(&link, from, &target);
                drop(handle.block_on(restoring));
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
    assert!(swaps.load(Ordering::Relaxed) > 0, "nothing was swapped");
    assert!(
        snapshot(&outside) == before,
        "something outside has changed"
    );
    // In peace it is all there.
    fs::remove_dir_all(&target).unwrap();
    let from = (backup, files.path());
    server.restore_there(&link, from, &target).await.unwrap();
    assert_same(files.path(), &target, "in peace");
}

/// Puts a link out in the place of a folder, or the folder back.
fn swap(target: &Path, outside: &Path, random: &mut Random, swaps: &AtomicU64) {
    let name = format!("d{}", random.below(6));
    let (path, aside) = (target.join(&name), target.join(format!("aside-{name}")));
    let link = fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink());
    let done = match link {
        true => fs::remove_file(&path).and_then(|()| fs::rename(&aside, &path)),
        false => {
            fs::rename(&path, &aside).and_then(|()| std::os::unix::fs::symlink(outside, &path))
        }
    };
    swaps.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
}

//! Every call by which a local store changes the file system: each fails once,
//! and after each the machine loses its power.
//!
//! The model of a loss of power is the hardest that a file system may show: what was
//! not synced is gone, names and bytes alike; or names are there and bytes are not.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_repo::{FileCall, LocalStore, Result};
use cairn_testkit::MemoryDisk;
use cairn_types::{BackupId, BackupInfo, Kind, Progress, ProjectId};
use rustix::io::Errno;

use crate::common::{BLOCK, World, job, noise};

/// A call that was made, with all that it was given.
#[derive(Debug, Clone)]
enum Made {
    Folder(PathBuf),
    FolderSynced(PathBuf),
    AllSynced,
    File(PathBuf),
    Written(PathBuf, u64, Vec<u8>),
    FileSynced(PathBuf),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
}

/// Which calls fail.
#[derive(Debug, Clone, Copy)]
enum Failing {
    At(u64),
    /// As when the process dies.
    From(u64),
}

/// Writes down what is done to a file system, and fails one call of it.
#[derive(Debug, Default)]
struct Recorder {
    made: Mutex<Vec<Made>>,
    calls: AtomicU64,
    fails: Mutex<Option<(Failing, Errno)>>,
}

impl Recorder {
    /// From now on calls are counted from 0, and these fail.
    fn fail(&self, failing: Option<(Failing, Errno)>) {
        self.calls.store(0, Ordering::SeqCst);
        *self.fails.lock().unwrap() = failing;
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn made(&self) -> usize {
        self.made.lock().unwrap().len()
    }

    fn tell(&self, call: FileCall<'_>) -> io::Result<()> {
        let at = self.calls.fetch_add(1, Ordering::SeqCst);
        match *self.fails.lock().unwrap() {
            Some((Failing::At(failing), error)) if at == failing => return Err(error.into()),
            Some((Failing::From(failing), error)) if at >= failing => return Err(error.into()),
            _ => {}
        }
        self.made.lock().unwrap().push(match call {
            FileCall::MakeFolder(path) => Made::Folder(path.to_owned()),
            FileCall::SyncFolder(path) => Made::FolderSynced(path.to_owned()),
            FileCall::SyncAll(_) => Made::AllSynced,
            FileCall::CreateFile(path) => Made::File(path.to_owned()),
            FileCall::Write(path, at, bytes) => Made::Written(path.to_owned(), at, bytes.to_vec()),
            FileCall::SyncFile(path) => Made::FileSynced(path.to_owned()),
            FileCall::Rename(from, to) => Made::Renamed(from.to_owned(), to.to_owned()),
            FileCall::Remove(path) => Made::Removed(path.to_owned()),
        });
        Ok(())
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// A file system that keeps apart what is there and what would survive.
#[derive(Debug, Default)]
struct LazyFiles {
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    /// Bytes as they are, and as they were when they were last synced.
    files: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is left of names that were not synced.
#[derive(Debug, Clone, Copy)]
enum Names {
    Lost,
    Kept,
}

impl LazyFiles {
    fn after<'a>(root: &Path, calls: impl IntoIterator<Item = &'a Made>) -> Self {
        let mut files = Self::default();
        files.names.insert(root.to_owned(), Node::Folder);
        files.durable_names = files.names.clone();
        for call in calls {
            files.apply(call);
        }
        files
    }

    fn apply(&mut self, call: &Made) {
        match call {
            Made::Folder(path) => drop(self.names.entry(path.clone()).or_insert(Node::Folder)),
            Made::File(path) => {
                let fresh = Node::File(self.files.len());
                if *self.names.entry(path.clone()).or_insert(fresh) == fresh {
                    self.files.push(Default::default());
                }
            }
            Made::Written(path, at, bytes) => {
                let at = usize::try_from(*at).unwrap();
                let file = &mut self.file(path).0;
                file.resize(file.len().max(at + bytes.len()), 0);
                file[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Made::FileSynced(path) => {
                let (now, synced) = self.file(path);
                synced.clone_from(now);
            }
            Made::Renamed(from, to) => {
                if let Some(node) = self.names.remove(from) {
                    self.names.insert(to.clone(), node);
                }
            }
            Made::Removed(path) => drop(self.names.remove(path)),
            Made::AllSynced => {
                self.durable_names.clone_from(&self.names);
                for (now, synced) in &mut self.files {
                    synced.clone_from(now);
                }
            }
            Made::FolderSynced(folder) => {
                let inside = |path: &Path| path.parent() == Some(folder);
                self.durable_names.retain(|path, _| !inside(path));
                let here = self.names.iter().filter(|(path, _)| inside(path));
                let here: Vec<_> = here.map(|(path, node)| (path.clone(), *node)).collect();
                self.durable_names.extend(here);
            }
        }
    }

    fn file(&mut self, path: &Path) -> &mut (Vec<u8>, Vec<u8>) {
        match self.names.get(path) {
            Some(Node::File(number)) => &mut self.files[*number],
            other => panic!("{} is {other:?}", path.display()),
        }
    }

    /// Makes real files of what survives, below `target`.
    fn survive(&self, root: &Path, names: Names, target: &Path) {
        let left = match names {
            Names::Lost => &self.durable_names,
            Names::Kept => &self.names,
        };
        // Sorted, a folder comes before what is in it.
        for (path, node) in left {
            let place = target.join(path.strip_prefix(root).unwrap());
            if !place.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match node {
                Node::Folder if place.is_dir() => {}
                Node::Folder => std::fs::create_dir(&place).unwrap(),
                Node::File(number) => {
                    let mut file = std::fs::File::create(&place).unwrap();
                    io::Write::write_all(&mut file, &self.files[*number].1).unwrap();
                }
            }
        }
    }
}

/// A repository in a folder that is watched.
struct Scene {
    folder: tempfile::TempDir,
    recorder: Arc<Recorder>,
    project: ProjectId,
    world: World,
}

async fn open(folder: &Path, recorder: &Arc<Recorder>, project: ProjectId) -> Result<World> {
    let watch = recorder.clone();
    let store =
        LocalStore::open_watched(folder, Arc::new(move |call: FileCall<'_>| watch.tell(call)))?;
    World::open(Arc::new(store), project).await
}

/// The folder of the repository in a folder that is there already.
fn root(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("repository")
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::default());
        let project = ProjectId::random();
        let world = open(&root(&folder), &recorder, project).await.unwrap();
        Self {
            folder,
            recorder,
            project,
            world,
        }
    }

    async fn back_up(&self, info: &BackupInfo, disk: &Arc<MemoryDisk>) -> Result<()> {
        let written = self.world.project.write_disk(job(info.clone(), disk)).await;
        written.map(drop)
    }

    async fn collect(&self) -> Result<()> {
        let progress = Arc::new(Progress::default());
        self.world.project.collect(&[], progress).await.map(drop)
    }

    /// What the repository is after a loss of power, opened anew.
    async fn after_power_cut(
        &self,
        calls: usize,
        names: Names,
    ) -> (tempfile::TempDir, Result<World>) {
        let made = self.recorder.made.lock().unwrap()[..calls].to_vec();
        let target = tempfile::tempdir().unwrap();
        LazyFiles::after(self.folder.path(), &made).survive(
            self.folder.path(),
            names,
            target.path(),
        );
        let store = LocalStore::open(&root(&target));
        let world = match store {
            Ok(store) => World::open(Arc::new(store), self.project).await,
            Err(error) => Err(error),
        };
        (target, world)
    }
}

async fn check(world: &World, kept: &BTreeMap<BackupId, Vec<u8>>, what: &str) {
    for (backup, bytes) in kept {
        let restored = world.restore(*backup).await;
        let (restored, _) = restored.unwrap_or_else(|error| panic!("{what}: {backup}: {error}"));
        assert!(restored == *bytes, "{what}: {backup} is another");
    }
    world.must_be_whole(what).await;
}

/// ClickHouse 111320 said that a backup was made and had synced nothing; kopia
/// 5150 renamed files whose bytes were not on the disk yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_111320_kopia_5150_the_power_fails_after_any_call() {
    let scene = Scene::new().await;
    let disk = Arc::new(MemoryDisk::with(&noise(1, 24 * BLOCK)));
    let mut infos = Vec::new();
    // What is promised from which call on.
    let mut events = vec![(scene.recorder.made(), BTreeMap::new())];
    let mut kept = BTreeMap::new();
    for second in 0..3 {
        let info = scene.world.info(second);
        scene.back_up(&info, &disk).await.unwrap();
        kept.insert(info.id, disk.bytes());
        infos.push(info);
        events.push((scene.recorder.made(), kept.clone()));
        disk.write(0, &noise(second as u64 + 2, 20 * BLOCK));
    }
    // From its begin on a deletion may have been done.
    kept.remove(&infos[0].id);
    events.push((scene.recorder.made(), kept.clone()));
    scene.world.project.delete(infos[0].id).await.unwrap();
    let deleted = scene.recorder.made();
    scene.collect().await.unwrap();
    let calls = scene.recorder.made();
    let opened = events[0].0;
    for cut in opened..=calls {
        for names in [Names::Lost, Names::Kept] {
            let what = format!("the power fails after call {cut} of {calls}, names {names:?}");
            let (_folder, world) = scene.after_power_cut(cut, names).await;
            let world = world.unwrap_or_else(|error| panic!("{what}: {error}"));
            let (_, kept) = events.iter().rfind(|(from, _)| *from <= cut).unwrap();
            check(&world, kept, &what).await;
            if cut >= deleted {
                let gone = world
                    .project
                    .find(infos[0].id)
                    .await
                    .map_err(|error| error.kind());
                assert_eq!(gone.unwrap_err(), Kind::NotFound, "{what}");
            }
        }
    }
}

/// Before anything is promised a loss of power may leave what it likes, as long
/// as a repository can be made of it.
#[tokio::test]
async fn the_power_fails_while_a_repository_is_made() {
    let scene = Scene::new().await;
    for cut in 0..=scene.recorder.made() {
        for names in [Names::Lost, Names::Kept] {
            let (_folder, world) = scene.after_power_cut(cut, names).await;
            let world =
                world.unwrap_or_else(|error| panic!("after call {cut}, {names:?}: {error}"));
            let disk = Arc::new(MemoryDisk::with(&noise(1, 3 * BLOCK)));
            let (backup, _) = world.write(&disk).await.unwrap();
            check(
                &world,
                &BTreeMap::from([(backup, disk.bytes())]),
                "a fresh start",
            )
            .await;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Backup,
    Delete,
    Collect,
}

/// Fails each call of an act once. The act fails and says why, or had no need
/// of the call; done again it succeeds, and then survives a loss of power.
async fn fail_each(act: Act, error: Errno, kind: Kind) {
    let mut failures = 0;
    for call in 0.. {
        let scene = Scene::new().await;
        let disk = Arc::new(MemoryDisk::with(&noise(1, 24 * BLOCK)));
        let (old, next) = (scene.world.info(1), scene.world.info(2));
        scene.back_up(&old, &disk).await.unwrap();
        let mut kept = BTreeMap::new();
        if matches!(act, Act::Collect) {
            scene.world.project.delete(old.id).await.unwrap();
        }
        disk.write(0, &noise(2, 20 * BLOCK));
        let act_once = async || match act {
            Act::Backup => scene.back_up(&next, &disk).await,
            Act::Delete => scene.world.project.delete(old.id).await,
            Act::Collect => scene.collect().await,
        };
        let what = format!("{act:?}, {error} at call {call}");
        if matches!(act, Act::Backup) {
            kept.insert(old.id, noise(1, 24 * BLOCK));
        } else {
            scene.back_up(&next, &disk).await.unwrap();
            kept.insert(next.id, disk.bytes());
        }
        scene.recorder.fail(Some((Failing::At(call), error)));
        let done = act_once().await;
        let calls = scene.recorder.calls();
        scene.recorder.fail(None);
        if let Err(error) = &done {
            assert_eq!(error.kind(), kind, "{what}: {error}");
            failures += 1;
        }
        check(&scene.world, &kept, &what).await;
        match act_once().await {
            Ok(()) => {}
            // The first attempt had got to its receipt.
            Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{what}: {error}"),
        }
        if matches!(act, Act::Backup) {
            kept.insert(next.id, disk.bytes());
        }
        check(&scene.world, &kept, &what).await;
        let (_folder, world) = scene
            .after_power_cut(scene.recorder.made(), Names::Lost)
            .await;
        check(
            &world.unwrap(),
            &kept,
            &format!("{what}, then the power fails"),
        )
        .await;
        if calls <= call {
            assert!(done.is_ok() && failures > 0, "{what}: {done:?}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn borg_a_full_disk_is_never_swallowed() {
    fail_each(Act::Backup, Errno::NOSPC, Kind::Exhausted).await;
    fail_each(Act::Collect, Errno::NOSPC, Kind::Exhausted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_at_any_write_is_reported() {
    fail_each(Act::Backup, Errno::IO, Kind::Corrupt).await;
    fail_each(Act::Delete, Errno::IO, Kind::Corrupt).await;
    fail_each(Act::Collect, Errno::IO, Kind::Corrupt).await;
}

/// What a process finds that one before it made, killed between a name and its
/// durability, it believes; so it must not go any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_left_is_durable_before_it_is_believed() {
    let mut found = 0;
    for call in 0.. {
        let Scene {
            folder,
            recorder,
            project,
            world,
        } = Scene::new().await;
        let disk = Arc::new(MemoryDisk::with(&noise(1, 3 * BLOCK)));
        recorder.fail(Some((Failing::From(call), Errno::IO)));
        let done = world.write(&disk).await;
        let calls = recorder.calls();
        drop(world);
        recorder.fail(None);
        let world = open(&root(&folder), &recorder, project).await.unwrap();
        let listed = world.project.list().await.unwrap();
        let kept = listed
            .iter()
            .map(|backup| (backup.info.id, disk.bytes()))
            .collect();
        found += usize::from(done.is_err() && !listed.is_empty());
        let scene = Scene {
            folder,
            recorder,
            project,
            world,
        };
        let (_folder, world) = scene
            .after_power_cut(scene.recorder.made(), Names::Lost)
            .await;
        check(&world.unwrap(), &kept, &format!("killed at call {call}")).await;
        if calls <= call {
            assert!(found > 0, "at some call there was a receipt and no answer");
            return;
        }
    }
}

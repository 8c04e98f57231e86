//! Any tree, any changes to it, any backups of it: what is restored is what was there.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cairn_testkit::MemoryTree;
use cairn_types::{BackupId, Timestamp};
use proptest::prelude::*;

use crate::common::{World, noise, text};
use crate::trees::{Files, TempFolder, assert_same, folder, job, restore, save};

/// The files of a tree by their paths.
type Model = BTreeMap<String, Vec<u8>>;

/// What is done to a tree and its backups.
#[derive(Debug, Clone)]
enum Step {
    Write(usize, u64, usize),
    /// Other bytes of the same length.
    Edit(usize, u64),
    Remove(usize),
    Wait(i64),
    /// Following the last backup, or reading everything.
    Save(bool),
    Delete(usize),
    Collect,
    Reopen,
}

/// Few paths, so that they are written again, some within others' directories.
const PATHS: [&str; 12] = [
    "a", "b", "d/a", "d/b", "d/e/a", "d/e/f/g", "z/1", "z/2", "z/3", "y/x/w", "y/x/v", "large",
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = || 0..PATHS.len();
    let length = prop_oneof![4 => 0..2000_usize, 1 => 400_000..900_000_usize];
    let step = prop_oneof![
        6 => (path(), any::<u64>(), length).prop_map(|(path, seed, length)| Step::Write(path, seed, length)),
        3 => (path(), any::<u64>()).prop_map(|(path, seed)| Step::Edit(path, seed)),
        2 => path().prop_map(Step::Remove),
        3 => (0..4_i64).prop_map(Step::Wait),
        4 => any::<bool>().prop_map(Step::Save),
        1 => any::<usize>().prop_map(Step::Delete),
        1 => Just(Step::Collect),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// A tree, what it holds, and what each backup of it should.
struct Run {
    world: World,
    tree: MemoryTree,
    now: i64,
    files: Model,
    saved: Vec<(BackupId, Model)>,
}

impl Run {
    async fn step(&mut self, step: &Step) {
        match step {
            Step::Write(path, seed, length) => self.put(PATHS[*path], bytes(*seed, *length)),
            Step::Edit(path, seed) => {
                if let Some(old) = self.files.get(PATHS[*path]) {
                    let length = old.len();
                    self.put(PATHS[*path], bytes(*seed, length));
                }
            }
            Step::Remove(path) => {
                self.tree.remove(PATHS[*path]);
                self.files.remove(PATHS[*path]);
            }
            Step::Wait(seconds) => {
                self.now += seconds;
                self.tree.set_time(self.now);
            }
            Step::Save(follows) => self.save(*follows).await,
            Step::Delete(which) => {
                if !self.saved.is_empty() {
                    let (backup, _) = self.saved.remove(which % self.saved.len());
                    self.world.project.delete(backup).await.unwrap();
                }
            }
            Step::Collect => {
                self.world
                    .project
                    .collect(&[], Default::default())
                    .await
                    .unwrap();
            }
            Step::Reopen => self.world = self.world.reopen().await,
        }
    }

    fn put(&mut self, path: &str, data: Vec<u8>) {
        self.tree.write(path, &data);
        self.files.insert(path.to_owned(), data);
    }

    async fn save(&mut self, follows: bool) {
        let parent = self.saved.last().filter(|_| follows).map(|(id, _)| *id);
        let mut job = job(&self.world, self.tree.clone(), parent);
        job.started_at = Timestamp::from_micros(self.now * 1_000_000);
        let id = job.info.id;
        let written = self.world.project.write_tree(job).await.unwrap();
        assert_eq!(written.summary.files, self.files.len() as u64);
        let size: usize = self.files.values().map(Vec::len).sum();
        assert_eq!(written.summary.size_bytes, size as u64);
        self.saved.push((id, self.files.clone()));
    }

    async fn check(&self) {
        for (backup, files) in &self.saved {
            let target = Files::new();
            restore(&self.world, *backup, &target).await.unwrap();
            let mut found = Model::new();
            gather(target.path(), target.path(), &mut found);
            let same = found == *files;
            assert!(same, "{:?}, {:?}", found.keys(), files.keys());
        }
    }
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    match seed % 3 {
        0 => vec![0; length],
        1 => text(seed, length),
        _ => noise(seed, length),
    }
}

fn gather(root: &Path, folder: &Path, found: &mut Model) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            found.insert(name.to_owned(), std::fs::read(&path).unwrap());
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
}

/// An entry of a random folder.
#[derive(Debug, Clone)]
enum Kind {
    File(u64, usize),
    /// Data in the middle of a hole.
    Sparse(u64, u64),
    Directory,
    Link(String),
    Pipe,
    /// Another name of the entry before it, if that is a file.
    Same,
}

fn entries() -> impl Strategy<Value = Vec<(String, Kind, u16)>> {
    let name = prop_oneof![
        4 => "[a-c]{1,2}",
        1 => "[ -.0-~]{1,30}",
        1 => "\\PC{1,20}",
    ];
    let kind = prop_oneof![
        6 => (any::<u64>(), prop_oneof![0..3000_usize, 500_000..600_000_usize]).prop_map(|(s, l)| Kind::File(s, l)),
        1 => (any::<u64>(), 0..5_000_000_u64).prop_map(|(seed, at)| Kind::Sparse(seed, at)),
        4 => Just(Kind::Directory),
        1 => "[a-z./]{1,40}".prop_map(Kind::Link),
        1 => Just(Kind::Pipe),
        1 => Just(Kind::Same),
    ];
    prop::collection::vec((name, kind, 0..0o1000_u16), 0..60)
}

/// Makes the entries below a folder, each in the directory that was made last or above.
fn make(root: &Path, entries: &[(String, Kind, u16)]) {
    let (mut places, mut last): (Vec<PathBuf>, Option<PathBuf>) = (vec![root.to_owned()], None);
    for (number, (name, kind, mode)) in entries.iter().enumerate() {
        let path = places[number % places.len()].join(name.replace(['/', '\0'], "_"));
        // Two entries may want one name: the first has it.
        if path.symlink_metadata().is_ok() || matches!(name.as_str(), "." | "..") {
            continue;
        }
        match kind {
            Kind::File(seed, length) => crate::trees::put(&path, &bytes(*seed, *length)),
            Kind::Sparse(seed, at) => {
                let file = std::fs::File::create(&path).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &noise(*seed, 5000), *at).unwrap();
                file.set_len(at + 2_000_000).unwrap();
            }
            Kind::Directory => {
                std::fs::create_dir(&path).unwrap();
                places.push(path.clone());
            }
            Kind::Link(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
            Kind::Pipe => {
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
            }
            Kind::Same => {
                if let Some(last) = &last {
                    std::fs::hard_link(last, &path).unwrap();
                }
            }
        }
        match kind {
            Kind::File(..) | Kind::Sparse(..) => last = Some(path.clone()),
            _ => {}
        }
        if matches!(kind, Kind::File(..) | Kind::Directory) {
            // Its owner must be able to fill it and to read it.
            let mode = u32::from(mode | 0o700);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn backups_are_what_the_tree_was(steps in steps()) {
        runtime().block_on(async {
            let mut run = Run {
                world: World::new().await,
                tree: MemoryTree::default(),
                now: 1000,
                files: Model::new(),
                saved: Vec::new(),
            };
            run.tree.set_time(run.now);
            for step in &steps {
                run.step(step).await;
            }
            run.save(true).await;
            run.check().await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_folder_comes_back(first in entries(), more in entries()) {
        runtime().block_on(async {
            let (world, source) = (World::new().await, TempFolder::new());
            make(source.path(), &first);
            let (before, _) = save(&world, folder(&source), None).await.unwrap();
            let copy = TempFolder::new();
            restore(&world, before, &copy).await.unwrap();
            assert_same(source.path(), copy.path());
            make(source.path(), &more);
            let (after, written) = save(&world, folder(&source), Some(before)).await.unwrap();
            assert_eq!(written.summary.problems, 0);
            let target = TempFolder::new();
            restore(&world, after, &target).await.unwrap();
            assert_same(source.path(), target.path());
            let again = TempFolder::new();
            restore(&world, before, &again).await.unwrap();
            assert_same(copy.path(), again.path());
        });
    }
}

//! Random histories of a repository against naive copies of the disks.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_repo::VerifyLevel;
use cairn_testkit::MemoryDisk;
use cairn_types::disk::DiskWriter;
use cairn_types::{BackupId, Progress};
use common::{BLOCK, World, noise, text};
use proptest::prelude::*;

/// Disks that take part.
const DISKS: usize = 3;
/// The largest of them, in blocks.
const BLOCKS: usize = 300;

/// One step of a history. Places and choices are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    /// Writes so many bytes of this sort at a place of a disk.
    Write {
        disk: usize,
        at: usize,
        length: usize,
        bytes: Bytes,
    },
    /// Copies a part of one disk to another, in whole blocks.
    Copy {
        from: usize,
        to: usize,
        block: usize,
        count: usize,
    },
    Backup {
        disk: usize,
    },
    /// Saves two disks at the same time.
    BackupTwo {
        one: usize,
        two: usize,
    },
    Delete {
        backup: usize,
    },
    Collect,
    Reopen,
    Restore {
        backup: usize,
    },
}

#[derive(Debug, Clone)]
enum Bytes {
    Noise(u64),
    Text(u64),
    Zeros,
    Hole,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![
        any::<u64>().prop_map(Bytes::Noise),
        (0..4u64).prop_map(Bytes::Text),
        Just(Bytes::Zeros),
        Just(Bytes::Hole),
    ];
    let length = prop_oneof![1..5000usize, 1..20 * BLOCK];
    let write =
        (0..DISKS, 0..BLOCKS * BLOCK, length, bytes).prop_map(|(disk, at, length, bytes)| {
            Step::Write {
                disk,
                at,
                length,
                bytes,
            }
        });
    let copy = (0..DISKS, 0..DISKS, 0..BLOCKS, 1..40usize).prop_map(|(from, to, block, count)| {
        Step::Copy {
            from,
            to,
            block,
            count,
        }
    });
    prop_oneof![
        5 => write,
        2 => copy,
        4 => (0..DISKS).prop_map(|disk| Step::Backup { disk }),
        2 => (0..DISKS, 0..DISKS).prop_map(|(one, two)| Step::BackupTwo { one, two }),
        3 => any::<usize>().prop_map(|backup| Step::Delete { backup }),
        2 => Just(Step::Collect),
        2 => Just(Step::Reopen),
        2 => any::<usize>().prop_map(|backup| Step::Restore { backup }),
    ]
}

/// The repository, and what it should hold.
struct Model {
    world: World,
    disks: Vec<Arc<MemoryDisk>>,
    backups: BTreeMap<BackupId, Vec<u8>>,
}

impl Model {
    async fn new() -> Self {
        let sizes = [7 * BLOCK, 100 * BLOCK + 513, BLOCKS * BLOCK];
        let disks = sizes.map(|size| Arc::new(MemoryDisk::new(size as u64)));
        Self {
            world: World::new().await,
            disks: disks.into(),
            backups: BTreeMap::new(),
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Write {
                disk,
                at,
                length,
                bytes,
            } => self.write(*disk, *at, *length, bytes),
            Step::Copy {
                from,
                to,
                block,
                count,
            } => self.copy(*from, *to, *block, *count),
            Step::Backup { disk } => {
                let (id, _) = self.world.write(&self.disks[*disk]).await.unwrap();
                self.backups.insert(id, self.disks[*disk].bytes());
            }
            Step::BackupTwo { one, two } => {
                let (one, two) = (&self.disks[*one], &self.disks[*two]);
                let (first, second) = tokio::join!(self.world.write(one), self.world.write(two));
                self.backups.insert(first.unwrap().0, one.bytes());
                self.backups.insert(second.unwrap().0, two.bytes());
            }
            Step::Delete { backup } => {
                if let Some(id) = self.choose(*backup) {
                    self.world.project.delete(id).await.unwrap();
                    self.backups.remove(&id);
                }
            }
            Step::Collect => {
                self.world
                    .project
                    .collect(&[], Arc::new(Progress::default()))
                    .await
                    .unwrap();
            }
            Step::Reopen => self.world = self.world.reopen().await,
            Step::Restore { backup } => {
                if let Some(id) = self.choose(*backup) {
                    self.check(id).await;
                }
            }
        }
    }

    fn write(&self, disk: usize, at: usize, length: usize, bytes: &Bytes) {
        let disk = &self.disks[disk];
        let size = cairn_types::disk::DiskReader::size_bytes(&**disk) as usize;
        let at = at % size;
        let length = length.min(size - at);
        match bytes {
            Bytes::Noise(seed) => disk.write(at as u64, &noise(*seed, length)),
            Bytes::Text(seed) => disk.write(at as u64, &text(*seed, length)),
            Bytes::Zeros => disk.write(at as u64, &vec![0; length]),
            Bytes::Hole => disk.write_zeroes(at as u64, length as u64).unwrap(),
        }
    }

    fn copy(&self, from: usize, to: usize, block: usize, count: usize) {
        let (from, to) = (self.disks[from].bytes(), &self.disks[to]);
        let size = from.len().min(to.bytes().len());
        let start = block * BLOCK % size;
        let end = size.min(start + count * BLOCK);
        to.write(start as u64, &from[start..end]);
    }

    fn choose(&self, backup: usize) -> Option<BackupId> {
        let count = self.backups.len().max(1);
        self.backups.keys().nth(backup % count).copied()
    }

    async fn check(&self, backup: BackupId) {
        let (restored, _) = self.world.restore(backup).await.unwrap();
        assert!(
            restored == self.backups[&backup],
            "{backup} came back as another disk"
        );
    }

    /// All that should be there is, and nothing else; and without backups, nothing at all.
    async fn finish(&mut self) {
        self.world = self.world.reopen().await;
        let listed = self.world.project.list().await.unwrap();
        let mut listed: Vec<_> = listed.iter().map(|listed| listed.info.id).collect();
        listed.sort();
        assert_eq!(listed, self.backups.keys().copied().collect::<Vec<_>>());
        for backup in self.backups.keys() {
            self.check(*backup).await;
        }
        let progress = Arc::new(Progress::default());
        let report = self
            .world
            .project
            .verify(VerifyLevel::Full, progress.clone())
            .await
            .unwrap();
        assert!(report.is_clean(), "{report:?}");
        for backup in self.backups.keys() {
            self.world.project.delete(*backup).await.unwrap();
        }
        let collected = self.world.project.collect(&[], progress).await.unwrap();
        assert_eq!(collected.stored_bytes, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_history_leaves_what_naive_copies_would(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut model = Model::new().await;
            for step in &steps {
                model.take(step).await;
            }
            model.finish().await;
        });
    }
}

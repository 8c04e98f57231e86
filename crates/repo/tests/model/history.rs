//! One history: what is done to the repository, and what it should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_repo::{Project, Repository, Result, VerifyLevel, VerifyReport, WriteDisk, Written};
use cairn_testkit::{Fault, FaultyStore, MappedDisk, MemoryDisk, PausedStore, backup_info};
use cairn_types::disk::{DiskReader, DiskWriter};
use cairn_types::{BackupId, BackupInfo, Kind, ProjectId, ResourceId};
use futures::future::BoxFuture;
use object_store::memory::InMemory;

use crate::common::{BLOCK, master, noise, text};

/// Disks that take part.
pub const DISKS: usize = 3;
/// Their sizes: one has a tree of two levels, and two nodes of the lower one.
const SIZES: [u64; DISKS] = [
    3 * BLOCK as u64,
    11 * BLOCK as u64 + 513,
    300 * BLOCK as u64,
];
/// Disks hold data in two places at most, at their start and about the end of
/// a node's first span: what lies between costs time and shows nothing.
const PLACES: [Range<u64>; 2] = [0..9 * BLOCK as u64, 253 * BLOCK as u64..262 * BLOCK as u64];

/// One step of a history. Places and choices are taken modulo what there is.
#[derive(Debug, Clone)]
pub enum Step {
    Write {
        place: (usize, u64),
        length: u64,
        bytes: Bytes,
    },
    /// Copies a part of one disk to another.
    Copy {
        from: (usize, u64),
        to: (usize, u64),
        length: u64,
    },
    Alone(Act),
    Together(Act, Act),
    /// One is held up at one of its calls to the store until the other has
    /// ended; then it goes on, or the process dies.
    Beside {
        held: Act,
        call: u64,
        other: Act,
        dies: bool,
    },
    /// The process dies at a call, which took effect or not.
    Die {
        act: Act,
        call: u64,
        answered: bool,
    },
    Reopen {
        keeps_index: bool,
    },
}

#[derive(Debug, Clone)]
pub enum Bytes {
    Noise(u64),
    Text(u64),
    Zeros,
    Hole,
}

/// What is done with a repository.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Backup(usize),
    /// The source says what has changed since the last such backup of the disk.
    BackupByMap(usize),
    Restore(usize),
    Delete(usize),
    Collect,
    /// In full, or quickly.
    Verify(bool),
}

/// How often what happened that makes a history more than a line of steps.
pub static COUNTS: Counts = Counts {
    held: AtomicU64::new(0),
    died: AtomicU64::new(0),
    died_beside: AtomicU64::new(0),
    in_doubt: AtomicU64::new(0),
    by_map: AtomicU64::new(0),
    moved: AtomicU64::new(0),
};

pub struct Counts {
    /// An act was held up while another ran to its end.
    held: AtomicU64,
    died: AtomicU64,
    died_beside: AtomicU64,
    /// A backup or a deletion had failed, and yet taken effect.
    in_doubt: AtomicU64,
    by_map: AtomicU64,
    /// A collection wrote packs anew.
    moved: AtomicU64,
}

impl Counts {
    pub fn all(&self) -> [(&'static str, &AtomicU64); 6] {
        [
            ("held up", &self.held),
            ("died", &self.died),
            ("died beside another", &self.died_beside),
            ("failed and took effect", &self.in_doubt),
            ("backups by change map", &self.by_map),
            ("collections that moved chunks", &self.moved),
        ]
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A disk, and what its source knows of it.
struct Disk {
    bytes: Arc<MemoryDisk>,
    resource: ResourceId,
    /// The last backup that the source has kept a point of.
    last: Option<BackupId>,
    changes: Vec<Range<u64>>,
}

/// What a backup must restore to.
type Copy = Arc<MemoryDisk>;

/// An act that has begun.
enum Begun {
    Backup {
        id: BackupId,
        disk: usize,
        bytes: Copy,
        parent: Option<BackupId>,
        by_map: bool,
    },
    Restore {
        id: BackupId,
        bytes: Copy,
        target: Copy,
    },
    Delete(BackupId),
    Collect,
    Verify,
}

enum Answer {
    Written(Written),
    Restored,
    Deleted,
    Collected(u64),
    Verified(VerifyReport),
}

/// What was begun, and how it ended.
type Ended = (Begun, Result<Answer>);

pub struct History {
    paused: PausedStore,
    faulty: FaultyStore,
    /// Where the index lies.
    folder: tempfile::TempDir,
    repository: Option<Repository>,
    project_id: ProjectId,
    disks: Vec<Disk>,
    backups: BTreeMap<BackupId, Copy>,
}

impl History {
    pub async fn new() -> Self {
        let faulty = FaultyStore::new(Arc::new(InMemory::new()));
        let disk = |size: u64| Disk {
            bytes: Arc::new(MemoryDisk::new(size)),
            resource: ResourceId::random(),
            last: None,
            changes: Vec::new(),
        };
        let mut history = Self {
            paused: PausedStore::new(Arc::new(faulty.clone())),
            faulty,
            folder: folder(),
            repository: None,
            project_id: ProjectId::random(),
            disks: SIZES.map(disk).into(),
            backups: BTreeMap::new(),
        };
        history.open(false).await;
        history.save_twice(DISKS - 1).await;
        history
    }

    /// Saves a disk, and again when half of it has changed: once the first of
    /// the two is deleted, a collection moves what is left of its packs.
    async fn save_twice(&mut self, disk: usize) {
        for blocks in [8, 4] {
            let bytes = Bytes::Noise((disk * 10 + blocks) as u64);
            self.write((disk, 0), (blocks * BLOCK) as u64, &bytes);
            let (begun, running) = self.begin(Act::BackupByMap(disk)).await.unwrap();
            let ended = running.await;
            self.settle(vec![(begun, ended)], false).await;
        }
    }

    /// Starts another process; whichever there was is gone.
    async fn open(&mut self, keeps_index: bool) {
        drop(self.repository.take());
        self.faulty.set(None);
        if !keeps_index {
            self.folder = folder();
        }
        let opened = Repository::open_or_create(Arc::new(self.paused.clone()), &master()).await;
        let folder = self.folder.path().join("index");
        self.repository = Some(opened.unwrap().with_index_in(folder));
    }

    async fn project(&self) -> Project {
        let repository = self.repository.as_ref().unwrap();
        repository.project(self.project_id).await.unwrap()
    }

    pub async fn take(&mut self, step: &Step) {
        match step {
            Step::Write {
                place,
                length,
                bytes,
            } => self.write(*place, *length, bytes),
            Step::Copy { from, to, length } => self.copy(*from, *to, *length),
            Step::Alone(act) => {
                if let Some((begun, running)) = self.begin(*act).await {
                    let ended = running.await;
                    self.settle(vec![(begun, ended)], false).await;
                }
            }
            Step::Together(one, two) => {
                let (one, two) = (self.begin(*one).await, self.begin(*two).await);
                if let (Some((one, first)), Some((two, second))) = (one, two) {
                    let (first, second) = tokio::join!(first, second);
                    self.settle(vec![(one, first), (two, second)], false).await;
                }
            }
            Step::Beside {
                held,
                call,
                other,
                dies,
            } => self.beside((*held, *call), *other, *dies).await,
            Step::Die {
                act,
                call,
                answered,
            } => {
                let fault = if *answered {
                    Fault::After
                } else {
                    Fault::Before
                };
                if let Some((begun, running)) = self.begin(*act).await {
                    self.faulty.set(Some(fault(*call)));
                    let ended = running.await;
                    if self.faulty.calls() > *call {
                        count(&COUNTS.died);
                    }
                    self.settle(vec![(begun, ended)], true).await;
                }
            }
            Step::Reopen { keeps_index } => self.open(*keeps_index).await,
        }
        self.check().await;
    }

    /// Where a write goes, and how far it may reach.
    fn range(&self, (disk, at): (usize, u64), length: u64) -> Range<u64> {
        let size = SIZES[disk];
        let place = &PLACES[(at % 2) as usize];
        let place = if place.end > size { &PLACES[0] } else { place };
        let end = place.end.min(size);
        let start = place.start + (at / 2) % (end - place.start);
        start..end.min(start + length)
    }

    fn write(&mut self, place: (usize, u64), length: u64, bytes: &Bytes) {
        let range = self.range(place, length);
        let length = (range.end - range.start) as usize;
        let disk = &mut self.disks[place.0];
        match bytes {
            Bytes::Noise(seed) => disk.bytes.write(range.start, &noise(*seed, length)),
            Bytes::Text(seed) => disk.bytes.write(range.start, &text(*seed, length)),
            Bytes::Zeros => disk.bytes.write(range.start, &vec![0; length]),
            Bytes::Hole => disk.bytes.write_zeroes(range.start, length as u64).unwrap(),
        }
        disk.changes.push(range);
    }

    fn copy(&mut self, from: (usize, u64), to: (usize, u64), length: u64) {
        let source = self.range(from, length);
        let target = self.range(to, source.end - source.start);
        let mut bytes = vec![0; (target.end - target.start) as usize];
        self.disks[from.0]
            .bytes
            .read_at(source.start, &mut bytes)
            .unwrap();
        let disk = &mut self.disks[to.0];
        disk.bytes.write(target.start, &bytes);
        disk.changes.push(target);
    }

    fn choose(&self, backup: usize) -> Option<(BackupId, Copy)> {
        let count = self.backups.len().max(1);
        let (id, bytes) = self.backups.iter().nth(backup % count)?;
        Some((*id, bytes.clone()))
    }

    /// Prepares an act; it runs when it is awaited. Nothing, if there is nothing to do it to.
    async fn begin(&self, act: Act) -> Option<(Begun, BoxFuture<'static, Result<Answer>>)> {
        let project = self.project().await;
        Some(match act {
            Act::Backup(disk) => self.begin_backup(project, disk, false),
            Act::BackupByMap(disk) => self.begin_backup(project, disk, true),
            Act::Restore(backup) => {
                let (id, bytes) = self.choose(backup)?;
                let target = full_of_something_else(bytes.size_bytes());
                let writer = target.clone();
                let running = async move {
                    let restored = project.restore_disk(id, writer, Arc::default()).await;
                    restored.map(|_| Answer::Restored)
                };
                (Begun::Restore { id, bytes, target }, Box::pin(running))
            }
            Act::Delete(backup) => {
                let (id, _) = self.choose(backup)?;
                let running = async move { project.delete(id).await.map(|()| Answer::Deleted) };
                (Begun::Delete(id), Box::pin(running))
            }
            Act::Collect => {
                let promised: Vec<_> = self.backups.keys().copied().collect();
                let running = async move {
                    let collected = project.collect(&promised, Arc::default()).await;
                    collected.map(|done| Answer::Collected(done.packs_rewritten))
                };
                (Begun::Collect, Box::pin(running))
            }
            Act::Verify(full) => {
                let level = if full {
                    VerifyLevel::Full
                } else {
                    VerifyLevel::Quick
                };
                let running = async move {
                    project
                        .verify(level, Arc::default())
                        .await
                        .map(Answer::Verified)
                };
                (Begun::Verify, Box::pin(running))
            }
        })
    }

    fn begin_backup(
        &self,
        project: Project,
        number: usize,
        by_map: bool,
    ) -> (Begun, BoxFuture<'static, Result<Answer>>) {
        let disk = &self.disks[number];
        let info = BackupInfo {
            resource: disk.resource,
            ..backup_info(self.project_id, 1)
        };
        let parent = disk.last.filter(|_| by_map);
        let bytes = Arc::new(disk.bytes.copy());
        let begun = Begun::Backup {
            id: info.id,
            disk: number,
            bytes: bytes.clone(),
            parent,
            by_map,
        };
        let mut reader = MappedDisk::new(bytes, &info.id.to_string());
        if let Some(parent) = parent {
            reader = reader.changed_since(&parent.to_string(), disk.changes.clone());
        }
        let job = WriteDisk {
            info,
            parent,
            reader: Arc::new(reader),
            progress: Arc::default(),
            reread_all: false,
        };
        let running = async move { project.write_disk(job).await.map(Answer::Written) };
        (begun, Box::pin(running))
    }

    /// Holds one act up while another runs.
    async fn beside(&mut self, (held, call): (Act, u64), other: Act, dies: bool) {
        // While it is read for the first time, the index lets nobody else go on.
        let project = self.project().await;
        let warm = project.verify_backups(VerifyLevel::Quick, [], Arc::default());
        warm.await.unwrap();
        let (held, other) = (self.begin(held).await, self.begin(other).await);
        let (Some((held, mut holding)), Some((other, running))) = (held, other) else {
            return;
        };
        self.paused.pause_at(call);
        let early = tokio::select! {
            ended = &mut holding => Some(ended),
            () = self.paused.reached() => None,
        };
        let at_log = self
            .paused
            .calls()
            .last()
            .is_some_and(|call| call.contains("log/"));
        self.paused.pause_at(u64::MAX);
        let mut died = false;
        let (first, second) = match early {
            Some(first) => (first, running.await),
            // Who is held there keeps the other waiting.
            None if at_log || waits_for(&other, &held) => {
                self.paused.release();
                tokio::join!(holding, running)
            }
            None => {
                let second = running.await;
                count(&COUNTS.held);
                if dies {
                    died = true;
                    count(&COUNTS.died_beside);
                    self.faulty.set(Some(Fault::Before(0)));
                }
                self.paused.release();
                (holding.await, second)
            }
        };
        // The other has ended before anything failed.
        self.settle(vec![(other, second), (held, first)], died)
            .await;
    }

    /// Takes over what acts have done. If the process has died of it, the next
    /// one is asked what became of those that had no good end.
    async fn settle(&mut self, ended: Vec<Ended>, died: bool) {
        let mut in_doubt: BTreeMap<BackupId, Option<Copy>> = BTreeMap::new();
        let deleted: Vec<BackupId> = ended
            .iter()
            .filter_map(|(begun, _)| begun.deletes())
            .collect();
        let before: BTreeSet<BackupId> = self.backups.keys().copied().collect();
        for (begun, answer) in ended {
            match (begun, answer) {
                (
                    Begun::Backup {
                        id,
                        disk,
                        bytes,
                        parent,
                        by_map,
                    },
                    Ok(Answer::Written(written)),
                ) => {
                    let sure = parent.is_some_and(|parent| {
                        before.contains(&parent) && !deleted.contains(&parent)
                    });
                    if sure {
                        assert_eq!(written.by_change_map, Ok(()));
                        count(&COUNTS.by_map);
                    }
                    self.backups.insert(id, bytes);
                    if by_map {
                        (self.disks[disk].last, self.disks[disk].changes) = (Some(id), Vec::new());
                    }
                }
                (Begun::Restore { bytes, target, .. }, Ok(_)) => {
                    assert!(
                        target.holds_the_same_as(&bytes),
                        "it came back as another disk"
                    );
                }
                (Begun::Delete(id), Ok(_)) => drop(self.backups.remove(&id)),
                (Begun::Collect, Ok(Answer::Collected(rewritten))) => {
                    if rewritten > 0 {
                        count(&COUNTS.moved);
                    }
                }
                (Begun::Verify, Ok(Answer::Verified(report))) => {
                    assert!(report.is_clean(), "{report:?}");
                    let sure = before.iter().filter(|id| !deleted.contains(id));
                    for id in sure {
                        assert!(report.whole.contains(id), "{report:?} lacks {id}");
                    }
                }
                (Begun::Backup { id, bytes, .. }, Err(_)) if died => {
                    in_doubt.insert(id, Some(bytes));
                }
                (Begun::Delete(id), Err(_)) if died => {
                    in_doubt.entry(id).or_default();
                }
                (Begun::Restore { .. } | Begun::Collect | Begun::Verify, Err(_)) if died => {}
                // It was deleted before it was found.
                (Begun::Restore { id, .. }, Err(error)) if deleted.contains(&id) => {
                    assert_eq!(error.kind(), Kind::NotFound, "{error}");
                }
                // Both delete the same.
                (Begun::Delete(_), Err(error)) if deleted.len() > 1 => {
                    assert_eq!(error.kind(), Kind::Conflict, "{error}");
                }
                (begun, Err(error)) => panic!("{} failed: {error:?}", begun.name()),
                (begun, Ok(_)) => unreachable!("{} has another answer", begun.name()),
            }
        }
        if died {
            self.open(true).await;
            self.resolve(in_doubt).await;
        }
    }

    /// What was neither acknowledged nor refused is there as a whole, or not at all.
    async fn resolve(&mut self, in_doubt: BTreeMap<BackupId, Option<Copy>>) {
        let listed = self.listed().await;
        for (id, written) in in_doubt {
            let was_written = written.is_some();
            if let Some(bytes) = written
                && listed.contains(&id)
            {
                self.backups.insert(id, bytes);
            }
            if !listed.contains(&id) {
                self.backups.remove(&id);
            }
            if was_written == listed.contains(&id) {
                count(&COUNTS.in_doubt);
            }
        }
    }

    async fn listed(&self) -> BTreeSet<BackupId> {
        let listed = self.project().await.list().await.unwrap();
        listed.iter().map(|listed| listed.info.id).collect()
    }

    /// All that should be there is there and as it was, and nothing else.
    async fn check(&self) {
        let expected: BTreeSet<_> = self.backups.keys().copied().collect();
        assert_eq!(self.listed().await, expected);
        let project = self.project().await;
        for (backup, bytes) in &self.backups {
            let target = full_of_something_else(bytes.size_bytes());
            let restored = project.restore_disk(*backup, target.clone(), Arc::default());
            restored.await.unwrap();
            assert!(target.holds_the_same_as(bytes), "{backup} is another disk");
        }
    }

    /// Another process finds all of it, and without backups nothing.
    pub async fn finish(&mut self) {
        self.open(false).await;
        self.check().await;
        let project = self.project().await;
        let report = project.verify(VerifyLevel::Full, Arc::default()).await;
        let report = report.unwrap();
        assert!(report.is_clean(), "{report:?}");
        for backup in self.backups.keys() {
            project.delete(*backup).await.unwrap();
        }
        let collected = project.collect(&[], Arc::default()).await.unwrap();
        assert_eq!(collected.stored_bytes, 0);
    }
}

impl Begun {
    fn deletes(&self) -> Option<BackupId> {
        match self {
            Self::Delete(id) => Some(*id),
            _ => None,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Backup { .. } => "a backup",
            Self::Restore { .. } => "a restore",
            Self::Delete(_) => "a deletion",
            Self::Collect => "a collection",
            Self::Verify => "a verification",
        }
    }
}

/// Whether one act may wait for the other to go on: a backup for the blocks
/// that the other has claimed, a collection for its turn.
const fn waits_for(other: &Begun, held: &Begun) -> bool {
    matches!(
        (other, held),
        (Begun::Backup { .. }, Begun::Backup { .. }) | (Begun::Collect, Begun::Collect)
    )
}

/// A disk to restore to, whose bytes are others than any that are restored
/// where these may have data.
fn full_of_something_else(size: u64) -> Copy {
    let disk = MemoryDisk::new(size);
    for place in PLACES {
        let end = place.end.min(size);
        if place.start < end {
            disk.write(place.start, &vec![0xee; (end - place.start) as usize]);
        }
    }
    Arc::new(disk)
}

/// A folder for an index: in memory where the system has a place for that, since
/// a disk's flushes would be most of the time that the histories take.
fn folder() -> tempfile::TempDir {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.unwrap()
}

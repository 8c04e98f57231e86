//! One history: what is done to the repository, and what it should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_repo::{Project, Repository, Result, VerifyLevel, VerifyReport, WriteDisk, Written};
use cairn_testkit::{Fault, FaultyStore, MappedDisk, MemoryDisk, PausedStore, backup_info};
use cairn_types::disk::{DiskReader, DiskWriter};
use cairn_types::{BackupId, BackupInfo, Kind, ProjectId, ResourceId};
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use tempfile::TempDir;

use crate::common::{BLOCK, index_folder, master, noise, text};

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
    /// One is held up at one of its calls to the store until the others have
    /// ended, one after the other; then it goes on, or the process dies.
    Beside {
        held: Act,
        call: u64,
        others: Vec<Act>,
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
    Backup(NewBackup),
    Restore {
        id: BackupId,
        bytes: Copy,
        target: Copy,
    },
    Delete(BackupId),
    Collect,
    /// With what was there.
    Verify(BTreeSet<BackupId>),
}

/// A backup that is being made.
struct NewBackup {
    id: BackupId,
    disk: usize,
    bytes: Copy,
    /// What it follows by a change map, if that was there.
    parent: Option<BackupId>,
    /// Whether its source keeps a point of it.
    has_point: bool,
}

enum Answer {
    Written(Written),
    Restored,
    Deleted,
    Collected(u64),
    Verified(VerifyReport),
}

/// An act, and what it is to be awaited for.
type Running = (Begun, BoxFuture<'static, Result<Answer>>);

pub struct History {
    paused: PausedStore,
    faulty: FaultyStore,
    /// Where the index lies.
    folder: TempDir,
    repository: Option<Repository>,
    project_id: ProjectId,
    disks: Vec<Disk>,
    backups: BTreeMap<BackupId, Copy>,
    catalogue: Catalogue,
}

/// The backups that a catalogue would say are there: not those that somebody
/// has begun to delete.
#[derive(Clone, Default)]
struct Catalogue(Arc<Mutex<BTreeSet<BackupId>>>);

impl Catalogue {
    fn set(&self, backups: impl IntoIterator<Item = BackupId>) {
        *self.0.lock().unwrap() = backups.into_iter().collect();
    }

    fn remove(&self, backup: BackupId) {
        self.0.lock().unwrap().remove(&backup);
    }

    fn promised(&self) -> Vec<BackupId> {
        self.0.lock().unwrap().iter().copied().collect()
    }
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
            folder: index_folder(),
            repository: None,
            project_id: ProjectId::random(),
            disks: SIZES.map(disk).into(),
            backups: BTreeMap::new(),
            catalogue: Catalogue::default(),
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
            self.settle(begun, running.await, &[]);
        }
    }

    /// Starts another process; whichever there was is gone.
    async fn open(&mut self, keeps_index: bool) {
        drop(self.repository.take());
        self.faulty.set(None);
        if !keeps_index {
            self.folder = index_folder();
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
        self.catalogue.set(self.backups.keys().copied());
        match step {
            Step::Write {
                place,
                length,
                bytes,
            } => self.write(*place, *length, bytes),
            Step::Copy { from, to, length } => self.copy(*from, *to, *length),
            Step::Alone(act) => {
                if let Some((begun, running)) = self.begin(*act).await {
                    let answer = running.await;
                    let deleted = begun.deletes();
                    self.settle(begun, answer, deleted.as_slice());
                }
            }
            Step::Together(one, two) => {
                let (one, two) = (self.begin(*one).await, self.begin(*two).await);
                if let (Some((one, first)), Some((two, second))) = (one, two) {
                    let (first, second) = tokio::join!(first, second);
                    let deleted: Vec<_> = one.deletes().into_iter().chain(two.deletes()).collect();
                    self.settle(one, first, &deleted);
                    self.settle(two, second, &deleted);
                }
            }
            Step::Beside {
                held,
                call,
                others,
                dies,
            } => self.beside((*held, *call), others, *dies).await,
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
                    let answer = running.await;
                    if self.faulty.calls() > *call {
                        count(&COUNTS.died);
                    }
                    let deleted = begun.deletes();
                    self.settle_dead(begun, answer, deleted.as_slice()).await;
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
    async fn begin(&self, act: Act) -> Option<Running> {
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
                let catalogue = self.catalogue.clone();
                let running = async move {
                    catalogue.remove(id);
                    project.delete(id).await.map(|()| Answer::Deleted)
                };
                (Begun::Delete(id), Box::pin(running))
            }
            Act::Collect => {
                let running = collect(project, self.catalogue.clone());
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
                (
                    Begun::Verify(self.backups.keys().copied().collect()),
                    Box::pin(running),
                )
            }
        })
    }

    fn begin_backup(&self, project: Project, number: usize, by_map: bool) -> Running {
        let disk = &self.disks[number];
        let info = BackupInfo {
            resource: disk.resource,
            ..backup_info(self.project_id, 1)
        };
        let parent = disk.last.filter(|_| by_map);
        let bytes = Arc::new(disk.bytes.copy());
        let backup = NewBackup {
            id: info.id,
            disk: number,
            bytes: bytes.clone(),
            parent: parent.filter(|parent| self.backups.contains_key(parent)),
            has_point: by_map,
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
        (Begun::Backup(backup), Box::pin(running))
    }

    /// Holds one act up while others run.
    async fn beside(&mut self, (held, call): (Act, u64), others: &[Act], dies: bool) {
        // While it is read for the first time, the index lets nobody else go on.
        let project = self.project().await;
        let warm = project.verify_backups(VerifyLevel::Quick, [], Arc::default());
        warm.await.unwrap();
        let Some((held, mut holding)) = self.begin(held).await else {
            return;
        };
        self.paused.pause_at(call);
        let mut early = tokio::select! {
            ended = &mut holding => Some(ended),
            () = self.paused.reached() => None,
        };
        let calls = self.paused.calls();
        let at_log = calls.last().is_some_and(|call| call.contains("log/"));
        self.paused.pause_at(u64::MAX);
        let mut deleted: Vec<BackupId> = held.deletes().into_iter().collect();
        for other in others {
            let Some((other, running)) = self.begin(*other).await else {
                continue;
            };
            // Who is held there keeps the other waiting.
            let answer = if early.is_none() && (at_log || other.waits_for(&held)) {
                self.paused.release();
                let (first, answer) = tokio::join!(&mut holding, running);
                early = Some(first);
                answer
            } else {
                running.await
            };
            if early.is_none() {
                count(&COUNTS.held);
            }
            deleted.extend(other.deletes());
            self.settle(other, answer, &deleted);
        }
        if let Some(answer) = early {
            return self.settle(held, answer, &deleted);
        }
        if dies {
            count(&COUNTS.died_beside);
            self.faulty.set(Some(Fault::Before(0)));
        }
        self.paused.release();
        let answer = holding.await;
        if dies {
            self.settle_dead(held, answer, &deleted).await;
        } else {
            self.settle(held, answer, &deleted);
        }
    }

    /// Takes over what an act has done, beside which these backups were deleted.
    fn settle(&mut self, begun: Begun, answer: Result<Answer>, deleted: &[BackupId]) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let expected = match &begun {
                    // It was deleted before it was found.
                    Begun::Restore { id, .. } if deleted.contains(id) => Kind::NotFound,
                    // Both delete the same.
                    Begun::Delete(id) if deleted.iter().filter(|gone| *gone == id).count() > 1 => {
                        Kind::Conflict
                    }
                    _ => panic!("{} failed: {error:?}", begun.name()),
                };
                return assert_eq!(error.kind(), expected, "{error}");
            }
        };
        match (begun, answer) {
            (Begun::Backup(backup), Answer::Written(written)) => {
                let parent = backup.parent.filter(|parent| !deleted.contains(parent));
                if parent.is_some() {
                    assert_eq!(written.by_change_map, Ok(()));
                    count(&COUNTS.by_map);
                }
                self.backups.insert(backup.id, backup.bytes);
                if backup.has_point {
                    let disk = &mut self.disks[backup.disk];
                    (disk.last, disk.changes) = (Some(backup.id), Vec::new());
                }
            }
            (Begun::Restore { bytes, target, .. }, Answer::Restored) => {
                assert!(
                    target.holds_the_same_as(&bytes),
                    "it came back as another disk"
                );
            }
            (Begun::Delete(id), Answer::Deleted) => drop(self.backups.remove(&id)),
            (Begun::Collect, Answer::Collected(0)) => {}
            (Begun::Collect, Answer::Collected(_)) => count(&COUNTS.moved),
            (Begun::Verify(there), Answer::Verified(report)) => {
                assert!(report.is_clean(), "{report:?}");
                for id in there.iter().filter(|id| !deleted.contains(id)) {
                    assert!(report.whole.contains(id), "{report:?} lacks {id}");
                }
            }
            (begun, _) => unreachable!("{} has another answer", begun.name()),
        }
    }

    /// As `settle`, where the process has died: the next one is asked what became of it.
    async fn settle_dead(&mut self, begun: Begun, answer: Result<Answer>, deleted: &[BackupId]) {
        self.open(true).await;
        if answer.is_ok() {
            return self.settle(begun, answer, deleted);
        }
        // What was neither acknowledged nor refused is there as a whole, or not at all.
        let listed = self.listed().await;
        match begun {
            Begun::Backup(backup) if listed.contains(&backup.id) => {
                count(&COUNTS.in_doubt);
                self.backups.insert(backup.id, backup.bytes);
            }
            Begun::Delete(id) if !listed.contains(&id) => {
                count(&COUNTS.in_doubt);
                self.backups.remove(&id);
            }
            _ => {}
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

    /// Whether it may wait for a held one to go on: a backup for the blocks
    /// that the other has claimed, a collection for its turn.
    const fn waits_for(&self, held: &Self) -> bool {
        matches!(
            (self, held),
            (Self::Backup(_), Self::Backup(_)) | (Self::Collect, Self::Collect)
        )
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Backup(_) => "a backup",
            Self::Restore { .. } => "a restore",
            Self::Delete(_) => "a deletion",
            Self::Collect => "a collection",
            Self::Verify(_) => "a verification",
        }
    }
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

/// Collects as a service does: where a backup is missing that was deleted
/// meanwhile, once more.
async fn collect(project: Project, catalogue: Catalogue) -> Result<Answer> {
    let mut promised = catalogue.promised();
    loop {
        let collected = project.collect(&promised, Arc::default()).await;
        let still = catalogue.promised();
        match collected {
            Err(error) if error.kind() == Kind::Corrupt && still != promised => promised = still,
            collected => return collected.map(|done| Answer::Collected(done.packs_rewritten)),
        }
    }
}

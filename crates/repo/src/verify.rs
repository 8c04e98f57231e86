//! Verification: which backups could not be restored.
//!
//! Quick reads every receipt, manifest, tree and pack table, and checks that
//! every block of every backup has its place in a pack of the right length.
//! Full also opens every frame and checks every chunk against its id. Damage is
//! a finding, not an error; an error means that the store could not be asked.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::{BackupId, Kind, Progress};
use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::OwnedRwLockReadGuard;

use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::frame::FrameCoder;
use crate::known::Known;
use crate::manifest::{Child, Content};
use crate::pack::{FrameEntry, PackId, PackSeal};
use crate::project::{Inner, READS};
use crate::read::{ChunkReader, Visit};
use crate::store::{Folder, pack_path};
use crate::workers::{self, Stop, StopOnDrop};

/// Bytes that are read from a pack at a time.
const READ_BYTES: u64 = 4 << 20;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyLevel {
    /// Everything but the contents of blocks.
    Quick,
    /// Every byte.
    Full,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Backups that were looked at.
    pub backups: u64,
    /// Those of them that could not be restored.
    pub hurt: Vec<Hurt>,
    /// Manifests without a receipt: of backups that were interrupted, or whose receipt is lost.
    pub unacknowledged: Vec<BackupId>,
    /// Objects that are damaged, whether or not a backup needs them.
    pub damaged: Vec<String>,
    /// Packs that were looked at.
    pub packs: u64,
    /// Bytes of frames that were read.
    pub read_bytes: u64,
}

impl VerifyReport {
    /// Whether every backup can be restored and no object is damaged.
    pub fn is_clean(&self) -> bool {
        self.hurt.is_empty() && self.damaged.is_empty()
    }
}

/// A backup that could not be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hurt {
    /// The backup.
    pub backup: BackupId,
    /// The first thing that is wrong with it.
    pub problem: String,
}

/// A frame: its pack's place in the index, and its number.
type FrameKey = (u32, u16);

pub(crate) async fn verify(
    project: &Arc<Inner>,
    level: VerifyLevel,
    progress: Arc<Progress>,
) -> Result<VerifyReport> {
    let gate = Arc::new(project.enter().await);
    let stop = Stop::new(progress);
    let _stop = StopOnDrop(stop.clone());
    let known = project.known().await?;
    let mut report = VerifyReport::default();
    project.check_index(&mut report).await?;
    project.check_tables(&mut report).await?;
    let bad = match level {
        VerifyLevel::Quick => HashSet::new(),
        VerifyLevel::Full => {
            let check = Arc::new(FrameCheck::new(gate.clone(), project, &known, stop.clone()));
            check.run(&mut report).await?
        }
    };
    let checks = Backups {
        project: project.clone(),
        known,
        stop,
        gate,
        bad: Arc::new(bad),
    };
    checks.run(&mut report).await?;
    report.damaged.sort();
    report.damaged.dedup();
    checks.stop.complete();
    Ok(report)
}

impl Inner {
    /// Reads every index object; a pack that one names must be there in full.
    async fn check_index(&self, report: &mut VerifyReport) -> Result<()> {
        let sizes = self.pack_sizes().await?;
        let objects = self.objects.list(self.place.project, Folder::Index).await?;
        for found in &objects {
            let listed = note_corrupt(self.read_index(found).await, report)?.unwrap_or_default();
            let lost = listed
                .iter()
                .filter(|pack| sizes.get(&pack.id) != Some(&pack.stored_bytes));
            let lost = lost.map(|pack| pack_path(self.place.project, pack.id).to_string());
            report.damaged.extend(lost);
        }
        Ok(())
    }

    /// Reads the table of every pack.
    async fn check_tables(&self, report: &mut VerifyReport) -> Result<()> {
        let sizes = self.pack_sizes().await?;
        report.packs = sizes.len() as u64;
        let tables = sizes
            .into_iter()
            .map(|(id, size)| self.read_pack_table(id, size));
        let mut reads = stream::iter(tables).buffered(READS);
        while let Some(read) = reads.next().await {
            note_corrupt(read, report)?;
        }
        Ok(())
    }
}

/// Notes an object that is damaged; other failures are errors.
fn note_corrupt<T>(read: Result<T>, report: &mut VerifyReport) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Error::Damaged { object, .. } | Error::Missing { object }) => {
            report.damaged.push(object);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Frames of a pack that are read together.
struct Request {
    pack: u32,
    id: PackId,
    frames: Vec<(u16, FrameEntry)>,
}

/// The check of every frame, on all cores.
struct FrameCheck {
    /// Keeps collection out for as long as any worker lives.
    _gate: Arc<OwnedRwLockReadGuard<()>>,
    project: Arc<Inner>,
    known: Arc<Known>,
    stop: Arc<Stop>,
    handle: Handle,
    requests: Vec<Request>,
    next: AtomicUsize,
    read_bytes: AtomicU64,
    bad: Mutex<HashSet<FrameKey>>,
}

impl FrameCheck {
    fn new(
        gate: Arc<OwnedRwLockReadGuard<()>>,
        project: &Arc<Inner>,
        known: &Arc<Known>,
        stop: Arc<Stop>,
    ) -> Self {
        Self {
            _gate: gate,
            project: project.clone(),
            requests: requests(known),
            known: known.clone(),
            stop,
            handle: Handle::current(),
            next: AtomicUsize::new(0),
            read_bytes: AtomicU64::new(0),
            bad: Mutex::default(),
        }
    }

    async fn run(self: &Arc<Self>, report: &mut VerifyReport) -> Result<HashSet<FrameKey>> {
        let frames = self.requests.iter().flat_map(|request| &request.frames);
        let total = frames.map(|(_, frame)| u64::from(frame.length)).sum();
        self.stop.progress().set_total(total);
        let (this, count) = (self.clone(), workers::count(self.requests.len() as u64));
        workers::run(count, &self.stop, move || this.work()).await?;
        report.read_bytes = self.read_bytes.load(Ordering::Relaxed);
        let bad = std::mem::take(&mut *self.bad.lock().unwrap_or_else(PoisonError::into_inner));
        for (pack, _) in &bad {
            let id = self.known.index(|index| index.pack(*pack).id);
            report
                .damaged
                .push(pack_path(self.project.place.project, id).to_string());
        }
        Ok(bad)
    }

    fn work(&self) -> Result<()> {
        let mut coder = FrameCoder::new();
        while let Some(request) = self.requests.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            self.stop.check()?;
            self.check(request, &mut coder)?;
        }
        Ok(())
    }

    fn check(&self, request: &Request, coder: &mut FrameCoder) -> Result<()> {
        let seal = PackSeal::new(&self.project.keys, &self.project.place, request.id);
        let (first, last) = (
            request.frames[0].1,
            request.frames[request.frames.len() - 1].1,
        );
        let range = first.range().start..last.range().end;
        let path = pack_path(self.project.place.project, request.id);
        let length = range.end - range.start;
        let stored = self.project.objects.get_range(&path, range.clone());
        let stored = match self.handle.block_on(stored) {
            Err(error) if error.kind() != Kind::Corrupt => return Err(error),
            stored => stored.ok(),
        };
        for (number, frame) in &request.frames {
            let start = (frame.range().start - range.start) as usize;
            let bytes = stored
                .as_ref()
                .map(|stored| &stored[start..start + frame.length as usize]);
            let place = (request.pack, *number);
            if !bytes.is_some_and(|bytes| self.frame_is_whole(place, &seal, bytes, coder)) {
                self.bad
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(place);
            }
        }
        self.read_bytes.fetch_add(length, Ordering::Relaxed);
        self.stop.progress().advance(length);
        Ok(())
    }

    /// Whether the frame opens and holds as many chunks as the index says, each
    /// one that the index knows by its id.
    fn frame_is_whole(
        &self,
        (pack, number): FrameKey,
        seal: &PackSeal,
        stored: &[u8],
        coder: &mut FrameCoder,
    ) -> bool {
        let Ok(frame) = coder.open(seal, u32::from(number), stored) else {
            return false;
        };
        let Ok(chunks) = frame.chunks() else {
            return false;
        };
        let ids: Vec<ChunkId> = chunks
            .into_iter()
            .map(|(kind, range)| self.project.keys.hasher.id(kind, &frame.bytes()[range]))
            .collect();
        self.known.index(|index| {
            index.pack(pack).chunks_of(usize::from(number)).len() == ids.len()
                && ids.iter().all(|id| index.get(&id.key()).is_some())
        })
    }
}

/// Every frame of every pack, in reads of a few MiB.
fn requests(known: &Known) -> Vec<Request> {
    known.index(|index| {
        let mut requests = Vec::new();
        for (pack, info) in (0..).zip(index.packs()) {
            let frames = (0..)
                .zip(info.frames.iter().copied())
                .collect::<Vec<(u16, _)>>();
            let mut rest = &frames[..];
            while let Some((_, first)) = rest.first() {
                let limit = first.range().start + READ_BYTES;
                let count = rest
                    .iter()
                    .take_while(|(_, f)| f.range().end <= limit)
                    .count()
                    .max(1);
                let (now, later) = rest.split_at(count);
                requests.push(Request {
                    pack,
                    id: info.id,
                    frames: now.to_vec(),
                });
                rest = later;
            }
        }
        requests
    })
}

/// The check of every backup.
struct Backups {
    project: Arc<Inner>,
    known: Arc<Known>,
    stop: Arc<Stop>,
    gate: Arc<OwnedRwLockReadGuard<()>>,
    bad: Arc<HashSet<FrameKey>>,
}

impl Backups {
    async fn run(&self, report: &mut VerifyReport) -> Result<()> {
        let (receipts, strange) = self.project.backups_in(Folder::Receipts).await?;
        report.damaged.extend(strange);
        let (manifests, strange) = self.project.backups_in(Folder::Manifests).await?;
        report.damaged.extend(strange);
        let mut clean = HashSet::new();
        let mut groups = Vec::new();
        report.backups = receipts.len() as u64;
        for backup in &receipts {
            self.stop.check()?;
            match self.check(*backup, &mut clean).await {
                Ok(children) if children.is_empty() => {}
                Ok(children) => groups.push((*backup, children)),
                // It may have been deleted since it was listed.
                Err(_) if self.project.is_gone(*backup).await? => {}
                Err(error) if error.kind() == Kind::Corrupt => {
                    report.hurt.push(Hurt {
                        backup: *backup,
                        problem: error.to_string(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        for (backup, children) in groups {
            if let Some(problem) = self.group_problem(&children, &report.hurt).await? {
                report.hurt.push(Hurt { backup, problem });
            }
        }
        let receipts: HashSet<BackupId> = receipts.into_iter().collect();
        report.unacknowledged = manifests
            .into_iter()
            .filter(|m| !receipts.contains(m))
            .collect();
        Ok(())
    }

    /// Checks one backup and returns the disks of a group.
    async fn check(&self, backup: BackupId, clean: &mut HashSet<ChunkId>) -> Result<Vec<Child>> {
        let (manifest, _) = self.project.manifest(backup).await?;
        let (geometry, top) = match manifest.content {
            Content::Disk { geometry, top, .. } => (geometry, top),
            Content::Group(children) => return Ok(children),
        };
        let mut reader = ChunkReader::new(self.project.clone(), self.known.clone());
        let gate = self.gate.clone();
        let mut check = TreeCheck {
            known: self.known.clone(),
            bad: self.bad.clone(),
            stop: self.stop.clone(),
            clean: std::mem::take(clean),
            entered: Vec::new(),
        };
        let (result, mut check) = workers::one(move || {
            let _gate = gate;
            Ok((reader.walk(geometry, top, &mut check), check))
        })
        .await?;
        if result.is_ok() {
            check.clean.extend(check.entered);
        }
        *clean = check.clean;
        result.map(|()| Vec::new())
    }

    /// What keeps a group from being restored as a whole.
    async fn group_problem(&self, children: &[Child], hurt: &[Hurt]) -> Result<Option<String>> {
        for child in children {
            if hurt.iter().any(|hurt| hurt.backup == child.backup) {
                return Ok(Some(format!("its disk {} is hurt", child.backup)));
            }
            match self.project.receipt(child.backup).await? {
                Some(receipt) if receipt.root == child.root => {}
                Some(_) => return Ok(Some(format!("its disk {} is another", child.backup))),
                None => return Ok(Some(format!("its disk {} is gone", child.backup))),
            }
        }
        Ok(None)
    }
}

/// The check of one disk's tree.
struct TreeCheck {
    known: Arc<Known>,
    bad: Arc<HashSet<FrameKey>>,
    stop: Arc<Stop>,
    /// Nodes below which all is well, by the backups that were checked before.
    clean: HashSet<ChunkId>,
    /// Nodes of this backup.
    entered: Vec<ChunkId>,
}

impl TreeCheck {
    fn check(&self, id: ChunkId) -> Result<()> {
        let place = self
            .known
            .index(|index| index.get(&id.key()))
            .ok_or(Error::NoChunk { id })?;
        if self.bad.contains(&(place.pack, place.frame)) {
            return Err(Error::DamagedChunk {
                id,
                problem: "its frame is damaged",
            });
        }
        Ok(())
    }
}

impl Visit for TreeCheck {
    fn enter(&mut self, node: ChunkId) -> Result<bool> {
        if self.clean.contains(&node) {
            return Ok(false);
        }
        self.stop.check()?;
        self.check(node)?;
        self.entered.push(node);
        Ok(true)
    }

    fn zeros(&mut self, _: Range<u64>) -> Result<()> {
        Ok(())
    }

    fn block(&mut self, _: u64, id: ChunkId) -> Result<()> {
        self.check(id)
    }
}

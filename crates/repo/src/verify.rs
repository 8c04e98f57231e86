//! Verification: which backups could not be restored.
//!
//! Both levels read every receipt, manifest and tree, read every pack from end
//! to end, and check that it has the hash that it was written with and that every block
//! of every backup has its place in one. Full also opens every frame and checks
//! every chunk against its id. Damage is
//! a finding, not an error; an error means that the store could not be asked.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use cairn_types::{BackupId, Kind, Progress};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use crate::check::WholeCheck;
use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::frames::{FrameCheck, FrameKey};
use crate::known::Known;
use crate::manifest::{Child, Content};
use crate::project::{Inner, Listed, READS};
use crate::read::{ChunkReader, Visit};
use crate::store::{Folder, pack_path, receipt_path};
use crate::workers::{self, Stop, StopOnDrop};

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyLevel {
    /// Whether everything is there and as it was written.
    Quick,
    /// Also whether it opens, and what is in it has the right id.
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

pub(crate) async fn verify(
    project: &Arc<Inner>,
    level: VerifyLevel,
    progress: Arc<Progress>,
) -> Result<VerifyReport> {
    let stop = Stop::new(progress);
    let _stop = StopOnDrop(stop.clone());
    let known = project.known().await?;
    let mut report = VerifyReport::default();
    project.check_index(&mut report).await?;
    project.check_tables(&mut report).await?;
    let bad = match level {
        VerifyLevel::Quick => {
            let packs = project.objects.list(project.place.project, Folder::Packs);
            let check = WholeCheck::new(project.objects.clone(), packs.await?, stop.clone());
            let checked = check.run().await?;
            report.damaged.extend(checked.damaged);
            report.read_bytes = checked.read_bytes;
            HashSet::new()
        }
        VerifyLevel::Full => {
            let check = FrameCheck {
                project: project.clone(),
                known: known.clone(),
                stop: stop.clone(),
            };
            let checked = check.run().await?;
            let paths = checked.bad_packs.into_values();
            let paths = paths.map(|pack| pack_path(project.place.project, pack).to_string());
            report.damaged.extend(paths);
            report.read_bytes = checked.read_bytes;
            checked.bad_frames
        }
    };
    let checks = Backups {
        project: project.clone(),
        known,
        stop,
        bad: Arc::new(bad),
    };
    checks.run(&mut report).await?;
    report.damaged.sort();
    report.damaged.dedup();
    checks.stop.complete();
    Ok(report)
}

/// A backup of which nothing is missing, as far as can be told without reading
/// its blocks.
pub(crate) async fn find_whole(project: &Arc<Inner>, backup: BackupId) -> Result<Listed> {
    let (_, _, _pin) = project.pin(backup).await?;
    let stop = Stop::new(Arc::default());
    let _stop = StopOnDrop(stop.clone());
    let check = Backups {
        project: project.clone(),
        known: project.known().await?,
        stop,
        bad: Arc::default(),
    };
    let children = check.check(backup, &mut HashSet::new()).await?;
    if let Some(problem) = check.group_problem(&children, &[]).await? {
        tracing::warn!(backup.id = %backup, problem, "A group is not whole.");
        let object = receipt_path(project.place.project, backup).to_string();
        return Err(Error::Damaged {
            object,
            problem: "not all of its disks are there",
        });
    }
    project.listed(backup).await
}

impl Inner {
    /// Reads every index object; a pack that one names must be there in full.
    async fn check_index(&self, report: &mut VerifyReport) -> Result<()> {
        let objects = self.objects.list(self.place.project, Folder::Index).await?;
        for found in &objects {
            let read = match self.read_index(found).await {
                // A collection has replaced it since.
                Err(Error::Missing { .. }) => continue,
                read => note_corrupt(read, report)?.unwrap_or_default(),
            };
            let named = read.into_iter().map(|pack| (pack.id, pack.stored_bytes));
            let sizes = named.map(|(id, stored_bytes)| async move {
                let path = pack_path(self.place.project, id);
                let there = match self.objects.size(&path).await {
                    Err(Error::Missing { .. }) => false,
                    size => size? == stored_bytes,
                };
                Ok::<_, Error>((!there).then_some(path))
            });
            let sizes: Vec<_> = sizes.collect();
            let mut lost: Vec<Option<Path>> =
                stream::iter(sizes).buffered(READS).try_collect().await?;
            // What names a pack is removed before the pack is.
            if lost.iter().any(Option::is_some) && !self.objects.exists(&found.path).await? {
                lost.clear();
            }
            let lost = lost.into_iter().flatten().map(|path| path.to_string());
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
            match read {
                // A collection has taken it away since it was listed; where
                // somebody needs it, that is found where it is needed.
                Err(Error::Missing { .. }) => {}
                read => drop(note_corrupt(read, report)?),
            }
        }
        Ok(())
    }
}

/// Notes an object that is damaged; other failures are errors.
fn note_corrupt<T>(read: Result<T>, report: &mut VerifyReport) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() != Kind::Corrupt => Err(error),
        Err(
            Error::Damaged { object, .. } | Error::Missing { object } | Error::Store { object, .. },
        ) => {
            report.damaged.push(object);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The check of every backup.
struct Backups {
    project: Arc<Inner>,
    known: Arc<Known>,
    stop: Arc<Stop>,
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
        let content = match manifest.content {
            Content::Group(children) => return Ok(children),
            content => content,
        };
        let mut reader = ChunkReader::new(self.project.clone(), self.known.clone());
        let mut check = TreeCheck {
            known: self.known.clone(),
            bad: self.bad.clone(),
            stop: self.stop.clone(),
            clean: std::mem::take(clean),
            entered: Vec::new(),
        };
        let (result, mut check) =
            workers::one(move || Ok((reader.walk_content(&content, &mut check), check))).await?;
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
        let index = self.known.index();
        let place = index.get(&id.key())?.ok_or(Error::NoChunk { id })?;
        if self.bad.is_empty() {
            return Ok(());
        }
        let Some(pack) = index.pack(place.pack)? else {
            // It has moved just now, and what moves is whole.
            return Ok(());
        };
        if self
            .bad
            .contains(&(place.pack, pack.frame_of(place.chunk).0))
        {
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

    fn piece(&mut self, id: ChunkId) -> Result<()> {
        self.check(id)
    }
}

//! Verification: which backups could not be restored, and what of them is lost.
//!
//! Both levels read every receipt, manifest and tree, read every pack from end
//! to end, and check that it has the hash that it was written with and that every
//! block of every backup has its place in one. Full also opens every frame and
//! checks every chunk against its id; quick does so only where a pack is not as it was
//! written, so that both name the same when something has changed since. Damage is
//! a finding, not an error; an error means that the store could not be asked. What
//! turns out to be damaged is stored anew by the next backup that has it (`losses.rs`).

mod survey;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cairn_types::{BackupId, Kind, Lost, Progress, VerifyLevel};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use crate::check::WholeCheck;
use crate::error::{Error, Result};
use crate::frame::FrameKey;
use crate::frames::FrameCheck;
use crate::known::Known;
use crate::manifest::{Child, Content};
use crate::pack::PackId;
use crate::project::{Inner, Listed, READS};
use crate::read::ChunkReader;
use crate::store::{Folder, Found, pack_path, receipt_path};
use crate::workers::{self, Stop, StopOnDrop};
use survey::{Loss, Survey};

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Backups that were looked at.
    pub backups: u64,
    /// Those of them that could not be restored.
    pub hurt: Vec<Hurt>,
    /// The others.
    pub whole: Vec<BackupId>,
    /// Manifests without a receipt: of backups that were interrupted, or whose receipt is lost.
    pub unacknowledged: Vec<BackupId>,
    /// Objects that are damaged, whether or not a backup needs them.
    pub damaged: Vec<String>,
    /// Packs among them that are there: repair takes them out of use.
    pub damaged_packs: Vec<PackId>,
    /// Whether a repair is worth its while: some object is lost or damaged that it can
    /// make anew or take out of use.
    pub needs_repair: bool,
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
    /// What of it is lost.
    pub lost: Lost,
}

/// Verifies these backups and the packs that they need, or all of them and
/// every object that is there.
pub(crate) async fn verify(
    project: &Arc<Inner>,
    level: VerifyLevel,
    only: Option<HashSet<BackupId>>,
    progress: Arc<Progress>,
) -> Result<VerifyReport> {
    let stop = Stop::new(progress);
    let _stop = StopOnDrop(stop.clone());
    let known = project.known().await?;
    let mut report = VerifyReport::default();
    let all = only.is_none();
    if all {
        project.check_index(&mut report).await?;
        project.check_tables(&mut report).await?;
        let mut parity = project.damaged_parity(&stop).await?;
        parity.extend(project.lost_parity().await?);
        report.needs_repair |= !parity.is_empty();
        report.damaged.extend(parity);
    }
    let checks = Backups {
        only,
        project: project.clone(),
        known,
        stop,
    };
    let mut found = checks.run(Arc::default()).await?;
    let needed = found.survey.take().map(Survey::into_packs);
    let packs = if all { None } else { needed };
    let bad = checks.check_packs(level, packs, &mut report).await?;
    if !bad.is_empty() {
        let bad = Arc::new(bad);
        project.give_up_frames(&checks.known, &bad).await?;
        // What hangs on the damage is named by a second walk.
        found = checks.run(bad).await?;
    }
    report.backups = found.backups;
    report.hurt = found.hurt;
    report.whole = found.whole;
    report.unacknowledged = found.unacknowledged;
    report.damaged.append(&mut found.strange);
    report.damaged.sort();
    report.damaged.dedup();
    checks.stop.complete();
    Ok(report)
}

/// A backup of which nothing is missing, as far as can be told without reading
/// its blocks.
pub(crate) async fn find_whole(project: &Arc<Inner>, backup: BackupId) -> Result<Listed> {
    let (manifest, _, _pin) = project.pin(backup).await?;
    let stop = Stop::new(Arc::default());
    let _stop = StopOnDrop(stop.clone());
    let disks = manifest.content.children().iter().map(|disk| disk.backup);
    let checks = Backups {
        only: Some(disks.chain([backup]).collect()),
        project: project.clone(),
        known: project.known().await?,
        stop,
    };
    let found = checks.run(Arc::default()).await?;
    if let Some(hurt) = found.hurt.into_iter().next() {
        tracing::warn!(backup.id = %hurt.backup, hurt.problem, "A backup is not whole.");
        let object = receipt_path(project.place.project, hurt.backup).to_string();
        return Err(Error::Damaged {
            object,
            problem: "not all of its content is there",
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
            let before = report.damaged.len();
            report.damaged.extend(lost);
            report.needs_repair |= report.damaged.len() > before;
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

/// The check of backups: of these, or of all.
struct Backups {
    only: Option<HashSet<BackupId>>,
    project: Arc<Inner>,
    known: Arc<Known>,
    stop: Arc<Stop>,
}

/// What a walk through the backups found.
#[derive(Default)]
struct FoundBackups {
    backups: u64,
    hurt: Vec<Hurt>,
    whole: Vec<BackupId>,
    unacknowledged: Vec<BackupId>,
    /// Paths that name no backup.
    strange: Vec<String>,
    survey: Option<Survey>,
}

impl Backups {
    /// Walks through what each backup needs; what lies in a bad frame is lost.
    async fn run(&self, bad: Arc<HashSet<FrameKey>>) -> Result<FoundBackups> {
        let (mut receipts, mut strange) = self.project.backups_in(Folder::Receipts).await?;
        let (manifests, others) = self.project.backups_in(Folder::Manifests).await?;
        strange.extend(others);
        let acknowledged: HashSet<BackupId> = receipts.iter().copied().collect();
        let mut found = FoundBackups::default();
        match &self.only {
            Some(only) => receipts.retain(|backup| only.contains(backup)),
            None => {
                let manifests = manifests.into_iter();
                let unnamed = manifests.filter(|manifest| !acknowledged.contains(manifest));
                found.unacknowledged = unnamed.collect();
                found.strange = strange;
            }
        }
        found.backups = receipts.len() as u64;
        let mut survey = Survey::new(self.known.clone(), self.stop.clone(), bad);
        let mut groups = Vec::new();
        for backup in receipts {
            self.stop.check()?;
            let content = match self.project.manifest(backup).await {
                Ok((manifest, _)) => manifest.content,
                // It may have been deleted since it was listed.
                Err(_) if self.project.is_gone(backup).await? => continue,
                Err(error) if error.kind() == Kind::Corrupt => {
                    found.hurt.push(Hurt {
                        backup,
                        problem: error.to_string(),
                        lost: Lost::everything(),
                    });
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Content::Group(children) = content {
                groups.push((backup, children));
                continue;
            }
            let loss;
            (survey, loss) = self.look(survey, content).await?;
            match loss {
                None => found.whole.push(backup),
                Some(_) if self.project.is_gone(backup).await? => {}
                Some(Loss { problem, lost }) => found.hurt.push(Hurt {
                    backup,
                    problem,
                    lost,
                }),
            }
        }
        let hurt: HashSet<BackupId> = found.hurt.iter().map(|hurt| hurt.backup).collect();
        for (backup, children) in groups {
            match self.group_loss(&children, &hurt).await? {
                None => found.whole.push(backup),
                Some((problem, lost)) => found.hurt.push(Hurt {
                    backup,
                    problem,
                    lost,
                }),
            }
        }
        found.survey = Some(survey);
        Ok(found)
    }

    /// Looks through one backup's content.
    async fn look(&self, mut survey: Survey, content: Content) -> Result<(Survey, Option<Loss>)> {
        let mut reader = ChunkReader::new(self.project.clone(), self.known.clone());
        workers::one(move || {
            let loss = survey.look(&mut reader, &content)?;
            Ok((survey, loss))
        })
        .await
    }

    /// What keeps a group from being restored as a whole.
    async fn group_loss(
        &self,
        children: &[Child],
        hurt: &HashSet<BackupId>,
    ) -> Result<Option<(String, Lost)>> {
        let (mut first, mut lost) = (None, Lost::default());
        for child in children {
            let disk = child.backup;
            let problem = if hurt.contains(&disk) {
                format!("its disk {disk} is hurt")
            } else {
                match self.project.receipt(disk).await {
                    Ok(Some(receipt)) if receipt.root == child.root => continue,
                    Ok(Some(_)) => format!("its disk {disk} is another"),
                    Ok(None) => format!("its disk {disk} is gone"),
                    Err(error) if error.kind() == Kind::Corrupt => {
                        format!("its disk {disk} is hurt")
                    }
                    Err(error) => return Err(error),
                }
            };
            lost.add_disk(disk);
            first.get_or_insert(problem);
        }
        Ok(first.map(|problem| (problem, lost)))
    }

    /// Reads packs, these or all, from end to end, and returns the frames that
    /// do not hold what they should. A quick look opens frames only of packs
    /// that are not as they were written.
    async fn check_packs(
        &self,
        level: VerifyLevel,
        packs: Option<BTreeSet<u32>>,
        report: &mut VerifyReport,
    ) -> Result<HashSet<FrameKey>> {
        let of_all = packs.is_none();
        let known = self.known.clone();
        let packs: Vec<u32> = match packs {
            Some(packs) => packs.into_iter().collect(),
            None => workers::one(move || Ok(known.index().packs())).await?,
        };
        if !of_all {
            report.packs = packs.len() as u64;
        }
        let suspects = match level {
            VerifyLevel::Full => packs,
            VerifyLevel::Quick => self.suspects(packs, of_all, report).await?,
        };
        if suspects.is_empty() {
            return Ok(HashSet::new());
        }
        let check = FrameCheck {
            project: self.project.clone(),
            known: self.known.clone(),
            stop: self.stop.clone(),
        };
        let checked = check.run_on(suspects).await?;
        let project = self.project.place.project;
        for pack in checked.bad_packs.into_values() {
            report.damaged.push(pack_path(project, pack).to_string());
            report.damaged_packs.push(pack);
            report.needs_repair = true;
        }
        report.read_bytes += checked.read_bytes;
        Ok(checked.bad_frames)
    }

    /// Packs that are not there in full, or whose bytes are not those that were written.
    async fn suspects(
        &self,
        packs: Vec<u32>,
        of_all: bool,
        report: &mut VerifyReport,
    ) -> Result<Vec<u32>> {
        let project = self.project.place.project;
        let mut listed = self.project.objects.list(project, Folder::Packs).await?;
        let sizes: HashMap<PackId, u64> = listed.iter().filter_map(named_pack).collect();
        let (mut suspects, mut wanted) = (BTreeSet::new(), HashSet::new());
        for number in packs {
            let Some((pack, stored_bytes)) = self.known.index().pack_size(number) else {
                continue;
            };
            if sizes.get(&pack) == Some(&stored_bytes) {
                wanted.insert(pack);
            } else {
                suspects.insert(number);
            }
        }
        if !of_all {
            listed.retain(|found| named_pack(found).is_some_and(|(id, _)| wanted.contains(&id)));
        }
        let check = WholeCheck::new(self.project.objects.clone(), listed, self.stop.clone());
        let checked = check.run().await?;
        report.read_bytes = checked.read_bytes;
        for path in checked.damaged {
            let name = path.rsplit('/').next().unwrap_or_default();
            let number = PackId::from_hex(name).and_then(|id| self.known.index().number(id));
            suspects.extend(number);
            report.damaged.push(path);
        }
        Ok(suspects.into_iter().collect())
    }
}

/// The pack that an object is, and its size.
fn named_pack(found: &Found) -> Option<(PackId, u64)> {
    Some((PackId::from_hex(&found.name)?, found.size_bytes))
}

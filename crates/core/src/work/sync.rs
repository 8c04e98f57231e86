//! Taking over what another site has: everything new that a hybrid vault
//! mirrors, or one backup that somebody names.
//!
//! The other site may write and collect meanwhile, and its repository may hold
//! anything: what is damaged, unfinished or forged is counted and named, and
//! the rest goes on. Nothing here is deleted because it is gone there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cairn_meta::{Import, Origin, Vault, VaultFilter};
use cairn_repo::{Found, Listed, Repository};
use cairn_types::{BackupId, BackupStatus, Kind, OperationLogId, Progress, ProjectId, VaultId};

use super::import::{Importer, Wanted};
use super::{ImportedBackup, Worker, public_text};
use crate::external::{External, is_hybrid, takes};
use crate::{Error, OperationDetail, Refusal, Result};

/// Whoever is about to finish a backup there does so within this.
const SHORTLY: Duration = Duration::from_secs(1);
/// How often a backup is read before it counts as damaged: a collection there
/// may have moved its data in between.
const ATTEMPTS: usize = 2;

pub(super) struct Sync<'a> {
    importer: Importer<'a>,
}

/// A repository of another site, open.
struct Site<'a> {
    external: &'a External,
    repository: Repository,
}

/// What could not be taken over.
#[derive(Default)]
struct Failures {
    count: u64,
    first: String,
}

impl Failures {
    fn note(&mut self, what: impl std::fmt::Display, why: impl std::fmt::Display) {
        tracing::warn!(%what, %why, "What another site has was not taken over.");
        if self.count == 0 {
            self.first = format!("{what}: {why}");
        }
        self.count += 1;
    }

    /// Notes an error that is the other site's; any other is handed back.
    fn note_theirs(&mut self, what: impl std::fmt::Display, done: Result<()>) -> Result<()> {
        match done {
            Err(Error::Meta(error)) => Err(error.into()),
            Err(error) if is_theirs(error.kind()) => {
                self.note(what, public_text(&error));
                Ok(())
            }
            done => done,
        }
    }

    fn outcome(self) -> Result<()> {
        let Self { count, first } = self;
        match count {
            0 => Ok(()),
            failed => Err(Refusal::SyncIncomplete { failed, first }.into()),
        }
    }
}

/// Whether an error says something of what was read, and nothing of this site.
const fn is_theirs(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Corrupt | Kind::NotFound | Kind::Invalid | Kind::Denied | Kind::Conflict
    )
}

/// Waits for a site, which may take long to answer, unless the work is cancelled.
async fn unless_cancelled<T>(
    progress: &Progress,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = progress.cancelled() => Err(cairn_repo::Error::Cancelled.into()),
        done = work => done,
    }
}

impl<'a> Sync<'a> {
    pub(super) const fn new(worker: &'a Worker, task: OperationLogId, project: ProjectId) -> Self {
        Self {
            importer: Importer {
                worker,
                task,
                project,
            },
        }
    }

    /// Takes over everything that is new at the sites which a vault mirrors.
    ///
    /// Errors: `Invalid` with the first reason, after all else is done, if anything was not.
    pub(super) async fn mirror(&self, vault: VaultId, progress: &Arc<Progress>) -> Result<()> {
        let service = &self.importer.worker.service;
        let mut tx = service.meta().read().await?;
        let vault = tx.vault(self.importer.project, vault).await?;
        let vault = vault.ok_or(Refusal::VaultNotFound)?;
        drop(tx);
        let mut failures = Failures::default();
        let mut done = Ok(());
        for external in service.externals_of(&vault).await? {
            let _turn = unless_cancelled(progress, external.turn()).await?;
            let mirrored = self.mirror_site(external, &vault, &mut failures, progress);
            done = mirrored.await;
            done = failures.note_theirs(external.name(), done);
            if done.is_err() {
                break;
            }
        }
        self.record(failures.count).await?;
        done?;
        failures.outcome()
    }

    async fn mirror_site(
        &self,
        external: &External,
        vault: &Vault,
        failures: &mut Failures,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let mut site = unless_cancelled(progress, Site::open(external, progress)).await?;
        let projects = unless_cancelled(progress, site.projects()).await?;
        for project in &projects {
            let done = self
                .mirror_project(&mut site, *project, vault, failures, progress)
                .await;
            failures.note_theirs(format_args!("project {project}"), done)?;
        }
        let known = self.known(&site).await?;
        let elsewhere = |import: &&Import| {
            import.vault == vault.id && !projects.contains(&import.origin.project)
        };
        self.mark(known.iter().filter(elsewhere), |_| false).await
    }

    async fn mirror_project(
        &self,
        site: &mut Site<'_>,
        project: ProjectId,
        vault: &Vault,
        failures: &mut Failures,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let found = unless_cancelled(progress, site.look(project)).await?;
        let known = self.known(site).await?;
        let known: HashMap<BackupId, Import> = known
            .into_iter()
            .filter(|import| import.origin.project == project)
            .map(|import| (import.origin.backup, import))
            .collect();
        let here = known.values().filter(|import| import.vault == vault.id);
        self.mark(here, |import| found.has(import.origin.backup))
            .await?;
        let whole = |listed: &&Listed| {
            listed.info.parent.is_none() && takes(vault.object_type, listed.info.resource_type)
        };
        for listed in found.listed.iter().filter(whole) {
            let id = listed.info.id;
            if known
                .get(&id)
                .is_some_and(|import| import.task != self.importer.task)
            {
                continue;
            }
            let import = ImportedBackup {
                bucket: String::new(),
                path: String::new(),
                backup: id,
                name: listed.info.name.clone(),
            };
            let place = (project, id, vault.id);
            let done = self.take_over(site, place, &import, false, progress).await;
            failures.note_theirs(format_args!("backup {id}"), done)?;
        }
        self.name_the_rest(site, project, &found, &known, failures, progress)
            .await
    }

    /// Names what is damaged or unfinished and was not taken over before.
    async fn name_the_rest(
        &self,
        site: &Site<'_>,
        project: ProjectId,
        found: &Found,
        known: &HashMap<BackupId, Import>,
        failures: &mut Failures,
        progress: &Progress,
    ) -> Result<()> {
        let disks = found.listed.iter().flat_map(|listed| &listed.children);
        let disks: HashSet<BackupId> = disks.map(|disk| disk.backup).collect();
        for (backup, error) in &found.hurt {
            // A server whose disk is hurt was named as a whole.
            if !disks.contains(backup) && !known.contains_key(backup) {
                failures.note(format_args!("backup {backup}"), error);
            }
        }
        if found.unfinished.is_empty() {
            return Ok(());
        }
        let still = unless_cancelled(progress, async {
            tokio::time::sleep(SHORTLY).await;
            let theirs = site.repository.existing_project(project).await?;
            Ok(theirs.unfinished().await?)
        });
        let still = still.await?;
        for backup in found
            .unfinished
            .iter()
            .filter(|backup| still.contains(backup))
        {
            failures.note(
                format_args!("backup {backup}"),
                "it was begun and never finished",
            );
        }
        Ok(())
    }

    /// Takes one backup over that somebody names.
    ///
    /// Errors: `NotFound` the repository or the backup; `Invalid` no vault is for it.
    pub(super) async fn import(
        &self,
        import: &ImportedBackup,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let service = &self.importer.worker.service;
        let mut tx = service.meta().read().await?;
        let all = VaultFilter::default();
        let mut vaults = tx.all_vaults(self.importer.project, &all).await?;
        drop(tx);
        vaults.retain(|vault| is_hybrid(vault) && vault.status.is_in_service());
        vaults.reverse();
        let mut missing = Refusal::NoBucket {
            bucket: import.bucket.clone(),
        };
        for external in service.externals_for(self.importer.project).await? {
            if !external.is_called(&import.bucket) {
                continue;
            }
            let _turn = unless_cancelled(progress, external.turn()).await?;
            let mut site = unless_cancelled(progress, Site::open(external, progress)).await?;
            let found = unless_cancelled(progress, site.find(import)).await?;
            let Some((project, listed)) = found else {
                missing = Refusal::NothingToImport;
                continue;
            };
            let resource_type = listed.info.resource_type;
            let mut fitting = vaults.iter().filter(|vault| {
                takes(vault.object_type, resource_type) && external.takes_into(vault)
            });
            let vault = fitting.next();
            let vault = vault.ok_or(Refusal::NoHybridVault { resource_type })?;
            let place = (project, listed.info.id, vault.id);
            return self
                .take_over(&mut site, place, import, true, progress)
                .await;
        }
        Err(missing.into())
    }

    /// Takes a backup over. Where something is missing there, the repository is
    /// opened anew: it may have been moved by a collection, or deleted.
    async fn take_over(
        &self,
        site: &mut Site<'_>,
        (project, backup, vault): (ProjectId, BackupId, VaultId),
        import: &ImportedBackup,
        again: bool,
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let theirs = site.repository.existing_project(project).await?;
            let done = match theirs.open_backup(backup).await {
                Ok(opened) => {
                    let wanted = Wanted {
                        theirs: opened,
                        origin: Origin {
                            repository: site.repository.id(),
                            project,
                            backup,
                        },
                        external: site.external.name(),
                        vault,
                        id: import.backup,
                        name: &import.name,
                        again,
                    };
                    self.importer.take_over(&wanted, progress).await
                }
                Err(error) => Err(error.into()),
            };
            drop(theirs);
            match done {
                Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => {
                    *site = unless_cancelled(progress, Site::open(site.external, progress)).await?;
                    let is_there = unless_cancelled(progress, site.has(project, backup));
                    if !is_there.await? && !again {
                        // It was deleted there in the meantime.
                        return Ok(());
                    }
                    if left == 0 {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    /// What the project has taken over from a repository, whichever vault it
    /// went to.
    async fn known(&self, site: &Site<'_>) -> Result<Vec<Import>> {
        let mut tx = self.importer.worker.service.meta().read().await?;
        let repository = site.repository.id();
        Ok(tx.imports_from(self.importer.project, &repository).await?)
    }

    /// Marks backups as gone at their site or as there again.
    async fn mark(
        &self,
        imports: impl Iterator<Item = &Import>,
        is_there: impl Fn(&Import) -> bool,
    ) -> Result<()> {
        let service = &self.importer.worker.service;
        let gone = (service.now(), self.importer.task);
        let changed = imports.filter(|import| import.gone_at.is_none() != is_there(import));
        let changed: Vec<&Import> = changed.collect();
        if changed.is_empty() {
            return Ok(());
        }
        let mut tx = service.meta().begin().await?;
        for import in changed {
            let gone = import.gone_at.is_none().then_some(gone);
            tx.set_gone(import, gone).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Writes what the synchronisation has come to into its operation log.
    async fn record(&self, failed: u64) -> Result<()> {
        let Importer { task, project, .. } = self.importer;
        let mut tx = self.importer.worker.service.meta().begin().await?;
        let mut synced = 0;
        for import in tx.imports_by(task).await? {
            let row = tx.backup(project, import.backup).await?;
            synced += u64::from(row.is_some_and(|row| row.status == BackupStatus::Available));
        }
        let detail = OperationDetail::Sync {
            synced,
            deleted: tx.gone_found_by(task).await?,
            failed,
        };
        let detail = serde_json::to_value(detail).expect("details have string keys only");
        tx.update_operation_detail(task, &detail).await?;
        Ok(tx.commit().await?)
    }

    /// Ends a synchronisation that failed: what it began goes, what it ended stays.
    pub(super) async fn give_up(&self) -> Result<()> {
        self.forget_unfinished().await?;
        let Importer { task, project, .. } = self.importer;
        let mut tx = self.importer.worker.service.meta().read().await?;
        let log = tx.operation_log(project, task).await?;
        drop(tx);
        let detail = log.and_then(|log| serde_json::from_value(log.detail).ok());
        match detail {
            Some(OperationDetail::Sync { failed, .. }) => self.record(failed.max(1)).await,
            _ => Ok(()),
        }
    }

    pub(super) async fn forget_unfinished(&self) -> Result<()> {
        self.importer.forget_unfinished().await
    }
}

impl<'a> Site<'a> {
    async fn open(external: &'a External, progress: &Arc<Progress>) -> Result<Self> {
        let repository = external.open().await?;
        Ok(Self {
            external,
            repository: repository.for_work(progress),
        })
    }

    /// The projects whose backups are taken over.
    async fn projects(&self) -> Result<Vec<ProjectId>> {
        match self.external.projects() {
            [] => Ok(self.repository.projects().await?),
            named => Ok(named.to_vec()),
        }
    }

    async fn look(&self, project: ProjectId) -> Result<Found> {
        let theirs = self.repository.existing_project(project).await?;
        Ok(theirs.look().await?)
    }

    async fn has(&self, project: ProjectId, backup: BackupId) -> Result<bool> {
        let theirs = self.repository.existing_project(project).await?;
        match theirs.find(backup).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            // It is there, whatever it is worth.
            Err(error) if is_theirs(error.kind()) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The backup that a request means, and its project.
    async fn find(&self, import: &ImportedBackup) -> Result<Option<(ProjectId, Listed)>> {
        let parts = || import.path.split('/').filter(|part| !part.is_empty());
        let named = parts().find_map(|part| part.parse::<ProjectId>().ok());
        let backup = parts().find_map(|part| part.parse().ok());
        let backup = backup.unwrap_or(import.backup);
        for project in self.projects().await? {
            if named.is_some_and(|named| named != project) {
                continue;
            }
            let theirs = match self.repository.existing_project(project).await {
                Err(error) if error.kind() == Kind::NotFound => continue,
                theirs => theirs?,
            };
            match theirs.find(backup).await {
                Err(error) if error.kind() == Kind::NotFound => {}
                Ok(listed) if listed.info.parent.is_some() => {
                    let text = "image_path: a disk of a server is taken over with the server";
                    return Err(Refusal::Invalid(text.to_owned()).into());
                }
                listed => return Ok(Some((project, listed?))),
            }
        }
        Ok(None)
    }
}

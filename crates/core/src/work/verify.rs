//! A verification: the repository is asked which backups could be restored, and
//! what it found is kept for each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cairn_meta::{Backup, Tx, Verification};
use cairn_repo::VerifyReport;
use cairn_task::Failure;
use cairn_types::{
    BackupId, Kind, Lost, OperationLogId, Progress, ProjectId, Timestamp, VaultId,
    VerificationStatus, VerifyLevel,
};
use serde_json::{Value, json};

use crate::notification::Event;
use crate::verification::is_restorable;
use crate::{Result, Service, VerifyScope};

/// Backups whose results are written in one transaction: others wait for it.
const RESULTS_AT_ONCE: usize = 256;
/// Backups that are hurt and named in one notification; the others are counted.
const HURT_NAMED_MAX: usize = 20;

pub(super) struct Verify<'a> {
    service: &'a Service,
    task: OperationLogId,
    project: ProjectId,
    level: VerifyLevel,
    scope: VerifyScope,
}

/// What was found of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    status: VerificationStatus,
    problem: Option<String>,
    lost: Option<Lost>,
}

impl Found {
    const fn whole() -> Self {
        Self {
            status: VerificationStatus::Whole,
            problem: None,
            lost: None,
        }
    }

    const fn hurt(problem: String, lost: Lost) -> Self {
        Self {
            status: VerificationStatus::Hurt,
            problem: Some(problem),
            lost: Some(lost),
        }
    }

    fn unchecked(why: &str) -> Self {
        Self {
            status: VerificationStatus::Unchecked,
            problem: Some(why.to_owned()),
            lost: None,
        }
    }
}

impl<'a> Verify<'a> {
    pub(super) const fn new(
        service: &'a Service,
        task: OperationLogId,
        project: ProjectId,
        level: VerifyLevel,
        scope: VerifyScope,
    ) -> Self {
        Self {
            service,
            task,
            project,
            level,
            scope,
        }
    }

    pub(super) async fn run(&self, progress: &Arc<Progress>) -> Result<()> {
        let backups = self.backups().await?;
        let report = self.look(&backups, progress).await?;
        let whole: HashSet<BackupId> = report.whole.iter().copied().collect();
        let hurt: HashMap<BackupId, _> = report.hurt.iter().map(|one| (one.backup, one)).collect();
        let found = |backup: &Backup| match hurt.get(&backup.id) {
            Some(hurt) => Found::hurt(hurt.problem.clone(), hurt.lost.clone()),
            None if whole.contains(&backup.id) => Found::whole(),
            // Its row still says that it is there: nothing has deleted it.
            None => Found::hurt(
                "the repository does not have it".to_owned(),
                Lost::everything(),
            ),
        };
        self.record(&backups, found).await?;
        for object in &report.damaged {
            tracing::error!(project.id = %self.project, object, "an object is damaged");
        }
        if !report.needs_repair {
            return Ok(());
        }
        let mut tx = self.service.meta().begin().await?;
        self.service
            .enqueue_repair(&mut tx, self.project, 0)
            .await?;
        tx.commit().await?;
        self.service.wake_engine();
        Ok(())
    }

    /// The task is given up: the backups could not be looked at.
    pub(super) async fn give_up(&self, why: &Failure) -> Result<()> {
        if why.kind == Kind::Cancelled {
            return Ok(());
        }
        let backups = self.backups().await?;
        self.record(&backups, |_| Found::unchecked(&why.text)).await
    }

    /// The backups that are there to be looked at.
    async fn backups(&self) -> Result<Vec<Backup>> {
        let mut tx = self.service.meta().read().await?;
        let backup = match self.scope {
            VerifyScope::Project => return Ok(tx.restorable_backups(self.project, None).await?),
            VerifyScope::Vault(vault) => {
                return Ok(tx.restorable_backups(self.project, Some(vault)).await?);
            }
            VerifyScope::Backup(backup) => backup,
        };
        let mut backups: Vec<Backup> = Vec::new();
        backups.extend(tx.backup(self.project, backup).await?);
        backups.extend(tx.children_of(&[backup]).await?);
        backups.retain(|backup| is_restorable(backup.status));
        Ok(backups)
    }

    async fn look(&self, backups: &[Backup], progress: &Arc<Progress>) -> Result<VerifyReport> {
        if backups.is_empty() && self.scope != VerifyScope::Project {
            return Ok(VerifyReport::default());
        }
        let repository = self.service.repository();
        let repository = match repository.existing_project(self.project).await {
            Ok(repository) => repository,
            // There is none where nothing was ever backed up; else nothing of it is left.
            Err(error) if error.kind() == Kind::NotFound => return Ok(VerifyReport::default()),
            Err(error) => return Err(error.into()),
        };
        let progress = Arc::clone(progress);
        let report = match self.scope {
            VerifyScope::Project => repository.verify(self.level, progress).await?,
            _ => {
                let ids = backups.iter().map(|backup| backup.id);
                repository.verify_backups(self.level, ids, progress).await?
            }
        };
        Ok(report)
    }

    /// Writes down what was found of each backup that is still there.
    async fn record(&self, backups: &[Backup], found: impl Fn(&Backup) -> Found) -> Result<()> {
        for some in backups.chunks(RESULTS_AT_ONCE) {
            let mut tx = self.service.meta().begin().await?;
            let mut hurt: BTreeMap<VaultId, Vec<&Backup>> = BTreeMap::new();
            for backup in some {
                let now = tx.lock_backup(self.project, backup.id).await?;
                if now.is_some_and(|now| is_restorable(now.status))
                    && self.record_one(&mut tx, backup, found(backup)).await?
                {
                    hurt.entry(backup.vault).or_default().push(backup);
                }
            }
            self.tell_of_hurt(&mut tx, hurt).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Tells of backups that this verification has found to be hurt, vault by vault.
    async fn tell_of_hurt(&self, tx: &mut Tx, hurt: BTreeMap<VaultId, Vec<&Backup>>) -> Result<()> {
        for (vault, backups) in hurt {
            let Some(vault) = tx.vault(self.project, vault).await? else {
                continue;
            };
            let named = backups.iter().take(HURT_NAMED_MAX).map(|backup| {
                json!({ "id": backup.id, "name": backup.name, "resource": backup.resource_name })
            });
            let named: Vec<Value> = named.collect();
            let now = self.service.now();
            let event = Event::hurt(&vault, (&named, backups.len()), self.task, now);
            self.service.tell_of_vault(tx, &vault, &event).await?;
        }
        Ok(())
    }

    /// Writes what was found of one backup; true if it is hurt and this
    /// verification has not said so before, in a step that is repeated.
    async fn record_one(&self, tx: &mut Tx, backup: &Backup, found: Found) -> Result<bool> {
        let is_news = found.status == VerificationStatus::Hurt;
        let known = tx.verification(self.project, backup.id).await?;
        let told = known.as_ref().is_some_and(|known| {
            known.task == self.task && known.status == VerificationStatus::Hurt
        });
        let was_hurt = known
            .as_ref()
            .is_some_and(|known| known.status == VerificationStatus::Hurt);
        let next = self.settle(known, backup.id, found, self.service.now());
        match next.status {
            VerificationStatus::Hurt => tracing::error!(
                project.id = %self.project, backup.id = %backup.id, lost = ?next.lost,
                "a backup cannot be restored as it was: {}", next.problem.as_deref().unwrap_or("")
            ),
            VerificationStatus::Whole if was_hurt => tracing::info!(
                project.id = %self.project, backup.id = %backup.id,
                "a backup that was hurt is whole again"
            ),
            _ => {}
        }
        tx.put_verification(&next).await?;
        Ok(is_news && !told)
    }

    /// What is known of a backup after a look. What a full look found to be
    /// hurt is made whole by no quick look, and whoever could not look at a
    /// backup that is hurt knows nothing better.
    fn settle(
        &self,
        known: Option<Verification>,
        backup: BackupId,
        found: Found,
        now: Timestamp,
    ) -> Verification {
        let looked = found.status != VerificationStatus::Unchecked;
        let full = looked && self.level == VerifyLevel::Full;
        let at = |looked: bool, before: Option<Timestamp>| if looked { Some(now) } else { before };
        let quick_at = at(looked, known.as_ref().and_then(|known| known.quick_at));
        let full_at = at(full, known.as_ref().and_then(|known| known.full_at));
        let stays_hurt = |known: &Verification| {
            known.status == VerificationStatus::Hurt
                && match found.status {
                    VerificationStatus::Whole => {
                        known.level == VerifyLevel::Full && self.level == VerifyLevel::Quick
                    }
                    status => status == VerificationStatus::Unchecked,
                }
        };
        match known {
            Some(known) if stays_hurt(&known) => Verification {
                task: self.task,
                quick_at,
                full_at,
                ..known
            },
            _ => Verification {
                backup,
                project: self.project,
                task: self.task,
                level: self.level,
                status: found.status,
                problem: found.problem,
                lost: found.lost,
                verified_at: now,
                quick_at,
                full_at,
            },
        }
    }
}

//! The records of a backup that is being made: they go from state to state while
//! work moves its bytes, and what its end brings with it is settled in the same transaction.

use cairn_meta::{Backup, Tx};
use cairn_types::{BackupId, BackupStep, ProjectId};

use crate::{Refusal, Result, Service};

/// What a backup came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    /// The size of the resource, in bytes.
    pub size_bytes: u64,
    /// The data in it, holes left out.
    pub data_bytes: u64,
    /// What it counts against its vault.
    pub used_bytes: u64,
    /// The Merkle root of its content, in hexadecimal.
    pub root: String,
}

impl Service {
    /// Work on a backup begins.
    pub async fn begin_protect(&self, project: ProjectId, backup: BackupId) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        let step = BackupStep::StartProtect;
        self.step_backup(&mut tx, (project, backup), step, |_| {})
            .await?;
        Ok(tx.commit().await?)
    }

    /// A backup is whole and durable: from now on it is available, and those end that
    /// its policy keeps no longer.
    pub async fn finish_protect(
        &self,
        project: ProjectId,
        backup: BackupId,
        protected: &Protected,
    ) -> Result<()> {
        let now = self.now();
        let mut tx = self.meta().begin().await?;
        let finish = |row: &mut Backup| {
            if row.id == backup {
                row.size_bytes = protected.size_bytes;
                row.data_bytes = protected.data_bytes;
                row.used_bytes = protected.used_bytes;
                row.root = Some(protected.root.clone());
            }
            row.protected_at = Some(now);
        };
        let step = BackupStep::FinishProtect;
        let finished = self
            .step_backup(&mut tx, (project, backup), step, finish)
            .await?;
        self.settle_retention(&mut tx, &finished).await?;
        Ok(tx.commit().await?)
    }

    /// A backup could not be made.
    pub async fn fail_protect(
        &self,
        project: ProjectId,
        backup: BackupId,
        why: &str,
    ) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        let fail = |row: &mut Backup| {
            row.used_bytes = 0;
            row.root = None;
            row.error_message = Some(why.to_owned());
        };
        let step = BackupStep::FailProtect;
        let failed = self
            .step_backup(&mut tx, (project, backup), step, fail)
            .await?;
        self.settle_failed(&mut tx, &failed).await?;
        Ok(tx.commit().await?)
    }

    /// Takes a backup and its disks' a step on; the backup as it is then.
    async fn step_backup(
        &self,
        tx: &mut Tx,
        (project, backup): (ProjectId, BackupId),
        step: BackupStep,
        change: impl Fn(&mut Backup),
    ) -> Result<Backup> {
        let now = self.now();
        let found = tx.lock_backup(project, backup).await?;
        let mut whole = found.ok_or(Refusal::BackupNotFound)?;
        let mut disks = tx.children_of(&[backup]).await?;
        for row in std::iter::once(&mut whole).chain(&mut disks) {
            tx.step_backup(row, step, now).await?;
            change(row);
            tx.update_backup(row).await?;
        }
        Ok(whole)
    }
}

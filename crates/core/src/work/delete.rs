//! Deleting backups, one or all of a vault's or a resource's. The repository's
//! part goes first: a row without bytes can be deleted again, bytes without a
//! row would be found by nobody but the collector.

use std::sync::Arc;

use cairn_meta::Backup;
use cairn_types::{
    BackupId, BackupStatus, OperationLogId, Progress, ProjectId, ResourceId, VaultId, VaultStatus,
};

use crate::{OperationDetail, Result, Service};

/// Deletes a backup; done already is done.
pub(super) async fn backup(service: &Service, project: ProjectId, id: BackupId) -> Result<()> {
    let mut tx = service.meta().begin().await?;
    let Some(mut backup) = tx.lock_backup(project, id).await? else {
        return Ok(());
    };
    backup.advance(BackupStatus::Deleting, service.now())?;
    tx.update_backup(&backup).await?;
    tx.commit().await?;
    delete(service, &backup).await
}

/// Removes a backup's bytes and its children's from the repository, then its row.
async fn delete(service: &Service, backup: &Backup) -> Result<()> {
    let mut tx = service.meta().read().await?;
    let children = tx.children_of(&[backup.id]).await?;
    drop(tx);
    let repository = service.repository().project(backup.project).await?;
    repository.delete(backup.id).await?;
    for child in &children {
        repository.delete(child.id).await?;
    }
    let mut tx = service.meta().begin().await?;
    tx.remove_backup(backup).await?;
    service
        .enqueue_collection(&mut tx, backup.project, 0)
        .await?;
    tx.commit().await?;
    service.wake_engine();
    Ok(())
}

/// Leaves a backup that could not be deleted as one that can be deleted again.
pub(super) async fn give_up_backup(
    service: &Service,
    project: ProjectId,
    id: BackupId,
    why: &str,
) -> Result<()> {
    let mut tx = service.meta().begin().await?;
    if let Some(mut backup) = tx.lock_backup(project, id).await? {
        backup.advance(BackupStatus::Error, service.now())?;
        backup.error_message = Some(why.to_owned());
        tx.update_backup(&backup).await?;
        tx.commit().await?;
    }
    Ok(())
}

pub(super) async fn backups_of_vault(
    service: &Service,
    log: OperationLogId,
    project: ProjectId,
    vault: VaultId,
    progress: &Arc<Progress>,
) -> Result<()> {
    let mut tx = service.meta().read().await?;
    let backups = tx.backups_of_vault(vault, None).await?;
    drop(tx);
    progress.set_total(backups.len() as u64);
    for backup in &backups {
        self::backup(service, project, backup.id).await?;
        progress.advance(1);
    }
    let detail = OperationDetail::VaultDelete {
        failed: 0,
        total: backups.len() as u64,
    };
    let detail = serde_json::to_value(&detail).expect("details have string keys only");
    if !backups.is_empty() {
        let mut tx = service.meta().begin().await?;
        tx.update_operation_detail(log, &detail).await?;
        tx.commit().await?;
    }
    Ok(())
}

pub(super) async fn vault(service: &Service, project: ProjectId, vault: VaultId) -> Result<()> {
    let mut tx = service.meta().begin().await?;
    if tx.lock_vault(project, vault).await?.is_some() {
        tx.remove_vault(vault).await?;
        tx.commit().await?;
    }
    Ok(())
}

pub(super) async fn give_up_vault(
    service: &Service,
    project: ProjectId,
    vault: VaultId,
) -> Result<()> {
    let mut tx = service.meta().begin().await?;
    if let Some(mut vault) = tx.lock_vault(project, vault).await? {
        vault.status = VaultStatus::Error;
        vault.updated_at = service.now();
        tx.update_vault(&vault).await?;
        tx.commit().await?;
    }
    Ok(())
}

pub(super) async fn backups_of(
    service: &Service,
    project: ProjectId,
    vault: VaultId,
    resources: &[ResourceId],
    progress: &Arc<Progress>,
) -> Result<()> {
    let mut tx = service.meta().read().await?;
    let mut backups = Vec::new();
    for resource in resources {
        backups.extend(tx.backups_of_vault(vault, Some(*resource)).await?);
    }
    drop(tx);
    progress.set_total(backups.len() as u64);
    for backup in &backups {
        self::backup(service, project, backup.id).await?;
        progress.advance(1);
    }
    Ok(())
}

pub(super) async fn unbind(
    service: &Service,
    vault: VaultId,
    resources: &[ResourceId],
) -> Result<()> {
    let mut tx = service.meta().begin().await?;
    for resource in resources {
        tx.unbind_resource(vault, *resource).await?;
    }
    Ok(tx.commit().await?)
}

/// Leaves the resources bound, as they were.
pub(super) async fn give_up_removal(
    service: &Service,
    vault: VaultId,
    resources: &[ResourceId],
) -> Result<()> {
    let mut tx = service.meta().begin().await?;
    for mut resource in tx.resources_of(vault).await? {
        if resources.contains(&resource.id) {
            resource.removing = false;
            tx.update_binding(&resource).await?;
        }
    }
    Ok(tx.commit().await?)
}

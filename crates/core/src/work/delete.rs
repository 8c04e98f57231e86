//! Deleting backups, one or all of a vault's or a resource's. The repository's
//! part goes first: a row without bytes can be deleted again, bytes without a
//! row would be found by nobody but the collector.

use cairn_meta::Backup;
use cairn_types::{
    BackupId, BackupStep, Kind, Progress, ProjectId, ResourceId, VaultId, VaultStep,
};

use crate::{Error, Result, Service};

/// Deletes a backup; done already is done.
pub(super) async fn backup(service: &Service, project: ProjectId, id: BackupId) -> Result<()> {
    let mut tx = service.meta().begin().await?;
    let Some(mut backup) = tx.lock_backup(project, id).await? else {
        return Ok(());
    };
    tx.step_backup(&mut backup, BackupStep::StartDelete, service.now())
        .await?;
    tx.commit().await?;
    delete(service, &backup).await
}

/// Removes a backup's bytes and its children's from the repository, then its row.
pub(super) async fn delete(service: &Service, backup: &Backup) -> Result<()> {
    let mut tx = service.meta().read().await?;
    let children = tx.children_of(&[backup.id]).await?;
    drop(tx);
    let repository = service.repository().project(backup.project).await?;
    repository.delete(backup.id).await?;
    for child in &children {
        repository.delete(child.id).await?;
    }
    let mut tx = service.meta().begin().await?;
    let vault = tx.lock_vault(backup.project, backup.vault).await?;
    tx.remove_backup(backup).await?;
    if let Some(vault) = vault {
        service.mark_fill(&mut tx, &vault).await?;
    }
    service
        .enqueue_collection(&mut tx, backup.project, 0)
        .await?;
    tx.commit().await?;
    service.wake_engine();
    Ok(())
}

/// Leaves a backup that is not deleted: as it was, if somebody had the deletion ended before any
/// of it was gone, or as one that can be deleted again.
pub(super) async fn give_up_backup(
    service: &Service,
    (project, id): (ProjectId, BackupId),
    cancelled: bool,
    why: &str,
) -> Result<()> {
    let whole = cancelled && is_whole(service, project, id).await?;
    let mut tx = service.meta().begin().await?;
    if let Some(mut backup) = tx.lock_backup(project, id).await? {
        if whole && backup.protected_at.is_some() {
            let (step, now) = (BackupStep::CancelDelete, service.now());
            tx.step_backup(&mut backup, step, now).await?;
            return Ok(tx.commit().await?);
        }
        tx.step_backup(&mut backup, BackupStep::FailDelete, service.now())
            .await?;
        backup.error_message = Some(why.to_owned());
        tx.update_backup(&backup).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Whether the repository has all of a backup: its receipt goes before anything else does.
async fn is_whole(service: &Service, project: ProjectId, id: BackupId) -> Result<bool> {
    let repository = service.repository().project(project).await?;
    match repository.find(id).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Corrupt) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Deletes all backups of a vault.
pub(super) async fn backups_of_vault(
    service: &Service,
    project: ProjectId,
    vault: VaultId,
    progress: &Progress,
) -> Result<()> {
    let mut tx = service.meta().read().await?;
    let backups = tx.backups_of_vault(vault, None).await?;
    drop(tx);
    each(service, project, &backups, progress).await
}

async fn each(
    service: &Service,
    project: ProjectId,
    backups: &[Backup],
    progress: &Progress,
) -> Result<()> {
    progress.add_total(backups.len() as u64);
    for found in backups {
        if progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        backup(service, project, found.id).await?;
        progress.advance(1);
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
    cancelled: bool,
) -> Result<()> {
    let step = match cancelled {
        true => VaultStep::CancelDelete,
        false => VaultStep::FailDelete,
    };
    let mut tx = service.meta().begin().await?;
    if let Some(mut vault) = tx.lock_vault(project, vault).await? {
        tx.step_vault(&mut vault, step, service.now()).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Deletes the backups that some resources have in a vault.
pub(super) async fn backups_of(
    service: &Service,
    project: ProjectId,
    vault: VaultId,
    resources: &[ResourceId],
    progress: &Progress,
) -> Result<()> {
    let mut tx = service.meta().read().await?;
    let mut backups = Vec::new();
    for resource in resources {
        backups.extend(tx.backups_of_vault(vault, Some(*resource)).await?);
    }
    drop(tx);
    each(service, project, &backups, progress).await
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

//! Sharing: a backup is shown to other projects, its members, which take it
//! into a vault of theirs or turn it down. The bytes stay where they are, and
//! count in their owner's vault alone: what a member took can be restored to
//! its own disks (`restore.rs`), for as long as the owner keeps it and shares it.

use cairn_meta::{Backup, Page, Share, ShareFilter, ShareSort, Tx};
use cairn_types::{
    BYTES_PER_GB, BackupId, BackupStatus, MemberStatus, ProjectId, ResourceType, ShareId, VaultId,
    VaultStatus,
};

use crate::{Caller, Refusal, Result, Service};

/// Which members of a backup a list shows, in which order.
#[derive(Debug, Clone, Default)]
pub struct MemberQuery {
    /// Which.
    pub filter: ShareFilter,
    /// By which keys; newest first, if empty.
    pub sort: Vec<ShareSort>,
    /// Which page.
    pub page: Page,
}

impl Service {
    /// Shares a backup with projects, all of them or none.
    ///
    /// Errors: `NotFound` backup; `Conflict` it is not available; `Invalid` for
    /// what cannot be shared, for projects that do not exist or have it already;
    /// `Exhausted` too many.
    /// CBR: `AddMember`, `POST /v3/{project_id}/backups/{backup_id}/members`.
    pub async fn add_members(
        &self,
        caller: &Caller,
        id: BackupId,
        members: &[String],
    ) -> Result<Vec<Share>> {
        let mut tx = self.meta().begin().await?;
        let backup = match tx.lock_backup(caller.project, id).await? {
            Some(backup) => backup,
            None if tx.visible_backup(caller.project, id).await?.is_some() => {
                return Err(Refusal::SharedOn.into());
            }
            None => return Err(Refusal::BackupNotFound.into()),
        };
        refuse_sharing(&mut tx, &backup).await?;
        let everything = Page {
            limit: 1,
            ..Page::default()
        };
        let (_, mut count) = tx
            .shares(id, &ShareFilter::default(), &[], &everything)
            .await?;
        let limit = self.quotas().members_per_backup as u64;
        let mut shares = Vec::with_capacity(members.len());
        for text in members {
            let member = existing_project(&mut tx, caller, text).await?;
            if tx.share(id, member).await?.is_some() {
                return Err(Refusal::AlreadyShared { member }.into());
            }
            count += 1;
            if count > limit {
                return Err(Refusal::TooManyMembers.into());
            }
            let share = Share {
                id: ShareId::random(),
                backup: id,
                member,
                status: MemberStatus::Pending,
                vault: None,
                created_at: self.now(),
                updated_at: None,
            };
            tx.insert_share(&share).await?;
            shares.push(share);
        }
        tx.commit().await?;
        Ok(shares)
    }

    /// A page of a backup's members, and how many match in all. Its owner sees
    /// all of them, a member itself alone.
    ///
    /// Errors: `NotFound` backup.
    /// CBR: `ShowMembersDetail`, `GET /v3/{project_id}/backups/{backup_id}/members`.
    pub async fn members(
        &self,
        caller: &Caller,
        id: BackupId,
        query: &MemberQuery,
    ) -> Result<(Vec<Share>, u64)> {
        let mut tx = self.meta().read().await?;
        let backup = tx.visible_backup(caller.project, id).await?;
        let backup = backup.ok_or(Refusal::BackupNotFound)?;
        let mut filter = query.filter.clone();
        if backup.project != caller.project {
            if filter.member.is_some_and(|member| member != caller.project) {
                return Ok((Vec::new(), 0));
            }
            filter.member = Some(caller.project);
        }
        Ok(tx.shares(id, &filter, &query.sort, &query.page).await?)
    }

    /// One member of a backup, for its owner and for itself.
    ///
    /// Errors: `NotFound` backup or member.
    /// CBR: `ShowMemberDetail`, `GET /v3/{project_id}/backups/{backup_id}/members/{member_id}`.
    pub async fn member(&self, caller: &Caller, id: BackupId, member: ProjectId) -> Result<Share> {
        let mut tx = self.meta().read().await?;
        let backup = tx.visible_backup(caller.project, id).await?;
        let backup = backup.ok_or(Refusal::BackupNotFound)?;
        if backup.project != caller.project && member != caller.project {
            return Err(Refusal::MemberNotFound.into());
        }
        let share = tx.share(id, member).await?;
        Ok(share.ok_or(Refusal::MemberNotFound)?)
    }

    /// Ends the sharing of a backup with a project.
    ///
    /// Errors: `NotFound` backup (for a member too: only its owner may) or
    /// member; `Conflict` while the member restores it.
    /// CBR: `DeleteMember`, `DELETE /v3/{project_id}/backups/{backup_id}/members/{member_id}`.
    pub async fn remove_member(
        &self,
        caller: &Caller,
        id: BackupId,
        member: ProjectId,
    ) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        tx.lock_backup(caller.project, id)
            .await?
            .ok_or(Refusal::BackupNotFound)?;
        if tx.is_restored_by(id, member).await? {
            return Err(Refusal::BackupInUse { id }.into());
        }
        if !tx.remove_share(id, member).await? {
            return Err(Refusal::MemberNotFound.into());
        }
        Ok(tx.commit().await?)
    }

    /// Takes a shared backup into a vault of the caller's, or turns it down.
    ///
    /// Errors: `NotFound` backup, member or vault; `Conflict` the backup is not
    /// available, a restore of it runs, or the vault's state or room does not
    /// allow it; `Invalid` for another decision and for a vault of another type.
    /// CBR: `UpdateMemberStatus`, `PUT /v3/{project_id}/backups/{backup_id}/members/{member_id}`.
    pub async fn decide_on_share(
        &self,
        caller: &Caller,
        id: BackupId,
        member: ProjectId,
        decision: Option<MemberStatus>,
        vault: Option<VaultId>,
    ) -> Result<Share> {
        let mut tx = self.meta().begin().await?;
        let backup = tx.visible_backup(caller.project, id).await?;
        let backup = backup.ok_or(Refusal::BackupNotFound)?;
        tx.lock_backup(backup.project, id).await?;
        let share = match member == caller.project {
            true => tx.share(id, member).await?,
            false => None,
        };
        let mut share = share.ok_or(Refusal::MemberNotFound)?;
        if tx.is_restored_by(id, member).await? {
            return Err(Refusal::BackupInUse { id }.into());
        }
        share.vault = match (decision, vault) {
            (Some(MemberStatus::Accepted), Some(vault)) => {
                refuse_vault(&mut tx, caller, &backup, vault).await?;
                Some(vault)
            }
            (Some(MemberStatus::Rejected), _) => None,
            _ => return Err(Refusal::NoDecision.into()),
        };
        share.status = decision.ok_or(Refusal::NoDecision)?;
        share.updated_at = Some(self.now());
        tx.update_share(&share).await?;
        tx.commit().await?;
        Ok(share)
    }
}

/// What of a backup speaks against sharing it.
async fn refuse_sharing(tx: &mut Tx, backup: &Backup) -> Result<()> {
    if backup.parent.is_some() {
        return Err(Refusal::PartNotShared.into());
    }
    let kind = backup.resource_type;
    if !matches!(kind, ResourceType::Server | ResourceType::Volume) {
        return Err(Refusal::TypeNotShared.into());
    }
    match backup.status {
        BackupStatus::Available => {}
        BackupStatus::WaitingRestore | BackupStatus::Restoring => {
            return Err(Refusal::BackupInUse { id: backup.id }.into());
        }
        _ => return Err(Refusal::ShareNotAvailable.into()),
    }
    let vault = tx.vault(backup.project, backup.vault).await?;
    let vault = vault.ok_or(Refusal::VaultNotFound)?;
    match vault.status {
        VaultStatus::Available | VaultStatus::Lock => Ok(()),
        _ => Err(Refusal::ShareVaultState.into()),
    }
}

/// The project that a text names, if there is one and it is not the caller's own.
async fn existing_project(tx: &mut Tx, caller: &Caller, text: &str) -> Result<ProjectId> {
    let invalid = || Refusal::InvalidMember {
        member: text.to_owned(),
    };
    let member: ProjectId = text.parse().map_err(|_| invalid())?;
    match tx.project(member).await? {
        Some(_) if member != caller.project => Ok(member),
        _ => Err(invalid().into()),
    }
}

/// What of a vault speaks against taking a shared backup into it.
async fn refuse_vault(tx: &mut Tx, caller: &Caller, backup: &Backup, vault: VaultId) -> Result<()> {
    if backup.status != BackupStatus::Available {
        return Err(Refusal::ShareNotAvailable.into());
    }
    let vault = tx
        .lock_vault(caller.project, vault)
        .await?
        .ok_or(Refusal::VaultNotFound)?;
    if vault.protect_type != "backup" || !vault.object_type.accepts(backup.resource_type) {
        return Err(Refusal::ShareVaultType.into());
    }
    let used = tx.vault_usage(vault.id).await?.used_bytes;
    let free = vault
        .size_gb
        .saturating_mul(BYTES_PER_GB)
        .saturating_sub(used);
    let fits = free > backup.size_bytes;
    match vault.status {
        VaultStatus::Available | VaultStatus::Lock if fits => Ok(()),
        _ => Err(Refusal::ShareVaultState.into()),
    }
}

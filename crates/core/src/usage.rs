//! What a project's vaults and resources occupy, and what is done to all of
//! its vaults at once.

use cairn_meta::{Page, ProjectUsage, ResourceUsage, VaultFilter};
use cairn_types::{OperationLogId, OperationType, ProjectId, ResourceId, ResourceType};
use cairn_types::{Timestamp, VaultId};

use crate::operation_log::NewOperation;
use crate::service::Outcome;
use crate::{Caller, OperationDetail, Refusal, Result, Service, VaultView};

impl Service {
    /// What all vaults of the project hold together.
    ///
    /// CBR: `ShowSummary`, `GET /v3/{project_id}/vaults/summary`.
    pub async fn project_usage(&self, caller: &Caller) -> Result<ProjectUsage> {
        let mut tx = self.meta().read().await?;
        Ok(tx.project_usage(caller.project).await?)
    }

    /// A page of the resources that the project has backups of, and how many there are.
    ///
    /// CBR: `ShowStorageUsage`, `GET /v3/{project_id}/storage_usage`.
    pub async fn resource_usage(
        &self,
        caller: &Caller,
        resource: Option<ResourceId>,
        resource_type: Option<ResourceType>,
        page: &Page,
    ) -> Result<(Vec<ResourceUsage>, u64)> {
        let mut tx = self.meta().read().await?;
        let project = caller.project;
        Ok(tx
            .resource_usage(project, resource, resource_type, page)
            .await?)
    }

    /// Changes when the owner of the project's vaults is told that they fill
    /// up; the vaults that were changed.
    ///
    /// CBR: `BatchUpdateVault`, `PUT /v3/{project_id}/vaults/batch-update`.
    pub async fn set_notification(
        &self,
        caller: &Caller,
        smn_notify: Option<bool>,
        threshold: Option<u64>,
    ) -> Result<Vec<VaultId>> {
        let (project, now) = (caller.project, self.now());
        let mut tx = self.meta().begin().await?;
        let changed = tx
            .set_notification(project, smn_notify, threshold, now)
            .await?;
        for vault in &changed {
            if let Some(vault) = tx.vault(project, *vault).await? {
                self.mark_fill(&mut tx, &vault).await?;
            }
        }
        tx.commit().await?;
        Ok(changed)
    }

    /// A page of the vaults of another project, and how many match in all: none
    /// unless the caller has a role there.
    ///
    /// CBR: `ListExternalVault`, `GET /v3/{project_id}/vaults/external`.
    pub async fn external_vaults(
        &self,
        caller: &Caller,
        project: ProjectId,
        filter: &VaultFilter,
        page: &Page,
    ) -> Result<(Vec<VaultView>, u64)> {
        let mut own = self.projects_of(caller.user, None).await?.into_iter();
        if !own.any(|one| one.id == project) {
            return Ok((Vec::new(), 0));
        }
        let there = Caller {
            project,
            ..caller.clone()
        };
        self.vaults(&there, filter, page).await
    }

    /// Has the available backups of a vault end on a day; how many they are,
    /// and the record of it. In a locked vault no policy's backup ends earlier
    /// than it would have.
    ///
    /// Errors: `NotFound`; `Invalid` for a day that is over; `Conflict` for the vault's state.
    /// CBR: `UpdateExpirationTime`, `PUT /v3/{project_id}/vaults/{vault_id}/update-backup-expiration-time`.
    pub async fn set_expiry(
        &self,
        caller: &Caller,
        vault: VaultId,
        day: String,
        until: Timestamp,
    ) -> Result<(u64, OperationLogId)> {
        let now = self.now();
        if until <= now {
            let text = "Invalid expect_expiration_date provided. The day is over.";
            return Err(Refusal::Invalid(text.to_owned()).into());
        }
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        if !vault.status.is_in_service() {
            let state = vault.status.to_string();
            return Err(Refusal::VaultState { state }.into());
        }
        let affected = tx.set_expiry(vault.id, vault.locked, until, now).await?;
        let log = OperationLogId::random();
        let operation = NewOperation {
            id: log,
            vault: &vault,
            checkpoint: None,
            policy: None,
            operation_type: OperationType::UpdateExpirationTime,
            resource: None,
            detail: OperationDetail::UpdateExpirationTime { affected, day },
        };
        self.record(&mut tx, caller, operation, Outcome::Done)
            .await?;
        tx.commit().await?;
        Ok((affected, log))
    }
}

//! Synchronisation with other sites. A hybrid vault has no site behind it yet,
//! and no bucket can be read: both tasks say what is true.

use cairn_types::{ProjectId, VaultId};

use crate::{Refusal, Result, Service};

/// Compares a vault with the site that it mirrors. There is none, so there is
/// nothing to take over and nothing to delete.
pub(super) async fn compare(service: &Service, project: ProjectId, vault: VaultId) -> Result<()> {
    let mut tx = service.meta().read().await?;
    let vault = tx.vault(project, vault).await?;
    vault.map(|_| ()).ok_or(Refusal::VaultNotFound.into())
}

/// Takes a backup over from a bucket.
///
/// Errors: `NotFound`: this server is connected to no bucket.
pub(super) fn import(bucket: String) -> Result<()> {
    Err(Refusal::NoBucket { bucket }.into())
}

//! The capacity of vaults: when one is full, when it grows by itself, and when
//! its owner is told.

use cairn_meta::{Tx, Vault, VaultMark};
use cairn_types::{BYTES_PER_GB, NotificationEvent, ProjectId, VaultId};

use crate::notification::Event;
use crate::{Refusal, Result, Service};

/// The largest size of a vault, in GB. Source: `size` in the vendor's definitions.
const MAX_GB: u64 = 10_485_760;

/// Whether a vault has room for another backup. How large that will be nobody
/// knows before it is made, so a vault takes backups until it is full.
pub(crate) fn refuse_full(vault: &Vault, used_bytes: u64) -> Result<()> {
    match is_full(vault.size_gb, used_bytes) && !vault.payment.demand_billing {
        true => Err(Refusal::VaultFull.into()),
        false => Ok(()),
    }
}

fn is_full(size_gb: u64, used_bytes: u64) -> bool {
    used_bytes >= size_gb.saturating_mul(BYTES_PER_GB)
}

/// What the owner of a vault should know of how full it is: nothing, if they do not want to.
fn mark(vault: &Vault, used_bytes: u64) -> VaultMark {
    let used_percent = u128::from(used_bytes) * 100;
    let size = u128::from(vault.size_gb) * u128::from(BYTES_PER_GB);
    VaultMark {
        over_threshold: vault.smn_notify && used_percent >= size * u128::from(vault.threshold),
        is_full: vault.smn_notify && is_full(vault.size_gb, used_bytes),
    }
}

/// The size that a full vault grows to: a quarter more, until there is room.
/// Source: CBR's rule for vaults that expand automatically.
fn grown(mut size_gb: u64, used_bytes: u64) -> u64 {
    while is_full(size_gb, used_bytes) && size_gb < MAX_GB {
        size_gb = (size_gb + size_gb.div_ceil(4)).min(MAX_GB);
    }
    size_gb
}

impl Service {
    /// After a backup: lets the vault grow if it is full now and may, and tells
    /// of that and of one that fills up. A vault that was full before it was allowed to
    /// grow takes no backup, so it stays as it is.
    pub(crate) async fn settle_capacity(&self, project: ProjectId, vault: VaultId) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        let Some(mut vault) = tx.lock_vault(project, vault).await? else {
            return Ok(());
        };
        let used = tx.vault_usage(vault.id).await?.used_bytes;
        let before = vault.size_gb;
        let size = grown(before, used);
        if vault.auto_expand && size > vault.size_gb {
            tracing::info!(vault.id = %vault.id, size_gb = size, "a full vault has grown");
            vault.size_gb = size;
            vault.updated_at = self.now();
            tx.update_vault(&vault).await?;
            let event = Event::expanded(&vault, before, used, self.now());
            self.tell_of_vault(&mut tx, &vault, &event).await?;
        }
        self.mark_fill(&mut tx, &vault).await?;
        Ok(tx.commit().await?)
    }

    /// Tells of a vault that has reached its threshold or is full, once until it
    /// is not any more. For every transaction that changes what is in a vault,
    /// how large it is, or what its owner wants to know; the vault must be locked.
    pub(crate) async fn mark_fill(&self, tx: &mut Tx, vault: &Vault) -> Result<()> {
        let used = tx.vault_usage(vault.id).await?.used_bytes;
        let (mark, known) = (mark(vault, used), tx.vault_mark(vault.id).await?);
        if mark == known {
            return Ok(());
        }
        tx.set_vault_mark(vault.id, mark).await?;
        for (is, was, kind) in [
            (
                mark.over_threshold,
                known.over_threshold,
                NotificationEvent::VaultThreshold,
            ),
            (mark.is_full, known.is_full, NotificationEvent::VaultFull),
        ] {
            if is && !was {
                tracing::warn!(
                    vault.id = %vault.id, size_gb = vault.size_gb, used_bytes = used, event = %kind,
                    "a vault fills up"
                );
                let event = Event::fill(kind, vault, used, self.now());
                self.tell(tx, &event).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_grows_by_quarters_until_there_is_room() {
        let gb = BYTES_PER_GB;
        assert_eq!(grown(100, 99 * gb), 100);
        assert_eq!(grown(100, 100 * gb), 125);
        assert_eq!(grown(100, 130 * gb), 157);
        assert_eq!(grown(10, 10 * gb), 13);
        assert_eq!(grown(1, gb), 2);
        assert_eq!(grown(MAX_GB - 1, u64::MAX), MAX_GB);
    }
}

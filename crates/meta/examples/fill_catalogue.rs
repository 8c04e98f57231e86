//! Fills a catalogue for the load benchmark:
//!
//!     fill_catalogue URL VAULTS BACKUPS
//!
//! The catalogue must hold a vault with one resource and one backup, made by a
//! server; all others are copies of these under ids and names of their own.
//! Their bytes are in no repository: they can be listed and shown, not restored.

use cairn_meta::{BackupFilter, Meta, Page, VaultFilter};
use cairn_types::{BackupId, BackupStatus, BackupStep, CheckpointId, ResourceId, VaultId};

/// Rows that are written in one transaction.
const BATCH: usize = 10_000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, vaults, backups] = &arguments[..] else {
        return Err("usage: fill_catalogue URL VAULTS BACKUPS".into());
    };
    let meta = Meta::open(url).await?;
    fill(&meta, vaults.parse()?, backups.parse()?).await?;
    meta.close().await;
    Ok(())
}

async fn fill(meta: &Meta, vaults: usize, backups: usize) -> Result<()> {
    let one = Page {
        limit: 1,
        ..Page::default()
    };
    let mut tx = meta.begin().await?;
    let project = tx.projects().await?.into_iter().next();
    let project = project.ok_or("the catalogue has no project")?.id;
    let (found, _) = tx.vaults(project, &VaultFilter::default(), &one).await?;
    let first = found.into_iter().next().ok_or("there is no vault")?;
    let bound = tx.resources_of(first.id).await?;
    let bound = bound.into_iter().next().ok_or("the vault is empty")?;
    let mut places = vec![(first.id, bound.id)];
    for number in 1..vaults {
        let mut vault = first.clone();
        vault.id = VaultId::random();
        vault.name = format!("vault-{number}");
        vault.created_at = first.created_at.plus_seconds(number as i64);
        let mut bound = bound.clone();
        (bound.vault, bound.id) = (vault.id, ResourceId::random());
        bound.name = format!("disk-{number}");
        tx.insert_vault(&vault).await?;
        tx.bind_resource(&bound).await?;
        places.push((vault.id, bound.id));
    }
    let (found, _) = tx
        .backups(project, &BackupFilter::default(), &[], &one)
        .await?;
    let backup = found.into_iter().next().ok_or("there is no backup")?;
    let checkpoint = tx.checkpoint(project, backup.checkpoint).await?;
    let checkpoint = checkpoint.ok_or("the backup has no checkpoint")?;
    for number in 1..backups {
        if number % BATCH == 0 {
            tx.commit().await?;
            tx = meta.begin().await?;
        }
        let created_at = backup.created_at.plus_seconds(number as i64);
        let (vault, resource) = places[number % places.len()];
        let mut checkpoint = checkpoint.clone();
        (checkpoint.id, checkpoint.vault) = (CheckpointId::random(), vault);
        checkpoint.created_at = created_at;
        let mut backup = backup.clone();
        (backup.id, backup.checkpoint) = (BackupId::random(), checkpoint.id);
        (backup.vault, backup.resource) = (vault, resource);
        backup.name = format!("manualbk-{number}");
        backup.created_at = created_at;
        tx.insert_checkpoint(&checkpoint).await?;
        backup.status = BackupStatus::FIRST;
        tx.insert_backup(&backup).await?;
        for step in [BackupStep::StartProtect, BackupStep::FinishProtect] {
            tx.step_backup(&mut backup, step, created_at).await?;
        }
    }
    Ok(tx.commit().await?)
}

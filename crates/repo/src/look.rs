//! A look at all of a project's backups that goes on where one of them is
//! damaged: for whoever takes over what is whole and names what is not.

use std::collections::HashSet;

use cairn_types::{BackupId, Kind};
use futures::{StreamExt, stream};

use crate::error::{Error, Result};
use crate::project::{Listed, Project, READS};
use crate::store::Folder;

/// The backups of a project, as a look found them.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that are acknowledged, oldest first.
    pub listed: Vec<Listed>,
    /// Those whose receipt or manifest cannot be relied on, and why.
    pub hurt: Vec<(BackupId, Error)>,
    /// Those that have a manifest and no receipt: they are being written, being
    /// deleted, or were left behind by a process that ended.
    pub unfinished: Vec<BackupId>,
}

impl Found {
    /// Whether a backup is there at all, whole or not.
    pub fn has(&self, backup: BackupId) -> bool {
        self.listed.iter().any(|listed| listed.info.id == backup)
            || self.hurt.iter().any(|(hurt, _)| *hurt == backup)
    }
}

impl Project {
    /// Looks at every backup's receipt and manifest.
    ///
    /// Errors: the store's, but not that a backup is damaged or of a newer format.
    pub async fn look(&self) -> Result<Found> {
        let (manifests, acknowledged) = self.names().await?;
        let mut found = Found {
            unfinished: without(manifests, &acknowledged),
            ..Found::default()
        };
        let reads = acknowledged
            .into_iter()
            .map(|backup| async move { (backup, self.inner.still_listed(backup).await) });
        let mut reads = stream::iter(reads).buffered(READS);
        while let Some((backup, read)) = reads.next().await {
            match read {
                Ok(listed) => found.listed.extend(listed),
                Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Invalid) => {
                    found.hurt.push((backup, error));
                }
                Err(error) => return Err(error),
            }
        }
        let age = |listed: &Listed| (listed.info.created_at, listed.info.id);
        found.listed.sort_by_key(age);
        Ok(found)
    }

    /// The backups that have a manifest and no receipt, by what they are called alone.
    pub async fn unfinished(&self) -> Result<Vec<BackupId>> {
        let (manifests, acknowledged) = self.names().await?;
        Ok(without(manifests, &acknowledged))
    }

    /// The backups that have a manifest, and those that have a receipt: looked
    /// for in this order, so that one which gets its receipt meanwhile has both.
    async fn names(&self) -> Result<(Vec<BackupId>, Vec<BackupId>)> {
        let (manifests, _) = self.inner.backups_in(Folder::Manifests).await?;
        let (receipts, _) = self.inner.backups_in(Folder::Receipts).await?;
        Ok((manifests, receipts))
    }
}

fn without(mut backups: Vec<BackupId>, others: &[BackupId]) -> Vec<BackupId> {
    let others: HashSet<BackupId> = others.iter().copied().collect();
    backups.retain(|backup| !others.contains(backup));
    backups
}

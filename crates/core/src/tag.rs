//! Tags of vaults, and finding vaults by them.

use std::collections::{BTreeMap, BTreeSet};

use cairn_meta::{Page, Tag, Vault, VaultFilter};
use cairn_types::VaultId;

use crate::vault::view;
use crate::{Caller, Refusal, Result, Service, VaultView};

/// Which vaults a search by tags takes; what is empty takes every vault.
#[derive(Debug, Clone, Default)]
pub struct TagQuery {
    /// Those that meet each condition.
    pub tags: Vec<TagCondition>,
    /// Those that meet at least one.
    pub tags_any: Vec<TagCondition>,
    /// Those that do not meet each.
    pub not_tags: Vec<TagCondition>,
    /// Those that meet none.
    pub not_tags_any: Vec<TagCondition>,
    /// Those without any tag; the conditions above do not count then.
    pub without_any_tag: bool,
    /// Those of one of these enterprise projects.
    pub enterprise_projects: Vec<String>,
}

/// A tag that a vault has: this key with one of these values.
#[derive(Debug, Clone)]
pub struct TagCondition {
    /// The key.
    pub key: String,
    /// The values; any, if empty.
    pub values: Vec<ValuePattern>,
}

/// What a tag's value is to be like.
#[derive(Debug, Clone)]
pub enum ValuePattern {
    /// Exactly this.
    Is(String),
    /// This somewhere in it.
    Contains(String),
}

impl TagQuery {
    /// Whether the query takes a vault with these tags, of this enterprise project.
    pub fn takes(&self, tags: &[Tag], enterprise_project: &str) -> bool {
        let projects = &self.enterprise_projects;
        if !projects.is_empty() && !projects.iter().any(|one| one == enterprise_project) {
            return false;
        }
        if self.without_any_tag {
            return tags.is_empty();
        }
        let met = |condition: &TagCondition| condition.is_met(tags);
        self.tags.iter().all(met)
            && (self.tags_any.is_empty() || self.tags_any.iter().any(met))
            && (self.not_tags.is_empty() || !self.not_tags.iter().all(met))
            && !self.not_tags_any.iter().any(met)
    }
}

impl TagCondition {
    fn is_met(&self, tags: &[Tag]) -> bool {
        let with_key = tags.iter().filter(|tag| tag.key == self.key);
        with_key.into_iter().any(|tag| {
            self.values.is_empty() || self.values.iter().any(|pattern| pattern.takes(&tag.value))
        })
    }
}

impl ValuePattern {
    fn takes(&self, value: &str) -> bool {
        match self {
            Self::Is(text) => value == text,
            Self::Contains(text) => value.contains(text.as_str()),
        }
    }
}

impl Service {
    /// The vault whose tags are asked for.
    ///
    /// Errors: `NotFound`.
    /// CBR: `ShowVaultTag`, `GET /v3/{project_id}/vault/{vault_id}/tags`.
    pub async fn vault_with_tags(&self, caller: &Caller, vault: VaultId) -> Result<Vault> {
        let mut tx = self.meta().read().await?;
        let vault = tx.vault(caller.project, vault).await?;
        Ok(vault.ok_or(Refusal::VaultNotFound)?)
    }

    /// Adds tags to a vault; one whose key is there gets the new value.
    ///
    /// Errors: `NotFound` vault; `Exhausted` if it would have too many.
    /// CBR: `CreateVaultTags`, `POST /v3/{project_id}/vault/{vault_id}/tags`;
    /// `BatchCreateAndDeleteVaultTags` to create.
    pub async fn add_tags(&self, caller: &Caller, vault: VaultId, tags: Vec<Tag>) -> Result<()> {
        let limit = self.quotas().tags_per_vault;
        self.change_tags(caller, vault, |held| {
            for tag in tags {
                match held.iter_mut().find(|other| other.key == tag.key) {
                    Some(other) => *other = tag,
                    None => held.push(tag),
                }
            }
            match held.len() > limit {
                true => Err(Refusal::TagLimit { limit }),
                false => Ok(()),
            }
        })
        .await
    }

    /// Removes tags from a vault; those that it does not have are passed over.
    ///
    /// Errors: `NotFound` vault.
    /// CBR: `BatchCreateAndDeleteVaultTags` to delete,
    /// `POST /v3/{project_id}/vault/{vault_id}/tags/action`.
    pub async fn remove_tags(
        &self,
        caller: &Caller,
        vault: VaultId,
        keys: &[String],
    ) -> Result<()> {
        self.change_tags(caller, vault, |held| {
            held.retain(|tag| !keys.contains(&tag.key));
            Ok(())
        })
        .await
    }

    /// Removes one tag from a vault.
    ///
    /// Errors: `NotFound` vault or key.
    /// CBR: `DeleteVaultTag`, `DELETE /v3/{project_id}/vault/{vault_id}/tags/{key}`.
    pub async fn remove_tag(&self, caller: &Caller, vault: VaultId, key: &str) -> Result<()> {
        self.change_tags(caller, vault, |held| {
            let position = held.iter().position(|tag| tag.key == key);
            let position = position.ok_or_else(|| Refusal::TagNotFound {
                key: key.to_owned(),
            })?;
            held.remove(position);
            Ok(())
        })
        .await
    }

    async fn change_tags(
        &self,
        caller: &Caller,
        vault: VaultId,
        change: impl FnOnce(&mut Vec<Tag>) -> std::result::Result<(), Refusal>,
    ) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        let mut vault = tx
            .lock_vault(caller.project, vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        change(&mut vault.tags)?;
        vault.updated_at = self.now();
        tx.update_vault(&vault).await?;
        Ok(tx.commit().await?)
    }

    /// The keys that vaults of the project have, each with its values, both in order.
    ///
    /// CBR: `ShowVaultProjectTag`, `GET /v3/{project_id}/vault/tags`.
    pub async fn project_tags(
        &self,
        caller: &Caller,
    ) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut tx = self.meta().read().await?;
        let vaults = tx
            .all_vaults(caller.project, &VaultFilter::default())
            .await?;
        let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for tag in vaults.into_iter().flat_map(|vault| vault.tags) {
            keys.entry(tag.key).or_default().insert(tag.value);
        }
        Ok(keys)
    }

    /// The vaults that a search takes, newest first: how many there are in all,
    /// and those of a page, if one is asked for.
    ///
    /// CBR: `ShowVaultResourceInstances`, `POST /v3/{project_id}/vault/resource_instances/action`.
    pub async fn vaults_by_tags(
        &self,
        caller: &Caller,
        filter: &VaultFilter,
        query: &TagQuery,
        page: Option<&Page>,
    ) -> Result<(Vec<VaultView>, u64)> {
        let mut tx = self.meta().read().await?;
        let mut vaults = tx.all_vaults(caller.project, filter).await?;
        vaults.retain(|vault| query.takes(&vault.tags, &vault.enterprise_project));
        let count = vaults.len() as u64;
        let Some(page) = page else {
            return Ok((Vec::new(), count));
        };
        let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let take = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let mut views = Vec::new();
        for vault in vaults.into_iter().skip(skip).take(take) {
            views.push(view(&mut tx, vault).await?);
        }
        Ok((views, count))
    }
}

#[cfg(test)]
mod tests;

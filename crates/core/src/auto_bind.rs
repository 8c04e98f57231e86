//! Auto-bind: a policy's run takes unprotected resources into its vault, those
//! that the vault's rules name.
//! Source: CBR's automatic association; several tags are alternatives, and no tags take all.

use std::collections::HashSet;

use cairn_meta::{ResourceExtraInfo, Tag, Tx, Vault};
use cairn_source::Protectable;
use cairn_types::BYTES_PER_GB;
use serde::Deserialize;

use crate::candidate::{Candidate, ResourceToBind};
use crate::{Error, Result, Service};

/// A vault's rules, as they are kept.
#[derive(Debug, Default, Deserialize)]
struct BindRules {
    #[serde(default)]
    tags: Vec<Tag>,
}

impl BindRules {
    fn take(&self, found: &Protectable) -> bool {
        let has = |tag: &Tag| found.tags.get(&tag.key) == Some(&tag.value);
        self.tags.is_empty() || self.tags.iter().any(has)
    }
}

impl Service {
    /// Binds the unprotected resources that a vault's rules name, as far as there is
    /// room: what does not fit, or is another's, is left as it is.
    pub(crate) async fn bind_by_rules(
        &self,
        tx: &mut Tx,
        vault: &Vault,
        resources: &[Protectable],
    ) -> Result<()> {
        let rules: BindRules = serde_json::from_value(vault.bind_rules.clone()).unwrap_or_default();
        let bound = tx.resources_of(vault.id).await?;
        let known: HashSet<_> = bound.iter().map(|resource| resource.id).collect();
        let mut room = self
            .quotas()
            .resources_per_vault
            .saturating_sub(bound.len());
        let allocated: u64 = bound.iter().map(|resource| resource.size_bytes).sum();
        let capacity = vault.size_gb.saturating_mul(BYTES_PER_GB);
        let mut free = capacity.saturating_sub(allocated);
        for found in resources {
            let fits = vault.object_type.accepts(found.resource_type)
                && found.status.is_usable()
                && !known.contains(&found.id)
                && rules.take(found);
            if !fits || tx.binding(found.id).await?.is_some() {
                continue;
            }
            if room == 0 || found.size_bytes > free {
                tracing::warn!(vault.id = %vault.id, resource.id = %found.id, "a resource is not bound by itself: the vault has no room");
                continue;
            }
            let wish = ResourceToBind {
                id: found.id,
                resource_type: found.resource_type,
                name: None,
                extra_info: ResourceExtraInfo::default(),
            };
            match self
                .bind(tx, vault, &wish, &Candidate::of(found, resources))
                .await
            {
                Ok(()) => {
                    tracing::info!(vault.id = %vault.id, resource.id = %found.id, "a resource is bound by itself");
                    room -= 1;
                    free -= found.size_bytes;
                }
                // A disk whose server is protected, for one.
                Err(Error::Refused(refusal)) => {
                    tracing::debug!(vault.id = %vault.id, resource.id = %found.id, %refusal, "a resource is not bound by itself");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

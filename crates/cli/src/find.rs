//! Things by id or by name, and whole lists, page by page.

use std::str::FromStr;

use cairn_api::agent::{Agent, ListAgentsQuery};
use cairn_api::backup::{Backup, ListBackupsQuery};
use cairn_api::notification::NotificationTarget;
use cairn_api::policy::{ListPoliciesQuery, Policy};
use cairn_api::protectable::{ListProtectableQuery, Protectable};
use cairn_api::vault::{ListVaultQuery, Vault};
use cairn_api::verification::{ListVerificationsQuery, Verification};
use cairn_api::{Client, ProtectableType};
use cairn_types::{ObjectType, ResourceId};

use crate::Error;

/// The most items that a list is followed to.
const MAX_ITEMS: usize = 100_000;
/// How many ids are shown where a name is not unique.
const MAX_SHOWN_IDS: usize = 5;

/// The vault with this id or name.
pub(crate) async fn vault(client: &Client, text: &str) -> Result<Vault, Error> {
    if let Ok(id) = text.parse() {
        return Ok(client.show_vault(id).await?.vault);
    }
    let query = ListVaultQuery {
        name: Some(text.to_owned()),
        ..Default::default()
    };
    let found = if is_name(text) {
        client.list_vaults(&query).await?.vaults
    } else {
        Vec::new()
    };
    let found = found
        .into_iter()
        .filter(|vault| vault.name == text)
        .collect();
    only("vault", text, found, |vault: &Vault| vault.id.to_string())
}

/// The resource with this id or name among those that are bound to a vault.
pub(crate) fn bound(vault: &Vault, text: &str) -> Result<ResourceId, Error> {
    let bound = vault.resources.iter();
    let found = bound.filter(|one| one.id.to_string() == text || one.name == text);
    only(
        "resource of the vault",
        text,
        found.map(|one| one.id).collect(),
        ToString::to_string,
    )
}

/// The backup with this id or name.
pub(crate) async fn backup(client: &Client, text: &str) -> Result<Backup, Error> {
    if let Ok(id) = text.parse() {
        return Ok(client.show_backup(id).await?.backup);
    }
    let query = ListBackupsQuery {
        name: Some(text.to_owned()),
        ..Default::default()
    };
    let found = backups(client, query).await?;
    let found = found
        .into_iter()
        .filter(|backup| backup.name == text)
        .collect();
    let found = only("backup", text, found, |backup: &Backup| {
        backup.id.to_string()
    })?;
    // Lists may leave out the backups of a server's disks.
    Ok(client.show_backup(found.id).await?.backup)
}

/// The policy with this id or name.
pub(crate) async fn policy(client: &Client, text: &str) -> Result<Policy, Error> {
    if let Ok(id) = text.parse() {
        return Ok(client.show_policy(id).await?.policy);
    }
    let mut found = policies(client, ListPoliciesQuery::default()).await?;
    found.retain(|policy| policy.name == text);
    only("policy", text, found, |policy: &Policy| {
        policy.id.to_string()
    })
}

/// Every policy that matches.
pub(crate) async fn policies(
    client: &Client,
    mut query: ListPoliciesQuery,
) -> Result<Vec<Policy>, Error> {
    let mut all = Vec::new();
    loop {
        query.offset = Some(offset(&all));
        let page = client.list_policies(&query).await?;
        let last = page.policies.is_empty();
        all.extend(page.policies);
        if last || is_whole(&all, page.count) {
            return Ok(all);
        }
    }
}

/// The agent with this id or host's name.
pub(crate) async fn agent(client: &Client, text: &str) -> Result<Agent, Error> {
    let mut found = agents(client).await?;
    found.retain(|agent| agent.agent_id.to_string() == text || agent.host_name == text);
    only("agent", text, found, |agent: &Agent| {
        agent.agent_id.to_string()
    })
}

/// Every agent.
pub(crate) async fn agents(client: &Client) -> Result<Vec<Agent>, Error> {
    let mut query = ListAgentsQuery::default();
    let mut all = Vec::new();
    loop {
        query.offset = Some(offset(&all));
        let page = client.list_agents(&query).await?;
        let last = page.agents.is_empty();
        all.extend(page.agents);
        if last || is_whole(&all, page.count) {
            return Ok(all);
        }
    }
}

/// The target of notifications with this id or name.
pub(crate) async fn notification_target(
    client: &Client,
    text: &str,
) -> Result<NotificationTarget, Error> {
    if let Ok(id) = text.parse() {
        let shown = client.show_notification_target(id).await?;
        return Ok(shown.notification_target);
    }
    let mut found = client
        .list_notification_targets()
        .await?
        .notification_targets;
    found.retain(|target| target.name == text);
    only("notification target", text, found, |target| {
        target.id.to_string()
    })
}

/// The protectable of these types with this id or name.
pub(crate) async fn protectable(
    client: &Client,
    types: &[ProtectableType],
    text: &str,
) -> Result<Protectable, Error> {
    let id = text.parse().ok();
    let mut found = Vec::new();
    for kind in types {
        let query = ListProtectableQuery {
            id,
            name: id.is_none().then(|| text.to_owned()),
            ..Default::default()
        };
        found.extend(protectables(client, *kind, query).await?);
    }
    found.retain(|one: &Protectable| id.map_or(one.name == text, |id| one.id == id));
    only("protectable", text, found, |one: &Protectable| {
        one.id.to_string()
    })
}

/// The types of protectables that a vault of this type takes.
pub(crate) fn protectable_types(object_type: ObjectType) -> Vec<ProtectableType> {
    let all = ProtectableType::ALL.iter().copied();
    all.filter(|kind| kind.object_type() == object_type)
        .collect()
}

/// Every vault that matches.
pub(crate) async fn vaults(
    client: &Client,
    mut query: ListVaultQuery,
) -> Result<Vec<Vault>, Error> {
    let mut all = Vec::new();
    loop {
        query.offset = Some(offset(&all));
        let page = client.list_vaults(&query).await?;
        let last = page.vaults.is_empty();
        all.extend(page.vaults);
        if last || is_whole(&all, page.count) {
            return Ok(all);
        }
    }
}

/// Every backup that matches.
pub(crate) async fn backups(
    client: &Client,
    mut query: ListBackupsQuery,
) -> Result<Vec<Backup>, Error> {
    let mut all = Vec::new();
    loop {
        query.offset = Some(offset(&all));
        let page = client.list_backups(&query).await?;
        let last = page.backups.is_empty();
        all.extend(page.backups);
        if last || is_whole(&all, page.count) {
            return Ok(all);
        }
    }
}

/// Every result of a verification that matches.
pub(crate) async fn verifications(
    client: &Client,
    mut query: ListVerificationsQuery,
) -> Result<Vec<Verification>, Error> {
    let mut all = Vec::new();
    loop {
        query.offset = Some(offset(&all));
        let page = client.list_verifications(&query).await?;
        let last = page.verifications.is_empty();
        all.extend(page.verifications);
        if last || is_whole(&all, page.count) {
            return Ok(all);
        }
    }
}

/// Every protectable of a type that matches. Their list has no count, so it
/// goes on until a page is empty or begins again.
pub(crate) async fn protectables(
    client: &Client,
    kind: ProtectableType,
    mut query: ListProtectableQuery,
) -> Result<Vec<Protectable>, Error> {
    let mut all: Vec<Protectable> = Vec::new();
    loop {
        query.marker = all.last().map(|last| last.id);
        let page = client.list_protectables(kind, &query).await?.instances;
        let again = page
            .first()
            .is_some_and(|first| all.iter().any(|seen| seen.id == first.id));
        if page.is_empty() || again || all.len() > MAX_ITEMS {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Where the next page begins.
fn offset<T>(all: &[T]) -> u32 {
    u32::try_from(all.len()).unwrap_or(u32::MAX)
}

/// Whether nothing more is to come.
fn is_whole<T>(all: &[T], count: u64) -> bool {
    all.len() as u64 >= count || all.len() >= MAX_ITEMS
}

/// Whether a vault could have this name; the service refuses to look for others.
fn is_name(text: &str) -> bool {
    let query = ListVaultQuery {
        name: Some(text.to_owned()),
        ..Default::default()
    };
    ListVaultQuery::parse(&query.write()).is_ok()
}

/// The one thing that was found.
pub(crate) fn only<T>(
    what: &'static str,
    name: &str,
    mut found: Vec<T>,
    id: impl Fn(&T) -> String,
) -> Result<T, Error> {
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(Error::NotFound {
            what,
            name: name.to_owned(),
        }),
        (Some(one), false) => {
            found.push(one);
            let ids = found.iter().take(MAX_SHOWN_IDS).map(id).collect();
            Err(Error::Ambiguous {
                what,
                name: name.to_owned(),
                ids,
            })
        }
    }
}

/// Parses one of a closed set of words, for clap.
pub(crate) fn word<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_be_of_one_thing() {
        let id = |n: &u8| n.to_string();
        assert_eq!(only("vault", "a", vec![1], id).unwrap(), 1);
        assert!(matches!(
            only("vault", "a", vec![], id),
            Err(Error::NotFound { .. })
        ));
        let error = only("vault", "a", (0..9).collect(), id).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"a\" is the name of more than one vault; use one of the ids 0 1 2 3 4"
        );
    }

    #[test]
    fn a_disk_vault_takes_disks() {
        assert_eq!(protectable_types(ObjectType::Disk), [ProtectableType::Disk]);
        assert_eq!(protectable_types(ObjectType::Vmware), []);
    }
}

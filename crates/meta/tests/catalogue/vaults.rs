//! Vaults and what is bound to them.

use crate::fixtures::*;
use cairn_meta::{Backup, BoundResource, Page, Vault, VaultFilter};
use cairn_types::{BackupId, BackupStatus, ProjectId, ProtectStatus, ResourceId};

#[tokio::test]
async fn vaults_are_written_read_filtered_and_paged() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let mut vaults: Vec<Vault> = (0..5)
            .map(|number| vault(project, &format!("v_{number}"), number))
            .collect();
        for vault in &vaults {
            tx.insert_vault(vault).await.unwrap();
        }
        vaults[1].name = "renamed".to_owned();
        vaults[1].locked = true;
        vaults[1].size_gb = 10_485_760;
        tx.update_vault(&vaults[1]).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = meta.read().await.unwrap();
        assert_eq!(
            tx.vault(project, vaults[1].id).await.unwrap(),
            Some(vaults[1].clone())
        );
        assert_eq!(
            tx.vault(ProjectId::random(), vaults[1].id).await.unwrap(),
            None
        );
        let page = Page {
            limit: 2,
            offset: 1,
            marker: None,
        };
        let (found, count) = tx
            .vaults(project, &VaultFilter::default(), &page)
            .await
            .unwrap();
        assert_eq!(
            (found, count),
            (vec![vaults[3].clone(), vaults[2].clone()], 5)
        );
        let page = Page {
            limit: 9,
            offset: 0,
            marker: Some(vaults[2].id.to_string()),
        };
        let (found, _) = tx
            .vaults(project, &VaultFilter::default(), &page)
            .await
            .unwrap();
        assert_eq!(found, [vaults[1].clone(), vaults[0].clone()]);
        let named = |name: &str| VaultFilter {
            name: Some(name.to_owned()),
            ..Default::default()
        };
        for (name, count) in [("RENAME", 1), ("v_", 4), ("%", 0), ("v-", 0), ("_", 4)] {
            let found = tx
                .vaults(project, &named(name), &everything(9))
                .await
                .unwrap();
            assert_eq!(found.1, count, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_binding_shows_what_follows_from_its_backups() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let vault = vault(project, "v", 1);
        let (one, two) = (bound(vault.id, 2), bound(vault.id, 3));
        let point = checkpoint(&vault);
        let mut tx = meta.begin().await.unwrap();
        tx.insert_vault(&vault).await.unwrap();
        for resource in [&one, &two] {
            tx.bind_resource(resource).await.unwrap();
        }
        tx.insert_checkpoint(&point).await.unwrap();
        let found = tx.resources_of(vault.id).await.unwrap();
        assert_eq!(found, [one.clone(), two.clone()]);
        assert_eq!(
            tx.checkpoint(project, point.id).await.unwrap(),
            Some(point.clone())
        );

        let mut first = backup(&vault, point.id, one.id, 10);
        let child = Backup {
            id: BackupId::random(),
            parent: Some(first.id),
            resource: ResourceId::random(),
            ..first.clone()
        };
        tx.insert_backup(&first).await.unwrap();
        tx.insert_backup(&child).await.unwrap();
        let second = backup(&vault, point.id, one.id, 11);
        tx.insert_backup(&second).await.unwrap();
        let shown = tx.binding(one.id).await.unwrap().unwrap();
        assert_eq!((shown.backup_count, shown.backup_bytes), (2, 2 << 20));
        assert_eq!(shown.protect_status, ProtectStatus::Available);
        let usage = tx.vault_usage(vault.id).await.unwrap();
        assert_eq!(
            (usage.backups, usage.used_bytes, usage.busy_backups),
            (2, 2 << 20, 0)
        );

        for (status, expected) in [
            (BackupStatus::WaitingRestore, ProtectStatus::Restoring),
            (BackupStatus::Restoring, ProtectStatus::Restoring),
            (BackupStatus::Available, ProtectStatus::Available),
        ] {
            first.advance(status, at(12)).unwrap();
            tx.update_backup(&first).await.unwrap();
            let shown = tx.binding(one.id).await.unwrap().unwrap();
            assert_eq!(shown.protect_status, expected, "{status}");
        }
        assert!(first.advance(BackupStatus::Protecting, at(13)).is_err());
        assert_eq!(
            tx.newest_available(project, one.id).await.unwrap(),
            Some(second.clone())
        );
        assert_eq!(tx.children_of(&[first.id]).await.unwrap(), [child]);

        tx.remove_backup(&first).await.unwrap();
        assert!(tx.checkpoint(project, point.id).await.unwrap().is_some());
        tx.remove_backup(&second).await.unwrap();
        assert!(tx.checkpoint(project, point.id).await.unwrap().is_none());
        tx.unbind_resource(vault.id, two.id).await.unwrap();
        tx.remove_vault(vault.id).await.unwrap();
        assert_eq!(tx.binding(one.id).await.unwrap(), None);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_resource_is_bound_to_one_vault_at_the_most() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let (one, two) = (vault(project, "one", 1), vault(project, "two", 2));
        let resource = bound(one.id, 3);
        let mut tx = meta.begin().await.unwrap();
        for vault in [&one, &two] {
            tx.insert_vault(vault).await.unwrap();
        }
        tx.bind_resource(&resource).await.unwrap();
        let again = BoundResource {
            vault: two.id,
            ..resource
        };
        let error = tx.bind_resource(&again).await.unwrap_err();
        assert!(error.is_duplicate(), "{error:?}");
    })
    .await;
}

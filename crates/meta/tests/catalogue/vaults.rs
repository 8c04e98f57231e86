//! Vaults and what is bound to them.

use crate::fixtures::*;
use cairn_meta::{Backup, BoundResource, Order, Page, Payment, Vault, VaultFilter};
use cairn_types::{
    BackupId, BackupStatus, BackupStep, Kind, ProjectId, ProtectStatus, ResourceId, VaultStatus,
    VaultStep,
};

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
        let mut child = Backup {
            id: BackupId::random(),
            parent: Some(first.id),
            resource: ResourceId::random(),
            ..first.clone()
        };
        insert_available(&mut tx, &mut first).await;
        insert_available(&mut tx, &mut child).await;
        let mut second = backup(&vault, point.id, one.id, 11);
        insert_available(&mut tx, &mut second).await;
        let shown = tx.binding(one.id).await.unwrap().unwrap();
        assert_eq!((shown.backup_count, shown.backup_bytes), (2, 2 << 20));
        assert_eq!(shown.protect_status, ProtectStatus::Available);
        let usage = tx.vault_usage(vault.id).await.unwrap();
        assert_eq!(
            (usage.backups, usage.used_bytes, usage.busy_backups),
            (2, 2 << 20, 0)
        );

        for (step, expected) in [
            (BackupStep::QueueRestore, ProtectStatus::Restoring),
            (BackupStep::StartRestore, ProtectStatus::Restoring),
            (BackupStep::EndRestore, ProtectStatus::Available),
        ] {
            tx.step_backup(&mut first, step, at(12)).await.unwrap();
            let shown = tx.binding(one.id).await.unwrap().unwrap();
            assert_eq!(shown.protect_status, expected, "{step:?}");
        }
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

#[tokio::test]
async fn only_the_steps_that_lead_from_a_state_can_be_written() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut vault = vault(project, "v", 1);
        let point = checkpoint(&vault);
        let mut tx = meta.begin().await.unwrap();
        tx.insert_vault(&vault).await.unwrap();
        tx.insert_checkpoint(&point).await.unwrap();
        let mut one = backup(&vault, point.id, ResourceId::random(), 10);
        tx.insert_backup(&one).await.unwrap();
        for step in [
            BackupStep::StartProtect,
            BackupStep::FinishProtect,
            BackupStep::QueueDelete,
            BackupStep::StartDelete,
            BackupStep::FailDelete,
        ] {
            for wrong in BackupStep::ALL {
                if !wrong.from().contains(&one.status) {
                    let refused = tx.step_backup(&mut one, *wrong, at(11)).await;
                    assert_eq!(refused.unwrap_err().kind(), Kind::Bug, "{wrong:?}");
                }
            }
            tx.step_backup(&mut one, step, at(12)).await.unwrap();
            let read = tx.backup(project, one.id).await.unwrap().unwrap();
            assert_eq!((read.status, read.updated_at), (step.to(), at(12)));
        }
        // Whatever a record says of the state, the rest is written without it.
        one.status = BackupStatus::Available;
        tx.update_backup(&one).await.unwrap();
        let read = tx.backup(project, one.id).await.unwrap().unwrap();
        assert_eq!(read.status, BackupStatus::Error);
        assert!(tx.insert_backup(&one).await.is_err());

        let refused = tx
            .step_vault(&mut vault, VaultStep::FailDelete, at(13))
            .await;
        assert_eq!(refused.unwrap_err().kind(), Kind::Bug);
        tx.step_vault(&mut vault, VaultStep::StartDelete, at(13))
            .await
            .unwrap();
        vault.status = VaultStatus::Available;
        tx.update_vault(&vault).await.unwrap();
        let read = tx.vault(project, vault.id).await.unwrap().unwrap();
        assert_eq!(read.status, VaultStatus::Deleting);
    })
    .await;
}

#[tokio::test]
async fn a_resource_moves_with_its_backups() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let (one, mut two) = (vault(project, "one", 1), vault(project, "two", 2));
        two.enterprise_project = "other".to_owned();
        let (moves, stays) = (bound(one.id, 3), bound(one.id, 4));
        let point = checkpoint(&one);
        let mut tx = meta.begin().await.unwrap();
        for vault in [&one, &two] {
            tx.insert_vault(vault).await.unwrap();
        }
        for resource in [&moves, &stays] {
            tx.bind_resource(resource).await.unwrap();
        }
        tx.insert_checkpoint(&point).await.unwrap();
        let mut whole = backup(&one, point.id, moves.id, 10);
        insert_available(&mut tx, &mut whole).await;
        let mut disk = Backup {
            id: BackupId::random(),
            parent: Some(whole.id),
            resource: ResourceId::random(),
            status: BackupStatus::FIRST,
            ..whole.clone()
        };
        insert_available(&mut tx, &mut disk).await;
        let mut other = backup(&one, point.id, stays.id, 11);
        insert_available(&mut tx, &mut other).await;

        let all = Page {
            limit: 9,
            ..Page::default()
        };
        let (used, count) = tx.resource_usage(project, None, None, &all).await.unwrap();
        assert_eq!((used.len(), count), (2, 2));
        assert!(
            used.iter()
                .all(|one| one.backups == 1 && one.used_bytes == 1 << 20)
        );
        assert!(used.iter().all(|one| one.multi_az_bytes == 0));
        let found = tx
            .resource_usage(project, Some(moves.id), Some(moves.resource_type), &all)
            .await
            .unwrap();
        assert_eq!((found.0[0].resource, found.1), (moves.id, 1));

        tx.move_resource(moves.id, one.id, &two, at(20))
            .await
            .unwrap();
        let binding = tx.binding(moves.id).await.unwrap().unwrap();
        assert_eq!((binding.vault, binding.backup_count), (two.id, 1));
        for id in [whole.id, disk.id] {
            let moved = tx.backup(project, id).await.unwrap().unwrap();
            assert_eq!((moved.vault, moved.updated_at), (two.id, at(20)));
            assert_eq!(moved.enterprise_project, "other");
        }
        let left = tx.backups_of_vault(one.id, None).await.unwrap();
        assert_eq!(left, [other.clone()]);
        let sum = tx.project_usage(project).await.unwrap();
        assert_eq!((sum.size_gb, sum.used_bytes), (200, 2 << 20));

        // A day is set for what is done, with its disks.
        assert_eq!(
            tx.set_expiry(two.id, false, at(90), at(21)).await.unwrap(),
            1
        );
        for id in [whole.id, disk.id] {
            let ends = tx.backup(project, id).await.unwrap().unwrap();
            assert_eq!(ends.expired_at, Some(at(90)));
        }
        // In a locked vault, a policy's backup ends no earlier than before.
        other.auto_trigger = true;
        let mut automatic = Backup {
            id: BackupId::random(),
            status: BackupStatus::FIRST,
            expired_at: Some(at(50)),
            ..other.clone()
        };
        insert_available(&mut tx, &mut automatic).await;
        for (until, changed) in [(at(40), 1), (at(60), 2)] {
            let count = tx.set_expiry(one.id, true, until, at(22)).await.unwrap();
            assert_eq!(count, changed);
        }
        let set = tx
            .set_notification(project, Some(false), Some(55), at(30))
            .await
            .unwrap();
        assert_eq!(set.len(), 2);
        let read = tx.vault(project, two.id).await.unwrap().unwrap();
        assert_eq!((read.smn_notify, read.threshold), (false, 55));
    })
    .await;
}

#[tokio::test]
async fn an_order_is_found_by_its_number_project_and_vault() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut vault = vault(project, "v", 1);
        vault.payment = Payment {
            order: Some("CS1".to_owned()),
            product: Some("p".to_owned()),
            paid_until: Some(at(99)),
            demand_billing: true,
        };
        let order = Order {
            id: "CS1".to_owned(),
            project,
            vault: vault.id,
            product: "p".to_owned(),
            size_gb: 100,
            months: 3,
            created_at: at(2),
        };
        let mut tx = meta.begin().await.unwrap();
        tx.insert_vault(&vault).await.unwrap();
        tx.insert_order(&order).await.unwrap();
        let read = tx.vault(project, vault.id).await.unwrap().unwrap();
        assert_eq!(read, vault);
        let found = tx.order(project, "CS1", vault.id).await.unwrap();
        assert_eq!(found, Some(order));
        let stranger = ProjectId::random();
        assert_eq!(tx.order(stranger, "CS1", vault.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_text_with_a_nul_is_stored_and_sought_without_it() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut odd = vault(project, "odd", 1);
        odd.description = "a\0b".to_owned();
        odd.availability_zone = Some("\0".to_owned());
        let mut tx = meta.begin().await.unwrap();
        tx.insert_vault(&odd).await.unwrap();
        let read = tx.vault(project, odd.id).await.unwrap().unwrap();
        assert_eq!(read.description, "a\u{fffd}b");
        let filter = VaultFilter {
            name: Some("o\0".to_owned()),
            ..VaultFilter::default()
        };
        let found = tx.vaults(project, &filter, &everything(9)).await.unwrap();
        assert_eq!(found.1, 0);
    })
    .await;
}

#[tokio::test]
async fn of_two_who_count_under_the_projects_lock_one_comes_second() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let make_the_only_one = async |name: &str| {
            let mut tx = meta.begin().await.unwrap();
            tx.lock_project(project).await.unwrap();
            if tx.count_vaults(project).await.unwrap() == 0 {
                tx.insert_vault(&vault(project, name, 1)).await.unwrap();
            }
            tx.commit().await.unwrap();
        };
        tokio::join!(make_the_only_one("a"), make_the_only_one("b"));
        let mut tx = meta.read().await.unwrap();
        assert_eq!(tx.count_vaults(project).await.unwrap(), 1);
    })
    .await;
}

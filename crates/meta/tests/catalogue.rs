//! The catalogue on both databases: what is written is read, what a filter or
//! a page asks for is what comes, and a task has one owner at the most.
//!
//! SQLite always; PostgreSQL where `CAIRN_TEST_POSTGRES` names a server, as
//! `make test` has it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use cairn_meta::tasks::{Task, TaskState};
use cairn_meta::{
    AccessKey, Backup, BackupFilter, BackupSort, BoundResource, Checkpoint, Domain, Grant, Meta,
    OperationLog, OperationLogFilter, Page, Project, ResourceExtraInfo, SkipReason, Skipped, Token,
    User, Vault, VaultFilter, VolumeChoice,
};
use cairn_types::{
    BackupId, BackupStatus, CheckpointId, DomainId, ObjectType, OperationLogId, OperationStatus,
    OperationType, ProjectId, ProtectStatus, ResourceId, ResourceType, Timestamp, UserId, VaultId,
    VaultStatus,
};
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};

/// Runs a test on each database, on a catalogue of its own.
async fn on_each_database(test: impl AsyncFn(Meta)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a catalogue.sqlite");
    let url = format!("sqlite:{}", path.display().to_string().replace(' ', "%20"));
    let meta = Meta::open(&url).await.unwrap();
    test(meta.clone()).await;
    meta.close().await;
    let Ok(server) = std::env::var("CAIRN_TEST_POSTGRES") else {
        return;
    };
    sqlx::any::install_default_drivers();
    let name = format!("catalogue_{}", uuid::Uuid::new_v4().simple());
    let mut administrator = AnyConnection::connect(&server).await.unwrap();
    administrator
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .unwrap();
    let (host, _) = server.rsplit_once('/').unwrap();
    let meta = Meta::open(&format!("{host}/{name}")).await.unwrap();
    test(meta.clone()).await;
    meta.close().await;
    administrator
        .execute(AssertSqlSafe(format!("DROP DATABASE {name}")))
        .await
        .unwrap();
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000 + 7)
}

fn everything(limit: u32) -> Page {
    Page {
        limit,
        offset: 0,
        marker: None,
    }
}

/// A catalogue's first project.
async fn project(meta: &Meta) -> ProjectId {
    let domain = Domain {
        id: DomainId::random(),
        name: "cairn".to_owned(),
    };
    let id = ProjectId::random();
    let name = "cairn-1".to_owned();
    let project = Project {
        id,
        domain: domain.id,
        name,
        created_at: at(1),
    };
    let mut tx = meta.begin().await.unwrap();
    tx.insert_domain(&domain).await.unwrap();
    tx.insert_project(&project).await.unwrap();
    assert_eq!(tx.domain_by_name("cairn").await.unwrap(), Some(domain));
    assert_eq!(tx.project(id).await.unwrap(), Some(project));
    tx.commit().await.unwrap();
    id
}

fn vault(project: ProjectId, name: &str, seconds: i64) -> Vault {
    Vault {
        id: VaultId::random(),
        project,
        name: name.to_owned(),
        description: "it's 100% \"quoted\"".to_owned(),
        object_type: ObjectType::Disk,
        protect_type: "backup".to_owned(),
        cloud_type: "public".to_owned(),
        consistent_level: "crash_consistent".to_owned(),
        status: VaultStatus::Available,
        size_gb: 100,
        auto_bind: true,
        auto_expand: false,
        smn_notify: true,
        threshold: 80,
        locked: false,
        is_multi_az: false,
        enterprise_project: "0".to_owned(),
        backup_name_prefix: String::new(),
        bind_rules: serde_json::json!({ "tags": [{ "key": "ключ", "value": null }] }),
        tags: serde_json::json!([]),
        created_at: at(seconds),
        updated_at: at(seconds),
    }
}

fn bound(vault: VaultId, seconds: i64) -> BoundResource {
    let id = ResourceId::random();
    BoundResource {
        id,
        vault,
        resource_type: ResourceType::Server,
        name: "web-1".to_owned(),
        size_bytes: (1 << 44) + 1,
        removing: false,
        auto_protect: true,
        extra_info: ResourceExtraInfo {
            exclude_volumes: vec![ResourceId::random()],
            include_volumes: vec![VolumeChoice {
                id,
                os_version: Some("12".to_owned()),
            }],
        },
        bound_at: at(seconds),
        backup_count: 0,
        backup_bytes: 0,
        protect_status: ProtectStatus::Available,
    }
}

fn checkpoint(vault: &Vault) -> Checkpoint {
    Checkpoint {
        id: CheckpointId::random(),
        project: vault.project,
        vault: vault.id,
        vault_name: vault.name.clone(),
        name: "nightly".to_owned(),
        description: String::new(),
        retention_days: -1,
        skipped: vec![Skipped {
            id: ResourceId::random(),
            resource_type: ResourceType::Volume,
            name: "gone".to_owned(),
            reason: SkipReason::Gone,
        }],
        created_at: at(5),
    }
}

fn backup(vault: &Vault, checkpoint: CheckpointId, resource: ResourceId, seconds: i64) -> Backup {
    Backup {
        id: BackupId::random(),
        project: vault.project,
        vault: vault.id,
        checkpoint,
        parent: None,
        name: format!("backup_{seconds}"),
        description: String::new(),
        status: BackupStatus::Available,
        resource,
        resource_name: "Web_1".to_owned(),
        resource_type: ResourceType::Server,
        size_bytes: 1 << 40,
        used_bytes: 1 << 20,
        image_type: "backup".to_owned(),
        incremental: seconds % 2 == 0,
        auto_trigger: false,
        system_disk: true,
        enterprise_project: "0".to_owned(),
        root: Some("ab".repeat(32)),
        error_message: None,
        created_at: at(seconds),
        updated_at: at(seconds),
        protected_at: Some(at(seconds + 1)),
        expired_at: None,
    }
}

#[tokio::test]
async fn identities_are_found_by_every_name_they_have() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let domain = tx.domain_by_name("cairn").await.unwrap().unwrap().id;
        let user = User {
            id: UserId::random(),
            domain,
            name: "admin".to_owned(),
            password_hash: "$argon2id$".to_owned(),
            created_at: at(2),
        };
        tx.insert_user(&user).await.unwrap();
        assert_eq!(tx.projects_of(user.id, None).await.unwrap(), []);
        let grant = Grant {
            user: user.id,
            project,
            role: "admin".to_owned(),
        };
        tx.insert_grant(&grant).await.unwrap();
        let key = AccessKey {
            access_key: "AK".to_owned(),
            user: user.id,
            sealed_secret: "00".to_owned(),
            created_at: at(3),
        };
        tx.insert_access_key(&key).await.unwrap();
        let mut token = Token {
            digest: "d".to_owned(),
            user: user.id,
            project: Some(project),
            issued_at: at(3),
            expires_at: at(10),
        };
        tx.insert_token(&token).await.unwrap();
        token.digest = "e".to_owned();
        token.project = None;
        token.expires_at = at(20);
        tx.insert_token(&token).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = meta.begin().await.unwrap();
        assert_eq!(
            tx.user_by_name(domain, "admin").await.unwrap().as_ref(),
            Some(&user)
        );
        assert_eq!(tx.user_by_name(domain, "Admin").await.unwrap(), None);
        assert_eq!(
            tx.users(domain, None).await.unwrap(),
            std::slice::from_ref(&user)
        );
        assert_eq!(tx.grant(user.id, project).await.unwrap(), Some(grant));
        assert_eq!(tx.access_key("AK").await.unwrap(), Some(key));
        assert_eq!(
            tx.projects_of(user.id, Some("cairn-1"))
                .await
                .unwrap()
                .len(),
            1
        );
        assert_eq!(
            tx.projects_of(user.id, Some("cairn")).await.unwrap().len(),
            0
        );
        assert_eq!(tx.remove_ended_tokens(at(10)).await.unwrap(), 1);
        assert_eq!(tx.token("e").await.unwrap(), Some(token));
        assert_eq!(tx.token("d").await.unwrap(), None);
        // A second of the same name is refused as what it is.
        let error = tx
            .insert_user(&User {
                id: UserId::random(),
                ..user
            })
            .await
            .unwrap_err();
        assert!(error.is_duplicate(), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_catalogue_belongs_to_one_repository() {
    on_each_database(async |meta| {
        let mut tx = meta.begin().await.unwrap();
        assert_eq!(tx.repository_id().await.unwrap(), None);
        tx.insert_repository_id("one").await.unwrap();
        assert_eq!(tx.repository_id().await.unwrap().as_deref(), Some("one"));
        assert!(
            tx.insert_repository_id("two")
                .await
                .unwrap_err()
                .is_duplicate()
        );
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_is_dropped_changes_nothing() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        tx.insert_vault(&vault(project, "lost", 1)).await.unwrap();
        drop(tx);
        let mut tx = meta.read().await.unwrap();
        let (found, count) = tx
            .vaults(project, &VaultFilter::default(), &everything(10))
            .await
            .unwrap();
        assert_eq!((found.len(), count), (0, 0));
    })
    .await;
}

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

#[tokio::test]
async fn backups_are_filtered_sorted_and_paged() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let vault = vault(project, "v", 1);
        let resource = ResourceId::random();
        let point = checkpoint(&vault);
        let mut tx = meta.begin().await.unwrap();
        tx.insert_vault(&vault).await.unwrap();
        tx.insert_checkpoint(&point).await.unwrap();
        let backups: Vec<Backup> = (0..6)
            .map(|number| backup(&vault, point.id, resource, 10 + number))
            .collect();
        for backup in &backups {
            tx.insert_backup(backup).await.unwrap();
        }
        let mut ids = async |filter: BackupFilter, sort: &[BackupSort], page: Page| {
            let (found, count) = tx.backups(project, &filter, sort, &page).await.unwrap();
            let position = |found: &Backup| backups.iter().position(|one| one.id == found.id);
            (
                found
                    .iter()
                    .map(|found| position(found).unwrap())
                    .collect::<Vec<_>>(),
                count,
            )
        };
        let all = BackupFilter::default;
        assert_eq!(ids(all(), &[], everything(4)).await, (vec![5, 4, 3, 2], 6));
        let by_name = [BackupSort {
            column: "name",
            descending: false,
        }];
        assert_eq!(ids(all(), &by_name, everything(3)).await.0, [0, 1, 2]);
        let marker = Some(backups[2].id.to_string());
        let page = Page {
            limit: 2,
            offset: 0,
            marker,
        };
        assert_eq!(ids(all(), &by_name, page.clone()).await.0, [3, 4]);
        assert_eq!(ids(all(), &[], page).await.0, [1, 0]);
        let incremental = BackupFilter {
            incremental: Some(true),
            ..all()
        };
        assert_eq!(
            ids(incremental, &[], everything(9)).await,
            (vec![4, 2, 0], 3)
        );
        let between = BackupFilter {
            created_from: Some(at(11)),
            created_until: Some(at(13)),
            ..all()
        };
        assert_eq!(ids(between, &[], everything(9)).await.0, [3, 2, 1]);
        let named = BackupFilter {
            resource_name: Some("web_".to_owned()),
            ..all()
        };
        assert_eq!(ids(named, &[], everything(9)).await.1, 6);
        let status = vec!["error".to_owned(), "deleting".to_owned()];
        assert_eq!(
            ids(BackupFilter { status, ..all() }, &[], everything(9))
                .await
                .1,
            0
        );
        // 6 MiB of 100 GiB are less than a percent.
        let full = BackupFilter {
            used_percent: Some(1),
            ..all()
        };
        assert_eq!(ids(full, &[], everything(9)).await.1, 0);
    })
    .await;
}

#[tokio::test]
async fn an_operation_log_shows_the_state_of_its_task() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let id = OperationLogId::random();
        let mut task = Task::new(id, "back_up", "{}".to_owned(), "req-1", at(5));
        let log = OperationLog {
            id,
            project,
            vault: VaultId::random(),
            vault_name: "v".to_owned(),
            checkpoint: None,
            policy: None,
            operation_type: OperationType::Backup,
            resource: Some(ResourceId::random()),
            resource_name: Some("web".to_owned()),
            resource_type: Some(ResourceType::Server),
            detail: serde_json::json!({ "operation": "delete" }),
            created_at: at(5),
            status: OperationStatus::Waiting,
            started_at: None,
            ended_at: None,
            updated_at: at(5),
            done_bytes: 0,
            total_bytes: 0,
            error_code: String::new(),
            error_text: String::new(),
            request_id: "req-1".to_owned(),
        };
        let mut tx = meta.begin().await.unwrap();
        tx.insert_task(&task).await.unwrap();
        tx.insert_operation_log(&log).await.unwrap();
        assert_eq!(
            tx.operation_log(project, id).await.unwrap(),
            Some(log.clone())
        );
        tx.claim_task("me", at(6), at(60)).await.unwrap().unwrap();
        let shown = tx.operation_log(project, id).await.unwrap().unwrap();
        assert_eq!(
            (shown.status, shown.started_at),
            (OperationStatus::Running, Some(at(6)))
        );
        task.state = TaskState::Failed;
        task.error_text = "no space".to_owned();
        task.ended_at = Some(at(9));
        assert!(tx.save_task(&task, "me").await.unwrap());
        let status = |status| OperationLogFilter {
            status: Some(status),
            ..Default::default()
        };
        for (filter, count) in [
            (status(OperationStatus::Failed), 1),
            (status(OperationStatus::Running), 0),
            (status(OperationStatus::Timeout), 0),
            (
                OperationLogFilter {
                    vault: Some(log.vault),
                    ..Default::default()
                },
                1,
            ),
            (
                OperationLogFilter {
                    resource_name: Some("WE".to_owned()),
                    ..Default::default()
                },
                1,
            ),
        ] {
            let found = tx
                .operation_logs(project, &filter, &everything(9))
                .await
                .unwrap();
            assert_eq!(found.1, count, "{filter:?}");
        }
        let foreign = ProjectId::random();
        assert_eq!(tx.operation_log(foreign, id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_task_has_one_owner_until_the_lease_ends() {
    on_each_database(async |meta| {
        let id = OperationLogId::random();
        let mut tx = meta.begin().await.unwrap();
        let task = Task::new(id, "collect", "{}".to_owned(), "", at(10));
        tx.insert_task(&task).await.unwrap();
        let twin = Task {
            id: OperationLogId::random(),
            ..task
        };
        tx.insert_task_once(&twin).await.unwrap();
        assert_eq!(
            tx.unfinished_tasks().await.unwrap(),
            1,
            "one that waits is enough"
        );
        assert!(
            tx.claim_task("early", at(9), at(99))
                .await
                .unwrap()
                .is_none()
        );
        let claimed = tx.claim_task("one", at(10), at(20)).await.unwrap().unwrap();
        assert_eq!((claimed.id, claimed.attempts), (id, 1));
        assert!(
            tx.claim_task("two", at(19), at(29))
                .await
                .unwrap()
                .is_none()
        );
        let taken = tx.claim_task("two", at(20), at(30)).await.unwrap().unwrap();
        assert_eq!((taken.attempts, taken.started_at), (2, Some(at(10))));
        assert!(
            !tx.save_task(&claimed, "one").await.unwrap(),
            "it is no longer theirs"
        );
        assert!(tx.save_task(&taken, "two").await.unwrap());
        assert_eq!(tx.end_all_leases(at(21)).await.unwrap(), 1);
        assert!(
            tx.claim_task("three", at(21), at(31))
                .await
                .unwrap()
                .is_some()
        );
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn claimers_that_race_each_get_another_task() {
    on_each_database(async |meta| {
        let count = 40;
        let mut tx = meta.begin().await.unwrap();
        for number in 0..count {
            let id = OperationLogId::random();
            let task = Task::new(id, "collect", number.to_string(), "", at(1));
            tx.insert_task(&task).await.unwrap();
        }
        tx.commit().await.unwrap();
        let meta = Arc::new(meta);
        let mut claimers = tokio::task::JoinSet::new();
        for owner in 0..8 {
            let meta = Arc::clone(&meta);
            claimers.spawn(async move {
                let mut claimed = Vec::new();
                loop {
                    let mut tx = meta.begin().await.unwrap();
                    let task = tx
                        .claim_task(&owner.to_string(), at(2), at(99))
                        .await
                        .unwrap();
                    tx.commit().await.unwrap();
                    match task {
                        Some(task) => claimed.push(task.id),
                        None => return claimed,
                    }
                }
            });
        }
        let mut claimed: Vec<_> = claimers.join_all().await.concat();
        claimed.sort();
        claimed.dedup();
        // One that others held for a moment may be left for the next look.
        let mut tx = meta.begin().await.unwrap();
        let left = tx.claim_task("last", at(2), at(99)).await.unwrap();
        assert_eq!(claimed.len() + usize::from(left.is_some()), count);
    })
    .await;
}

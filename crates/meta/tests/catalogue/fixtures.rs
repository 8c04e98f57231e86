//! A catalogue of its own for each test, and rows to fill it with.

use cairn_meta::{
    Backup, BoundResource, Checkpoint, Domain, Meta, Page, Payment, Project, ResourceExtraInfo,
    SkipReason, Skipped, Tx, Vault, VolumeChoice,
};
use cairn_types::{
    BackupId, BackupStatus, BackupStep, CheckpointId, DomainId, FileProblems, ObjectType,
    OperationDefinition, PolicyId, ProjectId, ProtectStatus, ResourceId, ResourceType, Timestamp,
    VaultId, VaultStatus,
};
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};

/// Runs a test on each database, on a catalogue of its own.
pub async fn on_each_database(test: impl AsyncFn(Meta)) {
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

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000 + 7)
}

pub fn everything(limit: u32) -> Page {
    Page {
        limit,
        offset: 0,
        marker: None,
    }
}

/// A catalogue's first project.
pub async fn project(meta: &Meta) -> ProjectId {
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

pub fn vault(project: ProjectId, name: &str, seconds: i64) -> Vault {
    Vault {
        id: VaultId::random(),
        project,
        name: name.to_owned(),
        description: "it's 100% \"quoted\"".to_owned(),
        object_type: ObjectType::Disk,
        protect_type: "backup".to_owned(),
        cloud_type: "public".to_owned(),
        consistent_level: "crash_consistent".to_owned(),
        status: VaultStatus::FIRST,
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
        tags: Vec::new(),
        payment: Payment::default(),
        availability_zone: Some("az-1".to_owned()),
        sys_lock_source_service: None,
        user: None,
        created_at: at(seconds),
        updated_at: at(seconds),
    }
}

pub fn bound(vault: VaultId, seconds: i64) -> BoundResource {
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

pub fn checkpoint(vault: &Vault) -> Checkpoint {
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

/// A vault and a checkpoint of it, both in the catalogue.
pub async fn vault_with_checkpoint(tx: &mut Tx, project: ProjectId) -> (Vault, Checkpoint) {
    let vault = vault(project, "v", 1);
    let point = checkpoint(&vault);
    tx.insert_vault(&vault).await.unwrap();
    tx.insert_checkpoint(&point).await.unwrap();
    (vault, point)
}

pub fn backup(
    vault: &Vault,
    checkpoint: CheckpointId,
    resource: ResourceId,
    seconds: i64,
) -> Backup {
    Backup {
        id: BackupId::random(),
        project: vault.project,
        vault: vault.id,
        checkpoint,
        parent: None,
        name: format!("backup_{seconds}"),
        description: String::new(),
        status: BackupStatus::FIRST,
        resource,
        resource_name: "Web_1".to_owned(),
        resource_type: ResourceType::Server,
        size_bytes: 1 << 40,
        data_bytes: 1 << 20,
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
        metadata: None,
        policy: Some(PolicyId::random()),
        made_under: Some(OperationDefinition {
            max_backups: Some(3),
            ..OperationDefinition::default()
        }),
        app_consistency: Some("the agent does not answer".to_owned()),
        files_moment: Some("each_file".to_owned()),
        file_problems: FileProblems::found(2, &["a: gone", "b: gone"]),
    }
}

/// Adds a backup that is done at once.
pub async fn insert_available(tx: &mut Tx, backup: &mut Backup) {
    tx.insert_backup(backup).await.unwrap();
    let at = backup.updated_at;
    for step in [BackupStep::StartProtect, BackupStep::FinishProtect] {
        tx.step_backup(backup, step, at).await.unwrap();
    }
}

//! The service's views as the wire's objects.

use cairn_api::backup::{
    AppConsistency, Backup as WireBackup, BackupExtendInfo, BackupOrigin, ReplicationExtraInfo,
    ReplicationRecord,
};
use cairn_api::operation_log::{
    OperationBackup, OperationCommon, OperationDelete, OperationError, OperationExtraInfo,
    OperationLog, OperationMigrateResources, OperationRemoveResources, OperationReplication,
    OperationRestore, OperationSync, OperationUpdateExpirationTime, OperationVaultDelete,
};
use cairn_api::protectable::{Protectable as WireProtectable, ProtectableChild, ProtectableResult};
use cairn_api::resource::{IncludedVolume, Resource, ResourceExtraInfo};
use cairn_api::tag::Tag;
use cairn_api::vault::{Billing, BindRules, Vault as WireVault, VaultResource};
use cairn_api::{ChargingMode, ErrorCode};
use cairn_core::records::{Backup, BoundResource, Page, ReplicationView, Tag as StoredTag};
use cairn_core::{
    BackupView, OperationDetail, OperationView, ProtectableView, VaultView, spec_code,
};
use cairn_core::{Protectable, ProtectableStatus};
use cairn_types::{
    BackupStatus, ByteCount, ObjectType, OperationStatus, OperationType, ReplicationStatus,
    ResourceId, ResourceType, VaultStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Failure, Result};

/// The part of a list that is asked for.
pub(crate) fn page<Id: ToString>(wanted: &cairn_api::page::Page<Id>) -> Page {
    Page {
        limit: wanted.limit,
        offset: wanted.offset.into(),
        marker: wanted.marker.as_ref().map(ToString::to_string),
    }
}

/// A part of the wire that the catalogue keeps as it came.
pub(crate) fn to_json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("wire types have string keys only")
}

fn from_json<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|_| Failure::code(ErrorCode::Unknown))
}

/// A word of the wire, as the catalogue keeps it.
pub(crate) fn word<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Failure::code(ErrorCode::Unknown))
}

/// A vault.
pub(crate) fn vault(view: &VaultView) -> Result<WireVault> {
    let vault = &view.vault;
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Ok(WireVault {
        id: vault.id,
        name: vault.name.clone(),
        description: text(&vault.description),
        project_id: vault.project,
        enterprise_project_id: vault.enterprise_project.clone(),
        user_id: vault.user,
        provider_id: provider_of(vault.object_type).to_owned(),
        created_at: vault.created_at,
        updated_at: Some(vault.updated_at),
        billing: billing(view)?,
        resources: view.resources.iter().map(bound_resource).collect(),
        tags: vault.tags.iter().map(tag).collect(),
        auto_bind: vault.auto_bind,
        bind_rules: from_json::<BindRules>(&vault.bind_rules)?,
        auto_expand: vault.auto_expand,
        availability_zone: vault.availability_zone.clone(),
        backup_name_prefix: text(&vault.backup_name_prefix),
        demand_billing: vault.payment.demand_billing,
        cbc_delete_count: 0,
        frozen: vault.status == VaultStatus::Frozen,
        locked: vault.locked,
        smn_notify: vault.smn_notify,
        threshold: u32::try_from(vault.threshold).unwrap_or(u32::MAX),
        sys_lock_source_service: vault.sys_lock_source_service.clone(),
        version: None,
    })
}

/// A tag.
pub(crate) fn tag(tag: &StoredTag) -> Tag {
    Tag {
        key: tag.key.clone(),
        value: Some(tag.value.clone()),
    }
}

/// A tag as the catalogue keeps it: spaces around it are not part of it.
pub(crate) fn stored_tag(tag: Tag) -> StoredTag {
    StoredTag {
        key: tag.key.trim().to_owned(),
        value: tag.value.unwrap_or_default().trim().to_owned(),
    }
}

fn billing(view: &VaultView) -> Result<Billing> {
    let vault = &view.vault;
    Ok(Billing {
        allocated: view.allocated_gb(),
        charging_mode: match vault.payment.is_in_advance() {
            true => ChargingMode::PrePaid,
            false => ChargingMode::PostPaid,
        },
        cloud_type: word(&vault.cloud_type)?,
        consistent_level: word(&vault.consistent_level)?,
        frozen_scene: None,
        is_multi_az: vault.is_multi_az,
        object_type: vault.object_type,
        order_id: vault.payment.order.clone(),
        product_id: vault.payment.product.clone(),
        partner_bp_id: None,
        protect_type: word(&vault.protect_type)?,
        size: vault.size_gb,
        spec_code: spec_code(vault).to_owned(),
        status: vault.status,
        storage_unit: None,
        used: ByteCount(view.usage.used_bytes).mb_ceil(),
    })
}

/// The provider of what a vault protects.
/// Source: the provider ids that `VaultGet` and `BackupResp` list.
pub(crate) const fn provider_of(object_type: ObjectType) -> &'static str {
    match object_type {
        ObjectType::Vmware => "a13639de-00be-4e94-af30-26912d75e4a2",
        other => other.resource_type().provider_id(),
    }
}

fn bound_resource(bound: &BoundResource) -> VaultResource {
    let included = bound.extra_info.include_volumes.iter();
    VaultResource {
        id: bound.id,
        name: bound.name.clone(),
        resource_type: bound.resource_type,
        protect_status: bound.protect_status,
        size: ByteCount(bound.size_bytes).gb_ceil(),
        backup_size: ByteCount(bound.backup_bytes).mb_ceil(),
        backup_count: u32::try_from(bound.backup_count).unwrap_or(u32::MAX),
        auto_protect: bound.auto_protect,
        extra_info: ResourceExtraInfo {
            exclude_volumes: Some(bound.extra_info.exclude_volumes.clone()),
            include_volumes: Some(
                included
                    .map(|one| IncludedVolume {
                        id: one.id,
                        os_version: one.os_version.clone(),
                    })
                    .collect(),
            ),
        },
    }
}

/// A backup with its children.
pub(crate) fn backup(view: &BackupView) -> Result<WireBackup> {
    let mut wire = single_backup(&view.backup)?;
    wire.children = view
        .children
        .iter()
        .map(single_backup)
        .collect::<Result<_>>()?;
    wire.replication_records = view.replications.iter().map(replication).collect();
    wire.origin = view.import.as_ref().map(|import| BackupOrigin {
        external: import.external.clone(),
        project_id: import.origin.project,
        backup_id: import.origin.backup,
        gone_at: import.gone_at,
    });
    Ok(wire)
}

/// A replication record.
fn replication(view: &ReplicationView) -> ReplicationRecord {
    let record = &view.record;
    let (source, destination) = (&record.source, &record.destination);
    let bytes = cairn_types::Progress::default();
    bytes.add_total(view.total_bytes);
    bytes.advance(view.done_bytes);
    let (progress, fail_code) = match view.status {
        ReplicationStatus::Success => (100, ""),
        ReplicationStatus::Fail => (bytes.percent(), ErrorCode::ReplicaImportFailed.code()),
        _ => (bytes.percent().min(99), ""),
    };
    ReplicationRecord {
        id: record.id,
        created_at: record.created_at,
        status: view.status,
        source_backup_id: source.backup,
        source_checkpoint_id: source.checkpoint,
        source_project_id: source.project,
        source_region: source.region.clone(),
        destination_backup_id: destination.backup,
        destination_checkpoint_id: destination.checkpoint,
        destination_project_id: destination.project,
        destination_region: destination.region.clone(),
        destination_vault_id: destination.vault,
        vault_id: source.vault,
        extra_info: ReplicationExtraInfo {
            progress,
            fail_code: fail_code.to_owned(),
            fail_reason: view.error.clone().unwrap_or_default(),
            auto_trigger: record.auto_trigger,
            destination_vault_id: destination.vault,
            destinatio_vault_id: destination.vault,
        },
    }
}

fn single_backup(backup: &Backup) -> Result<WireBackup> {
    let is_disk = backup.resource_type == ResourceType::Volume;
    // Of one that came to nothing it says nothing.
    let consistency = backup.app_consistency.as_deref();
    let consistency = consistency.filter(|_| backup.status != BackupStatus::Error);
    Ok(WireBackup {
        id: backup.id,
        name: backup.name.clone(),
        description: Some(backup.description.clone()),
        status: backup.status,
        image_type: word(&backup.image_type)?,
        checkpoint_id: backup.checkpoint,
        parent_id: backup.parent,
        project_id: backup.project,
        enterprise_project_id: backup.enterprise_project.clone(),
        vault_id: backup.vault,
        provider_id: backup.resource_type.provider_id().to_owned(),
        resource_id: backup.resource,
        resource_name: backup.resource_name.clone(),
        resource_type: backup.resource_type,
        resource_size: ByteCount(backup.size_bytes).gb_ceil(),
        resource_az: None,
        created_at: backup.created_at,
        protected_at: backup.protected_at,
        updated_at: Some(backup.updated_at),
        expired_at: backup.expired_at,
        extend_info: BackupExtendInfo {
            auto_trigger: backup.auto_trigger,
            bootable: is_disk.then_some(backup.system_disk),
            contain_system_disk: (!is_disk).then_some(backup.system_disk),
            encrypted: Some(false),
            incremental: backup.incremental,
            is_multi_az: false,
            os_images_data: Some(Vec::new()),
            support_lld: Some(false),
            supported_restore_mode: Some("backup".to_owned()),
            system_disk: is_disk.then_some(backup.system_disk),
            app_consistency: consistency.map(app_consistency),
            files_moment: backup.files_moment.clone(),
            file_problems: backup.file_problems.clone(),
            ..BackupExtendInfo::default()
        },
        children: Vec::new(),
        incremental: backup.incremental,
        replication_records: Vec::new(),
        scheduled_operation_id: None,
        version: 3,
        origin: None,
    })
}

/// How it went to bring applications to rest, where that was asked for. The vendor has no list
/// of the codes.
fn app_consistency(why_not: &str) -> AppConsistency {
    let (status, code) = match why_not.is_empty() {
        true => ("1", ""),
        false => ("0", "Cairn.0009"),
    };
    AppConsistency {
        app_consistency: "1".to_owned(),
        app_consistency_status: status.to_owned(),
        app_consistency_error_code: code.to_owned(),
        app_consistency_error_message: why_not.to_owned(),
    }
}

/// An operation log.
pub(crate) fn operation_log(view: OperationView) -> OperationLog {
    let log = &view.log;
    let resource_type = log.resource_type.unwrap_or(ResourceType::Server);
    let succeeded = log.status == OperationStatus::Success;
    let progress = cairn_types::Progress::default();
    progress.add_total(log.total_bytes);
    progress.advance(log.done_bytes);
    let common = OperationCommon {
        progress: if succeeded {
            100
        } else {
            progress.percent().min(99)
        },
        request_id: log.request_id.clone(),
        task_id: Some(log.id.to_string()),
        bytes_done: Some(log.done_bytes),
        bytes_total: Some(log.total_bytes),
    };
    let resource = match (log.resource, &log.resource_name) {
        (Some(id), name) => Resource {
            id,
            resource_type,
            name: name.clone(),
            extra_info: None,
        },
        // What is about a whole vault names the vault.
        (None, _) => Resource {
            id: cairn_types::ResourceId::from_uuid(
                log.vault.map(|id| id.uuid()).unwrap_or_default(),
            ),
            resource_type,
            name: Some(log.vault_name.clone()),
            extra_info: None,
        },
    };
    OperationLog {
        id: log.id,
        operation_type: log.operation_type,
        status: log.status,
        project_id: log.project,
        checkpoint_id: log.checkpoint,
        policy_id: log.policy,
        provider_id: Some(resource_type.provider_id().to_owned()),
        vault_id: log.vault,
        vault_name: log.vault.map(|_| log.vault_name.clone()),
        created_at: log.created_at,
        started_at: log.started_at.unwrap_or(log.created_at),
        ended_at: log.ended_at,
        updated_at: log.updated_at,
        error_info: error_info(&view),
        extra_info: extra_info(common, resource, log.status, view.detail),
    }
}

fn error_info(view: &OperationView) -> OperationError {
    let log = &view.log;
    let code = match (log.error_code.as_str(), log.error_text.as_str()) {
        ("", "") => "",
        ("", _) => match log.operation_type {
            OperationType::Replication => ErrorCode::ReplicaImportFailed.code(),
            OperationType::Sync => ErrorCode::ObjectList.code(),
            OperationType::VaultDelete => ErrorCode::VaultDeletionFailed.code(),
            OperationType::RemoveResource => ErrorCode::RemoveBackupsFailed.code(),
            _ => ErrorCode::Unknown.code(),
        },
        (code, _) => code,
    };
    OperationError {
        code: code.to_owned(),
        message: log.error_text.clone(),
    }
}

fn extra_info(
    common: OperationCommon,
    resource: Resource,
    status: OperationStatus,
    detail: Option<OperationDetail>,
) -> OperationExtraInfo {
    let mut extra = OperationExtraInfo {
        common,
        resource,
        backup: None,
        restore: None,
        delete: None,
        remove_resources: None,
        replication: None,
        sync: None,
        vault_delete: None,
        migrate_resources: None,
        update_expiration_time: None,
    };
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    match detail {
        Some(OperationDetail::Backup {
            backup,
            backup_name,
            incremental,
            app_consistency,
            file_problems,
        }) => {
            // Of a backup that came to nothing it says nothing.
            let told = app_consistency.filter(|_| status != OperationStatus::Failed);
            let frozen = told.as_deref().map(self::app_consistency);
            extra.backup = Some(OperationBackup {
                backup_id: backup,
                backup_name,
                incremental,
                app_consistency_error_code: frozen
                    .as_ref()
                    .map(|one| one.app_consistency_error_code.clone()),
                app_consistency_error_message: frozen
                    .as_ref()
                    .map(|one| one.app_consistency_error_message.clone()),
                app_consistency_status: frozen.map(|one| one.app_consistency_status),
                file_problems,
            });
        }
        Some(OperationDetail::Restore {
            backup,
            backup_name,
            target,
            target_name,
            file_problems,
        }) => {
            extra.restore = Some(OperationRestore {
                backup_id: backup,
                backup_name,
                target_resource_id: target,
                target_resource_name: target_name,
                file_problems,
            });
        }
        Some(OperationDetail::Delete {
            backup,
            backup_name,
        }) => {
            extra.delete = Some(OperationDelete {
                backup_id: backup,
                backup_name,
            });
        }
        Some(OperationDetail::RemoveResources {
            failed,
            total,
            resources,
        }) => {
            extra.remove_resources = Some(OperationRemoveResources {
                fail_count: small(failed),
                total_count: small(total),
                resources: named(resources),
            });
        }
        Some(OperationDetail::MigrateResources {
            destination,
            total,
            resources,
        }) => {
            extra.migrate_resources = Some(OperationMigrateResources {
                destination_vault_id: destination,
                fail_count: 0,
                total_count: small(total),
                resources: named(resources),
            });
        }
        Some(OperationDetail::UpdateExpirationTime { affected, day }) => {
            extra.update_expiration_time = Some(OperationUpdateExpirationTime {
                affected_backups_count: small(affected),
                expiration_day: day,
            });
        }
        Some(OperationDetail::Replication {
            source,
            destination,
        }) => {
            extra.replication = Some(OperationReplication {
                source_backup_id: source.backup,
                source_backup_name: source.name,
                source_checkpoint_id: source.checkpoint,
                source_project_id: source.project,
                source_region: source.region,
                destination_backup_id: destination.backup,
                destination_backup_name: destination.name,
                destination_checkpoint_id: destination.checkpoint,
                destination_project_id: destination.project,
                destination_region: destination.region,
            });
        }
        Some(OperationDetail::Sync {
            synced,
            deleted,
            failed,
        }) => {
            extra.sync = Some(OperationSync {
                sync_backup_num: small(synced),
                delete_backup_num: small(deleted),
                err_sync_backup_num: small(failed),
            });
        }
        Some(OperationDetail::Import { .. }) => {
            let is = |wanted: OperationStatus| u32::from(status == wanted);
            extra.sync = Some(OperationSync {
                sync_backup_num: is(OperationStatus::Success),
                delete_backup_num: 0,
                err_sync_backup_num: is(OperationStatus::Failed),
            });
        }
        Some(OperationDetail::VaultDelete { failed, total }) => {
            extra.vault_delete = Some(OperationVaultDelete::new(small(failed), small(total)));
        }
        // CBR's records have no block for these: the results of a verification have a
        // list of their own, and a run without a backup has its reason only.
        Some(OperationDetail::Verify { .. } | OperationDetail::PolicyRun { .. }) | None => {}
    }
    extra
}

fn named(resources: Vec<(ResourceId, ResourceType, String)>) -> Vec<Resource> {
    let resources = resources.into_iter();
    resources
        .map(|(id, resource_type, name)| Resource {
            id,
            resource_type,
            name: Some(name),
            extra_info: None,
        })
        .collect()
}

/// The state of a protectable in the words of the service it stands for: a
/// disk that can be restored is `available`, a server `ACTIVE` or `SHUTOFF`.
pub(crate) fn status_word(status: ProtectableStatus, resource_type: ResourceType) -> &'static str {
    match (status, resource_type) {
        (ProtectableStatus::Running, ResourceType::Server) => "ACTIVE",
        (ProtectableStatus::Available, ResourceType::Server) => "SHUTOFF",
        (status, _) if status.is_usable() => "available",
        (_, ResourceType::Server) => "ERROR",
        (_, _) => "error",
    }
}

/// A protectable with the vault that it is bound to.
pub(crate) fn protectable(view: &ProtectableView) -> Result<WireProtectable> {
    let found = &view.protectable;
    let bound = view.vault.as_ref().map(vault).transpose()?;
    let (result, code, reason) = match (&bound, found.status) {
        (Some(_), _) => (
            false,
            ErrorCode::ResourceInOtherVault,
            "It is bound to a vault.",
        ),
        (None, status) if status.is_usable() => {
            return Ok(wire_protectable(found, free()));
        }
        (None, _) => (
            false,
            ErrorCode::DiskStateForbidsBackup,
            "Its image cannot be read.",
        ),
    };
    let verdict = ProtectableResult {
        result,
        code: code.code().to_owned(),
        reason: reason.to_owned(),
        message: Some(reason.to_owned()),
        vault: bound,
    };
    Ok(wire_protectable(found, verdict))
}

fn free() -> ProtectableResult {
    let (code, reason) = (String::new(), String::new());
    ProtectableResult {
        result: true,
        code,
        reason,
        message: None,
        vault: None,
    }
}

fn wire_protectable(found: &Protectable, verdict: ProtectableResult) -> WireProtectable {
    WireProtectable {
        id: found.id,
        name: found.name.clone(),
        resource_type: found.resource_type,
        size: Some(ByteCount(found.size_bytes).gb_ceil()),
        status: Some(status_word(found.status, found.resource_type).to_owned()),
        detail: detail(found),
        children: found.children.iter().map(child).collect(),
        protectable: verdict,
    }
}

fn child(disk: &Protectable) -> ProtectableChild {
    ProtectableChild {
        id: disk.id,
        name: disk.name.clone(),
        resource_type: disk.resource_type,
        size: Some(ByteCount(disk.size_bytes).gb_ceil()),
        status: Some(status_word(disk.status, disk.resource_type).to_owned()),
        detail: detail(disk),
        children: Vec::new(),
    }
}

/// What the service that a protectable comes from would say of it.
fn detail(found: &Protectable) -> serde_json::Value {
    serde_json::json!({
        "source": found.source,
        "size_bytes": found.size_bytes,
        "bootable": found.system_disk.to_string(),
    })
}

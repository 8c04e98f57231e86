//! Restores of shared backups: a member gets the owner's bytes onto its own
//! resources, and for as long as it does nobody takes the backup away.

use cairn_api::Operation as Op;
use cairn_testkit::{Moment, Sabotage};
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

fn code(answer: &Answer) -> String {
    let code = answer.body["error_code"].as_str().unwrap_or("none");
    code.trim_start_matches("BackupService.").to_owned()
}

/// A backup in the first project, shared with a tenant that has disks.
struct Shared {
    client: Client,
    owner: String,
    member: String,
    backup: String,
    /// The tenant's vault.
    vault: String,
}

impl Shared {
    /// Shared, and not decided on.
    async fn new(object_type: &str) -> Self {
        let mut client = Client::new().await;
        let vault = match object_type {
            "disk" => client.disk_vault().await,
            _ => client.server_vault().await,
        };
        let backup = client.back_up(&vault).await;
        let owner = client.project.clone();
        let member = client.world.tenant().await.project.to_string();
        let body = json!({ "members": [member] });
        let shared = client.call(Op::AddMember, &[&backup], body).await;
        assert_eq!(shared.status, 200, "{shared:?}");
        client.go_to(&member).await;
        let made = client
            .call(
                Op::CreateVault,
                &[],
                vault_body(object_type, 100, json!([])),
            )
            .await;
        let vault = made.body["vault"]["id"].as_str().unwrap().to_owned();
        Self {
            client,
            owner,
            member,
            backup,
            vault,
        }
    }

    /// Shared and accepted.
    async fn accepted(object_type: &str) -> Self {
        let shared = Self::new(object_type).await;
        let accepted = shared
            .decide(json!({ "status": "accepted", "vault_id": shared.vault }))
            .await;
        assert_eq!(accepted.status, 200, "{accepted:?}");
        shared
    }

    async fn decide(&self, body: Value) -> Answer {
        let path = [self.backup.as_str(), self.member.as_str()];
        let call = self.client.call(Op::UpdateMemberStatus, &path, body);
        call.await
    }

    async fn restore(&self, restore: Value) -> Answer {
        let body = json!({ "restore": restore });
        let path = [self.backup.as_str()];
        self.client.call(Op::RestoreBackup, &path, body).await
    }

    /// A restore onto a disk of the member's; its operation log's id.
    async fn begin(&self, disk: &str) -> String {
        let disk = self.client.world.of_tenant(disk).await;
        let begun = self.restore(json!({ "volume_id": disk })).await;
        assert_eq!(begun.status, 202, "{begun:?}");
        begun.body["job_id"].as_str().unwrap().to_owned()
    }

    async fn log(&self, id: &str) -> Value {
        let shown = self.client.call(Op::ShowOpLog, &[id], Value::Null).await;
        shown.body["operation_log"].clone()
    }

    async fn become_owner(&mut self) {
        let owner = self.owner.clone();
        self.client.go_to(&owner).await;
    }

    async fn become_member(&mut self) {
        let member = self.member.clone();
        self.client.go_to(&member).await;
    }

    async fn show(&self) -> Answer {
        let path = [self.backup.as_str()];
        self.client.call(Op::ShowBackup, &path, Value::Null).await
    }
}

#[tokio::test]
async fn a_member_restores_onto_a_disk_of_its_own() {
    let mut shared = Shared::accepted("disk").await;
    let before = shared.client.world.images();
    let log = shared.begin("tenant.img").await;
    let waiting = shared.show().await;
    assert_eq!(waiting.body["backup"]["status"], "available");
    shared.client.world.work().await;

    let log = shared.log(&log).await;
    assert_eq!(log["status"], "success", "{log}");
    assert_eq!(log["project_id"], shared.member);
    assert_eq!(log["vault_id"], shared.vault);
    assert_eq!(log["extra_info"]["restore"]["backup_id"], shared.backup);
    assert_eq!(
        log["extra_info"]["restore"]["target_resource_name"],
        "tenant.img"
    );
    let restored = shared.client.world.tenant_image("tenant.img");
    assert_eq!(restored.len(), 2_000_000, "a larger disk keeps its size");
    assert!(restored[..before[0].len()] == before[0]);
    assert!(shared.client.world.images() == before, "the owner's disks");
    // It costs the member no room, and no backup of its own came of it.
    let vault = shared
        .client
        .call(Op::ShowVault, &[&shared.vault], Value::Null)
        .await;
    assert_eq!(vault.body["vault"]["billing"]["used"], 0);
    let own = shared.client.call(Op::ListBackups, &[], Value::Null).await;
    assert_eq!(own.body["count"], 0);

    // It may do so again, and its owner sees nothing of it.
    shared.begin("tenant.img").await;
    shared.client.world.work().await;
    shared.become_owner().await;
    let query = "operation_type=restore";
    let logs = shared
        .client
        .call_with(Op::ListOpLogs, &[], query, Value::Null)
        .await;
    assert_eq!(logs.body["count"], 0);
}

#[tokio::test]
async fn what_does_not_fit_or_is_not_the_members_is_refused() {
    let shared = Shared::new("disk").await;
    let disk = shared.client.world.of_tenant("tenant.img").await;
    let refused = shared.restore(json!({ "volume_id": disk })).await;
    assert_eq!(code(&refused), "2005", "it is pending");
    let rejected = shared.decide(json!({ "status": "rejected" })).await;
    assert_eq!(rejected.status, 200);
    let refused = shared.restore(json!({ "volume_id": disk })).await;
    assert_eq!(code(&refused), "2005", "it is rejected");
    shared
        .decide(json!({ "status": "accepted", "vault_id": shared.vault }))
        .await;
    let small = shared.client.world.of_tenant("small.img").await;
    let server = shared.client.world.of_tenant("tenant-1").await;
    let owners = shared.client.world.disk().await;
    for (body, expected) in [
        (json!({ "volume_id": small }), "2001"),
        (json!({ "volume_id": owners }), "6302"),
        (json!({ "volume_id": server }), "2012"),
        (json!({ "server_id": server }), "9900"),
        (json!({}), "9900"),
    ] {
        let refused = shared.restore(body.clone()).await;
        assert_eq!(code(&refused), expected, "{body}");
    }
    assert!(
        shared.client.world.tenant_image("tenant.img")[4096..]
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[tokio::test]
async fn a_server_goes_onto_the_disks_that_the_member_names() {
    let shared = Shared::accepted("server").await;
    let shown = shared.show().await;
    let children = shown.body["backup"]["children"].as_array().unwrap().clone();
    let [system, data] = [true, false].map(|system| {
        let is = |child: &&Value| child["extend_info"]["bootable"] == system;
        children.iter().find(is).unwrap()["id"].clone()
    });
    let world = &shared.client.world;
    let server = world.of_tenant("tenant-1").await;
    let root = world.of_tenant("tenant-root.img").await;
    let disk = world.of_tenant("tenant-data.img").await;
    let alone = world.of_tenant("tenant.img").await;
    let mapping = |backup: &Value, volume| json!({ "backup_id": backup, "volume_id": volume });
    let own = world.server().await;
    for (body, expected) in [
        (json!({ "server_id": server }), "9900"),
        (json!({ "server_id": own }), "6302"),
        (
            json!({ "server_id": server, "mappings": [mapping(&system, alone)] }),
            "2012",
        ),
        (
            json!({ "server_id": server, "mappings": [mapping(&json!(shared.backup), root)] }),
            "2012",
        ),
        (
            json!({ "server_id": server, "mappings": [mapping(&data, root)] }),
            "2013",
        ),
    ] {
        let refused = shared.restore(body.clone()).await;
        assert_eq!(code(&refused), expected, "{body}");
    }
    let before = world.images();
    let mappings = [mapping(&system, root), mapping(&data, disk)];
    let begun = shared
        .restore(json!({ "server_id": server, "mappings": mappings }))
        .await;
    let log = begun.body["job_id"].as_str().unwrap().to_owned();
    world.work().await;
    assert_eq!(shared.log(&log).await["status"], "success");
    for (image, bytes) in [
        ("tenant-root.img", &before[1]),
        ("tenant-data.img", &before[2]),
    ] {
        assert!(
            world.tenant_image(image)[..bytes.len()] == bytes[..],
            "{image}"
        );
    }
}

#[tokio::test]
async fn nobody_takes_away_what_a_member_restores() {
    let mut shared = Shared::accepted("disk").await;
    let log = shared.begin("tenant.img").await;
    let disk = shared.client.world.of_tenant("tenant.img").await;
    let again = shared.restore(json!({ "volume_id": disk })).await;
    assert_eq!(code(&again), "2010", "one at a time");
    let turned_down = shared.decide(json!({ "status": "rejected" })).await;
    assert_eq!(code(&turned_down), "6216");
    let path = [shared.vault.as_str()];
    let vault = shared
        .client
        .call(Op::DeleteVault, &path, Value::Null)
        .await;
    assert_eq!(code(&vault), "6216", "the vault it was taken into");
    // What is being overwritten is not backed up meanwhile.
    let resources = json!({ "resources": [{ "id": disk, "type": "OS::Cinder::Volume" }] });
    let bound = shared
        .client
        .call(Op::AddVaultResource, &path, resources)
        .await;
    assert_eq!(bound.status, 200, "{bound:?}");
    let shown = shared.client.call(Op::ShowVault, &path, Value::Null).await;
    let bound = &shown.body["vault"]["resources"][0];
    assert_eq!(bound["protect_status"], "restoring");
    let body = json!({ "checkpoint": { "vault_id": shared.vault } });
    let skipped = shared.client.call(Op::CreateCheckpoint, &[], body).await;
    assert_eq!(code(&skipped), "0001");

    shared.become_owner().await;
    let share = [shared.backup.clone(), shared.member.clone()];
    let share = [share[0].as_str(), share[1].as_str()];
    let shown = shared.show().await;
    let vault = shown.body["backup"]["vault_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let disk = shared.client.world.disk().await;
    for (operation, path, body) in [
        (Op::DeleteBackup, &share[..1], Value::Null),
        (Op::DeleteMember, &share[..], Value::Null),
        (Op::DeleteVault, &[vault.as_str()], Value::Null),
        (
            Op::RemoveVaultResource,
            &[vault.as_str()],
            json!({ "resource_ids": [disk] }),
        ),
    ] {
        let refused = shared.client.call(operation, path, body).await;
        assert_eq!(code(&refused), "6216", "{operation}");
    }
    // The owner's own restore goes on beside it.
    let own = shared.restore(json!({ "volume_id": disk })).await;
    assert_eq!(own.status, 202, "{own:?}");
    shared.client.world.work().await;

    shared.become_member().await;
    assert_eq!(shared.log(&log).await["status"], "success");
    shared.become_owner().await;
    let ended = shared
        .client
        .call(Op::DeleteMember, &share, Value::Null)
        .await;
    assert_eq!(ended.status, 204);
    shared.become_member().await;
    let disk = shared.client.world.of_tenant("tenant.img").await;
    let refused = shared.restore(json!({ "volume_id": disk })).await;
    assert_eq!(
        (refused.status.as_u16(), code(&refused)),
        (404, "6200".to_owned())
    );
}

#[tokio::test]
async fn a_deleted_backup_is_gone_for_its_members() {
    let mut shared = Shared::accepted("disk").await;
    shared.become_owner().await;
    let path = [shared.backup.as_str()];
    let deleted = shared
        .client
        .call(Op::DeleteBackup, &path, Value::Null)
        .await;
    assert_eq!(deleted.status, 204);
    shared.become_member().await;
    let disk = shared.client.world.of_tenant("tenant.img").await;
    let refused = shared.restore(json!({ "volume_id": disk })).await;
    assert_eq!(code(&refused), "2005", "it is on its way out");
    shared.client.world.work().await;
    let refused = shared.restore(json!({ "volume_id": disk })).await;
    assert_eq!(
        (refused.status.as_u16(), code(&refused)),
        (404, "6200".to_owned())
    );
}

#[tokio::test]
async fn a_restore_whose_share_has_ended_writes_nothing() {
    let shared = Shared::accepted("disk").await;
    let before = shared.client.world.tenant_image("tenant.img");
    let log = shared.begin("tenant.img").await;
    // No call does this while the restore waits; another version's might.
    let mut tx = shared.client.world.meta.begin().await.unwrap();
    let (backup, member) = (shared.backup.parse(), shared.member.parse());
    let (backup, member) = (backup.unwrap(), member.unwrap());
    assert!(tx.remove_share(backup, member).await.unwrap());
    tx.commit().await.unwrap();
    shared.client.world.work().await;
    let log = shared.log(&log).await;
    assert_eq!(log["status"], "failed");
    assert_eq!(log["error_info"]["message"], "Backup does not exist.");
    assert!(shared.client.world.tenant_image("tenant.img") == before);
    let mut tx = shared.client.world.meta.read().await.unwrap();
    assert!(!tx.is_restored_from(backup).await.unwrap());
}

#[tokio::test]
async fn a_member_sees_all_of_what_it_accepted() {
    let shared = Shared::accepted("server").await;
    for query in [
        "own_type=shared",
        "own_type=shared&member_status=accepted",
        "own_type=all_granted",
    ] {
        let listed = shared
            .client
            .call_with(Op::ListBackups, &[], query, Value::Null)
            .await;
        let [backup] = &listed.body["backups"].as_array().unwrap()[..] else {
            panic!("{query}: {listed:?}");
        };
        assert_eq!(backup["id"], shared.backup, "{query}");
        assert_eq!(backup["children"].as_array().unwrap().len(), 2, "{query}");
        assert_eq!(backup["vault_id"], shared.vault, "{query}");
    }
    let metadata = shared
        .client
        .call(Op::ShowMetadata, &[&shared.backup], Value::Null)
        .await;
    assert_eq!(metadata.status, 200, "{metadata:?}");
    assert_eq!(metadata.body["volumes"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_members_restore_leaves_nothing_behind_whatever_happens_at_any_step() {
    for step in 0..3 {
        for moment in [
            Moment::FailBefore,
            Moment::FailAfter,
            Moment::FailOnce,
            Moment::Repeat,
            Moment::CrashAfter,
        ] {
            let case = format!("{moment:?} at {step}");
            let shared = Shared::accepted("disk").await;
            let log = shared.begin("tenant.img").await;
            let sabotage = Sabotage {
                kind: "restore",
                step,
                moment,
            };
            let world = &shared.client.world;
            world.work_with(sabotage).await;
            let log = shared.log(&log).await;
            let failed = matches!(moment, Moment::FailBefore | Moment::FailAfter);
            assert_eq!(log["status"] == "failed", failed, "{case}: {log}");
            let shown = shared.show().await;
            assert_eq!(shown.body["backup"]["status"], "available", "{case}");
            let mut tx = world.meta.read().await.unwrap();
            let backup = shared.backup.parse().unwrap();
            assert!(!tx.is_restored_from(backup).await.unwrap(), "{case}");
            drop(tx);
            shared.begin("tenant.img").await;
            world.work().await;
            let disk = &world.images()[0];
            let restored = world.tenant_image("tenant.img");
            assert!(restored[..disk.len()] == disk[..], "{case}");
        }
    }
}

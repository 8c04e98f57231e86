//! Backups copied into replication vaults of other projects.

use cairn_api::Operation as Op;
use cairn_types::Role;
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";
const NO_PROJECT: &str = "075e6035d300d48c2fd0c00b78b71ebf";
const HERE: &str = "cairn-1";

fn code(answer: &Answer) -> String {
    let code = answer.body["error_code"].as_str().unwrap_or("none");
    code.trim_start_matches("BackupService.").to_owned()
}

/// A second project in which the client's user has a role; its id.
async fn second_project(client: &Client, role: Role) -> String {
    let name = format!("second-{role}");
    client.world.project_as(&name, role).await.to_string()
}

/// Makes a vault in another project and comes back; its id.
async fn vault_in(client: &mut Client, project: &str, body: Value) -> String {
    let own = client.project.clone();
    client.go_to(project).await;
    let made = client.call(Op::CreateVault, &[], body).await;
    client.go_to(&own).await;
    assert_eq!(made.status, 200, "{made:?}");
    made.body["vault"]["id"].as_str().unwrap().to_owned()
}

fn replication_vault(size: u64) -> Value {
    let mut body = vault_body("server", size, json!([]));
    body["vault"]["billing"]["protect_type"] = json!("replication");
    body
}

fn destination(project: &str, vault: &str) -> Value {
    json!({ "destination_region": HERE, "destination_project_id": project,
        "destination_vault_id": vault })
}

async fn copy(client: &Client, backup: &str, to: Value) -> Answer {
    let body = json!({ "replicate": to });
    client.call(Op::CopyBackup, &[backup], body).await
}

async fn copy_all(client: &Client, vault: &str, to: &Value) -> Answer {
    let mut wish = to.clone();
    wish["vault_id"] = json!(vault);
    let body = json!({ "replicate": wish });
    client.call(Op::CopyCheckpoint, &[], body).await
}

async fn backup(client: &Client, id: &str) -> Value {
    let shown = client.call(Op::ShowBackup, &[id], Value::Null).await;
    shown.body["backup"].clone()
}

#[tokio::test]
async fn a_backup_is_copied_to_another_project_and_stands_alone_there() {
    let mut client = Client::new().await;
    let vault = client.server_vault().await;
    let source = client.back_up(&vault).await;
    let project = second_project(&client, Role::FullAccess).await;
    let there = vault_in(&mut client, &project, replication_vault(100)).await;
    let mut to = destination(&project, &there);
    to["name"] = json!("copy");
    to["description"] = json!("of web-1");
    let begun = copy(&client, &source, to).await;
    assert_eq!(begun.status, 202);
    let begun = &begun.body["replication"];
    assert_eq!(
        (&begun["backup_id"], &begun["project_id"]),
        (&json!(source), &json!(client.project))
    );
    let waiting = &backup(&client, &source).await["replication_records"][0];
    assert_eq!(waiting["status"], "waiting_replicate");
    assert_eq!(waiting["id"], begun["replication_record_id"]);
    client.world.work().await;

    let record = &backup(&client, &source).await["replication_records"][0];
    assert_eq!(record["status"], "success");
    assert_eq!(record["extra_info"]["progress"], 100);
    assert_eq!(record["extra_info"]["fail_code"], "");
    assert_eq!(record["extra_info"]["destinatio_vault_id"], there);
    assert_eq!(record["destination_project_id"], project);
    for (query, records) in [("", 0), ("show_replication=true", 1)] {
        let listed = client
            .call_with(Op::ListBackups, &[], query, Value::Null)
            .await;
        let shown = &listed.body["backups"][0]["replication_records"];
        assert_eq!(shown.as_array().unwrap().len(), records, "{query}");
    }
    let query = format!("operation_type=replication&destination_project_id={project}");
    let logs = client
        .call_with(Op::ListOpLogs, &[], &query, Value::Null)
        .await;
    assert_eq!(logs.body["count"], 1);
    let log = &logs.body["operation_logs"][0];
    assert_eq!(
        (&log["status"], &log["vault_id"]),
        (&json!("success"), &json!(vault))
    );
    let told = &log["extra_info"]["replication"];
    assert_eq!(told["source_backup_id"], *source);
    assert_eq!(told["destination_backup_name"], "copy");
    let elsewhere = client
        .call_with(
            Op::ListOpLogs,
            &[],
            "destination_region=moon-1",
            Value::Null,
        )
        .await;
    assert_eq!(elsewhere.body["count"], 0);

    // The source goes; the copy stays, whole.
    client.call(Op::DeleteBackup, &[&source], Value::Null).await;
    client.world.work().await;
    client.go_to(&project).await;
    let id = record["destination_backup_id"].as_str().unwrap();
    let replica = backup(&client, id).await;
    assert_eq!(replica["image_type"], "replication");
    assert_eq!(
        (&replica["status"], &replica["name"]),
        (&json!("available"), &json!("copy"))
    );
    assert_eq!(replica["children"].as_array().unwrap().len(), 2);
    assert_eq!(replica["replication_records"], json!([]));
    let point = replica["checkpoint_id"].as_str().unwrap();
    let point = client.call(Op::ShowCheckpoint, &[point], Value::Null).await;
    assert_eq!(point.body["checkpoint"]["status"], "available");
    assert_eq!(point.body["checkpoint"]["vault"]["id"], there);
    let shown = client.call(Op::ShowVault, &[&there], Value::Null).await;
    assert!(shown.body["vault"]["billing"]["used"].as_u64().unwrap() > 0);
    let on = destination(&project, &there);
    assert_eq!(code(&copy(&client, id, on).await), "1002");
    let part = replica["children"][0]["id"].as_str().unwrap();
    assert_eq!(
        code(&copy(&client, part, destination(&project, &there)).await),
        "1002"
    );
    let owner = project.parse().unwrap();
    let held = client.world.stored(owner, "the copy").await;
    assert_eq!(held.len(), 3);
    let gone = client.call(Op::DeleteBackup, &[id], Value::Null).await;
    assert_eq!(gone.status, 204);
    client.world.work().await;
    assert!(client.world.stored(owner, "nothing").await.is_empty());
}

#[tokio::test]
async fn a_whole_vault_is_copied_and_what_has_a_copy_is_left_out() {
    let mut client = Client::new().await;
    let vault = client.server_vault().await;
    let first = client.back_up(&vault).await;
    let second = client.back_up(&vault).await;
    let project = second_project(&client, Role::FullAccess).await;
    let there = vault_in(&mut client, &project, replication_vault(100)).await;
    let to = destination(&project, &there);
    let begun = copy_all(&client, &vault, &to).await;
    let copied: Vec<_> = begun.body["replication"]["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["backup_id"].as_str().unwrap())
        .collect();
    assert_eq!(copied, [first.as_str(), &second]);
    assert_eq!(code(&copy_all(&client, &vault, &to).await), "6130");
    assert_eq!(code(&copy(&client, &first, to.clone()).await), "1009");
    // What is being copied stays where it is.
    let busy = client.call(Op::DeleteBackup, &[&first], Value::Null).await;
    assert_eq!(code(&busy), "6216");
    let busy = client.call(Op::DeleteVault, &[&vault], Value::Null).await;
    assert_eq!(code(&busy), "6130");
    let body = json!({ "resource_ids": [client.world.server().await] });
    let busy = client.call(Op::RemoveVaultResource, &[&vault], body).await;
    assert_eq!(code(&busy), "6130");
    let restore = json!({ "restore": { "server_id": client.world.server().await } });
    let restored = client.call(Op::RestoreBackup, &[&first], restore).await;
    assert_eq!(restored.status, 202, "a copy under way hinders no restore");
    client.world.work().await;

    assert_eq!(code(&copy_all(&client, &vault, &to).await), "0001");
    assert_eq!(code(&copy(&client, &first, to.clone()).await), "1009");
    let third = client.back_up(&vault).await;
    let begun = copy_all(&client, &vault, &to).await;
    assert_eq!(begun.body["replication"]["backups"][0]["backup_id"], third);
    client.world.work().await;
    // Once the copy is deleted there may be another.
    let record = &backup(&client, &first).await["replication_records"][0];
    let copied = record["destination_backup_id"].as_str().unwrap().to_owned();
    let own = client.project.clone();
    client.go_to(&project).await;
    client.call(Op::DeleteBackup, &[&copied], Value::Null).await;
    client.world.work().await;
    client.go_to(&own).await;
    assert_eq!(
        backup(&client, &first).await["replication_records"],
        json!([])
    );
    assert_eq!(copy(&client, &first, to).await.status, 202);
    client.world.work().await;
    assert_eq!(
        backup(&client, &first).await["replication_records"][0]["status"],
        "success"
    );
}

#[tokio::test]
async fn a_copy_goes_only_where_it_may() {
    let mut client = Client::new().await;
    let vault = client.server_vault().await;
    let source = client.back_up(&vault).await;
    let project = second_project(&client, Role::BackupsAndVaultsFullAccess).await;
    let looking = second_project(&client, Role::ReadOnlyAccess).await;
    let there = vault_in(&mut client, &project, replication_vault(100)).await;
    let own = vault_in(&mut client, &project, vault_body("server", 100, json!([]))).await;
    let mut shares = replication_vault(100);
    shares["vault"]["billing"]["object_type"] = json!("turbo");
    let other = vault_in(&mut client, &project, shares).await;
    let full = vault_in(&mut client, &project, replication_vault(10)).await;
    let stranger = client.world.service.add_project("third", "third").await;
    let stranger = stranger.unwrap().project.id.to_string();

    let mut moon = destination(&project, &there);
    moon["destination_region"] = json!("moon-1");
    let mut fast = destination(&project, &there);
    fast["enable_acceleration"] = json!(true);
    let filling = client.back_up(&vault).await;
    copy(&client, &filling, destination(&project, &full)).await;
    client.world.work().await;
    let record = &backup(&client, &filling).await["replication_records"][0];
    let filling = record["destination_backup_id"].as_str().unwrap();
    let room = 10 << 30;
    client
        .world
        .count_as(project.parse().unwrap(), filling.parse().unwrap(), room)
        .await;
    for (to, expected) in [
        (moon, "1005"),
        (fast, "9900"),
        (destination(NO_PROJECT, &there), "1011"),
        (destination(&stranger, &there), "1011"),
        (destination(&looking, &there), "1011"),
        (destination(&project, NOBODYS), "6120"),
        (destination(&project, &vault), "6120"),
        (destination(&project, &own), "6119"),
        (destination(&project, &other), "6118"),
        (destination(&project, &full), "6129"),
    ] {
        let refused = copy(&client, &source, to.clone()).await;
        assert_eq!(code(&refused), expected, "{to}");
        assert_eq!(refused.status, 400, "{to}");
        let refused = copy_all(&client, &vault, &to).await;
        assert_eq!(code(&refused), expected, "{to}");
    }
    assert_eq!(
        backup(&client, &source).await["replication_records"],
        json!([])
    );
    // What is about to go neither takes nor gives.
    begin_to_delete(&client, &project, &there).await;
    let to = destination(&project, &there);
    assert_eq!(code(&copy(&client, &source, to.clone()).await), "6118");
    let own = client.project.clone();
    begin_to_delete(&client, &own, &vault).await;
    assert_eq!(code(&copy(&client, &source, to.clone()).await), "6112");
    assert_eq!(code(&copy_all(&client, &vault, &to).await), "6112");
}

async fn begin_to_delete(client: &Client, project: &str, vault: &str) {
    let mut tx = client.world.meta.begin().await.unwrap();
    let (project, vault) = (project.parse().unwrap(), vault.parse().unwrap());
    let mut row = tx.lock_vault(project, vault).await.unwrap().unwrap();
    let (step, now) = (cairn_types::VaultStep::StartDelete, row.created_at);
    tx.step_vault(&mut row, step, now).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn only_whole_servers_are_copied() {
    let mut client = Client::new().await;
    let project = second_project(&client, Role::FullAccess).await;
    let there = vault_in(&mut client, &project, replication_vault(100)).await;
    let to = destination(&project, &there);
    let disks = client.disk_vault().await;
    let disk = client.back_up(&disks).await;
    assert_eq!(code(&copy(&client, &disk, to.clone()).await), "1003");
    assert_eq!(code(&copy_all(&client, &disks, &to).await), "6122");
    let replicas = vault_in(&mut client, &project, replication_vault(10)).await;
    client.go_to(&project).await;
    assert_eq!(code(&copy_all(&client, &replicas, &to).await), "6128");
    let body = json!({ "checkpoint": { "vault_id": replicas } });
    let refused = client.call(Op::CreateCheckpoint, &[], body).await;
    assert_eq!(code(&refused), "6124");
    assert_eq!(code(&copy(&client, NOBODYS, to.clone()).await), "6200");
    assert_eq!(code(&copy_all(&client, NOBODYS, &to).await), "6105");

    let own = client.world.credentials.project.id.to_string();
    client.go_to(&own).await;
    let servers = client.server_vault().await;
    assert_eq!(code(&copy_all(&client, &servers, &to).await), "0001");
    let body = json!({ "checkpoint": { "vault_id": servers } });
    client.call(Op::CreateCheckpoint, &[], body).await;
    let listed = client
        .call_with(Op::ListBackups, &[], "status=waiting_protect", Value::Null)
        .await;
    let busy = listed.body["backups"][0]["id"].as_str().unwrap();
    assert_eq!(code(&copy(&client, busy, to.clone()).await), "6203");
    std::fs::remove_file(client.world.image("web-data.img")).unwrap();
    client.world.work().await;
    assert_eq!(code(&copy(&client, busy, to).await), "0001");
}

#[tokio::test]
async fn a_copy_in_the_same_project_restores_the_server() {
    let mut client = Client::new().await;
    let vault = client.server_vault().await;
    let source = client.back_up(&vault).await;
    let project = client.project.clone();
    let there = vault_in(&mut client, &project, replication_vault(100)).await;
    copy(&client, &source, destination(&project, &there)).await;
    let copying = client.call(Op::ShowVault, &[&vault], Value::Null).await;
    let status = &copying.body["vault"]["resources"][0]["protect_status"];
    assert_eq!(status, "available", "a copy is no work on the resource");
    client.world.work().await;
    let record = &backup(&client, &source).await["replication_records"][0];
    let replica = record["destination_backup_id"].as_str().unwrap();
    client.call(Op::DeleteBackup, &[&source], Value::Null).await;
    client.world.work().await;
    let before = client.world.images();
    client.world.change_images(5);
    let body = json!({ "restore": { "server_id": client.world.server().await } });
    let begun = client.call(Op::RestoreBackup, &[replica], body).await;
    client.world.work().await;
    let log = begun.body["job_id"].as_str().unwrap();
    let log = client.call(Op::ShowOpLog, &[log], Value::Null).await;
    assert_eq!(log.body["operation_log"]["status"], "success");
    assert!(client.world.images()[1..] == before[1..]);
}

#[tokio::test]
async fn a_copy_that_fails_says_why_and_may_be_made_again() {
    let mut client = Client::new().await;
    let vault = client.server_vault().await;
    let source = client.back_up(&vault).await;
    let project = second_project(&client, Role::FullAccess).await;
    let there = vault_in(&mut client, &project, replication_vault(100)).await;
    let to = destination(&project, &there);
    copy(&client, &source, to.clone()).await;
    let sabotage = cairn_testkit::Sabotage {
        kind: "replicate",
        step: 1,
        moment: cairn_testkit::Moment::FailAfter,
    };
    client.world.work_with(sabotage).await;
    let failed = &backup(&client, &source).await["replication_records"][0];
    assert_eq!(failed["status"], "fail");
    assert_eq!(failed["extra_info"]["fail_code"], "BackupService.1006");
    assert_ne!(failed["extra_info"]["fail_reason"], "");
    let logs = client
        .call_with(
            Op::ListOpLogs,
            &[],
            "operation_type=replication",
            Value::Null,
        )
        .await;
    let log = &logs.body["operation_logs"][0];
    assert_eq!(log["status"], "failed");
    assert_eq!(log["error_info"]["code"], "BackupService.1006");
    copy(&client, &source, to).await;
    client.world.work().await;
    let records = &backup(&client, &source).await["replication_records"];
    assert_eq!(records[0]["status"], "success");
}

#[tokio::test]
async fn this_server_copies_within_its_own_region() {
    let client = Client::new().await;
    let shown = client
        .call(Op::ShowReplicationCapabilities, &[], Value::Null)
        .await;
    let expected = json!([{ "name": HERE, "replication_destinations": [HERE] }]);
    assert_eq!(shown.body["regions"], expected);
}

//! What the states of vaults, backups and disks forbid: each refusal with its
//! code, and that it ends with the state.

use cairn_api::Operation as Op;
use cairn_testkit::{Moment, Sabotage};
use cairn_types::ResourceId;
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

fn code(answer: &Answer) -> &str {
    let code = answer.body["error_code"].as_str();
    code.map_or("none", |code| code.trim_start_matches("BackupService."))
}

fn volume(id: &str) -> Value {
    json!({ "id": id, "type": "OS::Cinder::Volume" })
}

fn server(id: &str, excluded: &[&str]) -> Value {
    json!({ "id": id, "type": "OS::Nova::Server", "extra_info": { "exclude_volumes": excluded } })
}

async fn make(client: &Client, object_type: &str, resources: Value) -> Answer {
    let body = vault_body(object_type, 100, resources);
    client.call(Op::CreateVault, &[], body).await
}

async fn made(client: &Client, object_type: &str, resources: Value) -> String {
    let made = make(client, object_type, resources).await;
    assert_eq!(made.status, 200, "{made:?}");
    made.body["vault"]["id"].as_str().unwrap().to_owned()
}

async fn add(client: &Client, vault: &str, resources: Value) -> Answer {
    let body = json!({ "resources": resources });
    client.call(Op::AddVaultResource, &[vault], body).await
}

async fn remove(client: &Client, vault: &str, resource: &str) -> Answer {
    let body = json!({ "resource_ids": [resource] });
    client.call(Op::RemoveVaultResource, &[vault], body).await
}

async fn checkpoint(client: &Client, vault: &str, parameters: Value) -> Answer {
    let body = json!({ "checkpoint": { "vault_id": vault, "parameters": parameters } });
    client.call(Op::CreateCheckpoint, &[], body).await
}

async fn restore(client: &Client, backup: &str, disk: ResourceId) -> Answer {
    let body = json!({ "restore": { "volume_id": disk } });
    client.call(Op::RestoreBackup, &[backup], body).await
}

async fn delete(client: &Client, backup: &str) -> Answer {
    client.call(Op::DeleteBackup, &[backup], Value::Null).await
}

/// The ids of the server's disks, system disk first, for themselves.
async fn server_disks(client: &Client) -> [String; 2] {
    let mut ids = ["web-root.img", "web-data.img"].map(str::to_owned);
    for id in &mut ids {
        let query = format!("name={id}");
        let listed = client.call_with(Op::ListProtectable, &["disk"], &query, Value::Null);
        let found = &listed.await.body["instances"][0]["id"];
        *id = found.as_str().unwrap().to_owned();
    }
    ids
}

#[tokio::test]
async fn a_vault_that_is_being_deleted_does_nothing_else() {
    let mut client = Client::new().await;
    let vault = client.disk_vault().await;
    let backup = client.back_up(&vault).await;
    let disk = client.world.disk().await;
    let owner = client.project.clone();
    let token = client.token.clone();
    client.become_stranger().await;
    let member = std::mem::replace(&mut client.project, owner);
    client.token = token;
    let gone = client.call(Op::DeleteVault, &[&vault], Value::Null).await;
    assert_eq!(gone.status, 204);

    let rename = json!({ "vault": { "name": "other" } });
    let renamed = client.call(Op::UpdateVault, &[&vault], rename).await;
    assert_eq!(code(&renamed), "6112");
    let [root, _] = server_disks(&client).await;
    let added = add(&client, &vault, json!([volume(&root)])).await;
    assert_eq!(code(&added), "6112");
    let removed = remove(&client, &vault, &disk.to_string()).await;
    assert_eq!(code(&removed), "6112");
    assert_eq!(code(&delete(&client, &backup).await), "6112");
    let made = checkpoint(&client, &vault, json!({})).await;
    assert_eq!(code(&made), "6113");
    assert_eq!(code(&restore(&client, &backup, disk).await), "6202");
    let members = json!({ "members": [member] });
    let shared = client.call(Op::AddMember, &[&backup], members).await;
    assert_eq!(code(&shared), "6712");
    client.world.work().await;
    let shown = client.call(Op::ShowVault, &[&vault], Value::Null).await;
    assert_eq!(code(&shown), "6105");
}

#[tokio::test]
async fn one_thing_at_a_time_is_done_with_a_resource() {
    let mut client = Client::new().await;
    let vault = client.disk_vault().await;
    let first = client.back_up(&vault).await;
    let second = client.back_up(&vault).await;
    let disk = client.world.disk().await;
    let images = client.world.images();
    assert_eq!(
        checkpoint(&client, &vault, json!({})).await.status,
        200,
        "a third"
    );
    assert_eq!(code(&restore(&client, &first, disk).await), "2002");
    client.world.work().await;

    client.world.change_images(5);
    assert_eq!(restore(&client, &first, disk).await.status, 202);
    assert_eq!(code(&restore(&client, &second, disk).await), "2010");
    assert_eq!(code(&delete(&client, &first).await), "6216");
    let (owner, token) = (client.project.clone(), client.token.clone());
    client.become_stranger().await;
    let member = std::mem::replace(&mut client.project, owner);
    client.token = token;
    let members = json!({ "members": [member] });
    let shared = client.call(Op::AddMember, &[&first], members).await;
    assert_eq!(code(&shared), "6216");
    client.world.work().await;
    assert_eq!(client.world.images()[0], images[0]);
    assert_eq!(delete(&client, &first).await.status, 204);
    client.world.work().await;
}

#[tokio::test]
async fn a_checkpoint_leaves_out_what_is_busy_and_says_why() {
    let client = Client::new().await;
    let disk = client.world.disk().await.to_string();
    let [root, data] = server_disks(&client).await;
    let resources = json!([volume(&disk), volume(&root), volume(&data)]);
    let vault = made(&client, "disk", resources).await;
    let whole = checkpoint(&client, &vault, json!({ "resources": [data] })).await;
    client.world.work().await;
    let query = format!(
        "checkpoint_id={}",
        whole.body["checkpoint"]["id"].as_str().unwrap()
    );
    let listed = client.call_with(Op::ListBackups, &[], &query, Value::Null);
    let backup = listed.await.body["backups"][0]["id"].clone();
    let again = restore(&client, backup.as_str().unwrap(), data.parse().unwrap()).await;
    assert_eq!(again.status, 202);
    let busy = checkpoint(&client, &vault, json!({ "resources": [disk] })).await;
    assert_eq!(busy.status, 200);

    let made = checkpoint(&client, &vault, json!({})).await;
    assert_eq!(made.status, 200, "{made:?}");
    let skipped = &made.body["checkpoint"]["vault"]["skipped_resources"];
    let reason = |id: &str| {
        let mut skipped = skipped.as_array().unwrap().iter();
        let found = skipped.find(|resource| resource["id"] == id);
        found.map(|resource| resource["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(reason(&disk).as_deref(), Some("BackupService.6125"));
    assert_eq!(reason(&data).as_deref(), Some("BackupService.2010"));
    assert_eq!(reason(&root), None);
    client.world.work().await;
}

#[tokio::test]
async fn a_disk_that_somebody_has_open_is_not_overwritten() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let backup = client.back_up(&vault).await;
    let disk = client.world.disk().await;
    let reader = client.world.inventory.open_reader(disk).unwrap();
    let held = restore(&client, &backup, disk).await;
    assert_eq!(code(&held), "2011");
    let logs = client.call_with(Op::ListOpLogs, &[], "operation_type=restore", Value::Null);
    assert_eq!(logs.await.body["count"], 0, "nothing was begun");
    drop(reader);
    assert_eq!(restore(&client, &backup, disk).await.status, 202);
    client.world.work().await;

    // Of a server, only the disks that are to be overwritten count.
    let vault = client.server_vault().await;
    let backup = client.back_up(&vault).await;
    let [root, data] = server_disks(&client).await;
    let reader = client.world.inventory.open_reader(data.parse().unwrap());
    let reader = reader.unwrap();
    let server = client.world.server().await;
    let all = json!({ "restore": { "server_id": server } });
    let held = client.call(Op::RestoreBackup, &[&backup], all).await;
    assert_eq!(code(&held), "2011");
    assert!(held.body["error_msg"].as_str().unwrap().contains(&data));
    let shown = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    let children = shown.body["backup"]["children"].as_array().unwrap();
    let child = children.iter().find(|child| child["resource_id"] == *root);
    let mapping = json!({ "backup_id": child.unwrap()["id"], "volume_id": root });
    let one = json!({ "restore": { "server_id": server, "mappings": [mapping] } });
    let begun = client.call(Op::RestoreBackup, &[&backup], one).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    client.world.work().await;
    drop(reader);
}

#[tokio::test]
async fn a_locked_vault_holds_what_a_policy_made_and_nothing_else() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let manual = client.back_up(&vault).await;
    let automatic = checkpoint(&client, &vault, json!({ "auto_trigger": true })).await;
    let query = format!(
        "checkpoint_id={}",
        automatic.body["checkpoint"]["id"].as_str().unwrap()
    );
    client.world.work().await;
    let listed = client.call_with(Op::ListBackups, &[], &query, Value::Null);
    let automatic = listed.await.body["backups"][0]["id"].clone();
    let automatic = automatic.as_str().unwrap();
    let lock = json!({ "vault": { "locked": true } });
    let locked = client.call(Op::UpdateVault, &[&vault], lock).await;
    assert_eq!(locked.status, 200);

    assert_eq!(code(&delete(&client, automatic).await), "6220");
    let whole = client.call(Op::DeleteVault, &[&vault], Value::Null).await;
    assert_eq!(code(&whole), "6220");
    assert_eq!(delete(&client, &manual).await.status, 204);
    client.world.work().await;
    let shown = client.call(Op::ShowBackup, &[&manual], Value::Null).await;
    assert_eq!(code(&shown), "6200");
    let shown = client.call(Op::ShowBackup, &[automatic], Value::Null).await;
    assert_eq!(shown.body["backup"]["status"], "available");
}

#[tokio::test]
async fn a_disk_is_protected_by_itself_or_as_its_servers() {
    let client = Client::new().await;
    let [root, data] = server_disks(&client).await;
    let web = client.world.server().await.to_string();
    let servers = made(&client, "server", json!([server(&web, &[&data])])).await;

    // Bound as the server's: not by itself, neither in a new vault nor in one that is there.
    let disks = made(&client, "disk", json!([])).await;
    let refused = make(&client, "disk", json!([volume(&root)])).await;
    assert_eq!((code(&refused), refused.status.as_u16()), ("6137", 400));
    assert!(refused.body["error_msg"].as_str().unwrap().contains(&root));
    let both = json!([volume(&data), volume(&root)]);
    assert_eq!(code(&add(&client, &disks, both).await), "6137");
    // What the server leaves out may be bound, and then the server may not take it in.
    let added = add(&client, &disks, json!([volume(&data)])).await;
    assert_eq!(added.status, 200, "{added:?}");
    let wider = add(&client, &servers, json!([server(&web, &[])])).await;
    assert_eq!(code(&wider), "6137");
    let same = add(&client, &servers, json!([server(&web, &[&data])])).await;
    assert_eq!(same.status, 200, "{same:?}");

    // The other way round: the disk was first.
    assert_eq!(remove(&client, &servers, &web).await.status, 200);
    client.world.work().await;
    let refused = make(&client, "server", json!([server(&web, &[])])).await;
    assert_eq!(code(&refused), "6137");
    let refused = make(&client, "server", json!([server(&web, &[&root])])).await;
    assert_eq!(code(&refused), "6137");
    assert_eq!(remove(&client, &disks, &data).await.status, 200);
    client.world.work().await;
    let added = add(&client, &servers, json!([server(&web, &[])])).await;
    assert_eq!(added.status, 200, "{added:?}");
}

#[tokio::test]
async fn a_server_is_bound_with_a_disk_that_can_be_read() {
    let client = Client::new().await;
    let [root, data] = server_disks(&client).await;
    let web = client.world.server().await.to_string();
    let none = make(&client, "server", json!([server(&web, &[&root, &data])])).await;
    assert_eq!(code(&none), "7108");
    let vault = client.server_vault().await;
    let none = add(&client, &vault, json!([server(&web, &[&root, &data])])).await;
    assert_eq!(code(&none), "7108");

    client.back_up(&vault).await;
    assert_eq!(remove(&client, &vault, &web).await.status, 200);
    let leaving = add(&client, &vault, json!([server(&web, &[])])).await;
    assert_eq!(code(&leaving), "7116");
    client.world.work().await;

    std::fs::remove_file(client.world.image("web-data.img")).unwrap();
    let unreadable = add(&client, &vault, json!([server(&web, &[])])).await;
    assert_eq!(code(&unreadable), "7101");
    let shown = client.call(Op::ShowVault, &[&vault], Value::Null).await;
    assert_eq!(shown.body["vault"]["resources"], json!([]));
}

/// Fails the next task of this kind in its first step; the code in its operation log.
async fn failed(client: &Client, kind: &'static str, operation_type: &str) -> String {
    let sabotage = Sabotage {
        kind,
        step: 0,
        moment: Moment::FailBefore,
    };
    client.world.work_with(sabotage).await;
    let query = format!("operation_type={operation_type}&status=failed");
    let listed = client.call_with(Op::ListOpLogs, &[], &query, Value::Null);
    let log = listed.await.body["operation_logs"][0].clone();
    let code = log["error_info"]["code"].as_str().unwrap();
    code.trim_start_matches("BackupService.").to_owned()
}

#[tokio::test]
async fn a_deletion_that_fails_says_so_and_can_be_asked_for_again() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let backup = client.back_up(&vault).await;
    let disk = client.world.disk().await.to_string();
    assert_eq!(remove(&client, &vault, &disk).await.status, 200);
    let code = failed(&client, "remove_resources", "remove_resource").await;
    assert_eq!(code, "6115");
    let shown = client.call(Op::ShowVault, &[&vault], Value::Null).await;
    assert_eq!(shown.body["vault"]["resources"][0]["id"], disk);

    let gone = client.call(Op::DeleteVault, &[&vault], Value::Null).await;
    assert_eq!(gone.status, 204);
    let code = failed(&client, "delete_vault", "vault_delete").await;
    assert_eq!(code, "6121");
    let shown = client.call(Op::ShowVault, &[&vault], Value::Null).await;
    assert_eq!(shown.body["vault"]["billing"]["status"], "error");
    let shown = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    assert_eq!(shown.body["backup"]["status"], "available");
    let gone = client.call(Op::DeleteVault, &[&vault], Value::Null).await;
    assert_eq!(gone.status, 204);
    client.world.work().await;
    let shown = client.call(Op::ShowVault, &[&vault], Value::Null).await;
    assert_eq!(shown.status, 404);
}

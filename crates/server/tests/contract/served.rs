//! The operations as their owner uses them.

use cairn_api::Operation as Op;
use serde_json::{Value, json};

use crate::client::{Client, vault_body};

#[tokio::test]
async fn a_vault_is_made_listed_shown_changed_and_deleted() {
    let client = Client::new().await;
    let made = client
        .call(Op::CreateVault, &[], vault_body("disk", 100, json!([])))
        .await;
    let vault = &made.body["vault"];
    let id = vault["id"].as_str().unwrap();
    assert_eq!(vault["billing"]["spec_code"], "vault.backup.volume.normal");
    assert_eq!(vault["billing"]["used"], 0);
    assert_eq!(vault["enterprise_project_id"], "0");
    assert_eq!(vault["bind_rules"], json!({}));

    let shown = client.call(Op::ShowVault, &[id], Value::Null).await;
    assert_eq!(
        shown.body["vault"], *vault,
        "what was answered is what is read"
    );

    let change =
        json!({ "vault": { "name": "other", "billing": { "size": 50 }, "threshold": 90 } });
    let changed = client.call(Op::UpdateVault, &[id], change).await;
    assert_eq!(changed.body["vault"]["name"], "other");
    assert_eq!(changed.body["vault"]["billing"]["size"], 50);

    for (query, count) in [
        ("name=oth", 1),
        ("name=vault_name", 0),
        ("object_type=disk&limit=1", 1),
        ("object_type=server", 0),
        (
            &format!("id={id}&id=3b5816b5-f29c-4172-9d9a-76c719a659ce"),
            1,
        ),
        ("enterprise_project_id=all_granted_eps", 1),
        ("offset=1", 1),
    ] {
        let listed = client
            .call_with(Op::ListVault, &[], query, Value::Null)
            .await;
        assert_eq!(listed.body["count"], count, "{query}: {listed:?}");
    }
    assert_eq!(
        client
            .call(Op::DeleteVault, &[id], Value::Null)
            .await
            .status,
        204
    );
    assert_eq!(
        client.call(Op::ShowVault, &[id], Value::Null).await.status,
        404
    );
}

#[tokio::test]
async fn resources_are_bound_and_taken_out_again() {
    let client = Client::new().await;
    let id = client.server_vault().await;
    let server = client.world.server().await.to_string();
    let shown = client
        .call(Op::ShowProtectable, &["server", &server], Value::Null)
        .await;
    assert_eq!(shown.body["instance"]["protectable"]["vault"]["id"], *id);
    let data = shown.body["instance"]["children"][1]["id"].clone();

    // A server that is in the vault already has its choice of disks replaced.
    let resource = json!({ "id": server, "type": "OS::Nova::Server",
        "extra_info": { "exclude_volumes": [data] } });
    let body = json!({ "resources": [resource] });
    let added = client.call(Op::AddVaultResource, &[&id], body).await;
    assert_eq!(added.body["add_resource_ids"], json!([server]));
    let backup = client.back_up(&id).await;
    let shown = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    assert_eq!(
        shown.body["backup"]["children"].as_array().unwrap().len(),
        1
    );

    let body = json!({ "resource_ids": [server] });
    let removed = client.call(Op::RemoveVaultResource, &[&id], body).await;
    assert_eq!(removed.body["remove_resource_ids"], json!([server]));
    client.world.work().await;
    assert_eq!(
        client
            .call(Op::ShowBackup, &[&backup], Value::Null)
            .await
            .status,
        404
    );
    let shown = client.call(Op::ShowVault, &[&id], Value::Null).await;
    assert_eq!(shown.body["vault"]["resources"], json!([]));
    let query = "operation_type=remove_resource&status=success";
    let logs = client
        .call_with(Op::ListOpLogs, &[], query, Value::Null)
        .await;
    let removal = &logs.body["operation_logs"][0]["extra_info"]["remove_resources"];
    assert_eq!(removal["total_count"], 1, "{logs:?}");
}

#[tokio::test]
async fn a_checkpoint_goes_from_protecting_to_available_and_away_with_its_backups() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let parameters = json!({ "auto_trigger": true, "description": "backup_description",
        "incremental": true, "name": "backup_name",
        "resources": [client.world.disk().await.to_string()] });
    let body = json!({ "checkpoint": { "parameters": parameters, "vault_id": vault } });
    let made = client.call(Op::CreateCheckpoint, &[], body).await;
    let checkpoint = &made.body["checkpoint"];
    assert_eq!(checkpoint["status"], "protecting");
    assert_eq!(
        checkpoint["vault"]["resources"][0]["protect_status"],
        "available"
    );
    assert_eq!(checkpoint["vault"]["resources"][0]["resource_size"], "1");
    assert_eq!(checkpoint["extra_info"]["retention_duration"], -1);
    let id = checkpoint["id"].as_str().unwrap();

    let waiting = client.call(Op::ShowCheckpoint, &[id], Value::Null).await;
    assert_eq!(waiting.body["checkpoint"]["status"], "protecting");
    let resource = &waiting.body["checkpoint"]["vault"]["resources"][0];
    assert_eq!(resource["protect_status"], "protecting");
    client.world.work().await;
    let done = client.call(Op::ShowCheckpoint, &[id], Value::Null).await;
    assert_eq!(done.body["checkpoint"]["status"], "available");

    let logs = client.call(Op::ListOpLogs, &[], Value::Null).await;
    let log = &logs.body["operation_logs"][0];
    assert_eq!(log["status"], "success");
    assert_eq!(log["extra_info"]["common"]["progress"], 100);
    assert_eq!(log["extra_info"]["backup"]["incremental"], "false");
    assert_eq!(log["error_info"], json!({ "code": "", "message": "" }));
    let log = client
        .call(Op::ShowOpLog, &[log["id"].as_str().unwrap()], Value::Null)
        .await;
    let backup = log.body["operation_log"]["extra_info"]["backup"]["backup_id"].clone();
    let backup = backup.as_str().unwrap();

    assert_eq!(
        client
            .call(Op::DeleteBackup, &[backup], Value::Null)
            .await
            .status,
        204
    );
    client.world.work().await;
    assert_eq!(
        client
            .call(Op::ShowBackup, &[backup], Value::Null)
            .await
            .status,
        404
    );
    assert_eq!(
        client
            .call(Op::ShowCheckpoint, &[id], Value::Null)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn backups_are_listed_by_every_filter_and_in_every_order() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let first = client.back_up(&vault).await;
    client.world.change_images(5);
    let second = client.back_up(&vault).await;
    let server_vault = client.server_vault().await;
    let server = client.back_up(&server_vault).await;
    let ids = async |query: &str| -> Vec<String> {
        let listed = client
            .call_with(Op::ListBackups, &[], query, Value::Null)
            .await;
        assert_eq!(listed.status, 200, "{query}: {listed:?}");
        let rows = listed.body["backups"].as_array().unwrap().clone();
        rows.iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids("").await, [&*server, &*second, &*first]);
    assert_eq!(
        ids("sort=created_at:asc").await,
        [&*first, &*second, &*server]
    );
    assert_eq!(
        ids(&format!("vault_id={vault}&incremental=true")).await,
        [&*second]
    );
    assert_eq!(ids("resource_type=OS::Nova::Server").await, [&*server]);
    assert_eq!(
        ids("status=error&status=available&limit=2").await,
        [&*server, &*second]
    );
    assert_eq!(ids(&format!("marker={second}")).await, [&*first]);
    assert_eq!(ids("offset=2").await, [&*first]);
    assert_eq!(ids("own_type=shared").await, Vec::<String>::new());
    assert_eq!(ids("used_percent=1").await, Vec::<String>::new());
    assert_eq!(
        ids("start_time=2030-01-01T00:00:00Z").await,
        Vec::<String>::new()
    );
    assert_eq!(ids(&format!("parent_id={server}")).await.len(), 2);

    let body = json!({ "backup": { "name": "renamed" } });
    let renamed = client.call(Op::UpdateBackup, &[&first], body).await;
    assert_eq!(renamed.body["backup"]["name"], "renamed");
    assert_eq!(ids("name=renamed").await, [&*first]);

    let shown = client.call(Op::ShowBackup, &[&server], Value::Null).await;
    let backup = &shown.body["backup"];
    assert_eq!(backup["extend_info"]["contain_system_disk"], true);
    let children = backup["children"].as_array().unwrap();
    assert_eq!(children.len(), 2);
    assert_eq!(children[0]["extend_info"]["bootable"], true);
    assert_eq!(children[1]["extend_info"]["bootable"], false);
    assert!(children.iter().all(|child| child["parent_id"] == *server));
}

#[tokio::test]
async fn a_restore_brings_every_byte_back() {
    let client = Client::new().await;
    let vault = client.server_vault().await;
    let before = client.world.images();
    let backup = client.back_up(&vault).await;
    client.world.change_images(11);
    let shown = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    let children = shown.body["backup"]["children"].as_array().unwrap();
    let mappings: Vec<Value> = children
        .iter()
        .map(|child| json!({ "backup_id": child["id"], "volume_id": child["resource_id"] }))
        .collect();
    let server = client.world.server().await.to_string();
    let body = json!({ "restore": { "server_id": server, "mappings": mappings } });
    let answer = client.call(Op::RestoreBackup, &[&backup], body).await;
    assert_eq!(answer.status, 202);
    let job = answer.body["job_id"].as_str().unwrap();
    let waiting = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    assert_eq!(waiting.body["backup"]["status"], "waiting_restore");
    client.world.work().await;
    let log = client.call(Op::ShowOpLog, &[job], Value::Null).await;
    assert_eq!(log.body["operation_log"]["status"], "success", "{log:?}");
    assert_eq!(client.world.images()[1..], before[1..]);
}

#[tokio::test]
async fn a_vault_with_backups_is_deleted_by_a_task() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    client.back_up(&vault).await;
    assert_eq!(
        client
            .call(Op::DeleteVault, &[&vault], Value::Null)
            .await
            .status,
        204
    );
    let shown = client.call(Op::ShowVault, &[&vault], Value::Null).await;
    assert_eq!(shown.body["vault"]["billing"]["status"], "deleting");
    client.world.work().await;
    assert_eq!(
        client
            .call(Op::ShowVault, &[&vault], Value::Null)
            .await
            .status,
        404
    );
    let query = "operation_type=vault_delete";
    let logs = client
        .call_with(Op::ListOpLogs, &[], query, Value::Null)
        .await;
    let detail = &logs.body["operation_logs"][0]["extra_info"]["vault_delete"];
    assert_eq!(detail["total_count"], 1, "{logs:?}");
    assert_eq!(detail["fail_delete_count"], 0);
}

#[tokio::test]
async fn protectables_say_what_they_are_and_where_they_are_bound() {
    let client = Client::new().await;
    let listed = client
        .call(Op::ListProtectable, &["disk"], Value::Null)
        .await;
    assert_eq!(listed.body["instances"].as_array().unwrap().len(), 3);
    let free = &listed.body["instances"][0]["protectable"];
    assert_eq!((&free["result"], &free["code"]), (&json!(true), &json!("")));
    client.disk_vault().await;
    let disk = client.world.disk().await.to_string();
    let shown = client
        .call(Op::ShowProtectable, &["disk", &disk], Value::Null)
        .await;
    assert_eq!(shown.body["instance"]["protectable"]["result"], false);
    for kind in ["workspace", "workspace_v2"] {
        let listed = client.call(Op::ListProtectable, &[kind], Value::Null).await;
        assert_eq!(listed.body["instances"], json!([]), "{kind}");
    }
}

#[tokio::test]
async fn a_disk_that_has_grown_is_restored_to_the_size_it_had() {
    let client = Client::new().await;
    let vault = client.disk_vault().await;
    let before = client.world.images();
    let backup = client.back_up(&vault).await;
    let image = std::fs::File::options()
        .write(true)
        .open(client.world.image("disk.img"))
        .unwrap();
    image.set_len(9_000_000).unwrap();
    let disk = client.world.disk().await.to_string();
    let body = json!({ "restore": { "volume_id": disk } });
    let answer = client.call(Op::RestoreBackup, &[&backup], body).await;
    client.world.work().await;
    let job = answer.body["job_id"].as_str().unwrap();
    let log = client.call(Op::ShowOpLog, &[job], Value::Null).await;
    assert_eq!(log.body["operation_log"]["status"], "success", "{log:?}");
    assert_eq!(client.world.images(), before);
}

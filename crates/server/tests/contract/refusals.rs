//! What is refused: with which status and code, and that nothing changes.

use cairn_api::{Operation as Op, Operation};
use serde_json::{Value, json};

use crate::client::{Client, vault_body};

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";

/// The operations that are served, with paths that hold an id of somebody's.
fn with_id(id: &str) -> Vec<(Operation, Vec<String>, Value)> {
    let plain = |operation| (operation, vec![id.to_owned()], Value::Null);
    let with_body = |operation, body| (operation, vec![id.to_owned()], body);
    vec![
        plain(Op::ShowVault),
        plain(Op::DeleteVault),
        with_body(Op::UpdateVault, json!({ "vault": { "name": "x" } })),
        with_body(
            Op::AddVaultResource,
            json!({ "resources": [{ "id": NOBODYS, "type": "OS::Cinder::Volume" }] }),
        ),
        with_body(
            Op::RemoveVaultResource,
            json!({ "resource_ids": [NOBODYS] }),
        ),
        plain(Op::ShowCheckpoint),
        plain(Op::ShowBackup),
        plain(Op::DeleteBackup),
        with_body(Op::UpdateBackup, json!({ "backup": { "name": "x" } })),
        with_body(
            Op::RestoreBackup,
            json!({ "restore": { "volume_id": NOBODYS } }),
        ),
        plain(Op::ShowOpLog),
        plain(Op::ShowVerification),
        (
            Op::ShowProtectable,
            vec!["disk".to_owned(), id.to_owned()],
            Value::Null,
        ),
    ]
}

async fn call(client: &Client, case: &(Operation, Vec<String>, Value)) -> (u16, String) {
    let path: Vec<&str> = case.1.iter().map(String::as_str).collect();
    let answer = client.call(case.0, &path, case.2.clone()).await;
    let text = answer.body.to_string();
    (answer.status.as_u16(), text)
}

#[tokio::test]
async fn another_projects_ids_are_answered_as_if_they_did_not_exist() {
    let mut client = Client::new().await;
    let vault = client.disk_vault().await;
    let backup = client.back_up(&vault).await;
    let disk = client.world.disk().await.to_string();
    let logs = client.call(Op::ListOpLogs, &[], Value::Null).await;
    let log = logs.body["operation_logs"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let checkpoint = logs.body["operation_logs"][0]["checkpoint_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let owner = (client.project.clone(), client.token.clone());
    client.become_stranger().await;
    for foreign in [&vault, &backup, &disk, &log, &checkpoint] {
        for (theirs, nobodys) in with_id(foreign).iter().zip(&with_id(NOBODYS)) {
            let (one, two) = (call(&client, theirs).await, call(&client, nobodys).await);
            let (one, two) = (
                (one.0, one.1.replace(foreign.as_str(), "ID")),
                (two.0, two.1.replace(NOBODYS, "ID")),
            );
            assert_eq!(one, two, "{}", theirs.0);
            assert_eq!(one.0, 404, "{}", theirs.0);
        }
    }
    for (operation, path) in [
        (Op::ListVault, &[][..]),
        (Op::ListBackups, &[]),
        (Op::ListOpLogs, &[]),
        (Op::ListProtectable, &["disk"]),
    ] {
        let listed = client.call(operation, path, Value::Null).await;
        let text = listed.body.to_string();
        assert!(
            !text.contains("vault_name") && !text.contains("disk.img"),
            "{operation}: {text}"
        );
    }
    // Neither their project's door nor one that is not there opens.
    let own = std::mem::replace(&mut client.project, owner.0.clone());
    let shut = client.call(Op::ListVault, &[], Value::Null).await;
    client.project = "0".repeat(32);
    let absent = client.call(Op::ListVault, &[], Value::Null).await;
    assert_eq!((shut.status, &shut.body), (absent.status, &absent.body));
    assert_eq!(shut.status, 403);
    // A vault of one's own does not take another's disk.
    client.project = own;
    let resources = json!([{ "id": disk, "type": "OS::Cinder::Volume" }]);
    let refused = client
        .call(Op::CreateVault, &[], vault_body("disk", 100, resources))
        .await;
    assert_eq!(refused.body["error_code"], "BackupService.6302");
    (client.project, client.token) = owner;
    let left = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    assert_eq!(left.body["backup"]["status"], "available");
    assert_ne!(left.body["backup"]["name"], "x");
}

#[tokio::test]
async fn nobody_gets_nothing() {
    let mut client = Client::new().await;
    for token in ["", "not-a-token"] {
        client.token = token.to_owned();
        for operation in Operation::ALL
            .iter()
            .filter(|one| one.spec().is_in_project() && !one.spec().is_public())
        {
            let path: Vec<&str> = operation
                .spec()
                .path_parameters()
                .skip(1)
                .map(|_| NOBODYS)
                .collect();
            let mut target = operation
                .spec()
                .path
                .replace("{project_id}", &client.project);
            for (name, value) in operation.spec().path_parameters().skip(1).zip(&path) {
                target = target.replace(&format!("{{{name}}}"), value);
            }
            let method = operation.spec().method.as_str();
            let answer = client.send(method, &target, "{".to_owned()).await;
            assert_eq!(answer.status, 401, "{operation}");
            assert_eq!(answer.body["error_code"], "APIGW.0301", "{operation}");
        }
    }
}

#[tokio::test]
async fn ids_and_bodies_that_cannot_be_are_refused() {
    let client = Client::new().await;
    for case in with_id("not-an-id") {
        let (status, text) = call(&client, &case).await;
        assert_eq!(status, 400, "{}: {text}", case.0);
        assert!(text.contains("BackupService.9900"), "{}: {text}", case.0);
    }
    let vaults = format!("/v3/{}/vaults", client.project);
    for body in ["", "{", "[]", "null", "{\"vault\":[]}", "\u{0}"] {
        let answer = client.send("POST", &vaults, body.to_owned()).await;
        assert_eq!(answer.status, 400, "{body:?}");
        assert_eq!(answer.body["error_code"], "BackupService.9900", "{body:?}");
    }
    let large = format!("{{\"vault\":\"{}\"}}", "x".repeat(9 << 20));
    assert_eq!(client.send("POST", &vaults, large).await.status, 413);
    assert_eq!(
        client.send("PATCH", &vaults, String::new()).await.status,
        404
    );
    assert_eq!(
        client.send("GET", "/nowhere", String::new()).await.status,
        404
    );
    let listed = client.call(Op::ListVault, &[], Value::Null).await;
    assert_eq!(listed.body["count"], 0, "nothing was made");
}

#[tokio::test]
async fn rules_of_vaults_are_kept() {
    let client = Client::new().await;
    let (disk, server) = (client.world.disk().await, client.world.server().await);
    let volume = json!({ "id": disk, "type": "OS::Cinder::Volume" });
    let machine = json!({ "id": server, "type": "OS::Nova::Server" });
    let gone = json!({ "id": NOBODYS, "type": "OS::Cinder::Volume" });
    let mislabelled = json!({ "id": server, "type": "OS::Cinder::Volume" });
    for (object_type, resources, code) in [
        ("disk", json!([machine]), "6102"),
        ("server", json!([volume]), "6102"),
        ("disk", json!([mislabelled]), "6102"),
        ("disk", json!([volume, volume]), "6104"),
        ("disk", json!([gone]), "6302"),
        ("file", json!([volume]), "6102"),
        ("vmware", json!([volume]), "6108"),
    ] {
        let refused = client
            .call(
                Op::CreateVault,
                &[],
                vault_body(object_type, 100, resources),
            )
            .await;
        assert_eq!(
            refused.body["error_code"],
            format!("BackupService.{code}"),
            "{object_type}"
        );
    }
    let vault = client.disk_vault().await;
    let taken = client
        .call(
            Op::CreateVault,
            &[],
            vault_body("disk", 100, json!([volume])),
        )
        .await;
    assert_eq!(taken.body["error_code"], "BackupService.6103");
    let again = json!({ "resources": [volume] });
    let again = client.call(Op::AddVaultResource, &[&vault], again).await;
    assert_eq!(again.body["error_code"], "BackupService.7006");
    let absent = json!({ "resource_ids": [NOBODYS] });
    let absent = client
        .call(Op::RemoveVaultResource, &[&vault], absent)
        .await;
    assert_eq!(absent.body["error_code"], "BackupService.6135");

    let lock = json!({ "vault": { "locked": true } });
    assert_eq!(
        client.call(Op::UpdateVault, &[&vault], lock).await.status,
        200
    );
    let unlock = json!({ "vault": { "locked": false } });
    let refused = client.call(Op::UpdateVault, &[&vault], unlock).await;
    let text = "vault not support to modify locked attribute from true to false.";
    assert!(
        refused.body["error_msg"].as_str().unwrap().contains(text),
        "{refused:?}"
    );
    let held = json!({ "resource_ids": [disk] });
    assert_eq!(
        client
            .call(Op::RemoveVaultResource, &[&vault], held)
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn rules_of_checkpoints_and_restores_are_kept() {
    let client = Client::new().await;
    let empty = client
        .call(Op::CreateVault, &[], vault_body("disk", 100, json!([])))
        .await;
    let empty = empty.body["vault"]["id"].clone();
    let vault = client.disk_vault().await;
    for (body, code) in [
        (json!({ "vault_id": NOBODYS }), "6105"),
        (json!({ "vault_id": empty }), "0001"),
        (
            json!({ "vault_id": vault, "parameters": { "resources": [NOBODYS] } }),
            "6135",
        ),
    ] {
        let refused = client
            .call(Op::CreateCheckpoint, &[], json!({ "checkpoint": body }))
            .await;
        assert_eq!(refused.body["error_code"], format!("BackupService.{code}"));
    }
    // While a backup is made, nothing else is done with it or its resource.
    let body = json!({ "checkpoint": { "vault_id": vault } });
    client.call(Op::CreateCheckpoint, &[], body.clone()).await;
    let second = client.call(Op::CreateCheckpoint, &[], body).await;
    assert_eq!(second.body["error_code"], "BackupService.0001");
    let listed = client.call(Op::ListBackups, &[], Value::Null).await;
    let backup = listed.body["backups"][0]["id"].as_str().unwrap();
    let busy = client.call(Op::DeleteBackup, &[backup], Value::Null).await;
    assert_eq!(busy.body["error_code"], "BackupService.6203");
    let busy = client.call(Op::DeleteVault, &[&vault], Value::Null).await;
    assert_eq!(busy.body["error_code"], "BackupService.6203");
    let disk = client.world.disk().await.to_string();
    let home = json!({ "restore": { "volume_id": disk } });
    let early = client
        .call(Op::RestoreBackup, &[backup], home.clone())
        .await;
    assert_eq!(early.body["error_code"], "BackupService.2005");
    client.world.work().await;

    let mapped = json!([{ "backup_id": backup, "volume_id": NOBODYS }]);
    let mapped = json!({ "restore": { "volume_id": disk, "mappings": mapped } });
    let mapped = client.call(Op::RestoreBackup, &[backup], mapped).await;
    assert_eq!(mapped.body["error_code"], "BackupService.2012");
    let elsewhere = json!({ "restore": { "volume_id": NOBODYS } });
    let elsewhere = client.call(Op::RestoreBackup, &[backup], elsewhere).await;
    assert_eq!(elsewhere.body["error_code"], "BackupService.2003");
    let small = std::fs::File::options()
        .write(true)
        .open(client.world.image("disk.img"));
    small.unwrap().set_len(1000).unwrap();
    let small = client.call(Op::RestoreBackup, &[backup], home).await;
    assert_eq!(small.body["error_code"], "BackupService.2001");
    std::fs::remove_file(client.world.image("disk.img")).unwrap();
    let missing = json!({ "restore": { "volume_id": disk } });
    let missing = client.call(Op::RestoreBackup, &[backup], missing).await;
    assert_eq!(missing.status, 404, "{missing:?}");
}

#[tokio::test]
async fn rules_of_server_restores_are_kept() {
    let client = Client::new().await;
    let vault = client.server_vault().await;
    let backup = client.back_up(&vault).await;
    let shown = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    let children = &shown.body["backup"]["children"];
    let (root, data) = (&children[0], &children[1]);
    let server = client.world.server().await;
    for (mappings, code) in [
        (
            json!([{ "backup_id": data["id"], "volume_id": root["resource_id"] }]),
            "2013",
        ),
        (
            json!([{ "backup_id": NOBODYS, "volume_id": root["resource_id"] }]),
            "2012",
        ),
        (
            json!([{ "backup_id": root["id"], "volume_id": NOBODYS }]),
            "2012",
        ),
    ] {
        let body = json!({ "restore": { "server_id": server, "mappings": mappings } });
        let refused = client.call(Op::RestoreBackup, &[&backup], body).await;
        assert_eq!(refused.body["error_code"], format!("BackupService.{code}"));
    }
    let child = root["id"].as_str().unwrap();
    let refused = client.call(Op::DeleteBackup, &[child], Value::Null).await;
    assert_eq!(refused.body["error_code"], "BackupService.6201");
}

#[tokio::test]
async fn a_missing_image_fails_the_backup_with_a_reason_and_hurts_no_other() {
    let client = Client::new().await;
    let vault = client.server_vault().await;
    let whole = client.back_up(&vault).await;
    std::fs::remove_file(client.world.image("web-data.img")).unwrap();
    let failed = client.back_up(&vault).await;
    let shown = client.call(Op::ShowBackup, &[&failed], Value::Null).await;
    assert_eq!(shown.body["backup"]["status"], "error");
    let logs = client
        .call_with(Op::ListOpLogs, &[], "status=failed", Value::Null)
        .await;
    let message = logs.body["operation_logs"][0]["error_info"]["message"]
        .as_str()
        .unwrap();
    assert!(message.contains("web-data.img is missing"), "{message}");
    let shown = client.call(Op::ShowBackup, &[&whole], Value::Null).await;
    assert_eq!(shown.body["backup"]["status"], "available");
    let vault = client.call(Op::ShowVault, &[&vault], Value::Null).await;
    assert_eq!(
        vault.body["vault"]["resources"][0]["protect_status"],
        "error"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_not_bound() {
    let client = Client::new().await;
    std::fs::File::create(client.world.image("bad.qcow2")).unwrap();
    let listed = client
        .call_with(Op::ListProtectable, &["disk"], "name=bad", Value::Null)
        .await;
    let bad = &listed.body["instances"][0];
    assert_eq!(bad["protectable"]["result"], false, "{bad}");
    let resources = json!([{ "id": bad["id"], "type": "OS::Cinder::Volume" }]);
    let refused = client
        .call(Op::CreateVault, &[], vault_body("disk", 100, resources))
        .await;
    assert_eq!(
        refused.body["error_code"], "BackupService.7003",
        "{refused:?}"
    );
}

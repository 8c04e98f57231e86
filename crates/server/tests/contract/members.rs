//! Backups shared with other projects: what owner and member see and may do.

use cairn_api::Operation as Op;
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";
const NO_PROJECT: &str = "075e6035d300d48c2fd0c00b78b71ebf";

fn code(answer: &Answer) -> String {
    let code = answer.body["error_code"].as_str().unwrap_or("none");
    code.trim_start_matches("BackupService.").to_owned()
}

/// Somebody to go on as: a project and a token.
type Who = (String, String);

fn who(client: &Client) -> Who {
    (client.project.clone(), client.token.clone())
}

fn become_(client: &mut Client, who: &Who) {
    (client.project, client.token) = who.clone();
}

/// The owner of an available backup, and a project that it could be shared with.
async fn owner_and_member(client: &mut Client) -> (String, Who, Who) {
    let vault = client.disk_vault().await;
    let backup = client.back_up(&vault).await;
    let owner = who(client);
    client.become_stranger().await;
    let member = who(client);
    become_(client, &owner);
    (backup, owner, member)
}

async fn share(client: &Client, backup: &str, members: &[&str]) -> Answer {
    let body = json!({ "members": members });
    client.call(Op::AddMember, &[backup], body).await
}

async fn own_vault(client: &Client, body: Value) -> String {
    let made = client.call(Op::CreateVault, &[], body).await;
    made.body["vault"]["id"].as_str().unwrap().to_owned()
}

async fn decide(client: &Client, backup: &str, member: &str, body: Value) -> Answer {
    client
        .call(Op::UpdateMemberStatus, &[backup, member], body)
        .await
}

async fn listed(client: &Client, query: &str) -> u64 {
    let listed = client
        .call_with(Op::ListBackups, &[], query, Value::Null)
        .await;
    let count = listed.body["count"].as_u64().unwrap();
    assert_eq!(
        listed.body["backups"].as_array().unwrap().len() as u64,
        count,
        "{query}"
    );
    count
}

#[tokio::test]
async fn a_share_is_offered_taken_turned_down_and_ended() {
    let mut client = Client::new().await;
    let (backup, owner, member) = owner_and_member(&mut client).await;
    let shared = share(&client, &backup, &[&member.0]).await;
    let record = &shared.body["members"][0];
    assert_eq!(record["status"], "pending");
    assert_eq!(record["dest_project_id"], member.0);
    assert!(record["vault_id"].is_null() && record["updated_at"].is_null());
    let path = [backup.as_str(), member.0.as_str()];
    let shown = client.call(Op::ShowMemberDetail, &path, Value::Null).await;
    assert_eq!(shown.body["member"], *record);

    become_(&mut client, &member);
    let seen = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    assert_eq!(seen.body["backup"]["project_id"], owner.0);
    for (query, count) in [
        ("", 0),
        ("own_type=private", 0),
        ("own_type=shared", 1),
        ("own_type=all_granted", 1),
        ("own_type=shared&member_status=pending", 1),
        ("own_type=shared&member_status=accepted", 0),
        ("member_status=pending", 0),
        (
            "own_type=shared&name=manualbk&resource_type=OS::Cinder::Volume",
            1,
        ),
        ("own_type=shared&used_percent=1", 0),
    ] {
        assert_eq!(listed(&client, query).await, count, "{query}");
    }
    let vault = own_vault(&client, vault_body("disk", 100, json!([]))).await;
    client.world.clock.advance(5);
    let body = json!({ "status": "accepted", "vault_id": vault });
    let taken = decide(&client, &backup, &member.0, body).await;
    assert_eq!(taken.body["member"]["status"], "accepted");
    assert_eq!(taken.body["member"]["vault_id"], vault);
    assert!(taken.body["member"]["updated_at"].is_string());
    let seen = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    assert_eq!(seen.body["backup"]["vault_id"], vault);
    for query in [
        "own_type=shared&member_status=accepted".to_owned(),
        format!("own_type=all_granted&vault_id={vault}"),
    ] {
        assert_eq!(listed(&client, &query).await, 1, "{query}");
    }
    // With the vault the decision goes, the backup does not.
    client.call(Op::DeleteVault, &[&vault], Value::Null).await;
    let left = client.call(Op::ShowMemberDetail, &path, Value::Null).await;
    assert_eq!(left.body["member"]["status"], "pending");
    let rejected = decide(&client, &backup, &member.0, json!({ "status": "reject" })).await;
    assert_eq!(rejected.body["member"]["status"], "rejected");
    assert_eq!(
        listed(&client, "own_type=shared&member_status=rejected").await,
        1
    );

    become_(&mut client, &owner);
    let seen = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    assert_eq!(seen.body["backup"]["status"], "available");
    let ended = client.call(Op::DeleteMember, &path, Value::Null).await;
    assert_eq!(ended.status, 204);
    let again = client.call(Op::DeleteMember, &path, Value::Null).await;
    assert_eq!(
        (again.status.as_u16(), code(&again)),
        (404, "6705".to_owned())
    );
    become_(&mut client, &member);
    assert_eq!(listed(&client, "own_type=all_granted").await, 0);
    let gone = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    assert_eq!(code(&gone), "6200");
}

#[tokio::test]
async fn a_member_looks_and_nothing_more() {
    let mut client = Client::new().await;
    let vault = client.server_vault().await;
    let backup = client.back_up(&vault).await;
    let server = client.world.server().await;
    let owner = who(&client);
    client.become_stranger().await;
    let member = who(&client);
    become_(&mut client, &owner);
    share(&client, &backup, &[&member.0]).await;
    let shown = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    let child = shown.body["backup"]["children"][0]["id"].as_str().unwrap();

    become_(&mut client, &member);
    let seen = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    assert_eq!(seen.body["backup"]["children"].as_array().unwrap().len(), 2);
    let part = client.call(Op::ShowBackup, &[child], Value::Null).await;
    assert_eq!(part.status, 200);
    let children = format!("own_type=shared&parent_id={backup}");
    assert_eq!(listed(&client, &children).await, 2);
    for (operation, body) in [
        (Op::DeleteBackup, Value::Null),
        (Op::UpdateBackup, json!({ "backup": { "name": "mine" } })),
        (Op::DeleteMember, Value::Null),
    ] {
        let path = match operation {
            Op::DeleteMember => vec![backup.as_str(), member.0.as_str()],
            _ => vec![backup.as_str()],
        };
        let refused = client.call(operation, &path, body).await;
        assert_eq!(code(&refused), "6200", "{operation}");
    }
    let on = share(&client, &backup, &[&owner.0]).await;
    assert_eq!(code(&on), "6714");
    // It restores nothing before it has accepted.
    let body = json!({ "restore": { "server_id": server } });
    let refused = client.call(Op::RestoreBackup, &[&backup], body).await;
    assert_eq!(code(&refused), "2005");

    become_(&mut client, &owner);
    let path = [backup.as_str(), member.0.as_str()];
    assert_eq!(
        client
            .call(Op::ShowMemberDetail, &path, Value::Null)
            .await
            .status,
        200
    );
    // The backup's end is the share's.
    client.call(Op::DeleteBackup, &[&backup], Value::Null).await;
    client.world.work().await;
    become_(&mut client, &member);
    assert_eq!(listed(&client, "own_type=shared").await, 0);
    let gone = client.call(Op::ShowMemberDetail, &path, Value::Null).await;
    assert_eq!(code(&gone), "6200");
}

#[tokio::test]
async fn what_cannot_be_shared_is_refused() {
    let mut client = Client::new().await;
    let vault = client.server_vault().await;
    let backup = client.back_up(&vault).await;
    let shown = client.call(Op::ShowBackup, &[&backup], Value::Null).await;
    let child = shown.body["backup"]["children"][0]["id"].as_str().unwrap();
    let owner = who(&client);
    client.become_stranger().await;
    let member = client.project.clone();
    become_(&mut client, &owner);
    for (id, members, expected) in [
        (NOBODYS, vec![member.as_str()], "6200"),
        (child, vec![&member], "6707"),
        (&backup, vec![NO_PROJECT], "6704"),
        (&backup, vec!["no-project"], "6704"),
        (&backup, vec![&owner.0], "6704"),
        (&backup, vec![&member, &member], "6703"),
        (&backup, vec![], "9900"),
        (&backup, vec![&member; 11], "9900"),
    ] {
        let refused = share(&client, id, &members).await;
        assert_eq!(code(&refused), expected, "{members:?}");
    }
    let members = client
        .call(Op::ShowMembersDetail, &[&backup], Value::Null)
        .await;
    assert_eq!(members.body["count"], 0, "nothing was shared");
    share(&client, &backup, &[&member]).await;
    assert_eq!(code(&share(&client, &backup, &[&member]).await), "6703");

    let body = json!({ "checkpoint": { "vault_id": vault } });
    let made = client.call(Op::CreateCheckpoint, &[], body).await;
    let query = format!(
        "checkpoint_id={}",
        made.body["checkpoint"]["id"].as_str().unwrap()
    );
    let busy = client
        .call_with(Op::ListBackups, &[], &query, Value::Null)
        .await;
    let busy = busy.body["backups"][0]["id"].as_str().unwrap();
    assert_eq!(code(&share(&client, busy, &[&member]).await), "6702");
    client.world.work().await;
}

#[tokio::test]
async fn only_backups_of_servers_and_disks_are_shared() {
    let mut client = Client::new().await;
    let (backup, owner, member) = owner_and_member(&mut client).await;
    // Nothing here protects a share of files yet: its backup is put into the catalogue.
    let mut tx = client.world.meta.begin().await.unwrap();
    let (project, id) = (owner.0.parse().unwrap(), backup.parse().unwrap());
    let mut row = tx.lock_backup(project, id).await.unwrap().unwrap();
    row.id = cairn_types::BackupId::random();
    row.resource_type = cairn_types::ResourceType::Turbo;
    row.status = cairn_types::BackupStatus::FIRST;
    tx.insert_backup(&row).await.unwrap();
    tx.commit().await.unwrap();
    let refused = share(&client, &row.id.to_string(), &[&member.0]).await;
    assert_eq!(code(&refused), "6700");
}

#[tokio::test]
async fn a_backup_has_at_most_ten_members() {
    let mut client = Client::new().await;
    let (backup, _, _) = owner_and_member(&mut client).await;
    let mut members = Vec::new();
    for number in 0..11 {
        let name = format!("tenant-{number}");
        let made = client
            .world
            .service
            .add_project(&name, &name)
            .await
            .unwrap();
        members.push(made.project.id.to_string());
    }
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    assert_eq!(share(&client, &backup, &members[..3]).await.status, 200);
    let refused = share(&client, &backup, &members[3..]).await;
    assert_eq!(code(&refused), "6701");
    client.world.clock.advance(1);
    assert_eq!(share(&client, &backup, &members[3..10]).await.status, 200);
    assert_eq!(code(&share(&client, &backup, &members[10..]).await), "6701");

    let all = client
        .call_with(
            Op::ShowMembersDetail,
            &[&backup],
            "sort=id:asc",
            Value::Null,
        )
        .await;
    let ids: Vec<&str> = all.body["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["id"].as_str().unwrap())
        .collect();
    assert!(ids.is_sorted() && ids.len() == 10);
    for (query, count, page) in [
        ("limit=3", 10, 3),
        ("limit=3&offset=9", 10, 1),
        (&format!("sort=id:asc&marker={}", ids[7]), 10, 2),
        (&format!("sort=id:asc&marker={}", ids[9]), 10, 0),
        (&format!("marker={NOBODYS}"), 10, 0),
        (&format!("dest_project_id={}", members[4]), 1, 1),
        (&format!("dest_project_id={}", members[10]), 0, 0),
        ("status=accepted", 0, 0),
        ("status=pending&sort=updated_at,status:asc", 10, 10),
        (&format!("vault_id={NOBODYS}"), 0, 0),
        (&format!("image_id={NOBODYS}"), 0, 0),
    ] {
        let listed = client
            .call_with(Op::ShowMembersDetail, &[&backup], query, Value::Null)
            .await;
        assert_eq!(listed.body["count"], count, "{query}");
        let found = listed.body["members"].as_array().unwrap().len();
        assert_eq!(found, page, "{query}");
    }
    let refused = client
        .call_with(Op::ShowMembersDetail, &[&backup], "marker=x", Value::Null)
        .await;
    assert_eq!(code(&refused), "9900");
}

#[tokio::test]
async fn a_share_is_taken_into_a_vault_that_fits() {
    let mut client = Client::new().await;
    let (backup, owner, member) = owner_and_member(&mut client).await;
    let foreign = own_vault(&client, vault_body("disk", 100, json!([]))).await;
    share(&client, &backup, &[&member.0]).await;
    let accept = |vault: &str| json!({ "status": "accepted", "vault_id": vault });
    // Its owner does not decide for a member.
    let refused = decide(&client, &backup, &member.0, accept(&foreign)).await;
    assert_eq!(code(&refused), "6705");

    become_(&mut client, &member);
    let servers = own_vault(&client, vault_body("server", 100, json!([]))).await;
    let disks = own_vault(&client, vault_body("disk", 100, json!([]))).await;
    for (body, expected) in [
        (accept(NOBODYS), "6105"),
        (accept(&foreign), "6105"),
        (accept(&servers), "6713"),
        (json!({ "status": "accepted" }), "6706"),
        (json!({ "status": "pending" }), "6706"),
        (json!({ "status": "gone" }), "6706"),
        (json!({ "status": "accepted", "vault_id": "x" }), "9900"),
    ] {
        let refused = decide(&client, &backup, &member.0, body.clone()).await;
        assert_eq!(code(&refused), expected, "{body}");
    }
    let refused = decide(&client, &backup, &owner.0, accept(&disks)).await;
    assert_eq!(code(&refused), "6705");
    let refused = decide(&client, NOBODYS, &member.0, accept(&disks)).await;
    assert_eq!(code(&refused), "6200");
    // A vault that is about to go takes nothing.
    let mut tx = client.world.meta.begin().await.unwrap();
    let (project, id) = (member.0.parse().unwrap(), disks.parse().unwrap());
    let mut row = tx.lock_vault(project, id).await.unwrap().unwrap();
    let (step, now) = (cairn_types::VaultStep::StartDelete, row.created_at);
    tx.step_vault(&mut row, step, now).await.unwrap();
    tx.commit().await.unwrap();
    let refused = decide(&client, &backup, &member.0, accept(&disks)).await;
    assert_eq!(code(&refused), "6712");
    let shown = client
        .call(Op::ShowMembersDetail, &[&backup], Value::Null)
        .await;
    assert_eq!(shown.body["members"][0]["status"], "pending");
}

#[tokio::test]
async fn members_do_not_see_each_other_and_strangers_see_nothing() {
    let mut client = Client::new().await;
    let (backup, owner, member) = owner_and_member(&mut client).await;
    let third = client.world.service.add_project("third", "third").await;
    let third = third.unwrap().project.id.to_string();
    share(&client, &backup, &[&member.0, &third]).await;

    become_(&mut client, &member);
    let seen = client
        .call(Op::ShowMembersDetail, &[&backup], Value::Null)
        .await;
    assert_eq!(seen.body["count"], 1);
    assert_eq!(seen.body["members"][0]["dest_project_id"], member.0);
    let query = format!("dest_project_id={third}");
    let seen = client
        .call_with(Op::ShowMembersDetail, &[&backup], &query, Value::Null)
        .await;
    assert_eq!(seen.body["count"], 0);
    for other in [third.as_str(), NO_PROJECT] {
        let refused = client
            .call(Op::ShowMemberDetail, &[&backup, other], Value::Null)
            .await;
        assert_eq!(code(&refused), "6705");
    }

    become_(&mut client, &owner);
    let path = [backup.as_str(), member.0.as_str()];
    client.call(Op::DeleteMember, &path, Value::Null).await;
    become_(&mut client, &member);
    for (operation, body) in [
        (Op::ShowMembersDetail, Value::Null),
        (Op::AddMember, json!({ "members": [third] })),
        (Op::ShowMemberDetail, Value::Null),
        (Op::DeleteMember, Value::Null),
        (Op::UpdateMemberStatus, json!({ "status": "rejected" })),
    ] {
        let mut texts = Vec::new();
        for id in [backup.as_str(), NOBODYS] {
            let mut path = vec![id];
            if operation.spec().path_parameters().count() == 3 {
                path.push(&member.0);
            }
            let refused = client.call(operation, &path, body.clone()).await;
            assert_eq!(refused.status, 404, "{operation}");
            texts.push(refused.body.to_string());
        }
        assert_eq!(texts[0], texts[1], "{operation}");
    }
}

//! Agents: registered, listed, given paths, taken off and forgotten.

use cairn_api::Operation as Op;
use serde_json::{Value, json};

use crate::client::{Answer, Client};

const ONE: &str = "489654f2-363b-4ebf-966a-bdf079d97114";
const TWO: &str = "fb711278-e872-4224-b442-8dafc36a543d";
const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";

async fn register(client: &Client, id: &str, host: &str) -> Answer {
    let agent = json!({ "agent_id": id, "host_name": host, "host_ip": "192.168.10.144",
        "host_os": "linux", "agent_version": "1.0.0", "agent_type": "native" });
    client
        .call(Op::RegisterAgent, &[], json!({ "agent": agent }))
        .await
}

async fn add(client: &Client, paths: Value) -> Answer {
    let body = json!({ "add_path": paths });
    client.call(Op::AddAgentPath, &[ONE], body).await
}

fn code(answer: &Answer) -> &str {
    answer.body["error_code"].as_str().unwrap()
}

#[tokio::test]
async fn an_agent_registers_again_and_keeps_its_paths() {
    let client = Client::new().await;
    let made = register(&client, ONE, "ecs-0001").await;
    let agent = &made.body["agent"];
    assert_eq!(agent["status"], "normal");
    assert_eq!(agent["host_nickname"], "");
    let shown = client.call(Op::ShowAgent, &[ONE], Value::Null).await;
    assert_eq!(
        shown.body["agent"], *agent,
        "what was answered is what is read"
    );

    let body = json!({ "add_path": ["/opt/backup", "/var/log", "/opt/backup"],
        "exclude_path": [{ "path_name": "/var/log",
            "exclude_path_name": ["/var/log/a", "/var/log/b"] }] });
    let added = client.call(Op::AddAgentPath, &[ONE], body).await;
    let expected = json!({ "added": ["/opt/backup", "/var/log"], "existed": ["/opt/backup"] });
    assert_eq!(added.body, expected);

    client.world.clock.advance(60);
    let again = register(&client, ONE, "renamed").await;
    let later = &again.body["agent"];
    assert_eq!(later["host_name"], "renamed");
    assert_eq!(later["created_at"], agent["created_at"]);
    assert_ne!(later["last_active_time"], agent["last_active_time"]);
    assert_eq!(later["paths"][0]["dir_path"], "/opt/backup");
    assert_eq!(later["paths"][0]["exclude_paths"], "");
    assert_eq!(later["paths"][1]["exclude_paths"], "/var/log/a,/var/log/b");
    assert_eq!(later["paths"][1]["agent_id"], ONE);

    let body = json!({ "remove_path": ["/opt/backup", "/home"] });
    let removed = client.call(Op::RemoveAgentPath, &[ONE], body).await;
    let expected = json!({ "removed": ["/opt/backup"], "not_existed": ["/home"] });
    assert_eq!(removed.body, expected);

    let body = json!({ "agent": { "status": "uninstall" } });
    let off = client.call(Op::UpdateAgent, &[ONE], body).await;
    assert_eq!(off.body["agent"]["status"], "uninstall");
    assert_eq!(off.body["agent"]["paths"].as_array().unwrap().len(), 1);
    let gone = client.call(Op::UnregisterAgent, &[ONE], Value::Null).await;
    assert_eq!((gone.status.as_u16(), gone.body), (200, Value::Null));
    let shown = client.call(Op::ShowAgent, &[ONE], Value::Null).await;
    assert_eq!(shown.status, 404);
    let anew = register(&client, ONE, "ecs-0001").await;
    assert_eq!(anew.body["agent"]["paths"], json!([]));
}

#[tokio::test]
async fn agents_are_filtered_and_paged() {
    let client = Client::new().await;
    register(&client, ONE, "one").await;
    client.world.clock.advance(1);
    register(&client, TWO, "two").await;
    let body = json!({ "agent": { "status": "uninstall" } });
    client.call(Op::UpdateAgent, &[ONE], body).await;
    for (query, count, ids) in [
        ("", 2, &[TWO, ONE][..]),
        ("limit=1", 2, &[TWO]),
        ("limit=1&offset=1", 2, &[ONE]),
        (&format!("marker={TWO}"), 2, &[ONE]),
        (&format!("marker={ONE}"), 2, &[]),
        (&format!("marker={NOBODYS}"), 2, &[]),
        ("status=normal", 1, &[TWO]),
        ("status=abnormal", 0, &[]),
        (&format!("agent_id={ONE}&agent_id={TWO}"), 2, &[TWO, ONE]),
        (&format!("agent_id={ONE},{NOBODYS}"), 1, &[ONE]),
    ] {
        let listed = client
            .call_with(Op::ListAgent, &[], query, Value::Null)
            .await;
        let agents = listed.body["agents"].as_array().unwrap();
        let found: Vec<_> = agents.iter().map(|agent| &agent["agent_id"]).collect();
        assert_eq!(found, ids, "{query}");
        assert_eq!(listed.body["count"], count, "{query}");
    }
    for query in ["limit=0", "status=well", "agent_id=x"] {
        let refused = client
            .call_with(Op::ListAgent, &[], query, Value::Null)
            .await;
        assert_eq!(code(&refused), "BackupService.9900", "{query}");
    }
}

#[tokio::test]
async fn ids_that_are_none_have_a_code_of_their_own() {
    let client = Client::new().await;
    let refused = register(&client, "x", "ecs-0001").await;
    assert_eq!(code(&refused), "BackupService.7403");
    assert_eq!(refused.body["error_msg"], "Invalid agent x");
    let body = json!({ "agent": { "status": "uninstall" } });
    for operation in [Op::ShowAgent, Op::UpdateAgent, Op::UnregisterAgent] {
        let refused = client.call(operation, &["x"], body.clone()).await;
        assert_eq!(code(&refused), "BackupService.7403", "{operation}");
        assert_eq!(refused.status, 400, "{operation}");
    }
}

#[tokio::test]
async fn an_agent_has_at_most_eight_paths() {
    let client = Client::new().await;
    register(&client, ONE, "ecs-0001").await;
    let many: Vec<String> = (0..9).map(|number| format!("/data/{number}")).collect();
    let refused = add(&client, json!(many)).await;
    assert_eq!(code(&refused), "BackupService.7407");
    assert_eq!(
        refused.body["error_msg"],
        format!("Agent {ONE} path count is exceeded.")
    );
    let shown = client.call(Op::ShowAgent, &[ONE], Value::Null).await;
    assert_eq!(shown.body["agent"]["paths"], json!([]), "none was added");
    assert_eq!(add(&client, json!(many[..8])).await.status, 200);
    assert_eq!(
        add(&client, json!(many[..8])).await.body["added"],
        json!([])
    );
    let refused = add(&client, json!(many[8..])).await;
    assert_eq!(code(&refused), "BackupService.7407");
    let refused = add(&client, json!(["relative"])).await;
    assert_eq!(code(&refused), "BackupService.9900");
}

#[tokio::test]
async fn another_projects_agent_is_not_there() {
    let mut client = Client::new().await;
    register(&client, ONE, "ecs-0001").await;
    add(&client, json!(["/secret"])).await;
    let owner = (client.project.clone(), client.token.clone());
    client.become_stranger().await;
    let cases = [
        (Op::ShowAgent, Value::Null),
        (
            Op::UpdateAgent,
            json!({ "agent": { "status": "uninstall" } }),
        ),
        (Op::AddAgentPath, json!({ "add_path": ["/a"] })),
        (Op::RemoveAgentPath, json!({ "remove_path": ["/secret"] })),
        (Op::UnregisterAgent, Value::Null),
    ];
    for (operation, body) in cases {
        let theirs = client.call(operation, &[ONE], body.clone()).await;
        let nobodys = client.call(operation, &[NOBODYS], body).await;
        assert_eq!(code(&theirs), "BackupService.7410", "{operation}");
        assert_eq!(theirs.status, 404);
        let text = |answer: &Answer, id: &str| answer.body.to_string().replace(id, "ID");
        assert_eq!(text(&theirs, ONE), text(&nobodys, NOBODYS), "{operation}");
    }
    // The same id in another project is another agent.
    let own = register(&client, ONE, "mine").await;
    assert_eq!(own.body["agent"]["paths"], json!([]));
    client.call(Op::UnregisterAgent, &[ONE], Value::Null).await;
    (client.project, client.token) = owner;
    let left = client.call(Op::ShowAgent, &[ONE], Value::Null).await;
    assert_eq!(left.body["agent"]["paths"][0]["dir_path"], "/secret");
    assert_eq!(left.body["agent"]["host_name"], "ecs-0001");
}

#[tokio::test]
async fn a_server_has_no_agent_for_consistent_backups_unless_one_has_come() {
    let client = Client::new().await;
    let (server, disk) = (client.world.server().await, client.world.disk().await);
    let check = async |id: String, resource_type: &str| {
        let one = json!({ "resource_id": id, "resource_type": resource_type });
        let body = json!({ "agent_status": [one] });
        client.call(Op::CheckAgent, &[], body).await
    };
    let known = check(server.to_string(), "OS::Nova::Server").await;
    let state = &known.body["agent_status"][0];
    assert_eq!(state["resource_id"], server.to_string());
    assert_eq!(state["installed"], false);
    assert!(state["code"].is_null() && state["version"].is_null());
    for stranger in [disk.to_string(), NOBODYS.to_owned()] {
        let refused = check(stranger, "OS::Nova::Server").await;
        assert_eq!(code(&refused), "BackupService.7100");
    }
    let refused = check(server.to_string(), "OS::Cinder::Volume").await;
    assert_eq!(code(&refused), "BackupService.9900");
    let none = client
        .call(Op::CheckAgent, &[], json!({ "agent_status": [] }))
        .await;
    assert_eq!(none.body["agent_status"], json!([]));
}

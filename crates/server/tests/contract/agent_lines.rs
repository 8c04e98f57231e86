//! Agents that enrol: tokens, proofs, and what they become.

use cairn_api::Operation as Op;
use cairn_link::enrolment::{AgentEnd, Reply, Request, Token};
use cairn_types::{AgentId, ResourceId};
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

async fn token(client: &Client, server: Option<ResourceId>) -> Token {
    let wish = json!({ "agent_token": { "server_id": server } });
    let made = client.call(Op::CreateAgentToken, &[], wish).await;
    assert_eq!(made.status, 201);
    Token::parse(made.body["agent_token"]["token"].as_str().unwrap()).unwrap()
}

async fn enrol(client: &Client, request: &Request) -> Answer {
    let body = json!({ "enrolment": {
        "token_id": request.token.to_string(), "agent_id": request.agent,
        "public_key": hex::encode(request.public_key), "proof": hex::encode(request.proof),
        "host_name": "db-1", "host_ip": "10.0.0.7", "host_os": "linux", "agent_version": "1.2.3",
    } });
    client.call(Op::EnrolAgent, &[], body).await
}

fn reply(answer: &Answer) -> Reply {
    let bytes = |key: &str| {
        let digits = answer.body["enrolment"][key].as_str().unwrap();
        hex::decode(digits).unwrap().try_into().unwrap()
    };
    Reply {
        public_key: bytes("public_key"),
        proof: bytes("proof"),
    }
}

fn code(answer: &Answer) -> &str {
    answer.body["error_code"].as_str().unwrap_or("none")
}

/// Enrols an agent and returns its id.
async fn enrolled(client: &Client) -> AgentId {
    enrolled_in(client, None).await
}

/// Enrols an agent that is in a server.
async fn enrolled_in(client: &Client, server: Option<ResourceId>) -> AgentId {
    let (id, token) = (AgentId::random(), token(client, server).await);
    let (end, request) = AgentEnd::begin(&token, id);
    let answer = enrol(client, &request).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    assert_eq!(answer.body["enrolment"]["project_id"], client.project);
    assert_eq!(answer.body["enrolment"]["region"], "cairn-1");
    end.finish(&reply(&answer)).unwrap();
    id
}

#[tokio::test]
async fn a_server_has_the_agent_that_came_last_with_a_token_for_it() {
    let client = Client::new().await;
    let (server, disk) = (client.world.server().await, client.world.disk().await);
    let check = async || {
        let one = json!({ "resource_id": server, "resource_type": "OS::Nova::Server" });
        let body = json!({ "agent_status": [one] });
        let checked = client.call(Op::CheckAgent, &[], body).await;
        checked.body["agent_status"][0].clone()
    };
    let shown = async |id: AgentId| {
        let id = id.to_string();
        let shown = client.call(Op::ShowAgent, &[&id], Value::Null).await;
        shown.body["agent"]["server_id"].clone()
    };
    enrolled(&client).await;
    assert_eq!(check().await["installed"], false);
    let first = enrolled_in(&client, Some(server)).await;
    let state = check().await;
    assert_eq!(
        (&state["installed"], &state["version"], &state["is_old"]),
        (&json!(true), &json!("1.2.3"), &json!(false))
    );
    assert_eq!(shown(first).await, json!(server));
    let second = enrolled_in(&client, Some(server)).await;
    assert_eq!(shown(first).await, Value::Null);
    assert_eq!(shown(second).await, json!(server));
    // A disk is no server, and nobody's is nobody's.
    for other in [disk, ResourceId::random()] {
        let wish = json!({ "agent_token": { "server_id": other } });
        let refused = client.call(Op::CreateAgentToken, &[], wish).await;
        assert_eq!(refused.status, 404);
        assert_eq!(code(&refused), "BackupService.7100");
    }
}

#[tokio::test]
async fn an_agent_that_enrols_is_a_host_that_can_be_protected() {
    let client = Client::new().await;
    let id = enrolled(&client).await.to_string();
    let shown = client.call(Op::ShowAgent, &[&id], Value::Null).await;
    assert_eq!(shown.body["agent"]["status"], "normal");
    assert_eq!(shown.body["agent"]["host_name"], "db-1");
    let listed = client.call(Op::ListProtectable, &["native"], Value::Null);
    let listed = listed.await.body;
    let host = &listed["instances"][0];
    assert_eq!((&host["id"], &host["name"]), (&json!(id), &json!("db-1")));

    let body = vault_body(
        "file",
        100,
        json!([{ "id": id, "type": "OS::Native::Server" }]),
    );
    let vault = client.call(Op::CreateVault, &[], body).await;
    let bound = &vault.body["vault"]["resources"];
    assert_eq!(bound[0]["id"], id, "{:?}", vault.body);
    let vault = vault.body["vault"]["id"].as_str().unwrap().to_owned();

    // Its agent goes, and with it its place in the vault.
    let gone = client.call(Op::UnregisterAgent, &[&id], Value::Null).await;
    assert_eq!(gone.status, 200, "{:?}", gone.body);
    client.world.work().await;
    let shown = client.call(Op::ShowVault, &[&vault], Value::Null).await;
    assert_eq!(shown.body["vault"]["resources"], json!([]));
    let listed = client.call(Op::ListProtectable, &["native"], Value::Null);
    assert_eq!(listed.await.body["instances"], json!([]));
}

#[tokio::test]
async fn a_token_lets_one_agent_in_once() {
    let client = Client::new().await;
    let token = token(&client, None).await;
    let (_, stolen) = AgentEnd::begin(&Token::generate(), AgentId::random());
    let (_, mut forged) = AgentEnd::begin(&token, AgentId::random());
    forged.agent = AgentId::random();
    for request in [&stolen, &forged] {
        let refused = enrol(&client, request).await;
        assert_eq!(
            (refused.status.as_u16(), code(&refused)),
            (401, "Cairn.0010")
        );
    }
    // What was refused has used nothing up.
    let (_, request) = AgentEnd::begin(&token, AgentId::random());
    assert_eq!(enrol(&client, &request).await.status, 201);
    let (_, again) = AgentEnd::begin(&token, AgentId::random());
    for request in [&request, &again] {
        assert_eq!(code(&enrol(&client, request).await), "Cairn.0010");
    }
}

#[tokio::test]
async fn a_token_ends() {
    let client = Client::new().await;
    let token = token(&client, None).await;
    client.world.clock.advance(3600);
    let (_, request) = AgentEnd::begin(&token, AgentId::random());
    assert_eq!(code(&enrol(&client, &request).await), "Cairn.0010");
    for hours in [json!(0), json!(169), json!(-1), json!("1")] {
        let body = json!({ "agent_token": { "hours": hours } });
        let refused = client.call(Op::CreateAgentToken, &[], body).await;
        assert_eq!(refused.status, 400, "{hours}");
    }
}

#[tokio::test]
async fn unused_tokens_have_a_limit_until_they_end() {
    let client = Client::new().await;
    let wish = || json!({ "agent_token": { "hours": 1 } });
    for _ in 0..64 {
        let made = client.call(Op::CreateAgentToken, &[], wish()).await;
        assert_eq!(made.status, 201);
    }
    let refused = client.call(Op::CreateAgentToken, &[], wish()).await;
    assert_eq!(
        (refused.status.as_u16(), code(&refused)),
        (400, "Cairn.0011")
    );
    client.world.clock.advance(3600);
    let made = client.call(Op::CreateAgentToken, &[], wish()).await;
    assert_eq!(made.status, 201);
}

#[tokio::test]
async fn no_agent_takes_the_id_of_something_else() {
    let client = Client::new().await;
    let disk = client.world.disk().await;
    let (_, request) =
        AgentEnd::begin(&token(&client, None).await, AgentId::from_uuid(disk.uuid()));
    let refused = enrol(&client, &request).await;
    assert_eq!(
        (refused.status.as_u16(), code(&refused)),
        (409, "Cairn.0012")
    );
    // Its own it takes again, with a new secret.
    let id = enrolled(&client).await;
    let (_, request) = AgentEnd::begin(&token(&client, None).await, id);
    assert_eq!(enrol(&client, &request).await.status, 201);
}

#[tokio::test]
async fn an_agent_that_is_silent_is_abnormal() {
    let client = Client::new().await;
    let id = enrolled(&client).await.to_string();
    client.world.clock.advance(170);
    assert_eq!(
        client.world.service.look_for_silent_agents().await.unwrap(),
        0
    );
    client.world.clock.advance(20);
    assert_eq!(
        client.world.service.look_for_silent_agents().await.unwrap(),
        1
    );
    let shown = client.call(Op::ShowAgent, &[&id], Value::Null).await;
    assert_eq!(shown.body["agent"]["status"], "abnormal");
}

#[tokio::test]
async fn a_stranger_connects_to_nothing() {
    let client = Client::new().await;
    let id = AgentId::random().to_string();
    let refused = client.call(Op::ConnectAgent, &[&id], Value::Null).await;
    assert_eq!(refused.status, 400, "it asks for no upgrade");
}

//! The identity calls, as OpenStack's and the vendor's clients make them.

use serde_json::{Value, json};

use crate::client::{Answer, Client};

fn password(client: &Client, password: &str) -> Value {
    let first = &client.world.credentials;
    json!({ "methods": ["password"], "password": { "user": {
        "name": first.user_name, "domain": { "name": first.domain.name }, "password": password
    } } })
}

async fn sign_in(client: &Client, identity: Value, scope: Value) -> Answer {
    let body = json!({ "auth": { "identity": identity, "scope": scope } });
    client
        .send("POST", "/v3/auth/tokens", body.to_string())
        .await
}

#[tokio::test]
async fn a_token_is_scoped_has_a_catalog_and_ends() {
    let mut client = Client::new().await;
    client.token = String::new();
    let secret = client.world.credentials.password.to_string();
    let scope = json!({ "project": { "name": "cairn-1" } });
    let issued = sign_in(&client, password(&client, &secret), scope).await;
    assert_eq!(issued.status, 201, "{issued:?}");
    let token = &issued.body["token"];
    assert_eq!(token["project"]["id"], *client.project);
    let catalog = token["catalog"].as_array().unwrap();
    let cbr = catalog.iter().find(|entry| entry["type"] == "cbr").unwrap();
    let url = cbr["endpoints"][0]["url"].as_str().unwrap();
    assert_eq!(url, format!("http://cairn.test/v3/{}", client.project));

    client.token = issued.headers["x-subject-token"]
        .to_str()
        .unwrap()
        .to_owned();
    let again = json!({ "methods": ["token"], "token": { "id": client.token } });
    let domain = json!({ "domain": { "name": "cairn" } });
    let again = sign_in(&client, again, domain).await;
    assert_eq!(again.status, 201);
    assert!(again.body["token"]["project"].is_null());
    assert!(again.body["token"]["domain"]["id"].is_string());

    let vaults = format!("/v3/{}/vaults", client.project);
    assert_eq!(client.send("GET", &vaults, String::new()).await.status, 200);
    client.world.clock.advance(24 * 3600 + 1);
    assert_eq!(client.send("GET", &vaults, String::new()).await.status, 401);
}

#[tokio::test]
async fn a_token_is_not_kept_alive_by_renewing_it_and_can_be_ended() {
    let mut client = Client::new().await;
    client.world.clock.advance(23 * 3600);
    let again = json!({ "methods": ["token"], "token": { "id": client.token } });
    let renewed = sign_in(&client, again, Value::Null).await;
    let first = client.token.clone();
    client.token = renewed.headers["x-subject-token"]
        .to_str()
        .unwrap()
        .to_owned();
    let vaults = format!("/v3/{}/vaults", client.project);
    let end = async |token: &str| {
        let request = axum::http::Request::delete("/v3/auth/tokens")
            .header("x-auth-token", &client.token)
            .header("x-subject-token", token)
            .body(axum::body::Body::empty())
            .unwrap();
        client.send_request(request).await.status
    };
    assert_eq!(end(&first).await, 204);
    assert_eq!(end(&first).await, 401);
    assert_eq!(client.send("GET", &vaults, String::new()).await.status, 200);
    client.world.clock.advance(3601);
    assert_eq!(client.send("GET", &vaults, String::new()).await.status, 401);
}

#[tokio::test]
async fn who_cannot_prove_it_gets_no_token() {
    let client = Client::new().await;
    let nobody = json!({ "methods": ["password"], "password": { "user": {
        "name": "nobody", "domain": { "name": "cairn" }, "password": "x" } } });
    let secret = client.world.credentials.password.to_string();
    let foreign = json!({ "project": { "name": "elsewhere" } });
    let mut bodies = Vec::new();
    for (identity, scope) in [
        (password(&client, "wrong"), Value::Null),
        (nobody, Value::Null),
        (
            json!({ "methods": ["token"], "token": { "id": "x" } }),
            Value::Null,
        ),
        (password(&client, &secret), foreign),
    ] {
        let refused = sign_in(&client, identity, scope).await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.body["error"]["code"], 401);
        bodies.push(refused.body);
    }
    assert!(
        bodies.windows(2).all(|pair| pair[0] == pair[1]),
        "they say which part was wrong"
    );
}

#[tokio::test]
async fn projects_and_domains_are_found_by_name() {
    let client = Client::new().await;
    for (path, key, count) in [
        ("/v3/projects?name=cairn-1", "projects", 1),
        ("/v3/projects?name=other", "projects", 0),
        ("/v3/auth/projects", "projects", 1),
        ("/v3/auth/domains", "domains", 1),
        ("/v3/auth/domains?name=cairn", "domains", 1),
        ("/v3/auth/domains?name=other", "domains", 0),
        ("/v3/auth/catalog", "catalog", 2),
    ] {
        let answer = client.send("GET", path, String::new()).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.body[key].as_array().unwrap().len(), count, "{path}");
    }
    let version = client.send("GET", "/v3", String::new()).await;
    assert_eq!(version.body["version"]["status"], "stable");
    assert_eq!(
        client.send("GET", "/healthz", String::new()).await.status,
        200
    );
    assert_eq!(
        client.send("GET", "/readyz", String::new()).await.status,
        200
    );
}

#[tokio::test]
async fn a_token_is_shown_to_its_owner_alone() {
    let mut client = Client::new().await;
    let owners = client.token.clone();
    client.become_stranger().await;
    for (subject, status) in [(client.token.clone(), 200), (owners, 403)] {
        let request = axum::http::Request::get("/v3/auth/tokens")
            .header("x-auth-token", &client.token)
            .header("x-subject-token", subject)
            .body(axum::body::Body::empty())
            .unwrap();
        let answer = tower::ServiceExt::oneshot(client.router.clone(), request)
            .await
            .unwrap();
        assert_eq!(answer.status(), status);
    }
}

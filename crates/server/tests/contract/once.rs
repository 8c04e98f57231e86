//! Signed requests that are sent again.

use std::task::Poll;

use axum::http::Request;
use cairn_api::sign::{SignedRequest, sign};
use cairn_api::{ErrorCode, Operation as Op};
use cairn_types::Clock;
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

impl Client {
    /// A request signed by the administrator's access key.
    fn signed(&self, method: &str, path: &str, body: &str) -> Request<axum::body::Body> {
        let now = self.world.clock.now().format("%Y%m%dT%H%M%SZ");
        let request = Request::builder().method(method).uri(path);
        let mut request = request
            .header("host", "cairn.test")
            .header("x-sdk-date", now)
            .body(axum::body::Body::from(body.to_owned()))
            .unwrap();
        let first = &self.world.credentials;
        let signed = SignedRequest {
            method,
            path,
            query: "",
            headers: request.headers(),
            body: body.as_bytes(),
        };
        let header = sign(&signed, &first.access_key, &first.secret_key).unwrap();
        request.headers_mut().insert("authorization", header);
        request
    }

    async fn post_vault(&self, name: &str) -> Answer {
        let request = self.signed("POST", &self.vaults(), &vault_named(name));
        self.send_request(request).await
    }

    fn vaults(&self) -> String {
        format!("/v3/{}/vaults", self.project)
    }

    async fn count_vaults(&self) -> Value {
        let listed = self.call(Op::ListVault, &[], Value::Null).await;
        listed.body["count"].clone()
    }
}

fn vault_named(name: &str) -> String {
    let mut body = vault_body("disk", 100, json!([]));
    body["vault"]["name"] = json!(name);
    body.to_string()
}

#[tokio::test]
async fn the_same_signed_post_is_carried_out_once() {
    let client = Client::new().await;
    let first = client.post_vault("one").await;
    let again = client.post_vault("one").await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(first.status, 200);
    assert_eq!(client.count_vaults().await, 1);
    // Another body is another request, and so is another time.
    client.post_vault("two").await;
    assert_eq!(client.count_vaults().await, 2);
    client.world.clock.advance(1);
    client.post_vault("one").await;
    assert_eq!(client.count_vaults().await, 3);
}

#[tokio::test]
async fn the_same_request_many_times_at_once_is_carried_out_once() {
    let client = Client::new().await;
    let answers = futures::future::join_all((0..16).map(|_| client.post_vault("one"))).await;
    for answer in &answers {
        assert_eq!(answer.body, answers[0].body);
    }
    assert_eq!(client.count_vaults().await, 1);
}

#[tokio::test]
async fn a_refusal_is_repeated_as_well() {
    let client = Client::new().await;
    let first = client.post_vault("a name with spaces").await;
    assert_eq!(first.status, 400);
    let again = client.post_vault("a name with spaces").await;
    assert_eq!((again.status, again.body), (first.status, first.body));
}

#[tokio::test]
async fn a_request_whose_client_has_gone_is_carried_out_and_answered_later() {
    let client = Client::new().await;
    let mut asking = Box::pin(client.post_vault("one"));
    // Begun, and then the client hangs up.
    let begun = futures::poll!(&mut asking);
    assert!(matches!(begun, Poll::Pending));
    drop(asking);
    let again = client.post_vault("one").await;
    assert_eq!(again.status, 200);
    assert_eq!(client.count_vaults().await, 1);
}

#[tokio::test]
async fn a_request_that_a_crash_cut_off_is_not_carried_out_again_blindly() {
    let client = Client::new().await;
    let request = client.signed("POST", &client.vaults(), &vault_named("one"));
    let header = request.headers()["authorization"].to_str().unwrap();
    let authorization = cairn_api::sign::Authorization::parse(header).unwrap();
    let digest = authorization.digest(vault_named("one").as_bytes());
    client.world.service.begin_call(&digest).await.unwrap();
    let answer = client.send_request(request).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.body["error_code"], ErrorCode::OutcomeUnknown.code());
    assert_eq!(client.count_vaults().await, 0);
    // When no signature can be good any more, nothing is kept of it.
    client.world.clock.advance(32 * 60);
    client.post_vault("two").await;
    let forgotten = client.world.service.begin_call(&digest).await.unwrap();
    assert_eq!(forgotten, cairn_core::Call::First);
}

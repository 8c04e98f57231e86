use cairn_types::{ProjectId, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::identity::Secret;

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_557_475_152_000_000)
    }
}

const SECRET_KEY: &str = "secret";

fn client(endpoint: &str) -> Result<Client> {
    let credentials = Credentials {
        endpoint: endpoint.to_owned(),
        project_id: ProjectId::random(),
        access_key: "access".to_owned(),
        secret_key: Secret(SECRET_KEY.to_owned()),
    };
    Client::new(credentials, Arc::new(FixedClock))
}

/// One request as it arrived.
struct Arrived {
    method: String,
    target: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Arrived {
    /// Verifies the signature as a server does.
    fn verify(&self) {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let request = sign::SignedRequest {
            method: &self.method,
            path,
            query,
            headers: &self.headers,
            body: &self.body,
        };
        let header = self.headers[header::AUTHORIZATION].to_str().unwrap();
        let authorization = sign::Authorization::parse(header).unwrap();
        assert_eq!(authorization.access_key, "access");
        let signed_at = authorization.verify(&request, SECRET_KEY).unwrap();
        assert_eq!(signed_at, FixedClock.now());
    }
}

/// Takes one request and gives it an answer.
async fn serve_once(listener: &TcpListener, answer: &str) -> Arrived {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    let end = loop {
        assert!(
            stream.read_buf(&mut bytes).await.unwrap() > 0,
            "the client hung up"
        );
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (
        first.next().unwrap().to_owned(),
        first.next().unwrap().to_owned(),
    );
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    let length = headers
        .get("content-length")
        .map_or("0", |length| length.to_str().unwrap());
    let length: usize = length.parse().unwrap();
    while bytes.len() < end + length {
        assert!(
            stream.read_buf(&mut bytes).await.unwrap() > 0,
            "the client hung up"
        );
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    Arrived {
        method,
        target,
        headers,
        body: bytes[end..].to_vec(),
    }
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nX-Request-Id: req-1\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// A server on a free port, and a client of it.
async fn pair() -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    (listener, client)
}

#[tokio::test]
async fn a_list_is_asked_for_by_a_signed_query() {
    let (listener, client) = pair().await;
    let query = ListVaultQuery {
        name: Some("web_1".to_owned()),
        id: vec![VaultId::random(), VaultId::random()],
        ..ListVaultQuery::default()
    };
    let body = answer(
        "200 OK",
        r#"{"vaults":[],"count":7,"limit":1000,"offset":0}"#,
    );
    let (arrived, listed) = tokio::join!(serve_once(&listener, &body), client.list_vaults(&query));
    assert_eq!(listed.unwrap().count, 7);
    assert_eq!(arrived.method, "GET");
    let project = client.credentials.project_id;
    assert_eq!(
        arrived.target,
        format!("/v3/{project}/vaults?{}", query.write())
    );
    arrived.verify();
}

#[tokio::test]
async fn a_body_is_sent_signed_and_ids_stand_in_the_path() {
    let (listener, client) = pair().await;
    let (backup, volume, job) = (
        BackupId::random(),
        ResourceId::random(),
        OperationLogId::random(),
    );
    let restore = crate::backup::NewRestore {
        volume_id: Some(volume),
        ..Default::default()
    };
    let body = answer("202 Accepted", &format!(r#"{{"job_id":"{job}"}}"#));
    let request = RestoreBackupRequest { restore };
    let (arrived, answered) = tokio::join!(
        serve_once(&listener, &body),
        client.restore_backup(backup, &request)
    );
    assert_eq!(answered.unwrap().job_id, job);
    assert!(
        arrived
            .target
            .ends_with(&format!("/backups/{backup}/restore"))
    );
    let sent: serde_json::Value = serde_json::from_slice(&arrived.body).unwrap();
    assert_eq!(
        sent,
        serde_json::json!({ "restore": { "volume_id": volume } })
    );
    arrived.verify();
}

#[tokio::test]
async fn a_deletion_has_no_answer_to_read() {
    let (listener, client) = pair().await;
    let answer = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    let (arrived, deleted) = tokio::join!(
        serve_once(&listener, answer),
        client.delete_vault(VaultId::random())
    );
    deleted.unwrap();
    assert_eq!(arrived.method, "DELETE");
    arrived.verify();
}

#[tokio::test]
async fn a_refusal_carries_code_message_and_request() {
    let (listener, client) = pair().await;
    let body = crate::ErrorCode::VaultNotFound.body();
    let body = answer("404 Not Found", &serde_json::to_string(&body).unwrap());
    let (_, shown) = tokio::join!(
        serve_once(&listener, &body),
        client.show_vault(VaultId::random())
    );
    let error = shown.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(
        error.to_string(),
        "Vault Not Found (BackupService.6105, request req-1)"
    );
}

#[tokio::test]
async fn what_is_no_answer_of_the_service_is_told_apart() {
    let (listener, client) = pair().await;
    let body = answer("502 Bad Gateway", "<html>");
    let (_, shown) = tokio::join!(
        serve_once(&listener, &body),
        client.show_vault(VaultId::random())
    );
    let error = shown.unwrap_err();
    assert!(
        matches!(&error, Error::Service { code, .. } if code == "502"),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::Transient);

    let body = answer("200 OK", "{}");
    let (_, shown) = tokio::join!(
        serve_once(&listener, &body),
        client.show_vault(VaultId::random())
    );
    assert!(matches!(shown.unwrap_err(), Error::Decode { .. }));

    drop(listener);
    let error = client.show_vault(VaultId::random()).await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    assert_eq!(error.kind(), Kind::Transient);
}

#[test]
fn an_endpoint_is_an_address() {
    for good in ["http://127.0.0.1:8774", "https://cbr.example.com/"] {
        assert!(client(good).is_ok(), "{good}");
    }
    for bad in ["", "127.0.0.1:8774", "ftp://a", "http://"] {
        assert!(matches!(client(bad), Err(Error::Endpoint { .. })), "{bad}");
    }
}

#[test]
fn this_machine_is_reached_without_a_proxy() {
    for (endpoint, own) in [
        ("http://127.0.0.1:8774", true),
        ("http://[::1]:8774", true),
        ("http://localhost", true),
        ("https://cbr.example.com", false),
        ("http://192.168.1.1", false),
    ] {
        assert_eq!(
            is_loopback(&Url::parse(endpoint).unwrap()),
            own,
            "{endpoint}"
        );
    }
}

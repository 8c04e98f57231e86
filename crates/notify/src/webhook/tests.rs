//! Webhooks against real sockets of this machine.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn message() -> Message {
    Message {
        id: "0ca3eb86-8800-46da-9c37-9d657a825274".to_owned(),
        event: "backup_failed".to_owned(),
        summary: "It failed.".to_owned(),
        body: r#"{"event":"backup_failed","summary":"é"}"#.to_owned(),
    }
}

fn webhooks(allowed: &[&str]) -> Webhooks {
    let networks = allowed.iter().map(|text| text.parse().unwrap());
    Webhooks::new(Allowed::new(networks.collect()), &[]).unwrap()
}

async fn send(webhooks: &Webhooks, url: &str) -> Result<()> {
    let now = Timestamp::from_micros(1_700_000_000_999_999);
    webhooks.send(url, b"secret", &message(), now).await
}

/// Answers one request with these bytes; what was asked.
async fn answer_once(listener: TcpListener, answer: &'static str) -> String {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut asked = Vec::new();
    let body = message().body;
    while !asked.ends_with(body.as_bytes()) {
        assert!(socket.read_buf(&mut asked).await.unwrap() > 0);
    }
    socket.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(asked).unwrap()
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("127.0.0.1:{port}/hook?a=b"))
}

#[test]
fn a_signature_is_that_of_the_definition() {
    // HMAC-SHA256 with the key "key" of "1.The quick brown fox", by Python's hmac.
    assert_eq!(
        signature(b"key", 1, b"The quick brown fox"),
        "sha256=1ef269d2a2a1f8d397e0e25c3e3013fb5687509234565e6e49ea45a138768457"
    );
}

#[tokio::test]
async fn a_request_says_what_it_is_and_is_signed() {
    let (listener, place) = listener().await;
    let webhooks = webhooks(&["127.0.0.0/8"]);
    let url = format!("http://{place}");
    let answer = "HTTP/1.1 204 No Content\r\n\r\n";
    let (asked, sent) = tokio::join!(answer_once(listener, answer), send(&webhooks, &url));
    sent.unwrap();
    let asked = asked.to_lowercase();
    assert!(asked.starts_with("post /hook?a=b http/1.1\r\n"), "{asked}");
    let signed = signature(b"secret", 1_700_000_000, message().body.as_bytes());
    for header in [
        "content-type: application/json",
        "x-cairn-event: backup_failed",
        "x-cairn-delivery: 0ca3eb86-8800-46da-9c37-9d657a825274",
        "x-cairn-timestamp: 1700000000",
        &format!("x-cairn-signature: {signed}"),
    ] {
        assert!(
            asked.contains(&format!("\r\n{header}\r\n")),
            "{header}: {asked}"
        );
    }
}

#[tokio::test]
async fn only_a_success_is_one() {
    let webhooks = webhooks(&["127.0.0.0/8"]);
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        // It breaks off, but it was taken.
        ("HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\nok", None),
        ("HTTP/1.1 404 Not Found\r\n\r\n", Some(404)),
        ("HTTP/1.1 503 No\r\n\r\n", Some(503)),
        // Nothing follows it, wherever it leads.
        ("HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\n\r\n", Some(307)),
    ] {
        let (listener, place) = listener().await;
        let url = format!("http://{place}");
        let (_, sent) = tokio::join!(answer_once(listener, answer), send(&webhooks, &url));
        let status = match sent {
            Ok(()) => None,
            Err(Error::Refused { status }) => Some(status),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(status, expected, "{answer}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_it() {
    let (listener, place) = listener().await;
    let endless = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(message().body.as_bytes()) {
            assert!(socket.read_buf(&mut asked).await.unwrap() > 0);
        }
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        socket.write_all(head).await.unwrap();
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
        let mut chunks = 0;
        while socket.write_all(chunk.as_bytes()).await.is_ok() {
            chunks += 1;
        }
        chunks
    };
    let webhooks = webhooks(&["127.0.0.0/8"]);
    let url = format!("http://{place}");
    let (_, sent) = tokio::join!(endless, send(&webhooks, &url));
    sent.unwrap();
}

#[tokio::test]
async fn no_notation_leads_to_this_machine_or_its_network() {
    let (listener, _) = listener().await;
    let port = listener.local_addr().unwrap().port();
    let webhooks = webhooks(&[]);
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "１２７.0.0.1",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "0",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "[fd00::1]",
        "[fe80::1]",
        "100.64.0.1",
    ] {
        for url in [
            format!("http://{host}:{port}/"),
            format!("https://{host}:{port}/"),
            format!("http://user:password@{host}:{port}/"),
        ] {
            let refused = send(&webhooks, &url).await.unwrap_err();
            assert!(
                matches!(refused, Error::NotAllowed { .. }),
                "{url}: {refused}"
            );
        }
    }
    // And nobody has knocked.
    let nobody = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(nobody.is_err());
}

#[tokio::test]
async fn only_http_is_spoken() {
    let webhooks = webhooks(&["0.0.0.0/0", "::/0"]);
    for url in [
        "",
        "x",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "unix:/run/x",
        "gopher://127.0.0.1/",
        "data:,x",
        "http://",
        "http:///x",
        "//example.com/",
        "http://[::1",
        "http://999.1.1.1/",
    ] {
        let refused = send(&webhooks, url).await.unwrap_err();
        assert!(
            matches!(refused, Error::Url | Error::NotAllowed { .. }),
            "{url}: {refused}"
        );
    }
}

#[tokio::test]
async fn who_is_not_there_is_told_from_who_does_not_answer() {
    let (listener, place) = listener().await;
    let webhooks = webhooks(&["127.0.0.0/8"]);
    drop(listener);
    let gone = send(&webhooks, &format!("http://{place}"))
        .await
        .unwrap_err();
    assert!(matches!(gone, Error::Unreachable { .. }), "{gone}");
    assert!(gone.to_string().contains("refused"), "{gone}");
}

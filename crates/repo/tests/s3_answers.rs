//! What a bucket's client makes of answers that no good server gives: a server of
//! a few lines gives them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn_repo::{Creation, RetryPolicy, S3Config, S3Credentials, S3Store};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const NO_KEY: &str =
    "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>gone</Message></Error>";
const EMPTY_LIST: &str = "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><KeyCount>0</KeyCount>\
     <IsTruncated>false</IsTruncated></ListBucketResult>";

/// A server that answers requests for objects with these answers in turn, the
/// last for ever, and any listing with nothing.
struct Canned {
    store: S3Store,
    asked: Arc<AtomicU64>,
    _server: JoinSet<()>,
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}connection: close\r\n\r\n{body}"
    )
}

fn object(body: &str) -> String {
    let headers = "etag: \"1\"\r\nlast-modified: Sun, 22 Nov 2026 06:00:00 GMT\r\n";
    answer("200 OK", headers, body)
}

async fn serve(mut connection: TcpStream, answers: &[String], asked: &AtomicU64) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    let answer = if request.windows(9).any(|part| part == b"list-type") {
        answer("200 OK", "content-type: application/xml\r\n", EMPTY_LIST)
    } else {
        let at = usize::try_from(asked.fetch_add(1, Ordering::SeqCst)).unwrap();
        answers[at.min(answers.len() - 1)].clone()
    };
    // Whoever has stopped listening has heard enough.
    let _ = connection.write_all(answer.as_bytes()).await;
    let _ = connection.shutdown().await;
}

impl Canned {
    async fn new(answers: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, answers) = (Arc::new(AtomicU64::new(0)), answers.to_vec());
        let mut server = JoinSet::new();
        let counted = asked.clone();
        server.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                serve(connection, &answers, &counted).await;
            }
        });
        let config = S3Config {
            bucket: "b".to_owned(),
            prefix: String::new(),
            endpoint: Some(endpoint),
            region: "us-east-1".to_owned(),
            credentials: S3Credentials {
                access_key: "a".to_owned(),
                secret_key: "s".to_owned().into(),
                session_token: None,
            },
            path_style: true,
            checksums: true,
            creation: Creation::Conditional,
            ca_file: None,
            retry: RetryPolicy {
                attempts: 3,
                first_pause: Duration::from_millis(1),
                ..RetryPolicy::default()
            },
        };
        Self {
            store: S3Store::open_read_only(&config).await.unwrap(),
            asked,
            _server: server,
        }
    }

    /// What comes of a read, and after how many requests.
    async fn read(&self) -> (Result<String, StoreError>, u64) {
        let read = async {
            let bytes = self.store.get(&Path::from("x")).await?.bytes().await?;
            Ok(String::from_utf8(bytes.to_vec()).unwrap())
        };
        let read = read.await;
        (read, self.asked.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn absence_is_the_stores_own_word_said_twice() {
    let gone = answer("404 Not Found", "", NO_KEY);
    let (read, asked) = Canned::new(std::slice::from_ref(&gone)).await.read().await;
    assert!(matches!(read, Err(StoreError::NotFound { .. })), "{read:?}");
    assert_eq!(asked, 2);
    let (read, _) = Canned::new(&[gone, object("here")]).await.read().await;
    assert_eq!(read.unwrap(), "here");
}

#[tokio::test]
async fn not_found_from_anybody_else_is_an_error() {
    for body in [
        "",
        "<html>404 page not found</html>",
        "<Error><Code>NoSuchBucket</Code></Error>",
    ] {
        let (read, asked) = Canned::new(&[answer("404 Not Found", "", body)])
            .await
            .read()
            .await;
        let error = read.unwrap_err();
        assert!(
            matches!(error, StoreError::Generic { .. }),
            "{body}: {error:?}"
        );
        assert!(
            error.to_string().contains("the store answered 404"),
            "{error}"
        );
        assert_eq!(asked, 1, "{body}");
    }
}

#[tokio::test]
async fn a_store_that_is_busy_is_asked_again() {
    let slow = "<Error><Code>SlowDown</Code><Message>later</Message></Error>";
    for status in [
        "500 Internal Server Error",
        "503 Slow Down",
        "429 Too Many Requests",
    ] {
        let busy = answer(status, "retry-after: 0\r\n", slow);
        let (read, asked) = Canned::new(&[busy.clone(), busy.clone(), object("here")])
            .await
            .read()
            .await;
        assert_eq!((read.unwrap().as_str(), asked), ("here", 3), "{status}");
        let (read, asked) = Canned::new(&[busy]).await.read().await;
        let error = read.unwrap_err().to_string();
        assert!(error.contains("SlowDown: later") && asked == 3, "{error}");
    }
}

#[tokio::test]
async fn refusals_and_detours_are_not_repeated() {
    for status in [
        "301 Moved Permanently",
        "400 Bad Request",
        "403 Forbidden",
        "501 Not Implemented",
    ] {
        let (read, asked) = Canned::new(&[answer(status, "", "")]).await.read().await;
        let error = read.unwrap_err().to_string();
        assert!(
            error.contains(&status[..3]) && asked == 1,
            "{status}: {error}, asked {asked}"
        );
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_got_again() {
    let whole = object("all of it");
    let cut = whole.strip_suffix("of it").unwrap().to_owned();
    let (read, asked) = Canned::new(&[cut.clone(), whole]).await.read().await;
    assert_eq!((read.unwrap().as_str(), asked), ("all of it", 2));
    let (read, asked) = Canned::new(&[cut]).await.read().await;
    assert!(read.is_err() && asked == 3, "{read:?}");
}

//! The agent's program beside a server that speaks HTTP by hand: it enrols, keeps one
//! connection waiting, answers those that are taken, and ends when it was removed.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use cairn_agent::{AgentCommand, Error, Service, State};
use cairn_link::enrolment::{self, Request, Token, TokenId};
use cairn_link::{Connection, End, EphemeralKey, Instance, Line, Purpose};
use cairn_types::{AgentId, Kind, Progress, ProjectId};
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::common::files::{assert_same, put};
use crate::common::{Server, Still, noise, selection};

const LATER: i64 = 100_000_000_000;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: AgentCommand,
}

fn command(words: &[&str]) -> AgentCommand {
    let words = std::iter::once(&"agent").chain(words);
    Arguments::try_parse_from(words).unwrap().command
}

/// What the agent asked.
struct Asked {
    stream: TcpStream,
    head: String,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }

    async fn answer(mut self, status: &str, body: &str) {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.shutdown().await.unwrap();
    }

    /// Makes it a line, which has proven itself.
    async fn switch(mut self, agent: AgentId, secret: &[u8; 32]) -> Connection {
        assert_eq!(self.header("upgrade"), Some("cairn-agent/1"));
        let mut theirs = [0; 32];
        hex::decode_to_slice(self.header("x-cairn-key").unwrap(), &mut theirs).unwrap();
        let ours = EphemeralKey::generate();
        let text = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
             upgrade: cairn-agent/1\r\nx-cairn-key: {}\r\n\r\n",
            hex::encode(ours.public())
        );
        self.stream.write_all(text.as_bytes()).await.unwrap();
        let mut instance = [0; 16];
        hex::decode_to_slice(self.header("x-cairn-instance").unwrap(), &mut instance).unwrap();
        let secret = (Purpose::Agent(agent, Instance::new(instance)), &secret[..]);
        let keys = ours.agree(End::Asking, &theirs, secret).unwrap();
        let mut connection = Connection::new(Box::new(self.stream), keys);
        Line::prove(&mut connection).await.unwrap();
        connection
    }
}

/// The HTTP of a server.
struct Http {
    listener: TcpListener,
    address: String,
}

impl Http {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, address }
    }

    async fn asked(&self) -> Asked {
        let waiting = async {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let mut asked = Asked {
                stream,
                head: String::from_utf8(head).unwrap(),
                body: Vec::new(),
            };
            let length = asked
                .header("content-length")
                .map_or(0, |n| n.parse().unwrap());
            asked.body.resize(length, 0);
            asked.stream.read_exact(&mut asked.body).await.unwrap();
            asked
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap()
    }

    /// Answers an enrolment, as one who knows the token's secret.
    async fn enrol(&self, token: &Token, project: ProjectId) -> (AgentId, enrolment::Secret) {
        let asked = self.asked().await;
        assert!(
            asked
                .head
                .starts_with("POST /v3/agents/enrolments HTTP/1.1\r\n")
        );
        let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
        let told = &body["enrolment"];
        let bytes = |key: &str| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(told[key].as_str().unwrap(), &mut bytes).unwrap();
            bytes
        };
        let request = Request {
            token: TokenId::parse(told["token_id"].as_str().unwrap()).unwrap(),
            agent: told["agent_id"].as_str().unwrap().parse().unwrap(),
            public_key: bytes("public_key"),
            proof: bytes("proof"),
        };
        assert_eq!(request.token, token.id());
        assert_eq!(told["host_name"], "db-1");
        let text = String::from_utf8(asked.body.clone()).unwrap();
        let revealed = token.reveal();
        assert!(!text.contains(&revealed[22..]), "the token has travelled");
        let (reply, secret) = enrolment::answer(token.secret(), &request).unwrap();
        let answer = serde_json::json!({ "enrolment": {
            "project_id": project, "region": "cairn-1",
            "public_key": hex::encode(reply.public_key), "proof": hex::encode(reply.proof),
        } });
        asked.answer("201 Created", &answer.to_string()).await;
        (request.agent, secret)
    }
}

/// Registers an agent in a folder.
async fn registered(http: &Http, folder: &str) -> (ProjectId, AgentId, enrolment::Secret) {
    let (token, project) = (Token::generate(), ProjectId::random());
    let revealed = token.reveal();
    let words = [
        "register",
        "--server",
        &http.address,
        "--token",
        &revealed,
        "--name",
        "db-1",
        "--state",
        folder,
    ];
    let stop = Progress::default();
    let registering = cairn_agent::run(command(&words), Arc::new(Still), &stop);
    let (done, (agent, secret)) = tokio::join!(registering, http.enrol(&token, project));
    done.unwrap();
    (project, agent, secret)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_registers_and_has_its_files_saved() {
    let (http, lab, files) = (
        Http::new().await,
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let folder = lab.path().join("state");
    let folder = folder.to_str().unwrap();
    let (project, agent, secret) = registered(&http, folder).await;
    put(&files.path().join("file"), &noise(1, 200_000));
    let state = State::new(folder.as_ref());
    let service = Service::new(state.clone(), Arc::new(Still)).unwrap();
    let stop = Arc::new(Progress::default());
    let mut running = JoinSet::new();
    let stopping = stop.clone();
    running.spawn(async move { service.run(&stopping).await });

    // A server that is not ready is asked again.
    http.asked()
        .await
        .answer("503 Service Unavailable", "{}")
        .await;
    let asked = http.asked().await;
    let path = format!("GET /v3/{project}/agents/{agent}/connection HTTP/1.1\r\n");
    assert!(asked.head.starts_with(&path), "{}", asked.head);
    let first = asked.switch(agent, &secret).await;
    assert!(state.lock().is_err(), "it runs");
    // Once the first is taken the next waits.
    let server = Server::new().await;
    let line = Line::new(PATIENCE, Arc::new(Progress::default()));
    line.attach(first, &server.keys()).await.unwrap();
    assert_eq!(line.host_time().await.unwrap().as_micros(), 12_345);
    let second = http.asked().await.switch(agent, &secret).await;
    let tree = line.open_tree(selection(&[files.path()]));
    let (backup, _) = server.save(tree, None, LATER).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    server
        .restore(backup, files.path(), target.path())
        .await
        .unwrap();
    assert_same(files.path(), target.path(), "over HTTP");
    line.close();
    // A connection that the server closes is made anew.
    drop(second);
    let third = http.asked().await.switch(agent, &secret).await;
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    assert!(state.lock().is_ok(), "it has ended");
    drop(third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_removed_ends() {
    let (http, lab) = (Http::new().await, tempfile::tempdir().unwrap());
    let folder = lab.path().to_str().unwrap();
    registered(&http, folder).await;
    let stop = Progress::default();
    let running = cairn_agent::run(command(&["run", "--state", folder]), Arc::new(Still), &stop);
    let gone = r#"{"error_code":"BackupService.1","error_msg":"There is none."}"#;
    let removing = async { http.asked().await.answer("404 Not Found", gone).await };
    let (ended, ()) = tokio::join!(running, removing);
    assert!(matches!(ended, Err(Error::Removed)));
    // What it is told by status, and that it cannot register over itself.
    let last = State::new(lab.path()).last().unwrap();
    assert!(last.problem.unwrap().contains("does not know"));
    let token = Token::generate().reveal();
    let again = [
        "register",
        "--server",
        &http.address,
        "--token",
        &token,
        "--state",
        folder,
    ];
    let again = cairn_agent::run(command(&again), Arc::new(Still), &stop).await;
    assert_eq!(again.unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolment_that_is_not_answered_by_the_right_server_leaves_nothing() {
    let (http, lab) = (Http::new().await, tempfile::tempdir().unwrap());
    let folder = lab.path().join("state");
    let stop = Progress::default();
    let token = Token::generate().reveal();
    let words = [
        "register",
        "--server",
        &http.address,
        "--token",
        &token,
        "--state",
        folder.to_str().unwrap(),
    ];
    let register = || cairn_agent::run(command(&words), Arc::new(Still), &stop);
    // Refused.
    let used = r#"{"error_code":"BackupService.2","error_msg":"The token was used."}"#;
    let refusing = async { http.asked().await.answer("403 Forbidden", used).await };
    let (refused, ()) = tokio::join!(register(), refusing);
    assert_eq!(refused.unwrap_err().kind(), Kind::Denied);
    // Answered by one who does not know the token.
    let answer = serde_json::json!({ "enrolment": {
        "project_id": ProjectId::random(), "region": "cairn-1",
        "public_key": "9".repeat(64), "proof": "7".repeat(64),
    } });
    let lying = async {
        http.asked()
            .await
            .answer("201 Created", &answer.to_string())
            .await
    };
    let (lied, ()) = tokio::join!(register(), lying);
    assert!(matches!(lied, Err(Error::Impostor(_))));
    // Answered with nothing that can be read.
    let babbling = async { http.asked().await.answer("201 Created", "{}").await };
    let (unread, ()) = tokio::join!(register(), babbling);
    assert!(matches!(unread, Err(Error::Enrolment(_))));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    let wrong = cairn_agent::run(
        command(&[
            "register",
            "--server",
            "nowhere",
            "--token",
            &token,
            "--state",
            "/nonexistent/x",
        ]),
        Arc::new(Still),
        &stop,
    );
    assert!(wrong.await.is_err());
    let no_token = [
        "register",
        "--server",
        &http.address,
        "--token",
        "x",
        "--state",
        "/nonexistent",
    ];
    let no_token = cairn_agent::run(command(&no_token), Arc::new(Still), &stop).await;
    assert!(matches!(no_token, Err(Error::Token)));
}

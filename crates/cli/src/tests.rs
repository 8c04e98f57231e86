//! Whole verbs against a server that answers by script.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::sync::Mutex;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use cairn_api::identity::Secret;
use cairn_types::{ProjectId, Timestamp};
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;

const PROJECT: &str = "f841e01fd2b14e7fa41b6ae7aa6b0594";
const VAULT: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";
const CHECKPOINT: &str = "8b0851a8-adf3-4f4c-a914-dead08bf9664";
const SERVER: &str = "94eba8b2-acc9-4d82-badc-127144cc5526";
const DISK: &str = "eccbcfdd-f843-4bbb-b2c0-a5ce861f9376";
const BACKUP: &str = "6df2b54c-dd62-4059-a07c-1b8f24f2725d";
const CHILD: &str = "5d822633-2bbf-4af8-a16e-5ab1c7705235";
const TASK: &str = "4827f2da-b008-4507-ab7d-42d0df5ed912";
const AT: &str = "2019-05-10T07:59:12.733403";

/// The command line as the binary has it.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_557_475_152_000_000)
    }
}

type Answers = HashMap<(Method, String), VecDeque<(u16, Value)>>;

/// What the server was told to answer, and what it was asked.
#[derive(Default)]
struct Script {
    answers: Answers,
    asked: Vec<(Method, String, Value)>,
}

/// A server that gives each route its answers in turn, the last one for ever.
struct Server {
    script: Arc<Mutex<Script>>,
    client: Client,
    _stop: DropGuard,
}

impl Server {
    async fn new(routes: &[(&str, &str, u16, Value)]) -> Self {
        let mut script = Script::default();
        for (method, path, status, body) in routes {
            let route = (method.parse().unwrap(), format!("/v3/{PROJECT}/{path}"));
            script
                .answers
                .entry(route)
                .or_default()
                .push_back((*status, body.clone()));
        }
        let script = Arc::new(Mutex::new(script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(&format!("http://{}", listener.local_addr().unwrap()));
        let app = axum::Router::new()
            .fallback(answer)
            .with_state(script.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = axum::serve(listener, app)
            .with_graceful_shutdown(async move { stopped.cancelled().await });
        tokio_util::task::TaskTracker::new().spawn(serving.into_future());
        Self {
            script,
            client,
            _stop: stop.drop_guard(),
        }
    }

    /// Runs a command line and returns what it printed.
    async fn run(&self, line: &[&str]) -> Result<String, Error> {
        execute_line(&self.client, line).await
    }

    /// The bodies that were sent by a method.
    fn sent(&self, method: Method) -> Vec<Value> {
        let script = self.script.lock().unwrap();
        let asked = script.asked.iter().filter(|(asked, ..)| *asked == method);
        asked.map(|(_, _, body)| body.clone()).collect()
    }
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let mut script = script.lock().unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    script.asked.push((method.clone(), uri.to_string(), body));
    let answers = script.answers.get_mut(&(method, uri.path().to_owned()));
    let (status, body) = match answers {
        Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
        Some(answers) => answers[0].clone(),
        None => (
            404,
            json!({"error_code": "BackupService.6105", "error_msg": "Vault Not Found"}),
        ),
    };
    let headers = [("x-request-id", "req-1")];
    let status = StatusCode::from_u16(status).unwrap();
    if status == StatusCode::NO_CONTENT {
        return (status, headers).into_response();
    }
    (status, headers, axum::Json(body)).into_response()
}

fn client(endpoint: &str) -> Client {
    let credentials = Credentials {
        endpoint: endpoint.to_owned(),
        project_id: PROJECT.parse::<ProjectId>().unwrap(),
        access_key: "access".to_owned(),
        secret_key: Secret("secret".to_owned()),
    };
    Client::new(credentials, Arc::new(FixedClock)).unwrap()
}

/// What was printed, still readable after the printer is gone.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn execute_line(client: &Client, line: &[&str]) -> Result<String, Error> {
    let line = Line::try_parse_from(std::iter::once(&"cairn").chain(line)).unwrap();
    let paper = Paper::default();
    let mut printer = Printer::new(line.options.output, Box::new(paper.clone()));
    execute(line.command, client, &mut printer).await?;
    let printed = paper.0.lock().unwrap().clone();
    Ok(String::from_utf8(printed).unwrap())
}

fn vault() -> Value {
    json!({
        "id": VAULT, "name": "demo", "description": null, "project_id": PROJECT,
        "enterprise_project_id": "0", "user_id": null, "provider_id": "p", "created_at": AT,
        "updated_at": null, "tags": [], "auto_bind": false, "bind_rules": {}, "auto_expand": false,
        "availability_zone": null, "backup_name_prefix": null, "demand_billing": false,
        "cbc_delete_count": 0, "frozen": false, "locked": false, "smn_notify": true,
        "threshold": 80, "sys_lock_source_service": null, "version": null,
        "billing": {
            "allocated": 40, "charging_mode": "post_paid", "cloud_type": "public",
            "consistent_level": "crash_consistent", "frozen_scene": null, "is_multi_az": false,
            "object_type": "server", "order_id": null, "product_id": null, "partner_bp_id": null,
            "protect_type": "backup", "size": 100, "spec_code": "vault.backup.server.normal",
            "status": "available", "storage_unit": null, "used": 1536
        },
        "resources": [{
            "id": SERVER, "name": "web-1", "type": "OS::Nova::Server", "protect_status": "available",
            "size": 40, "backup_size": 0, "backup_count": 0, "auto_protect": true, "extra_info": {}
        }]
    })
}

fn vaults(vaults: &[Value]) -> Value {
    json!({"vaults": vaults, "count": vaults.len(), "limit": 1000, "offset": 0})
}

fn backup(id: &str, kind: &str, resource: &str, name: &str, children: &[Value]) -> Value {
    json!({
        "id": id, "name": "nightly", "description": null, "status": "available",
        "image_type": "backup", "checkpoint_id": CHECKPOINT, "parent_id": null,
        "project_id": PROJECT, "enterprise_project_id": "0", "vault_id": VAULT,
        "provider_id": "p", "resource_id": resource, "resource_name": name, "resource_type": kind,
        "resource_size": 40, "resource_az": null, "created_at": AT, "protected_at": AT,
        "updated_at": null, "expired_at": null, "children": children, "incremental": false,
        "replication_records": [], "scheduled_operation_id": null, "version": 3,
        "extend_info": {
            "auto_trigger": false, "bootable": null, "contain_system_disk": null, "encrypted": null,
            "incremental": false, "is_multi_az": false, "os_images_data": null, "snapshot_id": null,
            "support_lld": null, "supported_restore_mode": "backup", "system_disk": null,
            "progress": null, "architecture": null, "app_consistency": null
        }
    })
}

fn server_backup() -> Value {
    let child = backup(CHILD, "OS::Cinder::Volume", DISK, "web-root.qcow2", &[]);
    backup(BACKUP, "OS::Nova::Server", SERVER, "web-1", &[child])
}

fn backups(backups: &[Value]) -> Value {
    json!({"backups": backups, "count": backups.len(), "limit": 1000, "offset": 0})
}

fn checkpoint(status: &str) -> Value {
    json!({"checkpoint": {
        "id": CHECKPOINT, "project_id": PROJECT, "status": status, "created_at": AT,
        "extra_info": null,
        "vault": {
            "id": VAULT, "name": "demo", "provider_id": "p", "skipped_resources": [],
            "resources": [{
                "id": SERVER, "name": "web-1", "type": "OS::Nova::Server",
                "protect_status": "available", "resource_size": "40", "backup_size": "0",
                "backup_count": "0", "extra_info": null
            }]
        }
    }})
}

fn log(kind: &str, status: &str, code: &str, message: &str) -> Value {
    json!({
        "id": TASK, "operation_type": kind, "status": status, "project_id": PROJECT,
        "checkpoint_id": CHECKPOINT, "policy_id": null, "provider_id": "p", "vault_id": VAULT,
        "vault_name": "demo", "created_at": AT, "started_at": AT, "ended_at": null,
        "updated_at": AT, "error_info": {"code": code, "message": message},
        "extra_info": {
            "common": {"progress": 50, "request_id": "req-2", "task_id": null},
            "resource": {"id": SERVER, "type": "OS::Nova::Server", "name": "web-1"}
        }
    })
}

fn logs(logs: &[Value]) -> Value {
    json!({"operation_logs": logs, "count": logs.len(), "limit": 1000, "offset": 0})
}

#[test]
fn the_command_line_is_sound_and_tells_its_exit_codes() {
    Line::command().debug_assert();
    let mut line = Line::command();
    let help = line
        .find_subcommand_mut("restore")
        .unwrap()
        .render_long_help()
        .to_string();
    assert!(help.contains("3  the server cannot be reached"), "{help}");
    let wrong = Line::try_parse_from(["cairn", "task", "show", "x"]).unwrap_err();
    assert_eq!(wrong.exit_code(), 2);
}

#[tokio::test]
async fn a_vault_is_found_by_name_and_printed_for_people_and_programs() {
    let server = Server::new(&[("GET", "vaults", 200, vaults(&[vault()]))]).await;
    let table = server.run(&["vault", "show", "demo"]).await.unwrap();
    assert!(table.contains("\nused         1.5 GB\n"), "{table}");
    assert!(table.contains("web-1"), "{table}");
    let printed = server
        .run(&["-o", "json", "vault", "show", "demo"])
        .await
        .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), vault());
    let printed = server.run(&["vault", "list", "-o", "json"]).await.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&printed).unwrap(),
        json!([vault()])
    );
}

#[tokio::test]
async fn a_vault_has_the_level_of_consistency_that_is_asked_for() {
    let made = json!({ "vault": vault(), "orders": null });
    let server = Server::new(&[
        ("GET", "vaults", 200, vaults(&[vault()])),
        ("POST", "vaults", 200, made),
        (
            "PUT",
            &format!("vaults/{VAULT}"),
            200,
            json!({ "vault": vault() }),
        ),
    ])
    .await;
    let level = ["--consistent-level", "app_consistent"];
    let create = ["vault", "create", "new", "--type", "server"];
    server.run(&create).await.unwrap();
    server.run(&[&create[..], &level].concat()).await.unwrap();
    let sent = server.sent(Method::POST);
    let levels = sent
        .iter()
        .map(|body| &body["vault"]["billing"]["consistent_level"]);
    let levels: Vec<_> = levels.collect();
    assert_eq!(levels, ["crash_consistent", "app_consistent"]);
    let update = ["vault", "update", "demo"];
    server.run(&[&update[..], &level].concat()).await.unwrap();
    server
        .run(&[&update[..], &["--name", "x"]].concat())
        .await
        .unwrap();
    let sent = server.sent(Method::PUT);
    let billing = json!({ "consistent_level": "app_consistent" });
    assert_eq!(sent[0], json!({ "vault": { "billing": billing } }));
    assert_eq!(sent[1], json!({ "vault": { "name": "x" } }));
}

#[tokio::test]
async fn names_that_are_of_none_or_of_many_are_told_apart() {
    let found = vaults(&[vault(), vault()]);
    let server = Server::new(&[("GET", "vaults", 200, found)]).await;
    let many = server.run(&["vault", "show", "demo"]).await.unwrap_err();
    assert_eq!((many.exit_code(), many.line().contains(VAULT)), (1, true));
    for name in ["other", "no name at all", BACKUP] {
        let none = server.run(&["vault", "show", name]).await.unwrap_err();
        assert_eq!(none.exit_code(), 4, "{none}");
    }
}

#[tokio::test]
async fn a_refusal_is_one_line_with_code_and_request() {
    let refusal = json!({"error_code": "BackupService.6114", "error_msg": "The vault is full."});
    let server = Server::new(&[
        ("GET", "vaults", 200, vaults(&[vault()])),
        ("POST", "checkpoints", 400, refusal),
    ])
    .await;
    let error = server
        .run(&["checkpoint", "create", "demo"])
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert_eq!(
        error.line(),
        "The vault is full. (BackupService.6114, request req-1)"
    );
}

#[tokio::test]
async fn a_server_that_is_away_is_told_by_its_own_code() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = execute_line(&client(&endpoint), &["vault", "list"])
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(
        error
            .line()
            .starts_with(&format!("cannot reach {endpoint}/: ")),
        "{}",
        error.line()
    );
}

#[tokio::test]
async fn a_checkpoint_is_waited_for_and_its_backups_are_shown() {
    let running = logs(&[log("backup", "running", "", "")]);
    let server = Server::new(&[
        ("GET", "vaults", 200, vaults(&[vault()])),
        ("POST", "checkpoints", 200, checkpoint("protecting")),
        (
            "GET",
            &format!("checkpoints/{CHECKPOINT}"),
            200,
            checkpoint("protecting"),
        ),
        ("GET", &format!("checkpoints/{CHECKPOINT}"), 503, json!({})),
        (
            "GET",
            &format!("checkpoints/{CHECKPOINT}"),
            200,
            checkpoint("available"),
        ),
        ("GET", "operation-logs", 200, running),
        ("GET", "backups", 200, backups(&[server_backup()])),
    ])
    .await;
    let line = [
        "checkpoint",
        "create",
        "demo",
        "--wait",
        "--name",
        "nightly",
        "--resource",
        "web-1",
    ];
    let table = server.run(&line).await.unwrap();
    assert!(
        table.contains(BACKUP) && table.contains("nightly"),
        "{table}"
    );
    let sent = &server.sent(Method::POST)[0]["checkpoint"];
    let parameters = json!({"name": "nightly", "resources": [SERVER]});
    assert_eq!(*sent, json!({"vault_id": VAULT, "parameters": parameters}));
}

#[tokio::test]
async fn a_checkpoint_that_fails_says_why() {
    let failed = logs(&[log(
        "backup",
        "failed",
        "BackupService.7000",
        "web-root is missing",
    )]);
    let server = Server::new(&[
        ("GET", "vaults", 200, vaults(&[vault()])),
        ("POST", "checkpoints", 200, checkpoint("protecting")),
        (
            "GET",
            &format!("checkpoints/{CHECKPOINT}"),
            200,
            checkpoint("error"),
        ),
        ("GET", "operation-logs", 200, failed),
    ])
    .await;
    let error = server
        .run(&["checkpoint", "create", "demo", "--wait"])
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let reason = "backup of web-1 failed: web-root is missing (BackupService.7000, task ";
    assert!(error.line().starts_with(reason), "{}", error.line());
}

#[tokio::test]
async fn a_server_is_restored_disk_by_disk_to_itself_unless_told_otherwise() {
    let done = json!({"operation_log": log("restore", "success", "", "")});
    let disk = json!({
        "id": VAULT, "name": "spare.img", "type": "OS::Cinder::Volume", "size": 40,
        "status": "available", "detail": {}, "children": [],
        "protectable": {"result": true, "code": "", "reason": "", "message": null, "vault": null}
    });
    let server = Server::new(&[
        (
            "GET",
            &format!("backups/{BACKUP}"),
            200,
            json!({"backup": server_backup()}),
        ),
        (
            "POST",
            &format!("backups/{BACKUP}/restore"),
            202,
            json!({"job_id": TASK}),
        ),
        ("GET", &format!("operation-logs/{TASK}"), 200, done),
        (
            "GET",
            "protectables/disk/instances",
            200,
            json!({"instances": [disk]}),
        ),
    ])
    .await;
    let printed = server.run(&["restore", BACKUP, "--wait"]).await.unwrap();
    assert!(printed.contains("success"), "{printed}");
    let printed = server
        .run(&["restore", BACKUP, "--mapping", "web-root.qcow2=spare.img"])
        .await
        .unwrap();
    assert!(printed.contains(TASK), "{printed}");
    let sent = server.sent(Method::POST);
    let to = |volume: &str| {
        let mappings = json!([{"backup_id": CHILD, "volume_id": volume}]);
        json!({"restore": {"server_id": SERVER, "mappings": mappings}})
    };
    assert_eq!(sent, [to(DISK), to(VAULT)]);
}

#[tokio::test]
async fn a_misspelt_name_deletes_nothing() {
    let found = backups(&[server_backup()]);
    let server = Server::new(&[
        ("GET", "backups", 200, found),
        (
            "GET",
            &format!("backups/{BACKUP}"),
            200,
            json!({"backup": server_backup()}),
        ),
    ])
    .await;
    let error = server
        .run(&["backup", "delete", "nightly", "nightlx"])
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(server.sent(Method::DELETE).is_empty());
}

#[tokio::test]
async fn a_deletion_is_waited_for_until_the_backup_is_gone() {
    let mut deleting = server_backup();
    deleting["status"] = json!("deleting");
    let path = format!("backups/{BACKUP}");
    let gone = json!({"error_code": "BackupService.6200", "error_msg": "Backup does not exist."});
    let server = Server::new(&[
        ("GET", &path, 200, json!({"backup": server_backup()})),
        ("GET", &path, 200, json!({"backup": deleting})),
        ("GET", &path, 404, gone),
        ("DELETE", &path, 204, Value::Null),
    ])
    .await;
    let printed = server
        .run(&["backup", "delete", BACKUP, "--wait"])
        .await
        .unwrap();
    assert_eq!(printed, format!("backup nightly ({BACKUP}) is deleted\n"));
    assert_eq!(server.sent(Method::DELETE).len(), 1);
}

#[tokio::test]
async fn a_deletion_that_fails_says_why() {
    let mut failed_log = log(
        "delete",
        "failed",
        "BackupService.6201",
        "the store is read-only",
    );
    failed_log["extra_info"]["delete"] = json!({"backup_id": BACKUP, "backup_name": "nightly"});
    let path = format!("backups/{BACKUP}");
    let mut failed = server_backup();
    failed["status"] = json!("error");
    let server = Server::new(&[
        ("GET", &path, 200, json!({"backup": failed})),
        ("DELETE", &path, 204, Value::Null),
        ("GET", "operation-logs", 200, logs(&[failed_log])),
    ])
    .await;
    let error = server
        .run(&["backup", "delete", BACKUP, "--wait"])
        .await
        .unwrap_err();
    assert!(
        error.line().contains("the store is read-only"),
        "{}",
        error.line()
    );
}

#[tokio::test]
async fn waiting_for_a_failed_task_fails() {
    let failed =
        json!({"operation_log": log("restore", "failed", "BackupService.2001", "too small")});
    let server = Server::new(&[("GET", &format!("operation-logs/{TASK}"), 200, failed)]).await;
    let error = server.run(&["task", "wait", TASK]).await.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(
        error.line().contains("too small (BackupService.2001"),
        "{}",
        error.line()
    );
    assert!(
        server
            .run(&["task", "show", TASK])
            .await
            .unwrap()
            .contains("too small")
    );
}

const POLICY: &str = "cab3fdd5-2e4f-4b1f-9c8e-0f3b8c6f6a11";

fn policy() -> Value {
    json!({
        "id": POLICY, "name": "nightly", "enabled": true, "operation_type": "backup",
        "policy_type": "custom_policy", "operation_definition": { "max_backups": 7 },
        "trigger": { "id": TASK, "name": "default", "type": "time", "properties": {
            "pattern": [], "timezone": "Europe/Berlin", "recurrence_rules": ["FREQ=DAILY;BYHOUR=2"],
            "start_time": "2019-05-10 07:59:12", "start_window_minutes": 60 } },
        "associated_vaults": [{ "vault_id": VAULT, "destination_vault_id": null }]
    })
}

/// The body of a policy in a file of its own.
fn policy_file(name: &str, body: &Value) -> String {
    let folder = std::env::temp_dir().join(format!("cairn-cli-{}-{name}", std::process::id()));
    let mut file = std::fs::File::create(&folder).unwrap();
    file.write_all(body.to_string().as_bytes()).unwrap();
    folder.to_str().unwrap().to_owned()
}

fn new_policy() -> Value {
    json!({ "policy": { "name": "nightly", "operation_type": "backup",
        "operation_definition": { "max_backups": 1 },
        "trigger": { "properties": { "pattern": ["FREQ=DAILY;BYHOUR=2;BYMINUTE=00"] } } } })
}

#[tokio::test]
async fn policies_are_made_from_files_and_bound_by_name() {
    let one = json!({ "policy": policy() });
    let found = json!({ "policies": [policy()], "count": 1 });
    let bound = json!({ "vault_id": VAULT, "policy_id": POLICY, "destination_vault_id": null });
    let path = format!("policies/{POLICY}");
    let server = Server::new(&[
        ("GET", "policies", 200, found),
        ("GET", "vaults", 200, vaults(&[vault()])),
        ("POST", "policies", 200, one.clone()),
        ("PUT", &path, 200, one),
        ("DELETE", &path, 204, Value::Null),
        (
            "POST",
            &format!("vaults/{VAULT}/associatepolicy"),
            200,
            json!({ "associate_policy": bound }),
        ),
        (
            "POST",
            &format!("vaults/{VAULT}/dissociatepolicy"),
            200,
            json!({ "dissociate_policy": bound }),
        ),
    ])
    .await;
    let file = policy_file("create", &new_policy());
    let made = server
        .run(&["policy", "create", "--body", &file])
        .await
        .unwrap();
    for shown in [
        POLICY,
        "FREQ=DAILY;BYHOUR=2",
        "Europe/Berlin",
        "60 minutes",
        VAULT,
    ] {
        assert!(made.contains(shown), "{made}");
    }
    assert_eq!(server.sent(Method::POST)[0], new_policy());
    let change = policy_file("change", &json!({ "policy": { "enabled": false } }));
    server
        .run(&["policy", "update", "nightly", "--body", &change])
        .await
        .unwrap();
    let sent = &server.sent(Method::PUT)[0];
    assert_eq!(*sent, json!({ "policy": { "enabled": false } }));
    let listed = server.run(&["policy", "list", "--vault", "demo"]).await;
    assert!(listed.unwrap().contains("nightly"));
    let bind = server.run(&["policy", "bind", "demo", "nightly"]).await;
    assert_eq!(bind.unwrap(), "vault demo follows nightly\n");
    let unbind = server.run(&["policy", "unbind", "demo", "nightly"]).await;
    assert_eq!(unbind.unwrap(), "vault demo no longer follows nightly\n");
    assert_eq!(
        server.sent(Method::POST)[1..],
        [
            json!({ "policy_id": POLICY }),
            json!({ "policy_id": POLICY })
        ]
    );
    let gone = server.run(&["policy", "delete", "nightly"]).await;
    assert_eq!(gone.unwrap(), "policy nightly is deleted\n");
    let none = server.run(&["policy", "show", "other"]).await.unwrap_err();
    assert_eq!(none.exit_code(), 4);
    for file in [file, change] {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn a_simulation_asks_no_server() {
    let nowhere = client("http://127.0.0.1:1");
    let file = policy_file("simulate", &new_policy());
    let line = |more: &[&'static str]| {
        let mut line = vec!["policy", "simulate", "--body", &file];
        line.extend(more);
        line.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = async |more: &[&'static str]| {
        let line = line(more);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        execute_line(&nowhere, &line).await
    };
    let span = ["--from", "2026-01-01", "--until", "2026-01-02T02:00:00Z"];
    let json = run(&[&span[..], &["-o", "json"]].concat()).await.unwrap();
    let wanted = json!({ "backups": [
        { "created_at": "2026-01-01T02:00:00Z", "expired_at": "2026-01-02T02:00:00Z", "kept_by": [] },
        { "created_at": "2026-01-02T02:00:00Z", "expired_at": null, "kept_by": ["max_backups"] },
    ] });
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), wanted);
    let table = run(&span).await.unwrap();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert_eq!(
        run(&[]).await.unwrap().lines().count(),
        366,
        "a year from now"
    );
    for wrong in [
        ["--from", "soon"],
        ["--until", "2001-01-01"],
        ["--body", "/nonexistent"],
    ] {
        let mut line = vec!["policy", "simulate"];
        if wrong[0] != "--body" {
            line.extend(["--body", &file]);
        }
        line.extend(wrong);
        let error = execute_line(&nowhere, &line).await.unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
    }
    std::fs::remove_file(&file).unwrap();
}

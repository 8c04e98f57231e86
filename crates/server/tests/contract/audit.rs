//! The traces that calls leave.

use cairn_api::Operation as Op;
use cairn_audit::{Stage, Trace, verify};
use cairn_testkit::World;
use cairn_types::Role;
use serde_json::{Value, json};

use crate::client::{Client, vault_body};

fn traces(client: &Client) -> Vec<Trace> {
    let mut traces = Vec::new();
    let folder = client.world.trail_folder();
    verify(&folder, &World::trail_key(), None, |trace| {
        traces.push(trace)
    })
    .unwrap();
    traces
}

fn told(traces: &[Trace]) -> Vec<(&str, Stage, Option<u16>)> {
    let told = |trace: &'_ Trace| (trace.stage, trace.status);
    traces
        .iter()
        .map(|trace| (trace.trace_name.as_str(), told(trace).0, told(trace).1))
        .collect()
}

#[tokio::test]
async fn a_change_leaves_a_trace_before_and_after() {
    let client = Client::new().await;
    let made = client
        .call(Op::CreateVault, &[], vault_body("disk", 100, json!([])))
        .await;
    let id = made.body["vault"]["id"].as_str().unwrap();
    client.call(Op::ShowVault, &[id], Value::Null).await;
    client.call(Op::DeleteVault, &[id], Value::Null).await;
    let traces = traces(&client);
    assert_eq!(
        told(&traces),
        [
            ("createVault", Stage::Asked, None),
            ("createVault", Stage::Answered, Some(200)),
            ("deleteVault", Stage::Asked, None),
            ("deleteVault", Stage::Answered, Some(204)),
        ]
    );
    assert_eq!(traces[0].resource_id, None);
    assert_eq!(traces[1].resource_id.as_deref(), Some(id));
    let last = &traces[3];
    assert_eq!(last.user_id, Some(client.world.caller().user));
    assert_eq!(last.project_id, Some(client.world.caller().project));
    assert_eq!(last.resource_id.as_deref(), Some(id));
    assert_eq!(last.resource_type, "vault");
    assert!(last.request_id.starts_with("req-"));
}

#[tokio::test]
async fn what_is_refused_leaves_a_trace_with_its_code() {
    let mut client = Client::new().await;
    client.become_role(Role::ReadOnlyAccess).await;
    let body = vault_body("disk", 100, json!([]));
    let refused = client.call(Op::CreateVault, &[], body).await;
    assert_eq!(refused.status, 403);
    let traces = traces(&client);
    assert_eq!(traces[1].status, Some(403));
    assert_eq!(traces[1].error_code.as_deref(), Some("APIGW.0302"));
}

#[tokio::test]
async fn the_reads_that_cts_records_leave_one_trace() {
    let client = Client::new().await;
    client.call(Op::ListBackups, &[], Value::Null).await;
    client.call(Op::ListVault, &[], Value::Null).await;
    // A change behind it waits until all before it is on disk.
    let body = vault_body("disk", 100, json!([]));
    client.call(Op::CreateVault, &[], body).await;
    let traces = traces(&client);
    let first = told(&traces)[0];
    assert_eq!(first, ("listBackups", Stage::Answered, Some(200)));
    assert_eq!(traces.len(), 3);
}

#[tokio::test]
async fn without_a_trace_nothing_is_done() {
    let client = Client::new().await;
    let folder = client.world.trail_folder();
    std::fs::remove_dir_all(&folder).unwrap();
    let body = vault_body("disk", 100, json!([]));
    let refused = client.call(Op::CreateVault, &[], body.clone()).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.body["error_code"], "BackupService.9910");
    let listed = client.call(Op::ListVault, &[], Value::Null).await;
    assert_eq!(listed.body["count"], 0);
    std::fs::create_dir(&folder).unwrap();
    let made = client.call(Op::CreateVault, &[], body).await;
    assert_eq!(made.status, 200);
}

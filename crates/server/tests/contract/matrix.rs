//! Every operation, by everybody, on what is theirs, on what is another's and on
//! what does not exist. The rows come from the table of operations; an
//! operation without a case does not compile.

use std::collections::BTreeMap;

use axum::http::Request;
use cairn_api::{Group, Operation, Operation as Op};
use cairn_testkit::own_contract::assert_matches_ours;
use cairn_testkit::vendor_contract::assert_matches_vendor;
use cairn_types::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Answer, Client, vault_body};

/// What an operation is called with: the parameters behind the project, and the body.
#[derive(Clone)]
struct Case {
    path: Vec<String>,
    body: Value,
}

impl Case {
    fn new<const N: usize>(path: [&str; N], body: Value) -> Self {
        let path = path.map(str::to_owned).to_vec();
        Self { path, body }
    }

    fn plain<const N: usize>(path: [&str; N]) -> Self {
        Self::new(path, Value::Null)
    }

    /// The same about ids that nobody has: each id becomes another, the same one the same.
    fn about_nothing(&self, project: &str) -> Self {
        let mut strangers = BTreeMap::new();
        let mut stranger = |text: &str| match text.parse::<Uuid>() {
            Ok(id) if text.len() == 36 => {
                let new = strangers.entry(id).or_insert_with(Uuid::new_v4);
                new.to_string()
            }
            Ok(id) if text != project => {
                let new = strangers.entry(id).or_insert_with(Uuid::new_v4);
                new.simple().to_string()
            }
            _ => text.to_owned(),
        };
        let path = self.path.iter().map(|part| stranger(part)).collect();
        let mut body = self.body.clone();
        visit(&mut body, &mut |text| *text = stranger(text));
        Self { path, body }
    }

    /// Whether anything in it is an id.
    fn has_ids(&self) -> bool {
        let mut ids = self
            .path
            .iter()
            .filter(|part| part.parse::<Uuid>().is_ok())
            .count();
        let mut body = self.body.clone();
        visit(&mut body, &mut |text| {
            ids += usize::from(text.parse::<Uuid>().is_ok())
        });
        ids > 0
    }
}

/// Every text in a value.
fn visit(value: &mut Value, each: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, each)),
        Value::Object(fields) => fields.values_mut().for_each(|field| visit(field, each)),
        _ => {}
    }
}

fn schedule() -> Value {
    json!({ "properties": { "pattern": ["FREQ=WEEKLY;BYDAY=MO,TU;BYHOUR=14;BYMINUTE=00"] } })
}

fn policy() -> Value {
    json!({ "policy": { "name": "nightly", "operation_type": "backup",
        "operation_definition": { "max_backups": 7 }, "trigger": schedule() } })
}

fn organization_policy() -> Value {
    json!({ "policy": { "name": "all", "policy_name": "nightly", "operation_type": "backup",
        "policy_enabled": true, "policy_operation_definition": { "max_backups": 7 },
        "policy_trigger": schedule() } })
}

fn notification_target() -> Value {
    let webhook = json!({ "url": "https://example.com/", "secret": "0123456789abcdef" });
    json!({ "notification_target": { "name": "ops", "webhook": webhook } })
}

/// The order of more room for a vault.
fn bigger(vault: &str) -> Value {
    let product = json!({ "productId": "p", "resourceSize": 200, "resourceSizeMeasureId": 17,
        "resourceSpecCode": "vault.backup.volume.normal" });
    json!({ "resourceId": vault, "productInfo": product })
}

impl Client {
    async fn made(&self, operation: Op, body: Value, id: &str) -> String {
        let made = self.call(operation, &[], body).await;
        let found = made.body.pointer(id).and_then(Value::as_str);
        found
            .unwrap_or_else(|| panic!("{operation}: {made:?}"))
            .to_owned()
    }

    async fn a_vault(&self, object_type: &str, protect_type: &str, cloud_type: &str) -> String {
        let mut body = vault_body(object_type, 100, json!([]));
        body["vault"]["billing"]["protect_type"] = json!(protect_type);
        body["vault"]["billing"]["cloud_type"] = json!(cloud_type);
        self.made(Op::CreateVault, body, "/vault/id").await
    }

    /// A server's backup.
    async fn a_backup(&self) -> String {
        let vault = self.server_vault().await;
        self.back_up(&vault).await
    }

    /// The log of a backup that nobody has begun.
    async fn a_waiting_task(&self) -> String {
        let vault = self.server_vault().await;
        let body = json!({ "checkpoint": { "vault_id": vault } });
        self.made(Op::CreateCheckpoint, body, "/checkpoint/id")
            .await;
        let query = format!("vault_id={vault}");
        let listed = self
            .call_with(Op::ListOpLogs, &[], &query, Value::Null)
            .await;
        listed.body["operation_logs"][0]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    async fn a_prepaid_vault(&self) -> (String, String) {
        let mut body = vault_body("disk", 100, json!([]));
        let billing = &mut body["vault"]["billing"];
        billing["charging_mode"] = json!("pre_paid");
        billing["period_num"] = json!(1);
        billing["period_type"] = json!("month");
        let made = self.call(Op::CreateVault, &[], body).await;
        let order = &made.body["orders"][0];
        let text = |key: &str| order[key].as_str().unwrap_or_default().to_owned();
        (text("resourceId"), text("orderId"))
    }

    async fn an_agent(&self) -> String {
        let id = Uuid::new_v4().to_string();
        self.call(Op::RegisterAgent, &[], agent(&id)).await;
        id
    }

    async fn a_tagged_vault(&self) -> String {
        let vault = self.a_vault("disk", "backup", "public").await;
        let tag = json!({ "tag": { "key": "k", "value": "v" } });
        self.call(Op::CreateVaultTags, &[&vault], tag).await;
        vault
    }

    async fn a_share(&mut self) -> (String, String) {
        let backup = self.a_backup().await;
        let (project, token) = (self.project.clone(), self.token.clone());
        let stranger = self.stranger().await;
        (self.project, self.token) = (project, token);
        let members = json!({ "members": [stranger.0] });
        self.call(Op::AddMember, &[&backup], members).await;
        (backup, stranger.0)
    }

    /// A project of somebody else, and their token.
    async fn stranger(&mut self) -> (String, String) {
        let own = (self.project.clone(), self.token.clone());
        self.become_stranger().await;
        let other = (self.project.clone(), self.token.clone());
        (self.project, self.token) = own;
        other
    }

    /// What the operation can be called with so that it works, in the client's
    /// project and by its administrator.
    async fn case(&mut self, operation: Op) -> Case {
        match operation {
            Op::ListVault
            | Op::ShowSummary
            | Op::ListBackups
            | Op::ListPolicies
            | Op::ListOpLogs
            | Op::ShowReplicationCapabilities
            | Op::ShowVaultProjectTag
            | Op::ListAgent
            | Op::ShowStorageUsage
            | Op::ListFeatures
            | Op::ListOrganizationPolicies
            | Op::ListExternalVault
            | Op::ListProjects
            | Op::ListVerifications
            | Op::ListNotificationTargets
            | Op::ListNotifications
            | Op::ListExports
            | Op::ListApiVersions => Case::plain([]),
            Op::ShowMigrateStatus => {
                let body = json!({ "all_regions": true, "reservation": 0.2 });
                self.call(Op::MigrateDomain, &[], body).await;
                Case::plain([])
            }
            Op::ShowApiVersion => Case::plain(["cbr"]),
            Op::ShowFeature => Case::plain(["replication.enable"]),
            Op::ShowDomain => Case::plain([&self.project.clone()]),
            Op::ListDomainProjects => Case::plain([&self.world.credentials.domain.name.clone()]),
            Op::MigrateDomain => Case::new([], json!({ "all_regions": true, "reservation": 0.2 })),
            Op::CreateVault => Case::new([], vault_body("disk", 100, json!([]))),
            Op::BatchUpdateVault => Case::new([], json!({ "vault": { "threshold": 60 } })),
            Op::CreatePolicy => Case::new([], policy()),
            Op::CreateOrganizationPolicy => Case::new([], organization_policy()),
            Op::CreateNotificationTarget => Case::new([], notification_target()),
            Op::CreateAgentToken => Case::new([], json!({ "agent_token": { "hours": 2 } })),
            Op::RegisterAgent => Case::new([], agent(&Uuid::new_v4().to_string())),
            Op::ListProtectable => Case::plain(["disk"]),
            Op::ShowProtectable => {
                let disk = self.world.disk().await.to_string();
                Case::plain(["disk", &disk])
            }
            Op::CheckAgent => {
                let server = self.world.server().await.to_string();
                let asked = json!({ "resource_id": server, "resource_name": "web-1",
                    "resource_type": "OS::Nova::Server" });
                Case::new([], json!({ "agent_status": [asked] }))
            }
            Op::ShowVaultResourceInstances => Case::new([], json!({ "action": "filter" })),
            Op::PreviewPolicy => self.policy_case(operation).await,
            _ => match operation.spec().group {
                Group::Vault | Group::Order | Group::Tag => self.vault_case(operation).await,
                Group::Policy | Group::OrganizationPolicy => self.policy_case(operation).await,
                Group::Agent => self.agent_case(operation).await,
                Group::Notification => self.notification_case(operation).await,
                Group::Export | Group::Download => self.export_case(operation).await,
                _ => self.backup_case(operation).await,
            },
        }
    }

    async fn vault_case(&mut self, operation: Op) -> Case {
        let disk = self.world.disk().await.to_string();
        match operation {
            Op::ShowVault | Op::DeleteVault => Case::plain([&self.disk_vault().await]),
            Op::UpdateVault => {
                let change = json!({ "vault": { "name": "other" } });
                Case::new([&self.disk_vault().await], change)
            }
            Op::AddVaultResource => {
                let resource = json!({ "id": disk, "type": "OS::Cinder::Volume" });
                let vault = self.a_vault("disk", "backup", "public").await;
                Case::new([&vault], json!({ "resources": [resource] }))
            }
            Op::RemoveVaultResource => Case::new(
                [&self.disk_vault().await],
                json!({ "resource_ids": [disk] }),
            ),
            Op::SetVaultResource => {
                let body = json!({ "action": "suspend", "resource_ids": [disk] });
                Case::new([&self.disk_vault().await], body)
            }
            Op::MigrateVaultResource => {
                let to = self.a_vault("disk", "backup", "public").await;
                let body = json!({ "destination_vault_id": to, "resource_ids": [disk] });
                Case::new([&self.disk_vault().await], body)
            }
            Op::UpdateExpirationTime => {
                let body =
                    json!({ "expect_expiration_date": "2030-01-01", "time_zone": "UTC+08:00" });
                Case::new([&self.disk_vault().await], body)
            }
            Op::AssociateVaultPolicy => {
                let policy = self.made(Op::CreatePolicy, policy(), "/policy/id").await;
                Case::new([&self.disk_vault().await], json!({ "policy_id": policy }))
            }
            Op::DisassociateVaultPolicy => {
                let policy = self.made(Op::CreatePolicy, policy(), "/policy/id").await;
                let (vault, body) = (self.disk_vault().await, json!({ "policy_id": policy }));
                self.call(Op::AssociateVaultPolicy, &[&vault], body.clone())
                    .await;
                Case::new([&vault], body)
            }
            Op::CreatePostPaidVault => {
                let mut body = vault_body("disk", 100, json!([]));
                let billing = &mut body["vault"]["billing"];
                billing["charging_mode"] = json!("pre_paid");
                billing["period_num"] = json!(1);
                billing["period_type"] = json!("month");
                Case::new([], body)
            }
            Op::ChangeVaultChargeMode => {
                let vault = self.disk_vault().await;
                Case::new(
                    [],
                    json!({ "vault_ids": [vault], "charging_mode": "pre_paid",
                    "period_type": "year", "period_num": 1, "is_auto_renew": true, "is_auto_pay": true }),
                )
            }
            Op::ChangeOrder => {
                let (vault, _) = self.a_prepaid_vault().await;
                Case::new([], bigger(&vault))
            }
            Op::UpdateOrder => {
                let (vault, order) = self.a_prepaid_vault().await;
                Case::new([&order], bigger(&vault))
            }
            Op::ShowVaultTag => Case::plain([&self.a_tagged_vault().await]),
            Op::CreateVaultTags => {
                let tag = json!({ "tag": { "key": "k", "value": "v" } });
                Case::new([&self.a_tagged_vault().await], tag)
            }
            Op::BatchCreateAndDeleteVaultTags => {
                let tags = json!({ "action": "create", "tags": [{ "key": "k", "value": "v" }] });
                Case::new([&self.a_tagged_vault().await], tags)
            }
            Op::DeleteVaultTag => Case::plain([&self.a_tagged_vault().await, "k"]),
            _ => panic!("{operation} has no case"),
        }
    }

    async fn policy_case(&mut self, operation: Op) -> Case {
        if operation.spec().group == Group::OrganizationPolicy {
            let made = self.call(Op::CreateOrganizationPolicy, &[], organization_policy());
            let made = made.await.body;
            let id = made["policy"]["id"]
                .as_str()
                .unwrap_or_else(|| panic!("{made}"));
            let mut change = organization_policy();
            change["policy"]
                .as_object_mut()
                .unwrap()
                .remove("operation_type");
            return match operation {
                Op::UpdateOrganizationPolicy => Case::new([id], change),
                _ => Case::plain([id]),
            };
        }
        let id = self.made(Op::CreatePolicy, policy(), "/policy/id").await;
        match operation {
            Op::UpdatePolicy => {
                let change = json!({ "policy": { "name": "other", "enabled": false } });
                Case::new([&id], change)
            }
            Op::PreviewPolicy => {
                let change = json!({ "policy": { "operation_definition": { "max_backups": 1 } } });
                Case::new([&id], change)
            }
            Op::ShowPolicy | Op::DeletePolicy => Case::plain([&id]),
            _ => panic!("{operation} has no case"),
        }
    }

    async fn notification_case(&mut self, operation: Op) -> Case {
        let wish = notification_target();
        let created = Op::CreateNotificationTarget;
        let id = self.made(created, wish, "/notification_target/id").await;
        match operation {
            Op::UpdateNotificationTarget => {
                let change = json!({ "notification_target": { "name": "other" } });
                Case::new([&id], change)
            }
            Op::ShowNotificationTarget
            | Op::DeleteNotificationTarget
            | Op::TestNotificationTarget => Case::plain([&id]),
            Op::ShowNotification => {
                let test = Op::TestNotificationTarget;
                let begun = self.call(test, &[&id], Value::Null).await;
                Case::plain([begun.body["notification"]["id"].as_str().unwrap()])
            }
            _ => panic!("{operation} has no case"),
        }
    }

    async fn export_case(&mut self, operation: Op) -> Case {
        let server = self.a_backup().await;
        let shown = self.call(Op::ShowBackup, &[&server], Value::Null).await;
        let disk = &shown.body["backup"]["children"][0]["id"];
        let backup = disk.as_str().unwrap().to_owned();
        let wish = json!({ "export": { "writable": true } });
        match operation {
            Op::CreateExport => return Case::new([&backup], wish),
            Op::DownloadBackup => return Case::plain([&backup]),
            _ => {}
        }
        let made = self.call(Op::CreateExport, &[&backup], wish).await;
        Case::plain([made.body["export"]["id"].as_str().unwrap()])
    }

    async fn agent_case(&mut self, operation: Op) -> Case {
        let id = self.an_agent().await;
        match operation {
            Op::ShowAgent | Op::UnregisterAgent => Case::plain([&id]),
            Op::UpdateAgent => Case::new([&id], json!({ "agent": { "status": "uninstall" } })),
            Op::AddAgentPath => Case::new([&id], json!({ "add_path": ["/home"] })),
            Op::RemoveAgentPath => Case::new([&id], json!({ "remove_path": ["/home"] })),
            _ => panic!("{operation} has no case"),
        }
    }

    async fn backup_case(&mut self, operation: Op) -> Case {
        match operation {
            Op::CreateCheckpoint => {
                let vault = self.disk_vault().await;
                Case::new([], json!({ "checkpoint": { "vault_id": vault } }))
            }
            Op::ShowCheckpoint => {
                let backup = self.a_backup().await;
                let shown = self.call(Op::ShowBackup, &[&backup], Value::Null).await;
                Case::plain([shown.body["backup"]["checkpoint_id"].as_str().unwrap()])
            }
            Op::ShowOpLog => {
                self.a_backup().await;
                let listed = self.call(Op::ListOpLogs, &[], Value::Null).await;
                Case::plain([listed.body["operation_logs"][0]["id"].as_str().unwrap()])
            }
            Op::CancelOpLog => Case::plain([&self.a_waiting_task().await]),
            Op::ShowBackup
            | Op::DeleteBackup
            | Op::ShowMetadata
            | Op::ShowMembersDetail
            | Op::ExplainBackup
            | Op::ShowVerification => Case::plain([&self.a_backup().await]),
            Op::StartVerification => {
                let wish = json!({ "level": "quick", "backup_id": self.a_backup().await });
                Case::new([], json!({ "verification": wish }))
            }
            Op::SimulatePolicy => Case::new([], crate::policies::policy_body("backup")),
            Op::UpdateBackup => {
                let change = json!({ "backup": { "name": "other" } });
                Case::new([&self.a_backup().await], change)
            }
            Op::RestoreBackup => {
                let vault = self.disk_vault().await;
                let backup = self.back_up(&vault).await;
                let disk = self.world.disk().await.to_string();
                Case::new([&backup], json!({ "restore": { "volume_id": disk } }))
            }
            Op::AddMember => {
                let backup = self.a_backup().await;
                let (stranger, _) = self.stranger().await;
                Case::new([&backup], json!({ "members": [stranger] }))
            }
            Op::ShowMemberDetail | Op::DeleteMember => {
                let (backup, member) = self.a_share().await;
                Case::plain([&backup, &member])
            }
            // Who it is shared with decides; here that is the client's project.
            Op::UpdateMemberStatus => {
                let (backup, member) = self.a_share().await;
                Case::new([&backup, &member], json!({ "status": "rejected" }))
            }
            Op::CopyBackup => {
                let backup = self.a_backup().await;
                let to = self.a_vault("server", "replication", "public").await;
                let wish = json!({ "destination_project_id": self.project,
                    "destination_region": "cairn-1", "destination_vault_id": to });
                Case::new([&backup], json!({ "replicate": wish }))
            }
            Op::CopyCheckpoint => {
                let from = self.server_vault().await;
                self.back_up(&from).await;
                let to = self.a_vault("server", "replication", "public").await;
                let wish = json!({ "destination_project_id": self.project, "vault_id": from,
                    "destination_region": "cairn-1", "destination_vault_id": to });
                Case::new([], json!({ "replicate": wish }))
            }
            Op::ImportCheckpoint => {
                let vault = self.a_vault("server", "backup", "hybrid").await;
                let wish = json!({ "vault_id": vault, "auto_trigger": false });
                Case::new([], json!({ "sync": wish }))
            }
            Op::AnnounceReplica => {
                let vault = self.a_vault("server", "replication", "public").await;
                Case::new([], announcement(&vault))
            }
            Op::ShowReplica | Op::WithdrawReplica => {
                let vault = self.a_vault("server", "replication", "public").await;
                let made = self.made(Op::AnnounceReplica, announcement(&vault), "/replica/id");
                Case::plain([&made.await])
            }
            Op::ImportBackup => Case::new(
                [],
                json!({ "sync": [{
                "backup_id": Uuid::new_v4(), "backup_name": "b", "bucket_name": "bucket",
                "image_path": "a/b", "resource_id": Uuid::new_v4(), "resource_name": "r",
                "resource_type": "OS::Native::Server", "created_at": 1_553_587_260 }] }),
            ),
            _ => panic!("{operation} has no case"),
        }
    }

    /// Calls an operation with a case, in a project, with a token.
    async fn ask(&self, operation: Op, case: &Case, project: &str, token: &str) -> Answer {
        let spec = operation.spec();
        let mut target = spec.path.replace("{project_id}", project);
        let names = spec.path_parameters().filter(|name| *name != "project_id");
        for (name, value) in names.zip(&case.path) {
            target = target.replace(&format!("{{{name}}}"), value);
        }
        match operation {
            Op::ListOrganizationPolicies => target.push_str("?operation_type=backup"),
            Op::ListExternalVault => {
                let query = format!("?region_id=cairn-1&external_project_id={project}");
                target.push_str(&query);
            }
            Op::DownloadBackup => target.push_str("?format=qcow2"),
            _ => {}
        }
        let mut request = Request::builder().method(&spec.method).uri(&target);
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        let body = match case.body.is_null() {
            true => String::new(),
            false => case.body.to_string(),
        };
        let answer = self.send_request(request.body(body.into()).unwrap()).await;
        if !operation.is_extension() {
            assert_matches_vendor(spec.id, answer.status.as_u16(), &answer.body);
        }
        assert_matches_ours(spec.id, answer.status.as_u16(), &answer.body);
        answer
    }
}

/// What another region says of a backup that is to come.
fn announcement(vault: &str) -> Value {
    let resource = |kind: &str| {
        json!({ "id": Uuid::new_v4(), "name": "web-1", "type": kind, "size_bytes": 512,
            "system_disk": true, "backup_name": "manualbk" })
    };
    json!({ "replica": {
        "vault_id": vault, "name": "copy", "description": "", "auto_trigger": false,
        "source": { "region": "cairn-2", "project_id": Uuid::new_v4().simple().to_string(),
            "vault_id": Uuid::new_v4(), "checkpoint_id": Uuid::new_v4(),
            "backup_id": Uuid::new_v4() },
        "resource": resource("OS::Nova::Server"),
        "disks": [resource("OS::Cinder::Volume")],
    } })
}

fn agent(id: &str) -> Value {
    json!({ "agent": { "agent_id": id, "agent_type": "native", "agent_version": "1.0.0",
        "host_ip": "10.10.0.2", "host_name": "host", "host_os": "linux" } })
}

/// Whether a role may call an operation; written down by hand, for the test to be one.
fn may(role: Role, operation: Op) -> bool {
    let spec = operation.spec();
    // It gives out what a restore would.
    let looks = (spec.method == "GET" && operation != Op::DownloadBackup)
        || [
            Op::CheckAgent,
            Op::ShowVaultResourceInstances,
            Op::SimulatePolicy,
            Op::PreviewPolicy,
        ]
        .contains(&operation);
    let of_domain =
        !looks && (spec.group == Group::OrganizationPolicy || operation == Op::MigrateDomain);
    match role {
        Role::Administrator => true,
        Role::FullAccess => !of_domain,
        _ => looks,
    }
}

/// An answer without the ids that it speaks of.
fn without_ids(answer: &Answer) -> (u16, String) {
    let words = answer.body.to_string();
    let words = words.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    let mut text = answer.body.to_string();
    for word in words.filter(|word| word.parse::<Uuid>().is_ok()) {
        text = text.replace(word, "ID");
    }
    (answer.status.as_u16(), text)
}

/// What every row checks for one operation.
async fn check(operation: Operation) {
    let mut client = Client::new().await;
    let case = client.case(operation).await;
    let (project, administrator) = (client.project.clone(), client.token.clone());
    let spec = operation.spec();
    if spec.is_public() {
        let answer = client.ask(operation, &case, &project, "").await;
        assert_eq!(answer.status, spec.success_status, "{operation} by nobody");
        return;
    }
    let (other, stranger) = client.stranger().await;

    // Nobody, and who was somebody.
    let nothing = case.about_nothing(&project);
    let foreign = (&other, "foreign");
    for (case, project, whose) in [
        (&case, &project, "own"),
        (&nothing, &project, "random"),
        (&case, foreign.0, foreign.1),
    ] {
        for token in ["", "gAAAA-made-up"] {
            let answer = client.ask(operation, case, project, token).await;
            assert_eq!(
                answer.status, 401,
                "{operation} by nobody on {whose}: {answer:?}"
            );
        }
    }

    // Another project's user: in a project that is theirs not, or that is nobody's.
    if spec.is_in_project() {
        let in_ours = client.ask(operation, &case, &project, &stranger).await;
        let nowhere = Uuid::new_v4().simple().to_string();
        let in_nowhere = client.ask(operation, &case, &nowhere, &stranger).await;
        assert_eq!(
            in_ours.status, 403,
            "{operation} in a foreign project: {in_ours:?}"
        );
        assert_eq!(
            without_ids(&in_ours),
            without_ids(&in_nowhere),
            "{operation}"
        );
    }

    // In their own project: what is another's and what is nobody's is the same.
    let (foreign, random) = match operation {
        // The list of projects and the share are the caller's by other means than an id.
        Op::UpdateMemberStatus => (None, None),
        _ => {
            let foreign = client.ask(operation, &case, &other, &stranger).await;
            let random = client.ask(operation, &nothing, &other, &stranger).await;
            (Some(foreign), Some(random))
        }
    };
    if let (Some(foreign), Some(random)) = (foreign, random)
        && case.has_ids()
        && !answers_anybody(operation)
    {
        assert!(foreign.status.is_client_error(), "{operation}: {foreign:?}");
        assert_eq!(without_ids(&foreign), without_ids(&random), "{operation}");
    }

    // Who only looks.
    client.become_role(Role::ReadOnlyAccess).await;
    let reader = client.token.clone();
    let random = client.ask(operation, &nothing, &project, &reader).await;
    let own = client.ask(operation, &case, &project, &reader).await;
    if may(Role::ReadOnlyAccess, operation) {
        assert_eq!(
            own.status, spec.success_status,
            "{operation} by a reader: {own:?}"
        );
    } else {
        assert_eq!(own.status, 403, "{operation} by a reader: {own:?}");
        assert_eq!(
            without_ids(&own),
            without_ids(&random),
            "{operation} by a reader"
        );
    }
    if operation == Op::UpdateMemberStatus {
        return;
    }

    // Who may do everything in the project, and who may do everything.
    let name = &client.world.credentials.project.name;
    let full = client
        .world
        .service
        .add_user(name, "owner", Role::FullAccess);
    let owner = crate::client::token(&client.world, &full.await.unwrap()).await;
    let own = client.ask(operation, &case, &project, &owner).await;
    if may(Role::FullAccess, operation) {
        assert_eq!(
            own.status, spec.success_status,
            "{operation} by its owner: {own:?}"
        );
        let mut client = Client::new().await;
        let case = client.case(operation).await;
        let own = client
            .ask(operation, &case, &client.project, &client.token)
            .await;
        assert_eq!(
            own.status, spec.success_status,
            "{operation} by the administrator: {own:?}"
        );
    } else {
        assert_eq!(own.status, 403, "{operation} by its owner: {own:?}");
        let own = client.ask(operation, &case, &project, &administrator).await;
        assert_eq!(
            own.status, spec.success_status,
            "{operation} by the administrator: {own:?}"
        );
    }

    // A token that has ended is nobody's.
    client.world.clock.advance(24 * 3600 + 1);
    for case in [&case, &nothing] {
        let answer = client.ask(operation, case, &project, &administrator).await;
        assert_eq!(answer.status, 401, "{operation} with an ended token");
    }
}

/// Operations whose ids name nothing that has an owner: what they make, what
/// they are asked about one by one, or where they look.
fn answers_anybody(operation: Op) -> bool {
    matches!(
        operation,
        Op::RegisterAgent
            | Op::CreateAgentToken
            | Op::ImportBackup
            | Op::CheckAgent
            | Op::ShowDomain
    )
}

macro_rules! rows {
    ($($name:ident: $groups:pat,)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                // A connection is made by a signature over a real one: `replicas.rs`; an agent says
                // who it is in another way: `agent_lines.rs`. No disk here holds files:
                // `tests/test_files.py`.
                let of_group = |operation: &&Operation| {
                    let connects = [Op::ConnectReplica, Op::ConnectExport, Op::ConnectAgent];
                    let elsewhere = connects.contains(operation)
                        || **operation == Op::EnrolAgent
                        || operation.spec().group == Group::File;
                    matches!(operation.spec().group, $groups) && !elsewhere
                };
                for operation in Operation::ALL.iter().filter(of_group) {
                    check(*operation).await;
                }
            }
        )+

        /// Every group has its rows: one that is added does not compile without.
        #[allow(dead_code, reason = "the compiler is who asks")]
        const fn has_rows(group: Group) {
            match group { $( $groups => {} )+ }
        }
    };
}

rows! {
    vaults_by_everybody: Group::Vault,
    backups_by_everybody: Group::Checkpoint | Group::Backup | Group::OperationLog,
    policies_by_everybody: Group::Policy | Group::OrganizationPolicy | Group::Simulation,
    shares_by_everybody: Group::Member | Group::Replication | Group::Import,
    tags_by_everybody: Group::Tag,
    verifications_by_everybody: Group::Verification,
    retention_and_tasks_by_everybody: Group::Retention | Group::Task,
    replicas_by_everybody: Group::Replica,
    notifications_by_everybody: Group::Notification,
    exports_by_everybody: Group::Export | Group::File | Group::Download,
    agents_by_everybody: Group::Agent | Group::AgentLine | Group::AppConsistency | Group::Protectable,
    orders_by_everybody: Group::Order | Group::Migration,
    lookups_by_everybody: Group::StorageUsage | Group::Feature | Group::Lookup | Group::Version,
}

/// The share is decided by the project that it is offered to, and by nobody else.
#[tokio::test]
async fn a_share_is_decided_by_its_receiver() {
    let mut client = Client::new().await;
    let case = client.case(Op::UpdateMemberStatus).await;
    let (backup, receiver) = (&case.path[0], &case.path[1]);
    let own = client.project.clone();
    let answer = client
        .ask(Op::UpdateMemberStatus, &case, &own, &client.token)
        .await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    let unknown = Case::new([&Uuid::new_v4().to_string(), receiver], case.body.clone());
    let none = client
        .ask(Op::UpdateMemberStatus, &unknown, &own, &client.token)
        .await;
    assert!(none.status.is_client_error(), "{none:?}");
    let _ = backup;
}

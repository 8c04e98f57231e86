//! A client inside the process, which checks every answer.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use cairn_api::Operation;
use cairn_core::{FirstCredentials, PasswordSignIn, Scope};
use cairn_server::{App, Site};
use cairn_testkit::World;
use cairn_testkit::own_contract::assert_matches_ours;
use cairn_testkit::vendor_contract::assert_matches_vendor;
use cairn_types::Role;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

/// A world behind its HTTP, and somebody who talks to it.
pub struct Client {
    pub world: World,
    pub router: Router,
    /// The project in the paths.
    pub project: String,
    /// Sent as `X-Auth-Token`, if not empty.
    pub token: String,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Client {
    /// A new world, and its administrator.
    pub async fn new() -> Self {
        Self::over(World::new().await).await
    }

    /// The administrator of a world that is made already.
    pub async fn over(world: World) -> Self {
        let site = Site {
            endpoint: "http://cairn.test".to_owned(),
            region: "cairn-1".to_owned(),
        };
        let app = App::new(
            world.service.clone(),
            world.clock.clone(),
            site,
            world.trail(),
        );
        let token = token(&world, &world.credentials).await;
        let project = world.credentials.project.id.to_string();
        Self {
            router: cairn_server::router(app),
            project,
            token,
            world,
        }
    }

    /// Calls an operation; `path` fills the parameters behind the project, in
    /// their order. The answer must be what our own description declares, and
    /// the vendor's definitions if the operation is CBR's.
    pub async fn call(&self, operation: Operation, path: &[&str], body: Value) -> Answer {
        self.call_with(operation, path, "", body).await
    }

    /// The same with a query.
    pub async fn call_with(
        &self,
        operation: Operation,
        path: &[&str],
        query: &str,
        body: Value,
    ) -> Answer {
        let spec = operation.spec();
        let mut target = spec.path.replace("{project_id}", &self.project);
        let names: Vec<&str> = spec
            .path_parameters()
            .filter(|name| *name != "project_id")
            .collect();
        assert_eq!(names.len(), path.len(), "{operation} takes {names:?}");
        for (name, value) in names.iter().zip(path) {
            target = target.replace(&format!("{{{name}}}"), value);
        }
        if !query.is_empty() {
            target = format!("{target}?{query}");
        }
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = self.send(spec.method.as_str(), &target, body).await;
        if !operation.is_extension() {
            assert_matches_vendor(spec.id, answer.status.as_u16(), &answer.body);
        }
        assert_matches_ours(spec.id, answer.status.as_u16(), &answer.body);
        if answer.status.as_u16() < 400 {
            assert_eq!(answer.status.as_u16(), spec.success_status, "{operation}");
        } else {
            assert!(
                answer.body["error_code"].is_string(),
                "{operation}: {answer:?}"
            );
            assert!(
                answer.body["error_msg"].is_string(),
                "{operation}: {answer:?}"
            );
        }
        answer
    }

    /// Sends a request as it is.
    pub async fn send(&self, method: &str, target: &str, body: String) -> Answer {
        let mut request = Request::builder().method(method).uri(target);
        if !self.token.is_empty() {
            request = request.header("x-auth-token", &self.token);
        }
        self.send_request(request.body(Body::from(body)).unwrap())
            .await
    }

    /// Sends a request that is made already.
    pub async fn send_request(&self, request: Request<Body>) -> Answer {
        let asked = format!("{} {}", request.method(), request.uri());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        assert!(
            headers.contains_key("x-request-id"),
            "{asked} has no request id"
        );
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer {
            status,
            headers,
            body,
        }
    }

    /// Goes on as somebody else, with a project of their own.
    pub async fn become_stranger(&mut self) {
        let name = format!("other-{}", Uuid::new_v4());
        let stranger = self.world.service.add_project(&name, &name).await.unwrap();
        self.token = token(&self.world, &stranger).await;
        self.project = stranger.project.id.to_string();
    }

    /// Goes on as the first administrator, in a project where they have a role.
    pub async fn go_to(&mut self, project: &str) {
        let scope = Scope::ProjectId(project.to_owned());
        self.token = scoped_token(&self.world, &self.world.credentials, &scope).await;
        self.project = project.to_owned();
    }

    /// The administrator with a new token, after time has passed.
    pub async fn signed_in_again(mut self) -> Self {
        self.token = token(&self.world, &self.world.credentials).await;
        self
    }

    /// Lets a backup count for as many bytes as a test needs.
    pub async fn let_backup_occupy(&self, backup: &str, bytes: u64) {
        let project = self.world.caller().project;
        let mut tx = self.world.meta.begin().await.unwrap();
        let found = tx.lock_backup(project, backup.parse().unwrap()).await;
        let mut row = found.unwrap().unwrap();
        row.used_bytes = bytes;
        tx.update_backup(&row).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Goes on as a user of the same project with this role.
    pub async fn become_role(&mut self, role: Role) {
        let project = &self.world.credentials.project.name;
        let user = self.world.service.add_user(project, "colleague", role);
        self.token = token(&self.world, &user.await.unwrap()).await;
    }

    /// A disk vault with the world's disk in it; its id.
    pub async fn disk_vault(&self) -> String {
        let disk = self.world.disk().await.to_string();
        let resources = json!([{ "id": disk, "type": "OS::Cinder::Volume" }]);
        self.new_vault("disk", resources).await
    }

    /// A server vault with the world's server in it; its id.
    pub async fn server_vault(&self) -> String {
        let server = self.world.server().await.to_string();
        let resources = json!([{ "id": server, "type": "OS::Nova::Server" }]);
        self.new_vault("server", resources).await
    }

    async fn new_vault(&self, object_type: &str, resources: Value) -> String {
        let body = vault_body(object_type, 100, resources);
        let made = self.call(Operation::CreateVault, &[], body).await;
        assert_eq!(made.status, 200, "{made:?}");
        made.body["vault"]["id"].as_str().unwrap().to_owned()
    }

    /// Backs a vault up and works until it is done; the backup's id.
    pub async fn back_up(&self, vault: &str) -> String {
        let body = json!({ "checkpoint": { "vault_id": vault } });
        let made = self.call(Operation::CreateCheckpoint, &[], body).await;
        assert_eq!(made.status, 200, "{made:?}");
        self.world.work().await;
        let checkpoint = made.body["checkpoint"]["id"].as_str().unwrap();
        let query = format!("checkpoint_id={checkpoint}");
        let listed = self
            .call_with(Operation::ListBackups, &[], &query, Value::Null)
            .await;
        assert_eq!(listed.body["count"], 1, "{listed:?}");
        listed.body["backups"][0]["id"].as_str().unwrap().to_owned()
    }
}

/// The body of a vault's creation.
pub fn vault_body(object_type: &str, size: u64, resources: Value) -> Value {
    json!({ "vault": {
        "name": "vault_name",
        "billing": {
            "consistent_level": "crash_consistent", "object_type": object_type,
            "protect_type": "backup", "size": size, "charging_mode": "post_paid"
        },
        "resources": resources
    } })
}

pub async fn token(world: &World, who: &FirstCredentials) -> String {
    scoped_token(world, who, &Scope::Unscoped).await
}

async fn scoped_token(world: &World, who: &FirstCredentials, scope: &Scope) -> String {
    let who = PasswordSignIn {
        user_id: None,
        user_name: Some(who.user_name.clone()),
        domain: Some(who.domain.name.clone()),
        password: who.password.clone(),
    };
    world.service.sign_in(who, scope).await.unwrap().secret
}

//! The typed client: one method per operation, every request signed.
//!
//! It makes one attempt at each request, within bounded time, and follows no
//! redirect (a signature is good for one address only). Trying again is up to
//! the caller, by [`Error::kind`].

mod download;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cairn_types::{
    AgentId, BackupId, CheckpointId, Clock, ExportId, Kind, NotificationId, OperationLogId,
    PolicyId, ProjectId, ResourceId, TargetId, Timestamp, VaultId,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::Url;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agent::{
    AddAgentPathRequest, AddAgentPathResponse, AgentTokenResponse, CreateAgentTokenRequest,
    ListAgentsQuery, ListAgentsResponse, RemoveAgentPathRequest, RemoveAgentPathResponse,
};
use crate::backup::{
    BackupResponse, ListBackupsQuery, ListBackupsResponse, RestoreBackupRequest,
    RestoreBackupResponse, UpdateBackupRequest,
};
use crate::checkpoint::{CheckpointResponse, CreateCheckpointRequest};
use crate::export::{self, CreateExportRequest, ExportResponse, ListExportsResponse};
use crate::file::{FetchBackupFileQuery, ListBackupFilesQuery, ListBackupFilesResponse};
use crate::metadata::MetadataResponse;
use crate::notification::{
    CreateNotificationTargetRequest, ListNotificationTargetsResponse, ListNotificationsQuery,
    ListNotificationsResponse, NotificationResponse, NotificationTargetResponse,
};
use crate::operation_log::{ListOpLogsQuery, ListOpLogsResponse, OperationLogResponse};
use crate::policy::{
    AssociatePolicyRequest, AssociatePolicyResponse, CreatePolicyRequest, DissociatePolicyRequest,
    DissociatePolicyResponse, ListPoliciesQuery, ListPoliciesResponse, PolicyResponse,
    UpdatePolicyRequest,
};
use crate::protectable::{ListProtectableQuery, ListProtectableResponse, ProtectableResponse};
use crate::replica::{self, AnnounceReplicaRequest, AnnounceReplicaResponse, ReplicaResponse};
use crate::retention::ExplanationResponse;
use crate::usage::ListExternalVaultQuery;
use crate::vault::{
    AddVaultResourceRequest, AddVaultResourceResponse, CreateVaultRequest, CreateVaultResponse,
    ListVaultQuery, ListVaultResponse, RemoveVaultResourceRequest, RemoveVaultResourceResponse,
    UpdateVaultRequest, VaultResponse,
};
use crate::verification::{
    ListVerificationsQuery, ListVerificationsResponse, StartVerificationRequest,
    StartVerificationResponse,
};
use crate::{Credentials, ErrorBody, Operation, ProtectableType, query, sign};

pub use download::{Download, SILENCE_TIMEOUT};

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take in all.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The most that is read of an answer, in bytes: a page of 1000 vaults, each full.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// The most that is shown of an answer that is no error body, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// Why an operation did not work, or could not be asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service refused or failed.
    #[error("{message} ({code}, request {})", request_id.as_deref().unwrap_or("unknown"))]
    Service {
        /// The status.
        status: u16,
        /// The error code, or the status where there was none.
        code: String,
        /// The error's message.
        message: String,
        /// What the service calls the request.
        request_id: Option<String>,
    },
    /// No answer came.
    #[error("cannot reach {endpoint}")]
    Transport {
        /// Where the request was sent.
        endpoint: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is not what the contract says.
    #[error("cannot read the answer to {operation}")]
    Decode {
        /// What was asked.
        operation: Operation,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The answer to an enrolment is not what it should be.
    #[error("the server's answer to the enrolment cannot be read")]
    Enrolment,
    /// The answer is larger than any should be.
    #[error("the answer to {operation} is too large")]
    TooLarge {
        /// What was asked.
        operation: Operation,
    },
    /// The server does not do what a connection takes.
    #[error("the server opens no connection of that sort")]
    NoConnection,
    /// The server does not say what bytes it sends.
    #[error("the server's answer is no download")]
    NoDownload,
    /// The endpoint is no address.
    #[error("the endpoint {endpoint:?} is no http or https address")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
    },
    /// The access key cannot be sent in a header.
    #[error("the access key holds characters that no header can")]
    AccessKey,
    /// The project of the environment is no id.
    #[error("HUAWEICLOUD_SDK_PROJECT_ID is not 32 hexadecimal digits")]
    ProjectId,
    /// There are no credentials.
    #[error("no credentials: give --credentials FILE, or set CAIRN_CREDENTIALS, or set {variable}")]
    CredentialsMissing {
        /// A variable that is missing.
        variable: &'static str,
    },
    /// The credentials file cannot be read.
    #[error("cannot read the credentials file {}", path.display())]
    CredentialsRead {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The credentials file holds something else.
    #[error("{} is no credentials file", path.display())]
    CredentialsParse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
}

impl Error {
    /// What a caller should do about it.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service { status, .. } => match status {
                401 | 403 => Kind::Denied,
                404 => Kind::NotFound,
                409 => Kind::Conflict,
                408 | 429 | 500..=599 => Kind::Transient,
                _ => Kind::Invalid,
            },
            Self::Transport { .. } => Kind::Transient,
            Self::Decode { .. } | Self::Enrolment | Self::TooLarge { .. } | Self::Setup(_) => {
                Kind::Bug
            }
            Self::Endpoint { .. }
            | Self::NoConnection
            | Self::NoDownload
            | Self::AccessKey
            | Self::ProjectId
            | Self::CredentialsMissing { .. }
            | Self::CredentialsRead { .. }
            | Self::CredentialsParse { .. } => Kind::Invalid,
        }
    }
}

/// The address of a server, and how to connect to it.
pub(crate) struct Connector {
    pub(crate) endpoint: Url,
    /// What requests name in the header Host.
    pub(crate) host: HeaderValue,
}

impl Connector {
    /// Errors: `Endpoint` it is no address.
    pub(crate) fn new(address: &str) -> Result<Self> {
        let wrong = || Error::Endpoint {
            endpoint: address.to_owned(),
        };
        let endpoint = Url::parse(address).map_err(|_| wrong())?;
        let host = match (endpoint.scheme(), endpoint.host_str(), endpoint.port()) {
            ("http" | "https", Some(host), None) => host.to_owned(),
            ("http" | "https", Some(host), Some(port)) => format!("{host}:{port}"),
            _ => return Err(wrong()),
        };
        let host = HeaderValue::from_str(&host).map_err(|_| wrong())?;
        Ok(Self { endpoint, host })
    }

    /// A client with these limits of time.
    pub(crate) fn client(
        &self,
        limits: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<reqwest::Client> {
        // HTTP/1.1 alone: the signature covers the header Host, which HTTP/2 does not have.
        let mut http = reqwest::Client::builder()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&self.endpoint) {
            // No proxy can reach this machine's own address.
            http = http.no_proxy();
        }
        limits(http).build().map_err(Error::Setup)
    }
}

/// What the client's methods return.
pub type Result<T> = std::result::Result<T, Error>;

/// A client of one project of one server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// For answers that take as long as they take.
    streams: reqwest::Client,
    endpoint: Url,
    host: HeaderValue,
    credentials: Arc<Credentials>,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// Makes a client; nothing is sent yet.
    ///
    /// Errors: `Invalid` if the endpoint is no address.
    pub fn new(credentials: Credentials, clock: Arc<dyn Clock>) -> Result<Self> {
        let connector = Connector::new(&credentials.endpoint)?;
        let http = connector.client(|http| http.timeout(REQUEST_TIMEOUT))?;
        let streams = connector.client(|http| http.read_timeout(SILENCE_TIMEOUT))?;
        let Connector { endpoint, host } = connector;
        Ok(Self {
            http,
            streams,
            endpoint,
            host,
            credentials: Arc::new(credentials),
            clock,
        })
    }

    /// The time by the clock that requests are signed by.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The same client in another project.
    pub fn in_project(&self, project_id: ProjectId) -> Self {
        let credentials = Credentials {
            project_id,
            ..(*self.credentials).clone()
        };
        Self {
            credentials: Arc::new(credentials),
            ..self.clone()
        }
    }

    /// Opens the connection that a replica is asked for by: the bytes of it, and the
    /// public key of the other end.
    pub async fn connect_replica(
        &self,
        replica_id: BackupId,
        public_key: &[u8; 32],
    ) -> Result<(reqwest::Upgraded, [u8; 32])> {
        let parameters: &[(&str, &str)] = &[("replica_id", &replica_id.to_string())];
        let request = Request::new(Operation::ConnectReplica, parameters);
        let key = HeaderValue::from_str(&hex::encode(public_key));
        let key = (
            HeaderName::from_static(replica::KEY_HEADER),
            key.expect("digits are plain text"),
        );
        let (upgraded, headers) = self.upgrade(request, replica::PROTOCOL, Some(key)).await?;
        let mut key = [0; 32];
        let told = headers.get(replica::KEY_HEADER);
        let told = told.and_then(|told| told.to_str().ok()).unwrap_or_default();
        hex::decode_to_slice(told, &mut key).map_err(|_| Error::NoConnection)?;
        Ok((upgraded, key))
    }

    /// Opens a connection to an export, by which NBD is spoken.
    pub async fn connect_export(&self, export_id: ExportId) -> Result<reqwest::Upgraded> {
        let parameters: &[(&str, &str)] = &[("export_id", &export_id.to_string())];
        let request = Request::new(Operation::ConnectExport, parameters);
        let (upgraded, _) = self.upgrade(request, export::PROTOCOL, None).await?;
        Ok(upgraded)
    }

    /// Fetches bytes `first` to `last` of a file in a backup, or as many of them as it has.
    pub async fn fetch_backup_file(
        &self,
        backup_id: BackupId,
        query: &FetchBackupFileQuery,
        (first, last): (u64, u64),
    ) -> Result<Vec<u8>> {
        let parameters: &[(&str, &str)] = &[("backup_id", &backup_id.to_string())];
        let operation = Operation::FetchBackupFile;
        let request = Request::new(operation, parameters).query(query.write());
        let range = HeaderValue::from_str(&format!("bytes={first}-{last}"));
        let range = (header::RANGE, range.expect("digits are plain text"));
        let answer = self.ask(request, [range]).await?;
        self.receive(operation, answer).await
    }

    /// Has a request's connection speak another protocol; returns it with the answer's headers.
    async fn upgrade(
        &self,
        request: Request<'_>,
        protocol: &'static str,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<(reqwest::Upgraded, HeaderMap)> {
        let operation = request.operation;
        let upgrade = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static(protocol)),
        ];
        let answer = self.ask(request, upgrade.into_iter().chain(header)).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            // Whatever else it may be, it is no connection.
            self.receive(operation, answer).await?;
            return Err(Error::NoConnection);
        }
        let headers = answer.headers().clone();
        let upgraded = answer.upgrade().await;
        Ok((
            upgraded.map_err(|source| self.unreachable(source))?,
            headers,
        ))
    }

    /// Calls an operation and reads its answer.
    async fn call<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T> {
        let operation = request.operation;
        let body = self.send(request).await?;
        serde_json::from_slice(&body).map_err(|source| Error::Decode { operation, source })
    }

    /// Sends a request, and returns the body of an answer that is a success.
    async fn send(&self, request: Request<'_>) -> Result<Vec<u8>> {
        let operation = request.operation;
        let answer = self.ask(request, []).await?;
        self.receive(operation, answer).await
    }

    /// Sends a request with further headers, which are not signed, and returns the answer.
    async fn ask(
        &self,
        request: Request<'_>,
        unsigned: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<reqwest::Response> {
        self.ask_by(&self.http, request, unsigned).await
    }

    async fn ask_by(
        &self,
        http: &reqwest::Client,
        request: Request<'_>,
        unsigned: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<reqwest::Response> {
        let spec = request.operation.spec();
        let path = self.path(&request);
        let body = request.body.unwrap_or_default();
        let mut headers = self.headers();
        let signed = sign::SignedRequest {
            method: spec.method.as_str(),
            path: &path,
            query: &request.query,
            headers: &headers,
            body: &body,
        };
        let Credentials {
            access_key,
            secret_key,
            ..
        } = &*self.credentials;
        let authorization =
            sign::sign(&signed, access_key, &secret_key.0).map_err(|_| Error::AccessKey)?;
        headers.insert(header::AUTHORIZATION, authorization);
        headers.extend(unsigned);

        let mut url = self.endpoint.clone();
        url.set_path(&path);
        url.set_query(Some(request.query.as_str()).filter(|query| !query.is_empty()));
        let sending = http
            .request(spec.method.clone(), url)
            .headers(headers)
            .body(body);
        sending
            .send()
            .await
            .map_err(|source| self.unreachable(source))
    }

    /// Reads an answer to its end, within its limit.
    async fn receive(
        &self,
        operation: Operation,
        mut answer: reqwest::Response,
    ) -> Result<Vec<u8>> {
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|source| self.unreachable(source))?
        {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Error::TooLarge { operation });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            Ok(body)
        } else {
            Err(service_error(status, &headers, &body))
        }
    }

    /// The path of a request, its parameters filled in and encoded.
    fn path(&self, request: &Request<'_>) -> String {
        let project = self.credentials.project_id.to_string();
        let mut path = request
            .operation
            .spec()
            .path
            .replace("{project_id}", &project);
        for (name, value) in request.parameters {
            path = path.replace(&format!("{{{name}}}"), &query::encode(value));
        }
        path
    }

    /// The headers that are signed.
    fn headers(&self) -> HeaderMap {
        let date = sign::format_date(self.clock.now());
        let ascii = "an id and a date are ASCII";
        let project = self.credentials.project_id.to_string();
        // Two equal requests in one second are two, and not one that came again.
        let nonce = uuid::Uuid::new_v4().to_string();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, self.host.clone());
        headers.insert("x-nonce", HeaderValue::from_str(&nonce).expect(ascii));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json;charset=UTF-8"),
        );
        headers.insert(
            "x-project-id",
            HeaderValue::from_str(&project).expect(ascii),
        );
        headers.insert(
            sign::DATE_HEADER,
            HeaderValue::from_str(&date).expect(ascii),
        );
        headers
    }

    fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::Transport {
            endpoint: self.endpoint.to_string(),
            source: source.without_url(),
        }
    }
}

/// Whether an address is this machine's own.
fn is_loopback(endpoint: &Url) -> bool {
    let host = endpoint.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What is asked for.
struct Request<'a> {
    operation: Operation,
    parameters: &'a [(&'a str, &'a str)],
    query: String,
    body: Option<Vec<u8>>,
}

impl<'a> Request<'a> {
    fn new(operation: Operation, parameters: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            operation,
            parameters,
            query: String::new(),
            body: None,
        }
    }

    fn query(mut self, query: String) -> Self {
        self.query = query;
        self
    }

    fn body<T: Serialize>(mut self, body: &T) -> Self {
        self.body = Some(serde_json::to_vec(body).expect("requests hold only strings as keys"));
        self
    }
}

/// Makes an error of an answer that is no success.
pub(crate) fn service_error(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let request_id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let error = serde_json::from_slice(body).unwrap_or_else(|_| ErrorBody {
        error_code: status.as_str().to_owned(),
        error_msg: String::from_utf8_lossy(body)
            .chars()
            .take(MAX_SHOWN_CHARS)
            .collect(),
    });
    Error::Service {
        status: status.as_u16(),
        code: error.error_code,
        message: error.error_msg,
        request_id: request_id.map(str::to_owned),
    }
}

/// Declares the operations: each takes the ids in its path, then its query or
/// its body, and returns its answer.
macro_rules! calls {
    ($(
        $(#[$meta:meta])*
        $name:ident = $operation:ident ( $( $id:ident : $id_type:ty ),* )
            $( query $query:ident )? $( body $body:ident )? $( => $answer:ty )? ;
    )+) => {
        impl Client {$(
            $(#[$meta])*
            pub async fn $name(
                &self,
                $( $id: $id_type, )*
                $( query: &$query, )?
                $( body: &$body, )?
            ) -> Result<calls!(@answer $($answer)?)> {
                let parameters: &[(&str, &str)] = &[$( (stringify!($id), &$id.to_string()) ),*];
                let request = Request::new(Operation::$operation, parameters);
                $( let request = request.query(<$query>::write(query)); )?
                $( let request = request.body::<$body>(body); )?
                calls!(@finish self request $($answer)?)
            }
        )+}
    };
    (@answer) => { () };
    (@answer $answer:ty) => { $answer };
    (@finish $self:ident $request:ident) => { $self.send($request).await.map(drop) };
    (@finish $self:ident $request:ident $answer:ty) => { $self.call($request).await };
}

calls! {
    /// Lists vaults, one page.
    list_vaults = ListVault() query ListVaultQuery => ListVaultResponse;
    /// Creates a vault.
    create_vault = CreateVault() body CreateVaultRequest => CreateVaultResponse;
    /// Shows a vault.
    show_vault = ShowVault(vault_id: VaultId) => VaultResponse;
    /// Changes a vault.
    update_vault = UpdateVault(vault_id: VaultId) body UpdateVaultRequest => VaultResponse;
    /// Deletes a vault with all of its backups.
    delete_vault = DeleteVault(vault_id: VaultId);
    /// Binds resources to a vault.
    add_vault_resources = AddVaultResource(vault_id: VaultId)
        body AddVaultResourceRequest => AddVaultResourceResponse;
    /// Takes resources out of a vault, with their backups.
    remove_vault_resources = RemoveVaultResource(vault_id: VaultId)
        body RemoveVaultResourceRequest => RemoveVaultResourceResponse;

    /// Begins to back up a vault.
    create_checkpoint = CreateCheckpoint() body CreateCheckpointRequest => CheckpointResponse;
    /// Shows a checkpoint.
    show_checkpoint = ShowCheckpoint(checkpoint_id: CheckpointId) => CheckpointResponse;

    /// Lists backups, one page.
    list_backups = ListBackups() query ListBackupsQuery => ListBackupsResponse;
    /// Shows a backup.
    show_backup = ShowBackup(backup_id: BackupId) => BackupResponse;
    /// Shows what was known of a backup's resource when it was made.
    show_metadata = ShowMetadata(backup_id: BackupId) => MetadataResponse;
    /// Renames a backup.
    update_backup = UpdateBackup(backup_id: BackupId) body UpdateBackupRequest => BackupResponse;
    /// Begins to delete a backup.
    delete_backup = DeleteBackup(backup_id: BackupId);
    /// Begins to restore a backup.
    restore_backup = RestoreBackup(backup_id: BackupId)
        body RestoreBackupRequest => RestoreBackupResponse;

    /// Tells why a backup stays, and until when.
    explain_backup = ExplainBackup(backup_id: BackupId) => ExplanationResponse;

    /// Lists operation logs, one page.
    list_operation_logs = ListOpLogs() query ListOpLogsQuery => ListOpLogsResponse;
    /// Shows an operation log.
    show_operation_log = ShowOpLog(operation_log_id: OperationLogId) => OperationLogResponse;

    /// Asks that a task be ended.
    cancel_operation = CancelOpLog(operation_log_id: OperationLogId) => OperationLogResponse;

    /// Lists what can be protected, one page.
    list_protectables = ListProtectable(protectable_type: ProtectableType)
        query ListProtectableQuery => ListProtectableResponse;
    /// Shows something that can be protected.
    show_protectable = ShowProtectable(protectable_type: ProtectableType, instance_id: ResourceId)
        => ProtectableResponse;

    /// Lists policies, one page.
    list_policies = ListPolicies() query ListPoliciesQuery => ListPoliciesResponse;
    /// Creates a policy.
    create_policy = CreatePolicy() body CreatePolicyRequest => PolicyResponse;
    /// Shows a policy.
    show_policy = ShowPolicy(policy_id: PolicyId) => PolicyResponse;
    /// Changes a policy.
    update_policy = UpdatePolicy(policy_id: PolicyId) body UpdatePolicyRequest => PolicyResponse;
    /// Deletes a policy.
    delete_policy = DeletePolicy(policy_id: PolicyId);
    /// Has a vault follow a policy.
    associate_policy = AssociateVaultPolicy(vault_id: VaultId)
        body AssociatePolicyRequest => AssociatePolicyResponse;
    /// Has a vault follow a policy no longer.
    dissociate_policy = DisassociateVaultPolicy(vault_id: VaultId)
        body DissociatePolicyRequest => DissociatePolicyResponse;

    /// Lists vaults of another project, one page.
    list_external_vaults = ListExternalVault() query ListExternalVaultQuery => ListVaultResponse;

    /// Lists agents, one page.
    list_agents = ListAgent() query ListAgentsQuery => ListAgentsResponse;
    /// Makes a token by which one agent can enrol.
    create_agent_token = CreateAgentToken() body CreateAgentTokenRequest => AgentTokenResponse;
    /// Adds paths to what an agent backs up.
    add_agent_path = AddAgentPath(agent_id: AgentId)
        body AddAgentPathRequest => AddAgentPathResponse;
    /// Removes paths from what an agent backs up.
    remove_agent_path = RemoveAgentPath(agent_id: AgentId)
        body RemoveAgentPathRequest => RemoveAgentPathResponse;
    /// Forgets an agent, with the backups of its host.
    unregister_agent = UnregisterAgent(agent_id: AgentId);

    /// Has the server wait for a replica.
    announce_replica = AnnounceReplica() body AnnounceReplicaRequest => AnnounceReplicaResponse;
    /// Shows how far a replica is.
    show_replica = ShowReplica(replica_id: BackupId) => ReplicaResponse;
    /// Gives a replica up that is not there yet.
    withdraw_replica = WithdrawReplica(replica_id: BackupId);

    /// Lists targets of notifications.
    list_notification_targets = ListNotificationTargets() => ListNotificationTargetsResponse;
    /// Makes a target of notifications.
    create_notification_target = CreateNotificationTarget()
        body CreateNotificationTargetRequest => NotificationTargetResponse;
    /// Shows a target of notifications.
    show_notification_target = ShowNotificationTarget(target_id: TargetId)
        => NotificationTargetResponse;
    /// Removes a target of notifications.
    delete_notification_target = DeleteNotificationTarget(target_id: TargetId);
    /// Begins to try a target of notifications.
    test_notification_target = TestNotificationTarget(target_id: TargetId)
        => NotificationResponse;
    /// Lists notifications, one page.
    list_notifications = ListNotifications()
        query ListNotificationsQuery => ListNotificationsResponse;
    /// Shows a notification.
    show_notification = ShowNotification(notification_id: NotificationId) => NotificationResponse;

    /// Lists files in a backup, one page.
    list_backup_files = ListBackupFiles(backup_id: BackupId)
        query ListBackupFilesQuery => ListBackupFilesResponse;
    /// Opens a disk's backup to be connected to.
    create_export = CreateExport(backup_id: BackupId) body CreateExportRequest => ExportResponse;
    /// Lists the exports that are open.
    list_exports = ListExports() => ListExportsResponse;
    /// Shows an export.
    show_export = ShowExport(export_id: ExportId) => ExportResponse;
    /// Ends an export.
    delete_export = DeleteExport(export_id: ExportId);

    /// Begins to look whether backups could be restored.
    start_verification = StartVerification()
        body StartVerificationRequest => StartVerificationResponse;
    /// Lists what verifications found, one page.
    list_verifications = ListVerifications()
        query ListVerificationsQuery => ListVerificationsResponse;
}

#[cfg(test)]
mod tests;

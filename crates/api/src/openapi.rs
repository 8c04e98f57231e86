//! The description of the API in OpenAPI, made from the table of operations and
//! the very types that requests and responses are read and written with.

use utoipa::openapi::path::{HttpMethod, OperationBuilder, Parameter, ParameterBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Paths, RefOr,
    Required, ResponseBuilder, Schema,
};
use utoipa::{PartialSchema, ToSchema};

use crate::{ErrorBody, Operation, OperationSpec};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// A named part of the document: a schema that others refer to.
type Component = (String, RefOr<Schema>);

/// What an operation reads and answers.
#[derive(Default)]
struct Shape {
    query: Vec<Parameter>,
    body: Option<RefOr<Schema>>,
    answer: Option<RefOr<Schema>>,
    answers_bytes: bool,
    components: Vec<Component>,
}

impl Shape {
    fn query(mut self, parameters: Vec<Parameter>) -> Self {
        self.query = parameters;
        self
    }

    fn body<T: ToSchema>(mut self) -> Self {
        self.body = Some(self.refer_to::<T>());
        self
    }

    fn answer<T: ToSchema>(mut self) -> Self {
        self.answer = Some(self.refer_to::<T>());
        self
    }

    /// Answers with bytes, or with a range of them.
    fn bytes(mut self) -> Self {
        self.answers_bytes = true;
        self
    }

    fn refer_to<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let name = T::name().into_owned();
        T::schemas(&mut self.components);
        self.components.push((name.clone(), T::schema()));
        RefOr::Ref(utoipa::openapi::Ref::from_schema_name(name))
    }
}

/// What an operation reads and answers: one row each.
fn shape(operation: Operation) -> Shape {
    use Operation as Op;

    use crate::{
        agent, agent_line, backup, binding, checkpoint, download, export, file, lookup, member,
        metadata, notification, operation_log, order, organization_policy, policy, protectable,
        replica, replication, retention, simulation, sync, tag, usage, vault, verification,
    };

    let shape = Shape::default();
    match operation {
        Op::ListVault => shape
            .query(vault::ListVaultQuery::parameters())
            .answer::<vault::ListVaultResponse>(),
        Op::CreateVault => shape
            .body::<vault::CreateVaultRequest>()
            .answer::<vault::CreateVaultResponse>(),
        Op::ShowVault => shape.answer::<vault::VaultResponse>(),
        Op::UpdateVault => shape
            .body::<vault::UpdateVaultRequest>()
            .answer::<vault::VaultResponse>(),
        Op::AddVaultResource => shape
            .body::<vault::AddVaultResourceRequest>()
            .answer::<vault::AddVaultResourceResponse>(),
        Op::RemoveVaultResource => shape
            .body::<vault::RemoveVaultResourceRequest>()
            .answer::<vault::RemoveVaultResourceResponse>(),
        Op::CreateCheckpoint => shape
            .body::<checkpoint::CreateCheckpointRequest>()
            .answer::<checkpoint::CheckpointResponse>(),
        Op::ShowCheckpoint => shape.answer::<checkpoint::CheckpointResponse>(),
        Op::ListBackups => shape
            .query(backup::ListBackupsQuery::parameters())
            .answer::<backup::ListBackupsResponse>(),
        Op::ShowBackup => shape.answer::<backup::BackupResponse>(),
        Op::UpdateBackup => shape
            .body::<backup::UpdateBackupRequest>()
            .answer::<backup::BackupResponse>(),
        Op::RestoreBackup => shape
            .body::<backup::RestoreBackupRequest>()
            .answer::<backup::RestoreBackupResponse>(),
        Op::ListOpLogs => shape
            .query(operation_log::ListOpLogsQuery::parameters())
            .answer::<operation_log::ListOpLogsResponse>(),
        Op::ShowOpLog => shape.answer::<operation_log::OperationLogResponse>(),
        Op::ListProtectable => shape
            .query(protectable::ListProtectableQuery::parameters())
            .answer::<protectable::ListProtectableResponse>(),
        Op::ShowProtectable => shape.answer::<protectable::ProtectableResponse>(),
        Op::CopyBackup => shape
            .body::<replication::CopyBackupRequest>()
            .answer::<replication::CopyBackupResponse>(),
        Op::CopyCheckpoint => shape
            .body::<replication::CopyCheckpointRequest>()
            .answer::<replication::CopyCheckpointResponse>(),
        Op::ShowReplicationCapabilities => {
            shape.answer::<replication::ReplicationCapabilitiesResponse>()
        }
        Op::BatchUpdateVault => shape
            .body::<usage::BatchUpdateVaultRequest>()
            .answer::<usage::BatchUpdateVaultResponse>(),
        Op::ShowSummary => shape.answer::<usage::SummaryResponse>(),
        Op::ListExternalVault => shape
            .query(usage::ListExternalVaultQuery::parameters())
            .answer::<vault::ListVaultResponse>(),
        Op::SetVaultResource => shape
            .body::<binding::SetVaultResourceRequest>()
            .answer::<binding::SetVaultResourceResponse>(),
        Op::MigrateVaultResource => shape
            .body::<binding::MigrateVaultResourceRequest>()
            .answer::<binding::MigrateVaultResourceResponse>(),
        Op::UpdateExpirationTime => shape
            .body::<usage::UpdateExpirationTimeRequest>()
            .answer::<usage::UpdateExpirationTimeResponse>(),
        Op::ShowMetadata => shape.answer::<metadata::MetadataResponse>(),
        Op::ChangeOrder => shape
            .body::<order::ChangeOrderRequest>()
            .answer::<order::OrderResponse>(),
        Op::UpdateOrder => shape
            .body::<order::ChangeOrderRequest>()
            .answer::<order::UpdateOrderResponse>(),
        Op::ChangeVaultChargeMode => shape
            .body::<order::ChangeChargeModeRequest>()
            .answer::<order::OrderResponse>(),
        Op::CreatePostPaidVault => shape
            .body::<order::OrderVaultRequest>()
            .answer::<vault::CreateVaultResponse>(),
        Op::ShowStorageUsage => shape
            .query(usage::StorageUsageQuery::parameters())
            .answer::<usage::StorageUsageResponse>(),
        Op::ListFeatures | Op::ShowFeature => shape.answer::<lookup::FeaturesResponse>(),
        Op::ShowMigrateStatus => shape
            .query(lookup::MigrateStatusQuery::parameters())
            .answer::<lookup::MigrateStatusResponse>(),
        Op::MigrateDomain => shape
            .body::<lookup::MigrateDomainRequest>()
            .answer::<lookup::MigrateDomainResponse>(),
        Op::ListDomainProjects => shape.answer::<lookup::DomainProjectsResponse>(),
        Op::ShowDomain => shape.answer::<lookup::DomainResponse>(),
        Op::ListProjects => shape.answer::<lookup::RegionProjectsResponse>(),
        Op::ListApiVersions | Op::ShowApiVersion => shape.answer::<lookup::VersionsResponse>(),
        Op::ListPolicies => shape
            .query(policy::ListPoliciesQuery::parameters())
            .answer::<policy::ListPoliciesResponse>(),
        Op::CreatePolicy => shape
            .body::<policy::CreatePolicyRequest>()
            .answer::<policy::PolicyResponse>(),
        Op::ShowPolicy => shape.answer::<policy::PolicyResponse>(),
        Op::UpdatePolicy => shape
            .body::<policy::UpdatePolicyRequest>()
            .answer::<policy::PolicyResponse>(),
        Op::AssociateVaultPolicy => shape
            .body::<policy::AssociatePolicyRequest>()
            .answer::<policy::AssociatePolicyResponse>(),
        Op::DisassociateVaultPolicy => shape
            .body::<policy::DissociatePolicyRequest>()
            .answer::<policy::DissociatePolicyResponse>(),
        Op::ListOrganizationPolicies => shape
            .query(organization_policy::ListOrganizationPoliciesQuery::parameters())
            .answer::<organization_policy::ListOrganizationPoliciesResponse>(),
        Op::CreateOrganizationPolicy => shape
            .body::<organization_policy::CreateOrganizationPolicyRequest>()
            .answer::<organization_policy::OrganizationPolicyResponse>(),
        Op::ShowOrganizationPolicy => {
            shape.answer::<organization_policy::OrganizationPolicyResponse>()
        }
        Op::UpdateOrganizationPolicy => shape
            .body::<organization_policy::UpdateOrganizationPolicyRequest>()
            .answer::<organization_policy::OrganizationPolicyResponse>(),
        Op::ListOrganizationPolicyDetail => shape
            .query(organization_policy::ListOrganizationPolicyDetailQuery::parameters())
            .answer::<organization_policy::ListOrganizationPolicyDetailResponse>(),
        Op::ShowVaultResourceInstances => shape
            .query(tag::SearchByTagsQuery::parameters())
            .body::<tag::SearchByTagsRequest>()
            .answer::<tag::SearchByTagsResponse>(),
        Op::ShowVaultProjectTag => shape.answer::<tag::ProjectTagsResponse>(),
        Op::ShowVaultTag => shape.answer::<tag::VaultTagsResponse>(),
        Op::CreateVaultTags => shape.body::<tag::CreateVaultTagsRequest>(),
        Op::BatchCreateAndDeleteVaultTags => shape.body::<tag::BatchTagsRequest>(),
        Op::ImportBackup => shape
            .body::<sync::ImportBackupsRequest>()
            .answer::<sync::ImportBackupsResponse>(),
        Op::ImportCheckpoint => shape
            .body::<sync::SyncVaultRequest>()
            .answer::<sync::SyncVaultResponse>(),
        Op::ListAgent => shape
            .query(agent::ListAgentsQuery::parameters())
            .answer::<agent::ListAgentsResponse>(),
        Op::RegisterAgent => shape
            .body::<agent::RegisterAgentRequest>()
            .answer::<agent::AgentResponse>(),
        Op::ShowAgent => shape.answer::<agent::AgentResponse>(),
        Op::UpdateAgent => shape
            .body::<agent::UpdateAgentRequest>()
            .answer::<agent::AgentResponse>(),
        Op::AddAgentPath => shape
            .body::<agent::AddAgentPathRequest>()
            .answer::<agent::AddAgentPathResponse>(),
        Op::RemoveAgentPath => shape
            .body::<agent::RemoveAgentPathRequest>()
            .answer::<agent::RemoveAgentPathResponse>(),
        Op::CheckAgent => shape
            .body::<agent::CheckAgentRequest>()
            .answer::<agent::CheckAgentResponse>(),
        Op::ShowMembersDetail => shape
            .query(member::ListMembersQuery::parameters())
            .answer::<member::ListMembersResponse>(),
        Op::AddMember => shape
            .body::<member::AddMembersRequest>()
            .answer::<member::AddMembersResponse>(),
        Op::ShowMemberDetail => shape.answer::<member::MemberResponse>(),
        Op::UpdateMemberStatus => shape
            .body::<member::UpdateMemberRequest>()
            .answer::<member::MemberResponse>(),
        Op::SimulatePolicy => shape
            .body::<simulation::SimulatePolicyRequest>()
            .answer::<simulation::SimulatePolicyResponse>(),
        Op::StartVerification => shape
            .body::<verification::StartVerificationRequest>()
            .answer::<verification::StartVerificationResponse>(),
        Op::ListVerifications => shape
            .query(verification::ListVerificationsQuery::parameters())
            .answer::<verification::ListVerificationsResponse>(),
        Op::ShowVerification => shape.answer::<verification::VerificationResponse>(),
        Op::ExplainBackup => shape.answer::<retention::ExplanationResponse>(),
        Op::PreviewPolicy => shape
            .body::<retention::PreviewPolicyRequest>()
            .answer::<retention::PreviewPolicyResponse>(),
        Op::CancelOpLog => shape.answer::<operation_log::OperationLogResponse>(),
        Op::AnnounceReplica => shape
            .body::<replica::AnnounceReplicaRequest>()
            .answer::<replica::AnnounceReplicaResponse>(),
        Op::CreateAgentToken => shape
            .body::<agent::CreateAgentTokenRequest>()
            .answer::<agent::AgentTokenResponse>(),
        Op::EnrolAgent => shape
            .body::<agent_line::EnrolAgentRequest>()
            .answer::<agent_line::EnrolAgentResponse>(),
        Op::ShowReplica => shape.answer::<replica::ReplicaResponse>(),
        Op::ListNotificationTargets => {
            shape.answer::<notification::ListNotificationTargetsResponse>()
        }
        Op::CreateNotificationTarget => shape
            .body::<notification::CreateNotificationTargetRequest>()
            .answer::<notification::NotificationTargetResponse>(),
        Op::ShowNotificationTarget => shape.answer::<notification::NotificationTargetResponse>(),
        Op::UpdateNotificationTarget => shape
            .body::<notification::UpdateNotificationTargetRequest>()
            .answer::<notification::NotificationTargetResponse>(),
        Op::TestNotificationTarget | Op::ShowNotification => {
            shape.answer::<notification::NotificationResponse>()
        }
        Op::ListNotifications => shape
            .query(notification::ListNotificationsQuery::parameters())
            .answer::<notification::ListNotificationsResponse>(),
        Op::ListBackupFiles => shape
            .query(file::ListBackupFilesQuery::parameters())
            .answer::<file::ListBackupFilesResponse>(),
        Op::FetchBackupFile => shape
            .query(file::FetchBackupFileQuery::parameters())
            .bytes(),
        Op::DownloadBackup => shape
            .query(download::DownloadBackupQuery::parameters())
            .bytes(),
        Op::CreateExport => shape
            .body::<export::CreateExportRequest>()
            .answer::<export::ExportResponse>(),
        Op::ListExports => shape.answer::<export::ListExportsResponse>(),
        Op::ShowExport => shape.answer::<export::ExportResponse>(),
        Op::DeleteVault
        | Op::DeleteBackup
        | Op::DeletePolicy
        | Op::DeleteOrganizationPolicy
        | Op::DeleteMember
        | Op::DeleteNotificationTarget
        | Op::DeleteExport
        | Op::ConnectExport
        | Op::DeleteVaultTag
        | Op::UnregisterAgent
        | Op::WithdrawReplica
        | Op::ConnectAgent
        | Op::ConnectReplica => shape,
    }
}

/// The whole API as an OpenAPI document.
pub fn document() -> OpenApi {
    let mut paths = Paths::new();
    let mut components: Vec<Component> = vec![(ErrorBody::name().into(), ErrorBody::schema())];
    for operation in Operation::ALL {
        let mut shape = shape(*operation);
        components.append(&mut shape.components);
        let spec = operation.spec();
        paths.add_path_operation(spec.path, vec![method(spec)], describe(*operation, shape));
    }
    let api_key = |header: &str, what: &str| {
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(header, what)))
    };
    let components = ComponentsBuilder::new()
        .schemas_from_iter(components)
        .security_scheme(
            TOKEN,
            api_key("X-Auth-Token", "A token of `POST /v3/auth/tokens`."),
        )
        .security_scheme(
            SIGNATURE,
            api_key(
                "Authorization",
                "A signature by an access key, `SDK-HMAC-SHA256`.",
            ),
        )
        .build();
    let info = InfoBuilder::new()
        .title("Cairn")
        .description(Some("Cloud backup and recovery: the CBR v3 API."))
        .version(env!("CARGO_PKG_VERSION"))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components))
        .build()
}

const TOKEN: &str = "token";
const SIGNATURE: &str = "signature";

fn method(spec: &OperationSpec) -> HttpMethod {
    match spec.method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn describe(operation: Operation, shape: Shape) -> utoipa::openapi::path::Operation {
    let (spec, is_extension) = (operation.spec(), operation.is_extension());
    let json = |schema| ContentBuilder::new().schema(Some(schema)).build();
    let error = RefOr::Ref(utoipa::openapi::Ref::from_schema_name(ErrorBody::name()));
    let mut success = ResponseBuilder::new().description("It worked.");
    if let Some(answer) = shape.answer {
        success = success.content(JSON, json(answer));
    }
    if shape.answers_bytes {
        success = success.content(BYTES, ContentBuilder::new().build());
    }
    let success = success.build();
    let failure = ResponseBuilder::new()
        .description("It was refused, and nothing has changed.")
        .content(JSON, json(error));
    let extension = is_extension.then_some("An extension: CBR has no such operation.");
    let mut operation = OperationBuilder::new()
        .operation_id(Some(spec.id))
        .tag(format!("{:?}", spec.group))
        .description(extension)
        .response(spec.success_status.to_string(), success.clone())
        .response("4XX", failure.build());
    if shape.answers_bytes {
        operation = operation.response("206", success);
    }
    for name in spec.path_parameters() {
        operation = operation.parameter(path_parameter(name));
    }
    for parameter in shape.query {
        operation = operation.parameter(parameter);
    }
    if let Some(body) = shape.body {
        let body = RequestBodyBuilder::new()
            .content(JSON, json(body))
            .required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    if spec.is_public() {
        return operation.build();
    }
    let nothing: [&str; 0] = [];
    operation
        .security(SecurityRequirement::new(TOKEN, nothing))
        .security(SecurityRequirement::new(SIGNATURE, nothing))
        .build()
}

fn path_parameter(name: &str) -> Parameter {
    use cairn_types::{
        BackupId, CheckpointId, ExportId, NotificationId, OperationLogId, PolicyId, ProjectId,
        ResourceId, TargetId, VaultId,
    };
    let schema = match name {
        "project_id" | "source_project_id" | "member_id" => ProjectId::schema(),
        "vault_id" => VaultId::schema(),
        "backup_id" | "replica_id" => BackupId::schema(),
        "checkpoint_id" => CheckpointId::schema(),
        "policy_id" | "organization_policy_id" => PolicyId::schema(),
        "operation_log_id" => OperationLogId::schema(),
        "target_id" => TargetId::schema(),
        "export_id" => ExportId::schema(),
        "notification_id" => NotificationId::schema(),
        "instance_id" | "agent_id" => ResourceId::schema(),
        "protectable_type" => crate::ProtectableType::schema(),
        _ => String::schema(),
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(utoipa::openapi::path::ParameterIn::Path)
        .required(Required::True)
        .schema(Some(schema))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_described() {
        let document = serde_json::to_value(document()).unwrap();
        for operation in Operation::ALL {
            let spec = operation.spec();
            let method = spec.method.as_str().to_lowercase();
            let described = &document["paths"][spec.path][&method];
            assert_eq!(described["operationId"], spec.id, "{operation}");
        }
    }

    #[test]
    fn every_reference_leads_to_a_component() {
        let text = serde_json::to_string(&document()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        for reference in text.split(r##""$ref":"#/components/schemas/"##).skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{name}"
            );
        }
    }
}

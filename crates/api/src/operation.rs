//! The operations: one row each, the only place that knows their methods and
//! paths. The server routes by these tables, the client calls by them, the
//! contract tests walk over them. There are two: the 76 operations of CBR v3,
//! which are as the vendor defines them, and Cairn's own extensions.

use http::Method;

/// What an operation looks like from outside.
#[derive(Debug)]
pub struct OperationSpec {
    /// The operation's name, in the vendor's definitions if it is CBR's, such as `ListVault`.
    pub id: &'static str,
    /// The method.
    pub method: Method,
    /// The path, with parameters in braces, such as `/v3/{project_id}/vaults`.
    pub path: &'static str,
    /// The IAM action that allows it, where the vendor names one.
    pub iam_action: Option<&'static str>,
    /// The status that says it worked.
    pub success_status: u16,
    /// What it is about.
    pub group: Group,
}

impl OperationSpec {
    /// The names of the parameters in the path, in their order.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        let segments = self.path.split('/');
        segments.filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Whether anybody may ask, without saying who they are. Agents prove it in what they say
    /// then.
    pub fn is_public(&self) -> bool {
        self.group == Group::Version || matches!(self.id, "EnrolAgent" | "ConnectAgent")
    }

    /// Whether the path names the project that is acted in.
    pub fn is_in_project(&self) -> bool {
        self.path_parameters().next() == Some("project_id")
    }
}

impl Operation {
    /// The operation with this name.
    pub fn by_id(id: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|operation| operation.spec().id == id)
    }

    /// Whether it is Cairn's own, and none of CBR's.
    pub fn is_extension(self) -> bool {
        Self::EXTENSIONS.contains(&self)
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.spec().id)
    }
}

macro_rules! spec {
    ($group:ident $id:ident: $method:ident $path:literal $status:literal $($action:literal)?) => {{
        static SPEC: OperationSpec = OperationSpec {
            id: stringify!($id),
            method: Method::$method,
            path: $path,
            iam_action: action!($($action)?),
            success_status: $status,
            group: Group::$group,
        };
        &SPEC
    }};
}

macro_rules! action {
    () => {
        None
    };
    ($action:literal) => {
        Some($action)
    };
}

macro_rules! operations {
    (
        cbr { $( $group:ident {
            $( $id:ident: $method:ident $path:literal $status:literal $($action:literal)?; )+
        } )+ }
        extensions { $( $own_group:ident {
            $( $own_id:ident: $own_method:ident $own_path:literal $own_status:literal; )+
        } )+ }
    ) => {
        /// What an operation is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Group {
            $(
                #[doc = concat!("The operations of ", stringify!($group), ".")]
                $group,
            )+
            $(
                #[doc = concat!("The operations of ", stringify!($own_group), ", Cairn's own.")]
                $own_group,
            )+
        }

        /// An operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Operation {
            $($(
                #[doc = concat!("`", stringify!($method), " ", $path, "`")]
                $id,
            )+)+
            $($(
                #[doc = concat!("`", stringify!($own_method), " ", $own_path, "`, Cairn's own")]
                $own_id,
            )+)+
        }

        impl Operation {
            /// The operations of CBR v3, in the order of their table.
            pub const CBR: &'static [Self] = &[$($( Self::$id, )+)+];

            /// Cairn's own operations, in the order of their table.
            pub const EXTENSIONS: &'static [Self] = &[$($( Self::$own_id, )+)+];

            /// Every operation, CBR's first.
            pub const ALL: &'static [Self] = &[$($( Self::$id, )+)+ $($( Self::$own_id, )+)+];

            /// What the operation looks like from outside.
            pub fn spec(self) -> &'static OperationSpec {
                match self {
                    $($( Self::$id => spec!($group $id: $method $path $status $($action)?), )+)+
                    $($(
                        Self::$own_id => spec!($own_group $own_id: $own_method $own_path $own_status),
                    )+)+
                }
            }
        }
    };
}

// Source: the vendor's OpenAPI definitions of CBR (one file per operation) and
// the list of IAM actions in the Open Telekom Cloud documentation.
operations! {
    cbr {
        Vault {
            ListVault: GET "/v3/{project_id}/vaults" 200 "cbr:vaults:list";
            CreateVault: POST "/v3/{project_id}/vaults" 200 "cbr:vaults:create";
            BatchUpdateVault: PUT "/v3/{project_id}/vaults/batch-update" 200;
            ShowSummary: GET "/v3/{project_id}/vaults/summary" 200;
            DeleteVault: DELETE "/v3/{project_id}/vaults/{vault_id}" 204 "cbr:vaults:delete";
            ShowVault: GET "/v3/{project_id}/vaults/{vault_id}" 200 "cbr:vaults:get";
            UpdateVault: PUT "/v3/{project_id}/vaults/{vault_id}" 200 "cbr:vaults:update";
            AddVaultResource: POST "/v3/{project_id}/vaults/{vault_id}/addresources" 200 "cbr:vaults:addResources";
            AssociateVaultPolicy: POST "/v3/{project_id}/vaults/{vault_id}/associatepolicy" 200 "cbr:vaults:associatePolicy";
            DisassociateVaultPolicy: POST "/v3/{project_id}/vaults/{vault_id}/dissociatepolicy" 200 "cbr:vaults:dissociatePolicy";
            MigrateVaultResource: POST "/v3/{project_id}/vaults/{vault_id}/migrateresources" 200 "cbr:vaults:migrateResources";
            RemoveVaultResource: POST "/v3/{project_id}/vaults/{vault_id}/removeresources" 200 "cbr:vaults:removeResources";
            SetVaultResource: PUT "/v3/{project_id}/vaults/{vault_id}/set-resources" 200;
            UpdateExpirationTime: PUT "/v3/{project_id}/vaults/{vault_id}/update-backup-expiration-time" 200;
        }
        Checkpoint {
            CreateCheckpoint: POST "/v3/{project_id}/checkpoints" 200 "cbr:vaults:backup";
            ShowCheckpoint: GET "/v3/{project_id}/checkpoints/{checkpoint_id}" 200;
        }
        Backup {
            ListBackups: GET "/v3/{project_id}/backups" 200 "cbr:backups:list";
            DeleteBackup: DELETE "/v3/{project_id}/backups/{backup_id}" 204 "cbr:backups:delete";
            ShowBackup: GET "/v3/{project_id}/backups/{backup_id}" 200 "cbr:backups:get";
            UpdateBackup: PUT "/v3/{project_id}/backups/{backup_id}" 200;
            ShowMetadata: GET "/v3/{project_id}/backups/{backup_id}/metadata" 200;
            RestoreBackup: POST "/v3/{project_id}/backups/{backup_id}/restore" 202 "cbr:backups:restore";
        }
        Policy {
            ListPolicies: GET "/v3/{project_id}/policies" 200 "cbr:policies:list";
            CreatePolicy: POST "/v3/{project_id}/policies" 200 "cbr:policies:create";
            DeletePolicy: DELETE "/v3/{project_id}/policies/{policy_id}" 204 "cbr:policies:delete";
            ShowPolicy: GET "/v3/{project_id}/policies/{policy_id}" 200 "cbr:policies:get";
            UpdatePolicy: PUT "/v3/{project_id}/policies/{policy_id}" 200 "cbr:policies:update";
        }
        OperationLog {
            ListOpLogs: GET "/v3/{project_id}/operation-logs" 200 "cbr:tasks:list";
            ShowOpLog: GET "/v3/{project_id}/operation-logs/{operation_log_id}" 200 "cbr:tasks:get";
        }
        Protectable {
            ListProtectable: GET "/v3/{project_id}/protectables/{protectable_type}/instances" 200 "cbr:vaults:listProtectables";
            ShowProtectable: GET "/v3/{project_id}/protectables/{protectable_type}/instances/{instance_id}" 200 "cbr:vaults:getProtectables";
        }
        Member {
            ShowMembersDetail: GET "/v3/{project_id}/backups/{backup_id}/members" 200 "cbr:member:list";
            AddMember: POST "/v3/{project_id}/backups/{backup_id}/members" 200 "cbr:member:create";
            DeleteMember: DELETE "/v3/{project_id}/backups/{backup_id}/members/{member_id}" 204 "cbr:member:delete";
            ShowMemberDetail: GET "/v3/{project_id}/backups/{backup_id}/members/{member_id}" 200 "cbr:member:get";
            UpdateMemberStatus: PUT "/v3/{project_id}/backups/{backup_id}/members/{member_id}" 200 "cbr:member:update";
        }
        Replication {
            // 200 is documented, but one client library takes 201 and 202 only; all take 202.
            CopyBackup: POST "/v3/{project_id}/backups/{backup_id}/replicate" 202 "cbr:backups:replicate";
            CopyCheckpoint: POST "/v3/{project_id}/checkpoints/replicate" 200 "cbr:vaults:replicate";
            ShowReplicationCapabilities: GET "/v3/{project_id}/replication-capabilities" 200 "cbr:backups:queryReplicationCapability";
            ListExternalVault: GET "/v3/{project_id}/vaults/external" 200;
        }
        Tag {
            ShowVaultResourceInstances: POST "/v3/{project_id}/vault/resource_instances/action" 200 "cbr:vaults:listResourceInstances";
            ShowVaultProjectTag: GET "/v3/{project_id}/vault/tags" 200 "cbr:vaults:listProjectTags";
            ShowVaultTag: GET "/v3/{project_id}/vault/{vault_id}/tags" 200 "cbr:vaults:getTags";
            CreateVaultTags: POST "/v3/{project_id}/vault/{vault_id}/tags" 204 "cbr:vaults:setTags";
            BatchCreateAndDeleteVaultTags: POST "/v3/{project_id}/vault/{vault_id}/tags/action" 204 "cbr:vaults:bulkCreateOrDeleteTags";
            DeleteVaultTag: DELETE "/v3/{project_id}/vault/{vault_id}/tags/{key}" 204 "cbr:vaults:deleteTags";
        }
        Import {
            ImportBackup: POST "/v3/{project_id}/backups/sync" 200;
            ImportCheckpoint: POST "/v3/{project_id}/checkpoints/sync" 200;
        }
        Agent {
            ListAgent: GET "/v3/{project_id}/agents" 200 "cbr:agents:list";
            RegisterAgent: POST "/v3/{project_id}/agents" 200 "cbr:agents:register";
            UnregisterAgent: DELETE "/v3/{project_id}/agents/{agent_id}" 200 "cbr:agents:delete";
            ShowAgent: GET "/v3/{project_id}/agents/{agent_id}" 200 "cbr:agents:get";
            UpdateAgent: PUT "/v3/{project_id}/agents/{agent_id}" 200 "cbr:agents:update";
            AddAgentPath: POST "/v3/{project_id}/agents/{agent_id}/add-path" 200 "cbr:agents:addPath";
            RemoveAgentPath: POST "/v3/{project_id}/agents/{agent_id}/remove-path" 200 "cbr:agents:removePath";
        }
        AppConsistency {
            CheckAgent: POST "/v3/{project_id}/agent/check" 200 "cbr:backups:checkAgent";
        }
        StorageUsage {
            ShowStorageUsage: GET "/v3/{project_id}/storage_usage" 200;
        }
        Feature {
            ListFeatures: GET "/v3/{project_id}/cbr-features" 200;
            ShowFeature: GET "/v3/{project_id}/cbr-features/{feature_key}" 200;
        }
        OrganizationPolicy {
            ListOrganizationPolicies: GET "/v3/{project_id}/organization-policies" 200;
            CreateOrganizationPolicy: POST "/v3/{project_id}/organization-policies" 200;
            DeleteOrganizationPolicy: DELETE "/v3/{project_id}/organization-policies/{organization_policy_id}" 204;
            ShowOrganizationPolicy: GET "/v3/{project_id}/organization-policies/{organization_policy_id}" 200;
            UpdateOrganizationPolicy: PUT "/v3/{project_id}/organization-policies/{organization_policy_id}" 200;
            ListOrganizationPolicyDetail: GET "/v3/{project_id}/organization-policies/{organization_policy_id}/policy-detail" 200;
        }
        Order {
            ChangeOrder: POST "/v3/{project_id}/orders/change" 200;
            UpdateOrder: PUT "/v3/{project_id}/orders/{order_id}" 200;
            ChangeVaultChargeMode: POST "/v3/{project_id}/vaults/change-charge-mode" 200;
            CreatePostPaidVault: POST "/v3/{project_id}/vaults/order" 200;
        }
        Migration {
            ShowMigrateStatus: GET "/v3/migrates" 200;
            MigrateDomain: POST "/v3/migrates" 200;
        }
        Lookup {
            ListDomainProjects: GET "/v3/domain/{domain_name}/projects" 200;
            ShowDomain: GET "/v3/domain/{source_project_id}" 200;
            ListProjects: GET "/v3/region-projects" 200;
        }
        Version {
            ListApiVersions: GET "/" 300;
            ShowApiVersion: GET "/{api_version}" 300;
        }
    }
    extensions {
        Simulation {
            SimulatePolicy: POST "/v3/{project_id}/policies/simulate" 200;
        }
        Verification {
            StartVerification: POST "/v3/{project_id}/verifications" 202;
            ListVerifications: GET "/v3/{project_id}/verifications" 200;
            ShowVerification: GET "/v3/{project_id}/backups/{backup_id}/verification" 200;
        }
        Retention {
            ExplainBackup: GET "/v3/{project_id}/backups/{backup_id}/explanation" 200;
            PreviewPolicy: POST "/v3/{project_id}/policies/{policy_id}/preview" 200;
        }
        Task {
            CancelOpLog: POST "/v3/{project_id}/operation-logs/{operation_log_id}/cancel" 202;
        }
        Replica {
            AnnounceReplica: POST "/v3/{project_id}/replicas" 202;
            ShowReplica: GET "/v3/{project_id}/replicas/{replica_id}" 200;
            WithdrawReplica: DELETE "/v3/{project_id}/replicas/{replica_id}" 204;
            ConnectReplica: GET "/v3/{project_id}/replicas/{replica_id}/connection" 101;
        }
        Notification {
            ListNotificationTargets: GET "/v3/{project_id}/notification-targets" 200;
            CreateNotificationTarget: POST "/v3/{project_id}/notification-targets" 201;
            ShowNotificationTarget: GET "/v3/{project_id}/notification-targets/{target_id}" 200;
            UpdateNotificationTarget: PUT "/v3/{project_id}/notification-targets/{target_id}" 200;
            DeleteNotificationTarget: DELETE "/v3/{project_id}/notification-targets/{target_id}" 204;
            TestNotificationTarget: POST "/v3/{project_id}/notification-targets/{target_id}/test" 202;
            ListNotifications: GET "/v3/{project_id}/notifications" 200;
            ShowNotification: GET "/v3/{project_id}/notifications/{notification_id}" 200;
        }
        AgentLine {
            CreateAgentToken: POST "/v3/{project_id}/agents/tokens" 201;
            EnrolAgent: POST "/v3/agents/enrolments" 201;
            ConnectAgent: GET "/v3/{project_id}/agents/{agent_id}/connection" 101;
        }
        File {
            ListBackupFiles: GET "/v3/{project_id}/backups/{backup_id}/files" 200;
            FetchBackupFile: GET "/v3/{project_id}/backups/{backup_id}/files/content" 200;
        }
        Download {
            DownloadBackup: GET "/v3/{project_id}/backups/{backup_id}/content" 200;
        }
        Export {
            CreateExport: POST "/v3/{project_id}/backups/{backup_id}/exports" 201;
            ListExports: GET "/v3/{project_id}/exports" 200;
            ShowExport: GET "/v3/{project_id}/exports/{export_id}" 200;
            DeleteExport: DELETE "/v3/{project_id}/exports/{export_id}" 204;
            ConnectExport: GET "/v3/{project_id}/exports/{export_id}/connection" 101;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_operation_has_its_own_name_and_its_own_route() {
        let names: HashSet<_> = Operation::ALL.iter().map(|o| o.spec().id).collect();
        let routes: HashSet<_> = Operation::ALL
            .iter()
            .map(|o| (o.spec().method.as_str(), o.spec().path))
            .collect();
        assert_eq!(Operation::CBR.len(), 76);
        let all = Operation::CBR.len() + Operation::EXTENSIONS.len();
        assert_eq!(Operation::ALL.len(), all);
        assert_eq!(names.len(), all);
        assert_eq!(routes.len(), all);
        assert!(!Operation::CBR.iter().any(|one| one.is_extension()));
    }

    #[test]
    fn operations_are_found_by_name() {
        for operation in Operation::ALL {
            assert_eq!(Operation::by_id(operation.spec().id), Some(*operation));
        }
        assert_eq!(Operation::by_id("Frobnicate"), None);
    }

    #[test]
    fn parameters_are_read_off_the_path() {
        let spec = Operation::ShowProtectable.spec();
        let parameters: Vec<_> = spec.path_parameters().collect();
        assert_eq!(
            parameters,
            ["project_id", "protectable_type", "instance_id"]
        );
        assert!(spec.is_in_project());
        assert!(!Operation::ShowDomain.spec().is_in_project());
    }

    #[test]
    fn only_deletions_and_tag_changes_answer_without_a_body() {
        for operation in Operation::ALL {
            let spec = operation.spec();
            if spec.success_status == 204 {
                assert!(
                    spec.method == Method::DELETE || spec.group == Group::Tag,
                    "{operation}"
                );
            }
        }
    }
}

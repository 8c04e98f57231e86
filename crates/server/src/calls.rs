//! Which handler answers which operation: one row each, as in the tables of the
//! contract. An operation without a row does not compile.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cairn_api::{ErrorCode, Operation};
use cairn_core::Caller;
use serde::Serialize;

use crate::error::{Failure, Result};
use crate::request::Request;
use crate::{
    App, agent_lines, agents, backups, bindings, checkpoints, downloads, exports, files, lookups,
    members, metadata, notifications, operation_logs, orders, organization_policies, policies,
    protectables, replicas, replications, retention, sync, tags, usage, vaults, verifications,
};

/// Declares [`call`] and [`tell_anybody`]. The names of the arguments stand in
/// the invocation, so that the rows can use them.
macro_rules! calls {
    (
        ($app:ident, $caller:ident, $request:ident)
        with_body { $( $body:ident: $body_handler:path, ($($body_argument:ident),+); )+ }
        without_body { $( $empty:ident: $empty_handler:path, ($($empty_argument:ident),+); )+ }
        by_itself { $( $own:ident: $own_handler:path, ($($own_argument:ident),+); )+ }
        to_anybody { $( $public:ident: $public_handler:path, ($($public_argument:ident),+); )+ }
        to_anybody_by_itself { $( $open:ident: $open_handler:path, ($($open_argument:ident),+); )+ }
    ) => {
        /// Has an operation carried out for somebody who may ask for it.
        pub(crate) async fn call(
            $app: &App,
            operation: Operation,
            $caller: &Caller,
            $request: &Request,
        ) -> Result<Response> {
            match operation {
                $( Operation::$body => {
                    answer(operation, $body_handler($($body_argument),+).await?)
                } )+
                $( Operation::$empty => {
                    $empty_handler($($empty_argument),+).await?;
                    Ok(status(operation).into_response())
                } )+
                $( Operation::$own => $own_handler($($own_argument),+).await, )+
                $( Operation::$public )|+ $( | Operation::$open )+ => tell_anybody($app, operation, $request).await,
            }
        }

        /// Has an operation carried out that needs no proof of who asks.
        pub(crate) async fn tell_anybody(
            $app: &App,
            operation: Operation,
            $request: &Request,
        ) -> Result<Response> {
            match operation {
                $( Operation::$public => {
                    answer(operation, $public_handler($($public_argument),+).await?)
                } )+
                $( Operation::$open => $open_handler($($open_argument),+).await, )+
                _ => Err(Failure::code(ErrorCode::BadCredentials)),
            }
        }
    };
}

calls! {
    (app, caller, request)
    with_body {
        ListVault: vaults::list, (app, caller, request);
        CreateVault: vaults::create, (app, caller, request);
        BatchUpdateVault: usage::batch_update, (app, caller, request);
        ShowSummary: usage::summary, (app, caller, request);
        ShowVault: vaults::show, (app, caller, request);
        UpdateVault: vaults::update, (app, caller, request);
        AddVaultResource: vaults::add_resources, (app, caller, request);
        AssociateVaultPolicy: policies::associate, (app, caller, request);
        DisassociateVaultPolicy: policies::dissociate, (app, caller, request);
        MigrateVaultResource: bindings::migrate, (app, caller, request);
        RemoveVaultResource: vaults::remove_resources, (app, caller, request);
        SetVaultResource: bindings::set, (app, caller, request);
        UpdateExpirationTime: usage::update_expiration, (app, caller, request);

        CreateCheckpoint: checkpoints::create, (app, caller, request);
        ShowCheckpoint: checkpoints::show, (app, caller, request);

        ListBackups: backups::list, (app, caller, request);
        ShowBackup: backups::show, (app, caller, request);
        UpdateBackup: backups::update, (app, caller, request);
        ShowMetadata: metadata::show, (app, caller, request);
        RestoreBackup: backups::restore, (app, caller, request);

        ListPolicies: policies::list, (app, caller, request);
        CreatePolicy: policies::create, (app, caller, request);
        ShowPolicy: policies::show, (app, caller, request);
        UpdatePolicy: policies::update, (app, caller, request);
        SimulatePolicy: policies::simulate, (app, request);

        ListOpLogs: operation_logs::list, (app, caller, request);
        ShowOpLog: operation_logs::show, (app, caller, request);

        ListProtectable: protectables::list, (app, caller, request);
        ShowProtectable: protectables::show, (app, caller, request);

        ShowMembersDetail: members::list, (app, caller, request);
        AddMember: members::add, (app, caller, request);
        ShowMemberDetail: members::show, (app, caller, request);
        UpdateMemberStatus: members::update, (app, caller, request);

        CopyBackup: replications::copy_backup, (app, caller, request);
        CopyCheckpoint: replications::copy_vault, (app, caller, request);
        ShowReplicationCapabilities: replications::capabilities, (app);
        ListExternalVault: usage::external_vaults, (app, caller, request);

        ShowVaultResourceInstances: tags::search, (app, caller, request);
        ShowVaultProjectTag: tags::show_all, (app, caller);
        ShowVaultTag: tags::show, (app, caller, request);

        ImportBackup: sync::import, (app, caller, request);
        ImportCheckpoint: sync::vault, (app, caller, request);

        ListAgent: agents::list, (app, caller, request);
        RegisterAgent: agents::register, (app, caller, request);
        ShowAgent: agents::show, (app, caller, request);
        UpdateAgent: agents::update, (app, caller, request);
        AddAgentPath: agents::add_paths, (app, caller, request);
        RemoveAgentPath: agents::remove_paths, (app, caller, request);

        CheckAgent: agents::check, (app, caller, request);

        ShowStorageUsage: usage::storage, (app, caller, request);

        ListFeatures: lookups::features, (app);
        ShowFeature: lookups::feature, (app, request);

        ListOrganizationPolicies: organization_policies::list, (app, caller, request);
        CreateOrganizationPolicy: organization_policies::create, (app, caller, request);
        ShowOrganizationPolicy: organization_policies::show, (app, caller, request);
        UpdateOrganizationPolicy: organization_policies::update, (app, caller, request);
        ListOrganizationPolicyDetail: organization_policies::detail, (app, caller, request);

        CreateExport: exports::create, (app, caller, request);
        ListBackupFiles: files::list, (app, caller, request);
        ListExports: exports::list, (app, caller);
        ShowExport: exports::show, (app, caller, request);

        ChangeOrder: orders::change, (app, caller, request);
        UpdateOrder: orders::update, (app, caller, request);
        ChangeVaultChargeMode: orders::change_charge_mode, (app, caller, request);
        CreatePostPaidVault: orders::create_vault, (app, caller, request);

        ShowMigrateStatus: lookups::migrate_status, (app, caller, request);
        MigrateDomain: lookups::migrate, (app, caller, request);

        ListDomainProjects: lookups::domain_projects, (app, caller, request);
        ShowDomain: lookups::domain, (app, caller, request);
        ListProjects: lookups::region_projects, (app, caller, request);

        StartVerification: verifications::start, (app, caller, request);
        ListVerifications: verifications::list, (app, caller, request);
        ShowVerification: verifications::show, (app, caller, request);

        ExplainBackup: retention::explain, (app, caller, request);
        PreviewPolicy: retention::preview, (app, caller, request);
        CancelOpLog: operation_logs::cancel, (app, caller, request);
        AnnounceReplica: replicas::announce, (app, caller, request);
        ShowReplica: replicas::show, (app, caller, request);
        CreateAgentToken: agent_lines::create_token, (app, caller, request);

        ListNotificationTargets: notifications::list_targets, (app, caller);
        CreateNotificationTarget: notifications::create_target, (app, caller, request);
        ShowNotificationTarget: notifications::show_target, (app, caller, request);
        UpdateNotificationTarget: notifications::update_target, (app, caller, request);
        TestNotificationTarget: notifications::test_target, (app, caller, request);
        ListNotifications: notifications::list, (app, caller, request);
        ShowNotification: notifications::show, (app, caller, request);
    }
    without_body {
        DeleteVault: vaults::delete, (app, caller, request);
        DeleteBackup: backups::delete, (app, caller, request);
        DeletePolicy: policies::delete, (app, caller, request);
        DeleteMember: members::delete, (app, caller, request);
        DeleteNotificationTarget: notifications::delete_target, (app, caller, request);
        CreateVaultTags: tags::create, (app, caller, request);
        BatchCreateAndDeleteVaultTags: tags::batch, (app, caller, request);
        DeleteVaultTag: tags::delete, (app, caller, request);
        UnregisterAgent: agents::unregister, (app, caller, request);
        DeleteOrganizationPolicy: organization_policies::delete, (app, caller, request);
        WithdrawReplica: replicas::withdraw, (app, caller, request);
        DeleteExport: exports::end, (app, caller, request);
    }
    by_itself {
        ConnectReplica: replicas::connect, (app, caller, request);
        ConnectExport: exports::connect, (app, caller, request);
        FetchBackupFile: files::fetch, (app, caller, request);
        DownloadBackup: downloads::download, (app, caller, request);
    }
    to_anybody {
        ListApiVersions: lookups::versions, (app);
        ShowApiVersion: lookups::version, (app, request);
        EnrolAgent: agent_lines::enrol, (app, request);
    }
    to_anybody_by_itself {
        ConnectAgent: agent_lines::connect, (app, request);
    }
}

/// An answer with a body, in the operation's status.
fn answer(operation: Operation, body: impl Serialize) -> Result<Response> {
    Ok((status(operation), Json(body)).into_response())
}

fn status(operation: Operation) -> StatusCode {
    StatusCode::from_u16(operation.spec().success_status).expect("the table holds real statuses")
}

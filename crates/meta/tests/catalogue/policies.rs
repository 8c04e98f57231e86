//! Policies, the vaults that follow them, and what organizations want.

use crate::fixtures::*;
use cairn_meta::{
    OrganizationPolicy, Page, Policy, PolicyBinding, PolicyFilter, PolicySchedule, Tag, VaultFilter,
};
use cairn_types::{
    OperationDefinition, OrganizationPolicyId, PolicyId, PolicyOperation, PolicyType, ProjectId,
    VaultId,
};

fn policy(project: ProjectId, operation: PolicyOperation, seconds: i64) -> Policy {
    let definition = OperationDefinition {
        max_backups: Some(-1),
        timezone: Some("UTC+08:00".to_owned()),
        ..OperationDefinition::default()
    };
    Policy {
        id: PolicyId::random(),
        project,
        name: format!("p_{seconds}"),
        operation,
        policy_type: PolicyType::Custom,
        enabled: true,
        definition,
        schedule: schedule(),
        organization_policy: None,
        created_at: at(seconds),
        updated_at: at(seconds),
        next_slot: Some(at(900)),
        next_run_at: Some(at(950)),
    }
}

fn schedule() -> PolicySchedule {
    PolicySchedule {
        id: uuid::Uuid::new_v4(),
        pattern: vec!["FREQ=DAILY;BYHOUR=1;BYMINUTE=00".to_owned()],
        timezone: Some("Europe/Berlin".to_owned()),
        recurrence_rules: vec!["FREQ=MONTHLY;BYDAY=-1FR".to_owned()],
        start_window_minutes: Some(60),
    }
}

fn binding(vault: VaultId, policy: &Policy, seconds: i64) -> PolicyBinding {
    PolicyBinding {
        vault,
        policy: policy.id,
        operation: policy.operation,
        destination: None,
        bound_at: at(seconds),
    }
}

#[tokio::test]
async fn policies_are_written_read_filtered_and_paged() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let mut policies: Vec<Policy> = (0..4)
            .map(|number| policy(project, PolicyOperation::Backup, number))
            .collect();
        policies[2].operation = PolicyOperation::Replication;
        for policy in &policies {
            tx.insert_policy(policy).await.unwrap();
        }
        policies[1].name = "renamed".to_owned();
        policies[1].enabled = false;
        policies[1].schedule.start_window_minutes = None;
        tx.update_policy(&policies[1]).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = meta.begin().await.unwrap();
        let id = policies[1].id;
        let read = tx.policy(project, id).await.unwrap();
        assert_eq!(read, Some(policies[1].clone()));
        let locked = tx.lock_policy(project, id).await.unwrap();
        assert_eq!(locked, Some(policies[1].clone()));
        assert_eq!(tx.policy(ProjectId::random(), id).await.unwrap(), None);
        let backup = PolicyOperation::Backup;
        assert_eq!(tx.count_own_policies(project, backup).await.unwrap(), 3);
        let filter = PolicyFilter {
            operation: Some(backup),
            vault: None,
        };
        let (found, count) = tx.policies(project, &filter, &everything(2)).await.unwrap();
        assert_eq!(count, 3);
        assert_eq!(found, [policies[3].clone(), policies[1].clone()]);
        let behind = Page {
            marker: Some(found[1].id.to_string()),
            ..everything(9)
        };
        let (found, _) = tx.policies(project, &filter, &behind).await.unwrap();
        assert_eq!(found, [policies[0].clone()]);
        let strangers = ProjectId::random();
        let none = tx
            .policies(strangers, &filter, &everything(9))
            .await
            .unwrap();
        assert_eq!(none, (Vec::new(), 0));
    })
    .await;
}

#[tokio::test]
async fn a_vault_follows_one_policy_of_each_kind() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let (vault, other) = (vault(project, "v", 1), vault(project, "w", 2));
        let first = policy(project, PolicyOperation::Backup, 3);
        let second = policy(project, PolicyOperation::Backup, 4);
        let copies = policy(project, PolicyOperation::Replication, 5);
        let mut tx = meta.begin().await.unwrap();
        for vault in [&vault, &other] {
            tx.insert_vault(vault).await.unwrap();
        }
        for policy in [&first, &second, &copies] {
            tx.insert_policy(policy).await.unwrap();
        }
        let mut replicating = binding(vault.id, &copies, 7);
        replicating.destination = Some(other.id);
        for binding in [
            &binding(vault.id, &first, 6),
            &replicating,
            &binding(vault.id, &second, 8),
            &binding(other.id, &second, 9),
        ] {
            tx.bind_policy(binding).await.unwrap();
        }
        let all = [first.id, second.id, copies.id];
        let bound = tx.bindings_of(&all).await.unwrap();
        let expected = [
            replicating.clone(),
            binding(vault.id, &second, 8),
            binding(other.id, &second, 9),
        ];
        assert_eq!(bound, expected);
        let filter = VaultFilter {
            policy: Some(second.id),
            ..VaultFilter::default()
        };
        let (vaults, count) = tx.vaults(project, &filter, &everything(9)).await.unwrap();
        assert_eq!((vaults, count), (vec![other.clone(), vault.clone()], 2));
        let filter = PolicyFilter {
            operation: None,
            vault: Some(vault.id),
        };
        let (policies, _) = tx.policies(project, &filter, &everything(9)).await.unwrap();
        assert_eq!(policies, [copies.clone(), second.clone()]);

        assert_eq!(tx.unbind_policy(vault.id, first.id).await.unwrap(), None);
        let unbound = tx.unbind_policy(vault.id, copies.id).await.unwrap();
        assert_eq!(unbound, Some(replicating));
        tx.remove_policy(second.id).await.unwrap();
        assert_eq!(tx.bindings_of(&all).await.unwrap(), []);
        tx.bind_policy(&binding(vault.id, &first, 10))
            .await
            .unwrap();
        tx.remove_vault(vault.id).await.unwrap();
        assert_eq!(tx.bindings_of(&all).await.unwrap(), []);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_policies_that_are_due_are_found_the_longest_due_first() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let vault = vault(project, "v", 1);
        let mut tx = meta.begin().await.unwrap();
        tx.insert_vault(&vault).await.unwrap();
        let mut policies: Vec<Policy> = (0..5)
            .map(|number| policy(project, PolicyOperation::Backup, number))
            .collect();
        let runs = [
            Some(at(300)),
            Some(at(100)),
            None,
            Some(at(200)),
            Some(at(50)),
        ];
        for (policy, run) in policies.iter_mut().zip(runs) {
            policy.next_run_at = run;
        }
        policies[4].enabled = false;
        for policy in &policies {
            tx.insert_policy(policy).await.unwrap();
        }
        assert_eq!(tx.next_policy_run().await.unwrap(), Some(at(100)));
        assert!(tx.due_policies(at(99), 9).await.unwrap().is_empty());
        let due = tx.due_policies(at(200), 9).await.unwrap();
        assert_eq!(due, [policies[1].clone(), policies[3].clone()]);
        assert_eq!(tx.due_policies(at(900), 2).await.unwrap(), due);

        let backup = PolicyOperation::Backup;
        assert_eq!(tx.policy_of_vault(vault.id, backup).await.unwrap(), None);
        let bound = binding(vault.id, &policies[0], 7);
        tx.bind_policy(&bound).await.unwrap();
        let followed = tx.policy_of_vault(vault.id, backup).await.unwrap();
        assert_eq!(followed, Some(policies[0].clone()));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn organization_policies_belong_to_the_project_that_made_them() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let domain = tx.project(project).await.unwrap().unwrap().domain;
        let mut wanted = OrganizationPolicy {
            id: OrganizationPolicyId::random(),
            project,
            domain,
            name: "all".to_owned(),
            description: String::new(),
            operation: PolicyOperation::Backup,
            policy_name: "nightly".to_owned(),
            policy_enabled: true,
            definition: OperationDefinition::default(),
            schedule: schedule(),
            effective_scope: "all".to_owned(),
            created_at: at(1),
            updated_at: at(1),
        };
        tx.insert_organization_policy(&wanted).await.unwrap();
        wanted.policy_enabled = false;
        wanted.description = "changed".to_owned();
        tx.update_organization_policy(&wanted).await.unwrap();
        let id = wanted.id;
        let backup = PolicyOperation::Backup;
        let made = tx.count_organization_policies(project, backup).await;
        assert_eq!(made.unwrap(), 1);
        for read in [
            tx.organization_policy(project, id).await.unwrap(),
            tx.lock_organization_policy(project, id).await.unwrap(),
        ] {
            assert_eq!(read, Some(wanted.clone()));
        }
        let stranger = ProjectId::random();
        assert_eq!(tx.organization_policy(stranger, id).await.unwrap(), None);
        let listed = |project, operation| (project, operation, everything(9));
        for ((project, operation, page), count) in [
            (listed(project, PolicyOperation::Backup), 1),
            (listed(project, PolicyOperation::Replication), 0),
            (listed(stranger, PolicyOperation::Backup), 0),
        ] {
            let found = tx.organization_policies(project, operation, &page).await;
            assert_eq!(found.unwrap().1, count);
        }
        let mut pushed = policy(project, PolicyOperation::Backup, 2);
        pushed.policy_type = PolicyType::OrganizationV2;
        pushed.organization_policy = Some(id);
        tx.insert_policy(&pushed).await.unwrap();
        let own = tx
            .count_own_policies(project, PolicyOperation::Backup)
            .await;
        assert_eq!(own.unwrap(), 0, "it is not the project's own");
        assert_eq!(tx.policies_of_organization(id).await.unwrap(), [pushed]);
        tx.remove_organization_policy(id).await.unwrap();
        assert_eq!(tx.organization_policy(project, id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn tags_keep_their_order_and_a_missing_value_is_empty() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut vault = vault(project, "v", 1);
        let tag = |key: &str| Tag {
            key: key.to_owned(),
            value: "ü".to_owned(),
        };
        vault.tags = vec![tag("z"), tag("a")];
        let mut tx = meta.begin().await.unwrap();
        tx.insert_vault(&vault).await.unwrap();
        let read = tx.all_vaults(project, &VaultFilter::default()).await;
        assert_eq!(read.unwrap(), [vault]);
        let old: Tag = serde_json::from_str(r#"{"key":"k","value":null}"#).unwrap();
        assert_eq!(old.value, "");
    })
    .await;
}

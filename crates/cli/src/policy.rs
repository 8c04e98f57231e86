//! `cairn policy`. Policies are written as the API's own bodies, in files.
//!
//! A simulation is the one verb that asks no server: it calls what the service decides by.

use std::io::Read;

use cairn_api::policy::{
    AssociatePolicyRequest, CreatePolicyRequest, DissociatePolicyRequest, ListPoliciesQuery,
    Policy, UpdatePolicyRequest,
};
use cairn_api::simulation::{SimulatePolicyRequest, SimulatePolicyResponse};
use cairn_api::{Client, Validate, parse_body};
use cairn_policy::MAX_SIMULATED;
use cairn_types::{PolicyOperation, Timestamp};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

use crate::output::{Printer, time};
use crate::table::{Table, pairs};
use crate::{Error, find};

/// The largest body that is read, in bytes.
const MAX_BODY_BYTES: u64 = 1024 * 1024;

/// What can be done with policies.
#[derive(Debug, Clone, Subcommand)]
pub enum PolicyCommand {
    /// Create a policy.
    Create(Body),
    /// List policies.
    List(List),
    /// Show a policy.
    Show {
        /// The policy, by id or name.
        policy: String,
    },
    /// Change a policy.
    Update {
        /// The policy, by id or name.
        policy: String,
        #[command(flatten)]
        body: Body,
    },
    /// Delete a policy; backups that it made stay.
    Delete {
        /// The policy, by id or name.
        policy: String,
    },
    /// Have a vault follow a policy, instead of the one of its type that it followed.
    Bind {
        /// The vault, by id or name.
        vault: String,
        /// The policy, by id or name.
        policy: String,
        /// For a replication policy: the vault that takes the replicas, by id or name.
        #[arg(long, value_name = "VAULT")]
        destination: Option<String>,
    },
    /// Have a vault follow a policy no longer.
    Unbind {
        /// The vault, by id or name.
        vault: String,
        /// The policy, by id or name.
        policy: String,
    },
    /// Show which backups a policy would make, keep and remove; asks no server.
    Simulate(Simulate),
}

/// Where a body comes from.
#[derive(Debug, Clone, Args)]
pub struct Body {
    /// File with the body as JSON, as the API takes it; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    body: String,
}

/// Which policies are listed.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Those that a vault follows, by id or name.
    #[arg(long)]
    vault: Option<String>,
    /// Those that do this: backup, replication.
    #[arg(long = "type", value_parser = find::word::<PolicyOperation>)]
    operation: Option<PolicyOperation>,
}

/// What is tried, and over which time.
#[derive(Debug, Clone, Args)]
pub struct Simulate {
    #[command(flatten)]
    body: Body,
    /// When the policy would be made, as 2026-01-01 or 2026-01-01T00:00:00Z; now if unset.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// The end of what is looked at, in the same form; a year later if unset.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Body {
    /// Reads and checks a body.
    fn read<T: DeserializeOwned + Validate>(&self) -> Result<T, Error> {
        let wrong = |error: &dyn std::fmt::Display| {
            let name = match self.body.as_str() {
                "-" => "standard input",
                file => file,
            };
            Error::Usage(format!("{name}: {error}"))
        };
        let mut bytes = Vec::new();
        let read = match self.body.as_str() {
            "-" => std::io::stdin()
                .take(MAX_BODY_BYTES + 1)
                .read_to_end(&mut bytes),
            file => std::fs::File::open(file)
                .and_then(|file| file.take(MAX_BODY_BYTES + 1).read_to_end(&mut bytes)),
        };
        read.map_err(|error| wrong(&error))?;
        if bytes.len() as u64 > MAX_BODY_BYTES {
            return Err(wrong(&"it is larger than 1 MiB"));
        }
        parse_body(&bytes).map_err(|error| wrong(&error))
    }
}

/// Runs one of the commands.
pub(crate) async fn execute(
    command: PolicyCommand,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    match command {
        PolicyCommand::Create(body) => {
            let body: CreatePolicyRequest = body.read()?;
            let policy = client.create_policy(&body).await?.policy;
            printer.print(&policy, || show(&policy))
        }
        PolicyCommand::List(options) => list(options, client, printer).await,
        PolicyCommand::Show { policy } => {
            let policy = find::policy(client, &policy).await?;
            printer.print(&policy, || show(&policy))
        }
        PolicyCommand::Update { policy, body } => {
            let body: UpdatePolicyRequest = body.read()?;
            let id = find::policy(client, &policy).await?.id;
            let policy = client.update_policy(id, &body).await?.policy;
            printer.print(&policy, || show(&policy))
        }
        PolicyCommand::Delete { policy } => {
            let policy = find::policy(client, &policy).await?;
            client.delete_policy(policy.id).await?;
            printer.say(&format!("policy {} is deleted", policy.name))
        }
        PolicyCommand::Bind {
            vault,
            policy,
            destination,
        } => bind((vault, policy, destination), client, printer).await,
        PolicyCommand::Unbind { vault, policy } => {
            let vault = find::vault(client, &vault).await?;
            let policy = find::policy(client, &policy).await?;
            let policy_id = policy.id;
            let body = DissociatePolicyRequest { policy_id };
            let unbound = client
                .dissociate_policy(vault.id, &body)
                .await?
                .dissociate_policy;
            let sentence = || format!("vault {} no longer follows {}\n", vault.name, policy.name);
            printer.print(&unbound, sentence)
        }
        PolicyCommand::Simulate(options) => simulate(&options, client.now(), printer),
    }
}

/// Tries a policy, without a server.
pub(crate) fn simulate(
    options: &Simulate,
    now: Timestamp,
    printer: &mut Printer,
) -> Result<(), Error> {
    let mut body: SimulatePolicyRequest = options.body.read()?;
    body.from = options.from.clone().or(body.from);
    body.until = options.until.clone().or(body.until);
    let simulated = body.simulate(now, MAX_SIMULATED);
    let answer = simulated.map_err(|error| Error::Usage(error.message))?;
    printer.print(&answer, || simulated_table(&answer))
}

async fn bind(
    (vault, policy, destination): (String, String, Option<String>),
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let vault = find::vault(client, &vault).await?;
    let policy = find::policy(client, &policy).await?;
    let destination_vault_id = match &destination {
        // A vault of another region is named by its id.
        Some(destination) => match destination.parse() {
            Ok(id) => Some(id),
            Err(_) => Some(find::vault(client, destination).await?.id),
        },
        None => None,
    };
    let body = AssociatePolicyRequest {
        policy_id: Some(policy.id),
        destination_vault_id,
        ..AssociatePolicyRequest::default()
    };
    let bound = client
        .associate_policy(vault.id, &body)
        .await?
        .associate_policy;
    let sentence = || format!("vault {} follows {}\n", vault.name, policy.name);
    printer.print(&bound, sentence)
}

async fn list(list: List, client: &Client, printer: &mut Printer) -> Result<(), Error> {
    let vault_id = match &list.vault {
        Some(vault) => Some(find::vault(client, vault).await?.id),
        None => None,
    };
    let query = ListPoliciesQuery {
        vault_id,
        operation_type: list.operation,
        ..Default::default()
    };
    let policies = find::policies(client, query).await?;
    printer.print(&policies, || table(&policies))
}

fn table(policies: &[Policy]) -> String {
    let mut table = Table::new(&["ID", "NAME", "TYPE", "ENABLED", ">VAULTS", "SCHEDULE"]);
    for policy in policies {
        table.row([
            policy.id.to_string(),
            policy.name.clone(),
            policy.operation_type.to_string(),
            policy.enabled.to_string(),
            policy.associated_vaults.len().to_string(),
            schedule(policy),
        ]);
    }
    table.render()
}

/// A policy's rules, all in one line.
fn schedule(policy: &Policy) -> String {
    let properties = &policy.trigger.properties;
    let rules = properties
        .pattern
        .iter()
        .chain(&properties.recurrence_rules);
    let rules: Vec<&str> = rules.map(String::as_str).collect();
    rules.join(" ")
}

fn show(policy: &Policy) -> String {
    let properties = &policy.trigger.properties;
    let window = properties.start_window_minutes;
    let kept = serde_json::to_string(&policy.operation_definition);
    let vaults = policy.associated_vaults.iter();
    let vaults: Vec<String> = vaults.map(|vault| vault.vault_id.to_string()).collect();
    pairs(&[
        ("id", policy.id.to_string()),
        ("name", policy.name.clone()),
        ("type", policy.operation_type.to_string()),
        ("enabled", policy.enabled.to_string()),
        ("schedule", schedule(policy)),
        (
            "timezone",
            properties.timezone.clone().unwrap_or("UTC".to_owned()),
        ),
        ("since", time(Some(properties.start_time))),
        (
            "window",
            window
                .map(|minutes| format!("{minutes} minutes"))
                .unwrap_or_default(),
        ),
        ("rules", kept.expect("a definition has texts for keys")),
        ("vaults", vaults.join(" ")),
    ])
}

fn simulated_table(answer: &SimulatePolicyResponse) -> String {
    let mut table = Table::new(&["CREATED", "EXPIRES", "KEPT BY"]);
    for backup in &answer.backups {
        table.row([
            time(Some(backup.created_at)),
            time(backup.expired_at),
            backup.kept_by.join(" "),
        ]);
    }
    table.render()
}

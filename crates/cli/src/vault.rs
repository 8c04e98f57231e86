//! `cairn vault`.

use cairn_api::resource::Resource;
use cairn_api::vault::{
    AddVaultResourceRequest, BillingChange, CreateVaultRequest, ListVaultQuery, NewBilling,
    NewVault, RemoveVaultResourceRequest, UpdateVaultRequest, Vault, VaultChange,
};
use cairn_api::{Client, ConsistentLevel, ProtectType};
use cairn_types::ObjectType;
use clap::{Args, Subcommand};

use crate::output::{Printer, gb, mb, time};
use crate::table::{Table, pairs};
use crate::wait::{self, Waiting};
use crate::{Error, find};

/// What can be done with vaults.
#[derive(Debug, Clone, Subcommand)]
pub enum VaultCommand {
    /// Create a vault.
    Create(Create),
    /// List vaults.
    List,
    /// Show a vault and its resources.
    Show {
        /// The vault, by id or name.
        vault: String,
    },
    /// Change a vault.
    Update(Update),
    /// Delete a vault with all of its backups.
    Delete {
        /// The vault, by id or name.
        vault: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Bind resources to a vault.
    Add {
        /// The vault, by id or name.
        vault: String,
        /// The resources, by id or name.
        #[arg(required = true)]
        resources: Vec<String>,
    },
    /// Take resources out of a vault, with all of their backups in it.
    Remove {
        /// The vault, by id or name.
        vault: String,
        /// The resources, by id or name.
        #[arg(required = true)]
        resources: Vec<String>,
    },
}

/// What a new vault is like.
#[derive(Debug, Clone, Args)]
pub struct Create {
    /// Its name.
    name: String,
    /// What it protects: server, disk, turbo, workspace, file.
    #[arg(long = "type", default_value = "disk", value_parser = find::word::<ObjectType>)]
    object_type: ObjectType,
    /// What it holds: backup, or replication for copies of backups.
    #[arg(long, default_value = "backup", value_parser = find::word::<ProtectType>)]
    protect_type: ProtectType,
    /// Its size, in GB.
    #[arg(long, default_value_t = 100)]
    size: u64,
    /// What a backup holds of a running server: crash_consistent, as if it had lost power, or
    /// app_consistent, its file systems held still for the moment.
    #[arg(long, value_name = "LEVEL", default_value = "crash_consistent", value_parser = find::word::<ConsistentLevel>)]
    consistent_level: ConsistentLevel,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
    /// A resource to bind at once, by id or name; may be repeated.
    #[arg(long = "resource", value_name = "RESOURCE")]
    resources: Vec<String>,
    /// The share in use at which a notification is sent, in percent.
    #[arg(long, value_name = "PERCENT")]
    threshold: Option<u32>,
    /// Grow by itself when full.
    #[arg(long)]
    auto_expand: bool,
    /// Keep automatic backups until they expire; cannot be taken back.
    #[arg(long)]
    locked: bool,
}

/// What changes about a vault.
#[derive(Debug, Clone, Args)]
pub struct Update {
    /// The vault, by id or name.
    vault: String,
    /// Its new name.
    #[arg(long)]
    name: Option<String>,
    /// Its new size, in GB.
    #[arg(long)]
    size: Option<u64>,
    /// What a backup holds of a running server: app_consistent, which cannot be taken back.
    #[arg(long, value_name = "LEVEL", value_parser = find::word::<ConsistentLevel>)]
    consistent_level: Option<ConsistentLevel>,
    /// The share in use at which a notification is sent, in percent.
    #[arg(long, value_name = "PERCENT")]
    threshold: Option<u32>,
    /// Whether it grows by itself when full.
    #[arg(long, value_name = "BOOL")]
    auto_expand: Option<bool>,
    /// Keep automatic backups until they expire; cannot be taken back.
    #[arg(long)]
    locked: bool,
}

/// Runs one of the commands.
pub(crate) async fn execute(
    command: VaultCommand,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    match command {
        VaultCommand::Create(new) => create(new, client, printer).await,
        VaultCommand::List => {
            let vaults = find::vaults(client, ListVaultQuery::default()).await?;
            printer.print(&vaults, || table(&vaults))
        }
        VaultCommand::Show { vault } => {
            let vault = find::vault(client, &vault).await?;
            printer.print(&vault, || show(&vault))
        }
        VaultCommand::Update(change) => update(change, client, printer).await,
        VaultCommand::Delete { vault, waiting } => {
            let vault = find::vault(client, &vault).await?;
            client.delete_vault(vault.id).await?;
            if waiting.wait {
                wait::vault_gone(client, vault.id, waiting.timeout).await?;
                return printer.say(&format!("vault {} is deleted", vault.name));
            }
            printer.say(&format!("vault {} is being deleted", vault.name))
        }
        VaultCommand::Add { vault, resources } => add(vault, resources, client, printer).await,
        VaultCommand::Remove { vault, resources } => {
            remove(vault, resources, client, printer).await
        }
    }
}

async fn create(new: Create, client: &Client, printer: &mut Printer) -> Result<(), Error> {
    let resources = resolve(client, new.object_type, &new.resources).await?;
    let billing = NewBilling {
        protect_type: new.protect_type,
        consistent_level: new.consistent_level,
        ..NewBilling::new(new.object_type, new.size)
    };
    let vault = NewVault {
        resources,
        description: new.description,
        auto_expand: new.auto_expand.then_some(true),
        locked: new.locked.then_some(true),
        threshold: new.threshold,
        ..NewVault::new(new.name, billing)
    };
    let name = vault.name.clone();
    let made = client.create_vault(&CreateVaultRequest { vault }).await?;
    let what = "vault";
    let vault = made.vault.ok_or(Error::NotFound { what, name })?;
    printer.print(&vault, || show(&vault))
}

async fn update(change: Update, client: &Client, printer: &mut Printer) -> Result<(), Error> {
    let id = find::vault(client, &change.vault).await?.id;
    let billing = BillingChange {
        size: change.size,
        consistent_level: change.consistent_level,
    };
    let vault = VaultChange {
        name: change.name,
        billing: (billing.size.is_some() || billing.consistent_level.is_some()).then_some(billing),
        auto_expand: change.auto_expand,
        locked: change.locked.then_some(true),
        threshold: change.threshold,
        ..Default::default()
    };
    let vault = client
        .update_vault(id, &UpdateVaultRequest { vault })
        .await?
        .vault;
    printer.print(&vault, || show(&vault))
}

async fn add(
    vault: String,
    names: Vec<String>,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let vault = find::vault(client, &vault).await?;
    let resources = resolve(client, vault.billing.object_type, &names).await?;
    let added = client
        .add_vault_resources(vault.id, &AddVaultResourceRequest { resources })
        .await?;
    let sentence = || format!("{} added to vault {}\n", names.join(", "), vault.name);
    printer.print(&added, sentence)
}

async fn remove(
    vault: String,
    names: Vec<String>,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let vault = find::vault(client, &vault).await?;
    let bound = names.iter().map(|name| find::bound(&vault, name));
    let resource_ids = bound.collect::<Result<Vec<_>, _>>()?;
    let request = RemoveVaultResourceRequest { resource_ids };
    let removed = client.remove_vault_resources(vault.id, &request).await?;
    let sentence = || format!("{} removed from vault {}\n", names.join(", "), vault.name);
    printer.print(&removed, sentence)
}

/// The resources of these ids or names that a vault of this type can take.
async fn resolve(
    client: &Client,
    object_type: ObjectType,
    names: &[String],
) -> Result<Vec<Resource>, Error> {
    let types = find::protectable_types(object_type);
    let mut resources = Vec::new();
    for name in names {
        let found = find::protectable(client, &types, name).await?;
        let name = Some(found.name);
        resources.push(Resource {
            id: found.id,
            resource_type: found.resource_type,
            name,
            extra_info: None,
        });
    }
    Ok(resources)
}

fn table(vaults: &[Vault]) -> String {
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "TYPE",
        "STATUS",
        ">SIZE",
        ">USED",
        ">ALLOCATED",
        ">RESOURCES",
    ]);
    for vault in vaults {
        let billing = &vault.billing;
        table.row([
            vault.id.to_string(),
            vault.name.clone(),
            billing.object_type.to_string(),
            billing.status.to_string(),
            gb(billing.size),
            mb(billing.used),
            gb(billing.allocated),
            vault.resources.len().to_string(),
        ]);
    }
    table.render()
}

fn show(vault: &Vault) -> String {
    let billing = &vault.billing;
    let mut text = pairs(&[
        ("id", vault.id.to_string()),
        ("name", vault.name.clone()),
        ("description", vault.description.clone().unwrap_or_default()),
        ("type", billing.object_type.to_string()),
        ("status", billing.status.to_string()),
        ("size", gb(billing.size)),
        ("used", mb(billing.used)),
        ("allocated", gb(billing.allocated)),
        ("consistency", billing.consistent_level.to_string()),
        ("threshold", format!("{} %", vault.threshold)),
        ("locked", vault.locked.to_string()),
        ("created", time(Some(vault.created_at))),
    ]);
    if !vault.resources.is_empty() {
        let mut table = Table::new(&[
            "RESOURCE", "NAME", "TYPE", "STATUS", ">SIZE", ">BACKUPS", ">USED",
        ]);
        for resource in &vault.resources {
            table.row([
                resource.id.to_string(),
                resource.name.clone(),
                resource.resource_type.to_string(),
                resource.protect_status.to_string(),
                gb(resource.size),
                resource.backup_count.to_string(),
                mb(resource.backup_size),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

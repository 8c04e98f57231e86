//! `cairn protectable`.

use cairn_api::protectable::{ListProtectableQuery, Protectable};
use cairn_api::{Client, ProtectableType};
use clap::Subcommand;

use crate::output::{Printer, gb};
use crate::table::Table;
use crate::{Error, find};

/// What can be asked about protectables.
#[derive(Debug, Clone, Subcommand)]
pub enum ProtectableCommand {
    /// List what can be protected, and by which vault it is.
    List {
        /// One type: server, disk, turbo, workspace, native; servers and disks if unset.
        #[arg(long = "type", value_parser = find::word::<ProtectableType>)]
        protectable_type: Option<ProtectableType>,
    },
}

/// Runs one of the commands.
pub(crate) async fn execute(
    command: ProtectableCommand,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let ProtectableCommand::List { protectable_type } = command;
    let types = match protectable_type {
        Some(one) => vec![one],
        None => vec![ProtectableType::Server, ProtectableType::Disk],
    };
    let mut all = Vec::new();
    for kind in types {
        all.extend(find::protectables(client, kind, ListProtectableQuery::default()).await?);
    }
    printer.print(&all, || table(&all))
}

fn table(protectables: &[Protectable]) -> String {
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "TYPE",
        "STATUS",
        ">SIZE",
        "VAULT",
        "PROTECTABLE",
    ]);
    for one in protectables {
        let result = &one.protectable;
        let verdict = if result.result {
            "yes".to_owned()
        } else {
            format!("no: {}", result.reason)
        };
        table.row([
            one.id.to_string(),
            one.name.clone(),
            one.resource_type.to_string(),
            one.status.clone().unwrap_or_default(),
            one.size.map(gb).unwrap_or_default(),
            result
                .vault
                .as_ref()
                .map(|vault| vault.name.clone())
                .unwrap_or_default(),
            verdict,
        ]);
    }
    table.render()
}

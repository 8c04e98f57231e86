//! `cairn verify`.

use cairn_api::Client;
use cairn_api::verification::{
    ListVerificationsQuery, NewVerification, StartVerificationRequest, Verification,
};
use cairn_types::{VerificationStatus, VerifyLevel};
use clap::{Args, Subcommand};

use crate::output::{Printer, time};
use crate::table::Table;
use crate::wait::{self, Waiting};
use crate::{Error, find};

/// What is looked at, and how closely: without a vault or a backup, all of the project.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Verify {
    #[command(subcommand)]
    command: Option<VerifyCommand>,
    /// Open and compare all data, rather than look whether it is stored as it was written.
    #[arg(long)]
    full: bool,
    /// The backups of a vault, by id or name.
    #[arg(long, conflicts_with = "backup")]
    vault: Option<String>,
    /// One backup, by id or name.
    #[arg(long)]
    backup: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

/// What can be done with what verifications found.
#[derive(Debug, Clone, Subcommand)]
pub enum VerifyCommand {
    /// List what is known of each backup that was looked at, the newest first.
    List(List),
}

/// Which results are listed.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Those of a vault, by id or name.
    #[arg(long)]
    vault: Option<String>,
    /// Those that found this.
    #[arg(long, value_parser = find::word::<VerificationStatus>)]
    status: Option<VerificationStatus>,
}

/// Runs the command.
pub(crate) async fn execute(
    verify: Verify,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let Some(VerifyCommand::List(list)) = verify.command else {
        return start(verify, client, printer).await;
    };
    let query = ListVerificationsQuery {
        vault_id: vault_id(client, list.vault.as_deref()).await?,
        status: list.status,
        ..Default::default()
    };
    let found = find::verifications(client, query).await?;
    printer.print(&found, || table(&found))
}

async fn vault_id(
    client: &Client,
    vault: Option<&str>,
) -> Result<Option<cairn_types::VaultId>, Error> {
    match vault {
        Some(vault) => Ok(Some(find::vault(client, vault).await?.id)),
        None => Ok(None),
    }
}

/// Starts a verification; where it is waited for, backups that are hurt are an error.
async fn start(verify: Verify, client: &Client, printer: &mut Printer) -> Result<(), Error> {
    let backup_id = match &verify.backup {
        Some(backup) => Some(find::backup(client, backup).await?.id),
        None => None,
    };
    let level = match verify.full {
        true => VerifyLevel::Full,
        false => VerifyLevel::Quick,
    };
    let request = StartVerificationRequest {
        verification: NewVerification {
            level,
            vault_id: vault_id(client, verify.vault.as_deref()).await?,
            backup_id,
        },
    };
    let begun = client.start_verification(&request).await?.verification;
    if !verify.waiting.wait {
        return printer.print(&begun, || {
            format!(
                "the verification waits for its turn: task {}\n",
                begun.operation_log_id
            )
        });
    }
    let log = wait::task(client, begun.operation_log_id, verify.waiting.timeout).await?;
    let query = ListVerificationsQuery {
        operation_log_id: Some(log.id),
        ..Default::default()
    };
    let mut found = find::verifications(client, query).await?;
    let looked_at = found.len();
    found.retain(|one| one.status == VerificationStatus::Hurt);
    printer.print(&found, || match found.is_empty() {
        true => format!("{looked_at} backups, none of them is hurt\n"),
        false => table(&found),
    })?;
    match found.len() {
        0 => Ok(()),
        hurt => Err(Error::Hurt { hurt, looked_at }),
    }
}

fn table(found: &[Verification]) -> String {
    let mut table = Table::new(&[
        "BACKUP", "NAME", "RESOURCE", "STATUS", "LEVEL", "WHEN", "LOST",
    ]);
    for one in found {
        table.row([
            one.backup_id.to_string(),
            one.backup_name.clone(),
            one.resource_name.clone(),
            one.status.to_string(),
            one.level.map(|level| level.to_string()).unwrap_or_default(),
            time(one.verified_at),
            lost(one),
        ]);
    }
    table.render()
}

/// What is lost, in a few words.
fn lost(one: &Verification) -> String {
    let Some(lost) = &one.lost else {
        return one.problem.clone().unwrap_or_default();
    };
    if lost.everything {
        return "everything".to_owned();
    }
    let counts = [
        (lost.bytes, "bytes"),
        (lost.ranges.len() as u64 + lost.ranges_left_out, "ranges"),
        (lost.disks.len() as u64 + lost.disks_left_out, "disks"),
        (lost.paths.len() as u64 + lost.paths_left_out, "paths"),
    ];
    let told = counts.iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> = told
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_types::{ByteRange, Lost};

    #[test]
    fn what_is_lost_is_told_in_a_few_words() {
        let body = r#"{ "backup_id": "0ca3eb86-8800-46da-9c37-9d657a825274", "backup_name": "b",
            "parent_id": null, "vault_id": "3b5816b5-f29c-4172-9d9a-76c719a659ce",
            "resource_id": "96f7512d-239d-3f31-80cf-d1ce041df9a6", "resource_name": "r",
            "status": "hurt", "level": "full", "verified_at": null, "quick_at": null,
            "full_at": null, "operation_log_id": null, "problem": "p", "lost": null }"#;
        let mut one: Verification = serde_json::from_str(body).unwrap();
        assert_eq!(lost(&one), "p");
        one.lost = Some(Lost::everything());
        assert_eq!(lost(&one), "everything");
        let range = ByteRange {
            offset: 0,
            length: 512,
        };
        one.lost = Some(Lost {
            bytes: 1024,
            ranges: vec![range],
            ranges_left_out: 1,
            ..Lost::default()
        });
        assert_eq!(lost(&one), "1024 bytes, 2 ranges");
    }
}

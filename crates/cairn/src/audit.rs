//! `cairn audit`: the trail of who asked for what.

use anyhow::{Context, Result, bail};
use cairn_audit::{Head, TrailKey};
use clap::Subcommand;

use crate::ServerArguments;
use crate::master_key;

/// What can be done with the audit trail.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Checks that no line of the trail was changed, added or removed, and
    /// prints its head. A running server is no hindrance.
    Verify {
        /// A head that an earlier check printed and that was kept elsewhere:
        /// only with one can it be seen that the newest lines were cut off.
        #[arg(long)]
        head: Option<Head>,
        #[command(flatten)]
        server: ServerArguments,
    },
}

/// Does it.
pub async fn run(command: AuditCommand) -> Result<()> {
    let AuditCommand::Verify { head, server } = command;
    let config = crate::config::load(&server)?;
    let folder = config.audit();
    if !folder.is_dir() {
        bail!("{} holds no audit trail", config.data_dir.display());
    }
    let store = config.repository.open_read_only().await;
    let store = store.context("the trail's key lies in the repository, which cannot be opened")?;
    let (repository, _) = master_key::open(store, &config.master_key_file()).await?;
    let key = TrailKey::new(&repository.root_key().audit_key());
    let verified = cairn_audit::verify(&folder, &key, head, drop)?;
    match verified.traces {
        0 => println!("The trail is empty."),
        traces => println!("{traces} traces, each as it was written."),
    }
    if verified.torn_end {
        println!("The last line was never finished, as after a power cut; nothing relied on it.");
    }
    println!("head {}", verified.head);
    Ok(())
}

//! `cairn repo verify` and `check`: what is damaged, with the keys and without any.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cairn_cli::Format;
use cairn_repo::{LocalStore, VerifyLevel, VerifyReport};
use cairn_types::{BackupId, ProjectId};

use super::{Place, counted, print_json, projects};

/// How often a verification looks before it takes what it finds for damage.
const LOOKS: usize = 3;
/// How long it leaves a running server to get on between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

type Reports = Vec<(ProjectId, VerifyReport)>;

pub async fn verify(place: &Place, full: bool, output: Format) -> Result<()> {
    let level = if full {
        VerifyLevel::Full
    } else {
        VerifyLevel::Quick
    };
    let reports = verify_until_sure(place, level).await?;
    match output {
        Format::Json => print_json(&reports.iter().map(report_row).collect())?,
        Format::Table => reports.iter().for_each(print_report),
    }
    let backups = reports.iter().map(|(_, report)| report.backups).sum();
    let backups = counted(backups, "backup");
    match problems(&reports).len() as u64 {
        0 if output == Format::Table => println!("{backups}, no problems"),
        0 => {}
        found => bail!("{} in {backups}", counted(found, "problem")),
    }
    Ok(())
}

/// Looks until there is no problem, or the same ones were found twice: a running
/// server takes packs away, and never the same ones again.
async fn verify_until_sure(place: &Place, level: VerifyLevel) -> Result<Reports> {
    let mut reports = verify_once(place, level).await?;
    for _ in 1..LOOKS {
        let found = problems(&reports);
        if found.is_empty() {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let again = verify_once(place, level).await?;
        let agreed = problems(&again) == found;
        reports = again;
        if agreed {
            break;
        }
    }
    Ok(reports)
}

/// One look, by a repository that remembers nothing of an earlier one.
async fn verify_once(place: &Place, level: VerifyLevel) -> Result<Reports> {
    let mut reports = Vec::new();
    for (id, project) in projects(&place.open_read_only().await?).await? {
        reports.push((id, project.verify(level, Arc::default()).await?));
    }
    Ok(reports)
}

/// Everything in the reports that should not be.
fn problems(reports: &Reports) -> Vec<String> {
    let problems = reports.iter().flat_map(|(_, report)| {
        let hurt = report
            .hurt
            .iter()
            .map(|hurt| format!("{} {}", hurt.backup, hurt.problem));
        hurt.chain(report.damaged.iter().cloned())
    });
    problems.collect()
}

fn print_report((project, report): &(ProjectId, VerifyReport)) {
    println!(
        "project {project}: {}, {}, {} read",
        counted(report.backups, "backup"),
        counted(report.packs, "pack"),
        counted(report.read_bytes, "byte"),
    );
    for hurt in &report.hurt {
        println!(
            "  backup {} cannot be restored: {}",
            hurt.backup, hurt.problem
        );
    }
    for object in &report.damaged {
        println!("  damaged: {object}");
    }
    for backup in &report.unacknowledged {
        println!("  unfinished, the next collection removes it: {backup}");
    }
}

fn report_row((project, report): &(ProjectId, VerifyReport)) -> serde_json::Value {
    let hurt = report.hurt.iter().map(
        |hurt| serde_json::json!({ "backup": hurt.backup.to_string(), "problem": hurt.problem }),
    );
    let unacknowledged = report.unacknowledged.iter().map(BackupId::to_string);
    serde_json::json!({
        "project": project.to_string(),
        "backups": report.backups,
        "packs": report.packs,
        "read_bytes": report.read_bytes,
        "hurt": hurt.collect::<Vec<_>>(),
        "damaged": report.damaged,
        "unacknowledged": unacknowledged.collect::<Vec<_>>(),
    })
}

pub async fn check(repository: &Path, output: Format) -> Result<()> {
    let store = LocalStore::open_read_only(repository);
    let store = store.with_context(|| format!("cannot open {}", repository.display()))?;
    let report = cairn_repo::check_whole(Arc::new(store), Arc::default()).await?;
    let objects = counted(report.objects, "object");
    match output {
        Format::Json => println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({
                "objects": report.objects,
                "read_bytes": report.read_bytes,
                "damaged": report.damaged,
            }))?
        ),
        Format::Table => {
            for object in &report.damaged {
                println!("damaged: {object}");
            }
        }
    }
    match report.damaged.len() as u64 {
        0 if output == Format::Table => println!("{objects}, each as it was written"),
        0 => {}
        found => bail!("{} in {objects}", counted(found, "damaged object")),
    }
    Ok(())
}

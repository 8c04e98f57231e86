//! `cairn backup download`: a whole backup, or a directory in it, as a file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cairn_api::Client;
use cairn_api::backup::Backup;
use cairn_api::download::DownloadBackupQuery;
use cairn_api::file::Written;
use cairn_types::{BackupId, DownloadFormat, FileProblems, ResourceType};
use clap::Args;
use serde::Serialize;

use crate::output::{Printer, bytes, whole_or};
use crate::part::Place;
use crate::transfer::{Transfer, Wish};
use crate::{Error, find};

/// What stands for standard output.
const STANDARD_OUTPUT: &str = "-";
/// What names of files end in that are neither raw nor qcow2 nor tar.
const OTHER_FORMATS: [&str; 14] = [
    "bz2", "gz", "iso", "ova", "qcow", "qed", "tgz", "vdi", "vhd", "vhdx", "vmdk", "xz", "zip",
    "zst",
];

/// A backup to download, and as what.
#[derive(Debug, Clone, Args)]
pub struct DownloadBackup {
    /// The backup, by id or name: a disk's, a share's, a host's, or a server's that has one disk.
    backup: String,
    /// raw or qcow2 for a disk, tar for files. Unless given, what the file's name ends in says it; else it is
    /// raw for a disk and tar for files.
    #[arg(long, value_parser = find::word::<DownloadFormat>)]
    format: Option<DownloadFormat>,
    /// As tar: this directory alone, as `cairn backup files` writes its path. Of a disk's backup it is
    /// read out of the file system there.
    #[arg(long)]
    path: Option<String>,
    /// Where it goes; - is standard output. What is there of it already, from a download that was
    /// interrupted, is not downloaded again.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// A file that was downloaded whole.
pub(crate) struct Saved {
    size_bytes: u64,
    /// Bytes that were there already.
    had_bytes: u64,
    /// What is not in it because it cannot be read.
    left_out: Option<FileProblems>,
}

/// What was downloaded.
#[derive(Debug, Serialize)]
struct Downloaded<'a> {
    backup_id: BackupId,
    format: DownloadFormat,
    path: Option<&'a str>,
    to: &'a Path,
    size_bytes: u64,
    /// Bytes that were there already.
    had_bytes: u64,
    left_out: Option<&'a FileProblems>,
}

/// Downloads a backup.
pub(crate) async fn download(
    wish: &DownloadBackup,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let backup = find::backup(client, &wish.backup).await?;
    let format = format(wish, &backup)?;
    let id = crate::export::disk_of(&backup)?;
    let wished = Wish {
        client,
        backup: id,
        query: DownloadBackupQuery {
            format: Some(format),
            path: wish.path.clone().map(Written),
            skip_holes: None,
        },
    };
    if wish.to == Path::new(STANDARD_OUTPUT) {
        let mut transfer = Transfer::begin(wished, None).await?;
        let mut out = io::stdout().lock();
        while let Some((_, piece)) = transfer.next().await? {
            out.write_all(piece.as_ref())?;
        }
        out.flush()?;
        return whole_or(transfer.left_out);
    }
    let saved = to_file(wished, &wish.to).await?;
    let done = Downloaded {
        backup_id: id,
        format,
        path: wish.path.as_deref(),
        to: &wish.to,
        size_bytes: saved.size_bytes,
        had_bytes: saved.had_bytes,
        left_out: saved.left_out.as_ref(),
    };
    printer.print(&done, || {
        let mut text = format!("{} is {}", wish.to.display(), bytes(done.size_bytes));
        if done.had_bytes > 0 {
            text.push_str(&format!(", {} of it had been there", bytes(done.had_bytes)));
        }
        text + "\n"
    })?;
    whole_or(saved.left_out)
}

/// Downloads to a file, which is there once it is whole; goes on with what an earlier call has left.
pub(crate) async fn to_file(mut wished: Wish<'_>, target: &Path) -> Result<Saved, Error> {
    // A file has holes of its own.
    let is_raw = wished.query.format == Some(DownloadFormat::Raw);
    wished.query.skip_holes = is_raw.then_some(true);
    let of = format!("{} {}", wished.backup, wished.query.write());
    let place = Place::new(target, &of)?;
    let found = place.find()?;
    let had = found
        .as_ref()
        .map(|found| (found.bytes, found.tag.as_str()));
    let mut transfer = Transfer::begin(wished, had.filter(|(bytes, _)| *bytes > 0)).await?;
    let part = place.open(&transfer.tag)?;
    let had_bytes = match found {
        Some(found) if found.tag != transfer.tag => {
            // It is a part of what is no more.
            found.remove()?;
            0
        }
        found => found.map_or(0, |found| found.bytes),
    };
    while let Some((offset, piece)) = transfer.next().await? {
        part.write(offset, piece.as_ref())?;
    }
    part.finish(transfer.size_bytes)?;
    Ok(Saved {
        size_bytes: transfer.size_bytes,
        had_bytes,
        left_out: transfer.left_out,
    })
}

/// How long a download will be.
pub(crate) async fn size_of(wished: Wish<'_>) -> Result<u64, Error> {
    Ok(Transfer::begin(wished, None).await?.size_bytes)
}

/// The format that is meant.
///
/// Errors: the file's name says one that there is not.
fn format(wish: &DownloadBackup, backup: &Backup) -> Result<DownloadFormat, Error> {
    if let Some(format) = wish.format {
        return Ok(format);
    }
    let end = wish.to.extension().and_then(|end| end.to_str());
    let told = match end.unwrap_or_default().to_ascii_lowercase().as_str() {
        "img" | "raw" => Some(DownloadFormat::Raw),
        "qcow2" => Some(DownloadFormat::Qcow2),
        "tar" => Some(DownloadFormat::Tar),
        other if OTHER_FORMATS.contains(&other) => {
            let why = format!(
                "a backup is not downloaded as {other}: name another file, or give --format"
            );
            return Err(Error::Usage(why));
        }
        _ => None,
    };
    let files = [ResourceType::Turbo, ResourceType::NativeServer];
    let usual = match wish.path.is_some() || files.contains(&backup.resource_type) {
        true => DownloadFormat::Tar,
        false => DownloadFormat::Raw,
    };
    Ok(told.unwrap_or(usual))
}

//! `cairn backup files` and `cairn backup fetch`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cairn_api::Client;
use cairn_api::backup::Backup;
use cairn_api::download::DownloadBackupQuery;
use cairn_api::file::{BackupFile, FetchBackupFileQuery, ListBackupFilesQuery, MAX_FILES, Written};
use cairn_types::{BackupId, DownloadFormat};
use clap::Args;

use crate::output::{Printer, bytes, whole_or};
use crate::part::Place;
use crate::table::Table;
use crate::transfer::{Transfer, Wish};
use crate::{Error, find, unpack};

/// Bytes that are asked for at a time.
const PIECE_BYTES: u64 = 4 << 20;
/// What stands for standard output.
const STANDARD_OUTPUT: &str = "-";
/// The tag of the one part that a file has: what it is of its backup never changes.
const TAG: &str = "file";

/// A directory in a backup.
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// The backup, by id or name: a disk's, a share's, a host's, or a server's that has one disk.
    backup: String,
    /// The directory, or a file; the uppermost directory if unset. On a disk with partitions it
    /// begins with one, as /p2/etc.
    #[arg(default_value = "/")]
    path: String,
}

/// A file or a directory in a backup.
#[derive(Debug, Clone, Args)]
pub struct Fetch {
    /// The backup, by id or name: a disk's, a share's, a host's, or a server's that has one disk.
    backup: String,
    /// The file or the directory, as `cairn backup files` writes its path.
    path: String,
    /// Where it goes; a file to standard output if unset. What is there of it already, from a fetch that was
    /// interrupted, is not fetched again. For a directory it is one that is made, or is empty.
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
}

/// Lists a directory, all of it.
pub(crate) async fn list(
    wish: &Files,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let backup = content_of(&find::backup(client, &wish.backup).await?)?;
    let mut query = ListBackupFilesQuery {
        path: Some(Written(wish.path.clone())),
        limit: Some(MAX_FILES),
        marker: None,
    };
    let (mut files, mut notes) = (Vec::new(), Vec::new());
    loop {
        let page = client.list_backup_files(backup, &query).await?;
        if page.entry.kind != "directory" {
            files.push(page.entry);
        }
        files.extend(page.files);
        notes.extend(page.notes);
        query.marker = page.next_marker.map(Written);
        if query.marker.is_none() {
            break;
        }
    }
    notes.dedup();
    for note in notes {
        eprintln!("note: {note}");
    }
    printer.print(&files, || table(&files))
}

fn table(files: &[BackupFile]) -> String {
    let mut table = Table::new(&["TYPE", "MODE", "OWNER", "SIZE", "MODIFIED", "PATH"]);
    for file in files {
        let modified = file.modified_at.as_deref().unwrap_or_default();
        let modified = modified.get(..19).unwrap_or(modified).replace('T', " ");
        let path = match (&file.target, &file.partition) {
            (Some(target), _) => format!("{} -> {target}", file.path),
            (None, Some(found)) => {
                let label = found.label.as_deref().unwrap_or_default();
                format!("{} ({} {label})", file.path, found.content)
            }
            (None, None) => file.path.clone(),
        };
        table.row([
            file.kind.clone(),
            file.mode.clone(),
            format!("{}:{}", file.uid, file.gid),
            bytes(file.size_bytes),
            modified,
            path,
        ]);
    }
    table.render()
}

/// The backup whose content is meant: a server's one disk.
fn content_of(backup: &Backup) -> Result<BackupId, Error> {
    crate::export::disk_of(backup)
}

/// Fetches a file, piece by piece.
pub(crate) async fn fetch(
    wish: &Fetch,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let backup = content_of(&find::backup(client, &wish.backup).await?)?;
    let query = ListBackupFilesQuery {
        path: Some(Written(wish.path.clone())),
        limit: Some(1),
        marker: None,
    };
    let found = client.list_backup_files(backup, &query).await?;
    for note in &found.notes {
        eprintln!("note: {note}");
    }
    if found.entry.kind == "directory" {
        return directory(wish, (client, backup), printer).await;
    }
    if found.entry.kind != "file" {
        let (path, kind) = (&wish.path, &found.entry.kind);
        return Err(Error::Usage(format!("{path} is no file but a {kind}")));
    }
    let size = found.entry.size_bytes;
    let query = FetchBackupFileQuery {
        path: Some(Written(wish.path.clone())),
    };
    let target = wish
        .to
        .as_deref()
        .filter(|path| *path != Path::new(STANDARD_OUTPUT));
    let Some(target) = target else {
        let mut out = io::stdout().lock();
        let of = (client, backup, &query);
        pieces(of, 0..size, |_, piece| Ok(out.write_all(piece)?)).await?;
        return Ok(out.flush()?);
    };
    let place = Place::new(target, &format!("{backup} {}", wish.path))?;
    let part = place.open(TAG)?;
    let had = part.had_bytes()?.min(size);
    let of = (client, backup, &query);
    pieces(of, had..size, |at, piece| part.write(at, piece)).await?;
    part.finish(size)?;
    printer.say(&format!("{} is {}", target.display(), bytes(size)))
}

/// Fetches a directory with all that is in it.
async fn directory(
    wish: &Fetch,
    (client, backup): (&Client, BackupId),
    printer: &mut Printer,
) -> Result<(), Error> {
    let missing = || Error::Usage("a directory goes to a directory: give one by --to".to_owned());
    let target = wish.to.as_deref().ok_or_else(missing)?;
    let query = DownloadBackupQuery {
        format: Some(DownloadFormat::Tar),
        path: Some(Written(wish.path.clone())),
        skip_holes: None,
    };
    let wished = Wish {
        client,
        backup,
        query,
    };
    let transfer = Transfer::begin(wished, None).await?;
    let done = unpack::unpack(transfer, target).await?;
    for (count, what) in [
        (
            done.refused.owners,
            "entries belong to you: their owner cannot be set",
        ),
        (done.refused.xattrs, "extended attributes cannot be set"),
        (done.refused.devices, "devices cannot be made"),
    ] {
        if count > 0 {
            eprintln!("note: {count} {what}");
        }
    }
    printer.print(&done, || {
        let (target, size) = (target.display(), bytes(done.size_bytes));
        format!(
            "{target} has {} files, {size}, in {} directories\n",
            done.files, done.directories
        )
    })?;
    whole_or(done.left_out)
}

async fn pieces(
    (client, backup, query): (&Client, BackupId, &FetchBackupFileQuery),
    wanted: std::ops::Range<u64>,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut at = wanted.start;
    while at < wanted.end {
        let last = (at + PIECE_BYTES).min(wanted.end) - 1;
        let piece = client.fetch_backup_file(backup, query, (at, last)).await?;
        if piece.len() as u64 != last + 1 - at {
            return Err(Error::Connection(io::ErrorKind::UnexpectedEof.into()));
        }
        take(at, &piece)?;
        at = last + 1;
    }
    Ok(())
}

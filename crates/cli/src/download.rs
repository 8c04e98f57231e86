//! `cairn backup download`: a whole backup, or a directory in it, as a file.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cairn_api::Client;
use cairn_api::backup::Backup;
use cairn_api::download::DownloadBackupQuery;
use cairn_api::file::Written;
use cairn_types::{BackupId, DownloadFormat, ResourceType};
use clap::Args;
use serde::Serialize;

use crate::output::{Printer, bytes};
use crate::transfer::{Transfer, Wish};
use crate::{Error, find};

/// What stands for standard output.
const STANDARD_OUTPUT: &str = "-";
/// A run of so many zeros, from a multiple of it on, is not written: it is a hole.
const HOLE_BYTES: usize = 4096;
/// What names of files end in that are neither raw nor qcow2 nor tar.
const OTHER_FORMATS: [&str; 14] = [
    "bz2", "gz", "iso", "ova", "qcow", "qed", "tgz", "vdi", "vhd", "vhdx", "vmdk", "xz", "zip",
    "zst",
];
/// What the name of a file ends in that is not whole yet.
const PART: &str = ".part";

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
        return Ok(out.flush()?);
    }
    let saved = to_file(wished, &wish.to).await?;
    let done = Downloaded {
        backup_id: id,
        format,
        path: wish.path.as_deref(),
        to: &wish.to,
        size_bytes: saved.size_bytes,
        had_bytes: saved.had_bytes,
    };
    printer.print(&done, || {
        let mut text = format!("{} is {}", wish.to.display(), bytes(done.size_bytes));
        if done.had_bytes > 0 {
            text.push_str(&format!(", {} of it had been there", bytes(done.had_bytes)));
        }
        text + "\n"
    })
}

/// Downloads to a file, which is there once it is whole; goes on with what an earlier call has left.
pub(crate) async fn to_file(mut wished: Wish<'_>, target: &Path) -> Result<Saved, Error> {
    // A file has holes of its own.
    let is_raw = wished.query.format == Some(DownloadFormat::Raw);
    wished.query.skip_holes = is_raw.then_some(true);
    let place = Place::new(target, &wished)?;
    let found = place.find()?;
    let had = found
        .as_ref()
        .map(|found| (found.bytes, found.tag.as_str()));
    let mut transfer = Transfer::begin(wished, had.filter(|(bytes, _)| *bytes > 0)).await?;
    let part = place.open(&transfer.tag)?;
    let had_bytes = match found {
        Some(found) if found.tag != transfer.tag => {
            // It is a part of what is no more.
            std::fs::remove_file(found.path)?;
            0
        }
        found => found.map_or(0, |found| found.bytes),
    };
    while let Some((offset, piece)) = transfer.next().await? {
        part.write(offset, piece.as_ref())?;
    }
    part.finish(transfer.size_bytes, target)?;
    Ok(Saved {
        size_bytes: transfer.size_bytes,
        had_bytes,
    })
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

/// Where the parts of a download are kept until it is whole: beside the file, under names that say
/// what they are parts of.
struct Place {
    folder: PathBuf,
    /// What their names begin with.
    start: OsString,
}

/// A part that was found.
struct Found {
    path: PathBuf,
    tag: String,
    bytes: u64,
}

impl Place {
    fn new(target: &Path, wish: &Wish<'_>) -> Result<Self, Error> {
        let name = target.file_name().filter(|_| !target.is_dir());
        let name = name.ok_or_else(|| Error::Usage(format!("{} is no file", target.display())))?;
        let told = format!("{} {}", wish.backup, wish.query.write());
        let mut start = name.to_owned();
        start.push(format!(".{:016x}-", number(told.as_bytes())));
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        Ok(Self {
            folder: folder.unwrap_or(Path::new(".")).to_owned(),
            start,
        })
    }

    /// The longest part that is there.
    fn find(&self) -> io::Result<Option<Found>> {
        let mut longest: Option<Found> = None;
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let rest = name
                .as_encoded_bytes()
                .strip_prefix(self.start.as_encoded_bytes());
            let Some(tag) = rest.and_then(|rest| rest.strip_suffix(PART.as_bytes())) else {
                continue;
            };
            let bytes = entry.metadata()?.len();
            if longest.as_ref().is_none_or(|longest| longest.bytes < bytes) {
                let tag = String::from_utf8_lossy(tag);
                longest = Some(Found {
                    path: entry.path(),
                    tag: format!("\"{tag}\""),
                    bytes,
                });
            }
        }
        Ok(longest)
    }

    /// Opens the part with a tag, or makes it. One that another command is at work on is not opened.
    fn open(&self, tag: &str) -> Result<Part, Error> {
        let tag = tag.trim_matches('"');
        // It becomes a part of a name.
        if tag.is_empty() || !tag.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::OtherBytes);
        }
        let mut name = self.start.clone();
        name.push(tag);
        name.push(PART);
        let path = self.folder.join(name);
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        file.try_lock().map_err(|_| {
            let path = path.display();
            Error::Usage(format!("another download is at work on {path}"))
        })?;
        Ok(Part { path, file })
    }
}

/// A file that is filled until it is whole. What lies before its end is right.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// Writes what comes next, and leaves out what is zero.
    fn write(&self, offset: u64, piece: &[u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, piece);
        while !rest.is_empty() {
            let to_border = HOLE_BYTES - (at % HOLE_BYTES as u64) as usize;
            let (now, later) = rest.split_at(to_border.min(rest.len()));
            if now.iter().any(|byte| *byte != 0) {
                let run = data_run(rest, to_border);
                self.file.write_all_at(&rest[..run], at)?;
                at += run as u64;
                rest = &rest[run..];
            } else {
                at += now.len() as u64;
                rest = later;
            }
        }
        // What is left out counts as there.
        match self.file.metadata()?.len() < at {
            true => self.file.set_len(at),
            false => Ok(()),
        }
    }

    /// Gives it its length, makes it durable and puts it in its place.
    fn finish(self, size_bytes: u64, target: &Path) -> io::Result<()> {
        self.file.set_len(size_bytes)?;
        self.file.sync_all()?;
        std::fs::rename(&self.path, target)?;
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// How far it is to the next block of zeros; `to_border` is where the first block ends.
fn data_run(bytes: &[u8], to_border: usize) -> usize {
    let mut end = to_border.min(bytes.len());
    while end < bytes.len() {
        let block = &bytes[end..bytes.len().min(end + HOLE_BYTES)];
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        end += block.len();
    }
    end
}

/// A number that the same bytes have for ever: FNV-1a.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_pieces_is_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut whole = vec![0; 100_000];
        whole[10_000..30_000].fill(7);
        whole[70_001] = 1;
        for length in [1_usize, 100, 4096, 5000, 100_000] {
            let path = folder.path().join("part");
            let file = File::create(&path).unwrap();
            let part = Part { path, file };
            let mut at = 0;
            for piece in whole.chunks(length) {
                part.write(at, piece).unwrap();
                at += piece.len() as u64;
                assert_eq!(part.file.metadata().unwrap().len(), at, "{length}");
            }
            let target = folder.path().join("whole");
            part.finish(whole.len() as u64, &target).unwrap();
            assert!(std::fs::read(&target).unwrap() == whole, "{length}");
        }
    }
}

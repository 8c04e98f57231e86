//! Files out of backups: listed and read where they lie, without restoring anything.
//!
//! The backup of a disk is looked into by `cairn_filesystem`, that of a share by
//! the repository itself. Nothing stays open between two calls.

use std::io;
use std::sync::Arc;

use cairn_filesystem::{FileSystem, Layout, Log, Partition, Scheme};
use cairn_meta::Backup;
use cairn_repo::StoredBackup;
use cairn_types::disk::DiskReader;
use cairn_types::tree::{
    DirectoryReader, EntryKind, FileReader, FileTime, Metadata, TreeReader, is_name,
};
use cairn_types::{BackupId, Kind, ResourceType};

use crate::export::readable;
use crate::{Caller, Error, Refusal, Result, Service};

/// Entries of a directory that one call tells.
pub const FILES_MAX: usize = 1000;
/// Notes beside a list.
const NOTES_MAX: usize = 16;
/// What is said where a log could not be replayed.
const UNCLEAN: &str = "The file system was in use and its log could not be replayed: \
                       what was changed last before the backup may be missing.";

/// An entry of a directory in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFile {
    /// Its name; empty for the uppermost directory.
    pub name: Vec<u8>,
    /// What the file system says of it.
    pub metadata: Metadata,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// What is in a partition, where this is one.
    pub partition: Option<FoundPartition>,
}

/// What is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPartition {
    /// What sort of content, such as `ext4`.
    pub content: &'static str,
    /// Its label.
    pub label: Option<String>,
}

/// A directory in a backup, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileList {
    /// What was asked about.
    pub entry: BackupFile,
    /// What is in it, by the bytes of the names; nothing, if it is no directory.
    pub entries: Vec<BackupFile>,
    /// The name to go on behind; nothing at the end.
    pub next: Option<Vec<u8>>,
    /// What whoever reads this should know, in sentences.
    pub notes: Vec<String>,
}

/// A file in a backup, open for reading from any thread. Blocks.
pub struct OpenFile {
    /// How long it is.
    pub size_bytes: u64,
    content: Content,
}

enum Content {
    OnDisk(cairn_filesystem::File),
    InTree(Arc<dyn FileReader>),
}

impl OpenFile {
    /// Reads into `buffer`, all of it unless the file ends before.
    ///
    /// Errors: `Corrupt` what is stored, or what the guest's file system says, is damaged.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match &self.content {
            Content::OnDisk(file) => Ok(file.read_at(offset, buffer)?),
            Content::InTree(file) => file.read_at(offset, buffer).map_err(unreadable),
        }
    }
}

/// A backup that is looked into.
pub(crate) enum Opened {
    Disk(Arc<dyn DiskReader>),
    Tree(Arc<dyn TreeReader>),
}

impl Service {
    /// A directory or a file in a backup: of a disk, of a server that has one disk, or of a
    /// share. At most [`FILES_MAX`] entries, behind the name `after`.
    ///
    /// Errors: `NotFound` backup or path; `Invalid` no file system that is read, or no
    /// path; `Corrupt` damage.
    pub async fn backup_files(
        &self,
        caller: &Caller,
        backup: BackupId,
        path: Vec<u8>,
        (after, limit): (Option<Vec<u8>>, usize),
    ) -> Result<FileList> {
        let opened = self.open_content(caller, backup).await?;
        let limit = limit.clamp(1, FILES_MAX);
        blocking(move || match opened {
            Opened::Disk(disk) => list_disk(&disk, &path, after.as_deref(), limit),
            Opened::Tree(tree) => list_tree(tree.as_ref(), &path, after.as_deref(), limit),
        })
        .await
    }

    /// A file in a backup.
    ///
    /// Errors: as [`backup_files`](Self::backup_files), and `Invalid` it is no file.
    pub async fn open_backup_file(
        &self,
        caller: &Caller,
        backup: BackupId,
        path: Vec<u8>,
    ) -> Result<OpenFile> {
        let opened = self.open_content(caller, backup).await?;
        blocking(move || match opened {
            Opened::Disk(disk) => {
                let layout = Layout::read(&disk)?;
                let (partition, rest) = layout.locate(&path)?;
                let file = open_partition(&disk, partition)?.file(rest)?;
                Ok(OpenFile {
                    size_bytes: file.size_bytes(),
                    content: Content::OnDisk(file),
                })
            }
            Opened::Tree(tree) => {
                let (folder, name) = parent(tree.as_ref(), &path)?;
                let name = name.ok_or(not_a_file(&path))?;
                if folder.metadata_of(name).map_err(missing)?.kind != EntryKind::File {
                    return Err(not_a_file(&path).into());
                }
                let file = folder.file(name).map_err(unreadable)?;
                Ok(OpenFile {
                    size_bytes: file.metadata().map_err(unreadable)?.size_bytes,
                    content: Content::InTree(file),
                })
            }
        })
        .await
    }

    async fn open_content(&self, caller: &Caller, backup: BackupId) -> Result<Opened> {
        let (found, stored) = self.find_content(caller, backup).await?;
        Opened::of(&found, &stored).await
    }

    /// The backup that has the content, which for a server is that of its one disk; and where it is stored.
    pub(crate) async fn find_content(
        &self,
        caller: &Caller,
        backup: BackupId,
    ) -> Result<(Backup, StoredBackup)> {
        let mut tx = self.meta().read().await?;
        let mut found = readable(&mut tx, caller.project, backup).await?;
        if !matches!(
            found.resource_type,
            ResourceType::Volume | ResourceType::Turbo | ResourceType::NativeServer
        ) {
            found = only_disk(tx.children_of(&[backup]).await?)?;
        }
        drop(tx);
        let project = self.repository().existing_project(found.project).await?;
        let stored = project
            .open_backup(found.parent.unwrap_or(found.id))
            .await?;
        Ok((found, stored))
    }
}

impl Opened {
    /// Opens a backup that [`Service::find_content`] found.
    pub(crate) async fn of(found: &Backup, stored: &StoredBackup) -> Result<Self> {
        Ok(match found.resource_type {
            ResourceType::Turbo | ResourceType::NativeServer => {
                Self::Tree(stored.open_tree(found.id).await?)
            }
            _ => Self::Disk(stored.open_disk(found.id).await?),
        })
    }
}

fn only_disk(disks: Vec<Backup>) -> std::result::Result<Backup, Refusal> {
    let [disk]: [Backup; 1] = disks.try_into().map_err(|_| Refusal::ServerHasDisks)?;
    Ok(disk)
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::Panicked { what: "a reader" })?
}

pub(crate) fn open_partition(
    disk: &Arc<dyn DiskReader>,
    partition: &Partition,
) -> Result<FileSystem> {
    Ok(FileSystem::open(Arc::clone(disk), partition.range.clone())?)
}

fn list_disk(
    disk: &Arc<dyn DiskReader>,
    path: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<FileList> {
    let layout = Layout::read(disk)?;
    if layout.scheme != Scheme::Whole && path.iter().all(|byte| *byte == b'/') {
        return Ok(list_partitions(&layout, disk.size_bytes(), after));
    }
    let (partition, rest) = layout.locate(path)?;
    let files = open_partition(disk, partition)?;
    let notes = match files.log() {
        Log::Clean | Log::Replayed => Vec::new(),
        Log::Dirty => vec![UNCLEAN.to_owned()],
    };
    let entry = file_of(&files, rest, files.entry(rest)?)?;
    let mut list = FileList {
        entry,
        entries: Vec::new(),
        next: None,
        notes,
    };
    if list.entry.metadata.kind != EntryKind::Directory {
        return Ok(list);
    }
    let page = files.list(rest, after, limit)?;
    for entry in page.entries {
        let path = [rest, b"/", &entry.name].concat();
        let name = entry.name.clone();
        match file_of(&files, &path, entry) {
            Ok(file) => list.entries.push(file),
            // A link that does not tell where it points.
            Err(Error::Refused(why)) => list.note_unreadable(&name, why),
            Err(error) => return Err(error),
        }
    }
    for one in page.unreadable {
        list.note_unreadable(&one.name, one.error);
    }
    list.next = page.next;
    Ok(list)
}

impl FileList {
    fn note_unreadable(&mut self, name: &[u8], why: impl std::fmt::Display) {
        if self.notes.len() < NOTES_MAX {
            let name = String::from_utf8_lossy(name).into_owned();
            self.notes.push(format!("{name:?} cannot be read: {why}"));
        }
    }
}

fn file_of(files: &FileSystem, path: &[u8], entry: cairn_filesystem::Entry) -> Result<BackupFile> {
    let target = match entry.metadata.kind {
        EntryKind::Symlink => Some(files.read_link(path)?),
        _ => None,
    };
    Ok(BackupFile {
        name: entry.name,
        metadata: entry.metadata,
        target,
        partition: None,
    })
}

/// The partitions of a disk as the entries of its uppermost directory.
fn list_partitions(layout: &Layout, size_bytes: u64, after: Option<&[u8]>) -> FileList {
    let folder = |kind, size_bytes| Metadata {
        kind,
        mode: 0o555,
        uid: 0,
        gid: 0,
        size_bytes,
        modified: FileTime::default(),
        changed: FileTime::default(),
        inode: 0,
        linked: false,
        device: (0, 0),
    };
    let entries = layout.partitions.iter().map(|partition| {
        let found = &partition.found;
        let kind = match found.content.is_readable() {
            true => EntryKind::Directory,
            false => EntryKind::BlockDevice,
        };
        let bytes = partition.range.end - partition.range.start;
        BackupFile {
            name: format!("p{}", partition.number).into_bytes(),
            metadata: folder(kind, bytes),
            target: None,
            partition: Some(FoundPartition {
                content: found.content.name(),
                label: found.label.clone().or(partition.name.clone()),
            }),
        }
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by(|one, two| one.name.cmp(&two.name));
    entries.retain(|entry| after.is_none_or(|after| entry.name.as_slice() > after));
    FileList {
        entry: BackupFile {
            name: Vec::new(),
            metadata: folder(EntryKind::Directory, size_bytes),
            target: None,
            partition: None,
        },
        entries,
        next: None,
        notes: Vec::new(),
    }
}

fn not_a_file(path: &[u8]) -> Refusal {
    let path = String::from_utf8_lossy(path).into_owned();
    Refusal::UnreadableFile {
        why: format!("{path:?} is no file"),
    }
}

/// An error of a stored tree at a place that a user named.
pub(crate) fn missing(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => Refusal::FileNotFound.into(),
        _ => unreadable(error),
    }
}

/// An error of a stored tree, or of a file on a disk.
pub(crate) fn unreadable(error: io::Error) -> Error {
    let error = match error.downcast::<cairn_repo::Error>() {
        Ok(error) => return error.into(),
        Err(error) => error,
    };
    match error.downcast::<cairn_filesystem::Error>() {
        Ok(error) => error.into(),
        Err(error) => Refusal::UnreadableFile {
            why: error.to_string(),
        }
        .into(),
    }
}

/// A directory, and a name in it; none for the tree's own.
type Place<'p> = (Arc<dyn DirectoryReader>, Option<&'p [u8]>);

/// What is at a path of a stored tree.
///
/// Errors: `NotFound` nothing is.
pub(crate) fn kind(tree: &dyn TreeReader, path: &[u8]) -> Result<EntryKind> {
    Ok(match parent(tree, path)? {
        (folder, Some(name)) => folder.metadata_of(name).map_err(missing)?.kind,
        (_, None) => EntryKind::Directory,
    })
}

/// The directory at a path of a stored tree.
pub(crate) fn directory(tree: &dyn TreeReader, path: &[u8]) -> Result<Arc<dyn DirectoryReader>> {
    let (folder, name) = parent(tree, path)?;
    let Some(name) = name else { return Ok(folder) };
    if folder.metadata_of(name).map_err(missing)?.kind != EntryKind::Directory {
        let path = String::from_utf8_lossy(path).into_owned();
        let why = format!("{path:?} is no directory");
        return Err(Refusal::UnreadableFile { why }.into());
    }
    folder.directory(name).map_err(missing)
}

/// The directory that a path's last name is in, and that name.
fn parent<'p>(tree: &dyn TreeReader, path: &'p [u8]) -> Result<Place<'p>> {
    let names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .collect();
    if names.iter().any(|name| !is_name(name)) {
        return Err(Refusal::FileNotFound.into());
    }
    let mut folder = tree.root().map_err(unreadable)?;
    let Some((last, before)) = names.split_last() else {
        return Ok((folder, None));
    };
    for name in before {
        folder = folder.directory(name).map_err(missing)?;
    }
    Ok((folder, Some(last)))
}

fn list_tree(
    tree: &dyn TreeReader,
    path: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<FileList> {
    let (mut folder, name) = parent(tree, path)?;
    let entry = match name {
        Some(name) => stored_file(folder.as_ref(), name)?,
        None => BackupFile {
            name: Vec::new(),
            metadata: folder.metadata().map_err(unreadable)?,
            target: None,
            partition: None,
        },
    };
    let mut list = FileList {
        entry,
        entries: Vec::new(),
        next: None,
        notes: Vec::new(),
    };
    if list.entry.metadata.kind != EntryKind::Directory {
        return Ok(list);
    }
    if let Some(name) = name {
        folder = folder.directory(name).map_err(missing)?;
    }
    let names = folder.names().map_err(unreadable)?;
    let mut names = names
        .iter()
        .filter(|name| after.is_none_or(|after| *name > after));
    for name in names.by_ref().take(limit) {
        list.entries.push(stored_file(folder.as_ref(), name)?);
    }
    if names.next().is_some() {
        list.next = list.entries.last().map(|entry| entry.name.clone());
    }
    Ok(list)
}

fn stored_file(folder: &dyn DirectoryReader, name: &[u8]) -> Result<BackupFile> {
    let metadata = folder.metadata_of(name).map_err(missing)?;
    let target = match metadata.kind {
        EntryKind::Symlink => Some(folder.link_target(name).map_err(unreadable)?),
        _ => None,
    };
    Ok(BackupFile {
        name: name.to_vec(),
        metadata,
        target,
        partition: None,
    })
}

impl From<cairn_filesystem::Error> for Error {
    fn from(error: cairn_filesystem::Error) -> Self {
        match error.kind() {
            Kind::NotFound => Refusal::FileNotFound.into(),
            Kind::Invalid | Kind::Corrupt | Kind::Exhausted => Refusal::UnreadableFile {
                why: error.to_string(),
            }
            .into(),
            _ => Self::Files(error),
        }
    }
}

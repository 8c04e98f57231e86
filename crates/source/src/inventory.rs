//! What the configured folders hold, and how it is opened.

use std::sync::Arc;

use cairn_types::disk::{DiskReader, DiskWriter};
use cairn_types::{ResourceId, ResourceType};

use crate::change_map::reflink;
use crate::config::{self, ImagesConfig, ServerConfig, ShareConfig, SourceConfig, volume_name};
use crate::folder::Folder;
use crate::lock::Access;
use crate::protectable::{
    ImageFormat, Protectable, ProtectableStatus, server_id, share_id, volume_id,
};
use crate::qcow2::{self, Qcow2Disk};
use crate::raw::{self, RawDisk};
use crate::scan::{self, Found};
use crate::{Error, Result};

/// The configured folders. It remembers nothing of what they hold: every call
/// looks, so an image that was just copied there can be protected at once.
#[derive(Debug, Clone)]
pub struct Inventory {
    sources: Arc<Vec<SourceConfig>>,
}

impl Inventory {
    /// Takes the configured sources.
    ///
    /// Errors: `Invalid` names that repeat, folders that overlap, servers
    /// without disks or with disks that cannot be below their folder, patterns that are none.
    pub fn new(sources: Vec<SourceConfig>) -> Result<Self> {
        config::check(&sources)?;
        Ok(Self {
            sources: Arc::new(sources),
        })
    }

    /// Every volume, every server and every share, by source and name. A server holds its
    /// volumes as children, and a configured disk without a file is among them
    /// as `Missing`; volumes are listed for themselves as well.
    ///
    /// Errors: `Denied`, `Transient` a folder cannot be listed; `Exhausted`
    /// more than [`MAX_VOLUMES`](crate::MAX_VOLUMES) images in one.
    pub fn list(&self) -> Result<Vec<Protectable>> {
        let mut all = Vec::new();
        for source in self.sources.iter() {
            all.extend(list_one(source)?);
        }
        Ok(all)
    }

    /// As [`list`](Self::list), of the sources that can be listed, with why the others cannot.
    pub fn list_readable(&self) -> (Vec<Protectable>, Vec<Error>) {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for source in self.sources.iter() {
            match list_one(source) {
                Ok(listed) => all.extend(listed),
                Err(error) => errors.push(error),
            }
        }
        (all, errors)
    }

    /// The volume, server or share with this id.
    ///
    /// Errors: `NotFound`, and those of [`list`](Self::list).
    pub fn find(&self, id: ResourceId) -> Result<Protectable> {
        let all = self.list()?;
        let children = all.iter().flat_map(|protectable| &protectable.children);
        let found = all
            .iter()
            .chain(children)
            .find(|protectable| protectable.id == id);
        found.cloned().ok_or(Error::NotFound { id })
    }

    /// Opens a volume at one point in time, for a backup: until the reader is
    /// dropped, no QEMU can open the image for writing, unless a reflink of
    /// it is read.
    ///
    /// Errors: `NotFound` no such volume, or its file is missing; `Conflict`
    /// somebody has it open for writing; `Invalid` a server, or no image.
    pub fn open_reader(&self, volume: ResourceId) -> Result<Arc<dyn DiskReader>> {
        let (source, name, format) = self.locate(volume)?;
        let path = source.path.join(&name);
        match format {
            ImageFormat::Raw => {
                let disk = RawDisk::open(&name, &path, Access::Read)?;
                self.remove_orphans(source);
                Ok(Arc::new(disk.with_change_map(source, volume, &path)?))
            }
            ImageFormat::Qcow2 => {
                let disk = Qcow2Disk::open_for_backup(&name, &path, source.bitmaps)?;
                Ok(Arc::new(disk))
            }
        }
    }

    /// Opens a volume to be overwritten in place: until the writer is
    /// dropped, nobody else can open the image. An image that is larger than
    /// `size_bytes` is cut to that size: a disk that has grown since its backup
    /// is to be as it was. A block device keeps its size.
    ///
    /// Errors: as [`open_reader`](Self::open_reader), and `Conflict` if
    /// anybody has it open; `Denied` it may not be written.
    pub fn open_writer(&self, volume: ResourceId, size_bytes: u64) -> Result<Arc<dyn DiskWriter>> {
        let (source, name, format) = self.locate(volume)?;
        let path = source.path.join(&name);
        match format {
            ImageFormat::Raw => {
                let mut disk = RawDisk::open(&name, &path, Access::Write)?;
                disk.shrink_to(size_bytes)?;
                Ok(Arc::new(disk))
            }
            ImageFormat::Qcow2 => {
                qcow2::shrink(&name, &path, size_bytes)?;
                Ok(Arc::new(Qcow2Disk::open(&name, &path, Access::Write)?))
            }
        }
    }

    /// Whether a volume could be overwritten now.
    ///
    /// Errors: as [`open_writer`](Self::open_writer).
    pub fn check_writable(&self, volume: ResourceId) -> Result<()> {
        let (source, name, _) = self.locate(volume)?;
        // Whatever the format, locks and permissions are the file's.
        raw::open_locked(&name, &source.path.join(&name), Access::Write).map(drop)
    }

    /// Removes what was kept to tell changes of images that are not there any more.
    fn remove_orphans(&self, source: &ImagesConfig) {
        let done = self.list().map(|all| {
            let volumes = all.iter().map(|protectable| protectable.id).collect();
            reflink::remove_orphans(&source.path, &volumes)
        });
        if let Ok(Err(error)) = done {
            tracing::warn!(%error, source = source.name, "a reflink of a lost image stays");
        }
    }

    /// Opens a share.
    ///
    /// Errors: `NotFound` no such share, or its folder is missing; `Invalid` it
    /// is no share; `Denied`.
    pub fn open_share(&self, id: ResourceId) -> Result<Folder> {
        let shares = self.sources.iter().filter_map(|source| match source {
            SourceConfig::Share(share) => Some(share),
            SourceConfig::Images(_) => None,
        });
        let mut shares = shares.filter(|share| share_id(&share.name) == id);
        let Some(share) = shares.next() else {
            let name = self.find(id)?.name;
            return Err(Error::NotAShare { name });
        };
        let opened = Folder::open(&share.path, share.options()?);
        opened.map_err(|source| Error::OpenShare {
            share: share.name.clone(),
            source,
        })
    }

    /// Opens a folder of a share to be restored into; what of it is missing is
    /// made. `folder` is a path below the share, empty for the share itself.
    ///
    /// Errors: as [`open_share`](Self::open_share), and `Invalid` a path that leads elsewhere or to something else.
    pub fn open_share_writer(&self, id: ResourceId, folder: &str) -> Result<Folder> {
        let mut open = self.open_share(id)?;
        let name = || self.find(id).map(|found| found.name);
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            open = match open.enter(part.as_bytes()) {
                Ok(open) => open,
                Err(source) => {
                    return Err(Error::OpenFolder {
                        share: name()?,
                        folder: folder.to_owned(),
                        source,
                    });
                }
            };
        }
        Ok(open)
    }

    /// The source of a volume, its path below the source's folder, and its format.
    fn locate(&self, id: ResourceId) -> Result<(&ImagesConfig, String, ImageFormat)> {
        let found = self.find(id)?;
        let Some(format) = found.format else {
            return Err(Error::NotAVolume { name: found.name });
        };
        let mut images = self.sources.iter().filter_map(|source| match source {
            SourceConfig::Images(images) => Some(images),
            SourceConfig::Share(_) => None,
        });
        let source = images.find(|source| source.name == found.source);
        let source = source.expect("every protectable comes from one of the sources");
        Ok((source, found.name, format))
    }
}

fn list_one(source: &SourceConfig) -> Result<Vec<Protectable>> {
    let source = match source {
        SourceConfig::Images(images) => images,
        SourceConfig::Share(config) => return Ok(vec![share(config)]),
    };
    let found = scan::scan(source)?.into_iter();
    let mut volumes: Vec<_> = found.map(|found| volume(source, found)).collect();
    let servers: Vec<_> = source
        .server
        .iter()
        .map(|config| server(source, config, &mut volumes))
        .collect();
    volumes.extend(servers);
    Ok(volumes)
}

fn share(config: &ShareConfig) -> Protectable {
    let status = match config.path.is_dir() {
        true => ProtectableStatus::Available,
        false => ProtectableStatus::Missing,
    };
    Protectable {
        id: share_id(&config.name),
        name: config.name.clone(),
        resource_type: ResourceType::Turbo,
        size_bytes: 0,
        source: config.name.clone(),
        project: config.project,
        children: Vec::new(),
        system_disk: false,
        status,
        format: None,
        tags: config.tags.clone(),
    }
}

fn volume(source: &ImagesConfig, found: Found) -> Protectable {
    Protectable {
        id: volume_id(&source.name, &found.name),
        name: found.name,
        resource_type: ResourceType::Volume,
        size_bytes: found.size_bytes,
        source: source.name.clone(),
        project: source.project,
        children: Vec::new(),
        system_disk: false,
        status: found.status,
        format: Some(found.format),
        tags: source.tags.clone(),
    }
}

/// A server with its disks; marks the first of them as the system disk, among `volumes` too.
fn server(
    source: &ImagesConfig,
    config: &ServerConfig,
    volumes: &mut [Protectable],
) -> Protectable {
    let mut children = Vec::with_capacity(config.disks.len());
    for (at, disk) in config.disks.iter().enumerate() {
        let name = volume_name(disk).expect("the configuration was checked");
        let format = ImageFormat::of(disk).expect("the configuration was checked");
        let listed = volumes.iter_mut().find(|volume| volume.name == name);
        let mut missing;
        let child = match listed {
            Some(listed) => listed,
            None => {
                let status = ProtectableStatus::Missing;
                missing = volume(
                    source,
                    Found {
                        name,
                        format,
                        size_bytes: 0,
                        status,
                    },
                );
                &mut missing
            }
        };
        child.system_disk = at == 0;
        children.push(child.clone());
    }
    let worst = children.iter().map(|child| child.status).max();
    Protectable {
        id: server_id(&source.name, &config.name),
        name: config.name.clone(),
        resource_type: ResourceType::Server,
        size_bytes: children.iter().map(|child| child.size_bytes).sum(),
        source: source.name.clone(),
        project: source.project,
        children,
        system_disk: false,
        status: worst.expect("a server has at least one disk"),
        format: None,
        tags: source
            .tags
            .clone()
            .into_iter()
            .chain(config.tags.clone())
            .collect(),
    }
}

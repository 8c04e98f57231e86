//! What the configured folders hold, and how it is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_types::disk::{DiskReader, DiskWriter};
use cairn_types::{ResourceId, ResourceType};

use crate::change_map::reflink;
use crate::config::{self, ImagesConfig, ServerConfig, ShareConfig, SourceConfig, volume_name};
use crate::folder::Folder;
use crate::guest::{self, Consistency, Guests, Level, Opened, PoweredOff, ServerReaders, Wanted};
use crate::libvirt::{FoundDisk, Host};
use crate::lock::{self, Access};
use crate::machine::DEFINITION_BYTES_MAX;
use crate::protectable::{
    ImageFormat, Protectable, ProtectableStatus, server_id, share_id, volume_id,
};
use crate::qcow2::{self, Qcow2Disk};
use crate::raw::{self, RawDisk};
use crate::scan::{self, Found};
use crate::{Error, Result};

/// The configured sources. It remembers nothing of what folders hold: every call
/// looks, so an image that was just copied there can be protected at once. What libvirt has
/// is seen within moments.
#[derive(Debug, Clone)]
pub struct Inventory {
    sources: Arc<Vec<SourceConfig>>,
    hosts: Arc<Vec<Host>>,
    guests: Arc<Guests>,
}

/// What a server is.
enum Server<'a> {
    Configured(&'a ImagesConfig, &'a ServerConfig),
    Domain(&'a Host),
}

/// Where a volume is.
enum Place<'a> {
    /// Its source, its path below the source's folder, and its format.
    Image(&'a ImagesConfig, String, ImageFormat),
    Domain(&'a Host, FoundDisk),
}

impl Inventory {
    /// Takes the configured sources.
    ///
    /// Errors: `Invalid` names that repeat, folders that overlap, servers
    /// without disks or with disks that cannot be below their folder, patterns that are none.
    pub fn new(sources: Vec<SourceConfig>) -> Result<Self> {
        config::check(&sources)?;
        let hosts = sources.iter().filter_map(|source| match source {
            SourceConfig::Libvirt(libvirt) => Some(Host::new(libvirt)),
            SourceConfig::Images(_) | SourceConfig::Share(_) => None,
        });
        let hosts = hosts.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            sources: Arc::new(sources),
            hosts: Arc::new(hosts),
            guests: Arc::default(),
        })
    }

    /// Every volume, every server and every share, by source and name; those of libvirt come last.
    /// A server holds its volumes as children, and a configured disk without a file is among them
    /// as `Missing`; volumes are listed for themselves as well.
    ///
    /// Errors: `Denied`, `Transient` a folder cannot be listed, or libvirt does not answer; `Exhausted`
    /// more than [`MAX_VOLUMES`](crate::MAX_VOLUMES) images in one.
    pub fn list(&self) -> Result<Vec<Protectable>> {
        let mut all = Vec::new();
        for listed in self.listings() {
            all.extend(listed?);
        }
        Ok(all)
    }

    /// As [`list`](Self::list), of the sources that can be listed, with why the others cannot.
    pub fn list_readable(&self) -> (Vec<Protectable>, Vec<Error>) {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for listed in self.listings() {
            match listed {
                Ok(listed) => all.extend(listed),
                Err(error) => errors.push(error),
            }
        }
        (all, errors)
    }

    /// The volume, server or share with this id. A source is asked if none before it has it.
    ///
    /// Errors: `NotFound`, and those of [`list`](Self::list) if it may be in such a source.
    pub fn find(&self, id: ResourceId) -> Result<Protectable> {
        let mut failed = None;
        for listed in self.listings() {
            match listed {
                Ok(listed) => {
                    let children = listed.iter().flat_map(|one| &one.children);
                    if let Some(found) = listed.iter().chain(children).find(|one| one.id == id) {
                        return Ok(found.clone());
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or(Error::NotFound { id }))
    }

    /// What each source has, asked one after another.
    fn listings(&self) -> impl Iterator<Item = Result<Vec<Protectable>>> {
        let folders = self.sources.iter().filter_map(|source| match source {
            SourceConfig::Images(images) => Some(list_images(images)),
            SourceConfig::Share(config) => Some(Ok(vec![share(config)])),
            SourceConfig::Libvirt(_) => None,
        });
        folders.chain(self.hosts.iter().map(Host::list))
    }

    /// Opens a volume at one point in time, for a backup. If it is a disk of a guest
    /// that runs, and whose QMP socket is configured, it is read through QEMU. Otherwise,
    /// until the reader is dropped, no QEMU can open the image for writing, unless a reflink
    /// of it is read.
    ///
    /// Errors: `NotFound` no such volume, or its file is missing; `Conflict`
    /// somebody has it open for writing, or its guest is being backed up; `Invalid` a
    /// server, or no image; `Transient` its QEMU does not answer.
    pub fn open_reader(&self, volume: ResourceId) -> Result<Arc<dyn DiskReader>> {
        let opened = match self.locate(volume)? {
            Place::Domain(host, found) => {
                host.open_server(&self.guests, found.server(), (&[volume], Level::Crash))?
            }
            Place::Image(source, name, _) => match server_of(source, &name) {
                Some(server) => self.open_disks(source, server, &[volume], Level::Crash)?,
                None => return self.open_at_rest(volume),
            },
        };
        let mut readers = opened.disks.into_iter().map(|(_, reader)| reader);
        Ok(readers.next().expect("as many as were asked for"))
    }

    /// Opens disks of a server, all at the same point in time, for a backup; `level` is what
    /// is asked of that point. A disk that the guest does not have, or all of them if it does not
    /// run, are read as [`open_reader`](Self::open_reader) reads images at rest.
    ///
    /// Errors: those of [`open_reader`](Self::open_reader), and `Invalid` no server, or a
    /// disk that is none of it.
    pub fn open_server(
        &self,
        server: ResourceId,
        volumes: &[ResourceId],
        level: Level,
    ) -> Result<ServerReaders> {
        match self.locate_server(server)? {
            Server::Configured(source, config) => self.open_disks(source, config, volumes, level),
            Server::Domain(host) => host.open_server(&self.guests, server, (volumes, level)),
        }
    }

    /// How a server is defined where it runs: for a domain of libvirt its XML, without secrets; nothing for
    /// others, and of a definition that is longer than [`DEFINITION_BYTES_MAX`].
    ///
    /// Errors: `NotFound`; `Invalid` no server; `Transient` libvirt does not answer.
    pub fn definition(&self, server: ResourceId) -> Result<Option<String>> {
        match self.locate_server(server)? {
            Server::Configured(..) => Ok(None),
            Server::Domain(host) => {
                let definition = host.definition(server)?;
                Ok(Some(definition).filter(|xml| xml.len() <= DEFINITION_BYTES_MAX))
            }
        }
    }

    /// Turns a server off, to restore its disks in place, and returns when its images are free. It
    /// is not asked to shut down: what is on its disks is about to be overwritten.
    ///
    /// Errors: `NotFound`; `Invalid` no server, or one that would be gone; `Conflict` it is being
    /// backed up; `Transient` it does not end.
    pub fn power_off(&self, server: ResourceId) -> Result<PoweredOff> {
        match self.locate_server(server)? {
            Server::Configured(source, config) => {
                guest::power_off(&self.guests, &source.path, config)
            }
            Server::Domain(host) => host.power_off(&self.guests, server),
        }
    }

    /// Whether a server runs and can be turned off.
    ///
    /// Errors: `NotFound`; `Invalid` no server; `Transient` its QEMU or its libvirt does not answer.
    pub fn runs(&self, server: ResourceId) -> Result<bool> {
        match self.locate_server(server)? {
            Server::Configured(_, config) => guest::runs(config),
            Server::Domain(host) => host.runs(server),
        }
    }

    /// Whether a server could be turned on again: to be asked before it is turned off.
    ///
    /// Errors: `NotFound`; `Invalid` no server, or nobody has said how it is started.
    pub fn check_power_on(&self, server: ResourceId) -> Result<()> {
        match self.locate_server(server)? {
            Server::Configured(_, config) => guest::check_power_on(config),
            Server::Domain(_) => Ok(()),
        }
    }

    /// Turns a server on; one that runs is left alone.
    ///
    /// Errors: those of [`check_power_on`](Self::check_power_on); `Transient` it does not start.
    pub fn power_on(&self, server: ResourceId) -> Result<()> {
        match self.locate_server(server)? {
            Server::Configured(_, config) => guest::power_on(config),
            Server::Domain(host) => host.power_on(server),
        }
    }

    /// Removes from the QEMU of every guest that runs what a backup that was cut off left
    /// there; to be called before the first backup. What cannot be done is logged, and tried again
    /// by the next backup.
    pub fn clean_up(&self) {
        for host in self.hosts.iter() {
            if let Err(error) = host.clean_up(&self.guests) {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(
                    error,
                    "Whether a backup left something at a libvirt is not known."
                );
            }
        }
        for (_, server) in self.servers() {
            if let Err(error) = guest::clean_up(&self.guests, server) {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(
                    error,
                    server = server.name,
                    "Whether a backup left something in a guest's QEMU is not known."
                );
            }
        }
    }

    fn open_disks(
        &self,
        source: &ImagesConfig,
        server: &ServerConfig,
        volumes: &[ResourceId],
        level: Level,
    ) -> Result<ServerReaders> {
        let mut wanted = Vec::with_capacity(volumes.len());
        for volume in volumes {
            let foreign = |volume| Error::NotItsDisk {
                volume,
                server: server.name.clone(),
            };
            let name = match self.locate(*volume)? {
                Place::Image(_, name, _) => name,
                Place::Domain(..) => return Err(foreign(volume.to_string())),
            };
            let of = server_of(source, &name).filter(|of| of.name == server.name);
            if of.is_none() || volume_id(&source.name, &name) != *volume {
                return Err(foreign(name));
            }
            let path = source.path.join(&name);
            wanted.push(Wanted { name, path });
        }
        let opened = guest::open(&self.guests, &source.path, server, (&wanted, level))?;
        let opened = opened.unwrap_or_else(|| Opened {
            disks: wanted.iter().map(|_| None).collect(),
            consistency: Consistency::AtRest,
        });
        let mut disks = Vec::with_capacity(volumes.len());
        for (volume, reader) in volumes.iter().zip(opened.disks) {
            let reader = reader.map_or_else(|| self.open_at_rest(*volume), Ok)?;
            disks.push((*volume, reader));
        }
        Ok(ServerReaders {
            disks,
            consistency: opened.consistency,
        })
    }

    /// Opens an image that no running guest has.
    fn open_at_rest(&self, volume: ResourceId) -> Result<Arc<dyn DiskReader>> {
        let Place::Image(source, name, format) = self.locate(volume)? else {
            return Err(Error::NotFound { id: volume });
        };
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
    /// anybody has it open, a guest that runs above all; `Denied` it may not be written.
    pub fn open_writer(&self, volume: ResourceId, size_bytes: u64) -> Result<Arc<dyn DiskWriter>> {
        let (source, name, format) = match self.locate(volume)? {
            Place::Image(source, name, format) => (source, name, format),
            Place::Domain(host, found) => return host.open_writer(&found, size_bytes),
        };
        let path = source.path.join(&name);
        check_stopped(source, &name)?;
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
        let (source, name) = match self.locate(volume)? {
            Place::Image(source, name, _) => (source, name),
            Place::Domain(host, found) => return host.check_writable(&found),
        };
        check_stopped(source, &name)?;
        // Whatever the format, locks and permissions are the file's.
        raw::open_locked(&name, &source.path.join(&name), Access::Write).map(drop)
    }

    /// Removes what was kept to tell changes of images that are not there any more.
    fn remove_orphans(&self, source: &ImagesConfig) {
        let done = list_images(source).map(|all| {
            let volumes = all.iter().map(|protectable| protectable.id).collect();
            reflink::remove_orphans(&source.path, &volumes)
        });
        if let Ok(Err(error)) = done {
            tracing::warn!(%error, source = source.name, "a reflink of a lost image stays");
        }
    }

    /// Opens a share to be saved: at one moment, as far as its file system allows.
    ///
    /// Errors: `NotFound` no such share, or its folder is missing; `Invalid` it
    /// is no share; `Denied`.
    pub fn open_share(&self, id: ResourceId) -> Result<Folder> {
        let share = self.find_share(id)?;
        let opened = Folder::open_at_one_moment(&share.path, share.options()?, id);
        opened.map_err(|source| Error::OpenShare {
            share: share.name.clone(),
            source,
        })
    }

    fn find_share(&self, id: ResourceId) -> Result<&ShareConfig> {
        let shares = self.sources.iter().filter_map(|source| match source {
            SourceConfig::Share(share) => Some(share),
            SourceConfig::Images(_) | SourceConfig::Libvirt(_) => None,
        });
        let mut shares = shares.filter(|share| share_id(&share.name) == id);
        match shares.next() {
            Some(share) => Ok(share),
            None => Err(Error::NotAShare {
                name: self.find(id)?.name,
            }),
        }
    }

    /// Opens a folder of a share to be restored into; what of it is missing is
    /// made. `folder` is a path below the share, empty for the share itself.
    ///
    /// Errors: as [`open_share`](Self::open_share), and `Invalid` a path that leads elsewhere or to something else.
    pub fn open_share_writer(&self, id: ResourceId, folder: &str) -> Result<Folder> {
        let share = self.find_share(id)?;
        let opened = Folder::open(&share.path, share.options()?);
        let mut open = opened.map_err(|source| Error::OpenShare {
            share: share.name.clone(),
            source,
        })?;
        let name = || self.find(id).map(|found| found.name);
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            open = match open.enter(part.as_bytes(), 0o700) {
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

    /// Every folder of images.
    fn images(&self) -> impl Iterator<Item = &ImagesConfig> {
        self.sources.iter().filter_map(|source| match source {
            SourceConfig::Images(images) => Some(images),
            SourceConfig::Share(_) | SourceConfig::Libvirt(_) => None,
        })
    }

    /// Every configured server, with its source.
    fn servers(&self) -> impl Iterator<Item = (&ImagesConfig, &ServerConfig)> {
        self.images()
            .flat_map(|source| source.server.iter().map(move |server| (source, server)))
    }

    fn locate_server(&self, id: ResourceId) -> Result<Server<'_>> {
        let mut servers = self.servers();
        let found = servers.find(|(source, server)| server_id(&source.name, &server.name) == id);
        if let Some((source, server)) = found {
            return Ok(Server::Configured(source, server));
        }
        let found = self.find(id)?;
        let mut hosts = self.hosts.iter();
        match hosts.find(|host| host.name() == found.source) {
            Some(host) if found.resource_type == ResourceType::Server => Ok(Server::Domain(host)),
            _ => Err(Error::NotAServer { name: found.name }),
        }
    }

    fn locate(&self, id: ResourceId) -> Result<Place<'_>> {
        let found = self.find(id)?;
        let Some(format) = found.format else {
            return Err(Error::NotAVolume { name: found.name });
        };
        if let Some(source) = self.images().find(|images| images.name == found.source) {
            return Ok(Place::Image(source, found.name, format));
        }
        let mut hosts = self.hosts.iter();
        let host = hosts.find(|host| host.name() == found.source);
        let host = host.ok_or(Error::NotFound { id })?;
        let disk = host.find_disk(id)?.ok_or(Error::NotFound { id })?;
        Ok(Place::Domain(host, disk))
    }
}

/// The server that the volume `name` is a disk of.
fn server_of<'s>(source: &'s ImagesConfig, name: &str) -> Option<&'s ServerConfig> {
    let is_it = |disk: &PathBuf| volume_name(disk).as_deref() == Some(name);
    let mut servers = source.server.iter();
    servers.find(|server| server.disks.iter().any(is_it))
}

/// Errors: `Conflict` a guest that runs has the volume; `Transient` its QEMU does not answer.
fn check_stopped(source: &ImagesConfig, name: &str) -> Result<()> {
    let Some(server) = server_of(source, name) else {
        return Ok(());
    };
    // Not every QEMU locks its images.
    match guest::has_disk(server, &source.path.join(name))? {
        false => Ok(()),
        true => Err(Error::GuestRuns {
            volume: name.to_owned(),
            server: server.name.clone(),
        }),
    }
}

fn list_images(source: &ImagesConfig) -> Result<Vec<Protectable>> {
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

/// Whether somebody has an image open to write to it.
fn is_in_use(image: &Path) -> bool {
    let found = raw::open_data(image).and_then(|image| lock::is_written(&image));
    // Whether it can be read at all was looked at before.
    found.unwrap_or(false)
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
        status: worst
            .expect("a server has at least one disk")
            .of_server(|| {
                config
                    .disks
                    .iter()
                    .any(|disk| is_in_use(&source.path.join(disk)))
            }),
        format: None,
        tags: source
            .tags
            .clone()
            .into_iter()
            .chain(config.tags.clone())
            .collect(),
    }
}

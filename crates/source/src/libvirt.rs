//! Domains of libvirt: servers that are discovered, not configured.
//!
//! A domain that runs is read through its QEMU by libvirt's own backup job; one that is off is read from
//! its images, as any others. Its id is that of the server, and its disks have ids that do not
//! change when their images move.
//!
//! Invariants: those of `guest.rs`; nothing of a domain is remembered but for moments, so one that comes or goes is
//! seen at the next listing; a libvirt that does not answer costs a listing five seconds, and
//! its own domains alone.

mod backup;
pub(crate) mod checkpoint;
pub(crate) mod domain;
mod job;
mod power;
mod scratch;
mod socket;
pub(crate) mod virsh;
pub(crate) mod xml;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cairn_types::ResourceId;
use cairn_types::disk::{DiskReader, DiskWriter};

use self::backup::Attempt;
use self::domain::{Disk, Domain};
use self::job::Running;
use self::scratch::Scratch;
use self::virsh::{MAX_COMMANDS, Virsh, VirshError};
use crate::change_map::bitmap;
use crate::config::{LibvirtConfig, Patterns};
use crate::guest::{Consistency, Guests, Level, ServerReaders};
use crate::lock::Access;
use crate::protectable::{ImageFormat, Protectable, ProtectableStatus};
use crate::qcow2::{self, Qcow2Disk};
use crate::raw::{self, RawDisk};
use crate::{Error, Result, scan};

/// How long what libvirt said of its domains is taken for true.
const LISTING_AGE: Duration = Duration::from_secs(2);

/// The domains of one libvirt.
#[derive(Debug)]
pub(crate) struct Host {
    config: LibvirtConfig,
    patterns: Patterns,
    virsh: Virsh,
    /// Held while libvirt is asked: whoever comes meanwhile waits for the same answer.
    listing: Mutex<Option<Listing>>,
}

#[derive(Debug)]
struct Listing {
    at: Instant,
    domains: std::result::Result<Arc<Vec<Domain>>, String>,
}

/// A disk of a domain, as a listing had it.
#[derive(Debug, Clone)]
pub(crate) struct FoundDisk {
    domain: Domain,
    disk: Disk,
}

impl FoundDisk {
    fn name(&self) -> String {
        self.domain.volume_name(&self.disk)
    }

    pub(crate) fn server(&self) -> ResourceId {
        self.domain.id()
    }
}

impl Host {
    /// Errors: `Invalid` a pattern that is none.
    pub(crate) fn new(config: &LibvirtConfig) -> Result<Self> {
        Ok(Self {
            patterns: config.patterns()?,
            virsh: Virsh::new(&config.uri),
            config: config.clone(),
            listing: Mutex::default(),
        })
    }

    /// Every domain that is to be protected, with its disks, and the disks for themselves.
    ///
    /// Errors: `Transient` libvirt does not answer; `Invalid` there is no `virsh`.
    pub(crate) fn list(&self) -> Result<Vec<Protectable>> {
        let mut all = Vec::new();
        for domain in self.domains()?.iter() {
            let server = self.protectable(domain);
            all.extend(server.children.iter().cloned());
            all.push(server);
        }
        Ok(all)
    }

    /// The name of its source.
    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// The disk with this id.
    pub(crate) fn find_disk(&self, id: ResourceId) -> Result<Option<FoundDisk>> {
        let domains = self.domains()?;
        let disks = domains
            .iter()
            .flat_map(|domain| domain.disks.iter().map(move |disk| (domain, disk)));
        let mut found = disks.filter(|(_, disk)| disk.id == id);
        Ok(found.next().map(|(domain, disk)| FoundDisk {
            domain: domain.clone(),
            disk: disk.clone(),
        }))
    }

    /// As [`Inventory::open_server`](crate::Inventory::open_server), of a domain that this host has.
    pub(crate) fn open_server(
        &self,
        guests: &Arc<Guests>,
        server: ResourceId,
        (volumes, level): (&[ResourceId], Level),
    ) -> Result<ServerReaders> {
        let domain = self.look(server)?;
        let mut disks = Vec::with_capacity(volumes.len());
        for volume in volumes {
            let disk = domain.disks.iter().find(|disk| disk.id == *volume);
            disks.push(disk.ok_or_else(|| Error::NotItsDisk {
                volume: volume.to_string(),
                server: domain.name.clone(),
            })?);
        }
        let (readers, consistency) = match domain.is_active {
            true => self.open_running(guests, &domain, &disks, level)?,
            false => (open_at_rest(&domain, &disks)?, Consistency::AtRest),
        };
        Ok(ServerReaders {
            disks: volumes.iter().copied().zip(readers).collect(),
            consistency,
        })
    }

    fn open_running(
        &self,
        guests: &Arc<Guests>,
        domain: &Domain,
        disks: &[&Disk],
        level: Level,
    ) -> Result<(backup::Disks, Consistency)> {
        let server = || domain.name.clone();
        let uuid = domain.uuid.to_string();
        let turn = guests.take(key(domain));
        let turn = turn.ok_or_else(|| Error::GuestBusy { server: server() })?;
        let scratch = Scratch::of(domain, self.config.scratch.as_deref());
        let failed = |source| Error::Guest {
            server: server(),
            source,
        };
        let running = job::remove_leftovers(&self.virsh, domain, &scratch);
        if running.map_err(|error| failed(error.into()))? == Running::Others {
            return Err(Error::OtherJob { server: server() });
        }
        if !domain.others.is_empty() {
            let targets = domain.others.join(", ");
            tracing::warn!(
                server = domain.name,
                targets,
                "A domain has disks that are in no file and on no device: they are not protected."
            );
        }
        let attempt = Attempt {
            virsh: &self.virsh,
            domain,
            uuid: &uuid,
            scratch,
        };
        attempt.run(disks, level, turn).map_err(failed)
    }

    /// As [`Inventory::open_writer`](crate::Inventory::open_writer).
    pub(crate) fn open_writer(
        &self,
        found: &FoundDisk,
        size_bytes: u64,
    ) -> Result<Arc<dyn DiskWriter>> {
        let name = found.name();
        let disk = self.check_off(found)?;
        match disk.format {
            ImageFormat::Raw => {
                let mut open = RawDisk::open(&name, &disk.path, Access::Write)?;
                open.shrink_to(size_bytes)?;
                Ok(Arc::new(open))
            }
            ImageFormat::Qcow2 => {
                // Nothing must take the restored disk for a later state of what it was: the
                // next backup compares all of it.
                drop(raw::open_locked(&name, &disk.path, Access::Write)?);
                bitmap::remove_all(&disk.path).map_err(|source| Error::Open {
                    volume: name.clone(),
                    source,
                })?;
                qcow2::shrink(&name, &disk.path, size_bytes)?;
                Ok(Arc::new(Qcow2Disk::open(&name, &disk.path, Access::Write)?))
            }
        }
    }

    /// As [`Inventory::check_writable`](crate::Inventory::check_writable).
    pub(crate) fn check_writable(&self, found: &FoundDisk) -> Result<()> {
        let disk = self.check_off(found)?;
        raw::open_locked(&found.name(), &disk.path, Access::Write).map(drop)
    }

    /// The disk as it is now, of a domain that has no memory which belongs to what is on it.
    ///
    /// Errors: `Conflict` it runs, or its memory is saved.
    fn check_off(&self, found: &FoundDisk) -> Result<Disk> {
        let domain = self.look(found.server())?;
        let (volume, server) = (found.name(), domain.name.clone());
        if domain.is_active {
            return Err(Error::GuestRuns { volume, server });
        }
        if self.is_saved(&domain).map_err(|error| self.error(error))? {
            return Err(Error::GuestSaved { volume, server });
        }
        let disk = domain
            .disks
            .into_iter()
            .find(|disk| disk.id == found.disk.id);
        disk.ok_or(Error::NotItsDisk { volume, server })
    }

    /// Removes what a Cairn that was killed left at the domains. What cannot be done is logged.
    ///
    /// Errors: libvirt does not answer.
    pub(crate) fn clean_up(&self, guests: &Arc<Guests>) -> Result<()> {
        for domain in self.domains()?.iter() {
            let Some(_turn) = guests.take(key(domain)) else {
                continue;
            };
            let scratch = Scratch::of(domain, self.config.scratch.as_deref());
            if let Err(error) = job::remove_leftovers(&self.virsh, domain, &scratch) {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(
                    error,
                    server = domain.name,
                    "Whether a backup left something at a domain is not known."
                );
            }
        }
        Ok(())
    }

    /// The definition of a domain, as one that is off has it. libvirt keeps secrets to itself unless it is
    /// asked for them.
    ///
    /// Errors: `Transient` libvirt does not answer, or said no.
    pub(crate) fn definition(&self, id: ResourceId) -> Result<String> {
        let uuid = id.to_string();
        let said = self
            .virsh
            .ask(&["dumpxml", "--inactive", "--migratable", &uuid]);
        said.map_err(|error| self.error(error))
    }

    /// The domain as it is now.
    ///
    /// Errors: `NotFound` it is gone.
    fn look(&self, id: ResourceId) -> Result<Domain> {
        let uuid = id.to_string();
        match self.virsh.ask(&["dumpxml", &uuid]) {
            Err(error) if error.refusal().is_some_and(is_no_domain) => Err(Error::NotFound { id }),
            said => {
                let domain = said.and_then(|xml| Domain::parse(&xml));
                domain.map_err(|error| self.error(error))
            }
        }
    }

    fn domains(&self) -> Result<Arc<Vec<Domain>>> {
        let mut listing = self.listing.lock().expect("nobody panics with it");
        let known = listing
            .take()
            .filter(|listing| listing.at.elapsed() < LISTING_AGE);
        let known = known.unwrap_or_else(|| {
            let domains = self.ask_for_domains();
            let domains = domains.map(Arc::new).map_err(|error| error_chain(&error));
            // An answer is as old as it is when it has come.
            Listing {
                at: Instant::now(),
                domains,
            }
        });
        let domains = known.domains.clone();
        *listing = Some(known);
        domains.map_err(|why| Error::Libvirt {
            name: self.config.name.clone(),
            why,
        })
    }

    fn ask_for_domains(&self) -> virsh::Result<Vec<Domain>> {
        let ids = self.virsh.ask(&["list", "--all", "--uuid"])?;
        let ids: Vec<&str> = ids.lines().map(str::trim).collect();
        let ids: Vec<&str> = ids.into_iter().filter(|id| !id.is_empty()).collect();
        let mut domains = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MAX_COMMANDS) {
            let commands: Vec<_> = ids.iter().map(|id| format!("dumpxml {id}")).collect();
            for xml in self.virsh.ask_all(&commands)? {
                // One that is gone meanwhile says nothing.
                if !xml.trim().is_empty() {
                    domains.push(Domain::parse(xml.trim())?);
                }
            }
        }
        domains.retain(|domain| self.patterns.take(&domain.name));
        domains.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(domains)
    }

    fn protectable(&self, domain: &Domain) -> Protectable {
        let volume = |(at, disk): (usize, &Disk)| {
            let (size_bytes, status) = match scan::size_of(&disk.path, disk.format) {
                Ok(size_bytes) => (size_bytes, ProtectableStatus::Available),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    (0, ProtectableStatus::Missing)
                }
                Err(_) => (0, ProtectableStatus::Unusable),
            };
            Protectable {
                id: disk.id,
                name: domain.volume_name(disk),
                resource_type: cairn_types::ResourceType::Volume,
                size_bytes,
                source: self.config.name.clone(),
                project: self.config.project,
                children: Vec::new(),
                system_disk: at == 0,
                status,
                format: Some(disk.format),
                tags: self.config.tags.clone(),
            }
        };
        let children: Vec<_> = domain.disks.iter().enumerate().map(volume).collect();
        let worst = children.iter().map(|child| child.status).max();
        Protectable {
            id: domain.id(),
            name: domain.name.clone(),
            resource_type: cairn_types::ResourceType::Server,
            size_bytes: children.iter().map(|child| child.size_bytes).sum(),
            source: self.config.name.clone(),
            project: self.config.project,
            children,
            system_disk: false,
            // One without disks has nothing to protect.
            status: worst
                .unwrap_or(ProtectableStatus::Unusable)
                .of_server(|| domain.is_active),
            format: None,
            tags: self.config.tags.clone(),
        }
    }

    fn error(&self, error: VirshError) -> Error {
        Error::Libvirt {
            name: self.config.name.clone(),
            why: error_chain(&error),
        }
    }
}

/// What tells a guest from others.
fn key(domain: &Domain) -> String {
    format!("libvirt:{}", domain.uuid)
}

/// Whether libvirt says that there is no such domain.
fn is_no_domain(text: &str) -> bool {
    text.contains("failed to get domain") || text.contains("Domain not found")
}

pub(crate) fn error_chain(error: &VirshError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Opens disks of a domain that is off. Each is locked from when it is opened, so
/// a domain that is started meanwhile does not get all of its disks, and does not run.
fn open_at_rest(domain: &Domain, disks: &[&Disk]) -> Result<backup::Disks> {
    let open = |disk: &&Disk| -> Result<Arc<dyn DiskReader>> {
        let name = domain.volume_name(disk);
        Ok(match disk.format {
            ImageFormat::Raw => Arc::new(RawDisk::open(&name, &disk.path, Access::Read)?),
            ImageFormat::Qcow2 => {
                let bitmaps = !disk.read_only;
                Arc::new(Qcow2Disk::open_for_backup(&name, &disk.path, bitmaps)?)
            }
        })
    };
    disks.iter().map(open).collect()
}

//! `cairn backup define`: a new machine of libvirt out of the backup of a server.
//!
//! The images come into a hidden folder whose name says of which machine and which backup it is, and what
//! UUID the machine gets; it gets its own name once the machine is defined. So a command that was interrupted
//! is gone on with by the next of the same words, and nothing that was there is touched (`define/stage.rs`).
//!
//! What libvirt refuses is told before anything is downloaded: the machine is defined and taken away again.

mod stage;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use cairn_api::Client;
use cairn_api::backup::Backup;
use cairn_api::download::DownloadBackupQuery;
use cairn_source::ImageFormat;
use cairn_source::machine::{Bus, Description, Hypervisor, NewDisk, NewMachine, Plain, check_name};
use cairn_types::{BackupId, DownloadFormat};
use clap::{Args, ValueEnum};
use serde::Serialize;
use uuid::Uuid;

use self::stage::{Held, Stage};
use crate::download;
use crate::output::{Printer, bytes};
use crate::transfer::Wish;
use crate::{Error, find};

/// What a plain machine has unless told otherwise.
const MEMORY_MIB: u32 = 2048;
const CPUS: u32 = 2;
/// Characters of where a guest sees a disk at most.
const TARGET_MAX: usize = 32;

/// A server's backup, and the machine that it is to become.
#[derive(Debug, Clone, Args)]
pub struct Define {
    /// The backup of a server, by id or name.
    backup: String,
    /// Where the machine's own folder is made, with an image for each disk; on the host that is to run it.
    #[arg(long)]
    folder: PathBuf,
    /// The machine's name, and its folder's; that of the server and the start of the backup's id if unset.
    #[arg(long)]
    name: Option<String>,
    /// The libvirt to define it at.
    #[arg(long, value_name = "URI", default_value = "qemu:///system")]
    connect: String,
    /// What the images are.
    #[arg(long, value_enum, default_value_t = Format::Qcow2)]
    format: Format,
    /// Start it.
    #[arg(long)]
    start: bool,
    /// Print the definition that it would get, and do nothing.
    #[arg(long, conflicts_with = "start")]
    print: bool,
    #[command(flatten)]
    plain: PlainOptions,
}

/// What a machine is to have of which the backup remembers nothing.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For a plain machine")]
struct PlainOptions {
    /// A plain machine, though the backup remembers how the old one was defined. A backup of
    /// anything but a domain of libvirt remembers nothing.
    #[arg(long)]
    plain: bool,
    /// Its memory in MiB; 2048 if unset.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    memory: Option<u32>,
    /// How many processors it has; 2 if unset.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// What boots it; bios if unset.
    #[arg(long, value_enum)]
    firmware: Option<Firmware>,
    /// What its disks are at; virtio if unset.
    #[arg(long, value_enum)]
    bus: Option<BusName>,
    /// The network of libvirt's that it has a card in; it has none if unset.
    #[arg(long)]
    network: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Qcow2,
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Firmware {
    Bios,
    Efi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BusName {
    Virtio,
    Scsi,
    Sata,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Defined {
    backup_id: BackupId,
    name: String,
    uuid: Uuid,
    folder: PathBuf,
    disks: Vec<DefinedDisk>,
    /// Whether the backup remembered how the old one was defined.
    remembered: bool,
    /// What the old one had and this one has not.
    left_out: Vec<String>,
    started: bool,
}

#[derive(Debug, Serialize)]
struct DefinedDisk {
    backup_id: BackupId,
    target: String,
    path: PathBuf,
    size_bytes: u64,
}

/// Makes the machine.
pub(crate) async fn define(
    wish: &Define,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let backup = find::backup(client, &wish.backup).await?;
    let remembered = match wish.plain.plain {
        true => None,
        false => remembered(client, backup.id).await?,
    };
    let plan = Plan::new(wish, &backup, remembered)?;
    if wish.print {
        let (plan, described) = plan.off_thread(Plan::describe).await?;
        // Standard output is for virsh.
        eprint!("{}", plan.shown(described.left_out, false).notes());
        return printer.print(&described.xml, || described.xml.clone());
    }
    let (plan, (described, held)) = plan
        .off_thread(|plan| {
            plan.refuse_what_is_there()?;
            let described = plan.describe()?;
            let held = plan.stage.hold()?;
            plan.try_out(&described.xml, &held)?;
            Ok((described, held))
        })
        .await?;
    for (disk, image) in plan.disks.iter().zip(&plan.machine.disks) {
        let name = image.path.file_name().unwrap_or_default();
        save(client, disk.id, wish.format, &held, name).await?;
    }
    let (xml, start) = (described.xml, wish.start);
    let (plan, ()) = plan
        .off_thread(move |plan| plan.finish(&xml, &held, start))
        .await?;
    let shown = plan.shown(described.left_out, wish.start);
    printer.print(&shown, || shown.text())
}

/// Downloads a disk, unless an earlier command has.
async fn save(
    client: &Client,
    backup: BackupId,
    format: Format,
    held: &Held,
    name: &OsStr,
) -> Result<(), Error> {
    let format = match format {
        Format::Qcow2 => DownloadFormat::Qcow2,
        Format::Raw => DownloadFormat::Raw,
    };
    let query = DownloadBackupQuery {
        format: Some(format),
        path: None,
        skip_holes: None,
    };
    let wished = || Wish {
        client,
        backup,
        query: query.clone(),
    };
    if let Some(had) = held.size_of(name)
        && had == download::size_of(wished()).await?
    {
        return Ok(());
    }
    match download::to_file(wished(), &held.at(name)).await {
        Err(Error::Write { source, .. }) => {
            let path = held.shown(name);
            Err(Error::Write { path, source })
        }
        saved => saved.map(drop),
    }
}

/// The definition that a backup remembers.
async fn remembered(client: &Client, backup: BackupId) -> Result<Option<String>, Error> {
    let told = client.show_metadata(backup).await?.server;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
    let definition = told["server"]["metadata"]["definition"].as_str();
    Ok(definition.map(str::to_owned))
}

/// What is to be made, and where.
struct Plan {
    backup: BackupId,
    machine: NewMachine,
    /// The backups of its disks, in their order.
    disks: Vec<Backup>,
    remembered: Option<String>,
    plain: Plain,
    hypervisor: Hypervisor,
    /// The machine's folder, and what it is before that is whole.
    home: PathBuf,
    stage: Stage,
}

impl Plan {
    fn new(wish: &Define, backup: &Backup, remembered: Option<String>) -> Result<Self, Error> {
        if backup.children.is_empty() {
            return Err(Error::Usage("it is the backup of no server".to_owned()));
        }
        let plain = wish.plain.read(remembered.is_some())?;
        let short = &backup.id.to_string()[..8];
        let usual = || format!("{}-{short}", backup.resource_name);
        let name = wish.name.clone().unwrap_or_else(usual);
        check_name(&name).map_err(|error| {
            Error::Usage(match &wish.name {
                Some(_) => error.to_string(),
                None => format!("{error}: give it another by --name"),
            })
        })?;
        let folder = wish.folder.canonicalize();
        let folder = folder.map_err(|source| made(&wish.folder, source))?;
        if folder
            .to_str()
            .is_none_or(|path| path.contains(char::is_control))
        {
            let why = "a definition cannot hold the path of the folder";
            return Err(Error::Usage(why.to_owned()));
        }
        let home = folder.join(&name);
        let stage = Stage::find(&folder, &name, backup.id)?;
        let mut disks = backup.children.clone();
        disks.sort_by_key(|disk| {
            let boots = disk.extend_info.system_disk == Some(true);
            (!boots, disk.resource_name.clone())
        });
        let end = match wish.format {
            Format::Qcow2 => "qcow2",
            Format::Raw => "img",
        };
        let mut images = Vec::with_capacity(disks.len());
        for (number, disk) in disks.iter().enumerate() {
            let target = match remembered {
                Some(_) => target(disk)?,
                None => plain.bus.target(number),
            };
            images.push(NewDisk {
                path: home.join(format!("{target}.{end}")),
                format: match wish.format {
                    Format::Qcow2 => ImageFormat::Qcow2,
                    Format::Raw => ImageFormat::Raw,
                },
                target,
            });
        }
        Ok(Self {
            backup: backup.id,
            machine: NewMachine {
                name,
                uuid: stage.uuid,
                disks: images,
            },
            disks,
            remembered,
            plain,
            hypervisor: Hypervisor::new(&wish.connect),
            home,
            stage,
        })
    }

    /// Does what blocks where that may be.
    async fn off_thread<T: Send + 'static>(
        self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<(Self, T), Error> {
        let done = tokio::task::spawn_blocking(move || work(&self).map(|done| (self, done))).await;
        done.map_err(io::Error::other)?
    }

    fn describe(&self) -> Result<Description, Error> {
        let machine = &self.machine;
        Ok(match &self.remembered {
            Some(definition) => machine.again(definition)?,
            None => self.hypervisor.plain(machine, &self.plain)?,
        })
    }

    fn refuse_what_is_there(&self) -> Result<(), Error> {
        let name = &self.machine.name;
        if self.home.symlink_metadata().is_ok() {
            let home = self.home.display();
            return Err(Error::Taken(format!("{home} is there already")));
        }
        match self.hypervisor.find(name)? {
            // An earlier run of this command has got as far.
            Some(uuid) if uuid == self.machine.uuid => Ok(()),
            Some(_) => Err(Error::Taken(format!(
                "libvirt has a domain {name:?} already"
            ))),
            None => Ok(()),
        }
    }

    /// Has libvirt refuse now what it would refuse once all is downloaded.
    fn try_out(&self, xml: &str, held: &Held) -> Result<(), Error> {
        if self.hypervisor.find(&self.machine.name)?.is_some() {
            // An earlier run of this command has got as far.
            return Ok(());
        }
        let defined = self.hypervisor.define(xml);
        defined.inspect_err(|_| held.remove_if_empty())?;
        Ok(self.hypervisor.undefine(self.machine.uuid)?)
    }

    /// Defines the machine, and gives its folder its name. If that cannot be, the definition goes.
    fn finish(&self, xml: &str, held: &Held, start: bool) -> Result<(), Error> {
        self.hypervisor.define(xml)?;
        if let Err(error) = held.rename(&self.home) {
            self.hypervisor.undefine(self.machine.uuid)?;
            return Err(made(&self.home, error));
        }
        if start {
            let started = self.hypervisor.start(self.machine.uuid);
            let name = self.machine.name.clone();
            started.map_err(|source| Error::NotStarted { name, source })?;
        }
        Ok(())
    }

    fn shown(&self, left_out: Vec<String>, started: bool) -> Defined {
        let disks = self.disks.iter().zip(&self.machine.disks);
        let disks = disks.map(|(backup, image)| DefinedDisk {
            backup_id: backup.id,
            target: image.target.clone(),
            path: image.path.clone(),
            size_bytes: image.path.metadata().map_or(0, |found| found.len()),
        });
        Defined {
            backup_id: self.backup,
            name: self.machine.name.clone(),
            uuid: self.machine.uuid,
            folder: self.home.clone(),
            disks: disks.collect(),
            remembered: self.remembered.is_some(),
            left_out,
            started,
        }
    }
}

impl PlainOptions {
    fn read(&self, remembered: bool) -> Result<Plain, Error> {
        let said = self.memory.is_some()
            || self.cpus.is_some()
            || self.firmware.is_some()
            || self.bus.is_some()
            || self.network.is_some();
        if remembered && said {
            let why = "the backup remembers what the machine had: change it with virsh edit, or add --plain";
            return Err(Error::Usage(why.to_owned()));
        }
        Ok(Plain {
            memory_mib: self.memory.unwrap_or(MEMORY_MIB),
            cpus: self.cpus.unwrap_or(CPUS),
            efi: self.firmware == Some(Firmware::Efi),
            bus: match self.bus.unwrap_or(BusName::Virtio) {
                BusName::Virtio => Bus::Virtio,
                BusName::Scsi => Bus::Scsi,
                BusName::Sata => Bus::Sata,
            },
            network: self.network.clone(),
        })
    }
}

impl Defined {
    fn text(&self) -> String {
        let mut text = format!("{} is defined, with the UUID {}\n", self.name, self.uuid);
        for disk in &self.disks {
            let (path, size) = (disk.path.display(), bytes(disk.size_bytes));
            text.push_str(&format!("  {}: {path} ({size})\n", disk.target));
        }
        if self.started {
            text.push_str("It is started.\n");
        }
        text + &self.notes()
    }

    fn notes(&self) -> String {
        match self.left_out.is_empty() {
            true => String::new(),
            false => format!("Left out: {}.\n", self.left_out.join(", ")),
        }
    }
}

/// Where the old machine had a disk: volumes of libvirt are called `DOMAIN/TARGET`.
fn target(disk: &Backup) -> Result<String, Error> {
    let name = &disk.resource_name;
    let target = name.rsplit_once('/').map_or("", |(_, target)| target);
    let is_plain = target.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if target.is_empty() || target.len() > TARGET_MAX || !is_plain {
        let why = format!("where the machine had the disk {name:?} is not known: add --plain");
        return Err(Error::Usage(why));
    }
    Ok(target.to_owned())
}

fn made(path: &Path, source: io::Error) -> Error {
    Error::Unpack {
        path: path.to_owned(),
        source,
    }
}

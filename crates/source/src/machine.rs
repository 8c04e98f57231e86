//! New machines out of backups: what a domain of libvirt is to look like, and its definition.
//!
//! A definition is written anew, from what a backup remembers of its domain (`machine/again.rs`) or, if
//! it remembers nothing, as a plain machine (`machine/plain.rs`). Invariants: a new machine has nothing of
//! the old one that only one can have: neither name, UUID and addresses of network cards nor any file,
//! socket or device of a host but those from which it boots; and it never starts by being defined.
//!
//! The client verbs use it on the host that is to run the machine. Every call blocks.

mod again;
mod plain;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use uuid::Uuid;

use crate::libvirt::error_chain;
use crate::libvirt::virsh::{Virsh, VirshError};
use crate::protectable::ImageFormat;
use crate::{Error, Result};

pub use plain::{Bus, Plain};

/// Bytes of a definition at most.
pub const DEFINITION_BYTES_MAX: usize = 64 << 10;
/// Bytes of a machine's name at most: libvirt makes names of files of it.
const NAME_BYTES_MAX: usize = 100;

/// A machine that is to be.
#[derive(Debug, Clone)]
pub struct NewMachine {
    /// Its name, one that [`check_name`] takes.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its disks, the one that it boots from first.
    pub disks: Vec<NewDisk>,
}

/// A disk of a machine that is to be.
#[derive(Debug, Clone)]
pub struct NewDisk {
    /// Where the guest sees it, `vda` for one.
    pub target: String,
    /// Where its image will be; an absolute path.
    pub path: PathBuf,
    /// The image's format.
    pub format: ImageFormat,
}

/// A definition of a machine, and what it lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// For `virsh define`.
    pub xml: String,
    /// What the old machine had and this one has not, in words; each once.
    pub left_out: Vec<String>,
}

/// Whether a machine can have this name.
///
/// Errors: `Invalid`.
pub fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with(['.', '-'])
        && !name.contains(|sign: char| sign == '/' || sign.is_control());
    match fits {
        true => Ok(()),
        false => Err(Error::MachineName {
            name: name.to_owned(),
        }),
    }
}

impl NewMachine {
    /// The definition of this machine, as much as may be as the one remembered.
    ///
    /// Errors: `Invalid` what is remembered is no definition, or lacks one of the disks.
    pub fn again(&self, remembered: &str) -> Result<Description> {
        again::description(self, remembered)
    }
}

/// A libvirt that machines are defined at.
#[derive(Debug)]
pub struct Hypervisor {
    virsh: Virsh,
    uri: String,
}

impl Hypervisor {
    /// The libvirt at a URI as `virsh --connect` takes it. Nothing is asked yet.
    pub fn new(uri: &str) -> Self {
        Self {
            virsh: Virsh::new(uri),
            uri: uri.to_owned(),
        }
    }

    /// The UUID of the domain that has a name, if one has.
    ///
    /// Errors: `Transient` libvirt does not answer.
    pub fn find(&self, name: &str) -> Result<Option<Uuid>> {
        let said = self.virsh.ask(&["list", "--all", "--uuid", "--name"]);
        let said = said.map_err(|error| self.error(&error))?;
        let mut domains = said.lines().filter_map(|line| line.split_once(' '));
        let found = domains.find(|(_, other)| other.trim() == name);
        Ok(found.and_then(|(uuid, _)| uuid.parse().ok()))
    }

    /// The definition of a plain machine, as this host can run one.
    ///
    /// Errors: `Transient` libvirt does not answer, or with nonsense.
    pub fn plain(&self, new: &NewMachine, plain: &Plain) -> Result<Description> {
        // To look at all QEMUs that are installed takes a while, once.
        let said = self.virsh.tell(&["domcapabilities"]);
        let xml = said.and_then(|said| plain.write(new, &said));
        Ok(Description {
            xml: xml.map_err(|error| self.error(&error))?,
            left_out: Vec::new(),
        })
    }

    /// Defines a machine. One that has its UUID and name already gets the new definition.
    ///
    /// Errors: `Transient` libvirt does not answer, or said no.
    pub fn define(&self, xml: &str) -> Result<()> {
        // A file without a name: a command that is killed leaves none.
        let file = tempfile::tempfile().and_then(|mut file| {
            file.write_all(xml.as_bytes())?;
            Ok(file)
        });
        let file = file.map_err(|error| self.error(&error.into()))?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let defined = self.virsh.tell(&["define", &path]);
        defined.map(drop).map_err(|error| self.error(&error))
    }

    /// Takes the definition of a machine away that was never started.
    ///
    /// Errors: `Transient` libvirt does not answer, or said no.
    pub fn undefine(&self, uuid: Uuid) -> Result<()> {
        let undefined = self.virsh.tell(&["undefine", &uuid.to_string()]);
        undefined.map(drop).map_err(|error| self.error(&error))
    }

    /// Starts a machine that is defined.
    ///
    /// Errors: `Transient` libvirt does not answer, or said no.
    pub fn start(&self, uuid: Uuid) -> Result<()> {
        let started = self.virsh.tell(&["start", &uuid.to_string()]);
        started.map(drop).map_err(|error| self.error(&error))
    }

    fn error(&self, error: &VirshError) -> Error {
        Error::Hypervisor {
            uri: self.uri.clone(),
            why: error_chain(error),
        }
    }
}

#[cfg(test)]
mod tests;

//! Why a source could not do what it was asked.

use std::io;

use cairn_types::disk::Because;
use cairn_types::{Kind, ResourceId};

use crate::guest::StartFailed;
use crate::libvirt::virsh::VirshError;
use crate::qmp::QmpError;

/// Why a source could not do what it was asked. Texts name a volume by its
/// path below the folder, never by its place on the host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two sources have one name, so their volumes would have the same ids.
    #[error("two sources are named {name:?}")]
    DuplicateSource {
        /// The name.
        name: String,
    },
    /// A source cannot be used as it is configured.
    #[error("source {name:?}: {why}")]
    BadSource {
        /// The source's name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A server cannot be used as it is configured.
    #[error("server {server:?} of source {name:?}: {why}")]
    BadServer {
        /// The source's name.
        name: String,
        /// The server's name.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// The folder of a source cannot be listed.
    #[error("cannot list the folder of source {name:?}")]
    Folder {
        /// The source's name.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder holds more than this crate is made for.
    #[error("source {name:?} holds more than {limit} images")]
    TooManyVolumes {
        /// The source's name.
        name: String,
        /// How many there may be.
        limit: usize,
    },
    /// No protectable has this id.
    #[error("no protectable has the id {id}")]
    NotFound {
        /// The id that was asked for.
        id: ResourceId,
    },
    /// A server or a share was to be opened as if it were a disk.
    #[error("{name} is no disk")]
    NotAVolume {
        /// Its name.
        name: String,
    },
    /// A disk or a server was to be opened as if it were a share.
    #[error("{name} is no share")]
    NotAShare {
        /// Its name.
        name: String,
    },
    /// A folder below that of a share cannot be opened or made.
    #[error("cannot open {folder:?} in share {share}")]
    OpenFolder {
        /// The share's name.
        share: String,
        /// The folder's path below the share.
        folder: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The folder of a share cannot be opened.
    #[error("cannot open the folder of share {share}")]
    OpenShare {
        /// The share's name.
        share: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A configured disk has no file.
    #[error("the image {volume} is missing")]
    Missing {
        /// The volume's name.
        volume: String,
    },
    /// Another program, or another restore, has the image open.
    #[error("the image {volume} is in use by another program")]
    InUse {
        /// The volume's name.
        volume: String,
    },
    /// The file is not an image that can be read or written.
    #[error("the image {volume} cannot be used: {why}")]
    Unusable {
        /// The volume's name.
        volume: String,
        /// Why not.
        why: String,
    },
    /// The file cannot be opened.
    #[error("cannot open the image {volume}")]
    Open {
        /// The volume's name.
        volume: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A guest that runs has the image.
    #[error("the image {volume} is a disk of {server}, which runs: stop it first")]
    GuestRuns {
        /// The volume's name.
        volume: String,
        /// The server's name.
        server: String,
    },
    /// A guest is being backed up already.
    #[error("{server} is being backed up")]
    GuestBusy {
        /// The server's name.
        server: String,
    },
    /// Somebody else has the QEMU of a guest serve NBD.
    #[error("the NBD server in the QEMU of {server} is in use by another program")]
    NbdServerTaken {
        /// The server's name.
        server: String,
    },
    /// To read the disks of a running guest could end its QEMU.
    #[error(
        "{server} cannot be backed up while it runs: it has I/O threads, and its QEMU is older than 9.0"
    )]
    FragileQemu {
        /// The server's name.
        server: String,
    },
    /// The disks of a running guest cannot be read through its QEMU.
    #[error("cannot read the disks of {server} while it runs: {}", told(source))]
    Guest {
        /// The server's name.
        server: String,
        /// What went wrong, with what QEMU said.
        #[source]
        source: io::Error,
    },
    /// libvirt has another job for a domain, beside which it begins no backup.
    #[error("{server} has another job at libvirt: a backup, a migration or a save")]
    OtherJob {
        /// The server's name.
        server: String,
    },
    /// The memory of a guest is saved, and goes with what is on its disks.
    #[error(
        "the image {volume} is a disk of {server}, whose memory is saved: start it, or drop what is saved"
    )]
    GuestSaved {
        /// The volume's name.
        volume: String,
        /// The server's name.
        server: String,
    },
    /// A domain would be gone if it was turned off.
    #[error("{server} is not turned off: it is not defined at libvirt, and would be gone")]
    NotDefined {
        /// The server's name.
        server: String,
    },
    /// A libvirt cannot be asked.
    #[error("libvirt of source {name:?} cannot be asked: {why}")]
    Libvirt {
        /// The source's name.
        name: String,
        /// What `virsh` said.
        why: String,
    },
    /// A machine cannot be called so.
    #[error(
        "a machine cannot be called {name:?}: at most 100 bytes, without a slash, and no dot or hyphen first"
    )]
    MachineName {
        /// The name.
        name: String,
    },
    /// What is remembered of a domain cannot be used.
    #[error("the definition that the backup remembers cannot be used: {why}")]
    Definition {
        /// Why not.
        why: String,
    },
    /// The libvirt of a new machine did not do what it was told.
    #[error("libvirt at {uri:?}: {why}")]
    Hypervisor {
        /// How it is reached.
        uri: String,
        /// What `virsh` said.
        why: String,
    },
    /// Nobody has said how a server is started.
    #[error("{server} cannot be started: it has no start_command")]
    NoStartCommand {
        /// The server's name.
        server: String,
    },
    /// The command that starts a server goes on and on.
    #[error(
        "{server} cannot be started: its start_command has not returned within {limit_seconds} seconds, \
         and was ended; it must return once the server is started"
    )]
    StartHangs {
        /// The server's name.
        server: String,
        /// How long it was waited for.
        limit_seconds: u64,
    },
    /// A guest writes to an image above this one.
    #[error(
        "the image {volume} is not what {server} writes to: its QEMU has it beneath another image, as after \
         an external snapshot"
    )]
    Beneath {
        /// The volume's name.
        volume: String,
        /// The server's name.
        server: String,
    },
    /// A server cannot be turned off or on.
    #[error("cannot turn {server} off or on: {}", told(source))]
    Power {
        /// The server's name.
        server: String,
        /// What went wrong, with what was said.
        #[source]
        source: io::Error,
    },
    /// A disk was asked for together with a server that it is none of.
    #[error("{volume} is no disk of {server}")]
    NotItsDisk {
        /// The volume's name.
        volume: String,
        /// The server's name.
        server: String,
    },
    /// Something else was to be opened as if it were a server.
    #[error("{name} is no server")]
    NotAServer {
        /// Its name.
        name: String,
    },
    /// The program that reads qcow2 images is not installed.
    #[error("cannot open the image {volume}: the program qemu-nbd (package qemu-utils) is missing")]
    NoQemu {
        /// The volume's name.
        volume: String,
    },
    /// The program that reads qcow2 images did not serve this one.
    #[error("qemu-nbd could not serve the image {volume}")]
    Serve {
        /// The volume's name.
        volume: String,
        /// What went wrong, with what the program said.
        #[source]
        source: io::Error,
    },
}

/// What tenants are told of why a guest cannot be asked: what QEMU and libvirt say in words of
/// their own may tell of the host, and is for the log.
pub(crate) fn told(source: &io::Error) -> String {
    let inner = source.get_ref();
    if let Some(why) = Because::of(source) {
        return why.to_string();
    }
    if let Some(failed) = inner.and_then(|inner| inner.downcast_ref::<StartFailed>()) {
        return failed.how.clone();
    }
    match inner.and_then(|inner| inner.downcast_ref()) {
        Some(QmpError::Refused { command, .. }) => return format!("QEMU refused {command}"),
        Some(error) => return error.to_string(),
        None => {}
    }
    match inner.and_then(|inner| inner.downcast_ref()) {
        Some(VirshError::Refused { command, .. }) => format!("libvirt refused {command}"),
        Some(error) => error.to_string(),
        None if source.kind() == io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        None => source.kind().to_string(),
    }
}

impl Error {
    /// What a caller should do about it; the only thing callers branch on.
    pub fn kind(&self) -> Kind {
        match self {
            Self::DuplicateSource { .. }
            | Self::BadSource { .. }
            | Self::BadServer { .. }
            | Self::NotAVolume { .. }
            | Self::NotAShare { .. }
            | Self::NotItsDisk { .. }
            | Self::FragileQemu { .. }
            | Self::NotAServer { .. }
            | Self::NotDefined { .. }
            | Self::NoStartCommand { .. }
            | Self::StartHangs { .. }
            | Self::Beneath { .. }
            | Self::Unusable { .. }
            | Self::MachineName { .. }
            | Self::Definition { .. }
            | Self::NoQemu { .. } => Kind::Invalid,
            Self::TooManyVolumes { .. } => Kind::Exhausted,
            Self::NotFound { .. } | Self::Missing { .. } => Kind::NotFound,
            Self::InUse { .. }
            | Self::GuestRuns { .. }
            | Self::GuestBusy { .. }
            | Self::GuestSaved { .. }
            | Self::OtherJob { .. }
            | Self::NbdServerTaken { .. } => Kind::Conflict,
            Self::Libvirt { .. } | Self::Hypervisor { .. } => Kind::Transient,
            Self::Folder { source, .. }
            | Self::Open { source, .. }
            | Self::OpenShare { source, .. }
            | Self::OpenFolder { source, .. }
            | Self::Serve { source, .. }
            | Self::Guest { source, .. }
            | Self::Power { source, .. } => io_kind(source),
        }
    }
}

/// What a caller should do about a system error.
fn io_kind(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::ResourceBusy => Kind::Conflict,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Exhausted,
        io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidData
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotADirectory => Kind::Invalid,
        _ => Kind::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_told_why_a_guest_cannot_be_read_and_nothing_of_the_host() {
        let told = |source: io::Error| {
            let server = "web-1".to_owned();
            Error::Guest { server, source }.to_string()
        };
        let refused = QmpError::Refused {
            command: "blockdev-add".to_owned(),
            text: "Could not open '/srv/images/web.qcow2'".to_owned(),
        };
        let begin = "cannot read the disks of web-1 while it runs: ";
        for (source, end) in [
            (refused.into(), "QEMU refused blockdev-add"),
            (
                QmpError::Silent.into(),
                "QEMU does not answer; somebody else may be connected to its socket",
            ),
            (io::ErrorKind::ConnectionReset.into(), "connection reset"),
            (
                VirshError::Refused {
                    command: "backup-begin".to_owned(),
                    text: "cannot open /srv/images/web.qcow2".to_owned(),
                }
                .into(),
                "libvirt refused backup-begin",
            ),
            (
                Because::error(io::ErrorKind::StorageFull, "3 MiB are free"),
                "3 MiB are free",
            ),
            (
                io::Error::new(io::ErrorKind::TimedOut, "virsh, at /run/libvirt"),
                "it does not answer",
            ),
        ] {
            assert_eq!(told(source), format!("{begin}{end}"));
        }
    }
}

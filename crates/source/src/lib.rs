//! Reading what is protected and writing what is restored: folders of disk
//! images and folders of files, described by the configuration, and what a libvirt has.
//!
//! An [`Inventory`] lists the volumes and servers that the configured sources
//! hold and opens a volume as a [`DiskReader`](cairn_types::disk::DiskReader)
//! or a [`DiskWriter`](cairn_types::disk::DiskWriter), and a share as a
//! [`Folder`]. Invariants:
//!
//! - an id is a pure function of the source's name and the path below its
//!   folder, so it survives restarts and moves of the folder; those of libvirt's domains are
//!   their own, and follow from that and from where the guest sees a disk;
//! - an image that another program has open for writing is never read, and
//!   one that anybody has open is never written (the locks are QEMU's own);
//! - what a reader returned is one point in time, or `check_unchanged` says not.
//!
//! Every call blocks. `core` calls it from its blocking threads; the tests of
//! `repo` and `core` use its disks through the traits of `types`.

mod change_map;
mod config;
mod direct;
mod error;
mod fingerprint;
mod folder;
mod guest;
mod inventory;
mod libvirt;
mod lines;
mod lock;
pub mod machine;
mod nbd;
mod protectable;
mod qcow2;
mod qemu;
mod qmp;
mod raw;
mod scan;
#[allow(
    unsafe_code,
    reason = "system calls that no safe wrapper offers; nothing else lives there"
)]
mod sys;

pub use config::{ImagesConfig, LibvirtConfig, ServerConfig, ShareConfig, SourceConfig};
pub use error::Error;
pub use folder::{Device, Folder, FolderOptions, Moment};
pub use guest::freeze::{Freezer, NotFrozen, Why};
pub use guest::{Consistency, Level, PoweredOff, ServerReaders};
pub use inventory::Inventory;
pub use protectable::{ImageFormat, Protectable, ProtectableStatus};
pub use scan::{MAX_DEPTH, MAX_VOLUMES};

/// What every fallible call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Makes a new raw image of zeros at `path`, to restore a disk to outside of
/// every configured folder.
///
/// Errors: `Invalid` something is there already; `Denied`; `Exhausted`.
pub fn create_raw(
    path: &std::path::Path,
    size_bytes: u64,
) -> Result<std::sync::Arc<dyn cairn_types::disk::DiskWriter>> {
    Ok(std::sync::Arc::new(raw::RawDisk::create(path, size_bytes)?))
}

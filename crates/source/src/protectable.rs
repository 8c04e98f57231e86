//! What an inventory lists.

use std::collections::BTreeMap;
use std::path::Path;

use cairn_types::{ProjectId, ResourceId, ResourceType};
use uuid::Uuid;

/// The namespace of the ids of volumes and servers; drawn once, never changed.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f0c_41c5_9f5b_4b4e_8d0a_3a7d_52be_9c11);

/// Something that can be protected: a volume, a server with its volumes, or a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protectable {
    /// Its id, the same on every start.
    pub id: ResourceId,
    /// A volume's path below its folder, or the configured name of a server or a share.
    pub name: String,
    /// Volume, server or share.
    pub resource_type: ResourceType,
    /// The size that a guest sees; a server's is the sum of its volumes'. 0 if
    /// not known, as it never is of a share: only reading all of it would tell.
    pub size_bytes: u64,
    /// The name of the source that it belongs to.
    pub source: String,
    /// The project that it belongs to; the first project if unset.
    pub project: Option<ProjectId>,
    /// A server's volumes, system disk first; a volume has none.
    pub children: Vec<Protectable>,
    /// Whether it is the system disk of a server.
    pub system_disk: bool,
    /// Whether it can be opened, as far as a listing can tell.
    pub status: ProtectableStatus,
    /// How a volume is stored; nothing else has one.
    pub format: Option<ImageFormat>,
    /// What its source is tagged with, and it itself.
    pub tags: BTreeMap<String, String>,
}

/// Whether a protectable can be opened, as far as a listing can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProtectableStatus {
    /// It is there and looks as it should.
    Available,
    /// The same, of a server whose guest runs.
    Running,
    /// Its file is there but is not an image that can be opened.
    Unusable,
    /// Its file is not there.
    Missing,
}

impl ProtectableStatus {
    /// Whether it looks as it should.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Available | Self::Running)
    }

    /// That of a server whose disks, taken together, have this one.
    pub(crate) fn of_server(self, runs: impl FnOnce() -> bool) -> Self {
        match self {
            Self::Available if runs() => Self::Running,
            other => other,
        }
    }
}

impl std::fmt::Display for ProtectableStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Available => "available",
            Self::Running => "running",
            Self::Unusable => "unusable",
            Self::Missing => "missing",
        })
    }
}

/// How a volume is stored, told by the end of its name: never by its content,
/// which a guest could shape so as to have other files of the host read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// The bytes of the disk as they are; a file or a block device.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl ImageFormat {
    /// The format of the image at `path`; `None` if its name is not that of an image.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "raw" | "img" => Some(Self::Raw),
            "qcow2" => Some(Self::Qcow2),
            _ => None,
        }
    }
}

/// The id of the volume `name` of `source`.
pub(crate) fn volume_id(source: &str, name: &str) -> ResourceId {
    id(&format!("images/{source}/{name}"))
}

/// The id of the server `name` of `source`. No volume can have the same: an
/// image's path has no empty part.
pub(crate) fn server_id(source: &str, name: &str) -> ResourceId {
    id(&format!("images/{source}//server/{name}"))
}

/// The id of a share. Nothing of a folder of images can have the same.
pub(crate) fn share_id(source: &str) -> ResourceId {
    id(&format!("share/{source}"))
}

fn id(name: &str) -> ResourceId {
    ResourceId::from_uuid(Uuid::new_v5(&NAMESPACE, name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_change() {
        let volume = volume_id("lab", "web-data.img").to_string();
        assert_eq!(volume, "54aef4e3-98a2-5560-b4f0-df67528e6dd0");
        let server = server_id("lab", "web-1").to_string();
        assert_eq!(server, "60eafc96-8d9b-51f0-b783-2d1a4b7cef76");
        let share = share_id("home").to_string();
        assert_eq!(share, "e4c9f17a-1be5-5d6d-b8f1-aae91464d4b9");
    }

    #[test]
    fn a_server_is_never_taken_for_a_volume() {
        assert_ne!(volume_id("lab", "server/a.img"), server_id("lab", "a.img"));
    }

    #[test]
    fn the_end_of_the_name_tells_the_format() {
        assert_eq!(
            ImageFormat::of(Path::new("a/b.img")),
            Some(ImageFormat::Raw)
        );
        assert_eq!(ImageFormat::of(Path::new("b.raw")), Some(ImageFormat::Raw));
        assert_eq!(
            ImageFormat::of(Path::new("b.qcow2")),
            Some(ImageFormat::Qcow2)
        );
        assert_eq!(ImageFormat::of(Path::new("b.qcow2.bak")), None);
        assert_eq!(ImageFormat::of(Path::new("qcow2")), None);
    }
}

//! The disks of a guest, as its QEMU tells them, and which image each is.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::qmp::{Qmp, QmpError};

/// Descriptions within one another that QEMU gives in place of a file's name.
const MAX_NESTED: usize = 16;

/// A node of QEMU's block layer.
/// Source: QEMU, `qapi/block-core.json`, `BlockDeviceInfo`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Node {
    #[serde(rename = "node-name", default)]
    pub(super) name: String,
    drv: String,
    #[serde(default)]
    file: String,
    image: Image,
    #[serde(rename = "dirty-bitmaps", default)]
    pub(super) bitmaps: Vec<BitmapInfo>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    virtual_size: u64,
    cluster_size: Option<u64>,
    backing_filename: Option<String>,
    #[serde(default)]
    snapshots: Vec<Value>,
}

/// A dirty bitmap of a node.
/// Source: QEMU, `qapi/block-core.json`, `BlockDirtyInfo`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct BitmapInfo {
    #[serde(default)]
    pub(super) name: String,
    pub(super) recording: bool,
    pub(super) busy: bool,
    pub(super) persistent: bool,
    #[serde(default)]
    pub(super) inconsistent: bool,
    pub(super) granularity: u32,
}

/// A device of a guest, and what it has.
#[derive(Debug, Deserialize)]
pub(super) struct Device {
    #[serde(default)]
    pub(super) qdev: Option<String>,
    pub(super) inserted: Option<Node>,
}

/// A disk that a guest has.
#[derive(Debug)]
pub(super) struct Attached {
    /// The device's place among QEMU's objects.
    pub(super) device: String,
    /// The node that the device reads and writes.
    pub(super) root: String,
    /// The file's name, as QEMU has it.
    pub(super) file: String,
    pub(super) size_bytes: u64,
    identity: Option<Identity>,
    /// The node of its image, if that is one of qcow2.
    pub(super) qcow2: Option<Node>,
}

/// What a guest's QEMU has of images.
#[derive(Debug)]
pub(super) struct Images {
    /// The disks that the guest has.
    pub(super) disks: Vec<Attached>,
    /// Every file that is open for them or beneath them.
    open: Vec<Identity>,
}

impl Images {
    /// Whether the image at `path` is open, as a disk or otherwise.
    pub(super) fn has_open(&self, path: &Path) -> bool {
        Identity::of(path).is_some_and(|image| self.open.contains(&image))
    }

    /// Whether the image at `path` is open and no disk: the guest writes to another one above it.
    pub(super) fn is_beneath(&self, path: &Path) -> bool {
        self.has_open(path) && !self.disks.iter().any(|disk| disk.is_at(path))
    }
}

/// What tells that two paths lead to one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    File(u64, u64),
    Device(u64),
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(match metadata.file_type().is_block_device() {
            true => Self::Device(metadata.rdev()),
            false => Self::File(metadata.dev(), metadata.ino()),
        })
    }
}

impl Attached {
    /// Whether this disk's image is the file at `path`.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        self.identity.is_some() && self.identity == Identity::of(path)
    }
}

impl Node {
    /// A write into one of these allocates all of it.
    pub(super) fn cluster_bytes(&self) -> Option<u64> {
        self.image.cluster_size
    }

    /// Whether other states lie beneath or within it.
    pub(super) fn is_layered(&self) -> bool {
        self.image.backing_filename.is_some() || !self.image.snapshots.is_empty()
    }
}

/// Every device of the guest that could have a disk.
pub(super) fn devices(qmp: &mut Qmp) -> Result<Vec<Device>, QmpError> {
    qmp.ask("query-block", &json!({}))
}

/// Every node that has a name.
pub(super) fn nodes(qmp: &mut Qmp) -> Result<Vec<Node>, QmpError> {
    qmp.ask("query-named-block-nodes", &json!({"flat": true}))
}

/// The images that the guest's QEMU has.
pub(super) fn images(qmp: &mut Qmp) -> Result<Images, QmpError> {
    let pid = qmp.pid()?.as_raw_nonzero();
    // Names that are not absolute count from QEMU's own folder, where that can be known.
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
    let devices = devices(qmp)?;
    let nodes = nodes(qmp)?;
    let paths = nodes
        .iter()
        .map(|node| path_of(&node.file, folder.as_deref()));
    let open = paths.flatten().filter_map(|path| Identity::of(&path));
    let open = open.collect();
    let disks = devices.into_iter().filter_map(|device| {
        let (qdev, root) = (device.qdev?, device.inserted?);
        let path = path_of(&root.file, folder.as_deref());
        Some(Attached {
            device: qdev,
            size_bytes: root.image.virtual_size,
            identity: path.as_deref().and_then(Identity::of),
            qcow2: qcow2_of(&root, &nodes, folder.as_deref()),
            file: root.file,
            root: root.name,
        })
    });
    Ok(Images {
        disks: disks.collect(),
        open,
    })
}

/// The node of the qcow2 image that is read at `root`: there may be filters between.
fn qcow2_of(root: &Node, nodes: &[Node], folder: Option<&Path>) -> Option<Node> {
    let path = path_of(&root.file, folder);
    let is_same = |node: &&Node| match root.drv.as_str() {
        "qcow2" => node.name == root.name,
        _ => path.is_some() && path_of(&node.file, folder) == path,
    };
    let mut found = nodes
        .iter()
        .filter(|node| node.drv == "qcow2")
        .filter(is_same);
    let first = found.next()?;
    found.next().is_none().then(|| first.clone())
}

/// The path in what QEMU calls a file: a path, or a description of several nodes.
fn path_of(name: &str, folder: Option<&Path>) -> Option<PathBuf> {
    let path = match name.strip_prefix("json:") {
        None => PathBuf::from(name),
        Some(description) => {
            let description: Value = serde_json::from_str(description).ok()?;
            let mut node = &description;
            for _ in 0..MAX_NESTED {
                node = node.get("file").unwrap_or(node);
            }
            PathBuf::from(node.get("filename")?.as_str()?)
        }
    };
    match path.is_absolute() {
        true => Some(path),
        false => Some(folder?.join(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_found_in_whatever_qemu_calls_a_file() {
        let found = |name| path_of(name, Some(Path::new("/cwd")));
        assert_eq!(found("/a/b.img"), Some(PathBuf::from("/a/b.img")));
        assert_eq!(found("b.img"), Some(PathBuf::from("/cwd/b.img")));
        let nested = r#"json:{"driver": "qcow2", "file": {"driver": "raw", "file":
            {"driver": "file", "filename": "/a/c.qcow2"}}}"#;
        assert_eq!(found(nested), Some(PathBuf::from("/a/c.qcow2")));
        assert_eq!(found("json:{"), None);
        assert_eq!(found(r#"json:{"driver": "rbd", "pool": "x"}"#), None);
        assert_eq!(path_of("b.img", None), None);
    }
}

//! A domain as libvirt describes it, as far as it matters here.
//! Source: libvirt, `docs/formatdomain.rst`.

use std::collections::HashMap;
use std::path::PathBuf;

use cairn_types::ResourceId;
use roxmltree::{Document, Node};
use uuid::Uuid;

use super::virsh::{Result, VirshError};
use crate::protectable::ImageFormat;

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Domain {
    pub(super) uuid: Uuid,
    pub(super) name: String,
    /// Whether it has a QEMU, paused or not.
    pub(super) is_active: bool,
    /// Its disks, the one it boots from first.
    pub(super) disks: Vec<Disk>,
    /// Where the guest sees disks that cannot be protected.
    pub(super) others: Vec<String>,
}

/// A disk of a domain that lies in a file or on a block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) id: ResourceId,
    /// Where the guest sees it, `vda` for one; no two of a domain have the same.
    pub(super) target: String,
    pub(super) path: PathBuf,
    pub(super) format: ImageFormat,
    pub(super) read_only: bool,
}

impl Domain {
    /// Reads what `virsh dumpxml` says.
    pub(super) fn parse(xml: &str) -> Result<Self> {
        let document = parse(xml)?;
        let root = document.root_element();
        let text = |name| child(root, name).and_then(|node| node.text());
        let uuid = text("uuid").and_then(|text| text.parse().ok());
        let (Some(uuid), Some(name)) = (uuid, text("name")) else {
            return Err(VirshError::Protocol("a domain has no name".to_owned()));
        };
        let devices = child(root, "devices");
        let disks = devices.into_iter().flat_map(|devices| devices.children());
        let disks = disks.filter(|node| node.has_tag_name("disk"));
        let disks = disks.filter(|disk| matches!(disk.attribute("device"), None | Some("disk")));
        let disks: Vec<_> = disks.collect();
        let mut serials: HashMap<&str, usize> = HashMap::new();
        for serial in disks.iter().filter_map(|disk| serial(*disk)) {
            *serials.entry(serial).or_default() += 1;
        }
        let mut domain = Self {
            uuid,
            name: name.to_owned(),
            is_active: root.has_attribute("id"),
            disks: Vec::with_capacity(disks.len()),
            others: Vec::new(),
        };
        let mut ordered = Vec::with_capacity(disks.len());
        for disk in disks {
            let Some(target) = child(disk, "target").and_then(|target| target.attribute("dev"))
            else {
                continue;
            };
            // A serial that two disks have tells neither.
            let serial = serial(disk).filter(|serial| serials[serial] == 1);
            match Disk::read(disk, uuid, target, serial) {
                Some(found) => ordered.push((boot_order(disk), found)),
                None => domain.others.push(target.to_owned()),
            }
        }
        // Those that have no place in the order come behind, as they stand.
        ordered.sort_by_key(|(order, _)| *order);
        domain.disks = ordered.into_iter().map(|(_, disk)| disk).collect();
        Ok(domain)
    }

    pub(super) fn id(&self) -> ResourceId {
        ResourceId::from_uuid(self.uuid)
    }

    /// What a disk is called.
    pub(super) fn volume_name(&self, disk: &Disk) -> String {
        format!("{}/{}", self.name, disk.target)
    }
}

impl Disk {
    fn read(node: Node<'_, '_>, domain: Uuid, target: &str, serial: Option<&str>) -> Option<Self> {
        let source = child(node, "source")?;
        let path = match node.attribute("type")? {
            "file" => source.attribute("file")?,
            "block" => source.attribute("dev")?,
            _ => return None,
        };
        // What is encrypted by QEMU would be plain while it runs, and not when it rests.
        if child(node, "encryption")
            .or(child(source, "encryption"))
            .is_some()
        {
            return None;
        }
        // Without a word of it libvirt takes a disk for raw.
        let driver = child(node, "driver").and_then(|driver| driver.attribute("type"));
        let format = match driver {
            None | Some("raw") => ImageFormat::Raw,
            Some("qcow2") => ImageFormat::Qcow2,
            Some(_) => return None,
        };
        Some(Self {
            id: disk_id(domain, target, serial),
            target: target.to_owned(),
            path: PathBuf::from(path),
            format,
            read_only: child(node, "readonly").is_some(),
        })
    }
}

/// The id of a disk: a serial stays with it wherever it is plugged in, its place in the guest
/// tells it otherwise; never the path of its image.
fn disk_id(domain: Uuid, target: &str, serial: Option<&str>) -> ResourceId {
    let name = match serial {
        Some(serial) => format!("serial/{serial}"),
        None => format!("target/{target}"),
    };
    ResourceId::from_uuid(Uuid::new_v5(&domain, name.as_bytes()))
}

pub(crate) fn parse(xml: &str) -> Result<Document<'_>> {
    Document::parse(xml).map_err(|error| VirshError::Protocol(error.to_string()))
}

pub(crate) fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn serial<'a>(disk: Node<'a, '_>) -> Option<&'a str> {
    child(disk, "serial")?
        .text()
        .filter(|serial| !serial.is_empty())
}

fn boot_order(disk: Node<'_, '_>) -> u32 {
    let order = child(disk, "boot").and_then(|boot| boot.attribute("order"));
    order
        .and_then(|order| order.parse().ok())
        .unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(target: &str, inside: &str) -> String {
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
             <source file='/images/{target}.qcow2'/><target dev='{target}' bus='virtio'/>{inside}</disk>"
        )
    }

    fn domain(id: &str, disks: &str) -> Domain {
        let xml = format!(
            "<domain type='qemu'{id}><name>a &amp; b</name>\
             <uuid>6e644776-b143-4783-b9ee-f377dc61cee5</uuid><devices>{disks}</devices></domain>"
        );
        Domain::parse(&xml).unwrap()
    }

    #[test]
    fn disks_are_found_and_what_is_none_is_not() {
        let disks = [
            &disk("vda", ""),
            &disk("vdb", "<boot order='2'/><readonly/>"),
            &disk("vdc", "<boot order='1'/>"),
            "<disk type='block'><source dev='/dev/vg/lv'/><target dev='sda'/></disk>",
            "<disk type='file' device='cdrom'><source file='/a.iso'/><target dev='hda'/></disk>",
            "<disk type='file' device='cdrom'><target dev='hdb'/></disk>",
            "<disk type='network' device='disk'><source protocol='rbd' name='x/y'/><target dev='vdd'/></disk>",
            &disk("vde", "<encryption format='luks'/>"),
        ]
        .concat();
        let found = domain(" id='3'", &disks);
        assert!(found.is_active);
        assert_eq!(found.name, "a & b");
        let targets: Vec<_> = found
            .disks
            .iter()
            .map(|disk| disk.target.as_str())
            .collect();
        assert_eq!(targets, ["vdc", "vdb", "vda", "sda"]);
        assert_eq!(found.others, ["vdd", "vde"]);
        assert!(found.disks[1].read_only && !found.disks[0].read_only);
        assert_eq!(found.disks[3].format, ImageFormat::Raw);
        assert_eq!(found.disks[3].path, PathBuf::from("/dev/vg/lv"));
        assert!(!domain("", "").is_active);
    }

    #[test]
    fn a_disk_keeps_its_id() {
        let one = domain("", &disk("vda", ""));
        let moved = disk("vda", "").replace("/images/", "/elsewhere/");
        assert_eq!(one.disks[0].id, domain("", &moved).disks[0].id);
        assert_eq!(
            one.disks[0].id.to_string(),
            "03e64dca-55e8-5ae8-940f-147d2601f353"
        );
        let with = |target| domain("", &disk(target, "<serial>S1</serial>")).disks[0].id;
        assert_eq!(with("vda"), with("vdb"));
        assert_ne!(with("vda"), one.disks[0].id);
        let twice = ["vda", "vdb"].map(|target| disk(target, "<serial>S1</serial>"));
        let twice = domain("", &twice.concat());
        assert_eq!(twice.disks[0].id, one.disks[0].id);
        assert_ne!(twice.disks[1].id, twice.disks[0].id);
    }

    #[test]
    fn what_is_no_domain_is_an_error() {
        for xml in [
            "",
            "<domain/>",
            "<domain><name>a</name><uuid>x</uuid></domain>",
            "<domain>",
        ] {
            assert!(Domain::parse(xml).is_err(), "{xml}");
        }
    }
}

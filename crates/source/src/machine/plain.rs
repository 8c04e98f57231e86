//! A machine of which a backup remembers nothing but its disks.

use crate::libvirt::domain::{child, parse};
use crate::libvirt::virsh::{self, VirshError};
use crate::libvirt::xml::{element, text};

use super::again::driver_and_source;
use super::{NewDisk, NewMachine};

/// What a plain machine is to have.
#[derive(Debug, Clone)]
pub struct Plain {
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// How many processors.
    pub cpus: u32,
    /// Whether it boots by UEFI, not by a BIOS.
    pub efi: bool,
    /// What its disks are at.
    pub bus: Bus,
    /// The network of libvirt's that its one network card is in; it has none if not given.
    pub network: Option<String>,
}

/// What a disk can be at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// A device of virtio each.
    Virtio,
    /// SCSI, by a controller of virtio.
    Scsi,
    /// SATA: any system has a driver.
    Sata,
}

impl Bus {
    const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Scsi => "scsi",
            Self::Sata => "sata",
        }
    }

    /// Where a guest sees the disk with this number, from 0 on: `vda`, …, `vdz`, `vdaa`.
    pub fn target(self, number: usize) -> String {
        let (mut rest, mut letters) = (number, Vec::new());
        loop {
            letters.insert(0, b'a' + (rest % 26) as u8);
            match rest / 26 {
                0 => break,
                more => rest = more - 1,
            }
        }
        let prefix = match self {
            Self::Virtio => "vd",
            Self::Scsi | Self::Sata => "sd",
        };
        let letters = String::from_utf8(letters).expect("letters are ASCII");
        format!("{prefix}{letters}")
    }
}

impl Plain {
    /// Writes the definition, for a host whose libvirt says `capabilities` by `virsh domcapabilities`.
    /// Source: libvirt, `docs/formatdomain.rst` and `docs/formatdomaincaps.rst`.
    pub(super) fn write(&self, new: &NewMachine, capabilities: &str) -> virsh::Result<String> {
        let document = parse(capabilities)?;
        let told = |name| {
            let node = child(document.root_element(), name);
            let told = node.and_then(|node| node.text());
            told.ok_or_else(|| VirshError::Protocol(format!("it tells no {name}")))
        };
        let (kind, arch) = (told("domain")?, told("arch")?);
        // A machine that changes with QEMU's version is not meant: libvirt resolves these for good.
        let (machine, is_pc) = match arch {
            "x86_64" => (Some("q35"), true),
            "aarch64" => (Some("virt"), false),
            _ => (None, false),
        };
        let mut system = vec![("arch", arch)];
        system.extend(machine.map(|machine| ("machine", machine)));
        let firmware: &[_] = if self.efi {
            &[("firmware", "efi")]
        } else {
            &[]
        };
        let uuid = new.uuid.to_string();
        let features = match is_pc {
            true => "<acpi/><apic/>",
            false => "",
        };
        let inside = [
            element("name", &[], &text(&new.name)),
            element("uuid", &[], &uuid),
            element("memory", &[("unit", "MiB")], &self.memory_mib.to_string()),
            element("vcpu", &[], &self.cpus.to_string()),
            element("os", firmware, &element("type", &system, "hvm")),
            element("features", &[], features),
            element("cpu", &[("mode", "maximum")], ""),
            element("devices", &[], &self.devices(new, is_pc)),
        ];
        Ok(element("domain", &[("type", kind)], &inside.concat()))
    }

    fn devices(&self, new: &NewMachine, is_pc: bool) -> String {
        let mut devices = String::new();
        if self.bus == Bus::Scsi {
            let controller = [("type", "scsi"), ("model", "virtio-scsi")];
            devices.push_str(&element("controller", &controller, ""));
        }
        for disk in &new.disks {
            devices.push_str(&self.disk(disk));
        }
        if let Some(network) = &self.network {
            let inside = [
                element("source", &[("network", network)], ""),
                element("model", &[("type", "virtio")], ""),
            ];
            let card = element("interface", &[("type", "network")], &inside.concat());
            devices.push_str(&card);
        }
        let agent = [("type", "virtio"), ("name", "org.qemu.guest_agent.0")];
        let video = if is_pc { "vga" } else { "virtio" };
        devices.push_str(&element("serial", &[("type", "pty")], ""));
        let agent = element("target", &agent, "");
        devices.push_str(&element("channel", &[("type", "unix")], &agent));
        devices.push_str("<graphics type='vnc' autoport='yes'/>");
        let model = element("model", &[("type", video)], "");
        devices.push_str(&element("video", &[], &model));
        devices
    }

    fn disk(&self, disk: &NewDisk) -> String {
        let target = [("dev", disk.target.as_str()), ("bus", self.bus.name())];
        let inside = driver_and_source(disk, &[]) + &element("target", &target, "");
        element("disk", &[("type", "file"), ("device", "disk")], &inside)
    }
}

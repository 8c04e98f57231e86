//! A machine as a backup remembers it: the old definition without what only one machine can have.
//!
//! What may stay is listed, so that what is not known here is left out, and said. The definition may be
//! of somebody else's host: of the files that it names, those alone are taken over that a machine boots from.

use std::ops::Range;

use roxmltree::{Attribute, Document, Node};

use super::{DEFINITION_BYTES_MAX, Description, NewDisk, NewMachine};
use crate::libvirt::domain::child;
use crate::libvirt::xml::{element, text};
use crate::protectable::ImageFormat;
use crate::{Error, Result};

/// What of a disk stays beside its driver.
const OF_A_DISK: &[&str] = &[
    "target", "serial", "wwn", "vendor", "product", "boot", "address", "iotune", "readonly",
    "blockio", "geometry",
];
/// What of a drive for removable disks stays: what lies in it is a file of the old host.
const OF_A_DRIVE: &[&str] = &["target", "boot", "address", "readonly"];
/// What of a network card stays.
const OF_A_CARD: &[&str] = &[
    "source",
    "model",
    "driver",
    "boot",
    "link",
    "mtu",
    "vlan",
    "bandwidth",
    "filterref",
    "address",
    "virtualport",
];
/// What of a serial line stays.
const OF_A_LINE: &[&str] = &["target", "address"];
/// Devices that stay as they are.
const AS_THEY_ARE: &[&str] = &[
    "controller",
    "sound",
    "video",
    "memballoon",
    "panic",
    "iommu",
    "hub",
    "watchdog",
];

/// Pieces of a text that are to be others.
struct Edits<'x> {
    xml: &'x str,
    edits: Vec<(Range<usize>, String)>,
    left_out: Vec<String>,
}

pub(super) fn description(new: &NewMachine, remembered: &str) -> Result<Description> {
    let bad = |why: String| Error::Definition { why };
    if remembered.len() > DEFINITION_BYTES_MAX {
        return Err(bad("it is too long".to_owned()));
    }
    let document = Document::parse(remembered).map_err(|error| bad(error.to_string()))?;
    let root = document.root_element();
    let mut edits = Edits {
        xml: remembered,
        edits: Vec::new(),
        left_out: Vec::new(),
    };
    for part in ["name", "uuid", "devices"] {
        if !root.has_tag_name("domain") || child(root, part).is_none() {
            return Err(bad("it is none of a domain".to_owned()));
        }
    }
    // Others run programs of the host.
    if !matches!(root.attribute("type"), Some("kvm" | "qemu")) {
        return Err(bad("it is of no domain that QEMU runs".to_owned()));
    }
    for attribute in root.attributes().filter(|one| one.name() == "id") {
        edits.edits.push((attribute.range(), String::new()));
    }
    for node in root.children().filter(Node::is_element) {
        edits.of_domain(node, new);
    }
    let devices = child(root, "devices").expect("it was looked for");
    let mut found = Vec::new();
    for node in devices.children().filter(Node::is_element) {
        found.extend(edits.device(node, new));
    }
    if let Some(disk) = new.disks.iter().find(|disk| !found.contains(&disk.target)) {
        let target = &disk.target;
        return Err(bad(format!("it has no disk {target}")));
    }
    Ok(edits.apply())
}

/// An image as a disk has it; `attributes` are those of the driver beside its name and format.
pub(super) fn driver_and_source(disk: &NewDisk, attributes: &[(&str, &str)]) -> String {
    let format = match disk.format {
        ImageFormat::Raw => "raw",
        ImageFormat::Qcow2 => "qcow2",
    };
    let mut driver = vec![("name", "qemu"), ("type", format)];
    driver.extend(attributes);
    let path = disk.path.to_string_lossy();
    element("driver", &driver, "") + &element("source", &[("file", &path)], "")
}

impl<'x> Edits<'x> {
    fn apply(mut self) -> Description {
        self.edits.sort_by_key(|(range, _)| range.start);
        let (mut xml, mut at) = (String::with_capacity(self.xml.len()), 0);
        for (range, text) in self.edits {
            xml.push_str(&self.xml[at..range.start]);
            xml.push_str(&text);
            at = range.end;
        }
        xml.push_str(&self.xml[at..]);
        Description {
            xml,
            left_out: self.left_out,
        }
    }

    fn replace(&mut self, node: Node<'_, '_>, text: impl Into<String>) {
        self.edits.push((node.range(), text.into()));
    }

    fn leave_out(&mut self, node: Node<'_, '_>, what: String) {
        self.replace(node, "");
        if !self.left_out.contains(&what) {
            self.left_out.push(what);
        }
    }

    /// Those children of a node that are named, as they are.
    fn kept(&self, node: Node<'_, '_>, names: &[&str]) -> String {
        let children = node.children().filter(|child| is_one_of(*child, names));
        children.map(|child| &self.xml[child.range()]).collect()
    }

    fn of_domain(&mut self, node: Node<'_, '_>, new: &NewMachine) {
        let name = node.tag_name().name();
        if node.tag_name().namespace().is_some() {
            return self.leave_out(node, format!("what QEMU was told by {name}"));
        }
        match name {
            "name" => self.replace(node, element("name", &[], &text(&new.name))),
            "uuid" => self.replace(node, element("uuid", &[], &new.uuid.to_string())),
            "genid" => self.replace(node, "<genid/>"),
            // libvirt makes them, of what the host has.
            "seclabel" => self.replace(node, ""),
            "sysinfo" if node.attribute("type") == Some("smbios") => {
                for entry in node.descendants().filter(|one| one.has_tag_name("entry")) {
                    // libvirt insists that it is the domain's own.
                    if entry.attribute("name") == Some("uuid") {
                        self.replace(entry, "");
                    }
                }
            }
            "sysinfo" => self.leave_out(node, "data for the firmware".to_owned()),
            "os" => {
                let variables = |child: &Node<'_, '_>| is_one_of(*child, &["nvram", "varstore"]);
                for store in node.children().filter(variables) {
                    // Where the new ones are follows from the machine's name.
                    let kept = attributes(store, &["template", "templateFormat", "format"]);
                    self.replace(store, element(store.tag_name().name(), &kept, ""));
                }
                if let Some(loader) = child(node, "loader") {
                    self.loader(loader);
                }
            }
            _ => {}
        }
    }

    /// The firmware is a file of the host: nobody writes to it.
    fn loader(&mut self, node: Node<'_, '_>) {
        let mut kept = attributes(node, &["type", "secure", "stateless", "format"]);
        if node.attribute("type") == Some("pflash") {
            kept.push(("readonly", "yes"));
        }
        let path = text(node.text().unwrap_or_default());
        self.replace(node, element("loader", &kept, &path));
    }

    /// Says where the guest sees it, if it is a disk that the new machine has.
    fn device(&mut self, node: Node<'_, '_>, new: &NewMachine) -> Option<String> {
        let name = node.tag_name().name();
        let kind = node.attribute("type").unwrap_or_default();
        match name {
            "disk" => return self.disk(node, new),
            // The one of the host, for the same processor.
            "emulator" => self.replace(node, ""),
            "interface" => self.card(node, kind),
            "serial" | "console" | "parallel" => {
                let kept = self.kept(node, OF_A_LINE);
                self.replace(node, element(name, &[("type", "pty")], &kept));
            }
            "channel" if kind == "unix" => {
                let kept = self.kept(node, OF_A_LINE);
                self.replace(node, element(name, &[("type", "unix")], &kept));
            }
            "channel" | "redirdev" if kind == "spicevmc" => {}
            "graphics" if matches!(kind, "vnc" | "spice") => {
                let mut kept = vec![("type", kind), ("autoport", "yes")];
                kept.extend(attributes(node, &["keymap"]));
                self.replace(node, element(name, &kept, ""));
            }
            "audio" => {
                let id = node.attribute("id").unwrap_or("1");
                self.replace(node, element(name, &[("id", id), ("type", "none")], ""));
            }
            "input" if matches!(kind, "tablet" | "mouse" | "keyboard") => {}
            "rng" if is_own_random(node) => {}
            "tpm" if backend(node) == Some("emulator") => {
                let version = child(node, "backend");
                let version = version.map(|backend| attributes(backend, &["version"]));
                let mut kept = vec![("type", "emulator")];
                kept.extend(version.unwrap_or_default());
                let inside = element("backend", &kept, "");
                self.replace(node, element(name, &attributes(node, &["model"]), &inside));
            }
            "vsock" => {
                let own = attributes(node, &["model"]);
                self.replace(node, element(name, &own, "<cid auto='yes'/>"));
            }
            _ if AS_THEY_ARE.contains(&name) => {}
            _ => self.leave_out(node, format!("a device of the sort {name}")),
        }
        None
    }

    fn disk(&mut self, node: Node<'_, '_>, new: &NewMachine) -> Option<String> {
        let target = child(node, "target").and_then(|target| target.attribute("dev"));
        let target = target.unwrap_or_default();
        let device = node.attribute("device").unwrap_or("disk");
        if matches!(device, "cdrom" | "floppy") {
            let kept = self.kept(node, OF_A_DRIVE);
            let drive = [("type", "file"), ("device", device)];
            self.replace(node, element("disk", &drive, &kept));
            return None;
        }
        let wanted = new.disks.iter().find(|disk| disk.target == target);
        let Some(disk) = wanted.filter(|_| device == "disk") else {
            self.leave_out(node, format!("the disk {target}"));
            return None;
        };
        let driver: Vec<_> = child(node, "driver")
            .into_iter()
            .flat_map(|driver| driver.attributes())
            // What is said of one format may not be said of another.
            .filter(|one| !matches!(one.name(), "name" | "type" | "discard_no_unref"))
            .map(pair)
            .collect();
        let inside = driver_and_source(disk, &driver) + &self.kept(node, OF_A_DISK);
        let mut own = vec![("type", "file"), ("device", "disk")];
        own.extend(attributes(node, &["model"]));
        self.replace(node, element("disk", &own, &inside));
        Some(target.to_owned())
    }

    fn card(&mut self, node: Node<'_, '_>, kind: &str) {
        if !matches!(kind, "network" | "bridge" | "user" | "direct") {
            let what = format!("a network card of the sort {kind}");
            return self.leave_out(node, what);
        }
        let mut inside = String::new();
        for part in node.children().filter(|child| is_one_of(*child, OF_A_CARD)) {
            let name = part.tag_name().name();
            match name {
                // A port that a network or a switch has given to the old one's card is not the new one's.
                "source" => {
                    let source =
                        attributes(part, &["network", "portgroup", "bridge", "dev", "mode"]);
                    inside.push_str(&element(name, &source, ""));
                }
                "virtualport" => {
                    let parameters = child(part, "parameters");
                    let kept = parameters.map(|one| {
                        let profile = ["profileid", "managerid", "typeid", "typeidversion"];
                        element("parameters", &attributes(one, &profile), "")
                    });
                    let own = attributes(part, &["type"]);
                    inside.push_str(&element(name, &own, &kept.unwrap_or_default()));
                }
                _ => inside.push_str(&self.xml[part.range()]),
            }
        }
        // Without an address libvirt draws one.
        self.replace(node, element("interface", &[("type", kind)], &inside));
    }
}

fn is_one_of(node: Node<'_, '_>, names: &[&str]) -> bool {
    node.is_element() && names.contains(&node.tag_name().name())
}

fn pair<'a>(attribute: Attribute<'a, '_>) -> (&'a str, &'a str) {
    (attribute.name(), attribute.value())
}

/// Those attributes of a node that are named, in that order.
fn attributes<'a>(node: Node<'a, '_>, names: &[&'static str]) -> Vec<(&'static str, &'a str)> {
    let found = names
        .iter()
        .map(|name| Some((*name, node.attribute(*name)?)));
    found.flatten().collect()
}

fn backend<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    child(node, "backend")?.attribute("type")
}

/// Whether it is fed by what every host has.
fn is_own_random(node: Node<'_, '_>) -> bool {
    child(node, "backend").is_some_and(|backend| {
        let file = backend.text().unwrap_or_default().trim();
        match backend.attribute("model") {
            Some("builtin") => true,
            Some("random") => matches!(file, "" | "/dev/urandom" | "/dev/random"),
            _ => false,
        }
    })
}

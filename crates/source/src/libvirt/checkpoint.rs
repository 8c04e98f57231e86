//! libvirt's checkpoints that are Cairn's, and the bitmaps in images that belong to them.
//!
//! A checkpoint is a name that libvirt knows, and a bitmap of that name in the image of each of its
//! disks: the same bitmaps as those of images at rest (`change_map/bitmap.rs`), by the same names. So a backup
//! may count from one that was made while the domain was off, once libvirt is told of it. A bitmap
//! notes what QEMU writes whether or not libvirt knows of it: what libvirt knows only says which
//! bitmaps it may be asked for.
//!
//! libvirt keeps every bitmap at work: none is stopped or merged when another checkpoint comes,
//! and to delete a checkpoint removes its bitmaps and nothing else.

use std::collections::BTreeMap;
use std::io::Write;

use super::domain::{Disk, child, parse};
use super::virsh::{MAX_COMMANDS, Result, Virsh, VirshError};
use super::xml::element;
use crate::change_map::bitmap::{ImageInfo, is_ours};
use crate::protectable::ImageFormat;

/// A checkpoint of Cairn's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) name: String,
    /// Its disks, by where the guest sees them, and whether their bitmaps can be believed.
    pub(super) disks: BTreeMap<String, bool>,
}

impl Checkpoint {
    /// Reads what `virsh checkpoint-dumpxml --size` says of a domain that runs: it tells a size
    /// of those bitmaps that are there and in order.
    fn parse(xml: &str) -> Result<Self> {
        let document = parse(xml)?;
        let root = document.root_element();
        let name = child(root, "name").and_then(|name| name.text());
        let name = name.ok_or_else(|| VirshError::Protocol("a checkpoint has no name".to_owned()));
        let name = name?.to_owned();
        let disks = child(root, "disks")
            .into_iter()
            .flat_map(|disks| disks.children());
        let disks = disks.filter(|disk| disk.attribute("bitmap") == Some(&name));
        let disks = disks.filter_map(|disk| {
            Some((
                disk.attribute("name")?.to_owned(),
                disk.has_attribute("size"),
            ))
        });
        Ok(Self {
            disks: disks.collect(),
            name,
        })
    }

    /// Whether its bitmap of this disk can be believed.
    pub(super) fn is_reliable_of(&self, target: &str) -> bool {
        self.disks.get(target) == Some(&true)
    }
}

/// The checkpoints of a domain that runs.
#[derive(Debug)]
pub(super) struct Checkpoints<'a> {
    pub(super) virsh: &'a Virsh,
    pub(super) domain: &'a str,
}

impl Checkpoints<'_> {
    /// Those of Cairn's that libvirt knows, the oldest first.
    pub(super) fn list(&self) -> Result<Vec<Checkpoint>> {
        let names = self
            .virsh
            .ask(&["checkpoint-list", self.domain, "--name"])?;
        let names: Vec<&str> = names
            .lines()
            .map(str::trim)
            .filter(|name| is_ours(name))
            .collect();
        let mut found = Vec::with_capacity(names.len());
        for names in names.chunks(MAX_COMMANDS) {
            let describe = |name: &&str| {
                format!(
                    "checkpoint-dumpxml {} {name} --no-domain --size",
                    self.domain
                )
            };
            let commands: Vec<_> = names.iter().map(describe).collect();
            let answers = self.virsh.ask_all(&commands)?;
            // One that is gone meanwhile says nothing.
            let answers = answers.iter().filter(|answer| !answer.trim().is_empty());
            let read: Result<Vec<_>> = answers
                .map(|answer| Checkpoint::parse(answer.trim()))
                .collect();
            found.extend(read?);
        }
        // The numbers in the names all have the same length.
        found.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(found)
    }

    /// Tells libvirt of those bitmaps in images that it does not know, and removes those checkpoints that no
    /// backup can count from any more. Returns those that stay.
    ///
    /// libvirt forgets checkpoints when a domain is undefined, and never knew those of images at rest. It does not find out
    /// that a bitmap is gone or was not saved.
    pub(super) fn put_in_order(&self, images: &[Image]) -> Result<Vec<Checkpoint>> {
        let known = self.list()?;
        let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for image in images {
            for name in &image.bitmaps {
                if !known.iter().any(|checkpoint| checkpoint.name == *name) {
                    unknown.entry(name).or_default().push(&image.target);
                }
            }
        }
        for (name, targets) in &unknown {
            self.define(name, targets)?;
        }
        let all = match unknown.is_empty() {
            true => known,
            false => self.list()?,
        };
        let newest_of = |target: &str| {
            let mut of_disk = all.iter().rev().filter(|one| one.is_reliable_of(target));
            of_disk.next().map(|checkpoint| checkpoint.name.clone())
        };
        let is_of_use = |checkpoint: &Checkpoint| {
            let mut targets = checkpoint.disks.keys();
            targets.any(|target| newest_of(target).as_ref() == Some(&checkpoint.name))
        };
        let (stay, go): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_of_use);
        for checkpoint in &go {
            self.remove(checkpoint, images)?;
        }
        Ok(stay)
    }

    /// Removes a checkpoint and its bitmaps. libvirt does so only if none of them is missing.
    pub(super) fn remove(&self, checkpoint: &Checkpoint, images: &[Image]) -> Result<()> {
        let name = checkpoint.name.as_str();
        match self.delete(name) {
            Err(error) if error.refusal().is_some() => {}
            deleted => return deleted,
        }
        let is_there = |target: &&str| {
            let mut images = images.iter();
            let image = images.find(|image| image.target == *target);
            let in_file = image.is_some_and(|image| image.bitmaps.iter().any(|one| one == name));
            in_file || checkpoint.is_reliable_of(target)
        };
        let targets = checkpoint.disks.keys().map(String::as_str);
        let there: Vec<&str> = targets.filter(is_there).collect();
        self.virsh
            .tell(&["checkpoint-delete", self.domain, name, "--metadata"])?;
        if there.is_empty() {
            return Ok(());
        }
        self.define(name, &there)?;
        self.delete(name)
    }

    pub(super) fn delete(&self, name: &str) -> Result<()> {
        let deleted = self.virsh.tell(&["checkpoint-delete", self.domain, name]);
        deleted.map(drop)
    }

    /// Tells libvirt of bitmaps that are in the images of these disks.
    fn define(&self, name: &str, targets: &[&str]) -> Result<()> {
        let disks = targets.iter().map(|target| {
            let attributes = [
                ("name", *target),
                ("checkpoint", "bitmap"),
                ("bitmap", name),
            ];
            element("disk", &attributes, "")
        });
        // libvirt asks for a time, and does nothing with it.
        let inside = [
            element("name", &[], name),
            element("creationTime", &[], "0"),
            element("disks", &[], &disks.collect::<String>()),
        ];
        let file = in_file(&element("domaincheckpoint", &[], &inside.concat()))?;
        let path = file.path().to_string_lossy();
        let define = [
            "checkpoint-create",
            self.domain,
            "--redefine",
            "--xmlfile",
            &path,
        ];
        self.virsh.tell(&define).map(drop)
    }
}

/// What a new checkpoint is made by.
pub(super) fn describe(name: &str, disks: impl Iterator<Item = (String, bool)>) -> String {
    let disks = disks.map(|(target, has_bitmap)| {
        let kind = if has_bitmap { "bitmap" } else { "no" };
        element("disk", &[("name", &target), ("checkpoint", kind)], "")
    });
    let disks: String = disks.collect();
    let inside = [element("name", &[], name), element("disks", &[], &disks)];
    element("domaincheckpoint", &[], &inside.concat())
}

/// A file for `virsh` to read.
pub(crate) fn in_file(xml: &str) -> Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("cairn-").tempfile()?;
    file.write_all(xml.as_bytes())?;
    Ok(file)
}

/// The image of a disk that can have bitmaps, as its file tells. While QEMU has it open, the
/// bitmaps that were added since it was opened are not in the file yet.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) target: String,
    pub(super) cluster_bytes: u64,
    /// The names of Cairn's in it.
    pub(super) bitmaps: Vec<String>,
}

impl Image {
    /// Looks into the image of a disk.
    ///
    /// Errors: why it can have no bitmaps.
    pub(super) fn of(disk: &Disk) -> std::result::Result<Self, cairn_types::disk::NoChangeMap> {
        let no = |why: &str| cairn_types::disk::NoChangeMap(why.to_owned());
        if disk.format != ImageFormat::Qcow2 {
            return Err(no("its image is not one of qcow2, which has bitmaps"));
        }
        if disk.read_only {
            return Err(no("its image cannot be written"));
        }
        let info = ImageInfo::read_while_open(&disk.path)?;
        info.check_can_have_bitmaps()?;
        Ok(Self {
            target: disk.target.clone(),
            cluster_bytes: info.cluster_bytes(),
            bitmaps: info.names_of_ours(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_with_a_size_can_be_believed() {
        let xml = "<domaincheckpoint><name>cairn-0000000000-aa</name><disks>\
            <disk name='vda' checkpoint='bitmap' bitmap='cairn-0000000000-aa' size='0'/>\
            <disk name='vdb' checkpoint='bitmap' bitmap='cairn-0000000000-aa'/>\
            <disk name='vdc' checkpoint='bitmap' bitmap='other' size='7'/>\
            <disk name='vdd' checkpoint='no'/></disks></domaincheckpoint>";
        let found = Checkpoint::parse(xml).unwrap();
        assert_eq!(found.name, "cairn-0000000000-aa");
        let disks: Vec<_> = found
            .disks
            .iter()
            .map(|(name, good)| (name.as_str(), *good))
            .collect();
        assert_eq!(disks, [("vda", true), ("vdb", false)]);
        assert!(found.is_reliable_of("vda") && !found.is_reliable_of("vdb"));
        assert!(Checkpoint::parse("<domaincheckpoint/>").is_err());
    }

    #[test]
    fn a_new_checkpoint_names_every_disk() {
        let disks = [("vda".to_owned(), true), ("vd'b".to_owned(), false)];
        assert_eq!(
            describe("cairn-1-a", disks.into_iter()),
            "<domaincheckpoint><name>cairn-1-a</name><disks><disk name='vda' checkpoint='bitmap'/>\
             <disk name='vd&apos;b' checkpoint='no'/></disks></domaincheckpoint>"
        );
    }
}

//! Disks of guests that run, with a real QEMU.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set up its files has failed"
)]

mod common;

use std::sync::Arc;

use cairn_source::{Consistency, Inventory, Level};
use cairn_types::Kind;
use cairn_types::disk::DiskReader;
use common::guest::Guest;
use common::{Lab, MIB};

/// What a disk should hold.
#[derive(Clone)]
struct Model(Vec<u8>);

impl Model {
    fn new(size_bytes: u64) -> Self {
        Self(vec![0; size_bytes as usize])
    }

    /// The guest writes, and the model with it.
    fn write(&mut self, guest: &Guest, disk: usize, byte: u8, offset: u64, length: u64) {
        guest.write(disk, byte, offset, length);
        self.0[offset as usize..(offset + length) as usize].fill(byte);
    }

    fn assert_is(&self, disk: &dyn DiskReader) {
        assert_eq!(disk.size_bytes(), self.0.len() as u64);
        let mut at = 0;
        while at < disk.size_bytes() {
            let extent = disk.extent_at(at).unwrap();
            let expected = &self.0[at as usize..extent.end() as usize];
            let mut read = vec![0xaa; expected.len()];
            disk.read_at(at, &mut read).unwrap();
            assert!(read == expected, "{extent:?}");
            assert!(
                extent.data || read.iter().all(|byte| *byte == 0),
                "{extent:?}"
            );
            at = extent.end();
        }
        disk.check_unchanged().unwrap();
    }
}

fn open_all(lab: &Lab, inventory: &Inventory, disks: &[&str]) -> Vec<Arc<dyn DiskReader>> {
    let volumes: Vec<_> = disks.iter().map(|disk| lab.id(disk)).collect();
    let opened = inventory
        .open_server(lab.server_id(inventory), &volumes, Level::Crash)
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    assert_eq!(opened.consistency, Consistency::Crash { why: None });
    opened.disks.into_iter().map(|(_, reader)| reader).collect()
}

#[test]
fn a_disk_is_read_as_it_was_while_the_guest_goes_on_writing() {
    let lab = Lab::new();
    lab.qcow2("a.qcow2", "64M");
    let guest = Guest::start(&lab, &["a.qcow2"]);
    let inventory = lab.inventory_with_guest(&["a.qcow2"]);
    let mut model = Model::new(64 * MIB);
    model.write(&guest, 0, 1, 0, 40 * MIB);
    let disk = inventory.open_reader(lab.id("a.qcow2")).unwrap();
    let was = model.clone();
    model.write(&guest, 0, 2, 100, 5 * MIB);
    model.write(&guest, 0, 3, 39 * MIB, 10 * MIB);
    was.assert_is(&*disk);
    model.write(&guest, 0, 4, 20 * MIB, MIB);
    was.assert_is(&*disk);
    drop(disk);
    assert_eq!(guest.leftovers(), [""; 0]);
    let disk = inventory.open_reader(lab.id("a.qcow2")).unwrap();
    model.assert_is(&*disk);
    let error = inventory
        .open_reader(lab.id("a.qcow2"))
        .err()
        .expect("busy");
    assert_eq!(error.kind(), Kind::Conflict);
}

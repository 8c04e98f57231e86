//! Domains of a real libvirt: discovered, backed up while they run and while
//! they do not, and turned off and on.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set up its files has failed"
)]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "a list of changes may have one"
)]

mod common;

use std::ops::Range;

use cairn_types::disk::{DiskReader, Point};
use common::MIB;
use common::guest::Model;
use common::libvirt::{Libvirt, open_all, server_of, volumes_of, write};

fn changes(disk: &dyn DiskReader, since: &Point) -> Vec<Range<u64>> {
    let changes = disk.changes_since(since);
    changes.unwrap_or_else(|why| panic!("{why}"))
}

const K: u64 = 64 << 10;

#[test]
fn a_domain_that_runs_is_read_at_one_moment_and_then_its_changes() {
    let libvirt = Libvirt::start();
    let inventory = libvirt.inventory();
    libvirt.domain("web-1", &["a.qcow2", "b.qcow2"], "8M");
    let mut models = [Model::new(8 * MIB), Model::new(8 * MIB)];
    write(&libvirt, "web-1", 0, &mut models[0], (1, 0, MIB));
    write(&libvirt, "web-1", 1, &mut models[1], (2, MIB, MIB));
    for (disk, model) in models.iter_mut().enumerate() {
        write(&libvirt, "web-1", disk, model, (0xee, 8 * MIB - K, K));
    }
    let disks = open_all(&inventory, "web-1");
    // This is behind the moment.
    libvirt.write("web-1", 0, 9, 0, 2 * MIB);
    for (disk, model) in disks.iter().zip(&models) {
        model.assert_is(&**disk);
        disk.keep_point();
    }
    let first: Vec<_> = disks.iter().map(|disk| disk.point().unwrap()).collect();
    drop(disks);
    assert_eq!(libvirt.leftovers("web-1"), [""; 0]);
    assert_eq!(libvirt.checkpoints("web-1").len(), 1);
    models[0].0[..2 * MIB as usize].fill(9);

    write(&libvirt, "web-1", 1, &mut models[1], (3, 4 * MIB + 5, 1));
    let disks = open_all(&inventory, "web-1");
    models
        .iter()
        .zip(&disks)
        .for_each(|(model, disk)| model.assert_is(&**disk));
    assert_eq!(changes(&*disks[0], &first[0]), [0..2 * MIB]);
    assert_eq!(changes(&*disks[1], &first[1]), [4 * MIB..4 * MIB + K]);
    drop(disks);
    // It failed: the checkpoint before is the one that counts.
    assert_eq!(libvirt.checkpoints("web-1").len(), 1);
    let disks = open_all(&inventory, "web-1");
    assert_eq!(changes(&*disks[0], &first[0]), [0..2 * MIB]);
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);
    assert_eq!(libvirt.checkpoints("web-1").len(), 1);
    assert_eq!(libvirt.bitmaps("web-1").len(), 2);
    assert_eq!(libvirt.leftovers("web-1"), [""; 0]);
    let disks = open_all(&inventory, "web-1");
    let why = disks[0].changes_since(&first[0]).unwrap_err();
    assert!(why.to_string().contains("is gone"), "{why}");
    let _ = (server_of("web-1"), volumes_of(&inventory, "web-1"));
}

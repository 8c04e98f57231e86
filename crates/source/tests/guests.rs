//! Disks of guests that run, with a real QEMU: one point in time, and what changed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_source::{Consistency, Level};
use cairn_types::Kind;
use cairn_types::disk::{DiskReader, Point};
use serde_json::json;

use crate::common::guest::{Guest, Model, open_all};
use crate::common::{Lab, MIB};

const SLOT: u64 = 64 << 10;

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

/// Says stop when it is dropped, if by a failed assertion too.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sectors that a guest writes one after another, from the start again and again.
const LAP: u64 = 4096;

/// How many sectors the guest had written.
fn written(disk: &dyn DiskReader) -> u64 {
    let mut bytes = vec![0; (LAP * 512) as usize];
    disk.read_at(0, &mut bytes).unwrap();
    let lap = bytes[0];
    let sectors = bytes.chunks(512).take_while(|sector| sector[0] == lap);
    let of_laps_before = u64::from(lap.saturating_sub(1)) * LAP;
    if lap == 0 {
        0
    } else {
        of_laps_before + sectors.count() as u64
    }
}

#[test]
fn all_disks_are_of_one_moment() {
    let lab = Lab::new();
    // Between the first and the last there is time for the guest to write.
    let names = [
        "a.qcow2", "b.qcow2", "c.qcow2", "d.qcow2", "e.qcow2", "f.qcow2",
    ];
    names.iter().for_each(|name| lab.qcow2(name, "2M"));
    let guest = Guest::start(&lab, &names);
    let inventory = lab.inventory_with_guest(&names);
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        // Sector after sector, on the first disk and then on the last.
        let writer = threads.spawn(|| {
            for lap in 0..=254 {
                for sector in 0..LAP {
                    guest.write(0, lap + 1, sector * 512, 512);
                    guest.write(5, lap + 1, sector * 512, 512);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        });
        let _stop = StopAtEnd(&stop);
        let mut last = 0;
        for round in 0..20 {
            let disks = open_all(&lab, &inventory, &names);
            let (one, two) = (written(&*disks[0]), written(&*disks[5]));
            assert!(
                (two..=two + 1).contains(&one),
                "round {round}: {one} and {two}"
            );
            // What is written meanwhile is on neither.
            assert_eq!((written(&*disks[0]), written(&*disks[5])), (one, two));
            assert!(round == 0 || two > last, "the guest writes on");
            last = two;
        }
        assert!(!writer.is_finished(), "the guest wrote all the time");
    });
    assert_eq!(guest.leftovers(), [""; 0]);
}

fn changes(disk: &dyn DiskReader, since: &Point) -> Vec<Range<u64>> {
    let changes = disk.changes_since(since);
    changes.unwrap_or_else(|why| panic!("{why}"))
}

fn why_not(disk: &dyn DiskReader, since: &Point) -> String {
    disk.changes_since(since).expect_err("no map").to_string()
}

const END: u8 = 0xee;

/// Data at the end of a disk that does not change: without it, the end might have been cut off.
fn write_end(guest: &Guest, disk: usize, size_bytes: u64) {
    guest.write(disk, END, size_bytes - SLOT, SLOT);
}

#[test]
fn bitmaps_tell_what_changed_whether_the_guest_runs_or_not() {
    let lab = Lab::new();
    lab.qcow2("a.qcow2", "64M");
    let mut model = Model::new(64 * MIB);
    let inventory = lab.inventory_with_guest(&["a.qcow2"]);
    let open = || inventory.open_reader(lab.id("a.qcow2")).unwrap();

    let guest = Guest::start(&lab, &["a.qcow2"]);
    model.write(&guest, 0, 1, 0, MIB);
    write_end(&guest, 0, 64 * MIB);
    model.0[(64 * MIB - SLOT) as usize..].fill(END);
    let disk = open();
    let first = disk.point().expect("a bitmap began");
    // This is behind the point.
    model.write(&guest, 0, 2, 10 * MIB, SLOT);
    disk.keep_point();
    drop(disk);
    assert_eq!(guest.bitmaps(0).len(), 1);

    model.write(&guest, 0, 3, 20 * MIB + 5, 1);
    let disk = open();
    let expected = [10 * MIB..10 * MIB + SLOT, 20 * MIB..20 * MIB + SLOT];
    assert_eq!(changes(&*disk, &first), expected);
    model.write(&guest, 0, 4, 30 * MIB, SLOT);
    assert_eq!(changes(&*disk, &first), expected, "that is later");
    // It fails: the point before is the one that counts.
    drop(disk);
    assert_eq!(guest.bitmaps(0).len(), 1);

    guest.quit();
    let disk = open();
    let expected = [&expected[..], &[30 * MIB..30 * MIB + SLOT]].concat();
    assert_eq!(changes(&*disk, &first), expected);
    model.assert_is(&*disk);
    let second = disk.point().unwrap();
    disk.keep_point();
    drop(disk);

    let guest = Guest::start(&lab, &["a.qcow2"]);
    model.write(&guest, 0, 5, 40 * MIB, SLOT);
    let disk = open();
    assert_eq!(changes(&*disk, &second), [40 * MIB..40 * MIB + SLOT]);
    assert!(why_not(&*disk, &first).contains("is gone"));
    model.assert_is(&*disk);
    disk.keep_point();
    drop(disk);
    assert_eq!(guest.bitmaps(0).len(), 1);
    assert_eq!(guest.leftovers(), [""; 0]);
}

#[test]
fn a_bitmap_that_cannot_be_used_costs_its_disk_alone() {
    let lab = Lab::new();
    let names = [
        "gone.qcow2",
        "busy.qcow2",
        "good.qcow2",
        "old.qcow2",
        "raw.img",
        "chain.qcow2",
    ];
    names[..3].iter().for_each(|name| lab.qcow2(name, "8M"));
    lab.qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "compat=0.10",
        names[3],
        "8M",
    ]);
    lab.create(names[4], 8 * MIB);
    lab.create("base.img", 8 * MIB);
    let chain = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
    lab.qemu_img(&[&chain[..], &["base.img", names[5]]].concat());
    let guest = Guest::start(&lab, &names);
    (0..6).for_each(|disk| write_end(&guest, disk, 8 * MIB));
    let inventory = lab.inventory_with_guest(&names);
    let disks = open_all(&lab, &inventory, &names);
    let points: Vec<_> = disks.iter().map(|disk| disk.point()).collect();
    assert!(points[..3].iter().all(Option::is_some) && points[3..] == [None, None, None]);
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);

    (0..6).for_each(|disk| guest.write(disk, 9, 3 * MIB, 1));
    let gone = guest.bitmaps(0).pop().unwrap();
    guest.ask(
        "block-dirty-bitmap-remove",
        json!({"node": "node0", "name": gone}),
    );
    // Somebody's job uses it.
    let busy = guest.bitmaps(1).pop().unwrap();
    guest.ask(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "away", "size": 8 * MIB}),
    );
    guest.ask(
        "blockdev-backup",
        json!({"job-id": "other", "device": "node1", "target": "away",
        "sync": "full", "bitmap": busy, "bitmap-mode": "always", "speed": 1}),
    );

    let disks = open_all(&lab, &inventory, &names);
    let expected = std::iter::once(3 * MIB..3 * MIB + SLOT);
    assert!(
        changes(&*disks[2], points[2].as_ref().unwrap())
            .into_iter()
            .eq(expected)
    );
    let why = |disk: usize| why_not(&*disks[disk], points[disk.min(2)].as_ref().unwrap());
    for (disk, part) in [
        (0, "is gone"),
        (1, "is in use by a job"),
        (3, "gave its image no dirty bitmap"),
        (4, "not one of qcow2"),
        (5, "backing file"),
    ] {
        assert!(why(disk).contains(part), "{disk}: {}", why(disk));
    }
    for disk in &disks {
        let mut model = Model::new(8 * MIB);
        model.0[3 * MIB as usize] = 9;
        model.0[(8 * MIB - SLOT) as usize..].fill(END);
        model.assert_is(&**disk);
    }
    drop(disks);
    let job = json!({"device": "other", "force": true});
    guest.ask("block-job-cancel", job);
    crate::common::guest::wait_until("the end of the other's job", || {
        guest.ask("query-jobs", json!({})) == json!([])
    });
    guest.ask("blockdev-del", json!({"node-name": "away"}));
    assert_eq!(guest.leftovers(), [""; 0]);
}

#[test]
fn bitmaps_of_a_killed_qemu_are_not_believed() {
    let lab = Lab::new();
    lab.qcow2("a.qcow2", "64M");
    let inventory = lab.inventory_with_guest(&["a.qcow2"]);
    let open = || inventory.open_reader(lab.id("a.qcow2")).unwrap();
    // The first point is there when QEMU opens the image; the second is made by it.
    let disk = open();
    let first = disk.point().unwrap();
    disk.keep_point();
    drop(disk);
    let mut guest = Guest::start(&lab, &["a.qcow2"]);
    guest.write(0, 1, 0, MIB);
    let disk = open();
    let second = disk.point().unwrap();
    guest.kill();
    let mut byte = [0];
    assert!(
        disk.read_at(0, &mut byte).is_err(),
        "it is no disk any more"
    );
    disk.keep_point();
    drop(disk);
    let guest = Guest::start(&lab, &["a.qcow2"]);
    let disk = open();
    let why = why_not(&*disk, &first);
    assert!(why.contains("was not saved in full"), "{why}");
    assert!(why_not(&*disk, &second).contains("is gone"));
    disk.keep_point();
    drop(disk);
    assert_eq!(guest.bitmaps(0).len(), 1);
    assert_eq!(guest.leftovers(), [""; 0]);
}

#[test]
fn disks_come_and_go_and_change_their_size() {
    let lab = Lab::new();
    let names = ["a.qcow2", "b.qcow2", "c.qcow2"];
    names.iter().for_each(|name| lab.qcow2(name, "8M"));
    let inventory = lab.inventory_with_guest(&names);
    // The third is configured, and not (yet) the guest's.
    let guest = Guest::start(&lab, &names[..2]);
    (0..2).for_each(|disk| write_end(&guest, disk, 8 * MIB));
    let end = format!("write -P {END} {} {SLOT}", 8 * MIB - SLOT);
    lab.qemu_io(names[2], &[&end]);
    let disks = open_all(&lab, &inventory, &names);
    let points: Vec<_> = disks.iter().map(|disk| disk.point().unwrap()).collect();
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);

    guest.ask(
        "block_resize",
        json!({"node-name": "node0", "size": 12 * MIB}),
    );
    // All of the new end is told of, whether it was written to or not.
    guest.write(0, 1, 11 * MIB, SLOT);
    guest.write(1, 2, MIB, SLOT);
    let disks = open_all(&lab, &inventory, &names);
    assert_eq!(disks[0].size_bytes(), 12 * MIB);
    assert_eq!(changes(&*disks[0], &points[0]), [8 * MIB..12 * MIB]);
    // Nobody resizes a disk that is being read.
    let resize = json!({"node-name": "node0", "size": 16 * MIB});
    let resized = guest
        .monitor
        .lock()
        .unwrap()
        .try_ask("block_resize", resize);
    assert!(resized.is_err());
    drop(disks);
    guest.quit();

    let guest = Guest::start(&lab, &["c.qcow2", "b.qcow2"]);
    guest.write(0, 3, 2 * MIB, SLOT);
    let disks = open_all(&lab, &inventory, &names);
    assert_eq!(changes(&*disks[0], &points[0]), [8 * MIB..12 * MIB]);
    assert_eq!(changes(&*disks[1], &points[1]), [MIB..MIB + SLOT]);
    assert_eq!(changes(&*disks[2], &points[2]), [2 * MIB..2 * MIB + SLOT]);
    drop(disks);
    // A part of them, in another order.
    let disks = open_all(&lab, &inventory, &["c.qcow2", "b.qcow2"]);
    assert_eq!(changes(&*disks[0], &points[2]), [2 * MIB..2 * MIB + SLOT]);
    drop(disks);
    assert_eq!(guest.leftovers(), [""; 0]);
}

/// QEMU's bitmaps forget what was cut off, and do not tell that it came back empty.
#[test]
fn an_end_that_was_cut_off_and_came_back_is_told_of() {
    let lab = Lab::new();
    lab.qcow2("a.qcow2", "64M");
    let inventory = lab.inventory_with_guest(&["a.qcow2"]);
    let open = || inventory.open_reader(lab.id("a.qcow2")).unwrap();
    let guest = Guest::start(&lab, &["a.qcow2"]);
    guest.write(0, 1, 0, 64 * MIB);
    let disk = open();
    let point = disk.point().unwrap();
    disk.keep_point();
    drop(disk);
    guest.write(0, 2, 30 * MIB, SLOT);
    guest.write(0, 3, 50 * MIB, SLOT);
    for size in [40 * MIB, 64 * MIB] {
        guest.ask("block_resize", json!({"node-name": "node0", "size": size}));
    }
    guest.write(0, 4, 60 * MIB, 10);
    let expected = [30 * MIB..30 * MIB + SLOT, 40 * MIB..64 * MIB];
    let disk = open();
    assert_eq!(changes(&*disk, &point), expected);
    drop(disk);
    guest.quit();
    let disk = open();
    assert_eq!(changes(&*disk, &point), expected);
    drop(disk);
    lab.qemu_img(&["resize", "-q", "--shrink", "a.qcow2", "20M"]);
    lab.qemu_img(&["resize", "-q", "a.qcow2", "64M"]);
    let disk = open();
    assert_eq!(changes(&*disk, &point), [20 * MIB..64 * MIB]);
}

#[test]
fn a_disk_of_a_guest_that_runs_is_not_overwritten() {
    let lab = Lab::new();
    lab.qcow2("a.qcow2", "8M");
    lab.create("b.img", MIB);
    let inventory = lab.inventory_with_guest(&["a.qcow2", "b.img"]);
    let guest = Guest::start(&lab, &["a.qcow2"]);
    let a = lab.id("a.qcow2");
    let refused = [
        inventory.open_writer(a, u64::MAX).err(),
        inventory.check_writable(a).err(),
    ];
    for error in refused {
        let error = error.expect("refused");
        assert_eq!(error.kind(), Kind::Conflict);
        assert_eq!(
            error.to_string(),
            "the image a.qcow2 is a disk of web-1, which runs: stop it first"
        );
    }
    let other = inventory.open_writer(lab.id("b.img"), u64::MAX).unwrap();
    drop(other);
    guest.quit();
    drop(inventory.open_writer(a, u64::MAX).unwrap());
}

/// After an external snapshot the guest writes to another image: what is in the configured one is old.
#[test]
fn an_image_beneath_a_snapshot_is_not_taken_for_the_disk() {
    let lab = Lab::new();
    for name in ["a.qcow2", "b.qcow2"] {
        lab.qcow2(name, "8M");
    }
    let names = ["a.qcow2", "b.qcow2"];
    let inventory = lab.inventory_with_guest(&names);
    let guest = Guest::start(&lab, &names);
    drop(open_all(&lab, &inventory, &names));
    let above = lab.path("above");
    guest.ask(
        "blockdev-snapshot-sync",
        json!({"node-name": "node0", "snapshot-file": above, "format": "qcow2", "snapshot-node-name": "above"}),
    );
    guest.write(0, 1, 0, MIB);
    let volumes: Vec<_> = names.iter().map(|name| lab.id(name)).collect();
    let refused = inventory
        .open_server(lab.server_id(&inventory), &volumes, Level::Crash)
        .err()
        .expect("refused");
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(
        refused.to_string().contains("a.qcow2") && refused.to_string().contains("snapshot"),
        "{refused}"
    );
    let refused = inventory.open_writer(lab.id("a.qcow2"), u64::MAX);
    assert_eq!(refused.err().expect("refused").kind(), Kind::Conflict);
    // Nor is it turned off to have what is beneath overwritten.
    let refused = inventory.power_off(lab.server_id(&inventory)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert_eq!(guest.leftovers(), [""; 0]);
    // The other disk can be had.
    drop(inventory.open_reader(lab.id("b.qcow2")).unwrap());
}

#[test]
fn what_is_no_disk_of_the_server_is_refused() {
    let lab = Lab::new();
    lab.qcow2("a.qcow2", "8M");
    lab.qcow2("b.qcow2", "8M");
    let inventory = lab.inventory_with_guest(&["a.qcow2"]);
    let server = lab.server_id(&inventory);
    let (a, b) = (lab.id("a.qcow2"), lab.id("b.qcow2"));
    for (server, disk) in [(server, b), (a, a), (server, server)] {
        let opened = inventory.open_server(server, &[disk], Level::Crash);
        assert_eq!(opened.err().expect("refused").kind(), Kind::Invalid);
    }
    let opened = inventory
        .open_server(server, &[a], Level::Application(None))
        .unwrap();
    assert_eq!(opened.consistency, Consistency::AtRest);
    assert!(Arc::strong_count(&opened.disks[0].1) == 1 && opened.disks[0].0 == a);
}

/// However a disk is attached: what the guest writes goes through the filter, and is noted.
#[test]
fn every_sort_of_device_is_read() {
    let lab = Lab::new();
    let kinds = [
        "ide",
        "scsi",
        "virtio",
        "nvme",
        "usb",
        "thread",
        "throttled",
        "odd,name",
    ];
    let names = kinds.map(|kind| format!("{kind}.qcow2"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.iter().for_each(|name| lab.qcow2(name, "4M"));
    let drive = |kind: &str, interface: &str| {
        let path = lab.path(&format!("{kind}.qcow2")).display().to_string();
        // QEMU's options have commas doubled.
        let path = path.replace(',', ",,");
        format!(
            "file={path},format=qcow2,if={interface},id={}",
            kind.replace(',', "")
        )
    };
    let throttled = format!(
        "driver=throttle,node-name=limit,throttle-group=group,file.driver=qcow2,\
         file.file.driver=file,file.file.filename={}",
        lab.path("throttled.qcow2").display()
    );
    let drives = [
        drive("ide", "ide"),
        drive("scsi", "none"),
        drive("virtio", "virtio"),
        drive("nvme", "none"),
        drive("usb", "none"),
        drive("thread", "none"),
        drive("odd,name", "virtio"),
    ];
    let mut arguments = vec![
        "-S",
        "-m",
        "16",
        "-object",
        "iothread,id=loop",
        "-object",
        "throttle-group,id=group,x-iops-total=1000",
        "-blockdev",
        &throttled,
        "-device",
        "virtio-scsi-pci",
        "-device",
        "qemu-xhci",
    ];
    drives
        .iter()
        .for_each(|drive| arguments.extend(["-drive", drive]));
    for device in [
        "scsi-hd,drive=scsi",
        "nvme,drive=nvme,serial=x",
        "usb-storage,drive=usb",
        "virtio-blk-pci,drive=thread,iothread=loop",
        "virtio-blk-pci,drive=limit",
    ] {
        arguments.extend(["-device", device]);
    }
    let guest = Guest::start_with(&lab, &[], &arguments);
    let inventory = lab.inventory_with_guest(&names);
    if guest.ask("query-version", json!({}))["qemu"]["major"].as_u64() < Some(9) {
        let refused = inventory.open_reader(lab.id("ide.qcow2")).err();
        assert_eq!(refused.expect("it has an I/O thread").kind(), Kind::Invalid);
        return;
    }
    let disks = open_all(&lab, &inventory, &names);
    let any = Point::new("bitmap:cairn-0000000000-ab").unwrap();
    let points: Vec<_> = disks
        .iter()
        .zip(kinds)
        .map(|(disk, kind)| {
            disk.point()
                .ok_or_else(|| why_not(&**disk, &any))
                .expect(kind)
        })
        .collect();
    let devices = guest.ask("query-block", json!({}));
    let devices: Vec<_> = devices.as_array().unwrap().iter().collect();
    let write = |byte: u8| {
        for device in devices
            .iter()
            .filter(|device| device["inserted"].is_object())
        {
            guest.io_at(
                device["qdev"].as_str().unwrap(),
                &format!("write -P {byte} 0 4M"),
            );
        }
    };
    write(1);
    disks
        .iter()
        .for_each(|disk| Model::new(4 * MIB).assert_is(&**disk));
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);
    assert_eq!(guest.leftovers(), [""; 0]);
    let disks = open_all(&lab, &inventory, &names);
    write(2);
    let mut model = Model::new(4 * MIB);
    model.0.fill(1);
    for (disk, point) in disks.iter().zip(&points) {
        model.assert_is(&**disk);
        assert_eq!(changes(&**disk, point), [0..4 * MIB]);
    }
}

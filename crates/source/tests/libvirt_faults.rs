//! Whatever goes wrong between a libvirt and a backup: the guest goes on, nothing is left behind,
//! and no wrong byte is taken for a right one.

use std::fs::File;

use cairn_source::{Inventory, Level};
use cairn_types::Kind;
use cairn_types::disk::Point;

use crate::common::MIB;
use crate::common::guest::{Model, wait_until};
use crate::common::libvirt::{Libvirt, open_all, server_of, uuid_of, volumes_of, write};

const K: u64 = 64 << 10;

/// A domain with two disks that is backed up, what they hold, and the points of that backup.
struct Stage {
    libvirt: Libvirt,
    inventory: Inventory,
    models: [Model; 2],
    points: Vec<Point>,
}

impl Stage {
    fn new() -> Self {
        let libvirt = Libvirt::start();
        libvirt.domain("web-1", &["a.qcow2", "b.qcow2"], "4M");
        let mut stage = Self {
            inventory: libvirt.inventory(),
            libvirt,
            models: [Model::new(4 * MIB), Model::new(4 * MIB)],
            points: Vec::new(),
        };
        stage.write(0xee, 4 * MIB - K);
        stage.back_up();
        stage
    }

    /// Writes the same to both disks.
    fn write(&mut self, byte: u8, offset: u64) {
        for (disk, model) in self.models.iter_mut().enumerate() {
            write(&self.libvirt, "web-1", disk, model, (byte, offset, K));
            // What is not flushed may be lost with QEMU.
            self.libvirt.io("web-1", disk, "flush");
        }
    }

    /// A backup that is acknowledged, of what the disks should hold.
    fn back_up(&mut self) {
        let disks = open_all(&self.inventory, "web-1");
        for (disk, model) in disks.iter().zip(&self.models) {
            model.assert_is(&**disk);
            disk.keep_point();
        }
        self.points = disks.iter().map(|disk| disk.point().unwrap()).collect();
        drop(disks);
        assert_eq!(self.libvirt.leftovers("web-1"), [""; 0]);
        assert_eq!(self.libvirt.checkpoints("web-1").len(), 1);
        assert_eq!(self.libvirt.bitmaps("web-1").len(), 2);
    }

    /// What has changed on each disk, or why that is not known.
    fn changes(&self) -> Vec<String> {
        let disks = open_all(&self.inventory, "web-1");
        for (disk, model) in disks.iter().zip(&self.models) {
            model.assert_is(&**disk);
        }
        let since = disks.iter().zip(&self.points);
        let since = since.map(|(disk, point)| match disk.changes_since(point) {
            Ok(changes) => format!("{changes:?}"),
            Err(why) => why.to_string(),
        });
        since.collect()
    }

    fn open_error(&self) -> cairn_source::Error {
        let volumes = volumes_of(&self.inventory, "web-1");
        let server = server_of("web-1");
        let opened = self.inventory.open_server(server, &volumes, Level::Crash);
        opened.err().expect("it cannot be opened")
    }
}

fn only(offset: u64) -> String {
    format!("{:?}", [offset..offset + K])
}

fn assert_lost(why: &str) {
    assert!(why.contains("gone") || why.contains("not saved"), "{why}");
}

/// The node of an image in the QEMU of `web-1`.
fn node_of(libvirt: &Libvirt, image: &str) -> String {
    let ask = r#"{"execute": "query-named-block-nodes", "arguments": {"flat": true}}"#;
    let said = libvirt.virsh(&["qemu-monitor-command", "web-1", ask]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let mut nodes = said["return"].as_array().unwrap().iter();
    let is_it = |node: &&serde_json::Value| {
        node["drv"] == "qcow2" && node["file"].as_str().unwrap().ends_with(image)
    };
    let node = nodes.find(is_it).unwrap();
    node["node-name"].as_str().unwrap().to_owned()
}

#[test]
fn a_lost_bitmap_costs_its_disk_alone() {
    let mut stage = Stage::new();
    stage.write(1, MIB);
    let name = stage.libvirt.checkpoints("web-1").remove(0);
    let command = format!(
        r#"{{"execute": "block-dirty-bitmap-remove", "arguments": {{"node": "{}", "name": "{name}"}}}}"#,
        node_of(&stage.libvirt, "b.qcow2")
    );
    stage
        .libvirt
        .virsh(&["qemu-monitor-command", "web-1", &command]);
    let told = stage.changes();
    assert_eq!(told[0], only(MIB));
    assert_lost(&told[1]);
    stage.back_up();
    stage.write(2, 2 * MIB);
    assert_eq!(stage.changes(), [only(2 * MIB), only(2 * MIB)]);
}

#[test]
fn a_domain_that_was_undefined_goes_on_where_its_images_stop() {
    let mut stage = Stage::new();
    stage.write(1, MIB);
    stage.libvirt.virsh(&["destroy", "web-1"]);
    stage
        .libvirt
        .virsh(&["undefine", "web-1", "--checkpoints-metadata"]);
    stage.libvirt.define("web-1", &["a.qcow2", "b.qcow2"]);
    stage.libvirt.start_domain("web-1");
    stage.write(2, MIB + K);
    let both = format!("{:?}", [MIB..MIB + 2 * K]);
    assert_eq!(stage.changes(), [both.clone(), both]);
    stage.back_up();
}

#[test]
fn a_killed_qemu_loses_its_bitmaps_and_nothing_else() {
    let mut stage = Stage::new();
    for round in 1..=3 {
        stage.write(round, u64::from(round) * 2 * K);
        stage.libvirt.kill_qemu("web-1");
        // Every other time an image is read while the domain is off.
        if round == 2 {
            let volumes = volumes_of(&stage.inventory, "web-1");
            let disk = stage.inventory.open_reader(volumes[0]).unwrap();
            let why = disk.changes_since(&stage.points[0]).unwrap_err();
            assert_lost(&why.to_string());
            stage.models[0].assert_is(&*disk);
        }
        stage.libvirt.start_domain("web-1");
        stage.changes().iter().for_each(|why| assert_lost(why));
        stage.back_up();
        stage.write(100 + round, MIB);
        assert_eq!(stage.changes(), [only(MIB), only(MIB)]);
        stage.back_up();
    }
}

#[test]
fn a_qemu_that_ends_while_it_is_read_fails_the_backup() {
    let mut stage = Stage::new();
    for kill in [true, false] {
        let disks = open_all(&stage.inventory, "web-1");
        match kill {
            true => stage.libvirt.kill_qemu("web-1"),
            false => drop(stage.libvirt.virsh(&["destroy", "web-1"])),
        }
        let mut byte = [0];
        assert!(disks[0].read_at(4 * MIB - 1, &mut byte).is_err());
        assert!(disks[1].check_unchanged().is_err());
        drop(disks);
        assert_eq!(stage.libvirt.leftovers("web-1"), [""; 0]);
        stage.libvirt.start_domain("web-1");
        stage.back_up();
    }
    stage.write(1, MIB);
    assert_eq!(stage.changes(), [only(MIB), only(MIB)]);
}

#[test]
fn what_a_cairn_that_was_killed_left_is_removed() {
    let mut stage = Stage::new();
    for round in 0..2 {
        // It never lets go.
        std::mem::forget(open_all(&stage.inventory, "web-1"));
        stage.inventory = stage.libvirt.inventory();
        assert!(!stage.libvirt.leftovers("web-1").is_empty());
        stage.write(round, MIB);
        // The next backup does it by itself as well.
        if round == 0 {
            stage.inventory.clean_up();
            assert_eq!(stage.libvirt.leftovers("web-1"), [""; 0]);
            assert_eq!(stage.libvirt.checkpoints("web-1").len(), 1);
        }
        assert_eq!(stage.changes(), [only(MIB), only(MIB)]);
        stage.back_up();
    }
    // One that had only begun to begin, and another domain's.
    let note = |uuid| format!(".cairn-{uuid}.cairn-0000000009-ab.note");
    let [ours, other] = [uuid_of("web-1"), uuid_of("web-2")];
    for uuid in [ours, other] {
        File::create(stage.libvirt.image(&note(uuid))).unwrap();
    }
    stage.inventory.clean_up();
    assert_eq!(stage.libvirt.leftovers("web-1"), [note(other)]);
}

#[test]
fn a_job_of_another_program_is_left_alone() {
    let mut stage = Stage::new();
    let scratch = stage.libvirt.image("others").display().to_string();
    let xml = format!(
        "<domainbackup mode='pull'><server transport='unix' socket='{scratch}.socket'/><disks>\
         <disk name='sda' backup='yes' type='file'><scratch file='{scratch}'/></disk></disks></domainbackup>"
    );
    let file = stage.libvirt.image("job.xml");
    #[allow(clippy::disallowed_methods, reason = "nobody needs it after a crash")]
    std::fs::write(&file, xml).unwrap();
    stage
        .libvirt
        .virsh(&["backup-begin", "web-1", file.to_str().unwrap()]);
    let error = stage.open_error();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(error.to_string().contains("another job"), "{error}");
    stage.inventory.clean_up();
    stage.libvirt.virsh(&["backup-dumpxml", "web-1"]);
    stage.libvirt.virsh(&["domjobabort", "web-1"]);
    wait_until("the end of the job", || {
        let job = stage.libvirt.try_virsh(&["backup-dumpxml", "web-1"]);
        job.is_err()
    });
    stage.back_up();
    // Nor is it begun twice by ourselves.
    let disks = open_all(&stage.inventory, "web-1");
    assert_eq!(stage.open_error().kind(), Kind::Conflict);
    let refused = stage.inventory.power_off(server_of("web-1"));
    assert_eq!(refused.unwrap_err().kind(), Kind::Conflict);
    // Whoever ends it from outside fails it.
    stage.libvirt.virsh(&["domjobabort", "web-1"]);
    wait_until("that it is noticed", || disks[0].check_unchanged().is_err());
    drop(disks);
    stage.back_up();
}

#[test]
fn a_libvirt_that_starts_again_changes_nothing() {
    let mut stage = Stage::new();
    stage.write(1, MIB);
    stage.libvirt.restart();
    assert_eq!(stage.changes(), [only(MIB), only(MIB)]);
    let disks = open_all(&stage.inventory, "web-1");
    stage.libvirt.restart();
    for (disk, model) in disks.iter().zip(&stage.models) {
        model.assert_is(&**disk);
    }
    drop(disks);
    stage.back_up();
    stage.write(2, 2 * MIB);
    assert_eq!(stage.changes(), [only(2 * MIB), only(2 * MIB)]);
}

#[test]
fn an_image_that_was_put_back_is_not_taken_for_a_later_state() {
    let mut stage = Stage::new();
    stage.libvirt.virsh(&["destroy", "web-1"]);
    let image = stage.libvirt.image("a.qcow2");
    let copy = stage.libvirt.image("copy");
    std::fs::copy(&image, &copy).unwrap();
    let before = stage.models[0].clone();
    stage.libvirt.start_domain("web-1");
    stage.write(1, MIB);
    stage.back_up();
    stage.libvirt.virsh(&["destroy", "web-1"]);
    std::fs::copy(&copy, &image).unwrap();
    stage.models[0] = before;
    stage.libvirt.start_domain("web-1");
    let told = stage.changes();
    assert_lost(&told[0]);
    assert_eq!(told[1], "[]");
    stage.back_up();
}

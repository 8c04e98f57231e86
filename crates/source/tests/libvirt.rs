//! Domains of a real libvirt: discovered, backed up while they run and while
//! they do not, and turned off and on.

use std::ops::Range;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_source::{
    Consistency, Inventory, Level, LibvirtConfig, PoweredOff, Protectable, ProtectableStatus,
    SourceConfig,
};
use cairn_types::disk::{DiskReader, Point};
use cairn_types::{Kind, ResourceType};

use crate::common::guest::{Model, wait_until};
use crate::common::libvirt::{Libvirt, open_all, open_some, server_of, volumes_of, write};
use crate::common::{Lab, MIB};

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
}

/// A first backup of a domain that runs, acknowledged: the points of its disks.
fn back_up(inventory: &Inventory, name: &str) -> Vec<Point> {
    let disks = open_all(inventory, name);
    disks.iter().for_each(|disk| disk.keep_point());
    disks.iter().map(|disk| disk.point().unwrap()).collect()
}

#[test]
fn domains_are_discovered_with_their_disks() {
    let libvirt = Libvirt::start();
    libvirt.create("a.qcow2", &[], "3M");
    libvirt.create("b.img", &[], "2M");
    let cdrom = "<disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk>";
    libvirt.define_with("web-1", &["a.qcow2", "b.img", "gone.qcow2"], cdrom);
    libvirt.define("secret", &["a.qcow2"]);
    let config = LibvirtConfig {
        exclude: vec!["sec*".to_owned()],
        ..libvirt.config()
    };
    let inventory = Inventory::new(vec![SourceConfig::Libvirt(config)]).unwrap();
    let all = inventory.list().unwrap();
    let names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["web-1/sda", "web-1/sdb", "web-1/sdc", "web-1"]);
    let server = &all[3];
    assert_eq!(
        (server.id, server.resource_type),
        (server_of("web-1"), ResourceType::Server)
    );
    assert_eq!(server.size_bytes, 5 * MIB);
    assert_eq!(server.status, ProtectableStatus::Missing);
    let is_system = |one: &Protectable| one.system_disk;
    assert_eq!(
        server.children.iter().filter(|one| is_system(one)).count(),
        1
    );
    assert!(server.children[0].system_disk && server.children[..2] == all[..2]);
    assert_eq!(inventory.find(all[1].id).unwrap().name, "web-1/sdb");

    // They come and go.
    libvirt.define("db-1", &["b.img"]);
    wait_until("another domain", || {
        inventory.find(server_of("db-1")).is_ok()
    });
    libvirt.virsh(&["undefine", "db-1"]);
    wait_until("a domain less", || {
        inventory
            .find(server_of("db-1"))
            .is_err_and(|error| error.kind() == Kind::NotFound)
    });
}

#[test]
fn changes_are_told_whether_the_domain_runs_or_not() {
    let libvirt = Libvirt::start();
    let inventory = libvirt.inventory();
    libvirt.domain("web-1", &["a.qcow2", "b.qcow2"], "8M");
    let mut model = Model::new(8 * MIB);
    write(&libvirt, "web-1", 0, &mut model, (0xee, 8 * MIB - K, K));
    libvirt.write("web-1", 1, 0xee, 8 * MIB - K, K);
    let first = back_up(&inventory, "web-1");
    write(&libvirt, "web-1", 0, &mut model, (1, 0, K));
    libvirt.virsh(&["destroy", "web-1"]);

    // Off, its images tell.
    let volumes = volumes_of(&inventory, "web-1");
    let opened = inventory.open_server(server_of("web-1"), &volumes, Level::Application(None));
    let opened = opened.unwrap();
    assert_eq!(opened.consistency, Consistency::AtRest);
    let second: Vec<_> = opened
        .disks
        .iter()
        .map(|(_, disk)| disk.point().unwrap())
        .collect();
    assert_eq!(changes(&*opened.disks[0].1, &first[0]), [0..K]);
    assert_eq!(changes(&*opened.disks[1].1, &first[1]), []);
    model.assert_is(&*opened.disks[0].1);
    opened.disks.iter().for_each(|(_, disk)| disk.keep_point());
    // It does not start while somebody reads what it would write.
    assert!(libvirt.try_virsh(&["start", "web-1", "--paused"]).is_err());
    drop(opened);

    libvirt.start_domain("web-1");
    write(&libvirt, "web-1", 0, &mut model, (2, MIB, K));
    let disks = open_all(&inventory, "web-1");
    assert_eq!(changes(&*disks[0], &second[0]), [MIB..MIB + K]);
    assert_eq!(changes(&*disks[1], &second[1]), []);
    model.assert_is(&*disks[0]);
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);
    assert_eq!(libvirt.checkpoints("web-1").len(), 1);
    assert_eq!(libvirt.bitmaps("web-1").len(), 2);
    assert_eq!(libvirt.leftovers("web-1"), [""; 0]);
}

#[test]
fn disks_that_cannot_have_bitmaps_are_read_in_full_beside_the_others() {
    let libvirt = Libvirt::start();
    let inventory = libvirt.inventory();
    libvirt.create("base.qcow2", &[], "4M");
    let base = libvirt.image("base.qcow2");
    let upon = ["-b", base.to_str().unwrap(), "-F", "qcow2"];
    libvirt.create("good.qcow2", &[], "4M");
    libvirt.create("raw.img", &[], "4M");
    libvirt.create("old.qcow2", &["-o", "compat=0.10"], "4M");
    libvirt.create("layer.qcow2", &upon, "4M");
    let names = ["good.qcow2", "raw.img", "old.qcow2", "layer.qcow2"];
    libvirt.define("web-1", &names);
    libvirt.start_domain("web-1");
    let mut models = names.map(|_| Model::new(4 * MIB));
    for round in 1..=3 {
        for (disk, model) in models.iter_mut().enumerate() {
            write(
                &libvirt,
                "web-1",
                disk,
                model,
                (round, u64::from(round) * MIB, MIB),
            );
        }
        let disks = open_all(&inventory, "web-1");
        for (disk, model) in disks.iter().zip(&models) {
            model.assert_is(&**disk);
            disk.keep_point();
        }
        let points: Vec<_> = disks.iter().map(|disk| disk.point().is_some()).collect();
        assert_eq!(points, [true, false, false, false]);
        let some = Point::new("bitmap:cairn-0000000000-ab").unwrap();
        let why = |at: usize| disks[at].changes_since(&some).unwrap_err().to_string();
        assert!(why(1).contains("not one of qcow2"), "{}", why(1));
        assert!(why(2).contains("version 2"), "{}", why(2));
        assert!(why(3).contains("backing file"), "{}", why(3));
        drop(disks);
        assert_eq!(libvirt.checkpoints("web-1").len(), 1);
        assert_eq!(libvirt.leftovers("web-1"), [""; 0]);
    }
}

#[test]
fn disks_come_go_and_grow() {
    let libvirt = Libvirt::start();
    let inventory = libvirt.inventory();
    libvirt.domain("web-1", &["a.qcow2", "b.qcow2"], "4M");
    libvirt.write("web-1", 0, 0xee, 4 * MIB - K, K);
    libvirt.write("web-1", 1, 0xee, 4 * MIB - K, K);
    let first = back_up(&inventory, "web-1");
    let before = volumes_of(&inventory, "web-1");
    libvirt.create("c.qcow2", &[], "4M");
    let image = libvirt.image("c.qcow2");
    let attach = ["attach-disk", "web-1", image.to_str().unwrap(), "sdc"];
    libvirt.virsh(
        &[
            &attach[..],
            &["--subdriver", "qcow2", "--targetbus", "scsi"],
        ]
        .concat(),
    );
    libvirt.virsh(&["detach-disk", "web-1", "sdb"]);
    let image = libvirt.image("a.qcow2");
    libvirt.virsh(&["blockresize", "web-1", image.to_str().unwrap(), "6M"]);
    libvirt.write("web-1", 0, 1, 6 * MIB - K, K);
    wait_until("another disk", || {
        let now = volumes_of(&inventory, "web-1");
        now.len() == 2 && now[0] == before[0] && now[1] != before[1]
    });
    let disks = open_all(&inventory, "web-1");
    assert_eq!(disks[0].size_bytes(), 6 * MIB);
    assert_eq!(changes(&*disks[0], &first[0]), [4 * MIB..6 * MIB]);
    assert!(disks[1].changes_since(&first[1]).is_err());
    disks.iter().for_each(|disk| disk.keep_point());
    let second: Vec<_> = disks.iter().map(|disk| disk.point().unwrap()).collect();
    drop(disks);
    assert_eq!(libvirt.checkpoints("web-1").len(), 1);
    // The disk that went has still the bitmap of then, and comes back.
    let image = libvirt.image("b.qcow2");
    let attach = ["attach-disk", "web-1", image.to_str().unwrap(), "sdb"];
    libvirt.virsh(
        &[
            &attach[..],
            &["--subdriver", "qcow2", "--targetbus", "scsi"],
        ]
        .concat(),
    );
    wait_until("the disk", || {
        volumes_of(&inventory, "web-1").contains(&before[1])
    });
    libvirt.write("web-1", 1, 2, MIB, K);
    let disks = open_some(&inventory, "web-1", &[before[0], before[1]]);
    assert_eq!(changes(&*disks[0], &second[0]), []);
    assert_eq!(changes(&*disks[1], &first[1]), [MIB..MIB + K]);
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);
    assert_eq!(libvirt.leftovers("web-1"), [""; 0]);
}

#[test]
fn one_disk_alone_leaves_the_checkpoint_of_the_others() {
    let libvirt = Libvirt::start();
    let inventory = libvirt.inventory();
    libvirt.domain("web-1", &["a.qcow2", "b.qcow2"], "4M");
    let first = back_up(&inventory, "web-1");
    let volumes = volumes_of(&inventory, "web-1");
    let mut last = first[0].clone();
    for _ in 0..3 {
        let disk = inventory.open_reader(volumes[0]).unwrap();
        disk.changes_since(&last)
            .unwrap_or_else(|why| panic!("{why}"));
        last = disk.point().unwrap();
        disk.keep_point();
        drop(disk);
        assert_eq!(libvirt.checkpoints("web-1").len(), 2);
    }
    let disks = open_all(&inventory, "web-1");
    assert!(disks[0].changes_since(&last).is_ok() && disks[1].changes_since(&first[1]).is_ok());
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);
    assert_eq!(libvirt.checkpoints("web-1").len(), 1);
}

#[test]
fn a_restored_disk_is_compared_and_a_domain_that_runs_is_not_written() {
    let libvirt = Libvirt::start();
    let inventory = libvirt.inventory();
    libvirt.domain("web-1", &["a.qcow2", "b.img"], "4M");
    libvirt.write("web-1", 0, 1, 0, 4 * MIB);
    let disks = open_all(&inventory, "web-1");
    let first = disks[0].point().unwrap();
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);
    let volumes = volumes_of(&inventory, "web-1");
    for volume in &volumes {
        assert_eq!(
            inventory.check_writable(*volume).unwrap_err().kind(),
            Kind::Conflict
        );
        let refused = inventory.open_writer(*volume, 4 * MIB).err().unwrap();
        assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
    }
    inventory.check_power_on(server_of("web-1")).unwrap();
    let off = inventory.power_off(server_of("web-1")).unwrap();
    assert_eq!(off, PoweredOff { was_running: true });
    let off = inventory.power_off(server_of("web-1")).unwrap();
    assert_eq!(off, PoweredOff { was_running: false });
    for volume in &volumes {
        inventory.check_writable(*volume).unwrap();
        let disk = inventory.open_writer(*volume, 3 * MIB).unwrap();
        assert_eq!(disk.size_bytes(), 3 * MIB);
        disk.write_at(MIB, &[7; 1000]).unwrap();
        disk.flush().unwrap();
        assert!(
            libvirt.try_virsh(&["start", "web-1"]).is_err(),
            "it is being written"
        );
    }
    inventory.power_on(server_of("web-1")).unwrap();
    inventory.power_on(server_of("web-1")).unwrap();
    assert_eq!(libvirt.virsh(&["domstate", "web-1"]).trim(), "running");
    let disks = open_all(&inventory, "web-1");
    let why = disks[0].changes_since(&first).unwrap_err();
    assert!(why.to_string().contains("is gone"), "{why}");
    let mut bytes = [0; 1001];
    disks[0].read_at(MIB, &mut bytes).unwrap();
    assert_eq!((bytes[999], bytes[1000]), (7, 1));
    disks.iter().for_each(|disk| disk.keep_point());
    let second = disks[0].point().unwrap();
    drop(disks);
    assert_eq!(libvirt.checkpoints("web-1").len(), 1);
    let disks = open_all(&inventory, "web-1");
    assert!(disks[0].changes_since(&second).is_ok());
}

#[test]
fn saved_memory_and_domains_without_definition_are_minded() {
    let libvirt = Libvirt::start();
    let inventory = libvirt.inventory();
    libvirt.create("a.img", &[], "1M");
    libvirt.define("web-1", &["a.img"]);
    libvirt.virsh(&["start", "web-1"]);
    libvirt.virsh(&["managedsave", "web-1"]);
    let volumes = volumes_of(&inventory, "web-1");
    let refused = inventory.open_writer(volumes[0], MIB).err().unwrap();
    assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
    inventory.power_off(server_of("web-1")).unwrap();
    drop(inventory.open_writer(volumes[0], MIB).unwrap());
    libvirt.start_domain("web-1");
    libvirt.virsh(&["undefine", "web-1"]);
    let refused = inventory.power_off(server_of("web-1")).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    assert_eq!(libvirt.virsh(&["domstate", "web-1"]).trim(), "paused");
}

#[test]
fn a_libvirt_that_does_not_answer_holds_up_nobody_else() {
    let lab = Lab::new();
    lab.create("a.img", 1000);
    let socket = lab.path("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let silent = LibvirtConfig {
        name: "host".to_owned(),
        uri: format!("qemu:///session?socket={}", socket.display()),
        project: None,
        domains: Vec::new(),
        exclude: Vec::new(),
        scratch: None,
        tags: std::collections::BTreeMap::new(),
    };
    let sources = vec![
        SourceConfig::Libvirt(silent),
        SourceConfig::Images(lab.config()),
    ];
    let inventory = Inventory::new(sources).unwrap();
    let start = Instant::now();
    assert_eq!(inventory.find(lab.id("a.img")).unwrap().name, "a.img");
    drop(inventory.open_reader(lab.id("a.img")).unwrap());
    assert!(start.elapsed() < Duration::from_secs(2));
    let (found, errors) = inventory.list_readable();
    assert_eq!(found.len(), 1);
    assert_eq!(errors[0].kind(), Kind::Transient, "{}", errors[0]);
    let unknown = inventory.find(server_of("web-1")).unwrap_err();
    assert_eq!(unknown.kind(), Kind::Transient);
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn all_disks_are_of_one_moment() {
    const SECTORS: u64 = 256;
    let libvirt = Libvirt::start();
    let inventory = libvirt.inventory();
    libvirt.domain("web-1", &["a.qcow2", "b.img", "c.qcow2"], "2M");
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let written = |disk: &dyn DiskReader| {
        let mut bytes = vec![0; (SECTORS * 512) as usize];
        disk.read_at(0, &mut bytes).unwrap();
        let sectors = bytes.chunks(512).take_while(|sector| sector[0] == 1);
        sectors.count()
    };
    std::thread::scope(|threads| {
        // Sector after sector, on the first disk and then on the last.
        let writer = threads.spawn(|| {
            for sector in 0..SECTORS {
                for disk in [0, 2] {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    libvirt.write("web-1", disk, 1, sector * 512, 512);
                }
                done.store(sector, Ordering::Relaxed);
            }
        });
        let mut last = 0;
        for round in 0..5 {
            let disks = open_all(&inventory, "web-1");
            let (one, two) = (written(&*disks[0]), written(&*disks[2]));
            assert!(
                (two..=two + 1).contains(&one),
                "round {round}: {one} and {two}"
            );
            assert_eq!((written(&*disks[0]), written(&*disks[2])), (one, two));
            assert!(round == 0 || two > last, "the guest writes on");
            last = two;
            let now = done.load(Ordering::Relaxed);
            wait_until("that the guest writes on", || {
                done.load(Ordering::Relaxed) > now + 1
            });
        }
        assert!(!writer.is_finished(), "the guest wrote all the time");
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(libvirt.leftovers("web-1"), [""; 0]);
}

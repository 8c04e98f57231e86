//! Turning guests off and on whose QEMU is configured; domains of libvirt are in `libvirt.rs`.

use std::error::Error;
use std::path::PathBuf;

use cairn_source::{ImagesConfig, Inventory, PoweredOff, ServerConfig, SourceConfig};
use cairn_types::Kind;

use crate::common::guest::{Guest, Monitor, wait_until};
use crate::common::{Lab, MIB};

fn inventory(lab: &Lab, start_command: &[&str]) -> Inventory {
    let server = vec![ServerConfig {
        qmp: Some(lab.path("qmp")),
        start_command: start_command.iter().map(|word| word.to_string()).collect(),
        ..ServerConfig::new("web-1", vec![PathBuf::from("a.qcow2")])
    }];
    let config = ImagesConfig {
        server,
        ..lab.config()
    };
    Inventory::new(vec![SourceConfig::Images(config)]).unwrap()
}

#[test]
fn a_guest_is_turned_off_written_and_started_again() {
    let lab = Lab::new();
    lab.qcow2("a.qcow2", "4M");
    let image = lab.path("a.qcow2").display().to_string();
    let node = format!("driver=qcow2,node-name=n,file.driver=file,file.filename={image}");
    let qmp = format!("unix:{},server=on,wait=off", lab.path("qmp").display());
    let start = [
        "qemu-system-x86_64",
        "-daemonize",
        "-S",
        "-accel",
        "tcg",
        "-m",
        "16",
        "-nodefaults",
        "-display",
        "none",
        "-blockdev",
        &node,
        "-device",
        "virtio-blk-pci,drive=n",
        "-qmp",
        &qmp,
    ];
    let inventory = inventory(&lab, &start);
    let server = lab.server_id(&inventory);
    let volume = lab.id("a.qcow2");
    inventory.check_power_on(server).unwrap();
    let guest = Guest::start(&lab, &["a.qcow2"]);
    guest.write(0, 1, 0, MIB);
    for _ in 0..2 {
        let refused = inventory.open_writer(volume, 4 * MIB).err().unwrap();
        assert_eq!(refused.kind(), Kind::Conflict);
        let off = inventory.power_off(server).unwrap();
        assert_eq!(off, PoweredOff { was_running: true });
        assert_eq!(
            inventory.power_off(server).unwrap(),
            PoweredOff { was_running: false }
        );
        let disk = inventory.open_writer(volume, 4 * MIB).unwrap();
        let mut byte = [0];
        disk.read_at(MIB - 1, &mut byte).unwrap();
        assert_eq!(byte, [1], "what QEMU held is written out");
        // It could not start now.
        let refused = inventory.power_on(server).unwrap_err();
        assert_eq!(refused.kind(), Kind::Transient);
        let why = refused.source().unwrap().to_string();
        assert!(why.contains("lock"), "{why}");
        drop(disk);
        inventory.power_on(server).unwrap();
        inventory.power_on(server).unwrap();
        wait_until("its monitor", || {
            Monitor::connect(&lab.path("qmp")).is_some()
        });
    }
    // It is no child of this test.
    inventory.power_off(server).unwrap();
}

#[test]
fn a_guest_is_not_stopped_that_nobody_could_start() {
    let lab = Lab::new();
    lab.qcow2("a.qcow2", "1M");
    let without = inventory(&lab, &[]);
    let server = lab.server_id(&without);
    for refused in [without.check_power_on(server), without.power_on(server)] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(refused.to_string().contains("start_command"), "{refused}");
    }
    let failing = inventory(&lab, &["sh", "-c", "echo no room >&2; exit 3"]);
    let refused = failing.power_on(server).unwrap_err();
    assert_eq!(refused.kind(), Kind::Transient);
    let why = refused.source().unwrap().to_string();
    assert!(why.contains("no room") && why.contains('3'), "{why}");
    let told = refused.to_string();
    assert!(told.contains("exit status: 3"), "{told}");
    assert!(
        !told.contains("no room"),
        "what it says is for the log: {told}"
    );
    let missing = inventory(&lab, &["/nowhere/start"]);
    assert_eq!(missing.power_on(server).unwrap_err().kind(), Kind::NotFound);
    // A server is turned off while somebody backs it up: not now.
    let guest = Guest::start(&lab, &["a.qcow2"]);
    let disk = without.open_reader(lab.id("a.qcow2")).unwrap();
    assert_eq!(
        without.power_off(server).unwrap_err().kind(),
        Kind::Conflict
    );
    drop(disk);
    assert!(
        without.power_off(lab.id("a.qcow2")).is_err(),
        "a disk is no server"
    );
    drop(guest);
}

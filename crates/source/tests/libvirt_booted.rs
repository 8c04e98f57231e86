//! A Linux that runs as a domain of libvirt, writes all the time, and has QEMU's agent in it.

use std::path::Path;

use cairn_source::{Consistency, Level};

use crate::common::guest::wait_until;
use crate::common::libvirt::{Libvirt, server_of, volumes_of};
use crate::common::records::{Copy, SIZE, make_disk};

const DISKS: [&str; 2] = ["a.qcow2", "b.qcow2"];

#[test]
fn a_domain_that_writes_all_the_time_is_backed_up_whole() {
    let libvirt = Libvirt::start();
    for name in DISKS {
        make_disk(&libvirt.image(name));
        libvirt.open_to_all(name);
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest");
    for name in ["kernel", "initrd"] {
        let copied = std::fs::copy(built.join(name), libvirt.image(name));
        copied.expect("scripts/guest_image.sh has built no guest");
        libvirt.open_to_all(name);
    }
    libvirt.define_linux("web-1", &DISKS, "kernel", "initrd");
    libvirt.virsh(&["start", "web-1"]);
    let console = libvirt.image("console");
    wait_until("the guest's start", || {
        let said = std::fs::read(&console).unwrap_or_default();
        String::from_utf8_lossy(&said).contains("cairn guest: ready")
    });
    let ping = [
        "qemu-agent-command",
        "web-1",
        r#"{"execute": "guest-ping"}"#,
    ];
    wait_until("its agent", || libvirt.try_virsh(&ping).is_ok());
    let inventory = libvirt.inventory();
    let volumes = volumes_of(&inventory, "web-1");
    let mut copies = [Copy::new(), Copy::new()];
    let mut last = 0;
    for round in 0..4 {
        let is_frozen = round != 2;
        let level = match is_frozen {
            false => Level::Crash,
            true => Level::Application(None),
        };
        let opened = inventory.open_server(server_of("web-1"), &volumes, level);
        let opened = opened.unwrap();
        let expected = match is_frozen {
            true => Consistency::Application,
            false => Consistency::Crash { why: None },
        };
        assert_eq!(opened.consistency, expected);
        for (copy, (_, disk)) in copies.iter_mut().zip(&opened.disks) {
            copy.update(&**disk);
            let read_bytes = copy.read_bytes;
            assert!(round == 0 || read_bytes < SIZE / 4, "{read_bytes}");
        }
        drop(opened);
        let [one, two] = [&copies[0], &copies[1]].map(|copy| copy.records(is_frozen));
        if is_frozen {
            assert!(
                one == two || one == two + 1,
                "round {round}: {one} and {two}"
            );
            assert!(
                round == 0 || two > last,
                "round {round}: the guest writes on"
            );
            last = two;
        }
        let written = || {
            let said = libvirt.virsh(&["domblkstat", "web-1", "vda"]);
            let line = said.lines().find(|line| line.contains("wr_bytes")).unwrap();
            line.split(' ').next_back().unwrap().parse::<u64>().unwrap()
        };
        let before = written();
        wait_until("the guest's next write", || written() > before);
    }
    assert_eq!(libvirt.leftovers("web-1"), [""; 0]);
    // Without an agent the backup goes on, and says so.
    libvirt.virsh(&["destroy", "web-1"]);
    libvirt.virsh(&["start", "web-1", "--paused"]);
    let opened = inventory.open_server(server_of("web-1"), &volumes, Level::Application(None));
    match opened.unwrap().consistency {
        Consistency::Crash { why: Some(why) } => {
            assert!(why.contains("the guest could not be frozen"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

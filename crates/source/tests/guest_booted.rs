//! A Linux that runs, writes all the time, and has QEMU's agent in it.

use cairn_source::{Consistency, Level};
use serde_json::json;

use crate::common::Lab;
use crate::common::guest::{Guest, wait_until};
use crate::common::records::{Copy, SIZE, make_disk};

const DISKS: [&str; 2] = ["a.qcow2", "b.qcow2"];
#[test]
fn a_guest_that_writes_all_the_time_is_backed_up_whole() {
    let lab = Lab::new();
    for name in DISKS {
        make_disk(&lab.path(name));
    }
    let guest = Guest::boot(&lab, &DISKS);
    let device =
        json!({"path": "/machine/peripheral/disk0/virtio-backend", "property": "iothread"});
    assert_eq!(
        guest.ask("qom-get", device),
        json!("/objects/loop"),
        "its disks have a thread"
    );
    let agent = Some(lab.path("agent"));
    let inventory = lab.inventory_with_qmp(&DISKS, &lab.path("qmp"), agent);
    let volumes = DISKS.map(|name| lab.id(name));
    let mut copies = [Copy::new(), Copy::new()];
    let mut last = 0;
    for round in 0..6 {
        let is_frozen = round != 3;
        let level = match is_frozen {
            false => Level::Crash,
            true => Level::Application(None),
        };
        let server = lab.server_id(&inventory);
        let opened = inventory.open_server(server, &volumes, level).unwrap();
        let expected = match is_frozen {
            true => Consistency::Application,
            false => Consistency::Crash { why: None },
        };
        assert_eq!(opened.consistency, expected);
        for (copy, (_, disk)) in copies.iter_mut().zip(&opened.disks) {
            copy.update(&**disk);
            assert!(
                round == 0 || copy.read_bytes < SIZE / 4,
                "{}",
                copy.read_bytes
            );
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
        // It goes on writing, which its disk's node tells.
        let written = || {
            let stats = guest.ask("query-blockstats", json!({}));
            stats[0]["stats"]["wr_bytes"].as_u64().unwrap()
        };
        let before = written();
        wait_until("the guest's next write", || written() > before);
    }
    assert_eq!(guest.leftovers(), [""; 0]);
    let events = guest.monitor.lock().unwrap().events.clone();
    assert!(
        !events.iter().any(|event| event == "STOP"),
        "it was never paused: {events:?}"
    );
}

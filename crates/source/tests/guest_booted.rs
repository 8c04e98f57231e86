//! A Linux that runs, writes all the time, and has QEMU's agent in it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set up its files has failed"
)]

mod common;

use std::fs;
use std::process::{Command, Output};

use cairn_source::{Consistency, Level};
use cairn_types::disk::{DiskReader, Point};
use common::guest::{Guest, wait_until};
use common::{Lab, MIB};
use serde_json::json;

const DISKS: [&str; 2] = ["a.qcow2", "b.qcow2"];
const SIZE: u64 = 256 * MIB;

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// A disk's copy, which backups bring up to date.
struct Copy {
    bytes: Vec<u8>,
    point: Option<Point>,
    read_bytes: u64,
}

impl Copy {
    fn update(&mut self, disk: &dyn DiskReader) {
        let changes = self
            .point
            .as_ref()
            .map(|point| disk.changes_since(point).unwrap());
        let changes = changes.unwrap_or_else(|| std::iter::once(0..SIZE).collect());
        self.read_bytes = 0;
        for range in changes {
            let place = range.start as usize..range.end.min(SIZE) as usize;
            self.read_bytes += place.len() as u64;
            disk.read_at(range.start, &mut self.bytes[place]).unwrap();
        }
        let mut all = vec![0; SIZE as usize];
        disk.read_at(0, &mut all).unwrap();
        assert!(
            all == self.bytes,
            "what the change map left out has changed"
        );
        self.point = disk.point();
        disk.keep_point();
    }

    /// How many records are in the file of the copy's file system, which must be whole.
    fn records(&self, lab: &Lab, is_frozen: bool) -> usize {
        let path = lab.path("copy.tmp");
        fs::File::create(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&lab.edit("copy.tmp"), &self.bytes, 0).unwrap();
        let path = path.to_str().unwrap();
        if !is_frozen {
            // As after a loss of power: the journal makes it whole.
            assert!(matches!(
                run("e2fsck", &["-fp", path]).status.code(),
                Some(0 | 1)
            ));
        }
        let state = run("dumpe2fs", &["-h", path]).stdout;
        assert!(!String::from_utf8_lossy(&state).contains("needs_recovery"));
        let checked = run("e2fsck", &["-fn", path]);
        assert!(checked.status.success(), "{checked:?}");
        let records = run("debugfs", &["-R", "cat /records", path]).stdout;
        let records = String::from_utf8(records).unwrap();
        for (line, number) in records.lines().zip(1..) {
            let is_last = !records.ends_with('\n') && records.ends_with(line);
            assert!(
                line == format!("record {number}") || (is_last && !is_frozen),
                "{line}"
            );
        }
        records.lines().count()
    }
}

#[test]
fn a_guest_that_writes_all_the_time_is_backed_up_whole() {
    let lab = Lab::new();
    for name in DISKS {
        let file = lab.create("new.tmp", SIZE);
        drop(file);
        let made = run(
            "mkfs.ext4",
            &["-q", "-F", lab.path("new.tmp").to_str().unwrap()],
        );
        assert!(made.status.success(), "{made:?}");
        lab.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "new.tmp", name]);
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
    let mut copies = [(); 2].map(|()| Copy {
        bytes: vec![0; SIZE as usize],
        point: None,
        read_bytes: 0,
    });
    let mut last = 0;
    for round in 0..6 {
        let level = match round {
            3 => Level::Crash,
            _ => Level::Application,
        };
        let server = lab.server_id(&inventory);
        let opened = inventory.open_server(server, &volumes, level).unwrap();
        let is_frozen = level == Level::Application;
        let expected = match level {
            Level::Application => Consistency::Application,
            Level::Crash => Consistency::Crash { why: None },
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
        let [one, two] = [&copies[0], &copies[1]].map(|copy| copy.records(&lab, is_frozen));
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

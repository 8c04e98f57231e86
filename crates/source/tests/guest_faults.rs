//! Whatever goes wrong while disks of a running guest are read: the guest goes
//! on, nothing stays in its QEMU, and no wrong byte is taken for a right one.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_source::{Error, Inventory, Level};
use cairn_types::Kind;
use cairn_types::disk::{DiskReader, Point};
use serde_json::json;

use crate::common::guest::{Guest, Model, open_all};
use crate::common::proxy::CutProxy;
use crate::common::{Lab, MIB, noise};

const DISKS: [&str; 2] = ["a.qcow2", "b.qcow2"];

fn two_disks(lab: &Lab) -> Guest {
    DISKS.iter().for_each(|name| lab.qcow2(name, "4M"));
    Guest::start(lab, &DISKS)
}

fn try_open(lab: &Lab, inventory: &Inventory) -> Result<Vec<Arc<dyn DiskReader>>, Error> {
    let volumes = DISKS.map(|name| lab.id(name));
    let opened = inventory.open_server(lab.server_id(inventory), &volumes, Level::Crash)?;
    Ok(opened.disks.into_iter().map(|(_, reader)| reader).collect())
}

/// Cairn is cut off from QEMU at every command that it sends: what is there then is
/// what a Cairn that was killed at that moment leaves.
#[test]
fn what_a_cut_off_backup_leaves_is_removed() {
    let lab = Lab::new();
    let guest = two_disks(&lab);
    let mut models = [Model::new(4 * MIB), Model::new(4 * MIB)];
    let mut left_something = 0;
    for cut in 1.. {
        let byte = (cut % 250) as u8;
        for (disk, model) in models.iter_mut().enumerate() {
            model.write(&guest, disk, byte, u64::from(byte) * 4096, 5000);
        }
        let proxy = CutProxy::start(&lab.path("proxy"), &lab.path("qmp"), cut);
        let inventory = lab.inventory_with_qmp(&DISKS, &lab.path("proxy"), None);
        if let Ok(disks) = try_open(&lab, &inventory) {
            models[0].assert_is(&*disks[0]);
            models[1].assert_is(&*disks[1]);
        }
        let was_cut = proxy.end();
        guest.write(0, byte, MIB, 10);
        models[0].0[MIB as usize..MIB as usize + 10].fill(byte);
        left_something += usize::from(!guest.monitor.lock().unwrap().leftovers().is_empty());

        let inventory = lab.inventory_with_guest(&DISKS);
        // Every other time the next backup has to do it by itself.
        if cut % 2 == 0 {
            inventory.clean_up();
            assert_eq!(guest.leftovers(), [""; 0], "cut at {cut}");
        }
        let disks = open_all(&lab, &inventory, &DISKS);
        for (disk, model) in disks.iter().zip(&models) {
            model.assert_is(&**disk);
            disk.keep_point();
        }
        drop(disks);
        assert_eq!(guest.leftovers(), [""; 0], "cut at {cut}");
        assert_eq!(
            [guest.bitmaps(0).len(), guest.bitmaps(1).len()],
            [1, 1],
            "cut at {cut}"
        );
        if !was_cut {
            break;
        }
    }
    assert!(
        left_something > 20,
        "only {left_something} cuts left anything"
    );
}

#[test]
fn readers_that_nobody_drops_are_cut_off() {
    let lab = Lab::new();
    let guest = two_disks(&lab);
    let disks = open_all(&lab, &lab.inventory_with_guest(&DISKS), &DISKS);
    let forgotten = disks.clone();
    std::mem::forget(disks);
    assert!(!guest.leftovers().is_empty());
    lab.inventory_with_guest(&DISKS).clean_up();
    assert_eq!(guest.leftovers(), [""; 0]);
    assert!(forgotten[0].read_at(0, &mut [0]).is_err());
    std::mem::forget(forgotten);
}

#[test]
fn a_backup_that_fails_leaves_the_point_before() {
    let lab = Lab::new();
    let guest = two_disks(&lab);
    let inventory = lab.inventory_with_guest(&DISKS);
    let disks = open_all(&lab, &inventory, &DISKS);
    let points: Vec<Point> = disks.iter().map(|disk| disk.point().unwrap()).collect();
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);
    let before = [guest.bitmaps(0), guest.bitmaps(1)];
    for _ in 0..5 {
        guest.write(0, 1, 0, 10);
        drop(open_all(&lab, &inventory, &DISKS));
    }
    assert_eq!([guest.bitmaps(0), guest.bitmaps(1)], before);
    // One disk is done, the other is not.
    let disks = open_all(&lab, &inventory, &DISKS);
    assert_eq!(disks[0].changes_since(&points[0]).unwrap().len(), 1);
    disks[0].keep_point();
    drop(disks);
    assert_ne!(guest.bitmaps(0), before[0]);
    assert_eq!(guest.bitmaps(1), before[1]);
    assert_eq!(guest.leftovers(), [""; 0]);
}

#[test]
fn a_guest_that_is_shut_down_ends_the_backup_and_loses_nothing() {
    let lab = Lab::new();
    let guest = two_disks(&lab);
    let inventory = lab.inventory_with_guest(&DISKS);
    guest.write(0, 1, 0, 4 * MIB);
    let disks = open_all(&lab, &inventory, &DISKS);
    let point = disks[0].point().unwrap();
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);
    guest.write(0, 2, MIB, 10);
    let disks = open_all(&lab, &inventory, &DISKS);
    guest.write(0, 3, 2 * MIB, 10);
    guest.quit();
    assert!(disks[0].read_at(0, &mut [0]).is_err());
    drop(disks);
    let disks = try_open(&lab, &inventory).unwrap();
    let changed = disks[0].changes_since(&point).unwrap();
    assert_eq!(changed, [MIB..MIB + SLOT, 2 * MIB..2 * MIB + SLOT]);
    let mut model = Model::new(4 * MIB);
    model.0.fill(1);
    model.0[MIB as usize..MIB as usize + 10].fill(2);
    model.0[2 * MIB as usize..2 * MIB as usize + 10].fill(3);
    model.assert_is(&*disks[0]);
    disks.iter().for_each(|disk| disk.keep_point());
    drop(disks);
    let guest = Guest::start(&lab, &DISKS);
    assert_eq!([guest.bitmaps(0).len(), guest.bitmaps(1).len()], [1, 1]);
}

#[test]
fn an_nbd_server_of_somebody_else_is_left_alone() {
    let lab = Lab::new();
    let guest = two_disks(&lab);
    let inventory = lab.inventory_with_guest(&DISKS);
    let path = lab.path("theirs");
    let address = json!({"addr": {"type": "unix", "data": {"path": path}}});
    guest.ask("nbd-server-start", address);
    for exported in [false, true] {
        if exported {
            let export = json!({"type": "nbd", "id": "theirs", "node-name": "node0"});
            guest.ask("block-export-add", export);
        }
        let error = try_open(&lab, &inventory).err().expect("refused");
        assert_eq!(error.kind(), Kind::Conflict);
        let text = "the NBD server in the QEMU of web-1 is in use by another program";
        assert_eq!(error.to_string(), text);
        inventory.clean_up();
        UnixStream::connect(&path).expect("it still listens");
    }
    assert_eq!([guest.bitmaps(0).len(), guest.bitmaps(1).len()], [0, 0]);
    guest.ask("block-export-del", json!({"id": "theirs", "mode": "hard"}));
    crate::common::guest::wait_until("the end of their export", || {
        guest.ask("query-block-exports", json!({})) == json!([])
    });
    assert_eq!(guest.leftovers(), ["the NBD server"]);
    drop(try_open(&lab, &inventory).unwrap());
    assert_eq!(guest.leftovers(), [""; 0]);
}

/// A small file system in memory, mounted until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Nothing, with the reason printed, where this machine cannot do it.
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", &format!("size={size}"), "cairn-test"];
        let done = Command::new("mount")
            .args(mount)
            .arg(folder.path())
            .output();
        match done {
            Ok(output) if output.status.success() => Some(Self(folder)),
            failed => {
                println!("not tested: mount did not work: {failed:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
        assert!(done.unwrap().success());
    }
}

#[test]
fn a_full_scratch_file_ends_the_backup_and_not_the_guest() {
    let Some(small) = SmallDisk::new("160M") else {
        return;
    };
    let lab = Lab::within(small.0.path());
    lab.qcow2("a.qcow2", "64M");
    let guest = Guest::start(&lab, &["a.qcow2"]);
    let mut model = Model::new(64 * MIB);
    model.write(&guest, 0, 1, 0, 64 * MIB);
    let inventory = lab.inventory_with_guest(&["a.qcow2"]);
    let disk = inventory.open_reader(lab.id("a.qcow2")).unwrap();
    let mut byte = [0];
    disk.read_at(63 * MIB, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    // Half of what is free is less than this.
    model.write(&guest, 0, 2, 0, 64 * MIB);
    let error = disk.read_at(63 * MIB, &mut byte).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("scratch file"), "{source}");
    drop(disk);
    assert_eq!(guest.leftovers(), [""; 0]);
    let disk = inventory.open_reader(lab.id("a.qcow2")).unwrap();
    model.assert_is(&*disk);
    drop(disk);
    // With even less room none is begun.
    fs::File::create(lab.path("full"))
        .unwrap()
        .write_all(&vec![1; 70 << 20])
        .unwrap();
    let error = inventory
        .open_reader(lab.id("a.qcow2"))
        .err()
        .expect("refused");
    assert_eq!(error.kind(), Kind::Exhausted);
    assert_eq!(guest.leftovers(), [""; 0]);
    assert_eq!(guest.bitmaps(0).len(), 0);
}

/// Somebody who listens where QEMU should, and does this with every connection.
fn impostor(path: PathBuf, answer: impl Fn(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap());
        }
    });
}

const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";

/// Answers `replies` lines as QEMU would, and then does something else.
fn like_qemu(stream: &UnixStream, replies: usize) -> BufReader<UnixStream> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    // Who asked may have given up already.
    let _ = stream.write_all(GREETING.as_bytes());
    for id in 1..=replies {
        let _ = reader.read_line(&mut String::new());
        let _ = writeln!(stream, "{{\"return\": {{}}, \"id\": {id}}}");
    }
    reader
}

type Impostor = Box<dyn Fn(UnixStream) + Send>;

#[test]
fn what_is_no_qemu_is_given_up_soon() {
    let flood = |mut stream: UnixStream, what: &[u8]| while stream.write_all(what).is_ok() {};
    let lab = Lab::new();
    DISKS.iter().for_each(|name| lab.qcow2(name, "4M"));
    let endless = vec![b'x'; 1 << 20];
    let impostors: Vec<(&str, Impostor)> = vec![
        ("silent", Box::new(crate::common::guest::drain)),
        ("closing", Box::new(drop)),
        (
            "endless line",
            Box::new(move |stream| flood(stream, &endless)),
        ),
        (
            "no JSON",
            Box::new(move |stream| flood(stream, b"220 ready\r\n")),
        ),
        (
            "other JSON",
            Box::new(move |stream| flood(stream, b"{\"a\": 1}\n")),
        ),
        (
            "noise",
            Box::new(move |stream| flood(stream, &noise(1, 100_000))),
        ),
        (
            "mute after greeting",
            Box::new(|stream| {
                like_qemu(&stream, 0);
                crate::common::guest::drain(stream);
            }),
        ),
        (
            "only events",
            Box::new(move |stream| {
                like_qemu(&stream, 1);
                flood(stream, b"{\"event\": \"STOP\"}\n");
            }),
        ),
        (
            "wrong answers",
            Box::new(|stream| {
                like_qemu(&stream, 9);
                crate::common::guest::drain(stream);
            }),
        ),
        (
            "wrong numbers",
            Box::new(move |stream| {
                like_qemu(&stream, 1);
                flood(stream, b"{\"return\": [], \"id\": 77}\n");
            }),
        ),
    ];
    std::thread::scope(|threads| {
        for (number, (what, answer)) in impostors.into_iter().enumerate() {
            let path = lab.path(&format!("qmp{number}"));
            impostor(path.clone(), answer);
            let lab = &lab;
            threads.spawn(move || {
                let inventory = lab.inventory_with_qmp(&DISKS, &path, None);
                let start = Instant::now();
                let error = try_open(lab, &inventory).err().expect(what);
                assert_eq!(error.kind(), Kind::Transient, "{what}: {error}");
                let error = inventory.open_writer(lab.id(DISKS[0]), u64::MAX).err();
                assert_eq!(error.expect(what).kind(), Kind::Transient, "{what}");
                inventory.clean_up();
                assert!(start.elapsed() < Duration::from_secs(40), "{what}");
            });
        }
    });
}

/// Such a QEMU ends with an assertion when a client leaves.
#[test]
fn an_old_qemu_with_threads_is_left_alone() {
    let lab = Lab::new();
    DISKS.iter().for_each(|name| lab.qcow2(name, "4M"));
    impostor(lab.path("qmp"), |mut stream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let greeting = json!({"QMP": {"version": {"qemu": {"major": 8, "minor": 2}}}});
        let mut say = |what: serde_json::Value| writeln!(stream, "{what}").unwrap();
        say(greeting);
        lines.next();
        say(json!({"return": {}, "id": 1}));
        assert!(lines.next().unwrap().unwrap().contains("query-iothreads"));
        say(json!({"return": [{"id": "loop", "thread-id": 7}], "id": 2}));
        assert!(lines.next().is_none(), "nothing else is asked or done");
    });
    let inventory = lab.inventory_with_guest(&DISKS);
    let error = try_open(&lab, &inventory).err().expect("refused");
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("older than 9.0"), "{error}");
}

#[test]
fn where_nobody_listens_the_images_are_at_rest() {
    let lab = Lab::new();
    DISKS.iter().for_each(|name| lab.qcow2(name, "4M"));
    // The socket of a QEMU that is gone.
    drop(UnixListener::bind(lab.path("qmp")).unwrap());
    for socket in ["qmp", "nothing"] {
        let inventory = lab.inventory_with_qmp(&DISKS, &lab.path(socket), None);
        inventory.clean_up();
        let disks = try_open(&lab, &inventory).unwrap();
        Model::new(4 * MIB).assert_is(&*disks[1]);
        drop(disks);
        drop(inventory.open_writer(lab.id(DISKS[0]), u64::MAX).unwrap());
    }
}

/// What a backup of a disk keeps.
struct Copy {
    bytes: Vec<u8>,
    point: Option<Point>,
}

impl Copy {
    /// As the repository does it: what its change map says, or everything.
    fn back_up(&mut self, disk: &dyn DiskReader) -> Result<bool, cairn_types::disk::DiskError> {
        let changes = self.point.as_ref().map(|point| disk.changes_since(point));
        let (by_map, ranges) = match changes {
            Some(Ok(ranges)) => (true, ranges),
            _ => (false, std::iter::once(0..disk.size_bytes()).collect()),
        };
        for range in ranges {
            let place = range.start as usize..range.end.min(disk.size_bytes()) as usize;
            disk.read_at(range.start, &mut self.bytes[place])?;
        }
        disk.check_unchanged()?;
        self.point = disk.point();
        disk.keep_point();
        Ok(by_map)
    }
}

/// Kills QEMU between and in the middle of backups. `CAIRN_GUEST_KILLS` says how often.
#[test]
fn a_killed_qemu_makes_no_wrong_backup() {
    let kills = std::env::var("CAIRN_GUEST_KILLS").map_or(50, |kills| kills.parse().unwrap());
    let seed = std::env::var("CAIRN_SEED").map_or(7, |seed| seed.parse().unwrap());
    println!("CAIRN_SEED={seed}");
    let mut random = noise(seed, kills * 64).into_iter();
    let mut next = move |below: u64| u64::from(random.next().unwrap()) % below;
    let lab = Lab::new();
    DISKS.iter().for_each(|name| lab.qcow2(name, "16M"));
    let inventory = lab.inventory_with_guest(&DISKS);
    let mut models = [Model::new(16 * MIB), Model::new(16 * MIB)];
    let mut copies = [(); 2].map(|()| Copy {
        bytes: vec![0; 16 << 20],
        point: None,
    });
    let (mut by_map, mut in_full) = (0, 0);
    for kill in 0..kills {
        let mut guest = Guest::start(&lab, &DISKS);
        // At which of the steps below it is killed.
        let (rounds, step) = (1 + next(3), next(4));
        'guest: for round in 0..rounds {
            for (disk, model) in models.iter_mut().enumerate() {
                for _ in 0..next(4) {
                    let place = next(250) * SLOT;
                    model.write(&guest, disk, next(256) as u8, place + next(9), 3 * SLOT);
                }
                guest.io(disk, "flush");
            }
            let last = round + 1 == rounds;
            if last && step == 0 {
                break;
            }
            let disks = open_all(&lab, &inventory, &DISKS);
            for (number, (disk, copy)) in disks.iter().zip(&mut copies).enumerate() {
                if last && step == 1 + number as u64 {
                    guest.kill();
                }
                match copy.back_up(&**disk) {
                    Ok(true) => by_map += 1,
                    Ok(false) => in_full += 1,
                    Err(_) if last && step > 0 => {
                        // What was read before is of no use.
                        (copy.bytes, copy.point) = (vec![0; 16 << 20], None);
                        break 'guest;
                    }
                    Err(error) => panic!("kill {kill}: {error}"),
                }
                assert!(copy.bytes == models[number].0, "kill {kill}, disk {number}");
            }
        }
        guest.kill();
        // Now and then it is backed up while nobody has it open.
        if next(3) == 0 {
            let disks = try_open(&lab, &inventory).unwrap();
            for (number, (disk, copy)) in disks.iter().zip(&mut copies).enumerate() {
                copy.back_up(&**disk).unwrap();
                assert!(copy.bytes == models[number].0, "at rest after kill {kill}");
            }
        }
    }
    assert!(
        by_map > kills / 4 && in_full > kills / 2,
        "{by_map} and {in_full}"
    );
}

const SLOT: u64 = 64 << 10;

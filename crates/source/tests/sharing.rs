//! Cairn and other programs at the same images.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cairn_types::Kind;

use crate::common::{Lab, MIB, noise};

/// How long a test waits for another program.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Another program that has an image open for writing, as a running QEMU has.
struct Guest(Child);

impl Guest {
    fn start(lab: &Lab, name: &str) -> Self {
        let format = if name.ends_with(".qcow2") {
            "qcow2"
        } else {
            "raw"
        };
        let socket = lab.path(&format!("{name}.guest"));
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--format", format, "--socket"]);
        command
            .arg(&socket)
            .arg(lab.path(name))
            .stderr(Stdio::null());
        let guest = Self(command.spawn().unwrap());
        // It greets when it has opened, and so locked, the image.
        wait_until("the guest's start", || {
            let stream = UnixStream::connect(&socket);
            stream
                .and_then(|mut stream| stream.read_exact(&mut [0; 18]))
                .is_ok()
        });
        guest
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The process ids of the children of this process that serve `path`.
fn servers_of(path: &std::path::Path) -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file));
        let (Ok(stat), Ok(line)) = (read("stat"), read("cmdline")) else {
            continue;
        };
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(&own) && line.contains(&*path.to_string_lossy()) {
            found.push(pid);
        }
    }
    found
}

fn two_images(lab: &Lab) -> [&'static str; 2] {
    lab.create("a.img", 0)
        .write_all_at(&noise(1, 3 << 20), 0)
        .unwrap();
    lab.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "a.img", "b.qcow2"]);
    ["a.img", "b.qcow2"]
}

#[test]
fn an_image_that_a_guest_writes_is_neither_read_nor_written() {
    let lab = Lab::new();
    for name in two_images(&lab) {
        let id = lab.id(name);
        let guest = Guest::start(&lab, name);
        let read = lab.inventory().open_reader(id).err().expect("refused");
        assert_eq!(read.kind(), Kind::Conflict, "{read}");
        assert_eq!(
            read.to_string(),
            format!("the image {name} is in use by another program")
        );
        let written = lab
            .inventory()
            .open_writer(id, u64::MAX)
            .err()
            .expect("refused");
        assert_eq!(written.kind(), Kind::Conflict, "{written}");
        drop(guest);
        lab.writer(name).flush().unwrap();
    }
}

#[test]
fn a_guest_cannot_start_while_its_disk_is_read_or_written() {
    let lab = Lab::new();
    for name in two_images(&lab) {
        let format = if name.ends_with(".qcow2") {
            "qcow2"
        } else {
            "raw"
        };
        let starts = || {
            let mut command = Command::new("qemu-io");
            command
                .args(["-f", format, "-c", "write 0 512"])
                .arg(lab.path(name));
            command.output().unwrap().status.success()
        };
        let reader = lab.reader(name);
        assert!(!starts(), "{name} is being read");
        drop(reader);
        let writer = lab.writer(name);
        assert!(!starts(), "{name} is being written");
        drop(writer);
        assert!(starts(), "{name} is free");
    }
}

#[test]
fn backups_share_an_image_and_a_restore_is_alone() {
    let lab = Lab::new();
    for name in two_images(&lab) {
        let id = lab.id(name);
        let inventory = lab.inventory();
        let (one, two) = (lab.reader(name), lab.reader(name));
        assert_eq!(
            inventory
                .open_writer(id, u64::MAX)
                .err()
                .expect("refused")
                .kind(),
            Kind::Conflict
        );
        drop((one, two));
        let writer = lab.writer(name);
        assert_eq!(
            inventory.open_reader(id).err().expect("refused").kind(),
            Kind::Conflict
        );
        assert_eq!(
            inventory
                .open_writer(id, u64::MAX)
                .err()
                .expect("refused")
                .kind(),
            Kind::Conflict
        );
        drop(writer);
        lab.reader(name).check_unchanged().unwrap();
    }
}

#[test]
fn a_server_that_dies_gives_errors_to_every_thread() {
    let lab = Lab::new();
    let [_, name] = two_images(&lab);
    let disk = lab.writer(name);
    let [pid] = servers_of(&lab.path(name))[..] else {
        panic!("one server")
    };
    std::thread::scope(|threads| {
        let readers: Vec<_> = (0..8)
            .map(|_| {
                threads.spawn(|| {
                    let mut buffer = vec![0; MIB as usize];
                    let start = Instant::now();
                    while disk.read_at(0, &mut buffer).is_ok() {
                        assert!(start.elapsed() < PATIENCE, "the dead server still answers");
                    }
                })
            })
            .collect();
        Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .status()
            .unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert!(disk.write_at(0, &[1]).is_err());
    assert!(disk.write_zeroes(0, 4096).is_err());
    assert!(disk.flush().is_err());
    drop(disk);
    lab.reader(name)
        .check_unchanged()
        .expect("the next server starts");
}

#[test]
fn a_server_ends_with_its_disk() {
    let lab = Lab::new();
    let [_, name] = two_images(&lab);
    let disk = lab.reader(name);
    assert_eq!(servers_of(&lab.path(name)).len(), 1);
    drop(disk);
    assert_eq!(servers_of(&lab.path(name)), [0; 0]);
}

#[test]
fn a_disk_that_has_grown_is_cut_to_the_size_it_had() {
    let lab = Lab::new();
    for name in two_images(&lab) {
        let id = lab.id(name);
        let before = lab.reader(name).size_bytes();
        let after = before - 512 * 3;
        let writer = lab.inventory().open_writer(id, after).unwrap();
        assert_eq!(writer.size_bytes(), after, "{name}");
        writer.flush().unwrap();
        drop(writer);
        assert_eq!(lab.reader(name).size_bytes(), after, "{name}");
        let writer = lab.inventory().open_writer(id, before).unwrap();
        assert_eq!(writer.size_bytes(), after, "{name} does not grow");
    }
}
